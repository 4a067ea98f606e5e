"""Declaration of a dataset's tables in TOML (``format = 1``): rows, ids, views, labels, boxes and splits, without code.

A table makes rows; a row speaks of an image or a study by id. Blocks say what it adds, and all speak the same ids, so
there is no join to write. A *value* is a column's name, or a table with one of ``column``, ``columns`` and ``with``,
``text``, ``first_of``, ``path``, then in this order ``split``, ``use``, ``lower``, ``match``, ``replace``, ``map`` and
``else``, ``min``, ``max``. There are no loops, no conditions and no expressions: a file that somebody found runs no
code. Regular expressions of values are RE2, which cannot hang.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from cxrprep.datasets.facts import DatasetFacts, DatasetSpec, Table
from cxrprep.vocabulary import VOCABULARIES, slug

FORMAT: Final = 1
FORMS: Final = ("csv", "names", "json", "coco", "xml", "files")
# A table of these is many files.
MANY_FILES: Final = ("xml", "files")
ENCODINGS: Final = ("rle", "coco-rle", "polygons", "files")
SHAPES: Final = ("columns", "list", "rows", "class")


@dataclass(frozen=True, slots=True)
class CellRule:
    """What the cells of a column must be: ``match`` is a pattern, ``what`` says it in words, for the error.

    ``blank`` cells may be there too; ``unique`` cells stand there once. Of another cell that ``trim`` matches, its one
    group counts, with ``ending`` behind it.
    """

    match: str = ""
    what: str = ""
    blank: bool = False
    unique: bool = False
    trim: str = ""
    ending: str = ""


@dataclass(frozen=True, slots=True)
class DeclaredTable:
    """A table: ``patterns`` are globs of its names in the wild, ``form`` is one of ``FORMS``.

    ``header`` names the columns where the file's own header is wrong, or with ``has_header = false`` where it has
    none; ``delimiter`` is a sign that the header does not tell; ``rename`` spells single ones anew; ``blank`` cells
    are null. names: a list of lines, column ``name``. json: a row per object of a list, or per leaf of objects in
    objects, whose keys become the columns ``keys`` (a key in ``aside`` is a column beside them); ``explode`` are
    lists of one length, a row for each place; objects in them are columns beside the others. coco: a row per
    annotation, with ``category``, ``box_x`` ``box_y`` ``box_w`` ``box_h``. xml: a row per element ``rows`` of each
    document, columns are ElementTree's paths. files: a row per file, with the groups of ``groups`` in its path, and
    its ``text``; with ``header`` a row per line, whose words are these columns.

    Where ``columns`` are given they must be there, ``optional_columns`` may, and any other is kept as text and said.
    ``cells`` says what the cells of a column must be.
    """

    name: str
    patterns: tuple[str, ...]
    form: str = "csv"
    header: tuple[str, ...] = ()
    has_header: bool = True
    delimiter: str = ""
    blank: tuple[str, ...] = ()
    rename: dict[str, str] = field(default_factory=dict)
    release: str = ""
    title: str = ""
    optional: bool = False
    sha256: tuple[str, ...] = ()
    rows: str = ""
    keys: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    explode: tuple[str, ...] = ()
    groups: str = ""
    text: bool = False
    role: str = "labels"
    columns: tuple[str, ...] = ()
    optional_columns: tuple[str, ...] = ()
    cells: dict[str, CellRule] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PathRule:
    """``image`` is a regular expression with the groups id, patient, study, suffix; ``place`` a template of them.

    ``files`` are the other files of a mirror, as globs: such a file goes there, whatever folder it lies in and in
    whatever capitals. ``sure`` are globs of names that no other collection has: one such file tells the folder.
    """

    image: str
    place: str = ""
    files: tuple[str, ...] = ()
    sure: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AboutImage:
    """What a table can say of an image; each is a value, but for ``oldest``, the age above which none is believed."""

    table: Any
    patient: Any = None
    study: Any = None
    file: Any = None
    view: Any = None
    split: Any = None
    sex: Any = None
    age: Any = None
    birth_year: Any = None
    date: Any = None
    width: Any = None
    height: Any = None
    spacing: Any = None
    follow_up: Any = None
    oldest: int = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRule(AboutImage):
    """The images; ``patient = "unknown"`` where nothing says whose they are, ``study = "image"`` where none is.

    ``called`` is what people call its table, for messages.
    """

    id: Any
    patient: Any = "unknown"
    study: Any = "image"
    called: str = ""

    def lacking(self, rows: str) -> str:
        """Why rows about images which the table of the images does not have are left out."""
        return f"{rows} the {self.called} lacks" if self.called else f"{rows} no table lists"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRule(AboutImage):
    """What a second table says of an image, by its id: a patient that the first does not know, or a view.

    Without ``image`` its rows are about the ``study``, or else the ``patient``, that it names.
    """

    image: Any = None


@dataclass(frozen=True, slots=True)
class ViewRule:
    """The normalised view and projection that a word of the dataset stands for; empty: not stated."""

    view: str = ""
    projection: str = ""


@dataclass(frozen=True, slots=True)
class VocabularyRule:
    """The dataset's own names: ``same`` as a shared observation (or ``{is, loss}``), ``under`` one, or its ``own``.

    A name that is not declared is an observation of the namespace where ``open`` is true, else an error.
    """

    namespace: str = ""
    open: bool = False
    no_finding: str = ""
    not_observations: tuple[str, ...] = ()
    use: str = ""
    same: dict[str, Any] = field(default_factory=dict)
    under: dict[str, str] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)

    def shared(self, name: str) -> tuple[str, str] | None:
        """The shared observation that a name stands for, and what is lost; ``None`` where there is none."""
        found = self.same.get(name)
        if isinstance(found, dict):
            return str(found["is"]), str(found.get("loss", ""))
        if found is not None:
            return str(found), ""
        term = VOCABULARIES[self.use].term(name) if self.use else None
        return None if term is None else (term.stem, term.loss)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that is declared."""
        used = VOCABULARIES[self.use].names if self.use else ()
        return tuple(dict.fromkeys((*self.same, *self.own, *self.under, *used)))

    def knows(self, name: str) -> bool:
        """Whether a name is declared."""
        return self.shared(name) is not None or name in self.own or name in self.under

    def spelled(self, name: str) -> str:
        """A name in the capitals that the file declares, where it differs in those alone."""
        if self.knows(name):
            return name
        same = [one for one in self.names if one.casefold() == name.casefold()]
        return same[0] if len(same) == 1 else name

    def column(self, name: str, namespace: str = "") -> str:
        """The column of a dataset's own observation: ``label_<namespace>__<name in snake case>``."""
        return f"label_{namespace or self.namespace}__{slug(name)}"


@dataclass(frozen=True, slots=True)
class LabelRule:
    """Labels of one source, of images or of all those of a study or patient.

    ``shape`` is columns, list (names in a cell), rows (a name per row) or class (one name).

    ``absent`` is what a name that is not there means: 0, or null where it is not given. ``reader`` makes a source of
    each reader; ``also`` adds sources that are true for any, the majority or all readers. ``raw`` names columns that
    are kept as they stand, as ``raw_<column>``, or is "all". ``known`` is the vocabulary whose every name is ``absent``
    where a list lacks it, also where no list here has it. ``where`` chooses rows, as of boxes. ``namespace`` is that of
    findings of this source without a shared name, where it is another than the dataset's.
    """

    source: str
    table: Any
    shape: str
    image: Any = None
    study: Any = None
    patient: Any = None
    columns: Any = None
    values: dict[str, int] = field(default_factory=dict)
    names: Any = None
    name: Any = None
    reader: Any = None
    absent: int | None = None
    also: dict[str, str] = field(default_factory=dict)
    rows_per_image: str = ""
    raw: Any = ()
    known: str = ""
    namespace: str = ""
    where: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BoxRule:
    """Rectangles: ``corners`` x1, y1, x2, y2, or ``corner_size`` x, y, w, h, or ``centre_size``; in pixels.

    Each is four columns, or one whose cells have four numbers for each box. With ``size``, [height, width] of all
    images or "image" where the images' table says it, they are parts of the image from 0 to 1.
    """

    table: Any
    image: Any
    label: Any
    reader: Any = None
    score: Any = None
    corners: Any = ()
    corner_size: Any = ()
    centre_size: Any = ()
    size: Any = None
    where: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MaskRule:
    """Regions: ``encoding`` rle (run lengths), coco-rle, polygons, or files (a picture each).

    ``runs`` is the column of run lengths (pairs of start and length, or COCO's text), ``points`` that of the polygons.
    Of rle, ``start`` is relative (each gap counts from the end of the run before) or absolute from ``base``; runs go
    down the ``columns`` or along the ``rows``. ``size`` is [height, width], or the column that has it.
    """

    table: Any
    image: Any
    label: Any
    encoding: str
    source: str = ""
    reader: Any = None
    score: Any = None
    runs: str = ""
    points: str = ""
    size: Any = None
    order: str = "columns"
    start: str = "absolute"
    base: int = 1
    where: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReportRule:
    """Report texts: one value, or ``sections`` by name; of a study or an image."""

    table: Any
    study: Any = None
    image: Any = None
    text: Any = None
    sections: dict[str, Any] = field(default_factory=dict)
    language: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class DeclaredSplit:
    """A list of the images of one split."""

    table: Any
    image: Any
    split: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration(DatasetFacts):
    """A dataset that is described by its file alone: its facts, and how to read its tables."""

    format: int
    paths: PathRule
    table: tuple[DeclaredTable, ...]
    image: ImageRule
    views: dict[str, ViewRule] = field(default_factory=dict)
    vocabulary: VocabularyRule = VocabularyRule()
    labels: tuple[LabelRule, ...] = ()
    boxes: tuple[BoxRule, ...] = ()
    splits: tuple[DeclaredSplit, ...] = ()
    masks: tuple[MaskRule, ...] = ()
    link: tuple[LinkRule, ...] = ()
    reports: tuple[ReportRule, ...] = ()

    def spec(self) -> DatasetSpec:
        """The facts as every verb reads them."""
        sources = {name: rule.source for rule in reversed(self.labels) for name in tables_of(rule.table)}
        tables = tuple(
            Table(
                name=table.name,
                role=table.role,
                patterns=table.patterns,
                release=table.release,
                label_source=sources.get(table.name, ""),
                title=table.title,
                sha256=table.sha256,
                settings={"files": "many"} if table.form in MANY_FILES else {},
            )
            for table in self.table
        )
        facts = {name: getattr(self, name) for name in DatasetFacts.__dataclass_fields__}
        return DatasetSpec(**facts, declared=True, vocabulary=self.vocabulary.use, table=tables)

    def named(self, name: str) -> DeclaredTable:
        """The table of that name."""
        return next(table for table in self.table if table.name == name)

    def has_source(self, name: str) -> bool:
        """Whether labels may be of the source ``name``: a block's, its readers', or what they agree on."""
        stated = {source for rule in self.labels for source in (rule.source, *rule.also)}
        return name in stated or any(rule.reader and name.startswith(f"{rule.source}-") for rule in self.labels)

    def shared_stems(self) -> frozenset[str]:
        """The shared observations that its names stand for."""
        found = {shared[0] for name in self.vocabulary.same if (shared := self.vocabulary.shared(name))}
        used = VOCABULARIES[self.vocabulary.use].stems if self.vocabulary.use else frozenset()
        return frozenset(found) | used


def tables_of(value: Any) -> tuple[str, ...]:
    """The tables that a block names: one, or several."""
    return (value,) if isinstance(value, str) else tuple(value)
