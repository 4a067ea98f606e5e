"""Grey scale where a header is wrong or silent: shown and noted; NIH, CheXpert and MIMIC as before."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cxrprep.images.decode import decode
from cxrprep.images.recipe import load_recipe
from cxrprep.images.transforms import Voi
from tests.images.made import dataset_of, dicom_bytes, lut, ramp, written


def shown(data: bytes, name: str = "x.dcm", **options: object) -> tuple[np.ndarray, list[str], str]:
    """The 8-bit result of the step voi, its notes, and the rule that was used."""
    made = Voi(**options)(decode(data, name))
    return made.settled().pixels, made.notes, made.voi


@pytest.mark.parametrize(("stated", "held"), [(16, 12), (16, 10), (12, 10), (8, 12), (16, 8)])
def test_a_lut_is_scaled_by_its_entries_whatever_it_states(stated: int, held: int) -> None:
    top = (1 << held) - 1
    values = np.linspace(0, top, 4096).astype(int).tolist()
    pixels, notes, rule = shown(dicom_bytes(ramp(), VOILUTSequence=lut(values, bits=stated)))
    assert rule == "lut"
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert notes == [f"a VOI LUT states {stated} bits and its entries need {held}"]


def test_a_lut_that_states_what_it_holds_is_not_noted() -> None:
    values = np.linspace(0, 4095, 4096).astype(int).tolist()
    assert shown(dicom_bytes(ramp(), VOILUTSequence=lut(values, bits=12)))[1] == []


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": None, "WindowWidth": None}, {"WindowCenter": "40"}])
@pytest.mark.parametrize(("stored", "used"), [(16, 12), (16, 10), (12, 8)])
def test_without_a_window_values_that_need_fewer_bits_fill_the_range(
    photometric: str, window: dict, stored: int, used: int
) -> None:
    words = ramp((1 << used) - 1)
    pixels, notes, rule = shown(dicom_bytes(words, bits=stored, photometric=photometric, **window))
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert (pixels[0, 0] == 255) is np.bool_(photometric == "MONOCHROME1")
    assert rule == "minmax"
    assert f"no window, and {used} of {stored} bits used: shown from the smallest to the largest value" in notes


@pytest.mark.parametrize("low", [0, 200])
def test_without_a_window_values_that_need_all_bits_keep_the_range_of_the_header(low: int) -> None:
    words = (ramp(3000 - low) + low).astype(np.uint16)
    pixels, notes, rule = shown(dicom_bytes(words, bits=12))
    assert rule == "range"
    assert np.array_equal(pixels, np.rint(words / 4095 * 255))
    assert notes == []


def test_the_range_is_the_range_when_it_is_asked_for() -> None:
    words = ramp(4095)
    pixels, notes, rule = shown(dicom_bytes(words, bits=16), source="range")
    assert (rule, notes) == ("range", [])
    assert np.array_equal(pixels, np.rint(words / 65535 * 255))


def test_signed_values_have_a_bit_for_the_sign() -> None:
    words = (ramp(4095).astype(np.int32) - 2048).astype(np.int16)
    assert shown(dicom_bytes(words, bits=12))[2] == "range"
    pixels, notes, rule = shown(dicom_bytes(words, bits=16))
    assert rule == "minmax"
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert "12 of 16 bits" in notes[0]


def test_signed_values_that_are_never_negative_do_not_begin_at_mid_grey() -> None:
    pixels, notes, rule = shown(dicom_bytes(ramp(2047).astype(np.int16), bits=12))
    assert (pixels.min(), pixels.max(), rule) == (0, 255, "minmax")
    assert "11 of 12 bits" in notes[0]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_that_is_written_without_its_sign_is_padding(photometric: str) -> None:
    words = ramp(4095).astype(np.int16)
    words[:4] = -2000
    dataset = dataset_of(words, bits=16, photometric=photometric)
    dataset.add_new("PixelPaddingValue", "US", 63536)
    pixels, notes, rule = shown(written(dataset))
    assert (pixels[:4] == 0).all()
    assert "12 of 16 bits" in notes[0]
    assert rule == "minmax"
    assert (pixels[4:].min(), pixels[4:].max()) == (0, 255)


def test_eight_bits_stay_as_they_are_in_every_file() -> None:
    """NIH's and CheXpert's images are 8 bits, in PNG, JPEG and DICOM: whatever of the range they use is meant."""
    dark = np.clip(ramp(90), 20, 90).astype(np.uint8)
    png = cv2.imencode(".png", dark)[1].tobytes()
    for data, name in ((png, "x.png"), (dicom_bytes(dark, bits=8), "x.dcm")):
        pixels, notes, _ = shown(data, name)
        assert np.array_equal(pixels, dark)
        assert notes == []


def test_a_png_of_sixteen_bits_that_uses_twelve_is_not_black() -> None:
    png = cv2.imencode(".png", ramp(4095))[1].tobytes()
    pixels, notes, _ = shown(png, "x.png")
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert "12 of 16 bits" in notes[0]


@pytest.mark.parametrize("recipe", ["mimic-cxr-jpg", "chexpert-jpg"])
def test_recipes_of_releases_take_no_part_in_it(recipe: str) -> None:
    words = ramp(4095)
    made = load_recipe(recipe)(decode(dicom_bytes(words, bits=16), "x.dcm"))
    scaled = (words.astype(np.int64) * 255 // 4095).astype(np.uint8)
    if recipe == "chexpert-jpg":
        scaled = cv2.convertScaleAbs(words, alpha=255 / words.max())
    assert np.array_equal(made.pixels, cv2.equalizeHist(scaled))
    assert made.notes == []


@pytest.mark.parametrize(
    ("photometric", "shape", "said"),
    [
        ("MONOCHROME1", "IDENTITY", True), ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "INVERSE", False), ("MONOCHROME2", "IDENTITY", False),
    ],
)  # fmt: skip
def test_a_shape_that_contradicts_the_photometric_is_noted_both_ways(photometric: str, shape: str, said: bool) -> None:
    data = dicom_bytes(ramp(), photometric=photometric, PresentationLUTShape=shape, WindowCenter=2048, WindowWidth=4096)
    pixels, notes, _ = shown(data)
    assert (pixels[0, 0] > pixels[-1, -1]) is np.bool_(photometric == "MONOCHROME1")
    assert notes == ([f"PresentationLUTShape {shape} contradicts {photometric} and was ignored"] if said else [])


def test_a_photometric_in_lower_case_is_read() -> None:
    data = dicom_bytes(ramp()).replace(b"MONOCHROME2 ", b"monochrome1 ")
    made = Voi()(decode(data, "x.dcm")).settled()
    assert made.mode == "MONOCHROME1"
    assert made.pixels[0, 0] == 255
