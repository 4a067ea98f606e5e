"""The verbs that look before anything is made: a preview of a recipe, and the tags that look like an identity."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.api.inputs import open_inputs
from cxrprep.api.results import Result
from cxrprep.engine import Engine, Lost
from cxrprep.errors import ExitCode
from cxrprep.events import Advanced, StageStarted, ignore
from cxrprep.model import Selection

if TYPE_CHECKING:
    from cxrprep.events import Sink
    from cxrprep.images.picture import Limits
    from cxrprep.model import Shard
    from cxrprep.report.preview import PreviewResult

_EXAMPLES: Final = 5
_LISTED: Final = 1000


def preview(
    root: Path | str,
    *,
    recipe: str,
    count: int,
    out: Path | str | None = None,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    selection: Selection = Selection(),  # noqa: B008  # frozen
    shard: Shard | None = None,
    limits: Limits | None = None,
    on_event: Sink = ignore,
) -> Result[PreviewResult]:
    """A contact sheet of ``count`` images: stored values, the header's intent, and the result, side by side.

    It goes to ``preview.html`` below ``out`` (by default where the conversion would put its images). Nothing else is
    written. Raises ``UsageError`` and ``NothingSelectedError`` as ``convert`` does.
    """
    from cxrprep.api.pixels import target_of
    from cxrprep.images.picture import DEFAULT_LIMITS
    from cxrprep.images.places import is_url
    from cxrprep.images.preview import see
    from cxrprep.images.recipe import load_recipe
    from cxrprep.report.contact import draw
    from cxrprep.report.preview import write_preview

    chosen = load_recipe(recipe)
    inputs = open_inputs(
        root, dataset=dataset, release=release, state=state, tables=tables, selection=selection, shard=shard,
        without=out, on_event=on_event,
    )  # fmt: skip
    place = Path(f"preview-{chosen.name}.html")
    if not is_url(str(out)) and (out is not None or inputs.folder is not None):
        place = Path(str(target_of(inputs, chosen, out))) / "preview.html"
    drawn = set(draw([item.relative for item in inputs.items()], count))
    on_event(StageStarted("preview", items=len(drawn), unit="images"))
    seen = []
    for index, item in enumerate(inputs.items()):
        if index in drawn:
            seen.append(see(item, chosen, limits or DEFAULT_LIMITS))
            on_event(Advanced("preview", items=1))
    seen.sort(key=lambda one: one.name)
    made = write_preview(seen, chosen, place, title=Path(inputs.address).name or inputs.address)
    rows = [
        ("images", made.images),
        *((("cannot be converted", made.unreadable),) if made.unreadable else ()),
        *(("look at", f"{name}: {text}") for name, text in made.warnings[:_EXAMPLES]),
        ("open", str(made.path.resolve())),
    ]
    return Result("preview", made, rows=tuple(rows))


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


@dataclass(frozen=True, slots=True)
class PhiResult:
    """What ``check_phi`` found in ``files`` files; ``unreadable`` are (file, reason)."""

    files: int
    suspect_files: int
    tags: tuple[SuspectTag, ...]
    unreadable: tuple[tuple[str, str], ...]


def check_phi(
    root: Path | str,
    *,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    selection: Selection = Selection(),  # noqa: B008  # frozen
    shard: Shard | None = None,
    engine: Engine | None = None,
    on_event: Sink = ignore,
) -> Result[PhiResult]:
    """The tags of ROOT's images that look like an identity, with the files that hold them; values are masked.

    None of them is ever copied into an output. Exit code 3 means that some headers could not be read. Raises
    ``UsageError`` and ``NothingSelectedError`` as ``convert`` does.
    """
    from cxrprep.images.phi import KINDS, look

    inputs = open_inputs(
        root, dataset=dataset, release=release, state=state, tables=tables, selection=selection, shard=shard,
        on_event=on_event,
    )  # fmt: skip
    on_event(StageStarted("check-phi", items=inputs.total, unit="images"))
    counts: Counter[tuple[str, str, str]] = Counter()
    shapes: dict[tuple[str, str, str], str] = {}
    names: dict[tuple[str, str, str], list[str]] = {}
    unreadable: list[tuple[str, str]] = []
    suspect_files = 0
    work = ((inputs.address, item.relative) for item in inputs.items())
    for looked in (engine or Engine()).run(look, work, batch=100, on_event=on_event):
        on_event(Advanced("check-phi", items=1))
        if isinstance(looked, Lost):
            unreadable.append((looked.item[1], looked.cause))
            continue
        if looked.error:
            unreadable.append((looked.name, looked.error))
        suspect_files += bool(looked.suspects)
        for key, masked in {(s.kind, s.tag, s.keyword): s.masked for s in looked.suspects}.items():
            counts[key] += 1
            shapes[key] = min(shapes.get(key, masked), masked)
            if len(names.setdefault(key, [])) < _LISTED:
                names[key].append(looked.name)
    order = list(KINDS)
    tags = tuple(
        SuspectTag(key[1], key[2], key[0], KINDS[key[0]], shapes[key], counts[key], tuple(sorted(names[key])))
        for key in sorted(counts, key=lambda key: (order.index(key[0]), -counts[key], key))
    )
    value = PhiResult(inputs.total, suspect_files, tags, tuple(sorted(unreadable)))
    rows = [
        ("images", value.files),
        ("with suspect tags", value.suspect_files),
        *((f"{tag.keyword} {tag.tag}", _told(tag)) for tag in tags),
        *((("not readable", len(unreadable)),) if unreadable else ()),
        *((name, reason) for name, reason in value.unreadable[:_EXAMPLES]),
        ("", "values are masked: x is a letter, 9 a digit; no output of convert carries any of these tags"),
    ]
    return Result("check-phi", value, ExitCode.PARTIAL if unreadable else ExitCode.DONE, rows=tuple(rows))


def _told(tag: SuspectTag) -> str:
    shape = f", such as {tag.masked}" if tag.masked else ""
    shown = ", ".join(tag.names[:2])
    return f"{tag.why}: {tag.files:,} files{shape}; {shown}{', ...' if tag.files > 2 else ''}"
