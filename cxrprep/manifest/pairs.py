"""Image-report pairs: a row a study with its images by view, its report by sections, and the study before it.

Reports are cut as the collections' authors cut them: MIMIC-CXR's by the rules of their section parser, Open-i's by the
fields of its XML, CheXpert Plus by its section columns, any other text by its titles. Text is null where a heading is
absent or empty, never an empty string.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from cxrprep.labels.nlp.sections import is_cut_by_hand, is_mimic_report, mimic_sections, plain_sections
from cxrprep.schemas import CATEGORY, describe
from cxrprep.storage.parquet import SET_DIGEST, check_columns, read_footer, read_groups, read_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cxrprep.labels.nlp.readers import Report

PAIRS_NAME: Final = "pairs.parquet"
SECTIONS: Final = (
    "findings", "impression", "last_paragraph", "indication", "history", "comparison", "technique", "examination",
    "recommendations", "addendum", "wet_read",
)  # fmt: skip
_COUNTED: Final = ("findings", "impression")
_RANK: Final = {"PA": 0, "AP": 1}
_PROJECTIONS: Final = {"frontal": 2, "lateral": 3}
_PLUS_IMAGE: Final = re.compile(r"(?:^|/)((patient\d+)/study\d+)/view\d+_")
# Titles of CheXpert Plus's columns and of Open-i's fields -> sections.
_FIELDS: Final = {"clinical_history": "history", "summary": "impression", "procedure_comments": "technique"}
IMAGE: Final = pa.struct(
    [
        ("image_id", pa.string()), ("path", pa.string()), ("view", pa.string()), ("projection", pa.string()),
        ("width", pa.int32()), ("height", pa.int32()), ("digest", pa.string()),
    ]
)  # fmt: skip
_PLACE: Final = pa.struct([("name", pa.string()), ("heading", pa.string()), ("start", pa.int32()), ("end", pa.int32())])
_MANIFEST: Final = (
    "dataset", "release", "image_id", "study_id", "patient_id", "split", "path", "view", "projection", "width",
    "height", "digest", "study_datetime", "study_order", "prior_study_id", "sex", "age_years", "report_path",
)  # fmt: skip

PAIRS: Final = pa.schema(
    [
        describe("dataset", CATEGORY, "name of the dataset in the catalog; openi for Open-i's XML"),
        describe("release", CATEGORY, "release of the dataset"),
        describe("study_id", pa.string(), "study, unique in the dataset", required=True),
        describe("patient_id", pa.string(), "patient; null where the collection names none"),
        describe("split", CATEGORY, "split of the manifest; null: not stated"),
        describe("report_path", pa.string(), "where the report was read"),
        describe("report_sha256", pa.string(), "SHA-256 of the report's bytes, or of a table's cell"),
        describe(
            "images", pa.list_(IMAGE), "images of the study: PA, AP, other frontal, lateral, the rest, then by id"
        ),
        describe("n_images", pa.int16(), "images of the study", required=True),
        describe("n_frontal", pa.int16(), "frontal images of the study", required=True),
        describe("n_lateral", pa.int16(), "lateral images of the study", required=True),
        *(
            describe(name, pa.large_string(), f"the last section called {name}; null: absent or empty")
            for name in SECTIONS
        ),
        describe(
            "sections", pa.list_(_PLACE), "every section with its place in the report, those that another hides too"
        ),
        describe("section_rule", CATEGORY, "mit-lcp, mit-lcp-by-hand, plain, xml or table; null: no report"),
        describe("n_findings", pa.int16(), "sections called findings", required=True),
        describe("n_impressions", pa.int16(), "sections called impression", required=True),
        describe("combined", pa.bool_(), "whether one heading stood for findings and impression", required=True),
        *(describe(f"{name}_words", pa.int32(), f"words of {name}, by white space") for name in _COUNTED),
        *(
            describe(f"{name}_sha256", pa.string(), f"SHA-256 of {name} with white space as one blank")
            for name in _COUNTED
        ),
        describe("study_datetime", pa.timestamp("ms"), "MIMIC: date and time of the study, shifted per patient"),
        describe("study_order", pa.int16(), "MIMIC: place of the study among the patient's studies by time, from 1"),
        describe("prior_study_id", pa.string(), "MIMIC: the patient's study before this one"),
        describe("prior_days", pa.float32(), "days since the study before"),
        describe("prior_split", CATEGORY, "split of the study before"),
        describe("sex", CATEGORY, "M or F; null: unknown"),
        describe("age_years", pa.float32(), "age at the time of the image, in years"),
        describe("texts_differ", pa.bool_(), "whether the images of the study have different reports", required=True),
    ]
)
"""``pairs.parquet``, a row per study that has a report or an image. Report text is under the release's agreement."""


# Asked for each study, and a schema makes the list anew each time.
_NAMES: Final = tuple(PAIRS.names)
_IMAGE_NAMES: Final = tuple(each.name for each in IMAGE)


@dataclass(slots=True)
class CutReport:
    """A report in its sections: ``places`` are (name, heading, start, end) of each; ``images`` those that it names."""

    rule: str
    text: dict[str, str] = field(default_factory=dict)
    places: list[dict[str, Any]] = field(default_factory=list)
    images: tuple[str, ...] = ()
    path: str = ""
    sha256: str | None = None
    patient: str | None = None
    combined: bool = False
    differs: bool = False

    def count(self, name: str) -> int:
        """How many sections have this name."""
        return sum(place["name"] == name for place in self.places) or int(name in self.text)


def cut_report(report: Report) -> CutReport:
    """The sections of a report, by the rule of its collection."""
    about: dict[str, Any] = {
        "path": report.key,
        "sha256": report.sha256,
        "patient": report.patient,
        "images": report.images,
    }
    if report.parts is not None:
        named = ((_FIELDS.get(name, name), text.strip()) for name, text in report.parts.items())
        text = {name: cell for name, cell in named if name in SECTIONS and cell}
        return CutReport("xml" if report.images or report.key.lower().endswith(".xml") else "table", text, **about)
    return cut_text(report.text, study=report.study or "", mimic=report.mimic, **about)


def cut_text(text: str, *, study: str = "", mimic: bool | None = None, **about: Any) -> CutReport:
    """The sections of a text: a MIMIC-CXR report as its authors' parser has them, any other by its titles.

    Args:
        text: The report.
        study: The MIMIC-CXR study, with or without its "s"; 54 of them the authors cut by hand.
        mimic: Whether it is a MIMIC-CXR report; ``None`` looks.
        **about: What else is known of the report: ``path``, ``sha256``, ``patient``.

    Returns:
        The text of the last section of each name, stripped, and the places of all.
    """
    if mimic or (mimic is None and is_mimic_report(text)):
        rule = "mit-lcp-by-hand" if is_cut_by_hand(study if study.startswith("s") else f"s{study}") else "mit-lcp"
        found = mimic_sections(text)
        if mimic is None and all(section.name in ("full report", "last_paragraph") for section in found):
            # Copies in CSV and JSON have lost the line ends and blanks by which the parser finds headings.
            plain = plain_sections(text)
            rule, found = ("plain", plain) if plain else (rule, found)
    else:
        rule, found = "plain", plain_sections(text)
    cut = CutReport(rule, **about)
    for section in found:
        heading = text[max(0, text.rfind("\n", 0, section.start - 1)) : section.start].strip()
        name = section.name.replace(" ", "_")
        cut.places.append({"name": name, "heading": heading, "start": section.start, "end": section.end})
        if name in SECTIONS:
            cut.text[name] = text[section.start : section.end].strip()
        cut.combined = cut.combined or ("findings" in heading.lower() and "impression" in heading.lower())
    cut.text = {name: words for name, words in cut.text.items() if words}
    return cut


def study_of(report: Report) -> str:
    """The study of a report: as it states it, or by the path of an image (CheXpert Plus)."""
    if report.study:
        return report.study
    image = _PLUS_IMAGE.search(report.key)
    return image[1] if image else report.key


def cut_reports(reports: Iterable[Report]) -> dict[str, CutReport]:
    """The reports by study; of several of one study the first counts, and ``differs`` says whether others say more."""
    found: dict[str, CutReport] = {}
    for report in reports:
        if report.problem:
            continue
        study = study_of(report)
        held = found.get(study)
        if held is None:
            found[study] = cut_report(report)
        elif held.sha256 != report.sha256:
            held.differs = True
    return found


def pair_rows(images: Path | None, reports: Mapping[str, CutReport]) -> list[dict[str, Any]]:
    """The pairs of the manifest at ``images`` and of reports by study, as rows of ``PAIRS`` in order of patient.

    Without a manifest the images are those that the reports name (Open-i's XML).
    """
    studies = _studies(images) if images is not None else _named_images(reports)

    def place(study: str) -> tuple[str, str]:
        return (studies[study][0]["patient_id"] or "" if study in studies else "", study)

    order = sorted(studies.keys() | reports.keys(), key=place)
    return [_row(study, studies.get(study, []), reports.get(study), studies) for study in order]


def pairs_table(rows: Sequence[Mapping[str, Any]], *, per: str = "study") -> pa.Table:
    """Rows of studies, or of images with what is known of their study, as a table."""
    schema = PAIRS if per == "study" else pa.schema([*IMAGE, *(f for f in PAIRS if f.name != "images")])
    arrays = [_column([row.get(each.name) for row in rows], each.type) for each in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode().cast(kind)
    return pa.array(values, kind)


def _studies(path: Path) -> dict[str, list[dict[str, Any]]]:
    schema = read_schema(path)
    check_columns(schema, path)
    names = [name for name in _MANIFEST if name in schema.names]
    found: dict[str, list[dict[str, Any]]] = {}
    for group in read_groups(path, names):
        # Column by column, categories as text: 2.7 s CPU for 377,110 images, and 5.9 row by row.
        columns = [_plain(column).to_pylist() for column in group.columns]
        for values in zip(*columns, strict=True):
            row = dict(zip(group.column_names, values, strict=True))
            found.setdefault(row["study_id"], []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: (_RANK.get(row["view"], _PROJECTIONS.get(row["projection"], 4)), row["image_id"]))
    return found


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _named_images(reports: Mapping[str, CutReport]) -> dict[str, list[dict[str, Any]]]:
    """The images that reports name: of Open-i nothing else is known of them."""
    empty: dict[str, Any] = dict.fromkeys(_MANIFEST)
    return {
        study: [
            {**empty, "dataset": "openi", "release": "", "study_id": study, "image_id": name} for name in report.images
        ]
        for study, report in reports.items()
        if report.images
    }


def _row(
    study: str,
    images: Sequence[Mapping[str, Any]],
    report: CutReport | None,
    studies: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    first: Mapping[str, Any] = images[0] if images else {}
    projections = [row["projection"] for row in images]
    row: dict[str, Any] = dict.fromkeys(_NAMES) | {n: first[n] for n in _NAMES if n in first}
    row |= {
        "study_id": study,
        "images": [{name: each[name] for name in _IMAGE_NAMES} for each in images],
        "n_images": len(images),
        "n_frontal": projections.count("frontal"),
        "n_lateral": projections.count("lateral"),
        "n_findings": 0,
        "n_impressions": 0,
        "combined": False,
        "texts_differ": False,
    }
    prior = studies.get(first.get("prior_study_id") or "")
    if prior:
        row["prior_split"] = prior[0]["split"]
        if first["study_datetime"] is not None and prior[0]["study_datetime"] is not None:
            row["prior_days"] = (first["study_datetime"] - prior[0]["study_datetime"]).total_seconds() / 86400
    return row if report is None else row | _of_report(report, row)


def _of_report(report: CutReport, row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {name: report.text.get(name) for name in SECTIONS}
    for name in _COUNTED:
        words = report.text[name].split() if name in report.text else None
        found[f"{name}_words"] = None if words is None else len(words)
        found[f"{name}_sha256"] = None if words is None else hashlib.sha256(" ".join(words).encode()).hexdigest()
    return found | {
        "patient_id": row.get("patient_id") or report.patient,
        "report_path": report.path,
        "report_sha256": report.sha256,
        "sections": report.places,
        "section_rule": report.rule,
        "n_findings": report.count("findings"),
        "n_impressions": report.count("impression"),
        "combined": report.combined,
        "texts_differ": report.differs,
    }


def per_image(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The pairs as rows of images: ``image_id``, ``path`` and ``view`` first, then those of the study."""
    for row in rows:
        rest = {name: value for name, value in row.items() if name != "images"}
        for image in row["images"]:
            yield {**image, **rest}


def made_from(images: Path | None) -> dict[str, Any]:
    """What a table of pairs says of where it comes from."""
    if images is None:
        return {}
    return {k: v for k, v in read_footer(images).items() if k not in {"schema", "schema_version", "tool", SET_DIGEST}}
