"""Every form of a collection gives its reports by name, and refuses what is none by name."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from cxrprep.errors import ArchiveError, NothingSelectedError, TableError, UsageError
from cxrprep.labels.nlp.readers import Report, decoded, open_collection, safe_name
from tests.labels.nlp.collections import folder, member, mimic_report, mimic_zip, openi, parquet, table_csv


def read(path: Path) -> list[Report]:
    found = open_collection(path)
    return list(found.rows() if found.names is None else found.read(found.names))


def test_the_zip_of_mimic_gives_patients_and_studies(tmp_path: Path) -> None:
    reports = read(mimic_zip(tmp_path / "mimic-cxr-reports.zip", 4))
    assert [(r.key, r.patient, r.study, r.mimic) for r in reports][3] == (member(3), "10000001", "50000003", True)
    assert reports[0].text == mimic_report(0)
    assert len(reports[0].sha256 or "") == 64


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    files = {
        "b.txt": "No edema.",
        "a/x.txt": "Edema.",
        ".hidden/y.txt": "no",
        "z.md": "no",
        "LICENSE.txt": "no",
        member(1): mimic_report(1),
    }
    reports = read(folder(tmp_path / "r", files))
    assert [(r.key, r.study) for r in reports] == [("a/x.txt", None), ("b.txt", None), (member(1), "50000001")]


def test_one_file_alone_knows_its_study_by_its_folder(tmp_path: Path) -> None:
    root = folder(tmp_path, {"p10000032/s50414267.txt": mimic_report(0)})
    (report,) = read(root / "p10000032" / "s50414267.txt")
    assert (report.patient, report.study) == ("10000032", "50414267")


def test_openi_gives_findings_and_impression(tmp_path: Path) -> None:
    (report,) = read(folder(tmp_path / "x", {"1.xml": openi("CXR1", "Clear lungs.", "Normal.")}))
    assert (report.key, report.study, report.text) == ("1.xml", "CXR1", "Clear lungs.\n\nNormal.")


def test_an_xml_that_declares_entities_is_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>'
    found = {r.key: r for r in read(folder(tmp_path / "x", {"bomb.xml": bomb, "cut.xml": "<eCitation><uId"}))}
    assert found["bomb.xml"].refused
    assert "entities" in found["bomb.xml"].problem
    assert "damaged" in found["cut.xml"].problem
    assert not found["cut.xml"].refused


@pytest.mark.parametrize(
    ("header", "row", "key", "text"),
    [
        (("study_id", "report"), ("7", "No edema."), "7", "No edema."),
        (("uid", "findings", "impression"), ("CXR7", "Clear.", "Normal."), "CXR7", "Clear.\n\nNormal."),
        (("Report Impression",), ("No edema.",), "row-0", "No edema."),
        (("path_to_image", "section_findings", "section_impression"), ("a/b.jpg", "", "Ok."), "a/b.jpg", "Ok."),
        (("text", "id"), ('with "quotes", commas\nand lines', "q"), "q", 'with "quotes", commas\nand lines'),
    ],
)
def test_a_csv_by_the_names_of_its_columns(
    tmp_path: Path, header: tuple[str, ...], row: tuple[str, ...], key: str, text: str
) -> None:
    (report,) = read(table_csv(tmp_path / "r.csv", header, [row]))
    assert (report.key, report.text) == (key, text)


def test_the_input_of_chexpert_labeler_has_no_header(tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    path.write_text('No edema.\n"Effusion,\nsmall."\n', "utf-8")
    assert [(r.key, r.text) for r in read(path)] == [("row-0", "No edema."), ("row-1", "Effusion,\nsmall.")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_csv_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes("id,report\n1,Ödem: none\n".encode(encoding))
    assert [(r.key, r.text) for r in read(path)] == [("1", "Ödem: none")]


def test_a_parquet_is_read_in_batches(tmp_path: Path) -> None:
    columns = {"study_id": list(range(300)), "text": ["No edema."] * 299 + [None], "other": [1.0] * 300}
    reports = read(parquet(tmp_path / "r.parquet", columns))
    assert len(reports) == 300
    assert (reports[7].key, reports[7].text) == ("7", "No edema.")
    assert reports[299].text == ""


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_table_without_a_column_of_reports_is_refused_with_its_columns(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("csv"):
        table_csv(path, ("study_id", "view"), [("1", "PA")])
    else:
        parquet(path, {"study_id": ["1"], "view": ["PA"]})
    with pytest.raises(TableError, match="no column of reports"):
        read(path)


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("a.zip", b"PK\3\4 cut", ArchiveError),
        ("a.tar.gz", b"\x1f\x8b cut", ArchiveError),
        ("a.parquet", b"PAR1 cut", TableError),
        ("a.csv", b"", TableError),
        ("a.docx", b"x", UsageError),
    ],
)
def test_what_is_damaged_or_unknown_is_refused_by_name(
    tmp_path: Path, name: str, data: bytes, error: type[Exception]
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(error, match=name):
        read(tmp_path / name)


def test_what_holds_no_report_says_so(tmp_path: Path) -> None:
    with pytest.raises(NothingSelectedError):
        read(tmp_path)
    with pytest.raises(NothingSelectedError):
        read(mimic_zip(tmp_path / "a.zip", 0, {"LICENSE": b"x"}))
    with pytest.raises(UsageError, match="does not exist"):
        read(tmp_path / "nowhere.zip")


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "C:\\evil.txt", "a\\..\\evil.txt", "a\n.txt"]
)
def test_a_member_with_an_evil_path_is_refused_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    assert not safe_name(name)
    found = {r.key: r for r in read(mimic_zip(tmp_path / "a.zip", 2, {name: b"Edema."}))}
    # zipfile itself turns backslashes where the system has others; the member is refused by the name it has.
    evil = next(report for key, report in found.items() if "evil" in key or "\n" in key)
    assert (evil.refused, evil.text) == (True, "")
    assert [r.problem for r in found.values() if r is not evil] == ["", ""]


def test_members_that_are_bombs_or_damaged_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.txt", b"\0" * (30 << 20))
        archive.writestr("good.txt", b"No edema.")
        archive.writestr("torn.txt", b"No effusion." * 400)
        offset = archive.getinfo("torn.txt").header_offset
    data = bytearray(path.read_bytes())
    data[offset + 45 : offset + 55] = b"\xff" * 10
    path.write_bytes(bytes(data))
    found = {r.key: r for r in read(path)}
    assert found["bomb.txt"].refused
    assert "damaged" in found["torn.txt"].problem
    assert found["good.txt"].text == "No edema."


def test_a_tar_is_read_as_a_stream(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        for name, text in {member(0): mimic_report(0), "../evil.txt": "x", "README": "x"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    found = read(tmp_path / "a.tgz")
    assert [(r.key, r.refused) for r in found] == [(member(0), False), ("../evil.txt", True)]


def test_bytes_become_text_whatever_they_are() -> None:
    assert decoded("naïve".encode()) == "naïve"
    assert decoded("naïve".encode("latin-1")) == "naïve"
    assert decoded("naïve".encode("utf-16")) == "naïve"
    assert decoded(b"\xef\xbb\xbfplain") == "plain"
    assert len(decoded(bytes(range(256)))) == 256


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_table_with_other_delimiters_keeps_its_ids(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f"id{delimiter}report\n7{delimiter}No effusion, no edema.\n", "utf-8")
    (report,) = read(path)
    assert (report.key, report.text) == ("7", "No effusion, no edema.")


def test_a_table_of_one_unknown_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("befund\nNo effusion.\n", "utf-8")
    with pytest.raises(TableError, match="no column of reports"):
        read(path)


def test_compressed_tables_and_lines_of_json_are_read(tmp_path: Path) -> None:
    notes, lines = tmp_path / "radiology.csv.gz", tmp_path / "r.jsonl"
    notes.write_bytes(gzip.compress(b'note_id,subject_id,text\n10-RR-1,10,"No effusion."\n'))
    lines.write_text('{"id": "a", "text": "No effusion."}\n\n{"id": "b", "findings": "Edema."}\n', "utf-8")
    assert [(r.key, r.patient, r.text) for r in read(notes)] == [("10-RR-1", "10", "No effusion.")]
    assert [(r.key, r.text) for r in read(lines)] == [("a", "No effusion."), ("b", "Edema.")]
    notes.write_bytes(notes.read_bytes()[:-9])
    with pytest.raises(TableError, match="not a complete gzip file"):
        read(notes)


def test_the_sections_of_mimics_authors_are_chosen_as_they_choose(tmp_path: Path) -> None:
    header = ("study", "impression", "findings", "last_paragraph", "comparison")
    rows = [("s1", "No edema.", "Effusion.", "", ""), ("s2", "", "Effusion.", "", ""), ("s3", "", "", "Edema.", ""),
            ("s4", "", "", "", "Unchanged edema.")]  # fmt: skip
    assert [r.text for r in read(table_csv(tmp_path / "mimic_cxr_sectioned.csv", header, rows))] == [
        "No edema.", "Effusion.", "Edema.", "Unchanged edema.",
    ]  # fmt: skip
