"""The verb duplicates: images that show one exposure, or one patient under two names, in one folder or in several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.export import load
from cxrprep.api.result import Result
from cxrprep.api.running import notes_progress
from cxrprep.errors import ExitCode, UsageError
from cxrprep.events import Sink, ignore
from cxrprep.humanize import format_count, short_repr
from cxrprep.images.similarity import RELATED
from cxrprep.manifest.near_duplicates import NEAR_DUPLICATES_NAME, SCHEMA, near_duplicates
from cxrprep.model import FolderRef
from cxrprep.storage.atomic import refuse_over_others
from cxrprep.storage.parquet import footer_of, write_table
from cxrprep.storage.paths import local_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class DuplicatesResult:
    """What ``duplicates`` found in the ``images`` that it compared: pairs of each kind, and where their table is.

    ``unread`` are the images that could not be read, of which nothing is known.
    ``across_splits`` are pairs whose images lie in two splits of one collection or of several; ``across_collections``
    those of two datasets.
    """

    __repr__ = short_repr

    path: Path
    images: int
    unread: int
    same_exposure: int
    related: int
    across_splits: int
    across_collections: int


@takes_buckets(root="written-folder", state="written-folder", against="read-folder", out="written-file")
@notes_progress("duplicates")
def duplicates(
    root: Path | str | FolderRef,
    *,
    against: Iterable[Path | str] = (),
    out: Path | str | None = None,
    least: float | None = None,
    dataset: str | None = None,
    state: Path | str | None = None,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[DuplicatesResult]:
    """Find near-duplicates: altered copies of an image, and images of one patient under two identifiers.

    Brightness, contrast, inversion, mirroring, JPEG, small turns, crops and shifts, borders and text do not hide them.
    Nothing is removed.

    Args:
        root: A folder with a manifest: a release, converted images or shards.
        against: Further folders with a manifest, compared with ROOT, with each other and with themselves.
        out: The table of pairs; by default ``manifests/near_duplicates.parquet`` below ROOT.
        least: The least correlation of a pair, from 0.3 to 1; by default 0.3. Pairs of 0.65 and more show the same
            exposure; below, the same patient.
        dataset: What ROOT has to hold, where somebody wants to be sure.
        state: Where ROOT's manifest is when it is not below it.
        on_event: Called with progress and remarks.
        **words: Select images of every folder as the command's options do (``view="frontal"``, ``limit=100``).

    Returns:
        Counts, and the path of the table, whose rows are ``cxrprep.manifest.near_duplicates.NEAR_DUPLICATES``. The exit
        code is 3 where images could not be read.

    Raises:
        UsageError: A folder without a manifest, or a ``least`` that no pair can be trusted at.
        NothingSelectedError: There are no two images.
        StorageError: The disk refuses.

    Examples:
        >>> import cxrprep
        >>> found = cxrprep.duplicates("nih", least=0.65).value
        >>> found.images, found.path.name
        (5, 'near_duplicates.parquet')
    """
    if least is not None and not RELATED <= least <= 1:
        raise UsageError(f"{least} is out of range for a correlation", hint=f"use a number from {RELATED} to 1")
    where = FolderRef.of(root, dataset=dataset, state=state)
    target = where.home / "manifests" / NEAR_DUPLICATES_NAME
    if out is not None:
        target = local_path(out, "--out")
        refuse_over_others(target, lambda _: footer_of(target).get("schema") == SCHEMA, "table of pairs", "--out")
    held = [load(where, **words), *(load(FolderRef.of(other), **words) for other in against)]
    found, compared = near_duplicates(held, least=least, on_event=on_event)
    folders = [{"dataset": each.name, **{k: each.made_from.get(k) for k in ("release", "recipe")}} for each in held]
    write_table(found, target, name=SCHEMA, made_from={"folders": folders})
    pairs = found.select(["relation", "across_splits", "dataset_a", "dataset_b"]).to_pylist()
    value = DuplicatesResult(
        path=target,
        images=compared,
        unread=sum(map(len, held)) - compared,
        same_exposure=sum(pair["relation"] == "same-exposure" for pair in pairs),
        related=sum(pair["relation"] == "related" for pair in pairs),
        across_splits=sum(pair["across_splits"] for pair in pairs),
        across_collections=sum(pair["dataset_a"] != pair["dataset_b"] for pair in pairs),
    )
    several = len({each.name for each in held}) > 1
    rows = (
        ("images", value.images),
        *((("not compared", f"{value.unread:,}, which cannot be read; verify names them"),) if value.unread else ()),
        ("same exposure", format_count(value.same_exposure, "pair")),
        ("same patient, by the pixels", format_count(value.related, "pair")),
        ("in two splits", format_count(value.across_splits, "pair")),
        *((("in two collections", format_count(value.across_collections, "pair")),) if several else ()),
        ("written", str(target)),
    )
    return Result("duplicates", value, ExitCode.PARTIAL if value.unread else ExitCode.DONE, rows=rows)
