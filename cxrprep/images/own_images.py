"""Images of one's own as they lie in their folder: size, digest, and what their headers say, without identities."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from cxrprep.digests import digest_of
from cxrprep.errors import ImageError, StorageError
from cxrprep.images import dicom_file
from cxrprep.images.decode import header_of
from cxrprep.images.dicom_metadata import Pseudonyms, header_facts, is_no_image
from cxrprep.images.image_folder import NO_IMAGES, SUFFIXES, SYSTEM_FILES, is_hidden, plain_images, words_of
from cxrprep.images.local_files import LocalStore
from cxrprep.images.radiograph import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cxrprep.storage.filesystem import StoredFile


_HEAD: Final = 132


@dataclass(frozen=True, slots=True)
class OwnImage:
    """One file: ``path`` below the folder, ``size`` in bytes, ``width`` and ``height`` in pixels where they are known.

    ``about`` is what its header says: see ``cxrprep.images.dicom_metadata``; ``is_dicom`` that it has one.
    """

    path: str
    size: int
    digest: str
    width: int | None = None
    height: int | None = None
    mode: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    is_dicom: bool = False


def own_images(root: Path, pseudonyms: Pseudonyms, *, left_out: Counter[str] | None = None) -> Iterator[OwnImage]:
    """Every image of a folder in order of path; DICOM objects that are no images are left out.

    One that is damaged is an image all the same: its bytes are known, and not more.

    Args:
        root: The folder.
        pseudonyms: The key by which ids are replaced.
        left_out: Counts what is no image: files by suffix, DICOM objects by kind, in the words of ``convert``.

    Yields:
        The images.

    Raises:
        StorageError: The folder cannot be read.
    """
    left_out = Counter() if left_out is None else left_out
    found = plain_images(LocalStore(str(root)), without=("manifests", "derived", "export"))
    left_out.update(found.words())
    for entry in found.images:
        image = _own_image(root, entry, pseudonyms)
        if isinstance(image, str):
            left_out[image] += 1
        elif image is not None:
            yield image


def left_out_as(root: Path, name: str) -> str | None:
    """What the file ``name`` of a folder is called that is no image; ``""`` for a hidden one, ``None`` for an image."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if is_hidden(name.split("/")):
        return ""
    if suffix not in SUFFIXES and (suffix in NO_IMAGES or path.name.lower() in SYSTEM_FILES):
        return words_of(suffix)
    store = LocalStore(str(root))
    try:
        if suffix not in SUFFIXES:
            head = store.head(name, _HEAD)
            if head is not None and not dicom_file.is_dicom(head):
                return words_of(suffix)
        data = store.read(name)
        named = dicom_file.is_named(data, name)
        return (is_no_image(dicom_file.open_dicom(data, name).dataset) or None) if named else None
    except (StorageError, ImageError):
        return None


def _own_image(root: Path, entry: StoredFile, pseudonyms: Pseudonyms) -> OwnImage | str | None:
    """The image, or the kind of DICOM object that it is instead; ``None`` for a file that went meanwhile."""
    store, name = LocalStore(str(root)), entry.name
    try:
        data = store.read(name, DEFAULT_LIMITS)
    except ImageError:
        # Past the limit of one image: it is here, and nobody read it.
        return OwnImage(name, entry.size, "") if store.version_tag(name) is not None else None
    about: dict[str, Any] = {}
    named = dicom_file.is_named(data, name)
    if named:
        try:
            dataset = dicom_file.open_dicom(data, name).dataset
        except ImageError:
            dataset = None
        if dataset is not None and (kind := is_no_image(dataset)):
            return kind
        about = {} if dataset is None else header_facts(dataset, pseudonyms)
    width, height, mode = header_of(io.BytesIO(data), name) or (None, None, "")
    return OwnImage(name, len(data), str(digest_of(data)), width, height, mode, about, named)
