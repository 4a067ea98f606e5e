"""Inverted, turned and blank radiographs are found by their pixels; upright ones raise hardly an alarm."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrprep.errors import CxrprepError
from cxrprep.images.decode import decode
from cxrprep.images.image_info import inspect
from cxrprep.images.orientation import FEATURES, SIDE, features, orientation_of, scores
from tests.images.made import dicom_bytes
from tests.parts import shared_data


@cache
def _smalls() -> list[np.ndarray]:
    names = sorted(shared_data().rglob("*.png"))
    read = (cv2.imread(str(name), cv2.IMREAD_GRAYSCALE) for name in names)
    return [cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for grey in read]


def test_inverted_and_turned_images_are_found_and_upright_ones_left_alone() -> None:
    """On the images that the weights were made of: it holds the file of weights and the code together."""
    smalls = _smalls()
    assert len(smalls) > 20
    alarms = sum(bool(scores(small).doubts()) for small in smalls)
    inverted = sum(scores(255 - small).inverted > 0.5 for small in smalls)
    assert alarms <= len(smalls) * 0.01
    assert inverted >= len(smalls) * 0.99
    for quarters, degrees in ((1, 270), (2, 180), (3, 90)):
        found = [scores(np.ascontiguousarray(np.rot90(small, quarters))) for small in smalls]
        assert sum(one.turned > 0.5 and one.turn == degrees for one in found) >= len(smalls) * 0.99, degrees
    mirrored = [scores(np.ascontiguousarray(small[:, ::-1])).mirrored for small in smalls]
    assert np.median(mirrored) > 0.5


@pytest.mark.parametrize("blank", ["one value", "gradient", "collimator"])
def test_blank_images_are_found(blank: str) -> None:
    y, _ = np.mgrid[0:400, 0:400]
    pixels = {"one value": np.full((400, 400), 90.0), "gradient": y * 0.5, "collimator": np.zeros((400, 400))}[blank]
    if blank == "collimator":
        pixels[60:340, 60:340] = 120
    made = orientation_of(decode(cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes(), "x.png"))
    assert made.doubts() == ("blank? hardly any structure",)


def test_what_is_no_frontal_radiograph_is_far_from_all_that_are() -> None:
    """CT, MR, ultrasound and others that come with pydicom; whichever way a radiograph lies, it is one."""
    import pydicom.data

    radiographs = [scores(np.rot90(255 - small, 1)).not_frontal for small in _smalls()[::5]]
    others = []
    # The files that the package holds: its own search would fetch others.
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm")):
        try:
            found = orientation_of(decode(path.read_bytes(), path.name))
        except CxrprepError:
            continue
        if not found.is_blank:
            others.append(found.not_frontal)
    assert len(others) > 30
    assert min(others) > 0.5 > np.quantile(radiographs, 0.95)


def test_a_batch_of_mirror_images_is_told_by_its_share() -> None:
    import pyarrow as pa

    from cxrprep.manifest.label_statistics import score_summary

    def summary(smalls: list[np.ndarray]) -> object:
        found = [scores(np.ascontiguousarray(small)) for small in smalls]
        return score_summary(
            pa.table({
                "inverted_score": [one.inverted for one in found], "turned_score": [one.turned for one in found],
                "mirrored_score": [one.mirrored for one in found], "structure": [one.structure for one in found],
            })
        )  # fmt: skip

    assert not summary(_smalls()).is_mirrored_batch
    assert summary([small[:, ::-1] for small in _smalls()]).is_mirrored_batch
    assert summary([]) is None


def test_a_dicom_is_judged_as_it_is_shown() -> None:
    grey = cv2.imread(str(sorted(shared_data().rglob("*.png"))[3]), cv2.IMREAD_GRAYSCALE)
    words = (255 - grey).astype(np.uint16) << 4
    right = dicom_bytes(words, photometric="MONOCHROME1", WindowCenter=2048, WindowWidth=4096)
    wrong = dicom_bytes(words, photometric="MONOCHROME2", WindowCenter=2048, WindowWidth=4096)
    assert orientation_of(decode(right, "x.dcm")).inverted < 0.5 < orientation_of(decode(wrong, "x.dcm")).inverted


def test_verify_tells_what_to_look_at(tmp_path: Path) -> None:
    grey = cv2.imread(str(sorted(shared_data().rglob("*.png"))[5]), cv2.IMREAD_GRAYSCALE)
    for name, pixels in (("right", grey), ("inverted", 255 - grey), ("turned", np.rot90(grey, 2))):
        path = tmp_path / f"{name}.png"
        cv2.imwrite(str(path), pixels)
        found = inspect(path)
        assert not found.error
        assert [text.partition("?")[0] for text in found.doubts] == (
            [] if name == "right" else ["inverted"] if name == "inverted" else ["turned by 180 degrees"]
        )


def test_features_do_not_depend_on_brightness_and_contrast() -> None:
    small = np.random.default_rng(0).integers(40, 120, (SIDE, SIDE)).astype(np.uint8)
    assert features(small).shape == (FEATURES,)
    assert np.allclose(features(small), features((small * 2 + 10).astype(np.uint8)), atol=1e-3)
