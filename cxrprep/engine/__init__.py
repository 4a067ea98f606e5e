"""Where work runs: in processes here, or on a Dask cluster that exists; one function over batches either way."""

from cxrprep.engine.processes import Lost, Shelters, begin_item, end_item
from cxrprep.engine.run import Engine

__all__ = ["Engine", "Lost", "Shelters", "begin_item", "end_item"]
