"""Recipes of papers against the arithmetic of the originals: pydicom, numpy and Pillow, step by step."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import PIL
import pydicom
import pytest
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from cxrprep.errors import ImageError
from cxrprep.images import antialias
from cxrprep.images.decode import decode
from cxrprep.images.recipe import load_recipe
from tests.images.made import dicom_bytes, lut
from tests.parts import shared_data

PILLOW_13 = int(PIL.__version__.split(".")[0]) >= 13
RNG = np.random.default_rng(22)
WORDS = np.clip(RNG.normal(1800, 600, (517, 431)), 40, 3900).astype(np.uint16)


def torchvision_resize(image: Image.Image, size: int, how: Image.Resampling) -> Image.Image:
    """``transforms.Resize(size)`` on a PIL image."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    other = int(size * long / short)
    return image.resize((size, other) if width <= height else (other, size), how)


def torchvision_crop(image: Image.Image, size: int) -> Image.Image:
    """``transforms.CenterCrop(size)`` on a PIL image."""
    left, top = round((image.width - size) / 2.0), round((image.height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


def biovil(crop: int) -> Callable[[np.ndarray], Image.Image]:
    def run(raw: np.ndarray) -> Image.Image:
        array = raw.astype(float)
        array -= array.min()
        array /= array.max()
        array *= 255
        return torchvision_crop(
            torchvision_resize(Image.fromarray(array.astype(np.uint8)), 512, Image.Resampling.BILINEAR), crop
        )

    return run


def chexzero(grey: np.ndarray) -> Image.Image:
    image = Image.fromarray(grey)
    size = tuple(int(side * 320 / max(image.size)) for side in image.size)
    canvas = Image.new("L", (320, 320))
    canvas.paste(image.resize(size, Image.Resampling.LANCZOS), ((320 - size[0]) // 2, (320 - size[1]) // 2))
    return canvas


DISPLAYED: dict[str, Callable[[np.ndarray], Image.Image]] = {
    "biovil": biovil(480),
    "biovil-t": biovil(448),
    "chexzero-320": chexzero,
    "r2gen-224": lambda grey: Image.fromarray(grey).resize((224, 224), Image.Resampling.BILINEAR),
    "ark-256": lambda grey: Image.fromarray(grey).resize((256, 256), Image.Resampling.BILINEAR),
    "ark-plus-896": lambda grey: Image.fromarray(grey).resize((896, 896), Image.Resampling.BILINEAR),
    "eva-x-256": lambda grey: torchvision_resize(Image.fromarray(grey), 256, Image.Resampling.BICUBIC),
    "dinov2-256": lambda grey: torchvision_resize(Image.fromarray(grey), 256, Image.Resampling.BICUBIC),
    "medimageinsight-480": lambda grey: Image.fromarray(grey).resize((480, 480), Image.Resampling.BICUBIC),
}


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("shape", [(1024, 1024), (601, 601)])
@pytest.mark.parametrize("name", DISPLAYED)
def test_square_images_are_bit_equal_whatever_pillow_is_here(name: str, shape: tuple[int, int]) -> None:
    grey = RNG.integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(load_recipe(name)(decode(png(grey), "x.png")).pixels, np.asarray(DISPLAYED[name](grey)))


@pytest.mark.skipif(not PILLOW_13, reason="before Pillow 13 the horizontal pass always came first")
@pytest.mark.parametrize("shape", [(700, 525), (525, 700), (601, 433), (390, 320)])
@pytest.mark.parametrize("name", DISPLAYED)
def test_images_of_any_shape_are_bit_equal(name: str, shape: tuple[int, int]) -> None:
    grey = RNG.integers(3, 250, shape, dtype=np.uint8)
    assert np.array_equal(load_recipe(name)(decode(png(grey), "x.png")).pixels, np.asarray(DISPLAYED[name](grey)))


def test_real_radiographs_are_bit_equal() -> None:
    for path in sorted(shared_data().rglob("*.png"))[:3]:
        data = path.read_bytes()
        grey = np.asarray(Image.open(path).convert("L"))
        for name, original in DISPLAYED.items():
            assert np.array_equal(load_recipe(name)(decode(data, path.name)).pixels, np.asarray(original(grey))), name


@pytest.mark.parametrize("crop", [480, 448])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_biovil_takes_raw_values_without_inversion(crop: int, photometric: str) -> None:
    name = "biovil" if crop == 480 else "biovil-t"
    square = np.ascontiguousarray(WORDS[:431, :431])
    data = dicom_bytes(square, photometric=photometric, WindowCenter=1800, WindowWidth=900)
    assert np.array_equal(load_recipe(name)(decode(data, "x.dcm")).pixels, np.asarray(biovil(crop)(square)))


HEADERS = [
    {},
    {"WindowCenter": 1800, "WindowWidth": 1500},
    {"WindowCenter": 1800.5, "WindowWidth": 1501.25, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 1800, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": 500, "WindowWidth": 1500, "RescaleSlope": 0.684, "RescaleIntercept": -100},
    {"WindowCenter": 1800, "WindowWidth": 1500, "RescaleSlope": 1, "RescaleIntercept": 0},
    {"VOILUTSequence": lut(np.linspace(4095, 0, 4096).astype(int).tolist(), bits=12)},
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: " ".join(header) or "no window")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_kaggle_minmax_is_pydicoms_voi_then_min_max(header: dict, photometric: str) -> None:
    data = dicom_bytes(np.ascontiguousarray(WORDS[:431, :431]), photometric=photometric, **header)
    dataset = pydicom.dcmread(io.BytesIO(data))
    shown = apply_voi_lut(dataset.pixel_array, dataset)
    if photometric == "MONOCHROME1":
        shown = np.amax(shown) - shown
    shown = shown - np.min(shown)
    shown = shown / np.max(shown)
    eight = (shown * 255).astype(np.uint8)
    wanted = np.asarray(Image.fromarray(eight).resize((512, 512), Image.Resampling.LANCZOS))
    assert np.array_equal(load_recipe("kaggle-minmax")(decode(data, "x.dcm")).pixels, wanted)


def _cxr_foundation(data: bytes) -> np.ndarray:
    dataset = pydicom.dcmread(io.BytesIO(data))
    pixels = apply_modality_lut(dataset.pixel_array, dataset)
    if "WindowCenter" in dataset and "WindowWidth" in dataset:
        c, w = dataset.WindowCenter, dataset.WindowWidth
        ends = (c - w / 2, c - 1 + w / 2)
        pixels = np.interp(np.clip(pixels, *ends), ends, (0, np.iinfo(pixels.dtype).max)).astype(pixels.dtype)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = np.max(pixels) - pixels
    if pixels.dtype.kind == "f":
        pixels = (pixels - pixels.min()).astype(np.uint16)
    elif pixels.dtype == np.int16:
        pixels = (pixels.astype(np.int32) - pixels.min()).astype(np.uint16)
    if pixels.dtype != np.uint8:
        pixels = np.interp(pixels, (pixels.min(), pixels.max()), (0, 65535)).astype(np.uint16)
    return pixels


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("kind", "header"),
    [
        (np.uint16, {}), (np.uint16, {"WindowCenter": 1800, "WindowWidth": 1500}), (np.uint8, {}),
        (np.uint8, {"WindowCenter": 100, "WindowWidth": 90}), (np.int16, {}),
        (np.uint16, {"RescaleSlope": 0.5, "RescaleIntercept": -3}),
    ],
)  # fmt: skip
def test_cxr_foundation_is_its_clients_arithmetic(photometric: str, kind: type, header: dict) -> None:
    words = (WORDS >> 4).astype(np.uint8) if kind is np.uint8 else WORDS.astype(kind)
    data = dicom_bytes(words, photometric=photometric, bits=8 if kind is np.uint8 else 12, **header)
    made = load_recipe("cxr-foundation-16bit")(decode(data, "x.dcm"))
    wanted = _cxr_foundation(data)
    assert made.pixels.dtype == wanted.dtype
    assert np.array_equal(made.pixels, wanted)


def test_cxr_foundation_refuses_what_its_client_refuses() -> None:
    data = dicom_bytes(WORDS, WindowCenter=100, WindowWidth=90, RescaleSlope=2, RescaleIntercept=1)
    with pytest.raises(ImageError, match="window after a rescale"):
        load_recipe("cxr-foundation-16bit")(decode(data, "x.dcm"))


@pytest.mark.skipif(not PILLOW_13, reason="before Pillow 13 the horizontal pass always came first")
@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_kernels_are_pillows_for_any_size(method: str, kind: type) -> None:
    how = getattr(Image.Resampling, method.upper())
    rng = np.random.default_rng(7)
    for _ in range(40):
        rows, columns, height, width = (int(side) for side in rng.integers(8, 260, 4))
        pixels = rng.integers(0, np.iinfo(kind).max + 1, (rows, columns)).astype(kind)
        theirs = np.asarray(Image.fromarray(pixels).resize((width, height), how))
        ours = antialias.resize(pixels, width, height, method)
        # Pillow adds up 16 bits in an order of its own: halves may round the other way.
        assert np.abs(ours.astype(int) - theirs).max() <= (0 if kind is np.uint8 else 1), (rows, columns, height, width)


def test_the_loader_finds_what_the_model_does_next_and_pixels_do_not_depend_on_it() -> None:
    recipe = load_recipe("eva-x-256")
    assert recipe.model["crop"] == 224
    assert recipe.model["mean"] == [0.49185243]
    assert recipe.fingerprint() == load_recipe("dinov2-256").fingerprint()
