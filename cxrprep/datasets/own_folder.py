"""A folder of one's own images, which no catalog knows: every path is its own image, study and patient."""

from __future__ import annotations

from typing import Final

from cxrprep.datasets.facts import DatasetSpec, ImageFacts, Licence
from cxrprep.model import ImageId

NAME: Final = "folder"
UNLISTED: Final = "unlisted"
"""What stands as dataset and release in the labels of a folder that is no known dataset."""
SUFFIXES: Final = (".dcm", ".dicom", ".png", ".jpg", ".jpeg")
_NOT_OURS: Final = ("manifests/", "derived/", "export/")


def dataset_words(name: str, release: str = "") -> str:
    """A dataset and its release as people read them; of a folder that no catalog knows, whose images it holds."""
    return "images of your own" if name == NAME else f"{name} {release}".strip()


class OwnLayout:
    """Paths as they are; whose image one shows, only a DICOM header may tell."""

    def parse(self, key: str) -> ImageId | None:
        """The path itself as every id; ``None`` for what is no image by its suffix."""
        return ImageId(key, key, key) if self.shows_image(key) else None

    def shows_image(self, key: str) -> bool:
        """Whether the suffix is that of an image, and the path is none of our own folders."""
        return key.lower().endswith(SUFFIXES) and not key.startswith(_NOT_OURS)

    def key(self, image: ImageId, *, release: str) -> str:
        """The path, which is the id."""
        del release
        return image.image

    def place(self, key: str, *, release: str) -> str | None:
        """The path, for images; nothing else belongs to the folder."""
        del release
        return key if self.shows_image(key) else None

    def recognise(self, names: frozenset[str]) -> float:
        """Nothing recognises it: it is what is left when no dataset does."""
        del names
        return 0.0


def layout(name: str, release: str) -> OwnLayout:
    """The layout, which is one for all such folders."""
    del name, release
    return OwnLayout()


OWN_FOLDER: Final = DatasetSpec(
    name=NAME,
    title="A folder of your own",
    summary="Images that belong to no published release.",
    module="own_folder",
    releases=("",),
    default_release="",
    licence=Licence(""),
    images=ImageFacts(suffixes=SUFFIXES, formats=("DICOM", "PNG", "JPEG")),
)
"""The facts of such a folder: none. Its name is what converted images of it carry as their dataset."""
