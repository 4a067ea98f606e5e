"""The verb verify: the proof of bytes, images and dataset, with a decoder and a way to fetch again handed in."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.folder import exported_again, find_mirror, made_again, original_of
from cxrprep.api.keywords import Keywords
from cxrprep.api.result import Result
from cxrprep.api.running import notes_progress
from cxrprep.api.status import after_labels, again_command
from cxrprep.collection.dataset_folder import DatasetFolder, open_folder
from cxrprep.collection.file_table import files_of, files_of_images, image_rows, shards_of_images, with_others
from cxrprep.collection.lineage import IMAGES_NAME, FolderKind, files_of_exports, read_export, stated_tables
from cxrprep.errors import IntegrityError, TableError, UnsafePathError, UsageError
from cxrprep.events import Note, Sink, ignore
from cxrprep.model import FolderRef, ImageCheck
from cxrprep.record.loading import put_aside
from cxrprep.record.requested import asked
from cxrprep.storage.working_copy_paths import address_of
from cxrprep.verification.made_folder import MadeFolder, verify_made
from cxrprep.verification.options import VerifyOptions
from cxrprep.verification.own_tables import written_beside
from cxrprep.verification.verifier import verify as prove

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cxrprep.api.download_context import FetchOptions
    from cxrprep.executors import Engine
    from cxrprep.storage.patient_table import ByPatient
    from cxrprep.verification.report import VerifyReport


def check_image(path: Path | str) -> ImageCheck:
    """One image decoded, in verify's words; runs in worker processes."""
    from cxrprep.images.image_info import inspect

    return inspect(path)


@takes_buckets(root="written-folder", state="written-folder", tables="read-folder")
@notes_progress("verify")
def verify(
    root: Path | str | FolderRef,
    *,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    options: VerifyOptions | None = None,
    repair: bool = False,
    source: str | None = None,
    engine: Engine | str | None = None,
    fetching: FetchOptions | None = None,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[VerifyReport]:
    """What is true of the folder; the report never says more than was checked.

    Args:
        root: A folder of any kind.
        dataset: The dataset's name, where the folder does not say it.
        release: The release, where it is not the one that the folder shows.
        state: Where record and manifests are when they are not below ROOT.
        tables: A folder with the label tables, where ROOT has none.
        options: What is checked: digests, images, facts.
        repair: Fetch wrong and missing files again.
        source: The mirror they are fetched from; by default the record's.
        engine: Where images are decoded; by default processes here.
        fetching: How the mirror is reached.
        on_event: Called with progress and remarks.
        **words: The command's options: ``images=True``, ``quick=True``, ``strict=True``, ``sample=100``, ``jobs=4``,
            and with ``repair`` those of the network.

    Returns:
        Findings by kind, with counts of what was proven. The exit code is 4 when something is wrong.

    Raises:
        UsageError: A folder that nobody recognises, or a ``source`` that is no mirror.
        IntegrityError: A list of sums that no reader understands.
        StorageError: Nothing can be written beside the record.

    Examples:
        >>> import cxrprep
        >>> cxrprep.verify("nih").value.verdict
        'all 9 files here have the bytes that they should have'
    """
    keywords = Keywords(words)
    chosen = keywords.verifying(options) or VerifyOptions()
    engine, fetching = keywords.engine(engine), keywords.fetching(fetching)
    keywords.finish()
    if engine is not None and chosen.jobs is None:
        chosen = dataclasses.replace(chosen, jobs=engine.jobs)
    where = FolderRef.of(root, dataset=dataset, release=release, state=state, tables=tables)
    # A quick check has little else in memory, and its time counts.
    try:
        folder = open_folder(where, held=chosen.quick)
    except (IntegrityError, UnsafePathError):
        damaged = put_aside(where.home) if repair else []
        if not damaged:
            raise
        # What is missing may have been dropped on purpose: the lost record said so.
        repair = False
        lost = " and ".join(damaged)
        message = f"the record goes on without {lost}, damaged (kept in .cxrprep/damaged); nothing was fetched"
        on_event(Note("verify", message, "warning"))
        folder = open_folder(where, held=chosen.quick)
    decoding = chosen.images or chosen.duplicates or chosen.sample is not None
    if decoding:
        from cxrprep.executors import Engine

        engine = engine or Engine()
        if address_of(str(folder.root.absolute())) is None:
            engine = engine.needing([str(folder.root.absolute())])
    else:
        engine = None
    if folder.kind is not FolderKind.RELEASE:
        if repair or chosen.complete:
            option = "--repair" if repair else "--complete"
            raise UsageError(
                f"{option} is for a release as it was published, and not for {folder.described()}",
                hint=f"leave it out; what is wrong is made again: {made_again(folder)}",
            )
        report = verify_made(
            _made(folder), chosen, check_image=check_image if decoding else None, engine=engine, on_event=on_event
        )
        return _result(report, folder)

    sources: list[tuple[str, str]] = []

    def labels() -> ByPatient:
        from cxrprep.labels.extract import LABELS_NAME, read_found, read_large
        from cxrprep.labels.locate_tables import find_tables
        from cxrprep.storage.patient_table import OneRange

        found = find_tables(folder.spec, folder.root, where.release, tables=where.tables, on_event=on_event)
        parts = read_large(folder.spec, found)
        # Of the tables that labels.parquet was made from it says what they do, and pandas is not loaded for them.
        # measured: 0.93 -> 0.57 s of CPU time on a folder of seven images (benchmarks/start.py).
        known = folder.manifests / LABELS_NAME
        read = parts[1] if parts else read_found(folder.spec, found, known=known, cells=True, on_event=on_event)
        sources[:] = [(use.name, str(use.digest)) for use in read.tables]
        return parts[0] if parts else OneRange(read.table)

    def refetch(paths: Sequence[str]) -> Mapping[str, str]:
        from cxrprep.api.download import fetch_again

        return fetch_again(folder, paths, fetching, source=source, on_event=on_event)

    if repair or source:
        # A source that nobody understands is refused before the hours of a check, not after them.
        find_mirror(folder.spec, source or folder.record.header.mirror or None, folder.release)
    report = prove(
        folder,
        options=chosen,
        selected=asked(folder.record.cache),
        labels=labels,
        sources=sources,
        check_image=check_image if decoding else None,
        engine=engine,
        refetch=refetch if repair else None,
        on_event=on_event,
    )
    return _result(report, folder)


def _result(report: VerifyReport, folder: DatasetFolder) -> Result[VerifyReport]:
    words = {"DOWNLOAD": again_command(folder), "DATASET": folder.spec.name, "ROOT": folder.words}
    words["SAME"] = shlex.quote(str(folder.root))
    report = dataclasses.replace(report, findings=tuple(finding.with_words(words) for finding in report.findings))
    shown = [*report.rows()]
    if report.path is not None:
        shown.append(("all findings", str(report.path)))
    following = _following(folder, is_sound=not report.exit_code)
    return Result("verify", report, report.exit_code, rows=tuple(shown), data=report.as_dict(), following=following)


def _following(folder: DatasetFolder, *, is_sound: bool) -> tuple[str, ...]:
    """What comes next: only a release has tables to extract labels from, and only once. Damaged tables are not read."""
    if folder.kind is FolderKind.RELEASE and (folder.manifests / "labels.parquet").is_file():
        images = folder.image_tables[0] if is_sound and folder.image_tables else None
        return (after_labels(folder.home, folder.words, images),)
    # Parts of a job array that were not joined have no report.
    made = "report" if (folder.read_from / IMAGES_NAME).is_file() else "status"
    verbs = {FolderKind.RELEASE: "extract-labels", FolderKind.CONVERTED: made, FolderKind.EXPORTED: ""}
    verb = verbs.get(folder.kind, "report" if folder.image_tables else "manifest")
    return (f"cxrprep {verb} {folder.words}",) if verb else ()


def _made(folder: DatasetFolder) -> MadeFolder:
    """A folder that cxrprep made, as its own tables describe it."""
    original = original_of(folder)
    try:
        images = image_rows(folder.image_tables) if folder.image_tables else None
        files = folder.files()
    except TableError as error:
        # Without it nothing says which files there should be.
        raise TableError(error.message, hint=f"make it again: {made_again(folder)}") from error
    if folder.kind is FolderKind.OWN:
        images = _listed(folder) if images is None else images
        files = files_of_images(images)
    elif images is not None and folder.in_shards:
        # A table of an earlier version has no digests of shards.
        files = with_others(files, shards_of_images(images))
    exports = read_export(folder.root)
    for one in exports:
        files = with_others(files, files_of(folder.record, one, ()))
    return MadeFolder(
        folder.root,
        folder.home,
        folder.spec,
        folder.release,
        files,
        images=images,
        originals=None if original is None else original.table().select(["path", "digest"]),
        tables=folder.lineage.tables if folder.lineage is not None else stated_tables(folder.read_from),
        own=frozenset(
            {
                *written_beside(folder.root, folder.home),
                *(path.relative_to(folder.root).as_posix() for path in files_of_exports(folder.root)),
                *("README.md", "croissant.json", "preview.html"),
            }
            - set(files["path"].to_pylist())
        ),
        again=made_again(folder),
        commands={shard.name: exported_again(folder.root, one) for one in exports for shard in one.shards},
        are_originals=folder.kind is FolderKind.OWN,
        left_out_as=_left_out_as(folder),
        keeps_findings=folder.kind is not FolderKind.EXPORTED or folder.home != folder.root,
    )


def _listed(folder: DatasetFolder) -> Any:
    """The images of one's own that no manifest lists yet: what is here, and nothing to hold it to."""
    from cxrprep.images.dicom_metadata import Pseudonyms
    from cxrprep.images.own_images import own_images
    from cxrprep.manifest.own_manifest import listing

    # Nobody is named: no key is needed, and none is made.
    return listing(own_images(folder.root, Pseudonyms(b"")))


def _left_out_as(folder: DatasetFolder) -> Callable[[str], str | None] | None:
    from cxrprep.images.image_folder import made_below
    from cxrprep.images.local_files import LocalStore
    from cxrprep.images.own_images import left_out_as

    if folder.kind is not FolderKind.OWN:
        return None
    store = LocalStore(str(folder.root))
    made = made_below(store, (entry.name for entry in store.list()))
    return lambda name: "" if name.startswith(made) else left_out_as(folder.root, name)
