"""Where work runs: in processes here, or on a Dask cluster that exists; one function over batches either way."""

from cxrprep.executors.executor import Engine
from cxrprep.executors.processes import Lost, Shelters, begin_item, end_item

__all__ = ["Engine", "Lost", "Shelters", "begin_item", "end_item"]
