"""The Arrow schemas of everything that is written as Parquet, and the one way in which it is written.

Every field carries a description in its metadata. The schemas are version 1: a later version may add columns, and
neither renames one nor changes what a value means. Written files carry one more key, ``cxrprep``: a JSON object with
the schema's name and version, the tool's version, and what the table was made from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from cxrprep.vocabulary import OBSERVATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# A handful of distinct values: queries and data frames are faster, and files smaller, than with plain text.
CATEGORY: Final = pa.dictionary(pa.int8(), pa.string())


# Text of a source table, which repeats as often as the table's authors pleased.
TEXT: Final = pa.dictionary(pa.int32(), pa.string())
REPORT_TEXT: Final = pa.dictionary(pa.int32(), pa.large_string())
BOX: Final = pa.struct(
    [
        pa.field("label", pa.string()),
        pa.field("x", pa.float32()),
        pa.field("y", pa.float32()),
        pa.field("w", pa.float32()),
        pa.field("h", pa.float32()),
    ]
)


READ_BOX: Final = pa.struct([*BOX, pa.field("reader", pa.string()), pa.field("score", pa.float32())])
"""A box of a release that says who drew it, or how sure it is."""


def describe(name: str, kind: pa.DataType, description: str, *, required: bool = False) -> pa.Field:
    """A field whose metadata says what it holds.

    Args:
        name: Of the column.
        kind: Its type.
        description: What it holds, with the unit.
        required: It has no nulls.

    Returns:
        The field.
    """
    return pa.field(name, kind, nullable=not required, metadata={"description": description})


def label_fields() -> list[pa.Field]:
    """The ``label_*`` fields: int8; 1 positive, 0 negative, -1 uncertain, null not mentioned or not known."""
    return [
        describe(f"label_{stem}", pa.int8(), f"1 if {meaning}; 0 no, -1 uncertain, null not mentioned or not known")
        for stem, meaning in OBSERVATIONS.items()
    ]


_DATASET = describe("dataset", CATEGORY, "name of the dataset in the catalog, such as chexpert", required=True)
_RELEASE = describe("release", CATEGORY, "release of the dataset, such as v1.0-small", required=True)
_PATIENT = describe("patient_id", pa.string(), "patient, as the release spells it (NIH: 8 digits)", required=True)
_STUDY = describe("study_id", pa.string(), "study, unique in the dataset; NIH has none: the image id", required=True)
_SPLIT = describe("split", CATEGORY, "train, validate, test or train_val, as the release says; null: not stated")
_VIEWS = (
    describe("view", CATEGORY, "normalised view such as PA, AP, LATERAL, LL; null: not stated"),
    describe("projection", CATEGORY, "frontal, lateral or other; null: not known"),
    describe("view_raw", CATEGORY, "the view as the release's table spells it"),
)


_PERSON = (
    describe("sex", CATEGORY, "M or F; null: unknown"),
    describe("age_years", pa.float32(), "age at the time of the image, in years"),
    describe("age_flag", CATEGORY, "capped (90 means 90 or over) or implausible (the published age was dropped)"),
    describe("study_datetime", pa.timestamp("ms"), "MIMIC: date and time of the study, shifted per patient"),
    describe("study_order", pa.int16(), "MIMIC: place of the study among the patient's studies by time, from 1"),
    describe("prior_study_id", pa.string(), "MIMIC: the patient's study before this one"),
    describe("follow_up", pa.int16(), "NIH: follow-up number of the label table, from 0"),
)


_ORIGINAL = (
    describe("orig_width", pa.int32(), "width of the radiograph before the release scaled it, in pixels"),
    describe("orig_height", pa.int32(), "height of the radiograph before the release scaled it, in pixels"),
    describe("pixel_spacing_mm", pa.float32(), "spacing of the original pixels in mm, the same on both axes"),
)


_LABEL_ORIGIN = (
    describe(
        "label_source", CATEGORY, "who labelled: chexpert-labeler, chexbert, negbio, radiologist, nih-textmined ..."
    ),
    describe("table_name", CATEGORY, "file name of the table that the labels come from"),
    describe("table_digest", CATEGORY, "digest of that table, as sha256:..."),
)


_LABELS_RAW = describe("labels_raw", pa.list_(pa.string()), "findings as the release words them, where it lists words")
_BOXES = describe("boxes", pa.list_(BOX), "rectangles around findings, in pixels of the image; null: none were drawn")
_REPORT = describe("report_path", pa.string(), "release path of the study's report")
_PATH_RAW = describe("path_raw", pa.string(), "path or file name of the image as the release's table spells it")
_PROVIDERS = (
    describe("ordering_provider_id", pa.string(), "MIMIC: who ordered the study"),
    describe("attending_provider_id", pa.string(), "MIMIC: attending radiologist"),
    describe("resident_provider_id", pa.string(), "MIMIC: resident radiologist"),
)


_REPORT_WORDS: Final = "text of the report, on request only"
LABELS: Final = pa.schema(
    [
        _DATASET,
        _RELEASE,
        describe("image_id", pa.string(), "image, unique in the dataset; null where a table names studies only"),
        _PATIENT,
        _STUDY,
        _SPLIT,
        *_VIEWS,
        *_LABEL_ORIGIN,
        *_PERSON,
        *_ORIGINAL,
        *label_fields(),
        _LABELS_RAW,
        _BOXES,
        _PATH_RAW,
        _REPORT,
        *_PROVIDERS,
    ]
)
"""``labels.parquet``, a row per image and label source; ``raw_`` columns follow, see ``labels_schema``."""


IMAGES: Final = pa.schema(
    [
        _DATASET,
        _RELEASE,
        describe("image_id", pa.string(), "image, unique in the dataset", required=True),
        _PATIENT,
        _STUDY,
        _SPLIT,
        describe("path", pa.string(), "path of the file relative to the folder, with /", required=True),
        _PATH_RAW,
        describe("bytes", pa.int64(), "size of the file in bytes"),
        describe("digest", pa.string(), "digest of the file, as sha256:..., where it is known"),
        describe("width", pa.int32(), "width of the file's image in pixels"),
        describe("height", pa.int32(), "height of the file's image in pixels"),
        describe("source_mode", CATEGORY, "pixel form of the file: L, RGBA, I;16, MONOCHROME1, MONOCHROME2, ..."),
        *_ORIGINAL,
        describe("spacing_x_mm", pa.float32(), "spacing of the file's own pixels along x in mm"),
        describe("spacing_y_mm", pa.float32(), "spacing of the file's own pixels along y in mm"),
        *_VIEWS,
        *_PERSON,
        *_LABEL_ORIGIN,
        *label_fields(),
        _LABELS_RAW,
        _BOXES,
        _REPORT,
        describe("release_split", CATEGORY, "split as the release says, whatever split a rule of one's own gives"),
        describe("fold", pa.int8(), "fold of the patient, from 0, where folds were asked for; null: in none"),
    ]
)
"""``images.parquet``, THE manifest: a row per image that is here, with the labels of one source."""


DERIVED_FIELDS: Final = (
    describe("source_path", pa.string(), "path of the image that this one was made from, relative to the dataset"),
    describe("source_digest", pa.string(), "digest of the image that this one was made from"),
    describe("pixels", pa.string(), "digest of what the image shows: of a PNG its samples, of others their bytes"),
    describe("recipe", CATEGORY, "name of the recipe"),
    describe("recipe_fingerprint", CATEGORY, "fingerprint of the recipe's steps"),
    describe("voi", CATEGORY, "rule that made the grey scale: lut, window, range, minmax, stretch ..., none"),
    describe("codec", CATEGORY, "what the pixels were decoded from: PNG, JPEG, JPEG-LS, uncompressed, ..."),
    describe("notes", pa.list_(pa.string()), "remarks of the conversion on this image; empty: none"),
    describe("grey_levels", pa.int32(), "grey levels that occur in the result, of 256, padding aside"),
    describe("contrast", pa.float32(), "standard deviation of the result as a share of its range, padding aside"),
    describe("black_share", pa.float32(), "share of the result's pixels that are black, padding aside"),
    describe("white_share", pa.float32(), "share of the result's pixels that are white, padding aside"),
    describe(
        "clipped_share", pa.float32(), "share of the source's pixels that the VOI rule took to an end of the range"
    ),
    describe("sharpness", pa.float32(), "mean absolute Laplacian in the middle of the result, in levels of 256"),
    describe("inverted_score", pa.float32(), "how likely the source is a negative, 0 to 1; null: not asked (--scores)"),
    describe("turned_score", pa.float32(), "how likely the source is turned, 0 to 1"),
    describe("turned_degrees", pa.int32(), "by how much clockwise, if it is: 90, 180 or 270"),
    describe("mirrored_score", pa.float32(), "how likely it is mirrored: to sort by and for whole batches, no verdict"),
    describe("structure", pa.float32(), "share of the source's pixels that show anything; little: blank"),
    describe(
        "not_frontal_score",
        pa.float32(),
        "how unlike a frontal chest radiograph, 0 to 1: a lateral, another part, no radiograph; to sort by",
    ),
)


DERIVED: Final = pa.schema([*IMAGES, *DERIVED_FIELDS])
"""``derived/RECIPE/manifests/images.parquet``: as ``images.parquet``, and where each image comes from."""


def derived_schema(*bases: pa.Schema) -> pa.Schema:
    """The schema of converted images whose originals' tables have the schemas ``bases``.

    A collection's own observations are carried, and who drew a box where one of them says so.
    """
    own = {
        field.name: field.remove_metadata().with_metadata(
            {b"description": (field.metadata or {}).get(b"description", b"")}
        )
        for base in bases
        for field in own_observations(base)
    }
    boxes = [base.field("boxes").type for base in bases if "boxes" in base.names]
    read = next((kind for kind in boxes if kind.value_type.get_field_index("reader") >= 0), pa.list_(BOX))
    return pa.schema([*with_boxes(DERIVED, read), *own.values()])


HEADERS: Final = pa.schema(
    [
        describe("source_path", pa.string(), "path of the image, relative to the folder", required=True),
        describe("path", pa.string(), "path of what was made of it", required=True),
        describe("patient_id", pa.string(), "pseudonym of the patient; null: the header names none"),
        describe("study_id", pa.string(), "pseudonym of the study; null: the header names none"),
        describe("modality", CATEGORY, "DX, CR, RF, ..."),
        describe("body_part", TEXT, "body part examined, as the header spells it"),
        describe("laterality", CATEGORY, "L, R or B, where the header says"),
        describe("view_raw", TEXT, "view position, as the header spells it"),
        describe("orientation", TEXT, "patient orientation: towards where rows and columns run"),
        describe("presentation_intent", CATEGORY, "FOR PRESENTATION or FOR PROCESSING"),
        describe("photometric", CATEGORY, "photometric interpretation"),
        describe("rows", pa.int32(), "height of the source in pixels"),
        describe("columns", pa.int32(), "width of the source in pixels"),
        describe("bits_stored", pa.int8(), "bits of a stored value"),
        describe("window_center", pa.float64(), "centre of the first window"),
        describe("window_width", pa.float64(), "width of the first window"),
        describe("voi_function", CATEGORY, "LINEAR, LINEAR_EXACT or SIGMOID, where the header says"),
        describe("lossy", CATEGORY, "01 when the pixels were once compressed with loss, 00 when never"),
        describe("kvp", pa.float32(), "peak tube voltage in kV"),
        describe("exposure_mas", pa.float32(), "exposure in mAs"),
        describe("exposure_uas", pa.float64(), "exposure in uAs"),
        describe("source_to_detector_mm", pa.float32(), "distance from source to detector in mm"),
        describe("manufacturer", TEXT, "maker of the equipment"),
        describe("model", TEXT, "model of the equipment"),
    ]
)
"""``headers.parquet`` of a hospital's own folder: what the DICOM headers say, without whom they are about."""


STUDIES: Final = pa.schema(
    [
        _DATASET,
        _RELEASE,
        _STUDY,
        _PATIENT,
        _SPLIT,
        describe("n_images", pa.int16(), "images of the study that are here", required=True),
        describe("n_frontal", pa.int16(), "frontal images of the study that are here", required=True),
        describe("n_lateral", pa.int16(), "lateral images of the study that are here", required=True),
        describe("views", pa.list_(pa.string()), "views of those images, in the order of their ids"),
        *_PERSON,
        *_LABEL_ORIGIN,
        *label_fields(),
        _REPORT,
        *_PROVIDERS,
    ]
)
"""``studies.parquet``, a row per study that has an image here; labels rank 1 over -1 over 0 over null."""


MASKS: Final = pa.schema(
    [
        _DATASET,
        _RELEASE,
        describe("image_id", pa.string(), "image that the region is drawn on", required=True),
        describe("label", pa.string(), "what the region is, as the release words it"),
        describe("observation", pa.string(), "column of labels.parquet that the word belongs to"),
        describe("label_source", CATEGORY, "who drew it"),
        describe("reader", pa.string(), "the reader, where the release names each"),
        describe("score", pa.float32(), "how sure it is, where the release says"),
        describe("height", pa.int32(), "height of the image that it was drawn on, in pixels"),
        describe("width", pa.int32(), "width of that image, in pixels"),
        describe("counts", pa.string(), "run lengths down the columns, in COCO's compressed form"),
        describe("polygons", pa.list_(pa.list_(pa.float32())), "rings of x, y, x, y ... in pixels of that image"),
        describe("path", pa.string(), "picture of the region, relative to the folder"),
    ]
)
"""``masks.parquet``, a row per region that a release draws."""


FAILURES: Final = pa.schema(
    [
        describe("path", pa.string(), "the file that failed", required=True),
        describe("image_id", pa.string(), "the image that failed, where it is one"),
        describe("stage", CATEGORY, "the verb at work: download, convert, ...", required=True),
        describe("error", CATEGORY, "class of the error", required=True),
        describe("message", pa.string(), "what happened", required=True),
        describe("hint", pa.string(), "what to do about it"),
    ]
)
"""``failures.parquet``: a row per item that failed in the last run."""


VERIFY: Final = pa.schema(
    [
        describe("path", pa.string(), "file, or empty for a finding about the whole dataset", required=True),
        describe("finding", CATEGORY, "what was found: ok, missing, altered, truncated, ...", required=True),
        describe("level", CATEGORY, "ok, note, warning or error", required=True),
        describe("expected", pa.string(), "what should have been"),
        describe("found", pa.string(), "what is"),
        describe("detail", pa.string(), "what is known about it"),
    ]
)
"""``verify.parquet``: a row per file or fact that was checked."""


RAW_PREFIX: Final = "raw_"


def labels_schema(
    raw: Iterable[str],
    *,
    plain: Iterable[str] = (),
    report_text: bool = False,
    own: Mapping[str, str] | None = None,
    box: pa.DataType = BOX,
) -> pa.Schema:
    """The schema of a ``labels.parquet``.

    Args:
        raw: The columns of its source tables, in their order; they become ``raw_<column>``, as text.
        plain: Those whose values nearly all differ: they are not dictionary-encoded.
        report_text: A column of that name ends the table.
        own: The columns of the dataset's own observations, with what a 1 in each says; they stand before the source
            columns.
        box: What a box holds.

    Returns:
        The schema.
    """
    unencoded = frozenset(plain)
    fields = [
        describe(
            f"{RAW_PREFIX}{name}",
            pa.string() if name in unencoded else TEXT,
            f"source column {name}, as text; null where the cell is blank",
        )
        for name in raw
    ]
    observations = [
        describe(name, pa.int8(), f"1 if {meaning}; 0 no, -1 uncertain, null not mentioned or not known")
        for name, meaning in (own or {}).items()
    ]
    # All images and sources of a study share its text.
    last = [describe("report_text", REPORT_TEXT, _REPORT_WORDS)] if report_text else []
    return pa.schema([*with_boxes(LABELS, pa.list_(box)), *observations, *fields, *last])


def with_boxes(schema: pa.Schema, boxes: pa.DataType) -> pa.Schema:
    """The schema with boxes that hold as much as those of the type ``boxes``: who drew them too, or not."""
    place = schema.get_field_index("boxes")
    # Not the type itself: what was read from a file calls the items of lists otherwise.
    kind = READ_BOX if boxes.value_type.get_field_index("reader") >= 0 else BOX
    return schema.set(place, schema.field(place).with_type(pa.list_(kind)))


def own_observations(schema: pa.Schema) -> list[pa.Field]:
    """The fields of a dataset's own observations, ``label_<namespace>__<name>``, in a schema or a table's."""
    return [field for field in schema if is_own_observation(field.name)]


def own_columns(schema: pa.Schema) -> list[str]:
    """The names of the columns of a collection's own observations."""
    return [field.name for field in own_observations(schema)]


def label_columns(schema: pa.Schema) -> list[str]:
    """The columns of labels that a table has: of the shared observations in their order, then the dataset's own."""
    shared = (f"label_{stem}" for stem in OBSERVATIONS)
    return [*(name for name in shared if schema.get_field_index(name) >= 0), *own_columns(schema)]


def is_own_observation(column: str) -> bool:
    """Whether a column is one of a dataset's own observations."""
    return column.startswith("label_") and "__" in column


TABLES: Final = {"images": DERIVED, "labels": LABELS, "studies": STUDIES}
"""The tables of a folder by name: every column that they may have, but for a release's own."""

ALWAYS: Final = {"images": IMAGES.names, "labels": LABELS.names, "studies": STUDIES.names}
"""The columns that they have always."""


def studies_schema(*, report_text: bool = False, own: Iterable[pa.Field] = ()) -> pa.Schema:
    """The schema of ``studies.parquet``; with ``report_text`` a column of that name ends the table.

    ``own`` are the fields of a collection's own observations.
    """
    last = [describe("report_text", pa.large_string(), _REPORT_WORDS)] if report_text else []
    return pa.schema([*STUDIES, *own, *last])


def as_rows_of(schema: pa.Schema, table: pa.Table) -> pa.Table:
    """The rows of a table that has a part of the columns of ``schema``, as ``null_columns``."""
    return null_columns(schema, table.num_rows, dict(zip(table.column_names, table.columns, strict=True)))


def null_columns(schema: pa.Schema, rows: int, columns: Mapping[str, Any]) -> pa.Table:
    """A table of ``schema`` with the given columns, cast to its types; columns that are not given are null.

    Raises ``KeyError`` for a column that the schema does not know.
    """
    unknown = set(columns) - set(schema.names)
    if unknown:
        raise KeyError(f"not in the schema: {', '.join(sorted(unknown))}")
    arrays = []
    # Columns without a value share one array of each type: a third of a label table's have none.
    blank: dict[pa.DataType, pa.Array] = {}
    for field in schema:
        value = columns.get(field.name)
        # Nobody drew a box: what one would hold does not matter.
        if value is None or (pa.types.is_list(field.type) and value.null_count == rows and value.type != field.type):
            if field.type not in blank:
                blank[field.type] = pa.nulls(rows, field.type)
            arrays.append(blank[field.type])
        else:
            arrays.append(value if value.type == field.type else value.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)
