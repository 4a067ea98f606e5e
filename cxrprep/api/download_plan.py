"""Download plan: mirror, folder, selection, and the label tables that some selections need first."""

from __future__ import annotations

import os
import shlex
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.folder import DatasetFolder, MirrorChoice, find_mirror
from cxrprep.collection.lineage import read_export, read_lineage
from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import AccessError, NothingSelectedError, TableError, UsageError
from cxrprep.events import Note
from cxrprep.model import FolderRef, Selection
from cxrprep.planning import Plan, make_plan
from cxrprep.planning.plan import CHANGED
from cxrprep.record import LOCK_NAME, Record
from cxrprep.selection.filters import draw
from cxrprep.sources import open_source
from cxrprep.sources.base import Selective, SourceOptions
from cxrprep.storage.paths import is_archive, local_path
from cxrprep.transfer.downloader import Transfer, TransferOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cxrprep.datasets.catalog import DatasetSpec, Mirror, PublishedFile
    from cxrprep.events import Sink
    from cxrprep.model import RemoteFile
    from cxrprep.selection.table_filters import SelectedImages
    from cxrprep.sources.base import Source

_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class FetchOptions(TransferOptions):
    """How to reach the mirror, and what to do with what comes.

    ``then`` names a recipe by which each image is converted as it arrives, below ``then_out`` (``derived/RECIPE``), and
    ``discard_raw`` keeps the converted image only. Options of single services are ignored by the others. ``is_named``
    is false when the source stands in a file that was found and not named: see ``MirrorChoice``.
    """

    then: str = ""
    discard_raw: bool = False


@dataclass(frozen=True, slots=True)
class DownloadContext:
    """One download in the making: what is wanted, from where, and into what."""

    folder: DatasetFolder
    place: MirrorChoice
    source: Source
    options: FetchOptions
    on_event: Sink

    @property
    def spec(self) -> DatasetSpec:
        """The dataset."""
        return self.folder.spec

    @property
    def published(self) -> Mapping[str, PublishedFile]:
        """What the publisher states, for mirrors that state less; only the official ones are held to it."""
        if self.place.mirror is None:
            return {}
        return {file.path: file for file in self.spec.files_of(self.folder.release)}

    @property
    def excused(self) -> frozenset[str]:
        """Files that this mirror is known to hold in another form than published."""
        name = self.place.mirror.name if self.place.mirror else ""
        return frozenset(
            path
            for quirk in self.spec.quirk
            if quirk.kind == "upstream-mismatch" and quirk.mirror in ("", name) and name
            for path in quirk.paths
        )

    def unpacks(self, path: str) -> bool:
        """Whether a file is an archive of images; an archive of reports is used as it is."""
        return is_archive(path) and "report" not in path


def placed(job: DownloadContext, file: RemoteFile) -> str | None:
    """The release path of a mirror's file."""
    return job.folder.layout.place(file.key, release=job.folder.release)


def source_options(spec: DatasetSpec, place: MirrorChoice, options: FetchOptions) -> SourceOptions:
    """What a source is told: the user's choices, and what the catalog knows of the mirror."""
    mirror = place.mirror
    if mirror is None:
        return replace(options, is_named=place.is_named)
    return replace(
        options,
        connections=options.connections or mirror.connections,
        known=tuple(replace(file.remote(), validator=file.id or None) for file in spec.files_of(place.release)),
        is_named=place.is_named,
        extra=mirror.source_settings(),
    )


@contextmanager
def opened(
    where: FolderRef,
    options: FetchOptions | None,
    on_event: Sink,
    *,
    source: str | None,
    remembered: str = "",
) -> Iterator[DownloadContext]:
    """A download whose source is open; it is closed at the end.

    Args:
        where: The folder, with the dataset that it is for: a name of the catalog, or the path of a TOML file.
        options: How the mirror is reached, and what is done with what comes.
        on_event: Called with progress and remarks.
        source: A mirror's name, an address or a folder.
        remembered: The mirror of a saved plan, for when ``source`` is not given; then comes that of the record.

    Yields:
        What the download works with.

    Raises:
        UsageError: Names mean nothing, or ``discard_raw`` would delete what was never fetched.
    """
    spec = find_dataset(where.dataset or "")
    chosen = options or FetchOptions()
    root = local_path(where.root, "ROOT")
    home = None if where.state is None else local_path(where.state, "--state")
    record = Record.open(root, home)
    held = record.header
    if held.dataset and held.dataset != spec.name:
        raise UsageError(f"{root} holds {held.dataset}, not {spec.name}", hint="name another folder")
    _never_into_outputs(root, record)
    place = find_mirror(spec, source or remembered or held.mirror or None, where.release or held.release or None)
    place = replace(place, is_named=bool(source) and chosen.is_named)
    stream = open_source(place.url, source_options(spec, place, chosen))
    folder = DatasetFolder(root, record.home, spec, place.release, record, tables=where.tables)
    job = DownloadContext(folder, place, stream, chosen, on_event)
    try:
        if chosen.discard_raw:
            _spare_what_was_here(job)
        yield job
    finally:
        stream.close()


def _never_into_outputs(root: Path, record: Record) -> None:
    """Refuse a folder that a conversion or an export made: its manifest would be taken for that of originals."""
    if root.is_dir() and not record.header.dataset:
        lineage = read_lineage(record.home / "manifests") or next(iter(read_export(root)), None)
        if lineage is not None:
            raise UsageError(
                f"{root} holds {lineage.kind} images, not originals", hint="name another folder for the download"
            )


def passing(job: DownloadContext) -> Callable[[str], bool] | None:
    """Which release paths go as soon as they are converted; ``None`` when all stay."""
    return (lambda path: job.folder.layout.parse(path) is not None) if job.options.discard_raw else None


def _spent(job: DownloadContext) -> Callable[[str], bool]:
    """Which of the files that were dropped after their use need not come again.

    An archive that was unpacked; an image whose converted copy, the one that this run would make, is here.
    """
    layout = job.folder.layout
    if not job.options.discard_raw:
        return lambda path: layout.parse(path) is None
    from cxrprep.images.image_folder import stem_of
    from cxrprep.images.recipe import load_recipe
    from cxrprep.manifest.previous import stated_outputs

    recipe = load_recipe(job.options.then)
    out = job.folder.derived(recipe.name)
    stated, wrong = stated_outputs(out), found_wrong(out / "manifests")

    def is_made(path: str) -> bool:
        """Whether the converted image is here, whole, and not one that a check found to be wrong."""
        made = stem_of(path) + recipe.output.suffix
        try:
            size = (out / made).stat().st_size
        except OSError:
            return False
        return size == stated.get(made, (size, ""))[0] and made not in wrong

    return lambda path: layout.parse(path) is None or is_made(path)


def transfer_of(
    job: DownloadContext,
    hook: Callable[[str, Path], bool | None] | None = None,
    *,
    planning: bool = False,
    wrong: frozenset[str] = frozenset(),
) -> Transfer:
    """A transfer into the folder; enter it before planning, so that plan and work see one state.

    Args:
        job: The open download.
        hook: Gets each complete file.
        planning: For a plan that nobody applies now.
        wrong: Files to fetch again though their sizes are right, beside those that verify found: see
            ``TransferOptions``.

    Returns:
        The transfer, not entered.
    """
    return Transfer(
        job.folder.record,
        job.folder.layout,
        job.folder.release,
        options=replace(
            job.options,
            passing=passing(job),
            spent=_spent(job),
            wrong=wrong | found_wrong(job.folder.manifests, job.folder),
            planning=planning,
        ),
        on_event=job.on_event,
        on_complete=hook,
    )


def found_wrong(manifests: Path, folder: DatasetFolder | None = None) -> frozenset[str]:
    """The files that the last check found to be wrong, and that nothing has mended since.

    Of a release's ``folder`` the tables are among them where what they say is wrong.
    """
    if not any(manifests.glob("verify*.parquet")):
        return frozenset()
    from cxrprep.verification.findings_table import are_tables_wrong, wrong_files
    from cxrprep.verification.published_checksums import table_paths

    tables = folder is not None and are_tables_wrong(manifests)
    return wrong_files(manifests) | (
        table_paths(folder.spec, folder.root) if folder is not None and tables else frozenset()
    )


def _same_mirror(job: DownloadContext) -> bool:
    return job.folder.record.header.mirror in ("", job.source.address)


def made_of(
    job: DownloadContext, transfer: Transfer, listing: Iterable[RemoteFile], selection: Selection, **more: Any
) -> Plan:
    """The plan for a listing, with what the folder holds.

    Args:
        job: The open download.
        transfer: Says what is here.
        listing: The files of the mirror.
        selection: What is wanted.
        **more: As ``make_plan`` takes them.

    Returns:
        The plan.

    Raises:
        NothingSelectedError: The selection wants nothing.
        UsageError: A draw needs tables that were not asked.
    """
    local_state = transfer.local_state(same_mirror=_same_mirror(job))
    made = make_plan(
        listing,
        job.folder.layout,
        dataset=job.spec.name,
        release=job.folder.release,
        local_state=local_state,
        mirror=job.source.address,
        mirror_is_named=job.place.is_named,
        selection=selection,
        published=job.published,
        excused=job.excused,
        unpack=job.unpacks,
        in_place=in_place(job),
        **more,
    )
    _warn_missing(job, selection, made.unmet, "match no image of the mirror")
    if made.in_place:
        _note_packed(job, made)
        _warn_changed(job, made)
    if local_state.wanted_again:
        message = (
            f"originals that were dropped after their conversion are wanted again, such as {local_state.wanted_again}"
        )
        job.on_event(Note("download", message, "warning", local_state.wanted_again))
    return made


def planned(job: DownloadContext, transfer: Transfer, selection: Selection) -> Plan:
    """The plan for what the mirror lists now."""
    images = _selected_by_tables(job, transfer, selection).ids if selection.needs_tables else None
    listing = listed(job, selection)
    if selection.draws or selection.names_ids:
        listing = list(listing)
        if any(job.unpacks(file.key) for file in listing):
            images = _of_archives(job, transfer, selection, images)
    made = made_of(job, transfer, listing, selection, images=images)
    return made if job.options.shard is None else made.shard(job.options.shard)


def listed(job: DownloadContext, selection: Selection) -> Iterable[RemoteFile]:
    """What the mirror lists: all, or at least what the selection may want where it can name that at less cost."""
    return job.source.list_wanted(selection) if isinstance(job.source, Selective) else job.source.list()


def again(job: DownloadContext, transfer: Transfer, saved: Plan) -> Plan:
    """A saved plan with actions for what is here now; its choice of files stays."""
    if not saved.items:
        # A shard that got no file: an array may have more jobs than there are files.
        return saved
    made = made_of(job, transfer, (item.file for item in saved.items), Selection(), images=None)
    made = replace(made, selection=saved.selection, images=saved.images)
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
        _warn_missing(job, selection, found.unknown(selection), f"are not in the tables of {job.spec.name}")
        images = found.ids
    if not images:
        raise NothingSelectedError(
            f"the tables of {job.spec.name} know no image that the selection wants",
            hint="use fewer conditions, or check the ids",
        )
    return draw(images, selection)


def _warn_missing(job: DownloadContext, selection: Selection, names: Sequence[str], what: str) -> None:
    if names:
        asked = len(selection.patients | selection.studies | selection.images)
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        job.on_event(Note("download", f"{len(names):,} of {asked:,} ids {what}: {shown}", "warning"))


def _selected_by_tables(job: DownloadContext, transfer: Transfer, selection: Selection) -> SelectedImages:
    """The images that the label tables name for a selection; the tables are fetched first where they are not here."""
    from cxrprep.labels.extract import read_labels
    from cxrprep.selection.table_filters import select_images
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
    except TableError as error:
        other = find_dataset(job.spec.companion) if job.spec.companion else None
        if other is None or _has_tables(other, tables or job.folder.root):
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
        f"splits, views and labels of {spec.name} stand in the tables of {other.name}, which has an agreement of its "
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
    message = f"this mirror has images alone: labels, splits and boxes come from {other.name}"
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


def _spare_what_was_here(job: DownloadContext) -> None:
    """Refuse to drop images after their conversion that somebody else put into the folder."""
    root, record = job.folder.root, job.folder.record
    held = record.header.mirror
    if in_place(job) or (held and Path(held).resolve() == root.resolve()):
        raise UsageError(
            f"{root} is the mirror itself: --discard-raw would delete the originals",
            hint=f"leave it out, or name another folder and --source {root}",
        )
    if record.exists:
        return
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name).relative_to(root).as_posix()
            if job.folder.layout.parse(path) is not None:
                if (job.folder.home / LOCK_NAME).exists():
                    # Another shard of a job array began meanwhile: it says so before it fetches.
                    return
                raise UsageError(
                    f"{root} holds images that cxrprep did not fetch, such as {path}: --discard-raw would delete them",
                    hint=f"leave it out, or name another folder and --source {root}",
                )


def _note_packed(job: DownloadContext, made: Plan) -> None:
    """Say what to do where a folder that is adopted holds archives and none of what is in them."""
    packed = [item.dest for item in made if job.unpacks(item.dest)]
    if packed and not any(job.folder.layout.shows_image(item.dest) for item in made):
        where = shlex.quote(str(job.folder.root))
        what = f"{packed[0]} stays packed here; to have its images"
        if len(packed) > 1:
            what = f"{len(packed)} archives stay packed here; to have their images"
        message = f"{what}: cxrprep download {job.spec.name} FOLDER --source {where}"
        job.on_event(Note("download", message, "warning"))


def _warn_changed(job: DownloadContext, made: Plan) -> None:
    """Say which files of a folder that is adopted again may not be what was recorded of them."""
    changed = [item.dest for item in made if item.reason == CHANGED]
    if changed:
        what = changed[0] if len(changed) == 1 else f"{len(changed)} files, such as {changed[0]}"
        message = (
            f"size or time is not as recorded: {what}; the record stays as it is, and verify says whether it holds"
        )
        job.on_event(Note("download", message, "warning"))


def in_place(job: DownloadContext) -> bool:
    """Whether the mirror is the very folder: then its files stay where they lie, and are recorded."""
    root = job.folder.root
    return job.place.url.startswith("file:") and root.exists() and Path(job.source.address).resolve() == root.resolve()
