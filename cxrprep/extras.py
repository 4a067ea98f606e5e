"""Optional packages: the command that installs those of an extra beside the cxrprep that is running; their logs."""

from __future__ import annotations

import re
import sys
from typing import Final

_EXTRA: Final = re.compile(r"""\bextra\s*==\s*["']([\w-]+)["']""")


def install_command(extra: str) -> str:
    """``pip install 's3fs>=2024.12'`` for the extra ``s3``; with pipx, the command that reaches its own environment.

    The packages are named, not ``cxrprep[s3]``: an installer would look that name up on an index, where nobody of this
    project has put it.
    """
    packages = [f"'{name}'" for name in _requirements(extra)] or [f"'cxrprep[{extra}]'"]
    in_pipx = "pipx" in sys.prefix.replace("\\", "/").split("/")
    return " ".join(("pipx inject cxrprep" if in_pipx else "pip install", *packages))


def keep_log_off_terminal(*names: str) -> None:
    """Of a logger without a handler Python prints warnings itself: what the library says there, its errors say too."""
    import logging

    for log in map(logging.getLogger, names):
        if not log.handlers:
            log.addHandler(logging.NullHandler())


def _requirements(extra: str) -> list[str]:
    import importlib.metadata

    try:
        stated = importlib.metadata.requires("cxrprep") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = [(text.partition(";")[0].strip(), _EXTRA.search(text)) for text in stated]
    return [name for name, marker in found if marker is not None and marker[1] == extra]
