from __future__ import annotations

import gzip

import pytest

from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import TableError
from cxrprep.labels.extract import read_labels
from cxrprep.labels.label_rows import LabelOptions
from tests.generators.small import mimic_cxr, mimic_cxr_jpg
from tests.tables_made import extract_labels

JPG, DCM = find_dataset("mimic-cxr-jpg"), find_dataset("mimic-cxr")
IDS = [image[0] for image in mimic_cxr_jpg.IMAGES]


def rows(spec, root, **options):
    found = read_labels(spec, root, **options).table.to_pylist()
    return {(row["image_id"] or row["study_id"], row["label_source"]): row for row in found}


def test_labels_of_a_study_are_carried_to_its_images(tmp_path):
    mimic_cxr_jpg.write(tmp_path, images=False)
    found = rows(JPG, tmp_path)
    for image in IDS[:2]:
        row = found[image, "chexpert-labeler"]
        assert (row["study_id"], row["patient_id"], row["split"]) == ("50414267", "10000032", "train")
        assert (row["label_no_finding"], row["label_edema"], row["raw_No Finding"]) == (1, None, "1.0")
    assert found[IDS[2], "chexpert-labeler"]["label_pneumonia"] == -1
    assert found[IDS[2], "negbio"]["label_fracture"] == 0
    assert found[IDS[2], "chexpert-labeler"]["label_fracture"] is None


def test_a_study_without_label_row_has_null_labels_and_its_images_are_there(tmp_path):
    mimic_cxr_jpg.write(tmp_path, images=False)
    row = rows(JPG, tmp_path)[IDS[3], "chexpert-labeler"]
    assert row["study_id"] == str(mimic_cxr_jpg.UNLABELLED)
    assert {value for name, value in row.items() if name.startswith("label_") and name != "label_source"} == {None}
    assert row["view"] == "AP"


def test_views_times_and_sizes(tmp_path):
    mimic_cxr_jpg.write(tmp_path, images=False)
    found = rows(JPG, tmp_path)
    views = [(found[i, "negbio"]["view"], found[i, "negbio"]["projection"]) for i in IDS]
    assert views == [
        ("PA", "frontal"), ("LATERAL", "lateral"), ("PA", "frontal"), ("AP", "frontal"), (None, None),
        ("LL", "lateral"), ("AP_AXIAL", "other"),
    ]  # fmt: skip
    assert found[IDS[6], "negbio"]["view_raw"] == "AP AXIAL"
    times = [found[IDS[i], "negbio"]["study_datetime"].isoformat() for i in (0, 3, 4)]
    assert times == ["2180-05-06T21:30:14.531000", "2180-07-23T08:05:56.875000", "2132-10-15T00:09:30.500000"]
    assert (found[IDS[3], "negbio"]["orig_width"], found[IDS[3], "negbio"]["orig_height"]) == (2539, 2705)
    assert found[IDS[3], "negbio"]["raw_StudyTime"] == "80556.875"


def test_order_of_studies_and_the_prior_one(tmp_path):
    mimic_cxr_jpg.write(tmp_path, images=False)
    found = rows(JPG, tmp_path)
    told = [(found[i, "negbio"]["study_order"], found[i, "negbio"]["prior_study_id"]) for i in IDS]
    assert told == [
        (1, None), (1, None), (2, "50414267"), (3, "53189527"), (1, None), (1, None), (1, None),
    ]  # fmt: skip


def test_the_radiologists_table_is_about_some_studies_and_may_say_airspace_opacity(tmp_path):
    mimic_cxr_jpg.write(tmp_path, images=False)
    found = {key: row for key, row in rows(JPG, tmp_path).items() if key[1] == "radiologist"}
    assert list(found) == [(IDS[6], "radiologist")]
    row = found[IDS[6], "radiologist"]
    assert (row["label_cardiomegaly"], row["label_lung_opacity"], row["label_no_finding"]) == (1, -1, 0)
    assert row["label_atelectasis"] is None
    assert row["raw_Atelectasis"] == "_"


def test_both_projects_together(tmp_path):
    mimic_cxr.write(tmp_path, images=False)
    row = rows(DCM, tmp_path)[IDS[0], "chexpert-labeler"]
    assert row["path_raw"] == f"files/p10/p10000032/s50414267/{IDS[0]}.dcm"
    assert row["report_path"] == "files/p10/p10000032/s50414267.txt"
    assert (row["ordering_provider_id"], row["attending_provider_id"], row["resident_provider_id"]) == (
        "P003AB", "P004CD", None,
    )  # fmt: skip
    assert "report_text" not in row


def test_lists_alone_give_images_without_labels(tmp_path):
    mimic_cxr.write(tmp_path, images=False, labels=False)
    result = extract_labels(DCM, tmp_path)
    assert (result.rows, result.images, result.studies, result.patients) == (7, 7, 5, 3)
    row = rows(DCM, tmp_path)[IDS[0], None]
    assert (row["split"], row["view"], row["label_edema"], row["table_name"]) == (None, None, None, None)


def test_tables_of_the_jpg_project_from_a_folder_of_their_own(tmp_path):
    mimic_cxr.write(tmp_path / "dcm", images=False, labels=False)
    mimic_cxr_jpg.write_tables(tmp_path / "tables")
    row = rows(DCM, tmp_path / "dcm", tables=tmp_path / "tables")[IDS[2], "chexpert-labeler"]
    assert (row["view"], row["split"], row["label_pneumonia"]) == ("PA", "train", -1)
    assert row["report_path"] is not None


def test_label_tables_alone_give_rows_of_studies(tmp_path):
    mimic_cxr_jpg.write(tmp_path, images=False)
    for path in tmp_path.iterdir():
        if "chexpert" not in path.name:
            path.unlink()
    found = rows(JPG, tmp_path)
    assert len(found) == 4
    row = found["53189527", "chexpert-labeler"]
    assert (row["image_id"], row["patient_id"], row["label_pneumonia"]) == (None, "10000032", -1)


def test_a_radiologist_table_alone_does_not_say_whose_studies_these_are(tmp_path):
    mimic_cxr_jpg.write(tmp_path, images=False)
    for path in tmp_path.iterdir():
        if "labeled" not in path.name:
            path.unlink()
    with pytest.raises(TableError, match="no table here says whose study this is"):
        read_labels(JPG, tmp_path)


def test_plain_and_packed_tables_are_the_same(tmp_path):
    mimic_cxr_jpg.write(tmp_path / "a", images=False)
    mimic_cxr_jpg.write(tmp_path / "b", images=False)
    for path in list((tmp_path / "b").glob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    tables = [read_labels(JPG, tmp_path / name).table for name in "ab"]
    apart = ["table_name", "table_digest"]
    assert tables[0].drop_columns(apart).equals(tables[1].drop_columns(apart))


def test_age_and_sex_from_mimic_iv(tmp_path):
    mimic_cxr_jpg.write(tmp_path / "cxr", images=False)
    mimic_cxr.write_patients(tmp_path / "patients.csv.gz")
    found = rows(JPG, tmp_path / "cxr", options=LabelOptions(patients=tmp_path / "patients.csv.gz"))
    told = [tuple(found[IDS[i], "negbio"][n] for n in ("sex", "age_years", "age_flag")) for i in (0, 4, 6)]
    assert told == [("F", 52, None), ("M", 91, "capped"), (None, None, None)]
    assert rows(JPG, tmp_path / "cxr")[IDS[0], "negbio"]["sex"] is None


def test_report_texts_on_request(tmp_path):
    mimic_cxr.write(tmp_path, images=False)
    found = rows(DCM, tmp_path, options=LabelOptions(report_text=True))
    assert "Study 50414267: no acute process." in found[IDS[0], "negbio"]["report_text"]
    assert found[IDS[0], "negbio"]["report_text"] == found[IDS[1], "chexpert-labeler"]["report_text"]
    (tmp_path / "mimic-cxr-reports.zip").write_bytes(b"PK\3\4 cut")
    with pytest.raises(TableError, match=r"mimic-cxr-reports\.zip cannot be read"):
        read_labels(DCM, tmp_path, options=LabelOptions(report_text=True))
    (tmp_path / "mimic-cxr-reports.zip").unlink()
    with pytest.raises(TableError, match="is not here"):
        read_labels(DCM, tmp_path, options=LabelOptions(report_text=True))


def change(path, old, new):
    data = gzip.decompress(path.read_bytes()).decode()
    assert old in data
    path.write_bytes(gzip.compress(data.replace(old, new, 1).encode()))


def test_odd_cells_beside_the_labels_are_null_and_said(tmp_path):
    mimic_cxr_jpg.write(tmp_path, images=False)
    path = tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz"
    change(path, "AP AXIAL", "UPSIDE DOWN")
    change(path, "80556.875", "995556.0")
    change(path, "21800626", "21801326")
    notes = []
    found = rows(JPG, tmp_path, on_event=notes.append)
    assert (found[IDS[6], "negbio"]["view"], found[IDS[6], "negbio"]["view_raw"]) == (None, "UPSIDE DOWN")
    assert [found[IDS[i], "negbio"]["study_datetime"] for i in (2, 3)] == [None, None]
    assert found[IDS[2], "negbio"]["study_order"] is None
    said = [note.message for note in notes if getattr(note, "level", "") == "warning"]
    assert any("line 8, column 'ViewPosition'" in m and "null in 1 rows" in m for m in said)
    assert any("line 5, column 'StudyTime'" in m for m in said)
    assert any("line 4, column 'StudyDate'" in m for m in said)


@pytest.mark.parametrize(
    ("name", "old", "new", "what"),
    [
        ("metadata", "02aa804e-bde0afdd", "02AA804E-bde0afdd", "line 2, column 'dicom_id'"),
        ("metadata", ",53189527,", ",50414267,", "column 'study_id'"),
        ("split", "10000898,test", "10000898,testing", "line 2, column 'split'"),
        ("split", "10000898,test", "10000032,test", "column 'subject_id'"),
        ("chexpert", "10000032,50414267", "10000764,50414267", "column 'subject_id': other tables say"),
        (
            "chexpert",
            "10000032,53189527",
            "10000032,50414267",
            "line 3, column 'study_id': '50414267' stands in line 2",
        ),
        ("negbio", ",-1.0,", ",maybe,", "line 3, column 'Pneumonia'"),
        ("negbio", "subject_id,", "subject,", "column 'subject_id' is missing"),
    ],
)
def test_a_wrong_cell_is_named_by_file_line_and_column(tmp_path, name, old, new, what):
    mimic_cxr_jpg.write(tmp_path, images=False)
    path = tmp_path / f"mimic-cxr-2.0.0-{name}.csv.gz"
    change(path, old, new)
    with pytest.raises(TableError) as caught:
        read_labels(JPG, tmp_path)
    assert what in str(caught.value)
    assert path.name.split(".csv")[0] in str(caught.value) or "split" in str(caught.value)


def test_a_wrong_line_of_the_file_list_is_named(tmp_path):
    mimic_cxr_jpg.write(tmp_path, images=False)
    with (tmp_path / "IMAGE_FILENAMES").open("a") as file:
        file.write("files/p10/p10000032/index.html\n")
    with pytest.raises(TableError, match="IMAGE_FILENAMES, line 8, column 1"):
        read_labels(JPG, tmp_path)


def test_images_that_one_table_lacks_are_kept_and_counted(tmp_path):
    mimic_cxr_jpg.write(tmp_path, images=False)
    path = tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    path.write_bytes(gzip.compress("".join(lines[:-1]).encode()))
    notes = []
    found = rows(JPG, tmp_path, on_event=notes.append)
    assert (found[IDS[6], "negbio"]["split"], found[IDS[6], "negbio"]["view"]) == ("test", None)
    assert any("1 image stands here and not in" in note.message for note in notes)


def annotated(root):
    """A MIMIC-CXR-JPG with CXR-LT's table and MS-CXR's beside its own."""
    mimic_cxr_jpg.write(root, images=False)
    one, two = IDS[:2]
    lines = ["dicom_id,subject_id,study_id,split,Edema,Tortuous Aorta", f"{one},1,s2,train,1,0", f"{two},1,s2,test,0,1"]
    folder = root / "cxr-lt-2024"
    folder.mkdir()
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    for part, image in (("development", one), ("test", two)):
        text = f"dicom_id,fpath,Edema,Normal\n{image},files/x.jpg,1,0\n"
        (folder / f"{part}_labeled_task2.csv").write_text(text)
    rows = ["category_name,label_text,path,x,y,w,h,image_width,image_height,dicom_id,split"]
    rows += [f"Edema,interstitial edema,files/x.jpg,{n},2,3,4,9,9,{two},val" for n in (1, 5, 1)]
    rows += ["Edema,of another release,files/x.jpg,1,2,3,4,9,9,00000000-00000000-00000000-00000000-00000000,val"]
    (root / "MS_CXR_Local_Alignment_v1.1.0.csv").write_text("\n".join(rows) + "\n")
    return one, two


def test_findings_of_the_long_tail_and_boxes_of_phrases_are_label_sources(tmp_path):
    one, two = annotated(tmp_path)
    labels = read_labels(JPG, tmp_path)
    rows = {(row["label_source"], row["image_id"]): row for row in labels.table.to_pylist()}
    tail = rows["cxr-lt", two]
    assert (tail["label_edema"], tail["label_cxr_lt__tortuous_aorta"], rows["cxr-lt", one]["label_edema"]) == (0, 1, 1)
    # The split is MIMIC's own: CXR-LT's parts mix it.
    assert tail["split"] == rows["chexpert-labeler", two]["split"]
    assert rows["cxr-lt-task2", one]["label_cxr_lt__normal"] == rows["cxr-lt-task2", two]["label_cxr_lt__normal"] == 0
    drawn = rows["ms-cxr", two]
    assert [box["x"] for box in drawn["boxes"]] == [1, 5]
    assert (drawn["label_edema"], drawn["labels_raw"]) == (1, ["Edema"])
    apart = {use.label_source: use.apart for use in labels.tables}
    assert apart["ms-cxr"] == (("name images that no table lists", 1),)
