"""Executors of batches: worker processes here, or a Dask cluster that exists; one function over batches either way."""

from cxrprep.executors.executor import Engine, batched
from cxrprep.executors.processes import Lost, WorkerPool, begin_item, end_item

__all__ = ["Engine", "Lost", "WorkerPool", "batched", "begin_item", "end_item"]
