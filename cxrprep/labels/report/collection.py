"""Labels a whole collection of reports: in batches, on an executor, resumable, in bounded memory.

Every batch becomes a part file, published atomically; a run that was killed goes on with the parts that are there. The
final tables are the parts in order, so they do not depend on how many processes worked or how often they were stopped.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import shutil
import time
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from cxrprep import __version__
from cxrprep.durable import replace_file
from cxrprep.errors import NothingSelectedError, SomeFailedError
from cxrprep.events import Advanced, Note, Sink, StageFinished, StageStarted, ignore
from cxrprep.labels.report.aggregate import Policy
from cxrprep.labels.report.labeler import Labeler
from cxrprep.labels.report.reading import Collection, Report, open_collection
from cxrprep.labels.report.results import Mention, ReportLabels, ReportStatus
from cxrprep.labels.report.rules import build_rules, shipped_sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cxrprep.model import Shard

STAGE: Final = "extract-labels"
_BATCH: Final = 4096
# Characters of text in a batch that has to be sent to its worker.
_BATCH_TEXT: Final = 64 << 20
_NOTES: Final = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What labelling a collection gave: the tables, and how many reports had which status."""

    labels: Path
    mentions: Path | None
    counts: dict[str, int]
    problems: tuple[str, ...] = ()

    @property
    def reports(self) -> int:
        """The number of reports, whatever their status."""
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        """The reports that could not be read."""
        return self.counts.get(ReportStatus.UNREADABLE, 0) + self.counts.get(ReportStatus.REFUSED, 0)


@dataclass(frozen=True, slots=True)
class _Job:
    """What all batches of a run share: what is read, by which rules, and where the parts go."""

    collection: Collection
    sources: tuple[tuple[str, str], ...]
    policy: Policy
    evidence: bool
    folder: Path


@dataclass(frozen=True, slots=True)
class _Task:
    """One batch: reports by name, or by value where the collection can only be read row by row."""

    job: _Job
    number: int
    rows: tuple[int, ...]
    names: tuple[str, ...] = ()
    reports: tuple[Report, ...] = ()

    def part(self, kind: str) -> Path:
        """The batch's file of that kind."""
        return self.job.folder / f"{self.number:06d}.{kind}"


@dataclass(slots=True)
class _Tally:
    """What the batches add up to."""

    batches: int = 0
    kept: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, summary: dict[str, Any], on_event: Sink) -> None:
        """Count one batch, and say which of its reports could not be read."""
        self.batches += 1
        self.kept += summary["kept"]
        for status, count in summary["counts"].items():
            self.counts[status] = self.counts.get(status, 0) + count
        for key, status, problem in summary["problems"]:
            if len(self.problems) < _NOTES:
                on_event(Note(STAGE, f"{status}: {problem}", level="problem", subject=key))
            self.problems.append(key)
        on_event(Advanced(STAGE, items=sum(summary["counts"].values())))


def label_collection(
    source: Path,
    out_dir: Path,
    *,
    executor: Executor | None = None,
    workers: int = 1,
    shard: Shard | None = None,
    vocabulary: Path | None = None,
    policy: Policy | None = None,
    evidence: bool = False,
    on_event: Sink = ignore,
) -> Outcome:
    """The tables of labels that ``source`` gives: ``report_labels.parquet`` in ``out_dir``, and ``mentions.parquet``.

    ``executor`` runs the batches (``None``: this process), ``workers`` is how many it has. With ``shard`` only its part
    is done, into ``report_labels-i-of-n.parquet``; see :func:`merge_shards`. ``vocabulary`` is a TOML file that adds
    phrases. A report that cannot be read has a row with its status and no labels. Raises ``UsageError``,
    ``ConfigError``, ``NothingSelectedError``, ``TableError``, ``ArchiveError``, ``StorageError``, and
    ``SomeFailedError`` when a worker process died.
    """
    from cxrprep.labels.report import tables
    from cxrprep.labels.report.custom import read_vocabulary

    began = time.monotonic()
    policy = policy or Policy()
    sources = tuple(shipped_sources()) if vocabulary is None else read_vocabulary(vocabulary)
    rules = build_rules(sources)
    collection = open_collection(source)
    made_from = {"rules": rules.digest, "policy": asdict(policy), "source": source.name}
    parts = out_dir / f".report_labels-{_fingerprint([made_from, str(shard), evidence], collection)}"
    # A batch brings its own names along: with all of them in it, sending it would cost more than the work.
    job = _Job(replace(collection, names=None), sources, policy, evidence, parts)
    names = collection.names
    on_event(StageStarted(STAGE, items=len(names) if names and shard is None else None, unit="reports"))
    tally = _Tally()
    for summary in _run(_tasks(job, names, shard), executor, workers):
        tally.add(summary, on_event)
    if not tally.batches:
        raise NothingSelectedError(f"{source} holds no report" + (f" in shard {shard}" if shard else ""))
    suffix = f"-{shard.index}-of-{shard.count}" if shard else ""
    written: dict[str, Path] = {}
    schemas = {tables.LABELS_NAME: tables.labels_schema(rules.reported)}
    if evidence:
        schemas = {tables.MENTIONS_NAME: tables.MENTIONS, **schemas}
    for name, schema in schemas.items():
        written[name] = out_dir / f"{name}{suffix}.parquet"
        files = [parts / f"{number:06d}.{name}" for number in range(tally.batches)]
        tables.join_parts(files, schema, written[name], tables.footer(name, made_from))
    shutil.rmtree(parts, ignore_errors=True)
    outcome = Outcome(
        written[tables.LABELS_NAME],
        written.get(tables.MENTIONS_NAME),
        dict(sorted(tally.counts.items())),
        tuple(sorted(tally.problems)),
    )
    done = outcome.reports - tally.kept - outcome.failed
    seconds = time.monotonic() - began
    on_event(StageFinished(STAGE, done=done, kept=tally.kept, failed=outcome.failed, seconds=seconds))
    return outcome


def _fingerprint(about: list[Any], collection: Collection) -> str:
    """What parts of a stopped run must share to be used again: rules, policy, tool and the state of the source."""
    state = collection.path.stat()
    place = [__version__, str(collection.path.resolve()), state.st_mtime_ns, state.st_size]
    digest = hashlib.sha256(json.dumps([about, place], sort_keys=True).encode())
    for name in collection.names or ():
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def _tasks(job: _Job, names: tuple[str, ...] | None, shard: Shard | None) -> Iterator[_Task]:
    if names is not None:
        named = ((row, name) for row, name in enumerate(names) if shard is None or shard.holds(name))
        for number, batch in enumerate(_name_batches(named)):
            yield _Task(job, number, tuple(row for row, _ in batch), names=tuple(name for _, name in batch))
        return
    reports = enumerate(job.collection.rows())
    held = ((row, report) for row, report in reports if shard is None or shard.holds(report.key))
    for number, rows in enumerate(_report_batches(held)):
        yield _Task(job, number, tuple(row for row, _ in rows), reports=tuple(report for _, report in rows))


def _name_batches(named: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    while batch := list(itertools.islice(named, _BATCH)):
        yield batch


def _report_batches(reports: Iterator[tuple[int, Report]]) -> Iterator[list[tuple[int, Report]]]:
    batch: list[tuple[int, Report]] = []
    size = 0
    for row, report in reports:
        batch.append((row, report))
        size += len(report.text)
        if len(batch) == _BATCH or size > _BATCH_TEXT:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@functools.lru_cache(maxsize=2)
def _labeler(sources: tuple[tuple[str, str], ...], policy: Policy) -> Labeler:
    return Labeler(build_rules(sources), policy)


def _run(tasks: Iterator[_Task], executor: Executor | None, workers: int) -> Iterator[dict[str, Any]]:
    """How each batch went, as they end, with no more of them waiting than keeps the workers busy."""
    if executor is None:
        yield from map(label_batch, tasks)
        return
    running: set[Future[dict[str, Any]]] = set()
    try:
        while True:
            for task in itertools.islice(tasks, 2 * workers + 1 - len(running)):
                running.add(executor.submit(label_batch, task))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenExecutor as error:
        raise SomeFailedError("a worker process died while it read reports", hint="run it again") from error
    finally:
        for future in running:
            future.cancel()


def label_batch(task: _Task) -> dict[str, Any]:
    """How one batch went, labelled into its part files; where they are there already, it is only counted."""
    from cxrprep.labels.report import tables

    summary = task.part("json")
    if summary.exists():
        return {**json.loads(summary.read_text("utf-8")), "kept": len(task.rows)}
    job = task.job
    labeler = _labeler(job.sources, job.policy)
    names = labeler.rules.reported
    schema = tables.labels_schema(names)
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
        tables.write_part(mentions, tables.MENTIONS, task.part(tables.MENTIONS_NAME))
    tables.write_part(rows, schema, task.part(tables.LABELS_NAME))
    return _sealed(summary, {"counts": counts, "problems": problems, "kept": 0})


def _sealed(path: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Write the summary last: where it stands, the parts beside it are whole."""
    text = json.dumps(summary, sort_keys=True)
    replace_file(path, lambda part: part.write_text(text, "utf-8"))
    return summary


def _labelled(labeler: Labeler, report: Report, *, evidence: bool) -> ReportLabels:
    if report.problem:
        status = ReportStatus.REFUSED if report.refused else ReportStatus.UNREADABLE
        return ReportLabels(dict.fromkeys(labeler.rules.reported), (), status, "")
    study = f"s{report.study}" if report.study and report.mimic else ""
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


def merge_shards(out_dir: Path, count: int) -> Outcome:
    """The tables of ``count`` shards as one, in the collection's order: the bytes of a run without shards.

    Raises ``UsageError`` when a shard's table is missing or was made by other rules.
    """
    from cxrprep.labels.report.merge import merge

    labels, mentions, counts = merge(out_dir, count, _BATCH)
    return Outcome(labels, mentions, counts)
