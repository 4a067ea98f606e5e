"""Tables of a declared dataset as rows: CSV, lists of names, JSON, COCO, XML documents, and files themselves."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar
from xml.etree import ElementTree as ET

import pandas as pd
import pyarrow.compute as pc

from cxrprep.datasets.catalog import is_built_in
from cxrprep.datasets.declaration import MANY_FILES, CellRule, Declaration, DeclaredTable, tables_of
from cxrprep.datasets.patterns import compiled
from cxrprep.errors import ConfigError, TableError
from cxrprep.humanize import format_count
from cxrprep.labels.columns import first_of_each
from cxrprep.labels.csv_table import Form, line_of_name, read_names, read_table
from cxrprep.labels.csv_text import AS_IT_STANDS, Written, digest_of
from cxrprep.labels.declared_columns import TABLE, TableRead, columns_as_they_stand, columns_of, columns_of_blocks
from cxrprep.labels.declared_values import categories_of
from cxrprep.labels.joins import all_distinct
from cxrprep.labels.text_table import TextTable, are_plain, first_true, plain_form
from cxrprep.model import Digest
from cxrprep.storage.small_files import MAX_BYTES, parse_json, read_file, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from cxrprep.labels.label_rows import LabelRows
    from cxrprep.labels.locate_tables import Tables

_NO_BOX: Final = dict.fromkeys(("box_x", "box_y", "box_w", "box_h", "score"))
_WINDOWS_PATH: Final = re.compile(r"\\.*\.(png|jpe?g|dcm|dicom|txt)$", re.IGNORECASE)
_PICTURE: Final = re.compile(r"\w\.(png|jpe?g|dcm|dicom|img|tiff?)$", re.IGNORECASE)
_AGAIN: Final = "fetch the table again, or correct the dataset's file if it is of another form"
_Block = TypeVar("_Block", bound=Any)


@dataclass(frozen=True, slots=True)
class TablesHere:
    """The tables of a declared dataset that are in a folder, by their names in the declaration, and where rows go."""

    declared: Declaration
    by_name: Mapping[str, TableRead]
    label_rows: LabelRows

    def of(self, blocks: Iterable[_Block]) -> Iterator[tuple[_Block, str, TableRead]]:
        """Each block of the declaration with each of its tables that is here, and the table's name."""
        here = self.by_name
        return ((block, name, here[name]) for block in blocks for name in tables_of(block.table) if name in here)

    def count(self, table: TableRead, role: str, used: pd.Series, apart: str, *, source: str = "") -> None:
        """Remember what became of a table's rows.

        Args:
            table: The table.
            role: What the dataset takes it for.
            used: Whether each row was used.
            apart: Why the others were not, with ``_`` for spaces.
            source: The label source that its rows are of.
        """
        count = int(used.sum())
        reasons = {apart.replace(" ", "_"): len(used) - count}
        self.label_rows.use_file(table.path, table.digest, role, rows=len(used), used=count, source=source, **reasons)

    def note_cells(self, table: TableRead) -> None:
        """Note what a person should know of a table's cells, once."""
        while table.notes:
            self.label_rows.note(table.notes.pop(0), str(table.path), "warning")


def _as_it_is(table: str, names: list[str]) -> list[str]:
    del table
    return names


@dataclass(frozen=True, slots=True)
class Hook:
    """What no file says of a dataset of this package: its module's own functions, called as tables are read.

    ``header`` gets a table's name and the fields of its header, and returns the names of its columns; ``arranged`` gets
    the CSV tables by name as they stand, ``checked`` those whose cells are what the file says.
    """

    header: Callable[[str, list[str]], list[str]] = _as_it_is
    arranged: Callable[[dict[str, TextTable], LabelRows], dict[str, TextTable]] = lambda tables, _: tables
    checked: Callable[[Mapping[str, TextTable]], None] = lambda _: None


def tables_here(declared: Declaration, tables: Tables, label_rows: LabelRows, hook: Hook | None = None) -> TablesHere:
    """The declared tables that are in a folder, read.

    Args:
        declared: The dataset.
        tables: Where they lie.
        label_rows: Told what was understood.
        hook: What the dataset's own module knows of them.

    Returns:
        Those that have rows.

    Raises:
        TableError: A table is not of its form.
    """
    here = {table.name: (table, paths) for table in declared.table if (paths := tables.all_of(table.name))}
    texts = _texts_here(declared, here, label_rows, hook or Hook())
    found: dict[str, TableRead] = {}
    for table in declared.table:
        path: Path
        rows, plain = None, dict[str, Any]()
        if table.name in texts:
            csv = texts[table.name]
            rows = csv.origin.to_pylist() if csv.origin is not None else None
            cells, digest, path, written = _frame(table, csv), csv.digest, csv.path, csv.written
            plain = {name: csv.text(name) for name in _distinct_columns(table) & {*csv.names}}
        elif table.name not in here or table.form == "csv":
            continue
        else:
            paths = here[table.name][1]
            path, written = paths[0], AS_IT_STANDS
            if table.form in MANY_FILES:
                cells, digest = _of_files(declared, table, paths, tables.bases)
            elif table.form == "names":
                names, digest = read_names(path)
                plain = {"name": _checked_names(table, names, path, label_rows)}
                cells = pd.DataFrame({"name": _objects(plain["name"])})
            else:
                cells, digest = _of_file(table, path)
        if cells.empty:
            label_rows.note("no rows", str(path), "warning")
            continue
        cells = cells.rename(columns=table.rename)
        plain = {table.rename.get(name, name): column for name, column in plain.items()}
        if table.blank:
            cells, plain = cells.mask(cells.isin(list(table.blank))), {}
        if TABLE not in cells.columns:
            cells[TABLE] = table.name
        spelled = {new: old for old, new in table.rename.items()}
        found[table.name] = TableRead(cells, path, digest, table.form, spelled, rows, written=written, plain=plain)
    return TablesHere(declared, found, label_rows)


def _of_file(table: DeclaredTable, path: Path) -> tuple[pd.DataFrame, Digest]:
    try:
        data = json_of(path)
        rows = list(_coco_rows(data) if table.form == "coco" else _json_rows(table, data, path))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path} is not the {table.form} that {table.name} declares: {error}", hint=_AGAIN) from error
    return pd.DataFrame(rows, dtype=object), digest_of(path)


def _checked_names(table: DeclaredTable, names: pa.Array, path: Path, label_rows: LabelRows) -> pa.Array:
    """The lines of a list, as its cells must be. Raises ``TableError`` with the line of anything else."""
    rule = table.cells.get("name", CellRule())
    plain = plain_form(rule.trim, rule.ending) if rule.trim else ""
    if plain and are_plain(names, plain):
        if plain == rule.match:
            return names
    elif plain:
        names = pc.replace_substring_regex(names, rule.trim, "\\1" + rule.ending.replace("\\", r"\\"))
    if not rule.match:
        return names
    wrong = pc.invert(pc.match_substring_regex(names, rule.match))
    if (row := first_true(wrong)) == 0 and len(names) > 1 and first_true(wrong[1:]) < 0:
        label_rows.note(f"its first line is a header, {names[0].as_py()[:80]!r}", str(path), "warning")
        return names[1:]
    if row >= 0:
        shown = repr(names[row].as_py()[:80])
        raise TableError(
            f"{path}, line {line_of_name(path, row)}: expected {rule.what} ({shown})", hint="fetch the list again"
        )
    return names


# ---- CSV ----


def _texts_here(
    declared: Declaration, here: Mapping[str, tuple[DeclaredTable, Sequence[Path]]], label_rows: LabelRows, hook: Hook
) -> dict[str, TextTable]:
    """The CSV tables as text, checked: each cell is what the declaration says."""
    csv = {name: (table, paths[0]) for name, (table, paths) in here.items() if table.form == "csv"}
    read = {name: _csv(declared, table, path, hook) for name, (table, path) in csv.items()}
    texts = hook.arranged(read, label_rows)
    for table in declared.table:
        if table.name in texts:
            _check_cells(table, texts[table.name])
            for note in texts[table.name].notes:
                label_rows.note(note, str(texts[table.name].path), "warning")
    hook.checked(texts)
    return texts


def _csv(declared: Declaration, table: DeclaredTable, path: Path, hook: Hook) -> TextTable:
    def header(names: list[str]) -> list[str]:
        if table.header and table.has_header and (data := next(filter(_PICTURE.search, names), "")):
            said = f"its first line has {data[:80]!r}, and is no header"
            raise TableError(f"{path}, line 1: {said}", hint="say has_header = false in the dataset's file")
        names = [*table.header, *([""] * (len(names) - len(table.header)))] if table.header else names
        return hook.header(table.name, names)

    spelled = {old: new for new, old in reversed(table.rename.items())}
    # The names that blocks ask for, as the file writes them.
    asked = (*columns_of_blocks(declared, table.name), *declared.vocabulary.names, *table.rename)
    wanted = tuple(dict.fromkeys(spelled.get(name, name) for name in asked))
    as_it_stands = {spelled.get(name, name) for name in columns_as_they_stand(declared, table.name)}
    written = Written(table.delimiter, () if table.has_header else table.header)
    # A word such as nan is no id of a stated form, and needs no look at it as a blank.
    plain = tuple(name for name, rule in table.cells.items() if rule.unique and rule.match and not rule.blank)
    form = Form((), optional=wanted, plain=plain, header=header, open=True, multiline=True, written=written)
    if table.columns:
        form = Form(table.columns, optional=table.optional_columns, plain=plain, header=header, written=written)
    csv = read_table(path, form)
    for name in csv.names:
        csv = csv.without_edges(name) if name in wanted and name not in as_it_stands else csv
    for name, rule in table.cells.items():
        csv = csv.trimmed(name, rule.trim, rule.ending) if rule.trim and name in csv else csv
    if any(rule.unique and name in csv and not all_distinct(csv.text(name)) for name, rule in table.cells.items()):
        csv = _without_repeated_rows(csv)
    stated = dict.fromkeys(spelled.get(name, name) for name in columns_of(declared, table.name) if name != "all")
    gone = [repr(name) for name in stated if name not in csv and name not in table.optional_columns]
    if gone:
        csv = replace(csv, notes=(*csv.notes, f"columns that its dataset's file names are not here: {', '.join(gone)}"))
    return _with_slashes(csv)


def _without_repeated_rows(csv: TextTable) -> TextTable:
    """The table without rows that say in every column what one before them says."""
    kept = pc.indices_nonzero(first_of_each({name: csv.columns.column(name) for name in csv.names}))
    if not (left := csv.rows - len(kept)):
        return csv
    note = f"{format_count(left, 'row')} that repeat another one left out"
    return replace(csv.ordered(kept), notes=(*csv.notes, note))


def _check_cells(table: DeclaredTable, csv: TextTable) -> None:
    """Refuse a cell that is not what the declaration says."""
    for name, rule in table.cells.items():
        if name not in csv:
            continue
        if rule.match:
            csv.require_match(name, rule.match, f"expected {rule.what}", blank=rule.blank)
        elif not rule.blank:
            csv.require(name)
        if rule.unique:
            csv.require_unique(name)


def _frame(table: DeclaredTable, csv: TextTable) -> pd.DataFrame:
    """The cells, the columns that the declaration names in front."""
    stated = [name for name in (*table.columns, *table.optional_columns) if name in csv]
    names = dict.fromkeys((*stated, *csv.names))
    alone = _distinct_columns(table)
    return pd.DataFrame(
        {name: _objects(csv.text(name)) if name in alone else categories_of(csv.column(name)) for name in names}
    )


def _objects(column: pa.Array) -> pd.Series:
    return pd.Series(column.to_numpy(zero_copy_only=False), dtype=object)


def _distinct_columns(table: DeclaredTable) -> set[str]:
    """The columns whose cells all differ: they gain nothing from codes."""
    return {name for name, rule in table.cells.items() if rule.unique}


def _with_slashes(csv: TextTable) -> TextTable:
    """The table with ``/`` for each backslash of a path to an image: it was written on Windows."""
    notes = []
    for name in csv.names:
        first = csv.column(name)[0].as_py() or ""
        if _WINDOWS_PATH.search(first):
            csv = csv.with_slashes(name)
            notes.append(f"column {name!r}: backslashes are read as slashes")
    return replace(csv, notes=(*csv.notes, *notes))


# ---- JSON ----


def json_of(path: Path) -> Any:
    """The value in a file: one, or as many as lines (JSON lines) as a list. Raises ``ValueError``, ``TableError``."""
    try:
        text = read_text(path)
    except OSError as error:
        raise TableError(f"cannot read {path}: {error.strerror}", hint="make the file readable") from error
    try:
        return parse_json(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        return [parse_json(line) for line in lines]


def _cell(value: Any) -> Any:
    """A JSON value as a cell: text as it is, numbers and truth as JSON writes them, lists and objects themselves."""
    return value if value is None or isinstance(value, (str, list, dict)) else json.dumps(value)


def _json_rows(table: DeclaredTable, data: Any, path: Path) -> Iterator[dict[str, Any]]:
    """A row for each object: those of a list, or the leaves of objects whose keys become the columns ``keys``."""
    for step in filter(None, table.rows.split(".")):
        data = data[step]
    for stated, leaf in _leaves(data, table.keys, table.aside):
        row = {**stated, **({k: _cell(v) for k, v in leaf.items()} if isinstance(leaf, dict) else {"value": leaf})}
        lists = [row[name] for name in table.explode]
        if any(not isinstance(one, list) or len(one) != len(lists[0]) for one in lists):
            raise TableError(f"{path}: {', '.join(table.explode)} are not lists of one length in {stated}", hint=_AGAIN)
        for several in zip(*lists, strict=True) if lists else ((),):
            inner = {name: _cell(of) for one in several if isinstance(one, dict) for name, of in one.items()}
            yield row | {name: _cell(one) for name, one in zip(table.explode, several, strict=True)} | inner


def _leaves(data: Any, keys: Sequence[str], aside: Sequence[str]) -> Iterator[tuple[dict[str, Any], Any]]:
    if not keys:
        for leaf in data if isinstance(data, list) else [data]:
            yield {}, leaf
        return
    beside = {key: _cell(data[key]) for key in aside if key in data}
    for key, inner in data.items():
        if key in beside:
            continue
        if len(keys) == 1:
            yield {keys[0]: key, **beside}, inner
        else:
            for stated, leaf in _leaves(inner, keys[1:], aside):
                yield {keys[0]: key, **beside, **stated}, leaf


def _coco_rows(data: Any) -> Iterator[dict[str, Any]]:
    """A row for each annotation with its image's and its category's words; one for an image without any."""
    categories = {one["id"]: one["name"] for one in data.get("categories", ())}
    drawn: dict[Any, list[dict[str, Any]]] = {}
    for one in data.get("annotations", ()):
        drawn.setdefault(one["image_id"], []).append(one)
    for image in data["images"]:
        about = {name: _cell(value) for name, value in image.items()}
        for one in drawn.pop(image["id"], [{}]):
            row = {**_NO_BOX, **about, **{name: _cell(value) for name, value in one.items()}, "category": None}
            if one:
                row["category"] = categories[one["category_id"]]
                sides = zip("xywh", one["bbox"], strict=True) if one.get("bbox") else ()
                row |= {f"box_{side}": _cell(number) for side, number in sides}
            yield row
    if drawn:
        raise KeyError(f"annotations of images that it does not list: {sorted(map(str, drawn))[:3]}")


# ---- many files ----


def _of_files(
    declared: Declaration, table: DeclaredTable, paths: Sequence[Path], bases: Sequence[Path]
) -> tuple[pd.DataFrame, Digest]:
    """A row, or rows, for each file; the digest is of all their names and contents, in order."""
    whole = hashlib.sha256()
    rows: list[dict[str, Any]] = []
    wanted = tuple(columns_of_blocks(declared, table.name)) if table.form == "xml" else ()
    groups = compiled(table.groups, built_in=is_built_in(declared.name)) if table.groups else None
    for path in paths:
        row: dict[str, Any] = {"name": path.name, "path": _inside(path, bases)}
        # Of pictures the name is what counts: their bytes are verified as images are.
        data = _small(path) if table.form == "xml" or table.text or table.header else b""
        whole.update(path.name.encode() + b"\0" + hashlib.sha256(data).digest())
        if table.form == "xml":
            rows += _xml_rows(table, path, data, row, wanted)
            continue
        found = groups.search(row["path"]) if groups else None
        if groups and found is None:
            continue
        stated = {} if found is None else found.groupdict()
        text = data.decode("utf-8", "replace")
        rows += [
            {**row, **stated, **words, **({"text": text} if table.text else {})} for words in _lines(table, path, text)
        ]
    return pd.DataFrame(rows, dtype=object), Digest("sha256", whole.hexdigest())


def _lines(table: DeclaredTable, path: Path, text: str) -> Iterator[dict[str, str | None]]:
    """The words of each line under the names in ``header``; once none where there is no line, or no header."""
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()] if table.header else []
    if not lines:
        yield dict.fromkeys(table.header)
    for number, line in lines:
        words = line.split(table.delimiter.strip() or None)
        if len(words) != len(table.header):
            raise TableError(
                f"{path}, line {number}: {len(words)} words, and not {len(table.header)}: {', '.join(table.header)}",
                hint="correct the line, or header in the dataset's file",
            )
        yield dict(zip(table.header, words, strict=True))


def _inside(path: Path, bases: Sequence[Path]) -> str:
    """A path as seen from the folder that it was found below."""
    base = next(base for base in bases if path.is_relative_to(base))
    return path.relative_to(base).as_posix()


def _small(path: Path) -> bytes:
    try:
        data = read_file(path)
    except OSError as error:
        raise TableError(f"cannot read {path}: {error.strerror}", hint="make the file readable") from error
    if len(data) > MAX_BYTES:
        raise TableError(f"{path} is larger than {MAX_BYTES >> 20} MiB", hint="no report is that large: fetch it again")
    return data


def _xml_rows(
    table: DeclaredTable, path: Path, data: bytes, about: dict[str, Any], wanted: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """A row for each element that ``rows`` names; a column is a path (``@id``, ``MeSH/major``), as a list of texts.

    A path that begins with ``/`` is read from the document.
    """
    try:
        root = ET.fromstring(data)  # noqa: S314  # at most 1 MiB, and expat itself limits what entities make of it
        for element in [root] if table.rows in ("", ".") else root.iterfind(f".//{table.rows}"):
            cells = {name: _texts(root if name.startswith("/") else element, name.lstrip("/")) for name in wanted}
            yield {**about, **{name: texts or None for name, texts in cells.items()}}
    except ET.ParseError as error:
        raise TableError(f"{path}: {error}", hint="fetch the file again: its XML is incomplete") from error
    except SyntaxError as error:
        raise ConfigError(f"[[table]] {table.name}: a path that ElementTree does not know: {error}") from error


def _texts(element: ET.Element, path: str) -> list[str]:
    """The texts, or the values of an attribute, that a path leads to; blank ones are left out."""
    path, _, attribute = path.rpartition("@") if re.search(r"(^|/)@[\w:-]+$", path) else (path, "", "")
    found = element.iterfind(path.rstrip("/")) if path.rstrip("/") not in ("", ".") else [element]
    texts = (one.get(attribute) if attribute else "".join(one.itertext()) for one in found)
    return [text.strip() for text in texts if text and text.strip()]
