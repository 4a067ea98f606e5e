"""Images converted as they arrive, so that a small copy can be had without room for the large one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cxrprep.events import ItemFinished, Note

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.api.planning import Job


class Arriving:
    """The hook of a transfer: each image is converted in the thread that fetched it.

    With ``discard_raw`` the original is then dropped and recorded as discarded; one that cannot be converted stays. The
    manifest of the converted images is built at the end, from what they say of themselves.
    """

    def __init__(self, job: Job) -> None:
        """Raises ``UsageError`` or ``ConfigError`` for a recipe that is unknown or wrong."""
        from cxrprep.images.recipe import load_recipe

        self._job = job
        self._recipe = load_recipe(job.options.then)
        self._out = job.folder.home / "derived" / self._recipe.name
        self._layout = job.folder.layout
        self._guard = threading.Lock()
        self.failed: list[str] = []

    def __call__(self, path: str, place: Path) -> bool:
        """Convert one file; whether the original has been used up."""
        from cxrprep.images.convert import ConvertItem, convert_one

        if self._layout.parse(path) is None:
            return False
        entry = self._job.folder.record.get(path)
        digest = entry.digest if entry is not None else None
        outcome = convert_one(ConvertItem(str(place), path, digest), self._recipe, self._out)
        if outcome.status == "error":
            with self._guard:
                self.failed.append(path)
            self._job.on_event(ItemFinished("convert", path, "error", detail=outcome.error))
            return False
        return self._job.options.discard_raw

    def finish(self) -> None:
        """Build the manifest of the converted images, those of earlier runs too."""
        from cxrprep.api.pixels import convert_recorded

        convert_recorded(self._job.folder, self._recipe, self._out, on_event=self._job.on_event)
        if self.failed:
            message = f"{len(self.failed):,} images could not be converted; their originals are kept"
            self._job.on_event(Note("convert", message, "problem", self.failed[0]))
