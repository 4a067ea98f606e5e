"""Outputs: other programs read them back, bit for bit where they are lossless, and each says how it was made."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxrprep.errors import ImageError
from cxrprep.images.conversion import ConversionTask, ConvertItem
from cxrprep.images.convert import converted
from cxrprep.images.decode import decode, header
from cxrprep.images.encode import encode
from cxrprep.images.local_files import open_store
from cxrprep.images.output_metadata import OutputMetadata, metadata_in
from cxrprep.images.radiograph import CoordinateMap, Radiograph
from cxrprep.images.recipe import OutputForm, parse_recipe
from tests.images.made import dicom_bytes, ramp

FORMS = [("png", 8), ("png", 16), ("jpeg", 8), ("webp", 8), ("jxl", 8), ("jxl", 16)]
MARK = OutputMetadata(
    "r", "f" * 16, "sha256:" + "0" * 64, "MONOCHROME2", 8, "window", CoordinateMap.whole(64, 64), (0.1, 0.2), ("n",)
)


def radiograph_of(pixels: np.ndarray) -> Radiograph:
    rows, columns = pixels.shape
    return Radiograph(pixels, pixels.dtype.itemsize * 8, "L", CoordinateMap.whole(columns, rows))


def read_by_others(data: bytes, form: str) -> np.ndarray:
    if form == "jxl":
        return imagecodecs.jpegxl_decode(data)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode in {"png": ("L", "I;16"), "jpeg": ("L",), "webp": ("RGB",)}[form]
        return np.asarray(image if form == "png" else image.convert("L"))


@pytest.mark.parametrize(("form", "bits"), FORMS)
def test_outputs_are_read_back_by_others_and_say_what_they_are(tmp_path: Path, form: str, bits: int) -> None:
    pixels = ramp(255, np.uint8) if bits == 8 else ramp(65535)
    path = tmp_path / f"x{OutputForm(form).suffix}"
    path.write_bytes(encode(radiograph_of(pixels), OutputForm(form), MARK))
    assert metadata_in(path.read_bytes()) == MARK
    back = read_by_others(path.read_bytes(), form)
    if form == "jpeg":
        assert np.abs(back.astype(int) - pixels).max() <= 6
    else:
        assert np.array_equal(back, pixels)
    if form in ("png", "jpeg"):
        assert header(path)[:2] == (64, 64)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 70), st.integers(1, 70), st.sampled_from([np.uint8, np.uint16]), st.integers(0, 2**32 - 1), st.data()
)
def test_any_png_comes_back_and_passes_the_chunk_sums(
    rows: int, columns: int, kind: type, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    top = data.draw(st.sampled_from([1, 3, np.iinfo(kind).max + 1]))
    pixels = rng.integers(0, top, (rows, columns)).astype(kind)
    encoded = encode(radiograph_of(pixels), OutputForm("png"), MARK)
    with Image.open(io.BytesIO(encoded)) as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(decode(encoded, "x.png").pixels, pixels)
    at = 8
    while at < len(encoded):
        (length,) = struct.unpack(">I", encoded[at : at + 4])
        stated = struct.unpack(">I", encoded[at + 8 + length : at + 12 + length])[0]
        assert zlib.crc32(encoded[at + 4 : at + 8 + length]) == stated
        at += 12 + length


def test_a_flat_png_is_small() -> None:
    assert len(encode(radiograph_of(np.zeros((512, 512), np.uint8)), OutputForm("png"), MARK)) < 512 * 512 / 7


def test_the_mark_is_text_that_others_show() -> None:
    pixels = ramp(255, np.uint8)
    with Image.open(io.BytesIO(encode(radiograph_of(pixels), OutputForm("png"), MARK))) as image:
        assert '"fingerprint":"ffffffffffffffff"' in image.text["cxrprep"]
    with Image.open(io.BytesIO(encode(radiograph_of(pixels), OutputForm("jpeg"), MARK))) as image:
        assert b'"fingerprint":"ffffffffffffffff"' in image.info["comment"]
    with Image.open(io.BytesIO(encode(radiograph_of(pixels), OutputForm("webp"), MARK))) as image:
        assert b'"fingerprint":"ffffffffffffffff"' in image.info["xmp"]


def test_long_notes_do_not_hide_the_mark(tmp_path: Path) -> None:
    import dataclasses

    mark = dataclasses.replace(MARK, notes=tuple(f"note {n} über Strukturen" for n in range(40)))
    for form in ("png", "jpeg", "webp", "jxl"):
        path = tmp_path / f"x.{form}"
        path.write_bytes(encode(radiograph_of(ramp(255, np.uint8)), OutputForm(form), mark))
        assert metadata_in(path.read_bytes()) == mark, form


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_sixteen_bits_do_not_go_into_eight(form: str) -> None:
    with pytest.raises(ImageError, match="holds 8 bits"):
        encode(radiograph_of(ramp(65535)), OutputForm(form), MARK)


def test_files_of_others_have_no_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(ramp(255, np.uint8)).save(path)
    assert metadata_in(path.read_bytes()) is None
    path.write_bytes(b'\x89PNG cxrprep {"recipe": 1}')
    assert metadata_in(path.read_bytes()) is None


def test_an_output_holds_nothing_of_the_header_but_numbers(tmp_path: Path) -> None:
    person = {"PatientName": "Doe^Jane", "PatientID": "MRN-4711", "StudyDescription": "Chest of Jane",
              "InstitutionName": "St. Elsewhere", "AccessionNumber": "ACC-99", "WindowCenterWidthExplanation": "Jane",
              "WindowCenter": 2000, "WindowWidth": 3000, "PixelSpacing": [0.139, 0.139]}  # fmt: skip
    (tmp_path / "x.dcm").write_bytes(dicom_bytes(ramp(), **person))
    for form in ("png", "jpeg", "webp", "jxl"):
        recipe = parse_recipe(f'[[step]]\ndo = "voi"\n[output]\nformat = "{form}"\n', "r.toml", "r")
        item = ConvertItem(str(tmp_path / "x.dcm"), "x.dcm")
        done = converted(item, ConversionTask(recipe, recipe.fingerprint(), open_store(tmp_path / form)))
        assert done.status == "ok"
        written = (tmp_path / form / done.path).read_bytes()
        for word in (b"Jane", b"Doe", b"4711", b"Elsewhere", b"ACC-99"):
            assert word not in written
        assert recipe.fingerprint().encode() in written


def test_spacing_after_a_resize_is_in_millimetres_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(dicom_bytes(ramp()[:48], PixelSpacing=[0.2, 0.3]))
    recipe = parse_recipe(
        '[[step]]\ndo = "voi"\n[[step]]\ndo = "center-crop"\n[[step]]\ndo = "resize"\nwidth = 24\nheight = 12\n'
        '[[step]]\ndo = "pad"\nsquare = 32\n', "r.toml", "r",
    )  # fmt: skip
    task = ConversionTask(recipe, recipe.fingerprint(), open_store(tmp_path / "out"))
    done = converted(ConvertItem(str(tmp_path / "x.dcm"), "x.dcm"), task)
    # 48 x 48 pixels of 0.2 x 0.3 mm became 12 rows and 24 columns; crop and pad change no pixel's size.
    assert done.spacing_mm == pytest.approx((0.2 * 48 / 12, 0.3 * 48 / 24))
    assert metadata_in((tmp_path / "out" / done.path).read_bytes()).spacing_mm == pytest.approx(done.spacing_mm)
