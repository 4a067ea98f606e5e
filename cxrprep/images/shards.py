"""Outputs as shards: WebDataset tar files, or Parquet with the image bytes inside as the package ``datasets`` reads it.

A shard is one task: it is made whole or not at all. What a run before has put into it is taken over image by image
(each carries its mark), so a shard that lacks one image costs one conversion. The same images give the same bytes.
"""

from __future__ import annotations

import dataclasses
import filecmp
import functools
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.collection import ShardFile
from cxrprep.digests import file_digest
from cxrprep.events import Sink, StageStarted, ignore
from cxrprep.executors import Engine, Lost, batched, end_item
from cxrprep.images import conversion
from cxrprep.images import convert as converting
from cxrprep.images.image_folder import stem_of
from cxrprep.images.local_files import LocalStore
from cxrprep.images.output_metadata import OutputMetadata, output_in
from cxrprep.images.shard_files import ShardReader, write_parquet, write_tar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cxrprep.images.conversion import ConversionTask, Converted, ConvertItem
    from cxrprep.images.conversion_cache import ConversionCache
    from cxrprep.model import Digest
    from cxrprep.model import Shard as Part

_PROBED: Final = 8


# The package datasets has names of its own for splits; a release's other names stay as they are.
_SPLITS: Final = {"validate": "validation", "": "train"}
_UNSPLIT: Final = "unsplit"


# column -> what the header of a plain folder's image says under that name (see cxrprep.images.headers)
_OF_HEADERS: Final = {
    "image_id": "", "patient_id": "patient", "study_id": "study",
    "view": "view", "sex": "sex", "age_years": "age_years",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard: its path below the output folder, its images in order, and the key of each in it."""

    name: str
    items: tuple[ConvertItem, ...]
    keys: tuple[str, ...]
    known_to_kill: Mapping[str, Lost[ConvertItem]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShardDone:
    """What became of the images of one shard; ``written`` is its file, where one was made."""

    name: str
    outcomes: tuple[Converted, ...]
    written: ShardFile | None = None


def key_of(item: ConvertItem) -> str:
    """The key of a sample: its image id (or path), ``__`` for ``/``; without a dot, where the key would end."""
    name = str(item.row["image_id"]) if item.row is not None else item.stem or stem_of(item.relative)
    return name.replace("/", "__").replace(".", "_")


def plan_shards(
    items: Callable[[], Iterable[ConvertItem]], form: str, *, name: str, per_shard: int, shard: Part | None = None
) -> Iterator[ShardPlan]:
    """The shards of images that come split by split. Names depend on the images alone, never on what is done already.

    Args:
        items: The images.
        form: ``webdataset`` or ``parquet``.
        name: Begins the names of the shards.
        per_shard: Images in one.
        shard: Every Nth of them: a job array divides shards, not images.

    Returns:
        The plans, one a shard.
    """
    counts = Counter(_split(item) for item in items())
    number = 0
    for split, group in itertools.groupby(items(), key=_split):
        for index, batch in enumerate(batched(group, per_shard)):
            number += 1
            if shard is not None and number % shard.count != shard.index % shard.count:
                continue
            if form == "parquet":
                shown = _SPLITS.get(split, split)
                file = f"data/{shown}-{index:05d}-of-{-(-counts[split] // per_shard):05d}.parquet"
            else:
                file = f"{'-'.join(part for part in (name, split) if part)}-{index:06d}.tar"
            yield ShardPlan(file, tuple(batch), tuple(_keys(batch)))


def _split(item: ConvertItem) -> str:
    # A plain folder has no splits; an image of a release without one must not land among its training images.
    return "" if item.row is None else str(item.row.get("split") or _UNSPLIT)


def _keys(batch: Sequence[ConvertItem]) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for item in batch:
        key = key_of(item)
        seen[key] += 1
        yield key if seen[key] == 1 else f"{key}~{seen[key]}"


def convert_to_shards(
    plans: Iterable[ShardPlan],
    form: str,
    task: ConversionTask,
    take: Callable[[Converted], object],
    *,
    engine: Engine | None = None,
    finished: ConversionCache | None = None,
    total: int | None = None,
    on_event: Sink = ignore,
) -> dict[str, ShardFile]:
    """Convert images into shards, and give each outcome to ``take``; see ``cxrprep.images.convert.convert``.

    Args:
        plans: One a shard.
        form: ``webdataset`` or ``parquet``.
        task: What is done with each image.
        take: Gets each outcome.
        engine: Where the work runs.
        finished: What earlier runs wrote down.
        total: How many items there are, for progress.
        on_event: Called with progress and remarks.

    Returns:
        The files that were made or looked at now, by name; of those that were finished before nothing is said.

    Raises:
        StorageError: The disk refuses.
    """
    on_event(StageStarted(conversion.STAGE, items=total, unit="images"))
    where = engine or Engine()
    progress = converting.ConversionProgress(on_event)
    written: dict[str, ShardFile] = {}

    def take_and_count(done: ShardDone) -> None:
        if done.written is not None:
            written[done.name] = done.written
        for outcome in done.outcomes:
            if finished is not None:
                finished.add(outcome, task)
            progress.add(outcome)
            take(outcome)

    def to_do() -> Iterator[ShardPlan]:
        for plan in plans:
            held = None if finished is None else finished.shard_done(plan.items, paths_of(plan, task), plan.name, task)
            if isinstance(held, list):
                for outcome in held:
                    progress.add(outcome)
                    take(outcome)
            else:
                yield plan if held is None else dataclasses.replace(plan, items=held)

    work = functools.partial(_make_shards, task=task, form=form)
    run = functools.partial(where.run, batch=1, seconds=task.limits.seconds, on_event=on_event)
    for done in run(work, to_do()):
        if isinstance(done, Lost):
            # Which of its images it was, is found with each image alone; then the shard is made without it.
            killers = _killers(done.item, task, where)
            again = dataclasses.replace(done.item, known_to_kill=killers)
            for second in run(work, [again]):
                take_and_count(_given_up(second) if isinstance(second, Lost) else second)
        else:
            take_and_count(done)
    progress.flush()
    return written


def _killers(plan: ShardPlan, task: ConversionTask, engine: Engine) -> dict[str, Lost[ConvertItem]]:
    probe = functools.partial(_probe, task=task)
    outcomes = engine.run(probe, plan.items, batch=_PROBED, seconds=task.limits.seconds)
    return {outcome.item.relative: outcome for outcome in outcomes if isinstance(outcome, Lost)}


def _probe(items: Sequence[ConvertItem], *, task: ConversionTask) -> list[None]:
    for item in items:
        converting.make(item, task, lambda _: None)
    return [None] * len(items)


def _given_up(done: Lost[ShardPlan]) -> ShardDone:
    lost = (conversion.lost(Lost(item, done.cause, done.late)) for item in done.item.items)
    return ShardDone(done.item.name, tuple(lost))


def paths_of(plan: ShardPlan, task: ConversionTask) -> list[str]:
    """What the manifest calls each image: the shard's path, and the name in it."""
    return [f"{plan.name}/{key}{task.suffix}" for key in plan.keys]


class _NothingInIt(Exception):  # noqa: N818  # a signal within this module, not an error for anyone
    """No image of the shard could be converted."""


class _AsBefore(Exception):  # noqa: N818  # a signal within this module, not an error for anyone
    """The shard would be what it is already."""


def _make_shards(plans: Sequence[ShardPlan], *, task: ConversionTask, form: str) -> list[ShardDone]:
    import cv2

    # As in ``convert_batch``.
    cv2.setNumThreads(1)
    return [_make_shard(plan, task, form) for plan in plans]


def _make_shard(plan: ShardPlan, task: ConversionTask, form: str) -> ShardDone:
    outcomes: list[Converted] = []
    written: ShardFile | None = None
    held = ShardReader(task.out, plan.name, form)

    def samples() -> Iterator[tuple[str, bytes, dict[str, Any]]]:
        for item, key, path in zip(plan.items, plan.keys, paths_of(plan, task), strict=True):
            outcome, encoded = _image(item, key + task.suffix, task, held, plan.known_to_kill)
            outcomes.append(dataclasses.replace(outcome, path=path) if encoded is not None else outcome)
            if encoded is not None:
                yield key, encoded, _row(outcome, task)
        end_item()

    def write(part: Path) -> None:
        nonlocal written
        if form == "webdataset":
            write_tar(part, samples(), task.suffix)
        else:
            write_parquet(part, samples(), task.suffix, stated_columns(plan.items))
        if not any(outcome.path for outcome in outcomes):
            raise _NothingInIt
        written = ShardFile(plan.name, part.stat().st_size, file_digest(part, "sha256"))
        # A shard that lacks a damaged image is looked at in every run; it is not written in every run.
        there = Path(task.out.full(plan.name)) if isinstance(task.out, LocalStore) else None
        if there is not None and there.is_file() and filecmp.cmp(part, there, shallow=False):
            raise _AsBefore

    try:
        stamp = task.out.write_with(plan.name, write)
    except _NothingInIt:
        task.out.remove(plan.name)
        stamp = ""
    except _AsBefore:
        stamp = task.out.version_tag(plan.name) or ""
    finally:
        held.close()
    done = tuple(dataclasses.replace(outcome, out_stamp=stamp) for outcome in outcomes)
    return ShardDone(plan.name, done, written)


def _image(
    item: ConvertItem, member: str, task: ConversionTask, held: ShardReader, killers: Mapping[str, Lost[ConvertItem]]
) -> tuple[Converted, bytes | None]:
    if item.relative in killers:
        return conversion.lost(killers[item.relative]), None

    def finished_one(digest: Digest) -> tuple[OutputMetadata, tuple[int, int], bytes] | None:
        data = held.get(member)
        return None if data is None or not item.is_as_made(data) else output_in(data, task.fingerprint, str(digest))

    return converting.make(item, task, finished_one)


def stated_columns(items: Sequence[ConvertItem]) -> list[str]:
    """The columns that the manifest gives to every sample."""
    first = next((item.row for item in items if item.row is not None), None)
    return list(first) if first else [*_OF_HEADERS]


def _row(outcome: Converted, task: ConversionTask) -> dict[str, Any]:
    """What a sample says of itself beside its image."""
    item, spacing = outcome.item, outcome.spacing_mm
    about = outcome.about
    stated = item.row or {
        **{name: about.get(key, item.relative if name.endswith("_id") else None) for name, key in _OF_HEADERS.items()}
    }
    return {
        **stated,
        "width": outcome.width,
        "height": outcome.height,
        "spacing_x_mm": None if spacing is None else spacing[1],
        "spacing_y_mm": None if spacing is None else spacing[0],
        "boxes": None if outcome.boxes is None else [box.as_dict() for box in outcome.boxes],
        "source_path": item.relative,
        "source_digest": outcome.source_digest,
        "recipe": task.recipe.name,
        "recipe_fingerprint": task.fingerprint,
        **outcome.measures(),
    }
