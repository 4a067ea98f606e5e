"""``cxrprep extract-labels``: tables and reports into one vocabulary, nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cxrprep.cli import completers, options
from cxrprep.cli.help_format import verb
from cxrprep.cli.options import setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cxrprep.cli.context import Invocation
    from cxrprep.events import Sink


@verb(
    "extract-labels",
    examples=(
        ("cxrprep extract-labels /data/nih", "the release's own tables"),
        ("cxrprep extract-labels /data/mimic --tables /data/mimic-jpg", "with tables that another folder holds"),
        ("cxrprep extract-labels /data/mimic --reports mimic-cxr-reports.zip --evidence", "label free-text reports"),
        ("cxrprep extract-labels /data/chexpert --label-source chexbert --uncertain ones", "another labeler, U-Ones"),
        ("cxrprep extract-labels /data/mimic --import chexbert=labeled.csv", "another labeler's table"),
        ("cxrprep extract-labels /data/mimic --reports --labeler openai", "a language model on this machine"),
        ("cxrprep extract-labels /data/mimic --compare chexpert cxrprep --also chexbert", "label sources of a folder"),
        ("cxrprep extract-labels --compare ours.csv theirs.csv", "how far two label tables agree"),
    ),
)
@options.folder
@options.tables
@options.release
@setting("labels.mimic_iv", "--mimic-iv", metavar="FILE")
@setting("labels.demographics", "--demographics")
@setting("labels.strict_source", "--strict-source")
@setting("labels.derive", "--derive")
@options.label_policy
@setting(
    "labels.reports",
    "--reports",
    section="Reports",
    metavar="[PATH]",
    is_flag=False,
    flag_value="auto",
    text="label radiology reports: a zip, folder, CSV, Parquet or Open-i XML; alone, those in ROOT",
)
@setting("labels.evidence", "--evidence", section="Reports")
@setting("labels.report_text", "--report-text", section="Reports")
@setting("labels.policy", "--policy", section="Reports", metavar="NAME", shell_complete=completers.policy)
@setting(
    "labels.policy",
    "--compat",
    section="Reports",
    type=click.Choice(["chexpert-labeler"]),
    text="decide each label as the original CheXpert labeler does, its known errors included",
)
@setting("labels.sections", "--sections", section="Reports", metavar="NAMES", shell_complete=completers.section)
@setting("labels.vocabulary", "--vocabulary", section="Reports", metavar="FILE")
@setting("labeler.name", "--labeler", section="Reports", metavar="[SOURCE=]NAME", shell_complete=completers.labeler)
@setting("labeler.endpoint", "--endpoint", section="Reports", metavar="URL")
@setting("labeler.model", "--model", section="Reports", metavar="NAME")
@setting("labeler.checkpoint", "--checkpoint", section="Reports", metavar="FILE")
@setting("labeler.allow_remote_text", "--allow-remote-text", section="Reports")
@options.path(
    "--compare", "A B", "compare two label tables, or label sources of ROOT, and do nothing else; A is the reference",
    nargs=2,
)  # fmt: skip
@options.path("--also", "C", "with --compare: one more, compared with A; repeatable", multiple=True)
@setting(
    "labels.imports",
    "--import",
    metavar="NAME=FILE",
    text="take over the table of another labeler (CheXbert, NegBio, CXR-LT) as the label source NAME; repeatable",
)
@setting("labels.key", "--key", metavar="NAME", text="the id column for --compare and --import, where it is not found")
@options.split("--seed", "--split-seed")
@options.allow_loss
@options.engine
def command(invocation: Invocation, *, compare: tuple[Path, Path] | None, also: tuple[Path, ...]) -> int:
    """Read the label tables of ROOT into manifests/labels.parquet; with --reports or --import, add a label source.

    Every cell is 1, 0, -1 or null; the release's own columns stand beside ours as text. Labelled reports are the label
    source cxrprep, an imported table the one that NAME says: --label-source chooses between them. ROOT may then be any
    folder.
    """
    _refuse_idle(invocation, compare=bool(compare), also=bool(also))
    if compare:
        return show_comparison(invocation, (*compare, *also))
    if "labels.imports" in invocation.flags:
        return import_all(invocation)
    reports = bool(invocation.job.labels.reports)
    with invocation.events() as sink:
        result = perform_reports(invocation, sink) if reports else perform(invocation, sink)
    if reports:
        place = result.value.labels.parent.name
        following = _following_source(invocation, "cxrprep" if place == "manifests" else place)
        headline = f"Labelled the reports of {invocation.root}"
    else:
        from cxrprep.api.status import after_labels

        home = invocation.state or invocation.root
        headline = f"Labels of {invocation.root}"
        following = (after_labels(home, invocation.where, home / "manifests/images.parquet"),)
    return invocation.out.result(headline, result, command="extract-labels", following=following)


def _following_source(invocation: Invocation, name: str) -> tuple[str, ...]:
    """What comes after a label source was added: the manifest takes it, where there is one that has another."""
    from cxrprep.manifest.choices import shown_label_source

    shown = shown_label_source(invocation.state or invocation.root)
    if shown is None:
        return ()
    if shown == name:
        return (f"cxrprep report {invocation.where}",)
    return (f"cxrprep manifest {invocation.where} --label-source {name}",)


# They say how the release's tables are read.
_FOR_TABLES = ("labels.report_text", "labels.demographics", "labels.mimic_iv", "labels.strict_source")
# They say how reports are read and labelled; without reports they would change nothing, and say nothing of it.
_FOR_REPORTS = (
    "labels.evidence",
    "labels.policy",
    "labels.sections",
    "labels.vocabulary",
    "labeler.name",
    "labeler.endpoint",
    "labeler.model",
    "labeler.checkpoint",
    "labeler.allow_remote_text",
)


def _refuse_idle(invocation: Invocation, *, compare: bool, also: bool) -> None:
    """Raise ``UsageError`` for an option that was typed and has no effect beside the others."""
    from cxrprep.errors import UsageError

    flags = invocation.flags
    if also and not compare:
        raise UsageError("--also goes with --compare", hint="--compare A B --also C")
    if "labels.key" in flags and not compare and "labels.imports" not in flags:
        raise UsageError("--key goes with --compare or --import", hint="leave it out, or add one of them")
    beside = "--compare" if compare else "--import" if "labels.imports" in flags else ""
    for key in _FOR_TABLES if beside else ():
        if key in flags:
            raise UsageError(
                f"{flags[key][1]} goes with the label tables, which {beside} does not read",
                hint=f"leave it out, or run it without {beside}",
            )
    if not invocation.job.labels.reports:
        for key in _FOR_REPORTS:
            if key in flags:
                raise UsageError(
                    f"{flags[key][1]} says how reports are labelled, and no reports are named",
                    hint="add --reports (those in ROOT) or --reports PATH, or leave it out",
                )


def import_all(invocation: Invocation) -> int:
    """Each NAME=FILE as a label source of ROOT, one after another."""
    code = 0
    with invocation.events() as sink:
        for words in invocation.job.labels.imports:
            taken = perform_import(invocation, sink, words)
            headline = f"Imported the labels of {named_file(words)[1]} into {invocation.root}"
            following = _following_source(invocation, taken.value.name)
            code = invocation.out.result(headline, taken, command="extract-labels", following=following) or code
    return code


def perform_import(invocation: Invocation, sink: Sink, words: str) -> Any:
    """The table of another labeler, ``NAME=FILE``, as a label source of ROOT."""
    from cxrprep.api.report_labels import import_labels
    from cxrprep.cli.arguments import added_label_arguments

    name, file = named_file(words)
    key = invocation.job.labels.key or None
    path = invocation.path(str(file)) or file
    return import_labels(**added_label_arguments(invocation), source=path, name=name, key=key, on_event=sink)


def named_file(words: str) -> tuple[str | None, Path]:
    """Name and file of ``NAME=FILE``; a file alone has no name, and may have an equals sign in its own."""
    name, equals, file = words.partition("=")
    if not equals or Path(words).exists():
        return None, Path(words)
    return name, Path(file)


def perform_comparison(invocation: Invocation, tables: Sequence[Path]) -> Any:
    """How far label tables agree with the first."""
    from cxrprep.api.compare_labels import compare_labels

    job = invocation.job
    # Two tables need no folder.
    root = invocation.root if job.root or job.dataset or Path("cxrprep.lock").is_file() else None
    return compare_labels(*tables, key=job.labels.key or None, root=root, state=invocation.state)


def show_comparison(invocation: Invocation, tables: Sequence[Path]) -> int:
    """How far label tables agree with the first: a row an observation."""
    from cxrprep.api.compare_labels import agreement_rows, confusion_rows

    out = invocation.out
    result = perform_comparison(invocation, tables)
    code = out.result(" beside ".join(str(table) for table in tables), result, command="extract-labels")
    if out.form == "human":
        for compared in (result.value, *result.value.others):
            out.text(f"\n{compared.second}, with {compared.first} as the reference\n", None)
            out.table(agreement_rows(compared), SCORES)
            out.table(confusion_rows(compared), COUNTS)
        out.text("P, R: precision and recall", None)
        out.text("of 1, of 0, ...: of those in the reference, how many are 1, 0, -1 and null in the other\n", None)
    return code


SCORES = {
    "observation": "Observation",
    "agreement": "Same",
    "kappa": "Kappa",
    "positive": "P R F1 of 1",
    "negative": "P R F1 of 0",
    "uncertain": "P R F1 of -1",
}
COUNTS = {
    "observation": "Observation",
    "of_positive": "of 1",
    "of_negative": "of 0",
    "of_uncertain": "of -1",
    "of_null": "of null",
}


def perform(invocation: Invocation, sink: Sink) -> Any:
    """The release's tables, with the settings of this call."""
    from cxrprep.api.labels import extract_labels
    from cxrprep.cli.arguments import label_arguments

    return extract_labels(**label_arguments(invocation), on_event=sink)


def perform_tables(invocation: Invocation, sink: Sink) -> Any:
    """The tables of a job's folder; ``None`` where only reports or other labelers' tables can give it labels."""
    from cxrprep.errors import FolderKindError, UsageError

    labels = invocation.job.labels
    try:
        return perform(invocation, sink)
    except FolderKindError as error:
        if not (labels.reports or labels.imports):
            raise
        idle = [key for key in _FOR_TABLES if invocation.settings.origins[key] != "default"]
        if idle:
            raise UsageError(
                f"{idle[0]} goes with the label tables of a release: {error.message}", hint="leave it out of the job"
            ) from error
        return None


def perform_reports(invocation: Invocation, sink: Sink) -> Any:
    """Free-text reports, with the settings of this call."""
    from cxrprep.api.report_labels import label_reports
    from cxrprep.cli.arguments import report_arguments
    from cxrprep.errors import UsageError

    if invocation.job.labels.report_text:
        raise UsageError(
            "--report-text goes with the label tables, and --reports labels reports without keeping their text",
            hint="for the text by sections, image by image: cxrprep pairs ROOT --reports PATH",
        )
    return label_reports(**report_arguments(invocation), on_event=sink)
