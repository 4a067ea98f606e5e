"""Data sets of several folders as one: findings that a folder does not have are null in its rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import UsageError
from cxrprep.labels.policy import KEEP
from cxrprep.labels.source_vocabulary import chosen_observations, ordered
from cxrprep.manifest.load import Dataset
from cxrprep.schemas import as_rows_of, with_boxes
from cxrprep.selection.table_filters import wanted_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cxrprep.model import Selection


def combined(
    parts: Sequence[Dataset], *, selection: Selection | None = None, observations: str | Iterable[str] | None = None
) -> Dataset:
    """The images of several data sets, one after the other.

    The policy of each part is applied: the same label source may know other findings in another dataset. Paths are
    relative to the folder that holds all of them.

    ``selection`` takes some of the images of all (``limit``, ``sample``); ``observations`` are a preset's name or
    names, by default those of the parts. Raises ``UsageError``: an image is in two of them.
    """
    root = Path(os.path.commonpath([part.root.absolute() for part in parts]))
    tables = [_below(part, root) for part in parts]
    schema = _schema([table.schema for table in tables])
    whole = pa.concat_tables(as_rows_of(schema, table) for table in tables).unify_dictionaries()
    _refuse_repeated(parts, whole)
    if selection is not None and selection.draws:
        whole = whole.filter(wanted_rows(whole, selection))
    if observations is None:
        chosen = ordered(stem for part in parts for stem in part.observations)
    else:
        chosen = chosen_observations(observations, whole)
    return Dataset(
        root,
        whole,
        KEEP,
        chosen,
        _made_from(parts),
        tuple(dict.fromkeys(name for part in parts for name in part.box_categories)),
        max((part.made_at_ns or 0 for part in parts), default=0) or None,
        tuple(dict.fromkeys(name for part in parts for name in part.texts)),
        tuple(dict.fromkeys(place for part in parts for place in part.masks)),
    )


def _below(part: Dataset, root: Path) -> pa.Table:
    """The part's rows with the policy applied, and with paths as seen from ``root``."""
    table = part.to_arrow().replace_schema_metadata(None)
    inside = part.root.absolute().relative_to(root).as_posix()
    if inside == ".":
        return table
    place = table.schema.get_field_index("path")
    paths = pc.binary_join_element_wise(inside, table.column("path"), "/")
    return table.set_column(place, table.schema.field(place), paths)


def _schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """All columns: the first schema's, then what each of the others has more; the dataset's own findings at the end."""
    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for field in schema:
            fields.setdefault(field.name, field.remove_metadata().with_nullable(nullable=True))
    own = {name for name in fields if name.startswith("label_") and "__" in name}
    whole = pa.schema([*(f for n, f in fields.items() if n not in own), *(fields[n] for n in sorted(own))])
    read = [s.field("boxes").type for s in schemas if s.field("boxes").type.value_type.get_field_index("reader") >= 0]
    return with_boxes(whole, read[0]) if read else whole


def _refuse_repeated(parts: Sequence[Dataset], whole: pa.Table) -> None:
    keys = pa.table({name: whole.column(name).cast(pa.string()) for name in ("dataset", "image_id")})
    counted = keys.group_by(["dataset", "image_id"]).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted.column("count_all"), 1))
    if twice.num_rows:
        first = twice.slice(0, 1).to_pylist()[0]
        folders = ", ".join(str(part.root) for part in parts)
        raise UsageError(
            f"{twice.num_rows:,} images are in two of {folders}, such as {first['image_id']} of {first['dataset']}",
            hint="name each folder of a dataset once: its originals, or what one recipe made of them",
        )


def _made_from(parts: Sequence[Dataset]) -> dict[str, Any]:
    """The footers of all as ``parts``; what they agree on, or have one after the other, stands for the whole."""
    footers = [part.made_from for part in parts]
    found: dict[str, Any] = {"parts": footers}
    for name in ("dataset", "release", "label_source"):
        words = dict.fromkeys(word for footer in footers for word in str(footer.get(name) or "").split(",") if word)
        found[name] = ",".join(words)
    for name in ("recipe", "split"):
        if footers[0].get(name) is not None and all(footer.get(name) == footers[0][name] for footer in footers):
            found[name] = footers[0][name]
    return found
