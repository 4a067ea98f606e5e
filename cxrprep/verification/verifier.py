"""Verifier: bytes, images, tables, in this order, and one report."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.collection import DatasetFolder, folder_words
from cxrprep.errors import IntegrityError, TableError, UsageError
from cxrprep.events import Note, Sink, StageStarted, ignore
from cxrprep.humanize import format_count
from cxrprep.model import ImageCheck
from cxrprep.record.entry import Origin
from cxrprep.record.record import Record
from cxrprep.storage.archives import check_archive, read_index
from cxrprep.storage.paths import is_archive
from cxrprep.storage.sorted_tables import PATHS, FilteredRows, HeldRows, Rows, SortedTable, by_path
from cxrprep.system import plain_memory
from cxrprep.verification import table_checks
from cxrprep.verification.check_cache import Checks
from cxrprep.verification.file_checks import STAGE, FileCheck, FileCounts
from cxrprep.verification.finding import REPAIRABLE, Finding, Kind, make_finding
from cxrprep.verification.findings_table import Collector
from cxrprep.verification.image_checks import ImageCounts, PictureCheck, drawn
from cxrprep.verification.made_from import outdated_below, outdated_tables
from cxrprep.verification.merge_join import absent, merge_join
from cxrprep.verification.options import VerifyOptions
from cxrprep.verification.own_tables import altered_tables, not_noted, written_beside
from cxrprep.verification.published_checksums import (
    SUMS,
    altered_sum_files,
    is_table,
    read_sums,
    sum_files,
    table_paths,
)
from cxrprep.verification.published_facts import FactCheck, FactStatus, check_facts
from cxrprep.verification.report import VerifyReport
from cxrprep.verification.scan import scan, stat_paths

if TYPE_CHECKING:
    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.datasets.layout import Layout
    from cxrprep.executors import Engine
    from cxrprep.storage.patient_table import ByPatient

CheckImage = Callable[[Path | str], ImageCheck]
"""Decodes one image, of a path or address; picklable where an engine runs it. What it raises is the image's."""
Refetch = Callable[[Sequence[str]], Mapping[str, str]]
"""Fetches these release paths again and records them; what could not be fetched, with the reason in one line."""


def verify(
    folder: DatasetFolder,
    *,
    options: VerifyOptions | None = None,
    selected: Sequence[str] | SortedTable | None = None,
    labels: Callable[[], ByPatient] | None = None,
    sources: Sequence[tuple[str, str]] = (),
    check_image: CheckImage | None = None,
    engine: Engine | None = None,
    refetch: Refetch | None = None,
    on_event: Sink = ignore,
) -> VerifyReport:
    """What is true of the folder: its bytes, its images, its tables.

    Args:
        folder: The open folder.
        options: What is checked.
        selected: Release paths that must be here beside the recorded ones; ``None`` where nobody knows any more what
            the downloads asked for.
        labels: Gives all rows of the release's tables as ``labels.parquet`` has them; a ``TableError`` of it becomes a
            finding, a ``UsageError`` means that there are no tables.
        sources: Filled by ``labels``: name and digest of each table that it read, of many files that of all of them.
        check_image: Decodes an image.
        engine: Where it runs; without one in this process.
        refetch: Fetches wrong and missing files again, which are then checked again.
        on_event: Called with progress and remarks.

    Returns:
        The report, which never says more than was checked.

    Raises:
        StorageError: Nothing can be written beside the record.
        IntegrityError: A damaged sum file.
    """
    with plain_memory():
        about = (folder.root, folder.spec, folder.release, folder.record)
        run = _Run(*about, options or VerifyOptions(), labels, sources, on_event)
        return run.go(selected, check_image, engine, refetch)


@dataclass(slots=True)
class _Run:
    root: Path
    spec: DatasetSpec
    release: str
    record: Record
    options: VerifyOptions
    read_labels: Callable[[], ByPatient] | None
    sources: Sequence[tuple[str, str]]
    on_event: Sink
    counts: FileCounts = field(default_factory=FileCounts)
    damaged: list[Finding] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    not_checked: list[str] = field(default_factory=list)
    facts: list[FactCheck] = field(default_factory=list)
    repaired: int = 0
    labels: ByPatient | None = None
    asked: bool = False
    unvouched: bool = False
    written: Mapping[str, Path | None] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        return self.spec.layout(self.release)

    def go(
        self,
        selected: Sequence[str] | SortedTable | None,
        check_image: CheckImage | None,
        engine: Engine | None,
        refetch: Refetch | None,
    ) -> VerifyReport:
        started = time.monotonic()
        options = self.options
        if options.shard is not None:
            self.not_checked.append(f"files of other shards, tables and published facts: this is shard {options.shard}")
        elif options.quick:
            self.not_checked.append("tables and published facts: run without --quick")
        if not self.record.exists:
            self.not_checked.append("what was fetched: this folder has no record, so a missing file cannot be named")
        elif selected is None and self.record.selections:
            self.not_checked.append(
                "what was selected and never fetched: the list of it is missing, and the next download makes it again"
            )
        demanded = selected if isinstance(selected, SortedTable) else _rows_of(pa.array(selected or (), pa.string()))
        with Collector(self.record.home / "manifests" / options.table_name, options.demanded) as out:
            disk = self._bytes(out, demanded, refetch)
            labels = self._labels(out)
            here = sum(table.num_rows - table["image"].null_count for table in disk.tables())
            named = self.spec.counts.get("images", here)
            if labels is not None:
                named, here = self._tables(out, labels, disk)
            splits = table_checks.split_of(labels) if options.duplicates else {}
            # measured: with the rows of the tables and all paths, what follows was the peak of a check.
            self.labels = labels = None
            self._made_of_it(out)
            pictures = self._pictures(out, disk, splits, check_image, engine)
            return VerifyReport.of(
                out,
                options,
                started,
                dataset=self.spec.name,
                release=self.release,
                root=self.root,
                path=out.finish(),
                files=self.counts,
                images=pictures,
                images_here=here,
                images_named=named,
                facts=tuple(self.facts),
                not_checked=tuple(self.not_checked),
                repaired=self.repaired,
            )

    # ---- bytes ----

    def _bytes(self, out: Collector, selected: Rows, refetch: Refetch | None) -> SortedTable:
        """Check every file; the table of what is on the disk afterwards (``dataset.NAMES``)."""
        started = time.monotonic()
        self.on_event(StageStarted(STAGE))
        disbelieved = self._judge_lists(out, refetch)
        self.written = dict(self._written())
        # Each is read through in order of path, and none is held: a million files took 1 GiB of memory.
        recorded = self._of_shard(self.record)
        published = self._of_shard(self._published(disbelieved))
        selected = self._of_shard(selected)
        disk = SortedTable(table_checks.NAMES)
        problems: list[Finding] = []

        def take(finding: Finding) -> None:
            if finding.kind in REPAIRABLE:
                self.damaged.append(finding)
                return
            if finding.kind is Kind.UNCHECKED:
                self.unread.add(finding.path)
            out.finding(finding)

        checks = Checks(self.record.cache)
        try:
            check = self._file_check(checks)
            known = checks.known(quick=self.options.quick)
            check.run(merge_join(self._listed(disk, problems), recorded, published, known), take, out.proven)
            for problem in problems:
                out.finding(problem)
                self.unread.add(problem.path)
            demanded = {"it was selected and never fetched": [selected]}
            if self.options.complete:
                demanded["the release has it, and --complete demands all of the release"] = self._whole(out, published)
            for finding in absent(disk, recorded, demanded):
                if finding.path not in self.unread:
                    take(finding)
            if not self.options.quick:
                wrong = {finding.path for finding in self.damaged}
                paths = (path for part in recorded.tables(["path"]) for path in part["path"].to_pylist())
                self.damaged += self._damaged_archives(path for path in paths if path not in wrong)
            checks.finish(disk, keep_others=self.options.shard is not None)
        finally:
            checks.close()
        self.counts = check.counts
        check.finish(len(self.damaged), started)
        if refetch is not None and self.damaged:
            disk = self._repair(out, disk, published, refetch)
        out.findings(self.damaged)
        self.not_checked += self.counts.unread()
        return disk

    def _damaged_archives(self, paths: Iterable[str]) -> Iterator[Finding]:
        """Those of some files that are archives, and damaged as they came: nobody published a checksum of them, and
        nobody unpacked them to their end.
        """  # noqa: D205  # the summary needs both lines
        for path in filter(is_archive, paths):
            entry = self.record.get(path)
            is_doubtful = entry is not None and entry.origin is not Origin.PUBLISHED
            if is_doubtful and (self.root / path).is_file() and read_index(self.record.cache, path) is None:
                self.on_event(Note(STAGE, "read to its end: nobody published a checksum of it", "info", path))
                try:
                    check_archive(self.root / path)
                except IntegrityError as error:
                    yield make_finding(Kind.ALTERED, path, f"it came so, or changed before it was recorded: {error}")

    def _judge_lists(self, out: Collector, refetch: Refetch | None) -> frozenset[str]:
        """The lists of sums that prove nothing, since they fail their own check; mended first, where that was asked."""
        altered = altered_sum_files(self.root, self.spec, self.release, self.record)
        if altered and refetch is not None:
            refetch(sorted(altered))
            self.record = self._open_record()
            mended = altered.keys() - altered_sum_files(self.root, self.spec, self.release, self.record).keys()
            for name in sorted(mended):
                self.repaired += 1
                out.finding(
                    make_finding(
                        Kind.REPAIRED,
                        name,
                        "it was altered and has been fetched again; the files that it lists were checked against it",
                    )
                )
            altered = {name: found for name, found in altered.items() if name not in mended}
        for name in sorted(altered):
            self.not_checked.append(f"the checksums in {name}: it is not what was recorded, so it proves nothing")
        held = {path.name for path in sum_files(self.root, self.spec) if self.record.get(path.name) is None}
        described = {file.path for file in self.spec.files_of(self.release) if file.digest}
        self.unvouched = bool(held - described)
        for name in sorted(held - described):
            self.not_checked.append(f"whether {name} is the publisher's own: no checksum of it is known")
        return frozenset(altered)

    def _published(self, disbelieved: frozenset[str]) -> SortedTable:
        """All that is published of the bytes, by path: first the digests of the catalog, then those of lists here."""
        found = SortedTable(SUMS)
        found.add_rows([(file.path, str(file.digest)) for file in self.spec.files_of(self.release) if file.digest])
        for path in sum_files(self.root, self.spec):
            # Finding a file's place is what takes time here: what the record has is known already.
            for sums in () if path.name in disbelieved else read_sums(path, self.layout, self.release, self.record):
                found.append(sums)
        return found

    def _open_record(self) -> Record:
        return Record.open(self.root, self.record.home if self.record.home != self.root else None)

    def _written(self) -> Iterator[tuple[str, Path | None]]:
        """What cxrprep wrote among the files: nothing that the record, or outside of an export the release, names."""
        for name, place in written_beside(self.root, self.record.home).items():
            known = any(table.is_named(name) for table in self.spec.table)
            known = known or self.layout.place(name, release=self.release) is not None
            if self.record.get(name) is None and not (known and place in (None, self.root)):
                yield name, place

    def _listed(self, seen: SortedTable, problems: list[Finding]) -> Iterator[pa.Table]:
        """What is on the disk, some thousand files at a time as they are listed; in the end ``seen`` has all names."""
        layout, count, size = self.layout, 0, 0
        for listed in scan(self.root, problems, [self.record.home] if self.record.home != self.root else []):
            table = listed.filter(pc.invert(pc.is_in(listed["path"], value_set=pa.array(self.written, pa.string()))))
            if self.options.shard is not None:
                table = table.filter(self.options.mask(table["path"].to_pylist()))
            if table.num_rows:
                yield table
                # Looked at while the files are being read.
                seen.append(table_checks.names(table, layout))
                count += table.num_rows
                size += pc.sum(table["size"]).as_py()
        self.on_event(StageStarted(STAGE, items=count, size=size))

    def _file_check(self, checks: Checks | None) -> FileCheck:
        mirror = self.record.header.mirror
        check = FileCheck(self.root, self.spec, self.release, mirror, checks, self.on_event, self.options.jobs)
        check.unvouched = self.unvouched
        return check

    def _whole(self, out: Collector, published: Rows) -> list[Rows]:
        """The release paths of everything that the release consists of, as far as anybody says."""
        described = [
            file.path for file in self.spec.files_of(self.release) if not file.optional and file.kind != "archive"
        ]
        archives = [file.path for file in self.spec.files_of(self.release) if file.kind == "archive"]
        paths = pa.concat_tables([PATHS.empty_table(), *published.tables(["path"])])["path"].combine_chunks()
        whole = [
            pa.array(described, pa.string()),
            paths.filter(pc.invert(pc.is_in(paths, value_set=pa.array(archives, pa.string())))),
        ]
        labels = self._labels(out)
        if labels is not None:
            whole += [table_checks.named_paths(part, self.layout, self.release) for part in labels.ranges()]
        return [self._of_shard(_rows_of(array)) for array in whole]

    def _of_shard(self, rows: Rows) -> Rows:
        return rows if self.options.shard is None else FilteredRows(rows, self.options.mask)

    def _repair(self, out: Collector, disk: SortedTable, published: Rows, refetch: Refetch) -> SortedTable:
        """Fetch what is wrong, look at it again, and keep as damaged what still is."""
        before = {finding.path: finding for finding in self.damaged}
        failed = refetch(sorted(before))
        started = time.monotonic()
        self.on_event(StageStarted(STAGE, items=len(before)))
        self.record = self._open_record()
        # An archive that came whole now was unpacked, and removed on purpose.
        mended = [path for path in before if self.record.is_discarded(path)]
        looked_at = [*before, *self._unpacked_from(mended)]
        fresh = stat_paths(self.root, looked_at)
        after, seen_again = SortedTable(table_checks.NAMES), pa.array(looked_at, pa.string())
        for table in disk.tables():
            after.append(table.filter(pc.invert(pc.is_in(table["path"], value_set=seen_again))))
        again = self._file_check(None)
        gone = before.keys() - set(fresh["path"].to_pylist())
        still = {path: before[path] for path in gone.difference(mended)}

        def take(files: pa.Table, read: bool) -> None:
            mended.extend(path for path in files["path"].to_pylist() if path in before)
            out.proven(files, read)

        again.run(
            merge_join([fresh] if fresh.num_rows else [], self.record, published, None),
            lambda finding: still.update({finding.path: finding}),
            take,
        )
        still.update((finding.path, finding) for finding in self._damaged_archives(mended))
        mended = [path for path in mended if path not in still]
        for path in mended:
            old = before[path]
            out.finding(make_finding(Kind.REPAIRED, path, f"was {old.kind}: {old.detail}"))
        self.repaired += len(mended)
        self.damaged = []
        for path, finding in still.items():
            reason = f"; it could not be fetched: {failed[path]}" if path in failed else ""
            self.damaged.append(replace(finding, detail=finding.detail + reason))
        after.append(table_checks.names(fresh, self.layout))
        again.finish(len(self.damaged), started)
        self.counts.add(again.counts, here=after.num_rows)
        return after

    def _unpacked_from(self, archives: Sequence[str]) -> Iterator[str]:
        for part in self.record.tables(["path", "archive"]) if archives else ():
            yield from part.filter(pc.is_in(part["archive"], value_set=pa.array(archives)))["path"].to_pylist()

    # ---- tables ----

    def _labels(self, out: Collector) -> ByPatient | None:
        """The rows of the tables, read once; ``None`` where they cannot or should not be read, which is then said."""
        if not self.asked:
            self.asked = True
            self.labels = self._read_labels(out)
        return self.labels

    def _read_labels(self, out: Collector) -> ByPatient | None:
        if self.options.shard is not None or self.options.quick:
            return None
        what = "tables and published facts"
        spoilt = [finding.path for finding in self.damaged if is_table(self.spec, finding.path)]
        if spoilt:
            self.not_checked.append(f"{what}: fix {spoilt[0]} first")
        elif self.read_labels is None:
            self.not_checked.append(f"{what}: no tables are here")
        else:
            try:
                rows = self.read_labels()
            except TableError as error:
                if table_paths(self.spec, self.root):
                    found = make_finding(Kind.TABLE, "", error.message)
                    hint = f"{error.hint}; or {found.hint}" if error.hint else found.hint
                    out.finding(replace(found, hint=hint))
                else:
                    self.not_checked.append(f"{what}: {error.message}")
            except UsageError as error:
                self.not_checked.append(f"{what}: {error.message}")
            else:
                return rows
        return None

    def _tables(self, out: Collector, labels: ByPatient, disk: SortedTable) -> tuple[int, int]:
        """Hold the tables to facts, to each other and to the folder; how many images they name, and it has of these."""
        whole = self.options.complete
        for fact, findings in check_facts(self.spec, self.release, self.root, labels, complete=whole):
            self.facts.append(fact)
            out.findings(findings)
        lacking = sum(fact.status is FactStatus.ABSENT for fact in self.facts)
        if lacking:
            self.not_checked.append(f"{format_count(lacking, 'published fact')} about tables that are not here")
        partial = sum(fact.status is FactStatus.PART for fact in self.facts)
        if partial:
            facts = format_count(partial, "published fact")
            self.not_checked.append(f"{facts} of the whole release: the tables here hold only a part of it")
        for part in labels.ranges():
            out.findings((*table_checks.leakage(part), *table_checks.duplicate_rows(part)))
        found, named, here = table_checks.named_here(disk, labels)
        out.findings(found)
        # Images that no table names are told apart, and count for nothing here.
        return named, here

    def _made_of_it(self, out: Collector) -> None:
        """What was made from files of this folder that have other bytes now: label tables, converted images."""
        if self.options.shard is not None or self.options.quick:
            return
        wrong = {finding.path for finding in self.damaged}
        words = shlex.join(folder_words(self.root, self.record.home, self.spec.name))
        self.not_checked += not_noted(self.root, self.record.home)
        out.findings(altered_tables(self.root, self.record.home, words, f"cxrprep extract-labels {words}"))
        out.findings(outdated_tables(self.root, self.record.home, wrong, self.spec, self.sources))
        out.findings(outdated_below(self.record.home, self.record))
        made = {folder.parent.parent for folder in (self.record.home / "derived").glob("*/manifests/images.parquet")}
        for place in map(shlex.quote, sorted(map(str, made.union(filter(None, self.written.values())) - {self.root}))):
            self.not_checked.append(f"the bytes of what was made in {place}: cxrprep verify {place}")

    # ---- images ----

    def _pictures(
        self,
        out: Collector,
        disk: SortedTable,
        splits: Mapping[str, str | None],
        check_image: CheckImage | None,
        engine: Engine | None,
    ) -> ImageCounts | None:
        options = self.options
        if not (options.images or options.duplicates or options.sample is not None) or check_image is None:
            self.not_checked.append("the images' pixels: run with --images")
            return None
        paths = [path for part in disk.tables() for path in part.drop_null()["path"].to_pylist()]
        # A file whose bytes are wrong is known to be so; decoding it would only say it again.
        wrong = self.unread | {finding.path for finding in self.damaged}
        sound = [path for path in paths if path not in wrong]
        chosen = drawn(sound, options, self.not_checked)
        check = PictureCheck(self.root, self.spec, self.release, check_image, engine, self.on_event, options.duplicates)
        check.counts.here = len(paths)
        identities = self.layout

        def split(path: str) -> str | None:
            found = identities.parse(path)
            return splits.get(found.image) if found is not None else None

        out.findings(check.run_stage(chosen, split))
        if not options.duplicates:
            self.not_checked.append("images with the same pixels: run with --duplicates")
        return check.counts


def _rows_of(paths: pa.Array) -> Rows:
    return HeldRows(by_path(pa.table([paths], schema=PATHS)))
