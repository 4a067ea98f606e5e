"""The manifest of converted images, made again from what lies beside them: their own table and their own labels."""

from __future__ import annotations

import filecmp
import functools
import shutil
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.collection.image_table import is_there
from cxrprep.errors import TableError, UsageError, storage_errors
from cxrprep.events import Note, Sink
from cxrprep.humanize import format_count
from cxrprep.labels.extract import LABELS_NAME
from cxrprep.labels.label_losses import MASKS_NAME
from cxrprep.labels.policy import Policy
from cxrprep.labels.splits import SplitRule
from cxrprep.manifest.build import IMAGES_NAME, STUDIES_NAME, check_tables
from cxrprep.manifest.croissant import describe_images, write_croissant
from cxrprep.manifest.dataset_card import write_card_beside
from cxrprep.manifest.label_join import relabel_from, rows_for, stated_sources
from cxrprep.manifest.stated_digest import with_digest
from cxrprep.manifest.studies import studies_of
from cxrprep.storage.parquet import SET_DIGEST, check_as_written, footer_of, read_rows, write_table
from cxrprep.storage.small_files import open_file
from cxrprep.storage.table_checksums import digest_as_written, note_checksum, replace_listed
from cxrprep.storage.table_on_disk import TableOnDisk
from cxrprep.storage.unfetched import lies_there
from cxrprep.storage.value_codes import flat

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cxrprep.collection import DatasetFolder

# What the footer says of this table alone.
_OF_TABLE: Final = frozenset({"schema", "schema_version", "tool", "choices", SET_DIGEST})
_BESIDE: Final = (LABELS_NAME, MASKS_NAME, STUDIES_NAME, "headers.parquet")


def carry_labels(source: Path, target: Path) -> None:
    """The labels and masks of a folder beside what was made of it: byte for byte, so that their digest names both.

    Args:
        source: The folder of the manifests that they are in.
        target: The folder of the manifests that they go to.

    Raises:
        TableError: Their bytes are not those that were written: the copy would pass for whole.
        StorageError: The disk refuses.
    """
    for name in (LABELS_NAME, MASKS_NAME):
        before, after = source / name, target / name
        if before.resolve() == after.resolve() or not before.is_file():
            continue
        with storage_errors(before, "read"):
            check_as_written(before)
            with open_file(before) as held:
                # Not in memory: of five million images they are a gigabyte.
                if after.is_file() and filecmp.cmp(before, after, shallow=False):
                    note_checksum(after)
                else:
                    replace_listed(after, functools.partial(_write_body, held))


def _write_body(held: BinaryIO, part: Path) -> None:
    with part.open("wb") as file:
        shutil.copyfileobj(held, file)


def read_labels_beside(manifests: Path, images: pa.Table | None = None) -> pa.Table | None:
    """The labels beside an image table; ``None`` where none were carried. Raises ``TableError``.

    With ``images`` those rows alone that are about one of them, or about its study.
    """
    path = manifests / LABELS_NAME
    if not path.is_file():
        return None
    check_as_written(path)
    if images is None:
        return read_rows(path, use_threads=False).combine_chunks()
    keys = {name: flat(images.column(name)) for name in ("image_id", "study_id")}
    return (
        TableOnDisk.open(path)
        .near("patient_id", flat(images.column("patient_id")))
        .where([*keys], lambda rows: pc.or_(*(pc.is_in(rows[name], value_set=held) for name, held in keys.items())))
        .whole()
    )


def with_choices(
    images: pa.Table, labels: pa.Table | None, footer: Mapping[str, Any], choices: Mapping[str, Any], on_event: Sink
) -> pa.Table:
    """``images`` with the label source, the policy and the split that were chosen for them.

    Args:
        images: The image table as its footer describes it.
        labels: The labels beside it, as their sources state them.
        footer: What it was made from, with the choices that hold for it now.
        choices: Those that shall hold: ``label_source``, ``policy``, ``split``, as footers have them.
        on_event: Told what a person should know.

    Returns:
        The rows in their order.

    Raises:
        UsageError: What is chosen needs labels that are not here.
    """
    before: Mapping[str, Any] = footer.get("choices") or {}
    source = choices.get("label_source") or footer.get("label_source")
    policy = choices.get("policy") or footer.get("policy")
    changed = source != (before.get("label_source") or footer.get("label_source"))
    changed |= policy != (before.get("policy") or footer.get("policy"))
    if changed and labels is None and (source != footer.get("label_source") or before.get("policy")):
        raise UsageError(
            "this folder lacks the labels as the source states them, without a policy",
            hint="choose another source or policy in the folder of the originals, and convert again",
        )
    if changed and labels is not None:
        images = relabel_from(images, labels, stated_sources(str(source or "")), LABELS_NAME)
    if changed and policy is not None:
        images = Policy.parse(**policy).apply(images)
    if choices.get("split") != before.get("split"):
        images = _official(images, labels) if before.get("split") else images
        rule = choices.get("split") or (footer.get("split") if before.get("split") else None)
        images = images if rule is None else SplitRule.described(rule).apply(images, on_event)
    return images


def _official(images: pa.Table, labels: pa.Table | None) -> pa.Table:
    """``images`` with the splits that the labels state, as they were before a rule divided them anew; in no fold."""
    fold, index = (images.schema.get_field_index(name) for name in ("fold", "split"))
    if fold >= 0:
        images = images.set_column(fold, images.schema.field(fold), pa.nulls(images.num_rows, pa.int8()))
    field = images.schema.field(index)
    if labels is None:
        return images.set_column(index, field, pa.nulls(images.num_rows, field.type))
    split = labels.column("split").combine_chunks()
    keys = labels.column("image_id").combine_chunks()
    rows = rows_for(images.column("image_id").combine_chunks(), keys, pc.is_valid(split))
    return images.set_column(index, field, split.take(rows).cast(field.type))


def rebuild_converted(
    folder: DatasetFolder, choices: Mapping[str, Any], *, allow_loss: bool = False, on_event: Sink
) -> pa.Table:
    """The image table and the studies of converted images, written anew from what lies beside them.

    Args:
        folder: The folder of the images.
        choices: What is chosen for it: ``label_source``, ``policy``, ``split``, as footers have them.
        allow_loss: The tables may know less than those that are there.
        on_event: Told what a person should know.

    Returns:
        The image table.

    Raises:
        UsageError: The images lie in shards and something is chosen, the tables would know less, or parts of a job
            array are still to come, which nothing would join any more.
        TableError: A table cannot be read.
    """
    path = next(iter(folder.image_tables), None)
    if path is None:
        raise TableError(f"{folder.root} has no manifest", hint="convert again into this folder")
    footer = footer_of(path)
    parts = path.parent.name.rpartition("-of-")[2]
    if not allow_loss and parts.isdecimal() and len(folder.image_tables) < int(parts):
        raise UsageError(
            f"{folder.root} holds {len(folder.image_tables)} of the {parts} parts of a job array",
            hint="convert the others first, or all of it without --shard; or, to list these alone, add --allow-loss",
        )
    if folder.in_shards and choices:
        raise UsageError(
            f"{folder.root} holds shards, with labels and splits inside of them",
            hint="choose in the folder of the originals, and convert again with --to: cxrprep manifest ORIGINAL",
        )
    try:
        images = pa.concat_tables([read_rows(table) for table in folder.image_tables]).unify_dictionaries()
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{path} cannot be read: {error}", hint="convert again into this folder") from error
    if choices.get("split") and (last := (footer.get("choices") or {}).get("split")):
        rule = SplitRule.described(choices["split"]).beside(SplitRule.described(last))
        choices = {**choices, "split": rule.describe()}
    images = _that_are_here(folder, images, on_event).combine_chunks()
    known = read_labels_beside(folder.read_from)
    images = with_choices(images, known, footer, choices, on_event)
    order = [(name, "ascending") for name in ("patient_id", "study_id", "image_id", "path")]
    images = images.sort_by(order).combine_chunks()
    # What lies beside it and stays as it is keeps the digest that was stated of it, even where it went.
    made_from = {name: value for name, value in footer.items() if name not in _OF_TABLE}
    if folder.lineage is not None:
        # Of a job array that is not joined yet each part names its own.
        made_from = {**made_from, **{k: v for k, v in folder.lineage.as_footer().items() if k == "shards"}}
    chosen = {name: value for name, value in choices.items() if value}
    studies, _ = studies_of(images, known)
    target = folder.manifests
    if not allow_loss:
        judged = {**made_from, **chosen}
        check_tables(target, images, studies, folder.root, made_from=judged, has_labels=known is not None)
    if target != folder.read_from:
        carry_labels(folder.read_from, target)
    write_converted(images, studies, target, {**made_from, **({"choices": chosen} if chosen else {})})
    return images


def _that_are_here(folder: DatasetFolder, images: pa.Table, on_event: Sink) -> pa.Table:
    """The rows whose files are here; of shards all, since ``verify`` judges those."""
    if folder.in_shards:
        return images
    here = pa.array([lies_there(folder.root, path) for path in images.column("path").to_pylist()], pa.bool_())
    gone = images.num_rows - int(pc.sum(here).as_py() or 0)
    if gone:
        on_event(
            Note(
                "manifest", f"{format_count(gone, 'image', 'is')} no longer here: taken out of the manifest", "warning"
            )
        )
    return images.filter(here)


def write_converted(images: pa.Table, studies: pa.Table | None, folder: Path, made_from: Mapping[str, Any]) -> None:
    """Write the studies, then the image table, whose footer names the tables beside it by digest; card and Croissant.

    Args:
        images: The rows.
        studies: Of the images; ``None`` for a part of a job array.
        folder: Of the manifests.
        made_from: What the folder says of itself.

    Raises:
        StorageError: The disk refuses.
    """
    beside: dict[str, str] = {}
    if studies is not None:
        of_studies = {name: made_from[name] for name in made_from if name not in {"shards", "parent", "tables_beside"}}
        write_table(studies, folder / STUDIES_NAME, name="studies", made_from=of_studies)
        here = {name: digest_as_written(folder / name) for name in _BESIDE if (folder / name).is_file()}
        beside = {**(made_from.get("tables_beside") or {}), **here}
    told = with_digest(images, {**made_from, **({"tables_beside": beside} if beside else {})})
    write_table(images, folder / IMAGES_NAME, name="derived", made_from=told)
    write_croissant(folder, (IMAGES_NAME,) if studies is None else (IMAGES_NAME, STUDIES_NAME))
    if studies is not None and images.num_rows and is_there(folder.parent, images.column("path")[0].as_py()):
        describe_images(folder)
    write_card_beside(folder / IMAGES_NAME)
