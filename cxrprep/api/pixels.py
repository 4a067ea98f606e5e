"""The verb convert: the images of a folder by a recipe, with a manifest of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxrprep.api.folders import Folder, open_folder
from cxrprep.api.results import Result
from cxrprep.api.tables import rebuild_manifest
from cxrprep.errors import ExitCode, NothingSelectedError, StorageError, UsageError
from cxrprep.events import StageFinished, ignore
from cxrprep.model import Selection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cxrprep.api.inputs import Inputs
    from cxrprep.engine import Engine
    from cxrprep.events import Sink
    from cxrprep.images.convert import Converted, ConvertItem
    from cxrprep.images.picture import Limits
    from cxrprep.images.recipe import Recipe
    from cxrprep.manifest.derived import ConvertedImage
    from cxrprep.model import Shard


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """What ``convert`` did: ``converted`` now, ``kept`` from before, ``failed``; ``notes`` count remarks.

    ``manifest`` lists the images below ``out``; ``failures`` is the table of what failed, ``None`` when nothing did.
    """

    recipe: str
    fingerprint: str
    out: Path
    manifest: Path
    images: int
    converted: int
    kept: int
    failed: int
    size: int
    notes: tuple[tuple[str, int], ...]
    first_failures: tuple[str, ...]
    failures: Path | None


def convert(
    root: Path | str,
    *,
    recipe: str,
    out: Path | str | None = None,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    selection: Selection = Selection(),  # noqa: B008  # frozen
    shard: Shard | None = None,
    engine: Engine | None = None,
    limits: Limits | None = None,
    on_event: Sink = ignore,
) -> Result[ConvertResult]:
    """The images of ROOT made by ``recipe`` (a name or a TOML file) below ``out``, by default ``derived/RECIPE``.

    Raises ``UsageError`` for an unknown recipe or folder, ``NothingSelectedError`` when nothing is to be converted,
    ``StorageError`` when the disk refuses. An image that fails is a row of ``failures.parquet`` and exit code 3.
    """
    from cxrprep.images.convert import convert as run
    from cxrprep.images.picture import DEFAULT_LIMITS
    from cxrprep.images.recipe import load_recipe
    from cxrprep.manifest.build import IMAGES_NAME

    chosen = load_recipe(recipe)
    home = None if state is None else Path(state)
    folder = open_folder(Path(root), dataset=dataset, release=release, state=home)
    target = folder.home / "derived" / chosen.name if out is None else Path(out)
    _never_over_sources(folder.root, target)
    rebuild_manifest(folder, on_event=on_event)
    named = None if tables is None else Path(tables)
    base = folder.manifests / IMAGES_NAME
    items = list(items_of(folder, base, selection, shard, tables=named, on_event=on_event))
    if not items:
        raise NothingSelectedError(
            f"no image of {folder.root} is to be converted",
            hint="loosen the selection, or download images first: cxrprep status ROOT",
        )
    outcomes = run(
        items, chosen, target, engine=engine, limits=limits or DEFAULT_LIMITS, total=len(items), on_event=on_event
    )
    return _gathered(outcomes, folder, chosen, target, shard=shard, base=base, on_event=on_event)


def convert_recorded(folder: Folder, recipe: Recipe, out: Path, *, on_event: Sink = ignore) -> Result[ConvertResult]:
    """The converted images of every image that the record names, originals that were discarded too."""
    from cxrprep.engine import Engine
    from cxrprep.images.convert import convert as run
    from cxrprep.manifest.build import IMAGES_NAME

    folder.record.save()
    rebuild_manifest(folder, discarded=True, to=out / "manifests" / "source", on_event=on_event)
    base = out / "manifests" / "source" / IMAGES_NAME
    items = list(items_of(folder, base, Selection(), None))
    outcomes = run(items, recipe, out, engine=Engine(jobs=1), total=len(items), on_event=on_event)
    return _gathered(outcomes, folder, recipe, out, shard=None, base=base, on_event=on_event)


def items_of(
    folder: Folder,
    base: Path,
    selection: Selection,
    shard: Shard | None,
    *,
    tables: Path | None = None,
    on_event: Sink = ignore,
) -> Iterator[ConvertItem]:
    """The images of the manifest ``base`` that are wanted, in its order."""
    from cxrprep.images.convert import ConvertItem
    from cxrprep.manifest.sources import source_images
    from cxrprep.plan import Choice, draw

    answered = None
    if selection.needs_tables:
        from cxrprep.labels.select import select_images

        found = select_images(folder.spec, folder.root, selection, tables=tables, on_event=on_event)
        answered = found.ids
    choice = Choice(selection, answered)
    rows = [
        row
        for row in source_images(base)
        if choice.wants(row.path, row.image) and (shard is None or shard.holds(row.path))
    ]
    if selection.limit is not None or selection.sample is not None:
        ids = (row.image.image for row in rows)
        kept = draw(ids, sample=selection.sample, limit=selection.limit, seed=selection.seed)
        rows = [row for row in rows if row.image.image in kept]
    for row in rows:
        yield ConvertItem(str(folder.root / row.path), row.path, row.digest, row.boxes, row.spacing_mm)


def _never_over_sources(originals: Path, target: Path) -> None:
    root, place = originals.resolve(), target.resolve()
    if place == root or (root / "images") == place or any(part == place for part in root.parents):
        raise UsageError(f"{target} holds the originals", hint="name another folder with --out")


def _gathered(
    outcomes: Iterator[Converted],
    folder: Folder,
    recipe: Recipe,
    out: Path,
    *,
    shard: Shard | None,
    base: Path,
    on_event: Sink,
) -> Result[ConvertResult]:
    from collections import Counter

    from cxrprep.manifest.derived import build_derived_manifest
    from cxrprep.manifest.failures import Failure, write_failures

    made: list[ConvertedImage] = []
    failures: list[Failure] = []
    notes: Counter[str] = Counter()
    kept = size = 0
    for outcome in outcomes:
        notes.update(outcome.notes)
        if outcome.status == "error":
            image = folder.layout.parse(outcome.item.relative)
            failures.append(
                Failure(
                    outcome.item.relative,
                    "convert",
                    outcome.kind,
                    outcome.error,
                    outcome.hint,
                    image.image if image else None,
                )
            )
            continue
        kept += outcome.status == "notneeded"
        size += outcome.size
        made.append(_derived(outcome))
    on_event(StageFinished("convert", len(made) - kept, kept, len(failures), size))
    manifests = out / "manifests"
    if shard is not None:
        # Each shard of a job array writes its own; a run without --shard afterwards finds all done and joins them.
        manifests = manifests / "shards" / f"{shard.index}-of-{shard.count}"
    try:
        manifests.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {manifests}: {error.strerror}", hint="check the folder") from error
    built = build_derived_manifest(
        made,
        base=base,
        out=manifests,
        recipe=recipe.name,
        fingerprint=recipe.fingerprint(),
        on_event=on_event,
    )
    table = write_failures(failures, manifests)
    value = ConvertResult(
        recipe=recipe.name,
        fingerprint=recipe.fingerprint(),
        out=out,
        manifest=built.path,
        images=built.images,
        converted=built.images - kept,
        kept=kept,
        failed=len(failures),
        size=size,
        notes=tuple(notes.most_common()),
        first_failures=tuple(sorted(failure.message for failure in failures)[:5]),
        failures=table,
    )
    rows = [
        ("recipe", f"{value.recipe} ({value.fingerprint})"),
        ("images", value.images),
        ("converted", value.converted),
        *((("done before", value.kept),) if value.kept else ()),
        *((("failed", value.failed),) if value.failed else ()),
        *(("", message) for message in value.first_failures),
        *(((f"{count:,} images", note) for note, count in value.notes)),
        *((("all failures", str(table)),) if table else ()),
        ("written", str(value.manifest)),
    ]
    return Result("convert", value, ExitCode.PARTIAL if failures else ExitCode.DONE, rows=tuple(rows))


def _derived(outcome: Converted) -> ConvertedImage:
    from cxrprep.manifest.derived import ConvertedImage

    spacing = outcome.spacing_mm
    return ConvertedImage(
        source_path=outcome.item.relative,
        source_digest=outcome.source_digest,
        path=outcome.path,
        size=outcome.size,
        digest=outcome.digest,
        width=outcome.width,
        height=outcome.height,
        mode=outcome.mode,
        spacing_mm=None if spacing is None else (spacing[1], spacing[0]),
        boxes=outcome.boxes,
    )


def target_of(inputs: Inputs, recipe: Recipe, out: Path | str | None, form: str = "files") -> Path | str:
    """Where the images go: ``out``, or ``derived/RECIPE`` of a dataset. Raises ``UsageError`` for no good place."""
    from cxrprep.images.places import is_url

    if out is None:
        if inputs.folder is None:
            raise UsageError(f"{inputs.address} is a plain folder", hint="say where the images go: --out DIR")
        name = recipe.name if form == "files" else f"{recipe.name}-{form}"
        return inputs.folder.home / "derived" / name
    if is_url(str(out)):
        return str(out)
    target = Path(out)
    if not is_url(inputs.address):
        _never_over_sources(Path(inputs.address), target)
    return target
