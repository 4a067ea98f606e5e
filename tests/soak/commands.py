"""What the soak tests share: a folder that commands run in, real processes, trees compared, leftovers named."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PROGRAM = str(Path(sys.executable).with_name("cxrprep"))
# What carries times on purpose; everything else must be the same byte for byte on a second run.
TIMED = (
    "cxrprep.lock",
    "cxrprep.files.parquet",
    ".cxrprep",
    "manifests/verify.parquet",
    "manifests/failures.parquet",
)
_PATIENCE = 120.0


@dataclass
class Home:
    """An environment of its own: no user's configuration, no user's credentials, no colours."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def env(self) -> dict[str, str]:
        """What a command sees."""
        kept = {
            name: os.environ[name]
            for name in ("PATH", "PYTHONPATH", "LANG", "TMPDIR", "VIRTUAL_ENV")
            if name in os.environ
        }
        places = {
            name: str(self.folder / name.lower())
            for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")
        }
        return {**kept, "HOME": str(self.folder), "NO_COLOR": "1", "COLUMNS": "100", **places, **self.variables}


@dataclass(frozen=True)
class Done:
    """A command that has ended: its exit code, what it said, how long it took."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def said(self) -> str:
        """Everything that it printed."""
        return self.stdout + self.stderr


def run(words: Sequence[str], home: Home, *, timeout: float = _PATIENCE) -> Done:
    """The command, run to its end; a command that hangs is ended and has the exit code -9."""
    begun = time.monotonic()
    process = start(words, home)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        end_group(process.pid)
        out, err = process.communicate()
    return Done(
        process.returncode, out.decode(errors="replace"), err.decode(errors="replace"), time.monotonic() - begun
    )


def start(words: Sequence[str], home: Home, *, silent: bool = False) -> subprocess.Popen[bytes]:
    """The command, started in a process group of its own."""
    output = subprocess.DEVNULL if silent else subprocess.PIPE
    return subprocess.Popen([PROGRAM, *words], stdout=output, stderr=output, env=home.env(), start_new_session=True)


def group_lives(group: int) -> bool:
    """Whether any process of the group still runs: one that has ended may be listed until somebody asks for its end."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    states = [_state(path) for path in Path("/proc").glob("[0-9]*/stat")]
    return not states or any(own == group and state not in "ZX" for state, own in states)


def _state(stat: Path) -> tuple[str, int]:
    """The state of a process and the group that it belongs to."""
    try:
        words = stat.read_text().rpartition(")")[2].split()
    except OSError:
        # It has ended meanwhile.
        return "X", 0
    return words[0], int(words[2])


def end_group(group: int) -> None:
    """``kill -9`` for a process group that we started."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def tree(root: Path) -> dict[str, str]:
    """The SHA-256 of every file below ``root`` that is promised to be the same on a second run."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.relative_to(root).as_posix().startswith(TIMED)
        # A folder below has a cache, findings and logs of its own.
        if not {".cxrprep", "verify.parquet", "failures.parquet"} & set(path.relative_to(root).parts)
    }


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """What is missing, extra or different, a line each."""
    lines = [f"missing: {name}" for name in wanted if name not in found]
    lines += [f"extra: {name}" for name in found if name not in wanted]
    return lines + [f"differs: {name}" for name in found if name in wanted and found[name] != wanted[name]]


def leftovers(root: Path) -> list[str]:
    """Temporary files and partials anywhere below ``root``, our cache included."""
    marks = (".part", ".tmp", ".partial", ".meta")
    return [
        path.relative_to(root).as_posix()
        for path in sorted(root.rglob("*"))
        if path.is_file() and (path.name.endswith(marks) or ".part." in path.name or ".tmp." in path.name)
    ]


def half_written(root: Path) -> list[str]:
    """Parquet files under their final names that cannot be read to their end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    broken = []
    for path in sorted(root.rglob("*.parquet")):
        if path.name.startswith("."):
            continue
        try:
            pq.read_table(path)
        except (pa.ArrowException, OSError, ValueError) as error:
            broken.append(f"{path.relative_to(root)}: {error}")
    return broken


def copy_tree(source: Path, target: Path) -> None:
    """``target`` as ``source`` is, times and all; what stood there before is gone."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
