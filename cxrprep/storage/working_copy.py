"""Working copy of a folder in an object store: its files here, fetched by ETag and put back after a run.

The verbs work on a folder of this machine, with its locks, atomic renames and memory maps; so a bucket gives the bytes
that a folder gives. What changed is put back in an order that never shows a table before its images nor a record
before its tables, and only by the run that holds the bucket's lock. What a killed run had done lies here still, and is
put back by the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import posixpath
import re
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cxrprep.errors import CxrprepError, StorageError, UsageError, storage_error, storage_errors
from cxrprep.storage.bucket_listing import ListingWriter
from cxrprep.storage.bucket_lock import NAME as LOCK
from cxrprep.storage.bucket_lock import BucketLock
from cxrprep.storage.filesystem import REQUESTS, StoredFile
from cxrprep.storage.object_store import ObjectGoneError, ObjectStore
from cxrprep.storage.paths import is_safe, is_served
from cxrprep.storage.small_files import parse_json
from cxrprep.storage.working_copy_paths import EXPORT_LIST, OTHERS, address_of, copies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cxrprep.model import Shard

    Merge = Callable[[Path, Path], None]

# What is of this machine alone: locks, logs, partial files, and caches that are keyed by inodes and times.
_HERE_ONLY: Final = re.compile(
    r"(^|/)\.cxrprep/(?!(asked|archives|replaced|damaged)/)|\.part(\.json|\.meta)?$|\.tmp$|(^|/)\.parts-[^/]*/"
)
# Seconds between two looks for what a download has finished.
PUT_SECONDS = 10.0
_IMAGES: Final = (".png", ".jpg", ".jpeg", ".dcm", ".tif", ".tiff")
# Files of others that a download replaced.
_KEPT: Final = ".cxrprep/replaced/"
# What other verbs put beside a release.
_OURS: Final = frozenset({"derived", "export"})
_LAST: Final = {"cxrprep.lock": 3, "cxrprep.files.parquet": 2}


@dataclass(frozen=True, slots=True)
class _Held:
    """A file as it was when here and there were last the same."""

    stamp: str
    size: int
    changed: int

    def is_file(self, path: Path) -> bool:
        """Whether ``path`` was not touched since."""
        with contextlib.suppress(OSError):
            status = path.stat()
            return (status.st_size, status.st_mtime_ns) == (self.size, self.changed)
        return False


class WorkingCopy:
    """The files of a bucket folder, in ``folder``; hold it with ``with`` while a verb works there."""

    def __init__(
        self,
        address: str,
        *,
        writes: bool,
        file: str = "",
        streams: bool = False,
        part: Shard | None = None,
        merge: Merge | None = None,
        images: bool = True,
    ) -> None:
        """A working copy.

        Args:
            address: of the folder in the store.
            writes: whether the verb writes there, so that no other run may.
            file: the one file of it that is meant, where an option names a file.
            streams: put whole new files of the release there while the verb goes on, as downloads do.
            part: the part of a job array that this is: other parts work there at the same time.
            merge: adds to the record in the first folder what the one in the second says of the other parts.
            images: bring the images too; otherwise they are listed (see ``unfetched``).
        """
        self.address, self.writes, self.file = address.rstrip("/"), writes, file
        self.store = ObjectStore(self.address)
        self._part, self._merge, self._images = part, merge, images
        of_part = "" if part is None else f"\n{part}"
        key = hashlib.sha256(f"{self.address}\n{file}{of_part}".encode()).hexdigest()[:16]
        self._home = copies() / key
        # Named as in the bucket: some outputs are called after their folder.
        self.folder = self._home / "files" / self.address.rpartition("/")[2]
        self._state = self._home / "held.json"
        self._held: dict[str, _Held] = {}
        name = LOCK if part is None else f".cxrprep/bucket.{part.in_names}.lock"
        self._lock = BucketLock(self.store, name) if writes else None
        self._streams = streams and writes
        self._ended = threading.Event()
        self._streamer: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Lock the bucket folder if the verb writes, and bring the copy up to date."""
        self.store.system()
        self._make_home()
        if self._lock is not None:
            self._lock.acquire()
        try:
            self.fetch()
        except BaseException:
            self._release()
            raise
        if self._streams:
            self._streamer = threading.Thread(target=self._stream, daemon=True)
            self._streamer.start()
        return self

    def __exit__(self, *about: object) -> None:
        """Let go of the lock; ``put_back`` has to have been called."""
        self._release()

    def _stream(self) -> None:
        while not self._ended.wait(PUT_SECONDS):
            # What cannot be put now is put at the end, and said there.
            with contextlib.suppress(CxrprepError):
                self.put_images()

    def _stop_streaming(self) -> None:
        self._ended.set()
        if self._streamer is not None:
            self._streamer.join()

    def _release(self) -> None:
        self._stop_streaming()
        if self._lock is not None:
            self._lock.release()

    def _make_home(self) -> None:
        with storage_errors(self.folder, "make"):
            # Images and reports of patients: nobody else on this machine has a need of them.
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            (self._home / "address").write_text(self.address, encoding="utf-8")

    # ---- from the bucket ----

    def fetch(self) -> None:
        """Bring what the bucket has and the copy lacks. Raises the store's errors and ``StorageError``."""
        self._held = self._read_state()
        missing, seen = self._look()
        self._require_room(sum(entry.size for entry in missing))
        try:
            with ThreadPoolExecutor(REQUESTS) as pool:
                self._held |= dict(filter(None, pool.map(self._bring, missing)))
                unlisted = [name for name in self._held if name not in seen]
                # A listing may be behind what was written last; a question after the object itself is not.
                tags = list(pool.map(self.store.version_tag, unlisted))
            gone = [name for name, tag in zip(unlisted, tags, strict=True) if tag is None]
            for name in gone:
                # Somebody removed it there; what was changed here since is a killed run's, and is put back.
                if self._held.pop(name).is_file(self.folder / name):
                    (self.folder / name).unlink(missing_ok=True)
        finally:
            self._write_state()

    @property
    def _listing(self) -> Path:
        return self._home / "listed.tsv"

    def _look(self) -> tuple[list[StoredFile], set[str]]:
        """List the bucket: what is to be fetched, and which files of the copy are there; images are written down."""
        missing, seen = [], set()
        (self._home / OTHERS).unlink(missing_ok=True)
        with ListingWriter(self._listing) if not self._images else contextlib.nullcontext() as left:
            for entry in self._listed():
                wanted = self._is_wanted(entry)
                if wanted and left is not None and _stage(entry.name) == 0 and entry.name.lower().endswith(_IMAGES):
                    left.add(entry)
                    self._leave(entry.name)
                    continue
                if wanted:
                    missing.append(entry)
                if entry.name in self._held:
                    seen.add(entry.name)
        if self._images:
            self._listing.unlink(missing_ok=True)
        return missing, seen

    def _leave(self, name: str) -> None:
        """Let an image lie in the bucket alone; what is here of an earlier version goes."""
        if self._held.pop(name, None) is not None:
            (self.folder / name).unlink(missing_ok=True)

    def _require_room(self, size: int) -> None:
        """Raise ``StorageError`` before the first byte where the disk cannot hold what would come."""
        free = shutil.disk_usage(self._home).free
        if size > free:
            raise StorageError(
                f"the working copy of {self.address} needs {size:,} bytes more, and {self._home} has {free:,} left",
                hint="point XDG_CACHE_HOME at a larger disk, or name a folder of the bucket that holds less",
            )

    def _listed(self) -> Iterator[StoredFile]:
        for entry in self.store.list():
            beside = self._is_meant(entry.name)
            beside = beside and (self._part is None or _stage(entry.name) > 0 or self._part.holds(entry.name))
            if entry.name and not entry.name.endswith("/") and beside and not _HERE_ONLY.search(entry.name):
                if not is_safe(entry.name):
                    what = f"{self.address}: the object {entry.name!r} has a name that no file can have"
                    raise UsageError(what, hint="rename it there")
                yield entry

    def _is_meant(self, name: str) -> bool:
        """Whether a file is the one that an option names, or is written beside that one."""
        stem = self.file.rpartition(".")[0]
        meant = not self.file or name in (self.file, "README.md", f"{stem}.README.md", EXPORT_LIST)
        if not meant and not name.startswith(".cxrprep/"):
            (self._home / OTHERS).touch()
        return meant

    def _is_wanted(self, entry: StoredFile) -> bool:
        held = self._held.get(entry.name)
        return held is None or held.stamp != entry.stamp or not (self.folder / entry.name).is_file()

    def _bring(self, entry: StoredFile) -> tuple[str, _Held] | None:
        """Fetch a file; ``None`` for one that a late listing names and that is gone."""
        path = self.folder / entry.name
        # Not beside it: what a kill leaves would look like a file of the folder.
        part = self._home / f"{os.getpid():x}-{threading.get_ident():x}-{time.monotonic_ns():x}.tmp"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.store.fetch(entry, part)
            if entry.written is not None:
                # What is older than a table is told by its time, which is not that of this copy.
                os.utime(part, (entry.written, entry.written))
            part.replace(path)
            return entry.name, self._as_held(entry.stamp, path)
        except ObjectGoneError:
            return None
        except OSError as error:
            raise storage_error(path, "write", error) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    # ---- into the bucket ----

    def put_back(self) -> int:
        """Put what is new or changed into the bucket, remove there what was removed here; how many files that were.

        Raises ``BusyError`` where another run took the lock meanwhile, the store's errors, and ``IntegrityError`` for
        an object that is not what was sent.
        """
        self._stop_streaming()
        if self._lock is None:
            return 0
        if not self._state.is_file() or not self.folder.is_dir():
            # Somebody emptied the cache: to remove the same in the bucket would be the loss of it.
            raise StorageError(
                f"{self.folder}, the working copy of {self.address}, was removed while it was in use",
                hint="nothing was changed in the bucket; run it again",
            )
        names = list(self._names())
        if self._part is not None:
            return self._put_part()
        changed = [name for name in names if self._is_changed(name)]
        here = set(names)
        gone = [name for name in self._held if name not in here]
        if not changed and not gone:
            return 0
        self._put_all(changed, self._lock)
        self._lock.check()
        self._remove_there(gone)
        return len(changed) + len(gone)

    def _put_all(self, names: Iterable[str], lock: BucketLock) -> None:
        """Put files there, a stage after the other, while ``lock`` is held."""
        try:
            for some in _in_order(names):
                # Before each stage: a run that slept must not replace the tables of the one that came after it.
                lock.check()
                with ThreadPoolExecutor(REQUESTS) as pool:
                    for name, held in pool.map(self._put, some):
                        self._held[name] = held
        finally:
            self._write_state()

    def _remove_there(self, names: Iterable[str]) -> None:
        try:
            for name in names:
                self.store.remove(name)
                del self._held[name]
        finally:
            self._write_state()

    def _is_changed(self, name: str) -> bool:
        return name not in self._held or not self._held[name].is_file(self.folder / name)

    def _put_part(self) -> int:
        """Put the files of a part, and then the record of all parts, each when it is its turn."""
        before = len(self._held)
        self.put_images(replaced=True)
        here = set(self._names())
        self._remove_there([name for name in self._held if name not in here and _stage(name) == 0])
        with contextlib.ExitStack() as stack:
            turn = BucketLock(self.store)
            turn.await_turn()
            stack.callback(turn.release)
            theirs = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._home)))
            there = {entry.name: entry for entry in self._listed() if entry.name in _LAST}
            for name, entry in there.items():
                self.store.fetch(entry, theirs / name)
            if there and self._merge is not None:
                self._merge(self.folder, theirs)
            # Tables are of all images, of which this machine has some: manifest makes them when all parts are done.
            self._put_all((n for n in self._names() if n in _LAST or (_stage(n) == 1 and self._is_of_part(n))), turn)
        return len(self._held) - before

    def _is_of_part(self, name: str) -> bool:
        part = self._part
        return part is not None and self._is_changed(name) and part.in_names in name

    def put_images(self, *, replaced: bool = False) -> None:
        """Put whole files of the release into the bucket while a download goes on; tables and record come last.

        ``replaced``: those too that are there in another version.
        """
        if self._lock is None:
            return
        self._lock.check()
        images = (n for n in self._names() if _stage(n) <= 0 and n.split("/")[0] not in _OURS)
        self._put_all((n for n in images if n not in self._held or (replaced and self._is_changed(n))), self._lock)

    def _put(self, name: str) -> tuple[str, _Held]:
        path = self.folder / name
        # What it is now: a file that changes while it is sent is sent again by the next run.
        held = self._as_held("", path)
        return name, _Held(self.store.send(name, path), held.size, held.changed)

    def _names(self) -> Iterator[str]:
        root = str(self.folder)
        for folder, _, files in os.walk(root):
            below = os.path.relpath(folder, root)
            for file in files:
                name = file if below == "." else f"{below}/{file}".replace(os.sep, "/")
                if not _HERE_ONLY.search(name):
                    yield name

    # ---- what is known ----

    @staticmethod
    def _as_held(stamp: str, path: Path) -> _Held:
        status = path.stat()
        return _Held(stamp, status.st_size, status.st_mtime_ns)

    def _read_state(self) -> dict[str, _Held]:
        try:
            known = parse_json(self._state.read_bytes())
            return {name: _Held(*values) for name, values in known.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _write_state(self) -> None:
        text = json.dumps({name: [held.stamp, held.size, held.changed] for name, held in self._held.items()})
        part = self._state.with_name(f"held.{os.getpid()}.tmp")
        with storage_errors(self._state, "write"):
            part.write_text(text, encoding="utf-8")
            part.replace(self._state)


def place_of(root: Path, stated: str, *, folder: bool) -> Path:
    """What ``seen_from`` names, here and up to date: a file, or a ``folder``. Raises the store's errors."""
    here = address_of(str(root.resolve()))
    address = stated if is_served(stated) else ""
    if not address and here is not None and not Path(stated).is_absolute():
        scheme, _, place = here.partition("://")
        address = f"{scheme}://{posixpath.normpath(f'{place}/{stated}')}"
    if not address:
        return root / stated
    base, _, file = ("", "", "") if folder else address.rpartition("/")
    with WorkingCopy(base or address, writes=False, file=file) as copy:
        return copy.folder / file


def _stage(name: str) -> int:
    """When a file is put: others' that were replaced, images and tables of the release, manifests, and the record."""
    # What no list of an export names is nobody's, and was in the way of the run after one that was killed.
    if name.startswith(_KEPT) or name.rpartition("/")[2] == EXPORT_LIST:
        return -1
    return _LAST.get(name, 1 if "manifests/" in name or name.startswith(".cxrprep/") else 0)


def _in_order(names: Iterable[str]) -> Iterator[list[str]]:
    for _, some in itertools.groupby(sorted(names, key=lambda name: (_stage(name), name)), _stage):
        yield list(some)
