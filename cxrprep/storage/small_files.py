"""JSON and TOML of small files that somebody else may have written: read with a limit on size and on depth.

A few kilobytes of ``[[[[`` end Python's parsers with a ``RecursionError``, which is no ``ValueError`` and looks like a
bug; a dotted key of 100 kB keeps tomllib busy for 18 seconds and takes 7.8 GB (Python 3.11.7; hukkin/tomli#298).
"""

from __future__ import annotations

import json
import tomllib
from typing import Any, Final

# No key of ours has more parts than three; a recipe's text or a path may well have some dots.
_DOTS: Final = 100
MAX_BYTES: Final = 1 << 20
"""More than any job file, recipe or vocabulary has."""


def parse_json(text: str | bytes, **options: Any) -> Any:
    """The value that ``text`` is. Raises ``ValueError`` for what is no JSON, or is nested too deeply."""
    try:
        return json.loads(text, **options)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_toml(text: str) -> dict[str, Any]:
    """The table that ``text`` is. Raises ``tomllib.TOMLDecodeError`` (a ``ValueError``), also for keys too long."""
    for number, line in enumerate(text.splitlines(), 1):
        # What stands before an equals sign, or in the brackets of a heading, may be a key.
        keys = line.rpartition("=")[0] or (line if line.lstrip().startswith("[") else "")
        if keys.count(".") > _DOTS:
            raise tomllib.TOMLDecodeError(f"a key of more than {_DOTS} parts (at line {number}, column 1)")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise tomllib.TOMLDecodeError("nested too deeply (at end of document)") from error
