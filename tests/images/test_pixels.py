"""The grey scale, the published recipes, and outputs that other programs read back."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from cxrprep.errors import ImageError
from cxrprep.images.encode import Mark, encode, read_mark
from cxrprep.images.picture import Frame, Limits
from cxrprep.images.reading import decode, header
from cxrprep.images.recipe import OutputForm, load_recipe, named_recipes
from cxrprep.images.steps import Polarity, Stretch, Voi, equalizing
from tests.parts import need


def dicom_bytes(
    pixels: np.ndarray,
    *,
    photometric: str = "MONOCHROME2",
    bits: int = 12,
    high: int | None = None,
    syntax: str = ExplicitVRLittleEndian,
    **tags: object,
) -> bytes:
    """A DICOM file of a grey image; ``tags`` are set as they are."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else pixels.shape[2]
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1 if high is None else high
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def ramp(top: int = 4095, dtype: type = np.uint16) -> np.ndarray:
    return np.linspace(0, top, 64 * 64).astype(dtype).reshape(64, 64)


def lut(values: list[int], first: int = 0, bits: int = 16) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.add_new("LUTData", "OW", np.array(values, "<u2").tobytes())
    return Sequence([item])


def voi(data: bytes, **options: object) -> np.ndarray:
    return Voi(**options)(decode(data, "x.dcm")).settled().pixels


def pydicom_display(data: bytes, top: float) -> np.ndarray:
    """What pydicom makes of the file, on 0..255 by the known range ``top``, MONOCHROME1 inverted."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    y = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float64) / top
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        y = 1 - y
    return np.rint(np.clip(y, 0, 1) * 255).astype(np.uint8)


WINDOWS = [
    {"WindowCenter": 2048, "WindowWidth": 4096},
    {"WindowCenter": 1000, "WindowWidth": 500},
    {"WindowCenter": 1000.5, "WindowWidth": 1},
    {"WindowCenter": 1000, "WindowWidth": 800, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 2048, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": [900, 3000], "WindowWidth": [400, 100]},
]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", WINDOWS)
def test_windows_agree_with_pydicom_within_one_level(window: dict, photometric: str) -> None:
    data = dicom_bytes(ramp(), photometric=photometric, **window)
    ours, theirs = voi(data).astype(int), pydicom_display(data, 4095).astype(int)
    assert np.abs(ours - theirs).max() <= 1


def test_the_linear_window_follows_the_formula_of_the_standard() -> None:
    x = np.array([[0, 1, 2000, 2047], [2048, 2049, 4095, 4095]], np.uint16)
    data = dicom_bytes(x, WindowCenter=2048, WindowWidth=4096)
    expected = np.rint(((x - 2047.5) / 4095 + 0.5) * 65535)
    assert np.array_equal(voi(data, bits=16), expected.astype(np.uint16))


def test_a_voi_lut_goes_before_a_window_and_may_descend() -> None:
    values = list(range(65535, -1, -16))
    data = dicom_bytes(ramp(), VOILUTSequence=lut(values), WindowCenter=100, WindowWidth=20)
    shown = voi(data)
    assert shown[0, 0] == 255
    assert shown[-1, -1] == 0
    assert np.array_equal(voi(data, source="window"), voi(dicom_bytes(ramp(), WindowCenter=100, WindowWidth=20)))


def test_a_lut_of_eight_bits_is_not_indexed_in_eight_bits() -> None:
    data = dicom_bytes(ramp(), VOILUTSequence=lut([v * 255 // 4095 for v in range(4096)], bits=8))
    shown = voi(data)
    assert np.array_equal(shown, (ramp().astype(int) * 255 // 4095).astype(np.uint8))


def test_inputs_beyond_a_lut_take_its_ends() -> None:
    data = dicom_bytes(ramp(), VOILUTSequence=lut([10, 20, 30, 65535], first=1000))
    shown = voi(data, bits=16)
    assert shown[ramp() < 1000].max() == 10
    assert shown[ramp() > 1003].min() == 65535


def test_rescale_and_modality_lut_come_before_the_window() -> None:
    plain = dicom_bytes(ramp(), RescaleSlope=0.684, RescaleIntercept=200, WindowCenter=1600, WindowWidth=2800)
    dataset = pydicom.dcmread(io.BytesIO(plain))
    x = ramp() * 0.684 + 200
    expected = np.rint(np.clip((x - 1599.5) / 2799 + 0.5, 0, 1) * 255)
    assert dataset.RescaleSlope == pytest.approx(0.684)
    assert np.abs(voi(plain).astype(int) - expected).max() <= 1
    table = dicom_bytes(
        ramp(), ModalityLUTSequence=lut([v * 2 for v in range(4096)]), WindowCenter=4096, WindowWidth=8192
    )
    expected = np.rint(np.clip((ramp() * 2.0 - 4095.5) / 8191 + 0.5, 0, 1) * 255)
    assert np.abs(voi(table).astype(int) - expected).max() <= 1


def test_rubbish_above_the_stored_bits_is_masked() -> None:
    dirty = ramp() | np.uint16(0xF000)
    assert np.array_equal(voi(dicom_bytes(dirty)), voi(dicom_bytes(ramp())))


def test_a_high_bit_elsewhere_is_shifted_down() -> None:
    shifted = (ramp() << np.uint16(4)).astype(np.uint16)
    assert np.array_equal(voi(dicom_bytes(shifted, high=15)), voi(dicom_bytes(ramp())))


def test_signed_pixels_are_sign_extended_from_the_stored_bits() -> None:
    signed = (ramp().astype(np.int32) - 2048).astype(np.int16)
    data = dicom_bytes(signed, WindowCenter=0, WindowWidth=4096)
    expected = np.rint(np.clip((signed + 0.5) / 4095 + 0.5, 0, 1) * 255)
    assert np.abs(voi(data).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_whatever_the_polarity(photometric: str) -> None:
    pixels = ramp()
    pixels[:8] = 4095
    shown = voi(dicom_bytes(pixels, photometric=photometric, PixelPaddingValue=4095), source="minmax")
    assert (shown[:8] == 0).all()
    inside = shown[8:][pixels[8:] != 4095]
    assert {int(inside.min()), int(inside.max())} == {0, 255}


def test_inverse_shape_with_monochrome1_is_one_inversion() -> None:
    one = dicom_bytes(ramp(), photometric="MONOCHROME1")
    both = dicom_bytes(ramp(), photometric="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert np.array_equal(voi(one), voi(both))
    assert voi(one)[0, 0] == 255


@pytest.mark.parametrize(
    "window",
    [{"WindowCenter": 5}, {"WindowWidth": 0, "WindowCenter": 5}, {"WindowCenter": "", "WindowWidth": ""}],
)
def test_windows_that_break_the_standard_are_left_out_and_said(window: dict) -> None:
    data = dicom_bytes(ramp(), **window)
    assert np.array_equal(voi(data), voi(dicom_bytes(ramp())))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_transfer_syntaxes_give_the_same_pixels(syntax: str) -> None:
    plain = dicom_bytes(ramp())
    dataset = pydicom.dcmread(io.BytesIO(plain))
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    assert np.array_equal(decode(stream.getvalue(), "x.dcm").pixels, ramp())


def test_spacing_prefers_the_body_then_the_detector_and_ignores_zero() -> None:
    both = dicom_bytes(ramp(), PixelSpacing=[0.2, 0.3], ImagerPixelSpacing=[0.1, 0.1])
    assert decode(both, "x.dcm").spacing_mm == (0.2, 0.3)
    zero = decode(dicom_bytes(ramp(), PixelSpacing=[0, 0], ImagerPixelSpacing=[0.1, 0.1]), "x.dcm")
    assert zero.spacing_mm == (0.1, 0.1)
    assert any("PixelSpacing" in note for note in zero.notes)


# ---- the published procedures, written out anew ----


def mimic(dataset: Dataset) -> np.ndarray:
    image = dataset.pixel_array
    image = image - image.min()
    image = (image / image.max() * 255).astype(np.uint8)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        image = 255 - image
    return cv2.equalizeHist(image)


def chexpert(dataset: Dataset) -> np.ndarray:
    image = dataset.pixel_array
    image = cv2.convertScaleAbs(image, alpha=255.0 / image.max())
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        image = 255 - image
    return cv2.equalizeHist(image)


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG1_J2KR.dcm", "RG3_UNCR.dcm"])
@pytest.mark.parametrize(("recipe", "published"), [("mimic-cxr-jpg", mimic), ("chexpert-jpg", chexpert)])
def test_published_recipes_are_bit_equal_on_real_radiographs(name: str, recipe: str, published: object) -> None:
    need("pydicom-data")
    import data_store

    data = (Path(data_store.__file__).parent / "data" / name).read_bytes()
    ours = load_recipe(recipe)(decode(data, name)).pixels
    assert np.array_equal(ours, published(pydicom.dcmread(io.BytesIO(data))))


def test_equalizing_is_opencvs_own_in_every_entry() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        low, high = sorted(rng.integers(0, 256, 2))
        image = rng.integers(low, high + 1, (97, 61)).astype(np.uint8)
        counts = np.bincount(image.ravel(), minlength=256).astype(np.float32)
        assert np.array_equal(equalizing(counts)[image], cv2.equalizeHist(image))


def test_stretch_of_a_constant_image_is_black_and_said() -> None:
    picture = Stretch()(decode(dicom_bytes(np.full((8, 8), 7, np.uint16)), "x.dcm"))
    assert not picture.settled().pixels.any()
    assert picture.notes == ["all pixels have one value"]


def test_polarity_does_nothing_twice() -> None:
    picture = Polarity()(Stretch()(decode(dicom_bytes(ramp(), photometric="MONOCHROME1"), "x.dcm")))
    assert np.array_equal(Polarity()(picture).settled().pixels, picture.settled().pixels)


# ---- PNG and JPEG ----


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_every_form_of_a_grey_png_gives_the_same_grey() -> None:
    grey = (ramp(255, np.uint8)).reshape(64, 64)
    plain = Image.fromarray(grey)
    forms = [plain, plain.convert("RGB"), plain.convert("RGBA"), plain.convert("LA"), plain.convert("P")]
    for form in forms:
        picture = decode(png(form), "x.png")
        assert np.array_equal(picture.pixels, grey), form.mode
        assert picture.mode == form.mode


def test_sixteen_bits_stay_sixteen_and_become_eight_by_rounding() -> None:
    deep = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    picture = decode(png(Image.fromarray(deep)), "x.png")
    assert (picture.mode, picture.bits) == ("I;16", 16)
    assert np.array_equal(picture.pixels, deep)
    assert np.array_equal(Voi()(picture).settled().pixels, np.rint(deep / 257).astype(np.uint8))


def test_colour_is_luma_and_said() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    picture = decode(png(Image.fromarray(colours)), "x.png")
    assert picture.notes == ["colour was reduced to luma"]
    assert np.abs(picture.pixels.astype(int) - np.asarray(Image.fromarray(colours).convert("L"))).max() <= 1


def test_exif_orientation_does_not_turn_the_pixels() -> None:
    image = Image.fromarray(np.arange(32 * 16, dtype=np.uint16).astype(np.uint8).reshape(16, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif, quality=95)
    assert decode(stream.getvalue(), "x.jpg").pixels.shape == (16, 32)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_cut_anywhere_is_refused_by_name(kind: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64)).astype(np.uint8)).save(stream, kind)
    whole = stream.getvalue()
    for cut in (0, 3, 20, len(whole) // 2, len(whole) - 3):
        with pytest.raises(ImageError, match=r"victim\.img"):
            decode(whole[:cut], "victim.img")


def test_an_altered_png_is_refused() -> None:
    whole = bytearray(png(Image.fromarray(ramp(255, np.uint8))))
    whole[len(whole) // 2] ^= 0x40
    with pytest.raises(ImageError, match=r"altered|cut short|cannot be decoded"):
        decode(bytes(whole), "x.png")


def test_an_image_past_the_limit_is_refused_before_it_is_decoded() -> None:
    bomb = png(Image.fromarray(np.zeros((2000, 2000), np.uint8)))
    with pytest.raises(ImageError, match="2000 x 2000"):
        decode(bomb, "bomb.png", Limits(pixels=1_000_000))


# ---- outputs ----


@pytest.mark.parametrize(("form", "bits"), [("png", 8), ("png", 16), ("jpeg", 8), ("webp", 8), ("jxl", 8), ("jxl", 16)])
def test_outputs_are_read_back_by_others_and_say_what_they_are(tmp_path: Path, form: str, bits: int) -> None:
    picture = Voi(bits=bits)(decode(dicom_bytes(ramp(), WindowCenter=2048, WindowWidth=4096), "x.dcm")).settled()
    mark = Mark(
        "r", "f" * 16, "sha256:" + "0" * 64, "MONOCHROME2", bits, "window", Frame.whole(64, 64), (0.1, 0.2), ("n",)
    )
    output = OutputForm(form)
    path = tmp_path / f"x{output.suffix}"
    path.write_bytes(encode(picture, output, mark))
    assert read_mark(path) == mark
    if form == "jxl":
        import imagecodecs

        back = imagecodecs.jpegxl_decode(path.read_bytes())
    else:
        with Image.open(path) as image:
            back = np.asarray(image if form == "png" else image.convert("L"))
    if form == "jpeg":
        assert np.abs(back.astype(int) - picture.pixels).max() <= 6
    else:
        assert np.array_equal(back, picture.pixels)
    if form in ("png", "jpeg"):
        assert header(path)[:2] == (64, 64)


def test_files_of_others_have_no_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(Image.fromarray(ramp(255, np.uint8))))
    assert read_mark(path) is None
    assert read_mark(tmp_path / "gone.png") is None
    path.write_bytes(b'\x89PNG cxrprep {"recipe": 1}')
    assert read_mark(path) is None


def test_every_named_recipe_loads_and_has_a_fingerprint_of_its_own() -> None:
    prints = {load_recipe(name).fingerprint() for name in named_recipes()}
    assert len(prints) == len(named_recipes())
    assert {"square-224", "square-512", "shortest-512", "mimic-cxr-jpg", "chexpert-jpg", "xrv-224"} <= set(
        named_recipes()
    )
