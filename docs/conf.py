"""Sphinx's configuration: Markdown by MyST, the furo theme, no network while building."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tools"))
sys.path.insert(0, str(PROJECT))

from cxrprep import __version__  # noqa: E402  # the checkout comes onto the path first

project = "cxrprep"
author = "the cxrprep authors"
release = version = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "man"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
# `cxrprep status ROOT` is a command, never "smart" quotes and dashes.
smartquotes = False
nitpicky = True
html_theme = "furo"
html_title = f"cxrprep {__version__}"
html_copy_source = False
html_show_copyright = False


def setup(app: Any) -> None:
    """Make the reference from the code before anything is read."""
    import reference

    app.connect("builder-inited", lambda _: reference.write())
