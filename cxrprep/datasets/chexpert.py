"""Paths of CheXpert: the portal's batches, the one-zip release, the small ones, Kaggle's mirror, CheXlocalize.

Under ROOT an image lies where the label tables' ``Path`` column says: ``CheXpert-v1.0/train/patient00001/...`` or
``CheXpert-v1.0-small/...``, so that code which joins a folder with that column keeps working. A copy
in any other form is understood where it lies: the part from ``patientNNNNN/`` on names the image, since no patient is
in two splits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cxrprep.datasets.layout import finder
from cxrprep.model import ImageId, View

_find_image = finder(
    r"(?:^|/)(?:(?:train|valid|val|test)/)?"
    r"(?P<patient>patient\d{5})/(?P<study>study\d+)/(?P<view>view\d+_(?P<side>frontal|lateral))\.(?P<suffix>jpe?g|png|dcm)$",
    re.IGNORECASE | re.ASCII,
)
_BATCH = re.compile(r"CheXpert-v1\.0 batch \d+ \((?:train \d+|validate & csv)\)/", re.IGNORECASE | re.ASCII)
_ARCHIVE = re.compile(r"(?:^|/)(CheXpert-v1\.0(?:-small)?(?: batch \d+ \([^/]*\))?\.zip)$", re.IGNORECASE | re.ASCII)
# Kaggle's archive of all files, as the browser and the kaggle command name it; nobody is recognised by such a name.
_KAGGLE = re.compile(r"(?:^|/)((?:archive|chexpert)\.zip)$", re.ASCII)
_PLUS = re.compile(r"(?:^|/)(df_chexpert_plus_\d+\.csv|(?:findings|impression|report)_fixed\.json)$", re.ASCII)
_SEGMENTATIONS = re.compile(r"(?:^|/)(CheXlocalize/(?:[^/]+/)*[^/]+\.(?:json|pkl))$")
_FOLDER_TABLES = frozenset({"train.csv", "valid.csv", "test.csv"})
_TOP_TABLES = {
    name.lower(): name
    for name in (
        "train_cheXbert.csv",
        "train_visualCheXbert.csv",
        "CHEXPERT DEMO.xlsx",
        "val_labels.csv",
        "test_labels.csv",
        "groundtruth.csv",
        "README.md",
    )
}
_LAST_TRAIN, _LAST_VALID = 64540, 64740


def split_folder(patient: str) -> str:
    """The folder of a patient's split: numbers up to 64540 are train, up to 64740 valid, beyond them test."""
    number = int(patient.removeprefix("patient"))
    if number <= _LAST_TRAIN:
        return "train"
    return "valid" if number <= _LAST_VALID else "test"


@dataclass(frozen=True, slots=True)
class CheXpertLayout:
    """The mapping between keys, ids and release paths of one release."""

    release: str

    @property
    def folder(self) -> str:
        """The folder that the label tables' paths begin with."""
        return f"CheXpert-{self.release}"

    def parse(self, key: str) -> ImageId | None:
        """The ids in an image's path; the file name says frontal or lateral, the patient's number the split."""
        found = _find_image(key)
        if found is None:
            return None
        patient, study, side = found["patient"].lower(), found["study"].lower(), found["side"].lower()
        return ImageId(
            patient=patient,
            study=f"{patient}/{study}",
            image=f"{patient}/{study}/{found['view'].lower()}",
            view=View.LATERAL if side == "lateral" else None,
            projection=side,
            split=split_folder(patient).replace("valid", "validate"),
        )

    def shows_image(self, key: str) -> bool:
        """Whether the key is an image's."""
        return _find_image(key) is not None

    def key(self, image: ImageId, *, release: str) -> str:
        """``CheXpert-v1.0.../<split>/<patient>/<study>/<view>.jpg``."""
        return f"{CheXpertLayout(release).folder}/{split_folder(image.patient)}/{image.image}.jpg"

    def place(self, key: str, *, release: str) -> str | None:
        """Where a mirror's file goes under ROOT; tables that name images go beside their split folders."""
        top = CheXpertLayout(release).folder
        found = _find_image(key)
        if found is not None:
            image = f"{found['patient']}/{found['study']}/{found['view']}.{found['suffix']}".lower()
            return f"{top}/{split_folder(found['patient'].lower())}/{image}"
        segmentations = _SEGMENTATIONS.search(key)
        if segmentations is not None:
            return segmentations.group(1)
        archive = _ARCHIVE.search(key) or _KAGGLE.search(key)
        if archive is not None:
            return archive.group(1)
        plus = _PLUS.search(key)
        if plus is not None:
            return plus.group(1)
        name = key.rsplit("/", 1)[-1].lower()
        if name in _FOLDER_TABLES:
            return f"{top}/{name}"
        return _TOP_TABLES.get(name)

    def recognise(self, names: frozenset[str]) -> float:
        """Sure by its tables and folder names, nearly sure by image paths alone."""
        bare = {name.rsplit("/", 1)[-1].lower() for name in names}
        images = sum(1 for name in names if _find_image(name) or _ARCHIVE.search(name))
        if images and bare & (_FOLDER_TABLES | set(_TOP_TABLES)):
            return 1.0
        # Many a collection has a train.csv and a valid.csv; pictures under other names are not CheXpert's.
        others = not images and any(name.endswith((".jpg", ".jpeg", ".png", ".dcm")) for name in bare)
        common = {"train.csv", "valid.csv"} <= bare and not others
        if common or bare & {"train_chexbert.csv", "train_visualchexbert.csv"}:
            return 0.9
        if any(_BATCH.search(name) for name in names):
            return 0.9
        return 0.9 * images / len(names) if names else 0.0


def layout(name: str, release: str) -> CheXpertLayout:
    """The layout of ``release``; they differ in the name of the top folder."""
    del name
    return CheXpertLayout(release)
