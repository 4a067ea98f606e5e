"""Facts of a dataset as frozen dataclasses: releases, parts, mirrors, files, tables, published numbers, quirks.

What is wrong with a dataset's TOML is said with file and line, all of it at once.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import types
import typing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cxrprep.config.toml import TomlText, type_problem
from cxrprep.model import Digest, RemoteFile

if TYPE_CHECKING:
    from cxrprep.datasets.layout import Layout

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Licence:
    """Under which terms a dataset is given; ``name`` is the SPDX identifier where one exists."""

    name: str
    url: str = ""
    agreement: str = ""


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file that the publisher describes: its release path, and what is stated of it.

    ``digest`` as ``"md5:..."``; ``size`` in bytes; ``id`` is the service's own handle (a Box link's hash).
    ``images`` is how many images an archive holds. ``optional`` files are fetched when the mirror has them.
    """

    path: str
    kind: str = "table"
    size: int | None = None
    digest: str | None = None
    id: str = ""
    images: int | None = None
    releases: tuple[str, ...] = ()
    optional: bool = False

    def remote(self) -> RemoteFile:
        """The same as a listing would yield it."""
        return RemoteFile(self.path, self.size, Digest.parse(self.digest) if self.digest else None)


@dataclass(frozen=True, slots=True)
class Part:
    """A portion of a release that users think of as one thing: images, tables, reports, boxes.

    ``globs`` are gitignore-style patterns on release paths.
    """

    name: str
    globs: tuple[str, ...]
    title: str = ""
    size: int | None = None
    files: int | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """A place that serves a release. ``url`` is a string that ``api`` turns into a source.

    ``access`` is open, account, agreement or payer; ``how`` says how to get it. ``keys`` is the form of its keys:
    ``archives`` when images come inside archives, else ``files``. ``tables`` names the mirror that has the label tables
    where this one has images alone. ``connections`` is the most at once that is polite
    there; how many are used is found by what they bring.
    """

    name: str
    url: str
    release: str
    access: str = "open"
    how: str = ""
    keys: str = "files"
    size: int | None = None
    connections: int = 8
    ranges: int = 1
    costs: str = ""
    agreement: str = ""
    sums: str = ""
    tables: str = ""
    settings: dict[str, str] = dataclasses.field(default_factory=dict)

    def source_settings(self) -> dict[str, str]:
        """What its source is told of it."""
        stated = {name: str(getattr(self, name)) for name in ("access", "agreement", "costs", "how", "ranges", "sums")}
        return {**self.settings, **stated, "mirror": self.name}


@dataclass(frozen=True, slots=True)
class Fact:
    """A number that a paper or a release page states, and where.

    ``measure`` names what is counted (see ``verify``); ``value`` is what must come out. ``level`` is error, warning or
    info. ``release`` limits it to one release, ``table`` to one table. ``note`` explains a known difference.
    """

    id: str
    measure: str
    value: Any
    source: str
    level: str = "error"
    release: str = ""
    table: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Quirk:
    """What is known to be odd about some files of a release, and is not damage.

    ``kind`` names the finding that it excuses (``mode-rgba``, ``upstream-mismatch``); ``paths`` are the release paths
    concerned, or globs of them; ``mirror`` limits it to one mirror.
    """

    id: str
    kind: str
    note: str
    source: str = ""
    paths: tuple[str, ...] = ()
    release: str = ""
    mirror: str = ""

    def concerns(self, path: str, release: str) -> bool:
        """Whether it is one of this file of a release; without paths it is one of all of them."""
        return self.release in ("", release) and (not self.paths or any(fnmatchcase(path, one) for one in self.paths))


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the release's images are: suffixes, formats, and width and height in pixels where they are constant."""

    suffixes: tuple[str, ...]
    formats: tuple[str, ...] = ()
    width: int | None = None
    height: int | None = None
    bits: int | None = None
    modes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A label table of the release.

    ``role`` is what it is for (labels, boxes, split, metadata, ...); ``patterns`` are globs of the names that it has in
    the wild, best first; ``label_source`` names whose labels it holds.
    """

    name: str
    role: str
    patterns: tuple[str, ...]
    release: str = ""
    label_source: str = ""
    title: str = ""
    sha256: tuple[str, ...] = ()
    settings: dict[str, str] = dataclasses.field(default_factory=dict)

    def is_named(self, key: str) -> bool:
        """Whether a file of this name is taken for the table: in any case of letters, packed or not."""
        return any(_is_named(key.lower(), pattern.lower()) for pattern in self.patterns)


def _is_named(key: str, pattern: str) -> bool:
    """Whether a pattern means a key: its name, and the folder where the pattern names one."""
    folder, _, name = whole_table(key).rpartition("/")
    inside, _, wanted = pattern.rpartition("/")
    if inside and not fnmatchcase(f"/{folder}", f"*/{inside}"):
        return False
    return fnmatchcase(unpacked_name(name, wanted), wanted)


RESAVED: Final = ("parquet", "pq", "feather", "arrow", "xlsx", "tsv", "xls", "ods")
"""What the name of a table ends in that was saved again in another form: read all the same, or refused by its form."""
# Windows hides the ending of a name, and what is saved as labels.csv there becomes labels.csv.txt.
_PACKED: Final = re.compile(r"(\.(gz|zip|xz|bz2|zst)|(?<=\.[ct]sv)\.txt)+$")
COPY: Final = re.compile(
    r"^(?:copy of|copie de|copia de|kopie von) |(?: -)? (?:copy|copie|copia|kopie)(?: \d+)?(?=[ .])| *\(\d+\)(?=\.|$)"
    r"|(?<=\.(?:csv|tsv|txt))\.\d+$|(?<=\.gz)\.\d+$| +(?=\.)| +$"
)
"""What browsers, desktops and ``wget`` add to the name of a file that is there already; blanks. In lower case."""
PART_FILE: Final = re.compile(r"part[-.]?(\d+)[^/]*$|(\d+)\.part$|(?:[^/=]+=[^/]*/)+(?![._])[^/=]+$", re.IGNORECASE)
"""The files that Spark and Dask write a table as, in a folder that has the table's name, and in folders of columns."""
_COLUMNS: Final = re.compile(r"(?:/[^/=]+=[^/]*)+$")  # split=train: a column and what it says
_BESIDE_PARTS: Final = re.compile(r"\.\w.*\.crc|_success|_(common_)?metadata", re.IGNORECASE)


def whole_table(key: str) -> str:
    """What a key is a part of: the folder that Spark or Dask wrote a table into; else the key itself."""
    inner, _, name = key.rpartition("/")
    folder = _COLUMNS.sub("", inner)
    is_part = folder != inner or PART_FILE.match(name) or _BESIDE_PARTS.fullmatch(name)
    return folder if "." in folder and is_part else key


def unpacked_name(file: str, pattern: str) -> str:
    """The name of what a file holds: Kaggle packs a table of its own accord, and keeps the name before ``.zip``.

    Both in lower case; a pattern that has a suffix of a packed file means that file. A table that is published as CSV
    may have been saved again as Parquet, as JSON or as a workbook, and may be a copy of a file that was there already.
    """
    file = file if COPY.search(pattern) else COPY.sub("", file)
    stem, _, end = _PACKED.sub("", file).rpartition(".")
    name = _PACKED.sub("", pattern)
    if stem and end in (*RESAVED, "json", "jsonl", "ndjson") and name.endswith(".csv"):
        return f"{stem}.csv{pattern.removeprefix(name)}"
    return file if name != pattern else _PACKED.sub("", file)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """What a dataset's file says of it, but for its tables and their words.

    ``published`` is the day or year of each release. ``companion`` names the dataset whose label tables say what this
    one's do not (MIMIC-CXR-JPG's, for MIMIC-CXR); a file without ``[[table]]`` has those of that one, if built in.
    """

    name: str
    title: str
    summary: str
    releases: tuple[str, ...]
    default_release: str
    module: str = "declared"
    default_mirror: str = ""
    default_label_source: str = ""
    homepage: str = ""
    citation: str = ""
    bibtex: str = ""
    aliases: tuple[str, ...] = ()
    companion: str = ""
    licence: Licence = Licence("LicenseRef-unknown")
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    published: dict[str, str] = dataclasses.field(default_factory=dict)
    images: ImageFacts = ImageFacts((".png", ".jpg", ".jpeg", ".dcm"), ("PNG", "JPEG", "DICOM"))
    part: tuple[Part, ...] = ()
    mirror: tuple[Mirror, ...] = ()
    file: tuple[PublishedFile, ...] = ()
    fact: tuple[Fact, ...] = ()
    quirk: tuple[Quirk, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec(DatasetFacts):
    """Everything that is known about a dataset before any request is made."""

    vocabulary: str = ""
    table: tuple[Table, ...] = ()
    declared: bool = False
    """Whether its file describes its tables too."""

    def mirror_named(self, name: str) -> Mirror | None:
        """The mirror called ``name``, or ``None``."""
        return next((m for m in self.mirror if m.name == name), None)

    def layout(self, release: str | None = None) -> Layout:
        """The paths of this dataset, as its file or its module knows them."""
        module = importlib.import_module(f"cxrprep.datasets.{'declared' if self.declared else self.module}")
        layout: Layout = module.layout(self.name, release or self.default_release)
        return layout

    def files_of(self, release: str) -> tuple[PublishedFile, ...]:
        """The files that the publisher describes for ``release``."""
        return tuple(f for f in self.file if not f.releases or release in f.releases)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def build(kind: type[T], data: Any, file: TomlText, name: str = "") -> T:
    """``data`` as a ``kind``; what is wrong with it becomes mistakes of ``file``, for its ``raise_mistakes``.

    Args:
        kind: the dataclass to make.
        data: the table, as tomllib reads it.
        file: the text that it stands in.
        name: the dotted name of the table.

    Returns:
        the object; not one to use where there are mistakes.
    """
    hints = _hints(typing.cast("Any", kind))
    names = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # only dataclasses are passed
    values: dict[str, Any] = {}
    wrong = type_problem(data, "table")
    if wrong:
        file.wrong(name, wrong)
    for key, value in {} if wrong else data.items():
        place = f"{name}.{key}" if name else key
        if key in names:
            values[key] = _convert(hints[key], value, file, place)
        else:
            file.unknown(place, names)
    missing = [
        key
        for key, f in names.items()
        if key not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing and not wrong:
        file.mistake(name, f"{f'[{name}]' if name else 'it'} lacks {', '.join(missing)}")
    return typing.cast("T", None) if file.mistakes else kind(**values)


def _convert(hint: Any, value: Any, file: TomlText, name: str) -> Any:
    if type(value) is hint:
        return value
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [h for h in typing.get_args(hint) if h is not type(None)]
        return _convert(inner[0], value, file, name)
    if origin is tuple and isinstance(value, list):
        inner_hint = typing.get_args(hint)[0]
        return tuple(_convert(inner_hint, v, file, f"{name}.{number}") for number, v in enumerate(value, 1))
    if origin is dict and isinstance(value, dict):
        inner_hint = typing.get_args(hint)[1]
        return {str(k): _convert(inner_hint, v, file, f"{name}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, file, name)
    if hint is Any:
        return value
    problem = {tuple: f"expected a list, found {value!r}", dict: f"expected a table, found {value!r}"}.get(origin)
    problem = problem or type_problem(value, hint.__name__)
    if problem:
        file.wrong(name, problem)
    return value
