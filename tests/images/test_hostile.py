"""Files that are cut, altered, inflated or made to harm: an error that names the file, never a crash, hang or flood."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

import cxrprep
from cxrprep.errors import ImageError
from cxrprep.images.decode import decode
from cxrprep.images.image_info import inspect
from cxrprep.images.radiograph import ImageLimits
from cxrprep.images.recipe import load_recipe
from tests.fuzz.mutation import mutated
from tests.images.made import dataset_of, dicom_bytes, ramp, written

GREY = (cv2.GaussianBlur(np.random.default_rng(7).random((48, 40)), (0, 0), 3) * 8000 - 2000).clip(0, 4095)


def encoded(kind: str) -> bytes:
    if kind == "png":
        return cv2.imencode(".png", (GREY / 16).astype(np.uint8))[1].tobytes()
    if kind == "png-16":
        return cv2.imencode(".png", (GREY * 16).astype(np.uint16))[1].tobytes()
    if kind == "jpeg":
        return cv2.imencode(".jpg", (GREY / 16).astype(np.uint8))[1].tobytes()
    tags = {"WindowCenter": 2000, "WindowWidth": 3000, "PixelSpacing": [0.1, 0.1], "PixelPaddingValue": 0}
    dataset = dataset_of(GREY.astype(np.uint16), **tags)
    syntax = {"rle": RLELossless, "jpeg-ls": JPEGLSLossless, "j2k": JPEG2000Lossless}.get(kind)
    if syntax:
        dataset.compress(syntax)
    return written(dataset)


KINDS = ["png", "png-16", "jpeg", "dicom", "rle", "jpeg-ls", "j2k"]


def name_of(kind: str) -> str:
    return "victim.img" if kind in ("png", "png-16", "jpeg") else "victim.dcm"


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_anywhere_is_refused_by_name(kind: str) -> None:
    whole, name = encoded(kind), name_of(kind)
    decode(whole, name)
    # The last eight bytes of a compressed DICOM only say that nothing follows.
    for cut in sorted({0, 1, 3, 20, 131, 200, len(whole) // 3, len(whole) // 2, len(whole) - 9}):
        with pytest.raises(ImageError, match=r"victim"):
            decode(whole[:cut], name)


@pytest.mark.parametrize("kind", KINDS)
def test_mutations_are_answered_and_quickly(kind: str) -> None:
    """A second of mutations for each decoder's wrapper, through a whole recipe; whatever is not ours is a finding."""
    recipe = load_recipe("square-224")
    seeds = [encoded(kind)]
    words = [b"\xff\xff\xff\xff", b"\xe0\x7f\x10\x00", b"IDAT", b"\xff\xd9", struct.pack("<I", 0x7FFFFFFF), b"\xfe\xff"]
    outcomes: dict[str, int] = {}
    begun = time.process_time()
    for data in itertools.islice(mutated(seeds, words, seed=77), 600):
        if time.process_time() - begun > 1.0:
            break
        started = time.process_time()
        try:
            recipe(decode(data, name_of(kind), ImageLimits(pixels=4_000_000, size=50_000_000)))
            outcome = "ok"
        except ImageError:
            outcome = "refused"
        # CharLS takes seconds over some broken streams; nothing may take minutes.
        assert time.process_time() - started < 20, data[:200]
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes.get("refused")
    assert outcomes.get("ok")


def test_an_altered_png_is_refused_even_where_it_would_decode() -> None:
    whole = bytearray(encoded("png"))
    whole[len(whole) // 2] ^= 0x40
    with pytest.raises(ImageError, match=r"altered"):
        decode(bytes(whole), "x.png")


# ---- limits ----


def test_an_image_past_the_limit_is_refused_before_it_is_decoded() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((2000, 2000), np.uint8)).save(stream, "PNG")
    with pytest.raises(ImageError, match="2000 x 2000") as caught:
        decode(stream.getvalue(), "bomb.png", ImageLimits(pixels=1_000_000))
    assert "--max-pixels" in caught.value.hint


def _png_bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    lines = b"".join(packer.compress(bytes(10_000_001)) for _ in range(20)) + packer.flush()
    header = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def _bombs() -> dict[str, bytes]:
    wide = dataset_of(ramp())
    wide.Rows, wide.Columns = 65535, 65535
    palette = dicom_bytes(ramp(255, np.uint8), bits=8, NumberOfFrames="2000000000")
    stated = bytearray(encoded("jpeg"))
    at = stated.find(b"\xff\xc0")
    stated[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    runs = dataset_of(np.zeros((64, 64), np.uint8), bits=8)
    runs.compress(RLELossless)
    runs.Rows, runs.Columns = 14000, 14000
    return {
        "png.png": _png_bomb(), "wide.dcm": written(wide), "frames.dcm": palette, "jpeg.jpg": bytes(stated),
        "runs.dcm": written(runs),
    }  # fmt: skip


def test_bombs_neither_fill_the_memory_nor_take_long(tmp_path: Path) -> None:
    """In a process of its own: what a decoder that believes the header would take is seen in its memory."""
    for name, data in _bombs().items():
        (tmp_path / name).write_bytes(data)
    script = """
import resource, sys, time
from pathlib import Path
import cxrprep.images.convert
from cxrprep.errors import ImageError
from cxrprep.images.decode import decode
import imagecodecs, pydicom.pixels.utils, pydicom.encaps
def most():
    # Not what getrusage says where it can be helped: that begins with what the process was that started this one.
    try:
        return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
used = most()
for path in sorted(Path(sys.argv[1]).iterdir()):
    begun = time.process_time()
    try:
        decode(path.read_bytes(), path.name)
        print(path.name, "decoded")
    except ImageError as error:
        print(path.name, "refused:", error.message)
    assert time.process_time() - begun < 10, path
grown = (most() - used) / 1024
print("grown", round(grown))
assert grown < 100, grown
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=root,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("wide.dcm", "frames.dcm", "jpeg.jpg", "runs.dcm"):
        assert f"{name} refused: {name}" in done.stdout


# ---- headers that lie or lack ----


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Rows": None}, "without an image"),
        ({"Columns": 0}, "without an image"),
        ({"PixelData": None}, "without pixel data"),
        ({"BitsAllocated": None}, ""),
        ({"BitsAllocated": 12}, ""),
        ({"BitsAllocated": 32}, ""),
        ({"SamplesPerPixel": 3}, ""),
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"Rows": 65}, "cut short"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, ""),
        ({"PhotometricInterpretation": "YBR_FULL"}, ""),
    ],
    ids=str,
)
def test_a_header_that_lies_or_lacks_is_told_by_name(change: dict, said: str) -> None:
    dataset = dataset_of(ramp())
    for keyword, value in change.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    with pytest.raises(ImageError, match=rf"victim\.dcm.*{said}") as caught:
        decode(written(dataset), "victim.dcm")
    assert caught.value.hint or "pixels" in caught.value.message


@pytest.mark.parametrize("keyword", ["PhotometricInterpretation", "SamplesPerPixel", "BitsStored", "HighBit"])
def test_a_tag_that_can_be_told_may_lack(keyword: str) -> None:
    whole = dataset_of(ramp())
    expected = decode(written(whole), "x.dcm").pixels
    lacking = dataset_of(ramp())
    delattr(lacking, keyword)
    assert np.array_equal(decode(written(lacking), "x.dcm").pixels, expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [("WindowCenter", "LO", "wide"), ("PixelSpacing", "LO", "a\\b"), ("RescaleSlope", "LO", "one"),
     ("RescaleSlope", "LO", "nan"), ("VOILUTFunction", "LO", "x" * 64), ("PixelPaddingValue", "LO", "none")],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_left_out(keyword: str, vr: str, value: str) -> None:
    dataset = dataset_of(ramp())
    dataset.add_new(keyword, vr, value)
    assert np.array_equal(load_recipe("square-224")(decode(written(dataset), "x.dcm")).pixels,
                          load_recipe("square-224")(decode(dicom_bytes(ramp()), "x.dcm")).pixels)  # fmt: skip


def test_a_length_that_lies_is_refused_or_read_right() -> None:
    whole = dicom_bytes(ramp())
    at = whole.find(b"\xe0\x7f\x10\x00OW")
    refused = []
    for length in (0, 2, 8190, 8192, 8194, 0x7FFFFFFE, 0xFFFFFFFE, 0xFFFFFFFF):
        altered = whole[: at + 8] + struct.pack("<I", length) + whole[at + 12 :]
        try:
            assert np.array_equal(decode(altered, "victim.dcm").pixels, ramp())
        except ImageError as error:
            refused.append((length, error.message))
    assert all("victim.dcm" in message for _, message in refused)
    assert 8192 not in dict(refused)
    assert {0, 2, 8190} <= set(dict(refused))


def test_one_frame_of_several_can_be_asked_for() -> None:
    from cxrprep.images.dicom import decode_dicom

    frames = np.stack([ramp(), ramp()[::-1], ramp()[:, ::-1]])
    dataset = dataset_of(ramp(), NumberOfFrames=3)
    dataset.PixelData = frames.tobytes()
    data = written(dataset)
    with pytest.raises(ImageError, match="3 frames"):
        decode(data, "x.dcm")
    for number in (1, 2, 3):
        assert np.array_equal(decode_dicom(data, "x.dcm", frame=number).pixels, frames[number - 1])


def test_a_frame_is_chosen_on_the_command_line_and_known_by_the_fingerprint(tmp_path: Path) -> None:
    frames = np.stack([ramp(), ramp()[::-1], ramp()[:, ::-1]])
    dataset = dataset_of(ramp(), NumberOfFrames=3)
    dataset.PixelData = frames.tobytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "several.dcm").write_bytes(written(dataset))
    (tmp_path / "in" / "one.dcm").write_bytes(written(dataset_of(ramp())))
    pages = [np.full((40, 50), value, np.uint8) for value in (10, 200)]
    (tmp_path / "in" / "pages.tif").write_bytes(imagecodecs.tiff_encode(np.stack(pages), photometric="minisblack"))
    recipe = tmp_path / "plain.toml"
    recipe.write_text('summary = "as shown"\n[[step]]\ndo = "voi"\n')

    def convert(out: str, **options: int) -> dict[str, Any]:
        result = cxrprep.convert(tmp_path / "in", recipe=str(recipe), out=tmp_path / out, **options)
        rows = pq.read_table(tmp_path / out / "manifests" / "images.parquet").to_pylist()
        found = {Path(row["source_path"]).name: cv2.imread(str(tmp_path / out / row["path"]), 0) for row in rows}
        return {"failed": result.value.failed, "fingerprint": result.value.fingerprint, **found}

    without, second, third = convert("without"), convert("second", frame=2), convert("third", frame=3)
    assert (without["failed"], second["failed"]) == (2, 0)
    failures = pq.read_table(tmp_path / "without" / "manifests" / "failures.parquet").to_pylist()
    assert all("--frame 1" in failure["hint"] for failure in failures)
    assert len({each["fingerprint"] for each in (without, second, third)}) == 3
    assert np.array_equal(second["one.dcm"], without["one.dcm"])
    assert np.array_equal(second["several.dcm"], second["one.dcm"][::-1])
    assert second["pages.tif"][0, 0] == 200
    # The TIFF has two pages.
    assert third["failed"] == 1
    assert np.array_equal(third["several.dcm"], second["one.dcm"][:, ::-1])


def test_inspection_tells_truncated_from_broken_and_from_no_image(tmp_path: Path) -> None:
    def seen(data: bytes, name: str = "x.dcm") -> object:
        (tmp_path / name).write_bytes(data)
        return inspect(tmp_path / name)

    report = dataset_of(ramp())
    del report.PixelData
    whole = dicom_bytes(ramp())
    assert (seen(whole).format, seen(whole).width, seen(whole).error) == ("DICOM", 64, "")
    assert seen(whole[:-100]).truncated
    assert seen(encoded("png")[:-20], "x.png").truncated
    assert not seen(written(report)).has_pixels
    assert seen(dicom_bytes(np.full((8, 8), 3, np.uint16))).constant
    assert seen(b"").error


def test_warnings_of_others_do_not_reach_the_terminal() -> None:
    """pydicom warns of values that break the standard; among 377,110 files nobody would see anything else."""
    import warnings

    dataset = pydicom.Dataset()
    dataset.update(dataset_of(ramp()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.add_new("PatientAge", "AS", "58")
        whole = dataset_of(ramp())
        whole.add_new("PatientAge", "AS", "58")
        data = written(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(data, "x.dcm")
