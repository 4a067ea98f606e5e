"""Every verb over every kind of folder: it works, or says with exit code 2 what the folder is and which command can.

``REFUSED`` is the whole table of what a verb may not do. A refusal names the folder, comes before anything is written,
and what its hint says works.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.collection.hints import commands_in
from tests.collection.sequences import files_and_times
from tests.collection.worlds import release
from tests.commands import cxrprep, ok
from tests.servers import s3

# The name of a kind, and its folder. One is a shared copy that may only be read.
KINDS: Final = {
    "raw": "raw", "read-only": "raw", "converted": "converted", "moved": "far/moved", "shards": "shards", "own": "own",
    "own converted": "own-made", "exported": "exported",
}  # fmt: skip
MADE: Final = {"converted", "moved", "shards", "own converted"}
# What only looks at a manifest has none to look at before ``manifest`` made one.
NO_MANIFEST: Final = {"read-only", "own", "exported"}
VERBS: Final = {
    "verify KIND": set(),
    "extract-labels KIND": {*MADE, "own", "exported"},
    "extract-labels KIND --reports reports1.csv": {*MADE, "exported"},
    "extract-labels KIND --import theirs=theirs1.csv": {*MADE, "exported"},
    "convert KIND --recipe square-224 --out new": {"shards", "exported"},
    "convert KIND --check-phi": {"shards", "exported"},
    "manifest KIND": {"exported"},
    "manifest KIND --split-by patient": {"shards", "exported"},
    "export KIND --format csv --out new": NO_MANIFEST,
    "pairs KIND --reports reports1.csv": NO_MANIFEST,
    "duplicates KIND": NO_MANIFEST,
    "digest KIND": NO_MANIFEST,
    "report KIND": NO_MANIFEST,
    "status KIND": set(),
    "verify KIND --repair --source mirror": {*MADE, "own", "exported"},
    "download nih-chestxray14 KIND --source mirror": {*MADE, "exported"},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = release("nih-chestxray14", tmp_path_factory.mktemp("kinds"))
    ok("convert", "raw", "--recipe", "square-224", "--out", "converted", cwd=home)
    shutil.copytree(home / "converted", home / "far/moved")
    ok("convert", "raw", "--recipe", "square-224", "--out", "shards", "--to", "webdataset", cwd=home)
    # The key of the pseudonyms lies there.
    key = {"XDG_STATE_HOME": str(home / "key")}
    ok("convert", "own", "--recipe", "square-224", "--out", "own-made", cwd=home, env=key)
    ok("export", "raw", "--format", "csv", "--out", "exported", cwd=home)
    return home


def words_of(verb: str, folder: str, kind: str) -> list[str]:
    state = ["--state", "state"] if kind == "read-only" else []
    return [*(folder if word == "KIND" else word for word in verb.split()), *state]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_works_or_names_the_command_that_can(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(made / "key"))
    for number, (kind, folder) in enumerate(KINDS.items()):
        home = shutil.copytree(made, tmp_path / str(number))
        before = files_and_times(home)
        done = cxrprep(*words_of(verb, folder, kind), cwd=home)
        assert done.returncode == (2 if kind in VERBS[verb] else 0), (kind, done)
        if kind in VERBS[verb]:
            said, _, hint = done.stderr.partition("Hint:")
            assert folder in said, (kind, done.stderr)
            changed = [Path(name) for name, _ in files_and_times(home).items() - before.items()]
            # Logs are no change.
            wrote = [path for path in changed if path.is_file() and ".cxrprep" not in path.parts]
            assert not wrote, (kind, wrote)
            follow(home, verb, kind, " ".join(hint.split()))


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_answers_over_a_bucket_as_over_a_folder(
    made: Path, amazon: s3.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    for name, value in {**amazon.environment, **s3.KEYS, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(made, tmp_path / "home")
    # Each verb with one of them: what a verb makes of a kind is shown above.
    kind = ("converted", "exported")[[*VERBS].index(verb) % 2]
    held = {path.relative_to(made).as_posix(): path for path in (made / kind).rglob("*") if path.is_file()}
    address = f"s3://{amazon.bucket({name: path.read_bytes() for name, path in held.items()}, public=False)}/{kind}"
    done = cxrprep(*words_of(verb, address, kind), cwd=tmp_path / "home")
    assert done.returncode == (2 if kind in VERBS[verb] else 0), (kind, done)
    assert address in done.stdout + done.stderr, (kind, done)


def follow(home: Path, verb: str, kind: str, hint: str) -> None:
    """Do what a hint says, with the folder of the originals in its place; a sentence means the verb, elsewhere."""
    put = {
        "ORIGINAL": "own" if kind == "own converted" else "raw", "FILE": "reports1.csv", "RECIPE": "square-224",
        "DIR": "new",
    }  # fmt: skip
    commands = commands_in(hint)
    if not commands:
        elsewhere = {"name the folder that was exported": "raw", "name another folder for the download": "new"}
        ok(*words_of(verb, elsewhere[hint], ""), cwd=home)
    for command in commands:
        words = [put.get(word, word) for word in shlex.split(command)]
        if words == ["extract-labels", "own"]:
            words += ["--reports", "reports1.csv"]  # as the folder itself then says
        ok(*words, cwd=home)
    if kind in ("read-only", "own") and VERBS[verb] is NO_MANIFEST:
        ok(*words_of(verb, KINDS[kind], kind), cwd=home)
