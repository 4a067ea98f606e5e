"""Location of label tables: at the top of a folder, in a ``--tables`` folder, or some folders down."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.collection.lineage import IMAGES_NAME, image_tables
from cxrprep.datasets.facts import COPY, PART_FILE, DatasetSpec, Table, unpacked_name
from cxrprep.errors import TableError, UsageError, storage_error
from cxrprep.events import Note, Sink
from cxrprep.labels.csv_text import read_content
from cxrprep.storage.paths import is_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


STAGE: Final = "extract-labels"
# Folders of images hold up to 112,120 entries and no table: looking into them would only cost time.
# Beside them a folder that Spark wrote a table into is a table.
_TABLE_FOLDER: Final = re.compile(r"\.(csv|tsv|parquet|pq|json)(\.\w+)?$", re.IGNORECASE)
_PICTURES: Final = (".png", ".jpg", ".jpeg", ".dcm")
_IMAGES: Final = re.compile(
    r"^(.* batch \d+ \(train \d+\)|\..*|images.*|train|valid|val|test|files|p\d+|patient\d+"
    r"|png|dicom|derived|manifests|export)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables that a folder has, in the catalog's order, and the release that they belong to."""

    release: str
    files: tuple[tuple[Table, Path], ...]
    sets: tuple[tuple[Table, tuple[Path, ...]], ...] = ()
    """Tables that are many files: an XML document per report, or names that say all."""
    bases: tuple[Path, ...] = ()
    """The folders that were looked into."""
    stated: bool = False
    """Whether the caller named the release."""

    def of_role(self, *roles: str) -> list[tuple[Table, Path]]:
        """The tables of these roles."""
        return [(table, path) for table, path in self.files if table.role in roles]

    def named(self, name: str) -> Path | None:
        """Where the table of that name in the catalog is, or ``None``."""
        return next((path for table, path in self.files if table.name == name), None)

    def all_of(self, name: str) -> tuple[Path, ...]:
        """The files of the table of that name: one, many, or none."""
        one = self.named(name)
        return (one,) if one is not None else next((paths for table, paths in self.sets if table.name == name), ())


def _listed(base: Path, depth: int) -> Iterator[tuple[Path, list[str]]]:
    """``base``, then the folders in it, then theirs, each with its files; images and their folders are left out."""
    level = [base]
    for _ in range(depth):
        inner = []
        for folder in level:
            files, folders = list[str](), list[str]()
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.lower().endswith(_PICTURES):
                        continue
                    (folders if is_folder(entry) and not _is_of_parts(entry) else files).append(entry.name)
            yield folder, sorted(files)
            inner += [folder / name for name in sorted(folders) if not _IMAGES.match(name)]
        level = inner


def _listed_in(bases: Sequence[Path], depth: int) -> list[tuple[Path, list[str]]]:
    """The folders to ``depth`` in all of ``bases``, each once. Raises ``UsageError`` for one that is not there."""
    listed: dict[Path, list[str]] = {}
    for base in bases:
        if not base.is_dir():
            raise UsageError(
                f"{base} is not a folder", hint="name the folder that holds the dataset, or download it first"
            )
        try:
            for folder, files in _listed(base, depth):
                listed.setdefault(folder, files)
        except OSError as error:
            raise storage_error(error.filename, "list", error) from error
    return [*listed.items()]


def _is_of_parts(entry: os.DirEntry[str]) -> bool:
    """Whether a folder is a table that Spark or Dask wrote as part files."""
    return bool(_TABLE_FOLDER.search(entry.name)) and any(
        PART_FILE.match(one.name) or "=" in one.name for one in Path(entry.path).iterdir()
    )


def _files(table: Table, listed: list[tuple[Path, list[str]]], bases: Sequence[Path]) -> list[Path]:
    """Every copy of a table, best name first, nearest first. People rename: the case of letters does not matter."""
    found = []
    for pattern in table.patterns:
        inside, _, name = pattern.lower().rpartition("/")
        # measured: 0.04 s of CPU for the patterns of MIMIC-CXR as regular expressions, of which none has a wildcard.
        is_named = fnmatchcase if set(name) & set("*?[") else str.__eq__
        for folder, files in listed:
            if not inside or fnmatchcase(folder.as_posix().lower(), f"*/{inside}"):
                found += [folder / file for file in files if is_named(unpacked_name(file.lower(), name), name)]
        if inside and not found:
            # A folder of images, or one far down, is looked into where a pattern names it.
            found += [path for base in bases for path in sorted(base.glob(pattern)) if path.is_file()]
    return sorted(dict.fromkeys(found), key=_is_copy)


def _is_named_so(table: Table, path: Path) -> bool:
    return any(fnmatchcase(path.name.lower(), one.lower().rpartition("/")[2]) for one in table.patterns)


def _is_copy(path: Path) -> bool:
    return COPY.search(path.name.lower()) is not None


def _is_whole(path: Path) -> bool:
    """Whether a table can be read to its end: of two copies one may have been cut short."""
    with contextlib.suppress(TableError):
        return bool(read_content(path).data)
    return False


def _set_of(table: Table, bases: tuple[Path, ...]) -> tuple[Path, ...]:
    """Every file of a table of many files: where its patterns lead to from a folder, or else from a folder in it."""
    for base in bases:
        for words in (table.patterns, [f"*/{pattern}" for pattern in table.patterns]):
            if found := {path for word in words for path in base.glob(word)}:
                return tuple(sorted(found))
    return ()


def _check_image_table(root: Path) -> None:
    """Raise ``TableError`` where labels lie without tables and without images: so a conversion leaves them."""
    manifests = root / "manifests"
    if (manifests / "labels.parquet").is_file() and not image_tables(manifests):
        raise TableError(
            f"{manifests / IMAGES_NAME} is missing, and no label table is in {root}",
            hint="if these images were converted, convert again into this folder what it was made from; "
            "else download the tables, or name their folder with --tables DIR",
        )


def find_tables(spec: DatasetSpec, root: Path, release: str | None, *, tables: Path | None, on_event: Sink) -> Tables:
    """The label tables of a dataset, the nearest copy of each.

    Args:
        spec: The dataset.
        root: Its folder.
        release: Which release's tables count; without it the newest that is there decides, and a ``Note`` says so.
        tables: A folder that goes before ``root``.
        on_event: Called with remarks.

    Returns:
        The tables by role.

    Raises:
        UsageError: A folder that is not there.
        TableError: No label table is found.
    """
    if release is not None and release not in spec.releases:
        raise UsageError(f"{spec.name} has no release {release!r}", hint=f"its releases: {', '.join(spec.releases)}")
    bases = tuple(filter(None, (tables, root)))
    of_sets = [table for table in spec.table if table.settings.get("files") == "many"]
    sets = tuple((table, held) for table in of_sets if (held := _set_of(table, bases)))
    found: list[tuple[Table, list[Path]]] = []
    # Farther down is looked only where no table is near: it takes as long as there are folders.
    for depth in (3, 6):
        if depth == 3 or not (sets or any(paths for _, paths in found)):
            listed = _listed_in(bases, depth)
            found = [(table, _files(table, listed, bases)) for table in spec.table if table not in of_sets]
    # labels.json is labels.csv that was saved again, unless it is another table by its own name.
    own = {path for table, paths in found for path in paths if _is_named_so(table, path)}
    found = [(table, [one for one in paths if one not in own or _is_named_so(table, one)]) for table, paths in found]
    present = {table.release for table, paths in found if paths and table.release}
    newest = next((name for name in spec.releases if name in present), None)
    chosen = release if release in {table.release for table in spec.table} else newest
    if chosen and present and chosen not in present:
        have = next(paths[0] for table, paths in found if paths and table.release)
        raise TableError(
            f"{have} belongs to release {min(present)}, not to {release}",
            hint=f"use --release {min(present)}, or download the table of {release}",
        )
    files = []
    for table, paths in found:
        if paths and table.release in ("", chosen):
            files.append((table, taken := next(filter(_is_whole, paths), paths[0]) if paths[1:] else paths[0]))
            others, why = [path for path in paths if path != taken], f"{taken} is another copy of the same table"
            if _is_copy(taken) and not _is_named_so(table, taken):
                on_event(Note(STAGE, "a copy by its name: taken for the table, which is not here", "info", str(taken)))
        else:
            others, why = paths[:1], f"it belongs to release {table.release}; {chosen} is taken"
        for path in others:
            on_event(Note(STAGE, f"not used: {why}", "info", str(path)))
    if not files and not sets:
        if tables is None:
            _check_image_table(root)
        wanted = ", ".join(table.patterns[0] for table in spec.table if table.role == "labels")
        raise TableError(
            f"{tables or root} holds no label table of {spec.name}",
            hint=f"download the tables, or name their folder with --tables DIR; looked for: {wanted}",
        )
    return Tables(chosen or release or spec.default_release, tuple(files), sets, bases, release is not None)
