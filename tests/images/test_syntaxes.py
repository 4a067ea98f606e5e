"""Transfer syntaxes: every one gives the same pixels, with nothing installed beside the package."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cxrprep.errors import ImageError
from cxrprep.images.decode import decode, header
from cxrprep.images.radiograph import ImageLimits
from tests.images.made import by_dcmtk, by_pydicom, dataset_of, ramp, real, shown, written
from tests.parts import need

SMOOTH = (cv2.GaussianBlur(np.random.default_rng(3).random((96, 64)), (0, 0), 6) * 8000 - 2000).clip(0, 4095)
PIXELS = SMOOTH.astype(np.uint16)
EIGHT = (SMOOTH / 16).astype(np.uint8)


def compressed(pixels: np.ndarray, syntax: str, frame: bytes, **options: object) -> bytes:
    dataset = dataset_of(pixels, syntax=syntax, **options)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    return written(dataset)


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda syntax: syntax.name,
)
@pytest.mark.parametrize("pixels", [PIXELS, EIGHT, (PIXELS.astype(np.int32) - 2048).astype(np.int16)])
def test_uncompressed_syntaxes_give_the_words_of_the_file(syntax: str, pixels: np.ndarray, tmp_path: Path) -> None:
    dataset = dataset_of(pixels, bits=8 if pixels.dtype == np.uint8 else 12, syntax=syntax)
    data = written(dataset)
    words = pixels if pixels.dtype == np.uint8 else pixels.view(np.uint16)
    assert np.array_equal(decode(data, "x.dcm").pixels, words)
    path = tmp_path / "x.dcm"
    path.write_bytes(data)
    assert header(path) == (64, 96, "MONOCHROME2")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("pixels", [PIXELS, EIGHT, (PIXELS.astype(np.int32) - 2048).astype(np.int16)])
def test_what_pydicom_compresses_comes_back(syntax: str, pixels: np.ndarray) -> None:
    dataset = dataset_of(pixels, bits=8 if pixels.dtype == np.uint8 else 12)
    dataset.compress(syntax)
    data = written(dataset)
    values = decode(data, "x.dcm")
    assert np.array_equal(values.rules.stored(values.pixels.astype(np.int64)), pixels)


@pytest.mark.parametrize(
    ("syntax", "frame"),
    [
        (JPEGLossless, lambda: imagecodecs.ljpeg_encode(PIXELS, bitspersample=12)),
        (JPEGLosslessSV1, lambda: imagecodecs.ljpeg_encode(PIXELS, bitspersample=12)),
        (JPEGLSLossless, lambda: imagecodecs.jpegls_encode(PIXELS)),
        (HTJ2KLossless, lambda: imagecodecs.htj2k_encode(PIXELS, reversible=True)),
        (HTJ2K, lambda: imagecodecs.htj2k_encode(PIXELS, reversible=True)),
    ],
    ids=["JPEG lossless 14", "JPEG lossless 14 SV1", "JPEG-LS", "HTJ2K lossless", "HTJ2K"],
)
def test_other_lossless_syntaxes_come_back(syntax: str, frame: object) -> None:
    assert np.array_equal(decode(compressed(PIXELS, syntax, frame()), "x.dcm").pixels, PIXELS)


def test_lossy_syntaxes_are_within_their_own_loss(tmp_path: Path) -> None:
    near = compressed(PIXELS, JPEGLSNearLossless, imagecodecs.jpegls_encode(PIXELS, level=3))
    assert np.abs(decode(near, "x.dcm").pixels.astype(int) - PIXELS).max() <= 3
    base = compressed(EIGHT, JPEGBaseline8Bit, imagecodecs.jpeg8_encode(EIGHT, level=95), bits=8)
    assert np.abs(decode(base, "x.dcm").pixels.astype(int) - EIGHT).max() <= 6
    # The same decoder as that of a JPEG file, and DCMTK's own within one level.
    assert np.array_equal(decode(base, "x.dcm").pixels, cv2.imdecode(cv2.imencode(".jpg", EIGHT)[1], 0))
    assert np.abs(shown(base).astype(int) - by_dcmtk(base, tmp_path, "-W")).max() <= 1
    twelve = compressed(PIXELS, JPEGExtended12Bit, imagecodecs.jpeg_encode(PIXELS, level=95, bitspersample=12))
    assert np.abs(decode(twelve, "x.dcm").pixels.astype(int) - PIXELS).max() <= 60
    assert np.abs(shown(twelve).astype(int) - by_dcmtk(twelve, tmp_path, "-W")).max() <= 1


@pytest.mark.parametrize(
    "name",
    ["JPEG-LL.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm", "bad_sequence.dcm", "RG3_J2KR.dcm", "RG3_J2KI.dcm",
     "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEGLSNearLossless_08.dcm",
     "JPEGLSNearLossless_16.dcm", "J2K_pixelrep_mismatch.dcm", "693_J2KR.dcm", "image_dfl.dcm", "MR_small_expb.dcm",
     "MR_small_padded.dcm", "liver_1frame.dcm"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:The pixel data is:UserWarning")
def test_real_files_hold_the_values_that_pydicom_finds(name: str) -> None:
    data = real(name)
    picture = decode(data, name)
    values = picture.rules.stored(picture.pixels.astype(np.int64))
    assert np.array_equal(values, pydicom.dcmread(io.BytesIO(data)).pixel_array)


@pytest.mark.slow
def test_the_real_chest_is_the_same_in_every_lossless_form() -> None:
    plain = pydicom.dcmread(io.BytesIO(real("RG1_UNCR.dcm")))
    pixels = plain.pixel_array
    assert np.array_equal(decode(real("RG1_J2KR.dcm"), "x.dcm").pixels, pixels)
    for syntax in (RLELossless, JPEGLSLossless):
        dataset = pydicom.dcmread(io.BytesIO(real("RG1_UNCR.dcm")))
        dataset.compress(syntax)
        assert np.array_equal(decode(written(dataset), "x.dcm").pixels, pixels)
    frame = imagecodecs.ljpeg_encode(pixels, bitspersample=15)
    assert np.array_equal(decode(compressed(pixels, JPEGLosslessSV1, frame, bits=15), "x.dcm").pixels, pixels)


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_twelve_bit_jpeg_is_what_dcmtk_decodes(name: str, tmp_path: Path) -> None:
    data = real(name)
    assert np.abs(shown(data, source="minmax").astype(int) - by_dcmtk(data, tmp_path, "+Wm")).max() <= 1


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless.dcm", "JPEGLSNearLossless_08.dcm"])
def test_jpeg_ls_is_what_dcmtk_decodes(name: str, tmp_path: Path) -> None:
    need("dcmtk")
    data = real(name)
    theirs = by_dcmtk(data, tmp_path, "+Wm", program="dcml2pnm")
    assert np.abs(shown(data, source="minmax").astype(int) - theirs).max() <= 1


# ---- colour ----


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(np.float64) @ (0.299, 0.587, 0.114)


@pytest.mark.parametrize(
    "name",
    ["SC_rgb.dcm", "SC_rgb_16bit.dcm", "SC_rgb_expb_16bit.dcm", "SC_rgb_rle_16bit.dcm", "color-pl.dcm", "color-px.dcm",
     "SC_ybr_full_uncompressed.dcm", "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_jpeg_dcmtk.dcm", "US1_J2KR.dcm",
     "SC_rgb_jls_lossy_line.dcm", "SC_rgb_small_odd.dcm"],
)  # fmt: skip
def test_colour_is_the_luma_of_what_pydicom_shows(name: str) -> None:
    from pydicom.pixels.utils import pixel_array

    data = real(name)
    picture = decode(data, name)
    # OpenCV's luma has weights of 14 bits: two of 65,535 levels.
    assert np.abs(picture.pixels - luma(pixel_array(io.BytesIO(data)))).max() <= (2 if picture.bits == 16 else 1)
    assert "colour was reduced to luma" in picture.notes


@pytest.mark.parametrize("name", ["OBXXXX1A.dcm", "OBXXXX1A_rle.dcm", "examples_palette.dcm", "gdcm-US-ALOKA-16.dcm"])
def test_palettes_are_looked_up(name: str) -> None:
    from pydicom.pixels.processing import apply_color_lut

    dataset = pydicom.dcmread(io.BytesIO(real(name)))
    assert np.abs(decode(real(name), name).pixels - luma(apply_color_lut(dataset.pixel_array, dataset))).max() <= 1


def test_grey_in_three_channels_is_grey_and_not_said() -> None:
    data = written(dataset_of(np.dstack([EIGHT] * 3), bits=8, photometric="RGB"))
    picture = decode(data, "x.dcm")
    assert np.array_equal(picture.pixels, EIGHT)
    assert picture.notes == []


def test_planes_and_pixels_of_colour_are_told_apart() -> None:
    colours = np.random.default_rng(4).integers(0, 256, (32, 24, 3)).astype(np.uint8)
    plain = dataset_of(colours, bits=8, photometric="RGB")
    planes = dataset_of(colours, bits=8, photometric="RGB", PlanarConfiguration=1)
    planes.PixelData = np.ascontiguousarray(colours.transpose(2, 0, 1)).tobytes()
    assert np.array_equal(decode(written(plain), "x.dcm").pixels, decode(written(planes), "x.dcm").pixels)


# ---- files that lack something ----


@pytest.mark.parametrize("implicit", [True, False])
def test_a_file_without_its_header_is_read_by_its_name(implicit: bool) -> None:
    dataset = dataset_of(PIXELS)
    stream = io.BytesIO()
    del dataset.file_meta
    pydicom.dcmwrite(stream, dataset, implicit_vr=implicit, little_endian=True)
    assert np.array_equal(decode(stream.getvalue(), "CR-chest.dcm").pixels, PIXELS)


def test_without_a_decoder_the_error_names_the_extra() -> None:
    # A build of imagecodecs without OpenJPEG, and none of pydicom's plugins: a process of its own, that nothing leaks.
    name = "MR_small_jp2klossless.dcm"
    real(name)
    script = f"""
import sys
for absent in ("gdcm", "pylibjpeg", "openjpeg", "libjpeg", "jpeg_ls", "PIL"):
    sys.modules[absent] = None
import imagecodecs
def lacking(*_, **__): raise imagecodecs.DelayedImportError("jpeg2k_decode")
imagecodecs.jpeg2k_decode = lacking
from tests.images.made import real
from cxrprep.images.decode import decode
from cxrprep.errors import ImageError
try:
    decode(real({name!r}), {name!r})
except ImageError as error:
    print(error.message, "|", error.hint)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert name in done.stdout
    assert "JPEG 2000" in done.stdout
    assert "| pip install '" in done.stdout
    assert "'pylibjpeg>=" in done.stdout


def test_a_codestream_of_another_size_is_refused_before_it_is_decoded() -> None:
    frame = imagecodecs.jpegls_encode(np.zeros((3000, 2000), np.uint16))
    with pytest.raises(ImageError, match=r"victim\.dcm: the compressed pixels are 2000 x 3000"):
        decode(compressed(PIXELS, JPEGLSLossless, frame), "victim.dcm")


def test_a_deflated_bomb_is_refused() -> None:
    whole = written(dataset_of(ramp(), syntax=DeflatedExplicitVRLittleEndian))
    start = 144 + int.from_bytes(whole[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = whole[:start] + packer.compress(bytes(50_000_000)) + packer.flush()
    assert len(bomb) < 100_000
    with pytest.raises(ImageError, match="more than the limit"):
        decode(bomb, "bomb.dcm", ImageLimits(size=1_000_000))


def test_agreement_with_pydicom_holds_for_compressed_files_too() -> None:
    data = real("RG3_J2KI.dcm")
    assert np.abs(shown(data).astype(int) - by_pydicom(data)).max() <= 1
