"""The image table of a folder, and the tables beside it: written only where they know no less than what they replace.

A table knows its rows, its columns and its cells that are not null. A row may go when its file went; a cell may go when
somebody asked for it in so many words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import UsageError
from cxrprep.storage.paths import MEMBER
from cxrprep.storage.table_on_disk import TableOnDisk
from cxrprep.storage.unfetched import lies_there
from cxrprep.storage.value_codes import flat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

ASK: Final = "--allow-loss"
"""The option that asks for a table which knows less."""
_SHOWN: Final = 6
# What studies know by their own, and count; the rest of their columns is what their images say.
_OF_STUDIES: Final = frozenset({"n_images", "n_frontal", "n_lateral", "views", "report_text"}) | {
    f"{who}_provider_id" for who in ("ordering", "attending", "resident")
}
# What a copy of an image in another file changes, and what is measured again: no knowledge goes with it.
_OF_FILES: Final = frozenset({"bytes", "width", "height", "source_mode", "spacing_x_mm", "spacing_y_mm"})


@dataclass(frozen=True, slots=True)
class Loss:
    """What a new table would know no longer: ``cells`` counts ``what``: rows, or cells of a column.

    ``first`` names the first of the rows.
    """

    what: str
    cells: int
    first: str = ""

    def __str__(self) -> str:
        """Such as ``42 cells of label_edema``."""
        return f"{self.cells:,} {self.what}" + (f" (the first: {self.first})" if self.first else "")


def stored_table(path: Path) -> TableOnDisk | None:
    """The table that is there; ``None`` where there is none, or one that may not be read.

    It is read column by column: a whole one may have no room beside another. measured: `manifest` on 377,110 images
    peaks at 700 MB so, and at 870 with both tables in memory.
    """
    try:
        return TableOnDisk.open(path, columns=()) if path.is_file() else None
    except OSError:
        return None


def losses(
    before: pa.Table | TableOnDisk,
    after: pa.Table,
    *,
    keys: tuple[str, ...],
    exempt: Collection[str] = (),
    gone: Callable[[pa.Table | TableOnDisk, pa.Array], pa.Array] | None = None,
) -> Iterator[Loss]:
    """What ``after`` would know no longer of what ``before`` knows.

    Args:
        before: The table that is there.
        after: The table that would replace it.
        keys: Columns by which a row is found again, best first: a row is there if any of them finds it.
        exempt: Columns whose cells may go.
        gone: Says of ``before`` and of which of its rows are missing, as Booleans, which of them may be; default: none.

    Yields:
        One loss for rows, one for each column.
    """
    place = pa.nulls(before.num_rows, pa.int32())
    for key in keys:
        place = pc.coalesce(place, _find(before.column(key), after.column(key)))
    missing = pc.is_null(place)
    lost = missing if gone is None else pc.and_(missing, pc.invert(gone(before, missing)))
    if rows := _count(lost):
        yield Loss("rows", rows, str(before.column(keys[0])[pc.index(lost, value=True).as_py()].as_py()))
    kept = pc.is_valid(place)
    for name in before.column_names:
        if name in exempt or name in _OF_FILES:
            continue
        stays = name in after.column_names
        # A column without gaps knows of every row: what was there need not be read.
        if (stays and after.column(name).null_count == 0) or (column := before.column(name)).null_count == len(column):
            continue
        known = pc.and_(kept, pc.is_valid(flat(column)))
        if name == "digest":
            # It was that of another content.
            same = pc.equal(flat(before.column("bytes")), flat(after.column("bytes")).take(place))
            known = pc.and_(known, pc.fill_null(same, fill_value=False))
        if stays:
            now: Any = pc.fill_null(pc.is_valid(flat(after.column(name))).take(place), fill_value=False)
        else:
            now = pa.repeat(pa.scalar(value=False), before.num_rows)
        if cells := _count(pc.and_(known, pc.invert(now))):
            yield Loss(f"cells of {name}", cells)


def refuse_loss(path: Path, found: list[Loss], *, hint: str) -> None:
    """Raise ``UsageError`` that says what the table at ``path`` would know no longer, and how to ask for that."""
    if found:
        shown = ", ".join(str(loss) for loss in found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        ways = f"{hint}; or, to write it all the same, add {ASK}" if hint else f"to write it all the same, add {ASK}"
        raise UsageError(f"{path} would lose {shown}; it is left as it is", hint=ways)


def image_losses(
    before: pa.Table | TableOnDisk | None, images: pa.Table, root: Path, exempt: Collection[str]
) -> list[Loss]:
    """What a new image table would know less than ``before``.

    A row may go when the file that it names went; files in shards go with their shard.

    Args:
        before: The image table that is there, if any.
        images: What would replace it.
        root: The folder that the paths of rows are relative to.
        exempt: Columns whose cells may go; where all labels would go, none of them is exempt.

    Returns:
        What would go.
    """
    if before is None or not {"path", "image_id"} <= set(before.column_names):
        return []

    def gone(rows: pa.Table | TableOnDisk, missing: pa.Array) -> pa.Array:
        pairs = zip(rows.column("path").to_pylist(), missing.to_pylist(), strict=True)
        return pa.array([lost and not is_there(root, name) for name, lost in pairs], pa.bool_())

    allowed = set(exempt)
    labels = {name for name in before.column_names if name.startswith("label")}
    if labels & allowed and _labelled(before) and images.num_rows and not _labelled(images):
        allowed -= labels
    found = list(losses(before, images, keys=("path", "image_id"), exempt=allowed, gone=gone))
    place = root / found[0].first if found and found[0].what == "rows" else None
    if place is not None and place.exists() and not place.is_file():
        found[0] = replace(found[0], first=f"{found[0].first}, in whose place is no file")
    return found


def study_losses(
    before: pa.Table | TableOnDisk | None,
    studies: pa.Table,
    images: pa.Table | TableOnDisk | None,
    exempt: Collection[str],
) -> list[Loss]:
    """What new studies would know less than ``before`` for another reason than that images of theirs went.

    Which images went is judged by ``image_losses``, of those that the image table names: one that was emptied or cut
    short takes no study with it.

    Args:
        before: The studies that are there, if any.
        studies: The new table of studies.
        images: The image table that is there, if any.
        exempt: Columns whose cells may go.

    Returns:
        What would go.
    """
    if before is None or not {"study_id", "n_images"} <= set(before.column_names):
        return []
    keys, held = before.column("study_id"), flat(before.column("n_images"))
    judged = pc.greater_equal(_named(images, keys), held)
    place = _find(keys, studies.column("study_id"))
    fewer = pc.fill_null(pc.less(flat(studies.column("n_images")).take(place), held), fill_value=False)
    of_images = set(studies.column_names) - _OF_STUDIES

    def gone(_: pa.Table | TableOnDisk, missing: pa.Array) -> pa.Array:
        return pc.and_(missing, judged)

    found = list(losses(before, studies, keys=("study_id",), exempt={*exempt, *of_images}, gone=gone))
    if count := _count(pc.and_(fewer, pc.invert(judged))):
        found.append(Loss("studies with images that are here", count))
    # Of those that have as many images as before, what their images say is known as before.
    whole = studies.filter(pc.invert(pc.is_in(flat(studies.column("study_id")), value_set=flat(keys).filter(fewer))))
    apart = {*exempt, *before.column_names} - (of_images - set(exempt))
    found += losses(before, whole, keys=("study_id",), exempt=apart, gone=lambda _, missing: missing)
    return found


def _named(images: pa.Table | TableOnDisk | None, studies: pa.ChunkedArray) -> pa.Array:
    """Of how many images of each study an image table says something."""
    if images is None or "study_id" not in images.column_names:
        return pa.repeat(pa.scalar(0, pa.int64()), len(studies))
    counted = pc.value_counts(flat(images.column("study_id")))
    place = pc.index_in(flat(studies), value_set=counted.field("values"))
    return pc.fill_null(counted.field("counts").take(place), 0)


def is_there(root: Path, name: str) -> bool:
    """Whether an image lies in ``root``, or the shard that holds it."""
    member = MEMBER.fullmatch(name)
    return lies_there(root, name) or (member is not None and lies_there(root, member[1]))


def _labelled(table: pa.Table | TableOnDisk) -> bool:
    """Whether there are cells of labels."""
    return any(
        table.column(name).null_count < table.num_rows
        for name in table.column_names
        if name.startswith("label_") and table.schema.field(name).type == pa.int8()
    )


def _find(keys: pa.ChunkedArray, among: pa.ChunkedArray) -> pa.Array:
    if keys.equals(among):
        return pa.array(range(len(keys)), pa.int32())
    return pc.index_in(flat(keys), value_set=flat(among), skip_nulls=True)


def _count(mask: pa.Array) -> int:
    return int(pc.sum(mask).as_py() or 0)
