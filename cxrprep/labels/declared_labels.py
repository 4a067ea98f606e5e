"""Labels of a declared dataset as rows: by columns, lists, names and classes, of each reader and of all together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from cxrprep.datasets.declaration import Declaration, LabelRule, tables_of
from cxrprep.errors import ConfigError
from cxrprep.labels.columns import source_columns
from cxrprep.labels.declared_columns import TABLE, TableRead, columns_of, named_columns
from cxrprep.labels.declared_images import only_listed
from cxrprep.labels.declared_marks import add_masks, box_type, boxes_of, rows_where
from cxrprep.labels.declared_values import TRUTH, DeclaredValue, by_word, column_of
from cxrprep.labels.image_ids import IdColumn, places_of
from cxrprep.schemas import CATEGORY
from cxrprep.storage.value_codes import first_of_each
from cxrprep.vocabulary import VOCABULARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from cxrprep.labels.declared_tables import TablesHere
    from cxrprep.labels.label_rows import LabelRows

_MOST_FINDINGS: Final = 5_000
# What the readers of an image agree on; a reader who said nothing of it does not count.
_AGREED: Final[Mapping[str, Callable[[pd.DataFrame, Any], pd.DataFrame]]] = {
    "any": lambda values, image: values.groupby(image).max(),
    "all": lambda values, image: values.groupby(image).min(),
    "majority": lambda values, image: (
        2 * (values == 1).groupby(image).sum() > values.notna().groupby(image).sum()
    ).astype("Int8"),
}


def add_rows(here: TablesHere, images: pd.DataFrame, others: pd.Series) -> None:
    """Add the rows of all labels, boxes and masks, and one for each of ``images`` that nobody labelled.

    ``others`` are the splits of images that split lists alone name. Raises ``ConfigError`` for a value of the
    declaration that is of no known form, ``TableError`` for a column that is missing, or a cell that is not what it
    says.
    """
    declared = here.declared
    writer = _Writer(declared, images, boxes_of(here, images), here.label_rows)
    add_masks(here, images)
    labelled = np.zeros(len(images), bool)
    for rule, name, table in here.of(declared.labels):
        rows = _label_block(here, rule, table, images)
        plain = tuple(column for column, cell in declared.named(name).cells.items() if cell.unique)
        labelled[_add_labels(rows, writer, plain)] = True
    for table in here.by_name.values():
        here.note_cells(table)
    for rest in (images[~labelled], only_listed(declared, others, images)):
        if len(rest):
            writer.add(rest, {}, {}, {})


@dataclass(frozen=True, slots=True)
class _Labels:
    """A label block at work: its rule, and the rows of its table that are about images that are known.

    ``places`` are those of the rows' images in ``images``, which are in order; ``readers`` are the places of the rows'
    readers in ``names``.
    """

    declared: Declaration
    rule: LabelRule
    frame: pd.DataFrame
    places: NDArray[np.int64]
    readers: NDArray[np.int64] | None
    names: Sequence[str]
    images: pd.Index
    where: TableRead
    notes: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        """The block, for errors."""
        return f"[[labels]] {self.rule.source}"

    def of(self, value: Any, what: str) -> pd.Series:
        """A value of the block's rows."""
        return DeclaredValue(self.frame, value, f"{self.place} {what}", self.where).cells()

    def raw_cells(self, images: NDArray[np.int64]) -> dict[str, pa.Array]:
        """The cells of the columns that are kept as they stand, of the first row about each image."""
        rule = self.rule
        names = [name for name in self.frame.columns if name != TABLE] if rule.raw == "all" else list(rule.raw)
        if not names:
            return {}
        rows = first_of_each(self.places, len(self.images))[images]
        columns = {str(n): column_of(self.frame, n, f"{self.place} raw", self.where, whole=True) for n in names}
        return {name: _taken(cells, rows) for name, cells in columns.items()}

    def keys(self) -> pd.Series:
        """What a row speaks of, as a number: an image's place, or that of an image as one reader saw it."""
        keys = self.places if self.readers is None else self.places * len(self.names) + self.readers
        return pd.Series(keys, self.frame.index)


def _add_labels(block: _Labels, writer: _Writer, plain: tuple[str, ...]) -> NDArray[np.int64]:
    """Add the rows of one label block; the places of the images that it labels.

    The cells of ``plain`` columns all differ.
    """
    values, words = _SHAPES[block.rule.shape](block)
    for note in block.notes:
        writer.label_rows.note(note, str(block.where.path), "warning")
    seen = [np.zeros(0, np.int64)]
    for source, of_source in _by_source(block, values):
        seen.append(of_source.index.to_numpy())
        columns, own = _observations(block.declared, of_source, block.place, block.rule.namespace)
        about = writer.images if len(of_source) == len(writer.images) else writer.images.iloc[seen[-1]]
        columns |= source_columns(source, block.where, len(about))
        if words is not None:
            columns["labels_raw"] = words
        raw = block.raw_cells(seen[-1])
        writer.add(about, columns, own, {**raw, **{n: raw[n].cast(pa.string()) for n in plain if n in raw}}, plain)
    return np.concatenate(seen)


def _taken(cells: pd.Series, rows: NDArray[np.int64]) -> pa.Array:
    """The cells of some rows; words stay in the order of the file."""
    if not isinstance(cells.dtype, pd.CategoricalDtype):
        return pa.array(cells.to_numpy(object)[rows], pa.string(), from_pandas=True)
    codes = cells.cat.codes.to_numpy()[rows].astype(np.int32)
    words = pa.array(cells.cat.categories, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), words)


def _label_block(here: TablesHere, rule: LabelRule, table: TableRead, images: pd.DataFrame) -> _Labels:
    """The rows of a table that are about images which are known; the others are counted."""
    declared = here.declared
    frame = rows_where(table, rule.where)
    place = f"[[labels]] {rule.source}"
    owner, value = ("patient", rule.patient) if rule.study is None else ("study", rule.study)
    if value is None:
        asked = IdColumn(frame, rule.image or declared.image.id, f"{place} image", table, declared)
        places = asked.known_images(images)[1]
    else:
        ids = DeclaredValue(frame, value, f"{place} {owner}", table).cells()
        by_owner = images.reset_index().groupby(f"{owner}_id")["image_id"].agg(list)
        ids = ids.map(by_owner, na_action="ignore").explode()
        table = replace(
            table, rows=ids.index.tolist() if table.rows is None else [table.rows[row] for row in ids.index]
        )
        frame = frame.loc[ids.index].reset_index(drop=True)
        places = places_of(ids.reset_index(drop=True), images)
    known = places >= 0
    apart = declared.image.lacking("name images that" if declared.image.called else "are about images that")
    here.count(table, "labels", known, apart, source=rule.source)
    frame, places = (frame, places) if known.all() else (frame[known], places[known])
    if not rule.reader:
        return _Labels(declared, rule, frame, places.to_numpy(), None, (), images.index, table)
    codes, names = pd.factorize(DeclaredValue(frame, rule.reader, f"{place} reader", table).cells(), sort=True)
    if (codes < 0).any():
        here.label_rows.note(
            f"{place}: {(codes < 0).sum():,} rows name no reader: left out", str(table.path), "warning"
        )
    frame, places, codes = frame[codes >= 0], places[codes >= 0], codes[codes >= 0]
    return _Labels(declared, rule, frame, places.to_numpy(), codes, list(names), images.index, table)


def _by_source(block: _Labels, values: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The sources of a block: itself, or each reader and what they agree on."""
    if block.readers is None:
        yield block.rule.source, values
        return
    image, reader = np.divmod(values.index.to_numpy(), len(block.names) or 1)
    for code, name in enumerate(block.names):
        yield f"{block.rule.source}-{name}", values[reader == code].set_axis(image[reader == code], axis=0)
    for source, how in block.rule.also.items():
        yield source, _AGREED[how](values, image)


def _wide(pairs: pd.DataFrame, present: Iterable[str], absent: int | None) -> pd.DataFrame:
    """1 where a name was said of a key, ``absent`` elsewhere; ``pairs`` has the columns key and name."""
    said = pairs.dropna().drop_duplicates()
    table = pd.crosstab(said["key"], said["name"]).clip(upper=1).astype("Int8").reindex(sorted(set(present)))
    return table.fillna(absent) if absent is not None else table.mask(table == 0)


def _in_columns(block: _Labels) -> tuple[pd.DataFrame, pa.Array | None]:
    rule, known = block.rule, block.declared.vocabulary
    if isinstance(rule.columns, dict):
        named = dict(rule.columns)
    else:
        # What other blocks read is no finding.
        ids = {name for table in tables_of(rule.table) for name in columns_of(block.declared, table)} - {*known.names}
        only = rule.columns == "vocabulary"
        names = [name for name in block.frame.columns if name not in ids and name != TABLE]
        named = {name: name for name in names if not only or block.declared.vocabulary.knows(name)}
        here = {known.spelled(name) for name in named}
        gone = [name for name in known.names if name not in here]
        if named and gone:
            block.notes.append(f"columns of labels are not here, and their labels null: {', '.join(gone)}")
    found = {name: _label_cells(block, column) for column, name in named.items() if _is_label(block, column, name)}
    more = [name for name in found if not isinstance(rule.columns, dict) and not known.knows(known.spelled(name))]
    if more and known.open:
        block.notes.append(f"columns that its dataset's file does not declare are read as findings: {', '.join(more)}")
    keys = block.keys()
    if keys.is_unique:
        return pd.DataFrame(found, keys.index).set_axis(keys, axis=0).sort_index(), None
    values = pd.DataFrame(found)
    grouped = values.groupby(keys, sort=True)
    merged = grouped.max()
    if rule.rows_per_image != "any":
        differs = (grouped.min() != merged).fillna(value=False).any(axis=1)
        if differs.any():
            key = merged.index[differs.to_numpy()][0]
            first, *others = keys.index[keys == key]
            other = next((row for row in others if not values.loc[row].equals(values.loc[first])), others[0])
            said = f"two rows say different things of {block.images[key // max(1, len(block.names))]}"
            said = f"{said}: this one, and {block.where.place_of(first)}"
            hint = 'correct the table, or say rows_per_image = "any" in the dataset\'s file'
            raise block.where.error(other, "", said, hint)
    return merged, None


def _is_label(block: _Labels, column: str, name: str) -> bool:
    """Whether a column has labels; one more column of somebody's own, such as a fold, is left out with a note."""
    rule, known = block.rule, block.declared.vocabulary
    if isinstance(rule.columns, dict) or known.knows(name) or "*" in rule.values:  # noqa: PD011  # as below
        return True
    cells = block.frame[column]
    if cells.isna().all() or not cells.dropna().isin(list(_meanings(rule))).all():
        block.notes.append(f"column {column!r} is not declared in the dataset's file and holds no labels: left out")
        return False
    return True


def _meanings(rule: LabelRule) -> Mapping[str, int]:
    """What the words of a block say, those among them that spreadsheets and databases make of 1 and 0."""
    said = rule.values  # noqa: PD011  # a field of the rule, not of a data frame
    made = {word: said[digit] for word, digit in TRUTH.items()} if {"1", "0"} <= {*said} else {}
    return {**made, **said}


def _label_cells(block: _Labels, column: str) -> pd.Series:
    meanings = _meanings(block.rule)

    def of_words(words: pd.Series) -> pd.Series:
        unknown = words[words.notna() & ~words.isin(list(meanings))]
        if len(unknown) and "*" not in meanings:
            row = int(str(unknown.index.min()))
            hint = f"expected one of {', '.join(meanings)}, or a blank"
            raise block.where.error(row, column, f"{unknown.loc[row]!r} is no label", hint)
        other = meanings.get("*")
        return pd.Series([meanings.get(w, other) if isinstance(w, str) else None for w in words], words.index, float)

    column_of(block.frame, column, block.place, block.where)
    return by_word(block.frame[column], of_words).astype("Int8")


def _in_list(block: _Labels) -> tuple[pd.DataFrame, pa.Array | None]:
    """The names in each row's list, a column each.

    measured: 974 -> 557 MiB at the peak and 8.7 -> 7.0 s of CPU for PadChest's 160,861 rows, when the columns became
    small numbers one by one and no table of fractions.
    """
    keys, value = block.keys().to_numpy(), block.rule.names
    # Of JSON and XML a cell is a list already.
    value = {"use": "all", **({"column": value} if isinstance(value, str) else value)}
    codes, lists = _distinct_lists(block.of(value, "names"))
    order = np.argsort(keys, kind="stable")
    codes, keys = codes[order], keys[order]
    alone = bool((np.diff(keys) > 0).all())
    passed = {"", *block.declared.vocabulary.not_observations}
    said = [dict.fromkeys(one for one in cell if one is not None and one not in passed) for cell in lists]
    known = VOCABULARIES[block.rule.known].names if block.rule.known else ()
    words = sorted({*known, *(one for cell in said for one in cell)})
    _require_findings(block, words, value)
    place = {word: column for column, word in enumerate(words)}
    # Null is -1. A cell that is blank says nothing, not that nothing is there.
    cells = np.full((len(words), len(lists) + 1), -1 if block.rule.absent is None else block.rule.absent, np.int8)
    cells[:, -1] = -1
    for row, cell in enumerate(said):
        cells[[place[one] for one in cell], row] = 1
    found = (line[codes] for line in cells)
    columns = {word: pd.arrays.IntegerArray(line, line < 0) for word, line in zip(words, found, strict=True)}
    values = pd.DataFrame(columns, index=keys)
    if block.readers is not None:
        return values.groupby(level=0).max(), None
    if alone:
        return values, _lists(codes, lists)
    values = values.groupby(level=0).max()
    stated = pd.Series([lists[code] for code in codes[codes >= 0]], keys[codes >= 0], dtype=object)
    together = stated.groupby(level=0).agg(lambda cells: [*dict.fromkeys(one for cell in cells for one in cell)])
    return values, _lists(*_distinct_lists(together.reindex(values.index)))


def _distinct_lists(cells: pd.Series) -> tuple[NDArray[np.int64], list[list[Any]]]:
    """The lists of a column, each once, and the place of each row's among them; -1 where a row has none.

    One text is a list of one.
    """
    held = cells.to_numpy(object)
    codes, found = pd.factorize(np.fromiter(map(id, held), np.int64, len(held)))
    lists = [[cell] if isinstance(cell, str) else cell for cell in held[first_of_each(codes, len(found))]]
    are_lists = np.array([isinstance(cell, list) for cell in lists], bool)
    number = np.where(are_lists, np.cumsum(are_lists) - 1, -1)
    return number[codes], [cell for cell in lists if isinstance(cell, list)]


def _require_findings(block: _Labels, words: Sequence[str], value: Mapping[str, Any]) -> None:
    """Raise ``TableError`` for a column of more words than anyone has findings: each would be a column of labels."""
    if len(words) > _MOST_FINDINGS:
        column = next(named_columns(value), "")
        said = f"{len(words):,} different words, where a finding each would make as many columns"
        hint = "name the column of the findings, part lists by split, or put words together by map or match"
        raise block.where.error(block.frame.index[0], column, f"{block.place}: {said}", hint)


def _lists(codes: NDArray[np.int64], lists: list[list[Any]]) -> pa.Array:
    """The list of each row; -1 is of none."""
    return pa.array([*lists, None], pa.list_(pa.string())).take(pa.array(codes % (len(lists) + 1)))


def _in_rows(block: _Labels) -> tuple[pd.DataFrame, pa.Array | None]:
    keys, value = block.keys(), block.rule.name
    # Of JSON and XML a cell may hold several names: they are as many rows.
    value = {"use": "all", **({"column": value} if isinstance(value, str) else value)}
    pairs = pd.DataFrame({"key": keys, "name": block.of(value, "name")}).explode("name")
    names = pairs["name"].mask(pairs["name"].isin(["", *block.declared.vocabulary.not_observations]))
    _require_findings(block, [*names.dropna().unique()], value)
    values = _wide(pairs.assign(name=names), keys, block.rule.absent)
    if block.readers is not None:
        return values, None
    words = names.groupby(pairs["key"]).agg(lambda cells: [*cells.dropna()])
    return values, _lists(*_distinct_lists(words.reindex(values.index)))


_SHAPES: Final[Mapping[str, Callable[[_Labels], tuple[pd.DataFrame, pa.Array | None]]]] = {
    "columns": _in_columns,
    "list": _in_list,
    "rows": _in_rows,
    "class": _in_rows,
}


def _observations(
    declared: Declaration, values: pd.DataFrame, place: str, namespace: str
) -> tuple[dict[str, pa.Array], dict[str, tuple[pa.Array, str]]]:
    """The shared columns, and the dataset's own with what each means. Raises ``ConfigError`` for an unknown name."""
    rules = declared.vocabulary
    shared: dict[str, pd.Series] = {}
    own: dict[str, tuple[pd.Series, str]] = {}
    for column_name in values.columns:
        name = rules.spelled(column_name)
        known = rules.shared(name)
        if known is None and name not in rules.own and name not in rules.under and not rules.open:
            raise ConfigError(
                f"{place}: the vocabulary of {declared.name} does not know {name!r}",
                hint="declare it under [vocabulary.same] or [vocabulary.own], or say open = true",
            )
        column = values[column_name]
        if known is not None:
            stem = f"label_{known[0]}"
            shared[stem] = column if stem not in shared else _either(shared[stem], column)
        # A dataset without a namespace has no observation beside the shared ones.
        if known is None or (known[1] and rules.namespace):
            key = rules.column(name, namespace)
            before = own.get(key)
            meaning = rules.own.get(name, f"{name}, as {declared.name} words it")
            own[key] = (column if before is None else _either(before[0], column), meaning)
    return (
        {name: pa.array(column, pa.int8(), from_pandas=True) for name, column in shared.items()},
        {name: (pa.array(column, pa.int8(), from_pandas=True), meaning) for name, (column, meaning) in own.items()},
    )


def _either(one: pd.Series, other: pd.Series) -> pd.Series:
    """Two names of one observation: 1 over -1 over 0 over null."""
    rank = {1: 3, -1: 2, 0: 1}
    a, b = one.map(rank).fillna(0), other.map(rank).fillna(0)
    return one.where(a >= b, other)


@dataclass(slots=True)
class _Writer:
    """Makes blocks of rows of what is known of images, their labels and their boxes."""

    declared: Declaration
    images: pd.DataFrame
    boxes: dict[str, list[dict[str, Any]]]
    label_rows: LabelRows

    def add(
        self,
        about: pd.DataFrame,
        columns: dict[str, pa.Array],
        own: dict[str, tuple[pa.Array, str]],
        raw: dict[str, pa.Array],
        plain: tuple[str, ...] = (),
    ) -> None:
        """Add the rows of the images ``about`` with these columns, the dataset's own observations, and raw cells."""
        facts: dict[str, pa.Array] = {"image_id": pa.array(about.index, pa.string())}
        for name in ("patient_id", "study_id", "path_raw"):
            facts[name] = pa.array(about[name], pa.string(), from_pandas=True)
        for name in ("view", "projection", "view_raw", "split", "sex", "age_flag"):
            codes, words = pd.factorize(about[name].to_numpy(object))
            codes = pa.array(codes, CATEGORY.index_type, mask=codes < 0)
            facts[name] = pa.DictionaryArray.from_arrays(codes, pa.array(words, pa.string()))
        for name in ("age_years", "pixel_spacing_mm"):
            facts[name] = pa.array(about[name], pa.float32(), from_pandas=True)
        for name, kind in (("orig_width", pa.int32()), ("orig_height", pa.int32()), ("follow_up", pa.int16())):
            facts[name] = pa.array(about[name].round(), pa.float64(), from_pandas=True).cast(kind)
        # Once for each image, whoever labelled it: the manifest takes an image's boxes from any of its rows.
        kind = pa.list_(box_type(self.declared))
        facts["boxes"] = self._drawn_on(about.index, kind) if self.boxes else pa.nulls(len(about), kind)
        self.label_rows.add(len(about), {**facts, **columns}, raw, plain=plain, own=own)

    def _drawn_on(self, images: pd.Index, kind: pa.DataType) -> pa.Array:
        """The boxes of some images, which are given out."""
        drawn = np.full(len(images), None, object)
        places = images.get_indexer(pd.Index([*self.boxes], dtype=object))
        for image, place in zip([*self.boxes], places.tolist(), strict=True):
            if place >= 0:
                drawn[place] = self.boxes.pop(image)
        return pa.array(drawn, kind)
