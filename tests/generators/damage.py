"""Damaged image files: a drawn phantom in many codecs, as files and as DICOM frames, broken in known ways by a seed.

For each it is known what a strict reader must do: ``accept`` (harmless), ``refuse`` (pixels are lost), or ``free``
(wrong, but nothing in the format shows it).
"""

from __future__ import annotations

import io
import random
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import imagecodecs
import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import RLELossless

from tests.images.made import dataset_of, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHAPE = (384, 320)
FAMILY = "1.2.840.10008.1.2."
CUTS = ("cut10", "cut50", "cut90")
ENDED = ("cut50end", "cut90end")
BLOCKS = ("zero512", "zero20pct", "random512")
LOST = ("lost512", "lost20pct")
HARMLESS = ("intact", "trail16zeros", "trail6000zeros", "trail6000random")


def phantom(seed: int, bits: int) -> np.ndarray:
    """A chest drawn with noise, so that every part of the coded data matters: (384, 320) uint8 or uint16."""
    rng = np.random.default_rng(seed)
    rows, columns = SHAPE
    y, x = np.mgrid[0:rows, 0:columns]
    drawn = np.full(SHAPE, 0.12)
    drawn[((x - columns / 2) / (columns * 0.45)) ** 2 + ((y - rows / 2) / (rows * 0.48)) ** 2 < 1] = 0.75
    for centre in (0.3, 0.7):
        drawn[((x - columns * centre) / (columns * 0.14)) ** 2 + ((y - rows * 0.46) / (rows * 0.27)) ** 2 < 1] = 0.3
    drawn = cv2.GaussianBlur(drawn, (0, 0), 4) + rng.normal(0, 0.02, SHAPE)
    return np.rint(np.clip(drawn, 0, 1) * ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else np.uint16)


@dataclass(frozen=True)
class Codec:
    """One way to write the phantom: ``start`` finds the coded data, ``end`` is what ends it properly.

    ``blind`` are the damages that nothing in the format is sure to show.
    """

    name: str
    suffix: str
    syntax: str
    bits: int
    write: Callable[[np.ndarray], bytes]
    start: Callable[[bytes], int]
    end: bytes = b""
    blind: tuple[str, ...] = ()


def _jpeg(*options: int) -> Callable[[np.ndarray], bytes]:
    return lambda pixels: cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95, *options])[1].tobytes()


def _pillow(kind: str, **options: object) -> Callable[[np.ndarray], bytes]:
    def write(pixels: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind, **options)
        return stream.getvalue()

    return write


def _behind(marker: bytes, length: int) -> Callable[[bytes], int]:
    return lambda data: data.index(marker) + length


def _scan(data: bytes) -> int:
    at = data.rindex(b"\xff\xda", 0, data.index(b"\xff\xda") + 2)
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _rle(pixels: np.ndarray) -> bytes:
    dataset = dataset_of(pixels, bits=pixels.dtype.itemsize * 8)
    dataset.compress(RLELossless)
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


_MQ = (*BLOCKS, "swapped")  # an MQ coder without segmentation symbols decodes anything
# Half of a scan behind the other holds as many codes now and then, and no decoder can tell.
_CHANCE = ("swapped",)
CODECS = (
    Codec("png8", ".png", "", 8, _pillow("PNG"), _behind(b"IDAT", 4)),
    Codec("png16", ".png", "", 12, _pillow("PNG"), _behind(b"IDAT", 4)),
    Codec("jpeg", ".jpg", "4.50", 8, _jpeg(), _scan, b"\xff\xd9", _CHANCE),
    Codec("jpeg-restart", ".jpg", "4.50", 8, _jpeg(cv2.IMWRITE_JPEG_RST_INTERVAL, 20), _scan, b"\xff\xd9", _CHANCE),
    Codec(
        "jpeg-progressive", ".jpg", "", 8, _jpeg(cv2.IMWRITE_JPEG_PROGRESSIVE, 1), _scan, b"\xff\xd9",
        (*BLOCKS, "lost512", "swapped"),
    ),
    Codec(
        "jpeg-12", ".jpg", "4.51", 12, lambda p: imagecodecs.jpeg_encode(p, bitspersample=12, level=95), _scan,
        b"\xff\xd9", _CHANCE,
    ),
    Codec(
        "jpeg-lossless", ".jpg", "4.70", 12, lambda p: imagecodecs.ljpeg_encode(p, bitspersample=12), _scan,
        b"\xff\xd9", _CHANCE,
    ),
    Codec("jpeg-ls", ".jls", "4.80", 12, imagecodecs.jpegls_encode, _scan, b"\xff\xd9"),
    Codec(
        "j2k", ".j2k", "4.90", 12, lambda p: imagecodecs.jpeg2k_encode(p, level=0, codecformat="j2k"),
        _behind(b"\xff\x93", 2), b"\xff\xd9", _MQ,
    ),
    Codec(
        "jp2", ".jp2", "", 8, lambda p: imagecodecs.jpeg2k_encode(p, level=0, codecformat="jp2"),
        _behind(b"\xff\x93", 2), b"\xff\xd9", _MQ,
    ),
    Codec("htj2k", ".j2c", "4.201", 12, imagecodecs.htj2k_encode, _behind(b"\xff\x93", 2), b"\xff\xd9", _MQ),
    Codec(
        "jxl", ".jxl", "4.110", 12, lambda p: imagecodecs.jpegxl_encode(p, lossless=True), lambda _: 200
    ),
    Codec("rle", "", "5", 12, _rle, lambda _: 64, b"", HARMLESS[1:]),
    Codec(
        "webp-lossless", ".webp", "", 8, lambda p: imagecodecs.webp_encode(np.dstack([p] * 3), lossless=True),
        lambda _: 64, b"", BLOCKS,
    ),
    Codec(
        "webp", ".webp", "", 8, lambda p: imagecodecs.webp_encode(np.dstack([p] * 3), level=90), lambda _: 64, b"",
        (*BLOCKS, "swapped"),
    ),
    Codec("deflated-frame", "", "8.1", 12, lambda p: _deflated(p.tobytes()), lambda _: 0, b"", ()),
    Codec("plain-frame", "", "1.98", 12, lambda p: p.tobytes(), lambda _: 0, b"", (*BLOCKS, "swapped")),
    Codec("tiff-deflate", ".tif", "", 12, _pillow("TIFF", compression="tiff_deflate"), lambda _: 64, b""),
)  # fmt: skip


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


@dataclass(frozen=True)
class Damaged:
    """One file and what a strict reader must do with it."""

    codec: str
    damage: str
    name: str
    data: bytes
    must: str

    @property
    def label(self) -> str:
        """For test ids and messages."""
        return f"{self.codec}-{self.name.rpartition('.')[2]}-{self.damage}"


def damaged_files(seed: int) -> Iterator[Damaged]:
    """Every codec, every damage, as a file and as a DICOM frame where it can be."""
    rng = random.Random(seed)
    for codec in CODECS:
        pixels = phantom(rng.randrange(1 << 30), codec.bits)
        whole = codec.write(pixels)
        for damage in (*HARMLESS, *CUTS, *ENDED, *BLOCKS, *LOST, "swapped"):
            if damage in ENDED and not codec.end:
                continue
            if codec.suffix == ".png" and damage in LOST:
                continue
            data = damage_of(whole, codec, damage, rng)
            must = "accept" if damage in HARMLESS else "refuse"
            if damage in codec.blind:
                must = "free"
            if codec.suffix:
                yield Damaged(codec.name, damage, f"{codec.name}{codec.suffix}", data, must)
            if codec.syntax and not (damage.startswith("trail") and codec.syntax in ("8.1", "1.98")):
                yield Damaged(codec.name, damage, f"{codec.name}.dcm", encapsulated(data, codec, pixels), must)
    yield from _deflated_sets(rng)


def damage_of(whole: bytes, codec: Codec, damage: str, rng: random.Random) -> bytes:
    """The file with one damage."""
    start = codec.start(whole)
    stop = len(whole) - len(codec.end)
    size = stop - start
    middle = start + int(size * rng.uniform(0.3, 0.6))
    if damage == "intact":
        return whole
    if damage.startswith("trail"):
        count = int("".join(c for c in damage if c.isdigit()))
        return whole + (rng.randbytes(count) if "random" in damage else bytes(count))
    if damage.startswith("cut"):
        share = int("".join(c for c in damage if c.isdigit())) / 100
        return whole[: start + int(size * share)] + (codec.end if damage.endswith("end") else b"")
    length = 512 if "512" in damage else size // 5
    if damage.startswith("zero"):
        return whole[:middle] + bytes(length) + whole[middle + length :]
    if damage.startswith("random"):
        return whole[:middle] + rng.randbytes(length) + whole[middle + length :]
    if damage.startswith("lost"):
        return whole[:middle] + whole[middle + length :]
    half = start + size // 2
    return whole[:start] + whole[half:stop] + whole[start:half] + whole[stop:]


def encapsulated(frame: bytes, codec: Codec, pixels: np.ndarray) -> bytes:
    """A DICOM file around a frame; syntaxes that pydicom does not write are put in by hand."""
    dataset = dataset_of(pixels, bits=codec.bits, syntax=FAMILY + "4.90")
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return with_syntax(written(dataset), FAMILY + codec.syntax)


def with_syntax(data: bytes, syntax: str) -> bytes:
    """The same DICOM file with another transfer syntax in its meta group."""
    file = pydicom.dcmread(io.BytesIO(data))
    held = str(file.file_meta.TransferSyntaxUID).encode()
    at = data.index(held)
    old, new = held + b"\0" * (len(held) & 1), syntax.encode() + b"\0" * (len(syntax) & 1)
    moved = data[: at - 2] + len(new).to_bytes(2, "little") + new + data[at + len(old) :]
    group = moved.index(b"\x02\x00\x00\x00UL\x04\x00") + 8
    length = int.from_bytes(moved[group : group + 4], "little") + len(new) - len(old)
    return moved[:group] + length.to_bytes(4, "little") + moved[group + 4 :]


def _deflated_sets(rng: random.Random) -> Iterator[Damaged]:
    """A whole data set deflated (PS3.5 A.5), which has no checksum."""
    pixels = phantom(rng.randrange(1 << 30), 12)
    whole = written(dataset_of(pixels, syntax=FAMILY + "1.99"))
    start = whole.index(b"\x02\x00\x00\x00UL\x04\x00")
    start += 12 + int.from_bytes(whole[start + 8 : start + 12], "little") + 2000
    codec = Codec("deflated-set", "", "", 12, lambda _: whole, lambda _: start)
    for damage in (*HARMLESS, *CUTS, *BLOCKS, *LOST, "swapped"):
        must = "accept" if damage in HARMLESS else "refuse"
        # Its codes fall into step again, and now and then as many bytes come out as before.
        must = "free" if damage == "random512" else must
        yield Damaged("deflated-set", damage, "deflated-set.dcm", damage_of(whole, codec, damage, rng), must)
