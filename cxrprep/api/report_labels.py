"""The verbs about free-text reports: label one, label a collection, import another labeler's table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.keywords import Keywords, shard_of
from cxrprep.api.labelled_folder import LabelledFolder
from cxrprep.api.result import Result
from cxrprep.api.running import notes_progress
from cxrprep.errors import ExitCode, UsageError
from cxrprep.events import Sink, ignore
from cxrprep.executors import Engine
from cxrprep.labels.nlp.policies import policy_named
from cxrprep.model import FolderRef, Shard
from cxrprep.storage.parquet import read_rows
from cxrprep.storage.paths import CACHE_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cxrprep.labels.nlp.custom_rules import SelfTest
    from cxrprep.labels.nlp.import_labels import Imported
    from cxrprep.labels.nlp.label_collection import LabelingOutcome, PlugIn
    from cxrprep.labels.nlp.results import ReportLabels

# By what a report is found again, and what is of its text alone.
_BY: Final = ("study_id", "report_id")
_OF_TEXT: Final = ("patient_id", "section", "text_sha256")


@takes_buckets()
def label_report(
    text: str, *, rules: Path | str | None = None, policy: str = "default", sections: str = ""
) -> ReportLabels:
    """The labels of one report: ``.labels`` maps the 14 published names to 1, 0, -1 or ``None``; ``.mentions`` say why.

    Args:
        text: one report, with or without headings.
        rules: a TOML file with a vocabulary of your own, beside the shipped one.
        policy: how mentions add up: the name of a policy.
        sections: which parts are read, in order of preference; by default the policy's.

    Returns:
        the labels, their mentions and the status of the text.

    Raises:
        UsageError: an unknown policy or section.
        ConfigError: a vocabulary that is wrong.

    Examples:
        >>> import cxrprep
        >>> found = cxrprep.label_report("FINDINGS: No pleural effusion. The heart is enlarged.")
        >>> found.labels["Pleural Effusion"], found.labels["Cardiomegaly"], found.labels["Fracture"]
        (0, 1, None)
    """
    from cxrprep.labels.nlp.label_report import label_report as label

    return label(text, rules=None if rules is None else Path(rules), policy=policy, sections=sections)


@takes_buckets(root="written-folder", state="written-folder", tables="read-folder", reports="read")
@notes_progress("extract-labels")
def label_reports(
    root: Path | str | FolderRef,
    *,
    reports: Path | str | None = None,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    policy: str = "default",
    sections: str = "",
    vocabulary: Path | str | None = None,
    evidence: bool = False,
    labeler: str = "rules",
    endpoint: str = "",
    model: str = "",
    checkpoint: Path | str | None = None,
    allow_remote_text: bool = False,
    shard: Shard | str | None = None,
    engine: Engine | str | None = None,
    allow_loss: bool = False,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[LabelingOutcome]:
    """The labels of every report of a zip, folder, CSV, Parquet or Open-i XML, as ``manifests/report_labels.parquet``.

    They become a label source of the folder: that of the rules is ``cxrprep``. A report without labels has a row that
    says why; exit code 3 means that some could not be read.

    Args:
        root: a folder of any kind.
        reports: the reports; by default those in ROOT.
        dataset: the dataset, where the folder does not say it.
        release: the release, where it is not the one that the folder shows.
        state: where record and manifests are, beside a ROOT that is read-only.
        tables: a folder that holds the label tables when ROOT does not.
        policy: how mentions add up.
        sections: those that are read, in order of preference.
        vocabulary: a TOML file that adds phrases, or overrules them.
        evidence: also write ``mentions.parquet``, the mentions behind the labels; where it is, it is written again.
        labeler: another labeler than the rules, as ``SOURCE=LABELER`` where its label source has another name.
        endpoint: the address of the labeler's server.
        model: the model that it runs.
        checkpoint: the file of a model that runs here.
        allow_remote_text: texts may go to another machine.
        shard: the part to do.
        engine: where the work runs (default: all processors here).
        allow_loss: the tables may know less than those that they replace.
        on_event: receives progress and notes.
        **words: further options of the command: those of ``extract_labels``, ``jobs`` and ``scheduler``.

    Returns:
        Counts by status and label, and where the table is.

    Raises:
        UsageError: an option is wrong, or text would go to another machine unasked.
        ConfigError: the vocabulary is wrong.
        TableError: a table of reports cannot be read.
        ArchiveError: an archive is damaged.
        NothingSelectedError: there is no report.
        StorageError: the disk refuses.
        SourceUnreachableError: a cluster, or the labeler's server, does not answer.
        AccessError: the labeler's server refuses the key.
        SomeFailedError: worker processes died.

    Examples:
        >>> import cxrprep
        >>> labelled = cxrprep.label_reports("mimic").value
        >>> labelled.labels.as_posix()
        'mimic/manifests/report_labels.parquet'
    """
    from cxrprep.collection.image_table import losses, refuse_loss
    from cxrprep.labels.label_sources import REPORTS_NAME, put_back_if_refused, source_folder
    from cxrprep.labels.nlp.label_collection import label_collection
    from cxrprep.labels.nlp.output_tables import MENTIONS_NAME

    keywords = Keywords(words)
    engine = keywords.engine(engine)
    where = FolderRef.of(root, dataset=dataset, release=release, state=state, tables=tables)
    named = ["--reports", *([] if reports is None else [str(reports)])]
    folder = LabelledFolder.asked(keywords, where, *named, allow_loss=allow_loss)
    out = folder.home / "manifests"
    options = {
        "endpoint": endpoint, "model": model, "checkpoint": str(checkpoint or ""),
        "allow_remote_text": allow_remote_text,
    }  # fmt: skip
    plugin = _plugin(labeler, options, folder)
    if plugin is not None and evidence:
        raise UsageError(
            "--evidence needs the labeler rules: no other one names the words that decided",
            hint="leave one of them out",
        )
    place = out if plugin is None else source_folder(out, plugin.label_source)
    # Where the table of all labels is gone, no other says what these reports gave.
    alone = not allow_loss and not folder.labels.is_file() and (place / REPORTS_NAME).is_file()
    before = read_rows(place / REPORTS_NAME) if alone else None
    with put_back_if_refused(place / REPORTS_NAME, place / f"{MENTIONS_NAME}.parquet", folder.labels):
        outcome = label_collection(
            _reports_in(folder.where.path) if reports is None else Path(reports),
            place,
            plugin=plugin,
            engine=engine or Engine(),
            shard=shard_of(shard),
            vocabulary=None if vocabulary is None else Path(vocabulary),
            policy=policy_named(policy, sections=sections),
            evidence=evidence,
            on_event=on_event,
        )
        whole = outcome.joined is None or outcome.joined.labels is not None
        if before is not None and whole:
            found = losses(before, read_rows(place / REPORTS_NAME), keys=_BY, exempt=_OF_TEXT)
            refuse_loss(place / REPORTS_NAME, list(found), hint="name the reports that gave them with --reports")
        added = folder.add_sources(on_event) if whole else ()
    rows = [
        ("reports", outcome.reports),
        *((status, count) for status, count in outcome.counts.items()),
        *((name, _given(counts)) for name, counts in outcome.labels_given.items()),
        ("written", str(outcome.labels)),
        *((("evidence", str(outcome.mentions)),) if outcome.mentions else ()),
        *_about_shards(outcome),
        *added,
    ]
    code = ExitCode.PARTIAL if outcome.failed else ExitCode.DONE
    return Result("extract-labels", outcome, code, rows=tuple(rows))


def _reports_in(root: Path) -> Path:
    # MIMIC-CXR has one archive; a folder of text files is read as it is.
    archive = root / "mimic-cxr-reports.zip"
    return archive if archive.is_file() else root


def _plugin(named: str, options: Mapping[str, Any], folder: LabelledFolder) -> PlugIn | None:
    """The labeler ``[NAME=]LABELER``, whose labels become the label source NAME; ``None`` for the shipped rules."""
    from cxrprep.labels.label_sources import OURS, check_name
    from cxrprep.labels.labelers.answer_cache import FOLDER
    from cxrprep.labels.labelers.contract import RULES, LabelerOptions
    from cxrprep.labels.nlp.label_collection import PlugIn

    name, equals, labeler = named.partition("=")
    labeler = labeler if equals else name
    if named == RULES:
        return None
    if labeler == RULES or name == OURS:
        raise UsageError(f"{OURS} is reserved for the labels of the labeler rules", hint="--labeler NAME=openai")
    folder.check_free(check_name(name))
    agreement = folder.known.spec.licence.agreement if folder.known is not None else ""
    chosen = LabelerOptions(agreement=agreement, **options)
    return PlugIn(labeler, check_name(name), chosen, folder.home / CACHE_NAME / FOLDER)


def _given(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if word != "null")


def _about_shards(outcome: LabelingOutcome) -> list[tuple[str, str]]:
    if outcome.joined is None:
        return []
    if outcome.joined.labels is not None:
        return [("all shards", str(outcome.joined.labels))]
    return [("still to come", "shards " + ", ".join(str(index) for index in outcome.joined.waiting_for))]


def check_labeler() -> Result[SelfTest]:
    """Whether the labeler of this installation gives its own examples the labels that it should; exit code 4 if not."""
    from cxrprep.labels.nlp.custom_rules import selftest

    checked = selftest()
    rows = [("examples", checked.examples), *(("wrong", complaint) for complaint in checked.failures)]
    return Result("explain", checked, ExitCode.DONE if checked.passed else ExitCode.INTEGRITY, rows=tuple(rows))


@takes_buckets(root="written-folder", state="written-folder", tables="read-folder", source="read")
@notes_progress("extract-labels")
def import_labels(
    root: Path | str | FolderRef,
    source: Path | str,
    *,
    name: str | None = None,
    key: str | None = None,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    allow_loss: bool = False,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[Imported]:
    """Another labeler's table (chexpert-labeler, CheXbert, NegBio, CXR-LT) as a label source of a folder.

    Values become 1, 0, -1 or null, columns ours, whatever their order and spelling; further columns of labels are kept
    under their own names. Texts of reports stay behind.

    Args:
        root: a folder of any kind; the table goes to ``manifests/label_sources/NAME.parquet``.
        source: a CSV, Parquet or JSON lines table.
        name: the label source; by default the file's own name.
        key: the id column, where it is not found; without one rows are numbered.
        dataset: the dataset, where the folder does not say it.
        release: the release, where it is not the one that the folder shows.
        state: where record and manifests are, beside a ROOT that is read-only.
        tables: a folder that holds the label tables when ROOT does not.
        allow_loss: the tables may know less than those that they replace.
        on_event: receives notes.
        **words: further options of the command, as ``extract_labels`` takes them.

    Returns:
        Counts of the rows that were taken, and where they are.

    Raises:
        TableError: the table cannot be read, or a cell is no label.
        UsageError: the name is taken by the release or names nothing, or there is no column ``key``.
        StorageError: the disk refuses.

    Examples:
        >>> import cxrprep
        >>> taken = cxrprep.import_labels("nih", "chexbert.csv", name="chexbert").value
        >>> taken.name, taken.rows
        ('chexbert', 1)
    """
    from cxrprep.labels.label_sources import FOLDER, put_back_if_refused
    from cxrprep.labels.nlp.import_labels import import_table, name_of

    where = FolderRef.of(root, dataset=dataset, release=release, state=state, tables=tables)
    wanted = name or name_of(Path(source))
    folder = LabelledFolder.asked(Keywords(words), where, "--import", f"{wanted}={source}", allow_loss=allow_loss)
    out = folder.home / "manifests"
    folder.check_free(wanted)
    with put_back_if_refused(out / FOLDER / f"{wanted}.parquet", folder.labels):
        made = import_table(Path(source), out, name=name, key=key)
        added = folder.add_sources(on_event)
    rows = [
        ("label source", made.name),
        ("rows", made.rows),
        ("observations", ", ".join(made.observations)),
        ("ids from", made.key or "row numbers"),
        *[("not taken", f"{column}: line {line} has no label") for column, line in made.left_out],
        ("written", str(made.labels)),
        *added,
    ]
    return Result("extract-labels", made, rows=tuple(rows))
