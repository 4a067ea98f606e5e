"""Images that are not what the release's images are: each in its own way, and the known quirks apart."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest

import cxrprep
from cxrprep.datasets.catalog import catalog
from cxrprep.errors import ImageError, UsageError
from cxrprep.executors import Engine
from cxrprep.model import ImageCheck
from cxrprep.verification.finding import Kind
from cxrprep.verification.options import VerifyOptions
from cxrprep.verification.report import VerifyReport
from tests.generators.small import mimic_cxr, pictures
from tests.parts import shared_data
from tests.verification.checkers import dies
from tests.verification.trees import check, decode, flip, found, nih, nih_spec, remember

IMAGE = "images/00000002_000.png"
QUIRK = ("wrong-mode", "images/00000001_001.png")  # the generator's one RGBA image


def looked_at(root: Path, **more: Any) -> VerifyReport:
    more.setdefault("images", True)
    more.setdefault("check_image", decode)
    return check(root, nih_spec(64), labels=False, **more)


def write(path: Path, pixels: np.ndarray) -> None:
    assert cv2.imwrite(str(path), pixels)


def noise(*shape: int, kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(3).integers(0, np.iinfo(kind).max, shape).astype(kind)


def test_sound_images_are_said_to_be_decoded_and_a_known_quirk_is_a_note(tmp_path: Path) -> None:
    report = looked_at(nih(tmp_path))
    assert found(report) == [QUIRK]
    (quirk,) = report.findings
    assert (quirk.level, quirk.expected, quirk.found) == ("note", "L", "RGBA")
    assert "one channel holds the whole image" in quirk.detail
    assert report.exit_code == 0
    assert report.images is not None
    assert (report.images.checked, report.images.here) == (7, 7)
    assert looked_at(tmp_path, strict=True).exit_code == 4


def test_images_that_were_not_decoded_are_not_called_right(tmp_path: Path) -> None:
    report = check(nih(tmp_path), check_image=decode)
    assert report.images is None
    assert "the images' pixels: run with --images" in report.not_checked


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated-image": lambda path: path.write_bytes(path.read_bytes()[:-300]),
    "undecodable-image": lambda path: path.write_bytes(b"<html>please log in</html>"),
    "wrong-format": lambda path: pictures.jpeg(path, 5, width=64, height=64),
    "wrong-size": lambda path: pictures.png(path, 5, width=64, height=63),
    "wrong-depth": lambda path: write(path, noise(64, 64, kind=np.uint16)),
    "wrong-mode": lambda path: write(path, noise(64, 64, 3)),
    "constant-image": lambda path: write(path, np.full((64, 64), 7, np.uint8)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_an_image_that_came_damaged_gives_that_finding_and_no_other(tmp_path: Path, kind: str) -> None:
    nih(tmp_path, change=lambda root: DAMAGE[kind](root / IMAGE))
    report = looked_at(tmp_path)
    assert found(report) == sorted([QUIRK, (kind, IMAGE)])
    assert report.exit_code == 4


def test_a_file_whose_bytes_are_wrong_is_not_decoded_as_well(tmp_path: Path) -> None:
    flip(nih(tmp_path) / IMAGE)
    report = looked_at(tmp_path)
    assert found(report) == sorted([QUIRK, ("altered", IMAGE)])
    assert report.images is not None
    assert report.images.checked == 6


def test_dicom_without_pixel_data_is_told_apart(tmp_path: Path) -> None:
    released = mimic_cxr.write(tmp_path)
    path = tmp_path / released.images[0]
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path, enforce_file_format=True)
    spec = catalog()["mimic-cxr"]
    remember(tmp_path, spec, "2.1.0")
    report = check(tmp_path, spec, "2.1.0", labels=False, images=True, check_image=decode)
    assert found(report) == [("no-pixel-data", released.images[0])]


def test_a_sample_is_drawn_by_hash_and_said_to_be_one(tmp_path: Path) -> None:
    nih(tmp_path)
    report = looked_at(tmp_path, sample=3)
    assert report.images is not None
    assert (report.images.checked, report.images.here) == (3, 7)
    assert any("the pixels of 4 images" in sentence for sentence in report.not_checked)
    drawn: list[list[str]] = []

    def watch(path: Path) -> ImageCheck:
        drawn[-1].append(path.name)
        return decode(path)

    for seed in (0, 0, 1):
        drawn.append([])
        looked_at(tmp_path, sample=3, seed=seed, check_image=watch)
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_same_pixels_are_found_and_across_splits_that_is_leakage(tmp_path: Path) -> None:
    def copies(root: Path) -> None:
        images = root / "images"
        shutil.copy(images / "00000001_000.png", images / "00000002_000.png")  # both train_val
        # Another encoding of the same pixels, in the test list.
        pixels = cv2.imread(str(images / "00000004_000.png"), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        cv2.imwrite(str(images / "00000005_000.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])

    nih(tmp_path, change=copies)
    report = check(tmp_path, images=True, duplicates=True, check_image=decode)
    told = {finding.path: finding for finding in report.findings if finding.kind in ("duplicate-pixels", "leakage")}
    assert set(told) == {"images/00000002_000.png", "images/00000005_000.png"}
    assert told["images/00000002_000.png"].kind == "duplicate-pixels"
    assert told["images/00000002_000.png"].detail == "the same pixels as images/00000001_000.png"
    assert told["images/00000005_000.png"].kind == "leakage"
    assert "train_val" in told["images/00000005_000.png"].detail


def raises(path: Path) -> ImageCheck:
    if path.name == "00000002_000.png":
        raise ImageError(f"{path.name}: its palette is missing")
    if path.name == "00000003_000.png":
        raise MemoryError
    return decode(path)


@pytest.mark.parametrize("processes", [0, 2])
def test_a_checker_that_raises_blames_that_image_only(tmp_path: Path, processes: int) -> None:
    nih(tmp_path)
    report = looked_at(tmp_path, check_image=raises, engine=Engine(jobs=processes) if processes else None)
    assert found(report) == sorted(
        [QUIRK, ("undecodable-image", IMAGE), ("undecodable-image", "images/00000003_000.png")]
    )
    assert report.findings[0].detail or report.findings[1].detail


def test_a_decoder_that_dies_blames_the_image_it_died_over_and_no_other(tmp_path: Path) -> None:
    nih(tmp_path)
    report = looked_at(tmp_path, check_image=dies, engine=Engine(jobs=1))
    assert found(report) == [("undecodable-image", IMAGE)]
    assert "died over it" in report.findings[0].detail
    assert report.images is not None
    assert report.images.checked == 7
    assert report.exit_code == 4


def test_the_engine_that_was_asked_for_is_the_one_that_decodes(tmp_path: Path) -> None:
    nih(tmp_path)
    with pytest.raises(UsageError, match="the address of a scheduler"):
        cxrprep.verify(tmp_path, options=VerifyOptions(images=True), engine=Engine("dask", jobs=1))
    # Without images nothing is decoded, and no engine is needed.
    cxrprep.verify(tmp_path, engine=Engine("dask", jobs=1))


@pytest.mark.slow
def test_the_real_images_of_nih_are_sound_and_two_are_rgba(tmp_path: Path) -> None:
    real = shared_data("nih-chestxray14")
    (tmp_path / "images").mkdir()
    for path in sorted((real / "images").iterdir())[:40]:
        (tmp_path / "images" / path.name).symlink_to(path)
    for name in ("00004808_003.png", "00005435_000.png"):
        if (real / "images" / name).exists() and not (tmp_path / "images" / name).exists():
            (tmp_path / "images" / name).symlink_to(real / "images" / name)
    report = check(tmp_path, images=True, check_image=decode, labels=False)
    assert {kind for kind, _ in found(report)} == {"unproven", "wrong-mode"}
    assert report.counts[Kind.WRONG_MODE] == 2
    assert report.exit_code == 0
