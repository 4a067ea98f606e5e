"""Labelled reports and imported tables are label sources: beside the release's own, named, never lost silently."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cxrprep.cli import main
from cxrprep.errors import TableError
from cxrprep.labels.label_sources import added_sources
from cxrprep.labels.label_table import read_label_table
from cxrprep.manifest.load import load
from tests.collection.hints import commands_in
from tests.generators.small import mimic_cxr, mimic_cxr_jpg
from tests.labels.nlp.collections import folder, table_csv


def run(*words: str | Path, code: int = 0) -> str:
    """What a command says, on both streams."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        ended = main.run([str(word) for word in words])
    assert ended == code, said.getvalue()
    return said.getvalue()


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def by_source(root: Path) -> dict[str | None, list[dict[str, Any]]]:
    found: dict[str | None, list[dict[str, Any]]] = {}
    for row in rows(root / "manifests" / "labels.parquet"):
        found.setdefault(row["label_source"], []).append(row)
    return found


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    mimic_cxr.write(tmp_path / "mimic", labels=False)
    return tmp_path / "mimic"


def test_an_import_that_says_less_takes_nothing_of_the_one_before(mimic: Path, tmp_path: Path) -> None:
    """And it is not called a table that is gone."""
    run("extract-labels", mimic, "--reports")
    studies = sorted({row["study_id"] for row in rows(mimic / "manifests/labels.parquet")})
    table = table_csv(tmp_path / "theirs.csv", ["study_id", "Edema"], [(study, 1) for study in studies])
    run("extract-labels", mimic, "--import", f"theirs={table}")
    before = {path: path.read_bytes() for path in (mimic / "manifests").rglob("*.parquet")}
    table_csv(table, ["study_id", "Edema"], [(studies[0], 1)])
    said = " ".join(run("extract-labels", mimic, "--import", f"theirs={table}", code=2).split())
    assert re.search(r"would lose \d rows of theirs", said)
    assert "bring back the tables, reports, vocabulary or imports that had them" in said
    assert {path: path.read_bytes() for path in before} == before
    run("extract-labels", mimic, "--import", f"theirs={table}", "--allow-loss")


def test_reports_alone_end_in_a_labelled_manifest(mimic: Path) -> None:
    output = run("extract-labels", mimic, "--reports")
    images = rows(mimic / "manifests" / "images.parquet")
    assert {row["label_source"] for row in images} == {"cxrprep"}
    assert {row["label_no_finding"] for row in images} == {1}
    assert {row["label_no_finding"] for row in rows(mimic / "manifests" / "studies.parquet")} == {1}
    assert "cxrprep" in output
    # The verb that builds again knows the same.
    run("manifest", mimic)
    assert {row["label_source"] for row in rows(mimic / "manifests" / "images.parquet")} == {"cxrprep"}


def test_sources_stand_side_by_side_whatever_the_order(mimic: Path, tmp_path: Path) -> None:
    studies = list(mimic_cxr_jpg.SUBJECTS)
    bert = table_csv(tmp_path / "b.csv", ("study_id", "Edema"), [(str(study), "1") for study in studies])
    lt = table_csv(
        tmp_path / "lt.csv", ("dicom_id", "subject_id", "study_id", "Edema", "Calcification of the Aorta"),
        [(image[0], str(image[1]), str(image[2]), "0", "1") for image in mimic_cxr_jpg.IMAGES],
    )  # fmt: skip
    run("extract-labels", mimic, "--import", f"chexbert={bert}", "--import", f"cxr-lt={lt}")
    run("extract-labels", mimic, "--reports")
    found = by_source(mimic)
    assert set(found) >= {"cxrprep", "chexbert", "cxr-lt"}
    assert {row["label_edema"] for row in found["chexbert"]} == {1}
    assert {row["raw_Calcification of the Aorta"] for row in found["cxr-lt"]} == {"1"}
    assert len(found["cxr-lt"]) == len(mimic_cxr_jpg.IMAGES)
    # The release's own tables come later, and take nothing away.
    mimic_cxr_jpg.write_tables(mimic)
    (mimic / "IMAGE_FILENAMES").unlink()
    run("extract-labels", mimic)
    assert set(by_source(mimic)) >= {"cxrprep", "chexbert", "cxr-lt", "chexpert-labeler", "negbio"}
    run("extract-labels", mimic, "--import", f"chexbert={bert}")
    again = pq.read_table(mimic / "manifests" / "labels.parquet")
    run("extract-labels", mimic)
    # Whether the release's tables were read again or not: the same rows, columns and provenance.
    assert pq.read_table(mimic / "manifests" / "labels.parquet").equals(again, check_metadata=True)
    # Each can be shown; policies act on it.
    run("manifest", mimic, "--label-source", "cxr-lt,cxrprep")
    assert {row["label_edema"] for row in rows(mimic / "manifests" / "images.parquet")} == {0}


def test_columns_that_are_no_labels_are_named(mimic: Path, tmp_path: Path) -> None:
    studies = [str(study) for study in mimic_cxr_jpg.SUBJECTS]
    file = table_csv(
        tmp_path / "t.csv", ("study_id", "Edema", "Scoliosis", "Score"), [(s, "1", "0", "0.4") for s in studies]
    )
    assert "Score: line 2 has no label" in run("extract-labels", mimic, "--import", f"theirs={file}")
    assert {row["raw_Scoliosis"] for row in by_source(mimic)["theirs"]} == {"0"}


def test_a_finding_without_a_shared_name_is_a_label_in_every_verb(mimic: Path, tmp_path: Path) -> None:
    file = table_csv(
        tmp_path / "t.csv", ("dicom_id", "study_id", "Edema", "Scoliosis"),
        [(image[0], str(image[2]), "1", "1" if number else "0") for number, image in enumerate(mimic_cxr_jpg.IMAGES)],
    )  # fmt: skip
    run("extract-labels", mimic, "--import", f"my-lab={file}")
    assert {row["label_my_lab__scoliosis"] for row in by_source(mimic)["my-lab"]} == {0, 1}
    run("manifest", mimic, "--label-source", "my-lab")
    images = rows(mimic / "manifests" / "images.parquet")
    assert {row["label_my_lab__scoliosis"] for row in images} <= {0, 1}
    absent = sum(row["label_my_lab__scoliosis"] == 0 for row in images)
    run("export", mimic, "--out", tmp_path / "out", "--format", "csv", "--label", "my_lab:scoliosis=0")
    assert len((tmp_path / "out" / "images.csv").read_text().splitlines()) == 1 + absent
    loaded = load(mimic, observations="my_lab:scoliosis")
    assert "label_my_lab__scoliosis" in loaded.to_arrow().column_names
    # A second import, and the release's tables again, keep it.
    run("extract-labels", mimic, "--import", f"my-lab={file}")
    run("extract-labels", mimic)
    assert {row["label_my_lab__scoliosis"] for row in by_source(mimic)["my-lab"]} == {0, 1}


@pytest.mark.parametrize(
    ("header", "line", "said"),
    [
        ("study_id,Edema,Tube", "7,1,seen", "line 4, Tube: 'seen' is no label, as 2 cells of this column are"),
        ("study_id,Edema,Edema", "7,1,0", "line 4: columns 2 and 3 are both called 'Edema'"),
        ("study_id,Tube,Edema,Tube", "7,1,0,0", "line 4: columns 2 and 4 are both called 'Tube'"),
        ("study_id,study_id,Edema", "7,8,1", "line 4: columns 1 and 2 are both called 'study_id'"),
    ],
)
def test_a_slip_in_a_column_of_labels_and_two_columns_of_one_name_are_refused(tmp_path, header, line, said) -> None:
    rows = "".join(f"{','.join(['1'] * len(header.split(',')))}\n" for _ in range(2))
    (tmp_path / "t.csv").write_text(f"{header}\n{rows}{line}\n")
    with pytest.raises(TableError, match=re.escape(said)) as refused:
        read_label_table(tmp_path / "t.csv")
    assert refused.value.hint
    # Equal columns are one; numbers that are counted are no labels, and no slip.
    (tmp_path / "t.csv").write_text("study_id,Edema,Edema,Views\n1,1,1,1\n2,0,0,1\n3,1,1,4\n")
    read = read_label_table(tmp_path / "t.csv")
    assert read.columns == {"Edema": (1, 0, 1)}
    assert read.left_out == {"Views": 4}


@pytest.mark.parametrize("separator", ";\t|")
def test_a_table_that_a_spreadsheet_saved_is_imported(tmp_path: Path, separator: str) -> None:
    lines = ["study_id,Edema,Reports,Tube", '1,1.0,"two', 'lines",TRUE', "2,0.0,one,FALSE", "3,?,one,FALSE"]
    text = "\r\n".join(lines).replace(",", separator)
    (tmp_path / "t.csv").write_bytes(text.replace(".", "," if separator == ";" else ".").encode("utf-16"))
    with pytest.raises(TableError, match="line 5, Edema: '\\?' is no label"):
        read_label_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(text.replace("?", "-1").encode("utf-8-sig"))
    read = read_label_table(tmp_path / "t.csv")
    assert (read.columns["Edema"], read.extra["Tube"]) == ((1, 0, -1), (1, 0, 0))


def test_the_labeler_is_named_with_version_and_rules(mimic: Path) -> None:
    run("extract-labels", mimic, "--reports")
    (source,) = added_sources(mimic / "manifests")
    about = dict(source.labeler)
    assert source.name == "cxrprep"
    assert about["name"] == "rules"
    assert about["version"]
    assert about["rules"].startswith("sha256:")
    footer = json.loads(pq.read_schema(mimic / "manifests" / "labels.parquet").metadata[b"cxrprep"])
    (use,) = (use for use in footer["tables"] if use["label_source"] == "cxrprep")
    assert use["labeler"] == about


def test_a_remembered_source_whose_table_is_gone_is_an_error_that_names_it(mimic: Path, tmp_path: Path) -> None:
    bert = table_csv(tmp_path / "b.csv", ("study_id", "Edema"), [(str(s), "1") for s in mimic_cxr_jpg.SUBJECTS])
    run("extract-labels", mimic, "--reports")
    run("extract-labels", mimic, "--import", f"chexbert={bert}", "--label-source", "chexbert")
    before = (mimic / "manifests" / "images.parquet").read_bytes()
    (mimic / "manifests" / "label_sources" / "chexbert.parquet").unlink()
    assert "chexbert" in run("extract-labels", mimic, "--reports", code=2)
    (mimic / "manifests" / "labels.parquet").unlink()
    assert "chexbert" in run("manifest", mimic, code=2)
    assert (mimic / "manifests" / "images.parquet").read_bytes() == before


def test_a_table_of_the_release_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    mimic_cxr_jpg.write(tmp_path)
    run("extract-labels", tmp_path)
    (table,) = tmp_path.glob("*negbio*")
    table.unlink()
    assert "negbio" in run("extract-labels", tmp_path, code=2)
    assert "negbio" in by_source(tmp_path)


def test_a_name_of_the_release_is_refused(tmp_path: Path) -> None:
    mimic_cxr_jpg.write(tmp_path / "root")
    file = table_csv(tmp_path / "negbio.csv", ("study_id", "Edema"), [("50414267", "1")])
    output = run("extract-labels", tmp_path / "root", "--import", file, code=2)
    assert "--import my-negbio=FILE" in output
    run("extract-labels", tmp_path / "root", "--import", f"my-negbio={file}")
    assert "my-negbio" in by_source(tmp_path / "root")


def test_a_table_of_the_release_that_comes_after_an_import_of_its_name_leaves_both(tmp_path: Path) -> None:
    """The hint was to import the file once more: its first import stayed, and no labels could be read any more."""
    root, name = tmp_path / "jpg", "mimic-cxr-2.0.0-negbio.csv.gz"
    mimic_cxr_jpg.write(root)
    (root / name).rename(tmp_path / name)
    file = table_csv(tmp_path / "theirs.csv", ("study_id", "Edema"), [("50414267", "1")])
    run("extract-labels", root)
    run("extract-labels", root, "--import", f"negbio={file}")
    (tmp_path / name).rename(root / name)
    [command] = commands_in(run("extract-labels", root, code=2))
    run(*(str(root) if word == "ROOT" else word for word in shlex.split(command)))
    (root / "manifests/label_sources/negbio.parquet").unlink()
    run("extract-labels", root)
    found = by_source(root)
    assert {row["study_id"] for row in found["my-negbio"] if row["label_edema"] == 1} == {"50414267"}
    assert len({row["study_id"] for row in found["negbio"]}) > 1


def test_any_folder_keeps_its_sources_and_several_reports_of_a_study_are_joined(tmp_path: Path) -> None:
    reports = table_csv(
        tmp_path / "r.csv", ("subject_id", "study_id", "text"),
        [("10", "50", "Normal chest."), ("10", "50", "Left effusion."), ("11", "51", "No edema.")],
    )  # fmt: skip
    root = folder(tmp_path / "any", {"notes.md": "x"})
    output = run("extract-labels", root, "--reports", reports)
    assert "1 study has several reports" in " ".join(output.split())
    (first, second) = by_source(root)["cxrprep"]
    assert (first["study_id"], first["label_pleural_effusion"], first["label_no_finding"]) == ("50", 1, None)
    assert (second["patient_id"], second["label_edema"]) == ("11", 0)


def test_a_file_alone_is_imported_under_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "negbio.csv.gz"
    path.write_bytes(gzip.compress(b"study_id,Edema\n50000000,1.0\n"))
    run("extract-labels", folder(tmp_path / "any", {"notes.md": "x"}), "--import", path)
    assert [source.name for source in added_sources(tmp_path / "any" / "manifests")] == ["negbio"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        # The numbers of CheXbert's classes, as its program writes them, and the labels that other copies of it write.
        ("a.csv", 'Report Impression,Edema,Pneumothorax,Fracture,No Finding\n"x",1,2,3,0\n"y",0,0,0,1\n'),
        ("b.csv", 'Report Impression,Edema,Pneumothorax,Fracture,No Finding\n"x",1,0,-1,\n"y",,,,1\n'),
        # JSON lines of a language model: what an object leaves out is not mentioned.
        ("c.jsonl", '{"id": "x", "Edema": 1, "Pneumothorax": 0, "Fracture": -1}\n{"id": "y", "No Finding": 1}\n'),
        (
            "d.jsonl",
            (
                '{"id": "x", "labels": {"Edema": "positive", "Pneumothorax": "negative", "Fracture": "uncertain"}}\n'
                '{"id": "y", "labels": {"No Finding": "positive", "Edema": "not mentioned"}}\n'
            ),
        ),
    ],
)
def test_labels_of_other_programs_mean_the_same_in_each_form(tmp_path: Path, name: str, text: str) -> None:
    # PowerShell writes UTF-16, and pandas packs by xz.
    for number, data in enumerate((text.encode(), text.encode("utf-16"), lzma.compress(text.encode()))):
        (tmp_path / name).write_bytes(data)
        run("extract-labels", tmp_path / f"root{number}", "--import", f"other={tmp_path / name}")
        found = rows(tmp_path / f"root{number}" / "manifests" / "label_sources" / "other.parquet")
        columns = [f"label_{each}" for each in ("edema", "pneumothorax", "fracture", "no_finding")]
        assert [[row[each] for each in columns] for row in found] == [[1, 0, -1, None], [None, None, None, 1]]


def test_labels_that_are_refused_leave_their_table_and_the_words_of_the_hint_take_them(
    mimic: Path, tmp_path: Path
) -> None:
    studies = [str(study) for study in mimic_cxr_jpg.SUBJECTS]
    full = table_csv(tmp_path / "full.csv", ("study_id", "Edema"), [(study, "1") for study in studies])
    part = table_csv(tmp_path / "part.csv", ("study_id", "Edema"), [(study, "1") for study in studies[:1]])
    run("extract-labels", mimic, "--reports")
    run("extract-labels", mimic, "--import", f"theirs={full}")
    manifests = mimic / "manifests"
    before = {path: path.read_bytes() for path in manifests.rglob("*.parquet")}
    empty = table_csv(tmp_path / "none.csv", ("study_id", "report"), [(studies[0], "IMPRESSION: As above.")])
    for asked in (("--import", f"theirs={part}"), ("--reports", empty)):
        said = " ".join(run("extract-labels", mimic, *asked, code=2).split())
        assert "--allow-loss" in said
        assert {path: path.read_bytes() for path in manifests.rglob("*.parquet")} == before
        assert not list(manifests.rglob("*.before"))
        run("extract-labels", mimic)
        assert {path: path.read_bytes() for path in manifests.rglob("*.parquet")} == before
    run("extract-labels", mimic, "--import", f"theirs={part}", "--allow-loss")
    assert len(by_source(mimic)["theirs"]) == 1
    run("extract-labels", mimic, "--reports", empty, "--allow-loss")
    assert len(by_source(mimic)["cxrprep"]) == 1


def test_reports_labelled_again_without_their_vocabulary_do_not_end_its_observations(tmp_path: Path) -> None:
    """Other labels may fill more cells than those that would go."""
    folder = tmp_path / "mimic"
    mimic_cxr_jpg.write(folder)
    words = tmp_path / "words.toml"
    words.write_text('[[observation]]\nname = "Large Heart"\nfindings = ["heart is enlarged"]\n')
    run("extract-labels", folder)
    studies = sorted({row["study_id"] for row in rows(folder / "manifests/labels.parquet")})
    few, more = (
        table_csv(tmp_path / f"{name}.csv", ("study_id", "report"), [(study, text) for study in studies])
        for name, text in (("few", "The heart is enlarged."), ("more", "Edema. Effusion. Pneumonia. Fracture."))
    )
    run("extract-labels", folder, "--reports", few, "--vocabulary", words)
    labels = folder / "manifests/labels.parquet"
    before = labels.read_bytes()
    said = " ".join(run("extract-labels", folder, "--reports", more, code=2).split())
    assert "would lose 1 column" in said
    assert "raw_large_heart" in said
    assert labels.read_bytes() == before
    run("extract-labels", folder, "--reports", more, "--vocabulary", words, "--policy", "strict")
    run("extract-labels", folder, "--reports", more, "--allow-loss")
