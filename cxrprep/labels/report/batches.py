"""A collection cut into batches, and what becomes of one: part files that are whole or not there.

A batch is some thousands of reports, by name where the collection can be read by name: each worker then opens the
source itself, and what is sent stays small. Where a collection can only be read row by row the texts are sent.
"""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from cxrprep.durable import replace_file
from cxrprep.errors import StorageError
from cxrprep.labels.report import tables
from cxrprep.labels.report.labeler import Labeler
from cxrprep.labels.report.results import Mention, ReportLabels, ReportStatus
from cxrprep.labels.report.rules import build_rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cxrprep.labels.report.aggregate import Policy
    from cxrprep.labels.report.reading import Collection, Report
    from cxrprep.model import Shard

BATCH: Final = tables.GROUP
"""Reports in a batch."""

# Characters of text in a batch that is sent to its worker; some of them are under way at once.
_BATCH_TEXT: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """What all batches of a run share: what is read, by which rules, and where the parts go."""

    collection: Collection
    sources: tuple[tuple[str, str], ...]
    policy: Policy
    evidence: bool
    folder: Path

    def part(self, number: int, kind: str) -> Path:
        """The file of that kind of batch ``number``."""
        return self.folder / f"{number:06d}.{kind}"


@dataclass(frozen=True, slots=True)
class Task:
    """One batch: places of its reports in the collection, and their names or the reports themselves."""

    job: Job
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


def batches(job: Job, shard: Shard | None) -> Iterator[Task]:
    """The collection of ``job``, or the part of it that ``shard`` holds, in batches."""
    names = job.collection.names
    # A batch brings its own names along: with all of them in it, sending it would cost more than the work.
    job = replace(job, collection=replace(job.collection, names=None))
    if names is not None:
        named = ((row, name) for row, name in enumerate(names) if shard is None or shard.holds(name))
        for number, batch in enumerate(_by_count(named)):
            yield Task(job, number, tuple(row for row, _ in batch), names=tuple(name for _, name in batch))
        return
    reports = enumerate(job.collection.rows())
    held = ((row, report) for row, report in reports if shard is None or shard.holds(report.key))
    for number, rows in enumerate(_by_size(held)):
        yield Task(job, number, tuple(row for row, _ in rows), reports=tuple(report for _, report in rows))


def _by_count(named: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    while batch := list(itertools.islice(named, BATCH)):
        yield batch


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
def _labeler(sources: tuple[tuple[str, str], ...], policy: Policy) -> Labeler:
    return Labeler(build_rules(sources), policy)


def label_batches(tasks: Sequence[Task]) -> list[Summary]:
    """What ``engine.run`` calls, here or in a worker. Raises ``StorageError`` and what reading may raise."""
    return [label_batch(task) for task in tasks]


def label_batch(task: Task) -> Summary:
    """One batch, labelled into its part files; where they are there already, it is only counted."""
    job = task.job
    before = _earlier(job.part(task.number, "json"))
    if before is not None:
        return replace(before, kept=len(task.rows))
    labeler = _labeler(job.sources, job.policy)
    names = labeler.rules.reported
    rows: list[tuple[Any, ...]] = []
    mentions: list[tuple[Any, ...]] = []
    counts: dict[str, int] = {}
    problems: list[tuple[str, str, str]] = []
    reports = job.collection.read(task.names) if task.names else iter(task.reports)
    for row, report in zip(task.rows, reports, strict=True):
        result = _labelled(labeler, report, evidence=job.evidence)
        status = result.status.value
        counts[status] = counts.get(status, 0) + 1
        if report.problem:
            problems.append((report.key, status, report.problem))
        which = (row, report.key, report.patient, report.study)
        rows.append((*which, status, result.section or None, report.sha256, *(result.labels[name] for name in names)))
        mentions += ((*which, *_mention_row(mention)) for mention in result.mentions)
    if job.evidence:
        tables.write_part(mentions, tables.MENTIONS, job.part(task.number, tables.MENTIONS_NAME))
    tables.write_part(rows, tables.labels_schema(names), job.part(task.number, tables.LABELS_NAME))
    return _sealed(job.part(task.number, "json"), Summary(counts, tuple(problems)))


def _earlier(path: Path) -> Summary | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    return Summary(found["counts"], tuple((key, status, problem) for key, status, problem in found["problems"]))


def _sealed(path: Path, summary: Summary) -> Summary:
    """Write the summary last: where it stands, the parts beside it are whole."""
    text = json.dumps({"counts": summary.counts, "problems": summary.problems}, sort_keys=True)
    replace_file(path, lambda part: part.write_text(text, "utf-8"))
    return summary


def _labelled(labeler: Labeler, report: Report, *, evidence: bool) -> ReportLabels:
    if report.problem:
        status = ReportStatus.REFUSED if report.refused else ReportStatus.UNREADABLE
        return ReportLabels(dict.fromkeys(labeler.rules.reported), (), status, "")
    study = "" if report.study is None or report.mimic is False else f"s{report.study.removeprefix('s')}"
    return labeler.label(report.text, study=study, mimic=report.mimic, evidence=evidence)


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
