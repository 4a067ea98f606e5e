"""Recipes: the published procedures bit for bit, every step, and what a wrong file is told."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from cxrprep.config.job import named_recipes
from cxrprep.errors import ConfigError, UsageError
from cxrprep.images.decode import decode
from cxrprep.images.geometry import CropBorder
from cxrprep.images.radiograph import Radiograph
from cxrprep.images.recipe import Recipe, load_recipe, parse_recipe
from cxrprep.images.resample import resize
from cxrprep.images.transforms import Bits, Clahe, Invert, Polarity, Stretch, Voi, equalizing
from tests.images.made import dataset_of, dicom_bytes, ramp, real, shown, written

EXAMPLES = sorted((Path(__file__).parents[2] / "configs" / "recipes").glob("*.toml"))


def made(steps: str, *, top: str = "", output: str = "") -> Recipe:
    """A recipe that begins with ``voi`` and goes on with ``steps``, one a line: ``name key = value, key = value``."""
    text = top + '\n[[step]]\ndo = "voi"\n'
    for line in filter(None, (line.strip() for line in steps.splitlines())):
        name, _, options = line.partition(" ")
        text += f'[[step]]\ndo = "{name}"\n' + "\n".join(options.split(", ")) + "\n"
    return parse_recipe(text + output, "mine.toml", "mine")


def picture(pixels: np.ndarray, **options: object) -> Radiograph:
    bits = 8 if pixels.dtype == np.uint8 else 16
    return decode(dicom_bytes(pixels, bits=bits, **options), "x.dcm")


# ---- the published procedures, written out anew ----


def mimic(dataset: Dataset) -> np.ndarray:
    """MIMIC-CXR-JPG: the function that the data set's author published (MIT-LCP/mimic-cxr issue 16), before JPEG."""
    image = dataset.pixel_array
    assert image.ndim == 2
    image = image - image.min()
    image = (image / image.max() * 255).astype(np.uint8)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        image = 255 - image
    return cv2.equalizeHist(image)


def chexpert(dataset: Dataset) -> np.ndarray:
    """CheXpert: the answer of one of the paper's authors (stanfordmlgroup/chexpert-labeler issue 11), before JPEG."""
    image = dataset.pixel_array
    image = cv2.convertScaleAbs(image, alpha=255.0 / image.max())
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        image = 255 - image
    return cv2.equalizeHist(image)


PUBLISHED = pytest.mark.parametrize(("recipe", "published"), [("mimic-cxr-jpg", mimic), ("chexpert-jpg", chexpert)])


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG1_UNCI.dcm", "RG3_UNCR.dcm", "RG3_J2KI.dcm"])
@PUBLISHED
def test_published_recipes_are_bit_equal_on_real_radiographs(name: str, recipe: str, published: object) -> None:
    data = real(name)
    ours = load_recipe(recipe)(decode(data, name)).pixels
    assert np.array_equal(ours, published(pydicom.dcmread(io.BytesIO(data))))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@PUBLISHED
def test_published_recipes_are_bit_equal_on_any_range(
    bits: int, photometric: str, recipe: str, published: object
) -> None:
    rng = np.random.default_rng(bits)
    kind = np.uint8 if bits == 8 else np.uint16
    for _ in range(12):
        low, high = sorted(rng.integers(0, 1 << bits, 2))
        pixels = rng.integers(low, high + 2, (61, 47)).clip(0, (1 << bits) - 1).astype(kind)
        # Windows, tables and padding are in the file, and both procedures leave them alone.
        tags = {"WindowCenter": 100, "WindowWidth": 50, "PixelPaddingValue": int(pixels[0, 0])}
        dataset = dataset_of(pixels, bits=bits, photometric=photometric, **tags)
        data = written(dataset)
        assert np.array_equal(load_recipe(recipe)(decode(data, "x.dcm")).pixels, published(dataset))


def test_a_published_jpeg_is_opencvs_own_at_quality_95(tmp_path: Path) -> None:
    from cxrprep.images.conversion import ConversionTask, ConvertItem
    from cxrprep.images.convert import converted
    from cxrprep.images.local_files import open_store

    (tmp_path / "x.dcm").write_bytes(real("RG3_UNCR.dcm"))
    chosen = load_recipe("mimic-cxr-jpg")
    task = ConversionTask(chosen, chosen.fingerprint(), open_store(tmp_path / "out"))
    done = converted(ConvertItem(str(tmp_path / "x.dcm"), "x.dcm"), task)
    assert done.status == "ok"
    ours = cv2.imread(str(tmp_path / "out" / "x.jpg"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(tmp_path / "theirs.jpg"), mimic(pydicom.dcmread(tmp_path / "x.dcm")))
    assert np.array_equal(ours, cv2.imread(str(tmp_path / "theirs.jpg"), cv2.IMREAD_UNCHANGED))


def test_xrv_224_is_what_torchxrayvision_feeds_its_models() -> None:
    """Its documented order: normalise, XRayCenterCrop, XRayResizer(224, engine "cv2"); 255 is its maxval for 8 bits."""
    data = dicom_bytes(_wide(), WindowCenter=2048, WindowWidth=4096)
    ours = load_recipe("xrv-224")(decode(data, "x.dcm")).pixels
    assert ours.shape == (224, 224)
    image = shown(data).astype(np.float32)
    normalised = (2 * (image / 255.0) - 1.0) * 1024
    rows, columns = normalised.shape
    side = min(rows, columns)
    top, left = rows // 2 - side // 2, columns // 2 - side // 2
    cropped = normalised[top : top + side, left : left + side]
    theirs = cv2.resize(cropped, (224, 224), interpolation=cv2.INTER_AREA)
    # Their numbers are floats; ours are rounded to 8 bits, of which one level is 2048 / 255.
    assert np.abs((2 * (ours / 255.0) - 1.0) * 1024 - theirs).max() <= 2048 / 255 / 2 + 0.01


def _wide() -> np.ndarray:
    noise = np.random.default_rng(9).random((501, 640))
    return (cv2.GaussianBlur(noise, (0, 0), 3) * 12000 - 4000).clip(0, 4095).astype(np.uint16)


# ---- steps ----


def test_equalizing_is_opencvs_own_in_every_entry() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        low, high = sorted(rng.integers(0, 256, 2))
        image = rng.integers(low, high + 1, (97, 61)).astype(np.uint8)
        counts = np.bincount(image.ravel(), minlength=256).astype(np.float32)
        assert np.array_equal(equalizing(counts)[image], cv2.equalizeHist(image))


def test_equalising_after_a_resize_is_opencvs_too() -> None:
    data = dicom_bytes(ramp())
    ours = made("resize shortest = 32\nequalize")(decode(data, "x.dcm")).pixels
    assert np.array_equal(ours, cv2.equalizeHist(cv2.resize(shown(data), (32, 32), interpolation=cv2.INTER_AREA)))


def test_stretch_in_sixteen_bits_reaches_both_ends() -> None:
    pixels = Stretch(bits=16)(picture(ramp(1000))).settled().pixels
    assert np.array_equal(pixels, (ramp(1000).astype(np.int64) * 65535 // 1000).astype(np.uint16))


def test_stretch_of_a_constant_image_is_black_and_said() -> None:
    constant = Stretch()(picture(np.full((8, 8), 7, np.uint16)))
    assert not constant.settled().pixels.any()
    assert constant.notes == ["all pixels have one value"]


def test_polarity_does_nothing_twice_and_invert_undoes_itself() -> None:
    once = Polarity()(Stretch()(picture(ramp(), photometric="MONOCHROME1")))
    assert np.array_equal(Polarity()(once).settled().pixels, once.settled().pixels)
    assert np.array_equal(Invert()(Invert()(once)).settled().pixels, once.settled().pixels)
    assert np.array_equal(Invert()(once).settled().pixels, 255 - once.settled().pixels)


def test_clahe_is_opencvs() -> None:
    plain = Voi()(picture(_wide()))
    theirs = cv2.createCLAHE(3.0, (4, 4)).apply(plain.settled().pixels)
    assert np.array_equal(Clahe(clip=3.0, tiles=4)(plain).pixels, theirs)


@pytest.mark.parametrize(("bits", "to"), [(8, 16), (16, 8), (16, 16)])
def test_bits_keep_black_and_white_and_round(bits: int, to: int) -> None:
    plain = Voi(bits=bits)(picture(ramp(65535))).settled()
    there = Bits(to=to)(plain).settled().pixels
    assert {int(there.min()), int(there.max())} == {0, (1 << to) - 1}
    assert np.array_equal(there, np.rint(plain.pixels.astype(np.float64) * ((1 << to) - 1) / ((1 << bits) - 1)))


def test_borders_that_are_uniform_are_cut_and_nothing_else() -> None:
    image = np.random.default_rng(3).integers(40, 200, (60, 80)).astype(np.uint8)
    framed = cv2.copyMakeBorder(image, 7, 3, 5, 11, cv2.BORDER_CONSTANT, value=255)
    cut = CropBorder()(Voi()(picture(framed)))
    assert np.array_equal(cut.pixels, image)
    assert (cut.frame.left, cut.frame.top) == (-5, -7)
    uneven = framed.copy()
    uneven[:7:2, :] = 253
    uneven[:, 85:] = 255
    assert np.array_equal(CropBorder(tolerance=2)(Voi()(picture(uneven))).pixels, image)
    blank = np.full((20, 20), 9, np.uint8)
    assert CropBorder()(Voi()(picture(blank))).pixels.shape == (20, 20)


def test_a_border_crop_never_takes_more_than_its_share() -> None:
    speck = np.zeros((100, 100), np.uint8)
    speck[97, 98] = 200
    assert CropBorder(largest=0.3)(Voi()(picture(speck))).pixels.shape == (68, 69)


@pytest.mark.parametrize(
    ("step", "shape"),
    [
        ("resize shortest = 50", (50, 64)),
        ("resize longest = 50", (39, 50)),
        ("resize square = 50", (50, 50)),
        ("resize width = 30, height = 70", (70, 30)),
        ("resize shortest = 1000", (1000, 1277)),
        ("resize shortest = 1000, enlarge = false", (501, 640)),
        ("pad square = 700", (700, 700)),
        ("pad width = 600, height = 600", (600, 640)),
        ("center-crop", (501, 501)),
        ("center-crop square = 100", (100, 100)),
        ("center-crop width = 100, height = 2000", (501, 100)),
    ],
)
def test_sizes_are_those_that_are_asked_for(step: str, shape: tuple[int, int]) -> None:
    assert made(step)(picture(_wide())).pixels.shape == shape


@pytest.mark.parametrize("method", ["area", "nearest"])
def test_filters_are_opencvs(method: str) -> None:
    flag = getattr(cv2, f"INTER_{method.upper()}")
    ours = made(f'resize square = 77, filter = "{method}"')(picture(_wide())).pixels
    assert np.array_equal(ours, cv2.resize(shown(dicom_bytes(_wide(), bits=16)), (77, 77), interpolation=flag))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_the_area_average_in_tiles_is_opencvs_bit_for_bit(kind: type) -> None:
    rng = np.random.default_rng(11)
    for _ in range(60):
        columns, rows = (int(side) for side in rng.integers(448, 700, 2))
        width, height = (int(rng.integers(1, side + 1)) for side in (columns, rows))
        if rng.random() < 0.7:
            columns, rows, width, height = (max(4, side // 4 * 4) for side in (columns, rows, width, height))
        pixels = rng.integers(0, np.iinfo(kind).max + 1, (rows, columns)).astype(kind)
        theirs = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        assert np.array_equal(resize(pixels, width, height, "area"), theirs), (columns, rows, width, height)


# ---- the fast variant ----


def test_the_fast_variant_is_near_and_keeps_the_geometry() -> None:
    # Moved by a pixel, so that halving averages across the blocks.
    blocks = np.roll(np.kron(_wide()[:500], np.ones((5, 5), np.uint16)), 1, axis=(0, 1))
    data = dicom_bytes(blocks, WindowCenter=1800, WindowWidth=3000)
    exact, fast = (load_recipe(name)(decode(data, "x.dcm")) for name in ("shortest-512", "shortest-512-fast"))
    assert exact.frame == fast.frame
    apart = np.abs(exact.pixels.astype(int) - fast.pixels)
    assert not np.array_equal(exact.pixels, fast.pixels)
    assert apart.mean() < 1
    assert load_recipe("shortest-512").exact
    assert not load_recipe("shortest-512-fast").exact


def large(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(np.repeat(pixels, 20, axis=0), 20, axis=1)


@pytest.mark.parametrize(
    ("pixels", "tags"),
    [
        ((ramp().astype(np.int32) - 2048).astype(np.int16), {}),
        (ramp(), {"PixelPaddingValue": 0}),
        (ramp() | (np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) << 12), {}),
        ((ramp() << np.uint16(4)).astype(np.uint16), {"high": 15}),
    ],
    ids=["signed", "padding", "rubbish", "high-bit"],
)
def test_words_that_have_no_average_are_looked_up_first(pixels: np.ndarray, tags: dict) -> None:
    data = dicom_bytes(large(pixels), **tags)
    exact, fast = (load_recipe(name)(decode(data, "x.dcm")).pixels for name in ("square-224", "square-224-fast"))
    assert np.abs(exact.astype(int) - fast).max() <= 2


def test_a_jpeg_is_decoded_smaller_only_where_the_recipe_says_so() -> None:
    exact, fast = load_recipe("square-224"), load_recipe("square-224-fast")
    assert exact.reduction(2320, 2828) == 1
    assert fast.reduction(2320, 2828) == 4
    # Sides that do not divide would stretch the content.
    assert fast.reduction(2321, 2828) == 1
    equalised = made('equalize\nresize longest = 224, filter = "area-fast"', top="exact = false")
    assert equalised.reduction(2320, 2828) == 1


def test_a_jpeg_that_is_decoded_smaller_keeps_frame_and_spacing() -> None:
    smooth = cv2.GaussianBlur(np.random.default_rng(2).integers(0, 256, (960, 800)).astype(np.uint8), (0, 0), 9)
    data = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    results = []
    for name in ("square-224", "square-224-fast"):
        recipe = load_recipe(name)
        source = decode(data, "x.jpg", reduce=recipe.reduction)
        source.spaced((0.2, 0.1))
        results.append(recipe(source))
    exact, fast = results
    assert exact.frame.visible == pytest.approx(fast.frame.visible)
    assert exact.spacing_mm == pytest.approx(fast.spacing_mm)
    assert np.abs(exact.pixels.astype(int) - fast.pixels).max() <= 4


# ---- files ----


def test_every_named_recipe_loads_and_has_a_fingerprint_of_its_own() -> None:
    recipes = [load_recipe(name) for name in named_recipes()]
    # EVA-X and DINOv2 take the same pixels; all others differ.
    assert len({recipe.fingerprint() for recipe in recipes if recipe.name != "eva-x-256"}) == len(recipes) - 1
    assert all(recipe.summary for recipe in recipes)
    assert {"square-224", "square-512", "shortest-512", "mimic-cxr-jpg", "chexpert-jpg", "xrv-224"} <= set(
        named_recipes()
    )


@pytest.mark.parametrize("name", named_recipes())
def test_every_named_recipe_takes_every_kind_of_source(name: str) -> None:
    png = cv2.imencode(".png", ramp(255, np.uint8))[1].tobytes()
    for data in (dicom_bytes(_wide(), photometric="MONOCHROME1"), png):
        recipe = load_recipe(name)
        result = recipe(decode(data, "x.dcm", reduce=recipe.reduction))
        assert result.pixels.dtype == (np.uint8 if result.bits == 8 else np.uint16)
        assert result.table is None


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_in_configs_is_a_recipe_that_works(path: Path) -> None:
    recipe = load_recipe(str(path))
    result = recipe(decode(dicom_bytes(_wide(), photometric="MONOCHROME1"), "x.dcm"))
    assert result.pixels.size
    assert recipe.name == path.stem
    # An example that says the same as a named recipe teaches nothing.
    assert recipe.fingerprint() not in {load_recipe(name).fingerprint() for name in named_recipes()}


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


def test_the_fingerprint_follows_what_changes_pixels_and_nothing_else() -> None:
    plain = made("resize shortest = 50")
    assert plain.fingerprint() == made("resize shortest = 50", top='summary = "other words"').fingerprint()
    assert plain.fingerprint() == dataclasses.replace(plain, name="other").fingerprint()
    others = [
        made("resize shortest = 51"),
        made('resize shortest = 50, filter = "linear"'),
        made("resize shortest = 50\ninvert"),
        made("invert\nresize shortest = 50"),
        made("resize shortest = 50", output='[output]\nformat = "jxl"'),
    ]
    assert len({plain.fingerprint(), *(other.fingerprint() for other in others)}) == 6


WRONG = [
    ("sumary = 1", "line 1: unknown key 'sumary'", "did you mean summary?"),
    ('[[step]]\ndo = "voi"\nsorce = "lut"', "line 3: unknown key 'step.sorce'", "did you mean source?"),
    (
        '[[step]]\ndo = "voi"\n\n[[step]]\ndo = "rezise"',
        "line 5: unknown step 'rezise'",
        "did you mean resize?",
    ),
    ('[[step]]\ndo = "voi"\nsource = "lutt"', "line 3: step.source: unknown value 'lutt'", "did you mean lut?"),
    ('[[step]]\ndo = "voi"\nbits = 12', "line 3: step.bits: unknown value 12", "known: 8, 16"),
    ('[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nshortest = "512"', "line 5", "whole number"),
    ('[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nshortest = 0', "line 5", "the smallest is 1"),
    ('[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nshortest = true', "line 5", "whole number"),
    ('[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"', "line 3: resize has no size", "shortest"),
    ('[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nwidth = 3', "line 3", "width and height"),
    ('[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nsquare = 3\nwidth = 3', "line 5", ""),
    ('[[step]]\ndo = "voi"\n[[step]]\ndo = "pad"\nwidth = 3', "line 3: pad needs height", "square"),
    ('[[step]]\ndo = "voi"\n[[step]]\ndo = "pad"\nsquare = 9\nvalue = 300', "line 3: 300 is not a value", "255"),
    ('[[step]]\ndo = "invert"', "line 1: the values of the file", "voi"),
    ('[[step]]\ndo = "stretch"\n[[step]]\ndo = "voi"', "line 3: the values of the file", "voi"),
    ('[[step]]\ndo = "voi"\nbits = 16\n[[step]]\ndo = "equalize"', "line 4: this step works on 8 bits", "bits"),
    ('[[step]]\ndo = "voi"\nbits = 16\n[output]\nformat = "jpeg"', "line 5: jpeg holds 8 bits", "png"),
    ('[[step]]\ndo = "voi"\n[output]\nformt = "jpeg"', "line 4: unknown key 'output.formt'", "did you mean format?"),
    ('[[step]]\ndo = "voi"\n[output]\nformat = "jpg"', "line 4", "did you mean jpeg?"),
    ('[[step]]\ndo = "voi"\n[output]\nquality = 101', "line 4", "the largest is 100"),
    ('[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nshortest = 9\nfilter = "area-fast"', "line 3", "exact = false"),
    ('exact = "no"\n[[step]]\ndo = "voi"', "line 1", "true or false"),
    ("[[step]]\nbits = 8", "line 1: this step has no do", "voi"),
    ("summary = ", "line 1", "text needs quotes"),
    ("", "a recipe needs steps", "[[step]]"),
    ("step = 3", "line 1: step: expected a list of tables", ""),
    ('output = 3\n[[step]]\ndo = "voi"', "line 1: output: expected a table, found 3", ""),
]


@pytest.mark.parametrize(("text", "message", "hint"), WRONG)
def test_a_wrong_recipe_is_told_the_line_and_the_nearest_name(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(text, "mine.toml", "mine")
    assert caught.value.message.startswith("mine.toml")
    assert message in caught.value.message
    assert hint in f"{caught.value.message} {caught.value.hint}"


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("square-22")
    assert "did you mean square-224?" in caught.value.hint
