"""Images of one's own as they lie in their folder: size, digest, and what their headers say, without identities."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import ImageError, StorageError
from cxrprep.images import dicom
from cxrprep.images.decode import header_of
from cxrprep.images.dicom_metadata import header_facts, is_no_image
from cxrprep.images.image_folder import NO_IMAGES, SUFFIXES, SYSTEM_FILES, plain_images
from cxrprep.images.local_files import LocalStore
from cxrprep.images.radiograph import DEFAULT_LIMITS, ImageLimits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cxrprep.images.dicom_metadata import Pseudonyms
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


def own_images(root: Path, pseudonyms: Pseudonyms, limits: ImageLimits = DEFAULT_LIMITS) -> Iterator[OwnImage]:
    """Every image of a folder in order of path; DICOM objects that are no images are left out.

    One that is damaged is an image all the same: its bytes are known, and not more. Raises ``StorageError``.
    """
    for entry in plain_images(LocalStore(str(root)), without=("manifests", "derived", "export")).images:
        found = _own_image(root, entry, pseudonyms, limits)
        if found is not None:
            yield found


def is_own_image(path: Path) -> bool:
    """Whether a file is an image, by its name and its header, and no report or presentation state."""
    suffix = path.suffix.lower()
    if path.name.startswith(".") or suffix in NO_IMAGES or path.name.lower() in SYSTEM_FILES:
        return False
    store = LocalStore(str(path.parent))
    try:
        if suffix not in SUFFIXES:
            head = store.head(path.name, _HEAD)
            if head is not None and not dicom.is_dicom(head):
                return False
        data = store.read(path.name)
        return not is_no_image(dicom.open_dicom(data, str(path)).dataset) if dicom.is_named(data, str(path)) else True
    except (StorageError, ImageError):
        return True


def _own_image(root: Path, entry: StoredFile, pseudonyms: Pseudonyms, limits: ImageLimits) -> OwnImage | None:
    store, name = LocalStore(str(root)), entry.name
    try:
        data = store.read(name, limits)
    except ImageError:
        # Past the limit of one image: it is here, and nobody read it.
        return OwnImage(name, entry.size, "") if store.version_tag(name) is not None else None
    about: dict[str, Any] = {}
    named = dicom.is_named(data, name)
    if named:
        try:
            dataset = dicom.open_dicom(data, name, limits).dataset
        except ImageError:
            dataset = None
        if dataset is not None and is_no_image(dataset):
            return None
        about = {} if dataset is None else header_facts(dataset, pseudonyms)
    width, height, mode = header_of(io.BytesIO(data), name) or (None, None, "")
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return OwnImage(name, len(data), digest, width, height, mode, about, named)
