"""The program in this process: hundreds of commands in the time of some dozen processes."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

from cxrprep.cli.main import run


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


def cxrprep(*words: object) -> Done:
    """The finished command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([*map(str, words)])
    return Done(code, out.getvalue(), err.getvalue())
