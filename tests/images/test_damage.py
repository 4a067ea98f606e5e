"""Damaged files of every codec are refused by name, harmless oddities are taken, and no library prints on its own."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cxrprep.errors import ImageError
from cxrprep.images.decode import decode
from cxrprep.images.image_info import inspect
from tests.generators.broken_structure import broken_files
from tests.generators.damage import CODECS, Codec, Damaged, damaged_files, encapsulated, phantom
from tests.images.made import dicom_bytes

SEED = 20261


def _outcome(file: Damaged) -> tuple[str, str, list[str]]:
    try:
        made = decode(file.data, file.name)
    except ImageError as error:
        return "refuse", error.message, []
    return "accept", "", made.notes


@pytest.mark.parametrize("generator", [damaged_files, broken_files], ids=["stretches", "structure"])
def test_every_damage_is_refused_by_name_and_every_oddity_taken_and_verify_finds_the_same(
    generator: Callable[[int], Iterator[Damaged]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong, tried = [], 0
    for file in generator(SEED):
        tried += 1
        found, message, notes = _outcome(file)
        if file.must not in ("free", found):
            wrong.append((file.label, file.must, message))
        if found == "refuse":
            assert message.startswith(file.name), message
        if file.damage == "intact" and "rgb" not in file.codec and "colour" not in file.codec:
            assert set(notes) <= {"colour was reduced to luma"}, file.label
        if generator is damaged_files and file.must != "free":
            path = tmp_path / file.name
            path.write_bytes(file.data)
            assert bool(inspect(path).error) is (file.must == "refuse"), file.label
    assert tried > 300
    assert wrong == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec.suffix], ids=lambda codec: codec.name)
@pytest.mark.parametrize("behind", [bytes(6000), b"signature " * 900], ids=["zeros", "letters"])
def test_bytes_behind_the_end_are_noted(codec: Codec, behind: bytes) -> None:
    data = codec.write(phantom(1, codec.bits))
    assert decode(data, f"x{codec.suffix}").notes in ([], ["colour was reduced to luma"])
    assert "bytes follow the end of the image" in decode(data + behind, f"x{codec.suffix}").notes


def test_a_whole_image_behind_an_image_is_noted() -> None:
    data = CODECS[2].write(phantom(1, 8))
    assert decode(data + data, "x.jpg").notes == ["bytes follow the end of the image"]


ANIMATED = ("PNG", "WEBP")


def _pages(kind: str) -> bytes:
    pages = [Image.fromarray(phantom(number, 8)) for number in (1, 2)]
    stream = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    pages[0].save(stream, kind, save_all=True, append_images=pages[1:], **options)
    return stream.getvalue()


def _several(kind: str) -> bytes:
    if kind == "JXL":
        return imagecodecs.jpegxl_encode(np.stack([phantom(1, 8), phantom(2, 8)]), lossless=True, photometric="gray")
    if kind == "BigTIFF":
        return imagecodecs.tiff_encode(np.stack([phantom(1, 8), phantom(2, 8)]), bigtiff=True, photometric="minisblack")
    return _pages(kind)


@pytest.mark.parametrize("kind", ["TIFF", "BigTIFF", "WEBP", "JXL", "PNG"])
def test_a_file_of_several_pages_is_refused_until_one_is_named_and_verify_reads_all(kind: str, tmp_path: Path) -> None:
    data = _several(kind)
    with pytest.raises(ImageError, match="2 frames in one file") as refused:
        decode(data, "x")
    assert "--frame 1" in refused.value.hint
    for number in (1, 2):
        if number == 1 or kind not in ANIMATED:
            assert np.array_equal(decode(data, "x", frame=number).pixels, phantom(number, 8))
    with pytest.raises(ImageError, match="there is no frame 3"):
        decode(data, "x", frame=3)
    path = tmp_path / "x"
    path.write_bytes(data)
    assert inspect(path).error == ""
    assert inspect(path).pixels


def test_a_thumbnail_is_no_page() -> None:
    stream = io.BytesIO()
    small = Image.fromarray(phantom(2, 8)[::4, ::4])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(phantom(1, 8)).save(stream, "TIFF", save_all=True, append_images=[small])
    assert np.array_equal(decode(stream.getvalue(), "x.tif").pixels, phantom(1, 8))


@pytest.mark.parametrize(("stated", "held"), [("4.70", "jpeg"), ("4.80", "j2k"), ("4.90", "jpeg-ls"), ("1", "jpeg")])
def test_the_codec_that_is_there_is_read_and_noted(stated: str, held: str) -> None:
    codec = next(codec for codec in CODECS if codec.name == held)
    pixels = phantom(2, codec.bits)
    from tests.generators.damage import FAMILY, with_syntax

    data = with_syntax(encapsulated(codec.write(pixels), codec, pixels), FAMILY + stated)
    made = decode(data, "x.dcm")
    assert np.abs(made.pixels.astype(int) - pixels).max() <= (12 if held == "jpeg" else 0)
    assert any("the transfer syntax says" in note for note in made.notes)


def test_a_profile_that_libpng_warns_of_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add(b"iCCP", b"broken\0\0not a profile")
    info.add(b"cHRM", b"\0" * 32)
    Image.fromarray(phantom(3, 8)).save(stream, "PNG", pnginfo=info)
    assert np.array_equal(decode(stream.getvalue(), "x.png").pixels, phantom(3, 8))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_exif_orientation_is_noted_and_not_applied(orientation: int) -> None:
    image = Image.fromarray(phantom(4, 8))
    exif = image.getexif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG"):
        stream = io.BytesIO()
        image.save(stream, kind, exif=exif)
        made = decode(stream.getvalue(), "x")
        assert made.pixels.shape == (384, 320)
        assert made.notes == [f"EXIF orientation {orientation} was not applied: pixels are as stored"]


def test_a_tiff_whose_zero_is_white_is_shown_as_it_means() -> None:
    from cxrprep.images.transforms import Voi

    pixels = phantom(5, 8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF", tiffinfo={262: 0})
    held = decode(stream.getvalue(), "x.tif")
    stated = np.asarray(Image.open(stream))
    assert np.array_equal(Voi()(held).settled().pixels, stated)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
def test_a_tiff_of_one_bit_is_black_and_white(compression: str | None) -> None:
    bits = phantom(5, 8) > 90
    stream = io.BytesIO()
    Image.fromarray(bits).save(stream, "TIFF", compression=compression)
    assert np.array_equal(decode(stream.getvalue(), "x.tif").pixels, bits * np.uint8(255))


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".webp"])
def test_files_of_other_formats_hold_what_pillow_reads(suffix: str) -> None:
    pixels = phantom(6, 8)
    stream = io.BytesIO()
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(pixels).save(stream, {".tif": "TIFF", ".bmp": "BMP", ".webp": "WEBP"}[suffix], **options)
    assert np.array_equal(decode(stream.getvalue(), f"x{suffix}").pixels, pixels)


def test_a_private_transfer_syntax_is_named_and_no_extra_is_promised() -> None:
    from tests.generators.damage import with_syntax

    codec = next(codec for codec in CODECS if codec.name == "jxl")
    pixels = phantom(7, 12)
    frame = imagecodecs.zlib_encode(pixels.tobytes())
    data = with_syntax(encapsulated(frame, codec, pixels), "1.2.840.113619.5.2")
    with pytest.raises(ImageError, match=r"x\.dcm: the transfer syntax 1\.2\.840\.113619\.5\.2 is not one") as caught:
        decode(data, "x.dcm")
    assert "pip" not in caught.value.hint


def test_a_header_is_parsed_once_whatever_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import pydicom

    from cxrprep.images.conversion import ConversionTask, ConvertItem
    from cxrprep.images.convert import make
    from cxrprep.images.dicom_metadata import Pseudonyms
    from cxrprep.images.local_files import LocalStore
    from cxrprep.images.recipe import load_recipe

    read, count = pydicom.dcmread, []
    monkeypatch.setattr(pydicom, "dcmread", lambda *args, **options: count.append(1) or read(*args, **options))
    codec = next(codec for codec in CODECS if codec.name == "jpeg-ls")
    pixels = phantom(8, 12)
    recipe = load_recipe("square-224")
    for data in (dicom_bytes(pixels), encapsulated(codec.write(pixels), codec, pixels)):
        monkeypatch.setattr("cxrprep.images.convert.read_source", lambda *_, data=data: data)
        task = ConversionTask(recipe, recipe.fingerprint(), LocalStore("."), pseudonyms=Pseudonyms(b"k"))
        count.clear()
        outcome, encoded = make(ConvertItem("x.dcm", "x.dcm"), task, lambda _: None)
        assert outcome.status == "ok"
        assert encoded
        assert len(count) == 1
