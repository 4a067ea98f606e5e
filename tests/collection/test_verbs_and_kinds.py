"""Every verb over every kind of folder: it works, or says with exit code 2 what the folder is and which command can.

``VERBS`` is the whole table of what a verb may not do. A refusal names the folder, comes before anything is written,
and what its hint says works.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest

import cxrprep as package
from cxrprep.errors import CxrprepError
from tests.collection.hints import commands_in
from tests.collection.sequences import files_and_times
from tests.collection.worlds import release
from tests.commands import Done, cxrprep, ok
from tests.sample import some, some_of_each
from tests.servers import s3

# The name of a kind, and its folder. One is a shared copy that may only be read.
KINDS: Final = {
    "raw": "raw", "read-only": "raw", "converted": "converted", "moved": "far/moved", "shards": "shards", "own": "own",
    "own converted": "own-made", "exported": "exported",
}  # fmt: skip
MADE: Final = {"converted", "moved", "shards", "own converted"}
# What only looks at a manifest has none to look at before ``manifest`` made one.
NO_MANIFEST: Final = {"read-only", "own", "exported"}
# Nobody drew boxes on images of one's own: nothing is selected.
NOTHING: Final = {("export KIND --format coco --out new", "own converted")}
# What only looks comes first: over a bucket all verbs follow each other.
VERBS: Final = {
    "verify KIND": set(),
    "status KIND": set(),
    "load KIND": NO_MANIFEST,
    "digest KIND": NO_MANIFEST,
    "prove DIGEST KIND": NO_MANIFEST,
    "report KIND": NO_MANIFEST,
    "duplicates KIND": NO_MANIFEST,
    "export KIND --format csv --out new": NO_MANIFEST,
    "export KIND --format csv --split-by patient --out new": NO_MANIFEST,
    "export KIND --format webdataset --out new": NO_MANIFEST,
    "export KIND --format coco --out new": NO_MANIFEST,
    "export KIND --format hf --out new": NO_MANIFEST,
    "export KIND --format original --out new": {*NO_MANIFEST, "own converted"},
    "pairs KIND --reports reports1.csv": NO_MANIFEST,
    "extract-labels KIND": {*MADE, "own", "exported"},
    "extract-labels KIND --reports reports1.csv": {*MADE, "exported"},
    "extract-labels KIND --import theirs=theirs1.csv": {*MADE, "exported"},
    "convert KIND --recipe square-224 --out new": {"shards", "exported"},
    "convert KIND --check-phi": {"shards", "exported"},
    "manifest KIND": {"exported"},
    "manifest KIND --split-by patient": {"shards", "exported"},
    "manifest KIND --folds 2": {"shards", "exported"},
    "verify KIND --repair --source mirror": {*MADE, "own", "exported"},
    "download nih-chestxray14 KIND --source mirror": {*MADE, "own", "exported"},
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


def code_of(verb: str, kind: str) -> int:
    return 8 if (verb, kind) in NOTHING else 2 if kind in VERBS[verb] else 0


def words_of(verb: str, folder: str, kind: str) -> list[str]:
    state = ["--state", "state"] if kind == "read-only" else []
    return [*(folder if word == "KIND" else word for word in verb.split()), *state]


def done(home: Path, words: list[str]) -> Done:
    """A verb as a user has it: ``load`` in Python, ``prove`` with the digest that ``digest`` prints."""
    if words[0] != "load":
        digest = cxrprep("digest", *words[2:], cwd=home).stdout.strip() if "DIGEST" in words else ""
        return cxrprep(*(digest or "0" * 64 if word == "DIGEST" else word for word in words), cwd=home)
    try:
        with contextlib.chdir(home):
            held = package.load(words[1], **dict([("state", words[3])] if "--state" in words else [])).to_pandas()
    except CxrprepError as error:
        return Done(error.exit_code, "", f"{error}\nHint: {error.hint}")
    return Done(0, f"{words[1]}: {len(held)} images", "")


@pytest.mark.parametrize(("verb", "kind"), some_of_each(VERBS, KINDS, one_in=5))
def test_a_verb_works_or_names_the_command_that_can(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, kind: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(made / "key"))
    home, folder = shutil.copytree(made, tmp_path / "home"), KINDS[kind]
    before = files_and_times(home)
    told = done(home, words_of(verb, folder, kind))
    assert told.returncode == code_of(verb, kind), (kind, told)
    assert not told.returncode or folder in told.stderr, (kind, told)
    if kind in VERBS[verb]:
        said, _, hint = told.stderr.partition("Hint:")
        assert folder in said, (kind, told.stderr)
        changed = [Path(name) for name, _ in files_and_times(home).items() - before.items()]
        # Logs are no change.
        wrote = [path for path in changed if path.is_file() and ".cxrprep" not in path.parts]
        assert not wrote, (kind, wrote)
        follow(home, verb, kind, " ".join(hint.split()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(["raw", "converted", "shards", "own", "own converted", "exported"], one_in=6))
def test_a_verb_answers_over_a_bucket_as_over_a_folder(
    made: Path, amazon: s3.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name, value in {**amazon.environment, **s3.KEYS, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(made / "key"))
    home, folder = shutil.copytree(made, tmp_path / "home"), KINDS[kind]
    held = {path.relative_to(made).as_posix(): path for path in (made / folder).rglob("*") if path.is_file()}
    bucket = amazon.bucket({name: path.read_bytes() for name, path in held.items()}, public=False)
    address, client = f"s3://{bucket}/{folder}", amazon.client()

    def objects() -> dict[str, str]:
        return {one["Key"]: one["ETag"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]}

    for verb, refused in VERBS.items():
        before = objects()
        told = done(home, words_of(verb, address, kind))
        assert told.returncode == code_of(verb, kind), (verb, told)
        assert verb.startswith("prove") or address in told.stdout + told.stderr, (verb, told)
        if kind in refused:
            assert objects() == before, verb
        shutil.rmtree(home / "new", ignore_errors=True)


def follow(home: Path, verb: str, kind: str, hint: str) -> None:
    """Do what a hint says, with the folder of the originals in its place; a sentence means the verb, elsewhere."""
    put = {
        "ORIGINAL": "own" if kind == "own converted" else "raw", "FILE": "reports1.csv", "RECIPE": "square-224",
        "DIR": "new",
    }  # fmt: skip
    commands, in_csv = commands_in(hint), re.sub(r"--format \w+", "--format csv", verb)
    if not commands:
        elsewhere = {
            "name the folder that was exported": "raw", "name another folder for the download": "new",
            "name another folder": "new", "use --format csv": KINDS[kind],
        }  # fmt: skip
        works(home, words_of(in_csv if "csv" in hint else verb, elsewhere[hint], ""))
    for command in commands:
        words = [put.get(word, word) for word in shlex.split(command)]
        if words == ["extract-labels", "own"]:
            words += ["--reports", "reports1.csv"]  # as the folder itself then says
        ok(*words, cwd=home)
    if kind in ("read-only", "own") and VERBS[verb] >= NO_MANIFEST:
        works(home, words_of(in_csv if kind == "own" else verb, KINDS[kind], kind))


def works(home: Path, words: list[str]) -> None:
    told = done(home, words)
    assert told.returncode == 0, (words, told)


@pytest.mark.parametrize("kind", ["raw", "own", "converted", "own converted"])
def test_folds_stand_beside_the_split_that_was_chosen_last(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Of a folder without a published split they were refused, and of a release its own split came back."""
    monkeypatch.setenv("XDG_STATE_HOME", str(made / "key"))
    root = shutil.copytree(made / KINDS[kind], tmp_path / "root")
    ok("manifest", root, "--split-by", "patient", "--fractions", "0.5,0.5")
    before = pq.read_table(root / "manifests/images.parquet").column("split").to_pylist()
    ok("manifest", root, "--folds", "2")
    after = pq.read_table(root / "manifests/images.parquet")
    assert after.column("split").to_pylist() == before
    # Whose pseudonyms are drawn anew may all come into one of the two.
    assert set(before) <= {"train", "validate"}
    assert set(after.column("fold").to_pylist()) == {0, 1}
