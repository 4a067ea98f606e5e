"""What was made from files of a folder that have other bytes now: label tables and converted images."""

from __future__ import annotations

import shlex
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.collection import folder_words
from cxrprep.digests import file_digest
from cxrprep.errors import TableError
from cxrprep.model import Digest
from cxrprep.storage.parquet import read_footer, read_rows
from cxrprep.verification.finding import Finding, Kind, make_finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.record.record import Record

_LABELS: Final = "labels.parquet"


def outdated_tables(
    root: Path, home: Path, wrong: Collection[str], spec: DatasetSpec, now: Collection[tuple[str, str]] = ()
) -> Iterator[Finding]:
    """Tables of labels that were made from a published table whose bytes are others now.

    Args:
        root: The folder of the published tables.
        home: Where its manifests are.
        wrong: Files that are known to be damaged: what was made before that may well be right.
        spec: The dataset.
        now: Name and digest of each published table as it was read now; of those of many files, which have the name of
            the first and the digest of all, nothing else tells them.

    Yields:
        A finding for each.
    """
    path = home / "manifests" / _LABELS
    try:
        footer = read_footer(path) if path.is_file() else {}
    except TableError:
        return
    many = [table for table in spec.table if table.settings.get("files") == "many"]
    sets = [pattern.rpartition("/")[2] for table in many for pattern in table.patterns]
    stated = [(str(one["name"]), str(one["digest"])) for one in footer.get("tables") or []]
    of_sets, single = ([one for one in stated if _is_one_of(one[0], sets) is many] for many in (True, False))
    changed = [*_changed_files(root, single, wrong)]
    if not wrong and not _elsewhere(footer):
        changed += _changed_set(of_sets, [digest for name, digest in now if _is_one_of(name, sets)])
    for what, digest, found in changed:
        yield make_finding(
            Kind.OUTDATED,
            f"manifests/{_LABELS}",
            f"it was made from {what} other bytes",
            expected=found,
            found=digest,
            hint=f"cxrprep extract-labels {shlex.join(folder_words(root, home, spec.name))}",
        )


def _changed_files(
    root: Path, stated: Iterable[tuple[str, str]], wrong: Collection[str]
) -> Iterator[tuple[str, str, str]]:
    """Of each published table that has other bytes now: what it is, its digest then, and now."""
    damaged = {one.rpartition("/")[2] for one in wrong}
    for name, digest in stated:
        place = _place(root, name)
        if place is None or place.name in damaged:
            continue
        try:
            known = str(Digest.parse(digest))
        except ValueError:
            continue
        found = file_digest(place, known.partition(":")[0])
        if found != known:
            yield f"{place.name} when that had", known, found


def _changed_set(stated: Sequence[tuple[str, str]], now: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """The same of tables of many files, by the digests that they have now; one of them is said."""
    other = sorted(set(now) - {digest for _, digest in stated})
    gone = [one for one in stated if one[1] not in now]
    if gone and other:
        yield f"{gone[0][0]} and files like it that had", gone[0][1], other[0]


def _elsewhere(footer: dict[str, Any]) -> bool:
    """Whether the tables were read in another folder."""
    options = footer.get("options")
    return isinstance(options, dict) and bool(options.get("tables"))


def _is_one_of(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _place(root: Path, name: str) -> Path | None:
    """The table that a footer names, where it lies in ``root``; ``None`` where it came from another folder."""
    if "/" in name:
        return None
    found = [path for path in (root / name, *root.glob(f"*/{name}")) if path.is_file()]
    # Of two tables of one name nobody knows which one it was.
    return found[0] if len(found) == 1 else None


def outdated_below(home: Path, record: Record) -> Iterator[Finding]:
    """Converted images below ``home/derived`` whose originals have other bytes in ``record`` than they were made of."""
    tables = sorted((home / "derived").glob("*/manifests/images.parquet"))
    originals = record.table(["path", "digest"]) if tables else None
    for table in tables:
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
    names = [pc.list_element(pc.split_pattern(one, ":", max_splits=1), 0) for one in (now, images["source_digest"])]
    both = pc.and_(pc.equal(*names), pc.not_equal(now, images["source_digest"]))
    rows = images.append_column("now", now).filter(pc.fill_null(both, fill_value=False))
    for row in rows.select(["path", "source_path", "source_digest", "now"]).to_pylist():
        detail = f"it was made from {row['source_path']} when that had other bytes"
        yield make_finding(
            Kind.OUTDATED, prefix + row["path"], detail, expected=row["now"], found=row["source_digest"], hint=hint
        )
