"""The verbs plan, download, and the repair of single files."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrprep._version import __version__
from cxrprep.api.buckets import takes_buckets
from cxrprep.api.convert_on_arrival import ArrivalConverter
from cxrprep.api.download_context import DownloadContext, FetchOptions, in_place, listed, opened, placed, source_options
from cxrprep.api.download_plan import again, found_wrong, made_of, transfer_of
from cxrprep.api.download_selection import fetch_tables_elsewhere, planned, tables_elsewhere
from cxrprep.api.download_summary import STAGE, fits, note_foreign, plan_data, plan_rows, result_data, result_rows
from cxrprep.api.folder import find_mirror
from cxrprep.api.keywords import Keywords
from cxrprep.api.manifest import rebuild_manifest
from cxrprep.api.result import Result
from cxrprep.api.running import notes_progress
from cxrprep.checksum_files import NAMES as SUMS_NAMES
from cxrprep.datasets.catalog import find_dataset, known_dataset
from cxrprep.errors import CxrprepError, ExitCode, UsageError, most_pressing
from cxrprep.events import Note, Sink, ignore
from cxrprep.humanize import format_count
from cxrprep.manifest import FAILURES_NAME
from cxrprep.model import FolderRef, Selection
from cxrprep.planning.plan import Action, Plan
from cxrprep.planning.plan_file import load_plan
from cxrprep.record.requested import remember
from cxrprep.sources import open_source
from cxrprep.storage.paths import holds_images
from cxrprep.storage.unfetched import lies_there

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cxrprep.collection.dataset_folder import DatasetFolder
    from cxrprep.transfer.downloader import Transfer
    from cxrprep.transfer.result import TransferResult


@takes_buckets(root="written-folder", state="written-folder", tables="read-folder")
def plan(
    dataset: str,
    root: Path | str | FolderRef | None = None,
    *,
    source: str | None = None,
    release: str | None = None,
    selection: Selection | Mapping[str, Any] = Selection(),  # noqa: B008  # frozen
    tables: Path | str | None = None,
    state: Path | str | None = None,
    options: FetchOptions | None = None,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[Plan]:
    """What a download of ``dataset`` into ``root`` would do; label tables alone are fetched, if it needs them.

    Args:
        dataset: A name of the catalog, or the path of a dataset's own TOML file.
        root: The folder; by default ``./DATASET``.
        source: A mirror's name, an address or a folder; by default the folder's own, else the dataset's.
        release: The release; by default the newest that the mirror has.
        selection: What is wanted.
        tables: A folder with the label tables, for a selection by split, view or label.
        state: The folder of the record, beside a ROOT that is read-only.
        options: How the mirror is reached, and what is done with what comes.
        on_event: Called with progress and remarks.
        **words: Select and fetch as the command's options do: ``split="test"``, ``limit=100``, ``connections=4``.

    Returns:
        The plan. The exit code is 7 when the disk lacks the room.

    Raises:
        UsageError: A name that means nothing, or a folder of another dataset.
        AccessError: A login or an agreement is missing.
        SourceUnreachableError: The mirror does not answer.
        NothingSelectedError: The selection wants nothing.
        BusyError: Another run works on the folder.

    Examples:
        >>> import cxrprep
        >>> planned = cxrprep.plan("nih-chestxray14", "nih-test", source="mirror", split="test").value
        >>> len(planned.images)
        1
    """
    wanted, options = _with_words(selection, options, words)
    where = _folder(dataset, root, release=release, state=state, tables=tables)
    with opened(where, options, on_event, source=source) as job:
        with transfer_of(job, planning=True) as transfer:
            made = planned(job, transfer, wanted)
        _warn_holes(job, made)
        return _plan_result(made, job)


def _with_words(
    selection: Selection | Mapping[str, Any], options: FetchOptions | None, words: Mapping[str, Any]
) -> tuple[Selection, FetchOptions | None]:
    keywords = Keywords(words)
    wanted = keywords.selection(selection)
    options = keywords.fetching(options, "keep_archives", "link", "then", "discard_raw", "shard")
    keywords.finish()
    return wanted, options


def _folder(dataset: str, root: Path | str | FolderRef | None, **said: Any) -> FolderRef:
    """The folder of a download; by default it has the name of its dataset."""
    return FolderRef.of(find_dataset(dataset).name if root is None else root, **said, dataset=dataset)


def _plan_result(made: Plan, job: DownloadContext) -> Result[Plan]:
    code = ExitCode.DONE if fits(made, job) else ExitCode.STORAGE
    return Result("plan", made, exit_code=code, rows=plan_rows(made, job), data=plan_data(made, job))


@takes_buckets(root="written-folder", state="written-folder", tables="read-folder")
def read_plan(
    file: Path | str | Plan,
    dataset: str = "",
    root: Path | str | FolderRef | None = None,
    *,
    source: str | None = None,
    tables: Path | str | None = None,
    state: Path | str | None = None,
    options: FetchOptions | None = None,
    on_event: Sink = ignore,
) -> Result[Plan]:
    """The plan that ``planning.save_plan`` wrote, perhaps on another host, with actions for what is here now.

    Args:
        file: The plan's file, or a plan that was read already.
        dataset: The dataset it must be of; by default its own.
        root: The folder; by default ``./DATASET``.
        source: A mirror in the place of the plan's.
        tables: A folder with the label tables.
        state: The folder of the record, beside a ROOT that is read-only.
        options: How the mirror is reached, and what is done with what comes.
        on_event: Called with progress and remarks.

    Returns:
        The plan.

    Raises:
        ConfigError: The file is no plan.
        UsageError: It is one of another dataset.
    """
    saved = file if isinstance(file, Plan) else load_plan(Path(file))
    if dataset and find_dataset(dataset).name != saved.dataset:
        name = "this" if isinstance(file, Plan) else file
        raise UsageError(f"{name} is a plan for {saved.dataset}, not for {dataset}", hint="name the right plan")
    where = _folder(known_dataset(saved.dataset).name, root, release=saved.release, state=state, tables=tables)
    with opened(where, options, on_event, source=source, remembered=saved.mirror) as job:
        with transfer_of(job, planning=True) as transfer:
            made = again(job, transfer, saved)
        return _plan_result(made, job)


@takes_buckets(root="downloaded-folder", state="written-folder", tables="read-folder")
@notes_progress("download")
def download(
    dataset: str,
    root: Path | str | FolderRef | None = None,
    *,
    source: str | None = None,
    release: str | None = None,
    selection: Selection | Mapping[str, Any] = Selection(),  # noqa: B008  # frozen
    tables: Path | str | None = None,
    state: Path | str | None = None,
    options: FetchOptions | None = None,
    plan: Plan | Path | str | None = None,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[TransferResult]:
    """Fetch ``dataset``, or a part of it, and check every byte; run it again after anything.

    A file has its name only when it is whole and checked.

    Args:
        dataset: A name of the catalog, or the path of a dataset's own TOML file.
        root: The folder; by default ``./DATASET``.
        source: A mirror's name, an address or a folder; by default the folder's own, else the dataset's.
        release: The release; by default the newest that the mirror has.
        selection: What is wanted.
        tables: A folder with the label tables, for a selection by split, view or label.
        state: The folder of the record, beside a ROOT that is read-only.
        options: How the mirror is reached, and what is done with what comes.
        plan: A saved plan, or its file, that is applied in the place of a selection.
        on_event: Called with progress and remarks, from several threads.
        **words: Select and fetch as the command's options do: ``split="test"``, ``patients=[...]``, ``limit=100``,
            ``then="square-224"``, ``discard_raw=True``, ``shard="3/16"``, ``limit_rate="20M"``.

    Returns:
        Counts by outcome. Single files that fail are in it; the exit code says what to do.

    Raises:
        UsageError: A name that means nothing, or a folder of another dataset.
        AccessError: A login or an agreement is missing.
        SourceUnreachableError: The mirror does not answer.
        StorageError: The disk lacks the room, or refuses.
        NothingSelectedError: The selection wants nothing.
        BusyError: Another run works on the folder.

    Examples:
        >>> import cxrprep
        >>> result = cxrprep.download("nih-chestxray14", "nih", source="mirror")
        >>> result.exit_code.name, result.value.failed
        ('DONE', 0)
        >>> part = cxrprep.download("nih-chestxray14", "nih-test", source="mirror", split="test")
    """
    began, (wanted, options) = time.monotonic(), _with_words(selection, options, words)
    if isinstance(plan, str | Path):
        plan = load_plan(Path(plan))
    remembered = plan.mirror if plan is not None else ""
    if plan is not None:
        source = source or (plan.mirror if plan.mirror_is_named else None)
    where = _folder(dataset, root, release=release, state=state, tables=tables)
    if plan is not None:
        where = replace(where, release=where.release or plan.release)
    with opened(where, options, on_event, source=source, remembered=remembered) as job:
        arriving = ArrivalConverter(job) if job.options.then else None
        with arriving or nullcontext(), transfer_of(job, arriving) as transfer:
            made = planned(job, transfer, wanted) if plan is None else again(job, transfer, plan)
            note_foreign(made, on_event)
            holes = [*_warn_holes(job, made), *_fetch_tables_elsewhere(job, transfer, made.selection)]
            record = job.folder.record
            record.describe(
                dataset=job.spec.name,
                release=job.folder.release,
                mirror=job.source.address,
                tool=f"cxrprep {__version__}",
            )
            record.select(made.selection)
            remember(record.cache, made.selection, made.paths(), job.options.shard)
            result = transfer.run(made, job.source)
        _record_repaired(result, made, job)
        _keep_failures(result, job)
        rows, data = result_rows(result, made, job), result_data(result, made, job)
        code = most_pressing((result.exit_code, *holes))
        if arriving is not None:
            small = arriving.finish()
            code = most_pressing((code, small.exit_code))
            rows += (("converted", f"{format_count(small.value.images, 'image')} in {small.value.out}"),)
            data |= {"converted": small.value.images, "not_converted": small.value.failed}
            if small.value.failed:
                rows += (
                    (
                        "not converted",
                        f"{small.value.failed:,}; originals that are here stay, dropped ones are fetched again",
                    ),
                )
        elif (job.folder.manifests / "images.parquet").exists() and not _is_current(made, result, job):
            rebuild_manifest(job.folder, since=began, on_event=on_event)
        return Result(STAGE, result, code, rows=rows, data=data)


def _is_current(made: Plan, result: TransferResult, job: DownloadContext) -> bool:
    """Whether all of the release is here as it was, so that the manifest there may be the one that would be made."""
    whole = made.selection.is_everything and job.options.shard is None and result.exit_code is ExitCode.DONE
    if not whole or result.done or result.kept != len(made) or not job.folder.record.exists:
        return False
    from cxrprep.manifest.current import is_current

    # Of a folder that is adopted where it lies the plan names every file, where none is foreign.
    listed = made.in_place and not made.foreign
    count = sum(path.lower().endswith(job.spec.images.suffixes) for path in made.paths()) if listed else None
    return is_current(job.folder, count)


def _record_repaired(result: TransferResult, made: Plan, job: DownloadContext) -> None:
    """Take the findings of the last check back that this download has mended."""
    wrong = found_wrong(job.folder.manifests, job.folder)
    if not wrong:
        return
    from cxrprep.verification.findings_table import mark_repaired
    from cxrprep.verification.published_checksums import table_paths

    failed = {outcome.item.dest for outcome in result.failures}
    moved = {item.dest for item in made if item.dest in wrong and item.action is Action.REFETCH}
    unpacked = {path for path in wrong - moved if _is_unpacked(job, path, made)}
    if not result.left and (moved - failed) | unpacked:
        mended = (moved - failed) | unpacked
        mark_repaired(job.folder.manifests, mended, tables=table_paths(job.folder.spec, job.folder.root) <= mended)


def _is_unpacked(job: DownloadContext, path: str, made: Plan) -> bool:
    """Whether the file came out of an archive that this plan has unpacked."""
    entry = job.folder.record.get(path)
    archives = {item.dest for item in made.archives() if item.action is not Action.KEEP}
    return entry is not None and entry.archive in archives


def _warn_holes(job: DownloadContext, made: Plan) -> Sequence[ExitCode]:
    """Say which folders and archives could not be listed; the exit codes of those where files of the release lie."""
    holes: Sequence[CxrprepError] = getattr(job.source, "holes", ())
    tops = {item.file.key.partition("/")[0] for item in made} if holes else set()
    codes = []
    for hole in holes:
        place = hole.message.partition(":")[0]
        is_list = place in SUMS_NAMES
        if place.partition("/")[0] in tops or place.lower().endswith(".zip"):
            codes.append(hole.exit_code)
        lost = "no checksum of the mirror proves its files" if is_list else "what lies below it is not in the listing"
        message = f"{hole.message}: {lost}"
        job.on_event(Note(STAGE, message, "warning", job.source.address))
    return codes


def _fetch_tables_elsewhere(job: DownloadContext, transfer: Transfer, selection: Selection) -> Sequence[ExitCode]:
    """The exit code of what keeps the label tables of another mirror away: the images do not wait for them."""
    first = job.options.shard is None or job.options.shard.index == 1
    folder = job.folder
    if not first or folder.tables is not None or all((folder.root / name).exists() for name in tables_elsewhere(job)):
        return []
    try:
        fetch_tables_elsewhere(job, transfer, selection)
    except CxrprepError as error:
        message = f"the label tables could not be fetched: {error.message}; {error.hint}"
        job.on_event(Note(STAGE, message, "warning", job.source.address))
        return [error.exit_code]
    return []


def _keep_failures(result: TransferResult, job: DownloadContext) -> None:
    """What failed as ``manifests/failures.parquet``; each shard of a job array has its own."""
    shard = job.options.shard
    folder = job.folder.manifests / ("" if shard is None else f"shards/{shard.in_names}")
    if not result.failures:
        (folder / FAILURES_NAME).unlink(missing_ok=True)
        return
    from cxrprep.manifest.failures import Failure, FailureRows, write_failures

    layout = job.folder.layout
    failures = FailureRows()
    for outcome in result.failures:
        image, error = layout.parse(outcome.item.dest), outcome.error
        kind = type(error).__name__ if error is not None else ""
        message, hint = (error.message, error.hint) if error is not None else (outcome.item.reason, "")
        failures.add(Failure(outcome.item.dest, STAGE, kind, message, hint, image.image if image else None))
    write_failures(failures, folder)


def fetch_again(
    folder: DatasetFolder,
    paths: Iterable[str],
    options: FetchOptions | None = None,
    *,
    source: str | None = None,
    on_event: Sink = ignore,
) -> dict[str, str]:
    """Fetch single release paths of a folder again.

    Args:
        folder: The open folder.
        paths: Release paths.
        options: How the mirror is reached.
        source: The mirror to take, by default the record's.
        on_event: Called with progress and remarks.

    Returns:
        What could not be fetched, with the reason in one line.

    Raises:
        UsageError: ``source`` is no mirror.
        AccessError: A login or an agreement is missing.
        SourceUnreachableError: The mirror does not answer.
    """
    wanted = set(paths)
    mirror = source or folder.record.header.mirror
    if not mirror:
        return dict.fromkeys(wanted, "the folder has no record of where it came from: name it with --source")
    chosen = replace(options or FetchOptions(), then="", discard_raw=False)
    place = find_mirror(folder.spec, mirror, folder.release)
    place = replace(place, is_named=bool(source) and chosen.is_named)
    stream = open_source(place.url, source_options(folder.spec, place, chosen))
    job = DownloadContext(folder, place, stream, chosen, on_event)
    if in_place(job):
        stream.close()
        return dict.fromkeys(wanted, "the folder is the mirror itself: name another one with --source")
    tables = wanted & tables_elsewhere(job)
    missing = _fetch_tables_again(job, tables) if tables else {}
    wanted -= tables
    try:
        if not wanted:
            return missing
        # What is here stays until the right bytes are, and so does what the record knows: they may not come.
        with transfer_of(job, wrong=frozenset(wanted)) as transfer:
            names = listed(job, Selection(include=tuple(f"/{path}" for path in wanted)))
            listing = (file for file in names if placed(job, file) in wanted or holds_images(file.key))
            made = made_of(job, transfer, listing, Selection())
            result = transfer.run(made, stream)
    except CxrprepError as error:
        return {**missing, **dict.fromkeys(wanted, error.message)}
    finally:
        stream.close()
    failed = {o.item.dest: o.error.message for o in result.failures if o.error is not None}
    planned = {item.dest for item in made}
    packed = bool(made.archives())
    lacking = {
        path: "the mirror does not have it"
        for path in wanted
        if not (folder.record.is_discarded(path) or lies_there(folder.root, path)) or not (packed or path in planned)
    }
    from cxrprep.manifest.failures import forget_failures

    left = {**missing, **lacking, **{path: reason for path, reason in failed.items() if path in wanted}}
    forget_failures(wanted - left.keys(), folder.manifests)
    return left


def _fetch_tables_again(job: DownloadContext, tables: set[str]) -> dict[str, str]:
    """What could not be fetched of label tables that another mirror has, with the reason."""
    try:
        with transfer_of(job, wrong=frozenset(tables)) as transfer:
            fetch_tables_elsewhere(job, transfer, Selection(include=tuple(f"/{path}" for path in tables)))
    except CxrprepError as error:
        return dict.fromkeys(tables, error.message)
    return {}
