"""The export itself: selection, format, files, and their list."""

from __future__ import annotations

import hashlib
import importlib
import json
import shlex
import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep._version import __version__
from cxrprep.collection.lineage import CROISSANT_NAME
from cxrprep.datasets.catalog import catalog
from cxrprep.errors import ImageError, UsageError, storage_errors
from cxrprep.events import Advanced, Note, Sink, StageFinished, StageStarted, ignore
from cxrprep.executors import Engine, Lost
from cxrprep.humanize import format_count, short_repr
from cxrprep.labels.policy import KEEP
from cxrprep.manifest.croissant import describe_export
from cxrprep.manifest.dataset_card import Moments, write_card
from cxrprep.manifest.derived import DICOM_FILES
from cxrprep.manifest.export.target import Target, put
from cxrprep.manifest.image_reader import ImageReader, file_sign
from cxrprep.manifest.pixel_statistics import moments
from cxrprep.manifest.report_texts import name_agreement
from cxrprep.manifest.set_digest import set_digest
from cxrprep.storage.locks import writing_tables
from cxrprep.storage.paths import CACHE_NAME
from cxrprep.storage.working_copy_paths import address_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.manifest.load import Dataset

STAGE: Final = "export"
FORMS: Final = {
    "csv": "plain CSV: path, ids, split, view, one column per observation",
    "coco": "COCO JSON of the boxes and masks, for detectors",
    "webdataset": "tar shards by split, for streaming",
    "hf": "a folder that load_dataset opens, images inside",
    "original": "the release's own CSV form, for loaders written for it",
}
"""The forms by name, each with a line about it."""
WITH_IMAGES: Final = ("webdataset", "hf")
_WITHOUT_TEXT: Final = ("coco", "original")
_CARDED: Final = FORMS.keys() - {"original"}
_SUFFIXES: Final = {"csv": ".csv", "coco": ".json"}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """``per_shard`` images go into one shard or Parquet file; ``engine`` makes it. ``sample`` images a split give the
    card's mean and standard deviation; 0 gives none. ``cache`` is the file that keeps what the digest read of images.
    ``parent`` are digests of what is exported, and ``manifest`` is the table of all its images: what is to be the same
    for every part of them is asked of it, and ``original`` reads source cells of the ``labels.parquet`` beside it.
    """  # noqa: D205  # the summary needs both lines

    per_shard: int = 1000
    sample: int = 1000
    cache: Path | None = None
    parent: Mapping[str, str] = field(default_factory=dict)
    manifest: Path | None = None
    engine: Engine | None = None


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What ``export`` wrote: ``files`` below ``out``, ``images`` in them, ``left_out`` by reason."""

    __repr__ = short_repr

    form: str
    out: Path
    images: int
    files: tuple[Path, ...]
    left_out: tuple[tuple[str, int], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class ExportTask:
    """One export: the images with the policy applied, the dataset's entry (``None`` without one), where it goes."""

    dataset: Dataset
    spec: DatasetSpec | None
    target: Target
    options: ExportOptions
    on_event: Sink


@dataclass(frozen=True, slots=True)
class ExportFile:
    """A file with ``images`` of an export that is to be made: where, what fills it, and the digest of what is in it."""

    path: Path
    fill: Callable[[Path], object]
    of: str
    images: int


def export(
    dataset: Dataset, form: str, out: Path, *, options: ExportOptions | None = None, on_event: Sink = ignore
) -> ExportResult:
    """Write the images in one of the ``FORMS``, with a card (``README.md``) beside it.

    The same manifest, policy and options give the same bytes. What earlier exports in this form left in ``out`` goes;
    whatever no export wrote stays.

    Args:
        dataset: The images.
        form: A key of ``FORMS``.
        out: A folder; for csv and coco also a file, by its suffix: the card then stands beside it under its name.
        options: See ``ExportOptions``.
        on_event: Called with progress and remarks.

    Returns:
        What was written.

    Raises:
        UsageError: An unknown form, a file where a folder should be, or a file that no export wrote and this one would
            replace.
        NothingSelectedError: A data set without images.
        StorageError: The disk refuses.
    """
    if form not in FORMS:
        raise UsageError(f"unknown form {form!r}", hint=f"known: {', '.join(FORMS)}")
    dataset.require_images()
    if form in WITH_IMAGES and dataset.made_from.get(DICOM_FILES):
        raise UsageError(
            f"{dataset.root} holds DICOM files of your own: {form} would pass on their headers, with names and dates",
            hint=f"convert them, and export what comes of it: cxrprep convert {shlex.quote(str(dataset.root))} "
            "--recipe square-224 --out DIR",
        )
    chosen = options or ExportOptions()
    if chosen.per_shard < 1:
        raise UsageError(f"{chosen.per_shard} images per shard are not possible", hint="use 1 or more")
    if out.is_file() and out.suffix != _SUFFIXES.get(form):
        raise UsageError(f"{out} is a file", hint="name a folder with --out")
    if dataset.texts and form in _WITHOUT_TEXT:
        raise UsageError(f"{form} has no place for report text", hint="use --format csv, hf or webdataset for it")
    home = out.parent if out.suffix == _SUFFIXES.get(form) else out
    with storage_errors(home, "write"):
        home.mkdir(parents=True, exist_ok=True)
    # Two exports at once into one folder would each take what the other one writes for a stranger's.
    with writing_tables(home / CACHE_NAME):
        target = Target(out, form, _SUFFIXES.get(form), carded=form in _CARDED, about=_about(dataset, chosen))
        on_event(StageStarted(STAGE, items=len(dataset), unit="images"))
        task = ExportTask(dataset, catalog().get(dataset.name), target, chosen, on_event)
        result: ExportResult = importlib.import_module(f"cxrprep.manifest.export.{form}").export(task)
        stale = target.finish()
    if dataset.texts:
        name_agreement(dataset.name, result.out, STAGE, on_event)
    if stale:
        message = f"{format_count(len(stale), 'file')} of an earlier export removed; the first: {stale[0].name}"
        on_event(Note(STAGE, message, "info", str(out)))
    for reason, count in result.left_out:
        on_event(Note(STAGE, f"{format_count(count, 'image')} left out: {reason}", "warning", str(result.out)))
    on_event(StageFinished(STAGE, done=result.images))
    return result


def _about(dataset: Dataset, options: ExportOptions) -> dict[str, Any]:
    """What an export says of itself: of which images it was made, and how their labels were read."""
    made_from = dataset.made_from
    kept = ("recipe", "fingerprint", "label_source", "split", "pseudonyms")
    text = {"text": list(dataset.texts)} if dataset.texts else {}
    return {
        "dataset": dataset.name,
        "release": str(made_from.get("release") or ""),
        "tool": f"cxrprep {__version__}",
        "images": len(dataset),
        "parent": {**options.parent, **{name: made_from[name] for name in kept if made_from.get(name)}},
        **({"policy": dataset.policy.describe()} if dataset.policy != KEEP else {}),
        **text,
    }


def images_of(task: ExportTask) -> Path | str:
    """Where those who make the files read the images: machines of a cluster see no working copy of a bucket."""
    root = task.dataset.root
    return (address_of(str(root.absolute())) or root.absolute()) if _is_on_cluster(task) else root


def _is_on_cluster(task: ExportTask) -> bool:
    return task.options.engine is not None and task.options.engine.name == "dask"


def write_shards(task: ExportTask, shards: Iterable[ExportFile]) -> None:
    """Make the files of an export, here or where its engine has them made; those that are there already stay.

    Args:
        task: The export.
        shards: The files, made up as they are asked for.

    Raises:
        ImageError: An image is gone.
        StorageError: The disk refuses.
        SourceUnreachableError: No cluster answers.
    """
    target, engine, known = task.target, task.options.engine, dict[Path, ExportFile]()

    def due() -> Iterator[ExportFile]:
        for shard in shards:
            if target.is_due(shard.path, shard.of):
                # Workers have another folder that they are in; and what fills the file is theirs.
                place = shard.path.absolute()
                known[place] = replace(shard, fill=_nothing)
                yield replace(shard, path=place)
            else:
                task.on_event(Advanced(STAGE, shard.path.name, items=shard.images))

    chosen = engine if _is_on_cluster(task) or (engine is not None and (engine.jobs or 1) > 1) else Engine("inline")
    assert chosen is not None
    # What goes into a bucket is put together here, where its working copy is.
    away = _is_on_cluster(task) and address_of(str(target.out.absolute())) is not None
    for made in chosen.run(partial(_make, away), due(), batch=1, on_event=task.on_event):
        if isinstance(made, Lost):
            raise ImageError(f"{made.item.path}: {made.cause}", hint="run it again; the files that are done stay")
        place, held, data = made
        shard = known.pop(place)
        if data is not None:
            held = put(shard.path, partial(Path.write_bytes, data=data))
        target.done(shard.path, held, shard.of)
        task.on_event(Advanced(STAGE, shard.path.name, items=shard.images))


def _nothing(part: Path) -> None:
    """Fill no file: of a shard that somebody else makes, its rows are not held here."""


def _make(away: bool, shards: Sequence[ExportFile]) -> list[tuple[Path, list[Any], bytes | None]]:
    """Each file with what ``put`` says of it; one that goes elsewhere with its bytes."""
    done: list[tuple[Path, list[Any], bytes | None]] = []
    for shard in shards:
        if not away:
            done.append((shard.path, put(shard.path, shard.fill), None))
            continue
        with tempfile.TemporaryDirectory(prefix="cxrprep-") as folder:
            part = Path(folder, shard.path.name)
            shard.fill(part)
            done.append((shard.path, [], part.read_bytes()))
    return done


def made_of(rows: object, root: Path, paths: Iterable[str]) -> str:
    """A digest of what a shard is made of: its rows, the files of its images by size and times, and who writes it."""
    signs = [file_sign(root, path) for path in paths]
    said = json.dumps([__version__, rows, signs], ensure_ascii=False, default=str)
    return hashlib.sha256(said.encode()).hexdigest()


def card_of(task: ExportTask, *, front: str = "", digest: str | None = None) -> str:
    """The card of an export, with mean and standard deviation by split unless its options ask for none.

    ``front`` is YAML for its head; ``digest`` that of the set, where it is known.
    """
    found: dict[str, Moments] = {}
    with ImageReader(task.dataset.root) as reader:
        for name in task.dataset.splits if task.options.sample else ():
            paths = task.dataset.split(name).names()
            measured = moments(reader, paths, sample=task.options.sample, on_event=task.on_event)
            if measured is not None:
                found[name] = measured
    named = digest_of(task) if digest is None else digest
    return write_card(task.dataset, moments=found, front=front, digest=named)


def digest_of(task: ExportTask) -> str:
    """What names the set that is exported."""
    return set_digest(task.dataset, cache=task.options.cache, on_event=task.on_event).value


def write_cards(task: ExportTask, front: str, globs: list[str], columns: pa.Schema) -> None:
    """Write the card and the ``croissant.json`` of an export that holds the images.

    Args:
        task: The export.
        front: YAML for the head of the card.
        globs: The files of the shards.
        columns: Of Parquet shards.

    Raises:
        StorageError: The disk refuses.
    """
    digest = digest_of(task)
    text = card_of(task, front=front, digest=digest)
    described = describe_export(task.dataset, globs, columns, digest=digest)
    task.target.write(task.target.card, lambda part: part.write_text(text, encoding="utf-8"))
    task.target.write(task.target.out / CROISSANT_NAME, lambda part: part.write_text(described, encoding="utf-8"))
