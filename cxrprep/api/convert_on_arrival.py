"""Conversion during download: each image is converted when it has arrived, so that the originals need no room."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import TYPE_CHECKING

from cxrprep.events import ItemFinished
from cxrprep.model import Selection
from cxrprep.storage.atomic import sweep
from cxrprep.storage.journal import Journal, journal_name
from cxrprep.storage.locks import writer_is_gone
from cxrprep.system import available_cores

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from cxrprep.api.conversion_run import ConvertResult
    from cxrprep.api.download_context import DownloadContext
    from cxrprep.api.result import Result


class ArrivalConverter:
    """The hook of a transfer: each image is converted while the thread that fetched it waits; a context.

    The work is done in processes, one a core, so that a decoder that crashes or finds no end costs one image and not
    the download. With ``discard_raw`` the original is then dropped and recorded as discarded; one that cannot be
    converted stays. The manifest of the converted images is built at the end, from what they say of themselves.
    """

    def __init__(self, job: DownloadContext) -> None:
        """Raises ``UsageError`` or ``ConfigError`` for a recipe that is unknown or wrong."""
        from cxrprep.executors import WorkerPool
        from cxrprep.images.conversion import ConversionTask
        from cxrprep.images.convert import convert_batch
        from cxrprep.images.local_files import LocalStore
        from cxrprep.images.recipe import load_recipe
        from cxrprep.manifest.image_sizes import SIZES
        from cxrprep.manifest.previous import stated_outputs

        self._job = job
        self._recipe = load_recipe(job.options.then)
        self._out = job.folder.derived(self._recipe.name)
        self._layout = job.folder.layout
        # Durable: the original may be dropped right after.
        self._task = ConversionTask(self._recipe, self._recipe.fingerprint(), LocalStore(str(self._out)), durable=True)
        self._stated = stated_outputs(self._out)
        self._work = functools.partial(convert_batch, task=self._task)
        self._workers = WorkerPool(available_cores(), grace=0.0)
        # Lies there while this runs: one that a killed run left says that half-written copies may lie about.
        self._mark = Journal(job.folder.record.cache / "arriving" / journal_name())
        self._sizes = Journal(job.folder.record.cache / SIZES / journal_name())
        self._over = False

    def __enter__(self) -> Self:
        """No process is started before the first image."""
        self._mark.append({"begun": True})
        self._workers.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """End the processes."""
        self._over = True
        self._workers.__exit__(kind, *rest)
        self._mark.close()
        self._sizes.close()
        if kind is None:
            self._mark.path.unlink(missing_ok=True)

    def __call__(self, path: str, place: Path) -> bool:
        """Convert one file; whether the original has been used up."""
        from cxrprep.executors import Lost
        from cxrprep.images.conversion import ConvertItem, lost

        if self._layout.parse(path) is None:
            return False
        entry = self._job.folder.record.get(path)
        digest = entry.digest if entry is not None else None
        item = ConvertItem(str(place), path, digest)
        # An output with other bytes than it was made with is made again, before its original goes.
        item = dataclasses.replace(item, made=self._stated.get(item.output(self._task.suffix), (0, ""))[1])
        outcome = next(self._workers.run(self._work, [item], self._task.limits.seconds))
        if self._over:
            # Its process was ended because the run is: the image has not failed, the next run converts it.
            return False
        if isinstance(outcome, Lost):
            outcome = lost(outcome)
        if outcome.status == "error":
            self._job.on_event(ItemFinished("convert", path, "error", detail=outcome.error))
            return False
        if self._job.options.discard_raw and self._job.spec.images.width is not None:
            self._note_size(path, place)
        return self._job.options.discard_raw

    def _note_size(self, path: str, place: Path) -> None:
        """Keep the size of an original that is dropped now: a resized copy's boxes are in its own pixels."""
        from cxrprep.images.decode import measure
        from cxrprep.manifest.image_sizes import note_size

        images = self._job.spec.images
        size = next(iter(measure([place])), None)
        if size is not None and size[:2] != (images.width, images.height):
            note_size(self._sizes, path, size)

    def finish(self) -> Result[ConvertResult]:
        """Build the manifest of the converted images, those of earlier runs too; originals that are here are tried."""
        from cxrprep.api.conversion_run import ConversionRun
        from cxrprep.api.convert import PER_SHARD
        from cxrprep.api.convert_inputs import inputs_with_dropped
        from cxrprep.executors import Engine

        self._sweep()
        job, shard = self._job, self._job.options.shard
        job.folder.record.save()
        inputs = inputs_with_dropped(job.folder, self._recipe, self._out, Selection(), shard, on_event=job.on_event)
        run = ConversionRun(inputs, self._recipe, self._out, "files", PER_SHARD, shard, None, job.on_event)
        return run.perform(Engine(), None)

    def _sweep(self) -> None:
        """Remove what killed runs were writing; a walk over all folders, so only after such a run."""
        killed = [mark for mark in self._mark.path.parent.iterdir() if writer_is_gone(mark.name)]
        if not killed:
            return
        # A worker may outlive its run for a moment: then the mark stays for the next one.
        if not sum(sweep(folder) for folder, _, _ in os.walk(self._out)):
            for mark in killed:
                mark.unlink(missing_ok=True)
