"""Conversion of many images by a recipe, in parallel; each output is whole or absent."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, Final

from cxrprep.digests import digest_of
from cxrprep.errors import AlteredImageError, CxrprepError, ImageError, StorageError
from cxrprep.events import ItemFinished, Sink, StageStarted, Throttle, ignore
from cxrprep.executors import Engine, Lost, batched, begin_item
from cxrprep.humanize import without_path
from cxrprep.images import dicom_file
from cxrprep.images.conversion import STAGE, ConversionTask, Converted, ConvertItem, lost
from cxrprep.images.decode import decode
from cxrprep.images.dicom_metadata import header_facts, is_no_image
from cxrprep.images.encode import encode
from cxrprep.images.local_files import read_source, version_tag_of
from cxrprep.images.orientation import fixed, orientation_of, righted
from cxrprep.images.output_metadata import OutputMetadata, read_output
from cxrprep.images.pixel_digest import digest_of_output, pixel_digest
from cxrprep.images.quality import doubts, measure
from cxrprep.system import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cxrprep.images.conversion_cache import ConversionCache
    from cxrprep.images.radiograph import ImageLimits
    from cxrprep.model import Digest

_BATCH: Final = 24


# Items that are looked up among the finished ones at once.
_LOOKED_UP: Final = 8192


def convert(
    items: Iterable[ConvertItem],
    task: ConversionTask,
    take: Callable[[Converted], object],
    *,
    engine: Engine | None = None,
    finished: ConversionCache | None = None,
    total: int | None = None,
    on_event: Sink = ignore,
) -> None:
    """Convert images into files, and give each outcome to ``take`` as it is known.

    An output that carries the recipe's fingerprint and its source's digest is left as it is. One image that fails is
    one outcome, never the end. No more than some thousand items and outcomes are in memory.

    Args:
        items: The images, with the relative paths of their outputs.
        task: What is done with each.
        take: Gets each outcome, in no promised order.
        engine: Where the work runs.
        finished: What earlier runs wrote down; it is believed while neither source nor output has changed.
        total: How many items there are, for progress.
        on_event: Called with progress and remarks.

    Raises:
        StorageError: The disk refuses outputs, since every further image would fail too.
    """
    on_event(StageStarted(STAGE, items=total, unit="images"))
    progress = ConversionProgress(on_event)

    def take_and_count(outcome: Converted) -> None:
        progress.add(outcome)
        take(outcome)

    def to_do() -> Iterator[ConvertItem]:
        for batch in batched(items, _LOOKED_UP):
            for found in batch if finished is None else finished.split_done(batch, task):
                if isinstance(found, Converted):
                    take_and_count(found)
                else:
                    yield found

    work = functools.partial(convert_batch, task=task)
    for outcome in (engine or Engine()).run(
        work, to_do(), batch=_BATCH, seconds=task.limits.seconds, on_event=on_event
    ):  # fmt: skip
        if isinstance(outcome, Lost):
            outcome = lost(outcome)  # noqa: PLW2901  # the same image, told in this room's words
        elif finished is not None:
            finished.add(outcome, task)
        take_and_count(outcome)
    progress.flush()


class ConversionProgress:
    """Outcomes as events: failures one by one, all else counted."""

    def __init__(self, on_event: Sink) -> None:
        self._on_event = on_event
        self._throttle = Throttle(STAGE, on_event)

    def add(self, outcome: Converted) -> None:
        """One outcome more."""
        if outcome.status == "error":
            detail = without_path(outcome.error, outcome.item.source)
            self._on_event(ItemFinished(STAGE, outcome.item.relative, "error", detail=detail))
        else:
            self._throttle.advance(items=1)

    def flush(self) -> None:
        """Say what was counted."""
        self._throttle.flush()


def convert_batch(items: Sequence[ConvertItem], *, task: ConversionTask) -> list[Converted]:
    """The outcomes of some images, in a worker process."""
    import cv2

    # Files are converted side by side; threads inside each wait for each other. measured: 2.09 -> 1.69 s of CPU for 12
    # DICOM files, 1.77 -> 1.46 s for 12 JPEG files (medians of 5 alternating runs under load) on `convert --recipe
    # shortest-512 --jobs 2` of the images of benchmarks/convert.py.
    cv2.setNumThreads(1)
    keep_freed_memory()
    return [converted(item, task) for item in items]


def converted(item: ConvertItem, task: ConversionTask) -> Converted:
    """One image's outcome by ``task``. Raises ``StorageError``, and what an object store raises."""
    path = item.output(task.suffix)

    def finished_one(digest: Digest) -> tuple[OutputMetadata, tuple[int, int], bytes] | None:
        held = read_output(task.out, path, task.fingerprint, str(digest))
        return held if held is not None and item.is_as_made(held[2]) else None

    outcome, encoded = make(item, task, finished_one)
    if outcome.status == "ok":
        assert encoded is not None
        try:
            stamp = task.out.write(path, encoded, durable=task.durable)
        except ImageError as error:
            return Converted(item, "error", error=error.message, kind="ImageError", hint=error.hint)
        return dataclasses.replace(outcome, out_stamp=stamp)
    if outcome.status == "notneeded":
        return dataclasses.replace(outcome, out_stamp=task.out.version_tag(path) or "")
    return outcome


def make(
    item: ConvertItem,
    task: ConversionTask,
    finished_one: Callable[[Digest], tuple[OutputMetadata, tuple[int, int], bytes] | None],
) -> tuple[Converted, bytes | None]:
    """One image's outcome and the bytes of its output, not written yet.

    ``finished_one`` gives the output that was made of a source of this digest: its mark, its size, its bytes.
    """
    begin_item()
    data: bytes | None = None
    # Before the bytes: a source that changes meanwhile is then seen to have changed.
    stamp = item.stamp or version_tag_of(item.source) or ""
    digest = item.digest
    about: dict[str, Any] = {}
    header: dicom_file.DicomFile | None = None
    try:
        if digest is None or task.pseudonyms is not None:
            data, digest = _read(item, task.limits)
        if task.pseudonyms is not None and data is not None:
            # Once for all that asks: a header of a hospital's own costs as much as a small image.
            header = (
                dicom_file.open_dicom(data, item.source, task.limits)
                if dicom_file.is_named(data, item.source)
                else None
            )
            about = header_facts(header.dataset, task.pseudonyms) if header is not None else {}
        held = finished_one(digest)
        if held is not None and not task.is_measured(held[0].quality):
            held = None
        shown = None if held is None else _shown(held[2], item.output(task.suffix))
        if held is not None and shown is not None:
            mark, size, encoded = held
            outcome = _described(
                item, task, "notneeded", mark=mark, encoded=encoded, size=size, stamp=stamp, about=about
            )
            return dataclasses.replace(outcome, pixels=shown), encoded
        if data is None:
            data, _ = _read(item, task.limits)
        picture = decode(
            data, item.source, task.limits, reduce=task.recipe.reduction, header=header, frame=task.recipe.frame
        )
        picture.spaced(item.spacing_mm)
        looks = orientation_of(picture) if task.scores or task.recipe.fix else None
        made = task.recipe(picture if looks is None else righted(picture, looks, task.recipe.fix))
        looked = () if looks is None else fixed(made, looks, task.recipe.fix)
        quality = measure(made)
        made.notes.extend((*doubts(quality), *looked))
        quality = quality if looks is None else dataclasses.replace(quality, **dataclasses.asdict(looks))
        mark = OutputMetadata(
            task.recipe.name, task.fingerprint, str(digest), picture.mode, made.bits, made.voi, made.frame,
            made.spacing_mm, tuple(made.notes), picture.codec, quality,
        )  # fmt: skip
        encoded = encode(made, task.recipe.output, mark)
    except ImageError as error:
        kind = "" if header is None else is_no_image(header.dataset)
        if kind:
            return Converted(item, "left out", source_digest=str(digest), voi=kind, stamp=stamp), None
        return _failed(item, digest or item.recorded, error.message, type(error).__name__, error.hint), None
    except CxrprepError:
        raise
    except (ValueError, ArithmeticError, MemoryError, LookupError, TypeError, AttributeError) as error:
        # A decoder surprised by hostile bytes must not take the other images with it.
        text = f"{item.source}: {type(error).__name__}: {error}"
        return _failed(item, digest, text, "ImageError", "look at the file; it may be damaged"), None
    size = (made.width, made.height)
    outcome = _described(item, task, "ok", mark, size, encoded, stamp=stamp, about=about)
    pixels = digest_of_output(made.pixels, task.suffix, outcome.digest)
    return dataclasses.replace(outcome, pixels=pixels), encoded


def _failed(item: ConvertItem, digest: Digest | None, error: str, kind: str, hint: str) -> Converted:
    return Converted(item, "error", source_digest=str(digest or ""), error=error, kind=kind, hint=hint)


def _shown(encoded: bytes, name: str) -> str | None:
    """What an output that is here shows; ``None`` for one that is damaged, which is made anew."""
    try:
        return pixel_digest(encoded, name)
    except ImageError:
        return None


def _read(item: ConvertItem, limits: ImageLimits) -> tuple[bytes, Digest]:
    """The bytes of a source and its digest. Raises ``AlteredImageError`` for others than were recorded.

    It costs a SHA-256: 11 ms beside the 24 that a DICOM file of 15 MB takes, 0.6 beside 28 for a JPEG of 1 MB.
    """
    try:
        data = read_source(item.source, limits)
    except StorageError as error:
        # One file that may not be read is one failure; a disk that refuses outputs is the end.
        raise ImageError(error.message, hint=error.hint) from error
    if item.recorded is None and item.digest is not None:
        return data, item.digest
    found = digest_of(data, "sha256" if item.recorded is None else item.recorded.algorithm)
    if item.recorded not in (None, found):
        raise AlteredImageError.of(item.source)
    return data, item.digest or found


def _described(  # noqa: PLR0917  # mark, size and bytes come as one tuple
    item: ConvertItem,
    task: ConversionTask,
    status: str,
    mark: OutputMetadata,
    size: tuple[int, int],
    encoded: bytes,
    *,
    stamp: str,
    about: Mapping[str, Any],
) -> Converted:
    """An outcome that has an output, as its mark tells it."""
    return Converted(
        item,
        status,
        path=item.output(task.suffix),
        size=len(encoded),
        digest=str(digest_of(encoded)),
        source_digest=mark.source,
        width=size[0],
        height=size[1],
        mode=mark.mode,
        bits=mark.bits,
        boxes=None if item.boxes is None else mark.frame.boxes(item.boxes),
        spacing_mm=mark.spacing_mm,
        voi=mark.voi,
        notes=mark.notes,
        codec=mark.codec,
        quality=mark.quality,
        frame=mark.frame,
        stamp=stamp,
        about=about,
    )
