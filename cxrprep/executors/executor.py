"""Executor of batches: in this process, in worker processes, or on a Dask cluster, as the user chose.

A batch is some tens of items, so that one task lasts long enough to be worth sending; a bounded number is under way.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from cxrprep.errors import UsageError, did_you_mean
from cxrprep.events import Sink, ignore
from cxrprep.executors.dask_cluster import cluster
from cxrprep.executors.processes import Lost, WorkerPool, peeked
from cxrprep.system import available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


_ENGINES: Final = ("local", "dask", "inline")
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Engine:
    """What the user chose: ``name`` local, dask or inline, ``jobs`` processes here, ``scheduler`` a Dask address.

    ``folders`` are those that each worker of a cluster has to see, one that joins later too (see ``needing``).
    Inline is this process itself, for a handful of items: a crash in a decoder then ends it.
    """

    name: str = "local"
    jobs: int | None = None
    scheduler: str = ""
    folders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``UsageError`` for a name that is none of the three."""
        if self.name not in _ENGINES:
            known = ", ".join(_ENGINES)
            raise UsageError(f"unknown engine {self.name!r}", hint=f"{did_you_mean(self.name, _ENGINES)}known: {known}")

    @property
    def workers(self) -> int:
        """How many batches can run at once, as far as is known before a cluster was asked."""
        return 1 if self.name == "inline" else self.jobs or available_cores()

    def run(
        self,
        function: Callable[[Sequence[T]], Sequence[R]],
        items: Iterable[T],
        *,
        batch: int = 32,
        seconds: float = 0.0,
        on_event: Sink = ignore,
    ) -> Iterator[R | Lost[T]]:
        """Call a function for batches of items, and give what it gives, flattened, as batches finish.

        Order within a batch is kept, order of batches is not promised. No worker is started for no items.

        Args:
            function: Takes a batch; it and the items must be picklable. An exception of it ends the run.
            items: What it works on.
            batch: Items in a batch.
            seconds: The process that works longer on an item that ``function`` announced (see ``begin_item``) is ended;
                inline nobody watches.
            on_event: Called with remarks.

        Yields:
            Results; ``Lost`` for an item over which its process died or was ended.

        Raises:
            SourceUnreachableError: No cluster answers.
        """
        batches = batched(items, batch)
        count, batches = peeked(batches, self.workers)
        if not count:
            return
        if self.name == "dask":
            with cluster(self.scheduler, self.folders) as there:
                yield from there.results(function, batches, seconds, on_event)
        elif self.name == "inline":
            for several in batches:
                yield from function(several)
        else:
            with WorkerPool(count) as workers:
                yield from workers.results(function, batches, seconds)

    def needing(self, paths: Sequence[str]) -> Engine:
        """The same, whose workers have to see these folders of ours: raises ``UsageError`` when one of now does not."""
        if self.name != "dask":
            return self
        with cluster(self.scheduler) as there:
            for worker, missing in there.unseen(paths).items():
                if missing:
                    raise UsageError(
                        f"the worker {worker} does not see {missing[0]}",
                        hint="mount the same folder on every node, or use addresses such as gs:// and s3://",
                    )
        return replace(self, folders=tuple(paths))


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items, ``size`` at a time."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
