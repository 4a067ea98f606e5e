"""A small manifest with what a page must show well: all four label values, a leak, odd names, a broken file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pyarrow as pa

from cxrprep.schemas import IMAGES, null_columns
from cxrprep.storage.parquet import write_table

if TYPE_CHECKING:
    from collections.abc import Iterable

EVIL = '<script>alert("x")</script>'


def write_folder(root: Path, rows: int = 40, findings: Iterable[str] = ()) -> Path:
    """ROOT with images and ``manifests/images.parquet``, positive for ``findings`` here and there; ``root`` itself."""
    (root / "images").mkdir(parents=True)
    (root / "manifests").mkdir()
    paths = []
    for number in range(rows):
        path = f"images/{number:08d}_000.png"
        paths.append(path)
        picture = np.linspace(0, 255, 64 * 48, dtype=np.uint8).reshape(48, 64)
        cv2.imwrite(str(root / path), np.roll(picture, number * 7, axis=1))
    (root / paths[1]).write_bytes(b"\x89PNG\r\n\x1a\ncut short")
    (root / paths[2]).unlink()
    values = [1, 0, -1, None]
    columns = {
        "dataset": pa.array(["nih-chestxray14"] * rows),
        "release": pa.array(["v2020"] * rows),
        "image_id": pa.array([EVIL if n == 3 else f"{n:08d}_000" for n in range(rows)]),
        "patient_id": pa.array([f"{n // 3:08d}" for n in range(rows)]),
        "study_id": pa.array([f"{n:08d}_000" for n in range(rows)]),
        "split": pa.array(["train_val" if n % 10 else "test" for n in range(rows)]),
        "path": pa.array(paths),
        "bytes": pa.array([1000 + n for n in range(rows)]),
        "width": pa.array([64] * rows),
        "height": pa.array([48] * rows),
        "orig_width": pa.array([2000 + 30 * n for n in range(rows)]),
        "orig_height": pa.array([2500] * rows),
        "source_mode": pa.array(["RGBA" if n % 9 == 0 else "L" for n in range(rows)]),
        "view": pa.array(["PA" if n % 2 else "AP" for n in range(rows)]),
        "projection": pa.array(["frontal"] * rows),
        "sex": pa.array(["F", "M", None, "M"] * (rows // 4)),
        "age_years": pa.array([None if n == 5 else float(n * 3) for n in range(rows)], pa.float32()),
        "age_flag": pa.array(["implausible" if n == 5 else None for n in range(rows)]),
        "label_source": pa.array(["nih-textmined"] * rows),
        "table_name": pa.array(["Data_Entry_2017_v2020.csv"] * rows),
        "table_digest": pa.array(["sha256:" + "0" * 64] * rows),
        "label_cardiomegaly": pa.array([values[n % 4] for n in range(rows)], pa.int8()),
        "label_edema": pa.array([1 if n % 5 == 0 else 0 for n in range(rows)], pa.int8()),
        "label_no_finding": pa.array([0] * rows, pa.int8()),
    }
    for place, name in enumerate(findings):
        labels = [values[(n + place) % 4] for n in range(rows)]
        columns.setdefault(f"label_{name}", pa.array(labels, pa.int8()))
    write_table(null_columns(IMAGES, rows, columns), root / "manifests" / "images.parquet", name="images")
    return root
