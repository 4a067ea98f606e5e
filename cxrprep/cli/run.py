"""``cxrprep run``: all steps of a job file as one job, with one summary and one exit code."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cxrprep.api.result import Result
from cxrprep.cli import completers, options
from cxrprep.cli.help_format import verb
from cxrprep.cli.options import setting
from cxrprep.config.job import ALL_STEPS
from cxrprep.errors import CxrprepError, ExitCode, most_pressing
from cxrprep.events import Sink, ignore
from cxrprep.humanize import short_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cxrprep.cli.context import Invocation
    from cxrprep.model import Shard

# step -> the rows of its result that fit a line; the verb itself, called alone, says the rest.
_SHOWN_ROWS: Final[Mapping[str, tuple[str, ...]]] = {
    "download": ("fetched", "unpacked", "here already", "failed"),
    "verify": ("verdict",),
    "extract-labels": ("rows", "images", "patients"),
    "convert": ("images", "converted", "done before", "failed"),
    "manifest": ("images", "studies", "patients"),
    "report": ("written",),
    "export": ("images", "files", "written"),
}

_STEPS_HELP: Final = f"steps, done in the order given: {', '.join(ALL_STEPS)}"
# After these the next step still makes sense: what failed is missing, and nothing that is here is wrong.
_GO_ON = frozenset({ExitCode.DONE, ExitCode.PARTIAL})


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step of a job came to; ``result`` is its verb's own, ``message`` says why there is none."""

    step: str
    exit_code: ExitCode
    seconds: float
    facts: Mapping[str, Any]
    rows: Sequence[tuple[str, Any]]
    message: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job came to: a line for each step, and the exit code on which a person must act first."""

    __repr__ = short_repr

    steps: tuple[StepResult, ...]
    skipped: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """The most pressing of the steps'."""
        return int(most_pressing(step.exit_code for step in self.steps))

    def to_dict(self) -> dict[str, Any]:
        """The steps with their own results, ready for JSON."""
        steps = [
            {
                "step": s.step, "exit_code": int(s.exit_code), "seconds": round(s.seconds, 3),
                "message": s.message, "hint": s.hint, "result": dict(s.facts),
            }
            for s in self.steps
        ]  # fmt: skip
        return {"steps": steps, "not_reached": list(self.skipped)}

    def summary_rows(self) -> Sequence[tuple[str, Any]]:
        """One line a step, with what matters of its result."""
        from cxrprep.humanize import format_seconds

        rows = []
        for step in self.steps:
            text = step.message or _in_a_line(step)
            code = f" (exit code {int(step.exit_code)})" if step.exit_code else ""
            rows.append((step.step, f"{text}{code}, {format_seconds(step.seconds)}"))
            if step.hint:
                rows.append(("", step.hint))
        rows += [(step, "not reached") for step in self.skipped]
        return rows


def _in_a_line(step: StepResult) -> str:
    from cxrprep.cli.output import cell

    shown = _SHOWN_ROWS.get(step.step)
    rows = [(label, value) for label, value in step.rows if shown is None or label in shown][:4]
    # A verdict is a sentence and needs no label before it.
    return ", ".join(cell(value) if label == "verdict" else f"{label} {cell(value)}" for label, value in rows)


@verb(
    "run",
    examples=(
        ("cxrprep run configs/nih-chestxray14.toml", "download, verify, label, convert, build the manifest"),
        ("cxrprep run configs/cluster-cron.toml --quiet", "as a nightly cron job: silent unless something is wrong"),
        ("cxrprep run configs/mimic-cxr.toml --dry-run", "what it would do"),
    ),
)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--dry-run", "-n", is_flag=True, help="print the steps and the download's plan, and do nothing")
@setting("steps", "--steps", metavar="NAME,...", type=str, shell_complete=completers.steps, text=_STEPS_HELP)
@setting("root", "--root", metavar="DIR")
@options.shard
@options.jobs
def command(invocation: Invocation, file: Path, dry_run: bool) -> int:
    """Do the steps of a job file in their order; what is done already is kept, so it may be run as often as you like.

    The job stops at the first step that needs a person. Items that failed alone do not stop it: the next run tries
    them again.
    """
    from cxrprep.cli.job_check import check_names, raise_every_mistake, steps_of, summary
    from cxrprep.config.toml import MistakesError

    invocation.config = file
    try:
        job = invocation.job
    except MistakesError as error:
        # Whoever corrects the file is to see the names that nothing has, too; the mistakes may be another file's.
        if error.where == str(file):
            raise_every_mistake(file)
        raise
    check_names(invocation.settings, file)
    steps, headline = steps_of(job), f"{file}: {summary(job)}"
    with invocation.events() as sink:
        if dry_run:
            return _plan(invocation, steps, headline, sink)
        result = run_steps(invocation, steps, sink)
    following = (f"cxrprep status {invocation.where}",)
    return invocation.out.result(headline, result, command="run", following=following)


def run(
    file: Path | str,
    *,
    steps: Iterable[str] = (),
    root: Path | str | None = None,
    shard: Shard | str | None = None,
    jobs: int | None = None,
    on_event: Sink = ignore,
) -> Result[JobResult]:
    """Do the steps of a job file, as ``cxrprep run FILE`` does: what is done already is kept.

    Args:
        file: The job file.
        steps: Names of the steps to do, in an order that works; by default those of the file.
        root: The folder, in the place of the file's.
        shard: The part of a job array.
        jobs: Worker processes.
        on_event: Called with progress and remarks.

    Returns:
        What each step came to. The exit code is the most pressing of theirs; steps behind one that needs a person are
        in ``value.skipped``.

    Raises:
        ConfigError: The file cannot be read, or says what no job can do; each mistake with its line.
        UsageError: A step that is none, or an order that cannot work.

    Examples:
        >>> import cxrprep
        >>> done = cxrprep.run("job.toml", steps=["download", "verify"])
        >>> [step.step for step in done.value.steps], done.exit_code.name
        (['download', 'verify'], 'DONE')
    """
    from cxrprep.cli.context import Invocation
    from cxrprep.cli.job_check import check_names, steps_of

    chosen = {
        "steps": list(steps) or None,
        "root": None if root is None else str(root),
        "shard": None if shard is None else str(shard),
        "engine.jobs": jobs,
    }
    invocation = Invocation(("run", str(file)))
    invocation.config = Path(file)
    invocation.flags = {key: (value, key) for key, value in chosen.items() if value is not None}
    check_names(invocation.settings, Path(file))
    return run_steps(invocation, steps_of(invocation.job), on_event)


def run_steps(invocation: Invocation, steps: Sequence[str], sink: Sink) -> Result[JobResult]:
    """Do the steps until one needs a person; an error of ours is that step's result."""
    done: list[StepResult] = []
    performers = _performers(invocation)
    todo = iter([name for step in steps for name in performers if name.partition(": ")[0] == step])
    for step in todo:
        begun = time.monotonic()
        try:
            result = performers[step](invocation, sink)
        except CxrprepError as error:
            code, facts, rows = error.exit_code, {}, ()
            message, hint = error.message, error.hint
        else:
            if result is None:
                continue
            code, facts, rows = ExitCode(result.exit_code), result.to_dict(), tuple(result.summary_rows())
            message = hint = ""
        done.append(StepResult(step, code, time.monotonic() - begun, facts, rows, message, hint))
        if code not in _GO_ON:
            break
    made = JobResult(tuple(done), tuple(todo))
    return Result("run", made, ExitCode(made.exit_code), rows=tuple(made.summary_rows()), data=made.to_dict())


def _performers(invocation: Invocation) -> dict[str, Callable[[Invocation, Sink], Any]]:
    """What does each step; a part of a step is named after it: ``extract-labels: reports``."""
    from cxrprep.cli import convert, download, export, extract_labels, manifest, report, verify

    labels = invocation.job.labels
    performers: dict[str, Callable[[Invocation, Sink], Any]] = {
        "download": download.perform,
        "verify": verify.perform,
        "extract-labels": extract_labels.perform_tables,
        "convert": convert.perform,
        "manifest": manifest.perform,
        "check-phi": convert.perform_phi,
        "preview": convert.perform_preview,
        "report": report.perform,
        "export": export.perform_step,
    }
    if labels.reports:
        performers["extract-labels: reports"] = extract_labels.perform_reports
    for words in labels.imports:
        performers[f"extract-labels: import {words}"] = partial(extract_labels.perform_import, words=words)
    if labels.compare:
        tables = [invocation.path(name) or Path(name) for name in labels.compare]
        performers["extract-labels: compare"] = lambda call, _: extract_labels.perform_comparison(call, tables)
    return performers


def _plan(invocation: Invocation, steps: Sequence[str], headline: str, sink: Sink) -> int:
    from cxrprep.cli import download

    if "download" in steps:
        return invocation.out.result(
            f"{headline}; the download would be",
            download.plan(invocation, sink),
            command="run",
            following=("the same command without --dry-run does it",),
        )
    invocation.out.text(headline, {"steps": list(steps)})
    return int(ExitCode.DONE)
