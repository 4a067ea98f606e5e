"""The release's own CSV form, for loaders that were written for it (torchxrayvision reads all three).

Cells are those of the source table, word for word, for the images that are exported; with a label policy the label
cells alone change. Paths name the files that are here, so a converted folder works with the same loaders.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import UsageError
from cxrprep.events import Advanced, Note, Sink
from cxrprep.labels.extract import LABELS_NAME
from cxrprep.labels.joins import positions
from cxrprep.labels.policy import KEEP
from cxrprep.manifest.export.csv import csv_of
from cxrprep.manifest.export.run import STAGE, ExportOptions, ExportResult, ExportTask, card_of
from cxrprep.manifest.hugging_face_card import EVERY_SPLIT, Config, front_matter, split_name
from cxrprep.manifest.label_join import rows_for
from cxrprep.schemas import RAW_PREFIX
from cxrprep.storage.parquet import read_rows
from cxrprep.vocabulary import CHEXPERT, NIH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.manifest.load import Dataset

_NIH: Final = (
    "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Sex", "View Position",
    "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]",
)  # fmt: skip
_CHEXPERT: Final = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT.names)
_MIMIC_META: Final = (
    "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns", "StudyDate", "StudyTime",
    "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip
# What the reader of CSV files takes for numbers, whose blanks no integer of it can be.
_NUMBERS: Final = frozenset({
    *CHEXPERT.names, "Age", "Follow-up #", "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]",
    "Rows", "Columns", "StudyDate", "StudyTime",
})  # fmt: skip
_SPLIT_FILES: Final = {"train": "train.csv", "validate": "valid.csv", "test": "test.csv"}


def export(task: ExportTask) -> ExportResult:
    """Write the tables of the release for these images.

    Raises ``UsageError``: a folder that is no known dataset; ``TableError``: the source's cells are not there;
    ``StorageError``: the disk refuses.
    """
    writers = {"nih-chestxray14": _nih, "chexpert": _chexpert, "mimic-cxr": _mimic, "mimic-cxr-jpg": _mimic}
    if task.spec is None or task.spec.name not in writers:
        raise UsageError(
            f"{task.dataset.root} has no original form: only {', '.join(writers)} have", hint="use --format csv"
        )
    rows = _source_rows(task.dataset, task.options, task.on_event)
    # A labeler may have left out a study of MIMIC-CXR, whose images the release's other tables list.
    known = pc.is_valid(rows.column("study_id" if task.spec.name.startswith("mimic") else "table_name"))
    unknown = len(task.dataset) - int(pc.sum(known).as_py() or 0)
    chosen = task.dataset.filter(known)
    written = writers[task.spec.name](chosen, rows.filter(known))
    for name, data in written:
        path = task.target.out / name
        packed = gzip.compress(data, mtime=0) if path.suffix == ".gz" else data
        task.target.write(path, partial(Path.write_bytes, data=packed))
    if task.target.may_write(task.target.card):
        # The tables may lie among images that have a card of their own; no pixel is read for this one.
        options = replace(task.options, sample=0)
        text = card_of(replace(task, dataset=chosen, options=options), front=_front(task.spec, written))
        task.target.write(task.target.card, lambda part: part.write_text(text, encoding="utf-8"))
    task.on_event(Advanced(STAGE, items=len(chosen)))
    reasons = (("without a row in the release's table", unknown),) if unknown else ()
    # The card is beside the release's own files, and none of them.
    files = tuple(path for path in task.target.files if path != task.target.card)
    return ExportResult("original", task.target.out, len(chosen), files, reasons)


def _front(spec: DatasetSpec, written: Sequence[tuple[str, bytes]]) -> str:
    """The head of the card: CheXpert's tables are splits, MIMIC-CXR's differ and have a name each."""
    headers = {name: data.split(b"\n", 1)[0].decode() for name, data in written if ".csv" in name}
    split_of = {name: split_name(split) for split, name in _SPLIT_FILES.items()}
    configs: dict[str, Config] = {}
    for name, header in headers.items():
        table = name.removesuffix(".csv.gz").rpartition("-")[2] if name.endswith(".gz") else "default"
        columns = [(column, pa.float64() if column in _NUMBERS else pa.string()) for column in header.split(",")]
        files = [*(configs[table].files if table in configs else ()), (split_of.get(name, EVERY_SPLIT), name)]
        configs[table] = Config(files, pa.schema(columns), table)
    return front_matter(list(configs.values()), spec)


def _source_rows(dataset: Dataset, options: ExportOptions, on_event: Sink) -> pa.Table:
    """The rows of ``labels.parquet`` that the images' labels come from, in their order; nulls where there is none.

    Without that table, as in a folder that was moved, the manifest's own columns are spelled as the release does.
    """
    # A derived folder stands two levels below the dataset whose tables were read.
    places = [root / "manifests" / LABELS_NAME for root in (dataset.root, dataset.root.parent.parent)]
    if options.labels is not None:
        places.insert(0, options.labels)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        on_event(
            Note("export", f"no {LABELS_NAME} is here: cells are the manifest's, in the release's spelling", "info")
        )
        return _rows_of_manifest(dataset.stated)
    table = read_rows(path).combine_chunks()
    keys = _key(table, table.column("image_id"))
    images = dataset.stated
    place = positions(_key(images, images.column("image_id")), keys)
    by_study = positions(_key(images, images.column("study_id")), _key(table, table.column("study_id")))
    studies_only = pc.is_null(table.column("image_id").take(by_study))
    place = pc.coalesce(place, pc.if_else(studies_only, by_study, pa.scalar(None, by_study.type)))
    unlabelled = pc.is_null(images.column("table_name"))
    any_row = rows_for(images.column("image_id").combine_chunks(), table.column("image_id").combine_chunks(), None)
    place = pc.coalesce(place, pc.if_else(unlabelled, any_row.cast(place.type), pa.scalar(None, place.type)))
    return table.take(place).combine_chunks()


def _rows_of_manifest(images: pa.Table) -> pa.Table:
    """Source cells as the manifest knows them, under the names that the three releases give them."""

    def text(name: str) -> pa.ChunkedArray:
        return images.column(name).cast(pa.string())

    def words(name: str, spelled: dict[str, str]) -> pa.Array:
        return pa.array([None if v is None else spelled.get(v, v) for v in text(name).to_pylist()], pa.string())

    age = images.column("age_years").cast(pa.int32(), safe=False).cast(pa.string())
    found: dict[str, Any] = {
        "Sex": pc.fill_null(words("sex", {"M": "Male", "F": "Female"}), "Unknown"),
        "Age": age,
        "Frontal/Lateral": _sides(images),
        "AP/PA": pc.if_else(pc.equal(_sides(images), "Frontal"), text("view_raw"), None),
        "Finding Labels": pc.binary_join(images.column("labels_raw").combine_chunks(), "|"),
        "Follow-up #": text("follow_up"),
        "Patient ID": pc.replace_substring_regex(text("patient_id"), r"^0+", ""),
        "Patient Age": age,
        "Patient Sex": text("sex"),
        "View Position": text("view_raw"),
        "OriginalImage[Width": text("orig_width"),
        "Height]": text("orig_height"),
        "OriginalImagePixelSpacing[x": text("pixel_spacing_mm"),
        "y]": text("pixel_spacing_mm"),
        "ViewPosition": text("view_raw"),
        "Rows": text("orig_height"),
        "Columns": text("orig_width"),
        "StudyDate": pc.strftime(images.column("study_datetime"), "%Y%m%d"),
        "StudyTime": pc.replace_substring(pc.strftime(images.column("study_datetime"), "%H%M%S"), ":", ""),
        **{term.name: _spelled(images.column(term.column)) for term in CHEXPERT.terms},
    }
    cells = {RAW_PREFIX + name: values for name, values in found.items()}
    return pa.table({"study_id": images.column("study_id"), "table_name": images.column("table_name"), **cells})


def _sides(images: pa.Table) -> pa.Array:
    """CheXpert's word for the side, as its file names have it too: a frontal row may show a lateral image (LL, RL)."""
    return pc.if_else(pc.match_substring(images.column("image_id"), "frontal"), "Frontal", "Lateral").combine_chunks()


def _spelled(values: pa.ChunkedArray) -> pa.Array:
    """Labels as CheXpert and MIMIC-CXR write them."""
    words = pa.array(["-1.0", "0.0", "1.0"])
    return words.take(pc.add(values, pa.scalar(1, pa.int8())).combine_chunks())


def _key(table: pa.Table, ids: pa.ChunkedArray) -> pa.Array:
    """Id, source and table as one text: a row of labels."""
    parts = [ids, table.column("label_source").cast(pa.string()), table.column("table_name").cast(pa.string())]
    joined = pc.binary_join_element_wise(*parts, "\t", null_handling="replace", null_replacement="")
    return joined.combine_chunks()


def _cell(rows: pa.Table, name: str) -> pa.ChunkedArray:
    column = RAW_PREFIX + name
    return (
        rows.column(column).cast(pa.string()) if column in rows.column_names else pa.nulls(rows.num_rows, pa.string())
    )


def _label_cells(dataset: Dataset, rows: pa.Table) -> dict[str, Any]:
    """The 14 CheXpert columns: source cells, or the policy's values in the source's spelling."""
    if dataset.policy == KEEP:
        return {name: _cell(rows, name) for name in CHEXPERT.names}
    table = dataset.to_arrow()
    return {term.name: _spelled(table.column(term.column)) for term in CHEXPERT.terms}


def _suffix(dataset: Dataset) -> Any:
    return pc.struct_field(pc.extract_regex(dataset.stated.column("path"), r"(?P<s>\.[^./]*)$"), "s")


def _nih(dataset: Dataset, rows: pa.Table) -> list[tuple[str, bytes]]:
    cells: dict[str, Any] = {name: _cell(rows, name) for name in _NIH}
    names = pc.binary_join_element_wise(dataset.stated.column("image_id"), _suffix(dataset), "")
    cells["Image Index"] = names
    if dataset.policy != KEEP:
        cells["Finding Labels"] = _finding_words(dataset)
    name = "Data_Entry_2017_v2020.csv" if dataset.made_from.get("release") == "v2020" else "Data_Entry_2017.csv"
    files = [(name, csv_of(pa.table(cells)))]
    split = dataset.stated.column("split").cast(pa.string())
    for word, listing in (("train_val", "train_val_list.txt"), ("test", "test_list.txt")):
        listed = names.filter(pc.equal(split, word)).to_pylist()
        if listed:
            files.append((listing, "\n".join(listed).encode()))
    return files


def _finding_words(dataset: Dataset) -> pa.Array:
    table = dataset.to_arrow()
    found = [(term.name, table.column(term.column).to_pylist()) for term in NIH.terms if term.stem != "no_finding"]
    words = ["|".join(name for name, values in found if values[row] == 1) for row in range(len(dataset))]
    return pa.array([word or "No Finding" for word in words])


def _chexpert(dataset: Dataset, rows: pa.Table) -> list[tuple[str, bytes]]:
    # The part of the path that the release's tables state, with the suffix of the file that is here.
    raw = pc.coalesce(dataset.stated.column("path_raw"), dataset.stated.column("path"))
    stem = pc.replace_substring_regex(raw, r"\.[^./]*$", "")
    cells: dict[str, Any] = {name: _cell(rows, name) for name in _CHEXPERT} | _label_cells(dataset, rows)
    cells["Path"] = pc.binary_join_element_wise(stem, _suffix(dataset), "")
    table = pa.table({name: cells[name] for name in _CHEXPERT})
    split = dataset.stated.column("split").cast(pa.string())
    parts = [(name, table.filter(pc.equal(split, word))) for word, name in _SPLIT_FILES.items()]
    return [(name, csv_of(part)) for name, part in parts if part.num_rows]


def _mimic(dataset: Dataset, rows: pa.Table) -> list[tuple[str, bytes]]:
    stated = dataset.stated
    ids = {"dicom_id": stated.column("image_id"), "subject_id": stated.column("patient_id")}
    ids["study_id"] = stated.column("study_id")
    metadata = pa.table({**ids, **{name: _cell(rows, name) for name in _MIMIC_META}})
    names = sorted(CHEXPERT.names)
    labels = pa.table({"subject_id": ids["subject_id"], "study_id": ids["study_id"], **_label_cells(dataset, rows)})
    labels = labels.select(["subject_id", "study_id", *names]).filter(pc.is_valid(stated.column("table_name")))
    first = pc.unique(labels.column("study_id"))
    labels = labels.take(positions(first, labels.column("study_id")))
    order = ("dicom_id", "study_id", "subject_id")
    split = pa.table({**{name: ids[name] for name in order}, "split": stated.column("split").cast(pa.string())})
    return [
        ("mimic-cxr-2.0.0-metadata.csv.gz", csv_of(metadata)),
        ("mimic-cxr-2.0.0-chexpert.csv.gz", csv_of(labels)),
        ("mimic-cxr-2.0.0-split.csv.gz", csv_of(split)),
    ]
