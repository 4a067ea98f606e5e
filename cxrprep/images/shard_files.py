"""Shard files, WebDataset tar and Parquet: written sample by sample, read back image by image.

A sample is its key, the bytes of its image, and a row: what the manifest says of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import re
import tarfile
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from cxrprep.collection import Lineage, ShardFile
from cxrprep.digests import CHUNK
from cxrprep.errors import CxrprepError, ImageError
from cxrprep.schemas import DERIVED_FIELDS
from cxrprep.storage.parquet import FOOTER_KEY
from cxrprep.storage.small_files import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cxrprep.storage.filesystem import ImageStore

    Sample = tuple[str, bytes, dict[str, Any]]

# Image files are compressed already: groups are small, so that a reader holds few of them.
ROWS_A_GROUP: Final = 100
# The struct and the metadata by which the package datasets knows an image column, and stores an image.
IMAGE: Final = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
IMAGE_METADATA: Final = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}}).encode()
_BOXES: Final = pa.list_(
    pa.struct([("label", pa.string()), *((side, pa.float32()) for side in ("x", "y", "w", "h"))])
)  # fmt: skip
_KINDS: Final = {"age_years": pa.float32(), "fold": pa.int8()}
_LABEL_KEYS: Final = frozenset({"label_source"})
# What the manifest of converted images says, too; words are plain text here.
_MADE: Final = {
    "width": pa.int32(), "height": pa.int32(), "spacing_x_mm": pa.float32(), "spacing_y_mm": pa.float32(),
    "boxes": _BOXES,
    **{f.name: pa.string() if pa.types.is_dictionary(f.type) else f.type for f in DERIVED_FIELDS if f.name != "pixels"},
}  # fmt: skip


def write_tar(part: Path, samples: Iterable[Sample], suffix: str) -> None:
    """Write a WebDataset shard: two members a sample, the image and a JSON object."""
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
        for key, encoded, row in samples:
            add_member(archive, key + suffix, encoded)
            about = json.dumps(plain_row(row), ensure_ascii=False, sort_keys=True)
            add_member(archive, f"{key}.json", about.encode())


def plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """``row`` without nulls, which readers that infer types cannot place: numbers, and masks that say which count.

    A label that is null becomes 0 with a mask of 0. Other numbers become -1 where they are not known, text becomes
    empty; where nobody looked for boxes the list is empty and ``boxed`` 0.
    """
    made: dict[str, Any] = {}
    for name, value in row.items():
        if name in _LABEL_KEYS or not name.startswith("label_"):
            made[name] = _unknown(name) if value is None else value
        else:
            made[name] = 0 if value is None else value
            made[f"mask_{name.removeprefix('label_')}"] = int(value is not None)
    if "boxes" in row:
        made["boxed"] = int(row["boxes"] is not None)
    return made


def _unknown(name: str) -> Any:
    if name in ("boxes", "notes"):
        return []
    return -1 if (name in _MADE and _MADE[name] != pa.string()) or name in _KINDS else ""


def row_schema(stated: Iterable[str]) -> pa.Schema:
    """The types of a row whose columns ``stated`` the manifest gives; the conversion's own columns follow."""
    kinds = {name: pa.int8() if name.startswith("label_") else _KINDS.get(name, pa.string()) for name in stated}
    return pa.schema([*kinds.items(), *((name, kind) for name, kind in _MADE.items() if name not in kinds)])


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The types of what ``plain_row`` makes of a row of ``schema``."""
    labels = [name for name in schema.names if name.startswith("label_") and name not in _LABEL_KEYS]
    masks = [(f"mask_{name.removeprefix('label_')}", pa.int8()) for name in labels]
    return pa.schema([*schema, *masks, *([("boxed", pa.int8())] if "boxes" in schema.names else [])])


def add_member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a tar. Owner, time and mode are the same everywhere: the same images give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))


def write_parquet(part: Path, samples: Iterable[Sample], suffix: str, stated: Sequence[str]) -> None:
    """Write a Parquet shard.

    Args:
        part: The file to write.
        samples: The images, each with its bytes and its row.
        suffix: Of the images' names.
        stated: The columns of a row that the manifest gives, the same in every shard.
    """
    columns = row_schema(stated)
    schema = pa.schema([pa.field("image", IMAGE), *columns], metadata={b"huggingface": IMAGE_METADATA})
    iterator = iter(samples)
    with pq.ParquetWriter(part, schema, compression="none", use_dictionary=False) as writer:
        while group := list(itertools.islice(iterator, ROWS_A_GROUP)):
            images = pa.array([{"bytes": data, "path": key + suffix} for key, data, _ in group], IMAGE)
            rows = pa.Table.from_pylist([row for _, _, row in group], schema=columns).combine_chunks()
            arrays = [images, *(column.combine_chunks() for column in rows.columns)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


class ShardReader:
    """The images that a shard of an earlier run holds, by name; empty where there is none, or a damaged one."""

    def __init__(self, place: ImageStore, name: str, form: str) -> None:
        self._file: Any = None
        self._archive: tarfile.TarFile | None = None
        self._parquet: pq.ParquetFile | None = None
        self._where: dict[str, Any] = {}
        self._group: tuple[int, dict[str, bytes]] = (-1, {})
        try:
            self._file = place.open(name)
            if form == "webdataset":
                self._archive = tarfile.TarFile(fileobj=self._file)
                self._where = {member.name: member for member in self._archive.getmembers()}
            else:
                self._parquet = pq.ParquetFile(self._file)
                for group in range(self._parquet.num_row_groups):
                    names = self._parquet.read_row_group(group, columns=["image.path"]).column("image").to_pylist()
                    self._where |= {str(image["path"]): group for image in names}
        except (ImageError, OSError, tarfile.TarError, pa.ArrowException, KeyError, TypeError):
            self._where = {}

    def get(self, name: str) -> bytes | None:
        """The bytes of an image; ``None`` when it is not there."""
        found = self._where.get(name)
        if found is None:
            return None
        if self._archive is not None:
            member = self._archive.extractfile(found)
            return None if member is None else member.read()
        assert self._parquet is not None
        if self._group[0] != found:
            images = self._parquet.read_row_group(found, columns=["image"]).column("image").to_pylist()
            self._group = (found, {image["path"]: image["bytes"] for image in images})
        return self._group[1].get(name)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


def digest_in(place: ImageStore, name: str) -> ShardFile | None:
    """A file with its size in bytes and its digest; ``None`` where it is gone."""
    try:
        with place.open(name) as file:
            hasher, size = hashlib.sha256(), 0
            while chunk := file.read(CHUNK):
                hasher.update(chunk)
                size += len(chunk)
            return ShardFile(name, size, f"sha256:{hasher.hexdigest()}")
    except ImageError:
        return None


def stated_shards(place: ImageStore) -> dict[str, ShardFile]:
    """The shards in a folder as its image tables state them, those of a job array's parts too."""
    found: dict[str, ShardFile] = {}
    for entry in place.list():
        if _IMAGE_TABLE.fullmatch(entry.name):
            with contextlib.suppress(CxrprepError, OSError, ValueError, TypeError, pa.ArrowException):
                with place.open(entry.name) as file:
                    footer = (pq.read_schema(file).metadata or {}).get(FOOTER_KEY, b"{}")
                lineage = Lineage.of_footer(parse_json(footer))
                found |= {shard.name: shard for shard in lineage.shards} if lineage is not None else {}
    return found


_IMAGE_TABLE: Final = re.compile(r"manifests/(shards/\d+-of-\d+/)?images\.parquet")
_SHARD_NAME: Final = re.compile(r"(data/[^/]+-\d{5}-of-\d{5}\.parquet)|([^/]+-\d{6}\.tar)")


def shards_in(place: ImageStore, form: str) -> list[str]:
    """The shards that lie in a folder and that this program wrote, whatever they hold."""
    suffix = ".tar" if form == "webdataset" else ".parquet"
    names = [entry.name for entry in place.list() if entry.name.endswith(suffix)]
    return sorted(name for name in names if maker_of_shard(place, name))


def maker_of_shard(place: ImageStore, name: str) -> str:
    """The fingerprint of the recipe that made a shard; empty for any other file."""
    if not _SHARD_NAME.fullmatch(name):
        return ""
    try:
        with place.open(name) as file:
            if name.endswith(".parquet"):
                batch = next(pq.ParquetFile(file).iter_batches(1, columns=["recipe_fingerprint"]), None)
                return str(batch.column(0)[0]) if batch is not None and batch.num_columns else ""
            archive = tarfile.TarFile(fileobj=file)
            archive.next()
            about = archive.next()
            held = archive.extractfile(about) if about is not None else None
            return "" if held is None else str(parse_json(held.read()).get("recipe_fingerprint") or "")
    except (CxrprepError, OSError, ValueError, TypeError, AttributeError, tarfile.TarError, pa.ArrowException):
        return ""
