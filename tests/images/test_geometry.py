"""Geometry beyond sizes: square pixels, millimetres, borders with noise, percentiles behind voi."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from cxrprep.errors import ImageError
from cxrprep.images.decode import decode
from cxrprep.images.recipe import load_recipe, parse_recipe
from tests.images.made import dicom_bytes

NOT_SQUARE = "the pixels of the file are not square: the step square-pixels makes them so"
DISC = (cv2.circle(np.zeros((200, 200)), (100, 100), 70, 1.0, -1) * 4095).astype(np.uint16)
SQUEEZED = np.ascontiguousarray(DISC[::2])


def recipe(*steps: str):
    lines = ['[[step]]\ndo = "voi"']
    for step in steps:
        name, *options = step.split(" ", 1)
        lines.append(f'[[step]]\ndo = "{name}"\n' + "\n".join(options and options[0].split(", ")))
    return parse_recipe("\n".join(lines), "mine.toml", "mine")


@pytest.mark.parametrize(
    "header", [{"PixelSpacing": ["0.4", "0.2"]}, {"PixelAspectRatio": [2, 1]}, {"ImagerPixelSpacing": ["0.4", "0.2"]}]
)
def test_pixels_become_square_by_spacing_or_by_ratio(header: dict) -> None:
    data = dicom_bytes(SQUEEZED, **header)
    made = recipe("square-pixels")(decode(data, "x.dcm"))
    assert made.pixels.shape == (200, 200)
    assert np.abs(made.pixels.astype(int) - (DISC >> 4)).mean() < 1.5
    assert made.notes == []
    if "PixelAspectRatio" not in header:
        assert made.spacing_mm == pytest.approx((0.2, 0.2))


def test_a_ratio_counts_only_where_no_spacing_is_stated() -> None:
    data = dicom_bytes(DISC, PixelSpacing=["0.2", "0.2"], PixelAspectRatio=[2, 1])
    assert recipe("square-pixels")(decode(data, "x.dcm")).pixels.shape == (200, 200)


@pytest.mark.parametrize("name", ["square-224", "shortest-512", "mimic-cxr-jpg"])
def test_pixels_that_are_not_square_are_noted_and_left(name: str) -> None:
    squeezed = load_recipe(name)(decode(dicom_bytes(SQUEEZED, PixelSpacing=["0.4", "0.2"]), "x.dcm"))
    plain = load_recipe(name)(decode(dicom_bytes(SQUEEZED), "x.dcm"))
    assert NOT_SQUARE in squeezed.notes
    assert NOT_SQUARE not in plain.notes
    assert np.array_equal(squeezed.pixels, plain.pixels)


def test_boxes_follow_square_pixels() -> None:
    from cxrprep.model import Box

    made = recipe("square-pixels", "resize longest = 100")(
        decode(dicom_bytes(SQUEEZED, PixelSpacing=["0.4", "0.2"]), "x.dcm")
    )
    (box,) = made.frame.boxes([Box("Mass", 20, 10, 40, 20)])
    assert (box.x, box.y, box.w, box.h) == pytest.approx((10, 10, 20, 20))


def test_a_pixel_has_the_millimetres_that_are_asked_for() -> None:
    made = recipe("spacing mm = 0.5")(decode(dicom_bytes(SQUEEZED, PixelSpacing=["0.4", "0.2"]), "x.dcm"))
    assert made.pixels.shape == (80, 80)
    assert made.spacing_mm == pytest.approx((0.5, 0.5))


def test_an_image_without_spacing_has_no_millimetres() -> None:
    with pytest.raises(ImageError, match="needs the size of a pixel"):
        recipe("spacing mm = 0.5")(decode(dicom_bytes(SQUEEZED), "x.dcm"))


@pytest.mark.parametrize("level", [0, 250])
@pytest.mark.parametrize("slant", [0, 3])
def test_borders_with_noise_letters_and_a_slant_are_cropped(level: int, slant: int) -> None:
    rng = np.random.default_rng(1)
    drawn = np.full((300, 260), float(level))
    drawn[40:270, 30:240] = 80 + 60 * rng.random((230, 210))
    if slant:
        turn = cv2.getRotationMatrix2D((130, 150), slant * 0.3, 1)
        drawn = cv2.warpAffine(drawn, turn, (260, 300), borderValue=level)
    drawn += rng.normal(0, 1.2, drawn.shape)
    drawn[10:20, 100:112] = 255 - level
    pixels = np.clip(drawn, 0, 255).astype(np.uint8)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    strict = recipe("crop-border tolerance = 4")(decode(data, "x.png"))
    assert strict.pixels.shape[0] >= 260
    made = recipe("crop-border tolerance = 6, strays = 0.08")(decode(data, "x.png"))
    rows, columns = made.pixels.shape
    assert 226 <= rows <= 245
    assert 206 <= columns <= 225


def test_a_stretch_behind_voi_works_on_what_voi_shows() -> None:
    words = np.linspace(1000, 3000, 4096).astype(np.uint16).reshape(64, 64)
    data = dicom_bytes(words, WindowCenter=2048, WindowWidth=4096)
    plain = recipe()(decode(data, "x.dcm")).pixels
    made = recipe('stretch rule = "min-max"')(decode(data, "x.dcm"))
    low, high = int(plain.min()), int(plain.max())
    assert np.array_equal(made.pixels, (plain.astype(int) - low) * 255 // (high - low))
    assert made.voi == "window, stretch min-max"


@pytest.mark.parametrize("behind", [False, True])
def test_percentiles_leave_out_a_bright_marker(behind: bool) -> None:
    words = np.linspace(500, 1500, 10_000).astype(np.uint16).reshape(100, 100)
    words[:3, :10] = 4095
    data = dicom_bytes(words)
    step = 'do = "stretch"\nrule = "percentile"\nlow = 1\nhigh = 99'
    text = f'[[step]]\ndo = "voi"\n[[step]]\n{step}' if behind else f"[[step]]\n{step}"
    made = parse_recipe(text, "mine.toml", "mine")(decode(data, "x.dcm")).pixels
    low, high = np.percentile(words, [1, 99])
    wanted = np.clip((words - low) / (high - low), 0, 1) * 255
    assert np.abs(made - wanted).max() <= (6 if behind else 1.5)
    assert made[0, 0] == 255


def test_an_anti_aliased_kernel_counts_every_pixel() -> None:
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255
    data = cv2.imencode(".png", stripes)[1].tobytes()
    for method in ("linear", "cubic", "lanczos"):
        made = recipe(f'resize square = 64, filter = "{method}"')(decode(data, "x.png")).pixels
        assert abs(int(made[32, 32]) - 128) <= 2, method
        assert np.array_equal(
            made,
            np.asarray(
                Image.fromarray(stripes).resize(
                    (64, 64), {"linear": Image.BILINEAR, "cubic": Image.BICUBIC, "lanczos": Image.LANCZOS}[method]
                )
            ),
        )


def test_fingerprints_tell_the_anti_aliased_kernels_from_what_was_before_and_keep_all_others() -> None:
    described = recipe('resize square = 64, filter = "lanczos"').describe()["steps"][1]
    assert described["kernel"] == "pillow"
    assert set(recipe("resize square = 64").describe()["steps"][1]) == {
        "do", "width", "height", "shortest", "longest", "filter", "enlarge",
    }  # fmt: skip
