"""``cxrprep download``: plan, check the disk, fetch, and say what is next."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cxrprep.cli import completers, options
from cxrprep.cli.help_format import verb
from cxrprep.cli.options import setting
from cxrprep.datasets.catalog import catalog_options, is_dataset
from cxrprep.errors import ExitCode, UsageError
from cxrprep.storage.paths import home_path, is_served

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.cli.context import Invocation
    from cxrprep.events import Sink
    from cxrprep.planning.plan import Plan


@verb(
    "download",
    examples=(
        ("cxrprep download nih-chestxray14 /data/nih", "all of NIH ChestX-ray14, from NIH's own links; no account"),
        ("cxrprep download chexpert --source kaggle --dry-run", "what a download would do, and whether it fits"),
        (
            "cxrprep download mimic-cxr-jpg /data/mimic --split test --view frontal",
            "a part of MIMIC-CXR-JPG: frontal views of the test split",
        ),
        ("cxrprep download nih-chestxray14 /data/nih --source /mnt/lab/nih --link hardlink", "a copy that the lab has"),
        ("cxrprep download mimic-cxr /scratch/mimic --shard 3/16", "the third of sixteen jobs of an array"),
    ),
)
@options.dataset_argument
@options.root
@setting("download.source", "--source", metavar="MIRROR", shell_complete=completers.mirror)
@options.release
@options.tables
@options.state
@click.option("--dry-run", "-n", is_flag=True, help="print the plan, and whether it fits; fetch nothing")
@options.path("--save-plan", "FILE", "keep the plan in a file; fetch nothing")
@setting("download.from_plan", "--from-plan", metavar="FILE")
@options.shard
@setting("download.link", "--link")
@setting("download.keep_archives", "--keep-archives")
@setting("download.then", "--then", metavar="RECIPE", shell_complete=completers.recipe)
@setting("download.discard_raw", "--discard-raw")
@options.selection
@options.network
def command(invocation: Invocation, dry_run: bool, save_plan: Path | None) -> int:
    """Fetch DATASET, or the part of it that is selected, into ROOT (./DATASET when it is not named).

    Run the same command again after anything: what is here is kept, what is partial is resumed, and a file has its
    name only when it is whole and checked.
    """
    # NumPy comes with pyarrow, multiplies nothing here, and starts threads that wait at full speed.
    # measured: 0.49 -> 0.37 s of CPU time where nothing is to be done (500 files, medians of twelve).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    saved: Path | Plan | None = None
    # Asked of the option itself: the settings are made of what it says of dataset and root.
    option, _ = invocation.flags.get("download.from_plan", ("", ""))
    if option and "root" not in invocation.flags:
        from cxrprep.planning.plan_file import load_plan

        served = is_served(option)
        saved = load_plan(invocation.bucket(option, writes=False, kind="file") if served else home_path(option))
        named = invocation.flags.get("dataset")
        if named is not None and not is_dataset(named[0]):
            # The plan knows its dataset: the one word is the folder.
            invocation.flags["root"] = named
            named = None
        invocation.flags["dataset"] = named or (saved.dataset, "--from-plan")
    saved = saved or _plan_file(invocation)
    if not invocation.job.dataset and saved is None:
        raise UsageError("which dataset?", hint="cxrprep datasets lists them; for example: cxrprep download chexpert")
    with invocation.events() as sink:
        if saved is not None:
            planned = read_plan(invocation, saved, sink)
        elif dry_run or save_plan:
            planned = plan(invocation, sink)
        else:
            planned = None
        if planned is not None and (dry_run or save_plan):
            return _print_plan(invocation, planned, save_plan, dry_run=dry_run)
        result = perform(invocation, sink, planned)
    name, value = invocation.job.dataset, result.value
    nothing = not (value.done or value.unpacked or value.failed)
    return invocation.out.result(
        f"{invocation.root} has all that was asked for; nothing was fetched"
        if nothing
        else f"Downloaded {name} into {invocation.root}",
        result,
        command="download",
        following=_following(invocation),
        failed=f"Download of {invocation.job.dataset} into {invocation.root} is not complete",
    )


def _following(invocation: Invocation) -> tuple[str, ...]:
    """What comes next: where labels were extracted before, or other jobs fetch the rest, status knows."""
    where = invocation.where
    labels = (invocation.state or invocation.root) / "manifests" / "labels.parquet"
    if invocation.shard is not None or labels.is_file():
        return (f"cxrprep status {where}",)
    return (f"cxrprep verify {where}", f"cxrprep extract-labels {where}")


def perform(invocation: Invocation, sink: Sink, planned: Any = None) -> Any:
    """The verb itself, with the settings of this call and the plan that they name."""
    from cxrprep.api.download import download
    from cxrprep.cli.arguments import download_arguments

    saved = _plan_file(invocation)
    if planned is None and saved is not None:
        planned = read_plan(invocation, saved, sink)
    return download(**download_arguments(invocation), plan=planned and planned.value, on_event=sink)


def _plan_file(invocation: Invocation) -> Path | None:
    return invocation.path(invocation.job.download.from_plan)


def plan(invocation: Invocation, sink: Sink) -> Any:
    """What a download would do."""
    from cxrprep.api.download import plan
    from cxrprep.cli.arguments import download_arguments

    return plan(**download_arguments(invocation), on_event=sink)


def read_plan(invocation: Invocation, file: Path | Plan, sink: Sink) -> Any:
    """A saved plan, brought up to what is here now."""
    from cxrprep.api.download import read_plan
    from cxrprep.cli.arguments import download_arguments

    chosen = {name: value for name, value in download_arguments(invocation).items() if name != "selection"}
    return read_plan(file, **chosen, on_event=sink)


def _print_plan(invocation: Invocation, planned: Any, file: Path | None, *, dry_run: bool) -> int:
    headline = f"Plan for {invocation.root} (dry run: no image is fetched)"
    if file is not None:
        from cxrprep.planning.plan_file import save_plan

        save_plan(planned.value, file)
        headline = f"Plan saved in {file} (no image is fetched)"
    if not dry_run:
        # A plan may be saved for another host, with another disk.
        planned = replace(planned, exit_code=ExitCode.DONE)
    if not planned.value.moving().files:
        following = _following(invocation)
    elif file is None:
        following = ("the same command without --dry-run fetches it",)
    else:
        from cxrprep.record.record import folder_words

        words = [*folder_words(invocation.root, invocation.state or invocation.root), "--from-plan", str(file)]
        own = [invocation.job.dataset] if invocation.job.dataset.endswith(".toml") else []
        following = (f"cxrprep download {shlex.join([*own, *words, *catalog_options()])}",)
    return invocation.out.result(headline, planned, command="download", following=following)
