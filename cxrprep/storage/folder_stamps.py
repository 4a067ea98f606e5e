"""Folders as they were listed last: one that is as it was then has the same names, and is not listed again.

No name comes, goes or changes without the time of its folder's last change (``ctime``) moving. Nobody can put that
back, as unpacking and ``cp -a`` do with the time of the last write, and another folder in the same place has another
inode. Of the files themselves it proves nothing: their sizes, and what links lead to, are looked at file by file.

Trusted are folders of the same file system as ROOT, where that is one of this machine's own: servers and programs
(NFS, Lustre, FUSE) may show old times for a while, or times that say nothing. A folder that was changed shortly before
it was listed could change again in the same tick of the clock, and a link to a folder or to nothing leads elsewhere
without its own folder changing: such folders are listed each time.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.fs import FileType, LocalFileSystem

from cxrprep.errors import StorageError, TableError
from cxrprep.storage.folder_listing import files_below
from cxrprep.storage.parquet import count_nulls, footer_of, read_groups, write_parts
from cxrprep.storage.paths import OWN_FOLDERS, is_file, is_folder
from cxrprep.storage.sorted_tables import PART_ROWS, SortedTable
from cxrprep.storage.table_checksums import listed_checksums
from cxrprep.system import FILES_AT_ONCE, available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cxrprep.model import Digest

NAME: Final = "folders.parquet"
_SCHEMA: Final = pa.schema(
    [("path", pa.string()), ("inode", pa.uint64()), ("changed", pa.int64()), ("files", pa.int64())]
)
FILES: Final = pa.schema([("path", pa.string()), ("bytes", pa.int64())])
_LOCAL: Final = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"})
# Clocks of file systems tick every few milliseconds to every second.
_TICK: Final = 2 * 10**9
_NEVER: Final = (0, 0)


class FolderStamps:
    """Inode, time of the last change and number of files of each folder below ``root`` as it was listed, in a cache."""

    def __init__(self, root: Path, cache: Path, record: Digest | None) -> None:
        """Nothing is read or written yet; ``record`` is the digest of the record, where it is known."""
        self._root, self._path = str(root), cache / NAME
        self._record = record and str(record)
        self._device = _own_device(self._root)
        self.begin()

    def begin(self) -> Callable[[str, os.stat_result | None, int], None] | None:
        """What notes the folders, which are about to be listed: their paths, and how they are; ``None`` if it is vain.

        Nothing is noted yet.
        """
        self._rows: list[tuple[str, int, int, int]] = []
        self._stored = SortedTable(_SCHEMA)
        self._begun = time.time_ns()
        return None if self._device is None else self._note

    def _note(self, path: str, held: os.stat_result | None, files: int) -> None:
        sure = held is not None and held.st_dev == self._device and held.st_ctime_ns < self._begun - _TICK
        self._rows.append((path, *((held.st_ino, held.st_ctime_ns) if held is not None and sure else _NEVER), files))
        if len(self._rows) == PART_ROWS:
            self._store()

    def keep(self, images: Path) -> None:
        """Write down what was noted, or is written down, as that of an image table that names all that was listed."""
        if self._device is not None:
            self._store()
        if self._device is not None:
            noted = self._stored.tables() if self._stored.num_rows else read_groups(self._path, _SCHEMA.names)
            made_from = {"images": _stated(images), "record": self._record}
            # A cache: where it cannot be written, the folders are listed again.
            with contextlib.suppress(StorageError, TableError):
                write_parts(noted, _SCHEMA, self._path, name="folders", made_from=made_from)

    def are_of(self, images: Path) -> bool:
        """Whether what is written down is of the image table there."""
        return self._device is not None and footer_of(self._path).get("images") == _stated(images) != ""

    def are_of_record(self, images: Path) -> bool:
        """Whether they are of this record, too: where its digest is known, the table is of it."""
        return self.are_of(images) and footer_of(self._path).get("record") == self._record

    def same_files(self, images: Path, suffixes: tuple[str, ...], since: int | None, *, every: bool) -> bool | None:
        """Whether the files with these suffixes are those of the image table, each looked at, by path and size.

        Args:
            images: The table that these stamps are of.
            suffixes: Of images, in lower case.
            since: Nor may those without a digest have changed from this time on, in ns; ``None`` does not ask for that.
            every: Nor any other.

        Returns:
            Whether they are; ``None`` where all folders have to be listed: so many changed, or one cannot be listed.
        """
        # The system is asked without Python's lock, so that two threads do it side by side. Folders and files are asked
        # about in turn, so that neither is left for one thread at the end.
        with ThreadPoolExecutor(1) as other, ThreadPoolExecutor(min(4, available_cores())) as pool:
            listing, same = other.submit(self._in_changed, pool), True
            columns, are_here = ["path", "bytes"], self._are_here
            if since is not None and (every or count_nulls(images, "digest")):
                are_here = functools.partial(self._are_unchanged, since=since, every=every)
                columns += ["digest"]
            for group in read_groups(images, columns):
                same = same and all(pool.map(are_here, group.to_batches(max_chunksize=PART_ROWS)))
            here = listing.result()
        # In no table is a name that is no UTF-8.
        with contextlib.suppress(UnicodeError):
            if here is not None:
                return same and not _without({path for path in here if path.lower().endswith(suffixes)}, images)
        return None

    def files(self, record: Iterable[pa.Table]) -> SortedTable | None:
        """Every file below ROOT, or link to one, with its bytes, where most folders are as they were.

        A folder is as it was where nothing came or went, and all that was in it is of the recorded files that are here
        now. Each of these is looked at.

        Args:
            record: Path and state of each file that was recorded.

        Returns:
            The files (``FILES``), some of them twice; ``None`` where all folders have to be listed.
        """
        if self._device is None or not self._path.is_file():
            return None
        found, counts = SortedTable(FILES), Counter[str]()
        with ThreadPoolExecutor(min(4, available_cores())) as pool:
            try:
                for some in pool.map(self._sizes, record):
                    found.append(some)
                    counts.update(path[: path.rfind("/") + 1] for path in some["path"].to_pylist())
            except OSError:
                return None
            changed = self._in_changed(pool, counts)
        if changed is None:
            return None
        found.add_rows(changed.items())
        return found

    def _sizes(self, files: pa.Table) -> pa.Table:
        paths = files["path"].filter(pc.equal(files["state"].cast(pa.string()), "here"))
        sizes = pa.array(sizes_of(self._root, paths.to_pylist()), pa.int64())
        return pa.table([paths, sizes], schema=FILES).drop_null()

    def _are_here(self, files: pa.RecordBatch) -> bool:
        """Whether these are files, or links to files, of these sizes."""
        paths, sizes = (column.to_pylist() for column in files.columns)
        try:
            return bool(sizes_of(self._root, paths) == sizes)
        except OSError:
            return False

    def _are_unchanged(self, files: pa.RecordBatch, since: int, *, every: bool) -> bool:
        """The same, and those without a digest, or every one, unchanged."""
        try:
            for path, size, digest in zip(*(column.to_pylist() for column in files.columns), strict=True):
                held = os.stat(f"{self._root}/{path}")  # noqa: PTH116  # a Path for each takes three times as long
                if held.st_size != size or not stat.S_ISREG(held.st_mode):
                    return False
                if (every or digest is None) and held.st_ctime_ns >= since:
                    return False
        except OSError:
            return False
        return True

    def _in_changed(self, pool: ThreadPoolExecutor, counts: Mapping[str, int] | None = None) -> dict[str, int] | None:
        """The files, and links to files, with their bytes, in folders that came since, or are not as was written down.

        Where ``counts`` says how many files of a folder are known, these must be all that were in it.
        """
        changed, found, folders = list[str](), dict[str, int](), set[str]()
        try:
            for group in read_groups(self._path, _SCHEMA.names):
                batches = group.to_batches(max_chunksize=PART_ROWS)
                for some in pool.map(functools.partial(self._changed, counts=counts), batches):
                    changed += some
                if len(changed) > FILES_AT_ONCE:
                    return None
            for path in changed:
                self._list(path, found, folders)
            for path in _without(folders, self._path):
                found.update((path + name, size) for name, size in files_below(f"{self._root}/{path}"))
        except (OSError, TableError, ValueError):
            # A name that is no UTF-8 among them, and what an earlier version wrote down.
            return None
        return found

    def _store(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(_SCHEMA)
        self._rows = []
        try:
            arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
            self._stored.append(pa.Table.from_arrays(arrays, schema=_SCHEMA))
        except (UnicodeError, StorageError):
            # A name that is no UTF-8, or no room for temporary files: the folders are listed each time.
            self._device = None

    def _changed(self, folders: pa.RecordBatch, counts: Mapping[str, int] | None) -> list[str]:
        """Those that are not as they were; one that went is missing in its parent, which changed with it."""
        found = list[str]()
        for path, inode, changed, files in zip(*(column.to_pylist() for column in folders.columns), strict=True):
            try:
                held = os.stat(f"{self._root}/{path}")  # noqa: PTH116  # a Path for each takes three times as long
            except (FileNotFoundError, NotADirectoryError):
                continue
            same = held.st_ctime_ns == changed and held.st_ino == inode and held.st_dev == self._device
            if not same or (counts is not None and counts.get(path, 0) != files):
                found.append(path)
        return found

    def _list(self, path: str, files: dict[str, int], folders: set[str]) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(f"{self._root}/{path}") as entries:
            for entry in entries:
                if not path and entry.name in OWN_FOLDERS:
                    continue
                if is_folder(entry):
                    folders.add(f"{path}{entry.name}/")
                elif is_file(entry):
                    files[path + entry.name] = entry.stat().st_size


def sizes_of(root: Path | str, paths: Sequence[str]) -> list[int | None]:
    """The bytes of each file, or of the file that a link leads to; ``None`` where there is none. Raises ``OSError``."""
    found = LocalFileSystem().get_file_info([f"{root}/{path}" for path in paths])
    return [one.size if one.type is FileType.File else None for one in found]


def _stated(table: Path) -> str:
    """The checksum of a table as its folder's list states it: one, or it is being replaced."""
    stated = listed_checksums(table.parent).get(table.name, [])
    return stated[0] if len(stated) == 1 else ""


def _without(paths: set[str], table: Path) -> set[str]:
    """Those of some paths that a table does not name."""
    if paths:
        among = pa.array(sorted(paths), pa.string())
        for group in read_groups(table, ["path"]):
            paths = paths.difference(group["path"].filter(pc.is_in(group["path"], value_set=among)).to_pylist())
    return paths


def _own_device(root: str) -> int | None:
    """The device of the file system that ``root`` lies in, where it is one of this machine's own; else ``None``."""
    try:
        device, place = Path(root).stat().st_dev, Path(root).resolve()
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    # Later mounts hide earlier ones in the same place.
    mounts = {_unescaped(words[4]): words[words.index("-") + 1] for words in map(str.split, lines)}
    kind = next((mounts[str(above)] for above in (place, *place.parents) if str(above) in mounts), "")
    return device if kind in _LOCAL else None


def _unescaped(path: str) -> str:
    """The path of a mount, in which blanks and their like are numbers in octal."""
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), path)
