from __future__ import annotations

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import ExitCode, TableError, UsageError
from cxrprep.labels.extract import read_labels
from tests.generators.small import nih_chestxray14 as nih
from tests.parts import shared_data
from tests.tables_made import extract_labels

SPEC = find_dataset("nih-chestxray14")


def rows(root, **options):
    return {row["image_id"]: row for row in read_labels(SPEC, root, **options).table.to_pylist()}


# ---- the real tables ----


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = shared_data("nih-chestxray14")
    out = tmp_path_factory.mktemp("real")
    return {release: extract_labels(SPEC, folder, out=out / release, release=release) for release in ("v2020", "2017")}


@pytest.mark.parametrize(
    ("release", "positives"),
    [
        ("v2020", {"No Finding": 60361, "Atelectasis": 11559, "Pneumonia": 1431, "Mass": 5782, "Hernia": 227}),
        ("2017", {"No Finding": 60412, "Atelectasis": 11535, "Pneumonia": 1353, "Mass": 5746, "Hernia": 227}),
    ],
)
def test_the_real_tables_give_the_published_numbers(real, release, positives):
    result = real[release]
    assert (result.rows, result.images, result.patients) == (112120, 112120, 30805)
    assert dict(result.splits) == {"train_val": 86524, "test": 25596}
    assert (result.boxes, result.boxed_images) == (984, 880)
    counted = {label.observation: label for label in result.sources[0].labels}
    assert {name: counted[name].positive for name in positives} == positives
    assert len(counted) == 15
    assert all(label.positive + label.negative == 112120 for label in counted.values())


def test_both_real_tables_have_one_schema_and_say_where_a_label_comes_from(real):
    new, old = (pq.read_table(real[release].path) for release in ("v2020", "2017"))
    assert new.schema.equals(old.schema, check_metadata=False)
    assert pc.unique(new.column("table_name").cast("string")).to_pylist() == ["Data_Entry_2017_v2020.csv"]
    digest = "sha256:3c3e24f0b580e4e976499473fa29d7bbee1f6be93aa0b8bc764e1688ca101d37"
    assert pc.unique(old.column("table_digest").cast("string")).to_pylist() == [digest]
    assert new.column("image_id").equals(old.column("image_id"))
    differing = sum(
        a != b for a, b in zip(new.column("labels_raw").to_pylist(), old.column("labels_raw").to_pylist(), strict=True)
        if set(a) != set(b)
    )  # fmt: skip
    assert differing == 181


def test_impossible_ages_of_2017_are_dropped_and_said(real):
    old = pq.read_table(real["2017"].path, columns=["image_id", "age_years", "age_flag", "raw_Patient Age"])
    flagged = [row for row in old.to_pylist() if row["age_flag"] == "implausible"]
    assert len(flagged) == 16
    assert all(row["age_years"] is None for row in flagged)
    assert {row["image_id"]: row["raw_Patient Age"] for row in flagged}["00005567_000"] == "412Y"
    new = pq.read_table(real["v2020"].path, columns=["age_years", "age_flag"])
    assert (pc.min(new["age_years"]).as_py(), pc.max(new["age_years"]).as_py()) == (0, 95)
    assert new["age_flag"].null_count == 112120


# ---- the tiny release ----


def test_a_row_says_what_the_table_says(tmp_path):
    nih.write(tmp_path, images=False)
    row = rows(tmp_path)["00000003_001"]
    assert (row["patient_id"], row["study_id"], row["split"]) == ("00000003", "00000003_001", "test")
    assert (row["view"], row["projection"], row["sex"], row["age_years"]) == ("AP", "frontal", "F", 73)
    assert (row["orig_width"], row["orig_height"], row["follow_up"]) == (3056, 2544, 0)
    assert row["pixel_spacing_mm"] == pytest.approx(0.139)
    assert (row["label_hernia"], row["label_infiltration"], row["label_edema"]) == (1, 1, 0)
    assert row["labels_raw"] == ["Hernia", "Infiltration"]
    assert row["boxes"] == [{"label": "Infiltration", "x": 100.5, "y": 200.25, "w": 300.0, "h": 80.5}]
    assert row["raw_Finding Labels"] == "Hernia|Infiltration"


def test_nothing_is_derived_and_what_nih_does_not_know_is_null(tmp_path):
    nih.write(tmp_path, images=False)
    row = rows(tmp_path)["00000004_000"]
    assert (row["label_mass"], row["label_nodule"], row["label_pleural_thickening"]) == (1, 1, 1)
    unknown = (
        "lung_lesion",
        "lung_opacity",
        "pleural_other",
        "fracture",
        "support_devices",
        "enlarged_cardiomediastinum",
    )
    assert [row[f"label_{name}"] for name in unknown] == [None] * 6


def test_an_image_without_boxes_has_null_not_an_empty_list(tmp_path):
    nih.write(tmp_path, images=False)
    found = rows(tmp_path)
    assert found["00000001_000"]["boxes"] is None
    assert [box["label"] for box in found["00000005_000"]["boxes"]] == ["Effusion", "Infiltration"]


def test_ages_of_2017_in_years_and_months(tmp_path):
    nih.write(tmp_path, release="2017", images=False)
    found = rows(tmp_path)
    assert found["00000001_000"]["age_years"] == 58
    assert found["00000004_000"]["age_years"] == 1.5
    assert found["00000004_000"]["raw_Patient ID"] == "00000004"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\r\n", "\n"),
        lambda text: text.replace("\r\n", "\n", 3),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("[x,y],\r\n", "[x,y]\r\n"),
        lambda text: "\r\n".join(f"{line}," if i and line else line for i, line in enumerate(text.split("\r\n"))),
        lambda text: text.rstrip("\r\n"),
        lambda text: text.replace("OriginalImage[Width,Height]", '"OriginalImage[Width,Height]"').replace(
            "OriginalImagePixelSpacing[x,y]", '"OriginalImagePixelSpacing[x,y]"'
        ),
    ],
    ids=["lf", "mixed-line-ends", "bom", "no-trailing-comma", "commas-everywhere", "no-last-line-end", "quoted-header"],
)
def test_forms_that_mirrors_give_the_old_table(tmp_path, change):
    nih.write(tmp_path, release="2017", images=False)
    before = read_labels(SPEC, tmp_path).table
    path = tmp_path / "Data_Entry_2017.csv"
    path.write_bytes(change(path.read_bytes().decode()).encode())
    after = read_labels(SPEC, tmp_path).table
    assert after.drop_columns("table_digest").equals(before.drop_columns("table_digest"))


def test_without_lists_the_split_is_null_and_said(tmp_path):
    nih.write(tmp_path, images=False)
    for name in ("train_val_list.txt", "test_list.txt"):
        (tmp_path / name).unlink()
    notes = []
    assert {row["split"] for row in rows(tmp_path, on_event=notes.append).values()} == {None}
    assert any("no split lists" in note.message for note in notes)


@pytest.mark.parametrize(
    ("form", "note"),
    [
        (lambda names: "Image Index\n" + "".join(f"{name}\n" for name in names), "is a header, 'Image Index'"),
        (lambda names: ",0\n" + "".join(f"{n},{name}\n" for n, name in enumerate(names)), "is a header, '0'"),
    ],
)
def test_lists_that_pandas_saved_are_those_of_the_release(tmp_path, form, note):
    nih.write(tmp_path, images=False)
    before = rows(tmp_path)
    for name in ("train_val_list.txt", "test_list.txt"):
        (tmp_path / name).write_text(form((tmp_path / name).read_text().split()))
    notes = []
    after = rows(tmp_path, on_event=notes.append)
    assert {image: row["split"] for image, row in after.items()} == {i: row["split"] for i, row in before.items()}
    assert sum(note in one.message for one in notes) == 2


def test_names_in_lists_and_boxes_that_the_table_lacks_are_counted(tmp_path):
    nih.write(tmp_path, images=False)
    with (tmp_path / "test_list.txt").open("a") as file:
        file.write("\n00099999_000.png")
    lines = (tmp_path / "BBox_List_2017.csv").read_text().splitlines(keepends=True)
    with (tmp_path / "BBox_List_2017.csv").open("a") as file:
        file.write("00099999_000.png,Mass,1,2,3,4\n" + lines[1])
    result = extract_labels(SPEC, tmp_path)
    apart = {use.name: use.apart for use in result.tables if use.apart}
    reason = "name images that the findings table lacks"
    assert apart["test_list.txt"] == ((reason, 1),)
    assert dict(apart["BBox_List_2017.csv"]) == {
        "repeat another box": 1,
        "are on images that the findings table lacks": 1,
    }
    assert result.boxes == 3
    # It may be here without a row of findings: its split is known, and whose it is.
    row = rows(tmp_path)["00099999_000"]
    known = {name: row[name] for name in ("patient_id", "study_id", "split", "label_source", "label_edema", "boxes")}
    assert known == {
        "patient_id": "00099999", "study_id": "00099999_000", "split": "test", "label_source": None,
        "label_edema": None, "boxes": None,
    }  # fmt: skip


def test_googles_labels_are_rows_of_their_own(tmp_path):
    nih.write(tmp_path, images=False)
    nih.write_google(tmp_path)
    table = read_labels(SPEC, tmp_path).table
    google = {row["image_id"]: row for row in table.to_pylist() if row["label_source"] == "google-adjudicated"}
    assert set(google) == {"00000002_000", "00000003_000"}
    row = google["00000003_000"]
    assert (row["label_fracture"], row["label_pneumothorax"], row["label_lung_opacity"], row["label_lung_lesion"]) == (
        0,
        -1,
        1,
        0,
    )
    # What Google's copy says of age and follow-up is of neither final table: the release's own table is right.
    assert (row["age_years"], row["follow_up"], row["split"]) == (74, 1, "test")
    assert row["label_hernia"] is None
    assert row["boxes"] is None
    assert table.num_rows == 9


def test_cxr_lts_findings_are_a_source_and_those_of_its_own_have_columns(tmp_path):
    nih.write(tmp_path, images=False)
    before = read_labels(SPEC, tmp_path).table
    names = [
        "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
        "Infiltration", "Mass", "Nodule", "Pleural Thickening", "Pneumonia", "Pneumothorax", "Pneumoperitoneum",
        "Pneumomediastinum", "Subcutaneous Emphysema", "Tortuous Aorta", "Calcification of the Aorta", "No Finding",
    ]  # fmt: skip
    cells = ["1" if name in ("Pleural Thickening", "Tortuous Aorta") else "0" for name in names]
    text = "\n".join([",".join(["id", *names, "subj_id"]), ",".join(["00000003_000.png", *cells, "3"])])
    (tmp_path / "miccai2023_nih-cxr-lt_labels_test.csv").write_text(text + "\n")
    (tmp_path / "nih-cxr-lt_single-label_train.csv").write_text(text.replace("_000", "_001") + "\n")
    table = read_labels(SPEC, tmp_path).table
    found = [row for row in table.to_pylist() if (row["label_source"] or "").startswith("cxr-lt")]
    assert [(row["image_id"], row["label_source"]) for row in found] == [
        ("00000003_000", "cxr-lt"),
        ("00000003_001", "cxr-lt-single-label"),
    ]
    for row in found:
        assert {name for name, value in row.items() if name.startswith("label_") and value == 1} == {
            "label_pleural_thickening",
            "label_cxr_lt__tortuous_aorta",
        }
        assert sum(value == 0 for name, value in row.items() if name.startswith("label_")) == 18
    rest = table.filter(pc.invert(pc.starts_with(table.column("label_source").cast("string"), "cxr-lt")))
    assert rest.select([name for name in before.column_names if name in rest.column_names]).num_rows == before.num_rows


def test_googles_labels_joined_in_one_table_are_the_same_source(tmp_path):
    nih.write(tmp_path, images=False)
    nih.write_google(tmp_path)
    folder = tmp_path / "four_findings_expert_labels"
    apart = [row for row in read_labels(SPEC, tmp_path).table.to_pylist() if row["label_source"].startswith("google")]
    parts = [(folder / name).read_text().splitlines() for name in ("validation_labels.csv", "test_labels.csv")]
    header = f"{parts[0][0]},Set Id"
    lines = [f"{line},{word}" for part, word in zip(parts, ("val", "test"), strict=True) for line in part[1:]]
    (tmp_path / "google2019_nih-chest-xray-labels.csv").write_text("\n".join([header, *lines]) + "\n")
    notes = []
    beside = read_labels(SPEC, tmp_path, on_event=notes.append).table
    assert beside.num_rows == 9
    assert any(note.message.startswith("not used: Google's own tables") for note in notes)
    for path in folder.iterdir():
        path.unlink()
    alone = [row for row in read_labels(SPEC, tmp_path).table.to_pylist() if row["label_source"].startswith("google")]
    changed = {"table_name", "table_digest", "raw_Set Id"}
    assert [{k: v for k, v in row.items() if k not in changed} for row in alone] == [
        {k: v for k, v in row.items() if k not in changed} for row in apart
    ]


# ---- what is refused, and how ----


def damaged(tmp_path, name, old, new):
    nih.write(tmp_path, images=False)
    path = tmp_path / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(TableError) as caught:
        read_labels(SPEC, tmp_path)
    assert caught.value.exit_code is ExitCode.INTEGRITY
    assert caught.value.hint
    return str(caught.value)


TABLE = "Data_Entry_2017_v2020.csv"


@pytest.mark.parametrize(
    ("old", "new", "line", "column"),
    [
        ("Cardiomegaly|Emphysema", "Cardiomegaly|Emfysema", 3, "Finding Labels"),
        ("Hernia|Infiltration", "No Finding|Infiltration", 6, "Finding Labels"),
        ("00000002_000.png", "chest.png", 4, "Image Index"),
        ("00000001_001.png", "00000001_000.png", 3, "Image Index"),
        (",2,80,", ",3,80,", 4, "Patient ID"),
        (",57,M", ",old,M", 2, "Patient Age"),
        (",57,M", ",058Y,M", 2, "Patient Age"),
        (",57,M", ",,M", 2, "Patient Age"),
        ("M,PA,2682", "M,LL,2682", 2, "View Position"),
        ("57,M,PA", "57,X,PA", 2, "Patient Sex"),
        ("2682,2749,0.143", "2682,2749,-1", 2, "OriginalImagePixelSpacing[x"),
    ],
)
def test_a_wrong_cell_is_named_by_file_line_and_column(tmp_path, old, new, line, column):
    message = damaged(tmp_path, TABLE, old, new)
    assert f"{TABLE}, line {line}, column '{column}'" in message


def test_a_row_of_another_width_is_named(tmp_path):
    message = damaged(tmp_path, TABLE, "No Finding,0,2,80,M", "No Finding,0,2,80")
    assert f"{TABLE}, line 4" in message
    assert "fields" in message


@pytest.mark.parametrize(("release", "other"), [("2017", "v2020"), ("v2020", "2017")])
def test_a_table_under_the_other_releases_name_is_taken_for_what_it_is(tmp_path, release, other):
    nih.write(tmp_path / "named", release=release, images=False)
    wanted = read_labels(SPEC, tmp_path / "named")
    names = {"v2020": "Data_Entry_2017_v2020.csv", "2017": "Data_Entry_2017.csv"}
    nih.write(tmp_path / "renamed", release=release, images=False)
    (tmp_path / "renamed" / names[release]).rename(tmp_path / "renamed" / names[other])
    notes = []
    found = read_labels(SPEC, tmp_path / "renamed", on_event=notes.append)
    assert found.release == wanted.release == release
    assert found.table.drop_columns("table_name").equals(wanted.table.drop_columns("table_name"))
    said = f"this is the table of release {release} under the name of that of {other}"
    assert any(said in note.message for note in notes)
    with pytest.raises(TableError, match=said) as caught:
        read_labels(SPEC, tmp_path / "renamed", release=other)
    assert "leave out --release" in caught.value.hint


def test_the_wrong_release_is_refused_by_name(tmp_path):
    nih.write(tmp_path, release="2017", images=False)
    with pytest.raises(TableError, match=r"Data_Entry_2017\.csv belongs to release 2017, not to v2020"):
        read_labels(SPEC, tmp_path, release="v2020")
    with pytest.raises(UsageError, match="no release 'v2019'"):
        read_labels(SPEC, tmp_path, release="v2019")


def test_of_two_versions_the_newest_is_taken_and_said(tmp_path):
    nih.write(tmp_path, images=False)
    (tmp_path / "Data_Entry_2017.csv").write_text(nih.table_2017())
    notes = []
    labels = read_labels(SPEC, tmp_path, on_event=notes.append)
    assert labels.release == "v2020"
    assert any("belongs to release 2017; v2020 is taken" in note.message for note in notes)
    assert read_labels(SPEC, tmp_path, release="2017").release == "2017"


def test_an_image_in_both_lists_is_an_error(tmp_path):
    message = damaged(tmp_path, "test_list.txt", "00000003_000.png", "00000001_000.png")
    assert "test_list.txt, line 1" in message
    assert "train_val_list.txt as well" in message
    # One that the findings lack is no exception.
    for name in ("train_val_list.txt", "test_list.txt"):
        (tmp_path / name).write_text("00099999_000.png\n")
    with pytest.raises(TableError, match=r"00099999_000\.png stands in train_val_list\.txt as well"):
        read_labels(SPEC, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("00000003_001.png,Infiltrate,100.5", "00000003_001.png,Rash,100.5", "line 2, column 'Finding Label'"),
        ("100.5,200.25", "nan,200.25", "line 2, column 'x'"),
        ("00000003_001.png,Inf", "3.png,Inf", "line 2, column 'Image Index'"),
    ],
)
def test_wrong_boxes_are_named(tmp_path, old, new, what):
    assert f"BBox_List_2017.csv, {what}" in damaged(tmp_path, "BBox_List_2017.csv", old, new)


def test_a_folder_without_tables_says_what_was_looked_for(tmp_path):
    with pytest.raises(TableError, match="holds no label table") as caught:
        read_labels(SPEC, tmp_path)
    assert "Data_Entry_2017_v2020.csv" in caught.value.hint
    with pytest.raises(UsageError, match="is not a folder"):
        read_labels(SPEC, tmp_path / "nowhere")


def test_tables_from_another_folder_and_from_subfolders(tmp_path):
    nih.write(tmp_path / "tables" / "csv", images=False)
    (tmp_path / "root").mkdir()
    assert read_labels(SPEC, tmp_path / "root", tables=tmp_path / "tables").table.num_rows == 7
    assert read_labels(SPEC, tmp_path).table.num_rows == 7
