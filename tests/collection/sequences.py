"""Random sequences of commands over folders of every kind, after each of which nothing may be known less.

Known is: every table below a folder's ``manifests``, its columns, its rows whose files are here, and each cell that is
not null; what the record lists; the bytes of originals and of converted images. It holds for commands that fail, too.
What a command asks for in so many words may go: labels with another source or policy, a split with a rule. Digests are
those of the files, and ``verify`` finds what was damaged.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import random
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow.parquet as pq

import cxrprep as package
from cxrprep.errors import CxrprepError
from tests.collection.hints import commands_in, to_follow, why_not
from tests.commands import Done, cxrprep

TABLES: Final = (
    "images", "studies", "labels", "headers", "report_labels", "mentions", "masks", "pairs", "near_duplicates",
)  # fmt: skip
# A table that one verb makes anew each time is that verb's to change.
_OWN_VERB: Final = {"pairs": "pairs", "near_duplicates": "duplicates", "mentions": "extract-labels"}
# What a command may change when it says so.
ASKED: Final = {
    "--label-source": "label", "--uncertain": "label", "--blank": "label", "--derive": "label",
    "--split-by": "split", "--split-within": "split", "--folds": "split", "--reports": "label", "--import": "label",
    "--strict-source": "label",
}  # fmt: skip
RECIPES: Final = ("square-224", "shortest-512")
EXPORTS: Final = ("csv", "coco", "webdataset", "hf", "original")
_IMAGES: Final = (".png", ".jpg", ".dcm", "")
# Of a report's labels each run has its own: only that of the same source is replaced.
_KEYS: Final = {
    "labels": ("image_id", "study_id", "label_source"),
    "report_labels": ("study_id", "label_source"),
    "masks": ("image_id", "label", "reader", "label_source"),
}


class Store(Protocol):
    """A bucket whose objects are copied into a folder after each command."""

    def addressed(self, word: str) -> str:
        """The word, with the bucket's address in the place of that folder."""

    def fetch(self) -> None:
        """Make the folder what the bucket is."""

    def put(self) -> None:
        """Make the bucket what the folder is."""


@dataclass
class World:
    """Folders made so far, by name, and the commands that led there.

    ``dataset`` is the name of the release in ``raw``; ``own`` are images of one's own, ``mirror`` is what ``raw`` came
    from. ``shared`` is a release that may only be read. What lies in ``store`` is looked at in ``bucket``.
    """

    home: Path
    dataset: str
    rng: random.Random
    told: list[str] = field(default_factory=list)
    store: Store | None = None
    folders: list[Path] = field(default_factory=list)
    exports: list[Path] = field(default_factory=list)

    @property
    def shared(self) -> Path:
        """A lab's copy of the release, that nobody may change: its record lies in ``shared-state``."""
        return self.home / "shared"

    def run(self, *words: str) -> Done:
        """A command, with the address where a path means the bucket."""
        done = cxrprep(*(words if self.store is None else map(self.store.addressed, words)))
        if self.store is not None:
            self.store.fetch()
        return done

    @property
    def raw(self) -> Path:
        """The release."""
        return self.home / "raw"

    @property
    def originals(self) -> list[Path]:
        """Folders of images as they came."""
        names = ("raw", "own", "mirror", "fetched", "shared", "bucket/fetched")
        return [folder for name in names if (folder := self.home / name).is_dir()]

    def look(self) -> None:
        """Find every folder that has tables, and every folder of exports."""
        self.folders, self.exports = [], []
        for place, below, names in os.walk(self.home):
            below[:] = sorted(name for name in below if name != ".cxrprep")
            self.folders += [Path(place)] * ("manifests" in below)
            self.exports += [Path(place)] * (".cxrprep-export.json" in names)

    def _selection(self) -> tuple[str, ...]:
        return self.rng.choice([
            (), (), ("--limit", "2"), ("--split", "test"), ("--view", "frontal"), ("--sample", "3", "--seed", "1"),
            ("--exclude", "*_001*"), ("--label", "Cardiomegaly"), ("--where", "age_years>=50"),
        ])  # fmt: skip

    def _choices(self) -> tuple[str, ...]:
        return self.rng.choice([
            (), (), ("--uncertain", "ones"), ("--blank", "zeros"), ("--derive",), ("--label-source", "nobody"),
            ("--split-by", "patient", "--fractions", "0.5,0.3,0.2"), ("--split-by", "patient", "--stratify", "Edema"),
            ("--split-by", "patient", "--folds", "3"), ("--label-source", "theirs"), ("--label-source", "cxrprep"),
            ("--uncertain", "ignore", "--blank", "zeros", "--derive"), ("--folds", "2"),
            ("--split-within", "train_val", "--fractions", "0.7,0.3"), ("--split-within", "train", "--folds", "2"),
        ])  # fmt: skip

    def _text(self) -> tuple[str, ...]:
        return self.rng.choice([(), (), ("--text", "findings"), ("--text", "findings,impression", "--paired")])

    def command(self) -> tuple[str, ...]:
        """A command, drawn from all verbs, their options and all folders."""
        pick, home = self.rng.choice, self.home
        folder = str(pick([*self.folders, *self.originals, *self.exports]))
        # Labels are mostly asked of a release: elsewhere they are refused.
        labelled = pick([str(self.raw), str(self.raw), folder])
        place = home if self.store is None else pick([home, home / "bucket"])
        out = str(place / f"out{self.rng.randint(1, 4)}")
        state = pick([(), (), (), ("--state", str(place / "state"))])
        convert = ("convert", folder, "--recipe", pick(RECIPES), "--out", out)
        fetched, mirror = str(place / "fetched"), str(home / "mirror")
        download = ("download", self.dataset, fetched, "--source", mirror)
        number = self.rng.randint(1, 2)
        other = str(pick([*self.folders, *self.originals, *self.exports]))
        plan = str(home / "plan.json")
        verbs: list[list[tuple[str, ...]]] = [
            [
                ("manifest", folder, *self._choices(), *state),
                ("manifest", folder, "--dataset", pick(["chexpert", "nih-chestxray14", "mimic-cxr-jpg"])),
                ("manifest", folder, "--tables", other),
            ],
            [
                ("extract-labels", labelled, *self._choices(), *state),
                ("extract-labels", labelled, *pick([("--report-text",), ("--strict-source",), ("--demographics",)])),
                ("extract-labels", labelled, "--dataset", pick([self.dataset, "own", "chexpert"])),
                ("extract-labels", labelled, "--tables", str(pick(self.originals))),
                (
                    "extract-labels",
                    labelled,
                    "--reports",
                    str(home / f"reports{number}.csv"),
                    *pick(
                        [
                            (),
                            ("--evidence",),
                            ("--vocabulary", str(home / "words.toml")),
                            ("--sections", "impression"),
                            ("--policy", "strict"),
                            ("--compat", "chexpert-labeler"),
                            ("--report-text",),
                        ]
                    ),
                ),
                ("extract-labels", labelled, "--import", f"theirs={home / f'theirs{number}.csv'}"),
                ("extract-labels", labelled, "--import", f"others={home / f'theirs{number}.csv'}", *state),
                ("extract-labels", labelled, "--label-source", pick(["theirs", "cxrprep", "nobody"])),
                ("extract-labels", labelled, "--compare", str(home / "theirs1.csv"), str(home / "theirs2.csv")),
                ("extract-labels", labelled, "--shard", "1/2", "--reports", str(home / "reports1.csv")),
            ],
            [
                ("pairs", labelled, "--reports", str(home / f"reports{number}.csv"), *state),
                ("pairs", labelled, "--reports", str(home / "reports1.csv"), "--per", "image"),
                ("pairs", folder, "--format", "csv", "--out", str(home / "pairs.csv")),
                ("duplicates", folder, *state),
                ("duplicates", folder, "--against", other, "--least", "0.5"),
            ],
            [
                ("download", self.dataset, folder, "--source", folder),
                ("download", self.dataset, folder, "--source", other),
                (*download, *self._selection()),
                (*download, "--shard", pick(["1/2", "2/2"])),
                (*download, "--then", pick(RECIPES)),
                (*download, "--then", "square-224", "--discard-raw"),
                ("download", self.dataset, folder, "--source", mirror, "--then", pick(RECIPES), "--discard-raw"),
                ("download", self.dataset, folder, "--source", folder, "--state", str(home / "adopted")),
                (*download, "--link", pick(["hardlink", "symlink"])),
                (*download, "--keep-archives"),
                (*download, "--save-plan", plan),
                ("download", self.dataset, fetched, "--from-plan", plan),
                (*download, "--dry-run"),
            ],
            [
                (*convert, *self._selection()),
                ("convert", folder, "--recipe", pick(RECIPES), *self._selection(), *state),
                ("convert", folder, "--recipe", pick(RECIPES), "--out", other),
                (*convert, "--to", pick(["webdataset", "parquet"]), "--per-shard", pick(["2", "1000"])),
                (*convert, "--to", "webdataset", *self._selection()),
                (*convert, "--shard", pick(["1/2", "2/2"])),
                (*convert, "--shard", pick(["1/2", "2/2"]), "--to", "webdataset", "--per-shard", "2"),
                (*convert, "--max-bytes", "3000"),
                (*convert, *pick([("--frame", "1"), ("--scores",), ("--fix", "inverted,rotated")])),
                (*convert, "--dataset", pick([self.dataset, "own"])),
                (*convert, "--to", "parquet", "--shard", pick(["1/2", "2/2"])),
                ("run", str(home / f"{pick(['raw', 'fetched'])}.toml"), *pick([(), (), ("--dry-run",)])),
                (*convert, "--preview", "2"),
                ("convert", folder, "--check-phi"),
            ],
            [
                ("export", folder, "--format", pick(EXPORTS), "--out", str(home / f"export{number}"), *self._text()),
                ("export", folder, "--format", pick(EXPORTS), *self._choices(), *self._selection()),
                ("export", folder, "--format", pick(EXPORTS), "--out", other),
                ("export", folder, "--format", "csv", "--out", str(home / f"export{number}/labels.csv"), *state),
                ("export", folder, "--format", pick(EXPORTS), "--observations", "Edema,Pneumonia"),
            ],
            [
                ("verify", folder, *pick([("--images",), ("--quick",), ("--duplicates",), ("--shard", "1/2")]), *state),
                ("verify", folder, *state),
                ("verify", folder, *pick([("--strict",), ("--complete",), ("--sample", "2"), ("--accept", "extra")])),
                ("prove", "0" * 64, folder, *state),
                ("load", folder),
                ("verify", folder, "--repair", "--source", mirror),
                ("report", folder, *state),
                ("report", folder, "--beside", other),
                ("digest", folder, *self._choices(), *self._text(), *state),
                ("status", folder, *state),
                ("status", folder, other),
            ],
        ]
        return self._reading_only(pick(pick(verbs)))

    def _reading_only(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """The command as somebody gives it who may not write into ``shared``."""
        shared = str(self.shared)
        if "--out" in words and words[words.index("--out") + 1] == shared:
            return self.command()
        root = words[2:3] if words[0] in ("download", "prove") else words[1:2]
        if root != (shared,) or words[0] in ("load", "run") or "--state" in words:
            return words
        return (*words, "--state", f"{shared}-state")

    def write(self, path: Path, data: bytes) -> None:
        """What somebody else writes into a file."""
        path.write_bytes(data)
        if self.store is not None:
            self.store.put()

    def accident(self) -> None:
        """What people do beside the program: move a folder, lose a cache, the record or the labels, remove an image."""
        folder = self.rng.choice([one for one in (*self.folders, *self.originals) if one != self.shared])
        what = self.rng.choice(["cache", "labels", "record", "move", "image", "shard", "copy", "table", "sums", "csv"])
        if what == "cache":
            shutil.rmtree(folder / ".cxrprep", ignore_errors=True)
        elif what == "labels":
            (folder / "manifests/labels.parquet").unlink(missing_ok=True)
        elif what == "table":
            (folder / f"manifests/{self.rng.choice(TABLES)}.parquet").unlink(missing_ok=True)
        elif what == "sums":
            (folder / "manifests/SHA256SUMS").unlink(missing_ok=True)
        elif what == "csv" and folder.name != "mirror":
            # A published table goes; that of another folder stays.
            self._remove(folder, (".csv", ".gz"))
        elif what == "record":
            for name in ("cxrprep.lock", "cxrprep.files.parquet"):
                (folder / name).unlink(missing_ok=True)
        elif what == "image":
            self._remove(folder, _IMAGES[:3])
        elif what == "shard":
            self._remove(folder, (".tar",))
        elif folder.name.startswith(("out", "moved")):
            place = folder.with_name(f"moved{len(self.told)}")
            _ = folder.rename(place) if what == "move" else shutil.copytree(folder, place)
        if self.store is not None:
            self.store.put()
        self.told.append(f"({what}: {folder})")

    def _remove(self, folder: Path, suffixes: tuple[str, ...]) -> None:
        here = [path for path in files(folder) if path.suffix in suffixes]
        if here and folder.name != "mirror":
            self.rng.choice(here).unlink()


def files(folder: Path) -> list[Path]:
    """The images and shards of a folder, without what the program keeps beside them."""
    found = []
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if name not in ("manifests", ".cxrprep", "derived", "export")]
        found += [Path(place, name) for name in names if not name.startswith((".", "cxrprep."))]
    return sorted(path for path in found if path.is_file())


def files_and_times(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of everything below a folder."""
    every = ((path, path.lstat()) for path in folder.rglob("*"))
    return {str(path): (found.st_size, found.st_mtime_ns) for path, found in every}


@dataclass
class Known:
    """What is known: tables by folder and name, each row by its key; records; the bytes of images."""

    tables: dict[tuple[str, str], dict[str, dict[str, Any]]]
    columns: dict[tuple[str, str], frozenset[str]]
    records: dict[str, dict[str, str]]
    images: dict[str, str]
    exported: dict[str, str]


def known(world: World) -> Known:
    """Every table by folder and name, its rows by key, each with the cells that are not null; records; images."""
    world.look()
    tables, columns = {}, {}
    for folder in world.folders:
        for name in TABLES:
            path = folder / f"manifests/{name}.parquet"
            if path.is_file():
                columns[str(folder), name], tables[str(folder), name] = _table(path, name, *_version(path))
    records = {}
    for path in (*world.home.glob("*/cxrprep.files.parquet"), *world.home.glob("bucket/*/cxrprep.files.parquet")):
        rows = pq.read_table(path, columns=["path", "digest"]).to_pylist()
        records[str(path.parent)] = {row["path"]: row["digest"] for row in rows}
    places = dict.fromkeys([*world.originals, *world.folders])
    images = {str(path): _sha(path) for folder in places for path in files(folder) if path.suffix in _IMAGES}
    exported = {str(path): _sha(path) for folder in world.exports for path in files(folder) if folder.name != "raw"}
    return Known(tables, columns, records, images, exported)


def _version(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@functools.lru_cache(maxsize=1024)
def _table(path: Path, name: str, *_version: int) -> tuple[frozenset[str], dict[str, dict[str, Any]]]:
    held = pq.read_table(path)
    rows = {str(_key(name, row)): {k: v for k, v in row.items() if v is not None} for row in held.to_pylist()}
    return frozenset(held.column_names), rows


def _sha(path: Path) -> str:
    return _digest(path, *_version(path))


@functools.lru_cache(maxsize=4096)
def _digest(path: Path, *_version: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _key(name: str, row: dict[str, Any]) -> tuple[Any, ...]:
    if name in _KEYS:
        return tuple(row.get(part) for part in _KEYS[name])
    # A path may name no study, and the image's own name stand for it until the release's tables are read.
    return (row["path"],) if row.get("path") else (row.get("image_id"), row.get("study_id"))


def check(world: World, before: Known, now: Known, words: tuple[str, ...]) -> None:
    """Nothing that was known before ``words`` is known less now."""
    free = tuple(prefix for option, prefix in ASKED.items() if option in words)
    # Back to the defaults, as the command's page says.
    free += ("label", "split") if words[0] == "manifest" else ()
    if words[0] == "extract-labels":
        # A split that was made by a rule follows the labels; report labels are those of the last run.
        free += ("label",) if "--import" in words or "--reports" in words else ()
    for path, digest in before.images.items():
        dropped = "--discard-raw" in words and "/fetched/" in path
        repaired = {"--repair", "download"} & set(words) and "/fetched/" in path
        if path not in now.images:
            assert dropped, (world.told, "an image is gone", path)
        elif now.images[path] != digest:
            made = re.match(rf"{re.escape(str(world.home))}/(?:bucket/)?(?:out|moved)", path) or "/derived/" in path
            assert repaired or (made and words[0] in ("convert", "download", "run")), (world.told, "other bytes", path)
    for path, digest in before.exported.items():
        ours = words[0] in ("export", "convert", "run")
        assert ours or now.exported.get(path) == digest, (world.told, "an export", path)
    for folder, rows in before.records.items():
        lost = set(rows) - set(now.records.get(folder, {}))
        assert not lost, (world.told, "the record lost", folder, lost)
    for (folder, name), rows in before.tables.items():
        assert (folder, name) in now.tables, (world.told, folder, name)
        if words[0] == _OWN_VERB.get(name):
            continue
        gone = before.columns[folder, name] - now.columns[folder, name]
        gone = {column for column in gone if not column.startswith(free or ("-",))}
        assert not gone, (world.told, folder, name, "columns", gone)
        for key, cells in rows.items():
            after = now.tables[folder, name].get(key)
            if after is None:
                shards = "--to" in words and name != "labels"
                replaced = free and name in ("labels", "report_labels")
                assert shards or replaced or not is_there(world, folder, cells), (world.told, folder, name, key)
                continue
            lost = {cell for cell in cells if cell not in after and not cell.startswith(free or ("-",))}
            lost -= {"table_name", "table_digest"} if free else set()
            assert not lost, (world.told, folder, name, key, lost)


def is_there(world: World, folder: str, cells: dict[str, Any]) -> bool:
    """Whether the file of a row, or its shard, is in the folder."""
    folder = folder.removesuffix("-state") if folder == f"{world.shared}-state" else folder
    path = world.home / folder / str(cells.get("path", ""))
    return path.is_file() if "path" in cells else False


def digests_are_true(world: World, now: Known) -> None:
    """No manifest states a digest that is not that of the file."""
    for (folder, name), rows in now.tables.items():
        for row in rows.values() if name == "images" else ():
            file = Path(folder, row["path"])
            if row.get("digest") and file.is_file():
                assert row["digest"] == f"sha256:{_sha(file)}", (world.told, "not its digest", file)


def damage_is_found(world: World) -> None:
    """A byte in one file of each folder that was made is turned over: ``verify`` finds it where the digest is known."""
    for folder in [*world.folders, *world.exports]:
        made = folder.name.startswith(("out", "moved", "export")) or folder.parent.name in ("derived", "export")
        here = [path for path in files(folder) if path.stat().st_size] if made else []
        done = world.run("verify", str(folder), "-q")
        if not here or done.returncode != 0:
            continue
        path = world.rng.choice(here)
        data = path.read_bytes()
        report = world.run("verify", str(folder), "--json")
        unproven = path.name == "croissant.json" and "../croissant.json" in report.stdout
        named = unproven or f'"{path.relative_to(folder).as_posix()}"' in report.stdout
        if named or path.name in ("README.md", "preview.html"):
            continue  # it is named as unproven or as no part of the folder, or a page to look at
        world.write(path, bytes([*data[:-1], data[-1] ^ 1]))
        done = world.run("verify", str(folder), "-q")
        world.write(path, data)
        assert done.returncode == 4, (world.told, "verify is content with", path, done.stdout)


def hints_are_commands(world: World, said: str) -> list[list[str]]:
    """The commands of a message that may be followed; each that it names is one that the command line takes."""
    for command in commands_in(said):
        assert not why_not(command), (world.told, "no command", command, why_not(command))
    return to_follow(said)


def digest_holds(world: World, words: tuple[str, ...]) -> None:
    """What ``digest`` printed ``prove`` confirms, with the same options."""
    told = json.loads(world.run(*words, "--json").stdout)
    found = told.get("digest")
    if isinstance(found, str):
        done = world.run("prove", found, *words[1:])
        assert done.returncode == 0, (world.told, "prove", found, done.stdout, done.stderr)


def verify_is_remembered(world: World, words: tuple[str, ...]) -> None:
    """``status`` does not say that a check which found faults is done."""
    state = words[words.index("--state") :][:2] if "--state" in words else ()
    told = json.loads(world.run("status", words[1], *state, "--json").stdout)
    held = [stage["state"] for stage in told.get("stages", ()) if stage["name"] == "verify"]
    assert "done" not in held, (world.told, "status says of verify", held)


def loaded(world: World, folder: str) -> Done:
    """What ``load`` of Python comes to, as a command would."""
    try:
        package.load(folder if world.store is None else world.store.addressed(folder)).to_pandas()
    except CxrprepError as error:
        return Done(error.exit_code, "", str(error))
    return Done(0, "", "")


def play(world: World, steps: int) -> None:
    """A sequence of ``steps``; raises ``AssertionError`` that tells the commands."""
    following: list[list[str]] = []
    before = known(world)
    shared = files_and_times(world.shared)
    for _ in range(steps):
        if world.rng.random() < 0.15:
            with contextlib.suppress(OSError):
                world.accident()
            before = known(world)
        # What the program says comes next is done now and then.
        follow = bool(following) and world.rng.random() < 0.6
        words = tuple(world.rng.choice(following)) if follow else world.command()
        done = loaded(world, words[1]) if words[0] == "load" else world.run(*words, "-q")
        world.told.append(f"{' '.join(words)} -> {done.returncode}{' (as a hint said)' if follow else ''}")
        assert done.returncode != 1, (world.told, done.stderr)
        following = hints_are_commands(world, done.stderr) if done.returncode else []
        before, was = known(world), before
        check(world, was, before, words)
        assert files_and_times(world.shared) == shared, (world.told, "a folder that is only read was written")
        digests_are_true(world, before)
        if words[0] == "digest" and not done.returncode:
            digest_holds(world, words)
        if words[0] == "verify" and done.returncode == 4 and "--shard" not in words:
            verify_is_remembered(world, words)
    damage_is_found(world)
