"""Selection of table rows by split, view, label and id; the table is handed in, nothing is read here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import TableError, UsageError, did_you_mean
from cxrprep.model import ColumnTest, ImageId, Projection, Selection, Split, View
from cxrprep.schemas import DERIVED_FIELDS, is_own_observation
from cxrprep.selection.filters import SelectionFilter, draw, plain_id
from cxrprep.vocabulary import column_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.storage.table_on_disk import TableOnDisk

_OPERATORS: Final[Mapping[str, Callable[..., Any]]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


class NoSplitError(UsageError):
    """Raise when a split is asked for and no table states one. Do not raise when tables state other splits."""


@dataclass(frozen=True, slots=True)
class SelectedImages:
    """The images that a selection names: ``ids`` as paths state them, of ``total`` that the tables know.

    ``studies`` and ``patients`` are those of the images; ``release`` is the one whose tables answered.
    """

    ids: frozenset[str]
    studies: frozenset[str]
    patients: frozenset[str]
    total: int
    release: str

    def unknown(self, selection: Selection) -> list[str]:
        """The ids that ``selection`` names and the tables do not know, sorted."""
        known = {plain_id(name) for names in (self.patients, self.studies, self.ids) for name in names}
        asked = sorted(selection.patients | selection.studies | selection.images)
        return [name for name in asked if plain_id(name) not in known]


def select_images(table: pa.Table, selection: Selection, *, spec: DatasetSpec, release: str) -> SelectedImages:
    """The images that a selection by patients, studies, images, splits, views and labels leaves over.

    Globs, ``limit`` and ``sample`` are the plan's to apply.

    Args:
        table: Has the columns of ``labels.parquet``.
        selection: What is wanted.
        spec: The dataset.
        release: The release; its own labels count.

    Returns:
        Ids, and what of the selection the tables do not know.

    Raises:
        UsageError: A view or observation that does not exist.
        TableError: Tables that cannot say what was asked.
    """
    keep = pc.is_valid(table.column("image_id"))
    total = int(pc.count_distinct(table.column("image_id")).as_py())
    if not total:
        raise TableError(
            f"the tables of {spec.name} that are here name studies, not images",
            hint="add the table that lists images (metadata, split or record list), or name its folder with --tables",
        )
    if selection.patients or selection.studies:
        keep = pc.and_(keep, _of_people(table, selection))
    if selection.images:
        wanted = pa.array(sorted(selection.images), pa.string())
        keep = pc.and_(keep, pc.is_in(table.column("image_id"), value_set=wanted))
    keep = pc.and_(keep, matching(table, selection, dataset=spec.name, sources=spec.default_label_source))
    found = table.filter(pc.fill_null(keep, fill_value=False))
    return SelectedImages(
        ids=_distinct(found, "image_id"),
        studies=_distinct(found, "study_id"),
        patients=_distinct(found, "patient_id"),
        total=total,
        release=release,
    )


def matching(
    table: pa.Table,
    selection: Selection,
    *,
    dataset: str,
    sources: str | None = None,
    splits: frozenset[str] | None = None,
) -> Any:
    """Where the splits, views, labels and conditions on columns of a selection hold.

    Args:
        table: Has the columns of the manifests.
        selection: What is wanted.
        dataset: Its name, for its own observations.
        sources: Label sources whose rows count, with commas; ``None`` takes the labels as they stand.
        splits: Those that there are, where ``table`` is a part; by default those that it has.

    Returns:
        A Boolean for each row.

    Raises:
        UsageError: A view, observation or column that does not exist.
    """
    keep: Any = pc.is_valid(table.column("patient_id"))
    if selection.splits:
        keep = pc.and_(keep, _of_splits(table, selection.splits, dataset, splits))
    if selection.views:
        keep = pc.and_(keep, _of_views(table, selection.views))
    if selection.labels:
        keep = pc.and_(keep, _of_labels(table, selection, sources))
    for test in selection.where:
        keep = pc.and_(keep, _of_column(table, test, dataset))
    return keep


def _distinct(table: pa.Table, name: str) -> frozenset[str]:
    return frozenset(pc.unique(table.column(name)).to_pylist())


def _of_people(table: pa.Table, selection: Selection) -> Any:
    """The rows of the wanted patients and studies, whose ids may be written as people write them."""
    choice = SelectionFilter(Selection(patients=selection.patients, studies=selection.studies))
    patient, study = table.column("patient_id").combine_chunks(), table.column("study_id").combine_chunks()
    # A study has one patient, so each study is asked once.
    studies = pc.unique(study)
    patients_of_studies = patient.take(pc.index_in(studies, value_set=study))
    pairs = zip(patients_of_studies.to_pylist(), studies.to_pylist(), strict=True)
    return pc.is_in(study, value_set=studies.filter(pa.array([choice.wants_study(*pair) for pair in pairs])))


def _of_splits(table: pa.Table, wanted: frozenset[Split], dataset: str, known: frozenset[str] | None) -> Any:
    splits = table.column("split").cast(pa.string())
    if known is None:
        known = frozenset(pc.unique(splits).drop_null().to_pylist())
    if not known:
        raise NoSplitError(
            f"the tables of {dataset} that are here do not state a split",
            hint="add the release's split table; or divide by patient first: cxrprep manifest ROOT --split-by patient",
        )
    missing = sorted(str(split) for split in wanted if str(split) not in known)
    if missing:
        raise UsageError(f"{dataset} has no split {missing[0]!r} here", hint=f"its splits: {', '.join(sorted(known))}")
    return pc.is_in(splits, value_set=pa.array([str(split) for split in wanted]))


def _of_views(table: pa.Table, wanted: frozenset[str]) -> Any:
    views, projections = [], []
    for name in wanted:
        word = name.strip().upper().replace(" ", "_").replace("-", "_")
        if word.lower() in set(Projection) and word != "LATERAL":
            projections.append(word.lower())
        elif word == "LATERAL":
            # The view LATERAL and the projection share a name; who asks for it wants LL and RL too.
            projections.append("lateral")
        elif word in set(View):
            views.append(word)
        else:
            known = [*(str(p) for p in Projection), *(str(v) for v in View if v is not View.LATERAL)]
            raise UsageError(f"unknown view {name!r}", hint=f"{did_you_mean(word, known)}known: {', '.join(known)}")
    by_view = pc.is_in(table.column("view").cast(pa.string()), value_set=pa.array(views, pa.string()))
    by_projection = pc.is_in(table.column("projection").cast(pa.string()), value_set=pa.array(projections, pa.string()))
    return pc.or_(by_view, by_projection)


def _of_labels(table: pa.Table, selection: Selection, sources: str | None) -> Any:
    names = [] if sources is None else [name.strip() for name in sources.split(",")]
    source = table.column("label_source").cast(pa.string())
    known = {word for word in pc.unique(source).to_pylist() if word is not None}
    if sources is not None and not known & set(names):
        raise UsageError(
            f"no labels of {sources} are here", hint=f"label sources here: {', '.join(sorted(known)) or 'none'}"
        )
    found: Any = pa.scalar(False)
    for test in selection.labels:
        if (name := column_of(test.observation)) not in table.column_names:
            # An observation of another collection's own, such as padchest:scoliosis.
            here = sorted(one.removeprefix("label_") for one in table.column_names if is_own_observation(one))
            raise UsageError(
                f"no label {test.observation!r} is here", hint=f"of this collection's own: {', '.join(here) or 'none'}"
            )
        column = table.column(name)
        equal = (
            pc.is_null(column) if test.value is None else pc.fill_null(pc.equal(column, test.value), fill_value=False)
        )
        found = pc.or_(found, equal)
    return found if sources is None else pc.and_(found, pc.is_in(source, value_set=pa.array(names)))


def _of_column(table: pa.Table, test: ColumnTest, dataset: str) -> Any:
    """Where a condition on a column holds; of a null only ``=null`` does."""
    if test.column not in table.column_names:
        hint = f"{did_you_mean(test.column, table.column_names)}columns: {', '.join(table.column_names)}"
        if any(field.name == test.column for field in DERIVED_FIELDS):
            hint = "it is measured by convert: select of the converted images"
        raise UsageError(f"the tables of {dataset} that are here have no column {test.column!r}", hint=hint)
    column = table.column(test.column)
    if test.value.lower() == "null":
        if test.operator not in {"=", "!="}:
            raise UsageError(f"{test}: null is neither less nor more than anything", hint="write = or !=")
        return pc.is_null(column) if test.operator == "=" else pc.is_valid(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return pc.fill_null(_OPERATORS[test.operator](column, _value_of(column.type, test)), fill_value=False)


def _value_of(kind: pa.DataType, test: ColumnTest) -> pa.Scalar:
    """The value of a condition, as the column has its own."""
    try:
        if pa.types.is_floating(kind) or pa.types.is_integer(kind):
            # 0.1 is not 0.1 in single precision: as the column rounds it.
            return pa.scalar(float(test.value)).cast(kind if pa.types.is_floating(kind) else pa.float64())
        if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_temporal(kind):
            return pa.scalar(test.value).cast(kind)
    except (ValueError, pa.ArrowInvalid) as error:
        raise UsageError(f"{test}: {test.value!r} is not a value of {test.column}, which holds {kind}") from error
    raise UsageError(
        f"{test}: a condition is on a number or a word, and {test.column} holds {kind}", hint="name another column"
    )


def wanted_rows(table: pa.Table, selection: Selection) -> Any:
    """A Boolean array, true for the rows of ``table`` (of images) that ``selection`` wants.

    Globs match the manifest's paths, labels are those of the manifest. Raises ``UsageError`` for a view, split or
    observation that does not exist.
    """
    mask = undrawn_rows(table, selection)
    if selection.draws:
        left = table.column("image_id").filter(mask).to_pylist()
        mask = pc.and_(mask, pc.is_in(table.column("image_id"), value_set=_drawn_ids(left, selection)))
    return mask


def undrawn_rows(table: pa.Table, selection: Selection, *, splits: frozenset[str] | None = None) -> Any:
    """The same before ``sample`` and ``limit``, which are asked of all rows at once, by ``drawn_rows``.

    ``splits`` are those that there are, where ``table`` is a part of a manifest.
    """
    dataset = str(table["dataset"][0].as_py()) if table.num_rows else "this folder"
    held = matching(table, selection, dataset=dataset, splits=splits)
    return pc.and_(pc.fill_null(held, fill_value=False), chosen_rows(table, SelectionFilter(selection)))


def chosen_rows(table: pa.Table, choice: SelectionFilter) -> pa.Array:
    """Where ids and globs want the images of ``table``."""
    if choice.wants_all:
        return pa.repeat(pa.scalar(value=True), len(table))
    ids = (table.column(name).to_pylist() for name in ("path", "patient_id", "study_id", "image_id"))
    kept = [choice.wants(path, ImageId(*of_image)) for path, *of_image in zip(*ids, strict=True)]
    return pa.array(kept, pa.bool_())


def drawn_rows(images: TableOnDisk, selection: Selection) -> TableOnDisk:
    """The rows that ``sample`` and ``limit`` leave of those of images; an image has one."""
    if not selection.draws:
        return images
    ids = (name for group in images.groups(["image_id"]) for name in group["image_id"].to_pylist())
    return images.among("image_id", _drawn_ids(ids, selection))


def _drawn_ids(left: Iterable[str], selection: Selection) -> pa.Array:
    return pa.array(sorted(draw(left, selection)), pa.string())


_DECIDING: Final = (
    "dataset", "path", "patient_id", "study_id", "image_id", "split", "view", "projection", "label_source",
)  # fmt: skip


def asked_columns(selection: Selection, schema: pa.Schema) -> list[str]:
    """The columns of a manifest by which ``undrawn_rows`` decides; all where it would miss one, for it says which."""
    asked = {test.column for test in selection.where} | {column_of(test.observation) for test in selection.labels}
    names = asked.union(_DECIDING)
    return [name for name in schema.names if name in names or not asked <= set(schema.names)]
