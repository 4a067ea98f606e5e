"""Image-report pairs: sections as the authors of MIMIC-CXR cut them, published counts, and every form of table."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
import tarfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.errors import NothingSelectedError, UsageError
from cxrprep.manifest.pair_filters import FILTERS, TEXT_FORMS
from cxrprep.manifest.pairs import cut_text
from tests.commands import cxrprep as command
from tests.manifest.made import made
from tests.parts import need, shared_data

FIELDS = ("indication", "comparison", "findings", "impression")
TEXT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)
 \n INDICATION:  Cough.
 \n FINDINGS:\n \n Lungs are clear.\n There is no effusion.
 \n IMPRESSION:\n \n Normal.
"""


@pytest.fixture
def mimic(tmp_path):
    root = made("mimic-cxr-jpg", tmp_path / "mimic")
    rows = pq.read_table(root / "manifests/images.parquet").to_pylist()
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as archive:
        for study, patient in {row["study_id"]: row["patient_id"] for row in rows}.items():
            archive.writestr(f"files/p{patient[:2]}/p{patient}/s{study}.txt", TEXT.replace("Cough", f"Cough {study}"))
    return root


def openi():
    """The Open-i reports that the wheel of torchxrayvision holds."""
    found = importlib.util.find_spec("torchxrayvision")
    if found is None or found.origin is None:
        need("torchxrayvision")
    path = Path(str(found.origin)).parent / "data" / "NLMCXR_reports.tgz"
    if not path.is_file():
        pytest.skip("this wheel of torchxrayvision holds no NLMCXR_reports.tgz")
    return path


def fields(path):
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.endswith(".xml"):
                root, text = ET.parse(tar.extractfile(member)).getroot(), {}
                for part in root.iter("AbstractText"):
                    text.setdefault(part.get("Label").lower(), []).append((part.text or "").strip())
                yield {name: " ".join(" ".join(text.get(name, [])).split()) for name in FIELDS}


def test_the_card_of_the_folder_names_the_pairs_as_soon_as_they_are_there(mimic):
    """``load_dataset`` found them after the next ``manifest`` alone."""
    card = mimic / "manifests/README.md"
    before = card.read_bytes()
    cxrprep.pairs(mimic, form="csv")
    assert card.read_bytes() == before
    cxrprep.pairs(mimic)
    written = card.read_text()
    assert 'path: "pairs.parquet"' in written
    cxrprep.build_manifest(mimic)
    assert card.read_text() == written


# ---- layouts ----


def as_mimic(parts, names=None, *, order=FIELDS, same=False, empty=False, eol="\n"):
    out = " " * 33 + "FINAL REPORT\n"
    for name in order:
        if parts[name] or empty:
            head = (names or {}).get(name, name.upper())
            out += f" {head}:" + (f"  {parts[name]}" if same else f"\n {parts[name]}") + "\n \n"
    return out.replace("\n", eol)


def titled(parts, case, after, eol):
    return eol.join(f"{case(name)}:{after}{text}" for name, text in parts.items() if text)


def numbered(text):
    return "\n ".join(f"{n}. {sentence}" for n, sentence in enumerate(text.split(". "), 1)) if text else ""


OTHER = {
    "indication": "REASON FOR EXAM",
    "comparison": "COMPARISONS",
    "findings": "CHEST, TWO VIEWS",
    "impression": "CONCLUSION",
}
LAYOUTS = {
    "own lines": as_mimic,
    "same line": lambda p: as_mimic(p, same=True),
    "impression first": lambda p: as_mimic(p, order=("impression", "indication", "comparison", "findings")),
    "other titles": lambda p: as_mimic(p, OTHER),
    "empty sections kept": lambda p: as_mimic(p, empty=True),
    "line ends of Windows": lambda p: as_mimic(p, eol="\r\n"),
    "numbered impression": lambda p: as_mimic({**p, "impression": numbered(p["impression"])}),
    "blanks stripped": lambda p: "\n".join(line.strip() for line in as_mimic(p).splitlines()),
    "blanks stripped, same line": lambda p: "\n".join(line.strip() for line in as_mimic(p, same=True).splitlines()),
    "all on one line": lambda p: " ".join(as_mimic(p).split()),
    "Title: a line each": lambda p: titled(p, str.capitalize, " ", "\n"),
    "TITLE: a line each": lambda p: titled(p, str.upper, " ", "\n"),
    "Title: of Windows": lambda p: titled(p, str.capitalize, " ", "\r\n"),
    "TITLE: above": lambda p: titled(p, str.upper, "\n", "\n\n"),
    "one line, TITLE": lambda p: titled(p, str.upper, " ", " "),
    "one line, Title": lambda p: titled(p, str.capitalize, " ", " "),
}
REPORT = {
    "indication": "Cough and fever", "comparison": "None", "findings": "Lungs are clear", "impression": "No disease.",
}  # fmt: skip


def sections_in(layout, parts):
    """The sections as ``cut_text`` finds them, with white space as one blank, and what they should be."""
    cut = cut_text(LAYOUTS[layout](parts)).text
    wanted = {**parts, "impression": numbered(parts["impression"])} if layout.startswith("numbered") else parts
    return tuple({name: " ".join(one.get(name, "").split()) for name in FIELDS} for one in (cut, wanted))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"comparison": "None. Clinical"},
        {"indication": "asthma. Cigarette smoking"},
        {"indication": "XXXX physical"},
    ],
    ids=str,
)
def test_a_report_in_every_layout(layout, changed):
    found, wanted = sections_in(layout, REPORT | changed)
    assert found == wanted


@pytest.mark.parametrize("layout", LAYOUTS)
def test_real_reports_in_every_layout(layout):
    reports = list(fields(openi()))
    assert len(LAYOUTS) == 16
    right = sum(found == wanted for found, wanted in (sections_in(layout, parts) for parts in reports))
    assert right / len(reports) >= 0.995


@pytest.mark.parametrize(
    "sentence",
    [
        "Findings: clear. Incidental Findings: old fractures. Impression: normal.",
        "Findings: clear with no other findings: old fractures. Impression: normal.",
        "Findings: clear. Additional Findings: old fractures. Impression: normal.",
        "Indication: cough. Clinical Findings: fever. Findings: old fractures. Impression: normal.",
    ],
)
def test_a_title_inside_of_a_sentence_is_none(sentence):
    assert "old fractures" in cut_text(sentence).text["findings"]


# ---- the published set that can be checked here ----


def test_r2gens_studies_of_open_i(tmp_path):
    result = cxrprep.pairs(openi(), filter="openi-r2gen", out=tmp_path / "pairs.parquet").value
    wanted = {row["uid"] for row in csv.DictReader((shared_data("openi") / "r2gen_split.csv").read_text().splitlines())}
    table = pq.read_table(tmp_path / "pairs.parquet")
    assert set(table.column("study_id").to_pylist()) == wanted
    assert (result.pairs, result.counts) == (2955, {"": 2955})
    assert sum(table.column("n_images").to_pylist()) == 6091


# ---- MIMIC-CXR ----


def test_a_row_a_study_with_images_by_view_sections_and_the_study_before(mimic):
    result = cxrprep.pairs(mimic).value
    table = pq.read_table(mimic / "manifests/pairs.parquet")
    studies = pq.read_table(mimic / "manifests/studies.parquet").to_pylist()
    assert result.pairs == table.num_rows == len(studies)
    by_study = {row["study_id"]: row for row in table.to_pylist()}
    for study in studies:
        row = by_study[study["study_id"]]
        assert (row["patient_id"], row["split"], row["n_images"]) == (
            study["patient_id"],
            study["split"],
            study["n_images"],
        )
        assert (row["prior_study_id"], row["study_order"]) == (study["prior_study_id"], study["study_order"])
        assert row["findings"] == "Lungs are clear.\n There is no effusion."
        assert (row["indication"], row["comparison"], row["technique"]) == (f"Cough {study['study_id']}.", None, None)
        assert (row["findings_words"], row["section_rule"], row["n_impressions"]) == (7, "mit-lcp", 1)
        rank = [{"PA": 0, "AP": 1}.get(image["view"], 2) for image in row["images"]]
        assert rank == sorted(rank)
    priors = [row for row in by_study.values() if row["prior_study_id"]]
    assert priors
    assert all(row["prior_days"] > 0 and row["prior_split"] for row in priors)
    assert all(field.metadata[b"description"] for field in pq.read_schema(mimic / "manifests/pairs.parquet"))


def test_studies_that_were_cut_by_hand_are_not_in_the_authors_table():
    for study in ("s50913680", "50525523"):
        assert cut_text(TEXT, study=study, mimic=True).rule == "mit-lcp-by-hand"
    assert cut_text(TEXT, study="s50000001", mimic=True).rule == "mit-lcp"


def test_the_last_section_of_a_name_counts_and_all_have_their_place():
    text = TEXT + " IMPRESSION:\n \n Second reading.\n"
    cut = cut_text(text, mimic=True)
    assert cut.text["impression"] == "Second reading."
    assert [place["name"] for place in cut.places].count("impression") == 2
    for place in cut.places:
        assert text[place["start"] : place["end"]] is not None
    both = cut_text("                FINAL REPORT\n FINDINGS AND IMPRESSION:\n \n Clear.\n", mimic=True)
    assert (both.combined, both.text) == (True, {"impression": "Clear."})


def test_per_image_and_every_form(mimic, tmp_path):
    images = pq.read_table(mimic / "manifests/images.parquet").num_rows
    for form in ("parquet", "csv"):
        for per, rows in (("study", None), ("image", images)):
            out = tmp_path / f"{per}.{form}"
            result = cxrprep.pairs(mimic, per=per, form=form, out=out).value
            held = (
                pq.read_table(out).to_pylist()
                if form == "parquet"
                else list(csv.DictReader(io.StringIO(out.read_text())))
            )
            assert len(held) == result.pairs == (rows or result.studies)
            assert {row["findings"] for row in held} == {"Lungs are clear.\n There is no effusion."}
            assert (next(iter(held[0])) == "image_id") == (per == "image")
    cxrprep.pairs(mimic, form="json", text="r2gen-mimic", out=tmp_path / "annotation.json")
    held = json.loads((tmp_path / "annotation.json").read_text())
    assert {"train", "val", "test"} <= held.keys()
    entries = [entry for split in held.values() for entry in split]
    assert sum(len(entry["image_path"]) for entry in entries) == images
    assert {entry["report"] for entry in entries} == {"lungs are clear . there is no effusion ."}


def test_a_count_that_differs_from_the_published_one_is_said(mimic):
    notes = []
    result = cxrprep.pairs(mimic, filter="official", on_event=notes.append).value
    said = [note.message for note in notes if getattr(note, "level", "") == "warning"]
    assert any("222,758 are published of the whole release" in message for message in said)
    assert result.expected == {"train": 222_758, "validate": 1_808, "test": 3_269}
    assert not any("Lungs are clear" in str(note) for note in notes)


@pytest.mark.parametrize("name", [name for name in FILTERS if name != "openi-r2gen"])
def test_every_filter_keeps_what_its_rule_says(mimic, name):
    try:
        result = cxrprep.pairs(mimic, filter=name).value
    except NothingSelectedError:
        return
    rows = pq.read_table(mimic / "manifests/pairs.parquet").to_pylist()
    assert rows
    assert sum(result.counts.values()) == (
        sum(len(row["images"]) for row in rows) if FILTERS[name].unit == "image" else len(rows)
    )
    if "frontal" in name:
        assert {image["view"] for row in rows for image in row["images"]} <= {"PA", "AP"}
    if name == "findings-frontal-1":
        assert {len(row["images"]) for row in rows} == {1}


def test_text_forms():
    text = "1. The heart is  big..\n2. ___ lungs, clear."
    assert TEXT_FORMS["one-blank"](text) == "1. The heart is big.. 2. ___ lungs, clear."
    assert TEXT_FORMS["r2gen-iu"](text) == "the heart is big . lungs clear ."
    assert TEXT_FORMS["mgca"](text) == "the heart is big. ___ lungs clear"
    assert TEXT_FORMS["as-is"](text) == text


def test_columns_of_sections_are_taken_as_they_are(tmp_path):
    root = made("chexpert", tmp_path / "cx")
    images = pq.read_table(root / "manifests/images.parquet").to_pylist()
    table = tmp_path / "df_chexpert_plus.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path_to_image", "report", "section_findings", "section_impression", "section_history"])
        for row in images:
            path = re.sub(r"^CheXpert-v1.0-small/", "", row["path"])
            writer.writerow([path, "NARRATIVE: all", "Clear lungs.", "", "Cough."])
    cxrprep.pairs(root, reports=table)
    rows = pq.read_table(root / "manifests/pairs.parquet").to_pylist()
    assert len(rows) == len({row["study_id"] for row in images})
    assert {(r["findings"], r["impression"], r["history"], r["section_rule"]) for r in rows} == {
        ("Clear lungs.", None, "Cough.", "table")
    }


def test_what_is_wrong_is_said(mimic, tmp_path):
    with pytest.raises(UsageError, match="unknown filter 'findigs'") as caught:
        cxrprep.pairs(mimic, filter="findigs")
    assert "did you mean findings?" in caught.value.hint
    with pytest.raises(UsageError, match="holds no reports"):
        cxrprep.pairs(made("nih-chestxray14", tmp_path / "nih"))
    with pytest.raises(UsageError, match="unknown form"):
        cxrprep.pairs(mimic, form="xls")
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text("nothing to see")
    with pytest.raises(NothingSelectedError):
        cxrprep.pairs(folder, out=tmp_path / "none.parquet", filter="findings")
    with pytest.raises(UsageError, match="no folder with a manifest"):
        cxrprep.pairs(folder)


def test_the_command(mimic):
    done = command("pairs", mimic, "--filter", "findings", "--per", "image", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["filter"], told["pairs"]) == ("findings", 7)
    assert "Lungs are clear" not in done.stdout + done.stderr


def test_text_that_was_asked_for_beside_labelled_reports_is_not_left_out_in_silence(mimic):
    archive = mimic / "mimic-cxr-reports.zip"
    done = command("extract-labels", mimic, "--reports", archive, "--report-text")
    assert done.returncode == 2
    assert f"cxrprep pairs {mimic} --reports PATH" in done.stderr
    assert command("pairs", mimic, "--reports", archive, "-q").returncode == 0
    for beside in (("--import", "mine=theirs.csv"), ("--compare", "a.csv", "b.csv")):
        for option in ("--report-text", "--demographics"):
            done = command("extract-labels", mimic, *beside, option)
            assert (done.returncode, f"which {beside[0]} does not read" in done.stderr) == (2, True), done
