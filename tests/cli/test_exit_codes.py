"""A test for each row of the table of exit codes, on real files, real servers and real signals."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cxrprep.cli.output import MEANINGS
from cxrprep.errors import ExitCode
from tests.commands import PROGRAM, cxrprep
from tests.integration.mirrors import phantom
from tests.servers.faults import serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom(tmp_path_factory.mktemp("mirror") / "nih", patients=6, size=64)


@pytest.fixture(scope="module")
def made(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "nih"
    home = {"HOME": str(root.parent)}
    assert cxrprep("download", "nih-chestxray14", root, "--source", mirror, "-q", env=home).returncode == 0
    assert cxrprep("extract-labels", root, "-q", env=home).returncode == 0
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A whole folder of one's own."""
    return Path(shutil.copytree(made, tmp_path / "nih"))


def said(code: ExitCode, *words: object, **options: Any) -> str:
    """What the command says on standard error; it must have ended with ``code``."""
    done = cxrprep(*words, **options)
    assert done.returncode == int(code), f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stderr


def test_every_code_has_a_meaning_that_says_what_to_do() -> None:
    assert set(MEANINGS) == set(ExitCode)
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 75, 130, 143]


def test_0_done_and_0_again_when_there_is_nothing_to_do(root: Path, mirror: Path) -> None:
    said(ExitCode.DONE, "download", "nih-chestxray14", root, "--source", mirror)
    assert said(ExitCode.DONE, "download", "nih-chestxray14", root, "--source", mirror, "--quiet") == ""


def test_1_a_bug_names_the_file_with_the_details(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("x")

    monkeypatch.setattr("cxrprep.api.status.status", broken)
    text = said(ExitCode.BUG, "status", root, env={"XDG_STATE_HOME": str(tmp_path)})
    assert "ZeroDivisionError: x (a bug in cxrprep)" in text
    assert "the people who gave you cxrprep" in text
    (log,) = tmp_path.rglob("*status*.log")
    assert str(log) in text
    assert "ZeroDivisionError" in log.read_text()


def test_2_a_package_that_the_installation_lacks_is_named_and_no_bug(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'pathspec'", name="pathspec.patterns")

    monkeypatch.setattr("cxrprep.api.status.status", broken)
    text = said(ExitCode.USAGE, "status", root)
    assert "the Python package pathspec is needed and not installed" in text
    assert "pip install ." in text


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "--imges"),
        ("download", "nih-chestxray15", "x"),
        ("run", "nowhere.toml"),
        ("convert", "x"),
        ("verify", "nowhere"),
    ],
    ids=" ".join,
)
def test_2_usage(words: tuple[str, ...], tmp_path: Path) -> None:
    assert "Hint:" in said(ExitCode.USAGE, *words, cwd=tmp_path)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("convert",), "cxrprep convert /data/nih --recipe square-224"),
        (("duplicates",), "cxrprep duplicates /data/nih"),
        (("export", "x", "--format", "cvs"), "did you mean csv?"),
        (("convert", "x", "--workers", "4"), "did you mean --jobs?"),
        (("extract-labels", "x", "--labeler", "openai"), "add --reports"),
        (("extract-labels", "x", "--evidence"), "add --reports"),
        (("extract-labels", "x", "--also", "c.csv"), "--compare A B --also C"),
        (("extract-labels", "x", "--key", "id"), "--compare or --import"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_2_says_what_to_type_instead(words: tuple[str, ...], wanted: str, tmp_path: Path) -> None:
    assert wanted in said(ExitCode.USAGE, *words, cwd=tmp_path)


def test_2_configuration_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('dataset = "chexpert"\n[download]\nsorce = "kaggle"\n')
    text = said(ExitCode.USAGE, "run", "job.toml", cwd=tmp_path)
    assert "job.toml, line 3: unknown key 'download.sorce'" in text
    assert "did you mean source?" in text


def test_3_some_items_failed_and_the_others_are_done(root: Path) -> None:
    image = min((root / "images").glob("*.png"))
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    done = cxrprep("convert", root, "--recipe", "square-224", "--json")
    assert done.returncode == int(ExitCode.PARTIAL), done.stderr
    answer = json.loads(done.stdout)
    assert answer["failed"] == 1
    assert answer["converted"] == len(list((root / "images").glob("*.png"))) - 1
    assert (root / "derived" / "square-224" / "manifests" / "failures.parquet").is_file()


def test_4_integrity(root: Path) -> None:
    table = root / "BBox_List_2017.csv"
    data = bytearray(table.read_bytes())
    data[60] ^= 1
    table.write_bytes(data)
    done = cxrprep("verify", root)
    assert done.returncode == int(ExitCode.INTEGRITY)
    assert "BBox_List_2017.csv" in done.stdout
    assert "exit code 4" in done.stdout


def test_5_access(tmp_path: Path) -> None:
    with serving({"/x": b""}, login=("reader", "secret")) as server:
        text = said(ExitCode.ACCESS, "download", "mimic-cxr-jpg", "r", "--source", f"{server.url}files/", cwd=tmp_path)
    assert "Hint:" in text
    assert "secret" not in text


def test_6_unreachable(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        # Bound and not listening: nobody else gets the port, and every connection is refused.
        address = f"http://127.0.0.1:{held.getsockname()[1]}/"
        text = said(ExitCode.UNREACHABLE, "download", "nih-chestxray14", "r", "--source", address, cwd=tmp_path)
    assert "127.0.0.1" in text


def test_7_storage_a_file_where_the_folder_should_be(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "r").write_text("not a folder")
    text = said(ExitCode.STORAGE, "download", "nih-chestxray14", "r/nih", "--source", mirror, cwd=tmp_path)
    assert "Hint:" in text


def test_8_the_selection_matched_nothing(made: Path, tmp_path: Path) -> None:
    words = ("download", "nih-chestxray14", "r", "--source", made, "--patients", "00000001")
    assert "Hint:" in said(ExitCode.NOTHING_SELECTED, *words, cwd=tmp_path)
    # A part of a job array to which no image falls has done all that there is to do.
    words = ("convert", made, "--recipe", "square-224", "--out", "o", "--shard", "1/999983")
    said(ExitCode.DONE, *words, cwd=tmp_path)
    assert "no image" in said(ExitCode.NOTHING_SELECTED, *words, "--include", "nowhere*", cwd=tmp_path)


def _slow(root: Path, address: str) -> subprocess.Popen[str]:
    """A download that is at work and will not end soon."""
    process = subprocess.Popen(
        [PROGRAM, "download", "nih-chestxray14", str(root), "--source", address, "--events", "jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if '"ItemStarted"' in line:
            return process
    raise AssertionError(process.communicate())


def _files(mirror: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in mirror.iterdir()}


def test_75_another_run_holds_the_folder(mirror: Path, tmp_path: Path) -> None:
    with serving(_files(mirror), drip=(500, 1.0)) as server:
        process = _slow(tmp_path / "r", server.url)
        try:
            words = ("download", "nih-chestxray14", tmp_path / "r", "--source", mirror)
            text = said(ExitCode.BUSY, *words)
        finally:
            process.kill()
            process.communicate()
    assert str(process.pid) in text or socket.gethostname() in text


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGHUP, ExitCode.TERMINATED),
    ],
)
def test_130_and_143_keep_what_is_partial_and_say_how_to_go_on(
    number: signal.Signals, code: ExitCode, mirror: Path, tmp_path: Path
) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, as under nohup, and by every program that is started")
    with serving(_files(mirror), drip=(500, 1.0)) as server:
        process = _slow(tmp_path / "r", server.url)
        time.sleep(0.3)
        process.send_signal(number)
        _, text = process.communicate(timeout=60)
    assert process.returncode == int(code), text
    # The first line may be half of one: what came with the line that was waited for is in its reader.
    last = json.loads(text.splitlines()[-1])
    assert last["event"] == "Error"
    assert last["hint"].startswith("go on with the same command: cxrprep download")
    said(ExitCode.DONE, "download", "nih-chestxray14", tmp_path / "r", "--source", mirror)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory"),
        (OSError(errno.ENOMEM, "x"), "not enough memory"),
        (OSError(errno.EMFILE, "x"), "may not open more files"),
        (OSError(errno.ENOSPC, "x"), "free some space, then"),
        (OSError(errno.EACCES, "x"), "make it readable and writable, then"),
    ],
)
def test_7_what_the_machine_gives_too_little_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, said: str
) -> None:
    def too_little(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("cxrprep.api.status.open_folder", too_little)
    done = cxrprep("status", tmp_path)
    assert (done.returncode, said in done.stderr, "Hint:" in done.stderr) == (7, True, True), done.stderr


@pytest.mark.parametrize("name", ["x" * 300, "taken/below", "loop", "loop/below", os.fsdecode(b"ward \xff")])
@pytest.mark.parametrize("words", ["convert ROOT --recipe square-224 --out", "download nih-chestxray14 --source ROOT"])
def test_a_path_that_nothing_can_be_called_by_is_no_bug(root: Path, tmp_path: Path, words: str, name: str) -> None:
    (tmp_path / "taken").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    done = cxrprep(*(root if word == "ROOT" else word for word in words.split()), tmp_path / name)
    assert (done.returncode in (2, 7), "Hint:" in done.stderr) == (True, True), done.stderr
    assert "a bug" not in done.stderr


def test_an_error_that_nobody_reads_keeps_its_exit_code(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        ["bash", "-c", f"exec {PROGRAM} status nosuch --json"], stdout=writer, stderr=writer, cwd=tmp_path, check=False
    )
    assert done.returncode == ExitCode.USAGE
    os.close(writer)


def test_work_that_nobody_reads_of_goes_on_and_keeps_its_exit_code(root: Path) -> None:
    """``verify | head`` ended with 0 whatever was found, and ``convert 2>&1 | head`` with nothing converted."""
    (root / "BBox_List_2017.csv").write_text("altered")
    reader, writer = os.pipe()
    os.close(reader)
    for words, code in (
        ("verify", 4),
        ("convert --recipe square-224 --jobs 1", 0),
        ("--help", 0),
        ("verify --help", 0),
    ):
        line = [PROGRAM, *words.split(), *([str(root)] if "--help" not in words else [])]
        assert subprocess.run(line, stdout=writer, stderr=writer, check=False).returncode == code, words
    os.close(writer)
    assert (root / "derived/square-224/manifests/images.parquet").is_file()
    # A look that is repeated ends with its reader.
    min((root / "images").iterdir()).unlink()
    watched = f"timeout 20 {PROGRAM} status {root} --watch --every 0.1 | head -1; exit ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", watched], capture_output=True, check=False).returncode == 0


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{PROGRAM} datasets show mimic-cxr | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0
    assert done.stderr == ""
    # One that is gone before the first line.
    reader, writer = os.pipe()
    os.close(reader)
    gone = subprocess.run(
        ["bash", "-c", f"exec {PROGRAM} datasets"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        env=dict(os.environ),
    )
    os.close(writer)
    assert (gone.returncode, b"Error" in gone.stderr) == (0, False)


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container under a number that no list of users has."""

    def nobody(_: int) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    done = cxrprep("datasets")
    assert (done.returncode, "set HOME" in done.stderr) == (2, True), done
