"""Croissant: the manifest described as JSON-LD, for search engines and for the loaders of ``mlcroissant``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from cxrprep.labels.csv_table import digest_of
from cxrprep.storage.atomic import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.datasets.catalog import DatasetSpec

CROISSANT_NAME: Final = "croissant.json"
_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:DateTime" if pa.types.is_timestamp(kind) else "sc:Text"


def _field(record_set: str, file: str, field: pa.Field) -> dict[str, Any]:
    made: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{record_set}/{field.name}",
        "name": field.name,
        "description": (field.metadata or {}).get(b"description", b"").decode(),
    }
    source = {"fileObject": {"@id": file}, "extract": {"column": field.name}}
    kind = field.type
    if pa.types.is_list(kind):
        made["repeated"] = True
        kind = kind.value_type
    if not pa.types.is_struct(kind):
        return {**made, "dataType": _data_type(kind), "source": source}
    # Readers take the members of a box out of the column by a path each.
    made["subField"] = [
        {
            "@type": "cr:Field",
            "@id": f"{record_set}/{field.name}/{member.name}",
            "name": member.name,
            "dataType": _data_type(member.type),
            "source": {**source, "transform": {"jsonPath": member.name}},
        }
        for member in kind
    ]
    return made


def _version(release: str) -> str:
    """The release as the three numbers that a version must be there: ``v1.0-small`` is ``1.0.0+small``."""
    numbers, _, variant = release.partition("-")
    found = [*re.findall(r"\d+", numbers), "0", "0", "0"][:3]
    return ".".join(found) + (f"+{variant}" if variant else "")


def write_croissant(folder: Path, spec: DatasetSpec | None, release: str, tables: tuple[str, ...]) -> Path:
    """Write ``croissant.json`` beside the Parquet files ``tables`` of ``folder``; the path of what was written.

    Rows are described and never copied into it. Raises ``StorageError`` when the disk refuses.
    """
    files, records = [], []
    for name in tables:
        schema = pq.read_schema(folder / name)
        record_set = name.removesuffix(".parquet")
        files.append(
            {
                "@type": "cr:FileObject",
                "@id": name,
                "name": name,
                "description": f"the manifest's {record_set}",
                "contentUrl": name,
                "encodingFormat": "application/x-parquet",
                "sha256": digest_of(folder / name).value,
            }
        )
        key = "image_id" if "image_id" in schema.names else "study_id"
        records.append(
            {
                "@type": "cr:RecordSet",
                "@id": record_set,
                "name": record_set,
                "description": f"a record for each of the {record_set}",
                "key": {"@id": f"{record_set}/{key}"},
                "field": [_field(record_set, name, field) for field in schema],
            }
        )
    about: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
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
    text = json.dumps({**about, "distribution": files, "recordSet": records}, indent=2, ensure_ascii=False) + "\n"
    path = folder / CROISSANT_NAME
    replace_file(path, lambda part: part.write_text(text, encoding="utf-8"))
    return path
