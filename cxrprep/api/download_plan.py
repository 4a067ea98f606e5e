"""Download plan: mirror, folder, selection, and the label tables that some selections need first."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.download_context import DownloadContext, in_place, passing
from cxrprep.events import Note
from cxrprep.model import RemoteFile, Selection
from cxrprep.planning.build import make_plan
from cxrprep.planning.plan import CHANGED, Plan
from cxrprep.storage.paths import holds_images
from cxrprep.transfer.downloader import Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from cxrprep.collection.dataset_folder import DatasetFolder

_SHOWN: Final = 5


def _spent(job: DownloadContext) -> Callable[[str], bool]:
    """Which of the files that were dropped after their use need not come again.

    An archive that was unpacked; an image whose converted copy, the one that this run would make, is here.
    """
    layout = job.folder.layout
    if not job.options.discard_raw:
        return lambda path: layout.parse(path) is None
    from cxrprep.images.image_folder import stem_of
    from cxrprep.images.recipe import load_recipe
    from cxrprep.manifest.failures import failed_paths
    from cxrprep.manifest.previous import stated_outputs

    recipe = load_recipe(job.options.then)
    out = job.folder.derived(recipe.name)
    stated, wrong, failed = stated_outputs(out), found_wrong(out / "manifests"), failed_paths(out / "manifests")

    def is_made(path: str) -> bool:
        """Whether the converted image is here, whole, and not one that a check or the last run found to be wrong."""
        if path in failed:
            return False
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
    local_state = transfer.local_state(same_mirror=job.folder.record.header.mirror in ("", job.source.address))
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
        unpack=holds_images,
        in_place=in_place(job),
        **more,
    )
    warn_missing(job, selection, made.unmet, "match no image of the mirror")
    if made.in_place:
        _note_packed(job, made)
        _warn_changed(job, made)
    if local_state.wanted_again:
        message = (
            f"originals that were dropped after their conversion are wanted again, such as {local_state.wanted_again}"
        )
        job.on_event(Note("download", message, "warning", local_state.wanted_again))
    return made


def again(job: DownloadContext, transfer: Transfer, saved: Plan) -> Plan:
    """A saved plan with actions for what is here now; its choice of files stays."""
    if not saved.items:
        # A shard that got no file: an array may have more jobs than there are files.
        return saved
    made = made_of(job, transfer, (item.file for item in saved.items), Selection(), images=None)
    made = replace(made, selection=saved.selection, images=saved.images)
    return made if job.options.shard is None else made.shard(job.options.shard)


def warn_missing(job: DownloadContext, selection: Selection, names: Sequence[str], what: str) -> None:
    """Say which of the ids that were asked for came to nothing, and why.

    Args:
        job: The open download.
        selection: What was asked for.
        names: The ids of it that came to nothing.
        what: What is to be said of them: "match no image of the mirror".
    """
    if names:
        asked = len(selection.patients | selection.studies | selection.images)
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        job.on_event(Note("download", f"{len(names):,} of {asked:,} ids {what}: {shown}", "warning"))


def _note_packed(job: DownloadContext, made: Plan) -> None:
    """Say what to do where a folder that is adopted holds archives and none of what is in them."""
    packed = [item.dest for item in made.first if holds_images(item.dest)]
    if packed and not any(job.folder.layout.shows_image(item.dest) for item in made):
        where = shlex.quote(str(job.folder.root))
        what = f"{packed[0]} stays packed here; to have its images"
        if len(packed) > 1:
            what = f"{len(packed)} archives stay packed here; to have their images"
        message = f"{what}: cxrprep download {job.spec.name} FOLDER --source {where}"
        job.on_event(Note("download", message, "warning"))


def _warn_changed(job: DownloadContext, made: Plan) -> None:
    """Say which files of a folder that is adopted again may not be what was recorded of them."""
    changed = [item.dest for item in made.with_reason(CHANGED)]
    if changed:
        what = changed[0] if len(changed) == 1 else f"{len(changed)} files, such as {changed[0]}"
        message = (
            f"size or time is not as recorded: {what}; the record stays as it is, and verify says whether it holds"
        )
        job.on_event(Note("download", message, "warning"))
