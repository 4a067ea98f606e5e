"""A folder as the draft of a dataset sees it: its images, its tables, and which column of a table names the images."""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

from cxrprep.api.dataset_check import keys_in
from cxrprep.api.draft_yolo import YoloBoxes, read_boxes
from cxrprep.datasets.facts import RESAVED, whole_table
from cxrprep.errors import CxrprepError, TableError, UsageError
from cxrprep.events import Note, Sink
from cxrprep.storage.small_files import read_text
from cxrprep.vocabulary import slug

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


PICTURES: Final = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
_TABLES: Final = (".csv", ".tsv", ".csv.txt", ".csv.gz", ".tsv.gz", ".csv.zip", *(f".{end}" for end in RESAVED))
# Pictures of regions are no images of their own.
_DRAWN: Final = re.compile(r"mask|segmentation|heatmap", re.IGNORECASE)
_ENOUGH, _DEEPEST = 0.5, 6
BEHIND_ADDRESS: Final = r"[?#].*$"
"""What an address has behind the name of a file."""
LISTED: Final = "\x1f"
"""Parts the words of a list in JSON."""
MARKS: Final = {
    "1": 1, "0": 0, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1, "yes": 1, "no": 0, "y": 1, "n": 0, "true": 1, "false": 0,
    "positive": 1, "negative": 0, "uncertain": -1, "present": 1, "absent": 0, "sim": 1, "não": 0, "nao": 0, "si": 1,
    "sí": 1, "ja": 1, "nein": 0, "oui": 1, "non": 0,
}  # fmt: skip
"""What a cell of a column of labels says, in small letters."""


@dataclass(slots=True)
class FolderTable:
    """A table of the folder: its columns as text (``None`` where blank), and the one that names images.

    ``more`` is what else its file declares, such as the ``keys`` of JSON.
    """

    key: str
    form: str
    columns: dict[str, list[str | None]]
    image: str = ""
    matched: int = 0
    name: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    def words(self, column: str) -> Counter[str]:
        """What stands in a column, and how often."""
        return Counter(cell for cell in self.columns[column] if cell)

    def first(self, names: Iterable[str], taken: Iterable[str] = ()) -> str:
        """The first column that has one of these names, or nothing."""
        told = [column for column in reversed(self.columns) if column not in set(taken) and any(self.columns[column])]
        plain = {plain_name(column): column for column in told}
        return next((plain[name] for name in names if name in plain), "")


@dataclass(slots=True)
class FolderFiles:
    """What lies in a folder: its images by id, its tables, and pictures of regions of images."""

    images: list[str]
    drawn: list[str] = field(default_factory=list)
    tables: list[FolderTable] = field(default_factory=list)
    yolo: YoloBoxes | None = None
    voc: FolderTable | None = None
    """Boxes as Pascal VOC writes them, in XML files that have the names of images."""
    depth: int = 1
    """How many parts of a path name an image: more than one where two images in different folders have one name."""

    @property
    def inside(self) -> str:
        """The pattern of an id."""
        return "/".join(["[^/]+"] * self.depth)

    def id_of(self, text: str) -> str:
        """The id of the image that a path or a name speaks of."""
        if "://" in text:
            text = re.sub(BEHIND_ADDRESS, "", text)
        parts = text.replace("\\", "/").strip().split("/")
        parts[-1] = re.sub(rf"(?:{'|'.join(map(re.escape, PICTURES))})$", "", parts[-1], flags=re.IGNORECASE)
        return "/".join(parts[-self.depth :])


def read_folder(root: Path, given: Mapping[str, str], on_event: Sink) -> FolderFiles:
    """The images and tables of a folder; ``given`` are the columns that somebody named. Raises ``UsageError``."""
    keys = sorted({key if key.lower().endswith(PICTURES) else whole_table(key) for key in keys_in(root)})
    images = [key for key in keys if key.lower().endswith(PICTURES) and not _DRAWN.search(key)]
    if not images:
        raise UsageError(f"{root} holds no images", hint=f"images end in {', '.join(PICTURES)}")
    found = FolderFiles(images, [key for key in keys if key.lower().endswith(PICTURES) and key not in {*images}])
    while len({found.id_of(key) for key in images}) < len(images) and found.depth < _DEEPEST:
        found.depth += 1
    image_of = {found.id_of(key): key for key in images}
    texts = [(key, found.id_of(f"{key[:-4]}.png")) for key in keys if key.endswith(".txt")]
    beside = {key: image_of[image] for key, image in texts if image in image_of}
    found.yolo = read_boxes(root, keys, beside, found.inside, on_event)
    documents = {key for key in keys if key.endswith(".xml") and found.id_of(f"{key[:-4]}.png") in image_of}
    found.voc = _voc(root, documents)
    unread: list[str] = []
    for key in keys:
        if (found.yolo is not None and key in beside) or (found.voc is not None and key in documents):
            continue
        try:
            table = _read(root, key)
        except CxrprepError as error:
            on_event(Note("datasets", f"left out: {error.message}; {error.hint}", "warning", key))
            continue
        if table is not None:
            _find_images(table, found, {*image_of}, given.get("image", ""))
            found.tables.append(table)
        elif key.lower().endswith((".json", ".jsonl", ".xml")) and "croissant" not in key:
            unread.append(key)
    if unread:
        others = f" and {len(unread) - 1:,} more" if unread[1:] else ""
        how = "docs/howto/own-dataset.md says how JSON and XML are declared"
        on_event(Note("datasets", f"not read: {unread[0]}{others}: {how}", "warning"))
    missing = {*given.values()} - {"", *(column for table in found.tables for column in table.columns)}
    if missing:
        has = sorted({column for table in found.tables for column in table.columns})
        raise UsageError(f"no table of {root} has a column {min(missing)!r}", hint=f"they have: {', '.join(has)[:300]}")
    for table in found.tables:
        table.name = free_name(slug(table.key.rsplit("/", 1)[-1].split(".")[0]) or "table", found.tables)
    return found


def _read(root: Path, key: str) -> FolderTable | None:
    from cxrprep.labels.csv_table import Form, read_names, read_table
    from cxrprep.labels.declared_tables import json_of

    low = key.lower()
    if low.endswith(_TABLES):
        table = read_table(root / key, Form((), open=True, multiline=True))
        return FolderTable(key, "csv", {name: table.text(name).to_pylist() for name in table.names})
    if low.endswith(".txt"):
        with contextlib.suppress(TableError):
            return FolderTable(key, "names", {"name": read_names(root / key)[0].to_pylist()})
    if low.endswith((".json", ".jsonl")):
        with contextlib.suppress(TableError, ValueError):
            data = json_of(root / key)
            return _coco(key, data) or _objects(key, data)
    return None


def _voc(root: Path, keys: Iterable[str]) -> FolderTable | None:
    """XML files as one table, with the names in them as its words; ``None`` where one has not the form of VOC."""
    try:
        trees = [ET.fromstring(read_text(root / key)) for key in keys]  # noqa: S314  # expat limits what entities make
    except (OSError, ValueError, ET.ParseError):
        return None
    drawn = [one for tree in trees for one in tree.iterfind("object")]
    if not trees or any(tree.tag != "annotation" for tree in trees) or any(one.find("bndbox") is None for one in drawn):
        return None
    patterns = sorted({"/".join([*key.split("/")[:-1], "*.xml"]) for key in keys})
    return FolderTable(
        "", "xml", {"name": [one.findtext("name", "").strip() for one in drawn]}, more={"patterns": patterns}
    )


def _objects(key: str, data: Any) -> FolderTable | None:
    """Objects as rows: those of a list, of the one list in an object, or what an object says of each of its names.

    Values that are text, numbers or lists of texts are cells. A column of others is blank.
    """
    more: dict[str, Any] = {}
    if isinstance(data, dict):
        lists = [name for name, one in data.items() if isinstance(one, list) and isinstance(next(iter(one), 0), dict)]
        if len(lists) == 1 and "." not in lists[0]:
            more, data = {"rows": lists[0]}, data[lists[0]]
        else:
            more = {"keys": ["key"]} | ({"explode": ["value"]} if lists else {})
            several = [(name, row) for name, one in data.items() for row in (one if lists else [one])]
            data = [{"key": name, **(row if isinstance(row, dict) else {"value": row})} for name, row in several]
    if not isinstance(data, list) or not data or not all(isinstance(one, dict) for one in data):
        return None
    cells: dict[str, list[str | None]] = {}
    for name in dict.fromkeys(name for one in data for name in one):
        values = [one.get(name) for one in data]
        lists = [one for one in values if isinstance(one, list)]
        if lists and all(isinstance(word, str) for one in lists for word in one):
            cells[name] = [LISTED.join(one) if isinstance(one, list) else one for one in values]
        elif any(isinstance(one, (list, dict)) for one in values):
            cells[name] = [None] * len(values)
        else:
            cells[name] = [one if one is None or isinstance(one, str) else json.dumps(one) for one in values]
    return FolderTable(key, "json", cells, more=more)


def _coco(key: str, data: Any) -> FolderTable | None:
    """A table of COCO's form, with the columns that its reader gives."""
    if not isinstance(data, dict) or not {"images", "annotations", "categories"} <= set(data):
        return None
    names = {one["id"]: one["name"] for one in data["categories"]}
    file_of = {one["id"]: one.get("file_name", "") for one in data["images"]}
    drawn = [one for one in data["annotations"] if one.get("bbox")]
    return FolderTable(
        key,
        "coco",
        {
            "file_name": [file_of[one["image_id"]] for one in drawn] or [*file_of.values()],
            "category": [names[one["category_id"]] for one in drawn] or [None] * len(file_of),
            **{f"box_{side}": [str(one["bbox"][n]) for one in drawn] for n, side in enumerate("xywh")},
        },
    )


def _find_images(table: FolderTable, found: FolderFiles, ids: set[str], given: str) -> None:
    """Which column of a table names images of the folder: the one that most cells of do."""
    for column, cells in table.columns.items():
        if given and given in table.columns and column != given:
            continue
        stated = [cell for cell in cells if cell]
        if column != given and all(cell.lower() in MARKS for cell in stated):
            continue  # labels, where images have numbers for names
        known = {name for cell in stated if (name := found.id_of(cell)) in ids}
        share = sum(found.id_of(cell) in ids for cell in stated) / max(len(stated), 1)
        # A table of the whole release is beside a part of its images.
        enough = share >= _ENOUGH or len(known) >= _ENOUGH * len(ids) or column == given
        if known and enough and len(known) > table.matched:
            table.image, table.matched = column, len(known)


def free_name(stem: str, tables: Iterable[FolderTable]) -> str:
    """A name that no table has: the stem, or with a number behind it."""
    taken = {table.name for table in tables}
    return next(name for n in count() if (name := f"{stem}_{n}" if n else stem) not in taken)


def joined(tables: Sequence[FolderTable]) -> FolderTable:
    """Tables of one form as one."""
    first, *others = tables
    columns = {name: [*cells, *chain.from_iterable(one.columns[name] for one in others)]
               for name, cells in first.columns.items()}  # fmt: skip
    return replace(first, columns=columns)


def plain_name(name: str) -> str:
    """A column's name in small letters and digits, without accents, to compare."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", name).lower())
