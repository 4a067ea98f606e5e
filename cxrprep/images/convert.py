"""Images by a recipe: many, in parallel, each output whole or not there, and recognised when it is done already."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.durable import replace_file
from cxrprep.engine import Engine, Lost
from cxrprep.errors import CxrprepError, ImageError
from cxrprep.events import Advanced, ItemFinished, StageStarted, ignore
from cxrprep.images.encode import Mark, encode, read_mark
from cxrprep.images.picture import DEFAULT_LIMITS, Limits
from cxrprep.images.reading import decode, header, read_bytes
from cxrprep.model import Box, Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cxrprep.events import Sink
    from cxrprep.images.recipe import Recipe

STAGE: Final = "convert"
_BATCH: Final = 24


@dataclass(frozen=True, slots=True)
class ConvertItem:
    """One image to convert: ``source`` is its file, ``relative`` its path below the output folder without new suffix.

    ``digest`` is the source's where the record knows it (it is then not computed again). ``boxes`` are in the pixels of
    the source; ``spacing_mm`` (row, column) is used where the file states none. ``source`` may be a URL. ``stem`` is
    the output's path without suffix, where it is not that of ``relative``; ``stamp`` changes with the source.
    """

    source: str
    relative: str
    digest: Digest | None = None
    boxes: tuple[Box, ...] | None = None
    spacing_mm: tuple[float, float] | None = None
    stem: str = ""
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of one image.

    ``status`` is ok, notneeded (a finished output was found) or error. ``boxes`` and ``spacing_mm`` (row, column) are
    those of the output. ``voi`` says which rule made the grey scale. ``error`` and ``hint`` explain a failure.
    """

    item: ConvertItem
    status: str
    path: str = ""
    size: int = 0
    digest: str = ""
    source_digest: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    bits: int = 8
    boxes: tuple[Box, ...] | None = None
    spacing_mm: tuple[float, float] | None = None
    voi: str = ""
    notes: tuple[str, ...] = ()
    error: str = ""
    kind: str = ""
    hint: str = ""


def convert(
    items: Iterable[ConvertItem],
    recipe: Recipe,
    out: Path,
    *,
    engine: Engine | None = None,
    limits: Limits = DEFAULT_LIMITS,
    total: int | None = None,
    on_event: Sink = ignore,
) -> Iterator[Converted]:
    """Each image's outcome as it is done; outputs lie below ``out`` under their relative paths with the new suffix.

    An output that carries the recipe's fingerprint and its source's digest is left as it is. One image that fails is
    one outcome, never the end. Raises ``StorageError`` when the disk refuses, since every further image would fail too.
    """
    on_event(StageStarted(STAGE, items=total, unit="images"))
    work = functools.partial(_convert_batch, recipe=recipe, out=out, limits=limits)
    for outcome in (engine or Engine()).run(work, items, batch=_BATCH):
        if isinstance(outcome, Lost):
            outcome = Converted(  # noqa: PLW2901  # the same image, told in this room's words
                outcome.item, "error", error=f"{outcome.item.source}: {outcome.cause}", kind="ImageError",
                hint="look at the file; it is left out until then",
            )  # fmt: skip
        on_event(Advanced(STAGE, items=1))
        if outcome.status == "error":
            on_event(ItemFinished(STAGE, outcome.item.relative, "error", detail=outcome.error))
        yield outcome


def _convert_batch(items: Sequence[ConvertItem], *, recipe: Recipe, out: Path, limits: Limits) -> list[Converted]:
    import cv2

    # Parallelism is by files; threads inside each would only get in each other's way.
    cv2.setNumThreads(1)
    return [convert_one(item, recipe, out, limits) for item in items]


def convert_one(item: ConvertItem, recipe: Recipe, out: Path, limits: Limits = DEFAULT_LIMITS) -> Converted:
    """One image's outcome; its output is written, unless a finished one is there. Raises ``StorageError``."""
    relative = str(Path(item.relative).with_suffix(recipe.output.suffix))
    target, fingerprint = out / relative, recipe.fingerprint()
    try:
        data = None
        digest = item.digest
        if digest is None:
            data = read_bytes(Path(item.source), limits)
            digest = Digest("sha256", hashlib.sha256(data).hexdigest())
        held = read_mark(target)
        size = None if held is None else header(target)
        if held is not None and size is not None and (held.fingerprint, held.source) == (fingerprint, str(digest)):
            return _described(
                item, "notneeded", held, relative=relative, encoded=target.read_bytes(), size=(size[0], size[1])
            )
        if data is None:
            data = read_bytes(Path(item.source), limits)
        picture = decode(data, item.source, limits)
        if picture.spacing_mm is None:
            picture.spacing_mm = item.spacing_mm
        made = recipe(picture)
        mark = Mark(
            recipe.name, fingerprint, str(digest), picture.mode, made.bits, made.voi, made.frame, made.spacing_mm,
            tuple(made.notes),
        )  # fmt: skip
        encoded = encode(made, recipe.output, mark)
        replace_file(target, lambda part: part.write_bytes(encoded))
    except ImageError as error:
        return Converted(item, "error", error=error.message, kind=type(error).__name__, hint=error.hint)
    except CxrprepError:
        raise
    except (ValueError, ArithmeticError, MemoryError, LookupError, TypeError, AttributeError) as error:
        # A decoder surprised by hostile bytes must not take the other images with it.
        text = f"{item.source}: {type(error).__name__}: {error}"
        return Converted(item, "error", error=text, kind="ImageError", hint="look at the file; it may be damaged")
    return _described(item, "ok", mark, relative=relative, encoded=encoded, size=(made.width, made.height))


def _described(
    item: ConvertItem, status: str, mark: Mark, *, relative: str, encoded: bytes, size: tuple[int, int]
) -> Converted:
    return Converted(
        item,
        status,
        path=relative,
        size=len(encoded),
        digest=f"sha256:{hashlib.sha256(encoded).hexdigest()}",
        source_digest=mark.source,
        width=size[0],
        height=size[1],
        mode=mark.mode,
        bits=mark.bits,
        boxes=None if item.boxes is None else mark.frame.boxes(item.boxes),
        spacing_mm=mark.spacing_mm,
        voi=mark.voi,
        notes=mark.notes,
    )
