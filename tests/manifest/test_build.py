from __future__ import annotations

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrprep.collection import FolderKind, Lineage
from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import StorageError, TableError, UsageError
from cxrprep.images.decode import measure
from cxrprep.labels.policy import Policy
from cxrprep.labels.splits import SplitRule
from cxrprep.manifest.derived import DerivedRows, build_derived_manifest
from cxrprep.model import Box
from cxrprep.schemas import DERIVED
from cxrprep.storage.parquet import read_footer
from tests.generators.small import chexpert, mimic_cxr_jpg, nih_chestxray14
from tests.manifest.made import made, remade
from tests.parts import shared_data
from tests.tables_made import build_manifest, extract_labels

NIH, CHEXPERT = find_dataset("nih-chestxray14"), find_dataset("chexpert")


def images(root, name="images"):
    return {row["image_id"]: row for row in pq.read_table(root / "manifests" / f"{name}.parquet").to_pylist()}


def test_real_images_and_real_tables(tmp_path):
    folder = shared_data("nih-chestxray14")
    extract_labels(NIH, folder, out=tmp_path)
    made_ = build_manifest(NIH, folder, manifests=tmp_path, measure=measure)
    assert (made_.images, made_.labelled, made_.without_row, made_.not_here) == (114, 114, 0, 112120 - 114)
    table = pq.read_table(tmp_path / "images.parquet")
    assert set(table.column("width").to_pylist()) == {1024}
    assert table.column("source_mode").to_pylist().count("RGBA") == 2


def test_spacing_is_that_of_the_files_own_pixels(tmp_path):
    row = images(made("nih-chestxray14", tmp_path))["00000002_000"]
    assert (row["width"], row["height"], row["orig_width"], row["orig_height"]) == (64, 64, 2500, 2048)
    assert row["spacing_x_mm"] == pytest.approx(0.171 * 2500 / 64)
    assert row["spacing_y_mm"] == pytest.approx(0.171 * 2048 / 64)


def test_boxes_follow_a_copy_that_is_smaller_than_the_release(tmp_path):
    box = images(made("nih-chestxray14", tmp_path))["00000003_001"]["boxes"][0]
    assert (box["x"], box["y"], box["w"], box["h"]) == pytest.approx((100.5 / 16, 200.25 / 16, 300 / 16, 80.5 / 16))
    shutil.rmtree(tmp_path)
    box = images(made("nih-chestxray14", tmp_path, size=1024))["00000003_001"]["boxes"][0]
    assert (box["x"], box["w"]) == (100.5, 300.0)


def test_a_label_row_without_its_image_and_an_image_without_its_row(tmp_path):
    nih_chestxray14.write(tmp_path)
    (tmp_path / "images" / "00000001_000.png").unlink()
    shutil.copy(tmp_path / "images" / "00000001_001.png", tmp_path / "images" / "00099999_000.png")
    shutil.copy(tmp_path / "images" / "00000001_001.png", tmp_path / "images" / "holiday.png")
    extract_labels(NIH, tmp_path)
    notes = []
    result = build_manifest(NIH, tmp_path, on_event=notes.append)
    counts = (result.images, result.labelled, result.without_row, result.not_here, result.foreign)
    assert counts == (7, 6, 1, 1, 1)
    found = images(tmp_path)
    assert "00000001_000" not in found
    stranger = found["00099999_000"]
    assert (stranger["patient_id"], stranger["label_source"], stranger["label_edema"]) == ("00099999", None, None)
    said = " ".join(getattr(note, "message", "") for note in notes)
    assert "1 image has no row" in said
    assert "1 image of the label tables not here" in said
    assert "holiday.png" in said
    labels = pq.read_table(tmp_path / "manifests" / "labels.parquet")
    assert "00000001_000" in labels.column("image_id").to_pylist()


def test_one_image_in_two_files_is_one_row_and_said(tmp_path):
    nih_chestxray14.write(tmp_path)
    (tmp_path / "images_001" / "images").mkdir(parents=True)
    shutil.copy(tmp_path / "images" / "00000001_000.png", tmp_path / "images_001" / "images")
    extract_labels(NIH, tmp_path)
    result = build_manifest(NIH, tmp_path)
    assert (result.images, result.second_copies) == (7, 1)


def test_the_folder_says_what_is_here_and_the_record_what_is_known_of_it(tmp_path):
    released = nih_chestxray14.write(tmp_path)
    extract_labels(NIH, tmp_path)
    sizes = [(tmp_path / path).stat().st_size for path in released.images]
    digests = [f"sha256:{index:064x}" for index in range(len(released.images))]
    states = ["discarded" if index == 0 else "here" for index in range(len(released.images))]
    record = pa.table({"path": list(released.images), "size": sizes, "digest": digests, "state": states})
    for path in released.images[:2]:
        # One was used up, the other removed by somebody.
        (tmp_path / path).unlink()
    changed = tmp_path / released.images[3]
    changed.write_bytes(changed.read_bytes() + b"!")
    result = build_manifest(NIH, tmp_path, files=record)
    assert (result.images, result.not_here) == (5, 2)
    rows = {row["path"]: row for row in images(tmp_path).values()}
    known, altered = rows[released.images[2]], rows[released.images[3]]
    assert (known["bytes"], known["digest"]) == (sizes[2], digests[2])
    assert (altered["bytes"], altered["digest"]) == (sizes[3] + 1, None)
    first = read_footer(result.images_path)["files"]
    build_manifest(NIH, tmp_path, files=record.take([3, 1, 0, 2, 6, 5, 4]))
    assert read_footer(result.images_path)["files"] == first


def test_unchanged_files_are_not_measured_again(tmp_path):
    released = nih_chestxray14.write(tmp_path)
    extract_labels(NIH, tmp_path)
    asked = []

    def watched(paths):
        asked.append(len(paths))
        return measure(paths)

    digests = [f"sha256:{index:064x}" for index in range(7)]
    sizes = [(tmp_path / path).stat().st_size for path in released.images]
    record = {"path": list(released.images), "size": sizes, "digest": digests, "state": ["here"] * 7}
    build_manifest(NIH, tmp_path, files=pa.table(record), measure=watched)
    before = (tmp_path / "manifests" / "images.parquet").read_bytes()
    build_manifest(NIH, tmp_path, files=pa.table(record), measure=watched)
    assert (tmp_path / "manifests" / "images.parquet").read_bytes() == before
    record["digest"] = [*digests[:6], f"sha256:{99:064x}"]
    build_manifest(NIH, tmp_path, files=pa.table(record), measure=watched)
    assert asked == [7, 1]


def test_a_file_that_nothing_proves_is_measured_again_once_it_was_touched(tmp_path):
    nih_chestxray14.write(tmp_path)
    asked = []

    def watched(paths):
        asked[:] = [path.name for path in paths]
        return measure(paths)

    first = build_manifest(NIH, tmp_path, measure=watched)
    assert asked
    sizes = pq.read_table(first.images_path, columns=["width"])
    asked.clear()
    # The clock of files ticks a few times in a hundredth of a second.
    one = tmp_path / pq.read_table(first.images_path)["path"][0].as_py()
    os.utime(first.images_path, ns=(one.stat().st_ctime_ns + 10**9,) * 2)
    build_manifest(NIH, tmp_path, measure=watched)
    assert asked == []
    assert pq.read_table(first.images_path, columns=["width"]) == sizes
    # The same size, and the same times put back: what was written in between shows all the same.
    before = one.stat()
    os.utime(first.images_path, ns=(before.st_ctime_ns - 1,) * 2)
    one.write_bytes(one.read_bytes())
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))
    build_manifest(NIH, tmp_path, measure=watched)
    assert one.name in asked


def test_an_image_that_cannot_be_measured_stays_and_is_said(tmp_path):
    nih_chestxray14.write(tmp_path)
    path = tmp_path / "images" / "00000002_000.png"
    path.write_bytes(path.read_bytes()[:20])
    extract_labels(NIH, tmp_path)
    notes = []
    result = build_manifest(NIH, tmp_path, measure=measure, on_event=notes.append)
    assert result.images == 7
    assert images(tmp_path)["00000002_000"]["width"] is None
    assert any("images that cannot be measured: 1;" in getattr(note, "message", "") for note in notes)


def test_labels_of_the_release_itself_by_default_and_others_by_name(tmp_path):
    chexpert.write(tmp_path)
    chexpert.write_chexbert(tmp_path)
    remade("chexpert", tmp_path)
    found = images(tmp_path)
    sources = {image[:12]: row["label_source"] for image, row in found.items()}
    assert (sources["patient00001"], sources["patient64541"]) == ("chexpert-labeler", "radiologist")
    assert found["patient64541/study1/view1_frontal"]["label_cardiomegaly"] == 1
    result = build_manifest(CHEXPERT, tmp_path, label_source="visualchexbert")
    assert (result.images, result.labelled, result.without_row) == (10, 8, 0)
    valid = images(tmp_path)["patient64541/study1/view1_frontal"]
    assert (valid["label_source"], valid["label_cardiomegaly"], valid["sex"]) == (None, None, "M")


def test_another_labelers_table_that_knows_less_takes_nothing_away(tmp_path):
    chexpert.write(tmp_path)
    lines = [f"Path,{','.join(chexpert.NAMES)}"]
    lines += [f"CheXpert-v1.0/train/{row[0]}.jpg,{','.join('0' for _ in chexpert.NAMES)}" for row in chexpert.TRAIN]
    (tmp_path / "train_visualCheXbert.csv").write_text("\n".join(lines) + "\n")
    usual = images(remade("chexpert", tmp_path))
    other = images(remade("chexpert", tmp_path, label_source="visualchexbert"))
    row, before = (found["patient07958/study5/view2_frontal"] for found in (other, usual))
    assert (row["label_source"], row["label_atelectasis"], before["label_atelectasis"]) == ("visualchexbert", 0, -1)
    for name in ("view", "projection", "sex", "age_years", "split", "view_raw"):
        assert row[name] == before[name]
        assert row[name] is not None
    assert row["path_raw"] == "CheXpert-v1.0/train/patient07958/study5/view2_frontal.jpg"


def test_labels_of_studies_reach_images_that_no_table_names(tmp_path):
    chexpert.write(tmp_path)
    chexpert.write_ground_truth(tmp_path)
    folder = tmp_path / "CheXpert-v1.0-small" / "test" / "patient64741" / "study1"
    folder.mkdir(parents=True)
    source = next((tmp_path / "CheXpert-v1.0-small" / "valid").rglob("*.jpg"))
    for name in ("view1_frontal.jpg", "view2_lateral.jpg"):
        shutil.copy(source, folder / name)
    remade("chexpert", tmp_path)
    found = images(tmp_path)
    for view in ("view1_frontal", "view2_lateral"):
        row = found[f"patient64741/study1/{view}"]
        assert (row["label_support_devices"], row["label_source"], row["split"]) == (1, "radiologist", "test")


def test_studies_rank_positive_over_uncertain_over_negative(tmp_path):
    chexpert.write(tmp_path)
    path = tmp_path / "CheXpert-v1.0-small" / "train.csv"
    lines = path.read_text().splitlines()
    # patient00002/study1: the lateral says other things than the frontal does
    frontal = next(i for i, line in enumerate(lines) if "patient00002/study1/view1" in line)
    cells = lines[frontal].split(",")
    cells[5 + chexpert.NAMES.index("Cardiomegaly")], cells[5 + chexpert.NAMES.index("Edema")] = "-1.0", ""
    lines[frontal] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    extract_labels(CHEXPERT, tmp_path)
    notes = []
    result = build_manifest(CHEXPERT, tmp_path, on_event=notes.append)
    assert result.disagreeing_studies == 1
    studies = {row["study_id"]: row for row in pq.read_table(tmp_path / "manifests" / "studies.parquet").to_pylist()}
    row = studies["patient00002/study1"]
    assert (row["label_cardiomegaly"], row["label_edema"], row["label_fracture"]) == (-1, -1, None)
    assert (row["n_images"], row["n_frontal"], row["n_lateral"], row["views"]) == (2, 1, 1, ["AP", "LATERAL"])


def test_mimic_studies(tmp_path):
    made("mimic-cxr", tmp_path)
    studies = pq.read_table(tmp_path / "manifests" / "studies.parquet").to_pylist()
    assert [row["n_images"] for row in studies] == [2, 1, 1, 2, 1]
    first = studies[0]
    assert (first["study_id"], first["ordering_provider_id"], first["study_order"]) == ("50414267", "P003AB", 1)
    assert first["report_path"] == "files/p10/p10000032/s50414267.txt"


def test_without_labels_the_files_alone_are_listed(tmp_path):
    mimic_cxr_jpg.write(tmp_path)
    result = build_manifest(find_dataset("mimic-cxr-jpg"), tmp_path)
    assert (result.images, result.labelled, result.patients) == (7, 0, 3)


def test_a_policy_and_a_split_are_in_the_footer_when_asked_for(tmp_path):
    chexpert.write(tmp_path)
    extract_labels(CHEXPERT, tmp_path)
    rule = SplitRule((0.5, 0.5), seed=3)
    result = build_manifest(CHEXPERT, tmp_path, policy=Policy.parse(uncertain="ones"), split=rule)
    footer = read_footer(result.images_path)
    assert footer["policy"]["uncertain"] == "ones"
    assert footer["split"]["seed"] == 3
    assert {table["name"] for table in footer["tables"]} == {"train.csv", "valid.csv"}
    assert all(table["digest"].startswith("sha256:") for table in footer["tables"])
    values = {row["label_edema"] for row in images(tmp_path).values()}
    assert -1 not in values
    labels = pq.read_table(tmp_path / "manifests" / "labels.parquet")
    assert -1 in labels.column("label_edema").to_pylist()


def test_a_damaged_labels_table_is_named(tmp_path):
    nih_chestxray14.write(tmp_path)
    extract_labels(NIH, tmp_path)
    path = tmp_path / "manifests" / "labels.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(TableError, match=r"labels\.parquet"):
        build_manifest(NIH, tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        build_manifest(NIH, tmp_path / "nowhere", manifests=tmp_path / "m2")


def test_a_file_where_the_manifests_should_go_is_named(tmp_path):
    nih_chestxray14.write(tmp_path)
    (tmp_path / "manifests").write_text("in the way")
    with pytest.raises(StorageError, match="manifests"):
        extract_labels(NIH, tmp_path)


# ---- derived ----


def converted(path, **changes):
    values = {
        "source_path": f"images/{path}.png", "source_digest": "sha256:" + "0" * 64, "path": f"images/{path}.png",
        "bytes": 5, "digest": "sha256:" + "1" * 64, "width": 32, "height": 32, "source_mode": "L", "spacing_x_mm": 1.5,
        "spacing_y_mm": 2.5, "about": "",
    }  # fmt: skip
    return {**values, **changes}


def gathered(*images):
    rows = DerivedRows()
    for image in images:
        rows.add(image)
    return rows


def lineage(recipe, fingerprint):
    return Lineage(FolderKind.CONVERTED, recipe=recipe, fingerprint=fingerprint)


def test_a_derived_manifest_keeps_what_is_known_and_says_what_changed(tmp_path):
    root = made("nih-chestxray14", tmp_path)
    out = root / "derived" / "small" / "manifests"
    rows = [converted("00000005_000", boxes=[Box("Effusion", 1, 2, 3, 4).as_dict()]), converted("00000001_000")]
    for _ in range(2):
        listed = build_derived_manifest(
            gathered(*rows), base=root / "manifests" / "images.parquet", out=out, lineage=lineage("small", "abc")
        )
    assert listed == 2
    table = pq.read_table(out / "images.parquet")
    assert table.schema.equals(DERIVED, check_metadata=False)
    found = {row["image_id"]: row for row in table.to_pylist()}
    row = found["00000005_000"]
    assert (row["label_pleural_effusion"], row["split"], row["width"], row["spacing_x_mm"]) == (1, "test", 32, 1.5)
    assert row["boxes"] == [{"label": "Effusion", "x": 1, "y": 2, "w": 3, "h": 4}]
    assert (row["recipe"], row["recipe_fingerprint"], row["orig_width"]) == ("small", "abc", 2048)
    assert found["00000001_000"]["boxes"] is None
    footer = read_footer(out / "images.parquet")
    assert (footer["dataset"], footer["recipe"], footer["fingerprint"]) == ("nih-chestxray14", "small", "abc")
    assert json.loads((out / "croissant.json").read_text())["name"] == "nih-chestxray14"


def test_a_plain_folder_has_no_patients_made_up(tmp_path):
    build_derived_manifest(
        gathered(converted("a/b"), converted("c")), base=None, out=tmp_path, lineage=lineage("r", "f")
    )
    rows = pq.read_table(tmp_path / "images.parquet").to_pylist()
    assert [row["image_id"] for row in rows] == ["images/a/b.png", "images/c.png"]
    assert {row["dataset"] for row in rows} == {"folder"}
    assert {row["label_edema"] for row in rows} == {None}
    with pytest.raises(TableError, match="two converted images"):
        build_derived_manifest(gathered(*[converted("c")] * 2), base=None, out=tmp_path, lineage=lineage("r", "f"))
