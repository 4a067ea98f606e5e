"""``cxrprep.lock``: what a folder holds, as TOML that a person can read."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import ConfigError, IntegrityError
from cxrprep.model import ColumnTest, Digest, LabelTest, Selection, Split
from cxrprep.storage.small_files import parse_toml, read_file, toml_value

if TYPE_CHECKING:
    from pathlib import Path

FORMAT: Final = 1
MEND: Final = "cxrprep verify ROOT --repair puts what is damaged aside and goes on with the files that are here"
_INTRODUCTION: Final = """\
# What this folder holds, written by cxrprep. The row per file is in cxrprep.files.parquet; keep the two together.
"""


@dataclass(frozen=True, slots=True)
class Header:
    """What a folder holds. ``generation`` counts the saves of the file table; ``files``, ``size`` (bytes) and
    ``table`` (its digest) describe the table of that generation.
    """  # noqa: D205  # the summary needs both lines

    dataset: str = ""
    release: str = ""
    mirror: str = ""
    tool: str = ""
    created: datetime | None = None
    updated: datetime | None = None
    generation: int = 0
    files: int = 0
    size: int = 0
    table: Digest | None = None
    selections: tuple[Selection, ...] = ()


def _selection_to_toml(selection: Selection) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(Selection):
        value = getattr(selection, field.name)
        if value == field.default:
            continue
        if isinstance(value, frozenset):
            value = sorted(str(item) for item in value)
        elif isinstance(value, tuple):
            value = [str(item) for item in value]
        found[field.name] = value
    return found


def _label_test(text: str) -> LabelTest:
    name, _, value = text.rpartition("=")
    return LabelTest(name, None if value == "null" else int(value))


def _selection_from_toml(data: dict[str, Any]) -> Selection:
    def texts(name: str) -> tuple[str, ...]:
        return tuple(str(item) for item in data.get(name, ()))

    return Selection(
        include=texts("include"),
        exclude=texts("exclude"),
        patients=frozenset(texts("patients")),
        studies=frozenset(texts("studies")),
        images=frozenset(texts("images")),
        splits=frozenset(Split(item) for item in texts("splits")),
        views=frozenset(texts("views")),
        labels=tuple(_label_test(item) for item in texts("labels")),
        limit=data.get("limit"),
        sample=data.get("sample"),
        seed=data.get("seed", 0),
        where=tuple(ColumnTest.parse(item) for item in texts("where")),
    )


def dump_header(header: Header) -> str:
    """The text of ``cxrprep.lock``; ``load_header`` reads it back to the same value."""
    lines = [_INTRODUCTION, f"format = {FORMAT}"]
    for field in dataclasses.fields(Header):
        value = getattr(header, field.name)
        if field.name != "selections" and value is not None:
            lines.append(f"{field.name} = {toml_value(value)}")
    for selection in header.selections:
        lines.append("\n# what a download asked for; an empty one means everything\n[[selection]]")
        lines += [f"{name} = {toml_value(value)}" for name, value in _selection_to_toml(selection).items()]
    return "\n".join(lines) + "\n"


def load_header(path: Path) -> Header:
    """The header in the file ``path``.

    Raises ``ConfigError`` for one of a newer cxrprep, ``IntegrityError`` for a damaged one or what is none.
    """
    try:
        data = parse_toml(read_file(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{path} cannot be read as a record: {error}", hint=MEND) from error
    version = data.get("format")
    if not isinstance(version, int) or "dataset" not in data:
        raise IntegrityError(f"{path} is not a record of cxrprep", hint=MEND)
    if version > FORMAT:
        raise ConfigError(
            f"{path} was written by a newer cxrprep ({data.get('tool', 'unknown version')})",
            hint="install that version or a newer one here, in the way this one was installed",
        )
    try:
        header = Header(
            **{
                field.name: data[field.name]
                for field in dataclasses.fields(Header)
                if field.name in data and field.name not in ("table", "selections")
            },
            table=Digest.parse(data["table"]) if "table" in data else None,
            selections=tuple(_selection_from_toml(item) for item in data.get("selection", ())),
        )
        _check_types(header)
    except (TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"{path} cannot be read as a record: {error}", hint=MEND) from error
    return header


def _check_types(header: Header) -> None:
    for name in ("dataset", "release", "mirror", "tool"):
        if not isinstance(getattr(header, name), str):
            raise TypeError(f"{name} is not text")
    for name in ("generation", "files", "size"):
        if not isinstance(getattr(header, name), int):
            raise TypeError(f"{name} is not a number")
    for name in ("created", "updated"):
        if not isinstance(getattr(header, name), datetime | None):
            raise TypeError(f"{name} is not a time")
