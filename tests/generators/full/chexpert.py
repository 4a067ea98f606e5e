"""CheXpert in its real layout and numbers, with generated patients: train, valid and the later released test.

At full size ``train.csv`` has 223,414 images of 187,641 studies of 64,540 patients, and each of the 14 observations is
1, 0, -1 and blank in exactly as many images and as many studies as the release; labels are equal within a study.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tests.generators.full import pixels
from tests.generators.full.shares import scaled, spread

PATIENTS = 64_540
OBSERVATIONS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(OBSERVATIONS)
# (frontal views, lateral views) of a study -> studies of that shape
_SHAPES = {
    (1, 0): 153_634, (0, 1): 13, (1, 1): 29_675, (2, 0): 2_537, (0, 2): 3, (1, 2): 955, (2, 1): 783, (3, 0): 41,
}  # fmt: skip
# Images that are 1, 0, -1; then studies that are 1, 0, -1.
_COUNTS = {
    "No Finding": (22_381, 0, 0, 16_627, 0, 0),
    "Enlarged Cardiomediastinum": (10_798, 21_638, 12_403, 9_020, 15_032, 10_148),
    "Cardiomegaly": (27_000, 11_116, 8_087, 23_002, 7_712, 6_597),
    "Lung Opacity": (105_581, 6_599, 5_598, 92_669, 4_949, 4_341),
    "Lung Lesion": (9_186, 1_270, 1_488, 6_856, 752, 1_071),
    "Edema": (52_246, 20_726, 12_984, 48_905, 15_667, 11_571),
    "Consolidation": (14_783, 28_097, 27_742, 12_730, 19_203, 23_976),
    "Pneumonia": (6_039, 2_799, 18_770, 4_576, 1_833, 15_658),
    "Atelectasis": (33_376, 1_328, 33_739, 29_333, 1_007, 29_377),
    "Pneumothorax": (19_448, 56_341, 3_145, 17_313, 47_006, 2_663),
    "Pleural Effusion": (86_187, 35_396, 11_628, 75_696, 24_832, 9_419),
    "Pleural Other": (3_523, 316, 2_653, 2_441, 206, 1_771),
    "Fracture": (9_040, 2_512, 642, 7_270, 1_949, 484),
    "Support Devices": (116_001, 6_137, 1_079, 105_831, 5_257, 898),
}
_WORDS = np.array(["", "1.0", "0.0", "-1.0"], dtype=object)
_LL, _RL, _PA, _AGE_CAPPED = 16, 1, 29_420, 7_579


@dataclass(frozen=True)
class Chexpert:
    """One generated training part. Arrays are by study, in path order; ``labels`` is (studies, 14), 0 to 3 of words."""

    seed: int
    patient: np.ndarray
    number: np.ndarray
    frontals: np.ndarray
    laterals: np.ndarray
    labels: np.ndarray

    @classmethod
    def generate(cls, patients: int = PATIENTS, seed: int = 11) -> Chexpert:
        """The release with ``patients`` training patients (at least 40); the same arguments give the same release."""
        rng, share = np.random.default_rng(seed), patients / PATIENTS
        shapes = np.repeat(np.array(list(_SHAPES)), scaled(list(_SHAPES.values()), share), axis=0)
        rng.shuffle(shapes)
        studies = spread(rng, len(shapes), patients, tail=0.4)
        number = np.concatenate([np.arange(1, count + 1) for count in studies.tolist()])
        size = shapes.sum(axis=1)
        labels = np.zeros((len(shapes), len(OBSERVATIONS)), np.int8)
        healthy = np.zeros(len(shapes), bool)
        for column, name in enumerate(OBSERVATIONS):
            free = name in ("No Finding", "Support Devices")
            for views in (1, 2, 3):
                members = np.flatnonzero(size == views)
                one, zero, unsure = _of_size(_COUNTS[name], views, share)
                # Beside a No Finding of 1 stands no other 1 or -1, except of support devices.
                open_ = rng.permutation(members if free else members[~healthy[members]])
                labels[open_[:one], column] = 1
                labels[open_[one : one + unsure], column] = 3
                rest = rng.permutation(members[labels[members, column] == 0])
                labels[rest[:zero], column] = 2
            if name == "No Finding":
                healthy = labels[:, column] == 1
        return cls(seed, np.repeat(np.arange(1, patients + 1), studies), number, shapes[:, 0], shapes[:, 1], labels)

    @cached_property
    def files(self) -> list[tuple[int, str]]:
        """The study's row and ``train/patient00001/study1/view1_frontal.jpg`` of each training image."""
        found = []
        arrays = (self.patient, self.number, self.frontals, self.laterals)
        for row, (patient, number, frontals, laterals) in enumerate(zip(*(a.tolist() for a in arrays), strict=True)):
            for view in range(1, frontals + laterals + 1):
                way = "frontal" if view <= frontals else "lateral"
                found.append((row, f"train/patient{patient:05d}/study{number}/view{view}_{way}.jpg"))
        return found

    @cached_property
    def valid(self) -> list[str]:
        """The validation images: 234 of 200 patients at full size."""
        count = max(2, round(200 * len(set(self.patient.tolist())) / PATIENTS))
        extra = round(count * 0.17)
        found = []
        for number in range(count):
            found.append(f"valid/patient{64_541 + number:05d}/study1/view1_frontal.jpg")
            if number < extra:
                found.append(
                    f"valid/patient{64_541 + number:05d}/study1/view2_{'lateral' if number % 17 else 'frontal'}.jpg"
                )
        return found

    @cached_property
    def test(self) -> list[str]:
        """The test images of CheXlocalize: 668 of 500 patients at full size."""
        count = max(2, round(500 * len(set(self.patient.tolist())) / PATIENTS))
        extra = round(count * 0.336)
        found = []
        for number in range(count):
            found.append(f"test/patient{64_741 + number:05d}/study1/view1_frontal.jpg")
            if number < extra:
                found.append(f"test/patient{64_741 + number:05d}/study1/view2_lateral.jpg")
        return found

    def train_csv(self, prefix: str = "CheXpert-v1.0-small/") -> Iterator[str]:
        """``train.csv``, line by line."""
        rng, share = np.random.default_rng(self.seed + 1), len(self.files) / 223_414
        _, index = np.unique(self.patient, return_inverse=True)
        sexes = np.array(["Male", "Female"], dtype=object)[(rng.random(int(index.max()) + 1) < 0.445).astype(int)]
        ages = rng.integers(18, 90, len(self.patient)).astype(str).astype(object)
        size = self.frontals + self.laterals
        single = np.flatnonzero((size == 1) & (np.bincount(self.patient)[self.patient] == 1))
        sexes[index[single[0]]] = "Unknown"
        ages[single[1:4]] = "0"
        # Images, not studies, are counted: whole studies in random order as long as they fit.
        left = round(_AGE_CAPPED * share)
        for row in rng.permutation(np.flatnonzero(ages != "0")).tolist():
            if size[row] <= left:
                ages[row], left = "90", left - int(size[row])
        cells = [",".join(row) for row in _WORDS[self.labels].tolist()]
        frontal = [n for n, (_, path) in enumerate(self.files) if path.endswith("frontal.jpg")]
        views = rng.permutation(frontal)
        odd, cut = round((_LL + _RL) * share), round(_PA * share)
        posture = dict.fromkeys(views[:odd].tolist(), "LL") | dict.fromkeys(views[odd : odd + cut].tolist(), "PA")
        if odd:
            posture[int(views[0])] = "RL"
        yield HEADER
        for n, (row, path) in enumerate(self.files):
            way = "Frontal" if path.endswith("frontal.jpg") else "Lateral"
            view = posture.get(n, "AP") if way == "Frontal" else ""
            yield f"{prefix}{path},{sexes[index[row]]},{ages[row]},{way},{view},{cells[row]}"

    def valid_csv(self, prefix: str = "CheXpert-v1.0-small/") -> Iterator[str]:
        """``valid.csv``: radiologists' labels, 1.0 or 0.0 only, equal within a study."""
        yield HEADER
        for path in self.valid:
            rng = np.random.default_rng(int(path[13:18]))
            way = "Frontal" if path.endswith("frontal.jpg") else "Lateral"
            cells = ",".join(rng.choice(["1.0", "0.0"], 14, p=(0.2, 0.8)))
            yield f"{prefix}{path},Male,60,{way},{'AP' if way == 'Frontal' else ''},{cells}"

    def test_csv(self) -> Iterator[str]:
        """``test_labels.csv``: no demographics, integers."""
        yield "Path," + ",".join(OBSERVATIONS)
        for path in self.test:
            rng = np.random.default_rng(int(path[12:17]))
            yield f"{path},{','.join(rng.choice(['1', '0'], 14, p=(0.2, 0.8)))}"

    def write(self, folder: Path) -> int:
        """Write Kaggle's copy (``train/``, ``valid/``, two tables) to ``folder``; the number of images."""
        names = [path for _, path in self.files] + self.valid
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            target = folder / name
            if not target.parent.exists():
                target.parent.mkdir(parents=True)
            target.write_bytes(pixels.jpeg(name))
        (folder / "train.csv").write_text("\n".join(self.train_csv()) + "\n", encoding="ascii")
        (folder / "valid.csv").write_text("\n".join(self.valid_csv()) + "\n", encoding="ascii")
        return len(names)

    def write_zip(self, path: Path) -> int:
        """Write ``CheXpert-v1.0-small.zip`` as Stanford packed it; the number of images."""
        names = [name for _, name in self.files] + self.valid
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, lines in (("train.csv", self.train_csv()), ("valid.csv", self.valid_csv())):
                archive.writestr(zipfile.ZipInfo(f"CheXpert-v1.0-small/{name}"), "\n".join(lines) + "\n")
            for name in names:
                archive.writestr(zipfile.ZipInfo(f"CheXpert-v1.0-small/{name}"), pixels.jpeg(name))
        return len(names)


def _of_size(counts: tuple[int, ...], views: int, share: float) -> tuple[int, int, int]:
    """How many studies of ``views`` images are 1, 0 and -1, so that images and studies come out right both."""
    found = []
    for images, studies in zip(counts[:3], counts[3:], strict=True):
        threes = round((images - studies) * 1_779 / 35_773)
        twos = images - studies - 2 * threes
        found.append((studies - twos - threes, twos, threes)[views - 1])
    one, zero, unsure = (round(number * share) for number in found)
    return one, zero, unsure
