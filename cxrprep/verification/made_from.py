"""What was made from files of a folder that have other bytes now: label tables and converted images."""

from __future__ import annotations

import shlex
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.digests import file_digest
from cxrprep.errors import TableError
from cxrprep.model import Digest
from cxrprep.storage.parquet import read_footer, read_rows
from cxrprep.verification.finding import Finding, Kind, make_finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from cxrprep.datasets.catalog import DatasetSpec

_TABLES: Final = ("labels.parquet",)


def outdated_tables(root: Path, home: Path, wrong: Collection[str], spec: DatasetSpec) -> Iterator[Finding]:
    """Tables of labels that were made from a published table whose bytes are others now.

    Args:
        root: The folder of the published tables.
        home: Where its manifests are.
        wrong: Files that are known to be damaged: what was made before that may well be right.
        spec: The dataset. A table of many files is named by its first one, and its digest is that of all of them:
            nothing is said of it.

    Yields:
        A finding for each.
    """
    many = [table for table in spec.table if table.settings.get("files") == "many"]
    sets = [pattern.rpartition("/")[2] for table in many for pattern in table.patterns]
    for name in _TABLES:
        path = home / "manifests" / name
        try:
            sources = read_footer(path).get("tables") if path.is_file() else None
        except TableError:
            continue
        for source in sources if isinstance(sources, list) else []:
            place = _place(root, source)
            if place is None or place.name in {one.rpartition("/")[2] for one in wrong}:
                continue
            if any(fnmatchcase(place.name, pattern) for pattern in sets):
                continue
            try:
                stated = str(Digest.parse(str(source.get("digest"))))
            except ValueError:
                continue
            found = file_digest(place, stated.partition(":")[0])
            if found != stated:
                yield make_finding(
                    Kind.OUTDATED,
                    f"manifests/{name}",
                    f"it was made from {place.name} when that had other bytes",
                    expected=found,
                    found=stated,
                    hint=shlex.join(["cxrprep", "extract-labels", str(root), *_state(root, home)]),
                )


def _state(root: Path, home: Path) -> list[str]:
    return [] if root == home else ["--state", str(home)]


def _place(root: Path, source: Any) -> Path | None:
    """The table that a footer names, where it lies in ``root``; ``None`` where it came from another folder."""
    name = source.get("name") if isinstance(source, dict) else None
    if not isinstance(name, str) or "/" in name:
        return None
    found = [path for path in (root / name, *root.glob(f"*/{name}")) if path.is_file()]
    # Of two tables of one name nobody knows which one it was.
    return found[0] if len(found) == 1 else None


def outdated_below(home: Path, record: pa.Table) -> Iterator[Finding]:
    """Converted images below ``home/derived`` whose originals have other bytes in ``record`` than they were made of."""
    originals = record.select(["path", "digest"])
    for table in sorted((home / "derived").glob("*/manifests/images.parquet")):
        try:
            images = read_rows(table, columns=["path", "source_path", "source_digest"])
            recipe = str(read_footer(table).get("recipe") or "")
        except (OSError, pa.ArrowException, TableError):
            # The folder's own check says what is wrong with it.
            continue
        place = table.parent.parent
        hint = shlex.join(["cxrprep", "convert", str(home), "--recipe", recipe])
        yield from outdated_images(images, originals, hint, prefix=f"{place.relative_to(home).as_posix()}/")


def outdated_images(images: pa.Table, originals: pa.Table, hint: str, prefix: str = "") -> Iterator[Finding]:
    """The images that were made of another version of their source than the one that is here.

    Args:
        images: Rows of the converted folder.
        originals: The files of the source's folder.
        hint: The command that makes them anew.
        prefix: Before the paths in findings.

    Yields:
        A finding for each.
    """
    at = pc.index_in(images["source_path"], value_set=originals["path"].combine_chunks())
    now = originals["digest"].take(at)
    both = pc.and_(_same_algorithm(now, images["source_digest"]), pc.not_equal(now, images["source_digest"]))
    rows = images.append_column("now", now).filter(pc.fill_null(both, fill_value=False))
    for row in rows.select(["path", "source_path", "source_digest", "now"]).to_pylist():
        detail = f"it was made from {row['source_path']} when that had other bytes"
        yield make_finding(
            Kind.OUTDATED,
            prefix + row["path"],
            detail,
            expected=row["now"],
            found=row["source_digest"],
            hint=hint,
        )


def _same_algorithm(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    names = [pc.list_element(pc.split_pattern(digests, ":", max_splits=1), 0) for digests in (one, other)]
    return pc.equal(*names)
