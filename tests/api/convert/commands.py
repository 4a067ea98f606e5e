"""The command and its JSON, and what it leaves on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.commands import cxrprep, start


def run(*words: object, **env: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON result (empty when there is none), and what was said on standard error.

    In this process; where variables are given, which a worker reads as it starts, in one of its own.
    """
    if env:
        process = start(*words, "--json", **env)
        out, err = process.communicate(timeout=110)
        return process.returncode, json.loads(out) if out.strip() else {}, err
    done = cxrprep(*words, "--json")
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr


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
