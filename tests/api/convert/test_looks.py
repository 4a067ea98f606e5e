"""A result that hardly shows anything is said: a note on the image, and a line of the summary."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import cxrprep
from cxrprep.executors import Engine
from cxrprep.images.decode import decode
from cxrprep.images.quality import BLACK, WHITE, doubts, measure
from cxrprep.images.recipe import load_recipe
from tests.api.convert import hospital
from tests.parts import shared_data

# Centre and width of a window over 12 bits, and what is said of its result.
WINDOWS = [((2048, 4096), ""), ((100, 50), WHITE), ((4000, 100), BLACK)]


def test_wrong_windows_are_counted_in_the_summary(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for index in range(6):
        centre, width = WINDOWS[index % 3][0]
        data = hospital.dicom(hospital.body(index), WindowCenter=centre, WindowWidth=width)
        (root / f"i{index}.dcm").write_bytes(data)
    result = cxrprep.convert(root, recipe="square-224", out=tmp_path / "out", engine=Engine("inline"))
    assert sorted(result.value.notes) == sorted([(BLACK, 2), (WHITE, 2)])
    assert {("2 images", WHITE), ("2 images", BLACK)} <= set(result.rows)
    # What is known of them is not forgotten by a run that finds them done.
    again = cxrprep.convert(root, recipe="square-224", out=tmp_path / "out", engine=Engine("inline"))
    assert again.value.kept == 6
    assert again.value.notes == result.value.notes


@pytest.mark.parametrize(("window", "said"), WINDOWS)
@pytest.mark.parametrize("bits", [8, 16])
def test_padding_counts_for_nothing(window: tuple[int, int], said: str, bits: int, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        f'[[step]]\ndo = "voi"\nbits = {bits}\n[[step]]\ndo = "resize"\nlongest = 128\n'
        '[[step]]\ndo = "pad"\nwidth = 128\nheight = 128\n'
    )
    tall = hospital.body(1, rows=400, columns=90)
    data = hospital.dicom(tall, WindowCenter=window[0], WindowWidth=window[1])
    assert doubts(measure(load_recipe(str(mine))(decode(data, "x.dcm")))) == [said] * bool(said)


@pytest.mark.parametrize("recipe", ["square-224", "mimic-cxr-jpg"])
def test_real_radiographs_raise_no_alarm_and_wrongly_windowed_ones_do(recipe: str) -> None:
    chosen, names = load_recipe(recipe), sorted(shared_data().rglob("*.png"))[::6]
    assert names
    for name in names:
        assert doubts(measure(chosen(decode(name.read_bytes(), str(name))))) == [], name
    if recipe == "mimic-cxr-jpg":
        # It takes no window from the header.
        return
    for name in names:
        pixels = cv2.imread(str(name), cv2.IMREAD_GRAYSCALE).astype(np.uint16) << 4
        for (centre, width), said in WINDOWS:
            data = hospital.dicom(pixels, WindowCenter=centre, WindowWidth=width)
            assert doubts(measure(chosen(decode(data, name.name)))) == [said] * bool(said), name
