"""Tables of NIH ChestX-ray14: what its file cannot say of them; all else is read as the file declares it.

The published headers have commas in names, the two findings tables differ in their ages whatever they are called,
Google's labels circulate apart and joined, and an image's name says whose it is.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import TableError
from cxrprep.labels import declared
from cxrprep.labels.columns import count_true, whole
from cxrprep.labels.declared_tables import Hook
from cxrprep.labels.text_table import TextTable, first_true, with_words
from cxrprep.vocabulary import NIH, slug

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cxrprep.labels.label_rows import LabelRows
    from cxrprep.labels.locate_tables import Tables

_FINDINGS: Final = {"v2020": "Data_Entry_2017_v2020.csv", "2017": "Data_Entry_2017.csv"}
_FINDING: Final = {slug(name): name for name in NIH.names}
_SEVEN: Final = (
    "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Sex", "View Position",
)  # fmt: skip
# The published header has unquoted commas in two names; this is how every CSV reader sees them.
_SIZES: Final = ("OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]")
# Each field by its letters and digits, which is all that R and databases leave of it.
_FIELDS: Final = {slug(name): (name,) for name in (*_SEVEN, *_SIZES)} | {
    "patient_gender": ("Patient Sex",), "originalimage_width_height": _SIZES[:2],
    "originalimagepixelspacing_x_y": _SIZES[2:],
}  # fmt: skip


def read(tables: Tables, label_rows: LabelRows) -> None:
    """Add the rows that these tables give: one per image, and one more per image that Google's readers saw."""
    declared.read(tables, label_rows, Hook(_header, _arranged, _checked))


def _header(table: str, names: list[str]) -> list[str]:
    if table.startswith("BBox"):
        return _boxes_header(names)
    # The header of all_findings_expert_labels was never published verbatim.
    fields = _FIELDS | {"image_id": ("Image Index",)} if table.startswith("all_") else _FIELDS
    split = [field for name in names for field in fields.get(slug(name), (name,))]
    # Names bind by position after the first seven, whatever a mirror made of the commas in them.
    if tuple(split[:7]) == _SEVEN and len(split) >= 11 and split[7].startswith("OriginalImage"):
        split[7:11] = _SIZES
    return split


def _boxes_header(names: list[str]) -> list[str]:
    words = [slug(name) for name in names]
    place = next((n for n, word in enumerate(words) if word.startswith("bbox")), -1)
    if place < 0:
        return names
    # The bracket may be one field or four; the three empty ones behind it stand for no column.
    rest = names[words.index("h") + 1 :] if "h" in words else names[place + 1 :]
    return [*names[:place], "x", "y", "w", "h", *filter(None, rest)]


def _arranged(tables: dict[str, TextTable], label_rows: LabelRows) -> dict[str, TextTable]:
    """The findings under the name of the release that they are of, and of Google's tables those that count."""
    joined = next((name for name in tables if name.startswith("google2019")), "")
    if joined and any(name.startswith("four_findings") for name in tables):
        subject = str(tables.pop(joined).path)
        label_rows.note("not used: Google's own tables, which it combines, are here", subject)
    found = next((name for name in _FINDINGS.values() if name in tables), "")
    if not found:
        return tables
    table = _with_bars(tables.pop(found))
    label_rows.release = _release(table, label_rows)
    return {_FINDINGS[label_rows.release]: table, **tables}


def _with_bars(table: TextTable) -> TextTable:
    """The table with bars between findings that are joined by other signs, or written as a list of Python."""

    def joined(cell: str | None) -> str | None:
        words = [slug(word) for word in re.split(r"[,;|]", cell or "")]
        return "|".join(_FINDING[word] for word in words) if _FINDING.keys() >= {*words} else cell

    def respelled(cells: pa.Array) -> pa.Array:
        return pa.array([joined(cell) for cell in cells.to_pylist()], cells.type)

    columns = with_words(table.columns, "Finding Labels", respelled)
    said = () if columns is table.columns else ("column 'Finding Labels': its lists are read as findings joined by |",)
    return replace(table, columns=columns, notes=(*table.notes, *said))


def _release(table: TextTable, label_rows: LabelRows) -> str:
    """The release whose table this is, by how it writes ages; names say it too, and people rename.

    Raises ``TableError`` where another release was asked for.
    """
    of_2017 = pc.match_substring_regex(table.text("Patient Age"), r"^\d+[YMD]$")
    release = "2017" if 2 * count_true(of_2017) > table.rows else "v2020"
    if release == label_rows.release:
        return release
    message = f"this is the table of release {release} under the name of that of {label_rows.release}"
    if label_rows.release_stated:
        raise TableError(
            f"{table.path}: {message}", hint=f"leave out --release, or fetch the table of {label_rows.release}"
        )
    label_rows.note(message, str(table.path), "warning")
    return release


def _checked(tables: Mapping[str, TextTable]) -> None:
    """Refuse a row whose image belongs to another patient than it says."""
    for table in (tables[name] for name in _FINDINGS.values() if name in tables):
        names = table.text("Image Index")
        patient = pc.utf8_slice_codeunits(names, 0, 8)
        # measured: 0.026 -> 0.008 s of CPU for the release: its numbers need no other look than this one.
        if pc.all(pc.equal(pc.utf8_lpad(table.text("Patient ID"), 8, "0"), patient), skip_nulls=False).as_py():
            continue
        stated = table.translated("Patient ID", lambda text: f"{whole(text):08d}", pa.string(), "no patient number")
        row = first_true(pc.not_equal(stated, patient))
        if row >= 0:
            raise table.error(row, "Patient ID", f"the image {names[row]} belongs to patient {patient[row]}")
