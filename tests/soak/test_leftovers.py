"""What a killed run leaves behind is removed by the next one, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxrprep.storage.atomic import replace_file, sweep, temporary_for

_KILLED = """
import os, sys
from pathlib import Path
from cxrprep.storage.atomic import replace_file
replace_file(Path(sys.argv[1]), lambda part: (part.write_text("half"), os.kill(os.getpid(), 9)))
"""


def _killed(path: Path) -> list[str]:
    subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=False)
    return [entry.name for entry in path.parent.iterdir()]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nobody can tell whether a process has ended")
def test_the_next_write_into_a_folder_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    (left,) = _killed(path)
    assert left.startswith(".labels.parquet.")
    assert left.endswith(".tmp")
    replace_file(path, lambda part: part.write_text("whole"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.parquet"]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nobody can tell whether a process has ended")
def test_files_of_the_living_of_other_hosts_and_of_other_programs_stay(tmp_path: Path) -> None:
    mine = temporary_for(tmp_path / "a")
    host, pid = mine.name.split("-")[1:3]
    foreign = tmp_path / mine.name.replace(f"-{host}-{pid}-", "-elsewhere-1-")
    plain = tmp_path / ".a.tmp"
    for path in (mine, foreign, plain):
        path.write_text("x")
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, foreign, plain])


def test_a_name_as_long_as_names_may_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".png")
    replace_file(path, lambda part: part.write_text("whole"))
    assert path.read_text() == "whole"


def test_a_folder_that_cannot_be_looked_into_is_no_error(tmp_path: Path) -> None:
    sweep(tmp_path / "nowhere" / str(time.time_ns()))
