"""From selection options to a ``Selection``: files of ids are read here."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.errors import UsageError
from cxrprep.job import SelectionSettings, selection_of

if TYPE_CHECKING:
    from cxrprep.model import Selection

# patient00001/study1, p10000032/s50414267, or the bare numbers.
_STUDY: Final = re.compile(r"[a-z]*\d+/[a-z]*\d+", re.IGNORECASE)


def chosen(settings: SelectionSettings) -> Selection:
    """The selection that the options describe, id files read. Raises ``UsageError`` that names file and line."""
    patients, studies = _words(settings.patients, "patients"), _words(settings.studies, "studies")
    images: frozenset[str] = frozenset()
    if settings.ids:
        from cxrprep.manifest.ids import read_ids

        listed = read_ids(_existing(settings.ids))
        patients, studies = patients | listed["patients"], studies | listed["studies"]
        images = listed["images"]
    filled = dataclasses.replace(settings, patients=tuple(sorted(patients)), studies=tuple(sorted(studies)))
    return selection_of(filled, images)


def _existing(text: str) -> Path:
    from cxrprep.settings import expand

    path = expand(text)
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="name a CSV, Parquet or text file of ids")
    return path


def _words(texts: tuple[str, ...], kind: str) -> frozenset[str]:
    if not texts:
        return frozenset()
    from cxrprep.manifest.ids import read_list

    found: set[str] = set()
    for text in texts:
        path = Path(text).expanduser()
        if path.is_file():
            found |= read_list(path, kind)
        elif ("/" in text and not _STUDY.fullmatch(text)) or path.suffix in (".txt", ".csv", ".parquet"):
            # An id has no suffix, and no slash but a study's with its patient; whoever writes one means a file.
            raise UsageError(f"there is no file {path}", hint="name ids separated by commas, or a file with one a line")
        else:
            found.add(text)
    return frozenset(found)
