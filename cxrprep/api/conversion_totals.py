"""What became of the images of a conversion: counts, failures, remarks, and the rows of its manifest."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from cxrprep.manifest.derived import DerivedRows
from cxrprep.manifest.failures import Failure, FailureRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cxrprep.api.convert_inputs import Inputs
    from cxrprep.images.conversion import Converted
    from cxrprep.manifest.previous import Names

_NOTES: Final = 1000
# Images that are named for each remark; the manifest names all.
_NAMED: Final = 20


class ConversionTotals:
    """What became of the images, in bounded memory."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self.images = DerivedRows()
        self.failures = FailureRows()
        self.notes: Counter[str] = Counter()
        self.noted: dict[str, list[str]] = {}
        self.left_out: Counter[str] = Counter()
        self.done = self.kept = self.size = self.earlier = 0
        self._without: list[str] = []
        # What failed, with the digest of its source where that is known: an output of the same source stays listed.
        self.failed: dict[str, str] = {}

    def tried(self) -> Names:
        """The sources of this run, without those that failed."""
        return self.images.names("source_path", self._without)

    def refuse(self, names: Sequence[str]) -> None:
        """Images that cannot even be tried."""
        for name in names:
            message = f"{name}: no output can have this name"
            self._without.append(name)
            self.failures.add(Failure(name, "convert", "UnsafePathError", message, "rename the file"))

    def take(self, outcome: Converted) -> None:
        """One image more."""
        name = outcome.item.relative
        if outcome.status == "left out":
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
            self.failed[name] = outcome.source_digest
            image = self._inputs.image_of(name)
            self.failures.add(Failure(name, "convert", outcome.kind, outcome.error, outcome.hint, image))
        else:
            self.kept += outcome.status == "notneeded"
            self.done += outcome.status == "ok"
            self.size += outcome.size
            self.images.add(outcome.as_row())
