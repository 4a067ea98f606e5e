"""A plan as a JSON file: kept, mailed, applied later or on another host, and trusted as little as any other file."""

from __future__ import annotations

import contextlib
import itertools
import json
from array import array
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from cxrprep.errors import ConfigError, StorageError, UnsafePathError, UsageError
from cxrprep.model import ColumnTest, Digest, LabelTest, RemoteFile, Selection, Split
from cxrprep.planning.plan import Action, Item, Plan
from cxrprep.planning.plan_items import SortedItems, items_of
from cxrprep.storage.atomic import refuse_over_others
from cxrprep.storage.paths import OWN_NAMES, safe_path
from cxrprep.storage.small_files import open_file, parse_json, read_text
from cxrprep.storage.table_checksums import replace_listed
from cxrprep.system import FILES_IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

FORMAT: Final = 1
_HEAD: Final = frozenset({"format", "dataset", "release", "mirror", "selection", "images", "passed_over", "foreign",
                          "foreign_names", "in_place", "items"})  # fmt: skip
_ITEM: Final = frozenset(
    {"key", "size", "digest", "validator", "dest", "action", "reason", "have", "archive", "proven"}
)
# Bytes that the line of an item has at least.
_SHORTEST: Final = 40
_TUPLES: Final = ("include", "exclude")
_SETS: Final = ("patients", "studies", "images", "views")


def save_plan(plan: Plan, path: Path) -> None:
    """Write ``plan`` to ``path``: one JSON object, one line an item.

    Raises ``UsageError`` where a file is there that is no plan, ``StorageError``.
    """
    refuse_over_others(path, lambda head: head.startswith(b'{"format": '), "saved plan", "--save-plan")

    def write(part: Path) -> None:
        head = {
            "format": FORMAT,
            "dataset": plan.dataset,
            "release": plan.release,
            "mirror": plan.mirror,
            "selection": _selection_out(plan.selection),
            "images": None if plan.images is None else sorted(plan.images),
            "passed_over": plan.passed_over,
            "foreign": plan.foreign,
            "foreign_names": list(plan.foreign_names),
            "in_place": plan.in_place,
        }
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "items": [')
            separator = "\n"
            for item in plan.items:
                file.write(separator + json.dumps(_item_out(item), ensure_ascii=False))
                separator = ",\n"
            file.write("\n]}\n")

    replace_listed(path, write)


def load_plan(path: Path) -> Plan:
    """The plan in ``path``, as ``save_plan`` wrote it.

    Raises ``ConfigError`` for a file that is no plan or of a newer format, ``UnsafePathError`` for an item that would
    leave the root, ``UsageError`` for a file that is not there, ``StorageError`` for one that cannot be read.
    """
    if (large := _read_by_line(path)) is not None:
        return large
    try:
        # Items become small objects while the rest is still text, so that a large plan is never held as dicts.
        data = parse_json(read_text(path), object_hook=_hook(path))
    except FileNotFoundError as error:
        raise UsageError(f"there is no plan {path}", hint="make one with --save-plan FILE") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not a plan: {error}", hint="make one with --save-plan FILE") from error
    if not isinstance(data, dict) or data.get("format") is None:
        raise ConfigError(f"{path} is not a plan", hint="make one with --save-plan FILE")
    if data["format"] != FORMAT:
        raise ConfigError(f"{path} has format {data['format']!r}, known is {FORMAT}", hint="upgrade cxrprep")
    unknown = set(data) - _HEAD
    if unknown:
        raise ConfigError(f"{path}: unknown field {min(unknown)!r}", hint="make a new plan with --save-plan FILE")
    try:
        return _plan_in(data, _planned_once(data["items"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged: {error}", hint="make a new plan with --save-plan FILE") from error


def _read_by_line(path: Path) -> Plan | None:
    """A plan of more items than are held, in the form that ``save_plan`` gives it: they go to the disk as they come.

    ``None`` for a smaller plan, for one in another form, and for whatever is wrong: ``load_plan`` then says what.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, UnsafePathError):
        if path.stat().st_size < FILES_IN_MEMORY * _SHORTEST:
            return None
        with open_file(path) as file:
            head = parse_json(file.readline() + b"]}")
            start, count = _images_from(_rows(file))
            if count <= FILES_IN_MEMORY or start > FILES_IN_MEMORY or set(head) != _HEAD or head["format"] != FORMAT:
                return None
            file.seek(0)
            file.readline()
            first: list[Item] = []
            images = SortedItems()
            for number, row in enumerate(_rows(file)):
                if number < start:
                    first.append(_item_in(row))
                else:
                    images.add(_item_in(row))
        return _plan_in(head, items_of(first, images))
    return None


def _rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The items, a line each. Raises ``ValueError`` for a file that does not end as a plan does."""
    for line in file:
        if line == b"]}\n":
            if file.read(1):
                break
            return
        yield parse_json(line.rstrip(b",\n"))
    raise ValueError("no plan in lines")


def _images_from(rows: Iterator[dict[str, Any]]) -> tuple[int, int]:
    """The number of the item from which on all are in order of path, none of them an archive, and how many there are.

    Raises ``ValueError`` where a path may be planned twice.
    """
    start, count, before = 0, 0, ""
    seen = array("q")
    for row in rows:
        if row["dest"] < before or row.get("archive"):
            start = count + bool(row.get("archive"))
        before, count = row["dest"], count + 1
        seen.append(hash(before))
    in_order = sorted(seen)
    if any(one == other for one, other in itertools.pairwise(in_order)):
        raise ValueError("one path twice")
    return start, count


def _planned_once(items: Any) -> list[Item]:
    """The items of a plan, of which none has the path of another. Raises ``TypeError`` and ``ValueError``."""
    if not isinstance(items, list) or not all(isinstance(item, Item) for item in items):
        raise TypeError("items are not a list of items")
    seen: set[str] = set()
    for item in items:
        if item.dest in seen and item.action is not Action.IMPOSSIBLE:
            raise ValueError(f"{item.dest!r} is planned twice")
        seen.add(item.dest)
    return items


def _plan_in(data: dict[str, Any], items: Sequence[Item]) -> Plan:
    images = data["images"]
    return Plan(
        dataset=_text(data["dataset"]),
        release=_text(data["release"]),
        mirror=_text(data["mirror"]),
        items=items,
        selection=_selection_in(data["selection"]),
        images=None if images is None else frozenset(map(_text, images)),
        passed_over=_count(data["passed_over"]),
        foreign=_count(data["foreign"]),
        foreign_names=tuple(map(_text, data["foreign_names"])),
        in_place=_flag(data["in_place"]),
    )


def _item_out(item: Item) -> dict[str, Any]:
    file = item.file
    row: dict[str, Any] = {"key": file.key, "dest": item.dest, "action": str(item.action)}
    if file.size is not None:
        row["size"] = file.size
    if file.digest is not None:
        row["digest"] = str(file.digest)
    if file.validator is not None:
        row["validator"] = file.validator
    if item.reason:
        row["reason"] = item.reason
    if item.have:
        row["have"] = item.have
    if item.archive:
        row["archive"] = True
    if not item.proven:
        row["proven"] = False
    return row


def _hook(path: Path) -> Callable[[dict[str, Any]], Any]:
    def hook(row: dict[str, Any]) -> Any:
        if "key" not in row or "dest" not in row:
            return row
        try:
            return _item_in(row)
        except UnsafePathError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: item {row.get('key')!r} is damaged: {error}", hint="make a new plan with --save-plan FILE"
            ) from error

    return hook


def _item_in(row: dict[str, Any]) -> Item:
    unknown = set(row) - _ITEM
    if unknown:
        raise ValueError(f"unknown field {min(unknown)!r}")
    key, dest = safe_path(_text(row["key"])), safe_path(_text(row["dest"]))
    if dest.partition("/")[0] in OWN_NAMES:
        raise ValueError(f"{dest} is no file of a release")
    size, digest, validator = row.get("size"), row.get("digest"), row.get("validator")
    return Item(
        RemoteFile(
            key,
            None if size is None else _count(size),
            None if digest is None else Digest.parse(_text(digest)),
            None if validator is None else _text(validator),
        ),
        key if dest == key else dest,
        Action(row["action"]),
        _text(row.get("reason", "")),
        _count(row.get("have", 0)),
        _flag(row.get("archive", False)),
        _flag(row.get("proven", True)),
    )


def _selection_out(selection: Selection) -> dict[str, Any]:
    return {
        **{name: list(getattr(selection, name)) for name in _TUPLES},
        **{name: sorted(getattr(selection, name)) for name in _SETS},
        "splits": sorted(str(split) for split in selection.splits),
        "labels": [str(label) for label in selection.labels],
        **({"where": [str(test) for test in selection.where]} if selection.where else {}),
        "limit": selection.limit,
        "sample": selection.sample,
        "seed": selection.seed,
    }


def _selection_in(data: dict[str, Any]) -> Selection:
    labels = []
    for text in data["labels"]:
        name, _, value = text.rpartition("=")
        labels.append(LabelTest(name, None if value == "null" else int(value)))
    limit, sample = data["limit"], data["sample"]
    return Selection(
        include=tuple(map(_text, data["include"])),
        exclude=tuple(map(_text, data["exclude"])),
        patients=frozenset(map(_text, data["patients"])),
        studies=frozenset(map(_text, data["studies"])),
        images=frozenset(map(_text, data["images"])),
        views=frozenset(map(_text, data["views"])),
        splits=frozenset(Split(split) for split in data["splits"]),
        labels=tuple(labels),
        limit=None if limit is None else _count(limit),
        sample=None if sample is None else _count(sample),
        seed=int(data["seed"]),
        where=tuple(ColumnTest.parse(_text(text)) for text in data.get("where", ())),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is not a count")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value
