"""One run of a conversion: images or shards are made, then manifest, card and lineage written."""

from __future__ import annotations

import contextlib
import functools
import itertools
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.conversion_totals import ConversionTotals
from cxrprep.api.convert_inputs import Inputs, manifests_below
from cxrprep.api.convert_previous import add_previous
from cxrprep.api.convert_target import bring_manifests, cache_folder, note_source
from cxrprep.api.result import Result
from cxrprep.collection import FolderKind, Lineage, ShardFile
from cxrprep.collection.lineage import CARD_NAME, CROISSANT_NAME, IMAGES_NAME
from cxrprep.errors import CxrprepError, ExitCode, storage_errors
from cxrprep.events import Note, Sink, StageFinished
from cxrprep.humanize import format_count, short_repr
from cxrprep.images.conversion import ConversionTask
from cxrprep.images.conversion_cache import ConversionCache
from cxrprep.images.convert import convert as to_files
from cxrprep.images.dicom_metadata import Pseudonyms, own_pseudonyms
from cxrprep.images.local_files import LocalStore, is_url, open_store
from cxrprep.images.radiograph import DEFAULT_LIMITS, ImageLimits
from cxrprep.images.shard_files import digest_in, shards_in, stated_shards
from cxrprep.images.shards import ShardPlan, convert_to_shards, plan_shards, stated_columns
from cxrprep.manifest.croissant import describe_images
from cxrprep.manifest.dataset_card import card_of_outputs
from cxrprep.manifest.derived import build_derived_manifest
from cxrprep.manifest.failures import write_failures
from cxrprep.manifest.label_statistics import SCORES, score_summary
from cxrprep.manifest.previous import PreviousImages, has_scores
from cxrprep.storage.locks import check_writing, writing_tables
from cxrprep.storage.parquet import SET_DIGEST, footer_of, read_rows
from cxrprep.storage.paths import CACHE_NAME
from cxrprep.storage.working_copy_paths import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cxrprep.executors import Engine
    from cxrprep.images.recipe import Recipe
    from cxrprep.model import ScoreSummary, Shard
    from cxrprep.storage.filesystem import ImageStore

# More than any description of ours has.
_CROISSANT_BYTES: Final = 4 << 20
# By this line the next run knows the card for one of its own. YAML takes it for a comment.
_CARD_MARK: Final = b"---\n# written by cxrprep convert\n"
_REMARKS: Final = 20


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """What ``convert`` did: ``converted`` now, ``kept`` from before, ``failed``; ``notes`` count remarks.

    ``noted`` names the first images of each remark; the column ``notes`` of the manifest names all of them.
    ``left_out`` counts what a plain folder holds beside images: DICOM objects by kind, files by suffix. ``form`` is
    files, webdataset or parquet. ``manifest`` lists the images below ``out``: the ``images`` of this run and
    ``earlier`` ones, that other selections made by the same recipe. ``failures`` is the table of what failed, ``None``
    when nothing did. ``scores`` says how many of all images are above the alarms of their scores, where they were asked
    for now.
    """

    __repr__ = short_repr

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
    scores: ScoreSummary | None = None


def _write_changed(out: ImageStore, name: str, data: bytes) -> None:
    """Write a small file unless it is there as it is: others see by its ETag that nothing happened."""
    if out.head(name, len(data) + 1) != data:
        out.write(name, data)


@dataclass(frozen=True, slots=True)
class ConversionRun:
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
        began, inputs, out = time.monotonic(), self.inputs, open_store(self.target)
        engine = self._on_cluster(engine, out)
        pseudonyms: Pseudonyms | None = own_pseudonyms() if inputs.folder is None else None
        cache = cache_folder(inputs, self.recipe, out.address, self.home)
        note_source(cache, inputs)
        finished = ConversionCache.open(cache, out)
        totals = ConversionTotals(inputs)
        totals.refuse(inputs.unusable)
        totals.left_out.update(dict(inputs.left_out))
        # What has them keeps them: without, an image that is made anew would lose its own.
        scores = self.scores or has_scores(out, manifests_below(self.shard))
        fingerprint = self.recipe.fingerprint()
        task = ConversionTask(self.recipe, fingerprint, out, limits or DEFAULT_LIMITS, pseudonyms, scores=scores)
        shared: dict[str, Any] = {
            "engine": engine, "finished": finished, "total": inputs.total, "on_event": self.on_event,
        }  # fmt: skip
        names: list[str] = []
        made: dict[str, ShardFile] = {}
        if self.form == "files":
            to_files(inputs.items(), task, totals.take, **shared)
        else:
            name = "images" if inputs.folder is None else inputs.name
            plans = plan_shards(inputs.items, self.form, name=name, per_shard=self.per_shard, shard=self.shard)

            def noted() -> Iterator[ShardPlan]:
                for plan in plans:
                    names.append(plan.name)
                    yield plan

            made = convert_to_shards(noted(), self.form, task, totals.take, **shared)
        # The parts of a job array have folders of their own, and end together.
        local = self.shard is None and isinstance(out, LocalStore)
        with writing_tables(Path(out.address, CACHE_NAME), since=began) if local else contextlib.nullcontext():
            earlier = None
            # Shards are written anew for each selection, and hold nothing else.
            if self.form == "files":
                earlier = add_previous(
                    inputs, finished, task, totals, below=manifests_below(self.shard), allow_loss=self.allow_loss,
                    on_event=self.on_event,
                )  # fmt: skip
            finished.close(alone=self.shard is None)
            failed = len(totals.failures)
            self.on_event(StageFinished("convert", totals.done, totals.kept, failed, totals.size))
            if names and self.shard is None:
                self._remove_stale(out, set(names))
            shards = tuple(self._shards(names, made, out))
            return self._result(totals, earlier, out, shards)

    def _shards(self, names: Sequence[str], made: Mapping[str, ShardFile], out: ImageStore) -> Iterator[ShardFile]:
        """The files of shards with their digests: those of this run, and those that were finished before."""
        before = stated_shards(out) if set(names) - set(made) else {}
        for name in sorted(names):
            # What was written down when it was made counts: a shard that was altered since is not called right here.
            found = made.get(name) or before.get(name) or digest_in(out, name)
            if found is not None:
                yield found

    def _on_cluster(self, engine: Engine | None, out: ImageStore) -> Engine | None:
        """The engine, whose workers have to see what is a folder of this machine. Raises ``UsageError``."""
        if engine is None or engine.name != "dask":
            return engine
        if not is_url(out.address):
            _make_folder(Path(out.address))
        places = [path for path in (self.inputs.address, out.address) if not is_url(path)]
        if address_of(self.inputs.address) is not None:
            places.remove(self.inputs.address)
        return engine.needing([str(Path(path).resolve()) for path in places])

    def _remove_stale(self, out: ImageStore, names: set[str]) -> None:
        """Shards of another selection or size would be read together with the new ones."""
        check_writing(Path(out.address, CACHE_NAME))
        stale = [name for name in shards_in(out, self.form) if name not in names]
        for name in stale:
            out.remove(name)
        if stale:
            message = f"{len(stale):,} shards of an earlier selection were removed; the first: {stale[0]}"
            self.on_event(Note("convert", message, "info", out.address))

    def _result(
        self, totals: ConversionTotals, earlier: PreviousImages | None, out: ImageStore, shards: tuple[ShardFile, ...]
    ) -> Result[ConvertResult]:
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
        place = f"{value.out.rstrip('/')}/" if is_url(value.out) else ""
        rows = [
            ("recipe", f"{value.recipe} ({value.fingerprint})"),
            ("images", value.images),
            ("converted", value.converted),
            *((("done before", value.kept),) if value.kept else ()),
            *((("of earlier runs", f"{value.earlier:,}, in the manifest too"),) if value.earlier else ()),
            *((("failed", value.failed),) if value.failed else ()),
            *(("", message) for message in value.first_failures),
            *((format_count(count, "image"), note) for note, count in value.notes),
            *(
                ("", f"which: the column notes of {value.manifest.name}; the first: {names[0]}")
                for _, names in value.noted[:1]
            ),
            *((f"{count:,} left out", f"no image: {kind}") for kind, count in value.left_out),
            *((("all failures", f"{place}{value.failures}"),) if value.failures else ()),
            *((("digest", value.digest),) if value.digest else ()),
            *((("scores", value.scores.words()),) if value.scores else ()),
            ("written", f"{place}{value.manifest}"),
        ]
        code = ExitCode.PARTIAL if value.failed else ExitCode.DONE
        return Result("convert", value, code, rows=tuple(rows))

    def _describe_store(self, manifests: Path, out: ImageStore) -> None:
        """The Croissant of images in a store, which is as that of a folder: one that is not ours stays."""
        there = out.head(CROISSANT_NAME, _CROISSANT_BYTES)
        if there is not None:
            manifests.with_name(CROISSANT_NAME).write_bytes(there)
        described = describe_images(manifests) if self.shard is None else None
        if described is not None:
            _write_changed(out, CROISSANT_NAME, described.read_bytes())

    def _write_card(self, manifest: Path, out: ImageStore) -> None:
        """A card beside the images, by which ``load_dataset`` finds splits and types. One that is not ours stays."""
        if self.shard is not None:
            return
        before = out.head(CARD_NAME, len(_CARD_MARK))
        if before is not None and before != _CARD_MARK:
            message = f"{CARD_NAME} was not written by cxrprep and is kept: load_dataset may not find the splits"
            self.on_event(Note("convert", message, "warning", out.full(CARD_NAME)))
            return
        stated = [] if self.form == "files" else stated_columns(list(itertools.islice(self.inputs.items(), 1)))
        text = card_of_outputs(manifest, self.form, stated, self.recipe.output.suffix)
        _write_changed(out, CARD_NAME, _CARD_MARK + text.removeprefix("---\n").encode())

    def _stated_recipe(self, totals: ConversionTotals, earlier: PreviousImages | None) -> tuple[str, str]:
        """Name and fingerprint of the recipe that made the images: the one before an edit that could make none."""
        own = self.recipe.name, self.recipe.fingerprint()
        if len(totals.images) or earlier is None or not len(earlier):
            return own
        stay = earlier.other_recipe(own[1])
        if len(stay) < len(earlier):
            return own
        return str(stay["recipe"][0]), str(stay["recipe_fingerprint"][0])

    def _lineage(self, shards: tuple[ShardFile, ...], recipe: str, fingerprint: str) -> Lineage:
        """What the folder of outputs is to say of itself; the digest of the sources is added when they are known."""
        source = self.inputs.folder
        # Of a folder that was made itself, the key by which its patients were named, where they were.
        named_by = source.lineage.pseudonyms if source is not None and source.lineage is not None else ""
        return Lineage(
            kind=FolderKind.CONVERTED,
            form=self.form,
            recipe=recipe,
            fingerprint=fingerprint,
            parent={"kind": str(FolderKind.OWN if source is None else source.kind)},
            pseudonyms=own_pseudonyms().sign if source is None else named_by,
            shards=shards,
        )

    def _written(
        self,
        totals: ConversionTotals,
        earlier: PreviousImages | None,
        folder: Path,
        shown: Path,
        shards: tuple[ShardFile, ...],
    ) -> ConvertResult:
        """The manifest and the failures, written to ``folder``; ``shown`` is what the result calls it."""
        _make_folder(folder)
        listed = build_derived_manifest(
            totals.images,
            base=self.inputs.base,
            out=folder,
            earlier=earlier,
            lineage=self._lineage(shards, *self._stated_recipe(totals, earlier)),
            labels_in=None if self.inputs.folder is None else self.inputs.folder.read_from,
            root=folder if is_url(str(self.target)) else Path(self.target),
            whole=self.shard is None,
            allow_loss=self.allow_loss,
            on_event=self.on_event,
        )
        images, table = folder / IMAGES_NAME, write_failures(totals.failures, folder)
        return ConvertResult(
            recipe=self.recipe.name,
            fingerprint=self.recipe.fingerprint(),
            out=str(self.target),
            form=self.form,
            manifest=shown / IMAGES_NAME,
            images=listed - totals.earlier,
            converted=listed - totals.earlier - totals.kept,
            kept=totals.kept,
            earlier=totals.earlier,
            failed=len(totals.failures),
            size=totals.size,
            notes=tuple(totals.notes.most_common(_REMARKS)),
            left_out=tuple(totals.left_out.most_common()),
            first_failures=tuple(totals.failures.first),
            failures=None if table is None else shown / table.name,
            noted=tuple((note, tuple(totals.noted[note])) for note, _ in totals.notes.most_common(_REMARKS)),
            digest=str(footer_of(images).get(SET_DIGEST) or ""),
            scores=score_summary(read_rows(images, columns=SCORES)) if self.scores or self.recipe.fix else None,
        )


def _make_folder(folder: Path) -> None:
    with storage_errors(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
