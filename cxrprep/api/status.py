"""The verb status: what is here, missing, partial and failed, by part and by stage; and what comes next."""

from __future__ import annotations

import dataclasses
import os
import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.result import Result
from cxrprep.collection import FolderKind
from cxrprep.collection.dataset_folder import DatasetFolder, open_folder
from cxrprep.collection.file_counts import PartStatus, count_lost, count_parts, has_images, images_or_archives
from cxrprep.datasets.catalog import naming_words
from cxrprep.datasets.own_folder import dataset_words
from cxrprep.errors import ExitCode, UsageError, most_pressing
from cxrprep.humanize import format_bytes, format_count, format_rate, format_seconds, short_repr
from cxrprep.manifest import FAILURES_NAME
from cxrprep.model import FolderRef, Selection
from cxrprep.record.last_run import RunState, unfinished_runs
from cxrprep.record.record import folder_words
from cxrprep.record.requested import asked
from cxrprep.selection.options import SELECTING, options_of
from cxrprep.storage.parquet import count_rows
from cxrprep.storage.paths import CACHE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TABLES: Final = {
    "verify": ("verify.parquet", "last findings"),
    "extract-labels": ("labels.parquet", "labels"),
    "manifest": ("images.parquet", "manifest"),
}


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One stage: whether it was done for what is here now, and how many items failed in its last run.

    ``state`` is ``done`` only where nothing is left to do. Of a run that goes on (``running``), was stopped
    (``interrupted``) or ended with an error (``failed``, with its exit code), ``done`` of ``total`` items had come to
    their end; ``total`` is ``None`` while it is being counted, and ``seconds_left`` while no rate is known.
    """

    name: str
    state: str
    detail: str
    failed: int = 0
    done: int | None = None
    total: int | None = None
    unit: str = ""
    seconds_left: float | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """How a folder stands; ``following`` are the commands that make sense next, the first one first."""

    __repr__ = short_repr

    dataset: str
    release: str
    mirror: str
    root: Path
    recorded: bool
    parts: tuple[PartStatus, ...]
    stages: tuple[StageStatus, ...]
    following: tuple[str, ...]

    @property
    def trouble(self) -> ExitCode:
        """The exit code for monitoring: 0 where nobody needs to look.

        That of a run that failed, 4 where the last verify found faults, 3 where something is incomplete or was
        interrupted, 75 where a run goes on.
        """
        codes = []
        for stage in self.stages:
            if stage.state == "failed":
                found = ExitCode.INTEGRITY if stage.name == "verify" else ExitCode.PARTIAL
                codes.append(found if stage.exit_code is None else ExitCode(stage.exit_code))
            elif stage.state in ("incomplete", "interrupted", "not finished"):
                codes.append(ExitCode.PARTIAL)
            elif stage.state == "running":
                codes.append(ExitCode.BUSY)
        return most_pressing(codes)


@takes_buckets(root="read-folder", state="read-folder")
def status(
    root: Path | str | FolderRef,
    *,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
) -> Result[Status]:
    """How ROOT stands, from its record and a walk over its names; no file is read, nothing is written.

    Args:
        root: A folder of any kind.
        dataset: The dataset's name, where the folder does not say it.
        release: The release, where it is not the one that the folder shows.
        state: Where record and manifests are when they are not below ROOT.

    Returns:
        Parts and stages, and the commands that come next.

    Raises:
        UsageError: A folder that nobody recognises.

    Examples:
        >>> import cxrprep
        >>> [(stage.name, stage.state) for stage in cxrprep.status("nih").value.stages][:2]
        [('download', 'done'), ('verify', 'done')]
    """
    where = FolderRef.of(root, dataset=dataset, release=release, state=state)
    # Before the files are counted: a run that ends meanwhile goes on for this look, and the next one counts all of it.
    runs = [*unfinished_runs(_cache(where))]
    folder = _opened(where)
    parts, images = count_parts(folder)
    is_release = folder.kind is FolderKind.RELEASE
    stages = tuple(
        _with_runs(tuple(_stages(folder, parts, images) if is_release else _stages_of_made(folder, images)), runs)
    )
    asked_last = next((run.asked for run in runs if "download" in run.stages), ())
    value = Status(
        dataset=folder.spec.name,
        release=folder.release,
        mirror=folder.record.header.mirror,
        root=folder.root,
        recorded=folder.record.exists,
        parts=parts,
        stages=stages,
        following=tuple(
            _following(folder, parts, stages, asked_last) if is_release else _following_made(folder, stages)
        ),
    )
    rows = [("dataset", dataset_words(value.dataset, value.release))]
    if value.mirror:
        rows.append(("fetched from", value.mirror))
    rows += [(stage.name, ", ".join(filter(None, (stage.state, stage.detail)))) for stage in stages]
    return Result("status", value, rows=tuple(rows))


def _opened(where: FolderRef) -> DatasetFolder:
    """The folder; one into which nothing came so far by what the run was told that failed or goes on there."""
    try:
        return open_folder(where, held=False)
    except UsageError:
        told = next((run.dataset for run in unfinished_runs(_cache(where)) if run.dataset), "")
        if where.dataset or not told:
            raise
        return open_folder(dataclasses.replace(where, dataset=told), held=False)


def _cache(where: FolderRef) -> Path:
    return Path(where.state or where.root) / CACHE_NAME


def _stages(folder: DatasetFolder, parts: tuple[PartStatus, ...], images: int) -> Iterator[StageStatus]:
    here, missing = sum(p.here for p in parts), sum(p.missing for p in parts)
    wrong, partial = sum(p.wrong_size for p in parts), sum(p.partial for p in parts)
    manifests = folder.manifests
    refused = _rows(manifests / FAILURES_NAME)
    if not folder.record.exists:
        yield StageStatus(
            "download", "not recorded", f"{format_count(here, 'file')} that cxrprep did not fetch" if here else ""
        )
    elif missing or partial or wrong:
        found = ((missing, "missing"), (partial, "partial"), (wrong, "of another size"))
        detail = ", ".join(f"{count:,} {what}" for count, what in found if count)
        yield StageStatus("download", "incomplete", detail, refused)
    elif refused:
        # What is here is not what the mirror has, behind a link that leads out of ROOT, say.
        yield StageStatus("download", "failed", f"{format_count(here, 'file')} here", refused)
    elif not has_images(folder):
        # It was interrupted between the tables and the plan, or tables alone were asked for.
        meant = " yet of those that were selected" if asked(folder.record.cache) is not None else ""
        yield StageStatus("download", "incomplete", f"{format_count(here, 'file')}, no image{meant}", refused)
    else:
        yield StageStatus("download", "done", format_count(here, "file"))
    updated = folder.record.header.updated
    changed = updated.timestamp() if updated else 0.0
    # What went since the last check is none that was checked. Without a record the manifest alone says what there was.
    lost = missing or wrong if folder.record.exists else count_lost(folder) or _new(folder, images)
    yield _of_table(folder, "verify", changed, lost)
    yield _of_table(folder, "extract-labels", 0.0, 0)
    yield _of_table(folder, "manifest", changed, lost)
    derived = folder.home / "derived"
    recipes = sorted(entry for entry in derived.iterdir() if entry.is_dir()) if derived.is_dir() else []
    for recipe in recipes:
        made = recipe / "manifests" / "images.parquet"
        failed = _rows(recipe / "manifests" / "failures.parquet")
        if not made.is_file():
            yield StageStatus(f"convert {recipe.name}", "not finished", "", failed)
        else:
            lost = count_lost(open_folder(recipe, files=False))
            yield _of_conversion(f"convert {recipe.name}", _rows(made), failed, lost)
    if not recipes:
        yield StageStatus("convert", "not done", "")


def _new(folder: DatasetFolder, here: int) -> int:
    """How many of the images here came since the folder's manifest was made."""
    return max(0, here - sum(map(count_rows, folder.image_tables))) if folder.image_tables else 0


def _stages_of_made(folder: DatasetFolder, here: int) -> Iterator[StageStatus]:
    """Of images of one's own, and of what was made: nothing was fetched, and no table is to be read."""
    images, lost = folder.image_tables, count_lost(folder)
    if folder.kind is FolderKind.OWN:
        lost = lost or _new(folder, here)
        told = f"manifest of {_when(images[0])}" if images else ""
        yield StageStatus("manifest", "older than the files" if lost else "done" if images else "not done", told)
    elif folder.kind is FolderKind.CONVERTED:
        name = f"convert {folder.lineage.recipe if folder.lineage is not None else ''}".strip()
        stage = _of_conversion(name, sum(map(_rows, images)), _rows(folder.read_from / FAILURES_NAME), lost)
        joined = len(images) == 1 and images[0].parent == folder.read_from
        yield stage if joined else dataclasses.replace(stage, state="incomplete")
    newest = max((table.stat().st_mtime for table in images), default=0.0)
    yield _of_table(folder, "verify", newest, lost)


def _of_conversion(name: str, count: int, failed: int, lost: int) -> StageStatus:
    """A conversion of so many images, some of which failed, or whose files are lost."""
    detail = format_count(count, "image") + (
        f", {format_count(lost, 'file')} missing or of another size" if lost else ""
    )
    return StageStatus(name, "incomplete" if failed or lost else "done", detail, failed)


def _of_table(folder: DatasetFolder, name: str, changed: float, lost: int) -> StageStatus:
    """A stage whose result is one table, of files that have changed at that time, and of which some are lost."""
    from cxrprep.verification.findings_table import count_faults

    table, what = _TABLES[name]
    path = folder.manifests / table
    if not path.is_file():
        return StageStatus(name, "not done", "")
    detail = f"{what} of {_when(path)}"
    is_old, failed = path.stat().st_mtime < changed, 0
    if name == "verify":
        # What it found is told until another check is made of what came since.
        failed = 0 if is_old else count_faults(path)
        is_old = is_old or (lost > 0 and not failed)
    elif name == "manifest" and (is_old or lost):
        from cxrprep.manifest.current import is_current

        # A manifest that came out the same is not written again, and keeps its time.
        is_old = not is_current(folder, None if lost else count_rows(path))
    return StageStatus(name, "older than the files" if is_old else "failed" if failed else "done", detail, failed)


def _with_runs(stages: Sequence[StageStatus], runs: Sequence[RunState]) -> Iterator[StageStatus]:
    """The stages, with what the runs of each say that go on, were killed or failed."""
    by_stage: dict[str, list[RunState]] = {}
    for run in runs:
        for named in run.stages:
            by_stage.setdefault(named, []).append(run)
    for stage in stages:
        found = by_stage.pop(stage.name, [])
        if stage.name == "convert" and any(name.startswith("convert ") for name in by_stage):
            # "not done", where a first conversion is on its way.
            continue
        yield _as_run(stage, found) if found else stage
    for name, found in by_stage.items():
        yield _as_run(StageStatus(name, "not done", ""), found)


def _as_run(stage: StageStatus, runs: Sequence[RunState]) -> StageStatus:
    """A stage as its runs stand, those of a job array together: one that goes on counts before one that ended."""
    state = next(word for word in ("running", "failed", "interrupted") if any(run.state == word for run in runs))
    alike = [run for run in runs if run.state == state]
    last = max(alike, key=lambda run: run.moment)
    done, known = sum(run.done for run in alike), [run.total for run in alike if run.total is not None]
    total = sum(known) if len(known) == len(alike) else None
    words = [last.message] if last.message else []
    if last.unit and state == "running" and total is None and not done:
        # What is read whole is counted at its end.
        words.append(f"counting {last.unit}")
    elif last.unit:
        words.append(f"{done:,}{f' of {total:,}' if total is not None else ''} {last.unit}")
        came, of = done, total
        if all(run.total_size for run in alike):
            # As the bar of the run has it: of seven files four may be the small ones.
            came, of = sum(run.size for run in alike), sum(run.total_size or 0 for run in alike)
            words.append(f"{format_bytes(came)} of {format_bytes(of)}")
        words[-1] += f" ({min(came * 100 // of, 100)} %)" if of else ""
    left = None
    if state == "running":
        rate = sum(run.rate or 0.0 for run in alike)
        # Those of a job array go side by side: the last one ends it.
        left = max((run.seconds_left for run in alike if run.seconds_left is not None), default=None)
        words += [format_rate(rate) if last.total_size else f"{rate:,.1f} {last.unit}/s"] if rate else []
        words += [f"{format_seconds(left)} left"] if left is not None else []
    words += [stage.detail] if stage.detail and stage.state != "done" else []
    return dataclasses.replace(
        stage,
        state=state,
        detail=", ".join(words),
        done=done,
        total=total,
        unit=last.unit,
        seconds_left=left,
        exit_code=last.exit_code,
    )


def _following_made(folder: DatasetFolder, stages: tuple[StageStatus, ...]) -> Iterator[str]:
    states = {stage.name: stage.state for stage in stages}
    if "running" in states.values():
        return
    if folder.kind is FolderKind.OWN and states["manifest"] != "done":
        yield f"cxrprep manifest {folder.words}"
    if states["verify"] != "done":
        yield f"cxrprep verify {folder.words}"
    if folder.kind is not FolderKind.EXPORTED and set(states.values()) == {"done"}:
        yield f"cxrprep report {folder.words}"


def _when(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone().strftime("%Y-%m-%d %H:%M")


def _rows(path: Path) -> int:
    return count_rows(path) if path.is_file() else 0


def _following(
    folder: DatasetFolder, parts: tuple[PartStatus, ...], stages: tuple[StageStatus, ...], asked_last: Sequence[str]
) -> Iterator[str]:
    if any(stage.state == "running" for stage in stages):
        # It is waited for.
        return
    where = folder.words
    by_name = {stage.name: stage for stage in stages}
    download = by_name["download"]
    whole = not any(part.missing or part.partial or part.wrong_size for part in parts)
    tables_alone = download.state == "incomplete" and whole and asked(folder.record.cache) is not None
    if download.state in ("incomplete", "failed", "interrupted") and not tables_alone:
        again = download.state != "incomplete" or any(stage.missing or stage.partial for stage in parts)
        yield again_command(folder, asked_last) if again else f"cxrprep verify {where} --repair"
        if not any(part.here or part.dropped for part in parts):
            # Nothing came yet that anything else could work on.
            return
    if by_name["verify"].state != "done":
        yield f"cxrprep verify {where}"
    if by_name["extract-labels"].state != "done":
        yield f"cxrprep extract-labels {where}"
    elif by_name["manifest"].state != "done":
        yield f"cxrprep manifest {where}"
    packed = images_or_archives(folder) == "archives"
    if packed:
        words = [*naming_words(folder.spec.name), f"{folder.root}-unpacked", "--source", str(folder.root)]
        yield f"cxrprep download {shlex.join(words)}"
    for stage in stages if not packed else ():
        if stage.name.startswith("convert") and stage.state != "done":
            recipe = stage.name.partition(" ")[2] or "square-224"
            yield f"cxrprep convert {where} --recipe {recipe}"
    if all(stage.state == "done" for stage in stages if stage.name != "download"):
        yield f"cxrprep report {where}"


def after_labels(home: Path, words: str, images: Path | None) -> str:
    """What comes after a release's tables: training images, and where they were made already, a look at all.

    Where no image is here, as in a folder of archives, ``status`` says how one comes. ``images`` is the image table,
    ``None`` for one that is not to be read.
    """
    if any(home.glob("derived/*/manifests/images.parquet")):
        return f"cxrprep report {words}"
    if images is not None and images.is_file() and not _rows(images):
        return f"cxrprep status {words}"
    return f"cxrprep convert {words} --recipe square-224"


def again_command(folder: DatasetFolder, asked_last: Sequence[str] = ()) -> str:
    """The download that goes on: the selection that was asked for last, never more; the mirror is the folder's own.

    ``asked_last`` are the options of a run that did not end: it may not have come to a record of them. They stand in a
    file that anyone may have written, so none but a mirror here and a selection is taken from it; nor are they taken
    where a list of ids that they name is another person's, or gone.
    """
    header = folder.record.header
    selection = header.selections[-1] if header.selections else Selection()
    pairs = zip(asked_last[::2], asked_last[1::2], strict=False)
    asked = [
        shlex.join(pair) for pair in pairs if pair[0] in SELECTING or (pair[0] == "--source" and "://" not in pair[1])
    ]
    # os.path, since anything may stand there: a path takes no name that is too long.
    lists = [word for word in asked_last if word.endswith(".csv") and os.path.isabs(word)]  # noqa: PTH117
    words = [*naming_words(folder.spec.name), *folder_words(folder.root, folder.home)]
    which = (all(map(os.path.isfile, lists)) and asked) or options_of(selection)
    return " ".join([f"cxrprep download {shlex.join(words)}", *which])
