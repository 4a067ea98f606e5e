"""The verb convert: the images of a folder by a recipe, with a manifest of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.conversion_run import ConversionRun, ConvertResult
from cxrprep.api.convert_inputs import Inputs, open_inputs
from cxrprep.api.convert_target import check_target, target_of
from cxrprep.api.keywords import Keywords, shard_of
from cxrprep.api.running import notes_progress
from cxrprep.config.job import TO
from cxrprep.errors import UsageError
from cxrprep.events import Sink, ignore
from cxrprep.images.recipe import load_recipe
from cxrprep.model import FolderRef, Selection, Shard
from cxrprep.storage.working_copy_paths import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cxrprep.api.result import Result
    from cxrprep.executors import Engine
    from cxrprep.images.conversion import ConvertItem
    from cxrprep.images.radiograph import ImageLimits


PER_SHARD: Final = 1000


@takes_buckets(root="dataset-folder", state="written-folder", tables="read-folder", out="store")
@notes_progress("convert")
def convert(
    root: Path | str | FolderRef,
    *,
    recipe: str,
    out: Path | str | None = None,
    to: str = "files",
    per_shard: int = PER_SHARD,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    selection: Selection | Mapping[str, Any] = Selection(),  # noqa: B008  # frozen
    shard: Shard | str | None = None,
    engine: Engine | str | None = None,
    frame: int | None = None,
    scores: bool = False,
    fix: Sequence[str] | str = (),
    limits: ImageLimits | None = None,
    allow_loss: bool = False,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[ConvertResult]:
    """Make training images of ROOT by a recipe; run again, it makes what is missing or has changed.

    Another selection into the same ``out`` adds to its files and to its manifest; shards of another selection are
    replaced.

    Args:
        root: A known dataset, or any folder of DICOM, PNG and JPEG files; or an address (``s3://``, ``gs://``, ``az://``).
        recipe: A name, or a TOML file.
        out: Where the images go, a folder or an address; by default ``derived/RECIPE`` below ROOT.
        to: ``files``, ``webdataset`` (tar) or ``parquet`` (with the image bytes inside).
        per_shard: Images in a shard.
        dataset: The dataset's name, where the folder does not say it.
        release: The release, where it is not the one that the record or the tables show.
        state: The folder of the record and the manifests, beside a ROOT that is read-only.
        tables: A folder with the label tables, where ROOT has none.
        selection: Which images are made.
        shard: The part of a job array.
        engine: Where the work runs; by default processes on all cores.
        frame: Of a file with several frames, the one that is taken, from 1; without it such a file is refused.
        scores: Ask the pixels of each image whether it is inverted, turned, mirrored or blank: columns of the manifest.
        fix: ``inverted`` makes negatives positive, ``rotated`` turns images back, ``mirrored`` mirrors them back, each
            by its score; it asks for the scores, and the row says it.
        limits: Pixels, bytes and seconds beyond which an image is refused.
        allow_loss: Let the manifest know less than the one that is there.
        on_event: Called with progress and remarks.
        **words: Select and work as the command's options do: ``split="train"``, ``limit=100``, ``jobs=4``,
            ``max_seconds=30``.

    Returns:
        Counts, and where images and manifest are. An image that fails is a row of ``failures.parquet`` and exit code 3.

    Raises:
        UsageError: An unknown recipe or folder, or a table that would know less.
        NothingSelectedError: Nothing matches the selection.
        StorageError: The disk refuses.

    Examples:
        >>> import cxrprep
        >>> made = cxrprep.convert("nih", recipe="square-224").value
        >>> made.images, made.failed, made.out
        (5, 0, 'nih/derived/square-224')
    """
    if to not in TO:
        raise UsageError(f"unknown form {to!r}", hint=f"--to {'|'.join(TO)}")
    where = FolderRef.of(root, dataset=dataset, release=release, state=state, tables=tables)
    keywords = Keywords(words, per_shard=per_shard, frame=frame)
    wanted, shard = keywords.selection(selection), shard_of(shard)
    engine, limits = keywords.engine(engine), keywords.limits(limits)
    keywords.finish()
    chosen = load_recipe(recipe, frame=frame, fix=[fix] if isinstance(fix, str) else fix)
    inputs = open_inputs(
        where, selection=wanted,
        # A job array divides shards where there are any, else images.
        shard=shard if to == "files" else None,
        rows=to != "files", without=out, made=chosen if to == "files" else None, on_event=on_event,
    )  # fmt: skip
    if engine is not None and engine.name == "dask":
        inputs = _from_store(inputs)
    target = target_of(inputs, chosen, out, to)
    whole = wanted.is_everything and shard is None
    check_target(target, inputs, chosen, to, whole=whole, allow_loss=allow_loss, home=where.state)
    run = ConversionRun(inputs, chosen, target, to, per_shard, shard, where.state, on_event, allow_loss, scores)
    return run.perform(engine, limits)


def _from_store(inputs: Inputs) -> Inputs:
    """The same images, read from their bucket where they are a working copy: machines of a cluster do not see that."""
    if address_of(inputs.address) is None:
        return inputs

    def items() -> Iterator[ConvertItem]:
        for item in inputs.items():
            yield replace(item, source=address_of(item.source) or item.source)

    return replace(inputs, items=items)
