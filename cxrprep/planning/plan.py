"""Plan: an action for each file, with totals."""

from __future__ import annotations

import dataclasses
import enum
import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cxrprep.model import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cxrprep.model import RemoteFile, Shard


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

# What people report of the public mirrors, in bytes a second for one connection.
_SLOW, _FAST = 600_000, 5_000_000
# An unpacked release is about as large as its archives (they hold PNG and JPEG); this is what to allow for.
_UNPACKED: Final = 1.05


@dataclass(frozen=True, slots=True)
class Total:
    """So many files of so many bytes; ``unsized`` of them have a size that the mirror does not state."""

    files: int = 0
    size: int = 0
    unsized: int = 0


@dataclass(slots=True)
class Plan:
    """What a download will do, as a value: look at it, save it, cut it into shards, apply it.

    ``items`` are in the order in which they will be worked on: tables first. ``images`` is the answer of the label
    tables to the selection, ``None`` when they were not asked. ``foreign`` counts the mirror's files that do not belong
    to the release, ``passed_over`` those that the selection leaves out. ``unmet`` are the ids of the selection that no
    image of the mirror has; a saved plan does not keep them. ``in_place`` means that the files stay where they lie:
    nothing is fetched, what is here is read and recorded. ``mirror_is_named`` says that the user of this process named
    the mirror; a plan from a file is never trusted so far that a login goes to a host of its choice.
    """

    dataset: str
    release: str
    mirror: str
    items: Sequence[Item]
    selection: Selection = field(default_factory=Selection)
    images: frozenset[str] | None = None
    passed_over: int = 0
    foreign: int = 0
    foreign_names: tuple[str, ...] = ()
    unmet: tuple[str, ...] = ()
    in_place: bool = False
    mirror_is_named: bool = field(default=False, compare=False)

    def __len__(self) -> int:
        """The number of files."""
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        """The items in their order."""
        return iter(self.items)

    def totals(self) -> dict[Action, Total]:
        """Files and bytes by action; for the moving ones the bytes that still have to come."""
        counts: dict[Action, list[int]] = {action: [0, 0, 0] for action in Action}
        for item in self.items:
            row = counts[item.action]
            row[0] += 1
            size = item.left if item.action in MOVING else item.file.size
            if size is None:
                row[2] += 1
            else:
                row[1] += size
        return {action: Total(*row) for action, row in counts.items()}

    def moving(self) -> Total:
        """What has to come."""
        parts = [total for action, total in self.totals().items() if action in MOVING]
        return Total(sum(t.files for t in parts), sum(t.size for t in parts), sum(t.unsized for t in parts))

    def disk_need(
        self,
        *,
        keep_archives: bool = False,
        archives_at_once: int = 2,
        passing: Callable[[str], bool] | None = None,
        passing_at_once: int = 0,
    ) -> int:
        """Bytes that must be free, as far as sizes are known.

        An archive needs room for itself and for what is in it.

        Args:
            keep_archives: They stay; else only some of them lie on the disk at a time.
            archives_at_once: How many.
            passing: Says of a path that its file goes as soon as it has been used, as does what comes out of archives
                then.
            passing_at_once: How many of these lie there at a time.

        Returns:
            Bytes.
        """
        files = 0
        archives: list[int] = []
        unpacked = 0
        through: list[int] = []
        for item in self.items:
            if item.action not in MOVING or item.file.size is None:
                continue
            if item.archive:
                archives.append(item.left or 0)
                unpacked += int(item.file.size * _UNPACKED) if passing is None else 0
            elif passing is not None and passing(item.dest):
                through.append(item.file.size)
            else:
                files += item.left or 0
        archives.sort(reverse=True)
        files += unpacked + sum(heapq.nlargest(passing_at_once, through))
        return files + sum(archives if keep_archives else archives[:archives_at_once])

    def estimate(self, connections: int) -> tuple[float, float]:
        """The shortest and the longest time to expect, in seconds, over a network.

        Users of the public mirrors report 0.6 to 5 MB/s a connection; what was measured of a mirror replaces this.
        """
        size = self.moving().size
        return size / (_FAST * connections), size / (_SLOW * connections)

    def shard(self, shard: Shard) -> Plan:
        """The part of the plan that ``shard`` holds; the shards of one plan have every item once."""
        return dataclasses.replace(self, items=[item for item in self.items if shard.holds(item.dest)])
