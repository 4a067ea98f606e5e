"""Images whose structure is broken or odd: markers, chunks, strips, fragments and offset tables, by a seed.

Where ``damage`` overwrites stretches of coded data, this one takes files apart along their own seams. Each file says
what a strict reader must do: ``accept`` (its pixels are whole), ``refuse`` (pixels are lost), or ``free`` (nothing in
the format is sure to show it).
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import TYPE_CHECKING

import cv2
import imagecodecs
import numpy as np
from PIL import Image, PngImagePlugin
from pydicom.encaps import encapsulate, encapsulate_extended, get_frame
from pydicom.uid import RLELossless

from tests.generators.damage import FAMILY, Damaged, with_syntax
from tests.generators.damage import phantom as chest
from tests.images.made import dataset_of, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # damage, bytes, what must be done
    Case = tuple[str, bytes, str]


def phantom(seed: int, bits: int) -> np.ndarray:
    """The middle of the drawn chest, (240, 200): enough for every damage, and soon decoded."""
    return np.ascontiguousarray(chest(seed, bits)[72:312, 60:260])


# ---- damage of any coded stretch ----


def stretches(data: bytes, start: int, stop: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """The coded bytes from ``start`` to ``stop`` overwritten, doubled, exchanged and left out, at places of a seed."""
    size = stop - start
    for length in (333, 1100):
        if size < 6 * length:
            continue
        at = start + rng.randrange(size // 8, size - 3 * length)
        other = at + length + rng.randrange(1, length)
        block, second = data[at : at + length], data[other : other + length]
        yield f"doubled{length}", data[:at] + block + data[at:]
        yield f"ones{length}", data[:at] + b"\xff" * length + data[at + length :]
        yield f"letters{length}", data[:at] + (b"lorem ipsum " * length)[:length] + data[at + length :]
        yield (
            f"exchanged{length}",
            data[:at] + second + data[at + length : other] + block + data[other + length :],
        )
        yield f"missing{length}", data[:at] + data[at + length :]
        yield f"repeated{length}", data[:at] + data[at - length : at] + data[at + length :]
    for share in (0.02, 0.33, 0.77, 0.985):
        yield f"cut{share}", data[: start + int(size * share)]


# ---- JPEG ----


def segments(data: bytes) -> list[tuple[int, int, int]]:
    """(marker, start, end) of each segment up to the first scan's header."""
    found, at = [], 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((marker, at, end))
        if marker == 0xDA:
            break
        at = end
    return found


def segment(marker: int, body: bytes) -> bytes:
    """One JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_cases(data: bytes, rng: random.Random, *, sure: bool = True) -> Iterator[Case]:
    """Broken and odd forms of a JPEG; ``sure`` where the entropy code shows every loss."""
    parts = segments(data)
    scan = parts[-1][2]
    for name, made in stretches(data, scan, len(data) - 2, rng):
        exact = name.startswith(("doubled", "missing", "ones"))
        yield name, made, "refuse" if name.startswith("cut") or (sure and exact) else "free"
        if name.startswith("cut"):
            yield f"{name}+end", made + b"\xff\xd9", "refuse"
    for marker, start, end in parts:
        yield f"cut-before-{marker:02x}", data[:start], "refuse"
        yield f"cut-after-{marker:02x}", data[:end], "refuse"
    yield "comment", data[:2] + segment(0xFE, b"a remark") + data[2:], "accept"
    yield "unknown-app", data[:2] + segment(0xEB, rng.randbytes(300)) + data[2:], "accept"
    yield "broken-exif", data[:2] + segment(0xE1, b"Exif\0\0" + rng.randbytes(40)) + data[2:], "accept"
    yield "thumbnail-in-app", data[:2] + segment(0xE2, b"MPF\0" + data[:400] + b"\xff\xd9") + data[2:], "accept"
    yield "fill-bytes", data[: parts[-1][1]] + b"\xff\xff\xff" + data[parts[-1][1] :], "accept"
    yield "behind-newline", data + b"\r\n", "accept"
    yield "behind-image", data + data, "accept"
    yield "behind-half-image", data + data[: len(data) // 2], "accept"
    yield "behind-ones", data + b"\xff" * 513, "accept"
    yield "behind-letters", data + b"signature " * 900, "accept"
    restarts = [at for at in range(scan, len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    if len(restarts) > 12:
        some = rng.randrange(3, len(restarts) - 6)
        at, then = restarts[some], restarts[some + 1]
        wrong = 0xD0 + (data[at + 1] - 0xD0 + 4) % 8
        yield "restart-wrong-number", data[: at + 1] + bytes([wrong]) + data[at + 2 :], "refuse"
        yield "restart-missing", data[:at] + data[at + 2 :], "refuse"
        yield "restart-interval-missing", data[:at] + data[then:], "refuse"
        yield "restart-interval-doubled", data[:at] + data[at:then] + data[at:], "refuse"
        yield "restart-interval-emptied", data[: at + 2] + data[then:], "refuse"


# ---- PNG ----


def chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, body) of each chunk."""
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(parts: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts)


def png_cases(data: bytes, rng: random.Random) -> Iterator[Case]:
    """Broken and odd forms of a PNG."""
    parts = chunks(data)
    packed = b"".join(body for kind, body in parts if kind == b"IDAT")
    before = [(k, b) for k, b in parts if k not in (b"IDAT", b"IEND")]
    ended = [(b"IEND", b"")]

    def rebuilt(stream: bytes, size: int = 8192) -> bytes:
        pieces = [(b"IDAT", stream[at : at + size]) for at in range(0, len(stream), size)]
        return png_of([*before, *pieces, *ended])

    yield "chunks-small", rebuilt(packed, 1000), "accept"
    yield "chunk-empty", png_of([*before, (b"IDAT", b""), (b"IDAT", packed), (b"IDAT", b""), *ended]), "accept"
    yield "chunk-unknown", png_of([*before, (b"teSt", b"x" * 50), (b"IDAT", packed), *ended]), "accept"
    yield "chunk-time-behind", png_of([*before, (b"IDAT", packed), (b"tIME", bytes(7)), *ended]), "accept"
    yield "chunk-gamma-odd", png_of([before[0], (b"gAMA", bytes(4)), *before[1:], (b"IDAT", packed), *ended]), "accept"
    yield "behind-letters", data + b"signature " * 900, "accept"
    yield "behind-image", data + data, "accept"
    yield "no-iend", data[:-12], "refuse"
    yield "half-iend", data[:-5], "refuse"
    yield "no-idat", png_of([*before, *ended]), "refuse"
    for share in (0.05, 0.5, 0.95):
        yield f"stream-cut{share}", rebuilt(packed[: int(len(packed) * share)]), "refuse"
    yield "stream-without-checksum", rebuilt(packed[:-4]), "free"
    yield "stream-wrong-checksum", rebuilt(packed[:-4] + bytes(4)), "refuse"
    yield "stream-behind", rebuilt(packed + b"more than enough"), "accept"
    pixels = zlib.decompress(packed)
    yield "stream-short-pixels", rebuilt(zlib.compress(pixels[: len(pixels) * 9 // 10])), "refuse"
    pieces = [(b"IDAT", packed[at : at + 4096]) for at in range(0, len(packed), 4096)]
    lost = rng.randrange(1, len(pieces) - 1)
    yield "chunk-lost", png_of([*before, *pieces[:lost], *pieces[lost + 1 :], *ended]), "refuse"
    yield "chunk-doubled", png_of([*before, *pieces[:lost], pieces[lost], *pieces[lost:], *ended]), "refuse"
    # The decoder has all rows before it comes to what is wrong.
    yield "chunk-doubled-late", png_of([*before, *pieces[:-1], pieces[-2], pieces[-1], *ended]), "refuse"
    swapped = [*pieces[: lost - 1], pieces[lost], pieces[lost - 1], *pieces[lost + 1 :]]
    yield "chunks-exchanged", png_of([*before, *swapped, *ended]), "refuse"
    crc = data.index(b"IDAT") + 4 + len(parts[[k for k, _ in parts].index(b"IDAT")][1])
    yield "wrong-crc", data[:crc] + bytes([data[crc] ^ 1]) + data[crc + 1 :], "refuse"
    if any(kind == b"PLTE" for kind, _ in before):
        without = [(k, b) for k, b in before if k != b"PLTE"]
        yield "palette-missing", png_of([*without, (b"IDAT", packed), *ended]), "refuse"


# ---- TIFF ----


def tiff_cases(data: bytes, rng: random.Random, *, packed: bool) -> Iterator[Case]:
    """Broken forms of a TIFF; ``packed`` where the compression shows a loss."""
    start, stop = data_of_tiff(data)
    for name, made in stretches(data, start, stop, rng):
        if name.startswith("cut"):
            # The directory may lie behind the pixels: what is cut is the file.
            yield name, made, "refuse"
        elif len(made) == len(data):
            yield name, made, "refuse" if packed else "free"
    yield "behind-letters", data + b"signature " * 900, "accept"


def data_of_tiff(data: bytes) -> tuple[int, int]:
    """First byte of the first strip and last of the last."""
    with Image.open(io.BytesIO(data)) as image:
        offsets, sizes = image.tag_v2[273], image.tag_v2[279]
    return offsets[0], offsets[-1] + sizes[-1]


# ---- RIFF, BMP, JPEG 2000, JPEG XL ----


def webp_cases(data: bytes, rng: random.Random, *, lossless: bool) -> Iterator[Case]:
    """Broken and odd forms of a WebP."""
    for name, made in stretches(data, 30, len(data), rng):
        sure = name.startswith("cut") or (lossless and name.startswith("missing"))
        yield name, made, "refuse" if sure else "free"
        if name.startswith("cut"):
            whole = (
                made[:4] + struct.pack("<I", len(made) - 8) + made[8:16] + struct.pack("<I", len(made) - 20) + made[20:]
            )
            yield f"{name}+sizes", whole, "refuse"
    yield "behind-letters", data + b"signature " * 900, "accept"


def bmp_cases(data: bytes, rng: random.Random) -> Iterator[Case]:
    """Broken and odd forms of a BMP."""
    for share in (0.05, 0.5, 0.99):
        yield f"cut{share}", data[: int(len(data) * share)], "refuse"
    yield "size-zero", data[:2] + bytes(4) + data[6:], "accept"
    yield "behind-letters", data + b"signature " * 900, "accept"
    del rng


def codestream_cases(data: bytes, rng: random.Random, start: int, *, sure: bool) -> Iterator[Case]:
    """Broken forms of a codestream that ends with EOC, or with nothing; ``sure`` where the coder shows a loss."""
    ended = data[-2:] == b"\xff\xd9"
    for name, made in stretches(data, start, len(data) - 2 * ended, rng):
        lost = name.startswith(("cut", "missing", "doubled"))
        yield name, made, "refuse" if lost or sure else "free"
        if ended and name.startswith("cut"):
            yield f"{name}+end", made + b"\xff\xd9", "refuse"
    if ended:
        yield "behind-zeros", data + bytes(333), "accept"


# ---- the codecs, as files ----


def _cv(suffix: str, *options: int) -> Callable[[np.ndarray], bytes]:
    return lambda pixels: cv2.imencode(suffix, pixels, list(options))[1].tobytes()


def _saved(kind: str, mode: str = "", **options: object) -> Callable[[np.ndarray], bytes]:
    def write(pixels: np.ndarray) -> bytes:
        stream = io.BytesIO()
        image = Image.fromarray(pixels)
        (image.convert(mode) if mode else image).save(stream, kind, **options)
        return stream.getvalue()

    return write


def _colour(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, pixels[::-1], pixels[:, ::-1]])


def _scan_of(data: bytes) -> int:
    return segments(data)[-1][2]


def files(seed: int) -> Iterator[Damaged]:
    """Every format as a file."""
    rng = random.Random(seed)

    def of(name: str, suffix: str, cases: Iterator[Case], whole: bytes) -> Iterator[Damaged]:
        yield Damaged(name, "intact", f"{name}{suffix}", whole, "accept")
        for damage, data, must in cases:
            yield Damaged(name, damage, f"{name}{suffix}", data, must)

    def drawn(bits: int) -> np.ndarray:
        return phantom(rng.randrange(1 << 30), bits)

    grey, deep = drawn(8), drawn(12)
    quality, restart = int(cv2.IMWRITE_JPEG_QUALITY), int(cv2.IMWRITE_JPEG_RST_INTERVAL)
    sampling = int(cv2.IMWRITE_JPEG_SAMPLING_FACTOR)
    jpegs = (
        ("jpeg-q80", _cv(".jpg", quality, 80)(grey), True),
        ("jpeg-restart", _cv(".jpg", quality, 90, restart, 7)(grey), True),
        ("jpeg-optimised", _saved("JPEG", quality=92, optimize=True)(grey), True),
        ("jpeg-colour-420", _cv(".jpg", quality, 92, sampling, 0x221111)(_colour(grey)), True),
        ("jpeg-colour-restart", _cv(".jpg", quality, 92, restart, 5)(_colour(grey)), True),
        ("jpeg-cmyk", _saved("JPEG", "CMYK", quality=92)(_colour(grey)), True),
        ("jpeg-progressive", _saved("JPEG", progressive=True, quality=92)(grey), False),
        ("jpeg-12", imagecodecs.jpeg_encode(deep, bitspersample=12, level=90), True),
        ("jpeg-lossless", imagecodecs.ljpeg_encode(deep, bitspersample=12), True),
        ("jpeg-lossless-16", imagecodecs.ljpeg_encode(deep << 4, bitspersample=16), True),
    )
    for name, whole, sure in jpegs:
        yield from of(name, ".jpg", jpeg_cases(whole, rng, sure=sure), whole)
    palette = Image.fromarray(grey).quantize(64)
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a remark")
    pngs = (
        ("png8-text", _saved("PNG", pnginfo=info)(grey)),
        ("png16", _saved("PNG")(deep << 4)),
        ("png-colour", _saved("PNG")(_colour(grey))),
        ("png-palette", stream.getvalue()),
        ("png-rgba", _saved("PNG", "RGBA")(_colour(grey))),
    )
    for name, whole in pngs:
        yield from of(name, ".png", png_cases(whole, rng), whole)
    for name, compression, packed in (
        ("plain", None, False), ("lzw", "tiff_lzw", False), ("deflate", "tiff_adobe_deflate", True),
        ("packbits", "packbits", False), ("jpeg", "jpeg", False), ("lzma", "lzma", True), ("zstd", "zstd", False),
    ):  # fmt: skip
        for bits in (8, 16):
            if compression == "jpeg" and bits == 16:
                continue
            pixels = grey if bits == 8 else deep << 4
            whole = _saved("TIFF", compression=compression)(pixels)
            yield from of(f"tiff-{name}-{bits}", ".tif", tiff_cases(whole, rng, packed=packed), whole)
    for name, whole, lossless in (
        ("webp", imagecodecs.webp_encode(_colour(grey), level=85), False),
        ("webp-lossless", imagecodecs.webp_encode(_colour(grey), lossless=True), True),
    ):
        yield from of(name, ".webp", webp_cases(whole, rng, lossless=lossless), whole)
    for name, pixels in (("bmp", grey), ("bmp-colour", _colour(grey))):
        whole = _saved("BMP")(pixels)
        yield from of(name, ".bmp", bmp_cases(whole, rng), whole)
    streams = (
        ("jpeg-ls-8", ".jls", imagecodecs.jpegls_encode(grey), 0, True),
        ("jpeg-ls-16", ".jls", imagecodecs.jpegls_encode(deep), 0, True),
        ("jpeg-ls-near", ".jls", imagecodecs.jpegls_encode(deep, level=3), 0, True),
        ("j2k-lossy", ".j2k", imagecodecs.jpeg2k_encode(deep, level=60, codecformat="j2k"), 400, False),
        ("jp2-16", ".jp2", imagecodecs.jpeg2k_encode(deep, level=0, codecformat="jp2"), 400, False),
        ("htj2k", ".jph", imagecodecs.htj2k_encode(deep), 400, False),
        ("jxl", ".jxl", imagecodecs.jpegxl_encode(deep, lossless=True), 200, True),
        ("jxl-lossy", ".jxl", imagecodecs.jpegxl_encode(grey, distance=1.0), 200, True),
    )
    for name, suffix, whole, start, sure in streams:
        first = start or _scan_of(whole)
        yield from of(name, suffix, codestream_cases(whole, rng, first, sure=sure), whole)


# ---- DICOM ----

# Coders that end in a state which exchanged stretches do not reach; other codes fit by chance now and then.
_SURE = ("4.80", "4.110")


def in_dicom(body: bytes, codec: str, pixels: np.ndarray, bits: int, **tags: object) -> bytes:
    """A DICOM file around encapsulated pixel data."""
    dataset = dataset_of(pixels, bits=bits, syntax=FAMILY + "4.90", **tags)
    if pixels.ndim == 3:
        dataset.PhotometricInterpretation = "RGB"
    dataset.PixelData = body
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return with_syntax(written(dataset), FAMILY + codec.partition("/")[0])


def encapsulation(frame: bytes, codec: str, pixels: np.ndarray, bits: int) -> Iterator[Damaged]:
    """One frame in odd and broken encapsulations (PS3.5 A.4)."""
    name = f"dicom-{codec}"

    def of(body: bytes, **tags: object) -> bytes:
        return in_dicom(body, codec, pixels, bits, **tags)

    def item(body: bytes) -> bytes:
        return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(body)) + body

    def pieces(count: int) -> list[bytes]:
        size = len(frame) // count // 2 * 2
        cut = [frame[at * size : (at + 1) * size] for at in range(count - 1)]
        last = frame[(count - 1) * size :]
        return [*cut, last + b"\0" * (len(last) & 1)]

    parts = pieces(5)
    made = (
        ("intact", of(encapsulate([frame])), "accept"),
        ("fragments", of(encapsulate([frame], fragments_per_frame=4)), "accept"),
        ("no-table", of(encapsulate([frame], has_bot=False)), "accept"),
        ("no-table-fragments", of(item(b"") + b"".join(map(item, parts))), "accept"),
        ("table-wrong", of(item(struct.pack("<I", 12345)) + item(pieces(1)[0])), "accept"),
        ("table-of-two", of(item(struct.pack("<II", 0, 4)) + b"".join(map(item, parts))), "accept"),
        ("table-odd", of(item(b"\0\0") + item(pieces(1)[0])), "accept"),
        ("fragment-empty", of(item(b"") + item(pieces(1)[0]) + item(b"")), "accept"),
        ("fragment-lost", of(item(b"") + b"".join(map(item, [*parts[:2], *parts[3:]]))), "refuse"),
        ("fragment-first-lost", of(item(b"") + b"".join(map(item, parts[1:]))), "refuse"),
        ("fragment-last-lost", of(item(b"") + b"".join(map(item, parts[:-1]))), "refuse"),
        ("fragment-doubled", of(item(b"") + b"".join(map(item, [*parts[:3], *parts[2:]]))), "refuse"),
        (
            "fragments-exchanged", of(item(b"") + b"".join(map(item, [parts[0], parts[2], parts[1], *parts[3:]]))),
            "refuse" if codec in _SURE else "free",
        ),
        ("no-item", of(item(b"")), "refuse"),
    )  # fmt: skip
    for damage, data, must in made:
        yield Damaged(name, damage, f"{name.replace('/', '-')}.dcm", data, must)
    whole = made[0][1]
    yield Damaged(name, "no-delimiter", f"{name.replace('/', '-')}.dcm", whole[:-8], "accept")
    body, offsets, lengths = encapsulate_extended([frame])
    extended = of(body, ExtendedOffsetTable=offsets, ExtendedOffsetTableLengths=lengths)
    yield Damaged(name, "extended-table", f"{name.replace('/', '-')}.dcm", extended, "accept")
    at = whole.index(parts[0][:64])
    for share in (0.1, 0.5, 0.97):
        cut = whole[: at + int(len(frame) * share)]
        yield Damaged(name, f"file-cut{share}", f"{name.replace('/', '-')}.dcm", cut, "refuse")


def dicoms(seed: int) -> Iterator[Damaged]:
    """Every syntax in DICOM: its encapsulation broken, then its codestream."""
    rng = random.Random(seed)
    grey, deep = phantom(rng.randrange(1 << 30), 8), phantom(rng.randrange(1 << 30), 12)
    quality, restart = int(cv2.IMWRITE_JPEG_QUALITY), int(cv2.IMWRITE_JPEG_RST_INTERVAL)
    colour = _colour(grey)
    rle = _rle_of(deep)
    frames: tuple[tuple[str, bytes, np.ndarray, int, Callable[[], Iterator[Case]]], ...] = (
        ("4.50", jpeg := _cv(".jpg", quality, 90, restart, 9)(grey), grey, 8, lambda: jpeg_cases(jpeg, rng)),
        ("4.50/rgb", rgb := _cv(".jpg", quality, 90)(colour), colour, 8, lambda: jpeg_cases(rgb, rng)),
        (
            "4.51", twelve := imagecodecs.jpeg_encode(deep, bitspersample=12, level=90), deep, 12,
            lambda: jpeg_cases(twelve, rng),
        ),
        (
            "4.57", less := imagecodecs.ljpeg_encode(deep, bitspersample=12), deep, 12,
            lambda: jpeg_cases(less, rng),
        ),
        (
            "4.70/rgb", lossless := imagecodecs.jpeg_encode(colour, lossless=True, predictor=1), colour, 8,
            lambda: jpeg_cases(lossless, rng),
        ),
        (
            "4.80", ls := imagecodecs.jpegls_encode(deep), deep, 12,
            lambda: codestream_cases(ls, rng, _scan_of(ls), sure=True),
        ),
        (
            "4.90", j2k := imagecodecs.jpeg2k_encode(deep, level=0, codecformat="j2k"), deep, 12,
            lambda: codestream_cases(j2k, rng, 400, sure=False),
        ),
        (
            "4.90/rgb", j2c := imagecodecs.jpeg2k_encode(colour, level=0, codecformat="j2k"), colour, 8,
            lambda: codestream_cases(j2c, rng, 400, sure=False),
        ),
        ("4.201", ht := imagecodecs.htj2k_encode(deep), deep, 12, lambda: codestream_cases(ht, rng, 400, sure=False)),
        (
            "4.110", jxl := imagecodecs.jpegxl_encode(deep, lossless=True), deep, 12,
            lambda: codestream_cases(jxl, rng, 200, sure=True),
        ),
        ("5", rle, deep, 12, lambda: rle_cases(rle, rng)),
        ("8.1", packed := _deflated(deep.tobytes()), deep, 12, lambda: deflate_cases(packed, rng)),
    )  # fmt: skip
    for name, frame, pixels, bits, cases in frames:
        yield from encapsulation(frame, name, pixels, bits)
        for damage, data, must in cases():
            if damage.startswith("behind") and name in ("5", "8.1"):
                continue
            file = in_dicom(encapsulate([data or b"\0\0"]), name, pixels, bits)
            yield Damaged(f"frame-{name}", damage, f"frame-{name.replace('/', '-')}.dcm", file, must)
    yield from native(deep, rng)


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def deflate_cases(data: bytes, rng: random.Random) -> Iterator[Case]:
    """Broken raw deflate streams, whose length shows the damage or nothing does."""
    for name, made in stretches(data, 100, len(data), rng):
        yield name, made, "refuse" if name.startswith(("cut", "missing", "doubled")) else "free"


def _rle_of(pixels: np.ndarray) -> bytes:
    dataset = dataset_of(pixels, bits=16)
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def rle_cases(data: bytes, rng: random.Random) -> Iterator[Case]:
    """Broken RLE frames (PS3.5 annex G)."""
    count, first, second = struct.unpack("<III", data[:12])
    assert (count, first) == (2, 64)
    for name, made in stretches(data, 64, len(data), rng):
        yield name, made, "refuse" if name.startswith(("cut", "missing")) else "free"
    yield "one-segment", struct.pack("<II", 1, 64) + bytes(56) + data[64:second], "refuse"
    yield "three-segments", struct.pack("<IIII", 3, 64, second, second + 64) + data[16:], "refuse"
    yield "offset-behind-end", data[:8] + struct.pack("<I", len(data) + 100) + data[12:], "refuse"
    yield "offset-wrong", data[:8] + struct.pack("<I", second + 200) + data[12:], "refuse"
    yield "header-zeros", bytes(64) + data[64:], "refuse"


def native(pixels: np.ndarray, rng: random.Random) -> Iterator[Damaged]:
    """Uncompressed pixel data that is cut, longer than needed, or followed by more."""
    del rng
    for name, syntax in (("explicit", "1.2.840.10008.1.2.1"), ("implicit", "1.2.840.10008.1.2")):
        whole = written(dataset_of(pixels, syntax=syntax))
        start = whole.index(pixels.tobytes()[:256])
        cases = (
            ("intact", whole, "accept"),
            ("cut0.5", whole[: start + pixels.nbytes // 2], "refuse"),
            ("cut-two-bytes", whole[:-2], "refuse"),
            ("padding-behind", whole + b"\xfc\xff\xfc\xff\0\0\0\0\x04\0\0\0\0\0\0\0" * 1, "free"),
            ("longer", written(_longer(pixels, syntax)), "accept"),
        )
        for damage, data, must in cases:
            yield Damaged(f"native-{name}", damage, f"native-{name}.dcm", data, must)


def _longer(pixels: np.ndarray, syntax: str) -> object:
    dataset = dataset_of(pixels, syntax=syntax)
    dataset.PixelData += bytes(600)
    return dataset


def broken_files(seed: int) -> Iterator[Damaged]:
    """All of them."""
    yield from files(seed)
    yield from dicoms(seed)
