"""Check of the tables below ``manifests`` against the checksums that were noted when they were written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.collection.lineage import CROISSANT_NAME, files_of_exports, is_own_description
from cxrprep.digests import file_digest
from cxrprep.storage.paths import OWN_FOLDERS
from cxrprep.storage.small_files import open_file
from cxrprep.storage.table_checksums import LIST_NAME, listed_checksums
from cxrprep.storage.working_copy_paths import EXPORT_LIST
from cxrprep.verification.finding import Finding, Kind, make_finding

if TYPE_CHECKING:
    from collections.abc import Iterator

# Tables of the last run carry times, and prove nothing.
_OF_RUNS: Final = frozenset({"verify.parquet", "failures.parquet"})

# The commands that make tables which the usual one does not make.
_MADE_BY: Final = {"pairs.parquet": "pairs", "near_duplicates.parquet": "duplicates"}
# What nothing else in the folder holds: labels of reports, and of other labelers.
_OF_REPORTS: Final = frozenset({"report_labels.parquet", "mentions.parquet"})


def altered_tables(root: Path, home: Path, words: str, again: str) -> Iterator[Finding]:
    """Tables whose bytes are not those that were written, in the manifests of the folder and of its ``home``.

    Args:
        root: The folder.
        home: Where its record and manifests are.
        words: The folder as commands name it.
        again: The command that makes its images, labels and studies again.

    Yields:
        A finding for each.

    Raises:
        StorageError: A table cannot be read.
    """
    for folder in manifests_of(root, home):
        for name in sorted(listed_checksums(folder)):
            path = Path(os.path.normpath(folder / name))
            found = file_digest(path) if path.is_file() else ""
            # Asked after the file was read: who writes it meanwhile lists its checksum before it is in place.
            stated = listed_checksums(folder).get(name) if found else None
            if stated and found.partition(":")[2] not in stated and not _is_log(path):
                yield make_finding(
                    Kind.ALTERED,
                    path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path),
                    "its bytes changed after cxrprep wrote it",
                    expected=f"sha256:{stated[-1]}",
                    found=found,
                    hint=_hint(name, words, again),
                )


def written_beside(root: Path, home: Path) -> dict[str, Path | None]:
    """What cxrprep wrote among the files of a folder, as its lists say: path in it, and of an export's file its folder.

    Args:
        root: The folder.
        home: Where its record and manifests are.

    Returns:
        Nothing of its own folders, nor above it.
    """
    found: dict[str, Path | None] = {}
    for folder in manifests_of(root, home):
        # The list of a folder of state leads there by another way than ROOT is named.
        for path in (root / os.path.relpath(folder / name, root) for name in listed_checksums(folder)):
            exported = path.parent if path.name == EXPORT_LIST else None
            files = {path} if exported is None else files_of_exports(exported)
            found |= {one.relative_to(root).as_posix(): exported for one in files}
    return {name: place for name, place in found.items() if name.partition("/")[0] not in OWN_FOLDERS | {".."}}


def manifests_of(root: Path, home: Path) -> list[Path]:
    """The folders of tables: of the whole, and of the parts of a job array that were not joined."""
    wholes = [place / "manifests" for place in dict.fromkeys((home, root))]
    return [folder for whole in wholes for folder in (whole, *sorted(whole.glob("shards/*-of-*")))]


def _is_log(path: Path) -> bool:
    """Whether a file is the log of a run (``--log-file``), which is written on after its checksum was noted."""
    with open_file(path) as file:
        return file.read(10) == b"# cxrprep "


def _hint(name: str, words: str, again: str) -> str:
    if name in _OF_REPORTS:
        return f"restore it from a copy, or label the reports again: cxrprep extract-labels {words} --reports PATH"
    if name.startswith("../") and name != f"../{CROISSANT_NAME}":
        return "write it again, or remove it"
    return f"make it again: {f'cxrprep {_MADE_BY[name]} {words}' if name in _MADE_BY else again}"


def unlisted_tables(manifests: Path) -> list[str]:
    """The names of tables and descriptions of ours of which no checksum was noted."""
    listed = listed_checksums(manifests)
    here = [path.name for path in sorted(manifests.glob("*.parquet"))]
    here += [name for name in (CROISSANT_NAME, f"../{CROISSANT_NAME}") if is_own_description(manifests / name)]
    return [name for name in here if name not in listed and name not in _OF_RUNS and not name.startswith("verify.")]


def not_noted(root: Path, home: Path) -> list[str]:
    """What a report says of tables without a checksum: a sentence a folder."""
    found = [(folder, unlisted_tables(folder)) for folder in manifests_of(root, home)]
    return [
        f"the bytes of {', '.join(names)}: {folder / LIST_NAME} does not name them" for folder, names in found if names
    ]
