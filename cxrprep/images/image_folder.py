"""A plain folder of images that is no known dataset: which files are images, and what each output is called."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from cxrprep.errors import CxrprepError
from cxrprep.images.dicom_file import is_dicom

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cxrprep.storage.filesystem import ImageStore, StoredFile

SUFFIXES: Final = frozenset({
    ".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".j2k", ".j2c", ".jxl", ".jls",
})  # fmt: skip
_SUFFIX: Final = re.compile(r"\.[a-z][a-z0-9_]{0,9}")
# What lies beside images and is never one; anything else without a known suffix is looked into.
NO_IMAGES: Final = frozenset({
    ".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".html", ".md", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".zip",
    ".gz", ".tar", ".tgz", ".7z", ".rar", ".parquet", ".feather", ".py", ".sh", ".log", ".lock", ".toml", ".yaml",
    ".yml", ".ini", ".inf", ".db", ".sqlite", ".npy", ".npz", ".h5", ".hdf5", ".pt", ".pth", ".pkl", ".exe", ".dll",
})  # fmt: skip
SYSTEM_FILES: Final = frozenset({"dicomdir", "thumbs.db", "desktop.ini"})
# The preamble and prefix of PS3.10 7.1.
_PREFIX: Final = 132
_TABLE: Final = "/manifests/images.parquet"


@dataclass(frozen=True, slots=True)
class PlainImages:
    """``images`` in order of name with the ``stem`` of each output; ``renamed`` are those whose plain stem was taken.

    ``left_out`` counts the files that are no images by their suffix (``""``: none). ``unusable`` are images whose names
    no output can have: they would leave the folder, or are no Unicode. ``made`` are the folders of converted images in
    it, which are passed over.
    """

    images: tuple[StoredFile, ...]
    stems: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, int], ...]
    unusable: tuple[str, ...] = ()
    made: tuple[str, ...] = ()

    def words(self) -> dict[str, int]:
        """How many files that are no images were passed over, by what they are called in results."""
        return {words_of(suffix): count for suffix, count in self.left_out}


def words_of(suffix: str) -> str:
    """What a file that is no image is called, by its suffix in lower case: ``.gif file``, or ``other file``."""
    return f"{suffix if _SUFFIX.fullmatch(suffix) else 'other'} file"


def is_hidden(parts: Iterable[str]) -> bool:
    """Whether a path below a folder is passed over without a word."""
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in parts)


def stem_of(name: str) -> str:
    """``name`` without the suffix of an image; a UID such as ``1.2.840.113`` has none and stays whole."""
    path = PurePosixPath(name)
    return name[: -len(path.suffix)] if path.suffix.lower() in SUFFIXES else name


def stems_of(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The stem of each output, all different, and the names whose own stem another file has too, with what they got.

    Files of one stem keep their whole names: ``a.dcm`` and ``a.png`` become ``a.dcm.png`` and ``a.png.png``. So an
    output's name never depends on the order of a listing.
    """
    stems = [stem_of(name) for name in names]
    while True:
        counted = Counter(stems)
        clashing = [i for i, stem in enumerate(stems) if counted[stem] > 1 and stem != names[i]]
        if not clashing:
            break
        for index in clashing:
            stems[index] = names[index]
    renamed = tuple(
        (name, stem) for name, stem in zip(names, stems, strict=True) if stem == name and stem_of(name) != name
    )
    return tuple(stems), renamed


def plain_images(place: ImageStore, *, without: Iterable[str] = ()) -> PlainImages:
    """The images of a folder. Files without a known suffix are looked into; ``without`` are folders to pass over.

    Raises the errors of ``ImageStore.list``.
    """
    passed = tuple(f"{folder.strip('/')}/" for folder in without)
    listed = [e for e in place.list() if not e.name.startswith(passed) and not is_hidden(e.name.split("/"))]
    made = made_below(place, [entry.name for entry in listed])
    images: list[StoredFile] = []
    others: Counter[str] = Counter()
    unusable: list[str] = []
    for entry in listed:
        parts = entry.name.split("/")
        if entry.name.startswith(made):
            continue
        suffix = PurePosixPath(entry.name).suffix.lower()
        if suffix in SUFFIXES or _is_dicom(place, entry, suffix):
            if _is_usable(entry.name, parts):
                images.append(entry)
            else:
                unusable.append(ascii(entry.name)[1:-1])
        else:
            others[suffix if _SUFFIX.fullmatch(suffix) else ""] += 1
    images.sort(key=lambda entry: entry.name)
    stems, renamed = stems_of([entry.name for entry in images])
    return PlainImages(tuple(images), stems, renamed, tuple(others.most_common()), tuple(sorted(unusable)), made)


def made_below(place: ImageStore, names: Iterable[str]) -> tuple[str, ...]:
    """The folders of converted images among the ``names`` in a folder, each with a slash: none of them is one's own."""
    from cxrprep.storage.parquet import footer_in

    def is_made(name: str) -> bool:
        with contextlib.suppress(CxrprepError), place.open(name) as file:
            return bool(footer_in(file).get("recipe"))
        return False

    return tuple(name.removesuffix(_TABLE[1:]) for name in names if name.endswith(_TABLE) and is_made(name))


def _is_usable(name: str, parts: list[str]) -> bool:
    """Whether a name may be a path below a folder here: an object store allows any text as a name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not any(part in ("", "..") for part in parts) and "\0" not in name and "\\" not in name


def _is_dicom(place: ImageStore, entry: StoredFile, suffix: str) -> bool:
    if suffix in NO_IMAGES or PurePosixPath(entry.name).name.lower() in SYSTEM_FILES or entry.size <= _PREFIX:
        return False
    head = place.head(entry.name, _PREFIX)
    return head is not None and is_dicom(head)
