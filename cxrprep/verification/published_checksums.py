"""Published checksums: sum files in the folder, and entries of the catalog."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.checksum_files import NAMES, as_text
from cxrprep.digests import file_digest
from cxrprep.errors import IntegrityError
from cxrprep.model import Digest
from cxrprep.storage.paths import safe_path
from cxrprep.storage.sorted_tables import PATHS, Rows, SortedCursor, by_path, parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.datasets.layout import Layout
    from cxrprep.record.record import Record

SUMS: Final = pa.schema([("path", pa.string()), ("digest", pa.string())])
_LINE: Final = re.compile(r"\\?([0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}) [ *]?(.+?)\r?\n?$")
_ALGORITHMS: Final = {32: "md5", 40: "sha1", 64: "sha256"}
_ROWS: Final = 32_768


def read_sums(path: Path, layout: Layout, release: str, known: Rows | None = None) -> Iterator[pa.Table]:
    """The sums in a file by release path, as columns ``path`` and ``digest``, some thousands at a time.

    One or two spaces or `` *`` between sum and name are understood.

    Args:
        path: The file.
        layout: Finds the release paths of names.
        release: The release.
        known: Release paths: names among them are taken as they are, in a list that is sorted but for one place.

    Yields:
        Tables.

    Raises:
        IntegrityError: A line of another form, with file and line.
        UnsafePathError: A name that leaves the root.
    """
    # Images may follow tables: what was gone past is come back to once. Of a list in disorder each name is placed.
    walks = [] if known is None else [SortedCursor(known.tables(["path"]), PATHS) for _ in range(2)]
    last = ""
    for sums in _lines_of(path):
        if sums.num_rows:
            ordered = by_path(sums)
            walks = walks if ordered["path"][0].as_py() >= last else walks[1:]
            last = ordered["path"][-1].as_py()
            yield _placed(
                ordered, layout, release, walks[0].among(ordered["path"])["path"] if walks else ordered["path"][:0]
            )


def _lines_of(path: Path) -> Iterator[pa.Table]:
    with as_text(path.open("rb"), "surrogateescape") as file:
        number = 1
        while lines := list(islice(file, _ROWS)):
            plain, others = _plain(lines)
            names, digests = [], []
            for index in others:
                found = _LINE.match(lines[index])
                if found is not None:
                    value, name = found.group(1).lower(), found.group(2).removeprefix("./")
                    names.append(safe_path(name))
                    digests.append(f"{_ALGORITHMS[len(value)]}:{value}")
                elif lines[index].strip():
                    raise IntegrityError(
                        f"{path}, line {number + index}: expected a checksum and a file name",
                        hint="fetch the list of checksums again",
                    )
            yield pa.concat_tables([plain, pa.table({"path": names, "digest": digests}, schema=SUMS)])
            number += len(lines)


def _plain(lines: list[str]) -> tuple[pa.Table, Iterable[int]]:
    """The lines of the form that nearly all have, as columns, and the indices of the rest."""
    length = lines[0].find(" ")
    if length not in _ALGORITHMS:
        return SUMS.empty_table(), range(len(lines))
    try:
        texts = pa.array(lines, pa.string())
    except UnicodeEncodeError:
        # A name that is not UTF-8.
        return SUMS.empty_table(), range(len(lines))
    fits = pc.match_substring_regex(texts, rf"^[0-9a-f]{{{length}}} [ *]?[^ *./\\][^\r\n]*\n?$")
    sums = pc.utf8_slice_codeunits(texts.filter(fits), 0, length)
    names = pc.utf8_rtrim(pc.utf8_ltrim(pc.utf8_slice_codeunits(texts.filter(fits), length, None), " *"), "\n")
    digests = pc.binary_join_element_wise(_ALGORITHMS[length], sums, ":")
    return pa.table([names, digests], schema=SUMS), pc.indices_nonzero(pc.invert(fits)).to_pylist()


def _placed(sums: pa.Table, layout: Layout, release: str, known: pa.ChunkedArray) -> pa.Table:
    """``sums`` by release path. Raises ``UnsafePathError``."""
    settled = pc.is_in(sums["path"], value_set=known)
    foreign, placed = sums.filter(pc.invert(settled)), [sums.filter(settled)]
    # measured: a million names as objects of Python at once took 350 MiB of a check's 1,500.
    for part in parts(foreign):
        paths = [layout.place(safe_path(name), release=release) or name for name in part["path"].to_pylist()]
        placed.append(pa.table([pa.array(paths, pa.string()), part["digest"]], schema=SUMS))
    return pa.concat_tables(placed)


def sum_files(root: Path, spec: DatasetSpec) -> list[Path]:
    """The lists of sums that lie in ``root``."""
    names = {mirror.sums.rsplit("/", 1)[-1] for mirror in spec.mirror if mirror.sums}
    return [path for name in sorted(names.union(NAMES)) if (path := root / name).is_file()]


def altered_sum_files(root: Path, spec: DatasetSpec, release: str, record: Record) -> dict[str, str]:
    """The lists of sums that are not what was recorded or published of them.

    Such a list proves nothing: whoever altered a file may have altered the list to match.

    Args:
        root: The folder.
        spec: The dataset.
        release: The release.
        record: The files that are recorded.

    Returns:
        Their names, with the digest of each now.
    """
    described = {file.path: str(file.digest) for file in spec.files_of(release) if file.digest}
    altered = {}
    for path in sum_files(root, spec):
        held = record.get(path.name)
        stated = described.get(path.name) or (str(held.digest) if held is not None and held.digest else "")
        if stated:
            found = file_digest(path, stated.partition(":")[0])
            if found != stated:
                altered[path.name] = found
    return altered


def is_table(spec: DatasetSpec, path: str) -> bool:
    """Whether the file is one of the release's tables."""
    return any(_matches(path, table.patterns) for table in spec.table)


def table_paths(spec: DatasetSpec, root: Path) -> frozenset[str]:
    """The release's tables that lie in ``root`` or one folder below, as paths below it."""
    patterns = [pattern for table in spec.table for pattern in table.patterns]
    found = (path for pattern in patterns for depth in ("", "*/") for path in root.glob(depth + pattern))
    return frozenset(path.relative_to(root).as_posix() for path in found)


def known_copies(spec: DatasetSpec, path: str) -> frozenset[Digest]:
    """The digests that copies of a release's table are known to have; empty where none is known."""
    return frozenset(
        Digest("sha256", value) for table in spec.table if _matches(path, table.patterns) for value in table.sha256
    )


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    name = path.rsplit("/", 1)[-1]
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)
