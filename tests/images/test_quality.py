"""Quality columns: each image's row says how it came out, and a second run says the same."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.executors import Engine
from cxrprep.images.decode import decode
from cxrprep.images.quality import BLACK, FLAT, Quality, measure
from cxrprep.images.recipe import load_recipe
from tests.api.convert import hospital
from tests.images.made import dicom_bytes

COLUMNS = [
    "voi", "codec", "notes", "grey_levels", "contrast", "black_share", "white_share", "clipped_share", "sharpness",
]  # fmt: skip


def _folder(root: Path) -> Path:
    root.mkdir()
    body = hospital.body(1)
    (root / "good.dcm").write_bytes(hospital.dicom(body, WindowCenter=2048, WindowWidth=4096))
    (root / "dark.dcm").write_bytes(hospital.dicom(body, WindowCenter=4000, WindowWidth=100))
    (root / "flat.dcm").write_bytes(hospital.dicom(body, WindowCenter=2048, WindowWidth=60000))
    cv2.imwrite(str(root / "file.jpg"), (body >> 4).astype(np.uint8))
    return root


def _rows(out: Path) -> dict[str, dict]:
    rows = pq.read_table(out / "manifests/images.parquet", columns=["source_path", *COLUMNS]).to_pylist()
    return {row.pop("source_path"): row for row in rows}


@pytest.mark.parametrize("to", ["files", "webdataset", "parquet"])
def test_rows_say_how_images_came_out_and_a_second_run_says_the_same(tmp_path: Path, to: str) -> None:
    root, out = _folder(tmp_path / "in"), tmp_path / "out"
    options = {"recipe": "square-224", "out": out, "engine": Engine("inline"), "to": to}
    value = cxrprep.convert(root, **options).value
    rows = _rows(out)
    assert {name: (row["voi"], row["codec"], row["notes"]) for name, row in rows.items()} == {
        "good.dcm": ("window", "uncompressed", []),
        "dark.dcm": ("window", "uncompressed", [BLACK]),
        "flat.dcm": ("window", "uncompressed", [FLAT]),
        "file.jpg": ("none", "JPEG", []),
    }
    assert rows["dark.dcm"]["black_share"] > 0.66
    assert rows["dark.dcm"]["clipped_share"] > 0.66
    assert rows["flat.dcm"]["contrast"] < 0.09 < rows["good.dcm"]["contrast"]
    assert rows["good.dcm"]["grey_levels"] > rows["flat.dcm"]["grey_levels"]
    assert rows["file.jpg"]["clipped_share"] is None
    assert dict(value.noted) == {BLACK: ("dark.dcm",), FLAT: ("flat.dcm",)}
    again = cxrprep.convert(root, **options).value
    assert again.kept == 4
    assert _rows(out) == rows
    # Without the cache every output is asked itself.
    for cache in out.rglob("finished.parquet"):
        cache.unlink()
    assert cxrprep.convert(root, **options).value.converted in (0, 4)
    assert _rows(out) == rows


def test_padding_and_bits_change_no_measure() -> None:
    tall = np.ascontiguousarray(np.tile(np.linspace(100, 3900, 300).astype(np.uint16), (80, 1)).T)
    data = dicom_bytes(tall, WindowCenter=2048, WindowWidth=4096)
    padded = measure(load_recipe("square-224")(decode(data, "x.dcm")))
    deep = measure(load_recipe("shortest-1024-16bit")(decode(data, "x.dcm")))
    assert padded.black == 0
    assert padded.contrast == pytest.approx(deep.contrast, abs=0.002)


def test_blur_lowers_sharpness() -> None:
    noisy = hospital.body(2)
    blurred = cv2.GaussianBlur(noisy, (0, 0), 3)
    sharp, soft = (
        measure(load_recipe("shortest-512")(decode(dicom_bytes(p, WindowCenter=2048, WindowWidth=4096), "x.dcm")))
        for p in (noisy, blurred)
    )
    assert soft.sharpness < sharp.sharpness


@pytest.mark.parametrize("held", [None, [], [1.0, 2.0], [None] * 6])
def test_outputs_of_versions_that_did_not_measure_have_no_measures(held: list | None) -> None:
    assert Quality.parse(held) is None
