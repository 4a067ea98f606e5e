"""The options and the tables folder of the last extract-labels, from the footer of ``labels.parquet``.

What was asked for once holds for the next run too: without it a text, an age or a whole label source would go.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import TableError
from cxrprep.labels.label_rows import LabelOptions
from cxrprep.storage.parquet import read_footer, read_schema
from cxrprep.storage.working_copy_paths import seen_from

if TYPE_CHECKING:
    from pathlib import Path

_KEY: Final = "options"


@dataclass(frozen=True, slots=True)
class LastOptions:
    """``options`` and the ``tables`` folder of a run; ``tables`` is ``None`` where ROOT's own were read."""

    options: LabelOptions = field(default_factory=LabelOptions)
    tables: Path | None = None

    def with_given(self, options: LabelOptions | None, tables: Path | None) -> LastOptions:
        """What a run is to use: what is given now, and what was given last where nothing is."""
        given = (
            {f.name: getattr(options, f.name) for f in dataclasses.fields(LabelOptions)} if options is not None else {}
        )
        changed = {name: value for name, value in given.items() if value is not None}
        return LastOptions(dataclasses.replace(self.options, **changed), tables or self.tables)

    def described(self, root: Path) -> dict[str, Any]:
        """The footer's words; nothing where nothing was asked for, so that the same tables give the same bytes."""
        told = {name: value for name, value in dataclasses.asdict(self.options).items() if value}
        if self.options.patients is not None:
            told["patients"] = seen_from(root, self.options.patients)
        if self.tables is not None:
            told["tables"] = seen_from(root, self.tables)
        return {_KEY: told} if told else {}


def last_options(labels: Path, root: Path) -> LastOptions:
    """Those of the run that wrote the table ``labels``; without it, what the studies beside it show of them.

    A tables folder that is not there any more is left out: what only it held would be missed, and that is refused.
    """
    if not labels.is_file():
        try:
            text = "report_text" in read_schema(labels.with_name("studies.parquet")).names
        except OSError:
            text = False
        return LastOptions(LabelOptions(report_text=text or None))
    try:
        told = read_footer(labels).get(_KEY)
    except TableError:
        return LastOptions()
    if not isinstance(told, dict) or not told:
        return LastOptions()
    from cxrprep.storage.working_copy import place_of

    paths = {
        name: place_of(root, str(told[name]), folder=name == "tables")
        for name in ("tables", "patients")
        if told.get(name)
    }
    flags = {name: told.get(name) is True for name in ("strict_source", "demographics", "report_text")}
    patients = paths.get("patients")
    options = LabelOptions(**flags, patients=patients if patients is not None and patients.is_file() else None)
    tables = paths.get("tables")
    return LastOptions(options, tables if tables is not None and tables.is_dir() and any(tables.iterdir()) else None)
