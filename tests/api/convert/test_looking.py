"""What a person sees before a million files are made: the preview of a recipe, and tags that look like an identity."""

from __future__ import annotations

import base64
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrprep.api.phi import check_phi
from cxrprep.api.preview import preview
from cxrprep.executors import Engine
from cxrprep.images.phi import mask, scan_tags
from tests.api.convert import hospital
from tests.api.convert.commands import run
from tests.commands import cxrprep, ok, result
from tests.generators.small import nih_chestxray14
from tests.parts import need

INLINE = Engine("inline")


class Page(HTMLParser):
    """Image addresses, words and tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            found = dict(attrs)
            assert found["alt"]
            self.images.append(found["src"] or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def preview_of(root: Path, recipe: str, out: Path, count: int = 10) -> tuple[object, Page]:
    value = preview(root, recipe=recipe, out=out, count=count).value
    return value, Page(value.path.read_text(encoding="utf-8"))


def pictures(page: Page) -> list[np.ndarray]:
    found = []
    for address in page.images:
        assert address.startswith("data:image/jpeg;base64,")
        data = np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8)
        found.append(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))
    return found


def test_each_image_is_shown_as_stored_as_intended_and_as_made(tmp_path: Path) -> None:
    root = hospital.write(tmp_path / "in")
    value, page = preview_of(root, "square-224", tmp_path / "out")
    shown = pictures(page)
    assert (value.images, value.unreadable) == (7, 1)
    assert len(shown) == 6 * 3
    assert all(image.ndim == 2 for image in shown)
    text = " ".join(page.words)
    assert "window centre 1500, width 3000, LINEAR" in text
    assert "ward 1/b/IM0001" in text
    assert "Cannot be converted" in text
    assert not page.tags & {"script", "link", "iframe"}
    # Nothing else was written.
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["preview.html"]


def test_a_washed_out_and_an_inverted_recipe_are_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    narrow = hospital.dicom(hospital.body(1), WindowCenter=700, WindowWidth=200)
    (tmp_path / "in/narrow.dcm").write_bytes(narrow)
    (tmp_path / "in/good.dcm").write_bytes(hospital.dicom(hospital.body(2)))
    (tmp_path / "in/wrong.dcm").write_bytes(hospital.dicom(hospital.body(3), PhotometricInterpretation="MONOCHROME1"))
    value, _ = preview_of(tmp_path / "in", "square-224", tmp_path / "out")
    said: dict[str, list[str]] = {}
    for name, text in value.warnings:
        said.setdefault(name, []).append(text)
    assert "good.dcm" not in said
    assert any(text.startswith("washed out?") for text in said["narrow.dcm"])
    assert any(text.startswith("inverted?") for text in said["wrong.dcm"])


def test_the_same_folder_shows_the_same_images(tmp_path: Path) -> None:
    root = hospital.many(tmp_path / "in", 30)
    first, _ = preview_of(root, "square-224", tmp_path / "a", count=4)
    second, _ = preview_of(root, "square-224", tmp_path / "b", count=4)
    assert first.images == 4
    assert first.path.read_bytes() == second.path.read_bytes()


def test_a_sheet_of_a_known_dataset_lies_where_its_images_would(tmp_path: Path) -> None:
    nih_chestxray14.write(tmp_path / "nih")
    code, value, said = run("convert", tmp_path / "nih", "--recipe", "square-224", "--preview", 3)
    assert code == 0, said
    assert value["path"] == str(tmp_path / "nih/derived/square-224/preview.html")
    assert value["images"] == 3


@pytest.mark.slow
def test_a_real_browser_shows_every_image_and_asks_for_nothing(tmp_path: Path) -> None:
    browser = need("chromium")
    root = hospital.write(tmp_path / "in")
    value, page = preview_of(root, "shortest-1024-16bit", tmp_path / "out")
    shot = tmp_path / "page.png"
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,3200", f"--screenshot={shot}"]
    subprocess.run([*words, value.path.as_uri()], capture_output=True, check=True, timeout=100)
    seen = cv2.imread(str(shot), cv2.IMREAD_GRAYSCALE)
    assert seen is not None
    # A broken image leaves its black square empty: here there is grey of radiographs all over the page.
    assert ((seen > 40) & (seen < 200)).mean() > 0.05
    assert not re.search(r"""(src|href)=["'](?!data:)""", value.path.read_text(encoding="utf-8"))
    assert len(page.images) == 18


def test_suspect_tags_are_named_with_their_files_and_values_are_masked(tmp_path: Path) -> None:
    root = hospital.write(tmp_path / "in")
    value = check_phi(root, engine=INLINE).value
    found = {tag.keyword: tag for tag in value.tags}
    name = found["PatientName"]
    assert (name.tag, name.kind, name.files) == ("(0010,0010)", "person", 3)
    assert name.names == ("ward 1/1.2.840.113619.2", "ward 1/b/IM0001", "ward 1/report.dcm")
    assert name.masked == "xxxxxxx^xxxxxxxxx"
    assert found["PatientID"].files == 4
    kinds = {keyword: tag.kind for keyword, tag in found.items()}
    assert kinds["AccessionNumber"] == "id"
    assert kinds["PatientBirthDate"] == kinds["StudyDate"] == "date"
    assert kinds["InstitutionName"] == kinds["DeviceSerialNumber"] == "place"
    assert kinds["ReferringPhysicianName"] == "person"
    assert kinds["StudyInstanceUID"] == "uid"
    assert kinds["PNG text 'Comment'"] == "text"
    assert not {"Modality", "PhotometricInterpretation", "SOPClassUID", "Rows", "ViewPosition"} & set(kinds)


def test_what_is_printed_of_many_files_fits_a_screen_and_json_has_it_all(tmp_path: Path) -> None:
    import io
    import json

    import pydicom

    plain = pydicom.dcmread(io.BytesIO(hospital.dicom(hospital.body(1, 32, 32), **hospital.IDENTITY)))
    for creator, group in (("SIEMENS MED", 0x0019), ("ELBKLINIKUM", 0x0021)):
        block = plain.private_block(group, creator, create=True)
        for number in range(40):
            block.add_new(number, "LO", f"ZWIEBEL {number}")
    held = io.BytesIO()
    plain.save_as(held)
    (tmp_path / "in").mkdir()
    for number in range(60):
        (tmp_path / f"in/i{number:04d}.dcm").write_bytes(held.getvalue())
    words = ("convert", tmp_path / "in", "--check-phi")
    said = ok(*words, env={"COLUMNS": "80"})
    assert len(said.splitlines()) < 40
    # A path is never folded: that of the folder in the first line, and in the next command.
    assert max(len(line) for line in said.splitlines()[1:-1]) <= 80
    # A known vendor is named; what may be the hospital's name is not.
    assert "SIEMENS MED: 40 tags in 60 files" in said
    assert "xxxxxxxxxxx: 40 tags in 60 files" in said
    assert "PatientName (0010,0010) in 60 files: xxxxxxx^xxxxxxxxx" in " ".join(said.split())
    found = result(*words)
    assert sum(tag["kind"] == "private" for tag in found["tags"]) == 80
    assert {"kind": "private", "why": "private tags, which may hold anything", "creator": "SIEMENS MED", "tags": 40,
            "files": 60} in found["groups"]  # fmt: skip
    assert all(len(tag["names"]) == 60 for tag in found["tags"])
    assert not [secret for secret in hospital.SECRETS if secret in said.encode() + json.dumps(found).encode()]


def test_no_value_is_printed_in_any_form(tmp_path: Path) -> None:
    root = hospital.write(tmp_path / "in")
    for form in ([], ["--json"], ["--quiet"]):
        done = cxrprep("convert", root, "--check-phi", *form)
        assert done.returncode == 0
        assert not [secret for secret in hospital.SECRETS if secret.decode() in done.stdout + done.stderr]
    assert not (root / "manifests").exists()


def test_nested_and_private_tags_burned_in_text_and_names_in_paths(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    inner = Dataset()
    inner.PatientName = "ZWIEBEL^H"
    outer = Dataset()
    outer.ReferencedStudySequence = [inner]
    path = tmp_path / "in/zwiebel_thorax.dcm"
    path.parent.mkdir()
    data = hospital.dicom(
        hospital.body(1), PatientName="ZWIEBEL^H", BurnedInAnnotation="YES", RequestAttributesSequence=[outer],
        PatientComments="called ZWIEBEL twice",
    )  # fmt: skip
    path.write_bytes(data)
    import pydicom

    dataset = pydicom.dcmread(path)
    block = dataset.private_block(0x0011, "MAKER", create=True)
    block.add_new(1, "LO", "ZWIEBEL again")
    dataset.save_as(path)
    tags = check_phi(tmp_path / "in", engine=INLINE).value.tags
    kinds = {tag.kind: tag for tag in tags}
    assert {"person", "burned in", "file name", "text", "private", "uid"} <= set(kinds)
    assert kinds["private"].masked == "xxxxxxx xxxxx"
    assert kinds["person"].files == 1


def test_a_damaged_header_is_told_without_its_words(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    whole = hospital.dicom(hospital.body(1), **hospital.IDENTITY)
    (tmp_path / "in/cut.dcm").write_bytes(whole[:700])
    (tmp_path / "in/empty.dcm").write_bytes(b"")
    result = check_phi(tmp_path / "in", engine=INLINE)
    assert result.value.files == 2
    assert not [s for s in hospital.SECRETS if s in repr(result).encode()]


@pytest.mark.parametrize(
    ("value", "shape"),
    [("DOE^JANE", "xxx^xxxx"), ("19640102", "99999999"), ("___", "___"), ("Müller", "xxxxxx"), ("", "")],
)
def test_a_mask_keeps_the_shape_only(value: str, shape: str) -> None:
    assert mask(value) == shape


def test_every_attribute_of_the_profile_is_looked_for(tmp_path: Path) -> None:
    """PS3.15, table E.1-1: attributes of each group, by numbers that a reader of the table would find there."""
    from pydicom.dataset import Dataset

    from cxrprep.images.phi import _in_dataset, _is_listed

    listed = [
        (0x0010, 0x1020),
        (0x0018, 0x1000),
        (0x0040, 0xA730),
        (0x0088, 0x0140),
        (0x5012, 0x3000),
        (0x60FE, 0x4000),
    ]
    assert all(_is_listed(*tag) for tag in listed)
    assert not any(_is_listed(*tag) for tag in ((0x0028, 0x0010), (0x0008, 0x0060), (0x7FE0, 0x0010)))
    item, dataset = Dataset(), Dataset()
    item.CodeValue = "x"
    dataset.PatientSize, dataset.AcquisitionDeviceProcessingDescription = "1.8", "x"
    dataset.RequestAttributesSequence = [item]
    dataset.Rows = 3
    found = {suspect.keyword: suspect.kind for suspect in _in_dataset(dataset)}
    assert found["PatientSize"] == found["RequestAttributesSequence"] == "listed"
    assert "Rows" not in found


@pytest.mark.parametrize("form", ["plain", "implicit", "packed"])
def test_what_stands_behind_the_pixels_is_looked_at_too(tmp_path: Path, form: str) -> None:
    import pydicom
    from pydicom.dataset import Dataset
    from pydicom.encaps import encapsulate

    path = tmp_path / "a.dcm"
    path.write_bytes(hospital.dicom(hospital.body(1)))
    dataset = pydicom.dcmread(path)
    if form == "packed":
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
        dataset.PixelData = encapsulate([bytes(5000), bytes(70)])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
    if form == "implicit":
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.private_block(0x7FE1, "WARD", create=True).add_new(1, "LO", "Jane Doe")
    dataset.DigitalSignaturesSequence = [Dataset()]
    dataset.DataSetTrailingPadding = b"ab"
    pydicom.dcmwrite(path, dataset, implicit_vr=form == "implicit", little_endian=True)
    (found,) = scan_tags([(str(tmp_path), "a.dcm")])
    tags = {suspect.tag: suspect.kind for suspect in found.suspects}
    assert tags["(7FE1,1001)"] == "private"
    assert tags["(FFFA,FFFA)"] == tags["(FFFC,FFFC)"] == "listed"
    # A tail that was cut takes nothing of what stands before it.
    path.write_bytes(path.read_bytes()[:-20])
    (cut,) = scan_tags([(str(tmp_path), "a.dcm")])
    assert {one.tag for one in found.suspects if one.tag < "(7"} <= {one.tag for one in cut.suspects}


def test_a_file_that_inflates_to_more_than_the_limit_is_not_read(tmp_path: Path) -> None:
    import zlib

    from cxrprep.images.radiograph import ImageLimits

    root = tmp_path / "in"
    root.mkdir()
    plain = hospital.dicom(hospital.body(1), **hospital.IDENTITY)
    start = 144 + int.from_bytes(plain[140:144], "little")
    meta = plain[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta[:140] + (len(meta) - 144).to_bytes(4, "little") + meta[144:]
    # UI 1.2.840.10008.1.2.1 is 20 bytes with its padding, the deflated one 22.
    meta = meta.replace(b"\x02\x00\x10\x00UI\x14\x00", b"\x02\x00\x10\x00UI\x16\x00")
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(plain[start:] + b"\0" * 20_000_000) + packer.flush()
    (root / "a.dcm").write_bytes(meta + packed)
    done = run("convert", root, "--check-phi", "--max-bytes", "1000000", "--json")
    assert (done[0], "more than the limit of 1,000,000" in str(done[1])) == (3, True), done
    looked = check_phi(root, engine=INLINE, limits=ImageLimits(size=100_000_000)).value
    assert "PatientName" in {tag.keyword for tag in looked.tags}


def test_no_value_of_a_header_is_quoted_by_anybody(tmp_path: Path) -> None:
    """Values that pydicom warns of, or refuses, in its own words: not on stderr, not among events, not in tables."""
    root = tmp_path / "in"
    root.mkdir()
    marks = {
        "StudyInstanceUID": "MARKUID.Jane", "InstanceNumber": "MARKINST", "WindowCenter": "MARKWIN", "Rows": "MARKROWS",
        "PatientAge": "MARKAGE", "PixelSpacing": "MARKSPACE", "RescaleSlope": "MARKSLOPE", "VOILUTFunction": "MARKVOI",
        "PhotometricInterpretation": "MARKPHOTO", "BitsStored": "MARKBITS", "SamplesPerPixel": "MARKMANY",
    }  # fmt: skip
    numbers = ("Rows", "PhotometricInterpretation", "PatientAge", "BitsStored", "SamplesPerPixel")
    plain = {name: "1" for name in marks if name not in numbers}
    good = hospital.dicom(hospital.body(1), PatientAge="055Y", **plain)
    for number, (name, mark) in enumerate(marks.items()):
        (root / f"{number}.dcm").write_bytes(_with_text(good, name, mark))
    syntax = b"1.2.840.10008.1.2.1\0"
    assert good.count(syntax) == 1
    (root / "syntax.dcm").write_bytes(good.replace(syntax, b"MARKSYNTAX.Jane ".ljust(len(syntax), b".")))
    for words in (
        ("convert", root, "--recipe", "square-224", "--out", tmp_path / "out", "--events", "jsonl"),
        ("convert", root, "--check-phi"),
        ("manifest", root, "-q"),
        ("verify", root, "--images"),
    ):
        done = run(*words)
        assert (done[0] in (0, 3, 4), "MARK" in str(done)) == (True, False), done
    assert not [path for path in (tmp_path / "out").rglob("*.parquet") if b"MARK" in path.read_bytes()]


def _with_text(data: bytes, name: str, mark: str) -> bytes:
    """A DICOM file (explicit VR little endian) in which one value has other bytes of its own length or a new one."""
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(name)
    assert tag is not None
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    at = data.index(head, 132)
    size = int.from_bytes(data[at + 6 : at + 8], "little")
    value = mark.encode() + b" " * (len(mark) % 2)
    return data[: at + 6] + len(value).to_bytes(2, "little") + value + data[at + 8 + size :]
