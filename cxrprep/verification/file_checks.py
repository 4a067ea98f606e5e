"""File checks: missing files, and the digest of each against the best checksum known of it (mismatch: altered).

The publisher's sum counts most; then what the service stated while the bytes came; then what they were when they were
first read. A file without any of these is unproven, and is called so.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.digests import FileDigests, FileToRead, digest_files
from cxrprep.events import ItemFinished, Sink, StageFinished, Throttle
from cxrprep.record.entry import Origin
from cxrprep.storage.filesystem import REQUESTS
from cxrprep.storage.stored_digests import StoredDigests
from cxrprep.storage.unfetched import unfetched
from cxrprep.verification.finding import Finding, Kind, Level, make_finding
from cxrprep.verification.merge_join import Row, rows
from cxrprep.verification.published_checksums import known_copies
from cxrprep.verification.scan import leftover

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec, Quirk
    from cxrprep.verification.check_cache import Checks

OnFinding = Callable[[Finding], None]
OnProven = Callable[[pa.Table, bool], None]
"""Takes files that are right, many at a time (``PROVEN``), and whether they were read now."""
STAGE: Final = "verify"
# Of files that are what they should be: the digest, and against which kind of sum.
PROVEN: Final = pa.schema([("path", pa.string()), ("digest", pa.string()), ("origin", pa.string())])

# Where the digest of a file comes from that only a list in the folder calls right.
_LISTED: Final = "listed"


@dataclass(slots=True)
class FileCounts:
    """How many files are here, and how each was proven. ``read`` and ``believed`` count files; ``size`` bytes read.

    ``stated`` are files in a bucket that were not read, since the store states the checksum that they should have.
    ``listed`` are those that a list in the folder calls right, for which nobody vouches: they are not proven.
    """

    here: int = 0
    size_here: int = 0
    published: int = 0
    transport: int = 0
    first_read: int = 0
    listed: int = 0
    unproven: int = 0
    read: int = 0
    believed: int = 0
    stated: int = 0
    size_read: int = 0

    @property
    def proven(self) -> int:
        """Files whose digest is the one that is known of them."""
        return self.published + self.transport + self.first_read

    def prove(self, origin: str, count: int = 1) -> None:
        """Count files whose digest is right, by where that digest comes from."""
        if origin == Origin.PUBLISHED:
            self.published += count
        elif origin == Origin.TRANSPORT:
            self.transport += count
        elif origin == _LISTED:
            self.listed += count
        else:
            self.first_read += count

    def add(self, other: FileCounts, *, here: int) -> None:
        """Count a second look at some files, after which ``here`` files are in the folder."""
        self.here = here
        for name in (
            "published", "transport", "first_read", "listed", "unproven", "read", "believed", "stated", "size_read",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def unread(self) -> list[str]:
        """What was not checked of them, in a sentence."""
        as_before = "their size, time and inode are those of the last check"
        return [f"the bytes of {self.believed:,} files: {as_before}"] if self.believed else []


@dataclass(slots=True)
class FileCheck:
    """Checks rows of files, and counts. ``root`` is the folder, ``checks`` the memory of earlier checks.

    ``unvouched`` says that nobody vouches for a list of sums in the folder: it may accuse a file that the record calls
    right, and never acquits one that is not what was recorded.
    """

    root: Path
    spec: DatasetSpec
    release: str
    mirror: str
    checks: Checks | None
    on_event: Sink
    jobs: int | None = None
    counts: FileCounts = field(default_factory=FileCounts)
    unvouched: bool = False
    _published_sizes: dict[str, int] = field(init=False)
    _digested: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Look up what the catalog says of sizes."""
        files = self.spec.files_of(self.release)
        self._published_sizes = {f.path: f.size for f in files if f.size is not None}
        self._digested = [f.path for f in files if f.digest]

    def finish(self, failed: int, started: float) -> None:
        """Say that the stage is over, which began at ``started`` by the monotonic clock: ``failed`` files are wrong."""
        read, believed, size = self.counts.read, self.counts.believed, self.counts.size_read
        seconds = time.monotonic() - started
        self.on_event(StageFinished(STAGE, done=read, kept=believed, failed=failed, size=size, seconds=seconds))

    def run(self, tables: Iterable[pa.Table], on_finding: OnFinding, on_proven: OnProven) -> None:
        """Check ``tables`` (see ``merge_join``); tell ``on_finding`` what is wrong or unproven, else ``on_proven``."""
        progress = Throttle(STAGE, self.on_event)
        reading = _Queue()

        def to_read() -> Iterator[FileToRead]:
            for table in tables:
                self.counts.here += table.num_rows
                self.counts.size_here += pc.sum(table["size"]).as_py() or 0
                unsure = self._beyond_belief(table, on_proven, progress)
                wanted = self._wanted(unsure, on_finding, on_proven)
                if None in wanted:
                    progress.advance(items=wanted.count(None))
                    unsure = unsure.filter(pa.array([one is not None for one in wanted], pa.bool_()))
                reading.put(unsure)
                algorithms = [one for one in wanted if one is not None]
                columns = (unsure["path"], unsure["size"], _best(unsure))
                paths, sizes, expected = (column.to_pylist() for column in columns)
                yield from map(FileToRead, paths, sizes, algorithms, expected)

        there = unfetched(self.root)
        elsewhere = None if there is None else StoredDigests(there)
        batches = digest_files(
            self.root,
            to_read(),
            workers=self.jobs or (REQUESTS if elsewhere is not None else None),
            on_bytes=lambda size: progress.advance(size=size),
            elsewhere=elsewhere,
        )
        for batch in batches:
            self._settle(reading.take(len(batch)), batch, on_finding, on_proven)
            progress.advance(items=len(batch))
        if elsewhere is not None:
            self.counts.stated += elsewhere.stated
            self.counts.read -= elsewhere.stated
            self.counts.size_read -= elsewhere.stated_bytes
        progress.flush()

    def _beyond_belief(self, table: pa.Table, on_proven: OnProven, progress: Throttle) -> pa.Table:
        """The rows that need a closer look, once those are told whose known digest is all that is asked of them."""
        for column in ("stated", "known"):
            if table[column].null_count < table.num_rows:
                table = self._believe(table, column, on_proven, progress)
        return table

    def _believe(self, table: pa.Table, column: str, on_proven: OnProven, progress: Throttle) -> pa.Table:
        agreed = pc.fill_null(pc.equal(table["published"], table["recorded"]), fill_value=True)
        same = pc.and_(pc.equal(table[column], _best(table)), pc.equal(table["recorded_size"], table["size"]))
        sure = pc.fill_null(pc.and_(pc.and_(same, agreed), pc.greater(table["size"], 0)), fill_value=False)
        believed = table.filter(sure)
        # What a store states was computed of all bytes, and not believed by size and time.
        is_stated = column == "stated"
        self._prove(believed, on_proven, read=is_stated)
        self.counts.stated += believed.num_rows * is_stated
        progress.advance(items=believed.num_rows)
        return table.filter(pc.invert(sure)) if believed.num_rows else table

    def _wanted(self, table: pa.Table, on_finding: OnFinding, on_proven: OnProven) -> list[tuple[str, ...] | None]:
        """With which algorithms to read each file; ``None`` where all is said without reading it."""
        if not table.num_rows:
            # pyarrow 20 crashes over the indices of a column that has no chunk.
            return []
        pairs = zip(_algorithm(table["recorded"]), _algorithm(table["published"]), strict=True)
        wanted: list[tuple[str, ...] | None] = list(map(_both, pairs))
        # Without a record it is the catalog that may know the size.
        catalog = pc.is_in(table["path"], value_set=pa.array(self._published_sizes, pa.string()))
        due = pc.coalesce(pc.equal(table["recorded_size"], table["size"]), pc.invert(catalog))
        summed = pc.or_(pc.is_valid(table["recorded"]), pc.is_valid(table["published"]))
        plain = pc.and_(pc.and_(due, summed), pc.and_(pc.greater(table["size"], 0), pc.is_null(table["known"])))
        odd = pc.indices_nonzero(pc.invert(plain))
        for index, row in zip(odd.to_pylist(), rows(table.take(odd)), strict=True):
            decision = self._decide(row)
            if isinstance(decision, tuple):
                wanted[index] = decision
                continue
            wanted[index] = None
            if isinstance(decision, Finding):
                self._report(decision, on_finding)
            else:
                self._prove(table.slice(index, 1), on_proven, read=False, digest=(row.known or "").split(" ")[0])
        return wanted

    def _settle(self, table: pa.Table, batch: list[FileDigests], on_finding: OnFinding, on_proven: OnProven) -> None:
        """Compare what was read with what should be there, and remember it."""
        self.counts.read += len(batch)
        self.counts.size_read += sum(one.size for one in batch)
        if self.checks is not None:
            sizes = table["size"].to_pylist()
            whole = [not one.problem and one.size == size for one, size in zip(batch, sizes, strict=True)]
            digests = pa.array([" ".join(one.digests) for one in batch], pa.string())
            seen = table.select(["path", "size", "mtime_ns", "inode"]).append_column("digests", digests)
            self.checks.add(seen if all(whole) else seen.filter(pa.array(whole)))
        # The last algorithm is that of the best sum, as they are asked for.
        found = pa.array([one.digests[-1] if one.digests else None for one in batch], pa.string())
        right = pc.fill_null(pc.equal(found, _best(table)), fill_value=False)
        if self.unvouched:
            agreed = pc.fill_null(pc.equal(table["published"], table["recorded"]), fill_value=True)
            right = pc.and_(right, agreed)
        if pc.all(right).as_py():
            self._prove(table, on_proven, read=True)
            return
        self._prove(table.filter(right), on_proven, read=True)
        odd = pc.indices_nonzero(pc.invert(right))
        for index, row in zip(odd.to_pylist(), rows(table.take(odd)), strict=True):
            finding = self._compare(row, batch[index].digests, batch[index].problem)
            if finding is None:
                self._prove(table.slice(index, 1), on_proven, read=True, digest=batch[index].digests[0])
            else:
                self._report(finding, on_finding)

    def _prove(self, table: pa.Table, on_proven: OnProven, *, read: bool, digest: str | None = None) -> None:
        """Count files that are right, and pass them on; ``digest`` for a file that only its copies are known of."""
        if not table.num_rows:
            return
        origin = pc.fill_null(table["origin"], str(Origin.FIRST_READ))
        unrecorded = pc.is_null(table["recorded"])
        if self.unvouched:
            listed = pc.and_(unrecorded, pc.is_valid(table["published"]))
            origin = pc.if_else(listed, _LISTED, origin)
            of_catalog = pc.is_in(table["path"], value_set=pa.array(self._digested, pa.string()))
            published = pc.or_(of_catalog, pc.and_(unrecorded, pc.is_null(table["published"])))
        else:
            published = pc.or_(pc.is_valid(table["published"]), unrecorded)
        origin = pc.if_else(published, str(Origin.PUBLISHED), origin)
        for one in pc.value_counts(origin).to_pylist():
            self.counts.prove(one["values"], one["counts"])
        if not read:
            self.counts.believed += table.num_rows
        best = _best(table) if digest is None else pc.fill_null(_best(table), digest)
        on_proven(pa.table([table["path"], best, origin], schema=PROVEN), read)

    def _report(self, finding: Finding, on_finding: OnFinding) -> None:
        if finding.kind is Kind.UNPROVEN:
            self.counts.unproven += 1
        if finding.level is Level.ERROR:
            self.on_event(
                ItemFinished(STAGE, finding.path, "error", detail=f"{finding.kind}: {finding.detail}", counted=True)
            )
        on_finding(finding)

    def _decide(self, row: Row) -> tuple[str, ...] | Finding | None:
        """What is wrong with a file as far as can be said without reading; ``None`` where it is right by what is known.

        Else the algorithms to read it with.
        """
        wanted = _both(
            (row.recorded and row.recorded.partition(":")[0], row.published and row.published.partition(":")[0])
        )
        if row.recorded_size is None and row.published is None:
            stranger = self._stranger(row)
            if stranger is not None:
                return stranger
            wanted = ("sha256",)
        if row.size == 0 and row.recorded_size != 0:
            return make_finding(
                Kind.ZERO_BYTE, row.path, "the file is empty", expected=row.recorded_size or "some bytes", found=0
            )
        size = row.recorded_size
        if size is None and row.published is not None:
            size = self._published_sizes.get(row.path)
        if size is not None and row.size < size:
            detail = f"{size - row.size:,} of {size:,} bytes are missing"
            return make_finding(Kind.TRUNCATED, row.path, detail, expected=size, found=row.size)
        if size is not None and row.size > size:
            detail = f"it is {row.size - size:,} bytes too long"
            return make_finding(Kind.ALTERED, row.path, detail, expected=size, found=row.size)
        if not wanted:
            return make_finding(Kind.UNPROVEN, row.path, "no checksum of it was recorded", found=row.size)
        if row.known is not None:
            digests = tuple(row.known.split())
            enough = {digest.partition(":")[0] for digest in digests} >= set(wanted)
            # A believed digest is enough to trust a file, never to accuse it.
            if enough and self._compare(row, digests, "") is None:
                return None
        return wanted

    def _stranger(self, row: Row) -> Finding | None:
        """What to say of a file that neither record nor publisher knows; ``None`` when copies of it are known."""
        remains = leftover(row.path)
        if remains is Kind.UNFINISHED:
            return make_finding(remains, row.path, f"{row.size:,} bytes of an unfinished download")
        if remains is not None:
            return make_finding(remains, row.path, "left by another tool")
        known = self.spec.layout(self.release).place(row.path, release=self.release) is not None
        # What extract-labels reads is no stranger, whatever its form.
        if not known and not any(table.is_named(row.path) for table in self.spec.table):
            return make_finding(Kind.EXTRA, row.path, f"{self.spec.name} {self.release} has no file of this name")
        if row.size == 0 or known_copies(self.spec, row.path):
            return None
        return make_finding(Kind.UNPROVEN, row.path, "no checksum of it is recorded or published", found=row.size)

    def _compare(self, row: Row, digests: tuple[str, ...], problem: str) -> Finding | None:
        """What is wrong with a file that has these digests; ``None`` where nothing is."""
        if problem:
            return make_finding(Kind.UNCHECKED, row.path, f"cannot be read: {problem}")
        found = {digest.partition(":")[0]: digest for digest in digests}
        same_as_recorded = row.recorded is not None and found.get(row.recorded.partition(":")[0]) == row.recorded
        if row.published is not None and found[row.published.partition(":")[0]] != row.published:
            now = found[row.published.partition(":")[0]]
            quirk = self._quirk(row.path)
            if quirk is not None and (same_as_recorded or row.recorded is None):
                return make_finding(
                    Kind.UPSTREAM_MISMATCH,
                    row.path,
                    f"{quirk.note} ({quirk.source})",
                    expected=row.published,
                    found=now,
                )
            detail = "its bytes differ from the publisher's checksum"
            if same_as_recorded and row.recorded != row.published:
                detail += ", though they are what the mirror sent"
            return make_finding(Kind.ALTERED, row.path, detail, expected=row.published, found=now)
        if row.published is not None and not (self.unvouched and row.recorded is not None):
            return None
        if row.recorded is None:
            # A table of which copies are known, in a folder without a record.
            if any(str(copy) in digests for copy in known_copies(self.spec, row.path)):
                return None
            return make_finding(
                Kind.UNPROVEN, row.path, "its digest is that of no known copy of this table", found=digests[0]
            )
        if not same_as_recorded:
            return make_finding(
                Kind.ALTERED,
                row.path,
                "its bytes are not those that were recorded",
                expected=row.recorded,
                found=found[row.recorded.partition(":")[0]],
            )
        return None

    def _quirk(self, path: str) -> Quirk | None:
        known = (one for one in self.spec.quirk if one.kind == Kind.UPSTREAM_MISMATCH and one.paths)
        return next(
            (one for one in known if one.concerns(path, self.release) and self._may_come_from(one.mirror)), None
        )

    def _may_come_from(self, name: str) -> bool:
        """Whether the files may be of the mirror ``name``: they are, or nobody recorded where they are from."""
        mirror = self.spec.mirror_named(name)
        return not name or not self.mirror or self.mirror in (name, mirror.url if mirror else name)


class _Queue:
    """Rows that are being read, in the order in which they come back."""

    def __init__(self) -> None:
        self._tables: deque[pa.Table] = deque()

    def put(self, table: pa.Table) -> None:
        # measured: an empty table of each part kept the memory between the parts from being used again, 0.2 KB a file.
        if table.num_rows:
            self._tables.append(table)

    def take(self, count: int) -> pa.Table:
        taken = []
        while count:
            first = self._tables.popleft()
            taken.append(first.slice(0, count))
            count -= taken[-1].num_rows
            if taken[-1].num_rows < first.num_rows:
                self._tables.appendleft(first.slice(taken[-1].num_rows))
        return taken[0] if len(taken) == 1 else pa.concat_tables(taken)


def _best(table: pa.Table) -> pa.ChunkedArray:
    """The digest that counts."""
    return pc.coalesce(table["published"], table["recorded"])


def _algorithm(digests: pa.ChunkedArray) -> list[str | None]:
    """The algorithms that digests name, null where there is none."""
    names: list[str | None] = pc.list_element(pc.split_pattern(digests, ":", max_splits=1), 0).to_pylist()
    return names


def _both(pair: tuple[str | None, str | None]) -> tuple[str, ...]:
    """The algorithms of recorded and published digest, each once; that of the best digest is the last."""
    return tuple(dict.fromkeys(name for name in pair if name is not None))
