"""Paths of a dataset that is described by its file: one regular expression finds ids in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from cxrprep.model import ImageId

if TYPE_CHECKING:
    from cxrprep.datasets.declaration import Declaration


@dataclass(frozen=True, slots=True)
class DeclaredLayout:
    """The mapping between keys, ids and release paths, as ``[paths]`` states it."""

    pattern: re.Pattern[str]
    template: str
    tables: tuple[str, ...]

    def parse(self, key: str) -> ImageId | None:
        """The ids in an image's path; a patient that the path does not name is the image itself."""
        found = self.pattern.search(key)
        if found is None:
            return None
        groups = found.groupdict()
        image = groups["id"]
        return ImageId(patient=groups.get("patient") or image, study=groups.get("study") or image, image=image)

    def shows_image(self, key: str) -> bool:
        """Whether the key is an image's."""
        return self.pattern.search(key) is not None

    def key(self, image: ImageId, *, release: str) -> str:
        """The release path by the template; without one, the image's id."""
        del release
        values = {"id": image.image, "patient": image.patient, "study": image.study}
        return self.template.format_map(values) if self.template else image.image

    def place(self, key: str, *, release: str) -> str | None:
        """The path as it is, for images and for the tables that are declared."""
        del release
        name = key.lower()
        bare = name.rsplit("/", 1)[-1].removesuffix(".gz").removesuffix(".zip")
        known = any(fnmatchcase(word, pattern) for pattern in self.tables for word in (name, bare))
        return key if known or self.shows_image(key) else None

    def recognise(self, names: frozenset[str]) -> float:
        """Sure by a table of a name of its own and images beside it; less sure by images alone."""
        if not names:
            return 0.0
        images = sum(1 for name in names if self.shows_image(name)) / len(names)
        tables = any(self.place(name, release="") and not self.shows_image(name) for name in names)
        return min(0.95, 0.6 * images + (0.35 if tables else 0.0))


def layout_of(declaration: Declaration) -> DeclaredLayout:
    """The layout that a declaration states."""
    patterns = tuple(
        spelled
        for table in declaration.table
        for pattern in table.patterns
        for spelled in (pattern.lower(), pattern.lower().rsplit("/", 1)[-1].removesuffix(".gz"))
    )
    return DeclaredLayout(re.compile(declaration.paths.image, re.ASCII), declaration.paths.place, patterns)


def layout(name: str, release: str) -> DeclaredLayout:
    """The layout of a dataset of the catalog that is described by its file."""
    del release
    from cxrprep.datasets.catalog import declaration_of

    return layout_of(declaration_of(name))
