"""Random sequences of commands over folders of every kind, after each of which nothing may be known less.

Known is: every table below a folder's ``manifests``, its columns, its rows whose files are here, and each cell that is
not null. What a command asks for in so many words may go: labels with another source or policy.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow.parquet as pq

from tests.collection.commands import cxrprep

if TYPE_CHECKING:
    from pathlib import Path

TABLES: Final = ("images", "studies", "labels")
# What a command may change when it says so.
ASKED: Final = {"--label-source": "label", "--uncertain": "label", "--blank": "label"}
RECIPES: Final = ("square-224", "shortest-512")


@dataclass
class World:
    """Folders made so far, by name, and the commands that led there."""

    home: Path
    dataset: str
    rng: random.Random
    told: list[str] = field(default_factory=list)

    @property
    def raw(self) -> Path:
        """The release."""
        return self.home / "raw"

    def folders(self) -> list[Path]:
        """Every folder that has tables."""
        return sorted(path.parent for path in self.home.glob("**/manifests") if ".cxrprep" not in path.parts)

    def command(self) -> tuple[str, ...]:
        """A command, drawn from all verbs and all folders."""
        folder = str(self.rng.choice(self.folders() or [self.raw]))
        out = str(self.home / f"out{self.rng.randint(1, 3)}")
        convert = ("convert", folder, "--recipe", self.rng.choice(RECIPES), "--out", out)
        return self.rng.choice([
            ("manifest", folder),
            ("manifest", folder, "--split-by", "patient", "--fractions", "0.5,0.3,0.2"),
            ("manifest", folder, "--uncertain", "ones"),
            ("manifest", folder, "--dataset", self.rng.choice(["chexpert", "nih-chestxray14", "mimic-cxr-jpg"])),
            ("extract-labels", folder),
            ("extract-labels", folder, "--label-source", "nobody"),
            ("download", self.dataset, folder, "--source", folder),
            convert,
            (*convert, "--limit", "2"),
            (*convert, "--split", "test"),
            (*convert, "--to", self.rng.choice(["webdataset", "parquet"])),
            (*convert, "--shard", self.rng.choice(["1/2", "2/2"])),
            ("export", folder, "--format", "csv", "--out", str(self.home / "csv")),
            ("verify", folder),
            ("report", folder),
            ("status", folder),
        ])  # fmt: skip

    def accident(self) -> None:
        """What people do beside the program: move a folder, lose a cache or the labels."""
        folder = self.rng.choice(self.folders() or [self.raw])
        what = self.rng.choice(["cache", "labels", "move"])
        if what == "cache":
            shutil.rmtree(folder / ".cxrprep", ignore_errors=True)
        elif what == "labels":
            (folder / "manifests/labels.parquet").unlink(missing_ok=True)
        elif folder.name.startswith("out"):
            folder.rename(self.home / f"moved{len(self.told)}")
        self.told.append(f"({what}: {folder})")


def known(world: World) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Every table by folder and name: its rows by key, each with the cells that are not null."""
    found = {}
    for folder in world.folders():
        for name in TABLES:
            path = folder / f"manifests/{name}.parquet"
            if path.is_file():
                rows = pq.read_table(path).to_pylist()
                keyed = {
                    str((row.get("path") or row.get("image_id"), row["study_id"], row.get("label_source")
                         if name == "labels" else "")): {k: v for k, v in row.items() if v is not None}
                    for row in rows
                }  # fmt: skip
                found[str(folder), name] = keyed
    return found


def check(world: World, before: Any, words: tuple[str, ...]) -> None:
    """Nothing that was known before ``words`` is known less now."""
    free = tuple(prefix for option, prefix in ASKED.items() if option in words)
    # Back to the defaults, as the command's page says.
    free += ("label",) if words[0] == "manifest" else ()
    now = known(world)
    for (folder, name), rows in before.items():
        assert (folder, name) in now, (world.told, folder, name)
        for key, cells in rows.items():
            after = now[folder, name].get(key)
            if after is None:
                shards = "--to" in words and name != "labels"
                assert shards or not is_there(world, folder, cells), (world.told, folder, name, key)
                continue
            lost = {cell for cell in cells if cell not in after and not cell.startswith(free or ("-",))}
            lost -= {"table_name", "table_digest"} if free else set()
            assert not lost, (world.told, folder, name, key, lost)


def is_there(world: World, folder: str, cells: dict[str, Any]) -> bool:
    """Whether the file of a row, or its shard, is in the folder."""
    path = world.home / folder / str(cells.get("path", ""))
    return path.is_file() if "path" in cells else False


def play(world: World, steps: int) -> None:
    """A sequence of ``steps``; raises ``AssertionError`` that tells the commands."""
    for _ in range(steps):
        if world.rng.random() < 0.15:
            world.accident()
        words = world.command()
        before = known(world)
        done = cxrprep(*words, "-q")
        world.told.append(f"{' '.join(words)} -> {done.returncode}")
        assert done.returncode != 1, (world.told, done.stderr)
        if done.returncode == 0:
            check(world, before, words)
