"""The program as a user runs it: in this process where the process is not what is tested, or as one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from cxrprep.cli.main import run
from cxrprep.datasets import catalog
from cxrprep.executors import Engine

PROGRAM = str(Path(sys.executable).with_name("cxrprep"))


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    """Work is done in this process where nobody says how many workers there are to be, and nothing waits for the disk.

    Two workers take longer to start than what most tests have to convert. What is converted as it arrives has one,
    which its decoder may break. A process that is killed loses nothing that was not synced, so that no test can tell.
    """
    run_there = Engine.run

    def run_here(engine: Engine, *args: Any, **options: Any) -> Any:
        asked = engine.name != "local" or engine.jobs is not None
        return run_there(engine if asked else replace(engine, name="inline"), *args, **options)

    one_core = mock.patch("cxrprep.api.convert_on_arrival.available_cores", return_value=1)
    with mock.patch.object(Engine, "run", run_here), one_core, mock.patch("os.fsync"):
        yield


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


def cxrprep(*words: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Done:
    """The finished command, in this process: hundreds of them in the time that some dozen programs take to start."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, env or {}),
        _datasets_named_once(),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run([*map(str, words)])
    return Done(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _datasets_named_once() -> Iterator[None]:
    """Which datasets' files and folders one command names, no other knows: each is a process of its own."""
    with mock.patch.dict(catalog._named, clear=True), mock.patch.dict(catalog._catalogs, clear=True):
        yield
        named = bool(catalog._catalogs)
    if named:
        catalog._files.cache_clear()
        catalog.catalog.cache_clear()


def ok(*words: object, **options: Any) -> str:
    """What the command says on standard output; it must end with 0."""
    done = cxrprep(*words, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def result(*words: object, code: int = 0, **options: Any) -> dict[str, Any]:
    """The JSON that the command prints on standard output with --json; it must end with ``code``."""
    done = cxrprep(*words, "--json", **options)
    assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def as_program(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The finished command as a process of its own; exit code, stdout and stderr are the caller's to judge."""
    command = [PROGRAM, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=100)


def start(*words: object, **env: str) -> subprocess.Popen[str]:
    """The command at work, in a process group of its own; a ``PYTHONPATH`` goes before the one that is set."""
    if "PYTHONPATH" in env and "PYTHONPATH" in os.environ:
        env["PYTHONPATH"] += os.pathsep + os.environ["PYTHONPATH"]
    return subprocess.Popen(
        [PROGRAM, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
        start_new_session=True,
    )
