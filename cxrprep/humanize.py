"""Bytes, durations, rates and counts as people read them: the one speller of messages, tables, pages and logs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from typing import Any, Final

_BYTES: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_DURATIONS: Final = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_OF_MANY: Final = {"is": "are", "was": "were", "has": "have"}
_IRREGULAR: Final = {"study": "studies", "series": "series", "patch": "patches", "entry": "entries"}

# What ends a line or is obeyed by a terminal, and what turns the direction of writing around.
_CONTROLS: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

INVISIBLE: Final = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
"""What mails and chats put into links and tokens, and nobody sees."""

# In a repr: as many items of a collection, and as many characters of a value.
_SHOWN_ITEMS: Final = 3
_SHOWN_TEXT: Final = 80


def one_line(text: str) -> str:
    """``text`` as one inert line: names and words of servers and archives may hold anything, and forge a line."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def short_repr(value: Any) -> str:
    """A dataclass in a few lines, however much it holds: for ``__repr__``, at Python's prompt and in notebooks.

    Fields that have their default are left out; a collection of more than three items is their number.
    """
    fields = [field for field in dataclasses.fields(value) if field.repr]
    shown = [(field.name, getattr(value, field.name)) for field in fields if not _is_default(field, value)]
    return f"{type(value).__name__}({', '.join(f'{name}={_shown(one)}' for name, one in shown)})"


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    found = getattr(value, field.name)
    # A table or an array compares item by item, and is never a default.
    return type(found) is type(made) and bool(found == made)


def _shown(value: Any) -> str:
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        items = f"<{format_count(len(value), 'item')}>"
        if len(value) > _SHOWN_ITEMS:
            return items
        text = repr(value)
        return text if len(text) <= _SHOWN_TEXT else items
    text = repr(value)
    return text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 3] + "..."


def format_bytes(size: float) -> str:
    """``45.1 GB``: decimal units (SI), as providers and disks state them; three digits at most."""
    value = float(size)
    for unit in _BYTES:
        if value < 999.5 or unit == _BYTES[-1]:
            return f"{value:,.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit takes everything")


def format_seconds(seconds: float) -> str:
    """``8.0 s``, ``2 min 5 s``, ``3 h 20 min``, ``4 d 2 h``: two units at most."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, small in _DURATIONS:
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def format_rate(rate: float) -> str:
    """``12.3 MB/s``, from bytes per second."""
    return f"{format_bytes(rate)}/s"


def format_number(number: float) -> str:
    """``112,120``; a fraction keeps one digit."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.1f}"


def format_count(count: int, noun: str, verb: str = "") -> str:
    """``1 file``, ``2 files``, ``1 study has``, ``1,204 studies have``; ``noun`` and ``verb`` as of one."""
    head, space, last = noun.rpartition(" ")
    counted = f"1 {noun}" if count == 1 else f"{count:,} {head}{space}{_IRREGULAR.get(last, last + 's')}"
    return f"{counted} {verb if count == 1 else _OF_MANY.get(verb, verb.removesuffix('s'))}".rstrip()


def singular(unit: str) -> str:
    """``file`` for ``files``: the units of events are written in the plural."""
    for one, many in _IRREGULAR.items():
        if unit == many:
            return one
    return unit.removesuffix("s")


def without_path(message: str, path: str) -> str:
    """What is said of a file, where its path stands before it already: ``a.png: cut short`` becomes ``cut short``."""
    for between in (": ", " "):
        if message.startswith(path + between):
            return message.removeprefix(path + between)
    return message
