"""Paths of a dataset that is described by its file: one regular expression finds ids in them."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from cxrprep.datasets.declaration import MANY_FILES
from cxrprep.datasets.patterns import compiled
from cxrprep.model import ImageId

if TYPE_CHECKING:
    import re

    from cxrprep.datasets.declaration import Declaration


@dataclass(frozen=True, slots=True)
class DeclaredLayout:
    """The mapping between keys, ids and release paths, as ``[paths]`` states it."""

    pattern: re.Pattern[str]
    template: str
    tables: tuple[str, ...]
    sets: tuple[str, ...] = ()
    """Patterns of tables that are many files: they are told from others by their folder."""

    def parse(self, key: str) -> ImageId | None:
        """The ids in an image's path; a patient that the path does not name is the image itself."""
        found = self._found(key)
        if found is None:
            return None
        groups = found.groupdict()
        image = groups["id"]
        return ImageId(patient=groups.get("patient") or image, study=groups.get("study") or image, image=image)

    def _found(self, key: str) -> re.Match[str] | None:
        # RE2 wants UTF-8, and a name on a disk may be none.
        return self.pattern.search(
            key if key.isascii() else key.encode(errors="surrogateescape").decode(errors="replace")
        )

    def shows_image(self, key: str) -> bool:
        """Whether the key is an image's."""
        return self._found(key) is not None

    def key(self, image: ImageId, *, release: str) -> str:
        """The release path by the template; without one, the image's id."""
        del release
        values = {"id": image.image, "patient": image.patient, "study": image.study}
        return self.template.format_map(values) if self.template else image.image

    def place(self, key: str, *, release: str) -> str | None:
        """An image's path by the template, or from where the pattern begins; a declared table's as it is."""
        del release
        found = self._found(key)
        if found is not None:
            if self.template:
                return self.template.format_map({name: text or "" for name, text in found.groupdict().items()})
            begins = found.start()
            return key[begins:].lstrip("/") if begins == 0 or key[begins] == "/" else key
        return key if self._is_table(key) else None

    def _is_table(self, key: str) -> bool:
        name = key.lower()
        words = (name, *(name[: -len(end)] for end in (".gz", ".zip") if name.endswith(end)))
        spelled = [word for one in words for word in (one, one.rsplit("/", 1)[-1])]
        one = any(fnmatchcase(word, pattern) for pattern in self.tables for word in spelled)
        return one or any(fnmatchcase(name, form) for pattern in self.sets for form in (pattern, f"*/{pattern}"))

    def recognise(self, names: frozenset[str]) -> float:
        """Sure by tables of its own and images beside them; less sure by images alone."""
        images = [name for name in names if self.shows_image(name)]
        if not images:
            return 0.0
        tables = [name for name in names.difference(images) if self._is_table(name)]
        known = (len(images) + len(tables)) / len(names)
        return min(0.95, 0.6 * known + (0.35 if tables or self.sets else 0.0))


def layout_of(declaration: Declaration) -> DeclaredLayout:
    """The layout that a declaration states. Raises ``ConfigError`` for a pattern that RE2 does not know."""
    from cxrprep.datasets.catalog import is_built_in

    patterns = tuple(
        spelled
        for table in declaration.table
        if table.form not in MANY_FILES
        for pattern in table.patterns
        for spelled in (pattern.lower(), pattern.lower().rsplit("/", 1)[-1].removesuffix(".gz"))
    )
    sets = tuple(p.lower() for table in declaration.table if table.form in MANY_FILES for p in table.patterns)
    pattern = compiled(declaration.paths.image, built_in=is_built_in(declaration.name))
    return DeclaredLayout(pattern, declaration.paths.place, patterns, sets)


def layout(name: str, release: str) -> DeclaredLayout:
    """The layout of a dataset of the catalog that is described by its file."""
    del release
    from cxrprep.datasets.catalog import declaration_of

    return layout_of(declaration_of(name))
