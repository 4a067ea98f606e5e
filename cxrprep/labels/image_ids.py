"""Which image, study or patient a row of a declared table speaks of, also where a program saved the id in another form.

The group ``id`` of ``[paths]`` says how ids look. A cell that looks otherwise is read where one id alone can be meant:
a path, an ending of a file, other capitals, a number's ``.0``. What cannot be an id is said with its line.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.datasets.catalog import is_built_in
from cxrprep.datasets.declared import layout_of
from cxrprep.datasets.patterns import compiled, group_in
from cxrprep.labels.declared_columns import TableRead, named_columns
from cxrprep.labels.declared_values import DeclaredValue, are_texts, texts
from cxrprep.labels.text_table import are_plain, first_true, plain_form

if TYPE_CHECKING:
    from cxrprep.datasets.declaration import Declaration

_ENDING: Final = re.compile(r"(?:\.0|\.(?:png|jpe?g|dcm|dicom|tiff?|gz))+$")
# What a spreadsheet makes of ids when it opens a CSV, and saves: nobody can tell what they were.
_MONTH: Final = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_BROKEN: Final = (
    (r"(?i)^\d(?:[.,]\d+)?e\+\d{2}$", "a number that a spreadsheet cut short: the digits of the id are gone"),
    (
        rf"(?i)^(?:\d{{1,2}}-{_MONTH}(?:-\d{{2,4}})?|{_MONTH}-\d{{2}})$",
        "a date, as a spreadsheet makes of ids such as 3-1",
    ),
)
_ANEW: Final = "fetch the table again, or export it anew, and open it with this column as text"
_SAY_SO: Final = "; where ids do look so, say it by a match in the dataset's file"
# Behind an id: endings of files, and what a number has that was taken for a measure.
_BEHIND: Final = r"(?:\.[A-Z]+|\.0)*[\"']?$"
# Before it: folders, or what a spreadsheet puts around text. Not any sign: 05 is no id in 5.58e+05.
_BEFORE: Final = r"(?:^|[/\\=\"' ])"


@dataclass(frozen=True, slots=True)
class IdColumn(DeclaredValue):
    """The id that a block of a declaration takes from the rows of a table."""

    declared: Declaration

    def images(self) -> pd.Series:
        """The image of each row; of a path with folders the id in it, as ``[paths]`` finds it."""
        if self.frame is not self.where.cells:
            return self._composed(self._images())
        if repr(self.value) not in self.where.ids:
            self.where.ids[repr(self.value)] = self._composed(self._images())
        return self.where.ids[repr(self.value)]

    def _composed(self, ids: pd.Series) -> pd.Series:
        """The ids with each accent in its letter, as ``[paths]`` gives them; those of built-in datasets have none."""
        if is_built_in(self.declared.name):
            return ids
        return ids.map(lambda one: one if one.isascii() else unicodedata.normalize("NFC", one), na_action="ignore")

    def _images(self) -> pd.Series:
        form = group_in(self.declared.paths.image, "id")
        whole = f"^(?:{form})$"
        cells = self.matched_text()
        # Nothing is to be done for ids of the declared form, as nearly all are.
        if cells is not None and are_plain(cells, whole) and not pc.any(pc.match_substring(cells, "/")).as_py():
            return pd.Series(cells.to_numpy(zero_copy_only=False), self.frame.index, dtype=object)
        series = _ids_in_paths(self.declared, self._values())
        strange = ~_have_form(series, whole)
        if not strange.any():
            return series
        pattern = f"(?i){_BEFORE}({form}){_BEHIND}"
        known = series.where(~strange, None)
        return self._read_otherwise(known, (series, self._cells(series)), pattern, whole, strange)

    def known_images(self, images: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
        """The image of each row, and its place in ``images``, what is known of the dataset's images by id; or -1.

        Where the dataset's ids have no form of their own, also of a cell that has other capitals, folders or an ending
        more than the only image that it can mean.
        """
        ids = self.images()
        places = places_of(ids, images)
        known = places >= 0
        if known.all() or is_built_in(self.declared.name):
            return ids, places
        called: dict[str, str | None] = {}
        for image in images.index:
            plain = _plain(image)
            called[plain] = None if plain in called else image
        meant = ids[~known].dropna().map(lambda cell: called.get(_plain(cell))).dropna()
        if meant.empty:
            return ids, places
        _say_how_read(meant, ids, self.column, self.where)
        ids = ids.copy()
        ids[meant.index] = meant
        return ids, places_of(ids, images)

    def owners(self) -> pd.Series:
        """The patient or study of each row."""
        made = self._composed(self._values())
        if not isinstance(self.value, dict) or "match" not in self.value or not made.isna().any():
            return made
        cells = self._cells(made)
        lost = made.isna() & cells.notna()
        if not lost.any():
            return made
        match = self.value["match"]
        return self._read_otherwise(made, (cells,), f"(?i){match}", plain_form(match), lost)

    def _values(self) -> pd.Series:
        """What the rules of the declaration make of the cells. Raises ``TableError`` for what a spreadsheet broke."""
        made = self.cells()
        # Who says by a pattern how ids look means such dates; the patterns of built-in datasets let neither pass.
        matched = isinstance(self.value, dict) and "match" in self.value
        if matched and is_built_in(self.declared.name):
            return made
        cells = made.to_numpy(object)
        found = pa.array(cells, pa.string(), from_pandas=True) if are_texts(cells) else pa.array([], pa.string())
        row = first_true(pc.match_substring_regex(found, "|".join(form for form, _ in _BROKEN)))
        cut_short = row >= 0 and re.search(_BROKEN[0][0], made.iloc[row])
        if cut_short or (row >= 0 and not matched):
            what = f"{self.place}: {made.iloc[row]!r} is {broken_by_spreadsheet(made.iloc[row])}"
            raise self.where.error(made.index[row], self.column, what, _ANEW if cut_short else _ANEW + _SAY_SO)
        return made

    def _cells(self, otherwise: pd.Series) -> pd.Series:
        """The cells themselves, of an id that is taken from one column."""
        alone = len(set(named_columns(self.value))) == 1 and self.column in self.frame
        return DeclaredValue(self.frame, self.column, self.place, self.where).cells() if alone else otherwise

    def _read_otherwise(
        self, ids: pd.Series, texts: tuple[pd.Series, ...], pattern: str, form: str, lost: pd.Series
    ) -> pd.Series:
        """The ids with those that texts of other forms mean.

        ``ids`` are null where nothing is known; ``texts`` are where an id may be found, best first; ``pattern`` finds
        it in any capitals, as its first group; ``form`` is how an id looks; ``lost`` are the rows that should have one.
        Raises ``TableError`` where none was found: for one's own dataset only where it is so in every row.
        """
        built_in = is_built_in(self.declared.name)
        find, whole = compiled(pattern, built_in=built_in), compiled(form, built_in=built_in)
        found = pd.Series(None, ids.index[lost], dtype=object)
        for text in texts:
            meant = {cell: _id_in(cell, find, whole) for cell in text[lost].dropna().unique()}
            found = found.where(found.notna(), text[lost].map(meant))
        cells = texts[-1]
        _say_how_read(found.dropna(), cells, self.column, self.where)
        rest = found.index[found.isna()]
        if len(rest):
            said = "this cell is blank" if pd.isna(cells.loc[rest[0]]) else f"{cells.loc[rest[0]]!r} is not one"
            if built_in or len(rest) == len(ids):
                hint = f"fetch the table again, or correct the cell; an image's path is {self.declared.paths.image}"
                raise self.where.error(rest[0], self.column, f"{self.place} of {self.declared.name}: {said}", hint)
            self.where.notes.append(
                f"{self.place}: {len(rest):,} cells hold none, and are left out; the first: "
                f"{self.where.place_of(rest[0])}, column {self.where.spelled.get(self.column, self.column)!r}"
            )
        return ids.astype(object).where(~lost, found.reindex(ids.index))


def broken_by_spreadsheet(word: str) -> str:
    """What a spreadsheet made of an id, where that is plain; else nothing."""
    return next((what for form, what in _BROKEN if re.search(form, word)), "")


def _id_in(cell: str, find: re.Pattern[str], whole: re.Pattern[str]) -> str | None:
    """The id in a cell, in its own capitals or in others."""
    found = find.search(cell)
    spelled = (found[1], found[1].lower(), found[1].upper()) if found else ()
    return next((one for one in spelled if whole.search(one)), None)


def _say_how_read(found: pd.Series, cells: pd.Series, column: str, where: TableRead) -> None:
    if len(found):
        row = found.index[0]
        named = where.spelled.get(column, column)
        note = f"column {named!r}: {len(found):,} ids are read as {found.loc[row]} is for {cells.loc[row]}"
        if note not in where.notes:
            where.notes.append(note)


def _have_form(ids: pd.Series, form: str) -> pd.Series:
    cells = pa.array(ids.to_numpy(object), pa.string(), from_pandas=True)
    matched = pc.fill_null(pc.match_substring_regex(cells, form), fill_value=False)
    return pd.Series(matched.to_numpy(zero_copy_only=False), ids.index, dtype=bool)


def _ids_in_paths(declared: Declaration, series: pd.Series) -> pd.Series:
    cells = series.to_numpy(object)
    if are_texts(cells) and not pc.any(pc.match_substring(pa.array(cells, pa.string(), from_pandas=True), "/")).as_py():
        return series
    paths = dict.fromkeys(cell for cell in cells if isinstance(cell, str) and "/" in cell)
    found: dict[str, str] = {}
    # measured: 7.6 -> 3.4 s of CPU for the 223,414 paths of CheXpert, which were looked at one by one.
    for end in ("", *declared.images.suffixes):
        # Behind an ending there is no other: ``\w+\.png`` would find an image called dcm in a1.dcm.png.
        asked = [cell for cell in paths if cell not in found and not (end and _ENDING.search(cell.lower()))]
        ids = _ids_by(declared, [cell + end for cell in asked])
        found |= {cell: image for cell, image in zip(asked, ids, strict=True) if image is not None}
    return texts((found.get(cell, cell) for cell in cells), series.index) if found else series


def _ids_by(declared: Declaration, paths: list[str]) -> list[str | None]:
    """The id in each path, as ``[paths]`` finds it."""
    try:
        groups = pc.extract_regex(pa.array(paths, pa.string()), declared.paths.image)
        return pc.struct_field(groups, "id").to_pylist()  # type: ignore[no-any-return]  # Arrow's
    except pa.ArrowInvalid:
        # It knows no group without a name.
        layout = layout_of(declared)
        return [None if (found := layout.parse(path)) is None else found.image for path in paths]


def places_of(ids: pd.Series, images: pd.DataFrame) -> pd.Series:
    """The place of each id in the images', which are looked up by the same index each time; -1 where it is none."""
    return pd.Series(images.index.get_indexer(pd.Index(ids, dtype=object)), index=ids.index)


def _plain(image: str) -> str:
    """What an id has in common with itself as another program wrote it."""
    return _ENDING.sub("", re.split(r"[\\/]", image)[-1].casefold())
