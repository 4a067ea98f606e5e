"""Kept answers of a labeler, by the SHA-256 of the text: a run that was killed asks for nothing twice.

A folder for each labeler, version and digest; each process appends to a file of its own, one JSON line an answer. No
text is in it, and a line that was cut by a kill is passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cxrprep.errors import storage_errors
from cxrprep.labels.labelers.contract import Labels, ReportLabeler, labels_as_given
from cxrprep.storage.small_files import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


FOLDER: Final = "labeler-answers"
_VALUES: Final = frozenset((1, 0, -1, None))


def sha256_of(text: str) -> str:
    """The key of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class AnswerCache:
    """The answers of one labeler, in ``folder`` and in memory."""

    def __init__(self, folder: Path, labeler: ReportLabeler) -> None:
        """Nothing is read yet."""
        about = "\0".join((labeler.name, labeler.version, labeler.digest, *labeler.observations))
        self._folder = folder / f"{labeler.name}-{hashlib.sha256(about.encode()).hexdigest()[:16]}"
        self._labeler = labeler
        self._known: dict[str, Labels] = {}
        # How much of each file was read: another process may add to it.
        self._read: dict[Path, int] = {}

    def labels_of(self, texts: Sequence[str]) -> dict[str, Labels]:
        """The labels of texts by their SHA-256: those that are kept, and those that are asked for now, kept at once.

        A text to which the labeler has no answer is not in it. Raises ``StorageError`` and what the labeler raises.
        """
        wanted = {sha256_of(text): text for text in texts}
        known = self._read_cache()
        found = {key: known[key] for key in wanted if key in known}
        missing = [(key, text) for key, text in wanted.items() if key not in found]
        if missing:
            with self._kept() as keep:
                for place, labels in labels_as_given(self._labeler, [text for _, text in missing]):
                    if labels is not None:
                        key = missing[place][0]
                        found[key] = labels
                        keep(key, labels)
        return found

    def _read_cache(self) -> dict[str, Labels]:
        with storage_errors(self._folder, "read"):
            for path in sorted(self._folder.glob("*.jsonl")):
                with path.open("rb") as file:
                    file.seek(self._read.get(path, 0))
                    whole = file.read().rpartition(b"\n")[0]
                self._read[path] = self._read.get(path, 0) + len(whole) + bool(whole)
                for line in whole.decode("utf-8", "replace").splitlines():
                    self._known |= self._answer(line)
        return self._known

    def _answer(self, line: str) -> dict[str, Labels]:
        """What a line says: nothing where a kill has cut it, or its observations are not those of the labeler."""
        try:
            key, values = parse_json(line)
        except (ValueError, TypeError):
            return {}
        names = self._labeler.observations
        if not isinstance(values, list) or len(values) != len(names) or not _VALUES.issuperset(values):
            return {}
        return {key: dict(zip(names, values, strict=True))}

    @contextmanager
    def _kept(self) -> Iterator[Callable[[str, Labels], None]]:
        """A function that keeps one answer, at once, in a file of this process."""
        names = self._labeler.observations
        with storage_errors(self._folder, "write"):
            self._folder.mkdir(parents=True, exist_ok=True)
            # Of one process: several machines may share the folder, whose locks are worth nothing.
            file = (self._folder / f"{os.getpid()}-{_RUN}.jsonl").open("a", encoding="utf-8")

        def keep(key: str, labels: Labels) -> None:
            with storage_errors(self._folder, "write"):
                file.write(json.dumps([key, [labels.get(name) for name in names]]) + "\n")
                file.flush()

        with file:
            yield keep


_RUN: Final = uuid.uuid4().hex[:8]
