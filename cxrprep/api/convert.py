"""The verb convert: the images of a folder by a recipe, with a manifest of their own."""

from __future__ import annotations

import functools
import itertools
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.convert_inputs import Inputs, inputs_with_dropped, manifests_below, open_inputs
from cxrprep.api.convert_target import bring_manifests, cache_folder, check_target, note_source, target_of
from cxrprep.api.keywords import Keywords, shard_of
from cxrprep.api.result import Result
from cxrprep.api.running import notes_progress
from cxrprep.collection import FolderKind, Lineage
from cxrprep.errors import CxrprepError, ExitCode, StorageError, UsageError
from cxrprep.events import Note, StageFinished, ignore
from cxrprep.humanize import format_count
from cxrprep.model import FolderRef, Selection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cxrprep.api.folder import DatasetFolder
    from cxrprep.collection import ShardFile
    from cxrprep.events import Sink
    from cxrprep.executors import Engine
    from cxrprep.images.conversion import Converted, ConvertItem
    from cxrprep.images.conversion_cache import ConversionCache
    from cxrprep.images.dicom_metadata import Pseudonyms
    from cxrprep.images.radiograph import ImageLimits
    from cxrprep.images.recipe import Recipe
    from cxrprep.images.shards import ShardPlan
    from cxrprep.manifest.previous import Names, PreviousImages
    from cxrprep.model import Shard
    from cxrprep.storage.filesystem import ImageStore


FORMS: Final = ("files", "webdataset", "parquet")
PER_SHARD: Final = 1000
_NOTES: Final = 1000
# By this line the next run knows the card for one of its own. YAML takes it for a comment.
# More than any description of ours has.
_CROISSANT_BYTES: Final = 4 << 20
_CARD_MARK: Final = b"---\n# written by cxrprep convert\n"
_REMARKS: Final = 20
# Images that are named for each remark; the manifest names all.
_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """What ``convert`` did: ``converted`` now, ``kept`` from before, ``failed``; ``notes`` count remarks.

    ``noted`` names the first images of each remark; the column ``notes`` of the manifest names all of them.
    ``left_out`` counts what a plain folder holds beside images: DICOM objects by kind, files by suffix. ``form`` is
    files, webdataset or parquet. ``manifest`` lists the images below ``out``: the ``images`` of this run and
    ``earlier`` ones, that other selections made by the same recipe. ``failures`` is the table of what failed, ``None``
    when nothing did.
    """

    recipe: str
    fingerprint: str
    out: str
    form: str
    manifest: Path
    images: int
    converted: int
    kept: int
    earlier: int
    failed: int
    size: int
    notes: tuple[tuple[str, int], ...]
    left_out: tuple[tuple[str, int], ...]
    first_failures: tuple[str, ...]
    failures: Path | None
    noted: tuple[tuple[str, tuple[str, ...]], ...] = ()
    digest: str = ""


@takes_buckets(root="dataset-folder", state="written-folder", tables="read-folder")
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
        root: A known dataset, or any folder of DICOM, PNG and JPEG files; or an address that fsspec opens.
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
        NothingSelectedError: Nothing is to be converted.
        StorageError: The disk refuses.

    Examples:
        >>> import cxrprep
        >>> made = cxrprep.convert("nih", recipe="square-224").value
        >>> made.images, made.failed, made.out
        (5, 0, 'nih/derived/square-224')
    """
    from cxrprep.images.recipe import load_recipe

    if to not in FORMS:
        raise UsageError(f"unknown form {to!r}", hint=f"--to {'|'.join(FORMS)}")
    where, keywords = FolderRef.of(root, dataset=dataset, release=release, state=state, tables=tables), Keywords(words)
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
    run = _Run(inputs, chosen, target, to, per_shard, shard, where.state, on_event, allow_loss, scores)
    return run.perform(engine, limits)


def _from_store(inputs: Inputs) -> Inputs:
    """The same images, read from their bucket where they are a working copy: machines of a cluster do not see that."""
    from cxrprep.storage.working_copy import address_of

    if address_of(inputs.address) is None:
        return inputs

    def items() -> Iterator[ConvertItem]:
        for item in inputs.items():
            yield replace(item, source=address_of(item.source) or item.source)

    return replace(inputs, items=items)


def convert_recorded(
    folder: DatasetFolder, recipe: Recipe, out: Path, shard: Shard | None = None, *, on_event: Sink = ignore
) -> Result[ConvertResult]:
    """What became of every image of an open folder, or of one shard of it, originals that were dropped too.

    Args:
        folder: The open folder.
        recipe: By which its images were made on arrival.
        out: The folder of the outputs.
        shard: The part of a job array; by default all.
        on_event: Called with progress and remarks.

    Returns:
        As ``convert``.

    Raises:
        StorageError: The disk refuses.
    """
    from cxrprep.executors import Engine

    folder.record.save()
    inputs = inputs_with_dropped(folder, recipe, out, shard=shard, on_event=on_event)
    run = _Run(inputs, recipe, out, "files", PER_SHARD, shard, None, on_event)
    return run.perform(Engine(), None)


def _write_changed(out: ImageStore, name: str, data: bytes) -> None:
    """Write a small file unless it is there as it is: others see by its ETag that nothing happened."""
    if out.head(name, len(data) + 1) != data:
        out.write(name, data)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of the verb: what, by which recipe, where to and how."""

    inputs: Inputs
    recipe: Recipe
    target: Path | str
    form: str
    per_shard: int
    shard: Shard | None
    home: Path | None
    on_event: Sink
    allow_loss: bool = False
    scores: bool = False

    def perform(self, engine: Engine | None, limits: ImageLimits | None) -> Result[ConvertResult]:
        """Convert, then write the manifest."""
        from cxrprep.images.conversion_cache import ConversionCache
        from cxrprep.images.convert import convert as to_files
        from cxrprep.images.dicom_metadata import own_pseudonyms
        from cxrprep.images.local_files import open_store
        from cxrprep.images.radiograph import DEFAULT_LIMITS
        from cxrprep.images.shards import convert_to_shards, plan_shards

        inputs, out = self.inputs, open_store(self.target)
        self._check_cluster(engine, out)
        pseudonyms: Pseudonyms | None = own_pseudonyms() if inputs.folder is None else None
        cache = cache_folder(inputs, self.recipe, out.address, self.home)
        note_source(cache, inputs)
        finished = ConversionCache.open(cache, out)
        totals = _ConversionTotals(inputs)
        totals.refuse(inputs.unusable)
        totals.left_out.update({f"{suffix or 'other'} file": count for suffix, count in inputs.left_out})
        shared: dict[str, Any] = {
            "engine": engine, "limits": limits or DEFAULT_LIMITS, "finished": finished, "pseudonyms": pseudonyms,
            "scores": self.scores,
            "total": inputs.total, "on_event": self.on_event,
        }  # fmt: skip
        names: list[str] = []
        made: dict[str, ShardFile] = {}
        if self.form == "files":
            to_files(inputs.items(), self.recipe, self.target, totals.take, **shared)
        else:
            name = "images" if inputs.folder is None else inputs.name
            plans = plan_shards(inputs.items, self.form, name=name, per_shard=self.per_shard, shard=self.shard)

            def noted() -> Iterator[ShardPlan]:
                for plan in plans:
                    names.append(plan.name)
                    yield plan

            made = convert_to_shards(noted(), self.form, self.recipe, self.target, totals.take, **shared)
        earlier = self._earlier(totals, finished, shared["limits"], pseudonyms, out)
        finished.close(alone=self.shard is None)
        failed = len(totals.failures)
        self.on_event(StageFinished("convert", totals.done, totals.kept, failed, totals.size))
        if names and self.shard is None:
            self._remove_stale(out, set(names))
        shards = tuple(self._shards(names, made, out))
        return self._result(totals, earlier, out, shards)

    def _shards(self, names: Sequence[str], made: Mapping[str, ShardFile], out: ImageStore) -> Iterator[ShardFile]:
        """The files of shards with their digests: those of this run, and those that were finished before."""
        from cxrprep.images.shard_files import digest_in, stated_shards

        before = stated_shards(out) if set(names) - set(made) else {}
        for name in sorted(names):
            # What was written down when it was made counts: a shard that was altered since is not called right here.
            found = made.get(name) or before.get(name) or digest_in(out, name)
            if found is not None:
                yield found

    def _earlier(
        self,
        totals: _ConversionTotals,
        finished: ConversionCache,
        limits: ImageLimits,
        pseudonyms: Pseudonyms | None,
        out: ImageStore,
    ) -> PreviousImages | None:
        """What other selections made; shards are written anew for each selection, and hold nothing else."""
        from cxrprep.api.convert_previous import add_previous
        from cxrprep.images.conversion import ConversionTask

        if self.form != "files":
            return None
        task = ConversionTask(self.recipe, self.recipe.fingerprint(), out, limits, pseudonyms)
        tried, made = totals.tried(), totals.images.names("path")
        before = len(totals.images)
        earlier = add_previous(
            self.inputs,
            finished,
            task,
            manifests_below(self.shard),
            totals.add,
            tried=tried,
            made=made,
            on_event=self.on_event,
        )
        totals.earlier = len(totals.images) - before + len(earlier)
        return earlier

    def _check_cluster(self, engine: Engine | None, out: ImageStore) -> None:
        from cxrprep.images.local_files import is_url
        from cxrprep.storage.working_copy import address_of

        if engine is None or engine.name != "dask":
            return
        if not is_url(out.address):
            _make_folder(Path(out.address))
        places = [path for path in (self.inputs.address, out.address) if not is_url(path)]
        if address_of(self.inputs.address) is not None:
            places.remove(self.inputs.address)
        engine.needs([str(Path(path).resolve()) for path in places])

    def _remove_stale(self, out: ImageStore, names: set[str]) -> None:
        """Shards of another selection or size would be read together with the new ones."""
        from cxrprep.images.shard_files import shards_in

        stale = [name for name in shards_in(out, self.form) if name not in names]
        for name in stale:
            out.remove(name)
        if stale:
            message = f"{len(stale):,} shards of an earlier selection were removed; the first: {stale[0]}"
            self.on_event(Note("convert", message, "info", out.address))

    def _result(
        self, totals: _ConversionTotals, earlier: PreviousImages | None, out: ImageStore, shards: tuple[ShardFile, ...]
    ) -> Result[ConvertResult]:
        from cxrprep.images.local_files import LocalStore

        below = manifests_below(self.shard)
        if isinstance(out, LocalStore):
            value = self._written(totals, earlier, Path(out.address, below), Path(out.address, below), shards)
            self._write_card(value.manifest, out)
        else:
            import tempfile

            with tempfile.TemporaryDirectory(prefix="cxrprep-") as folder:
                here = Path(folder, "manifests")
                # What is there is what the new tables are held against, as in a folder.
                bring_manifests(out, below, here)
                try:
                    value = self._written(totals, earlier, here, Path(below), shards)
                except CxrprepError as error:
                    error.message = error.message.replace(str(here), out.full(below))
                    error.hint = error.hint.replace(str(here), out.full(below))
                    raise
                self._write_card(here / value.manifest.name, out)
                self._describe_store(here, out)
                for path in sorted(here.iterdir()):
                    out.write_with(f"{below}/{path.name}", functools.partial(shutil.copyfile, path))
                if value.failures is None:
                    out.remove(f"{below}/failures.parquet")
        rows = [
            ("recipe", f"{value.recipe} ({value.fingerprint})"),
            ("images", value.images),
            ("converted", value.converted),
            *((("done before", value.kept),) if value.kept else ()),
            *((("of earlier runs", f"{value.earlier:,}, in the manifest too"),) if value.earlier else ()),
            *((("failed", value.failed),) if value.failed else ()),
            *(("", message) for message in value.first_failures),
            *((format_count(count, "image"), note) for note, count in value.notes),
            *((("", f"which: {_examples(value)}"),) if value.noted else ()),
            *((f"{count:,} left out", f"no image: {kind}") for kind, count in value.left_out),
            *((("all failures", str(value.failures)),) if value.failures else ()),
            *((("digest", value.digest),) if value.digest else ()),
            ("written", str(value.manifest)),
        ]
        code = ExitCode.PARTIAL if value.failed else ExitCode.DONE
        return Result("convert", value, code, rows=tuple(rows))

    def _describe_store(self, manifests: Path, out: ImageStore) -> None:
        """The Croissant of images in a store, which is as that of a folder: one that is not ours stays."""
        from cxrprep.collection.lineage import CROISSANT_NAME
        from cxrprep.manifest.croissant import describe_images

        there = out.head(CROISSANT_NAME, _CROISSANT_BYTES)
        if there is not None:
            manifests.with_name(CROISSANT_NAME).write_bytes(there)
        described = describe_images(manifests) if self.form == "files" and self.shard is None else None
        if described is not None:
            _write_changed(out, CROISSANT_NAME, described.read_bytes())

    def _write_card(self, manifest: Path, out: ImageStore) -> None:
        """A card beside the images, by which ``load_dataset`` finds splits and types. One that is not ours stays."""
        from cxrprep.images.shards import stated_columns
        from cxrprep.manifest.dataset_card import CARD_NAME, card_of_outputs

        if self.shard is not None:
            return
        before = out.head(CARD_NAME, len(_CARD_MARK))
        if before is not None and before != _CARD_MARK:
            message = f"{CARD_NAME} is none that cxrprep wrote: it stays, and load_dataset may not find the splits"
            self.on_event(Note("convert", message, "warning", out.full(CARD_NAME)))
            return
        stated = [] if self.form == "files" else stated_columns(list(itertools.islice(self.inputs.items(), 1)))
        text = card_of_outputs(manifest, self.form, stated, self.recipe.output.suffix)
        _write_changed(out, CARD_NAME, _CARD_MARK + text.removeprefix("---\n").encode())

    def _lineage(self, shards: tuple[ShardFile, ...]) -> Lineage:
        """What the folder of outputs is to say of itself; the digest of the sources is added when they are known."""
        from cxrprep.images.dicom_metadata import own_pseudonyms

        source = self.inputs.folder
        return Lineage(
            kind=FolderKind.CONVERTED,
            form=self.form,
            recipe=self.recipe.name,
            fingerprint=self.recipe.fingerprint(),
            parent={"kind": str(FolderKind.OWN if source is None else source.kind)},
            pseudonyms=own_pseudonyms().sign if source is None else _pseudonyms_of(source),
            shards=shards,
        )

    def _written(
        self,
        totals: _ConversionTotals,
        earlier: PreviousImages | None,
        folder: Path,
        shown: Path,
        shards: tuple[ShardFile, ...],
    ) -> ConvertResult:
        """The manifest and the failures, written to ``folder``; ``shown`` is what the result calls it."""
        from cxrprep.images.local_files import is_url
        from cxrprep.manifest.derived import build_derived_manifest
        from cxrprep.manifest.failures import write_failures
        from cxrprep.storage.parquet import SET_DIGEST, footer_of

        _make_folder(folder)
        built = build_derived_manifest(
            totals.images,
            base=self.inputs.base,
            out=folder,
            recipe=self.recipe.name,
            fingerprint=self.recipe.fingerprint(),
            earlier=earlier,
            lineage=self._lineage(shards),
            labels_in=None if self.inputs.folder is None else self.inputs.folder.read_from,
            root=folder if is_url(str(self.target)) else Path(self.target),
            whole=self.shard is None,
            allow_loss=self.allow_loss,
            on_event=self.on_event,
        )
        table = write_failures(totals.failures, folder)
        return ConvertResult(
            recipe=self.recipe.name,
            fingerprint=self.recipe.fingerprint(),
            out=str(self.target),
            form=self.form,
            manifest=shown / built.path.name,
            images=built.images - totals.earlier,
            converted=built.images - totals.earlier - totals.kept,
            kept=totals.kept,
            earlier=totals.earlier,
            failed=len(totals.failures),
            size=totals.size,
            notes=tuple(totals.notes.most_common(_REMARKS)),
            left_out=tuple(totals.left_out.most_common()),
            first_failures=tuple(totals.failures.first),
            failures=None if table is None else shown / table.name,
            noted=tuple((note, tuple(totals.noted[note])) for note, _ in totals.notes.most_common(_REMARKS)),
            digest=str(footer_of(built.path).get(SET_DIGEST) or ""),
        )


class _ConversionTotals:
    """What became of the images, in bounded memory."""

    def __init__(self, inputs: Inputs) -> None:
        from cxrprep.manifest.derived import DerivedRows
        from cxrprep.manifest.failures import FailureRows

        self._inputs = inputs
        self.images = DerivedRows()
        self.failures = FailureRows()
        self.notes: Counter[str] = Counter()
        self.noted: dict[str, list[str]] = {}
        self.left_out: Counter[str] = Counter()
        self.done = self.kept = self.size = self.earlier = 0
        self._without: list[str] = []

    def tried(self) -> Names:
        """The sources of this run, whatever became of them."""
        return self.images.names("source_path", self._without)

    def refuse(self, names: Sequence[str]) -> None:
        """Images that cannot even be tried."""
        from cxrprep.manifest.failures import Failure

        for name in names:
            message = f"{name}: no output can have this name"
            self._without.append(name)
            self.failures.add(Failure(name, "convert", "UnsafePathError", message, "rename the file"))

    def take(self, outcome: Converted) -> None:
        """One image more."""
        from cxrprep.manifest.failures import Failure

        name = outcome.item.relative
        if outcome.status in ("left out", "error"):
            self._without.append(name)
        for note in outcome.notes:
            # Notes that quote values are as many as images.
            remark = note if note in self.notes or len(self.notes) < _NOTES else "other remarks"
            self.notes[remark] += 1
            named = self.noted.setdefault(remark, [])
            if len(named) < _NAMED:
                named.append(name)
        if outcome.status == "left out":
            self.left_out[outcome.voi] += 1
        elif outcome.status == "error":
            image = self._inputs.image_of(name)
            self.failures.add(Failure(name, "convert", outcome.kind, outcome.error, outcome.hint, image))
        else:
            self.kept += outcome.status == "notneeded"
            self.done += outcome.status == "ok"
            self.size += outcome.size
            self.add(outcome)

    def add(self, outcome: Converted) -> None:
        """The row of one image."""
        from cxrprep.manifest.derived import ConvertedImage

        spacing = outcome.spacing_mm
        self.images.add(
            ConvertedImage(
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
                about=outcome.about,
                measures={"pixels": outcome.pixels or None, **outcome.measures()},
            )
        )


def _examples(value: ConvertResult) -> str:
    """The first image with remarks, and where all of them stand."""
    return f"the column notes of {value.manifest.name}; the first: {value.noted[0][1][0]}"


def _pseudonyms_of(folder: DatasetFolder) -> str:
    """The fingerprint of the key by which patients of a folder were named, where they were."""
    return "" if folder.lineage is None else folder.lineage.pseudonyms


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}", hint="check the folder") from error
