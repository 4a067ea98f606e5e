"""The release's own CSV form, for loaders that were written for it (torchxrayvision reads all three).

Cells are those of the source table, word for word, for the images that are exported; with a label policy the label
cells alone change. Paths name the files that are here, so a converted folder works with the same loaders.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.collection.lineage import IMAGES_NAME
from cxrprep.errors import UsageError
from cxrprep.events import Advanced, Note
from cxrprep.labels.extract import LABELS_NAME
from cxrprep.labels.joins import positions
from cxrprep.labels.policy import KEEP
from cxrprep.manifest.export.csv import write_csv
from cxrprep.manifest.export.run import STAGE, ExportResult, ExportTask, card_of
from cxrprep.manifest.hugging_face_card import EVERY_SPLIT, Config, front_matter, split_name
from cxrprep.manifest.label_join import LABEL_COLUMNS, rows_for, rows_of_sources, stated_sources
from cxrprep.manifest.load import label_folders
from cxrprep.schemas import RAW_PREFIX
from cxrprep.storage.parquet import check_as_written, read_rows, read_schema
from cxrprep.storage.patient_table import NotByPatientError, PatientTable
from cxrprep.storage.sorted_tables import StoredParts
from cxrprep.vocabulary import CHEXPERT, NIH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

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
# What tells the rows of images.
_KEYS: Final = ("image_id", "study_id", "patient_id", "label_source", "table_name", *LABEL_COLUMNS)
# Images whose rows are looked up together.
_ROWS: Final = 1 << 16
_SPLIT_FILES: Final = {"train": "train.csv", "validate": "valid.csv", "test": "test.csv"}
_SPLIT_LISTS: Final = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
# What is not written where nothing is in it.
_OF_SPLITS: Final = {*_SPLIT_FILES.values(), *_SPLIT_LISTS.values()}


def export(task: ExportTask) -> ExportResult:
    """Write the tables of the release for these images.

    Raises ``UsageError``: a folder that is no known dataset; ``TableError``: the source's cells are not there;
    ``StorageError``: the disk refuses.
    """
    spec, dataset = task.spec, task.dataset
    if spec is None or spec.name not in _WRITERS:
        raise UsageError(
            f"{dataset.root} has no original form: only {', '.join(_WRITERS)} have", hint="use --format csv"
        )
    labels = _label_table(task)
    try:
        tables, known = _made(spec, _by_patient(dataset), labels and PatientTable(*labels))
    except NotByPatientError:
        tables, known = _made(spec, [dataset], labels and read_rows(*labels).combine_chunks())
    for name, rows in tables.items():
        task.target.write(task.target.out / name, partial(_fill, name=name, rows=rows))
    unknown = len(dataset) - int(pc.sum(known).as_py() or 0)
    chosen = dataset.filter(known) if unknown else dataset
    if task.target.may_write(task.target.card):
        # The tables may lie among images that have a card of their own; no pixel is read for this one.
        options = replace(task.options, sample=0)
        text = card_of(replace(task, dataset=chosen, options=options), front=_front(spec, tables))
        task.target.write(task.target.card, lambda part: part.write_text(text, encoding="utf-8"))
    task.on_event(Advanced(STAGE, items=len(chosen)))
    reasons = (("without a row in the release's table", unknown),) if unknown else ()
    # The card is beside the release's own files, and none of them.
    files = tuple(path for path in task.target.files if path != task.target.card)
    return ExportResult("original", task.target.out, len(chosen), files, reasons)


def _made(
    spec: DatasetSpec, parts: Iterable[Dataset], labels: PatientTable | pa.Table | None
) -> tuple[dict[str, StoredParts], pa.ChunkedArray]:
    """The tables by name, and which images have a row in the release's; without ``labels`` cells are the manifest's.

    Raises ``NotByPatientError`` where an image has no row among those of its patient.
    """
    tables, known = dict[str, StoredParts](), list[pa.Array]()
    for part in parts:
        if labels is None:
            rows = _rows_of_manifest(part.stated)
        else:
            held = labels.of(pc.unique(part.stated["patient_id"])) if isinstance(labels, PatientTable) else labels
            place = _places(part, held)
            if place.null_count and held is not labels:
                raise NotByPatientError
            rows = held.take(place)
        # A labeler may have left out a study of MIMIC-CXR, whose images the release's other tables list.
        here = pc.is_valid(rows.column("study_id" if spec.name.startswith("mimic") else "table_name"))
        known.append(here.combine_chunks())
        for name, table in _WRITERS[spec.name](part.filter(here), rows.filter(here).combine_chunks()):
            tables.setdefault(name, StoredParts(table.schema)).append(table)
    return {n: rows for n, rows in tables.items() if rows.num_rows or n not in _OF_SPLITS}, pa.chunked_array(known)


def _by_patient(dataset: Dataset) -> Iterator[Dataset]:
    """The images of some patients after those of others.

    Raises ``NotByPatientError`` where they stand in another order, as in a manifest that another program wrote.
    """
    start, before = 0, ""
    while start < len(dataset):
        part = dataset.rows(start, _ROWS)
        patients = part.stated.column("patient_id").combine_chunks()
        if start + len(part) < len(dataset):
            # The last patient may have more images in the next part.
            part = part.rows(0, int(pc.sum(pc.less(patients, patients[-1])).as_py() or 0))
            patients = patients.slice(0, len(part))
        falls = pc.any(pc.greater(patients[:-1], patients[1:])).as_py()
        if not len(part) or patients.null_count or falls or patients[0].as_py() < before:
            raise NotByPatientError
        yield part
        start, before = start + len(part), patients[-1].as_py()


def _fill(part: Path, name: str, rows: StoredParts) -> None:
    """Write what is called ``name`` in the release: a list of images, or CSV, packed or not."""
    if name.endswith(".txt"):
        lists = ("\n".join(table.column(0).to_pylist()) for table in rows.tables() if table.num_rows)
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(next(lists, ""))
            file.writelines(f"\n{names}" for names in lists)
    else:
        write_csv(part, rows.tables, packed=name.endswith(".gz"))


def _front(spec: DatasetSpec, tables: Mapping[str, StoredParts]) -> str:
    """The head of the card: CheXpert's tables are splits, MIMIC-CXR's differ and have a name each."""
    split_of = {name: split_name(split) for split, name in _SPLIT_FILES.items()}
    configs: dict[str, Config] = {}
    for name, rows in tables.items():
        if ".csv" not in name:
            continue
        table = name.removesuffix(".csv.gz").rpartition("-")[2] if name.endswith(".gz") else "default"
        # Some names have a comma inside, which makes them two to whoever reads the header.
        names = ",".join(rows.schema.names).split(",")
        columns = [(column, pa.float64() if column in _NUMBERS else pa.string()) for column in names]
        files = [*(configs[table].files if table in configs else ()), (split_of.get(name, EVERY_SPLIT), name)]
        configs[table] = Config(files, pa.schema(columns), table)
    return front_matter(list(configs.values()), spec)


def _label_table(task: ExportTask) -> tuple[Path, list[str]] | None:
    """The ``labels.parquet`` that the images' labels come from, and its columns that are read; ``None`` without one.

    It is not in a folder that was moved, for example. Raises ``TableError`` for one that was altered.
    """
    root = task.dataset.root
    manifest = task.options.manifest or root / "manifests" / IMAGES_NAME
    places = (folder / LABELS_NAME for folder in label_folders(manifest, root))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        words = f"no {LABELS_NAME} is here: cells are the manifest's, in the release's spelling"
        task.on_event(Note("export", words, "info"))
        return None
    check_as_written(path)
    cells = {RAW_PREFIX + name for name in (*_NIH, *_CHEXPERT, *_MIMIC_META)}
    return path, [name for name in read_schema(path).names if name in _KEYS or name in cells]


def _places(part: Dataset, labels: pa.Table) -> pa.Array:
    """The row of each image among the labels, null where there is none."""
    of_source = rows_of_sources(part.stated, labels, stated_sources(str(part.made_from.get("label_source") or "")))
    unlabelled = pc.is_null(part.stated.column("table_name")).combine_chunks()
    images = part.stated.column("image_id").combine_chunks()
    any_row = rows_for(images, labels.column("image_id").combine_chunks(), None)
    return pc.coalesce(of_source, pc.if_else(unlabelled, any_row, pa.scalar(None, any_row.type)))


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


def _nih(dataset: Dataset, rows: pa.Table) -> list[tuple[str, pa.Table]]:
    cells: dict[str, Any] = {name: _cell(rows, name) for name in _NIH}
    names = pc.binary_join_element_wise(dataset.stated.column("image_id"), _suffix(dataset), "")
    cells["Image Index"] = names
    if dataset.policy != KEEP:
        cells["Finding Labels"] = _finding_words(dataset)
    name = "Data_Entry_2017_v2020.csv" if dataset.made_from.get("release") == "v2020" else "Data_Entry_2017.csv"
    split = dataset.stated.column("split").cast(pa.string())
    lists = ((listing, names.filter(pc.equal(split, word))) for word, listing in _SPLIT_LISTS.items())
    return [(name, pa.table(cells)), *((listing, pa.table({"name": listed})) for listing, listed in lists)]


def _finding_words(dataset: Dataset) -> pa.Array:
    table = dataset.to_arrow()
    found = [(term.name, table.column(term.column).to_pylist()) for term in NIH.terms if term.stem != "no_finding"]
    words = ["|".join(name for name, values in found if values[row] == 1) for row in range(len(dataset))]
    return pa.array([word or "No Finding" for word in words])


def _chexpert(dataset: Dataset, rows: pa.Table) -> list[tuple[str, pa.Table]]:
    # The part of the path that the release's tables state, with the suffix of the file that is here.
    raw = pc.coalesce(dataset.stated.column("path_raw"), dataset.stated.column("path"))
    stem = pc.replace_substring_regex(raw, r"\.[^./]*$", "")
    cells: dict[str, Any] = {name: _cell(rows, name) for name in _CHEXPERT} | _label_cells(dataset, rows)
    cells["Path"] = pc.binary_join_element_wise(stem, _suffix(dataset), "")
    table = pa.table({name: cells[name] for name in _CHEXPERT})
    split = dataset.stated.column("split").cast(pa.string())
    return [(name, table.filter(pc.equal(split, word))) for word, name in _SPLIT_FILES.items()]


def _mimic(dataset: Dataset, rows: pa.Table) -> list[tuple[str, pa.Table]]:
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
        ("mimic-cxr-2.0.0-metadata.csv.gz", metadata),
        ("mimic-cxr-2.0.0-chexpert.csv.gz", labels),
        ("mimic-cxr-2.0.0-split.csv.gz", split),
    ]


_WRITERS: Final[Mapping[str, Callable[[Dataset, pa.Table], list[tuple[str, pa.Table]]]]] = {
    "nih-chestxray14": _nih,
    "chexpert": _chexpert,
    "mimic-cxr": _mimic,
    "mimic-cxr-jpg": _mimic,
}
