"""Paths of NIH ChestX-ray14: Box tarballs, Kaggle's twelve folders, Google's bucket, flat copies.

Every image goes to ``images/<name>.png``, where code written for the release looks for it. Names are
``NNNNNNNN_FFF.png``: patient, and a running number that is not the v2020 table's follow-up number. The release has no
study ids, so each image is its own study.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cxrprep.datasets.layout import finder
from cxrprep.model import ImageId

_find_image = finder(r"(?:^|/)((\d{8})_\d{3})\.(png|dcm)$")
_ARCHIVE = re.compile(r"(?:^|/)(images_\d{3}\.tar\.gz)$", re.ASCII)
# Kaggle's archive of all files, as the browser and the kaggle command name it; nobody is recognised by such a name.
_KAGGLE = re.compile(r"(?:^|/)((?:archive|data)\.zip)$", re.ASCII)
_TABLES = {
    name.lower(): name
    for name in (
        "Data_Entry_2017_v2020.csv",
        "Data_Entry_2017.csv",
        "BBox_List_2017.csv",
        "train_val_list.txt",
        "test_list.txt",
        # Kaggle's resized copies and its sample.
        "BBox_List_2017_Official_NIH.csv",
        "train_val_list_NIH.txt",
        "test_list_NIH.txt",
        "sample_labels.csv",
    )
}
_DOCUMENTS = {
    name.lower(): name
    for name in (
        "README_CHESTXRAY.pdf",
        "README_ChestXray.pdf",
        "FAQ_CHESTXRAY.pdf",
        "ARXIV_V5_CHESTXRAY.pdf",
        "LOG_CHESTXRAY.pdf",
        "batch_download_zips.py",
    )
}
_GOOGLE = re.compile(r"(?:^|/)((?:four|all)_findings_expert_labels)[/_]([a-z_]+\.csv)$")


@dataclass(frozen=True, slots=True)
class NihLayout:
    """The mapping between keys, ids and release paths; stateless."""

    def parse(self, key: str) -> ImageId | None:
        """The ids in an image's name, whatever folders stand before it; ``None`` for everything else."""
        found = _find_image(key)
        if found is None:
            return None
        name, patient = found.group(1), found.group(2)
        return ImageId(patient=patient, study=name, image=name)

    def shows_image(self, key: str) -> bool:
        """Whether the key is an image's."""
        return _find_image(key) is not None

    def key(self, image: ImageId, *, release: str) -> str:
        """``images/<image id>.png``, in every release."""
        del release
        return f"images/{image.image}.png"

    def place(self, key: str, *, release: str) -> str | None:
        """Where a mirror's file goes under ROOT; DICOM copies keep their suffix, archives their name at the top."""
        del release
        found = _find_image(key)
        if found is not None:
            return f"images/{found.group(1)}.{found.group(3)}"
        archive = _ARCHIVE.search(key) or _KAGGLE.search(key)
        if archive is not None:
            return archive.group(1)
        google = _GOOGLE.search(key)
        if google is not None:
            return f"{google.group(1)}/{google.group(2)}"
        name = key.rsplit("/", 1)[-1].lower()
        return _TABLES.get(name) or _DOCUMENTS.get(name)

    def recognise(self, names: frozenset[str]) -> float:
        """Sure by its tables, nearly sure by image names alone."""
        bare = {name.rsplit("/", 1)[-1].lower() for name in names}
        if bare & {"data_entry_2017_v2020.csv", "data_entry_2017.csv"}:
            return 1.0
        if bare & {"bbox_list_2017.csv"}:
            return 0.9
        images = sum(1 for name in names if _find_image(name) or _ARCHIVE.search(name))
        return 0.8 * images / len(names) if names else 0.0


def layout(name: str, release: str) -> NihLayout:
    """The layout of the release; it is one for all releases."""
    del name, release
    return NihLayout()
