"""Earlier conversions into the same folder: another selection adds to their manifest and removes nothing from it.

The manifest lists what this recipe finished and what still lies there. Two witnesses are heard: what is written down of
every image as it is finished, which a killed run leaves too, and the manifest before this one, which outlives the cache
and the sources.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from cxrprep.collection.lineage import shard_tables
from cxrprep.digests import digest_of
from cxrprep.errors import CxrprepError
from cxrprep.events import Note, Sink
from cxrprep.images.conversion import ConversionTask, Converted, ConvertItem
from cxrprep.images.local_files import LocalStore, read_source
from cxrprep.manifest.previous import PreviousImages, read_previous

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.api.conversion_totals import ConversionTotals
    from cxrprep.api.convert_inputs import Inputs
    from cxrprep.images.conversion_cache import ConversionCache
    from cxrprep.storage.filesystem import ImageStore, SizeLimit

_BATCH: Final = 8192


def add_previous(
    inputs: Inputs,
    finished: ConversionCache,
    task: ConversionTask,
    totals: ConversionTotals,
    *,
    below: str,
    allow_loss: bool,
    on_event: Sink,
) -> PreviousImages:
    """Add to ``totals`` each output of images that this run did not try; the rest are rows of the earlier manifest.

    Scores are asked of the images of this run alone: these are taken as they were made.

    An output whose source is gone stays listed, since it is as good as before. One whose source changed does not, and
    neither does an output that an edited recipe made anew: both are said. What it could not make anew stays, and so
    does an output with other bytes than its row states: ``verify`` finds it by that row.

    Args:
        inputs: The images of this run.
        finished: What earlier runs wrote down of their outcomes.
        task: The recipe and the folder of outputs.
        totals: What became of the images of this run.
        below: The folder of the manifest, in the folder of outputs.
        allow_loss: Leave out whatever another recipe made.
        on_event: Told what is not listed any more.

    Returns:
        The rows of the earlier manifest that stay.
    """

    def open_file(name: str) -> BinaryIO:
        return task.out.open(f"{below}/{name}")

    task, before = dataclasses.replace(task, scores=False), len(totals.images)
    tables, tried, made = _shard_tables(task.out, below), totals.tried(), totals.images.names("path")
    done = None if allow_loss else totals.images.names("source_path")
    earlier = read_previous(open_file, task.fingerprint, tried=tried, made=made, done=done, others=tables)
    taken: set[str] = set()
    paths: set[str] = set()
    unsure: dict[str, ConvertItem] = {}
    if inputs.others is not None:
        wanted = {*finished.known(task.fingerprint, tried), *earlier.rows.column("source_path").to_pylist()}
        those = inputs.others(wanted) if wanted else iter(())
        while batch := list(itertools.islice(those, _BATCH)):
            for found in finished.split_done(batch, task):
                if not isinstance(found, Converted):
                    unsure[found.relative] = found
                elif found.status == "notneeded":
                    taken.add(found.item.relative)
                    paths.add(found.path)
                    totals.images.add(found.as_row())
    changed: list[str] = []
    is_there = _presence(task.out)

    def holds(source: str, digest: str, path: str) -> bool:
        if source in taken or path in paths or not is_there(path):
            return False
        now = totals.failed.get(source, "")
        if now and now != digest and now.partition(":")[0] == digest.partition(":")[0]:
            return False
        if source in unsure and not has_digest(unsure[source], digest, task.limits):
            changed.append(source)
            return False
        return True

    if len(earlier):
        earlier = earlier.only(holds)
    if changed:
        message = (
            f"{len(changed):,} images of an earlier selection changed since they were converted and are not in the "
            f"manifest; the first: {changed[0]}; convert without a selection to make them again"
        )
        on_event(Note("convert", message, "warning", task.out.address))
    stay = earlier.other_recipe(task.fingerprint)
    if len(stay):
        message = (
            f"images that this recipe could not make anew: {len(stay):,}; they stay in the manifest as "
            f"{stay['recipe'][0]} {stay['recipe_fingerprint'][0]} made them; the first: {stay['path'][0]}"
        )
        on_event(Note("convert", message, "warning", task.out.address))
    foreign = [row for row in earlier.foreign if is_there(row[0])]
    if foreign:
        path, recipe, fingerprint = foreign[0]
        message = (
            f"images here that were made by another recipe ({recipe} {fingerprint}): {len(foreign):,}; they are not in "
            f"the manifest; the first: {path}; remove them, or give each recipe a folder of its own with --out"
        )
        on_event(Note("convert", message, "warning", task.out.address))
    totals.earlier = len(totals.images) - before + len(earlier)
    return earlier


def _shard_tables(out: ImageStore, below: str) -> list[str]:
    """The image tables that a job array's shards wrote, below the manifests; in a store they are not looked for."""
    if not isinstance(out, LocalStore) or "/" in below:
        return []
    folder = Path(out.address, below)
    return [path.relative_to(folder).as_posix() for path in shard_tables(folder)]


def has_digest(item: ConvertItem, stated: str, limits: SizeLimit) -> bool | None:
    """Whether a source is still the one whose digest is ``stated``; ``None`` where that cannot be found out."""
    algorithm = stated.partition(":")[0]
    if item.digest is not None and item.digest.algorithm == algorithm:
        return str(item.digest) == stated
    try:
        return str(digest_of(read_source(item.source, limits), algorithm)) == stated
    except (CxrprepError, ValueError):
        return None


def _presence(out: ImageStore) -> Callable[[str], bool]:
    """What tells whether an output is there; a store is listed once."""
    if isinstance(out, LocalStore):
        return lambda path: out.version_tag(path) is not None
    listed: set[str] = set()

    def looked_up(path: str) -> bool:
        if not listed:
            listed.update(entry.name for entry in out.list())
        return path in listed

    return looked_up
