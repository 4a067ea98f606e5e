"""A download in the making: its folder, mirror and options, with the source open."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxrprep.api.folder import MirrorChoice, find_mirror
from cxrprep.collection.dataset_folder import DatasetFolder, check_converted, check_stated, stated_dataset
from cxrprep.collection.lineage import read_export, read_lineage
from cxrprep.collection.recognition import sample_names
from cxrprep.collection.state_folder import check_state
from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import NotInSourceError, SourceNotFoundError, UsageError
from cxrprep.record.record import Record
from cxrprep.sources import open_source
from cxrprep.sources.base import Selective, Source, SourceOptions
from cxrprep.storage.paths import LOCK_NAME, local_path
from cxrprep.storage.unfetched import names_and_sizes
from cxrprep.transfer.options import TransferOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cxrprep.datasets.facts import DatasetSpec, PublishedFile
    from cxrprep.events import Sink
    from cxrprep.model import FolderRef, RemoteFile, Selection


@dataclass(frozen=True, slots=True)
class FetchOptions(TransferOptions):
    """How to reach the mirror, and what to do with what comes.

    ``then`` names a recipe by which each image is converted as it arrives, below ``then_out`` (``derived/RECIPE``), and
    ``discard_raw`` keeps the converted image only. Options of single services are ignored by the others. ``is_named``
    is false when the source stands in a file that was found and not named: see ``MirrorChoice``. ``has_link`` says that
    an option of this run names a signed URL.
    """

    then: str = ""
    discard_raw: bool = False
    has_link: bool = False


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
    where: FolderRef, options: FetchOptions | None, on_event: Sink, *, source: str | None, remembered: str = ""
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
    check_state(root, record.home)
    if not held.dataset:
        check_stated(root, record.home, spec)
    place = find_mirror(spec, source or remembered or held.mirror or None, where.release or held.release or None)
    place = replace(place, is_named=bool(source) and chosen.is_named)
    if chosen.has_link and not place.url.startswith("url:"):
        raise UsageError(
            f"--url-file: {place.mirror.name if place.mirror else place.url} takes no signed URL",
            hint="name the mirror that does with --source, or leave --url-file out",
        )
    stream = open_source(place.url, source_options(spec, place, chosen))
    if place.url.startswith("file:") and read_lineage(Path(stream.address) / "manifests") is not None:
        # They have the names of originals, and took their place.
        raise UsageError(
            f"{stream.address} holds converted images, not originals", hint="name the folder of the originals"
        )
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
        lineage = read_lineage(record.home / "manifests")
        if lineage is None and not stated_dataset(record.home):
            # Originals stay originals, whatever somebody exported beside them.
            lineage = next(iter(read_export(root)), None)
        if lineage is not None:
            raise UsageError(
                f"{root} holds {lineage.kind} images, not originals", hint="name another folder for the download"
            )
        check_converted(root, record.home, sample_names(root))


def passing(job: DownloadContext) -> Callable[[str], bool] | None:
    """Which release paths go as soon as they are converted; ``None`` when all stay."""
    return (lambda path: job.folder.layout.parse(path) is not None) if job.options.discard_raw else None


def listed(job: DownloadContext, selection: Selection) -> Iterable[RemoteFile]:
    """What the mirror lists: all, or at least what the selection may want where it can name that at less cost.

    Raises what sources raise, ``SourceNotFoundError`` where nothing is at the mirror's address.
    """
    try:
        yield from job.source.list_wanted(selection) if isinstance(job.source, Selective) else job.source.list()
    except NotInSourceError as error:
        raise SourceNotFoundError(error.message, hint=error.hint) from error


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
    here = (Path(folder, name).relative_to(root).as_posix() for folder, _, names in os.walk(root) for name in names)
    for path in itertools.chain(here, (name for name, _ in names_and_sizes(root))):
        if job.folder.layout.parse(path) is not None:
            if (job.folder.home / LOCK_NAME).exists():
                # Another shard of a job array began meanwhile: it says so before it fetches.
                return
            raise UsageError(
                f"{root} holds images that cxrprep did not fetch, such as {path}: --discard-raw would delete them",
                hint=f"leave it out, or name another folder and --source {root}",
            )


def in_place(job: DownloadContext) -> bool:
    """Whether the mirror is the very folder: then its files stay where they lie, and are recorded."""
    root = job.folder.root
    return job.place.url.startswith("file:") and root.exists() and Path(job.source.address).resolve() == root.resolve()
