"""Every hint and next step that names a command is followed: the command ends well, and what the hint was for goes.

The sentences are read from the source code: a new one has a case in ``hints.toml``, or a reason for none.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import tarfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import cxrprep as package
from cxrprep.storage.table_checksums import forget_checksum
from tests.collection.hints import commands_in, hints_of, options_of
from tests.collection.worlds import release
from tests.commands import cxrprep, ok

SAID: Final = tomllib.loads(Path(__file__).with_name("hints.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Case:
    """A sentence, X where something is put in, and the command that prints it in a folder that was damaged before.

    ``put`` are the words in capitals that a person replaces. What only ``shows`` something is followed, and nothing
    goes. What it ``does`` is said where a sentence goes on behind its command.
    """

    module: str
    hint: str
    command: str
    damage: tuple[str, ...] = ()
    put: dict[str, str] = field(default_factory=dict)
    shows: bool = False
    does: str = ""

    def found_in(self, text: str) -> str:
        """The hint as it was printed; nothing where it was not."""
        pattern = re.sub("X|ROOT|DATASET", ".*", re.escape(self.hint))
        found = re.search(pattern, re.sub(r"\n {6,}", " ", text))
        return found[0] if found else ""


def cases(said: dict[str, Any]) -> list[Case]:
    return [Case(**{**one, "damage": tuple(one.get("damage", ()))}) for one in said["case"]]


CASES: Final = cases(SAID)
OPTIONS: Final = tomllib.loads(Path(__file__).with_name("option_hints.toml").read_text(encoding="utf-8"))
OPTION_CASES: Final = cases(OPTIONS)


def without(path: Path, column: str) -> None:
    pq.write_table(pq.read_table(path).drop_columns([column]), path)


def twice(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)


def sevens(path: Path, column: str) -> None:
    table = pq.read_table(path)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array([7] * len(table), pa.int8())), path)


def pack(folder: Path) -> None:
    """The mirror beside ``folder`` once more, its images in an archive."""
    shutil.copytree(folder.parent / "mirror", folder, ignore=shutil.ignore_patterns("images"))
    with tarfile.open(folder / "images_001.tar.gz", "w:gz") as archive:
        archive.add(folder.parent / "mirror/images", "images")


DAMAGES: Final[dict[str, Callable[..., object]]] = {
    "gone": lambda path: path.unlink(),
    "junk": lambda path: path.write_bytes(b"no table at all"),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-60]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "more": lambda path, text: path.write_text(path.read_text() + text + "\n"),
    "text": lambda path, text: path.write_text(text),
    "without": without,
    "twice": twice,
    "pack": pack,
    "sevens": sevens,
    # A table that another program wrote; what is written in its list is not read at all where it was altered.
    "unlisted": lambda path: forget_checksum(path.parent, path.name),
    "release": lambda path, name: importlib.import_module(f"tests.generators.small.{name}").write(path),
    "gone_below": lambda path, names: [one.unlink() for one in path.rglob(names)],
    "folder": lambda path: path.mkdir(),
    "emptied": shutil.rmtree,
    "copied": lambda path, name: shutil.copyfile(path, path.parent / name),
    "word": lambda path, old, new: path.write_text(path.read_text().replace(old, new)),
    "frames": lambda path: Image.new("L", (64, 64)).save(
        path, save_all=True, append_images=[Image.new("L", (64, 64), 200)]
    ),
}


def run(home: Path, words: str, put: dict[str, str]) -> tuple[int, str]:
    """The exit code of a command and all that it says."""
    line = re.sub(r"\b[A-Z]{2,}\b", lambda found: put.get(found[0], found[0]), words)
    done = cxrprep(*shlex.split(line), cwd=home)
    failed = [pq.read_table(path, columns=["hint"])["hint"].to_pylist() for path in home.rglob("failures.parquet")]
    return done.returncode, "\n".join([done.stdout, done.stderr, *map(str, failed)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = release("nih-chestxray14", tmp_path_factory.mktemp("hints"))
    ok("convert", "raw", "--recipe", "square-224", "--out", "made", cwd=folder)
    ok("download", "nih-chestxray14", "fetched", "--source", "mirror", cwd=folder)
    ok("export", "made", "--format", "csv", "--out", "exported", cwd=folder)
    ok("datasets", "new", "ward.toml", "fetched", cwd=folder)
    # Its patients have pseudonyms of a key that no test has.
    ok("convert", "own", "--recipe", "square-224", "--out", "own-made", cwd=folder)
    (folder / "job.toml").write_text('dataset = "nih-chestxray14"\nroot = "raw"\n[download]\nsource = "mirror"\n')
    (folder / "nothing.toml").write_text('root = "raw"\n')
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "home")


def damage(home: Path, case: Case) -> None:
    for one in case.damage:
        what, rest = one.split(" ", 1)
        if what == "run":
            ok(*shlex.split(rest), cwd=home)
        else:
            path, *more = shlex.split(rest)
            DAMAGES[what](home / path, *more)


@pytest.mark.parametrize("case", OPTION_CASES, ids=lambda case: f"{case.module}: {case.hint[:60]}")
def test_an_option_that_a_hint_names_leads_on(home: Path, case: Case) -> None:
    damage(home, case)
    code, said = run(home, case.command, {})
    assert (code != 0, bool(case.found_in(said))) == (True, True), said
    code, text = run(home, case.does, {})
    assert code == 0, (case.does, text)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.module}: {case.hint[:60]}")
def test_a_hint_is_followed(made: Path, home: Path, case: Case) -> None:
    put = {**case.put, **({"DIGEST": ok("digest", "raw", cwd=made).strip()} if "DIGEST" in case.command else {})}
    damage(home, case)
    _, said = run(home, case.command, put)
    hint = case.found_in(said)
    assert hint, said
    for command in [case.does] if case.does else commands_in(hint):
        code, text = run(home, command, put)
        # A check that finds what it was to find has done its work.
        checks = command.startswith(("verify", "datasets check")) and "--repair" not in command
        assert code == 0 or (code == 4 and checks), (command, text)
    if not case.shows:
        code, said = run(home, case.command, put)
        assert (code, case.found_in(said)) == (0, ""), said


@pytest.mark.parametrize("how", ["junk", "without"])
@pytest.mark.parametrize("table", ["raw images", "raw labels", "made images", "made labels"])
def test_verify_names_the_command_that_makes_a_table_again(home: Path, table: str, how: str) -> None:
    """A table of ours that another program wrote, or that is no table at all."""
    folder, name = table.split()
    path = home / folder / f"manifests/{name}.parquet"
    DAMAGES[how](path, *(["label_source"] if how == "without" else []))
    command = f"export {folder} --format original" if name == "labels" else f"report {folder}"
    code, said = run(home, command, {})
    assert (code, "cxrprep verify names the command" in said) == (4, True), said
    done = cxrprep("verify", folder, "--json", cwd=home)
    found = json.loads(done.stdout or "{}").get("findings", [{"path": name, "hint": done.stderr}])
    again = [command for one in found if name in one["path"] for command in commands_in(one["hint"])]
    assert again, (done.stdout, done.stderr)
    for command_again in again:
        code, text = run(home, command_again, {"ORIGINAL": "raw"})
        assert code == 0, text
    code, said = run(home, command, {})
    assert code == 0, said


def test_of_each_hint_there_is_a_case_or_a_reason() -> None:
    base = Path(package.__file__).parent
    modules = {path.relative_to(base).with_suffix("").as_posix(): path for path in sorted(base.rglob("*.py"))}
    said = {(name, text.strip()) for name, path in modules.items() for text in hints_of(path) if commands_in(text)}
    reasons = SAID["no_case"]
    known = {(case.module, case.hint) for case in CASES}
    known |= {(name, text) for name, texts in reasons.items() if isinstance(texts, dict) for text in texts}
    assert sorted(one for one in said - known if not isinstance(reasons.get(one[0]), str)) == []
    assert sorted(one for one in known - said if commands_in(one[1])) == []


def test_of_each_hint_that_names_an_option_there_is_a_case_or_a_reason() -> None:
    base = Path(package.__file__).parent
    said = {
        f"{path.relative_to(base).with_suffix('').as_posix()}: {text}"
        for path in sorted(base.rglob("*.py"))
        for text in options_of(path)
    }
    known = {f"{case.module}: {case.hint}" for case in OPTION_CASES}
    known |= {one for texts in OPTIONS["no_case"].values() for one in texts}
    assert (sorted(said - known), sorted(known - said)) == ([], [])
