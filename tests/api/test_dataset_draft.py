"""A dataset's file that is drafted from a folder: it passes its check there, and says what the folder's tables say."""

from __future__ import annotations

import hashlib
import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from cxrprep.api.dataset_check import check_dataset
from cxrprep.api.dataset_draft import draft_dataset
from cxrprep.datasets.catalog import catalog, find_dataset
from cxrprep.errors import ConfigError, ExitCode, UsageError
from cxrprep.labels.extract import read_labels
from tests.datasets.test_catalog import generate
from tests.datasets.test_declaration import cxrprep, ward, yolo
from tests.generators.small import pictures

if TYPE_CHECKING:
    from pathlib import Path


def drafted(tmp_path: Path, root: Path, **more: object):
    """The rows that the draft of a folder makes of it, by image; the contract holds."""
    file = tmp_path / "drafted.toml"
    draft_dataset(file, root, **more)
    checked = check_dataset(file, root, contract=True)
    assert [clause for clause in checked.value.contract if not clause.holds] == []
    return {row["image_id"]: row for row in read_labels(find_dataset(str(file)), root).table.to_pylist()}


def test_a_table_and_a_list(tmp_path):
    rows = drafted(tmp_path, ward(tmp_path / "ward"), title="Ward 7")
    assert len(rows) == 12
    first = rows["w0_0"]
    assert (first["projection"], first["sex"], first["split"]) == ("lateral", "F", "test")
    assert (first["label_drafted__effusion"], first["label_drafted__scoliosis"]) == (1, 0)
    assert 'title = "Ward 7"' in (tmp_path / "drafted.toml").read_text()


def test_a_croissant_file_gives_title_licence_citation_and_sums(tmp_path):
    root = ward(tmp_path / "ward")
    table = (root / "findings.csv").read_bytes()
    told = {
        "@type": "sc:Dataset", "sc:name": "Ward Seven", "description": "Twelve radiographs\nof a ward.",
        "license": ["https://creativecommons.org/licenses/by/4.0/"], "citeAs": 'Doe: "The ward", 2026',
        "url": "https://example.org/ward",
        "distribution": [
            {"@type": "cr:FileObject", "@id": "findings.csv", "contentUrl": "https://example.org/f/findings.csv",
             "contentSize": f"{len(table)} B", "sha256": hashlib.sha256(table).hexdigest()},
            {"@id": "gone.csv", "contentUrl": "gone.csv", "sha256": "0" * 64},
            {"@id": "test.txt", "contentUrl": "test.txt", "sha256": "soon"},
        ],
    }  # fmt: skip
    (root / "croissant.json").write_text(json.dumps(told))
    assert len(drafted(tmp_path, root)) == 12
    spec = find_dataset(str(tmp_path / "drafted.toml"))
    assert (spec.title, spec.summary) == ("Ward Seven", "Twelve radiographs of a ward.")
    assert (spec.homepage, spec.citation) == (told["url"], told["citeAs"])
    assert spec.licence.name == told["license"][0]
    digest = f"sha256:{hashlib.sha256(table).hexdigest()}"
    assert [(file.path, file.size, file.digest) for file in spec.file] == [("findings.csv", len(table), digest)]
    # Some hundred objects in each other are read, and were one too many to walk through.
    for text in ("{", "[" * 100_000, '{"distribution": ' * 400 + "1" + "}" * 400):
        (root / "croissant.json").write_text(text)
        draft_dataset(tmp_path / "drafted.toml", root, force=True)
        assert find_dataset(str(tmp_path / "drafted.toml")).title == "drafted"


def test_signs_that_mean_something_to_toml_stand_in_titles_and_in_names_of_folders(tmp_path):
    title = "C:\\ward\n'7'\x7f\t\\"
    for text in (title, title.replace("'", "")):
        root = folder(tmp_path / "x", ["Bob's/a.png", "Bob's/b.png", "Bob's masks/a.png", "Bob's masks/b.png"])
        assert set(drafted(tmp_path, root, title=text, force=True)) == {"a", "b"}
        assert find_dataset(str(tmp_path / "drafted.toml")).title == text


def folder(root: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        pictures.png(root / name, number, width=32, height=32)
    return root


def test_folders_alone_say_split_and_class(tmp_path):
    words = [(split, word) for split in ("train", "val") for word in ("NORMAL", "PNEUMONIA")]
    names = [f"set/{split}/{word}/{split}{word}{n}.png" for split, word in words for n in range(2)]
    rows = drafted(tmp_path, folder(tmp_path / "data", names))
    assert rows["valPNEUMONIA1"]["split"] == "validate"
    assert rows["valPNEUMONIA1"]["label_pneumonia"] == 1
    assert rows["trainNORMAL0"]["label_pneumonia"] == 0


def test_a_draft_of_folders_says_how_names_of_images_say_their_patients(tmp_path):
    names = [f"train/{word}/person{n // 2}_{word}_{n}.png" for word in ("virus", "bacteria") for n in range(4)]
    root, file = folder(tmp_path / "data", names), tmp_path / "drafted.toml"
    drafted(tmp_path, root)
    text = file.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("# patient = ")]
    file.write_text(text.replace('patient = "unknown"', line.removeprefix("# ")))
    rows = read_labels(find_dataset(str(file)), root).table.to_pylist()
    assert {row["patient_id"] for row in rows} == {"person0", "person1"}


def test_a_draft_of_dicom_alone_says_that_its_headers_are_read_without_it(tmp_path):
    for number in range(3):
        pictures.dicom(tmp_path / f"data/{number}.dcm", number)
    drafted(tmp_path, tmp_path / "data")
    assert "docs/howto/own-folder.md" in (tmp_path / "drafted.toml").read_text()


def test_folders_say_split_and_class_where_images_in_several_have_one_name(tmp_path):
    names = [f"{split}/{word}/{n}.png" for split in ("train", "test") for word in ("Normal", "TB") for n in range(2)]
    rows = drafted(tmp_path, folder(tmp_path / "data", names))
    assert set(rows) == {name.removesuffix(".png") for name in names}
    assert (rows["test/TB/1"]["split"], rows["test/TB/1"]["label_drafted__tb"]) == ("test", 1)
    assert (rows["train/Normal/0"]["split"], rows["train/Normal/0"]["label_drafted__tb"]) == ("train", 0)


def test_endings_in_capitals_lines_of_json_and_what_no_draft_reads(tmp_path):
    root = folder(tmp_path / "data", ["a.png", "b.png"])
    for path in root.glob("*.png"):
        path.rename(path.with_suffix(".PNG"))
    (root / "t.csv").write_text("file,patient\na.PNG,p1\nb.PNG,p2\n")
    (root / "found.jsonl").write_text('{"image": "a.PNG", "label": ["cyst"]}\n{"image": "b.PNG", "label": []}\n')
    (root / "by_name.json").write_text('["a", "b"]')
    (root / "es.csv").write_bytes("imagen;hallazgo\na;señal\n".encode("latin-1"))
    notes = []
    rows = drafted(tmp_path, root, on_event=notes.append)
    said = " ".join(getattr(note, "message", "") for note in notes)
    assert {name: (row["patient_id"], row["label_drafted__cyst"]) for name, row in rows.items()} == {
        "a": ("p1", 1), "b": ("p2", 0),
    }  # fmt: skip
    assert "not read: by_name.json: docs/howto/own-dataset.md" in said
    assert "iconv -f WINDOWS-1252" in said


def test_a_folder_for_each_patient_says_whose_the_images_are_with_a_table_and_without(tmp_path):
    names = [f"images/pat{number // 2:03d}/cxr_{number}.png" for number in range(6)]
    alone = folder(tmp_path / "alone", names)
    assert len({row["patient_id"] for row in drafted(tmp_path, alone).values()}) == 3
    (tmp_path / "drafted.toml").unlink()
    listed = folder(tmp_path / "listed", names)
    rows = [f"{name.removeprefix('images/')},Effusion,1 5 9 2" for name in names]
    (listed / "t.csv").write_text("\n".join(["image,label,rle", *rows]))
    assert len({row["patient_id"] for row in drafted(tmp_path, listed).values()}) == 3
    text = (tmp_path / "drafted.toml").read_text()
    assert '# "Effusion" = { is = "pleural_effusion"' in text
    # What stands there as a comment is a block that reads.
    block = text[text.index("# [[masks]]") :].replace("\n# ", "\n").removeprefix("# ").replace("[1024, 1024]", "[4, 4]")
    # A file that was corrected is read anew, in the same process too.
    (tmp_path / "drafted.toml").write_text(text + block)
    labels = read_labels(find_dataset(str(tmp_path / "drafted.toml")), listed)
    assert labels.masks.num_rows == 6


def test_two_tables_of_one_form_are_splits_and_columns_are_findings(tmp_path):
    root = folder(tmp_path / "data", [f"images/{n}.png" for n in range(4)])
    header = "Image,PatientID,Age,View,Pleural Effusion,Rib lesion,x,y,width,height\n"
    (root / "train.csv").write_text(header + "images/0.png,p1,058Y,PA,1,0,,,,\nimages/1.png,p1,058Y,AP,-1,,1,2,3,4\n")
    (root / "valid.csv").write_text(header + "images/2.png,p2,012M,PA,0,1,,,,\nimages/3.png,p3,,PA,1,0,,,,\n")
    rows = drafted(tmp_path, root)
    assert [rows[n]["label_pleural_effusion"] for n in "0123"] == [1, -1, 0, 1]
    assert [rows[n]["label_drafted__rib_lesion"] for n in "0123"] == [0, None, 1, 0]
    assert [rows[n]["split"] for n in "0123"] == ["train", "train", "validate", "validate"]
    assert [rows[n]["patient_id"] for n in "0123"] == ["p1", "p1", "p2", "p3"]
    assert [rows[n]["age_years"] for n in "0123"] == [58, 58, 1, None]
    assert rows["1"]["boxes"][0]["w"] == 3


def test_coco_and_images_of_one_name_in_two_folders(tmp_path):
    root = folder(tmp_path / "data", ["a/1.png", "b/1.png", "b/2.png"])
    (root / "boxes.json").write_text(json.dumps({
        "images": [{"id": n, "file_name": name} for n, name in enumerate(["a/1.png", "b/1.png", "b/2.png"])],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]},
                        {"id": 2, "image_id": 2, "category_id": 1, "bbox": [5, 6, 7, 8]}],
        "categories": [{"id": 1, "name": "Nodule"}],
    }))  # fmt: skip
    rows = drafted(tmp_path, root)
    assert rows["b/2"]["boxes"][0]["x"] == 5
    assert rows["b/1"]["boxes"] is None
    assert rows["a/1"]["label_drafted__nodule"] == 1


def test_objects_in_json_with_lists_of_findings(tmp_path):
    root = folder(tmp_path / "set", ["images/1.png", "images/2.png", "images/3.png"])
    objects = [
        {"file_name": "1.png", "patient": "p1", "syms": ["Cyst", "Effusion"], "boxes": [[1, 2, 3, 4], [1, 2, 3, 4]]},
        {"file_name": "2.png", "patient": "p1", "syms": [], "boxes": []},
        {"file_name": "3.png", "patient": "p2", "syms": ["Cyst"], "boxes": [[1, 2, 3, 4]]},
    ]
    (root / "labels.json").write_text(json.dumps([{**one, "labels": one.pop("syms")} for one in objects]))
    rows = drafted(tmp_path, root)
    assert [row["label_drafted__cyst"] for row in rows.values()] == [1, 0, 1]
    assert [row["label_drafted__effusion"] for row in rows.values()] == [1, 0, 0]
    assert [row["patient_id"] for row in rows.values()] == ["p1", "p1", "p2"]


BY_NAME = {
    "objects": ({"1.png": {"tb": 1, "patient": "p1"}, "2.png": {"tb": 0, "patient": "p2"}}, "keys"),
    "lists of words": ({"1": ["tb"], "2": []}, "keys"),
    "words": ({"1": "tb", "2": "normal"}, "keys"),
    "lists of objects": ({"1": [{"label": "tb", "x": 1, "y": 2, "w": 3, "h": 4}], "2": [{"label": "normal"}]}, "keys"),
    "a list in an object": ({"version": 1, "images": [{"file": "1.png", "label": "tb"}, {"file": "2.png"}]}, "rows"),
}  # fmt: skip


@pytest.mark.parametrize("form", BY_NAME)
def test_json_that_names_each_image_or_holds_one_list_is_read(tmp_path, form):
    told, key = BY_NAME[form]
    root = folder(tmp_path / "set", ["images/1.png", "images/2.png"])
    (root / "labels.json").write_text(json.dumps(told))
    rows = drafted(tmp_path, root)
    assert [row["label_drafted__tb"] for row in rows.values()] == [1, 0]
    assert f"{key} = " in (tmp_path / "drafted.toml").read_text()
    assert form != "lists of objects" or rows["1"]["boxes"][0]["w"] == 3


def test_part_files_in_folders_are_one_table_and_their_folders_a_column(tmp_path):
    root = folder(tmp_path / "set", [f"images/{n}.png" for n in range(4)])
    for split, numbers in (("train", "01"), ("test", "23")):
        part = root / f"labels.csv/split={split}/part-0000.csv"
        part.parent.mkdir(parents=True)
        part.write_text("image,label\n" + "".join(f"{n}.png,Effusion\n" for n in numbers))
    rows = drafted(tmp_path, root)
    assert [rows[n]["split"] for n in "0123"] == ["train", "train", "test", "test"]
    assert 'patterns = ["labels.csv"]' in (tmp_path / "drafted.toml").read_text()


def test_folders_of_masks_are_regions_of_the_images_that_they_are_named_for(tmp_path):
    names = ["png/a.png", "png/b.jpg", "leftMask/a.png", "leftMask/b.png", "masks/mask_a.png", "seg mask/b_mask.png"]
    root = folder(tmp_path / "set", names)
    rows = drafted(tmp_path, root)
    assert set(rows) == {"a", "b"}
    masks = read_labels(find_dataset(str(tmp_path / "drafted.toml")), root).masks.to_pylist()
    found = sorted((mask["image_id"], mask["label"], mask["path"]) for mask in masks)
    assert found == [
        ("a", "left", "leftMask/a.png"),
        ("a", "region", "masks/mask_a.png"),
        ("b", "left", "leftMask/b.png"),
        ("b", "seg", "seg mask/b_mask.png"),
    ]


def test_labels_of_studies_are_those_of_their_images(tmp_path):
    root = folder(tmp_path / "data", ["files/1.png", "files/2.png"])
    (root / "images.csv").write_text("dicom,subject_id,study_id\n1,7,70\n2,7,70\n")
    (root / "labels.csv").write_text("subject_id,study_id,Edema\n7,70,1\n")
    rows = drafted(tmp_path, root)
    assert [rows[n]["label_edema"] for n in "12"] == [1, 1]
    assert rows["1"]["study_id"] == "70"


def test_heads_in_other_languages_days_of_birth_and_a_table_of_patients(tmp_path):
    root = folder(tmp_path / "data", [f"imagens/{n}.png" for n in range(4)])
    (root / "dados.csv").write_text(
        "Imagem;Prontuário;Incidência;Data de nascimento;Data do exame;Conjunto;Derrame;Altura\n"
        "0.png;p1;PA;31/12/1960;15/06/2020;treino;Sim;170\n1.png;p1;Perfil;31/12/1960;15/06/2020;treino;Não;170\n"
        "2.png;p2;PA;01/02/1950;16/06/2020;teste;;180\n3.png;p2;PA;01/02/1950;16/06/2020;teste;Sim;180\n"
    )
    (root / "pacientes.csv").write_text("Paciente,Sexo\np1,Feminino\np2,Masculino\n")
    (root / "notes.csv").write_text("a,b\nx,y\n")
    rows = drafted(tmp_path, root)
    assert [rows[n]["patient_id"] for n in "0123"] == ["p1", "p1", "p2", "p2"]
    assert [rows[n]["sex"] for n in "0123"] == ["F", "F", "M", "M"]
    assert [rows[n]["projection"] for n in "0123"] == ["frontal", "lateral", "frontal", "frontal"]
    assert [rows[n]["split"] for n in "0123"] == ["train", "train", "test", "test"]
    assert [round(rows[n]["age_years"]) for n in "0123"] == [59, 59, 70, 70]
    assert [rows[n]["label_drafted__derrame"] for n in "0123"] == [1, 0, None, 1]
    text = (tmp_path / "drafted.toml").read_text()
    assert "# notes.csv: no block reads it" in text
    assert "# Columns of dados.csv that no block names: Altura" in text


def test_numbered_folders_of_studies_are_no_findings(tmp_path):
    rows = drafted(tmp_path, folder(tmp_path / "data", [f"study{n // 2}/{n}.png" for n in range(6)]))
    assert len(rows) == 6
    assert not [name for name in rows["0"] if name.startswith("label_drafted__")]


@pytest.mark.parametrize("name", sorted(catalog()))
def test_a_draft_of_any_datasets_folder_is_a_file_that_reads_it(tmp_path, name):
    root = tmp_path / "data"
    generate(name, root)
    done = draft_dataset(tmp_path / "drafted.toml", root)
    assert done.exit_code is ExitCode.DONE
    assert done.value.images_matched


def test_what_a_person_says_goes_before_the_guess(tmp_path):
    root = ward(tmp_path / "ward")
    asked = []
    draft_dataset(tmp_path / "a.toml", root, ask=lambda question, guess: asked.append(question) or guess)
    assert asked[0] == "Title of the dataset"
    assert "Column of the patient, blank for none" in asked
    draft_dataset(tmp_path / "b.toml", root, columns={"view": "", "patient": "sex"})
    text = (tmp_path / "b.toml").read_text()
    assert "[views]" not in text
    assert 'patient = "sex"' in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("new", "x.toml", "{root}", "--column", "patient=none"), "no table of .* has a column 'none'"),
        (("new", "x.toml", "{root}", "--column", "weight=sex"), "a column cannot say 'weight'"),
        (("new", "x.toml", "{root}", "--column", "patient"), "--column patient names no column"),
        (("new", "x.txt", "{root}"), "does not end in .toml"),
        (("new", "{root}/there.toml", "{root}"), "is there already"),
        (("new", "x.toml", "{root}/nowhere"), "is not a folder"),
        (("new", "x.toml"), "which file, and from which folder"),
        (("check", "{root}/there.toml", "--contract"), "a contract is checked on a folder"),
    ],
)
def test_what_cannot_be_drafted_is_said(tmp_path, monkeypatch, capsys, words, message):
    from cxrprep.cli.main import run

    monkeypatch.chdir(tmp_path)
    root = ward(tmp_path / "ward", images=2)
    draft_dataset(root / "there.toml", root)
    assert run(["datasets", *(word.format(root=root) for word in words)]) == 2
    found = capsys.readouterr().err
    assert re.search(message, " ".join(found.split()))


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no images"):
        draft_dataset(tmp_path / "a.toml", tmp_path)


@pytest.mark.slow
def test_every_verb_works_on_a_draft_in_a_folder_of_datasets(tmp_path):
    root, folder_of_files = ward(tmp_path / "ward"), tmp_path / "mine"
    done = cxrprep("datasets", "new", folder_of_files / "ours.toml", root, catalog=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in (
        ("extract-labels", root),
        ("verify", root),
        ("convert", root, "--recipe", "square-224"),
        ("report", root),
        ("export", root, "--format", "csv", "--out", tmp_path / "csv"),
    ):
        done = cxrprep(*words, "--catalog", folder_of_files, catalog=tmp_path / "none")
        assert done.returncode == 0, (words, done.stderr)
    assert "ours" in cxrprep("datasets", "-q", "--catalog", folder_of_files, catalog=tmp_path / "none").stdout.split()
    assert cxrprep("datasets", "--catalog", tmp_path / "none", catalog=tmp_path).returncode == 2


def test_a_pattern_that_would_take_years_takes_no_time(tmp_path):
    file = tmp_path / "ours.toml"
    draft_dataset(file, ward(tmp_path / "ward", images=2))
    lines = file.read_text().splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("image = '"))
    lines[place] = "image = '^(?P<id>(a+)+)\\.png$'"
    file.write_text("\n".join(lines))
    begun = time.monotonic()
    assert find_dataset(str(file)).layout().parse("a" * 5_000 + "!") is None
    assert time.monotonic() - begun < 60  # of the other engine's centuries
    again = tmp_path / "again.toml"
    again.write_text(file.read_text().replace("(a+)+", "(?=a)a+"))
    with pytest.raises(ConfigError, match="not a regular expression of RE2"):
        check_dataset(again)


def test_shapes_in_cells(tmp_path):
    root = ward(tmp_path / "ward", images=2)
    (root / "drawn.csv").write_text(
        "file,label,region,boxes\n"
        'w0_0.png,nodule,"POLYGON ((1 1, 9 1, 9 9, 1 1))","1 2 3 4;5 6 7 8"\nw0_1.png,nodule,,\n'
    )
    notes = []
    drafted(tmp_path, root, on_event=notes.append)
    assert check_dataset(tmp_path / "drafted.toml", root).value.masks == 1
    aside = (tmp_path / "drafted.toml").read_text().split("# [[boxes]]")[1].split("\n\n")[0]
    assert '# corner_size = "boxes"' in aside
    assert any("boxes may be here" in getattr(note, "message", "") for note in notes)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.yaml", "nc: 2\nnames: ['nodule', \"pleural effusion\"]\ntrain: images/train\n"),
        ("set.yml", "names:\n  1: pleural effusion # fluid\n  0: nodule\nroboflow: {names: x}\n"),
        ("labels/train/classes.txt", "nodule\npleural effusion\n"),
        ("", ""),
    ],
)
def test_boxes_of_yolo_are_drafted_with_the_names_of_their_classes(tmp_path, file, text):
    root = yolo(tmp_path / "yolo")
    if file:
        (root / file).write_text(text)
    rows = drafted(tmp_path, root)
    nodule, effusion = ("nodule", "pleural effusion") if file else ("class 0", "class 1")
    assert [row["split"] for row in rows.values()] == ["train", "train", "validate"]
    assert rows["p1_1"]["boxes"][0] == {"label": nodule, "x": 24, "y": 12, "w": 16, "h": 24}
    assert [box["label"] for box in rows["p2_1"]["boxes"]] == [effusion]
    own = f"label_drafted__{nodule.replace(' ', '_')}"
    other = "label_pleural_effusion" if file else "label_drafted__class_1"
    assert [(row[own], row[other]) for row in rows.values()] == [(1, 1), (0, 0), (0, 1)]


def test_boxes_of_yolo_with_scores_and_beside_a_table_are_a_source_of_their_own(tmp_path):
    root = yolo(tmp_path / "yolo")
    for text in root.glob("labels/*/*.txt"):
        text.write_text("0 0.5 0.5 0.25 0.5 0.75\n")
    (root / "yolo.csv").write_text("image,patient,label\np1_1,A,rib\np1_2,A,\np2_1,B,rib\n")
    draft_dataset(tmp_path / "drafted.toml", root)
    rows = read_labels(find_dataset(str(tmp_path / "drafted.toml")), root).table.to_pylist()
    assert {row["label_source"] for row in rows} == {"tables", "yolo"}
    assert {row["patient_id"] for row in rows} == {"A", "B"}
    assert {box["score"] for row in rows for box in row["boxes"] or ()} == {0.75}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels/val/p2_1.txt": "1 0.5 0.5 0.2 0.2 0.1 0.1\n"}, "a line of YOLO is a class, then x, y, w, h"),
        ({"labels/val/p2_1.txt": "1 100 100 20 20\n"}, "a line of YOLO is a class, then x, y, w, h"),
        ({"labels/val/n2.txt": "any"}, "no pattern tells them from labels/val/n2.txt"),
        ({"images/p1_2.txt": ""}, "some lie further down than others"),
    ],
)
def test_lines_of_another_form_than_yolos_are_said(tmp_path, change, said):
    root = yolo(tmp_path / "yolo")
    for name, text in change.items():
        (root / name).write_text(text)
    notes = []
    draft_dataset(tmp_path / "drafted.toml", root, on_event=notes.append)
    assert any(said in getattr(note, "message", "") for note in notes)
    assert "[[boxes]]" not in (tmp_path / "drafted.toml").read_text()


def test_boxes_of_yolo_on_images_of_different_sizes_wait_for_a_table_of_sizes(tmp_path):
    root = yolo(tmp_path / "yolo")
    pictures.png(root / "images/val/p2_1.png", 1, width=32, height=32)
    assert drafted(tmp_path, root)["p1_1"]["label_drafted__class_0"] == 1
    text = (tmp_path / "drafted.toml").read_text()
    block = text[text.index("# [[boxes]]") :].replace("\n# ", "\n").removeprefix("# ")
    table = '[[table]]\nname = "sizes"\npatterns = ["sizes.csv"]\n'
    link = '[[link]]\ntable = "sizes"\nimage = "image"\nheight = "height"\nwidth = "width"\n'
    (tmp_path / "sized.toml").write_text(text + table + link + block)
    (root / "sizes.csv").write_text("image,height,width\np1_1,48,64\np1_2,48,64\np2_1,32,32\n")
    rows = read_labels(find_dataset(str(tmp_path / "sized.toml")), root).table.to_pylist()
    found = {row["image_id"]: (row["boxes"] or [{}])[0] for row in rows}
    assert (found["p1_1"]["w"], found["p2_1"]["w"]) == (16, 32)


def voc(root: Path, name: str, objects: str) -> None:
    (root / "Annotations").mkdir(exist_ok=True)
    head = f"<filename>{name}.png</filename><size><width>32</width><height>32</height></size>"
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{head}{objects}</annotation>")


@pytest.mark.parametrize("table", ["", "file,patient\nimages/a.png,p1\nimages/b.png,p1\nimages/c.png,p2\n"])
def test_boxes_of_pascal_voc_are_drafted_and_a_file_without_any_says_that_nothing_is_there(tmp_path, table):
    root = folder(tmp_path / "data", [f"images/{name}.png" for name in "abc"])
    box = "<bndbox><xmin>4</xmin><ymin>6</ymin><xmax>14</xmax><ymax>26</ymax></bndbox>"
    voc(root, "a", f"<object><name>Pneumonia</name>{box}</object><object><name>mass</name>{box}</object>")
    voc(root, "b", "")
    if table:
        (root / "documents.csv").write_text(table)
    rows = drafted(tmp_path, root)
    sides = {"x": 4, "y": 6, "w": 10, "h": 20}
    assert rows["a"]["boxes"] == [{"label": "Pneumonia", **sides}, {"label": "mass", **sides}]
    said = [(rows[name]["label_pneumonia"], rows[name]["label_drafted__mass"]) for name in "abc"]
    assert said == [(1, 1), (0, 0), (None, None)]
    assert rows["b"]["patient_id"] == ("p1" if table else "b")


@pytest.mark.parametrize("objects", ["<object><name>mass</name></object>", "<object>", "</annotation><other>"])
def test_xml_of_another_form_than_vocs_is_said(tmp_path, objects):
    root = folder(tmp_path / "data", ["images/a.png"])
    voc(root, "a", objects)
    notes = []
    drafted(tmp_path, root, on_event=notes.append)
    assert any("not read: Annotations/a.xml" in getattr(note, "message", "") for note in notes)


def test_tables_that_nothing_reads_are_said(tmp_path):
    root = ward(tmp_path / "ward", images=2)
    (root / "labels.csv").write_text("image,finding\n5.04E+07,nodule\n")
    (root / "other.csv").write_text("what\nnothing\n")
    folder(root / "images", ["001.png", "002.png", "003.png"])
    (root / "zeros.csv").write_text("id,finding\n1,nodule\n2,nodule\n3,\n")
    notes = []
    draft_dataset(tmp_path / "drafted.toml", root, on_event=notes.append)
    said = [note.message for note in notes if getattr(note, "level", "") == "warning"]
    assert any("labels.csv: '5.04E+07' is a number that a spreadsheet cut short" in message for message in said)
    assert any("other.csv: no column of it names images" in message for message in said)
    assert any("zeros.csv: the zeros before its numbers in 'id' are gone" in message for message in said)


def test_images_that_a_table_names_by_their_addresses(tmp_path):
    root = ward(tmp_path / "ward", images=2)
    address = "https://pacs.example.org/wado/w0_{}.png?width=512"
    (root / "findings.csv").write_text(
        f"image_url,patient,finding\n{address.format(0)},P1,nodule\n{address.format(1)},P2,rib\n"
    )
    rows = drafted(tmp_path, root)
    assert [(row["patient_id"], row["label_drafted__nodule"]) for row in rows.values()] == [("P1", 1), ("P2", 0)]
