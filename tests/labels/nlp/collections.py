"""Small collections of reports in every form that is read."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SENTENCES = (
    "No pneumothorax or pleural effusion.",
    "Stable cardiomegaly.",
    "Left basilar opacity may represent atelectasis or pneumonia.",
    "Endotracheal tube in place.",
    "The lungs are clear.",
    "Mild vascular congestion without edema.",
    "Interval removal of the chest tube.",
)


def sentence(number: int) -> str:
    return f"{SENTENCES[number % 7]} {SENTENCES[(number // 7) % 7]}"


def mimic_report(number: int) -> str:
    title = " " * 33 + "FINAL REPORT\n EXAMINATION:  CHEST\n \n"
    return f"{title} IMPRESSION: \n \n {sentence(number)}\n"


def member(number: int) -> str:
    patient = 10_000_000 + number // 3
    return f"files/p{str(patient)[:2]}/p{patient}/s{50_000_000 + number}.txt"


def mimic_zip(path: Path, reports: int, more: Mapping[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(reports):
            archive.writestr(member(number), mimic_report(number))
        for name, data in (more or {}).items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


def folder(path: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, data in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def openi(uid: str, findings: str, impression: str) -> str:
    return (
        f'<?xml version="1.0"?><eCitation><uId id="{uid}"/><MedlineCitation><Article><Abstract>'
        f'<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="FINDINGS">{findings}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">{impression}</AbstractText>'
        "</Abstract></Article></MedlineCitation></eCitation>"
    )


def table_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[str]]) -> Path:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    path.write_text(text.getvalue(), "utf-8", newline="")
    return path


def parquet(path: Path, columns: Mapping[str, Any], group: int = 100) -> Path:
    pq.write_table(pa.table(dict(columns)), path, row_group_size=group)
    return path


def labels(path: Path) -> list[dict[str, Any]]:
    """The rows of a label table, categories as text."""
    return pq.read_table(path).to_pylist()
