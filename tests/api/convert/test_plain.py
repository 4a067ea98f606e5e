"""A plain folder: paths kept, clashes resolved and said, and a manifest that says nothing of whom it shows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cxrprep
from cxrprep.collection import dataset_folder
from cxrprep.errors import NothingSelectedError, UsageError
from cxrprep.events import Event, Note
from cxrprep.executors import Engine
from cxrprep.images.image_folder import plain_images, stems_of
from cxrprep.model import Selection
from cxrprep.record.record import Record
from cxrprep.storage.filesystem import StoredFile
from tests.api.convert import hospital
from tests.generators.small import mimic_cxr
from tests.manifest.made import made

INLINE = Engine("inline")


def run(root: Path, out: Path, **more: object) -> object:
    return cxrprep.convert(root, recipe="square-224", out=out, engine=INLINE, **more).value


def names(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))


def test_relative_paths_are_kept_and_files_without_a_suffix_are_looked_into(tmp_path: Path) -> None:
    value = run(hospital.write(tmp_path / "in"), tmp_path / "out")
    assert names(tmp_path / "out") == [
        "ward 1/1.2.840.113619.2.png",
        "ward 1/b/IM0001.png",
        "ward 1/x.dcm.png",
        "ward 1/x.png.png",
        "ward 1/y.png",
        "z.png",
    ]
    assert (value.images, value.converted, value.failed) == (6, 6, 0)
    assert dict(value.left_out) == {"Basic Text SR Storage": 1, ".txt file": 1, "other file": 1}
    for path in (tmp_path / "out").rglob("*.png"):
        assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape == (224, 224)


def test_what_is_no_image_is_named_by_manifest_and_verify_as_by_convert(tmp_path: Path) -> None:
    root = hospital.write(tmp_path / "in")
    for name in ("a.gif", "b.GIF", "c.nii", ".hidden.gif", "no suffix"):
        (root / "ward 1" / name).write_bytes(
            b"GIF89a and no image that is read here, long enough to be looked into" * 3
        )
    (root / "damaged.png").write_bytes(b"no image")
    wanted = dict(run(root, tmp_path / "out").left_out)
    assert (wanted[".gif file"], wanted[".nii file"], wanted["other file"]) == (2, 1, 2)
    before = cxrprep.verify(root, images=True, jobs=1).value
    assert dict(cxrprep.build_manifest(root).value.left_out) == wanted
    after = cxrprep.verify(root, images=True, jobs=1).value
    for report in (before, after):
        assert dict(map(tuple, report.as_dict()["left_out"])) == wanted
        assert report.as_dict()["images"]["decoded"] == 6
        assert ("2 left out", "no image: .gif file") in report.rows()


def test_a_clash_of_stems_is_said(tmp_path: Path) -> None:
    told: list[Event] = []
    run(hospital.write(tmp_path / "in"), tmp_path / "out", on_event=told.append)
    said = [event.message for event in told if isinstance(event, Note)]
    assert any("2 images share their name" in text and "ward 1/x.dcm becomes ward 1/x.dcm.*" in text for text in said)


@given(st.lists(st.text("ab.", min_size=1, max_size=4).map(lambda t: t + ".png"), unique=True, max_size=12))
def test_no_two_outputs_ever_have_one_name(found: list[str]) -> None:
    mixed = sorted({*found, *(name.removesuffix(".png") + ".dcm" for name in found), *(f"{n}.jpg" for n in found)})
    stems, renamed = stems_of(mixed)
    assert len(set(stems)) == len(mixed)
    assert all(stem == name for name, stem in renamed)
    alone = stems_of(found[:1])[0] if found else ()
    assert all(stem == name.removesuffix(".png") for stem, name in zip(alone, found, strict=False))


def test_the_manifest_says_what_headers_say_and_keeps_patients_together_without_naming_them(tmp_path: Path) -> None:
    run(hospital.write(tmp_path / "in"), tmp_path / "out")
    rows = {row["source_path"]: row for row in pq.read_table(tmp_path / "out/manifests/images.parquet").to_pylist()}
    first, second = rows["ward 1/b/IM0001"], rows["ward 1/1.2.840.113619.2"]
    assert first["patient_id"] == second["patient_id"]
    assert first["study_id"] == second["study_id"]
    assert rows["ward 1/x.dcm"]["patient_id"] not in (first["patient_id"], "OTHER")
    assert rows["z.png"]["patient_id"] == "z.png"
    assert (first["view"], first["projection"], first["sex"]) == ("PA", "frontal", "F")
    assert (first["age_years"], first["age_flag"]) == (90.0, "capped")
    assert (first["orig_width"], first["orig_height"]) == (80, 96)
    # 96 rows become 224: 0.2 mm a row become 0.2 * 96 / 224.
    assert second["spacing_y_mm"] == pytest.approx(0.2 * 96 / 224)
    headers = {row["source_path"]: row for row in pq.read_table(tmp_path / "out/manifests/headers.parquet").to_pylist()}
    told = headers["ward 1/b/IM0001"]
    assert (told["modality"], told["bits_stored"], told["window_width"], told["rows"]) == ("DX", 12, 3000.0, 96)


@pytest.mark.parametrize("to", ["files", "webdataset", "parquet"])
@pytest.mark.parametrize("recipe", ["square-224", "mimic-cxr-jpg"])
def test_no_identity_is_in_any_byte_of_what_is_written(tmp_path: Path, to: str, recipe: str) -> None:
    root = hospital.write(tmp_path / "in")
    (root / "broken.dcm").write_bytes(hospital.dicom(hospital.body(9), **hospital.IDENTITY)[:3000])
    cxrprep.convert(root, recipe=recipe, out=tmp_path / "out", to=to, engine=INLINE)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) >= 5
    for path in written:
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += repr(pq.read_table(path).to_pylist()).encode()
        assert not [secret for secret in hospital.SECRETS if secret in data], path


def test_pseudonyms_are_the_same_in_every_output_of_one_user_and_others_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = hospital.write(tmp_path / "in")

    def patients(out: Path) -> set[str]:
        run(root, out)
        return set(pq.read_table(out / "manifests/images.parquet").column("patient_id").to_pylist())

    mine, again = patients(tmp_path / "a"), patients(tmp_path / "b")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "someone else"))
    assert mine == again
    assert patients(tmp_path / "c") & mine == {"z.png", "ward 1/x.png", "ward 1/y.JPG"}
    # A folder that was made with one key does not take images with the pseudonyms of another.
    with pytest.raises(UsageError, match="key"):
        patients(tmp_path / "a")


def test_a_selection_by_globs_and_number_and_none_by_tables(tmp_path: Path) -> None:
    root = hospital.write(tmp_path / "in")
    run(root, tmp_path / "a", selection=Selection(include=("*.png",)))
    assert names(tmp_path / "a") == ["ward 1/x.png.png", "z.png"]
    run(root, tmp_path / "b", selection=Selection(sample=2, seed=1))
    assert len(names(tmp_path / "b")) == 2
    with pytest.raises(UsageError, match="has no tables"):
        run(root, tmp_path / "c", selection=Selection(views=frozenset({"PA"})))


def test_outputs_inside_the_folder_are_no_sources(tmp_path: Path) -> None:
    root = hospital.write(tmp_path / "in")
    run(root, root / "small")
    assert run(root, root / "small").images == 6
    with pytest.raises(UsageError, match="holds the originals"):
        run(root, root)


def test_a_folder_without_images_and_a_plain_folder_without_a_place(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingSelectedError):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UsageError, match="plain folder"):
        cxrprep.convert(hospital.write(tmp_path / "in"), recipe="square-224")
    with pytest.raises(UsageError, match="no folder"):
        run(tmp_path / "nowhere", tmp_path / "out")


def test_pixels_of_a_plain_folder_are_those_of_the_recipe(tmp_path: Path) -> None:
    root = hospital.write(tmp_path / "in")
    run(root, tmp_path / "out")
    made = cv2.imread(str(tmp_path / "out/z.png"), cv2.IMREAD_UNCHANGED)
    width = round(80 * 224 / 96)
    wanted = cv2.resize(hospital.small(6), (width, 224), interpolation=cv2.INTER_LINEAR)
    left = (224 - width) // 2
    difference = np.abs(made[:, left : left + width].astype(int) - wanted.astype(int))
    assert difference.mean() < 2
    assert not made[:, : left - 1].any()


def test_names_that_are_no_unicode_and_names_that_are_too_long_are_failures_of_one_image(tmp_path: Path) -> None:
    root = hospital.many(tmp_path / "in", 3)
    data = hospital.png(hospital.small(1))
    (root / ("n" * 251 + ".png")).write_bytes(data)
    Path(os.fsdecode(os.fsencode(root) + b"/r\xf6ntgen.png")).write_bytes(data)
    # A clash makes the output's name four characters longer than any name may be.
    (root / ("n" * 251 + ".dcm")).write_bytes(hospital.dicom(hospital.body(1)))
    result = cxrprep.convert(root, recipe="square-224", out=tmp_path / "out", engine=INLINE)
    assert result.exit_code == 3
    assert (result.value.images, result.value.failed) == (3, 3)
    rows = pq.read_table(tmp_path / "out/manifests/failures.parquet").to_pylist()
    said = {row["path"][:3]: row["message"] for row in rows}
    assert "no output can have this name" in said["r\\u"]
    assert "too long" in said["nnn"]


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "a//x.png", "a\\x.png"])
def test_a_name_that_would_leave_the_folder_is_never_used(tmp_path: Path, name: str) -> None:
    class Store:
        def list(self) -> list[StoredFile]:
            return [StoredFile(name, 10, "1"), StoredFile("good.png", 10, "1")]

    found = plain_images(Store())
    assert [entry.name for entry in found.images] == ["good.png"]
    assert found.unusable == (ascii(name)[1:-1],)


@pytest.mark.parametrize("kind", ["release", "own", "export"])
def test_images_never_go_into_a_folder_that_is_something_else(tmp_path: Path, kind: str) -> None:
    own, target = hospital.write(tmp_path / "own"), tmp_path / "target"
    if kind == "own":
        cxrprep.build_manifest(hospital.write(target))
    else:
        release = made("nih-chestxray14", tmp_path / "nih")
        _ = release.rename(target) if kind == "release" else cxrprep.export(release, form="csv", out=target)
    before = {path: path.read_bytes() for path in target.rglob("*.*")}
    with pytest.raises(UsageError, match="no images of a conversion"):
        run(own, target)
    assert {path: path.read_bytes() for path in target.rglob("*.*")} == before


@pytest.mark.parametrize("kind", ["release", "own"])
def test_record_folder_and_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind == "own":
        hospital.write(tmp_path / "in")
    else:
        mimic_cxr.write(tmp_path / "mirror")
        # Its manifest has the sizes of the images, which are in the headers too: they are read when it is first built.
        cxrprep.download("mimic-cxr", tmp_path / "in", source=str(tmp_path / "mirror"))
    counts: Counter[str] = Counter()

    def counted(of: Any, name: str, key: Callable[..., str]) -> None:
        plain = getattr(of, name)

        def call(*args: Any, **options: Any) -> Any:
            counts[key(*args)] += 1
            return plain(*args, **options)

        monkeypatch.setattr(of, name, call)

    counted(Record, "open", lambda *_: "record opened")
    counted(dataset_folder, "sample_names", lambda *_: "folder sampled")
    counted(pydicom, "dcmread", lambda file, *_: f"header of {hash(file.getvalue())}")
    value = cxrprep.convert(tmp_path / "in", recipe="square-224", out=tmp_path / "out", engine=INLINE).value
    assert value.converted > 3
    assert counts.pop("record opened") == 1
    # A record says what the folder holds.
    assert counts.pop("folder sampled", 0) == (kind == "own")
    assert len(counts) > 2
    # Those of a release once more where its own manifest does not know the sizes of its images yet.
    assert max(counts.values()) <= (1 if kind == "own" else 2)


def test_images_that_were_converted_into_the_folder_are_none_of_one_s_own(tmp_path: Path) -> None:
    """The next manifest listed them beside their originals, and the next conversion converted them once more."""
    root = hospital.write(tmp_path / "in")
    cxrprep.build_manifest(root)
    run(root, root / "out")
    assert cxrprep.build_manifest(root).value.images == 6
    assert cxrprep.verify(root).value.files.here == 7  # a leftover of a Mac's among them
    said: list[Event] = []
    again = run(root, tmp_path / "second", on_event=said.append)
    assert (again.images, names(tmp_path / "second") == names(root / "out")) == (6, True)
    assert any(isinstance(one, Note) and "out/" in one.message for one in said)
