"""``verify.parquet``: a row for every file that was checked and for everything that was found, written as it comes."""

from __future__ import annotations

import contextlib
import functools
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep._version import __version__
from cxrprep.errors import storage_error, storage_errors
from cxrprep.schemas import VERIFY
from cxrprep.storage.atomic import replace_file, sweep, temporary_for, to_disk
from cxrprep.storage.parquet import FOOTER_KEY, SCHEMA_VERSION, footer_of
from cxrprep.storage.small_files import regular
from cxrprep.verification.finding import REPAIRABLE, WRONG_IMAGES, WRONG_TABLES, Finding, Kind, Level

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


NAMES: Final = "verify*.parquet"
"""The tables of findings in a folder's ``manifests``: one, or one a shard."""
_KEPT: Final = 1_000
_ROWS: Final = 16_384
# Paths and digests hardly repeat: a dictionary of them would only cost time.
_REPEATED: Final = ["finding", "level", "detail"]
_Row = tuple[str, str, str, str | None, str | None, str]


@dataclass(slots=True)
class Collector:
    """Counts findings and writes every row of ``verify.parquet`` as it comes; use as a context.

    ``lesser`` has the kinds that were found as warnings or notes.

    ``path`` is put in place by ``finish``; leaving the context without that drops what was written. ``demanded`` are
    kinds whose warnings and notes count as faults.
    """

    path: Path
    demanded: frozenset[Kind] = frozenset()
    counts: Counter[Kind] = field(default_factory=Counter)
    levels: Counter[Level] = field(default_factory=Counter)
    lesser: set[Kind] = field(default_factory=set)
    kept: list[Finding] = field(default_factory=list)
    _rows: list[_Row] = field(default_factory=list)
    _tables: list[pa.Table] = field(default_factory=list)
    _writer: pq.ParquetWriter | None = None
    _part: Path | None = None

    def __enter__(self) -> Self:
        """Open the temporary file."""
        self._part = temporary_for(self.path)
        footer = {"schema": "verify", "schema_version": SCHEMA_VERSION, "tool": f"cxrprep {__version__}"}
        footer |= {"demanded": " ".join(sorted(self.demanded))} if self.demanded else {}
        schema = VERIFY.with_metadata({FOOTER_KEY: json.dumps(footer, sort_keys=True).encode()})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            sweep(self.path.parent)
            self._writer = pq.ParquetWriter(self._part, schema, compression="zstd", use_dictionary=_REPEATED)
        except OSError as error:
            # What stops this too is the error that is on its way already.
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)
            raise storage_error(self.path, "write", error) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Drop what was not finished."""
        try:
            if self._writer is not None:
                # What is not there any more after ``finish``; a full disk refuses the end of a table, too.
                with contextlib.suppress(OSError):
                    self._writer.close()
        finally:
            if self._part is not None:
                self._part.unlink(missing_ok=True)

    def findings(self, found: Iterable[Finding]) -> None:
        """Take several findings."""
        for finding in found:
            self.finding(finding)

    def finding(self, finding: Finding) -> None:
        """Take a finding."""
        self.counts[finding.kind] += 1
        self.levels[finding.level] += 1
        if finding.level in (Level.WARNING, Level.NOTE):
            self.lesser.add(finding.kind)
        if self.counts[finding.kind] <= _KEPT:
            self.kept.append(finding)
        expected, found = finding.expected or None, finding.found or None
        self._rows.append((finding.path, str(finding.kind), str(finding.level), expected, found, finding.detail))
        if len(self._rows) >= _ROWS:
            self._gather()

    def proven(self, files: pa.Table, read: bool) -> None:
        """Take files that are what they should be (``PROVEN``), and whether they were read now."""
        self._gather()
        fine = pa.repeat("ok", files.num_rows)
        how = "sum" if read else "sum, believed by size and time"
        detail = pc.binary_join_element_wise(files["origin"], how, " ")
        columns = [files["path"], fine, fine, files["digest"], files["digest"], detail]
        self._take(pa.table([column.cast(field.type) for column, field in zip(columns, VERIFY, strict=True)], VERIFY))

    def finish(self) -> Path:
        """Put the Parquet file in place. Raises ``StorageError`` when the disk refuses."""
        self._flush()
        assert self._writer is not None
        assert self._part is not None
        with storage_errors(self.path, "write"):
            self._writer.close()
            with self._part.open("rb+") as file:
                to_disk(file.fileno())
            self._part.replace(self.path)
        return self.path

    def _gather(self) -> None:
        """Make columns of single rows."""
        if self._rows:
            columns = [
                pa.array(values, kind.type) for values, kind in zip(zip(*self._rows, strict=True), VERIFY, strict=True)
            ]
            self._rows = []
            self._take(pa.Table.from_arrays(columns, schema=VERIFY))

    def _take(self, table: pa.Table) -> None:
        self._tables.append(table)
        if sum(one.num_rows for one in self._tables) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        self._gather()
        if not self._tables:
            return
        assert self._writer is not None
        with storage_errors(self.path, "write"):
            self._writer.write_table(pa.concat_tables(self._tables))
        self._tables = []


def wrong_files(manifests: Path) -> frozenset[str]:
    """The files in which the last check found a fault, by the tables of findings in ``manifests``."""
    return _paths_of(manifests, REPAIRABLE | WRONG_IMAGES)


def count_faults(path: Path) -> int:
    """How many findings of a table of them made the check fail; 0 for a table that cannot be read."""
    with contextlib.suppress(OSError, pa.ArrowException):
        table = pq.read_table(regular(path), columns=["finding", "level"])
        demanded = pa.array(str(footer_of(path).get("demanded") or "").split(), pa.string())
        lesser = pc.is_in(table["level"], value_set=pa.array([str(Level.WARNING), str(Level.NOTE)]))
        counts = pc.or_(
            pc.equal(table["level"], str(Level.ERROR)), pc.and_(lesser, pc.is_in(table["finding"], value_set=demanded))
        )
        return int(pc.sum(counts).as_py() or 0)
    return 0


def are_tables_wrong(manifests: Path) -> bool:
    """Whether the last check found a fault in what the release's tables say."""
    return bool(_paths_of(manifests, WRONG_TABLES))


def _paths_of(manifests: Path, kinds: frozenset[Kind]) -> frozenset[str]:
    wanted = [str(kind) for kind in kinds]
    found: set[str] = set()
    for path in manifests.glob(NAMES):
        with contextlib.suppress(OSError, pa.ArrowException):
            # What an interrupted or foreign hand left of a table of findings finds nothing.
            table = pq.read_table(regular(path), columns=["path"], filters=[("finding", "in", wanted)])
            found.update(table["path"].to_pylist())
    return frozenset(found)


def mark_repaired(manifests: Path, paths: Iterable[str], *, tables: bool = False) -> None:
    """Say in the tables of findings that these files have been fetched again, or all ``tables``.

    Raises ``StorageError``.
    """
    mended = pa.array(sorted(set(paths)), pa.string())
    wanted = pa.array([str(kind) for kind in REPAIRABLE | WRONG_IMAGES], pa.string())
    of_tables = pa.array([str(kind) for kind in WRONG_TABLES] if tables else [], pa.string())
    for path in manifests.glob(NAMES):
        table = pq.read_table(regular(path))
        now = pc.and_(pc.is_in(table["path"], value_set=mended), pc.is_in(table["finding"], value_set=wanted))
        now = pc.or_(now, pc.is_in(table["finding"], value_set=of_tables))
        if not pc.any(now).as_py():
            continue
        words = {"finding": str(Kind.REPAIRED), "level": str(Level.INFO), "detail": "a download fetched it again"}
        for name, word in words.items():
            at = table.schema.get_field_index(name)
            column = pc.if_else(now, word, table[name].cast(pa.string())).cast(table.schema.field(at).type)
            table = table.set_column(at, table.schema.field(at), column)
        replace_file(path, functools.partial(pq.write_table, table, compression="zstd", use_dictionary=_REPEATED))
