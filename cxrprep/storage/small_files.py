"""JSON and TOML of small files that somebody else may have written: read with a limit on size and on depth; no pipe.

A few kilobytes of ``[[[[`` end Python's parsers with a ``RecursionError``, which is no ``ValueError`` and looks like a
bug; a dotted key of 100 kB keeps tomllib busy for 18 seconds and takes 7.8 GB (Python 3.11.7; hukkin/tomli#298).
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import stat
import tomllib
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

# No key of ours has more parts than three; a recipe's text or a path may well have some dots.
_DOTS: Final = 100
MAX_BYTES: Final = 1 << 20
"""More than any job file, recipe or vocabulary has."""


# Where a shell puts what it pipes into a command that names it as a file: ``--patients <(cut -f1 list)``.
_PIPED: Final = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
GZIP: Final = b"\x1f\x8b"
"""How a file that is compressed by gzip begins (RFC 1952)."""


def open_file(path: Path) -> BufferedReader:
    """A file that was found, to be read: what is none is refused. A named pipe waits for a writer that nobody started.

    Raises ``OSError``.
    """
    if str(path).startswith(_PIPED):
        return path.open("rb")
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise _no_file(path)


def regular(path: Path) -> Path:
    """``path``, for readers that open it themselves. Raises ``OSError`` where it is a pipe or a device."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return path
    raise _no_file(path)


def _no_file(path: Path) -> OSError:
    return OSError(errno.EINVAL, "it is a pipe or a device, and no file", str(path))


def read_file(path: Path) -> bytes:
    """The contents of a file that was found; errors as ``open_file``."""
    with open_file(path) as file:
        return file.read()


def encoding_of(start: bytes) -> str:
    """The encoding of a text by its first bytes: UTF-8, or what a byte order mark says; PowerShell 5 writes UTF-16.

    Without a mark UTF-16 has a zero byte in each of its first two letters, if they are of English.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = [byte == 0 for byte in start[:4]]
    if zeros in ([False, True, False, True], [True, False, True, False]):
        return "utf-16-be" if zeros[0] else "utf-16-le"
    return "utf-8-sig" if start.startswith(codecs.BOM_UTF8) else "utf-8"


def read_text(path: Path) -> str:
    """The text of a file that was found, without a mark at its start. Raises ``OSError``, ``UnicodeDecodeError``."""
    data = read_file(path)
    return data.decode(encoding_of(data)).replace("\r\n", "\n")


def parse_json(text: str | bytes, **options: Any) -> Any:
    """The value that ``text`` is. Raises ``ValueError`` for what is no JSON, or is nested too deeply."""
    try:
        return json.loads(text, **options)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def toml_value(value: object) -> str:
    """``value`` as TOML writes it: a truth, a number, a time, a list, a table in one line; all else as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{toml_key(key)} = {toml_value(one)}" for key, one in value.items())
        return f"{{ {pairs} }}" if value else "{}"
    text = str(value)
    if "\\" in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    # JSON's escapes are TOML's, but for the character that JSON leaves bare.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(name: str) -> str:
    """A key as TOML writes it."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


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
