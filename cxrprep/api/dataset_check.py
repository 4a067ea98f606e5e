"""Check of a dataset's file: what is wrong in it, and what it makes of a folder's tables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxrprep.api.result import Result
from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import UsageError
from cxrprep.events import ignore
from cxrprep.storage.paths import refuse_address

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.events import Sink


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """What a dataset's file says, and what its tables gave.

    ``images_here`` image files were found in the folder, ``images_listed`` are in its tables, ``images_matched`` are
    both. ``sources`` are label sources with their rows, ``observations`` the columns that have a label.
    """

    dataset: str
    file: Path
    tables: int
    images_here: int | None = None
    images_listed: int | None = None
    images_matched: int | None = None
    patients: int | None = None
    sources: tuple[tuple[str, int], ...] = ()
    observations: tuple[str, ...] = ()


def check_dataset(file: Path, root: Path | None = None, *, on_event: Sink = ignore) -> Result[DatasetCheck]:
    """What ``file`` describes; with ``root``, what it makes of that folder.

    Raises ``ConfigError`` with the line of a mistake, ``TableError`` with file, line and column where a table is not
    what the file says, ``UsageError`` for a folder that is not there.
    """
    for place, what in ((file, "FILE"), (root, "ROOT")):
        refuse_address(str(place or ""), what)
    spec = find_dataset(str(file))
    found = DatasetCheck(spec.name, file, len(spec.table))
    if root is None:
        return _result(found)
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder", hint="name the folder that holds the dataset")
    from cxrprep.labels.extract import count_labels, read_labels

    labels = read_labels(spec, root, on_event=on_event)
    counted = count_labels(spec.name, labels, root)
    layout = spec.layout()
    here = {
        identity.image
        for folder, _, names in os.walk(root)
        for name in names
        if (identity := layout.parse(f"{folder[len(str(root)) :]}/{name}".replace(os.sep, "/").lstrip("/"))) is not None
    }
    listed = set(labels.table.column("image_id").drop_null().to_pylist())
    columns = [name for name in labels.table.column_names if name.startswith("label_") and name != "label_source"]
    return _result(
        DatasetCheck(
            spec.name,
            file,
            len(spec.table),
            images_here=len(here),
            images_listed=len(listed),
            images_matched=len(here & listed),
            patients=counted.patients,
            sources=tuple((source.label_source, source.rows) for source in counted.sources),
            observations=tuple(c for c in columns if labels.table.column(c).null_count < labels.table.num_rows),
        )
    )


def _result(found: DatasetCheck) -> Result[DatasetCheck]:
    summary = {"dataset": found.dataset, "tables": f"{found.tables:,} declared"}
    if found.images_listed is not None:
        summary |= {
            "images": f"{found.images_listed:,} in the tables, {found.images_here:,} files here, "
            f"{found.images_matched:,} of them in both",
            "patients": f"{found.patients:,}",
            **{f"labels {source}": f"{rows:,} rows" for source, rows in found.sources},
            "observations": ", ".join(name.removeprefix("label_") for name in found.observations) or "none",
        }
    return Result("datasets", found, rows=tuple(summary.items()))
