"""NIH ChestX-ray14 in its real layout and numbers, with generated patients: twelve archives, a table, boxes, two lists.

At full size: 112,120 images of 30,805 patients, 86,524 and 25,596 in the two lists, every label as often in each list
as in the v2020 table, 984 boxes on 880 images. Archives are numbered from 901, since the real ones have published sums.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tests.generators.full import pixels
from tests.generators.full.shares import dealt, scaled, spread

IMAGES = 112_120
_PATIENTS, _LISTED = (28_008, 2_797), (86_524, 25_596)
_RGBA = 519
_BOXED = 880
_ARCHIVES = (4_999, *[10_000] * 10, 7_121)
# Label -> images in train_val, images in test (v2020).
_COUNTS = {
    "Atelectasis": (8_280, 3_279), "Cardiomegaly": (1_707, 1_069), "Consolidation": (2_852, 1_815),
    "Edema": (1_378, 925), "Effusion": (8_659, 4_658), "Emphysema": (1_423, 1_093), "Fibrosis": (1_251, 435),
    "Hernia": (141, 86), "Infiltration": (13_782, 6_112), "Mass": (4_034, 1_748), "Nodule": (4_708, 1_623),
    "Pleural_Thickening": (2_242, 1_143), "Pneumonia": (876, 555), "Pneumothorax": (2_637, 2_665),
}  # fmt: skip
_HEALTHY = (50_500, 9_861)
_BOXES = {
    "Atelectasis": 180, "Effusion": 153, "Cardiomegaly": 146, "Infiltration": 123, "Pneumonia": 120,
    "Pneumothorax": 98, "Mass": 85, "Nodule": 79,
}  # fmt: skip
_MALE = 63_340
_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


@dataclass(frozen=True)
class Nih:
    """One generated release. Arrays are by image in name order; ``labels`` is (images, 14) of booleans."""

    seed: int
    patient: np.ndarray
    number: np.ndarray
    test: np.ndarray
    labels: np.ndarray

    @classmethod
    def generate(cls, images: int = IMAGES, seed: int = 14) -> Nih:
        """The release with ``images`` images (at least 100); the same arguments give the same release."""
        rng, share = np.random.default_rng(seed), images / IMAGES
        patients, listed = scaled(_PATIENTS, share), scaled(_LISTED, share)
        counts = [spread(rng, total, people, tail=0.3) for total, people in zip(listed, patients, strict=True)]
        order = rng.permutation(sum(patients))
        per_patient = np.concatenate(counts)[order]
        in_test = (np.arange(sum(patients)) >= patients[0])[order]
        patient = np.repeat(np.arange(1, len(per_patient) + 1), per_patient)
        number = np.concatenate([np.arange(count) for count in per_patient.tolist()])
        test = np.repeat(in_test, per_patient)
        labels = np.zeros((len(patient), len(_COUNTS)), bool)
        for part in (0, 1):
            members = rng.permutation(np.flatnonzero(test == part))
            ill = members[round(_HEALTHY[part] * share) :]
            slots = [round(both[part] * share) for both in _COUNTS.values()]
            _deal(rng, labels, ill, slots)
        return cls(seed, patient, number, test, labels)

    @cached_property
    def names(self) -> list[str]:
        """``00000001_000.png`` and so on."""
        return [f"{p:08d}_{n:03d}.png" for p, n in zip(self.patient.tolist(), self.number.tolist(), strict=True)]

    def png(self, index: int) -> bytes:
        """The image at ``index``: 1024 x 1024, grey; about one in two hundred RGBA."""
        return pixels.png(self.names[index], rgba=index % (IMAGES // _RGBA) == 7)

    def table(self) -> Iterator[str]:
        """``Data_Entry_2017_v2020.csv``, line by line."""
        rng, people = np.random.default_rng(self.seed + 1), int(self.patient.max())
        ages = rng.integers(1, 80, people)
        sizes = np.bincount(self.patient, minlength=people + 1)[1:]
        # The youngest and the oldest of the release, with one image each, so that they do not age.
        ages[rng.permutation(np.flatnonzero(sizes == 1))[:2]] = (0, 95)[: int((sizes == 1).sum())]
        sexes = np.full(people, "F", object)
        left = round(_MALE * len(self.names) / IMAGES)
        # Images, not patients, are counted: whole patients in random order as long as they fit.
        for owner in rng.permutation(people).tolist():
            if sizes[owner] <= left:
                sexes[owner], left = "M", left - int(sizes[owner])
        views = np.empty(len(self.names), object)
        for part, counts in enumerate(((56_214, 30_310), (11_096, 14_500))):
            members = np.flatnonzero(self.test == part)
            views[members] = dealt(rng, ["PA", "AP"], scaled(counts, len(members) / sum(counts)))
        observations = list(_COUNTS)
        yield _HEADER
        for index, name in enumerate(self.names):
            owner, follow_up = int(self.patient[index]) - 1, int(self.number[index])
            words = "|".join(observations[column] for column in np.flatnonzero(self.labels[index])) or "No Finding"
            age = min(int(ages[owner]) + follow_up // 12, 95)
            yield (
                f"{name},{words},{follow_up},{owner + 1},{age},{sexes[owner]},{views[index]},2500,2048,"
                "0.14300000000000002,0.14300000000000002"
            )

    def boxes(self) -> Iterator[str]:
        """``BBox_List_2017.csv``: boxes stand on images of the test list that carry the label."""
        rng, columns, share = np.random.default_rng(self.seed + 2), list(_COUNTS), len(self.names) / IMAGES
        boxed = np.zeros(len(self.names), bool)
        shared = round((sum(_BOXES.values()) - _BOXED) * share)
        yield "Image Index,Finding Label,Bbox [x,y,w,h],,,"
        for label, count in zip(_BOXES, scaled(list(_BOXES.values()), share), strict=True):
            members = self.test & self.labels[:, columns.index(label)]
            again = rng.permutation(np.flatnonzero(members & boxed))[: min(shared, count)]
            fresh = rng.permutation(np.flatnonzero(members & ~boxed))[: count - len(again)]
            shared -= len(again)
            boxed[fresh] = True
            word = "Infiltrate" if label == "Infiltration" else label
            for index in sorted([*again.tolist(), *fresh.tolist()]):
                x, y, w, h = rng.uniform((6, 13, 28, 22), (500, 500, 400, 400)).round(4)
                yield f"{self.names[index]},{word},{x},{y},{w},{h}"

    def lists(self) -> tuple[str, str]:
        """The contents of ``train_val_list.txt`` and ``test_list.txt``; no newline at the end."""
        found: tuple[list[str], list[str]] = ([], [])
        for name, test in zip(self.names, self.test.tolist(), strict=True):
            found[test].append(name)
        return "\n".join(found[0]), "\n".join(found[1])

    def write(self, folder: Path) -> int:
        """Write archives, tables, lists and ``MD5SUMS`` to ``folder``; the number of images."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(self.table()) + "\n", encoding="ascii")
        (folder / "BBox_List_2017.csv").write_text("\n".join(self.boxes()) + "\n", encoding="ascii")
        for name, text in zip(("train_val_list.txt", "test_list.txt"), self.lists(), strict=True):
            (folder / name).write_text(text, encoding="ascii")
        start = 0
        for number, count in enumerate(scaled(_ARCHIVES, len(self.names) / IMAGES), 901):
            self._archive(folder / f"images_{number}.tar.gz", range(start, min(start + count, len(self.names))))
            start += count
        sums = []
        for path in sorted(folder.iterdir()):
            if path.name != "MD5SUMS":
                with path.open("rb") as file:
                    sums.append(f"{hashlib.file_digest(file, 'md5').hexdigest()}  {path.name}")
        (folder / "MD5SUMS").write_text("\n".join(sums) + "\n", encoding="ascii")
        return len(self.names)

    def _archive(self, path: Path, members: range) -> None:
        with (
            path.open("wb") as raw,
            gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="", compresslevel=1) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            for index in members:
                data = self.png(index)
                entry = tarfile.TarInfo(f"images/{self.names[index]}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def _deal(rng: np.random.Generator, labels: np.ndarray, ill: np.ndarray, slots: list[int]) -> None:
    # Each ill image gets one label first, so that "No Finding" stands exactly where it should; the rest are extras.
    firsts = rng.multinomial(len(ill), np.asarray(slots) / sum(slots))
    firsts = np.minimum(firsts, slots)
    spare = np.asarray(slots) - firsts
    while firsts.sum() < len(ill):
        column = int(np.argmax(spare))
        firsts[column] += 1
        spare[column] -= 1
    start = 0
    for column, count in enumerate(firsts.tolist()):
        labels[ill[start : start + count], column] = True
        start += count
    for column, count in enumerate((np.asarray(slots) - firsts).tolist()):
        without = ill[~labels[ill, column]]
        labels[rng.permutation(without)[:count], column] = True
