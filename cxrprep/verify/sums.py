"""What the publisher states of the bytes: sum files in the folder, and the catalog's own entries."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from cxrprep.errors import IntegrityError
from cxrprep.lock import check_path
from cxrprep.model import Digest
from cxrprep.verify.sorted import by_path

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.datasets.layout import Layout
    from cxrprep.datasets.spec import DatasetSpec

SCHEMA: Final = pa.schema([("path", pa.string()), ("digest", pa.string())])
_NAMES: Final = ("SHA256SUMS.txt", "SHA256SUMS", "MD5SUMS", "MD5SUMS.txt")
_LINE: Final = re.compile(r"\\?([0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}) [ *]?(.+?)\r?\n?$")
_ALGORITHMS: Final = {32: "md5", 40: "sha1", 64: "sha256"}
_ROWS: Final = 32_768


def read_sums(path: Path, layout: Layout, release: str) -> pa.Table:
    """The sums in the file ``path`` by release path, as columns ``path`` and ``digest``.

    One or two spaces or `` *`` between sum and name are understood. Raises ``IntegrityError`` with file and line for a
    line of another form, ``UnsafePathError`` for a name that leaves the root.
    """
    batches = []
    paths: list[str] = []
    digests: list[str] = []
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            found = _LINE.match(line)
            if found is None:
                if line.strip():
                    raise IntegrityError(
                        f"{path}, line {number}: expected a sum and a file name", hint="fetch the sums again"
                    )
                continue
            value, name = found.group(1).lower(), found.group(2).removeprefix("./")
            check_path(name)
            paths.append(layout.place(name, release=release) or name)
            digests.append(f"{_ALGORITHMS[len(value)]}:{value}")
            if len(paths) == _ROWS:
                batches.append(pa.record_batch([pa.array(paths), pa.array(digests)], schema=SCHEMA))
                paths, digests = [], []
    batches.append(pa.record_batch([pa.array(paths, pa.string()), pa.array(digests, pa.string())], schema=SCHEMA))
    return pa.Table.from_batches(batches, SCHEMA)


def published_sums(root: Path, spec: DatasetSpec, release: str) -> pa.Table:
    """All that is published of the bytes, sorted by path: the digests of the catalog and of sum files in ``root``."""
    layout = spec.layout(release)
    described = [file for file in spec.files_of(release) if file.digest]
    tables = [
        pa.table(
            {"path": [file.path for file in described], "digest": [str(file.digest) for file in described]},
            schema=SCHEMA,
        )
    ]
    names = {mirror.sums.rsplit("/", 1)[-1] for mirror in spec.mirror if mirror.sums}
    here = (root / name for name in sorted(names | set(_NAMES)))
    tables += [read_sums(path, layout, release) for path in here if path.is_file()]
    return by_path(pa.concat_tables(tables))


def is_table(spec: DatasetSpec, path: str) -> bool:
    """Whether the file is one of the release's tables."""
    return any(_matches(path, table.patterns) for table in spec.table)


def tables_here(spec: DatasetSpec, root: Path) -> bool:
    """Whether any table of the release lies in ``root`` or one folder below."""
    patterns = [pattern for table in spec.table for pattern in table.patterns]
    return any(True for pattern in patterns for depth in ("", "*/") for _ in root.glob(depth + pattern))


def known_copies(spec: DatasetSpec, path: str) -> frozenset[Digest]:
    """The digests that copies of a release's table are known to have; empty where none is known."""
    return frozenset(
        Digest("sha256", value) for table in spec.table if _matches(path, table.patterns) for value in table.sha256
    )


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    name = path.rsplit("/", 1)[-1]
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)
