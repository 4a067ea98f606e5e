"""Items of a plan: few are a list, and of millions all but some thousands lie on the disk."""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, overload

from cxrprep.model import Digest, RemoteFile
from cxrprep.system import FILES_AT_ONCE, FILES_IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cxrprep.storage.sorted_tables import SortedTable


class Action(enum.StrEnum):
    """What a download does with one file."""

    FETCH = "fetch"
    """It is not here."""
    RESUME = "resume"
    """Part of it is here, or an archive that still has to be unpacked."""
    KEEP = "keep"
    """It is here, or was used and discarded on purpose."""
    REFETCH = "refetch"
    """It is here, but is not what the mirror has, or not what was recorded."""
    IMPOSSIBLE = "impossible"
    """It cannot be fetched; the reason says why."""


@dataclass(slots=True)
class Item:
    """One file of a plan.

    ``dest`` is its release path. ``have`` counts the bytes of it that are here. ``archive`` items are unpacked to
    release paths. An item to keep that is not ``proven`` lies here without a record: it is read and recorded first.
    """

    file: RemoteFile
    dest: str
    action: Action
    reason: str = ""
    have: int = 0
    archive: bool = False
    proven: bool = True

    @property
    def left(self) -> int | None:
        """Bytes that still have to come; ``None`` when the mirror does not say how large the file is."""
        if self.action in (Action.KEEP, Action.IMPOSSIBLE):
            return 0
        return None if self.file.size is None else max(self.file.size - self.have, 0)


# Why a file that is adopted is kept although its size or time differs.
CHANGED: Final = "size or time not as recorded"
MOVING: Final = frozenset({Action.FETCH, Action.RESUME, Action.REFETCH})

# measured: an item takes 0.5 KB as an object; a million of them took 500 of the 732 MiB of `download --dry-run`, 269
# with all but 50,000 on the disk. As many as MIMIC-CXR has stay objects: a second download of a million, with nothing
# to do, takes two to three times the CPU time with them on the disk.
_HELD: Final = FILES_IN_MEMORY
_WRITTEN: Final = FILES_AT_ONCE
_COLUMNS: Final = {
    "dest": "string", "key": "string", "size": "int64", "digest": "string", "validator": "string", "reason": "string",
    "action": "string", "have": "int64", "archive": "bool", "proven": "bool",
}  # fmt: skip
Kind = tuple[Action, bool]
"""An item's action, and whether it is proven."""


@dataclass(frozen=True, slots=True)
class Total:
    """So many files of so many bytes; ``unsized`` of them have a size that the mirror does not state."""

    files: int = 0
    size: int = 0
    unsized: int = 0

    def __add__(self, other: Total) -> Total:
        """Both together."""
        return Total(self.files + other.files, self.size + other.size, self.unsized + other.unsized)


def totals_of(items: Iterable[Item]) -> dict[Kind, Total]:
    """Files and bytes by kind; for the moving ones the bytes that still have to come."""
    counts: dict[Kind, list[int]] = {}
    for item in items:
        row = counts.setdefault((item.action, item.proven), [0, 0, 0])
        row[0] += 1
        size = item.left if item.action in MOVING else item.file.size
        if size is None:
            row[2] += 1
        else:
            row[1] += size
    return {kind: Total(*row) for kind, row in counts.items()}


class SortedItems:
    """Items in order of release path, those of one path as they came; from so many on in a temporary file.

    What is in the file comes anew each time: to change it changes nothing.
    """

    def __init__(self) -> None:
        """None yet."""
        self._held: list[Item] = []
        self._stored: SortedTable | None = None
        self._totals: dict[Kind, Total] = {}
        self._reasons: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._held) + (0 if self._stored is None else self._stored.num_rows)

    def add(self, item: Item) -> None:
        """Add one. Raises ``StorageError`` when the disk for temporary files refuses."""
        self._held.append(item)
        if len(self._held) >= (_HELD if self._stored is None else _WRITTEN):
            self._store()

    def __iter__(self) -> Iterator[Item]:
        """All of them in order."""
        return self.of(bool)

    def of(self, wanted: Callable[[Kind], bool]) -> Iterator[Item]:
        """Those of some kinds, in order; nothing is read where the file has none of them."""
        if self._stored is None:
            self._held.sort(key=attrgetter("dest"))
            yield from (item for item in self._held if wanted((item.action, item.proven)))
            return
        self._store()
        chosen = {kind for kind in self._totals if wanted(kind)}
        for row in self._stored.rows() if chosen else ():
            kind = Action(row[6]), row[9]
            if kind in chosen:
                yield _item_of(row)

    def paths(self) -> Iterator[str]:
        """The release paths, in order."""
        if self._stored is None:
            yield from sorted(item.dest for item in self._held)
            return
        self._store()
        for table in self._stored.tables(["dest"]):
            yield from table["dest"].to_pylist()

    def totals(self) -> dict[Kind, Total]:
        """Files and bytes by kind."""
        if self._stored is None:
            return totals_of(self._held)
        self._store()
        return self._totals

    def any_for(self, reason: str) -> bool:
        """Whether an item has this reason, of those that plans give to items that are kept."""
        return self._reasons[reason] > 0 or any(item.reason == reason for item in self._held)

    @property
    def is_stored(self) -> bool:
        """Whether they are too many for a list."""
        return self._stored is not None

    def _store(self) -> None:
        """Write those that are held into the file."""
        from cxrprep.storage.sorted_tables import SortedTable

        if self._stored is None:
            self._stored = SortedTable.of(_COLUMNS, "dest")
        for kind, total in totals_of(self._held).items():
            self._totals[kind] = self._totals.get(kind, Total()) + total
        self._reasons.update(item.reason for item in self._held if item.reason == CHANGED)
        self._stored.add_rows(map(_row_of, self._held))
        self._held = []


class PlanItems(Sequence[Item]):
    """The items of a large plan in their order: a few ``first``, and then those of images."""

    def __init__(self, first: list[Item], images: SortedItems) -> None:
        """No archive is among ``images``."""
        self.first = first
        self.images = images

    def __len__(self) -> int:
        """How many there are."""
        return len(self.first) + len(self.images)

    def __iter__(self) -> Iterator[Item]:
        """All in order."""
        return itertools.chain(self.first, self.images)

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        """The item at a place, found by counting: to look at a few. Raises ``IndexError``."""
        places = range(len(self))[place]
        if isinstance(places, int):
            return next(itertools.islice(self, places, None))
        wanted = set(places)
        found = {number: item for number, item in enumerate(self) if number in wanted}
        return [found[number] for number in places]

    def __eq__(self, other: object) -> bool:
        """Whether the items are the same."""
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Item.__eq__, self, other))

    def __hash__(self) -> int:
        """By identity."""
        return id(self)


def items_of(first: list[Item], images: SortedItems) -> Sequence[Item]:
    """The items of a plan: a plain list where they are few."""
    return PlanItems(first, images) if images.is_stored else [*first, *images]


def _row_of(item: Item) -> tuple[Any, ...]:
    file, digest = item.file, item.file.digest
    return (
        item.dest, None if file.key == item.dest else file.key, file.size, None if digest is None else str(digest),
        file.validator, item.reason, str(item.action), item.have, item.archive, item.proven,
    )  # fmt: skip


def _item_of(row: tuple[Any, ...]) -> Item:
    dest, key, size, digest, validator, reason, action, have, archive, proven = row
    file = RemoteFile(key or dest, size, None if digest is None else Digest.parse(digest), validator)
    return Item(file, dest, Action(action), reason, have, archive=archive, proven=proven)
