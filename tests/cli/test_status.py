"""``cxrprep status`` of several folders, and of one that fills while it is watched."""

from __future__ import annotations

import functools
import json
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from cxrprep.cli.main import run
from cxrprep.cli.status import Here, progress_line
from cxrprep.record.last_run import LastRun
from tests.cli.test_configs import write_mirror
from tests.cli.test_hints_followed import pack
from tests.commands import ok, result

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_rate_and_time_left_come_from_two_looks() -> None:
    before, now = Here(10, 1_000_000, 90, 100.0), Here(20, 11_000_000, 80, 110.0)
    assert progress_line(None, now) == "20 of 100 files, 11.0 MB"
    assert progress_line(before, now) == "20 of 100 files, 11.0 MB, 1.0 MB/s, 1 min 20 s left"
    # Nothing came: no time could be promised.
    assert progress_line(now, Here(20, 11_000_000, 80, 120.0)) == "20 of 100 files, 11.0 MB, 0 B/s"


def test_a_folder_that_is_full_has_no_rate() -> None:
    assert progress_line(Here(54, 10, 0, 0.0), Here(54, 10, 0, 5.0)) == "54 of 54 files, 10 B"


def test_several_folders_have_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirror, here = write_mirror("nih-chestxray14", tmp_path / "mirror"), tmp_path / "here"
    assert run(["download", "nih-chestxray14", str(here), "--source", str(mirror), "--quiet"]) == 0
    capsys.readouterr()
    assert run(["status", str(here), str(mirror), "--dataset", "nih-chestxray14"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "verify: not done" in lines[1]
    assert "not recorded" in lines[2]
    assert run(["status", str(here), str(tmp_path / "nowhere"), "--json"]) == 2
    first, second = json.loads(capsys.readouterr().out)
    assert first["dataset"] == "nih-chestxray14"
    assert second["hint"]


def test_a_folder_of_archives_is_unpacked_before_it_is_converted(tmp_path: Path) -> None:
    write_mirror("nih-chestxray14", tmp_path / "mirror")
    pack(tmp_path / "packed")
    said = ok("extract-labels", tmp_path / "packed")
    assert f"next: cxrprep status {tmp_path}/packed" in said
    assert "cxrprep convert" not in said
    following = result("status", tmp_path / "packed")["following"]
    assert not [command for command in following if " convert " in command]
    for command in following:
        if command.startswith("cxrprep download"):
            ok(*shlex.split(command)[1:])
    made = result("status", tmp_path / "packed-unpacked")
    assert f"cxrprep convert {tmp_path}/packed-unpacked --recipe square-224" in made["following"]
    assert list((tmp_path / "packed-unpacked").rglob("*.png"))
    # Once an image is here the archives are no matter.
    (tmp_path / "packed/images").mkdir()
    image = next((tmp_path / "mirror").rglob("*.png"))
    (tmp_path / "packed/images" / image.name).write_bytes(image.read_bytes())
    following = result("status", tmp_path / "packed")["following"]
    assert f"cxrprep convert {tmp_path}/packed --recipe square-224" in following


def test_watching_ends_when_all_that_was_asked_for_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirror, here = write_mirror("nih-chestxray14", tmp_path / "mirror"), tmp_path / "here"
    assert run(["download", "nih-chestxray14", str(here), "--source", str(mirror), "--quiet"]) == 0
    image = next(here.rglob("*.png"))
    kept = image.read_bytes()
    image.unlink()
    capsys.readouterr()
    codes: list[int] = []
    watching = threading.Thread(target=lambda: codes.append(run(["status", str(here), "--watch", "--every", "0.1"])))
    watching.start()
    time.sleep(0.5)
    assert watching.is_alive()
    image.write_bytes(kept)
    watching.join(timeout=30)
    assert codes == [0]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 3
    total = lines[-1].split()[3]
    assert lines[-1].split()[1] == total
    assert int(lines[0].split()[1]) == int(total) - 1


def test_a_run_says_its_rate_and_monitoring_learns_what_somebody_must_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror, here = write_mirror("nih-chestxray14", tmp_path / "mirror"), tmp_path / "here"
    assert run(["download", "nih-chestxray14", str(here), "--source", str(mirror), "--quiet"]) == 0
    check = ["status", str(here), "--check", "--quiet"]
    assert run(check) == 0
    assert capsys.readouterr().out == ""
    with LastRun([here / ".cxrprep"], "verify", ["verify"]):
        file = next((here / ".cxrprep/runs").iterdir())
        told = {**json.loads(file.read_bytes()), "done": 34, "total": 100, "unit": "files"}
        file.write_text(json.dumps({**told, "size": 9 * 10**7, "total_size": 10**9, "rate": 2e6, "seconds_left": 68}))
        assert run(check) == 75
        assert "(34 of 100 files, 90.0 MB of 1.0 GB (9 %), 2.0 MB/s, 1 min 8 s left)" in capsys.readouterr().err
    next(here.rglob("*.png")).unlink()
    assert run(check) == 3
    assert run(["verify", str(here), "--quiet"]) == 4
    assert run(check) == 4
    assert run(["status", str(here), str(mirror), "--dataset", "nih-chestxray14", "--check"]) == 4
    # Asked without it, it is an answer and no alarm.
    assert run(["status", str(here)]) == 0


def test_a_folder_into_which_nothing_came_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = tmp_path / "here"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        source = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        asked = ["--split", "test", "--patients", "4 2;ls", "--sample", "5", "--seed", "2"]
        assert run(["download", "nih-chestxray14", str(here), "--source", source, *asked, "--quiet"]) == 6
    capsys.readouterr()
    assert run(["status", str(here), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dataset"], told["stages"][0]["state"]) == ("nih-chestxray14", "failed")
    # Without a record yet: whoever copies the command gets what was asked for, and not the whole release. An address
    # is not repeated: the file that holds it is anyone's.
    assert shlex.split(told["following"][0]) == ["cxrprep", "download", "nih-chestxray14", str(here), *asked]
    (note,) = here.glob(".cxrprep/*/download.json")
    others = ["--source", "https://elsewhere.example/", "--config", "x.toml", "--split", "test", "; ls", "x"]
    note.write_text(json.dumps(json.loads(note.read_text()) | {"asked": others}))
    assert run(["status", str(here), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["following"][0] == f"cxrprep download nih-chestxray14 {here} --split test"
    assert run(["status", str(here), "--check", "--quiet"]) == 6
    assert run(["status", str(here), str(here), "--check"]) == 6
    # A folder that nobody worked on is none.
    (tmp_path / "other").mkdir()
    assert run(["status", str(tmp_path / "other")]) == 2


def test_watching_ends_with_the_run_that_it_saw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupt(BaseException):
        """As Ctrl-C, which would end this process."""

    mirror, here = write_mirror("nih-chestxray14", tmp_path / "mirror"), tmp_path / "here"
    assert run(["download", "nih-chestxray14", str(here), "--source", str(mirror), "--quiet"]) == 0
    next(here.rglob("*.png")).unlink()
    capsys.readouterr()
    codes: list[int] = []
    watching = threading.Thread(target=lambda: codes.append(run(["status", str(here), "--watch", "--every", "0.2"])))

    def next_line() -> str:
        said = ""
        while not said.endswith("\n"):
            said += capsys.readouterr().out
            time.sleep(0.005)
        return said.removeprefix(f"{here}: ")

    of_run = functools.partial(LastRun, [here / ".cxrprep"], "download", ["download"])
    with of_run():
        watching.start()
        assert next_line().startswith("download: ")
    # The gap between two steps of a job.
    assert " of " in next_line()
    with suppress(Interrupt), of_run():
        assert next_line().startswith("download: ")
        raise Interrupt
    watching.join(timeout=60)
    assert codes == [3]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{here}: download: interrupted, 1 missing")


def test_a_strict_check_that_failed_is_not_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(write_mirror("nih-chestxray14", tmp_path / "lab"))
    states = []
    for options in ([], ["--strict"], ["--strict", "--accept", "unproven"]):
        code = run(["verify", root, *options])
        capsys.readouterr()
        run(["status", root, "--json"])
        stages = json.loads(capsys.readouterr().out)["stages"]
        states.append((code, next(stage["state"] for stage in stages if stage["name"] == "verify")))
    assert states == [(0, "done"), (4, "failed"), (0, "done")]


def test_a_person_leaves_watching_without_a_word(tmp_path: Path) -> None:
    mirror, here = write_mirror("nih-chestxray14", tmp_path / "mirror"), tmp_path / "here"
    assert run(["download", "nih-chestxray14", str(here), "--source", str(mirror), "--quiet"]) == 0
    next(here.rglob("*.png")).unlink()
    words = [sys.executable, "-m", "cxrprep", "status", str(here), "--watch", "--every", "0.1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.communicate(timeout=60)[1] == ""
    assert watching.returncode == 130
