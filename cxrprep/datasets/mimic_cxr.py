"""Paths of MIMIC-CXR and MIMIC-CXR-JPG: one tree of patients and studies, DICOM in one project and JPEG in the other.

``files/pNN/p<patient>/s<study>/<image>.dcm|.jpg``, reports beside the study's folder, tables at the top. Patients and
studies have eight digits, images the DICOM id of 40 hexadecimal digits in five groups.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cxrprep.datasets.layout import finder
from cxrprep.model import ImageId

_find_image = finder(
    r"(?:^|/)p(?P<patient>1\d{7})/s(?P<study>5\d{7})/(?P<image>[0-9a-f]{8}(?:-[0-9a-f]{8}){4})\.(?P<suffix>dcm|jpg|png)$"
)
_REPORT = re.compile(r"(?:^|/)p(?P<patient>1\d{7})/s(?P<study>5\d{7})\.txt$", re.ASCII)
# The tables of MIMIC-CXR-JPG 2.1.0 still say 2.0.0 in their names.
_TABLE = re.compile(
    r"(?:^|/)(cxr-(?:record|study|provider)-list\.csv(?:\.gz)?"
    r"|mimic-cxr-2\.\d\.0-(?:metadata|split|chexpert|negbio)\.csv(?:\.gz)?"
    r"|mimic-cxr-2\.1\.0-test-set-labeled\.csv(?:\.gz)?"
    r"|mimic-cxr-reports\.(?:zip|tar\.gz)|IMAGE_FILENAMES|SHA256SUMS\.txt|LICENSE\.txt|README)$",
    re.ASCII,
)
_OF_DICOM = re.compile(r"(?:^|/)(?:cxr-(?:record|study|provider)-list\.csv|mimic-cxr-reports\.)")
_OF_JPG = re.compile(
    r"(?:^|/)(?:mimic-cxr-2\.\d\.0-(?:metadata|split|chexpert|negbio|test)|IMAGE_FILENAMES$)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class MimicLayout:
    """The mapping between keys, ids and release paths; ``suffix`` is that of the project's images."""

    suffix: str

    def parse(self, key: str) -> ImageId | None:
        """The ids in an image's path, whatever stands before the patient; ``None`` for everything else."""
        found = _find_image(key)
        if found is None:
            return None
        return ImageId(patient=found["patient"], study=found["study"], image=found["image"])

    def shows_image(self, key: str) -> bool:
        """Whether the key is an image's."""
        return _find_image(key) is not None

    def key(self, image: ImageId, *, release: str) -> str:
        """``files/pNN/p<patient>/s<study>/<image>`` with the project's suffix."""
        del release
        return f"{_folder(image.patient)}/s{image.study}/{image.image}{self.suffix}"

    def place(self, key: str, *, release: str) -> str | None:
        """Where a mirror's file goes under ROOT; leftovers of bucket copies and index pages have no place."""
        del release
        found = _find_image(key)
        if found is not None:
            patient, study, image, suffix = found.groups()
            return f"{_folder(patient)}/s{study}/{image}.{suffix}"
        report = _REPORT.search(key)
        if report is not None:
            return f"{_folder(report['patient'])}/s{report['study']}.txt"
        table = _TABLE.search(key)
        return None if table is None else table.group(1)

    def recognise(self, names: frozenset[str]) -> float:
        """Sure by images of the project's own suffix; by its tables only where there is no image to decide."""
        suffixes = [found["suffix"] for found in map(_find_image, names) if found is not None]
        if suffixes:
            own = sum(1 for suffix in suffixes if f".{suffix}" == self.suffix)
            return 0.9 + 0.1 * own / len(suffixes)
        mine, other = (_OF_DICOM, _OF_JPG) if self.suffix == ".dcm" else (_OF_JPG, _OF_DICOM)
        if any(mine.search(name) for name in names):
            return 1.0
        return 0.5 if any(other.search(name) or _REPORT.search(name) for name in names) else 0.0


def _folder(patient: str) -> str:
    return f"files/p{patient[:2]}/p{patient}"


def layout(name: str, release: str) -> MimicLayout:
    """The layout of one of the two projects; their releases share it."""
    del release
    return MimicLayout(".dcm" if name == "mimic-cxr" else ".jpg")
