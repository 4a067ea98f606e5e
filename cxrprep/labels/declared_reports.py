"""Reports of a declared dataset: as a column beside its labels, and one by one for pairs of image and text."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from cxrprep.datasets.catalog import declaration_of
from cxrprep.errors import UsageError
from cxrprep.events import Sink, ignore
from cxrprep.labels.declared_tables import TablesHere, tables_here
from cxrprep.labels.declared_values import DeclaredValue
from cxrprep.labels.image_ids import IdColumn
from cxrprep.labels.label_rows import LabelOptions, LabelRows
from cxrprep.labels.locate_tables import find_tables
from cxrprep.labels.nlp.readers import Report
from cxrprep.labels.nlp.sections import plain_sections
from cxrprep.schemas import REPORT_TEXT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cxrprep.datasets.declaration import Declaration, ReportRule
    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.labels.declared_columns import TableRead


def has_reports(spec: DatasetSpec) -> bool:
    """Whether a dataset's file says where its reports are."""
    return spec.module == "declared" and bool(declaration_of(spec.name).reports)


def reports_in(
    spec: DatasetSpec, root: Path, *, tables: Path | None = None, on_event: Sink = ignore
) -> Iterator[Report]:
    """The reports that the tables of a declared dataset have, each with its study.

    Args:
        spec: The dataset.
        root: Its folder.
        tables: A folder with tables that go over those in ``root``.
        on_event: Called with remarks.

    Yields:
        A report for each row that has text.

    Raises:
        TableError: No table, or one that is not what the declaration says.
        UsageError: No table here has reports.
    """
    declared = declaration_of(spec.name)
    found = find_tables(spec, root, None, tables=tables, on_event=on_event)
    here = tables_here(declared, found, LabelRows(spec.name, found.release, False, on_event, LabelOptions()))
    for rule, table in _found(here):
        ids = _ids(declared, rule, table)
        about = pd.DataFrame({"study": ids, "row": range(len(ids))})[ids.notna()]
        parts = _sections(rule, table)
        for study, row in zip(about["study"], about["row"], strict=True):
            said = {name: cells.iloc[row] for name, cells in parts.items() if isinstance(cells.iloc[row], str)}
            text = "\n".join(said.values())
            if said:
                digest = hashlib.sha256(text.encode()).hexdigest()
                key = f"{table.path.name}: {study}"
                # Without a heading all of it is what was seen.
                if not rule.sections and plain_sections(text):
                    yield Report(key, text, study=study, sha256=digest, mimic=False)
                else:
                    yield Report(key, study=study, sha256=digest, parts=said if rule.sections else {"findings": text})


def _found(here: TablesHere) -> list[tuple[ReportRule, TableRead]]:
    found = [(rule, table) for rule, _, table in here.of(here.declared.reports)]
    if not found:
        raise UsageError(
            f"report texts were asked for, and no table here has those of {here.declared.name}",
            hint="name the folder of the table that has them, with --tables DIR, or do not ask for report texts",
        )
    return found


def _ids(declared: Declaration, rule: ReportRule, table: TableRead) -> pd.Series:
    """The study of each row, or the image, which is a study of its own."""
    if rule.image is not None:
        return IdColumn(table.cells, rule.image, "[[reports]] image", table, declared).images()
    return DeclaredValue(table.cells, rule.study, "[[reports]] study", table).cells()


def _sections(rule: ReportRule, table: TableRead) -> dict[str, pd.Series]:
    parts = rule.sections or {"text": rule.text}
    values = {name: DeclaredValue(table.cells, part, f"[[reports]] {name}", table) for name, part in parts.items()}
    return {name: value.cells() for name, value in values.items()}


def add_reports(here: TablesHere, images: pd.DataFrame) -> None:
    """Put each study's report beside all of its rows, as a column ``report_text``.

    Raises ``UsageError`` where no table here has reports.
    """
    texts: dict[str, str] = {}
    found = _found(here)
    for rule, table in found:
        ids = _ids(here.declared, rule, table)
        known = ids.isin(images.index if rule.image else images["study_id"])
        words = _report_texts(rule, table)
        stated = known & words.notna()
        texts |= dict(zip(ids[stated], words[stated], strict=True))
        here.count(table, "reports", known, "are_of_studies_without_an_image")
    by_image = any(rule.image for rule, _ in found)
    blocks = here.label_rows.blocks
    for index, block in enumerate(blocks):
        keys = block.column("image_id" if by_image else "study_id").to_pylist()
        column = pa.array([texts.get(key) for key in keys], pa.large_string()).dictionary_encode().cast(REPORT_TEXT)
        blocks[index] = block.append_column("report_text", column)


def _report_texts(rule: ReportRule, table: TableRead) -> pd.Series:
    """The whole texts; sections are put together under their names, in the declared order."""
    parts = _sections(rule, table)
    if not rule.sections:
        return parts["text"]
    rows = zip(*parts.values(), strict=True)
    texts = [
        "\n\n".join(f"{name.upper()}: {text}" for name, text in zip(parts, row, strict=True) if isinstance(text, str))
        for row in rows
    ]
    return pd.Series([text or None for text in texts], index=table.cells.index, dtype=object)
