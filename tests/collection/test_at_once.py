"""Two verbs that write, started together on one folder: both work or wait, one may end with exit 75, nothing is torn.

Each pair of ``VERBS`` on each kind of folder is played with ``CXR_ALL`` set, and a few without.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest

from cxrprep.cli.main import run
from cxrprep.manifest.export.run import ExportResult, ExportTask
from cxrprep.storage import locks
from tests.collection.sequences import World, check, digests_are_true, known
from tests.collection.worlds import release
from tests.commands import cxrprep, ok, start
from tests.sample import ALL, some

NAME: Final = "nih-chestxray14"
VERBS: Final = {
    "download": f"download {NAME} KIND --source mirror", "adopt": f"download {NAME} KIND --source KIND",
    "verify": "verify KIND", "repair": "verify KIND --repair --source mirror", "labels": "extract-labels KIND",
    "reports": "extract-labels KIND --reports reports1.csv --evidence",
    "import": "extract-labels KIND --import theirs=theirs1.csv",
    "import others": "extract-labels KIND --import others=theirs2.csv",
    "convert": "convert KIND --recipe square-224 --out new -j 1",
    "again": "convert raw --recipe square-224 --out KIND -j 1",
    "manifest": "manifest KIND", "split": "manifest KIND --split-by patient", "folds": "manifest KIND --folds 2",
    "export": "export KIND --format csv --out exported", "report": "report KIND",
    "pairs": "pairs KIND --reports reports1.csv", "duplicates": "duplicates KIND",
}  # fmt: skip
RAW: Final = set(VERBS) - {"again"}
KINDS: Final = {
    "raw": RAW, "fetched": RAW,
    "own": RAW - {"download", "adopt", "repair", "labels"},
    "converted": set(VERBS) - {"download", "adopt", "repair", "labels", "reports", "import", "import others"},
}  # fmt: skip
EVERY: Final = [
    (kind, pair) for kind, verbs in KINDS.items() for pair in itertools.combinations_with_replacement(sorted(verbs), 2)
]
SOME: Final = [
    ("raw", ("import", "import others")), ("own", ("manifest", "reports")),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = release(NAME, tmp_path_factory.mktemp("made"))
    ok("convert", "raw", "--recipe", "square-224", "--out", "converted", cwd=home)
    ok("manifest", "own", cwd=home, env={"XDG_STATE_HOME": str(home / "key")})
    ok("download", NAME, "fetched", "--source", "mirror", cwd=home)
    ok("extract-labels", "fetched", cwd=home)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = shutil.copytree(made, tmp_path / "home")
    monkeypatch.setenv("XDG_STATE_HOME", str(made / "key"))
    monkeypatch.chdir(home)
    return home


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "pair"), EVERY if ALL else SOME)
def test_two_verbs_at_once(home: Path, kind: str, pair: tuple[str, str]) -> None:
    world = World(home, NAME, random.Random(0))
    before = known(world)
    commands = [[kind if word == "KIND" else word for word in VERBS[verb].split()] for verb in pair]
    ended = [(run.communicate(timeout=120), run.returncode) for run in [start(*words) for words in commands]]
    # Folds are not lost unasked, whichever came first.
    wrong = [said for said, code in ended if code not in (0, 75) and not (code == 2 and "would lose" in said[1])]
    assert not wrong, ended
    now = known(world)
    check(world, before, now, tuple(itertools.chain(*commands)))
    digests_are_true(world, now)
    left = [path for path in home.rglob("*") if path.suffix in (".tmp", ".before", ".part")]
    assert not [*left, *home.rglob("writing"), *home.rglob("saving")]
    ok("verify", kind)
    if set(pair) == {"import", "import others"} and not any(code for _, code in ended):
        held = pq.read_table(home / kind / "manifests/labels.parquet")["label_source"].to_pylist()
        assert {"theirs", "others"} <= set(held)
    for words in commands:
        done = cxrprep(*words)
        assert not done.returncode or "would lose" in done.stderr, done


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Another thread writes the tables of this folder meanwhile."""
    taken, end = threading.Event(), threading.Event()

    def other() -> None:
        with locks.writing_tables(folder / ".cxrprep"):
            taken.set()
            end.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert taken.wait(60)
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_the_parts_of_a_job_array_do_not_wait_for_each_other(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_WAIT_SECONDS", 0.2)
    rows = [f"s{number},No effusion." for number in range(40)]
    (home / "many.csv").write_text("\n".join(["study_id,report", *rows]), encoding="utf-8")
    words = ["extract-labels", "raw", "--reports", "many.csv", "--shard"]
    with writing(home / "raw"):
        assert "still to come" in ok(*words, "2/2")
    assert "all shards" in ok(*words, "1/2")


@pytest.mark.parametrize("verb", ["manifest", "split", "import", "duplicates", "pairs", "again"])
def test_who_waits_for_the_tables_for_long_is_told_by_whom(
    home: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    kind = "converted" if verb == "again" else "raw"
    monkeypatch.setattr(locks, "_WAIT_SECONDS", 0.2)
    tables = {path: path.read_bytes() for path in (home / kind / "manifests").iterdir()}
    words = [kind if word == "KIND" else word for word in VERBS[verb].split()]
    with writing(home / kind):
        done = cxrprep(*words)
    assert (done.returncode, f"{kind} is being worked on by process {os.getpid()}" in done.stderr) == (75, True), done
    assert {path: path.read_bytes() for path in (home / kind / "manifests").iterdir()} == tables
    ok(*words)
    assert not list(home.rglob("writing"))


@pytest.mark.parametrize(("form", "out"), [("csv", "new"), ("csv", "new/table.csv"), ("hf", "new")])
def test_two_exports_into_one_folder_wait_for_each_other(
    home: Path, monkeypatch: pytest.MonkeyPatch, form: str, out: str
) -> None:
    """Both read what is there before they write: the second took the first one's card for a stranger's, exit code 2."""
    monkeypatch.setattr(locks, "_WAIT_SECONDS", 0.2)
    words, others = ["export", "raw", "--format", form, "--out", out], list[int]()
    write = importlib.import_module(f"cxrprep.manifest.export.{form}").export

    def meanwhile(task: ExportTask) -> ExportResult:
        if not others:
            others.append(0)
            thread = threading.Thread(target=lambda: others.append(run([*words, "--quiet"])))
            thread.start()
            thread.join(60)
        return write(task)

    monkeypatch.setattr(f"cxrprep.manifest.export.{form}.export", meanwhile)
    ok(*words)
    assert others == [0, 75]
    ok(*words)
    assert not (home / "new/.cxrprep").exists()


def test_what_was_done_before_the_tables_were_another_s_stays_and_the_same_again_lists_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_WAIT_SECONDS", 0.0)
    convert = ["convert", "raw", "--recipe", "square-224", "--out", "part"]
    ok(*convert, "--limit", "2")
    next((home / "fetched/images").iterdir()).unlink()
    download = ["download", NAME, "fetched", "--source", "mirror"]
    for folder, words in (("part", convert), ("fetched", download)):
        with writing(home / folder):
            done = cxrprep(*words)
        assert (done.returncode, "then run the same again: what is done stays" in done.stderr) == (75, True), done
        images = {path: path.stat().st_mtime_ns for path in (home / folder).rglob("*.png")}
        assert len(images) == 7
        ok(*words)
        assert {path: path.stat().st_mtime_ns for path in images} == images
        assert pq.read_metadata(home / folder / "manifests/images.parquet").num_rows == 7
        ok("verify", folder)


# Stopped where everything was read and nothing is written yet; a lock is looked at each time, as after a long sleep.
_SLEEPER = """
import sys, time
from pathlib import Path
from cxrprep.cli.main import run
from cxrprep.storage import locks, table_checksums

name, marks = sys.argv[1], Path(sys.argv[2])
locks._ASLEEP_SECONDS = -1.0
replace = table_checksums.replace_file
def slow(path, *more):
    if path.name == name and not (marks / "ready").exists():
        (marks / "ready").touch()
        while not (marks / "go").exists():
            time.sleep(0.01)
    return replace(path, *more)
table_checksums.replace_file = slow
sys.exit(run(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("verb", "name", "other"),
    some(
        [
            ("import", "labels.parquet", "import others"),
            ("manifest", "images.parquet", "split"),
            ("pairs", "pairs.parquet", "duplicates"),
            ("export", ".cxrprep-export.json", "export"),
        ],
        one_in=2,
    ),
)
def test_a_writer_of_tables_that_slept_finds_them_another_s_and_writes_nothing(
    home: Path, verb: str, name: str, other: str
) -> None:
    """Stopped for longer than its lock is honoured, it took away what the other one wrote meanwhile, exit code 0."""
    theirs, ours = (["raw" if word == "KIND" else word for word in VERBS[one].split()] for one in (verb, other))
    marks = home / "marks"
    marks.mkdir()
    sleeper = subprocess.Popen(
        [sys.executable, "-c", _SLEEPER, name, str(marks), *theirs], stderr=subprocess.PIPE, text=True
    )
    while not (marks / "ready").exists():
        assert sleeper.poll() is None
        time.sleep(0.01)
    sleeper.send_signal(signal.SIGSTOP)
    try:
        place = home / ("exported" if verb == "export" else "raw")
        past = time.time() - 200
        os.utime(place / ".cxrprep/writing/whole", (past, past))
        ok(*ours)
        written = [*place.glob("manifests/*.parquet"), *place.glob("*.csv"), *place.glob(".cxrprep-export.json")]
        after = {path: path.read_bytes() for path in written}
        (marks / "go").touch()
    finally:
        sleeper.send_signal(signal.SIGCONT)
    said = sleeper.communicate(timeout=60)[1]
    assert (sleeper.returncode, "was suspended, and another one has taken the folder over" in said) == (75, True), said
    assert {path: path.read_bytes() for path in after} == after
    assert not [*home.rglob("*.tmp"), *home.rglob("writing")]
    # The hint: it is done where it is run again.
    assert not (done := cxrprep(*theirs)).returncode or "would lose" in done.stderr
