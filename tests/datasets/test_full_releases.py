"""Generated releases have the numbers of the real ones, decode, and are the same on every machine."""

import base64
import csv
import gzip
import hashlib
import io
import re
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from tests.generators.full import pixels
from tests.generators.full.chexpert import Chexpert
from tests.generators.full.mimic_cxr import Mimic, content
from tests.generators.full.nih_chestxray14 import Nih
from tests.generators.full.prose import report
from tests.generators.full.server import PASSWORD, USER, Site, folder_reader, serving


def test_mimic_at_full_size_has_the_published_numbers() -> None:
    release = Mimic.generate()
    assert int(release.images.sum()) == 377_110
    assert [int(release.images[release.split == part].sum()) for part in range(3)] == [368_960, 2_991, 5_159]
    assert [int((release.split == part).sum()) for part in range(3)] == [222_758, 1_808, 3_269]
    assert [len(np.unique(release.subject[release.split == part])) for part in range(3)] == [64_586, 500, 293]
    assert len(np.unique(release.subject)) == 65_379
    assert len(np.unique(release.study)) == 227_835
    assert len(release.unlabelled) == 8
    assert int(release.images[np.isin(release.study, list(release.unlabelled))].sum()) == 15


def test_mimic_tables_agree_with_each_other(tmp_path: Path) -> None:
    release = Mimic.generate(300, seed=3)
    for project in ("mimic-cxr", "mimic-cxr-jpg"):
        release.write_tables(project, tmp_path / project)
    listed = (tmp_path / "mimic-cxr-jpg" / "IMAGE_FILENAMES").read_text().splitlines()
    assert listed == sorted(listed)
    grammar = re.compile(r"files/p(1\d)/p\1\d{6}/s5\d{7}/[0-9a-f]{8}(-[0-9a-f]{8}){4}\.jpg")
    assert all(grammar.fullmatch(path) for path in listed)
    for table, column in (("metadata", "dicom_id"), ("split", "dicom_id"), ("chexpert", "study_id")):
        with gzip.open(tmp_path / "mimic-cxr-jpg" / f"mimic-cxr-2.0.0-{table}.csv.gz", "rt") as file:
            ids = [row[column] for row in csv.DictReader(file)]
        known = {path.split("/")[4][:-4] if column == "dicom_id" else path.split("/")[3][1:] for path in listed}
        assert set(ids) == known
        assert len(ids) == len(known)
    with (tmp_path / "mimic-cxr" / "SHA256SUMS.txt").open() as file:
        for line in file:
            digest, path = line.rstrip("\n").split(" ")
            data = content(path, 3) if path.startswith("files/") else (tmp_path / "mimic-cxr" / path).read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest
    with zipfile.ZipFile(tmp_path / "mimic-cxr" / "mimic-cxr-reports.zip") as archive:
        assert len(archive.namelist()) == len(release.study)


def test_chexpert_at_full_size_has_the_published_label_totals_by_image_and_by_study() -> None:
    release = Chexpert.generate()
    assert (len(release.files), len(release.labels), len(release.valid), len(release.test)) == (
        223_414,
        187_641,
        234,
        668,
    )
    effusion = release.labels[:, 10]
    assert np.bincount(effusion)[1:].tolist() == [75_696, 24_832, 9_419]
    by_image = np.bincount(np.repeat(effusion, release.frontals + release.laterals))
    assert by_image[1:].tolist() == [86_187, 35_396, 11_628]
    ages = Counter(line.split(",")[2] for line in release.train_csv())
    assert (ages["0"], ages["90"]) == (3, 7_579)


def test_nih_at_full_size_has_the_published_label_totals() -> None:
    release = Nih.generate()
    assert (len(release.names), int(release.patient.max()), int(release.test.sum())) == (112_120, 30_805, 25_596)
    assert int((~release.labels.any(axis=1)).sum()) == 60_361
    assert release.labels[release.test].sum(axis=0).tolist()[:3] == [3_279, 1_069, 1_815]
    boxes = list(release.boxes())[1:]
    assert (len(boxes), len({line.split(",")[0] for line in boxes})) == (984, 880)


def test_images_are_valid_small_and_all_different() -> None:
    def shape(data: bytes) -> tuple[int, ...]:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert image is not None
        return tuple(image.shape)

    jpegs = [pixels.jpeg(f"a{n}") for n in range(40)]
    assert len(set(jpegs)) == 40
    for number, data in enumerate(jpegs):
        assert shape(data) == pixels.jpeg_shape(f"a{number}")
    assert shape(pixels.png("b", rgba=True)) == (1024, 1024, 4)
    name = "b83463f4-53b47482-3c089379-fcbe2cda-2d107be5"
    header = pydicom.dcmread(io.BytesIO(pixels.dicom(name, "10000032")))
    assert (header.PatientID, header.ImageComments, header.pixel_array.shape) == ("10000032", name, pixels.DICOM_SHAPE)
    assert header.SOPInstanceUID == header.file_meta.MediaStorageSOPInstanceUID


def test_reports_have_the_length_and_the_sections_of_real_ones() -> None:
    reports = [report(50_000_000 + n) for n in range(500)]
    lengths = sorted(len(text) for text in reports)
    assert 500 < lengths[250] < 1000
    assert 0.75 < sum("IMPRESSION:" in text for text in reports) / 500 < 0.92
    assert all(len(line) <= 79 for text in reports for line in text.splitlines())
    assert report(50_000_001) == reports[1]


def _ask(address: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(address, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


def test_the_server_keeps_physionets_rules(tmp_path: Path) -> None:
    release = Mimic.generate(60, seed=7)
    release.write_tables("mimic-cxr-jpg", tmp_path / "mimic-cxr-jpg" / "2.1.0")
    site = Site(folder_reader(tmp_path))
    basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    path = next(release.paths("mimic-cxr-jpg"))
    with serving(site) as address:
        image = f"{address}/files/mimic-cxr-jpg/2.1.0/{path}"
        assert _ask(image, User_Agent="curl/8", Authorization=basic)[0] == 403
        status, _, headers = _ask(image, User_Agent="Wget/1.21")
        assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="PhysioNet"')
        status, body, headers = _ask(image, User_Agent="Wget/1.21", Authorization=basic)
        assert (status, body) == (200, content(path, 7))
        session = headers["Set-Cookie"].partition(";")[0]
        status, part, headers = _ask(image, User_Agent="Wget/1.21", Cookie=session, Range="bytes=100-")
        assert (status, part, headers["Content-Range"]) == (206, body[100:], f"bytes 100-{len(body) - 1}/{len(body)}")
        assert _ask(image, User_Agent="Wget/1.21", Cookie=session, Range="bytes=99999-")[0] == 416
        assert _ask(image, User_Agent="Wget/1.21", Cookie=session, Range="bytes=9-", If_Range='"old"')[0] == 200
        assert _ask(f"{image}x", User_Agent="Wget/1.21", Cookie=session)[0] == 404
    assert site.counts["logins"] == 1


@pytest.mark.parametrize("images", [30, 100, 1_234])
def test_a_scaled_release_has_the_number_asked_for(images: int) -> None:
    assert abs(int(Mimic.generate(images).images.sum()) - images) <= 3
    assert len(Nih.generate(max(images, 100)).names) == max(images, 100)


def test_nearly_each_study_of_mimic_has_its_own_time_of_day() -> None:
    rows = [line.split(",") for line in Mimic.generate(2000).metadata()][1:]
    times = {row[2]: row[8] for row in rows}
    assert len(set(times.values())) > 0.98 * len(times)
    # Hours, minutes and seconds in one number, without the zeros in front.
    assert all(
        float(time) < 240_000 and float(time) % 100 < 60 and float(time) // 100 % 100 < 60 for time in times.values()
    )
