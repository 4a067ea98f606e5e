"""Refusal of label tables that would know less than those that are there, label source by label source."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.collection.image_table import Loss, refuse_loss, stored_table
from cxrprep.labels.columns import count_true
from cxrprep.schemas import RAW_PREFIX, is_own_observation, label_columns
from cxrprep.storage.parquet import footer_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from cxrprep.labels.label_rows import Labels
    from cxrprep.storage.table_on_disk import TableOnDisk

MASKS_NAME: Final = "masks.parquet"
_BACK: Final = (
    "bring back the tables, reports, vocabulary or imports that had them (tables that lie elsewhere: --tables DIR)"
)


def check_labels(dataset: str, labels: Labels, path: Path, *, allow_loss: bool = False) -> None:
    """Refuse labels that know less, of any label source, than the table that is there.

    Args:
        dataset: Its name.
        labels: What would be written.
        path: The table that is there, if any.
        allow_loss: Refuse nothing.

    Raises:
        UsageError: Names what would go, and the words that ask for it.
    """
    if labels.unchanged:
        return
    drawn = None if allow_loss or labels.masks is None else stored_table(path.with_name(MASKS_NAME))
    if drawn is not None and labels.masks is not None and drawn.num_rows > labels.masks.num_rows:
        refuse_loss(path.with_name(MASKS_NAME), [Loss("masks", drawn.num_rows - labels.masks.num_rows)], hint=_BACK)
    if not allow_loss and path.is_file():
        check_known(dataset, known_of_sources(labels.table), labels.table.column_names, path)


def check_known(
    dataset: str, known: Mapping[str | None, Mapping[str, int]], columns: Collection[str], path: Path
) -> None:
    """Refuse where the table that is there knows more, of any label source.

    Args:
        dataset: Its name; the table of another one is not compared.
        known: What each label source knows now, as ``known_of_sources`` counts it.
        columns: The names of the columns that there are now. An observation or source column that goes is a loss too:
            reports labelled again without their vocabulary may fill more cells than those that go.
        path: The table that is there, if any.

    Raises:
        UsageError: Names what would go, and the words that ask for it.
    """
    before = stored_table(path)
    if before is None or footer_of(path).get("dataset") != dataset:
        return
    if not {"label_source", "boxes"} <= set(before.column_names):
        # Another program wrote it: nobody can tell what it knows of whom.
        return
    now = {name: dict(counts) for name, counts in known.items()}
    # Rows that nobody had labelled may be labelled now: then they are of some source.
    now[None] = dict(sum((Counter(known) for known in now.values()), Counter()))
    found = [
        Loss(f"{what} of {name or 'no label source'}", count - now.get(name, {}).get(what, 0))
        for name, known in known_of_sources(before).items()
        for what, count in known.items()
        if count > now.get(name, {}).get(what, 0)
    ]
    found += [
        Loss(f"column {name}", 1)
        for name in before.column_names
        if name not in columns and (name.startswith(RAW_PREFIX) or is_own_observation(name))
    ]
    refuse_loss(path, found, hint=_BACK)


def known_of_sources(table: pa.Table | TableOnDisk) -> dict[str | None, dict[str, int]]:
    """How much each label source knows: its rows, cells of labels, boxes, splits and texts.

    Column by column: one of a table on disk is read at a time.
    """
    source = table.column("label_source").combine_chunks().cast(pa.string())
    names = pc.unique(source).to_pylist()
    rows = {name: pc.is_null(source) if name is None else pc.equal(source, name) for name in names}
    rows = {name: pc.fill_null(of, fill_value=False) for name, of in rows.items()}
    known = {name: {"rows": count_true(of), "labels": 0, "boxes": 0} for name, of in rows.items()}
    labels = label_columns(table.schema)
    for column in (*labels, "split", "view", "sex", "age_years", "report_text"):
        if column in table.column_names:
            valid = pc.is_valid(table.column(column)).combine_chunks()
            for name, of in rows.items():
                what = "labels" if column in labels else f"cells of {column}"
                known[name][what] = known[name].get(what, 0) + count_true(pc.and_(of, valid))
    lengths = pc.fill_null(pc.list_value_length(table.column("boxes")), 0).combine_chunks()
    for name, of in rows.items():
        known[name]["boxes"] = int(pc.sum(lengths.filter(of)).as_py() or 0)
    return known
