"""Result of a verb: its typed value, an exit code, and the same facts for JSON and for people."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from cxrprep.errors import ExitCode
from cxrprep.model import Digest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """The outcome of a verb.

    ``value`` is the typed result of the room that did the work. ``rows`` are label and value pairs for people; ``data``
    overrides what ``to_dict`` says where the value itself is too large or not plain. ``following`` are commands that
    make sense next.
    """

    verb: str
    value: T
    exit_code: ExitCode = ExitCode.DONE
    rows: tuple[tuple[str, Any], ...] = ()
    data: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())
    following: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """One line a row, as the command prints them; ``value`` and ``to_dict()`` have the rest."""
        head = f"<{self.verb}: {self.exit_code.name}>"
        # A row without a label goes on with that above it.
        rows = (f"  {label}: {value}" if label else f"    {value}" for label, value in self.rows)
        return "\n".join((head, *(row.replace("\n", "\n    ") for row in rows)))

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, ready for JSON."""
        facts = plain(self.value if self.data is None else self.data)
        body = facts if isinstance(facts, dict) else {"value": facts}
        return {**body, "exit_code": int(self.exit_code)}

    def summary_rows(self) -> Sequence[tuple[str, Any]]:
        """Label and value pairs for people."""
        return self.rows


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: dataclasses become objects, enumerations and digests their text."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Digest):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return str(value)
