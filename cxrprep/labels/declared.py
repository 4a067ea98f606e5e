"""Reads the tables of a dataset that its file declares: see ``cxrprep.datasets.declaration`` for the form.

Every finding of a release is kept: under a shared observation where the file names one, else in a column of the
dataset's own namespace, and as the word itself in ``labels_raw``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cxrprep.datasets.catalog import declaration_of, file_of, is_built_in
from cxrprep.labels.declared_images import add_splits, images_of
from cxrprep.labels.declared_labels import add_rows
from cxrprep.labels.declared_reports import add_reports
from cxrprep.labels.declared_tables import Hook, tables_here
from cxrprep.labels.declared_values import MissingColumnError
from cxrprep.storage.small_files import read_text

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.labels.label_rows import LabelRows
    from cxrprep.labels.locate_tables import Tables


def read(tables: Tables, label_rows: LabelRows, hook: Hook | None = None) -> None:
    """Add the rows that these tables give: one per image and label source. Raises ``TableError``, ``ConfigError``."""
    declared = declaration_of(label_rows.dataset)
    try:
        here = tables_here(declared, tables, label_rows, hook)
        images = images_of(here)
        others = add_splits(here, images)
        add_rows(here, images, others)
        if label_rows.options.report_text:
            add_reports(here, images)
    except MissingColumnError as error:
        if not is_built_in(declared.name) and (line := _line_of(error, file := file_of(declared.name))):
            error.hint = f"{error.hint}: {file}, line {line}"
        raise


def _line_of(error: MissingColumnError, file: Path) -> int:
    """The line of a dataset's file that names a column in the block that asks for it, 0 where none does."""
    block, named = error.place.split(" ")[0], re.compile(rf"""(['"]){re.escape(error.column)}\1""")
    inside = ""
    for number, line in enumerate(read_text(file).splitlines(), 1):
        inside = line.partition("#")[0].strip() if line.startswith("[") else inside
        if named.search(line) and (inside == block or not block.startswith("[")):
            return number
    return 0
