"""Paths of a dataset that is described by its file: one regular expression finds ids in them."""

from __future__ import annotations

import string
import unicodedata
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

from cxrprep.datasets.catalog import declaration_of, is_built_in
from cxrprep.datasets.declaration import MANY_FILES, Declaration, PathRule
from cxrprep.datasets.facts import unpacked_name, whole_table
from cxrprep.datasets.patterns import compiled
from cxrprep.model import ImageId

if TYPE_CHECKING:
    import re
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class DeclaredLayout:
    """The mapping between keys, ids and release paths, as ``[paths]`` states it."""

    find: Callable[[str], re.Match[str] | None]
    rule: PathRule
    suffix: str
    """That of an image of which no path says it."""
    tables: tuple[str, ...]
    sets: tuple[str, ...] = ()
    """Patterns of tables that are many files: they are told from others by their folder."""
    archives: frozenset[str] = frozenset()
    """Names of archives of images."""

    def parse(self, key: str) -> ImageId | None:
        """The ids in an image's path; a patient that the path does not name is the image itself."""
        found = self._found(key)
        if found is None:
            return None
        # A Mac writes names of files with their accents apart, tables have them together.
        groups = {name: text and unicodedata.normalize("NFC", text) for name, text in found.groupdict().items()}
        image = groups["id"]
        return ImageId(patient=groups.get("patient") or image, study=groups.get("study") or image, image=image)

    def _found(self, key: str) -> re.Match[str] | None:
        # RE2 wants UTF-8, and a name on a disk may be none.
        return self.find(key if key.isascii() else key.encode(errors="surrogateescape").decode(errors="replace"))

    def shows_image(self, key: str) -> bool:
        """Whether the key is an image's."""
        return self._found(key) is not None

    def key(self, image: ImageId, *, release: str) -> str:
        """The release path by the template; without one, or where ids alone do not fill it, the image's id."""
        del release
        values = {"id": image.image, "patient": image.patient, "study": image.study, "suffix": self.suffix}
        fields = {field for _, field, _, _ in string.Formatter().parse(self.rule.place)} - {None}
        return self.rule.place.format_map(values) if fields and fields <= {*values} else image.image

    def place(self, key: str, *, release: str) -> str | None:
        """An image's path by the template, or from where the pattern begins; any other file's as the rule says."""
        del release
        found = self._found(key)
        if found is not None:
            if self.rule.place:
                return self.rule.place.format_map({name: text or "" for name, text in found.groupdict().items()})
            begins = found.start()
            return key[begins:].lstrip("/") if begins == 0 or key[begins] == "/" else key
        for form in self.rule.files:
            end = "/".join(key.split("/")[-1 - form.count("/") :])
            if fnmatchcase(end.lower(), form.lower()):
                return form if end.lower() == form.lower() else end
        return key if self._is_table(key) else None

    def _is_table(self, key: str) -> bool:
        name = whole_table(key.lower())
        spelled = (name, name.rsplit("/", 1)[-1])
        one = any(fnmatchcase(unpacked_name(word, pattern), pattern) for pattern in self.tables for word in spelled)
        return one or any(fnmatchcase(name, form) for pattern in self.sets for form in (pattern, f"*/{pattern}"))

    def recognise(self, names: frozenset[str]) -> float:
        """Sure by names that only it has, nearly so by tables and images beside them; less sure by images alone."""
        bare = {name: name.rsplit("/", 1)[-1] for name in names}
        if any(fnmatchcase(name.lower(), form.lower()) for form in self.rule.sure for name in bare.values()):
            return 1.0
        images = [name for name in names if self.shows_image(name) or bare[name] in self.archives]
        if not images:
            return 0.0
        tables = [name for name in names.difference(images) if self._is_table(name)]
        known = (len(images) + len(tables)) / len(names)
        alone = 0.8 * len(images) / len(names)
        return max(alone, min(0.95, 0.6 * known + (0.35 if tables or self.sets else 0.0)))


def layout_of(declaration: Declaration) -> DeclaredLayout:
    """The layout that a declaration states. Raises ``ConfigError`` for a pattern that RE2 does not know."""
    patterns = tuple(
        spelled
        for table in declaration.table
        if table.form not in MANY_FILES
        for pattern in table.patterns
        for spelled in (pattern.lower(), pattern.lower().rsplit("/", 1)[-1].removesuffix(".gz"))
    )
    sets = tuple(p.lower() for table in declaration.table if table.form in MANY_FILES for p in table.patterns)
    # A plan asks for a key's place, and then for its ids. measured: 10 -> 7 us a key.
    find = lru_cache(maxsize=1)(compiled(declaration.paths.image, built_in=is_built_in(declaration.name)).search)
    archives = frozenset(file.path for file in declaration.file if file.kind == "archive")
    suffix = declaration.images.suffixes[0].removeprefix(".")
    return DeclaredLayout(find, declaration.paths, suffix, patterns, sets, archives)


def layout(name: str, release: str) -> DeclaredLayout:
    """The layout of a dataset of the catalog that is described by its file."""
    del release
    return layout_of(declaration_of(name))
