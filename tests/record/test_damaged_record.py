"""A record that was damaged: every verb names the command that goes on without the damaged part, and it does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cxrprep.record.record import Record
from tests.collection.hints import commands_in
from tests.commands import cxrprep, ok, result
from tests.generators.small import nih_chestxray14
from tests.sample import some
from tests.servers import s3

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
    some(
        [
            (IN_ROOT, [LOCK], "empty"), (IN_ROOT, [LOCK], "cut short"), (IN_ROOT, [LOCK], "gone"),
            (IN_ROOT, [FILES], "gone"), (IN_ROOT, [FILES], "flipped"), (IN_ROOT, [LOCK, FILES], "cut"),
            (IN_STATE, [FILES], "gone"), (IN_STATE, [LOCK], "cut"),
        ],
        one_in=2,
    ),
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


@pytest.mark.slow
def test_in_a_bucket_the_damaged_part_stays_there_too(
    made: Path, amazon: s3.S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**amazon.environment, **s3.KEYS, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    root = made / "root"
    held = {f"root/{path.relative_to(root).as_posix()}": path for path in root.rglob("*") if path.is_file()}
    objects = {name: path.read_bytes() for name, path in held.items() if "/.cxrprep/" not in name}
    damaged = objects[f"root/{FILES}"] = objects[f"root/{FILES}"][:-200]
    bucket = amazon.bucket(objects, public=False)
    address = f"s3://{bucket}/root"
    assert f"cxrprep verify {address} --repair" in cxrprep("status", address).stderr
    ok("verify", address, "--repair")
    ok("verify", address)
    kept = amazon.client().get_object(Bucket=bucket, Key=f"root/.cxrprep/damaged/{FILES}")["Body"].read()
    assert kept == damaged
