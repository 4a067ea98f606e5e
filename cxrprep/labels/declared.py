"""Reads the tables of a dataset that its file declares: see ``cxrprep.datasets.declaration`` for the form.

Every finding of a release is kept: under a shared observation where the file names one, else in a column of the
dataset's own namespace, and as the word itself in ``labels_raw``.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.datasets.catalog import declaration_of
from cxrprep.datasets.declaration import NOT_READ, Declaration, DeclaredTable, LabelRule, tables_of
from cxrprep.errors import ConfigError, TableError
from cxrprep.labels.columns import constant
from cxrprep.labels.csv_table import Form, read_names, read_table
from cxrprep.schemas import BOX, CATEGORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from cxrprep.labels.label_rows import LabelRows
    from cxrprep.labels.locate_tables import Tables
    from cxrprep.model import Digest

_OLDEST: Final = 120
_AGE_UNITS: Final = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}
# Between an image and its reader in a key of a row; no id has it.
_BETWEEN: Final = "\x1f"
# What the readers of an image agree on; a reader who said nothing of it does not count.
_AGREED: Final[Mapping[str, Callable[[pd.DataFrame, Any], pd.DataFrame]]] = {
    "any": lambda values, image: values.groupby(image).max(),
    "all": lambda values, image: values.groupby(image).min(),
    "majority": lambda values, image: (
        2 * (values == 1).groupby(image).sum() > values.notna().groupby(image).sum()
    ).astype("Int8"),
}


@dataclass(frozen=True, slots=True)
class _Read:
    """A table that is here: its cells as text (null where blank), where it lies, and its digest."""

    cells: pd.DataFrame
    path: Path
    digest: Digest


def read(tables: Tables, gathered: LabelRows) -> None:
    """Add the rows that these tables give: one per image and label source. Raises ``TableError``, ``ConfigError``."""
    declared = declaration_of(gathered.dataset)
    here = _tables_here(declared, tables, gathered)
    images = _images(declared, here, gathered)
    for block in NOT_READ:
        if getattr(declared, block):
            gathered.note(f"[[{block}]] of {declared.name} is not read by this version", "", "warning")
    _add_splits(declared, here, images, gathered)
    boxes = _boxes(declared, here, images, gathered)
    labelled: set[str] = set()
    for rule in declared.labels:
        for name in tables_of(rule.table):
            if name in here:
                rows = _label_block(declared, rule, here[name], images, gathered)
                labelled |= _add_labels(rows, images, boxes, here[name].digest, gathered)
    rest = images[~images.index.isin(labelled)]
    if len(rest):
        _add(rest, {}, {}, boxes, gathered)


def _tables_here(declared: Declaration, tables: Tables, gathered: LabelRows) -> dict[str, _Read]:
    found: dict[str, _Read] = {}
    for table in declared.table:
        path = tables.named(table.name)
        if path is None:
            continue
        if table.form == "names":
            names, digest = read_names(path)
            found[table.name] = _Read(pd.DataFrame({"name": names.to_pylist()}, dtype=object), path, digest)
        else:
            found[table.name] = _csv(table, path, gathered)
    return found


def _csv(table: DeclaredTable, path: Path, gathered: LabelRows) -> _Read:
    def header(names: list[str]) -> list[str]:
        if table.header:
            return [*table.header, *([""] * (len(names) - len(table.header)))]
        return [table.rename.get(name, name) for name in names]

    csv = read_table(path, Form((), header=header, open=True, multiline=True))
    frame = pd.DataFrame({name: csv.text(name).to_pandas() for name in csv.names}, dtype=object)
    for note in csv.notes:
        gathered.note(note, str(path), "warning")
    return _Read(frame.mask(frame.isin(list(table.blank))) if table.blank else frame, path, csv.digest)


# ---- values ----


def _value(frame: pd.DataFrame, value: Any, place: str, where: Path) -> pd.Series:
    """A column of text (or numbers, after ``use``) by the rules of the declaration; null where nothing is stated."""
    if isinstance(value, str):
        value = {"column": value}
    series = _base(frame, value, place, where)
    if "split" in value:
        series = series.map(lambda cell: cell.split(value["split"]), na_action="ignore")
    if "use" in value:
        series = _used(series, value["use"], place, where)
    if value.get("lower"):
        series = _each(series, str.lower)
    if "match" in value:
        series = _matched(series, value["match"])
    for words in value.get("replace", ()):
        series = _each(series, partial(_replaced, words=words))
    if "map" in value:
        series = _mapped(series, value["map"], value.get("else", "error"), place, where)
    for bound, test in (("min", pd.Series.lt), ("max", pd.Series.gt)):
        if bound in value:
            series = series.mask(test(pd.to_numeric(series), value[bound]))
    return series


def _base(frame: pd.DataFrame, value: Mapping[str, Any], place: str, where: Path) -> pd.Series:
    if "column" in value:
        return _column(frame, value["column"], place, where)
    if "columns" in value:
        parts = [_column(frame, name, place, where) for name in value["columns"]]
        joined = parts[0]
        for part in parts[1:]:
            joined = joined.str.cat(part, sep=value.get("with", ""))
        return joined
    if "text" in value:
        return pd.Series([value["text"]] * len(frame), index=frame.index, dtype=object)
    if "first_of" in value:
        first, *others = (_value(frame, one, place, where) for one in value["first_of"])
        for other in others:
            first = first.where(first.notna(), other)
        return first
    raise ConfigError(f"{place}: a value names column, columns, text or first_of", hint="see docs/howto/own-dataset.md")


def _column(frame: pd.DataFrame, name: str, place: str, where: Path) -> pd.Series:
    if name not in frame.columns:
        shown = ", ".join(map(str, frame.columns[:8]))
        raise TableError(
            f"{where}: column {name!r} is missing, which {place} names; it has {shown}",
            hint="is this the right table? Correct the dataset's file if its columns are called otherwise",
        )
    return frame[name]


def _each(series: pd.Series, change: Callable[[str], Any]) -> pd.Series:
    """``change`` for each cell, or for each name in a cell's list."""
    return series.map(
        lambda cell: [change(one) for one in cell] if isinstance(cell, list) else change(cell), na_action="ignore"
    )


def _replaced(cell: str, words: tuple[Any, ...]) -> str:
    return cell.replace(*words)


def _matched(series: pd.Series, pattern: str) -> pd.Series:
    """The one group of a pattern (RE2); null where it does not match."""
    distinct = pa.array(sorted({one for cell in series.dropna() for one in _names_in(cell)}), pa.string())
    try:
        found = pc.struct_field(pc.extract_regex(distinct, _named(pattern)), 0).to_pylist()
    except (pa.ArrowInvalid, IndexError) as error:
        raise ConfigError(f"the pattern {pattern!r} is no regular expression with one group: {error}") from error
    known = dict(zip(distinct.to_pylist(), found, strict=True))
    return _each(series, known.__getitem__)


def _named(pattern: str) -> str:
    """The pattern with a name for its one capturing group, as Arrow wants it."""
    if "(?P<" in pattern:
        return pattern
    place = 0
    while (place := pattern.find("(", place)) >= 0:
        if pattern[place + 1 : place + 2] != "?" and pattern[place - 1 : place] != "\\":
            return f"{pattern[:place]}(?P<it>{pattern[place + 1 :]}"
        place += 1
    raise IndexError("it has no group")


def _names_in(cell: Any) -> Iterable[str]:
    return (one for one in cell if one is not None) if isinstance(cell, list) else (cell,)


def _used(series: pd.Series, transform: str, place: str, where: Path) -> pd.Series:
    name, _, detail = transform.partition(":")
    known: dict[str, Callable[[str], Any]] = {
        "number": float,
        "dicom-age": _dicom_age,
        "python-list": _list_of(ast.literal_eval),
        "json-list": _list_of(json.loads),
        "date": lambda cell: pd.to_datetime(cell, format=detail),
    }
    if name not in known:
        raise ConfigError(f"{place}: there is no transform {transform!r}", hint=f"known: {', '.join(known)}")
    distinct: dict[str, Any] = {}
    for row, cell in series.dropna().items():
        if cell not in distinct:
            try:
                distinct[cell] = known[name](cell)
            except (ValueError, KeyError, SyntaxError, RecursionError, TypeError) as error:
                raise TableError(
                    f"{where}, row {int(str(row)) + 1}: {place} expects {transform}, found {cell[:80]!r}",
                    hint="correct that cell, or the dataset's file",
                ) from error
    return series.map(distinct, na_action="ignore")


def _dicom_age(cell: str) -> float:
    return int(cell[:-1]) / _AGE_UNITS[cell[-1].upper()]


def _list_of(parse: Callable[[str], Any]) -> Callable[[str], list[str]]:
    def read_list(cell: str) -> list[str]:
        found = parse(cell)
        if not isinstance(found, list):
            raise TypeError(cell)
        return [str(one).strip() for one in found]

    return read_list


def _mapped(series: pd.Series, words: Mapping[str, Any], otherwise: str, place: str, where: Path) -> pd.Series:
    unknown = series[series.notna() & ~series.isin(list(words))]
    if len(unknown) and otherwise == "error":
        raise TableError(
            f"{where}, row {int(str(unknown.index[0])) + 1}: {place} does not know {unknown.iloc[0]!r} "
            f"({len(unknown):,} rows)",
            hint='add the word to the map, or say else = "null" in the dataset\'s file',
        )
    mapped = series.map(words)
    return mapped.where(mapped.notna() | series.isna(), series) if otherwise == "keep" else mapped


# ---- images ----


def _images(declared: Declaration, here: Mapping[str, _Read], gathered: LabelRows) -> pd.DataFrame:
    """A row per image, by id, with everything but labels; what several tables say of one image is put together."""
    rule = declared.image
    parts = []
    for name in tables_of(rule.table):
        if name in here:
            part = _image_facts(declared, here[name])
            parts.append(part)
            gathered.use_file(here[name].path, here[name].digest, "images", rows=len(part), used=len(part))
    if not parts:
        wanted = ", ".join(table.patterns[0] for table in declared.table if table.name in tables_of(rule.table))
        raise TableError(
            f"no table here lists the images of {declared.name}",
            hint=f"add one of: {wanted}; or name its folder with --tables DIR",
        )
    images = pd.concat(parts, ignore_index=True)
    lost = int(images["image_id"].isna().sum())
    if lost:
        gathered.note(f"{lost:,} rows name no image in a known form: they are left out", "", "warning")
    images = images[images["image_id"].notna()]
    # Rows about one image are put together: the first that states a thing counts.
    images = images.groupby("image_id", sort=True).first()
    images["study_id"] = images["study_id"].where(images["study_id"].notna(), images.index.to_series())
    if rule.patient == "unknown":
        images["patient_id"] = images["study_id"]
        gathered.note(
            f"{declared.name} does not say whose the images are: each study counts as a patient", "", "warning"
        )
    return images


def _image_facts(declared: Declaration, table: _Read) -> pd.DataFrame:
    rule, frame = declared.image, table.cells

    def of(name: str) -> pd.Series:
        value = getattr(rule, name)
        if value is None or (isinstance(value, dict) and ("header" in value or "path" in value)):
            # A header is read where the image is, and a path says it by its own pattern.
            return pd.Series([None] * len(frame), index=frame.index, dtype=object)
        return _value(frame, value, f"[image] {name}", table.path)

    facts = pd.DataFrame({"image_id": of("id")})
    facts["study_id"] = facts["image_id"] if rule.study == "image" else of("study")
    facts["patient_id"] = facts["study_id"] if rule.patient == "unknown" else of("patient")
    word = of("view")
    facts["view_raw"] = word
    facts["view"] = word.map({w: rule_.view or None for w, rule_ in declared.views.items()})
    facts["projection"] = word.map({w: rule_.projection or None for w, rule_ in declared.views.items()})
    facts["split"] = of("split")
    facts["sex"] = of("sex")
    age = pd.to_numeric(of("age"), errors="coerce")
    if rule.birth_year is not None and rule.date is not None:
        born = pd.to_numeric(of("birth_year"), errors="coerce")
        age = age.where(age.notna(), pd.to_datetime(of("date")).dt.year - born)
    facts["age_years"] = age.where(age.between(0, _OLDEST))
    facts["age_flag"] = None
    facts.loc[age.notna() & ~age.between(0, _OLDEST), "age_flag"] = "implausible"
    for column, name in (("orig_width", "width"), ("orig_height", "height"), ("follow_up", "follow_up")):
        facts[column] = pd.to_numeric(of(name), errors="coerce")
    facts["path_raw"] = of("file")
    return facts


def _add_splits(declared: Declaration, here: Mapping[str, _Read], images: pd.DataFrame, gathered: LabelRows) -> None:
    for rule in declared.splits:
        for name in tables_of(rule.table):
            if name not in here:
                continue
            table = here[name]
            listed = _value(table.cells, rule.image, "[[splits]] image", table.path)
            value = (
                {"text": rule.split} if isinstance(rule.split, str) and rule.split not in table.cells else rule.split
            )
            words = _value(table.cells, value, "[[splits]] split", table.path)
            known = listed.isin(images.index)
            images.loc[listed[known], "split"] = words[known].to_numpy()
            gathered.use_file(
                table.path,
                table.digest,
                "split",
                rows=len(listed),
                used=int(known.sum()),
                name_images_that_no_other_table_lists=int((~known).sum()),
            )


# ---- boxes ----


def _boxes(
    declared: Declaration, here: Mapping[str, _Read], images: pd.DataFrame, gathered: LabelRows
) -> dict[str, list[dict[str, Any]]]:
    """Each image's rectangles in the order of the tables: the finding as the release words it, x, y, w, h in pixels."""
    found: dict[str, list[dict[str, Any]]] = {}
    for rule in declared.boxes:
        for name in tables_of(rule.table):
            if name not in here:
                continue
            table = here[name]
            frame = _kept(table, rule.where)
            sides = rule.corners or rule.corner_size or rule.centre_size
            numbers = pd.DataFrame(
                {
                    side: pd.to_numeric(_column(frame, column, "[[boxes]]", table.path), errors="coerce")
                    for side, column in zip("xywh", sides, strict=True)
                }
            )
            if rule.corners:
                numbers["w"] -= numbers["x"]
                numbers["h"] -= numbers["y"]
            elif rule.centre_size:
                numbers["x"] -= numbers["w"] / 2
                numbers["y"] -= numbers["h"] / 2
            image = _value(frame, rule.image, "[[boxes]] image", table.path)
            label = _value(frame, rule.label, "[[boxes]] label", table.path)
            whole = numbers.notna().all(axis=1) & image.isin(images.index) & label.notna()
            gathered.use_file(
                table.path,
                table.digest,
                "boxes",
                rows=len(table.cells),
                used=int(whole.sum()),
                draw_no_box=len(table.cells) - int(whole.sum()),
            )
            rows = zip(image[whole], label[whole], *(numbers[side][whole] for side in "xywh"), strict=True)
            for key, word, x, y, w, h in rows:
                found.setdefault(key, []).append({"label": word, "x": x, "y": y, "w": w, "h": h})
    return found


def _kept(table: _Read, where: Mapping[str, Any]) -> pd.DataFrame:
    frame = table.cells
    for column, wanted in where.items():
        cells = _column(frame, column, "where", table.path)
        refused = wanted.get("not", []) if isinstance(wanted, dict) else None
        frame = frame[~cells.isin(refused) & cells.notna()] if refused is not None else frame[cells.isin(wanted)]
    return frame


# ---- labels ----


@dataclass(frozen=True, slots=True)
class _Labels:
    """A label block at work: its rule, and the rows of its table that are about images that are known."""

    declared: Declaration
    rule: LabelRule
    frame: pd.DataFrame
    ids: pd.Series
    readers: pd.Series | None
    where: Path

    @property
    def place(self) -> str:
        """The block, for errors."""
        return f"[[labels]] {self.rule.source}"

    def of(self, value: Any, what: str) -> pd.Series:
        """A value of the block's rows."""
        return _value(self.frame, value, f"{self.place} {what}", self.where)

    def keys(self) -> pd.Series:
        """What a row speaks of: an image, or an image as one reader saw it."""
        if self.readers is None:
            return self.ids
        return self.ids.str.cat(self.readers, sep=_BETWEEN)


def _add_labels(
    block: _Labels, images: pd.DataFrame, boxes: dict[str, list[dict[str, Any]]], digest: Digest, gathered: LabelRows
) -> set[str]:
    """Add the rows of one label block; the images that it labels."""
    values, words = _SHAPES[block.rule.shape](block)
    seen: set[str] = set()
    for source, of_source in _by_source(block, values):
        seen |= set(of_source.index)
        columns, own = _observations(block.declared, of_source, block.place)
        about = images.loc[of_source.index]
        columns |= {
            "label_source": constant(source, len(about)),
            "table_name": constant(block.where.name, len(about)),
            "table_digest": constant(str(digest), len(about)),
        }
        if words is not None:
            cells = words.reindex(of_source.index)
            columns["labels_raw"] = pa.array([c if isinstance(c, list) else None for c in cells], pa.list_(pa.string()))
        _add(about, columns, own, boxes, gathered)
    return seen


def _label_block(
    declared: Declaration, rule: LabelRule, table: _Read, images: pd.DataFrame, gathered: LabelRows
) -> _Labels:
    """The rows of a table that are about images which are known; the others are counted."""
    frame = table.cells
    place = f"[[labels]] {rule.source}"
    ids = _value(frame, rule.image or rule.study or declared.image.id, f"{place} image", table.path)
    if rule.study is not None:
        by_study = images.reset_index().groupby("study_id")["image_id"].agg(list)
        ids = ids.map(by_study, na_action="ignore").explode()
        frame = frame.loc[ids.index].reset_index(drop=True)
        ids = ids.reset_index(drop=True)
    known = ids.isin(images.index)
    gathered.use_file(
        table.path,
        table.digest,
        "labels",
        rows=len(ids),
        used=int(known.sum()),
        source=rule.source,
        are_about_images_that_no_table_lists=int((~known).sum()),
    )
    frame, ids = frame[known], ids[known]
    readers = _value(frame, rule.reader, f"{place} reader", table.path) if rule.reader else None
    return _Labels(declared, rule, frame, ids, readers, table.path)


def _by_source(block: _Labels, values: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The sources of a block: itself, or each reader and what they agree on."""
    if block.readers is None:
        yield block.rule.source, values
        return
    parts = values.index.to_series().str.split(_BETWEEN, n=1, regex=False)
    image, reader = parts.str[0], parts.str[1]
    for name in sorted(reader.unique()):
        seen = values[(reader == name).to_numpy()]
        yield f"{block.rule.source}-{name}", seen.set_axis(image[seen.index], axis=0)
    for source, how in block.rule.also.items():
        yield source, _AGREED[how](values, image.to_numpy())


def _wide(pairs: pd.DataFrame, present: Iterable[str], absent: int | None) -> pd.DataFrame:
    """1 where a name was said of a key, ``absent`` elsewhere; ``pairs`` has the columns key and name."""
    said = pairs.dropna().drop_duplicates()
    table = pd.crosstab(said["key"], said["name"]).clip(upper=1).astype("Int8").reindex(sorted(set(present)))
    return table.fillna(absent) if absent is not None else table.mask(table == 0)


def _in_columns(block: _Labels) -> tuple[pd.DataFrame, pd.Series | None]:
    rule = block.rule
    if isinstance(rule.columns, dict):
        named = dict(rule.columns)
    else:
        ids = {value for value in (rule.image, rule.study, rule.reader) if isinstance(value, str)}
        only = rule.columns == "vocabulary"
        names = [name for name in block.frame.columns if name not in ids]
        named = {name: name for name in names if not only or block.declared.vocabulary.knows(name)}
    found = {name: _label_cells(block, column) for column, name in named.items()}
    grouped = pd.DataFrame(found).groupby(block.keys(), sort=True)
    merged = grouped.max()
    if rule.rows_per_image != "any":
        differs = (grouped.min() != merged).fillna(value=False).any(axis=1)
        if differs.any():
            raise TableError(
                f"{block.where}: two rows say different things of {merged.index[differs.to_numpy()][0]}",
                hint='correct the table, or say rows_per_image = "any" in the dataset\'s file',
            )
    return merged, None


def _label_cells(block: _Labels, column: str) -> pd.Series:
    cells = _column(block.frame, column, block.place, block.where)
    meanings = block.rule.values  # noqa: PD011  # a field of the rule, not of a data frame
    unknown = cells[cells.notna() & ~cells.isin(list(meanings))]
    if len(unknown) and "*" not in meanings:
        raise TableError(
            f"{block.where}, row {int(str(unknown.index[0])) + 1}, column {column!r}: {unknown.iloc[0]!r} is no label",
            hint=f"expected one of {', '.join(meanings)}, or a blank",
        )
    mapped = cells.map(meanings)
    return mapped.where(mapped.notna() | cells.isna(), meanings.get("*")).astype("Int8")


def _in_list(block: _Labels) -> tuple[pd.DataFrame, pd.Series | None]:
    names = block.of(block.rule.names, "names").set_axis(block.keys().to_numpy(), axis=0)
    stated = names[names.notna()]
    said = stated.explode()
    said = said[~said.isin(["", *block.declared.vocabulary.not_observations])]
    values = _wide(pd.DataFrame({"key": said.index, "name": said.to_numpy()}), names.index, block.rule.absent)
    # A cell that is blank says nothing, not that nothing is there.
    values[~values.index.isin(stated.index)] = pd.NA
    return values, stated.groupby(level=0).agg(lambda cells: [one for cell in cells for one in cell])


def _in_rows(block: _Labels) -> tuple[pd.DataFrame, pd.Series | None]:
    names = block.of(block.rule.name, "name")
    names = names.mask(names.isin(["", *block.declared.vocabulary.not_observations]))
    keys = block.keys()
    values = _wide(pd.DataFrame({"key": keys, "name": names}), keys, block.rule.absent)
    words = None if block.readers is not None else names.groupby(keys).agg(lambda cells: [*cells.dropna()])
    return values, words


_SHAPES: Final[Mapping[str, Callable[[_Labels], tuple[pd.DataFrame, pd.Series | None]]]] = {
    "columns": _in_columns,
    "list": _in_list,
    "rows": _in_rows,
    "class": _in_rows,
}


def _observations(
    declared: Declaration, values: pd.DataFrame, place: str
) -> tuple[dict[str, pa.Array], dict[str, tuple[pa.Array, str]]]:
    """The shared columns, and the dataset's own with what each means. Raises ``ConfigError`` for an unknown name."""
    rules = declared.vocabulary
    shared: dict[str, pd.Series] = {}
    own: dict[str, tuple[pd.Series, str]] = {}
    for name in values.columns:
        known = rules.shared(name)
        if known is None and name not in rules.own and name not in rules.under and not rules.open:
            raise ConfigError(
                f"{place}: the vocabulary of {declared.name} does not know {name!r}",
                hint="declare it under [vocabulary.same] or [vocabulary.own], or say open = true",
            )
        column = values[name]
        if known is not None:
            stem = f"label_{known[0]}"
            shared[stem] = column if stem not in shared else _either(shared[stem], column)
        if known is None or known[1]:
            key = rules.column(name)
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


def _add(
    about: pd.DataFrame,
    columns: dict[str, pa.Array],
    own: dict[str, tuple[pa.Array, str]],
    boxes: dict[str, list[dict[str, Any]]],
    gathered: LabelRows,
) -> None:
    rows = len(about)
    ids = about.index.to_list()
    facts: dict[str, pa.Array] = {"image_id": pa.array(ids, pa.string())}
    for name in ("patient_id", "study_id", "path_raw"):
        facts[name] = pa.array(about[name], pa.string(), from_pandas=True)
    for name in ("view", "projection", "view_raw", "split", "sex", "age_flag"):
        facts[name] = pa.array(about[name].astype(object), pa.string(), from_pandas=True).cast(CATEGORY)
    facts["age_years"] = pa.array(about["age_years"], pa.float32(), from_pandas=True)
    for name, kind in (("orig_width", pa.int32()), ("orig_height", pa.int32()), ("follow_up", pa.int16())):
        facts[name] = pa.array(about[name].round(), pa.float64(), from_pandas=True).cast(kind)
    # Once for each image, whoever labelled it: the manifest takes an image's boxes from any of its rows.
    facts["boxes"] = pa.array([boxes.pop(image, None) for image in ids], pa.list_(BOX))
    gathered.add(rows, {**facts, **columns}, {}, own=own)
