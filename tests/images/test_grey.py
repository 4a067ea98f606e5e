"""The grey scale against pydicom, DCMTK and the formulae of the standard, within one level of 255."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cxrprep.images.decode import decode
from cxrprep.images.transforms import Voi
from tests.images.made import Case, by_dcmtk, by_formula, by_pydicom, cases, dicom_bytes, lut, ramp, real, shown
from tests.sample import some

CASES = cases()


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(np.float64) - theirs).max())


@pytest.mark.parametrize("case", some(CASES, one_in=6), ids=lambda case: case.name)
def test_every_case_follows_the_formulae_of_the_standard(case: Case) -> None:
    # Rounded half to even, so half a level at most, and the formula's own floating point.
    assert apart(shown(case.data), by_formula(case.data)) <= 0.5 + 1e-6


@pytest.mark.parametrize("case", [c for c in CASES if c.pydicom], ids=lambda case: case.name)
def test_every_case_agrees_with_pydicom(case: Case) -> None:
    assert apart(shown(case.data), by_pydicom(case.data)) <= 1


@pytest.mark.parametrize("case", [c for c in CASES if c.dcmtk], ids=lambda case: case.name)
def test_every_case_agrees_with_dcmtk(case: Case, tmp_path: Path) -> None:
    assert apart(shown(case.data), by_dcmtk(case.data, tmp_path, *case.dcmtk)) <= 1


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG1_UNCI.dcm", "RG3_UNCR.dcm", "RG3_UNCI.dcm"])
def test_real_radiographs_agree_with_pydicom_and_dcmtk(name: str, tmp_path: Path) -> None:
    data = real(name)
    ours = shown(data)
    assert apart(ours, by_pydicom(data)) <= 1
    assert apart(ours, by_dcmtk(data, tmp_path, "+Wi", "1")) <= 1


@pytest.mark.parametrize(
    ("name", "options"),
    [("vlut_04.dcm", ("+Wl", "1")), ("693_UNCR.dcm", ("+Wi", "1")), ("examples_overlay.dcm", ("+Wi", "1"))],
)
def test_real_tables_signs_and_overlays_agree_with_dcmtk(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    data = real(name)
    picture = decode(data, name)
    padded = picture.rules.is_padding(picture.rules.stored(picture.pixels.astype(np.int64)))
    ours, theirs = shown(data), by_dcmtk(data, tmp_path, *options)
    # Padding is black here, and an image to DCMTK.
    assert apart(np.where(padded, 0, ours), np.where(padded, 0, theirs)) <= 1


def test_a_real_modality_lut_is_the_range_that_dcmtk_shows(tmp_path: Path) -> None:
    data = real("mlut_18.dcm")
    assert apart(shown(data, source="minmax"), by_dcmtk(data, tmp_path, "+Wm")) <= 1


def test_sixteen_bits_keep_what_the_formula_says() -> None:
    x = np.array([[0, 1, 2000, 2047], [2048, 2049, 4095, 4095]], np.uint16)
    data = dicom_bytes(x, WindowCenter=2048, WindowWidth=4096)
    expected = np.rint(((x - 2047.5) / 4095 + 0.5) * 65535)
    assert np.array_equal(shown(data, bits=16), expected.astype(np.uint16))


def test_a_lut_goes_before_a_window_unless_the_window_is_asked_for() -> None:
    both = dicom_bytes(ramp(), VOILUTSequence=lut(list(range(65535, -1, -16))), WindowCenter=100, WindowWidth=20)
    assert Voi()(decode(both, "x.dcm")).voi == "lut"
    assert np.array_equal(shown(both, source="window"), shown(dicom_bytes(ramp(), WindowCenter=100, WindowWidth=20)))


def test_the_second_window_is_taken_when_asked_for() -> None:
    both = dicom_bytes(ramp(), WindowCenter=[900, 3000], WindowWidth=[400, 100])
    assert np.array_equal(shown(both, window=2), shown(dicom_bytes(ramp(), WindowCenter=3000, WindowWidth=100)))


def test_inputs_beyond_a_lut_take_its_ends() -> None:
    pixels = shown(dicom_bytes(ramp(), VOILUTSequence=lut([10, 20, 30, 65535], first=1000)), bits=16)
    assert pixels[ramp() < 1000].max() == 10
    assert pixels[ramp() > 1003].min() == 65535


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_no_part_of_the_range(photometric: str) -> None:
    pixels = ramp()
    pixels[:8] = 4095
    made = shown(dicom_bytes(pixels, photometric=photometric, PixelPaddingValue=4095), source="minmax")
    assert (made[:8] == 0).all()
    inside = made[8:][pixels[8:] != 4095]
    assert {int(inside.min()), int(inside.max())} == {0, 255}


def test_contradicting_polarity_is_said_and_not_acted_on() -> None:
    data = dicom_bytes(ramp(), PresentationLUTShape="INVERSE")
    assert any("INVERSE contradicts" in note for note in decode(data, "x.dcm").notes)
    assert np.array_equal(shown(data), shown(dicom_bytes(ramp())))


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ({"WindowCenter": 5}, "pairs"),
        ({"WindowWidth": 5}, "pairs"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "not valid"),
        ({"WindowCenter": 5, "WindowWidth": -3}, "not valid"),
        ({"WindowCenter": 5, "WindowWidth": 0.5}, "not valid"),
        ({"WindowCenter": "", "WindowWidth": ""}, ""),
        ({"WindowCenter": [5, 7], "WindowWidth": [0, -1]}, "not valid"),
    ],
)
def test_windows_that_break_the_standard_are_left_out_and_said(window: dict, said: str) -> None:
    data = dicom_bytes(ramp(), **window)
    assert np.array_equal(shown(data), shown(dicom_bytes(ramp())))
    notes = decode(data, "x.dcm").notes
    assert not notes if not said else any(said in note for note in notes)


@pytest.mark.parametrize("function", ["", "WAVY"])
def test_an_empty_or_unknown_function_is_linear(function: str) -> None:
    data = dicom_bytes(ramp(), WindowCenter=1000, WindowWidth=500, VOILUTFunction=function)
    assert np.array_equal(shown(data), shown(dicom_bytes(ramp(), WindowCenter=1000, WindowWidth=500)))
    assert bool(decode(data, "x.dcm").notes) == bool(function)


def test_a_table_that_understates_its_bits_is_not_washed_out() -> None:
    honest = dicom_bytes(ramp(), VOILUTSequence=lut([v * 16 for v in range(4096)]))
    wrong = dicom_bytes(ramp(), VOILUTSequence=lut([v * 16 for v in range(4096)], bits=8))
    assert np.array_equal(shown(wrong), shown(honest))


@pytest.mark.parametrize(("bits", "high"), [(0, 0), (17, 16), (12, 3), (12, 16)])
def test_bits_that_cannot_be_take_the_whole_word_and_are_said(bits: int, high: int) -> None:
    picture = decode(dicom_bytes(ramp(65535), bits=bits, high=high), "x.dcm")
    assert any("do not fit" in note for note in picture.notes) or bits == 0
    assert picture.bits == 16


def test_spacing_prefers_the_body_then_the_detector_then_the_film() -> None:
    def spacing(**tags: object) -> tuple[float, float] | None:
        return decode(dicom_bytes(ramp(), **tags), "x.dcm").spacing_mm

    assert spacing(PixelSpacing=[0.2, 0.3], ImagerPixelSpacing=[0.1, 0.1]) == (0.2, 0.3)
    assert spacing(PixelSpacing=[0, 0], ImagerPixelSpacing=[0.1, 0.15]) == (0.1, 0.15)
    assert spacing(PixelSpacing=[0.1, 0.1, 0.1], NominalScannedPixelSpacing=[0.4, 0.4]) == (0.4, 0.4)
    assert spacing() is None
    zero = decode(dicom_bytes(ramp(), PixelSpacing=[0, 0]), "x.dcm")
    assert any("PixelSpacing" in note for note in zero.notes)
