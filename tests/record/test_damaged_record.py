"""A record that was damaged: every verb names the command that goes on without the damaged part, and it does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cxrprep.record import Record
from tests.collection.hints import commands_in
from tests.commands import cxrprep, ok, result
from tests.generators.small import nih_chestxray14

LOCK, FILES = "cxrprep.lock", "cxrprep.files.parquet"


def flipped(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]


DAMAGES = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "flipped": lambda path: path.write_bytes(flipped(path.read_bytes())),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("made")
    nih_chestxray14.write(home / "mirror")
    ok("download", "nih-chestxray14", home / "root", "--source", home / "mirror", "--exclude", "*_001.png")
    ok("download", "nih-chestxray14", home / "lab", "--source", home / "mirror")
    shutil.rmtree(home / "lab/.cxrprep")
    for name in (LOCK, FILES):
        (home / "lab" / name).unlink()
    ok("download", "nih-chestxray14", home / "lab", "--source", home / "lab", "--state", home / "state")
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = shutil.copytree(made, tmp_path / "home")
    # The state folder names the root that it is of.
    (home / "state/.cxrprep/root").unlink()
    monkeypatch.chdir(home)
    return home


IN_ROOT, IN_STATE = ["root"], ["lab", "--state", "state"]


@pytest.mark.parametrize(
    ("words", "names", "damage"),
    [
        (IN_ROOT, [LOCK], "empty"), (IN_ROOT, [LOCK], "cut short"), (IN_ROOT, [LOCK], "gone"),
        (IN_ROOT, [FILES], "gone"), (IN_ROOT, [FILES], "flipped"), (IN_ROOT, [LOCK, FILES], "cut"),
        (IN_STATE, [FILES], "gone"), (IN_STATE, [LOCK], "cut"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_put_aside(made: Path, home: Path, words: list[str], names: list[str], damage: str) -> None:
    state = made / "state" if "--state" in words else None
    before = {path: path.read_bytes() for path in home.rglob("*.png")}
    for name in names:
        DAMAGES[damage](home / words[-1] / name)
    told = cxrprep("verify", *words)
    assert told.returncode in (0, 4), told
    if told.returncode:
        assert f"{words[-1]}/{names[0]}" in told.stderr
        for verb in (["status"], ["manifest"], ["convert", "--check-phi"]):
            assert cxrprep(verb[0], *words, *verb[1:]).stderr.partition("Hint:")[2] == told.stderr.partition("Hint:")[2]
        assert commands_in(told.stderr)[0].split()[: len(words) + 2] == ["verify", *words, "--repair"]
        ok("verify", *words, "--repair")
    ok("verify", *words)
    assert {path: path.read_bytes() for path in before} == before
    if names == [FILES]:
        # What the other part says stays.
        now = Record.open(Path(words[0]), state and Path("state"))
        assert now.selections == Record.open(made / words[0], state).selections != ()
    # Nothing that is here is fetched.
    asked = ("--exclude", "*_001.png") if words == ["root"] else ()
    again = result("download", "nih-chestxray14", *words, "--source", "mirror" if asked else "lab", *asked)
    assert (again["done"], again["kept"]) == (0, len(list(home.glob(f"{words[0]}/images/*"))) + 4)
    ok("verify", *words)


def test_dropped_originals_are_not_fetched_by_the_way(made: Path, tmp_path: Path) -> None:
    """The table that is lost is what says that they were dropped on purpose."""
    root = tmp_path / "root"
    ok("download", "nih-chestxray14", root, "--source", made / "mirror", "--then", "square-224", "--discard-raw")
    (root / FILES).unlink()
    again = cxrprep("verify", root, "--repair")
    assert (again.returncode, "goes on without cxrprep.files.parquet" in again.stderr) == (4, True), again
    assert not list(root.glob("images/*"))
    ok("download", "nih-chestxray14", root, "--then", "square-224", "--discard-raw")
    ok("verify", root)
