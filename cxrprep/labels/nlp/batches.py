"""A collection cut into batches, and what becomes of one: part files that are whole or not there.

A batch is some thousands of reports, by name where the collection can be read by name: each worker then opens the
source itself, and what is sent stays small. Where a collection can only be read row by row the texts are sent.
"""

from __future__ import annotations

import functools
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import StorageError
from cxrprep.executors import batched
from cxrprep.labels.labelers.answer_cache import AnswerCache, sha256_of
from cxrprep.labels.labelers.registry import labeler_named
from cxrprep.labels.nlp import output_tables
from cxrprep.labels.nlp.labeler import Labeler
from cxrprep.labels.nlp.policies import MentionPolicy, Sections, policy_sources, section_order
from cxrprep.labels.nlp.results import Mention, ReportLabels, ReportStatus
from cxrprep.labels.nlp.ruleset import build_rules
from cxrprep.model import Shard
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.parquet import read_groups, read_schema
from cxrprep.storage.small_files import parse_json, read_text
from cxrprep.storage.sorted_tables import SortedCursor, merged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cxrprep.labels.labelers.contract import LabelerOptions, ReportLabeler
    from cxrprep.labels.nlp.readers import Collection, Report

BATCH: Final = output_tables.GROUP
"""Reports in a batch."""


# Characters of text in a batch that is sent to its worker; some of them are under way at once.
_BATCH_TEXT: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class LabelingRun:
    """What all batches of a run share: what is read, by which rules, and where the parts go.

    ``labeler`` names a plug-in that gives the labels in place of the rules; ``answers`` is where its answers are kept.
    """

    collection: Collection
    sources: tuple[tuple[str, str], ...]
    policy: MentionPolicy
    evidence: bool
    folder: Path
    labeler: str = ""
    options: LabelerOptions | None = None
    answers: Path | None = None

    def part(self, number: int, kind: str) -> Path:
        """The file of that kind of batch ``number``."""
        return self.folder / f"{number:06d}.{kind}"


@dataclass(frozen=True, slots=True)
class LabelingTask:
    """One batch: places of its reports in the collection, and their names or the reports themselves."""

    job: LabelingRun
    number: int
    rows: tuple[int, ...]
    names: tuple[str, ...] = ()
    reports: tuple[Report, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """How one batch went; ``kept`` counts reports that an earlier run had labelled, ``problems`` those unread."""

    counts: dict[str, int]
    problems: tuple[tuple[str, str, str], ...] = ()
    kept: int = 0


def batches(job: LabelingRun, shard: Shard | None) -> Iterator[LabelingTask]:
    """The collection of ``job``, or the part of it that ``shard`` holds, in batches."""
    names = job.collection.names
    # A batch brings its own names along: with all of them in it, sending it would cost more than the work.
    job = replace(job, collection=replace(job.collection, names=None))
    if names is not None:
        named = ((row, name) for row, name in enumerate(names) if shard is None or shard.holds(name))
        for number, batch in enumerate(batched(named, BATCH)):
            yield LabelingTask(job, number, tuple(row for row, _ in batch), names=tuple(name for _, name in batch))
        return
    reports = enumerate(job.collection.rows())
    held = ((row, report) for row, report in reports if shard is None or shard.holds(report.key))
    for number, rows in enumerate(_by_size(held)):
        yield LabelingTask(job, number, tuple(row for row, _ in rows), reports=tuple(report for _, report in rows))


def _by_size(reports: Iterator[tuple[int, Report]]) -> Iterator[list[tuple[int, Report]]]:
    batch: list[tuple[int, Report]] = []
    size = 0
    for row, report in reports:
        batch.append((row, report))
        size += len(report.text)
        if len(batch) == BATCH or size > _BATCH_TEXT:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@functools.lru_cache(maxsize=2)
def _labeler(sources: tuple[tuple[str, str], ...], policy: MentionPolicy) -> Labeler:
    return Labeler(build_rules([*sources, *policy_sources(policy)], policy.hedges), policy)


@functools.lru_cache(maxsize=2)
def _plugged(name: str, options: LabelerOptions) -> ReportLabeler:
    return labeler_named(name, options)


@functools.lru_cache(maxsize=2)
def _answer_cache(folder: Path, name: str, options: LabelerOptions) -> AnswerCache:
    return AnswerCache(folder, _plugged(name, options))


def label_batches(tasks: Sequence[LabelingTask]) -> list[Summary]:
    """What ``engine.run`` calls, here or in a worker. Raises ``StorageError`` and what reading may raise."""
    return [label_batch(task) for task in tasks]


@dataclass(frozen=True, slots=True)
class Brought:
    """The part files of a batch that was labelled where their ``folder`` is not: names and bytes, the summary last."""

    folder: Path
    files: tuple[tuple[str, bytes], ...]

    def put_in_place(self) -> Summary:
        """Write the files. Raises ``StorageError``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files:
            replace_file(self.folder / name, functools.partial(Path.write_bytes, data=data))
        found = _earlier(self.folder / self.files[-1][0])
        assert found is not None
        return found


def with_texts(task: LabelingTask) -> LabelingTask:
    """A batch that brings its reports along. Raises what reading may raise."""
    return replace(task, names=(), reports=tuple(task.job.collection.read(task.names))) if task.names else task


def label_away(tasks: Sequence[LabelingTask]) -> list[Brought]:
    """What ``engine.run`` calls in a worker that sees neither the collection nor the folder of the parts."""
    found = []
    for task in tasks:
        with tempfile.TemporaryDirectory(prefix="cxrprep-") as folder:
            label_batch(replace(task, job=replace(task.job, folder=Path(folder), answers=None)))
            parts = sorted(Path(folder).glob(f"{task.number:06d}.*"), key=lambda path: (path.suffix == ".json", path))
            found.append(Brought(task.job.folder, tuple((path.name, path.read_bytes()) for path in parts)))
    return found


def earlier_summary(task: LabelingTask) -> Summary | None:
    """How a batch went that an earlier run had done; ``None`` for one that is to be done."""
    before = _earlier(task.job.part(task.number, "json"))
    return None if before is None else replace(before, kept=len(task.rows))


def label_batch(task: LabelingTask) -> Summary:
    """One batch, labelled into its part files; where they are there already, it is only counted."""
    job = task.job
    before = earlier_summary(task)
    if before is not None:
        return before
    labeler = _labeler(job.sources, job.policy)
    plugged = _plugged(job.labeler, job.options) if job.labeler and job.options else None
    names = labeler.rules.reported if plugged is None else plugged.observations
    rows: list[tuple[Any, ...]] = []
    mentions: list[tuple[Any, ...]] = []
    counts: dict[str, int] = {}
    problems: list[tuple[str, str, str]] = []
    reports = job.collection.read(task.names) if task.names else iter(task.reports)
    results: Iterator[tuple[Report, ReportLabels]]
    if plugged is None:
        results = ((report, _labelled(labeler, report, evidence=job.evidence)) for report in reports)
    else:
        results = _by_plugin(labeler, plugged, job, reports)
    for row, (report, result) in zip(task.rows, results, strict=True):
        status = result.status.value
        counts[status] = counts.get(status, 0) + 1
        if report.problem:
            problems.append((report.key, status, report.problem))
        which = (row, report.key, report.patient, report.study)
        rows.append((*which, status, result.section or None, report.sha256, *(result.labels[name] for name in names)))
        mentions += ((*which, *_mention_row(mention)) for mention in result.mentions)
    if job.evidence:
        output_tables.write_part(mentions, output_tables.MENTIONS, job.part(task.number, output_tables.MENTIONS_NAME))
    output_tables.write_part(rows, output_tables.labels_schema(names), job.part(task.number, output_tables.LABELS_NAME))
    # Last: where it stands, the parts beside it are whole.
    text = json.dumps({"counts": counts, "problems": problems}, sort_keys=True)
    replace_file(job.part(task.number, "json"), lambda part: part.write_text(text, "utf-8"))
    return Summary(counts, tuple(problems))


def _earlier(path: Path) -> Summary | None:
    try:
        found = parse_json(read_text(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    return Summary(found["counts"], tuple((key, status, problem) for key, status, problem in found["problems"]))


def _labelled(labeler: Labeler, report: Report, *, evidence: bool) -> ReportLabels:
    if report.problem:
        status = ReportStatus.REFUSED if report.refused else ReportStatus.UNREADABLE
        return ReportLabels(dict.fromkeys(labeler.rules.reported), (), status, "")
    if report.parts and labeler.policy.sections not in tuple(Sections):
        return _labelled_parts(labeler, report, evidence=evidence)
    return labeler.label(report.text, study=_study(report), mimic=report.mimic, evidence=evidence)


def _by_plugin(
    labeler: Labeler, plugged: ReportLabeler, job: LabelingRun, reports: Iterator[Report]
) -> Iterator[tuple[Report, ReportLabels]]:
    """The labels of another labeler: of the sections that the rules would read, asked for once a text."""
    chosen = [(report, _chosen(labeler, report)) for report in reports]
    assert job.options is not None
    cache = _answer_cache(job.answers or job.folder, job.labeler, job.options)
    answers = cache.labels_of([text for _, (status, text, _) in chosen if status is ReportStatus.LABELED])
    for report, (status, text, section) in chosen:
        labels = answers.get(sha256_of(text)) if status is ReportStatus.LABELED else None
        given = {name: labels.get(name) if labels else None for name in plugged.observations}
        if status is ReportStatus.LABELED and labels is None:
            unread = replace(report, problem=f"{plugged.name} gave no labels")
            yield unread, ReportLabels(given, (), ReportStatus.UNREADABLE, section)
        else:
            yield report, ReportLabels(given, (), status, section)


def _chosen(labeler: Labeler, report: Report) -> tuple[ReportStatus, str, str]:
    if report.problem:
        return (ReportStatus.REFUSED if report.refused else ReportStatus.UNREADABLE), "", ""
    if report.parts and labeler.policy.sections not in tuple(Sections):
        names = _wanted_parts(labeler, report)
        text = "\n\n".join((report.parts or {})[name].strip() for name in names)
        return (ReportStatus.LABELED if text else ReportStatus.NO_SECTION), text, "+".join(names)
    return labeler.chosen_text(report.text, study=_study(report), mimic=report.mimic)


def _study(report: Report) -> str:
    return "" if report.study is None or report.mimic is False else f"s{report.study.removeprefix('s')}"


def _wanted_parts(labeler: Labeler, report: Report) -> list[str]:
    """The sections to read, of a report whose collection states its sections."""
    parts = [name for name, text in (report.parts or {}).items() if text.strip()]
    groups = ([name for name in group if name in parts] for group in section_order(labeler.policy.sections))
    return next((group for group in groups if group), [])


def _labelled_parts(labeler: Labeler, report: Report, *, evidence: bool) -> ReportLabels:
    """The labels of the sections that are wanted, of a report whose collection states its sections."""
    names = _wanted_parts(labeler, report)
    if names:
        text = "\n\n".join((report.parts or {})[name] for name in names)
        return replace(labeler.label_text(text, evidence=evidence), section="+".join(names))
    return ReportLabels(dict.fromkeys(labeler.rules.reported), (), ReportStatus.NO_SECTION, "")


def _mention_row(mention: Mention) -> tuple[Any, ...]:
    """The columns of ``mentions.parquet`` that follow those which say which report it is."""
    cue = (mention.cue, mention.cue_start, mention.cue_end) if mention.cue else (None, None, None)
    return (
        mention.observation,
        int(mention.status),
        mention.section,
        mention.sentence,
        mention.start,
        mention.end,
        mention.phrase,
        mention.rule.value,
        *cue,
    )


@dataclass(frozen=True, slots=True)
class Joined:
    """The table of all shards, or ``None`` and the shards that are still to come (or were made by other rules)."""

    labels: Path | None
    waiting_for: tuple[int, ...] = ()


def shard_folder(out_dir: Path, shard: Shard) -> Path:
    """Where one shard's tables lie until all are there, and after."""
    return out_dir / "shards" / shard.in_names


def merge_shards(out_dir: Path, shard: Shard) -> Joined:
    """Join the tables of all shards, once the last is there: the bytes of a run without shards.

    Shards that were made by other rules, or from another source, than ``shard`` count as not there. They stay where
    they are, since two that end in the same moment both join them. Raises ``StorageError``.
    """
    folders = [shard_folder(out_dir, Shard(index, shard.count)) for index in range(1, shard.count + 1)]
    ours = output_tables.making(shard_folder(out_dir, shard) / f"{output_tables.LABELS_NAME}.parquet")
    waiting = tuple(
        index
        for index, folder in enumerate(folders, 1)
        if ours is None or output_tables.making(folder / f"{output_tables.LABELS_NAME}.parquet") != ours
    )
    if waiting:
        return Joined(None, waiting)
    if all((folder / f"{output_tables.MENTIONS_NAME}.parquet").exists() for folder in folders):
        _join(folders, output_tables.MENTIONS_NAME, out_dir)
    return Joined(_join(folders, output_tables.LABELS_NAME, out_dir))


def _join(folders: Sequence[Path], name: str, out_dir: Path) -> Path:
    paths, target = [folder / f"{name}.parquet" for folder in folders], out_dir / f"{name}.parquet"
    schema = read_schema(paths[0])
    # Rows of one report stand together in one shard.
    shards = [SortedCursor(read_groups(path, schema.names), schema, "row") for path in paths]
    output_tables.write_stream(merged(shards), schema, target)
    return target
