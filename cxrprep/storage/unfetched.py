"""Files of a working copy that lie in its bucket alone: their names and sizes, and their bytes as they are asked for.

Verbs work on a copy without images; whoever lists its files asks here for the rest, and whoever reads one gets it here.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from cxrprep.storage.bucket_listing import entries, find_entry
from cxrprep.storage.filesystem import REQUESTS, SizeLimit, StoredFile
from cxrprep.storage.working_copy_paths import copy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cxrprep.storage.object_store import ObjectStore

M = TypeVar("M")

# Where headers of images end; one that is longer is asked for with the whole file.
_HEAD: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Unfetched:
    """What of the folder ``root`` lies in the bucket alone."""

    root: Path
    listing: Path
    store: ObjectStore
    below: str

    def files(self) -> Iterator[StoredFile]:
        """The files in order of path, named from ``root``."""
        for entry in entries(self.listing):
            if entry.name.startswith(self.below):
                yield replace(entry, name=entry.name[len(self.below) :])

    def find(self, path: str) -> StoredFile | None:
        """The file at ``path`` below ``root``, named as the store names it; ``None`` where it is none of them."""
        return find_entry(self.listing, self.below + path)

    def measured(self, paths: Sequence[Path], measure: Callable[[Sequence[Path]], Iterable[M]]) -> Iterator[M]:
        """What ``measure`` says of these files: of their first bytes where these say it, and of the whole else."""
        from concurrent.futures import ThreadPoolExecutor

        with tempfile.TemporaryDirectory(prefix="cxrprep-") as folder:
            places = [Path(folder, f"{number}{path.suffix}") for number, path in enumerate(paths)]
            with ThreadPoolExecutor(REQUESTS) as pool:
                list(pool.map(self._bring_head, paths, places))
                found = list(measure(places))
                lacking = [number for number, one in enumerate(found) if one is None]
                list(pool.map(lambda number: self._bring(paths[number], places[number]), lacking))
            for number, one in zip(lacking, measure([places[n] for n in lacking]), strict=True):
                found[number] = one
        yield from found

    def _bring_head(self, path: Path, place: Path) -> None:
        data = None if path.exists() else self.store.head(self._name(path), _HEAD)
        if data is not None:
            place.write_bytes(data)
        elif path.exists():
            place.symlink_to(path)

    def _bring(self, path: Path, place: Path) -> None:
        from cxrprep.storage.object_store import ObjectGoneError

        if not place.is_symlink():
            with contextlib.suppress(ObjectGoneError):
                self.store.fetch(StoredFile(self._name(path), -1, ""), place)

    def _name(self, path: Path) -> str:
        return self.below + path.relative_to(self.root).as_posix()


def unfetched(root: Path) -> Unfetched | None:
    """What of ``root`` lies in its bucket alone; ``None`` for a folder of this machine, and a whole working copy."""
    found = copy_of(str(root.absolute()))
    if found is None:
        return None
    home, address, inside = found
    listing = home / "listed.tsv"
    if not listing.is_file() or not listing.stat().st_size:
        return None
    # Loaded for a folder in a bucket alone: it takes as long as a tenth of a download that has nothing to do.
    from cxrprep.storage.object_store import ObjectStore

    return Unfetched(root, listing, ObjectStore(address), f"{inside}/" if inside else "")


def stored_bytes(path: Path, limits: SizeLimit) -> bytes | None:
    """The bytes of a file that lies in its bucket alone; ``None`` for one that does not.

    Raises ``ImageError`` for one past ``limits`` or gone, and the store's errors.
    """
    found = found_there(path.parent, path.name)
    return None if found is None else found[0].read_listed(found[1], limits)


def found_there(root: Path, name: str) -> tuple[ObjectStore, StoredFile] | None:
    """A file of ``root`` that lies in its bucket alone, and the store; ``None`` for one that does not."""
    there = unfetched(root)
    entry = None if there is None else there.find(name)
    return None if there is None or entry is None else (there.store, entry)


def lies_there(root: Path, name: str) -> bool:
    """Whether ``root`` has the file, here or in its bucket alone."""
    return (root / name).exists() or found_there(root, name) is not None


def ends_of(root: Path, name: str, size: int) -> bytes | None:
    """The first and the last ``size`` bytes of a file that lies in its bucket alone; ``None`` for one that does not."""
    found = found_there(root, name)
    if found is None:
        return None
    store, entry = found
    starts = [0] if entry.size <= size else [0, max(size, entry.size - size)]
    return b"".join(store.head(entry.name, size, start=start) or b"" for start in starts)


def bring(root: Path, name: str, place: Path) -> bool:
    """Fetch a file that lies in its bucket alone to ``place``; ``False`` for one that does not. Raises as ``fetch``."""
    from cxrprep.storage.object_store import ObjectGoneError

    found = found_there(root, name)
    if found is None:
        return False
    with contextlib.suppress(ObjectGoneError):
        found[0].fetch(found[1], place)
        return True
    return False


def names_and_sizes(root: Path) -> Iterator[tuple[str, int]]:
    """Path and size in bytes of each file of ``root`` that lies in its bucket alone; none for a folder elsewhere."""
    there = unfetched(root)
    return iter(()) if there is None else ((file.name, file.size) for file in there.files())
