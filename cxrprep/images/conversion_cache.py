"""Cache of finished conversions, so that a run with nothing to do opens no image.

A row an image: the stamps of source and output (see ``cxrprep.images.local_files``), the source's digest, the recipe's
fingerprint, and what the output is. Rows of this run go to a journal of its own, so that a killed run loses nothing and
the shards of a job array write side by side. It is a cache: without it every output is asked itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.images import conversion
from cxrprep.images.local_files import LocalStore, version_tag_of
from cxrprep.images.quality import Quality
from cxrprep.images.radiograph import CoordinateMap
from cxrprep.model import Digest
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.journal import Journal, journal_name, read_journal
from cxrprep.storage.locks import writer_is_gone
from cxrprep.storage.parquet import read_rows
from cxrprep.storage.small_files import open_file, regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cxrprep.images.conversion import ConversionTask, Converted, ConvertItem
    from cxrprep.storage.filesystem import ImageStore

_NAME: Final = "finished.parquet"
_PREFIX: Final = "finished-"
_ROWS: Final = 8192
_GROUP: Final = 1 << 15
_END: Final = b'{"ended":true}\n'
# Of a journal that another host writes it is not known whether its writer lives; after this time it is taken as dead.
_ABANDONED: Final = 86_400.0
_YOUNG: Final = 3_600.0
_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_SCHEMA: Final = pa.schema(
    [
        ("relative", pa.string()),
        ("stamp", pa.string()),
        ("source_digest", pa.string()),
        ("fingerprint", _WORD),
        ("path", pa.string()),
        ("out_stamp", pa.string()),
        ("size", pa.int64()),
        ("digest", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", _WORD),
        ("bits", pa.int8()),
        ("voi", _WORD),
        ("notes", pa.list_(pa.string())),
        ("frame", pa.list_(pa.float64())),
        ("spacing_mm", pa.list_(pa.float64())),
        ("about", pa.string()),
        ("sign", _WORD),
        ("codec", _WORD),
        ("quality", pa.list_(pa.float64())),
        ("pixels", pa.string()),
    ]
)
# The columns that an outcome has as they are.
_AS_THEY_ARE: Final = (
    "stamp", "source_digest", "path", "out_stamp", "size", "digest", "width", "height", "mode", "bits", "voi", "pixels",
)  # fmt: skip
_PLAIN: Final = pa.schema([pa.field(f.name, pa.string() if f.type == _WORD else f.type) for f in _SCHEMA])


class ConversionCache:
    """The rows, and the journal of this run. One process writes it; workers do not see it."""

    def __init__(self, home: Path, table: pa.Table, journals: Sequence[Path]) -> None:
        """Wrap what ``open`` has read."""
        self._home = home
        self._table = table
        self._keys = table.column("relative").combine_chunks()
        self._journals = tuple(journals)
        self._journal = Journal(home / f"{_PREFIX}{journal_name()}")
        self._written = 0
        self._swept: LocalStore | None = None
        self._stamps: dict[str, str] | None = None
        self._stated: pa.Table | None = None

    @classmethod
    def open(cls, home: Path, out: ImageStore) -> ConversionCache:
        """What is known in the folder ``home`` of outputs in ``out``; temporary files of killed runs are removed.

        A damaged table is passed over. Raises ``StorageError`` when the disk refuses.
        """
        tables = []
        with contextlib.suppress(OSError, pa.ArrowException):
            tables.append(_read(home / _NAME))
        journals = sorted(home.glob(f"{_PREFIX}*.jsonl")) if home.is_dir() else []
        interrupted = others = False
        for journal in journals:
            tables += _tables(journal)
            if not _ended(journal):
                gone = _is_gone(journal)
                interrupted |= gone
                others |= not gone
        found = cls(home, _newest(tables), journals)
        del tables
        found._journal.append({"begun": True})
        if interrupted and isinstance(out, LocalStore):
            found._swept = out
            found._sweep(others=others)
        return found

    def split_done(self, batch: list[ConvertItem], task: ConversionTask) -> Iterator[Converted | ConvertItem]:
        """For each item its outcome where it is finished and unchanged, else the item, with its digest if known."""
        batch = self._with_digests(batch, [item.output(task.suffix) for item in batch], task)
        if not len(self._keys):
            yield from batch
            return
        place = pc.index_in(pa.array([item.relative for item in batch], pa.string()), value_set=self._keys)
        found = self._table.take(place)
        columns = [found.column(name).to_pylist() for name in _SCHEMA.names]
        for item, values in zip(batch, zip(*columns, strict=True), strict=True):
            row = dict(zip(_SCHEMA.names, values, strict=True))
            yield item if row["relative"] is None else self._judged(item, row, task)

    def shard_done(
        self, items: Sequence[ConvertItem], paths: Sequence[str], file: str, task: ConversionTask
    ) -> list[Converted] | tuple[ConvertItem, ...]:
        """The outcomes of all images of one shard where all are finished and unchanged; else the items.

        Args:
            items: The images of the shard.
            paths: Those of the images in it, in the same order.
            file: The shard.
            task: The recipe and the folder of outputs.

        Returns:
            Outcomes, or the items that are still to be converted.
        """
        if not len(self._keys):
            return tuple(self._with_digests(list(items), paths, task))
        place = pc.index_in(pa.array([item.relative for item in items], pa.string()), value_set=self._keys)
        rows = self._table.take(place).to_pylist()
        stamp = self._stamp(task.out, file)
        judged = [
            item if row["relative"] is None else self._judged(item, row, task, path, stamp)
            for item, row, path in zip(items, rows, paths, strict=True)
        ]
        outcomes = [one for one in judged if isinstance(one, conversion.Converted)]
        if len(outcomes) == len(items):
            return outcomes
        return tuple(one.item if isinstance(one, conversion.Converted) else one for one in judged)

    def known(self, fingerprint: str, tried: pa.ChunkedArray) -> list[str]:
        """The images that earlier runs finished by this recipe, as far as is written down, without those ``tried``."""
        names = pc.invert(pc.is_in(self._keys, value_set=tried))
        left = self._table.select(["relative", "fingerprint"]).filter(names)
        same = pc.equal(left.column("fingerprint").cast(pa.string()), fingerprint)
        known: list[str] = left.column("relative").filter(same).to_pylist()
        return known

    def _judged(
        self,
        item: ConvertItem,
        row: Mapping[str, Any],
        task: ConversionTask,
        path: str | None = None,
        stamp_now: str | None = None,
    ) -> Converted | ConvertItem:
        """One item and the row of its name; ``path`` and ``stamp_now`` are given for an image in a shard."""
        digest = item.digest
        if digest is None:
            stamp = item.stamp or version_tag_of(item.source)
            if stamp is None or stamp != row["stamp"]:
                return item
            digest = Digest.parse(row["source_digest"])
            item = dataclasses.replace(item, digest=digest)
        if row["frame"] is None:
            # An object that is no image leaves no output.
            same = (row["source_digest"], row["sign"]) == (str(digest), sign_of(task, item))
            if not same:
                return item
            return conversion.Converted(item, "left out", voi=row["voi"], source_digest=str(digest), stamp=row["stamp"])
        wanted = (path or item.output(task.suffix), task.fingerprint, str(digest), sign_of(task, item))
        if (row["path"], row["fingerprint"], row["source_digest"], row["sign"]) != wanted:
            return item
        if not task.is_measured(Quality.parse(row["quality"])):
            return item
        found = self._stamp(task.out, wanted[0]) if path is None else stamp_now
        # A row of an earlier version does not know what the output shows: that is asked of the file.
        if row["out_stamp"] and found == row["out_stamp"] and row["pixels"]:
            return _outcome(item, row)
        return dataclasses.replace(item, made=row["digest"] or "")

    def _with_digests(
        self, batch: list[ConvertItem], outputs: Sequence[str], task: ConversionTask
    ) -> list[ConvertItem]:
        """The items with the digests that an earlier run's manifest has of their outputs, where this table is gone."""
        if self._stated is None:
            self._stated = _stated_digests(task.out) if not len(self._keys) else _NO_DIGESTS
        if not self._stated.num_rows:
            return batch
        paths = pa.array(outputs, pa.string())
        digests = self._stated["digest"].take(pc.index_in(paths, value_set=self._stated["path"].combine_chunks()))
        return [
            dataclasses.replace(item, made=digest or "")
            for item, digest in zip(batch, digests.to_pylist(), strict=True)
        ]

    def _stamp(self, out: ImageStore, path: str) -> str | None:
        if isinstance(out, LocalStore):
            return out.version_tag(path)
        if self._stamps is None:
            # One listing instead of a request an image.
            self._stamps = {entry.name: entry.stamp for entry in out.list()}
        return self._stamps.get(path)

    def add(self, outcome: Converted, task: ConversionTask) -> None:
        """Write down what was finished just now. Raises ``StorageError``."""
        if outcome.status == "error":
            return
        frame = outcome.frame
        row = {
            **{name: getattr(outcome, name) for name in _AS_THEY_ARE},
            "relative": outcome.item.relative,
            "fingerprint": task.fingerprint,
            "notes": list(outcome.notes),
            "frame": None if frame is None else frame.numbers(),
            "spacing_mm": None if outcome.spacing_mm is None else list(outcome.spacing_mm),
            "about": conversion.spelled(outcome.about),
            "sign": sign_of(task, outcome.item),
            "codec": outcome.codec,
            "quality": outcome.quality and outcome.quality.dump(),
        }
        self._journal.append(row)
        self._written += 1

    def close(self, *, alone: bool) -> None:
        """End this run's journal. With ``alone`` (no other shard writes here) everything becomes one table.

        Raises ``StorageError`` when the disk refuses.
        """
        if not alone:
            self._journal.append({"ended": True})
            self._journal.close()
            return
        self._journal.close()
        done = [journal for journal in self._journals if _ended(journal) or _is_gone(journal)]
        if self._written or done:
            new = pa.chunked_array(
                [
                    pa.array([], pa.string()),
                    *(t.column("relative").combine_chunks() for t in _tables(self._journal.path)),
                ]
            )
            replace_file(self._home / _NAME, functools.partial(self._write, new))
        self._table, self._keys = _SCHEMA.empty_table(), pa.array([], pa.string())
        for journal in (*done, self._journal.path):
            journal.unlink(missing_ok=True)
        # Again: a worker of the killed run may have outlived it by the moment in which this one began.
        self._sweep(others=any(not _ended(j) and not _is_gone(j) for j in self._home.glob(f"{_PREFIX}*.jsonl")))

    def _sweep(self, *, others: bool) -> None:
        """Remove what a killed run left. While another run is at work here, only what is old is surely nobody's."""
        if self._swept is not None:
            self._swept.sweep(before=time.time() - (_YOUNG if others else 0.0))

    def _write(self, new: pa.ChunkedArray, path: Path) -> None:
        """What was known and is not in ``new``, then what this run wrote down: group by group, never all at once."""
        with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
            for start in range(0, len(self._table), _GROUP):
                part = self._table.slice(start, _GROUP)
                writer.write_table(part.filter(pc.invert(pc.is_in(part.column("relative"), value_set=new))))
            for table in _tables(self._journal.path):
                writer.write_table(table)


_NO_DIGESTS: Final = pa.schema([("path", pa.string()), ("digest", pa.string())]).empty_table()


def _stated_digests(out: ImageStore) -> pa.Table:
    """The digests of the outputs by the manifest that lies beside them; empty where none can be read."""
    if not isinstance(out, LocalStore):
        return _NO_DIGESTS
    try:
        return read_rows(Path(out.address) / "manifests" / "images.parquet", columns=["path", "digest"])
    except (OSError, pa.ArrowException):
        return _NO_DIGESTS


def sign_of(task: ConversionTask, item: ConvertItem) -> str:
    """What a row was made with besides recipe and source: pseudonyms, or what the sample of a shard says."""
    if item.row is not None:
        return conversion.row_sign(item)
    return "" if task.pseudonyms is None else task.pseudonyms.sign


def _is_gone(journal: Path) -> bool:
    if writer_is_gone(journal.name.removeprefix(_PREFIX)):
        return True
    with contextlib.suppress(OSError):
        return time.time() - journal.stat().st_mtime > _ABANDONED
    return True


def _tables(journal: Path) -> Iterator[pa.Table]:
    """The rows of a journal, some thousand at a time."""
    rows = (item for item, _ in read_journal(journal) if "relative" in item)
    while chunk := list(itertools.islice(rows, _ROWS)):
        yield _table(chunk)


def _ended(journal: Path) -> bool:
    """Whether the run of a journal came to its end."""
    try:
        with open_file(journal) as file:
            file.seek(max(0, file.seek(0, 2) - len(_END)))
            return file.read() == _END
    except OSError:
        return False


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema=_PLAIN).cast(_SCHEMA)
    except (pa.ArrowException, TypeError, ValueError):
        # A journal of another version of this program: its images are asked themselves.
        return _SCHEMA.empty_table()


def _read(path: Path) -> pa.Table:
    # Group by group: a reader of the whole file holds several times as much for a while.
    file = pq.ParquetFile(regular(path))
    return pa.Table.from_batches([_whole(b) for b in file.iter_batches(_GROUP, use_threads=False)], _SCHEMA)


def _whole(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with every column; those that an earlier version did not write are null."""
    for field in _SCHEMA:
        if field.name not in rows.schema.names and field.name in ("codec", "quality", "pixels"):
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows.cast(_SCHEMA)


def _newest(tables: Sequence[pa.Table]) -> pa.Table:
    """One table in which each image has the row that was written last, sorted by name."""
    tables = [table for table in tables if len(table)]
    if len(tables) == 1:
        # As it was written: nothing is in it twice, and it is sorted.
        return tables[0].unify_dictionaries().combine_chunks()
    table = pa.concat_tables([_SCHEMA.empty_table(), *tables]).unify_dictionaries().combine_chunks()
    numbered = pa.table({"relative": table.column("relative"), "row": pa.array(range(table.num_rows), pa.int64())})
    last = numbered.group_by("relative").aggregate([("row", "max")]).sort_by("relative")
    return table.take(last.column("row_max")).combine_chunks()


def _outcome(item: ConvertItem, row: Mapping[str, Any]) -> Converted:
    frame = CoordinateMap.of_numbers(row["frame"])
    spacing = row["spacing_mm"]
    return conversion.Converted(
        item,
        "notneeded",
        **{name: row[name] for name in _AS_THEY_ARE},
        boxes=None if item.boxes is None else frame.boxes(item.boxes),
        spacing_mm=None if spacing is None else (spacing[0], spacing[1]),
        notes=tuple(row["notes"]),
        codec=row["codec"] or "",
        quality=Quality.parse(row["quality"]),
        frame=frame,
        about=conversion.unspelled(row["about"]),
    )
