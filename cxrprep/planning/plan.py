"""Plan: an action for each file, with totals."""

from __future__ import annotations

import dataclasses
import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cxrprep.humanize import short_repr
from cxrprep.model import Selection, Shard
from cxrprep.planning.plan_items import (
    CHANGED,
    MOVING,
    Action,
    Item,
    Kind,
    PlanItems,
    SortedItems,
    Total,
    items_of,
    totals_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


__all__ = ["CHANGED", "MOVING", "Action", "Item", "Plan", "Total"]

# What people report of the public mirrors, in bytes a second for one connection.
_SLOW, _FAST = 600_000, 5_000_000
# An unpacked release is about as large as its archives (they hold PNG and JPEG); this is what to allow for.
_UNPACKED: Final = 1.05
_ARCHIVES_AT_ONCE: Final = 2


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

    __repr__ = short_repr

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

    def paths(self) -> Iterator[str]:
        """The release paths of the items, in their order; they are not made anew for it."""
        yield from (item.dest for item in self.first)
        yield from self.images_after.paths()

    @property
    def first(self) -> Sequence[Item]:
        """The items that are a list in any case: all but images, in a large plan."""
        return self.items.first if isinstance(self.items, PlanItems) else self.items

    @property
    def images_after(self) -> SortedItems:
        """The images that follow ``first``, which has them already in a plan that is not large."""
        return self.items.images if isinstance(self.items, PlanItems) else SortedItems()

    def totals(self) -> dict[Action, Total]:
        """Files and bytes by action; for the moving ones the bytes that still have to come."""
        found = dict.fromkeys(Action, Total())
        for kinds in (totals_of(self.first), self.images_after.totals()):
            for (action, _), total in kinds.items():
                found[action] += total
        return found

    def of(self, wanted: Callable[[Kind], bool]) -> Iterator[Item]:
        """The items of some kinds, an action and whether the file is proven, in their order."""
        yield from (item for item in self.first if wanted((item.action, item.proven)))
        yield from self.images_after.of(wanted)

    def with_reason(self, reason: str) -> Iterator[Item]:
        """The items with this reason, one that plans give; nothing is read where none has it."""
        yield from (item for item in self.first if item.reason == reason)
        if self.images_after.any_for(reason):
            yield from (item for item in self.images_after if item.reason == reason)

    def archives(self) -> list[Item]:
        """The items that are unpacked."""
        return [item for item in self.first if item.archive]

    def moving(self) -> Total:
        """What has to come."""
        return sum((total for action, total in self.totals().items() if action in MOVING), start=Total())

    def disk_need(
        self, *, keep_archives: bool = False, passing: Callable[[str], bool] | None = None, passing_at_once: int = 0
    ) -> int:
        """Bytes that must be free, as far as sizes are known.

        An archive needs room for itself and for what is in it.

        Args:
            keep_archives: They stay; else only two of them lie on the disk at a time.
            passing: Says of a path that its file goes as soon as it has been used, as does what comes out of archives
                then.
            passing_at_once: How many of these lie there at a time.

        Returns:
            Bytes.
        """
        packed = [item for item in self.archives() if item.action in MOVING and item.file.size is not None]
        archives = sorted((item.left or 0 for item in packed), reverse=True)
        files = self.moving().size - sum(archives)
        through: list[int] = []
        if passing is None:
            files += sum(int((item.file.size or 0) * _UNPACKED) for item in packed)
        else:
            for item in self.of(lambda kind: kind[0] in MOVING):
                if not item.archive and item.file.size is not None and passing(item.dest):
                    through.append(item.file.size)
                    files -= item.left or 0
        files += sum(heapq.nlargest(passing_at_once, through))
        return files + sum(archives if keep_archives else archives[:_ARCHIVES_AT_ONCE])

    def estimate(self, connections: int) -> tuple[float, float]:
        """The shortest and the longest time to expect, in seconds, over a network.

        Users of the public mirrors report 0.6 to 5 MB/s a connection; what was measured of a mirror replaces this.
        """
        size = self.moving().size
        return size / (_FAST * connections), size / (_SLOW * connections)

    def shard(self, shard: Shard) -> Plan:
        """The part of the plan that ``shard`` holds; the shards of one plan have every item once."""
        images = SortedItems()
        for item in self.images_after:
            if shard.holds(item.dest):
                images.add(item)
        return dataclasses.replace(
            self, items=items_of([item for item in self.first if shard.holds(item.dest)], images)
        )
