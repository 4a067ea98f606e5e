"""Protected health information (PHI) in DICOM headers, for de-identification: tags, files, masked values.

What counts follows the Basic Application Level Confidentiality Profile (DICOM PS3.15 annex E): names of people, ids,
dates, places, devices, free text, private groups, and UIDs that link to another archive.
"""

from __future__ import annotations

import functools
import io
import re
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from cxrprep.errors import ImageError
from cxrprep.images.codec_headers import JPEG_MAGIC
from cxrprep.images.dicom_file import is_deflated, open_dicom
from cxrprep.images.local_files import open_store
from cxrprep.images.png_jpeg import PNG_MAGIC
from cxrprep.images.radiograph import DEFAULT_LIMITS, ImageLimits
from cxrprep.model import CONVERSION_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HEAD: Final = 1 << 18
_SHOWN: Final = 24
# The length of a sequence of items, bytes at the head of each, and the tag of the one that ends it.
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 8
_LAST_ITEM: Final = b"\xfe\xff\xdd\xe0"
# In the order in which a person should look at them.
KINDS: Final = {
    "person": "names a person",
    "id": "an id that a hospital gave",
    "burned in": "the header says that text stands in the pixels",
    "file name": "the path holds the patient's name or id",
    "place": "names an institution, an address or a device",
    "text": "free text, which may hold anything",
    "date": "a date or a time",
    "private": "private tags, which may hold anything",
    "uid": "a UID that links to another archive",
    "listed": "PS3.15, table E.1-1 removes or replaces it",
}
_LIST: Final = Path(__file__).with_name("phi_tags.txt")
_PLACES: Final = re.compile(
    r"Institution|Address|Telephone|Station(Name)?$|Department|DeviceSerialNumber|DeviceUID|Detector(ID)$|"
    r"PlateID|CassetteID|GantryID|Country|Region|CurrentPatientLocation|ResidentialState|Insurance|NetworkID"
)
_IDS: Final = re.compile(
    r"^(PatientID|OtherPatient|IssuerOf|AccessionNumber|StudyID|AdmissionID|ServiceEpisodeID|MedicalRecordLocator|"
    r"PlacerOrder|FillerOrder|RequestedProcedureID|ScheduledProcedureStepID|PerformedProcedureStepID|MilitaryRank|"
    r"ResponsibleOrganization|PatientSexNeutered|EthnicGroup|Occupation|BranchOfService)"
)
_TEXTS: Final = re.compile(
    r"Comments?$|Description$|History|AdditionalPatientHistory|Allergies|MedicalAlerts|SpecialNeeds|PregnancyStatus|"
    r"ReasonFor|RequestingService|ReferringPhysician|ProtocolName|PatientState|SmokingStatus|DiagnosesDescription|"
    r"PatientReligiousPreference|InterpretationText|ContextGroup|ContentCreator|TextValue|TextString"
)
_NOT_UIDS: Final = re.compile(r"SOPClassUID|TransferSyntaxUID|ImplementationClassUID|CodingScheme|MappingResource")
_PEOPLE: Final = re.compile(r"Physician|Operator|Person|Reviewer|PatientName|PatientBirthName|MotherBirthName|Observer")


@dataclass(frozen=True, slots=True)
class Suspect:
    """A tag of one file: ``tag`` as (gggg,eeee), its keyword, why it is suspect (of ``KINDS``), and a masked value.

    ``creator`` is whose private tag it is: a name where it is a known one, else masked.
    """

    tag: str
    keyword: str
    kind: str
    masked: str
    creator: str = ""


@dataclass(frozen=True, slots=True)
class TagScan:
    """One file: its suspects, or why it could not be read."""

    name: str
    suspects: tuple[Suspect, ...] = ()
    error: str = ""


def mask(value: Any) -> str:
    """The shape of a value: letters become x, digits 9, so ``DOE^JANE`` is ``xxx^xxxx`` and a blank stays one."""
    text = re.sub(r"\d", "9", re.sub(r"[^\W\d_]", "x", str(value)))
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def scan_tags(names: Sequence[tuple[str, str]], *, limits: ImageLimits = DEFAULT_LIMITS) -> list[TagScan]:
    """The suspects of files given as (folder, name); a function of a batch, for an engine.

    A file that inflates to more than ``limits`` is not read.
    """
    with warnings.catch_warnings():
        # What pydicom says of odd values quotes them.
        warnings.simplefilter("ignore")
        return [_scan_file(folder, name, limits) for folder, name in names]


def _scan_file(folder: str, name: str, limits: ImageLimits) -> TagScan:
    import pydicom

    place = open_store(folder)
    try:
        head = place.head(name, _HEAD)
        if head is None:
            return TagScan(name, error="the file is gone or cannot be read")
        if head[:8] == PNG_MAGIC or head[:3] == JPEG_MAGIC:
            return TagScan(name, tuple(_in_picture(head)))
        behind: tuple[Suspect, ...] = ()
        problem = ""
        if is_deflated(head):
            dataset = open_dicom(place.read(name, limits), name, limits).dataset
        else:
            with place.open(name) as file:
                dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
                try:
                    behind = tuple(_in_dataset(_behind_pixels(file, dataset)))
                except Exception as error:  # noqa: BLE001  # as below
                    problem = f"what follows the pixels cannot be read ({type(error).__name__})"
        found = (*_in_dataset(dataset), *behind)
        return TagScan(name, (*found, *_in_name(name, dataset)), problem)
    except ImageError as error:
        return TagScan(name, error=error.message)
    except Exception as error:  # noqa: BLE001  # damaged headers raise whatever their bytes lead pydicom to
        # Its words may quote the value that it could not read.
        return TagScan(name, error=f"the header cannot be read ({type(error).__name__})")


def _behind_pixels(file: BinaryIO, dataset: Any) -> Any:
    """What stands behind the pixels, which are passed over: groups of vendors, signatures, padding."""
    from pydicom.filereader import read_dataset

    implicit, little = dataset.original_encoding
    order = "<" if little else ">"
    head = file.read(8 if implicit else 12)
    if len(head) < (8 if implicit else 12):
        return ()
    (length,) = struct.unpack(f"{order}L", head[-4:])
    if length != _UNDEFINED:
        file.seek(length, io.SEEK_CUR)
    else:
        # Items until one that ends the sequence.
        while len(item := file.read(8)) == _ITEM and item[:4] != _LAST_ITEM:
            file.seek(struct.unpack("<L", item[4:])[0], io.SEEK_CUR)
    return read_dataset(file, implicit, little)


def _in_dataset(dataset: Any, depth: int = 0) -> Iterator[Suspect]:
    meta = getattr(dataset, "file_meta", None) if depth == 0 else None
    for part in (meta, dataset):
        for element in part or ():
            if element.VR == "SQ":
                if element.value and _is_listed(element.tag.group, element.tag.element):
                    count = f"({len(element.value)} items)"
                    yield Suspect(str(element.tag), element.keyword, "listed", count)
                if depth < 8:
                    for item in element.value or ():
                        yield from _in_dataset(item, depth + 1)
                continue
            kind = _kind(element)
            if kind and element.value not in (None, "", b"", []):
                value = element.value if kind != "private" or element.VR not in ("OB", "OW", "UN") else "(binary)"
                creator = _creator(element) if kind == "private" else ""
                yield Suspect(str(element.tag), element.keyword or "(private)", kind, mask(value), creator)


def _creator(element: Any) -> str:
    """Whose private tag it is. A name that no vendor is known by may be the hospital's own."""
    from pydicom.datadict import private_dictionaries  # type: ignore[attr-defined]  # the only list of vendors there is

    name = str(element.private_creator or "").strip()
    return name if name in private_dictionaries else mask(name)


def _kind(element: Any) -> str:
    """Why an element is suspect, a key of ``KINDS``; ``""`` when it is not."""
    keyword, vr = element.keyword, element.VR
    if element.tag.is_private:
        return "" if element.tag.is_private_creator else "private"
    if keyword == "BurnedInAnnotation":
        return "burned in" if str(element.value).strip().upper() == "YES" else ""
    if vr == "PN" or _PEOPLE.search(keyword):
        return "person"
    if vr in ("DA", "DT", "TM"):
        return "date"
    if _IDS.search(keyword):
        return "id"
    if vr == "UI":
        return "" if _NOT_UIDS.search(keyword) else "uid"
    if _PLACES.search(keyword):
        return "place"
    if _TEXTS.search(keyword) or vr in ("LT", "ST", "UT"):
        return "text"
    return "listed" if _is_listed(element.tag.group, element.tag.element) else ""


@functools.cache
def _listed() -> tuple[frozenset[str], re.Pattern[str]]:
    """The tags of table E.1-1 as eight digits, and a pattern for those that stand for many."""
    lines = [line for line in _LIST.read_text(encoding="ascii").splitlines() if not line.startswith("#")]
    every = [group + element for group, _, rest in (line.partition(": ") for line in lines) for element in rest.split()]
    many = "|".join(tag.replace("x", "[0-9a-f]") for tag in every if "x" in tag)
    return frozenset(tag for tag in every if "x" not in tag), re.compile(many)


# measured: 1 -> 0.07 us an element of a file.
@functools.lru_cache(maxsize=4096)
def _is_listed(group: int, element: int) -> bool:
    tag = f"{group:04x}{element:04x}"
    plain, many = _listed()
    return tag in plain or many.fullmatch(tag) is not None


def _in_name(name: str, dataset: Any) -> Iterator[Suspect]:
    """The patient's name or id in the path: it would be carried into the names of the outputs."""
    words = set(re.findall(r"[^\W_]+", str(PurePosixPath(name)).lower()))
    for keyword in ("PatientName", "PatientID", "AccessionNumber"):
        value = str(dataset.get(keyword) or "").lower()
        parts = {part for part in re.findall(r"[^\W_]+", value) if len(part) >= 4}
        if parts & words:
            yield Suspect("path", f"{keyword} in the path", "file name", mask(value))


def _in_picture(head: bytes) -> Iterator[Suspect]:
    """Text and EXIF of PNG and JPEG; outputs never carry it on."""
    if head[:8] == PNG_MAGIC:
        for word in (b"tEXt", b"iTXt", b"zTXt", b"eXIf"):
            at = head.find(word)
            if at > 0:
                key = head[at + 4 :].split(b"\0", 1)[0][:40].decode("latin-1") if word != b"eXIf" else "EXIF"
                yield Suspect(word.decode(), f"PNG text {key!r}" if word != b"eXIf" else "EXIF", "text", "")
        return
    if b"Exif\0\0" in head[:4096]:
        yield Suspect("APP1", "EXIF", "text", "")
    if b"http://ns.adobe.com/xap/" in head[:8192]:
        yield Suspect("APP1", "XMP", "text", "")
    at = head.find(b"\xff\xfe", 2, 8192)
    if at > 0 and head[at + 4 : at + 11] != CONVERSION_KEY:
        yield Suspect("COM", "JPEG comment", "text", "")
