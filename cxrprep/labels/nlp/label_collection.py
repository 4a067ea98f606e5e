"""Labels a whole collection of reports: in batches, on an engine, resumable, in bounded memory.

Every batch becomes a part file, published atomically; a run that was killed goes on with the parts that are there. The
final tables are the parts in order, so they do not depend on how many processes worked or how often they were stopped.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from cxrprep._version import __version__
from cxrprep.errors import BusyError, NothingSelectedError, SomeFailedError
from cxrprep.events import Advanced, Note, Sink, StageFinished, StageStarted, ignore
from cxrprep.executors import Engine, Lost
from cxrprep.humanize import short_repr
from cxrprep.labels.label_sources import OURS
from cxrprep.labels.labelers.registry import labeler_named
from cxrprep.labels.nlp import output_tables
from cxrprep.labels.nlp.batches import (
    Joined,
    LabelingRun,
    LabelingTask,
    Summary,
    batches,
    earlier_summary,
    label_away,
    label_batches,
    merge_shards,
    shard_folder,
    with_texts,
)
from cxrprep.labels.nlp.custom_rules import read_vocabulary
from cxrprep.labels.nlp.policies import MentionPolicy, policy_sources
from cxrprep.labels.nlp.readers import Collection, open_collection
from cxrprep.labels.nlp.results import ReportStatus
from cxrprep.labels.nlp.ruleset import build_rules, shipped_sources
from cxrprep.labels.nlp.sections import check_sections
from cxrprep.storage.parquet import with_footer
from cxrprep.storage.working_copy_paths import copy_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cxrprep.labels.labelers.contract import LabelerOptions
    from cxrprep.model import Shard

STAGE: Final = "extract-labels"
_NOTES: Final = 20
# Seconds that the parts of a stopped run are kept for it to go on.
_KEPT: Final = 3 * 86_400


@dataclass(frozen=True, slots=True)
class LabelingOutcome:
    """What labelling a collection gave: the tables, and how many reports had which status.

    ``labels_given`` counts for each observation how often it is positive, negative, uncertain and null. ``joined``
    tells, after one shard, about the table of all of them.
    """

    __repr__ = short_repr

    labels: Path
    mentions: Path | None
    counts: dict[str, int]
    problems: tuple[str, ...] = ()
    labels_given: dict[str, dict[str, int]] = field(default_factory=dict)
    joined: Joined | None = None

    @property
    def reports(self) -> int:
        """The number of reports, whatever their status."""
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        """The reports that could not be read."""
        return self.counts.get(ReportStatus.UNREADABLE, 0) + self.counts.get(ReportStatus.REFUSED, 0)


@dataclass(frozen=True, slots=True)
class PlugIn:
    """Another labeler than the rules: its name, the label source that it becomes, and where its answers are kept."""

    labeler: str
    label_source: str
    options: LabelerOptions
    answers: Path


@dataclass(slots=True)
class _Tally:
    """What the batches add up to."""

    batches: int = 0
    kept: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, summary: Summary, on_event: Sink) -> None:
        """Count one batch, and say which of its reports could not be read."""
        self.batches += 1
        self.kept += summary.kept
        for status, count in summary.counts.items():
            self.counts[status] = self.counts.get(status, 0) + count
        for key, status, problem in summary.problems:
            if len(self.problems) < _NOTES:
                on_event(Note(STAGE, f"{status}: {problem}", level="problem", subject=key))
            self.problems.append(key)
        on_event(Advanced(STAGE, items=sum(summary.counts.values())))


def label_collection(
    source: Path,
    out_dir: Path,
    *,
    engine: Engine | None = None,
    shard: Shard | None = None,
    vocabulary: Path | None = None,
    policy: MentionPolicy | None = None,
    evidence: bool = False,
    plugin: PlugIn | None = None,
    on_event: Sink = ignore,
) -> LabelingOutcome:
    """The tables of labels that ``source`` gives: ``report_labels.parquet`` in ``out_dir``, and ``mentions.parquet``.

    A report that cannot be read has a row with its status and no labels.

    Args:
        source: the reports.
        out_dir: where the tables go.
        engine: where the batches run (``None``: in this process).
        shard: the part to do, into a folder of its own below ``out_dir/shards``; the last shard to finish joins them.
        vocabulary: a TOML file that adds phrases, or overrules them.
        policy: how mentions add up, and what is read.
        evidence: also write the mentions; asked for once, they are written again with each new labels.
        plugin: another labeler than the rules.
        on_event: receives progress and notes.

    Returns:
        Counts by status and label.

    Raises:
        UsageError: ``source`` is no collection, a section is none, or the labeler's options do not suffice.
        ConfigError: the vocabulary is wrong.
        NothingSelectedError: there is no report.
        TableError: a table cannot be read.
        ArchiveError: an archive is damaged.
        StorageError: the disk refuses.
        SourceUnreachableError: no cluster answers.
        SomeFailedError: a worker process died over a batch.
        BusyError: another run finished the same work meanwhile.
    """
    began = time.monotonic()
    policy = policy or MentionPolicy()
    engine = engine or Engine("inline")
    # The working copy of a bucket lies on this machine alone: texts go to the workers, and parts come back.
    away = engine.name == "dask" and any(copy_of(str(place.absolute())) for place in (source, out_dir))
    if engine.name == "dask":
        # Workers of a cluster have another working folder.
        source, out_dir = source.resolve(), out_dir.resolve()
    sources = tuple(shipped_sources()) if vocabulary is None else read_vocabulary(vocabulary)
    rules = build_rules([*sources, *policy_sources(policy)], policy.hedges)
    check_sections(policy.sections, rules.titles)
    collection = open_collection(source)
    made_from = {
        "rules": rules.digest,
        "policy": asdict(policy),
        "source": source.name,
        "label_source": OURS,
        "labeler": {"name": "rules", "version": __version__, "policy": policy.name},
    }
    plugged = None
    if plugin is not None:
        options = replace(plugin.options, sources=sources, policy=policy.name)
        plugged = labeler_named(plugin.labeler, options)
        about = {"name": plugged.name, "version": plugged.version, "digest": plugged.digest}
        made_from = {
            "policy": {"sections": policy.sections}, "source": source.name, "label_source": plugin.label_source,
            "labeler": about,
        }  # fmt: skip
    evidence = evidence or (plugin is None and (out_dir / f"{output_tables.MENTIONS_NAME}.parquet").is_file())
    observations = rules.reported if plugged is None else plugged.observations
    if engine.name == "dask" and not away:
        out_dir.mkdir(parents=True, exist_ok=True)
        engine = engine.needing([str(source if source.is_dir() else source.parent), str(out_dir)])
    out = out_dir if shard is None else shard_folder(out_dir, shard)
    job = LabelingRun(
        collection, sources, policy, evidence, out / f".parts-{_fingerprint([made_from, evidence], collection)}"
    )
    if plugin is not None and plugged is not None:
        job = replace(job, labeler=plugin.labeler, options=plugged.options, answers=plugin.answers)
    on_event(StageStarted(STAGE, items=_total(collection, shard), unit="reports"))
    tally = _Tally()
    lost = 0
    for summary in (_run_away if away else _run)(batches(job, shard), engine, on_event):
        if isinstance(summary, Lost):
            lost += 1
            on_event(Note(STAGE, summary.cause, level="problem", subject=_named(summary.item)))
        else:
            tally.add(summary, on_event)
    if lost:
        raise SomeFailedError(
            f"worker processes died over {lost} batches of reports; the others are done",
            hint="run it again: it goes on with those; fewer --jobs need less memory",
        )
    if not tally.batches:
        raise NothingSelectedError(f"{source} holds no report" + (f" in shard {shard}" if shard else ""))
    written = _written(out, job, tally.batches, observations, made_from)
    _remove_parts(job.folder)
    joined = None if shard is None else merge_shards(out_dir, shard)
    outcome = LabelingOutcome(
        written[output_tables.LABELS_NAME],
        written.get(output_tables.MENTIONS_NAME),
        dict(sorted(tally.counts.items())),
        tuple(sorted(tally.problems)),
        output_tables.count_labels(written[output_tables.LABELS_NAME], observations),
        joined,
    )
    done = outcome.reports - tally.kept - outcome.failed
    seconds = time.monotonic() - began
    on_event(StageFinished(STAGE, done=done, kept=tally.kept, failed=outcome.failed, seconds=seconds))
    return outcome


def _remove_parts(ours: Path) -> None:
    """Remove the parts of this run, and those that a run of other rules or another source left here days ago."""
    long_ago = time.time() - _KEPT
    for folder in ours.parent.glob(".parts-*"):
        try:
            if folder == ours or folder.stat().st_mtime < long_ago:
                shutil.rmtree(folder)
        except OSError:
            # Another run has just removed them.
            continue


def _total(collection: Collection, shard: Shard | None) -> int | None:
    if collection.names is None:
        return None
    return sum(1 for name in collection.names if shard is None or shard.holds(name))


def _run(tasks: Iterator[LabelingTask], engine: Engine, on_event: Sink) -> Iterator[Summary | Lost[LabelingTask]]:
    first = list(itertools.islice(tasks, 2))
    if len(first) < 2 and engine.name == "local":
        # Processes would take longer to start than a single batch takes.
        engine = Engine("inline")
    yield from engine.run(label_batches, itertools.chain(first, tasks), batch=1, on_event=on_event)


def _run_away(tasks: Iterator[LabelingTask], engine: Engine, on_event: Sink) -> Iterator[Summary | Lost[LabelingTask]]:
    """The same where workers see neither the reports nor the folder of the parts."""
    kept: list[Summary] = []

    def asked() -> Iterator[LabelingTask]:
        for task in tasks:
            if (before := earlier_summary(task)) is not None:
                kept.append(before)
            else:
                yield with_texts(task)

    for found in engine.run(label_away, asked(), batch=1, on_event=on_event):
        yield found if isinstance(found, Lost) else found.put_in_place()
    yield from kept


def _named(task: LabelingTask) -> str:
    keys = task.names or tuple(report.key for report in task.reports)
    return f"{keys[0]} to {keys[-1]}"


def _written(
    out: Path, job: LabelingRun, count: int, observations: tuple[str, ...], made_from: dict[str, Any]
) -> dict[str, Path]:
    """The tables by name, each from its parts."""
    written: dict[str, Path] = {}
    schemas = {output_tables.LABELS_NAME: output_tables.labels_schema(observations)}
    if job.evidence:
        # The labels last: where they are new, the evidence is too.
        schemas = {output_tables.MENTIONS_NAME: output_tables.MENTIONS, **schemas}
    for name, schema in schemas.items():
        written[name] = out / f"{name}.parquet"
        files = [job.part(number, name) for number in range(count)]
        try:
            output_tables.join_parts(files, with_footer(schema, name, made_from), written[name])
        except FileNotFoundError as error:
            raise BusyError(
                f"another run labelled the same reports into {out} and finished first", hint="its tables are there"
            ) from error
    return written


def _fingerprint(about: list[Any], collection: Collection) -> str:
    """What parts of a stopped run must share to be used again: rules, policy, tool and the state of the source."""
    state = collection.path.stat()
    place = [__version__, str(collection.path.resolve()), state.st_mtime_ns, state.st_size]
    digest = hashlib.sha256(json.dumps([about, place], sort_keys=True).encode())
    for name in collection.names or ():
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
        if collection.kind == "folder":
            # A folder does not change its own time when a file in it is written anew.
            file = (collection.path / name).stat()
            digest.update(f"{file.st_mtime_ns} {file.st_size}\0".encode())
    return digest.hexdigest()[:16]
