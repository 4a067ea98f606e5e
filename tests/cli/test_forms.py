"""One command in every form: for people, for machines, silent; on a terminal, in a pipe, on an old console."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from typing import Any

import click
import pytest

from cxrprep.api.result import Result
from cxrprep.cli.main import run
from cxrprep.cli.output import Output
from cxrprep.errors import ExitCode
from tests.commands import PROGRAM, cxrprep, ok
from tests.generators.small import nih_chestxray14
from tests.integration.mirrors import phantom
from tests.servers.faults import serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom(tmp_path_factory.mktemp("mirror") / "nih", patients=5, size=64)


@pytest.fixture(scope="module")
def made(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "nih"
    home = {"HOME": str(root.parent), "XDG_STATE_HOME": str(root.parent)}
    ok("download", "nih-chestxray14", root, "--source", mirror, "-q", env=home)
    ok("extract-labels", root, "-q", env=home)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "nih"))


COMMANDS: dict[str, tuple[str, ...]] = {
    "download": ("download", "nih-chestxray14", "ROOT", "--source", "MIRROR"),
    "dry-run": ("download", "nih-chestxray14", "ROOT", "--source", "MIRROR", "--dry-run"),
    "verify": ("verify", "ROOT"),
    "extract-labels": ("extract-labels", "ROOT"),
    "convert": ("convert", "ROOT", "--recipe", "square-224"),
    "manifest": ("manifest", "ROOT"),
    "export": ("export", "ROOT", "--format", "csv"),
    "status": ("status", "ROOT"),
    "report": ("report", "ROOT", "--images", "2"),
    "run": ("run", "JOB"),
}


def words_of(name: str, root: Path, mirror: Path) -> list[str]:
    job = root.parent / "job.toml"
    steps = '["download", "verify", "extract-labels", "manifest"]'
    job.write_text(f'dataset = "nih-chestxray14"\nroot = "{root}"\nsteps = {steps}\n[download]\nsource = "{mirror}"\n')
    places = {"ROOT": str(root), "MIRROR": str(mirror), "JOB": str(job)}
    return [places.get(word, word) for word in COMMANDS[name]]


Said = Callable[..., tuple[str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """The command within this process, which need not load everything anew; its two streams."""

    def call(*words: object) -> tuple[str, str]:
        capsys.readouterr()
        code = run(list(map(str, words)))
        streams = capsys.readouterr()
        assert code == 0, streams
        return streams.out, streams.err

    return call


@pytest.mark.parametrize("name", COMMANDS)
def test_each_form_says_what_it_should(name: str, root: Path, mirror: Path, said: Said) -> None:
    words = words_of(name, root, mirror)
    results, progress = said(*words)
    assert str(root) in results
    assert "\x1b" not in results + progress
    for line in progress.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [\w-]+: ", line), line

    document, progress = said(*words, "--json")
    answer = json.loads(document)
    assert answer["exit_code"] == 0
    assert answer["command"] == words[0]
    assert progress == ""
    assert said(*words, "--quiet") == ("", "")


@pytest.mark.parametrize("name", ["download", "verify", "extract-labels", "convert", "manifest", "export", "report"])
def test_events_are_json_lines_with_a_beginning_and_an_end(name: str, root: Path, mirror: Path, said: Said) -> None:
    results, lines = said(*words_of(name, root, mirror), "--events", "jsonl")
    events: list[dict[str, Any]] = [json.loads(line) for line in lines.splitlines()]
    assert all({"v", "time", "event", "stage"} <= event.keys() for event in events)
    assert all(event["v"] == 1 for event in events)
    of_stage = [event["event"] for event in events if event["stage"] == name and event["event"] != "Note"]
    assert of_stage[0] == "StageStarted"
    assert of_stage[-1] == "StageFinished"
    assert str(root) in results


def test_events_and_json_together_are_for_machines_alone(root: Path, said: Said) -> None:
    document, lines = said("verify", root, "--events", "jsonl", "--json")
    assert json.loads(document)["command"] == "verify"
    assert all(json.loads(line)["event"] for line in lines.splitlines())


# ---- the log ----


def test_the_log_has_versions_arguments_and_problems_and_no_secret(mirror: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in mirror.iterdir()}
    root = tmp_path / "nih"
    with serving(files, login=("reader", "opensesame")) as server:
        address = server.url.replace("http://", "http://reader:opensesame@") + "?sig=verysecret"
        cxrprep("download", "nih-chestxray14", root, "--source", address)
        cxrprep("download", "nih-chestxray14", root, "--source", server.url)
    ok("download", "nih-chestxray14", root, "--source", mirror)
    logs = sorted(tmp_path.rglob("*download*.log")) + sorted(Path(os.environ["XDG_STATE_HOME"]).rglob("*.log"))
    text = "".join(path.read_text(encoding="utf-8") for path in logs)
    assert re.search(r"^# cxrprep \d+\.\d+\.\d+, Python 3\.", text, re.MULTILINE)
    assert "# command: cxrprep download nih-chestxray14" in text
    assert "download: " in text
    assert "opensesame" not in text
    assert "verysecret" not in text


def test_the_log_may_be_put_elsewhere(root: Path, tmp_path: Path) -> None:
    ok("verify", root, "--log-file", tmp_path / "logs" / "night.log")
    assert "# command: cxrprep verify" in (tmp_path / "logs" / "night.log").read_text()


def test_only_the_last_fifty_logs_are_kept(root: Path) -> None:
    logs = root / ".cxrprep" / "logs"
    for number in range(60):
        (logs / f"20200101-0000{number:02d}-verify-1.log").write_text("old")
    ok("verify", root, "--quick")
    assert len(list(logs.glob("*.log"))) == 50
    assert "20200101-000000" not in "".join(path.name for path in logs.iterdir())


# ---- consoles ----


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437"])
def test_a_console_without_our_symbols_gets_words(encoding: str, root: Path) -> None:
    console = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([PROGRAM, "verify", str(root)], capture_output=True, check=False, env=console)
    assert done.returncode == 0
    assert done.stdout.decode(encoding).startswith("ok: Verified")


def test_colours_are_for_those_who_ask() -> None:
    plain = ok("datasets", "show", "chexpert", env={"NO_COLOR": ""})
    assert "\x1b" not in plain
    assert "\x1b[1m" in ok("datasets", "show", "chexpert", "--color", "always")


def on_terminal(*words: str, columns: int, env: dict[str, str] | None = None) -> str:
    """What a terminal of that width is sent, both streams."""
    outer, inner = pty.openpty()
    ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    here = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [PROGRAM, *words],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        env={**here, "TERM": "xterm-256color", **(env or {})},
    )
    os.close(inner)
    pieces = []
    end = time.monotonic() + 100
    while time.monotonic() < end:
        # In this order: what it said before it ended is there to be read.
        ended = process.poll() is not None
        ready, _, _ = select.select([outer], [], [], 0.2)
        if ready:
            try:
                piece = os.read(outer, 65_536)
            except OSError:
                # Linux says so when the other side is closed.
                break
            if not piece:
                break
            pieces.append(piece)
        elif ended:
            break
    os.close(outer)
    assert process.wait(timeout=10) == 0, b"".join(pieces).decode()
    return b"".join(pieces).decode()


ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_gets_a_bar_that_fits_and_is_gone_at_the_end(columns: int, mirror: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in mirror.iterdir()}
    with serving(files, drip=(2_000, 0.05)) as server:
        words = ("download", "nih-chestxray14", str(tmp_path / "nih"), "--source", server.url)
        sent = on_terminal(*words, columns=columns)
    assert "━" in sent
    for line in re.split(r"[\r\n]+", ANSI.sub("", sent)):
        if "━" in line:
            assert len(line) <= columns, line
    # The cursor is shown again, and the last words are the result.
    assert sent.rindex("\x1b[?25h") > sent.rindex("━")
    assert "Downloaded nih-chestxray14" in sent[sent.rindex("\x1b[?25h") :]


def test_no_color_on_a_terminal_means_none(root: Path) -> None:
    sent = on_terminal("status", str(root), columns=80, env={"NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*m", sent.replace("\x1b[0m", "").replace("\x1b[1m", ""))
    assert "images" in sent


def test_names_that_the_locale_cannot_spell_are_found_and_written_as_it_can(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Röntgen"
    folder.symlink_to(root)
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    done = subprocess.run(
        [PROGRAM, "status", str(folder)], capture_output=True, text=True, encoding="ascii", check=False, env=ascii_only
    )
    assert done.returncode == 0, done.stderr
    assert "nih-chestxray14" in done.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_stream_that_is_closed_is_written_to_nobody(closed: str, root: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f'"$0" verify "$1" {closed}', PROGRAM, str(root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "bug" not in done.stderr
    assert ">&-" in closed.split() or "Verified" in done.stdout


def test_an_option_before_its_command_is_told_its_place() -> None:
    for option, command in (("-q", "report"), ("--json", "status")):
        done = cxrprep(option, command, "nih")
        assert done.returncode == 2
        assert f"{option} comes after the command: cxrprep {command} {option}" in done.stderr
    assert "behind" not in cxrprep("--nosuch", "status", "nih").stderr


@pytest.mark.parametrize("number", ["x", "0", "1.5"])
def test_a_number_that_is_none_is_said_in_words(number: str, root: Path) -> None:
    done = cxrprep("convert", root, "--recipe", "square-224", "--preview", number)
    assert done.returncode == 2
    assert "--preview: it takes a whole number from 1\n" in done.stderr
    assert "--jobs: it takes a whole number\n" in cxrprep("verify", root, "--jobs", "x").stderr
    assert "--every: it takes a number from 0.1\n" in cxrprep("status", root, "--watch", "--every", "-1").stderr


def test_another_folder_that_is_not_there_is_said_before_the_work(root: Path) -> None:
    done = cxrprep("report", root, "--beside", "nosuch")
    assert done.returncode == 2
    assert "there is no folder nosuch" in done.stderr
    assert "thumbnails" not in done.stderr


def test_a_next_step_that_is_prose_is_folded_between_words(root: Path) -> None:
    sent = ANSI.sub("", on_terminal("report", str(root), "--images", "0", columns=50)).replace("\r", "")
    step = sent[sent.index("→ open") :].split("\n")
    assert step[1].startswith("    ")
    assert "→ open" in step[0]
    assert str(root) in " ".join(step)


def test_tables_fit_a_narrow_terminal(root: Path) -> None:
    sent = ANSI.sub("", on_terminal("status", str(root), columns=50))
    table = sent[sent.index("Part") : sent.index("Stage")]
    assert all(len(line.rstrip()) <= 50 for line in table.splitlines())


def test_no_word_of_a_datasets_page_is_broken() -> None:
    for words in ((), ("show", "siim-acr-pneumothorax"), ("show", "mimic-cxr")):
        sent = ANSI.sub("", on_terminal("datasets", *words, columns=50)).replace("\r", "")
        # An address and a command, which are copied, stay whole.
        lines = [line for line in sent.splitlines() if "https://" not in line and "cxrprep " not in line]
        assert [line for line in lines if len(line) > 50] == [], words


def test_a_label_source_that_is_not_there_leaves_the_manifest_as_it_was(root: Path) -> None:
    ok("manifest", root)
    before = (root / "manifests" / "images.parquet").read_bytes()
    done = cxrprep("manifest", root, "--label-source", "chexbrt")
    assert done.returncode == 2
    assert "label sources there: nih-textmined" in done.stderr
    assert (root / "manifests" / "images.parquet").read_bytes() == before


def test_what_is_no_text_is_not_labelled_as_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data, word in (
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0", "PNG"),
        ("b.dcm", b"\0" * 128 + b"DICM", "DICOM"),
        ("c.pdf", b"%PDF-1.7 fracture", "PDF"),
        ("d.bin", b"fracture\0\0", "binary data"),
    ):
        (tmp_path / name).write_bytes(data)
        assert run(["explain", str(tmp_path / name)]) == 2
        assert word in capsys.readouterr().err
    for data in ("No effusion.".encode("utf-16"), "Kein Erguß. No effusion.".encode("latin-1")):
        (tmp_path / "report.txt").write_bytes(data)
        assert run(["explain", str(tmp_path / "report.txt")]) == 0


def test_help_and_version_are_understood_as_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help"]) == 0
    assert "Begin with" in capsys.readouterr().out
    assert run(["help", "download"]) == 0
    assert "--source" in capsys.readouterr().out
    assert run(["version"]) == 0
    assert capsys.readouterr().out.startswith("cxrprep ")


def test_a_document_holds_what_a_person_would_have_been_warned_of() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    out = Output("json", stdout=stdout, stderr=stderr)
    out.note("batch 2.zip: it is cut short", level="warning", subject="url://chexpert")
    out.note("three files are here already")
    out.result("done", Result("download", {"files": 3}, exit_code=ExitCode.DONE))
    document = json.loads(stdout.getvalue())
    assert document["warnings"] == [{"subject": "url://chexpert", "message": "batch 2.zip: it is cut short"}]
    assert document["files"] == 3
    assert not stderr.getvalue()


def test_json_and_quiet_together_give_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--json", "--quiet"], ["--quiet", "--json"]):
        assert run(["datasets", *words]) == 0
        assert json.loads(capsys.readouterr().out)


def test_a_stage_that_another_one_ended_is_not_said_twice(root: Path, tmp_path: Path) -> None:
    done = cxrprep("export", root, "--format", "hf", "--out", tmp_path / "hf")
    assert done.returncode == 0
    ends = [line for line in done.stderr.splitlines() if " export: " in line and " in " in line]
    assert len(ends) == 1, done.stderr
    assert "image" in ends[0]


def test_a_path_with_a_blank_stays_whole_in_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    folder = tmp_path / "a folder whose name is long and has blanks"
    nih_chestxray14.write(folder)
    done = cxrprep("extract-labels", folder)
    assert f"{folder}/manifests/labels.parquet\n" in done.stdout


def test_no_word_is_broken_at_the_edge_of_a_terminal(tmp_path: Path) -> None:
    for words, command in (
        (["convert", str(tmp_path), "--recipe", "nosuch"], False),
        (["download", "nih", str(tmp_path / "x"), "--source", "nosuch"], False),
        (["report", str(tmp_path)], True),
    ):
        plain = cxrprep(*words).stderr
        ours, theirs = pty.openpty()
        environment = {**os.environ, "COLUMNS": "50", "NO_COLOR": "1"}
        with subprocess.Popen([sys.executable, "-m", "cxrprep", *words], stderr=theirs, env=environment) as process:
            os.close(theirs)
            said = b""
            # Linux ends a terminal that nobody writes to any more with an error.
            with contextlib.suppress(OSError):
                while piece := os.read(ours, 4096):
                    said += piece
        os.close(ours)
        assert process.returncode == 2
        lines = said.decode().splitlines()
        assert " ".join(said.decode().split()) == " ".join(plain.split())
        assert command or (len(lines) > 3 and max(map(len, lines)) <= 50), lines
        assert not command or any("cxrprep " in line and len(line) > 50 for line in lines), lines


def test_colours_take_no_room_and_every_line_of_a_result_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "40")
    for code, following in ((4, ()), (0, ("open demo/manifests/x.html now",))):
        stream = Terminal()
        out = Output(stdout=stream, stderr=stream, color="always")
        headline = "nih into demo/nih from demo/mirror: download, verify"
        out.result(headline, Result("verify", None, ExitCode(code)), command="verify", following=following)
        out.note("a note that is longer than a line of this terminal", level="warning")
        lines = click.unstyle(stream.getvalue()).splitlines()
        assert max(map(len, lines)) <= 40, lines
        assert lines[1].startswith("  d"), lines
        assert not following or "  next: open demo/manifests/x.html now" in lines
