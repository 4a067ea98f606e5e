"""MIMIC-CXR and MIMIC-CXR-JPG 2.1.0 in their real layout, names and numbers, with generated patients.

``Mimic.generate(377_110)`` has 377,110 images of 227,835 studies of 65,379 patients, split as the release is; fewer
images keep the proportions. ``write_tables`` writes every file of a project but the images, and ``read`` makes the
bytes of an image or report from its path, so that the full size needs no disk for them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tests.generators.full import pixels
from tests.generators.full.prose import report
from tests.generators.full.shares import dealt, distinct, scaled, spread

IMAGES = 377_110
PROJECTS = ("mimic-cxr", "mimic-cxr-jpg")
VERSION = "2.1.0"
_SPLITS = ("train", "validate", "test")
_SPLIT_IMAGES, _SPLIT_STUDIES, _SPLIT_PATIENTS = (368_960, 2_991, 5_159), (222_758, 1_808, 3_269), (64_586, 500, 293)
# Every view with its count; what MIMIC-CXR-JPG's metadata says of 377,110 images.
_VIEWS = {
    "AP": 147_173, "PA": 96_161, "LATERAL": 82_853, "LL": 35_133, "": 15_769, "PA LLD": 4, "LAO": 3, "RAO": 3,
    "AP AXIAL": 2, "AP LLD": 2, "XTABLE LATERAL": 2, "AP RLD": 2, "SWIMMERS": 1, "PA RLD": 1, "LPO": 1,
}  # fmt: skip
_VIEW_CODES = {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral", "LL": "left lateral", "": ""}
# Share of studies whose label is 1, 0 and -1, as the two published labelers agree on the training part.
_LABELS = {
    "Atelectasis": (0.200, 0.004, 0.045), "Cardiomegaly": (0.190, 0.070, 0.026), "Consolidation": (0.050, 0.035, 0.016),
    "Edema": (0.120, 0.111, 0.055), "Enlarged Cardiomediastinum": (0.031, 0.023, 0.040),
    "Fracture": (0.019, 0.004, 0.002), "Lung Lesion": (0.027, 0.004, 0.005), "Lung Opacity": (0.225, 0.013, 0.010),
    "No Finding": (0.335, 0, 0), "Pleural Effusion": (0.236, 0.119, 0.024), "Pleural Other": (0.009, 0.001, 0.003),
    "Pneumonia": (0.072, 0.107, 0.079), "Pneumothorax": (0.045, 0.185, 0.005), "Support Devices": (0.290, 0.014, 0.001),
}  # fmt: skip
_METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
# Eight training studies, of 15 images in all, have no text that a labeler could read.
_UNLABELLED = (2, 2, 2, 2, 2, 2, 2, 1)
_BLANK_ROWS = 2_414


@dataclass(frozen=True)
class Mimic:
    """One generated release. Arrays are by study (``subject``, ``study``, ``split``, ``images``) in path order."""

    seed: int
    subject: np.ndarray
    study: np.ndarray
    split: np.ndarray
    images: np.ndarray

    @classmethod
    def generate(cls, images: int = IMAGES, seed: int = 7) -> Mimic:
        """The release with ``images`` images (at least 30); the same arguments give the same release."""
        rng, share = np.random.default_rng(seed), images / IMAGES
        columns: list[tuple[np.ndarray, ...]] = []
        parts = [scaled(counts, share) for counts in (_SPLIT_PATIENTS, _SPLIT_STUDIES, _SPLIT_IMAGES)]
        for number, (patients, listed, pictures) in enumerate(zip(*parts, strict=True)):
            studies = max(listed, patients)
            owner = np.repeat(np.arange(patients) + (number << 32), spread(rng, studies, patients, tail=0.35))
            columns.append((owner, np.full(studies, number), spread(rng, max(pictures, studies), studies, tail=3)))
        owner, split, per_study = (np.concatenate(arrays) for arrays in zip(*columns, strict=True))
        _, owner = np.unique(owner, return_inverse=True)
        subjects = distinct(rng, 10_000_000, 20_000_000, int(owner.max()) + 1)
        rng.shuffle(subjects)
        studies_ = distinct(rng, 50_000_000, 60_000_000, len(owner))
        rng.shuffle(studies_)
        subject = subjects[owner]
        order = np.lexsort((studies_, subject))
        return cls(seed, subject[order], studies_[order], split[order], per_study[order])

    @cached_property
    def dicom_ids(self) -> list[str]:
        """The dicom id of each image, ordered by subject, study and itself."""
        words = np.random.default_rng(self.seed + 1).integers(0, 1 << 32, (int(self.images.sum()), 5), dtype=np.uint64)
        ids = ["-".join(f"{word:08x}" for word in row) for row in words.tolist()]
        start, ordered = 0, []
        for count in self.images.tolist():
            ordered += sorted(ids[start : start + count])
            start += count
        return ordered

    @cached_property
    def folders(self) -> list[str]:
        """``files/p10/p10000032/s50414267`` for each study."""
        pairs = zip(self.subject.tolist(), self.study.tolist(), strict=True)
        return [f"files/p{subject // 1_000_000}/p{subject}/s{study}" for subject, study in pairs]

    @cached_property
    def stems(self) -> list[str]:
        """The path of each image without its suffix, in the order of ``dicom_ids``."""
        owners = np.repeat(np.arange(len(self.images)), self.images).tolist()
        return [f"{self.folders[owner]}/{name}" for owner, name in zip(owners, self.dicom_ids, strict=True)]

    def paths(self, project: str) -> Iterator[str]:
        """Every image and report of ``project``, ascending."""
        if project == "mimic-cxr-jpg":
            return (f"{stem}.jpg" for stem in self.stems)
        return iter(sorted([*(f"{stem}.dcm" for stem in self.stems), *(f"{folder}.txt" for folder in self.folders)]))

    def read(self, path: str) -> bytes:
        """The bytes of an image or report, made from its path alone."""
        return content(path, self.seed)

    # ---- the tables, as text ----

    def _images(self, *columns: np.ndarray) -> Iterator[tuple[Any, ...]]:
        repeated = [np.repeat(column, self.images).tolist() for column in columns]
        return zip(self.dicom_ids, *repeated, strict=True)

    def metadata(self) -> Iterator[str]:
        """``mimic-cxr-2.0.0-metadata.csv``, line by line."""
        rng, count = np.random.default_rng(self.seed + 2), int(self.images.sum())
        views = dealt(rng, list(_VIEWS), scaled(list(_VIEWS.values()), count / IMAGES)) if count >= 30 else None
        views = views if views is not None and len(views) == count else rng.choice(list(_VIEWS)[:4], count)
        date = rng.integers(2110, 2205, len(self.study)) * 10_000 + rng.integers(1, 13, len(self.study)) * 100 + 14
        # Of nearly each study another one, to the millisecond: 80556.875 and 213014.531 are of the release
        # (https://physionet.org/content/mimic-cxr-jpg/2.1.0/, mimic-cxr-2.0.0-metadata.csv.gz).
        time = rng.integers(0, 24, len(self.study)) * 10_000 + rng.integers(0, 60, len(self.study)) * 100
        time = (time + rng.integers(0, 60_000, len(self.study)) / 1000).round(3)
        yield _METADATA
        for (name, subject, study, day, hour), view in zip(
            self._images(self.subject, self.study, date, time), views.tolist(), strict=True
        ):
            rows, columns = pixels.jpeg_shape(f"{name}")
            procedure = "CHEST (PORTABLE AP)" if view == "AP" else "CHEST (PA AND LAT)"
            code, stance = _VIEW_CODES.get(view, view.lower()), "Erect" if view in ("PA", "LATERAL", "LL") else ""
            yield (
                f"{name},{subject},{study},{procedure},{view},{rows},{columns},{day},{hour},"
                f"{procedure.replace('AND', 'and')},{code},{stance}"
            )

    def splits(self) -> Iterator[str]:
        """``mimic-cxr-2.0.0-split.csv``: the study stands before the subject."""
        yield "dicom_id,study_id,subject_id,split"
        for name, study, subject, split in self._images(self.study, self.subject, self.split):
            yield f"{name},{study},{subject},{_SPLITS[split]}"

    @cached_property
    def unlabelled(self) -> frozenset[int]:
        """The studies that no label table names."""
        chosen: list[int] = []
        for size in _UNLABELLED if len(self.study) > 1000 else ():
            fits = self.study[(self.images == size) & (self.split == 0)].tolist()
            chosen.append(next(study for study in fits if study not in chosen))
        return frozenset(chosen)

    def labels(self, labeler: str) -> Iterator[str]:
        """``mimic-cxr-2.0.0-chexpert.csv`` or ``-negbio.csv``: a row per study, 1.0, 0.0, -1.0 or nothing."""
        rng = np.random.default_rng(self.seed + (3 if labeler == "chexpert" else 4))
        words = np.array(["1.0", "0.0", "-1.0", ""], dtype=object)
        cells = np.stack([words[rng.choice(4, len(self.study), p=(*p, 1 - sum(p)))] for p in _LABELS.values()], axis=1)
        empty = (cells == "").all(axis=1)
        cells[empty, list(_LABELS).index("Pneumothorax")] = "0.0"
        if labeler == "chexpert":
            named = rng.permutation(np.flatnonzero(~np.isin(self.study, list(self.unlabelled))))
            cells[named[: round(_BLANK_ROWS * len(self.study) / 227_835)]] = ""
        yield "subject_id,study_id," + ",".join(_LABELS)
        for subject, study, row in zip(self.subject.tolist(), self.study.tolist(), cells.tolist(), strict=True):
            if study not in self.unlabelled:
                yield f"{subject},{study},{','.join(row)}"

    def radiologist(self) -> Iterator[str]:
        """``mimic-cxr-2.1.0-test-set-labeled.csv``: 687 studies of the test part, ``Airspace Opacity`` and all."""
        rng = np.random.default_rng(self.seed + 5)
        names = [name.replace("Lung Opacity", "Airspace Opacity") for name in _LABELS]
        yield "study_id," + ",".join(names)
        test = self.study[self.split == 2]
        for study in sorted(rng.permutation(test)[: max(1, round(687 * len(self.study) / 227_835))].tolist()):
            yield f"{study}," + ",".join(rng.choice(["1.0", "0.0", "-1.0", ""], len(names), p=(0.2, 0.2, 0.05, 0.55)))

    def record_list(self) -> Iterator[str]:
        """``cxr-record-list.csv``: a row per image."""
        yield "subject_id,study_id,dicom_id,path"
        for stem, (name, subject, study) in zip(self.stems, self._images(self.subject, self.study), strict=True):
            yield f"{subject},{study},{name},{stem}.dcm"

    def study_list(self) -> Iterator[str]:
        """``cxr-study-list.csv``: a row per report."""
        yield "subject_id,study_id,path"
        for folder, subject, study in zip(self.folders, self.subject.tolist(), self.study.tolist(), strict=True):
            yield f"{subject},{study},{folder}.txt"

    def providers(self) -> Iterator[str]:
        """``cxr-provider-list.csv``: who ordered, attended and read."""
        codes = np.random.default_rng(self.seed + 6).integers(100, 1000, (len(self.study), 3)).tolist()
        yield "subject_id,study_id,ordering_provider_id,attending_provider_id,resident_provider_id"
        for subject, study, (a, b, c) in zip(self.subject.tolist(), self.study.tolist(), codes, strict=True):
            yield f"{subject},{study},P{a}AB,P{b}CD,P{c}EF"

    # ---- the release on disk ----

    def write_tables(self, project: str, folder: Path) -> None:
        """Write every file of ``project`` but images and single reports to ``folder``, ``SHA256SUMS.txt`` last."""
        folder.mkdir(parents=True, exist_ok=True)
        made: dict[str, bytes] = {
            "LICENSE.txt": b"Generated: no licence needed.\n",
            "README": b"A generated release.\n",
        }
        if project == "mimic-cxr-jpg":
            made["IMAGE_FILENAMES"] = _text(self.paths(project))
            made["mimic-cxr-2.0.0-metadata.csv.gz"] = _gzip(self.metadata())
            made["mimic-cxr-2.0.0-split.csv.gz"] = _gzip(self.splits())
            made["mimic-cxr-2.0.0-chexpert.csv.gz"] = _gzip(self.labels("chexpert"))
            made["mimic-cxr-2.0.0-negbio.csv.gz"] = _gzip(self.labels("negbio"))
            made["mimic-cxr-2.1.0-test-set-labeled.csv"] = _text(self.radiologist())
        else:
            made["cxr-record-list.csv.gz"] = _gzip(self.record_list())
            made["cxr-study-list.csv.gz"] = _gzip(self.study_list())
            made["cxr-provider-list.csv.gz"] = _gzip(self.providers())
            made["mimic-cxr-reports.zip"] = self._zip()
        for name, data in made.items():
            (folder / name).write_bytes(data)
        with (folder / "SHA256SUMS.txt").open("w", encoding="ascii", newline="\n") as sums:
            for name, data in sorted(made.items()):
                sums.write(f"{hashlib.sha256(data).hexdigest()} {name}\n")
            for path in self.paths(project):
                sums.write(f"{hashlib.sha256(self.read(path)).hexdigest()} {path}\n")

    def write_files(self, project: str, folder: Path) -> None:
        """Write the images (and single reports) too, for a mirror that is a folder."""
        for path in self.paths(project):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(path))

    def _zip(self) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for folder in self.folders:
                member = zipfile.ZipInfo(f"{folder}.txt", (2019, 9, 19, 0, 0, 0))
                member.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(member, self.read(f"{folder}.txt"))
        return buffer.getvalue()


def content(path: str, seed: int) -> bytes:
    """The bytes of the image or report at ``path``; what a server needs to know is its path and the seed."""
    folder, _, name = path.rpartition("/")
    stem, _, suffix = name.rpartition(".")
    if suffix == "jpg":
        return pixels.jpeg(stem)
    if suffix == "dcm":
        return pixels.dicom(stem, folder.rsplit("/", 2)[1][1:])
    return report(int(stem[1:]), seed).encode()


def _text(lines: Iterator[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode("ascii")


def _gzip(lines: Iterator[str]) -> bytes:
    return gzip.compress(_text(lines), compresslevel=4, mtime=0)
