"""Croissant: the manifest described as JSON-LD, for search engines and for the loaders of ``mlcroissant``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.collection.lineage import CROISSANT_NAME, is_own_description
from cxrprep.datasets.catalog import catalog
from cxrprep.images.shard_files import IMAGE
from cxrprep.labels.csv_text import digest_of
from cxrprep.storage.parquet import SET_DIGEST, read_footer, read_rows, read_schema
from cxrprep.storage.paths import is_in_shard
from cxrprep.storage.small_files import read_text
from cxrprep.storage.table_checksums import forget_checksum, replace_listed

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.manifest.load import Dataset

_OF_CROISSANT: Final = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
# Stands in each description that is written here.
_CONTEXT: Final[dict[str, Any]] = dict(
    sorted(
        {
            **{name: f"cr:{name}" for name in _OF_CROISSANT},
            "@language": "en",
            "@vocab": "https://schema.org/",
            "conformsTo": "dct:conformsTo",
            "cr": "http://mlcommons.org/croissant/",
            "data": {"@id": "cr:data", "@type": "@json"},
            "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
            "dct": "http://purl.org/dc/terms/",
            "examples": {"@id": "cr:examples", "@type": "@json"},
            "rai": "http://mlcommons.org/croissant/RAI/",
            "sc": "https://schema.org/",
        }.items()
    )
)
_KINDS: Final = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "jxl": "image/jxl"}
_IMAGES: Final = "image-files"
_SHARDS: Final = "shards"


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:DateTime" if pa.types.is_timestamp(kind) else "sc:Text"


def _node(kind: str, identity: str, **about: Any) -> dict[str, Any]:
    """A part of a description, named by the end of its identity."""
    return {"@type": f"cr:{kind}", "@id": identity, "name": identity.rpartition("/")[2], **about}


def _field(record_set: str, place: dict[str, Any], field: pa.Field) -> dict[str, Any]:
    identity, said = f"{record_set}/{field.name}", (field.metadata or {}).get(b"description", b"").decode()
    made = _node("Field", identity, description=said)
    source = {**place, "extract": {"column": field.name}}
    kind = field.type
    if kind == IMAGE:
        return {**made, "dataType": "sc:ImageObject", "source": {**source, "transform": {"jsonPath": "bytes"}}}
    if pa.types.is_list(kind):
        made["repeated"] = True
        kind = kind.value_type
    if field.name.startswith("label_") and pa.types.is_int8(kind):
        return {**made, "dataType": [_data_type(kind), "cr:Label"], "source": source}
    if not pa.types.is_struct(kind):
        return {**made, "dataType": _data_type(kind), "source": source}
    # Readers take the members of a box out of the column by a path each.
    made["subField"] = [
        _node(
            "Field",
            f"{identity}/{member.name}",
            dataType=_data_type(member.type),
            source={**source, "transform": {"jsonPath": member.name}},
        )
        for member in kind
    ]
    return made


def _version(release: str) -> str:
    """The release as the three numbers that a version must be there: ``v1.0-small`` is ``1.0.0+small``."""
    numbers, _, variant = release.partition("-")
    found = [*re.findall(r"\d+", numbers), "0", "0", "0"][:3]
    return ".".join(found) + (f"+{variant}" if variant else "")


_SPLIT_KINDS: Final = {
    "train": "cr:TrainingSplit",
    "train_val": "cr:TrainingSplit",
    "validate": "cr:ValidationSplit",
    "test": "cr:TestSplit",
}


def _splits(column: pa.ChunkedArray) -> dict[str, Any]:
    """The splits of the images, as records of their own; ``split`` names one of them."""
    names = sorted(name for name in pc.unique(column.cast(pa.string())).to_pylist() if name is not None)
    fields = {"name": "name of the split", "kind": "what it is for"}
    return _node(
        "RecordSet",
        "splits",
        dataType="cr:Split",
        description="the splits that images have",
        key={"@id": "splits/name"},
        field=[_node("Field", f"splits/{n}", description=text, dataType="sc:Text") for n, text in fields.items()],
        data=[{"splits/name": name, "splits/kind": _SPLIT_KINDS.get(name, name)} for name in names],
    )


def _responsible_use(footer: dict[str, Any]) -> dict[str, Any]:
    """Who labelled, what was done with uncertain and blank labels, and how the images were made (Croissant RAI 1.0)."""
    found = {}
    if footer.get("label_source"):
        found["rai:machineAnnotationTools"] = str(footer["label_source"])
    policy = footer.get("policy") or {"uncertain": "keep", "blank": "null", "derive": False}
    found["rai:dataImputationProtocol"] = (
        f"uncertain labels: {policy['uncertain']}; blank labels: {policy['blank']}; "
        f"parents derived from children: {'yes' if policy['derive'] else 'no'}"
    )
    if footer.get("recipe"):
        found["rai:dataPreprocessingProtocol"] = (
            f"recipe {footer['recipe']}, fingerprint {footer.get('fingerprint', '')}"
        )
    return found


def _shards(includes: list[str], columns: pa.Schema) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shards as a set of files and, of Parquet, the records in ``columns``; tar is read by WebDataset's readers.

    Members of tar files could be described too, but mlcroissant 1.1 unpacks a file by the name in its description into
    one folder for all of a user's data sets: those of the same name would be handed over in the place of these.
    """
    parquet = includes[0].endswith(".parquet")
    kind = "application/x-parquet" if parquet else "application/x-tar"
    said = "the images with their labels, as shards"
    files = [_node("FileSet", _SHARDS, description=said, encodingFormat=[kind], includes=includes)]
    if not parquet:
        return files, []
    fields = [_field("samples", {"fileSet": {"@id": _SHARDS}}, field) for field in columns]
    said = "a record for each image, with its content"
    return files, [_node("RecordSet", "samples", description=said, key={"@id": "samples/image_id"}, field=fields)]


def _image_files(paths: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The image files as a set, and a record of each: its path, which the manifest has too, and its content."""
    if is_in_shard(paths[0]):
        shards = sorted({re.sub(r"[^/]*(\.\w+)/[^/]*$", r"*\1", path) for path in paths})
        return _shards(shards, pa.schema([("image_id", pa.string()), ("image", IMAGE)]))
    suffixes = sorted({path.rpartition(".")[2] for path in paths})
    files = _node(
        "FileSet",
        _IMAGES,
        description="the images, as files",
        encodingFormat=[_KINDS.get(suffix, "application/octet-stream") for suffix in suffixes],
        includes=[f"*.{suffix}" for suffix in suffixes],
    )
    fields = (("path", "sc:Text", "fullpath"), ("content", "sc:ImageObject", "content"))
    record = _node(
        "RecordSet",
        "image-contents",
        description="a record for each image file; its path is that of images/path",
        key={"@id": "image-contents/path"},
        field=[
            _node(
                "Field",
                f"image-contents/{name}",
                description=f"{name} of the image file",
                dataType=kind,
                source={"fileSet": {"@id": _IMAGES}, "extract": {"fileProperty": member}},
            )
            for name, kind, member in fields
        ],
    )
    return [files], [record]


def write_croissant(folder: Path, tables: tuple[str, ...]) -> None:
    """Write ``croissant.json`` (Croissant 1.1, RAI 1.0) beside the Parquet files; no row is copied into it.

    ``tables`` are the names of the Parquet files in ``folder``, the images first, whose footer says of which dataset
    they are. Raises ``StorageError``.
    """
    files, records = [], []
    for name in tables:
        schema = read_schema(folder / name)
        record_set = name.removesuffix(".parquet")
        said, kind = f"the manifest's {record_set}", "application/x-parquet"
        digest = digest_of(folder / name).value
        files.append(_node("FileObject", name, description=said, contentUrl=name, encodingFormat=kind, sha256=digest))
        key = {"@id": f"{record_set}/{'image_id' if 'image_id' in schema.names else 'study_id'}"}
        said = f"a record for each of the {record_set}"
        fields = [_field(record_set, {"fileObject": {"@id": name}}, field) for field in schema]
        records.append(_node("RecordSet", record_set, description=said, key=key, field=fields))
    table = folder / tables[0]
    records.append(_splits(read_rows(table, columns=["split"]).column("split")))
    about = _about(read_footer(table))
    _write(folder / CROISSANT_NAME, {**about, "distribution": files, "recordSet": records}, folder)


def describe_export(dataset: Dataset, includes: list[str], columns: pa.Schema, *, digest: str) -> str:
    """The ``croissant.json`` of an export that holds the images.

    Args:
        dataset: The images, with the policy by which their labels are handed over.
        includes: Globs of the shards.
        columns: Of Parquet shards.
        digest: Names the set.

    Returns:
        The text.
    """
    files, records = _shards(includes, columns)
    footer = {**dataset.made_from, "policy": dataset.made_from.get("policy") or dataset.policy.describe()}
    about = _about({**footer, SET_DIGEST: digest})
    splits = _splits(dataset.stated.column("split"))
    return _text({**about, "distribution": files, "recordSet": [*records, splits]})


def _about(footer: dict[str, Any]) -> dict[str, Any]:
    """The dataset of images with this footer; of one that the catalog does not have, what the footer says alone."""
    spec, release = catalog().get(str(footer.get("dataset") or "")), str(footer.get("release") or "")
    about: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": spec.name if spec is not None else "images",
        "description": spec.summary if spec is not None else "images with a manifest",
    }
    if spec is not None:
        about |= {
            "license": spec.licence.url or spec.licence.name,
            "url": spec.homepage,
            "citeAs": spec.bibtex.strip(),
            "version": _version(release),
        }
        if release in spec.published:
            about["datePublished"] = spec.published[release]
    if footer.get(SET_DIGEST):
        about["identifier"] = f"cxrprep-set/1:{footer[SET_DIGEST]}"
    return about | _responsible_use(footer)


def describe_images(folder: Path) -> Path | None:
    """Describe converted images too, above the manifests in ``folder``: readers look for files nowhere else.

    It is what ``write_croissant`` wrote of the manifests, with the image files. One that is not ours stays, and gives
    ``None``, as no image does. Raises ``StorageError``.
    """
    path = folder.parent / CROISSANT_NAME
    if path.is_file() and not is_own_description(path):
        forget_checksum(folder, f"../{CROISSANT_NAME}")
        return None
    described = json.loads(read_text(folder / CROISSANT_NAME))
    tables = described["distribution"]
    column = read_rows(folder / tables[0]["contentUrl"], columns=["path"]).column("path")
    if not len(column):
        # All of them failed.
        return None
    images, contents = _image_files(pc.unique(column).to_pylist())
    described["distribution"] = [{**each, "contentUrl": f"{folder.name}/{each['contentUrl']}"} for each in tables]
    described["distribution"] += images
    described["recordSet"] += contents
    _write(path, described, folder)
    return path


def _write(path: Path, described: dict[str, Any], manifests: Path) -> None:
    text = _text(described)
    replace_listed(path, lambda part: part.write_text(text, encoding="utf-8"), manifests)


def _text(described: dict[str, Any]) -> str:
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"
