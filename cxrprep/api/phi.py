"""The verb check-phi: DICOM tags that may identify a patient (protected health information)."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.convert_inputs import open_inputs
from cxrprep.api.keywords import Keywords, shard_of
from cxrprep.api.preview import EXAMPLES
from cxrprep.api.result import Result
from cxrprep.api.running import notes_progress
from cxrprep.errors import ExitCode
from cxrprep.events import Advanced, Sink, StageStarted, ignore
from cxrprep.executors import Engine, Lost
from cxrprep.humanize import short_repr
from cxrprep.images.phi import KINDS, scan_tags
from cxrprep.model import FolderRef, Selection, Shard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cxrprep.images.radiograph import ImageLimits

_LISTED: Final = 1000


# Lines of one kind that a person reads.
_MOST_LINES: Final = 8
_BY_FILE: Final = ("burned in", "file name")


# Kind, creator, tag and keyword.
_Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class SuspectTag:
    """A tag that looks like an identity: ``files`` hold it; ``masked`` is the shape of one value, never the value."""

    tag: str
    keyword: str
    kind: str
    why: str
    masked: str
    files: int
    names: tuple[str, ...]
    creator: str = ""


@dataclass(frozen=True, slots=True)
class SuspectGroup:
    """Tags of one kind, private ones of one ``creator``: how many they are, and how many files hold any of them."""

    kind: str
    why: str
    creator: str
    tags: int
    files: int


@dataclass(frozen=True, slots=True)
class PhiResult:
    """What ``check_phi`` found in ``files`` files, by tag and by kind; ``unreadable`` are (file, reason)."""

    __repr__ = short_repr

    files: int
    suspect_files: int
    groups: tuple[SuspectGroup, ...]
    tags: tuple[SuspectTag, ...]
    unreadable: tuple[tuple[str, str], ...]


@takes_buckets(root="dataset-folder", state="written-folder", tables="read-folder")
@notes_progress("check-phi")
def check_phi(
    root: Path | str | FolderRef,
    *,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    selection: Selection | Mapping[str, Any] = Selection(),  # noqa: B008  # frozen
    shard: Shard | str | None = None,
    engine: Engine | str | None = None,
    limits: ImageLimits | None = None,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[PhiResult]:
    """The tags of ROOT's images that look like an identity, with the files that hold them; values are masked.

    None of them is ever copied into an output. The list of tags is PS3.15, table E.1-1.

    Args:
        root: The folder, or an address.
        dataset: The dataset's name, where the folder does not say it.
        release: The release, where it is not the one that the folder shows.
        state: Where record and manifests are when they are not below ROOT.
        tables: A folder with the label tables, where ROOT has none.
        selection: Which images are looked at.
        shard: The part of a job array.
        engine: Where the work runs; by default processes on all cores.
        limits: How many bytes a file may inflate to, and for how long a worker may be at one.
        on_event: Called with progress and remarks.
        **words: Select and work as the command's options do: ``limit=100``, ``jobs=4``, ``max_seconds=30``.

    Returns:
        Tags with counts and files. Exit code 3 means that some headers could not be read.

    Raises:
        UsageError: A selection needs tables where there are none, or the folder is none.
        NothingSelectedError: Nothing is left.

    Examples:
        >>> import cxrprep
        >>> looked = cxrprep.check_phi("nih", jobs=1).value
        >>> looked.files, looked.suspect_files
        (5, 0)
    """
    keywords = Keywords(words)
    selection, shard = keywords.selection(selection), shard_of(shard)
    engine, limits = keywords.engine(engine), keywords.limits(limits)
    keywords.finish()
    inputs = open_inputs(
        FolderRef.of(root, dataset=dataset, release=release, state=state, tables=tables),
        selection=selection, shard=shard,
        on_event=on_event,
    )  # fmt: skip
    on_event(StageStarted("check-phi", items=inputs.total, unit="images"))
    counts: Counter[_Key] = Counter()
    holders: Counter[tuple[str, str]] = Counter()
    shapes: dict[_Key, str] = {}
    names: dict[_Key, list[str]] = {}
    unreadable: list[tuple[str, str]] = []
    suspect_files = 0
    work = ((inputs.address, item.relative) for item in inputs.items())
    work_on = scan_tags if limits is None else functools.partial(scan_tags, limits=limits)
    for scanned in (engine or Engine()).run(work_on, work, batch=100, on_event=on_event):
        on_event(Advanced("check-phi", items=1))
        if isinstance(scanned, Lost):
            unreadable.append((scanned.item[1], scanned.cause))
            continue
        if scanned.error:
            unreadable.append((scanned.name, scanned.error))
        suspect_files += bool(scanned.suspects)
        holders.update({(s.kind, s.creator) for s in scanned.suspects})
        for key, masked in {(s.kind, s.creator, s.tag, s.keyword): s.masked for s in scanned.suspects}.items():
            counts[key] += 1
            shapes[key] = min(shapes.get(key, masked), masked)
            if len(names.setdefault(key, [])) < _LISTED:
                names[key].append(scanned.name)
    order = list(KINDS)
    tags = tuple(
        SuspectTag(key[2], key[3], key[0], KINDS[key[0]], shapes[key], counts[key], tuple(sorted(names[key])), key[1])
        for key in sorted(counts, key=lambda key: (order.index(key[0]), -counts[key], key))
    )
    of_group = Counter(key[:2] for key in counts)
    groups = tuple(
        SuspectGroup(key[0], KINDS[key[0]], key[1], of_group[key], holders[key])
        for key in sorted(holders, key=lambda key: (order.index(key[0]), -holders[key], key))
    )
    value = PhiResult(inputs.total, suspect_files, groups, tags, tuple(sorted(unreadable)))
    rows = [
        ("images", value.files),
        ("suspect", value.suspect_files),
        *((kind, "\n".join(_lines(kind, value))) for kind in order if any(group.kind == kind for group in groups)),
        *((("not readable", len(unreadable)),) if unreadable else ()),
        *((name, reason) for name, reason in value.unreadable[:EXAMPLES]),
        ("", "values are masked: x is a letter, 9 a digit; --json lists every tag with its files"),
        ("", "no output of convert carries any of these tags"),
    ]
    return Result("check-phi", value, ExitCode.PARTIAL if unreadable else ExitCode.DONE, rows=tuple(rows))


def _lines(kind: str, value: PhiResult) -> Iterator[str]:
    """One kind of tag for a person: the tags in most files first, private ones by their creator."""
    groups = [group for group in value.groups if group.kind == kind]
    yield groups[0].why
    if kind == "private":
        lines = [f"{group.creator or 'no creator'}: {group.tags:,} tags in {group.files:,} files" for group in groups]
    else:
        lines = [_of_tag(tag) for tag in value.tags if tag.kind == kind]
    yield from (f"- {line}" for line in lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        yield f"- and {len(lines) - _MOST_LINES:,} more"


def _of_tag(tag: SuspectTag) -> str:
    where = f"{tag.keyword} {tag.tag}" if tag.tag.startswith("(") else tag.keyword
    shape = f": {tag.masked}" if tag.masked else ""
    # Of these a person must look at the very files.
    first = f"; first: {tag.names[0]}" if tag.kind in _BY_FILE else ""
    return f"{where} in {tag.files:,} files{shape}{first}"
