"""The partial files of a root: this run's own, and those that earlier runs left.

They lie in ``ROOT/.cxrprep/parts``. Each belongs to one run, whose name is part of theirs, so two runs never write to
the same file, whether or not locks work. A run that wants to continue another's partial file renames it to its own name
first, and does so only when that other run is gone, or silent for long.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.errors import storage_error, storage_errors
from cxrprep.storage.locks import RunId
from cxrprep.transfer.partial_file import Partial, Sidecar, move, read_sidecar, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS: Final = ".cxrprep/parts"
ASIDE: Final = ".cxrprep/bad"
REPLACED: Final = ".cxrprep/replaced"
# A run on another host that has said nothing for so long is taken for gone.
_SILENT_SECONDS: Final = 900.0


class PartialFolder:
    """The partial files of a root: those that this run makes, and those that earlier runs left."""

    def __init__(self, root: Path, run_id: RunId) -> None:
        """Look at what is there; nothing is changed."""
        self._root = root
        self._folder = root / PARTS
        self._run_id = run_id
        self._left: dict[str, Sidecar] = {}
        self._guard = threading.Lock()
        self._made = False
        self._small = f"{self._folder}{os.sep}small.{run_id}.part"
        self._folders: set[str] = set()
        self._survey()

    def bytes_of(self, dest: str) -> int | None:
        """How many bytes of ``dest`` an earlier run left, when they may be continued."""
        left = self._left.get(dest)
        return left.done if left is not None else None

    def aside(self, dest: str) -> Path:
        """Where a wrong version of ``dest`` is kept."""
        return self._root / ASIDE / (dest + ".bad")

    def keep(self, dest: str) -> Path:
        """A second name for the file that lies at ``dest``, which cxrprep did not put there and is to replace.

        Raises ``StorageError``.
        """
        folder = self._root / REPLACED / dest
        with storage_errors(folder, "write"):
            folder.mkdir(parents=True, exist_ok=True)
            kept = folder / f"{time.time_ns():x}"
            try:
                os.link(self._root / dest, kept)
            except OSError:
                # No hard links here.
                shutil.copy2(self._root / dest, kept)
        return kept

    def beside(self, dest: str) -> Path:
        """A place of this run's own for what will become ``dest`` in one step: a link or a clone."""
        self._make_folder()
        return Path(self._path(dest) + ".link")

    def open(self, dest: str) -> Partial:
        """The partial file for ``dest``: an earlier run's, taken over, or a new one. Raises ``StorageError``."""
        self._make_folder()
        path = self._path(dest)
        with self._guard:
            left = self._left.pop(dest, None)
        if left is not None:
            claimed = self._claim(left, path)
            if claimed is not None:
                return claimed
        return Partial(dest, path, fresh=True, made=self._folders)

    def place(self, dest: str, data: bytes, final: str, note: Callable[[int], None]) -> None:
        """Write a small file, of which all bytes are in memory, to ``final``; for one thread.

        Args:
            dest: Its release path.
            data: Its bytes.
            final: Its place.
            note: Called before it gets its name, with the time when it was written, in nanoseconds.

        Raises:
            StorageError: The disk refuses.
            BusyError: Another run took it.
        """
        self._make_folder()
        path = self._small
        written_at = write_whole(path, data)
        try:
            note(written_at)
            move(path, final, self._folders, dest)
        except BaseException as error:
            with contextlib.suppress(OSError):
                Path(path).unlink()
            if isinstance(error, OSError):
                raise storage_error(final, "write", error) from error
            raise

    def clean(self) -> None:
        """Remove what runs that are gone left and nobody can continue."""
        keep = {left.part for left in self._left.values()} | {left.path for left in self._left.values()}
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._folder):
                path = self._folder / entry.name
                run_id = _run_id_of(entry.name)
                if path not in keep and run_id is not None and self._over(run_id, path):
                    path.unlink(missing_ok=True)

    # ---- inside ----

    def _path(self, dest: str) -> str:
        stem = hashlib.blake2b(dest.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
        return f"{self._folder}{os.sep}{stem}.{self._run_id}.part"

    def _make_folder(self) -> None:
        if not self._made:
            with storage_errors(self._folder, "make"):
                self._folder.mkdir(parents=True, exist_ok=True)
            self._made = True

    def _survey(self) -> None:
        try:
            entries = sorted(entry.name for entry in os.scandir(self._folder))
        except OSError:
            return
        for name in entries:
            if not name.endswith(".part.json"):
                continue
            run_id = _run_id_of(name)
            path = self._folder / name
            if run_id is None or run_id == self._run_id or not self._over(run_id, path):
                continue
            found = read_sidecar(path)
            if found is not None and (found.dest not in self._left or self._left[found.dest].done < found.done):
                self._left[found.dest] = found

    def _over(self, run_id: RunId, path: Path) -> bool:
        """Whether the run that ``path`` belongs to will not write to it again."""
        if run_id == self._run_id:
            return False
        if run_id.gone:
            return True
        try:
            return time.time() - path.stat().st_mtime > _SILENT_SECONDS
        except OSError:
            return False

    def _claim(self, left: Sidecar, path: str) -> Partial | None:
        """Take an earlier run's partial file over; ``None`` when somebody was faster."""
        mine = Path(path + ".json")
        try:
            # The new sidecar first: whatever happens in between, one sidecar has its part.
            shutil.copyfile(left.path, mine)
            left.part.replace(path)
        except OSError:
            mine.unlink(missing_ok=True)
            return None
        left.path.unlink(missing_ok=True)
        partial = Partial(left.dest, path, fresh=False, sidecar=left, made=self._folders)
        with storage_errors(path, "read"):
            size = Path(path).stat().st_size
        if size < max((s.position for s in left.segments if s.done), default=0):
            partial.restart()
        return partial


def _run_id_of(name: str) -> RunId | None:
    pieces = name.split(".")
    return RunId.parse(pieces[1]) if len(pieces) >= 3 else None
