"""Boxes follow pixels: whatever the steps, a box still holds what it held."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cxrprep.images.geometry import CenterCrop, CropBorder, Pad, Resize
from cxrprep.images.radiograph import CoordinateMap, Radiograph
from cxrprep.images.transforms import Step
from cxrprep.model import Box

SIDES = st.integers(24, 160)
STEPS = st.lists(
    st.one_of(
        st.builds(Resize, width=SIDES, height=SIDES),
        st.builds(Resize, shortest=SIDES),
        st.builds(Resize, longest=SIDES),
        st.builds(Resize, longest=SIDES, filter=st.just("area-fast")),
        st.builds(Pad, width=SIDES, height=SIDES, value=st.sampled_from([0, 20])),
        st.builds(CenterCrop),
        st.builds(CenterCrop, width=SIDES, height=SIDES),
        st.builds(CropBorder),
    ),
    max_size=5,
)


def picture(pixels: np.ndarray) -> Radiograph:
    rows, columns = pixels.shape
    return Radiograph(pixels, 8, "L", CoordinateMap.whole(columns, rows), spacing_mm=(0.2, 0.3))


def run(pixels: np.ndarray, steps: list[Step]) -> Radiograph:
    result = picture(pixels)
    for step in steps:
        result = step(result)
    return result


def blurred(pixels: np.ndarray, steps: list[Step]) -> float:
    """Over how many pixels of the result an edge may be spread: each resize adds one of its own, before or after."""
    result, spread = picture(pixels), 0.5
    for step in steps:
        before, result = result.frame, step(result)
        grown = max(result.frame.scale_x / before.scale_x, result.frame.scale_y / before.scale_y)
        if grown != 1 or result.frame.scale_x != before.scale_x:
            spread = spread * grown + max(1.0, grown)
    return spread


def edges(box: Box) -> tuple[float, float, float, float]:
    return box.x, box.y, box.x + box.w, box.y + box.h


@settings(max_examples=150, deadline=None)
@given(st.integers(40, 200), st.integers(40, 200), STEPS, st.data())
def test_a_bright_box_stays_where_its_pixels_are(
    rows: int, columns: int, steps: list[Step], data: st.DataObject
) -> None:
    x, y = data.draw(st.integers(0, columns - 20)), data.draw(st.integers(0, rows - 20))
    w, h = data.draw(st.integers(16, columns - x)), data.draw(st.integers(16, rows - y))
    # Grey noise, so that no border is uniform, and a box of white.
    pixels = (np.random.default_rng(1).random((rows, columns)) * 60).astype(np.uint8)
    pixels[y : y + h, x : x + w] = 255
    result = run(pixels, steps)
    boxes = result.frame.boxes([Box("Mass", x, y, w, h)])
    bright = np.argwhere(result.pixels > 160)
    if not boxes:
        # Cropped away: less than a tenth of it may be left.
        whole = w * h * result.frame.scale_x * result.frame.scale_y
        assert len(bright) <= 0.1 * whole + 2 * (w * result.frame.scale_x + h * result.frame.scale_y) + 4
        return
    left, top, right, bottom = edges(boxes[0])
    assume(min(right - left, bottom - top) >= 3)
    assert len(bright)
    found = bright[:, 1].min(), bright[:, 0].min(), bright[:, 1].max() + 1, bright[:, 0].max() + 1
    assert np.abs(np.array(found) - (left, top, right, bottom)).max() <= 1 + blurred(pixels, steps)


@settings(max_examples=150, deadline=None)
@given(st.integers(20, 200), st.integers(20, 200), STEPS, st.data())
def test_boxes_stay_inside_and_the_frame_leads_back(
    rows: int, columns: int, steps: list[Step], data: st.DataObject
) -> None:
    x, y = data.draw(st.floats(0, columns - 2)), data.draw(st.floats(0, rows - 2))
    w, h = data.draw(st.floats(1, columns - x)), data.draw(st.floats(1, rows - y))
    result = run((np.random.default_rng(2).random((rows, columns)) * 255).astype(np.uint8), steps)
    x0, y0, x1, y1 = result.frame.visible
    assert -1e-6 <= x0 <= x1 <= result.width + 1e-6
    assert -1e-6 <= y0 <= y1 <= result.height + 1e-6
    for box in result.frame.boxes([Box("Mass", x, y, w, h)]):
        left, top, right, bottom = edges(box)
        assert x0 - 1e-6 <= left < right <= x1 + 1e-6
        assert y0 - 1e-6 <= top < bottom <= y1 + 1e-6
        frame = result.frame
        # An edge that was not clipped goes back to where it came from.
        if left > x0 + 1e-6:
            assert (left - frame.left) / frame.scale_x == pytest.approx(x, abs=1e-6)
        if bottom < y1 - 1e-6:
            assert (bottom - frame.top) / frame.scale_y == pytest.approx(y + h, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 200), st.integers(20, 200), STEPS)
def test_the_body_keeps_its_size_in_millimetres(rows: int, columns: int, steps: list[Step]) -> None:
    result = run((np.random.default_rng(3).random((rows, columns)) * 255).astype(np.uint8), steps)
    assert result.spacing_mm is not None
    assert result.spacing_mm[0] * result.frame.scale_y == pytest.approx(0.2)
    assert result.spacing_mm[1] * result.frame.scale_x == pytest.approx(0.3)


def test_boxes_of_a_known_case() -> None:
    """NIH's square of 1024 to 512, padded to 600: halves, and 44 pixels to the right and down."""
    result = run(np.zeros((1024, 1024), np.uint8), [Resize(width=512, height=512), Pad(600, 600)])
    (box,) = result.frame.boxes([Box("Atelectasis", 225.5, 547.0, 86.0, 79.0)])
    assert edges(box) == pytest.approx((112.75 + 44, 273.5 + 44, 155.75 + 44, 313.0 + 44))


def test_a_box_that_a_crop_leaves_a_tenth_of_is_kept_clipped_and_less_is_dropped() -> None:
    result = run(np.zeros((100, 200), np.uint8), [CenterCrop()])
    assert result.frame.visible == (0, 0, 100, 100)
    kept = result.frame.boxes([Box("Mass", 30, 10, 40, 40), Box("Nodule", 9, 10, 41.9, 40), Box("Mass", 0, 0, 40, 40)])
    assert [(box.label, *edges(box)) for box in kept] == [("Mass", 0, 10, 20, 50)]


@pytest.mark.parametrize("shape", [(120, 90), (90, 120)])
def test_a_gradient_goes_where_the_frame_says(shape: tuple[int, int]) -> None:
    """Each output pixel's centre, carried back by the frame, is the place whose value it shows."""
    rows, columns = shape
    across = np.tile(np.linspace(0, 250, columns, dtype=np.float32), (rows, 1)).astype(np.uint8)
    down = np.tile(np.linspace(0, 250, rows, dtype=np.float32)[:, None], (1, columns)).astype(np.uint8)
    for pixels, axis in ((across, 1), (down, 0)):
        result = run(pixels, [CenterCrop(width=80, height=80), Resize(width=40, height=50), Pad(64, 64)])
        frame = result.frame
        scale, start = (frame.scale_x, frame.left) if axis == 1 else (frame.scale_y, frame.top)
        for place in range(20, 44, 6):
            source = (place + 0.5 - start) / scale - 0.5
            side = columns if axis == 1 else rows
            value = result.pixels[32, place] if axis == 1 else result.pixels[place, 32]
            assert value == pytest.approx(source / (side - 1) * 250, abs=3)
