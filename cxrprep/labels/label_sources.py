"""Label sources beside the release's own tables: reports that were labelled here, and imported label tables.

Each is a Parquet file with a row per report (``output_tables.labels_schema``) in the manifests folder, and its footer
says who labelled, in which version and by which rules. ``labels.parquet`` holds their rows beside those of the release,
so that policies, manifests, exports and comparisons see label sources and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import shlex
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import CxrprepError, TableError, UsageError, storage_errors
from cxrprep.humanize import format_count
from cxrprep.labels.label_rows import TableUse
from cxrprep.labels.source_vocabulary import own_column
from cxrprep.model import Digest, ImageId
from cxrprep.schemas import LABELS, RAW_PREFIX, TEXT, as_rows_of, describe, is_own_observation, null_columns
from cxrprep.storage.atomic import temporary_for
from cxrprep.storage.locks import check_writing
from cxrprep.storage.parquet import check_as_written, read_combined, read_footer, read_rows, read_schema, words_in_order
from cxrprep.storage.sorted_tables import parts
from cxrprep.storage.table_checksums import forget_checksum, replace_listed
from cxrprep.storage.value_codes import take_rows, value_codes
from cxrprep.vocabulary import OBSERVATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    # A name of a table's row -> the ids that it states: an image's path, or what a study is called elsewhere.
    Parse = Callable[[str], ImageId | None]

OURS: Final = "cxrprep"
"""The label source of reports that the shipped rules labelled."""
FOLDER: Final = "label_sources"
REPORTS_NAME: Final = "report_labels.parquet"
ADDED_ROLES: Final = ("report-labels", "imported-labels")
"""Roles of the tables, in the footer of ``labels.parquet``, that are no part of the release."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_IDS: Final = ("report_id", "patient_id", "study_id", "image_id")
_NO_FINDING: Final = "label_no_finding"
# 1 > -1 > 0 > null, as a study has it whose images differ.
_RANK: Final[Mapping[int | None, int]] = {1: 3, -1: 2, 0: 1, None: 0}


@dataclass(frozen=True, slots=True)
class AddedSource:
    """One added label source: its name, its table, and what the table's footer says of the labeler."""

    name: str
    path: Path
    role: str
    labeler: tuple[tuple[str, str], ...]


@contextlib.contextmanager
def put_back_if_refused(*tables: Path) -> Iterator[None]:
    """Leave tables of added label sources as they were where the labels that they would give are refused.

    Tables that cannot be read, or that may not be written, are a refusal too. A table that was not there is removed.
    """
    copies = {table: temporary_for(table) for table in tables if table.is_file()}
    try:
        for table, copy in copies.items():
            with storage_errors(copy, "write"):
                shutil.copyfile(table, copy)
        try:
            yield
        except CxrprepError:
            # Another run's, as this one was suspended, stay.
            check_writing(tables[0])
            for table in tables:
                if table in copies:
                    _put_back(copies[table], table)
                else:
                    # What keeps it there, such as a folder of that name, is the error that is on its way.
                    with contextlib.suppress(OSError):
                        table.unlink()
                    forget_checksum(table.parent, table.name)
            raise
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)


def _put_back(copy: Path, table: Path) -> None:
    try:
        replace_listed(table, functools.partial(shutil.copyfile, copy))
    except CxrprepError:
        # A full disk has no room for it, nor for its checksum; to rename it takes none.
        copy.replace(table)


def check_name(name: str) -> str:
    """``name`` when it can name a label source. Raises ``UsageError``."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a label source",
            hint="use letters, digits, dots, hyphens and underscores: --import chexbert=FILE",
        )
    return name


def source_folder(manifests: Path, name: str) -> Path:
    """Where reports labelled as the label source ``name`` go: our own beside the manifests, others apart."""
    return manifests if name == OURS else manifests / FOLDER / check_name(name)


def added_sources(manifests: Path) -> list[AddedSource]:
    """The added label sources of a folder, by name. Raises ``TableError`` for a table that cannot be read."""
    own = manifests / REPORTS_NAME
    folder = manifests / FOLDER
    paths = [
        *([own] if own.is_file() else []),
        *sorted(folder.glob("*.parquet")),
        *sorted(folder.glob(f"*/{REPORTS_NAME}")),
    ]
    found: dict[str, AddedSource] = {}
    for path in paths:
        source = _source(path, read_footer(path))
        other = found.setdefault(source.name, source)
        if other is not source:
            raise UsageError(
                f"{other.path} and {path} are both of the label source {source.name}", hint="remove one of them"
            )
    return [found[name] for name in sorted(found)]


def _source(path: Path, footer: dict[str, Any]) -> AddedSource:
    imported = footer.get("imported")
    # A table of an earlier version has no name of its own in it.
    otherwise = OURS if imported is None else str(imported).split(".", 1)[0]
    about = footer.get("labeler") or {"name": otherwise, "version": str(footer.get("tool", ""))}
    about = {**about, **{key: footer[key] for key in ("rules", "imported", "sha256") if footer.get(key)}}
    role = ADDED_ROLES[0] if imported is None else ADDED_ROLES[1]
    name = str(footer.get("label_source") or otherwise)
    return AddedSource(name, path, role, tuple(sorted((key, str(value)) for key, value in about.items())))


def with_added_sources(
    table: pa.Table, manifests: Path, *, dataset: str, release: str, parse: Parse | None
) -> tuple[pa.Table, list[TableUse], list[str]]:
    """The labels of a release with the rows of all added sources of a folder.

    Args:
        table: what the release's tables say, as ``labels.parquet`` has it; it may be empty.
        manifests: the folder that holds the tables of the added sources.
        dataset: name of the dataset, for the rows.
        release: release of the dataset, for the rows.
        parse: reads ids out of an image's path, as a layout's does, or of a study's name.

    Returns:
        The table, what became of the added tables, and what a person should know of them.

    Raises:
        UsageError: a source has the name of one of the release's own.
        TableError: a table of a source cannot be read.
    """
    sources = added_sources(manifests)
    if not sources:
        return table, [], []
    known = set(pc.unique(table.column("label_source").cast(pa.string())).to_pylist())
    blocks: list[tuple[str, pa.Table]] = []
    uses, notes = list[TableUse](), list[str]()
    release_ids = _ReleaseIds(table)
    for source in sources:
        if source.name in known:
            file, again = (shlex.quote(text) for text in (str(source.path), f"my-{source.name}={source.path}"))
            raise UsageError(
                f"{source.path} is of the label source {source.name}, and so is a table of the release",
                hint=f"keep it under another name: cxrprep extract-labels ROOT --import {again}; then remove the file: "
                f"rm {file}",
            )
        block, use, joined = _read(source, dataset, release, parse, release_ids)
        blocks.append((source.name, block))
        uses.append(use)
        if joined:
            notes.append(
                f"{source.name}: {format_count(joined, 'study', 'has')} several reports or rows: "
                "joined, where they differ by the first of 1, -1, 0, null"
            )
    return _merged(table, blocks), uses, notes


def release_labels(path: Path, *, cells: bool = True) -> tuple[str, pa.Table, tuple[TableUse, ...]]:
    """The name of the release, the rows of a ``labels.parquet`` that are of it, and the tables that they come from.

    Without ``cells`` the source tables' cells are left out, half of all columns. Raises ``TableError``.
    """
    footer = read_footer(path)
    added = {use.get("label_source") for use in footer.get("tables", []) if use.get("role") in ADDED_ROLES}
    names = [name for name in read_schema(path).names if cells or not name.startswith(RAW_PREFIX)]
    table = read_combined(path, list(dict.fromkeys((*LABELS.names, *names))))
    # Another program may have written a column without a value as one without a type.
    typed = [LABELS.field(f.name) if f.name in LABELS.names and pa.types.is_null(f.type) else f for f in table.schema]
    table = table.cast(pa.schema(typed))
    source = table.column("label_source").cast(pa.string())
    if added:
        table = table.filter(pc.invert(pc.is_in(source, value_set=pa.array(sorted(added), pa.string()))))
    theirs = set(footer.get("added_columns", []))
    table = table.drop_columns([name for name in table.column_names if name in theirs])
    return footer["release"], table.replace_schema_metadata(None), tuple(uses_of(footer))


def uses_of(footer: Mapping[str, Any]) -> list[TableUse]:
    """The release's tables, and what became of them, as the footer of a ``labels.parquet`` says."""
    return [
        TableUse(
            use["name"], "", use["role"], Digest.parse(use["digest"]), use["rows"], use["used"],
            use.get("label_source") or "", tuple(dict(use.get("apart") or {}).items()),
        )
        for use in footer.get("tables", []) if use.get("role") not in ADDED_ROLES
    ]  # fmt: skip


@dataclass(frozen=True)
class _ReleaseIds:
    """Whose each study and image is, as the release's ``table`` says; asked of it once a row does not say it."""

    table: pa.Table

    @functools.cached_property
    def patient(self) -> dict[str, str]:
        """The patient of each study."""
        return dict(zip(*(self.table.column(name).to_pylist() for name in ("study_id", "patient_id")), strict=True))

    @functools.cached_property
    def study(self) -> dict[str, str]:
        """The study of each image."""
        return dict(zip(*(self.table.column(name).to_pylist() for name in ("image_id", "study_id")), strict=True))


def _ids(row: Sequence[str | None], parse: Parse | None, release_ids: _ReleaseIds) -> tuple[str, str, str | None]:
    """Patient, study and image of a row; a study that nothing names is called as its report is."""
    report, patient, study, image = row
    path = image or report or ""
    parsed = parse(path) if parse is not None and ("/" in path or "." in path) else None
    if parsed is None and parse is not None and study is not None and "." in study:
        parsed = parse(study)
    if parsed is not None:
        patient, study, image = parsed.patient, parsed.study, parsed.image
    if study is None and image is not None:
        study = release_ids.study.get(image, image)
    study = study or report or ""
    bare = study.removeprefix("s")
    # MIMIC-CXR's files and many tables write s50414267 where the release writes 50414267.
    study = bare if bare.isdecimal() else study
    return patient or release_ids.patient.get(study, ""), study, image


def _joined(rows: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    """The labels of several rows about one study: 1 > -1 > 0 > null; No Finding only where each row has it."""
    labels = {name: max((row[name] for row in rows), key=lambda value: _RANK.get(value, 0)) for name in columns}
    if labels.get(_NO_FINDING) == 1 and any(_abnormal(row) for row in rows):
        labels[_NO_FINDING] = None
    return labels


def _abnormal(row: Mapping[str, Any]) -> bool:
    labelled = any(value is not None for name, value in row.items() if name.startswith("label_"))
    return labelled and row.get(_NO_FINDING) != 1


def _read(
    source: AddedSource, dataset: str, release: str, parse: Parse | None, release_ids: _ReleaseIds
) -> tuple[pa.Table, TableUse, int]:
    """The rows of ``labels.parquet`` of one source, its table's use, and how many studies had several rows."""
    try:
        names = [n for n in read_schema(source.path).names if n in _IDS or n.startswith(("label_", RAW_PREFIX))]
        table = read_rows(source.path, names, use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{source.path} cannot be read: {error}", hint="label or import it again") from error
    known = [f"label_{stem}" for stem in OBSERVATIONS if f"label_{stem}" in names]
    extra = [n for n in names if n not in (*_IDS, *known)]
    ids = {name: table.column(name) for name in _IDS if name in names}
    stated = null_columns(pa.schema([(name, pa.string()) for name in _IDS]), table.num_rows, ids)
    values = (zip(*(column.to_pylist() for column in part.columns), strict=True) for part in parts(stated))
    grouped: dict[tuple[str, str, str], list[int]] = {}
    for place, row in enumerate(itertools.chain.from_iterable(values)):
        patient, study, image = _ids(row, parse, release_ids)
        grouped.setdefault((patient, study, image or ""), []).append(place)
    keys = sorted(grouped)
    several = [key for key in keys if len(grouped[key]) > 1]
    # Only rows of what has several become Python's. measured: 2.0 -> 1.5 s of CPU, 404 -> 307 MiB for 227,835 reports.
    labels = table.select([*known, *extra])
    doubled = iter(labels.take(pa.array([row for key in several for row in grouped[key]], pa.int64())).to_pylist())
    joined = [_joined(list(itertools.islice(doubled, len(grouped[key]))), labels.column_names) for key in several]
    last = dict(zip(several, itertools.count(labels.num_rows)))
    merged = pa.concat_tables([labels, pa.Table.from_pylist(joined, labels.schema)]).take(
        pa.array([last.get(key, grouped[key][0]) for key in keys], pa.int64())
    )
    digest = Digest.parse(check_as_written(source.path))
    name = source.path.name
    constants = {
        "dataset": dataset, "release": release, "label_source": source.name,
        "table_name": name, "table_digest": str(digest),
    }  # fmt: skip
    columns: dict[str, pa.Array] = {
        "patient_id": pa.array([key[0] for key in keys], pa.string()),
        "study_id": pa.array([key[1] for key in keys], pa.string()),
        "image_id": pa.array([key[2] or None for key in keys], pa.string()),
        **{name: pa.repeat(value, len(keys)).dictionary_encode() for name, value in constants.items()},
        **{name: merged.column(name).combine_chunks() for name in known},
    }
    block = null_columns(LABELS, len(keys), columns)
    for name in extra:
        title = name.removeprefix("label_").removeprefix(RAW_PREFIX)
        column = name if is_own_observation(name) else own_column(dataset, source.name, title)
        if column and column not in block.column_names:
            about = describe(column, pa.int8(), f"{title}, as {source.name} words it")
            block = block.append_column(about, merged.column(name).cast(pa.int8()))
        cells = merged.column(name).cast(pa.string()).combine_chunks()
        about = describe(RAW_PREFIX + title, TEXT, f"{title}, as an added label source has it")
        block = block.append_column(about, cells.dictionary_encode())
    use = TableUse(
        source.path.name, str(source.path), source.role, digest, table.num_rows, table.num_rows, source.name,
        labeler=source.labeler,
    )  # fmt: skip
    return block, use, len(several)


def _merged(table: pa.Table, blocks: list[tuple[str, pa.Table]]) -> pa.Table:
    """The rows of all sources, each source's together and in the order of their names."""
    text = [field for field in table.schema if field.name == "report_text"]
    fields = {field.name: field for field in table.schema if field.name != "report_text"}
    for _, block in blocks:
        fields |= {field.name: field for field in block.schema if field.name not in fields}
    # A field that was read carries its number in that file.
    schema = pa.schema(
        field.with_metadata({key: value for key, value in (field.metadata or {}).items() if b"field_id" not in key})
        for field in (*fields.values(), *text)
    )
    whole = [as_rows_of(schema, part) for _, part in sorted([*_runs(table), *blocks], key=lambda part: part[0])]
    # The bytes on disk then depend on the rows alone.
    return words_in_order(pa.concat_tables(whole)).combine_chunks() if whole else schema.empty_table()


def _runs(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each label source of a labels table, which stand together."""
    codes = value_codes(table.column("label_source").cast(pa.string()))
    for number, name in enumerate([*codes.values.to_pylist(), None]):
        rows = np.flatnonzero(codes.at == (-1 if name is None else number))
        yield name or "", take_rows(table, rows)
