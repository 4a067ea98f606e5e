"""Reads the tables of a dataset that its file declares: see ``cxrprep.datasets.declaration`` for the form.

Every finding of a release is kept: under a shared observation where the file names one, else in a column of the
dataset's own namespace, and as the word itself in ``labels_raw``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxrprep.datasets.catalog import declaration_of
from cxrprep.labels.declared_images import add_splits, images_of
from cxrprep.labels.declared_labels import add_rows
from cxrprep.labels.declared_reports import add_reports
from cxrprep.labels.declared_tables import tables_here

if TYPE_CHECKING:
    from cxrprep.labels.declared_tables import Hook
    from cxrprep.labels.label_rows import LabelRows
    from cxrprep.labels.locate_tables import Tables


def read(tables: Tables, label_rows: LabelRows, hook: Hook | None = None) -> None:
    """Add the rows that these tables give: one per image and label source. Raises ``TableError``, ``ConfigError``."""
    declared = declaration_of(label_rows.dataset)
    here = tables_here(declared, tables, label_rows, hook)
    images = images_of(declared, here, label_rows)
    others = add_splits(declared, here, images, label_rows)
    add_rows(declared, here, images, others, label_rows)
    if label_rows.options.report_text:
        add_reports(declared, here, images, label_rows)
