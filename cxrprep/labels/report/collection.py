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
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from cxrprep import __version__
from cxrprep.errors import NothingSelectedError
from cxrprep.events import Advanced, Note, Sink, StageFinished, StageStarted, ignore
from cxrprep.labels.report.aggregate import Policy
from cxrprep.labels.report.labeler import Labeler
from cxrprep.labels.report.reading import Collection, Report, open_collection
from cxrprep.labels.report.results import ReportLabels, ReportStatus
from cxrprep.labels.report.rules import build_rules, shipped_sources
from cxrprep.model import Shard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAGE: Final = "extract-labels"
_BATCH: Final = 4096
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
class _Task:
    """One batch: reports by name, or by value where the collection can only be read row by row."""

    number: int
    first: tuple[int, ...]
    collection: Collection
    names: tuple[str, ...]
    reports: tuple[Report, ...]
    sources: tuple[tuple[str, str], ...]
    policy: Policy
    evidence: bool
    folder: Path


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
    """Label every report of ``source`` into ``out_dir``: ``report_labels.parquet`` and, asked for, ``mentions.parquet``.

    ``executor`` runs the batches (``None``: this process), ``workers`` is how many it has. With ``shard`` only its part
    is done, into ``report_labels-i-of-n.parquet``; see :func:`merge_shards`. ``vocabulary`` is a TOML file that adds
    phrases. A report that cannot be read has a row with its status and no labels. Raises ``UsageError``,
    ``ConfigError``, ``NothingSelectedError``, ``TableError``, ``ArchiveError`` or ``StorageError``.
    """
    from cxrprep.labels.report import tables
    from cxrprep.labels.report.custom import read_vocabulary

    began = time.monotonic()
    policy = policy or Policy()
    sources = tuple(shipped_sources()) if vocabulary is None else read_vocabulary(vocabulary)
    rules = build_rules(sources)
    collection = open_collection(source)
    made_from = _made_from(rules.digest, policy, source)
    parts = out_dir / f".report_labels-{_fingerprint(made_from, collection, shard, evidence)}"
    on_event(
        StageStarted(STAGE, items=len(collection.names) if collection.names and shard is None else None, unit="reports")
    )
    counts: dict[str, int] = {}
    problems: list[str] = []
    last = -1
    kept = 0
    for number, summary in _run(_tasks(collection, shard, sources, policy, evidence, parts), executor, workers):
        last = max(last, number)
        kept += summary["kept"]
        for status, count in summary["counts"].items():
            counts[status] = counts.get(status, 0) + count
        for key, status, problem in summary["problems"]:
            if len(problems) < _NOTES:
                on_event(Note(STAGE, f"{status}: {problem}", level="problem", subject=key))
            problems.append(key)
        on_event(Advanced(STAGE, items=sum(summary["counts"].values())))
    if last < 0:
        raise NothingSelectedError(f"{source} holds no report" + (f" in shard {shard}" if shard else ""))
    suffix = f"-{shard.index}-of-{shard.count}" if shard else ""
    mentions = None
    if evidence:
        mentions = out_dir / f"{tables.MENTIONS_NAME}{suffix}.parquet"
        _join(parts, last, tables.MENTIONS_NAME, tables.MENTIONS, mentions, made_from)
    labels = out_dir / f"{tables.LABELS_NAME}{suffix}.parquet"
    _join(parts, last, tables.LABELS_NAME, tables.labels_schema(rules.reported), labels, made_from)
    shutil.rmtree(parts, ignore_errors=True)
    outcome = Outcome(labels, mentions, dict(sorted(counts.items())), tuple(sorted(problems)))
    on_event(
        StageFinished(
            STAGE, done=outcome.reports - kept - outcome.failed, kept=kept, failed=outcome.failed,
            seconds=time.monotonic() - began,
        )
    )  # fmt: skip
    return outcome


def _made_from(digest: str, policy: Policy, source: Path) -> dict[str, Any]:
    return {"rules": digest, "policy": asdict(policy), "source": source.name}


def _fingerprint(made_from: dict[str, Any], collection: Collection, shard: Shard | None, evidence: bool) -> str:
    """What parts of a stopped run must share to be used again: rules, policy, tool and the state of the source."""
    state = collection.path.stat()
    about = [
        made_from,
        __version__,
        str(collection.path.resolve()),
        str(shard),
        evidence,
        state.st_mtime_ns,
        state.st_size,
    ]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in collection.names or ():
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def _tasks(
    collection: Collection,
    shard: Shard | None,
    sources: tuple[tuple[str, str], ...],
    policy: Policy,
    evidence: bool,
    folder: Path,
) -> Iterator[_Task]:
    if collection.names is not None:
        named = ((row, name) for row, name in enumerate(collection.names) if shard is None or shard.holds(name))
        for number, batch in enumerate(_batched(named)):
            first, names = zip(*batch, strict=True)
            yield _Task(number, first, collection, names, (), sources, policy, evidence, folder)
        return
    rows = ((row, report) for row, report in enumerate(collection.rows()) if shard is None or shard.holds(report.key))
    for number, batch in enumerate(_batched(rows)):
        first, reports = zip(*batch, strict=True)
        yield _Task(number, first, collection, (), reports, sources, policy, evidence, folder)


def _batched(items: Iterator[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    while batch := list(itertools.islice(items, _BATCH)):
        yield batch


def _run(tasks: Iterator[_Task], executor: Executor | None, workers: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Results of the tasks as they come, with no more of them waiting than keeps the workers busy."""
    if executor is None:
        for task in tasks:
            yield task.number, label_batch(task)
        return
    running: dict[Future[dict[str, Any]], int] = {}
    try:
        while True:
            for task in itertools.islice(tasks, 2 * workers + 1 - len(running)):
                running[executor.submit(label_batch, task)] = task.number
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()
    finally:
        for future in running:
            future.cancel()


@functools.lru_cache(maxsize=2)
def _labeler(sources: tuple[tuple[str, str], ...], policy: Policy) -> Labeler:
    return Labeler(build_rules(sources), policy)


def label_batch(task: _Task) -> dict[str, Any]:
    """Label one batch into its part files and say how it went; a batch whose parts are there is only counted."""
    from cxrprep.labels.report import tables

    summary = task.folder / f"{task.number:06d}.json"
    if summary.exists():
        return {**json.loads(summary.read_text("utf-8")), "kept": len(task.first)}
    labeler = _labeler(task.sources, task.policy)
    rows: list[dict[str, Any]] = []
    mentions: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    problems: list[tuple[str, str, str]] = []
    columns = {name: tables.column_of(name) for name in labeler.rules.reported}
    reports = task.collection.read(task.names) if task.names else iter(task.reports)
    for row, report in zip(task.first, reports, strict=True):
        result = _labelled(labeler, report, task.evidence)
        counts[result.status] = counts.get(result.status, 0) + 1
        if report.problem:
            problems.append((report.key, result.status, report.problem))
        which = {"row": row, "report_id": report.key, "patient_id": report.patient, "study_id": report.study}
        rows.append(
            {
                **which,
                "status": str(result.status),
                "section": result.section or None,
                "text_sha256": report.sha256,
                **{columns[name]: value for name, value in result.labels.items()},
            }
        )
        mentions += ({**which, **_mention_row(mention)} for mention in result.mentions)
    if task.evidence:
        tables.write_part(mentions, tables.MENTIONS, task.folder / f"{task.number:06d}.mentions.parquet")
    schema = tables.labels_schema(labeler.rules.reported)
    tables.write_part(rows, schema, task.folder / f"{task.number:06d}.labels.parquet")
    return _sealed(summary, {"counts": counts, "problems": problems, "kept": 0})


def _sealed(path: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Write the summary last: where it stands, the parts beside it are whole."""
    from cxrprep.durable import replace_file

    text = json.dumps(summary, sort_keys=True)
    replace_file(path, lambda part: part.write_text(text, "utf-8"))
    return summary


def _labelled(labeler: Labeler, report: Report, evidence: bool) -> ReportLabels:
    if report.problem:
        status = ReportStatus.REFUSED if report.refused else ReportStatus.UNREADABLE
        return ReportLabels(dict.fromkeys(labeler.rules.reported), (), status, "")
    study = f"s{report.study}" if report.study and report.mimic else ""
    return labeler.label(report.text, study=study, mimic=report.mimic, evidence=evidence)


def _mention_row(mention: Any) -> dict[str, Any]:
    return {
        "observation": mention.observation,
        "status": int(mention.status),
        "section": mention.section,
        "sentence": mention.sentence,
        "start": mention.start,
        "end": mention.end,
        "phrase": mention.phrase,
        "rule": str(mention.rule),
        "cue": mention.cue or None,
        "cue_start": mention.cue_start if mention.cue else None,
        "cue_end": mention.cue_end if mention.cue else None,
    }


def _join(parts: Path, last: int, name: str, schema: Any, path: Path, made_from: dict[str, Any]) -> None:
    from cxrprep.labels.report import tables

    word = "labels" if name == tables.LABELS_NAME else "mentions"
    files = [parts / f"{number:06d}.{word}.parquet" for number in range(last + 1)]
    tables.join_parts(files, schema, path, tables.footer(name, made_from))


def merge_shards(out_dir: Path, count: int) -> Outcome:
    """The tables of ``count`` shards as one, in the collection's order: the bytes of a run without shards.

    Raises ``UsageError`` when a shard's table is missing or was made by other rules.
    """
    from cxrprep.labels.report.merge import merge

    labels, mentions, counts = merge(out_dir, count, _BATCH)
    return Outcome(labels, mentions, counts)
