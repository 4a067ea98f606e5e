"""De-identified metadata of a DICOM header, for the images of an own folder.

Patient and study become pseudonyms: a keyed hash (HMAC-SHA-256, RFC 2104), so that images of one patient stay together
and nobody without the key finds the patient again. The key never leaves the user's own state folder.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import StorageError
from cxrprep.model import View
from cxrprep.storage.small_files import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping

_DIGITS: Final = 16
_KEY_BYTES: Final = 32
_CODE: Final = re.compile(r"[A-Z0-9 _\-\\/+.]{1,32}")
_AGE: Final = re.compile(r"(\d{1,3})([YMWD])")
_YEARS: Final = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
# US law counts ages over 89 as identities (45 CFR 164.514(b)(2)(i)(C)); releases write 90 for them.
_OLDEST: Final = 90.0


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Names for patients and studies that only the holder of ``key`` can make again."""

    key: bytes

    def of(self, kind: str, value: str) -> str | None:
        """16 hexadecimal digits for a value; ``None`` for a blank one."""
        text = value.strip()
        if not text:
            return None
        return hmac.new(self.key, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()[:_DIGITS]

    @property
    def sign(self) -> str:
        """What tells one key from another without giving it away."""
        return hashlib.sha256(b"cxrprep pseudonyms" + self.key).hexdigest()[:_DIGITS]


def own_pseudonyms() -> Pseudonyms:
    """Those of this user; the key is made at first use. Raises ``StorageError`` when it cannot be kept."""
    import platformdirs

    path = Path(platformdirs.user_state_path("cxrprep")) / "pseudonyms.key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        if not path.exists():
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.write(handle, os.urandom(_KEY_BYTES).hex().encode())
            os.close(handle)
            # The first of two runs wins: a link, unlike a rename, never replaces.
            try:
                os.link(part, path)
            except FileExistsError:
                pass
            finally:
                part.unlink()
        key = bytes.fromhex(read_text(path).strip())
    except (OSError, ValueError) as error:
        hint = (
            "let it be read and its folder be written, or set XDG_STATE_HOME to another folder: its key is another one"
        )
        raise StorageError(f"the key of pseudonyms at {path} cannot be kept: {error}", hint=hint) from error
    return Pseudonyms(key)


def header_facts(dataset: Any, pseudonyms: Pseudonyms) -> dict[str, Any]:
    """What a DICOM header, a data set of pydicom, says of the image, as plain values.

    Codes and numbers only: free text could hold a name. Missing and odd values are left out.
    """
    facts: dict[str, Any] = {}
    issuer = _text(dataset, "IssuerOfPatientID")
    facts["patient"] = pseudonyms.of("patient", "\0".join((issuer, _text(dataset, "PatientID"))).strip("\0"))
    facts["study"] = pseudonyms.of("study", _text(dataset, "StudyInstanceUID"))
    for key, keyword in _CODES.items():
        text = _text(dataset, keyword).upper()
        if _CODE.fullmatch(text) and text in _TERMS.get(key, (text,)):
            facts[key] = text
    for key, keyword in _NUMBERS.items():
        number = _number(dataset, keyword)
        if number is not None:
            facts[key] = number
    for key, keyword in _WORDS.items():
        text = _text(dataset, keyword)
        if text:
            facts[key] = text[:64]
    view = facts.get("view_raw", "").replace(" ", "_").replace("-", "_")
    if view in View.__members__:
        facts["view"] = view
    facts |= _person(dataset)
    return {key: value for key, value in facts.items() if value is not None}


# column of headers.parquet -> keyword; code strings, numbers, and the two texts that the profile of PS3.15 keeps
_CODES: Final[Mapping[str, str]] = {
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "laterality": "ImageLaterality",
    "view_raw": "ViewPosition",
    "orientation": "PatientOrientation",
    "photometric": "PhotometricInterpretation",
    "presentation_intent": "PresentationIntentType",
    "voi_function": "VOILUTFunction",
    "lossy": "LossyImageCompression",
}
# Where the standard names every value, another one is no code: it might be a name.
_TERMS: Final[Mapping[str, frozenset[str]]] = {
    "laterality": frozenset({"L", "R", "B", "U"}),
    "photometric": frozenset({
        "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422",
        "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "XYB",
    }),
    "presentation_intent": frozenset({"FOR PRESENTATION", "FOR PROCESSING"}),
    "voi_function": frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"}),
    "lossy": frozenset({"00", "01"}),
}  # fmt: skip
_NUMBERS: Final[Mapping[str, str]] = {
    "rows": "Rows",
    "columns": "Columns",
    "bits_stored": "BitsStored",
    "window_center": "WindowCenter",
    "window_width": "WindowWidth",
    "kvp": "KVP",
    "exposure_uas": "ExposureInuAs",
    "exposure_mas": "Exposure",
    "source_to_detector_mm": "DistanceSourceToDetector",
}
_WORDS: Final[Mapping[str, str]] = {"manufacturer": "Manufacturer", "model": "ManufacturerModelName"}


def is_no_image(dataset: Any) -> str:
    """The kind of DICOM object that is no image on purpose (a report, a presentation state); ``""`` for all else.

    A damaged image is not among them: its SOP class says that it is one.
    """
    try:
        uid = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
        kind = str(uid.name) if uid is not None and uid.name != str(uid) else ""
    except (AttributeError, ValueError):
        return ""
    return kind if kind and "Image" not in kind else ""


def _text(dataset: Any, keyword: str) -> str:
    try:
        value = dataset.get(keyword)
    except Exception:  # noqa: BLE001  # a damaged value raises whatever its bytes lead pydicom to
        return ""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    return "\\".join(str(part) for part in value) if hasattr(value, "__iter__") else str(value).strip()


def _number(dataset: Any, keyword: str) -> float | None:
    try:
        return float(_text(dataset, keyword).partition("\\")[0])
    except ValueError:
        return None


def _person(dataset: Any) -> dict[str, Any]:
    sex = _text(dataset, "PatientSex").upper()
    found = _AGE.fullmatch(_text(dataset, "PatientAge").upper())
    years = int(found[1]) * _YEARS[found[2]] if found else _age_by_dates(dataset)
    facts: dict[str, Any] = {"sex": sex if sex in ("M", "F") else None}
    if years is not None and 0 <= years <= 130:
        facts |= {"age_years": min(years, _OLDEST), "age_flag": "capped" if years >= _OLDEST else None}
    return facts


def _age_by_dates(dataset: Any) -> float | None:
    born, seen = _text(dataset, "PatientBirthDate"), _text(dataset, "StudyDate")
    if not (re.fullmatch(r"\d{8}", born) and re.fullmatch(r"\d{8}", seen)):
        return None
    return float(int(seen[:4]) - int(born[:4]) - (seen[4:] < born[4:]))
