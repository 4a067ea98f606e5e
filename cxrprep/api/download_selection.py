"""Plan for a selection, and the label tables that some selections need first."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import TYPE_CHECKING

from cxrprep.api.download_context import DownloadContext, listed, placed, source_options
from cxrprep.api.download_plan import made_of, warn_missing
from cxrprep.api.folder import MirrorChoice
from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import AccessError, NothingSelectedError, TableError
from cxrprep.events import Note
from cxrprep.model import RemoteFile, Selection
from cxrprep.selection.filters import draw
from cxrprep.sources import open_source
from cxrprep.storage.paths import holds_images

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec, Mirror
    from cxrprep.planning.plan import Plan
    from cxrprep.selection.table_filters import SelectedImages
    from cxrprep.sources.base import Source
    from cxrprep.transfer.downloader import Transfer


def planned(job: DownloadContext, transfer: Transfer, selection: Selection) -> Plan:
    """The plan for what the mirror lists now."""
    images = _selected_by_tables(job, transfer, selection).ids if selection.needs_tables else None
    listing = listed(job, selection)
    if selection.draws or selection.names_ids:
        listing = list(listing)
        if any(holds_images(file.key) for file in listing):
            images = _of_archives(job, transfer, selection, images)
    made = made_of(job, transfer, listing, selection, images=images, just_listed=True)
    return made if job.options.shard is None else made.shard(job.options.shard)


def _of_archives(
    job: DownloadContext, transfer: Transfer, selection: Selection, images: frozenset[str] | None
) -> frozenset[str] | None:
    """The images that are wanted of archives: what is in those, only the tables can say before they are here.

    ``None`` when ids alone were asked for, and there are no tables. Raises ``NothingSelectedError`` for ids that the
    tables do not know.
    """
    if images is None:
        try:
            found = _selected_by_tables(job, transfer, selection)
        except TableError:
            if selection.draws:
                raise
            return None
        warn_missing(job, selection, found.unknown(selection), f"are not in the tables of {job.spec.name}")
        images = found.ids
    if not images:
        raise NothingSelectedError(
            f"no image in the tables of {job.spec.name} matches the selection",
            hint="use fewer conditions, or check the ids",
        )
    return draw(images, selection)


def _selected_by_tables(job: DownloadContext, transfer: Transfer, selection: Selection) -> SelectedImages:
    """The images that the label tables name for a selection; the tables are fetched first where they are not here."""
    from cxrprep.labels.extract import read_labels
    from cxrprep.selection.table_filters import NoSplitError, select_images
    from cxrprep.vocabulary import stem_of

    for test in selection.labels:
        # A name that means nothing is said before anything is fetched for it.
        stem_of(test.observation)
    tables = job.folder.tables
    if tables is None:
        _fetch_tables(job, transfer)
    try:
        labels = read_labels(job.spec, job.folder.root, tables=tables, on_event=job.on_event)
        return select_images(labels.table, selection, spec=job.spec, release=labels.release)
    except (TableError, NoSplitError) as error:
        other = find_dataset(job.spec.companion) if job.spec.companion else None
        if other is None or _has_tables(other, tables or job.folder.root):
            if isinstance(error, NoSplitError):
                # Only what is here can be divided.
                raise NoSplitError(
                    error.message,
                    hint="leave --split out; manifest --split-by patient divides the images when they are here",
                ) from error
            raise
        raise _of_two(job.spec, other, f"they are not in {tables or job.source.address}") from error


def _has_tables(spec: DatasetSpec, folder: Path) -> bool:
    names = [file.path for file in spec.files_of(spec.default_release) if file.kind == "table"]
    return any((folder / spelling).exists() for name in names for spelling in (name, name.removesuffix(".gz")))


def _of_two(spec: DatasetSpec, other: DatasetSpec, reason: str) -> AccessError:
    """The error for tables of another project that are not to be had."""
    agreements = [
        mirror.agreement for mirror in (s.mirror_named(s.default_mirror) for s in (spec, other)) if mirror is not None
    ]
    return AccessError(
        f"splits, views and labels of {spec.name} are in the tables of {other.name}, which has an agreement of its "
        f"own: {reason}",
        hint=f"sign both {' and '.join(agreements)}; or give the tables: --tables DIR",
    )


def _fetch_tables(job: DownloadContext, transfer: Transfer) -> None:
    """Label tables, from the mirror itself or from the project that has them (MIMIC-CXR's stand in MIMIC-CXR-JPG)."""
    patterns = [pattern for table in job.spec.table for pattern in table.patterns]

    def is_table(file: RemoteFile) -> bool:
        place = placed(job, file)
        return place is not None and any(fnmatch(name, p) for p in patterns for name in (place, place.rsplit("/")[-1]))

    tables = Selection(include=("*.csv", "*.csv.gz", "*.txt"))
    _run_tables(job, transfer, job.source, (file for file in listed(job, tables) if is_table(file)))
    companion = job.spec.companion
    if companion and job.place.mirror is not None:
        other = find_dataset(companion)
        mirror = next((m for m in other.mirror if m.name == job.place.mirror.name), None)
        if mirror is None:
            return
        try:
            _run_tables_of(job, transfer, other, mirror)
        except AccessError as error:
            raise _of_two(job.spec, other, error.message) from error
    fetch_tables_elsewhere(job, transfer, Selection())


def tables_elsewhere(job: DownloadContext) -> frozenset[str]:
    """The label tables that another mirror has, where this one has images alone."""
    other = _with_tables(job)
    files = job.spec.files_of(other.release) if other is not None else ()
    return frozenset(file.path for file in files if file.kind == "table")


def _with_tables(job: DownloadContext) -> Mirror | None:
    mirror = job.place.mirror
    return job.spec.mirror_named(mirror.tables) if mirror is not None and mirror.tables else None


def fetch_tables_elsewhere(job: DownloadContext, transfer: Transfer, selection: Selection) -> None:
    """The label tables of a mirror that has images alone, from the one that has them, and a word on where that is.

    Globs of ``selection`` hold for them too. Raises as ``download``.
    """
    other = _with_tables(job)
    if other is None:
        return
    message = f"this mirror has only images: labels, splits and boxes come from {other.name}"
    job.on_event(Note("download", message, "info", other.url))
    wanted = Selection(include=selection.include, exclude=selection.exclude)
    _run_tables_of(job, transfer, job.spec, other, wanted)


def _run_tables_of(
    job: DownloadContext,
    transfer: Transfer,
    spec: DatasetSpec,
    mirror: Mirror,
    selection: Selection = Selection(),  # noqa: B008  # frozen
) -> None:
    place = MirrorChoice(mirror.url, mirror.release, mirror)
    names = {file.path for file in spec.files_of(mirror.release) if file.kind == "table"}
    source = open_source(mirror.url, source_options(spec, place, job.options))
    try:
        files = (file.remote() for file in spec.files_of(mirror.release) if file.kind == "table")
        if spec is job.spec:
            # The mirror names them by its own numbers.
            files = (file for file in source.list() if file.key in names)
        _run_tables(job, transfer, source, files, selection)
    finally:
        source.close()


def _run_tables(
    job: DownloadContext,
    transfer: Transfer,
    source: Source,
    files: Iterable[RemoteFile],
    selection: Selection = Selection(),  # noqa: B008  # frozen
) -> None:
    try:
        made = made_of(job, transfer, files, selection)
    except NothingSelectedError:
        return
    result = transfer.run(made, source)
    refused = next((o.error for o in result.failures if isinstance(o.error, AccessError)), None)
    if refused is not None:
        raise refused
    if result.failures and result.failures[0].error is not None:
        raise result.failures[0].error
