"""Where MIMIC-CXR's reports are, and their texts on request."""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from cxrprep.archives import NOT_READABLE
from cxrprep.errors import TableError
from cxrprep.labels.tables import Form, digest_of, read_table

if TYPE_CHECKING:
    from cxrprep.labels.find import Tables
    from cxrprep.labels.rows import Gathered

_STUDIES: Final = Form(("subject_id", "study_id", "path"), plain=("subject_id", "study_id", "path"))
_MEMBER: Final = re.compile(r"(?:^|/)p1\d{7}/s(5\d{7})\.txt$", re.ASCII)
_LARGEST: Final = 1 << 20  # the longest report has some ten thousand characters


def report_paths(tables: Tables, gathered: Gathered) -> tuple[pa.Array, pa.Array] | None:
    """Studies and the release paths of their reports, as the study list states them; ``None`` without that list."""
    found = tables.of_role("studies")
    if not found:
        return None
    table = read_table(found[0][1], _STUDIES)
    table.require_match("study_id", r"^5\d{7}$", "expected a study such as 50414267")
    table.require_unique("study_id")
    table.require_match("path", r"^files/p\d\d/p1\d{7}/s5\d{7}\.txt$", "expected files/p10/p10000032/s50414267.txt")
    gathered.use(table, "studies", used=table.rows)
    return table.text("study_id"), table.text("path")


def report_texts(tables: Tables, gathered: Gathered) -> tuple[pa.Array, pa.Array]:
    """Studies and their reports' texts, from the archive of all reports.

    Bytes that are no UTF-8 are read as Latin-1. Raises ``TableError`` when the archive is absent or damaged.
    """
    found = tables.of_role("reports")
    if not found:
        raise TableError(
            "report texts were asked for, and mimic-cxr-reports.zip is not here",
            hint="download it from MIMIC-CXR, name its folder with --tables DIR, or do not ask for report texts",
        )
    path = found[0][1]
    studies, texts = [], []
    others = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                named = _MEMBER.search(member.filename)
                if member.is_dir():
                    continue
                if named is None:
                    others += 1
                    continue
                if member.file_size > _LARGEST:
                    raise TableError(
                        f"{path}: {member.filename} is {member.file_size:,} bytes long",
                        hint="no report is: fetch it again",
                    )
                studies.append(named.group(1))
                texts.append(_text(archive.read(member)))
    except (OSError, *NOT_READABLE) as error:
        raise TableError(f"{path} cannot be read: {error}", hint="the file is cut short: fetch it again") from error
    gathered.use_file(
        path, digest_of(path), "reports", rows=len(studies) + others, used=len(studies), are_no_reports=others
    )
    return pa.array(studies, pa.string()), pa.array(texts, pa.large_string())


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
