"""PNG and JPEG files: every form of grey, colour, orientation as stored."""

from __future__ import annotations

import io

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from cxrprep.images.decode import decode
from cxrprep.images.recipe import load_recipe
from cxrprep.images.transforms import Voi
from tests.images.made import ramp
from tests.parts import shared_data

GREY = ramp(255, np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_every_form_of_a_grey_png_gives_the_same_grey(mode: str) -> None:
    picture = decode(saved(Image.fromarray(GREY).convert(mode)), "x.png")
    assert np.array_equal(picture.pixels, GREY)
    assert picture.mode == mode
    assert picture.notes == []


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_are_spread_over_the_range(depth: int) -> None:
    import struct
    import zlib

    top = (1 << depth) - 1
    values = np.arange(64).reshape(8, 8) % (top + 1)
    bits = np.unpackbits(values.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - depth :].reshape(8, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, depth, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    picture = decode(data, "x.png")
    assert np.array_equal(picture.pixels, values * (255 // top))


def test_sixteen_bits_stay_sixteen_and_become_eight_by_rounding() -> None:
    deep = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    picture = decode(saved(Image.fromarray(deep)), "x.png")
    assert (picture.mode, picture.bits) == ("I;16", 16)
    assert np.array_equal(picture.pixels, deep)
    assert np.array_equal(Voi()(picture).settled().pixels, np.rint(deep / 257).astype(np.uint8))


def test_colour_is_luma_and_said() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    picture = decode(saved(Image.fromarray(colours)), "x.png")
    assert picture.notes == ["colour was reduced to luma"]
    assert np.abs(picture.pixels.astype(int) - np.asarray(Image.fromarray(colours).convert("L"))).max() <= 1


def test_transparency_is_ignored_and_said() -> None:
    see_through = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 128)])
    picture = decode(saved(Image.fromarray(see_through)), "x.png")
    assert np.array_equal(picture.pixels, GREY)
    assert picture.notes == ["transparency was ignored"]


def test_a_gamma_chunk_does_not_change_pixels() -> None:
    import struct
    import zlib

    plain = saved(Image.fromarray(GREY))
    body = b"gAMA" + struct.pack(">I", 45455)
    chunk = struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body))
    assert np.array_equal(decode(plain[:33] + chunk + plain[33:], "x.png").pixels, GREY)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("turn", [3, 6, 8])
@pytest.mark.parametrize("recipe", ["shortest-512", "shortest-512-fast"])
def test_exif_orientation_never_turns_the_pixels(kind: str, turn: int, recipe: str) -> None:
    image = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (128, 1)))
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"quality": 95} if kind == "JPEG" else {}
    turned, plain = saved(image, kind, exif=exif, **options), saved(image, kind, **options)
    loaded = load_recipe(recipe)
    ours, theirs = (loaded(decode(data, "x", reduce=loaded.reduction)).pixels for data in (turned, plain))
    assert ours.shape == (512, 1024)
    assert np.array_equal(ours, theirs)


def test_a_jpeg_is_what_opencv_and_pillow_decode() -> None:
    smooth = cv2.GaussianBlur(np.random.default_rng(2).integers(0, 256, (90, 70)).astype(np.uint8), (0, 0), 4)
    data = saved(Image.fromarray(smooth), "JPEG", quality=95)
    ours = decode(data, "x.jpg").pixels
    assert np.array_equal(ours, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))
    assert np.abs(ours.astype(int) - np.asarray(Image.open(io.BytesIO(data)))).max() <= 1


def test_real_nih_images_are_what_pillow_reads() -> None:
    modes = set()
    for path in sorted(shared_data("nih-chestxray14", "images").glob("*.png"))[:114]:
        with Image.open(path) as image:
            if image.mode in modes:
                continue
            modes.add(image.mode)
            theirs = np.asarray(image.convert("L"))
        picture = decode(path.read_bytes(), path.name)
        assert np.array_equal(picture.pixels, theirs)
        assert picture.pixels.shape == (1024, 1024)
    assert "L" in modes


def test_a_damaged_directory_of_a_second_page_does_not_hide_the_first() -> None:
    first, second = (np.full((20, 30), value, np.uint8) for value in (40, 90))
    data = imagecodecs.tiff_encode(np.stack([first, second]), photometric="minisblack")
    place = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[place : place + 2], "little")
    link = place + 2 + 12 * count
    beyond = data[:link] + (len(data) + 1000).to_bytes(4, "little") + data[link + 4 :]
    assert np.array_equal(decode(beyond, "x.tif").pixels, first)
