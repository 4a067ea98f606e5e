from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cxrprep.datasets.catalog import find_dataset
from cxrprep.datasets.chexpert import split_folder
from cxrprep.errors import MissingExtraError, TableError
from cxrprep.labels.extract import read_labels
from cxrprep.labels.label_rows import LabelOptions
from tests.generators.small import chexpert
from tests.parts import need
from tests.tables_made import build_manifest, extract_labels

SPEC = find_dataset("chexpert")
NAMES = chexpert.NAMES


def rows(root, **options):
    found = read_labels(SPEC, root, **options).table.to_pylist()
    return {(row["image_id"] or row["study_id"], row["label_source"]): row for row in found}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A training table of the release's size and form; the released one itself when CXR_CHEXPERT_TRAIN names it."""
    folder = tmp_path_factory.mktemp("full")
    real = os.environ.get("CXR_CHEXPERT_TRAIN")
    text = Path(real).read_text(encoding="ascii") if real else chexpert.full_table()
    (folder / "train.csv").write_text(text, encoding="ascii")
    return folder, text


# Images of the released table that are 1, 0, -1 and blank.
PUBLISHED = {
    "No Finding": (22381, 0, 0, 201033), "Enlarged Cardiomediastinum": (10798, 21638, 12403, 178575),
    "Cardiomegaly": (27000, 11116, 8087, 177211), "Lung Opacity": (105581, 6599, 5598, 105636),
    "Lung Lesion": (9186, 1270, 1488, 211470), "Edema": (52246, 20726, 12984, 137458),
    "Consolidation": (14783, 28097, 27742, 152792), "Pneumonia": (6039, 2799, 18770, 195806),
    "Atelectasis": (33376, 1328, 33739, 154971), "Pneumothorax": (19448, 56341, 3145, 144480),
    "Pleural Effusion": (86187, 35396, 11628, 90203), "Pleural Other": (3523, 316, 2653, 216922),
    "Fracture": (9040, 2512, 642, 211220), "Support Devices": (116001, 6137, 1079, 100197),
}  # fmt: skip


def test_a_table_of_the_real_size_gives_the_published_counts(full):
    result = extract_labels(SPEC, full[0])
    assert (result.rows, result.images, result.patients, result.studies) == (223414, 223414, 64540, 187641)
    assert (result.release, dict(result.splits)) == ("v1.0-small", {"train": 223414})
    found = {
        label.observation: (label.positive, label.negative, label.uncertain, label.null)
        for label in result.sources[0].labels
    }
    assert found == PUBLISHED
    (use,) = result.tables
    assert (use.rows, use.used, use.apart) == (223414, 223414, ())


def test_every_cell_of_a_table_of_the_real_size_arrives(full):
    folder, text = full
    table = read_labels(SPEC, folder).table
    names = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *NAMES)
    raw = [table.column(f"raw_{name}").cast(pa.string()).combine_chunks() for name in names]
    lines = pc.binary_join_element_wise(*raw, ",", null_handling="replace", null_replacement="")
    assert sorted(lines.to_pylist()) == sorted(text.splitlines()[1:])
    for name, cells in zip(NAMES, raw[5:], strict=True):
        values = table.column(f"label_{name.lower().replace(' ', '_')}").combine_chunks()
        assert values.equals(cells.cast(pa.float32()).cast(pa.int8())), name
    ids = table.column("image_id").to_pylist()
    assert ids == sorted(ids)


def test_every_image_of_a_study_has_the_labels_of_the_study(full):
    table = read_labels(SPEC, full[0]).table
    columns = [f"label_{name.lower().replace(' ', '_')}" for name in NAMES]
    grouped = table.group_by("study_id").aggregate([(c, "count_distinct") for c in columns])
    assert all(pc.max(grouped.column(f"{c}_count_distinct")).as_py() == 1 for c in columns)


def test_a_row_says_what_the_table_says(tmp_path):
    chexpert.write(tmp_path, images=False)
    row = rows(tmp_path)["patient00002/study1/view2_lateral", "chexpert-labeler"]
    assert (row["patient_id"], row["study_id"], row["split"]) == ("patient00002", "patient00002/study1", "train")
    assert (row["view"], row["projection"], row["view_raw"], row["sex"], row["age_years"]) == (
        "LATERAL", "lateral", "Lateral", "F", 83,
    )  # fmt: skip
    assert (row["label_cardiomegaly"], row["label_edema"], row["label_fracture"]) == (0, -1, None)
    assert (row["raw_Cardiomegaly"], row["raw_Edema"], row["raw_Fracture"]) == ("0.0", "-1.0", None)
    assert row["raw_Path"] == "CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg"
    assert row["label_mass"] is None


def test_laterals_filed_as_frontal_are_lateral_unless_the_source_is_taken_at_its_word(tmp_path):
    chexpert.write(tmp_path, images=False)
    key = ("patient07958/study5/view2_frontal", "chexpert-labeler")
    notes = []
    row = rows(tmp_path, on_event=notes.append)[key]
    assert (row["view"], row["projection"]) == ("LL", "lateral")
    assert any("1 row says Frontal, with view LL or RL" in note.message for note in notes)
    strict = rows(tmp_path, options=LabelOptions(strict_source=True))[key]
    assert (strict["view"], strict["projection"]) == ("LL", "frontal")


def test_unknown_sex_and_the_two_special_ages(tmp_path):
    chexpert.write(tmp_path, images=False)
    found = rows(tmp_path)
    assert found["patient33093/study1/view1_frontal", "chexpert-labeler"]["sex"] is None
    capped = found["patient00003/study1/view1_frontal", "chexpert-labeler"]
    assert (capped["age_years"], capped["age_flag"]) == (90, "capped")
    unknown = found["patient64538/study1/view1_frontal", "chexpert-labeler"]
    assert (unknown["age_years"], unknown["age_flag"]) == (None, "implausible")


def test_the_released_test_labels_by_image_and_by_study(tmp_path):
    chexpert.write_test_set(tmp_path)
    chexpert.write_ground_truth(tmp_path)
    found = rows(tmp_path)
    frontal = found["patient64741/study1/view1_frontal", "radiologist"]
    assert (frontal["split"], frontal["view"], frontal["projection"]) == ("test", None, "frontal")
    assert (frontal["label_support_devices"], frontal["label_edema"], frontal["sex"]) == (1, 0, None)
    assert found["patient64741/study1/view2_lateral", "radiologist"]["view"] == "LATERAL"
    study = found["patient64741/study1", "radiologist"]
    assert (study["image_id"], study["label_support_devices"], study["split"]) == (None, 1, "test")


@pytest.mark.parametrize("tables", ["groundtruth.csv", "none for it"])
def test_an_image_of_which_no_table_says_more_has_the_side_and_split_of_its_path(tmp_path, tables):
    chexpert.write(tmp_path)
    folder = next(tmp_path.glob("CheXpert*"))
    for number, side in ((64500, "frontal"), (64650, "lateral"), (64800, "frontal")):
        path = folder / f"{split_folder(f'patient{number}')}/patient{number}/study1/view1_{side}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    if tables == "groundtruth.csv":
        for table in (*tmp_path.rglob("*.csv"), *tmp_path.rglob("*.xlsx")):
            table.unlink()
        header = (
            "Study,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Lesion,Lung Opacity,Edema,Consolidation,"
            "Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
        )
        rows = (
            f"{folder.name}/test/patient64800/study1" + ",0" * 14,
            f"{folder.name}/test/patient64801/study1" + ",1" * 14,
        )
        (tmp_path / tables).write_text("\n".join([header, *rows]) + "\n")
    extract_labels(find_dataset("chexpert"), tmp_path)
    build_manifest(find_dataset("chexpert"), tmp_path)
    rows = pq.read_table(tmp_path / "manifests/images.parquet", filters=[("patient_id", ">", "patient644")]).to_pylist()
    found = {row["patient_id"]: (row["split"], row["projection"]) for row in rows}
    wanted = {
        "patient64500": ("train", "frontal"),
        "patient64650": ("validate", "lateral"),
        "patient64800": ("test", "frontal"),
    }
    assert found.items() >= wanted.items()


def test_other_labelers_are_rows_beside_the_labelers_own(tmp_path):
    chexpert.write(tmp_path, images=False)
    chexpert.write_chexbert(tmp_path)
    result = extract_labels(SPEC, tmp_path)
    assert {source.label_source: source.rows for source in result.sources} == {
        "chexpert-labeler": 8, "chexbert": 8, "visualchexbert": 8, "radiologist": 2,
    }  # fmt: skip
    assert (result.images, result.rows, result.patients, result.studies) == (10, 26, 8, 9)
    found = rows(tmp_path)
    image = "patient00002/study2/view1_frontal"
    bert, visual = found[image, "chexbert"], found[image, "visualchexbert"]
    assert (bert["label_lung_opacity"], bert["label_edema"], bert["label_no_finding"]) == (-1, 1, None)
    assert (visual["label_lung_opacity"], visual["label_edema"]) == (0, 1)
    assert bert["table_name"] == "train_cheXbert.csv"


def test_the_first_table_decides_the_release_of_all(tmp_path):
    chexpert.write(tmp_path, images=False)
    chexpert.write_chexbert(tmp_path)
    labels = read_labels(SPEC, tmp_path)
    assert labels.release == "v1.0-small"
    assert set(labels.table.column("release").to_pylist()) == {"v1.0-small"}
    for path in (tmp_path / "CheXpert-v1.0-small").iterdir():
        path.unlink()
    assert read_labels(SPEC, tmp_path).release == "v1.0"


def test_a_labelers_table_may_have_paths_and_labels_alone(tmp_path):
    lines = [f"Path,{','.join(reversed(NAMES))}"]
    lines += [f"CheXpert-v1.0/train/{row[0]}.jpg,{','.join('1' if n in row[5] else '0' for n in reversed(NAMES))}"
              for row in chexpert.TRAIN]  # fmt: skip
    (tmp_path / "train_visualCheXbert.csv").write_text("\n".join(lines) + "\n")
    row = rows(tmp_path)["patient00002/study1/view2_lateral", "visualchexbert"]
    assert (row["label_edema"], row["label_fracture"], row["view"], row["age_years"]) == (1, 0, "LATERAL", None)
    assert row["projection"] == "lateral"


@pytest.mark.parametrize("layout", ["released", "kaggle", "batches"])
def test_tables_are_found_in_every_layout(tmp_path, layout):
    release = "v1.0" if layout == "batches" else "v1.0-small"
    chexpert.write(tmp_path, release=release, layout=layout, images=False)
    labels = read_labels(SPEC, tmp_path)
    assert (labels.table.num_rows, labels.release) == (10, release)


def test_the_index_column_that_pandas_saves_is_no_obstacle(tmp_path):
    chexpert.write(tmp_path, images=False)
    path = tmp_path / "CheXpert-v1.0-small" / "train.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([f",{lines[0]}", *(f"{i},{line}" for i, line in enumerate(lines[1:]))]))
    assert read_labels(SPEC, tmp_path).table.num_rows == 10


# ---- CheXpert Plus ----


def write_plus(root):
    lines = []
    for image, _, _, _, _, labels in chexpert.TRAIN[:3]:
        item = {"path_to_image": f"train/{image}.jpg", **dict.fromkeys(NAMES)}
        lines.append(json.dumps({**item, **{name: float(value) for name, value in labels.items()}}))
    (root / "impression_fixed.json").write_text("\n".join(lines) + "\n")
    header = "path_to_image,path_to_dcm,frontal_lateral,ap_pa,report,section_findings,age,sex,split"
    report = '"FINAL REPORT\nHeart, ""normal"".\n"'
    body = [f"train/{row[0]}.jpg,x.dcm,Frontal,AP,{report},secret,68,Female,train" for row in chexpert.TRAIN]
    (root / "df_chexpert_plus_240401.csv").write_text("\n".join([header, *body]) + "\n")


def test_plus_labels_join_what_the_training_table_knows(tmp_path):
    chexpert.write(tmp_path, images=False)
    write_plus(tmp_path)
    row = rows(tmp_path)["patient00002/study1/view1_frontal", "chexbert-impression"]
    assert (row["label_cardiomegaly"], row["label_edema"], row["label_fracture"]) == (0, -1, None)
    assert (row["view"], row["age_years"], row["split"], row["raw_Edema"]) == ("AP", 83, "train", "-1.0")
    assert "report_text" not in row


def test_report_text_comes_on_request_only_and_sections_never(tmp_path):
    chexpert.write(tmp_path, images=False)
    write_plus(tmp_path)
    found = rows(tmp_path, options=LabelOptions(report_text=True))
    assert (
        found["patient00001/study1/view1_frontal", "chexpert-labeler"]["report_text"]
        == 'FINAL REPORT\nHeart, "normal".\n'
    )
    assert found["patient64541/study1/view1_frontal", "radiologist"]["report_text"] is None
    assert not any("secret" in str(row) for row in found.values())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"path_to_image": "train/x.jpg"}', "line 1, path_to_image: 'train/x.jpg'"),
        ('{"path_to_image": 3}', "line 1, path_to_image: missing"),
        ('{"path_to_image": "train/patient00001/study1/view1_frontal.jpg", "Edema": 2.0}', "line 1, Edema"),
        ('{"path_to_image": "train/patient00001/study1/view1_frontal.jpg"}\n{"path', "line 2: not a line of JSON"),
        ("[" * 100_000, "line 1: not a line of JSON: nested too deeply"),
        ("", "is empty"),
    ],
)
def test_damaged_plus_labels_are_named(tmp_path, text, what):
    (tmp_path / "report_fixed.json").write_text(text)
    with pytest.raises(TableError, match=what):
        read_labels(SPEC, tmp_path)


# ---- demographics ----


def write_demographics(root, *rows, key="PATIENT"):
    need("openpyxl")
    import openpyxl

    book = openpyxl.Workbook()
    for row in ((key, "GENDER", "AGE_AT_CXR", "PRIMARY_RACE", "ETHNICITY"), *rows):
        book.active.append(row)
    book.save(root / "CHEXPERT DEMO.xlsx")


def test_demographics_are_joined_by_patient_on_request(tmp_path):
    chexpert.write(tmp_path, images=False)
    write_demographics(tmp_path, ("patient00002", "Female", 87, "Asian", None))
    assert "raw_PRIMARY_RACE" not in read_labels(SPEC, tmp_path).table.column_names
    found = rows(tmp_path, options=LabelOptions(demographics=True))
    assert found["patient00002/study2/view1_frontal", "chexpert-labeler"]["raw_PRIMARY_RACE"] == "Asian"
    assert found["patient00001/study1/view1_frontal", "chexpert-labeler"]["raw_PRIMARY_RACE"] is None


def test_demographics_that_are_absent_or_wrong_are_named(tmp_path):
    chexpert.write(tmp_path, images=False)
    with pytest.raises(TableError, match=r"CHEXPERT DEMO\.xlsx is not here"):
        read_labels(SPEC, tmp_path, options=LabelOptions(demographics=True))
    write_demographics(tmp_path, ("nobody", "Female", 87, "Asian", None))
    with pytest.raises(TableError, match=r"line 2, column 'PATIENT': expected a patient such as patient00001"):
        read_labels(SPEC, tmp_path, options=LabelOptions(demographics=True))
    write_demographics(tmp_path, ("patient00002", "Female", 87, "Asian", None), key="WHO")
    with pytest.raises(TableError, match="line 1: column 'PATIENT' is missing"):
        read_labels(SPEC, tmp_path, options=LabelOptions(demographics=True))
    (tmp_path / "CHEXPERT DEMO.xlsx").write_bytes(b"PK no workbook")
    with pytest.raises(TableError, match="cannot be read as a workbook"):
        read_labels(SPEC, tmp_path, options=LabelOptions(demographics=True))


def test_a_patient_may_be_a_number_and_stand_twice_in_the_demographics(tmp_path):
    chexpert.write(tmp_path, images=False)
    lines = ((2, "Female", 87, "Asian", None), (2, "Female", 87, "Asian", None), (2, "Female", 88, "Asian", None))
    write_demographics(tmp_path, *lines)
    labels = read_labels(SPEC, tmp_path, options=LabelOptions(demographics=True))
    row = next(r for r in labels.table.to_pylist() if r["image_id"] == "patient00002/study2/view1_frontal")
    assert row["raw_AGE_AT_CXR"] == "87"
    (use,) = (use for use in labels.tables if use.role == "demographics")
    assert (use.rows, use.used) == (3, 1)
    assert dict(use.apart) == {
        "repeat an earlier row": 1,
        "say otherwise than an earlier row of the patient": 1,
    }


def test_without_openpyxl_the_extra_is_named(tmp_path, monkeypatch):
    chexpert.write(tmp_path, images=False)
    (tmp_path / "CHEXPERT DEMO.xlsx").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError) as caught:
        read_labels(SPEC, tmp_path, options=LabelOptions(demographics=True))
    assert "openpyxl>=" in caught.value.hint


# ---- what is refused, and how ----


def damaged(tmp_path, old, new, name="train.csv"):
    chexpert.write(tmp_path, images=False)
    path = tmp_path / "CheXpert-v1.0-small" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(TableError) as caught:
        read_labels(SPEC, tmp_path)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("Edema,", "Oedema,", "line 1: column 'Edema' is missing"),
        (
            "Support Devices\n",
            "Support Devices,Comment\n",
            "line 2, column 20: the line has 19 fields",
        ),
        (",Fracture,", ",Edema,", "line 1"),
        ("Female,87", "Female,young", "line 3, column 'Age'"),
        ("Female,87", "Femme,87", "line 3, column 'Sex'"),
        ("87,Frontal,AP", "87,Frontal,XX", "line 3, column 'AP/PA'"),
        ("87,Frontal,AP", "87,Lateral,", "line 3, column 'Frontal/Lateral': the file name says frontal"),
        (
            "1.0,,,,,,,,,,,,,1.0",
            "2.0,,,,,,,,,,,,,1.0",
            "line 2, column 'No Finding': expected 1, 0, -1 or a blank ('2.0')",
        ),
        ("train/patient00001/", "train/patient1/", "line 2, column 'Path'"),
        ("patient00001/study1/view1_frontal", "patient00002/study2/view1_frontal", "line 3, column 'Path'"),
        ("Female,68,Frontal,AP,1.0", 'Female,68,Frontal,AP,"1.0', "line 2"),
        (",Sex,", ";Sex;", "line 1"),
    ],
)
def test_a_wrong_cell_or_header_is_named(tmp_path, old, new, what):
    assert what in damaged(tmp_path, old, new)


def test_one_image_under_two_prefixes_is_one_image(tmp_path):
    message = damaged(tmp_path, "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal",
                      "CheXpert-v1.0/train/patient00002/study2/view1_frontal")  # fmt: skip
    assert "line 3, column 'Path': an earlier row is about the same image" in message


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (chexpert.HEADER.encode() + b"\n", "a header and no rows"),
        (b"<!DOCTYPE html><html>sign in</html>", "this is a web page"),
        ("Path,Sex\n".encode("utf-16"), "no rows"),
        (chexpert.HEADER.encode() + b"\nCheXpert/train/patient00001/stu\xff,", "line 2"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, what):
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(TableError, match=what):
        read_labels(SPEC, tmp_path)


def test_a_packed_table_cut_short_is_refused(tmp_path):
    import gzip

    data = gzip.compress(chexpert.table(chexpert.TRAIN, "train", "CheXpert-v1.0-small").encode())
    (tmp_path / "train.csv.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(TableError, match="cannot be unpacked"):
        read_labels(SPEC, tmp_path)


def test_a_row_cut_short_at_the_end_is_named(tmp_path):
    chexpert.write(tmp_path, images=False)
    path = tmp_path / "CheXpert-v1.0-small" / "train.csv"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(TableError, match=r"line 9, column \d+: the line has \d+ fields where the header has 19"):
        read_labels(SPEC, tmp_path)


def test_a_part_of_the_train_table_under_the_name_of_valid_is_said(tmp_path):
    chexpert.write(tmp_path, images=False)
    train, valid = (next(tmp_path.rglob(name)) for name in ("train.csv", "valid.csv"))
    valid.write_text("".join(train.read_text().splitlines(keepends=True)[:3]))
    notes = []
    read_labels(SPEC, tmp_path, on_event=lambda event: notes.append(getattr(event, "message", "")))
    assert any("2 rows are about train patients" in note for note in notes)
