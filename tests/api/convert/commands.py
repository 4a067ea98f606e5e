"""The command as a real process, and what it leaves on disk."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
PROGRAM = str(Path(sys.executable).with_name("cxrprep"))


def start(*words: object, **env: str) -> subprocess.Popen[str]:
    """The command in a process group of its own; a ``PYTHONPATH`` goes before the one that is set."""
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


def run(*words: object, **env: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON result (empty when there is none), and what was said on standard error."""
    process = start(*words, "--json", **env)
    out, err = process.communicate(timeout=110)
    return process.returncode, json.loads(out) if out.strip() else {}, err


def tree(root: Path) -> dict[str, str]:
    """The SHA-256 of every file below, our cache aside."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".cxrprep" not in path.relative_to(root).parts
    }


def times(root: Path) -> dict[str, int]:
    """When every image or shard was last written."""
    return {
        path.relative_to(root).as_posix(): path.stat().st_mtime_ns
        for path in sorted(root.rglob("*"))
        if path.suffix in (".png", ".jpg", ".webp", ".jxl", ".tar") or path.parent.name == "data"
    }
