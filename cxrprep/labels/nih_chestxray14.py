"""Reads the tables of NIH ChestX-ray14: findings (of 2017, or corrected in 2020), boxes, split lists, Google's labels.

Absence of a finding means "not mined from the report" and is 0, as the release means it. The two findings tables differ
on purpose: every row says which one it comes from. Rows are joined on the image's name alone, since v2020 renumbered
24,106 follow-ups and Google's tables agree with neither in ages and follow-ups.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import TableError
from cxrprep.labels.columns import categories, coded, constant, count_true, first_of_each, projection_of, sex, whole
from cxrprep.labels.csv_table import Form, read_names, read_table
from cxrprep.labels.joins import positions
from cxrprep.labels.text_table import TextTable, first_true
from cxrprep.schemas import BOX, CATEGORY
from cxrprep.vocabulary import GOOGLE_FOUR, NIH

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cxrprep.labels.label_rows import LabelRows
    from cxrprep.labels.locate_tables import Tables
    from cxrprep.model import Digest

_NAMES: Final = (
    "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Sex", "View Position",
)  # fmt: skip
# The published header has unquoted commas in two names; this is how every CSV reader sees them.
_SIZES: Final = ("OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]")
_IMAGE: Final = r"^\d{8}_\d{3}\.png$"
_IN_A_FOLDER: Final = r"^.*[/\\](\d{8}_\d{3}\.png)$"
_IMAGE_FORM: Final = "expected an image name such as 00000001_000.png"
_OLDEST: Final = 100
_READERS: Final = {"YES": 1, "NO": 0, "HEDGE": -1, "1": 1, "0": 0, "1.0": 1, "0.0": 0}
# How all_findings_expert_labels may spell its columns; its header was never published verbatim.
_GOOGLE_IMAGE: Final = ("Image Index", "Image ID", "image_id", "Image_ID", "image id")


def _findings_header(names: list[str]) -> list[str]:
    """Names bind by position after the first seven, whatever a mirror made of the commas in them."""
    names = ["Patient Sex" if name == "Patient Gender" else name for name in names]
    split: list[str] = []
    for name in names:
        if re.match(r"OriginalImage\[Width,\s*Height\]$", name):
            split += _SIZES[:2]
        elif re.match(r"OriginalImagePixelSpacing\[x,\s*y\]$", name):
            split += _SIZES[2:]
        else:
            split.append(name)
    if tuple(split[:7]) == _NAMES and len(split) >= 11 and split[7].startswith("OriginalImage"):
        split[7:11] = _SIZES
    return split


def _boxes_header(names: list[str]) -> list[str]:
    place = next((n for n, name in enumerate(names) if name.startswith("Bbox")), -1)
    if place < 0:
        return names
    # The bracket may be one field or four; the three empty ones behind it stand for no column.
    rest = names[names.index("h]") + 1 :] if "h]" in names else names[place + 1 :]
    return [*names[:place], "x", "y", "w", "h", *filter(None, rest)]


_FINDINGS: Final = Form((*_NAMES, *_SIZES), plain=("Image Index",), header=_findings_header)
_BOXES: Final = Form(("Image Index", "Finding Label", "x", "y", "w", "h"), header=_boxes_header)
_FOUR: Final = Form(
    ("Image Index", *GOOGLE_FOUR.names),
    optional=(*_NAMES, *_SIZES, "Set Id", "Patient ID"),
    plain=("Image Index",),
    header=_findings_header,
)


def read(tables: Tables, label_rows: LabelRows) -> None:
    """Add the rows that these tables give: one per image, and one more per image that Google's readers saw."""
    findings = [(entry, path) for entry, path in tables.of_role("labels") if entry.label_source == "nih-textmined"]
    if not findings:
        raise TableError(
            f"{tables.files[0][1].parent} holds no findings table of NIH ChestX-ray14",
            hint="download Data_Entry_2017_v2020.csv, or name its folder with --tables DIR",
        )
    path = findings[0][1]
    table = _bare_names(read_table(path, _FINDINGS))
    label_rows.release = _release(table, label_rows)
    # Put in order before there are sixty columns of it: an image's name begins with its patient.
    table = table.ordered(pc.sort_indices(table.text("Image Index")))
    columns = _images(table, label_rows.release)
    names = table.text("Image Index")
    columns["split"] = _splits(tables, names, label_rows)
    attributes = dict(columns)
    columns["boxes"] = _boxes(tables, names, label_rows)
    columns |= _findings(table)
    columns |= _origin("nih-textmined", table)
    label_rows.use(table, "labels", used=table.rows, source="nih-textmined")
    raw = {name: table.column(name) for name in (*_NAMES, *_SIZES, *table.extra)}
    label_rows.add(table.rows, columns, raw, plain=("Image Index",))
    google = [(other, where) for other, where in tables.of_role("labels") if other.label_source.startswith("google")]
    apart = {where for other, where in google if other.name.startswith("four_findings")}
    for other, where in google:
        if apart and other.name.startswith("google2019"):
            label_rows.note("not used: the tables of Google that it joins are here themselves", str(where))
            continue
        everything = other.label_source == "google-adjudicated-all"
        found = _all_findings(where) if everything else read_table(where, _FOUR)
        _add_google(found, other.label_source, names, attributes, label_rows)


def _bare_names(table: TextTable) -> TextTable:
    """The table with images by their names alone: people put the folder of their copy before them."""
    first = table.column("Image Index")[0].as_py() or ""
    return table.trimmed("Image Index", _IN_A_FOLDER) if "/" in first or "\\" in first else table


def _bare_list(path: Path) -> tuple[pa.Array, Digest]:
    """The image names of a list. Raises ``TableError`` with the line of anything else."""
    names, digest = read_names(path)
    names = pc.replace_substring_regex(names, _IN_A_FOLDER, r"\1")
    row = first_true(pc.invert(pc.match_substring_regex(names, _IMAGE)))
    if row >= 0:
        raise TableError(
            f"{path}, line {row + 1}: {_IMAGE_FORM} ({names[row].as_py()[:80]!r})", hint="fetch the list again"
        )
    return names, digest


def _origin(source: str, table: TextTable) -> dict[str, pa.Array]:
    return {
        "label_source": constant(source, table.rows),
        "table_name": constant(table.path.name, table.rows),
        "table_digest": constant(str(table.digest), table.rows),
    }


def _images(table: TextTable, release: str) -> dict[str, pa.Array]:
    """What the table says of each image, findings apart."""
    for name in _NAMES[1:]:
        table.require(name)
    table.require_match("Image Index", _IMAGE, _IMAGE_FORM)
    names = table.text("Image Index")
    # The rows stand in the order of their images, so an image that stands there twice has itself for a neighbour.
    if pc.any(pc.equal(names[1:], names[:-1])).as_py():
        table.require_unique("Image Index")
    image = pc.binary_slice(names.cast(pa.binary()), 0, 12).cast(pa.string())
    patient = pc.binary_slice(names.cast(pa.binary()), 0, 8).cast(pa.string())
    stated = table.translated("Patient ID", lambda text: f"{whole(text):08d}", pa.string(), "expected a patient number")
    if not pc.all(pc.equal(stated, patient)).as_py():
        row = first_true(pc.invert(pc.equal(stated, patient)))
        raise table.error(row, "Patient ID", f"the image {names[row]} belongs to patient {patient[row]}")
    views = table.mapped("View Position", {"PA": "PA", "AP": "AP"}, CATEGORY, "expected PA or AP")
    pixels = {"kind": pa.int32(), "what": "expected a whole number of pixels"}
    return {
        "image_id": image,
        "patient_id": patient,
        "study_id": image,
        "path_raw": names,
        "view": views,
        "projection": projection_of(views),
        "view_raw": categories(table.column("View Position")),
        "sex": sex(table, "Patient Sex"),
        **_ages(table, release),
        "follow_up": table.translated("Follow-up #", whole, pa.int16(), "expected a follow-up number"),
        "orig_width": table.translated(_SIZES[0], whole, **pixels),
        "orig_height": table.translated(_SIZES[1], whole, **pixels),
        "pixel_spacing_mm": table.translated(_SIZES[2], _positive, pa.float32(), "expected a spacing in mm"),
    }


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value


def _years_2017(text: str) -> float:
    number, unit = int(text[:-1]), text[-1]
    return number / {"Y": 1, "M": 12, "D": 365}[unit]


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


def _ages(table: TextTable, release: str) -> dict[str, pa.Array]:
    """Years, and a flag where the published age cannot be one. 2017 writes 058Y, 018M, 001D; v2020 whole years."""
    what = "expected an age such as 058Y" if release == "2017" else "expected an age in years"
    reader: Any = _years_2017 if release == "2017" else lambda text: float(whole(text))
    years = table.translated("Patient Age", reader, pa.float32(), what)
    too_old = pc.greater(years, _OLDEST)
    return {
        "age_years": pc.if_else(too_old, None, years),
        "age_flag": pc.if_else(too_old, "implausible", None),
    }


def _findings(table: TextTable) -> dict[str, pa.Array]:
    """One int8 column per finding, 1 or 0, and the words themselves."""
    known = {term.name: term.column for term in NIH.terms}

    def words(text: str) -> list[str]:
        found = text.split("|")
        if any(word not in known for word in found) or ("No Finding" in found and len(found) > 1):
            raise ValueError(text)
        return found

    what = f"expected findings joined by |, of: {', '.join(NIH.names)}; No Finding stands alone"
    raw = table.translated("Finding Labels", words, pa.list_(pa.string()), what)
    column = table.column("Finding Labels")
    cells = [set(text.split("|")) for text in column.dictionary.to_pylist()]
    columns = {
        known[name]: pa.array([int(name in cell) for cell in cells], pa.int8()).take(column.indices) for name in known
    }
    return {**columns, "labels_raw": raw}


def _splits(tables: Tables, names: pa.Array, label_rows: LabelRows) -> pa.Array:
    """The released lists as a column. An image in two lists is an error; one in none has no split, and is counted."""
    lists = tables.of_role("split")
    if not lists:
        label_rows.note(
            "no split lists are here (train_val_list.txt, test_list.txt): the split is not stated", "", "warning"
        )
        return pa.nulls(len(names), CATEGORY)
    split = np.full(len(names), -1, np.int8)
    read = [_bare_list(path) for _, path in lists]
    places = positions(pa.concat_arrays([listed for listed, _ in read]), names)
    begins = 0
    for code, ((_, path), (listed, digest)) in enumerate(zip(lists, read, strict=True)):
        place = places.slice(begins, len(listed))
        begins += len(listed)
        rows = place.drop_null().to_numpy()
        if (split[rows] >= 0).any():
            raise _listed_twice(listed, place, split, path, [other.name for _, other in lists[:code]])
        split[rows] = code
        label_rows.use_file(
            path,
            digest,
            "split",
            rows=len(listed),
            used=len(rows),
            name_images_that_the_findings_table_lacks=place.null_count,
        )
    unlisted = int((split < 0).sum())
    if unlisted:
        label_rows.note(f"{unlisted:,} images stand in no split list: their split is null", "", "warning")
    return coded(pa.array(split, mask=split < 0), [entry.settings["split"] for entry, _ in lists])


def _listed_twice(
    listed: pa.Array, place: pa.Array, split: NDArray[np.int8], path: Path, earlier: list[str]
) -> TableError:
    row = next(n for n, at in enumerate(place.to_pylist()) if at is not None and split[at] >= 0)
    return TableError(
        f"{path}, line {row + 1}, column 1: {listed[row]} stands in {earlier[split[place[row].as_py()]]} as well",
        hint="an image belongs to one split: fetch both lists again",
    )


def _boxes(tables: Tables, names: pa.Array, label_rows: LabelRows) -> pa.Array:
    """Each image's boxes in the order of the table; null for an image that nobody drew on."""
    found = tables.of_role("boxes")
    if not found:
        return pa.nulls(len(names), pa.list_(BOX))
    table = _bare_names(read_table(found[0][1], _BOXES))
    table.require_match("Image Index", _IMAGE, _IMAGE_FORM)
    known = {**{name: name for name in NIH.names if name != "No Finding"}, "Infiltrate": "Infiltration"}
    table.require("Finding Label")
    word = table.mapped("Finding Label", known, pa.string(), "expected one of the findings")
    numbers = []
    for name in "xywh":
        table.require(name)
        numbers.append(table.translated(name, _finite, pa.float32(), "expected a number of pixels"))
    place = positions(table.text("Image Index"), names)
    known = pc.is_valid(place)
    kept = pc.and_(known, first_of_each({"place": place, "word": word, **dict(zip("xywh", numbers, strict=True))}))
    repeated = count_true(known) - count_true(kept)
    order = pc.sort_indices(pa.table({"place": place.filter(kept), "row": pa.array(range(count_true(kept)))}),
                            sort_keys=[("place", "ascending"), ("row", "ascending")])  # fmt: skip
    rectangles = pa.StructArray.from_arrays([word, *numbers], fields=list(BOX)).filter(kept).take(order)
    places = place.filter(kept).take(order)
    counts = np.bincount(places.to_numpy(), minlength=len(names))
    total = len(places)
    # An offset of null makes a null of the image's list.
    offsets = pa.array(
        np.append(np.cumsum(counts) - counts, total).astype(np.int32), mask=np.append(counts == 0, False)
    )
    label_rows.use(table, "boxes", used=total, repeat_another_box=repeated,
                   are_on_images_that_the_findings_table_lacks=place.null_count)  # fmt: skip
    return pa.ListArray.from_arrays(offsets, rectangles)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _all_findings(path: Any) -> TextTable:
    """The table of 14 findings, whose header is not published word for word: what is not known stays raw text."""

    def header(names: list[str]) -> list[str]:
        return ["Image Index" if name in _GOOGLE_IMAGE else name for name in _findings_header(names)]

    return read_table(path, Form(("Image Index",), plain=("Image Index",), header=header, open=True))


def _add_google(
    table: TextTable, source: str, names: pa.Array, attributes: dict[str, pa.Array], label_rows: LabelRows
) -> None:
    table.require_match("Image Index", _IMAGE, _IMAGE_FORM)
    table.require_unique("Image Index")
    place = positions(table.text("Image Index"), names)
    kept = pc.is_valid(place)
    used = count_true(kept)
    label_rows.use(
        table, "labels", used=used, source=source, name_images_that_the_findings_table_lacks=table.rows - used
    )
    columns = {name: values.take(place.filter(kept)) for name, values in attributes.items()}
    columns |= {name: values.filter(kept) for name, values in _origin(source, table).items()}
    terms = (*NIH.terms, *GOOGLE_FOUR.terms) if source == "google-adjudicated-all" else GOOGLE_FOUR.terms
    spelled = {name.replace("_", " ").lower(): name for name in table.names}
    for term in terms:
        name = spelled.get(term.name.replace("_", " ").lower())
        if name is not None and term.column not in columns:
            cells = table.translated(name, lambda text: _READERS[text.upper()], pa.int8(), "expected YES, NO or HEDGE")
            columns[term.column] = cells.filter(kept)
    raw = {name: table.column(name).filter(kept) for name in table.names}
    label_rows.add(used, columns, raw, plain=("Image Index",))
