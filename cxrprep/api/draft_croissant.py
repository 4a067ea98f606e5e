"""What a publisher's Croissant file says of a dataset: title, licence, citation and files, for the head of a draft.

Croissant cannot say what cells mean, so that nothing of its record sets is taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cxrprep.events import Note, Sink
from cxrprep.storage.small_files import parse_json, read_text

if TYPE_CHECKING:
    from pathlib import Path


_SUMS: Final = {"sha256": 64, "md5": 32}


@dataclass(frozen=True, slots=True)
class Described:
    """A dataset as its publisher describes it; ``files`` are those that are here, with the keys of ``[[file]]``."""

    title: str = ""
    summary: str = ""
    homepage: str = ""
    citation: str = ""
    licence: str = ""
    files: tuple[dict[str, Any], ...] = ()


def described_by_publisher(root: Path, on_event: Sink) -> Described:
    """What the Croissant file of a folder says; nothing where there is none, or one that is no JSON."""
    for path in sorted(root.glob("*croissant*.json")):
        try:
            told = _plain(parse_json(read_text(path)))
        except (OSError, ValueError, RecursionError) as error:
            on_event(Note("datasets", f"not read: {error}", "warning", str(path)))
            continue
        if isinstance(told, dict) and "distribution" in told:
            on_event(Note("datasets", "title, licence, citation and files are taken from it", "info", str(path)))
            named = ("name", "description", "url", "citeAs", "license")
            title, summary, homepage, citation, licence = (_text(told.get(key)) for key in named)
            here = told["distribution"] if isinstance(told["distribution"], list) else [told["distribution"]]
            files = tuple(filter(None, (_file(one, root) for one in here if isinstance(one, dict))))
            return Described(title, summary, homepage, citation, licence, files)
    return Described()


def _plain(value: Any) -> Any:
    """JSON-LD without the prefixes of its names: ``sc:name`` and ``cr:sha256`` are name and sha256."""
    if isinstance(value, dict):
        return {key.rpartition(":")[2]: _plain(inner) for key, inner in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    """A text on one line; of several the first, of an object its value, name or address."""
    if isinstance(value, list):
        return _text(value[0]) if value else ""
    if isinstance(value, dict):
        return next((_text(value[key]) for key in ("@value", "name", "url", "@id") if key in value), "")
    return " ".join(value.split()) if isinstance(value, str) else ""


def _file(one: dict[str, Any], root: Path) -> dict[str, Any]:
    """The ``[[file]]`` of an object of the distribution; empty for one that is not in the folder."""
    told = (_text(one.get(key)) for key in ("contentUrl", "name", "@id"))
    names = (name.rpartition("/")[2] for name in told if ".." not in name)
    path = next((name for name in names if name and (root / name).is_file()), "")
    size = re.match(r"(\d+)(?: ?B)?$", _text(one.get("contentSize")))
    sums = ((kind, _text(one.get(kind)).lower()) for kind in _SUMS)
    digest = next((f"{kind}:{sum_}" for kind, sum_ in sums if re.fullmatch(rf"[0-9a-f]{{{_SUMS[kind]}}}", sum_)), "")
    if not path or not (size or digest):
        return {}
    return {"path": path, **({"size": int(size[1])} if size else {}), **({"digest": digest} if digest else {})}
