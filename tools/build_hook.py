"""Hook of the wheel's build: makes the manual pages from the commands and puts them into ``share/man/man1``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface):  # type: ignore[type-arg]  # its configuration is not ours
    """Makes the pages before a wheel is put together, an editable one too."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the pages and name their folder among the wheel's shared data."""
        del version
        root = Path(self.root)
        out = root / "build" / "man"
        subprocess.run([sys.executable, str(root / "tools" / "manpages.py"), "--out", str(out)], check=True)
        build_data["shared_data"][str(out)] = "share/man/man1"
