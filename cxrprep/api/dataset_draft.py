"""Draft of a dataset's file from a folder: which table lists the images, and which of its columns says what.

A draft is a beginning. What it says is read off names and cells of the folder's tables; whoever knows the collection
corrects it, and ``cxrprep datasets check`` says what it makes of the folder.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.dataset_check import check_dataset
from cxrprep.collection.recognition import OWN_FOLDERS
from cxrprep.datasets.declaration import slug
from cxrprep.errors import CxrprepError, TableError, UsageError
from cxrprep.events import Note, ignore
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.paths import refuse_address
from cxrprep.vocabulary import VOCABULARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cxrprep.api.dataset_check import DatasetCheck
    from cxrprep.api.result import Result
    from cxrprep.events import Sink

    Ask = Callable[[str, str], str]

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "patient": ("patient", "patientid", "subject", "subjectid", "pid", "mrn", "person", "personid"),
    "study": ("study", "studyid", "studyinstanceuid", "accession", "accessionnumber", "exam", "examid"),
    "view": ("view", "viewposition", "projection", "viewpositiondicom", "position", "frontallateral"),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "age": ("age", "patientage", "ageyears", "ageinyears"),
    "split": ("split", "subset", "partition", "set", "dataset", "part"),
}
"""What a column may say of an image, and the names that it has then, without blanks and punctuation."""
_FINDINGS: Final = (
    "findinglabels", "labels", "findings", "label", "finding", "classname", "class", "diagnosis", "category", "target",
    "tags", "pathology", "pathologies", "disease", "diseases",
)  # fmt: skip
_REPORTS: Final = ("report", "reporttext", "text", "findings", "impression", "indication", "comparison", "conclusion")
_RUNS: Final = ("rle", "encodedpixels", "maskrle", "rlemask", "runlengths", "segmentation")
_READERS: Final = ("radid", "reader", "readerid", "annotator", "radiologist", "rater")
_CORNERS: Final = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))
_CORNER_SIZES: Final = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("boxx", "boxy", "boxw", "boxh"))
_VALUES: Final = {"1": 1, "0": 0, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1}
_SEXES: Final = {"m": "M", "male": "M", "f": "F", "female": "F"}
_VIEWS: Final = {
    "pa": ("PA", "frontal"), "ap": ("AP", "frontal"), "frontal": ("", "frontal"), "lateral": ("LATERAL", "lateral"),
    "lat": ("LATERAL", "lateral"), "l": ("LATERAL", "lateral"), "ll": ("LL", "lateral"), "rl": ("RL", "lateral"),
}  # fmt: skip
_SPLITS: Final = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "valid": "validate", "val": "validate",
    "validate": "validate", "validation": "validate", "dev": "validate",
}  # fmt: skip
_PICTURES: Final = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
_TABLES: Final = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.zip")
_MOST_CLASSES, _LONG, _ENOUGH, _DEEPEST = 60, 60, 0.5, 6
# Pictures of regions are no images of their own.
_DRAWN: Final = re.compile(r"mask|segmentation|heatmap", re.IGNORECASE)
# A folder for each patient, as most people call it.
_PATIENT: Final = r"(?i:p|pt|pat|patient|subj|subject|sub|case|person)[-_ ]?\d+"
_NO_LABELS: Final = ("fold", "index", "followup", "number", "id", "width", "height", "rows", "columns")


@dataclass(slots=True)
class _Table:
    """A table of the folder: its columns as text (``None`` where blank), and the one that names images."""

    key: str
    form: str
    columns: dict[str, list[str | None]]
    image: str = ""
    matched: int = 0
    name: str = ""

    def words(self, column: str) -> Counter[str]:
        """What stands in a column, and how often."""
        return Counter(cell for cell in self.columns[column] if cell)

    def first(self, names: Iterable[str], taken: Iterable[str] = ()) -> str:
        """The first column that has one of these names, or nothing."""
        plain = {_plain(column): column for column in reversed(self.columns) if column not in set(taken)}
        return next((plain[name] for name in names if name in plain), "")


@dataclass(slots=True)
class _Folder:
    """What lies in a folder: its images by id, and its tables."""

    images: list[str]
    tables: list[_Table] = field(default_factory=list)
    depth: int = 1
    """How many parts of a path name an image: more than one where two images in different folders have one name."""

    @property
    def inside(self) -> str:
        """The pattern of an id."""
        return "/".join(["[^/]+"] * self.depth)

    def id_of(self, text: str) -> str:
        """The id of the image that a path or a name speaks of."""
        parts = text.replace("\\", "/").strip().split("/")
        parts[-1] = re.sub(rf"(?:{'|'.join(map(re.escape, _PICTURES))})$", "", parts[-1], flags=re.IGNORECASE)
        return "/".join(parts[-self.depth :])


def draft_dataset(
    file: Path,
    root: Path,
    *,
    title: str = "",
    columns: Mapping[str, str] | None = None,
    force: bool = False,
    ask: Ask | None = None,
    on_event: Sink = ignore,
) -> Result[DatasetCheck]:
    """Write a dataset's file from what lies in a folder, and say what it makes of that folder.

    Args:
        file: Where it goes; its name is the dataset's.
        root: The folder of images and tables.
        title: What people call the dataset; by default its name.
        columns: The column for each of ``image`` and ``ROLES`` where the guess is not to count; empty for none.
        force: Write over a file that is there.
        ask: Asks a person: a question and the answer that is guessed, to the answer.
        on_event: Called with remarks.

    Returns:
        What ``datasets check`` finds.

    Raises:
        UsageError: A folder without images, a column that no table has, or a file that is there already.
        StorageError: The disk refuses.
    """
    for place, what in ((file, "FILE"), (root, "ROOT")):
        refuse_address(str(place), what)
    if file.suffix != ".toml":
        raise UsageError(f"{file} does not end in .toml", hint=f"name it {file.with_suffix('.toml')}")
    if file.exists() and not force:
        raise UsageError(f"{file} is there already", hint="name another file, or --force")
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder", hint="name the folder that holds the images and their tables")
    unknown = [role for role in columns or {} if role not in ("image", *ROLES)]
    if unknown:
        raise UsageError(f"a column cannot say {unknown[0]!r}", hint=f"roles: image, {', '.join(ROLES)}")
    found = _look(root, dict(columns or {}), on_event)
    name = slug(file.stem).replace("_", "-") or "own"
    title = title or (ask("Title of the dataset", name) if ask else name)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = _Writer(found, name, title, dict(columns or {}), ask).text()
    replace_file(file, lambda place: place.write_text(text, encoding="utf-8"))
    on_event(Note("datasets", f"written: {file}, a draft: correct what is wrong in it", "info"))
    return check_dataset(file, root, on_event=on_event)


# ---- what lies in the folder ----


def _look(root: Path, given: Mapping[str, str], on_event: Sink) -> _Folder:
    keys = sorted(_files(root))
    images = [key for key in keys if key.lower().endswith(_PICTURES) and not _DRAWN.search(key)]
    if not images:
        raise UsageError(f"{root} holds no images", hint=f"images end in {', '.join(_PICTURES)}")
    found = _Folder(images)
    while len({found.id_of(key) for key in images}) < len(images) and found.depth < _DEEPEST:
        found.depth += 1
    ids = {found.id_of(key) for key in images}
    for key in keys:
        try:
            table = _read(root, key)
        except CxrprepError as error:
            on_event(Note("datasets", f"left out: {error.message}", "warning", key))
            continue
        if table is not None:
            _find_images(table, found, ids, given.get("image", ""))
            found.tables.append(table)
    wanted = {column for column in given.values() if column}
    missing = wanted - {column for table in found.tables for column in table.columns}
    if missing:
        has = sorted({column for table in found.tables for column in table.columns})
        raise UsageError(f"no table of {root} has a column {min(missing)!r}", hint=f"they have: {', '.join(has)[:300]}")
    _name_tables(found.tables)
    return found


def _files(root: Path) -> Iterator[str]:
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(one for one in inner if not (Path(folder) == root and one in OWN_FOLDERS))
        yield from ((Path(folder) / name).relative_to(root).as_posix() for name in names)


def _read(root: Path, key: str) -> _Table | None:
    from cxrprep.labels.csv_table import Form, read_names, read_table

    low = key.lower()
    if low.endswith(_TABLES):
        table = read_table(root / key, Form((), open=True, multiline=True))
        return _Table(key, "csv", {name: table.text(name).to_pylist() for name in table.names})
    if low.endswith(".txt"):
        try:
            names, _ = read_names(root / key)
        except TableError:
            return None
        return _Table(key, "names", {"name": names.to_pylist()})
    if low.endswith(".json"):
        return _coco(root, key)
    return None


def _coco(root: Path, key: str) -> _Table | None:
    """A table of COCO's form, with the columns that its reader gives; other JSON is not understood here."""
    try:
        data = json.loads((root / key).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict) or not {"images", "annotations", "categories"} <= set(data):
        return None
    names = {one["id"]: one["name"] for one in data["categories"]}
    file_of = {one["id"]: one.get("file_name", "") for one in data["images"]}
    drawn = [one for one in data["annotations"] if one.get("bbox")]
    return _Table(
        key,
        "coco",
        {
            "file_name": [file_of[one["image_id"]] for one in drawn] or [*file_of.values()],
            "category": [names[one["category_id"]] for one in drawn] or [None] * len(file_of),
            **{f"box_{side}": [str(one["bbox"][n]) for one in drawn] for n, side in enumerate("xywh")},
        },
    )


def _find_images(table: _Table, found: _Folder, ids: set[str], given: str) -> None:
    """Which column of a table names images of the folder: the one that most cells of do."""
    for column, cells in table.columns.items():
        if given and given in table.columns and column != given:
            continue
        stated = [cell for cell in cells if cell]
        if column != given and all(cell in _VALUES for cell in stated):
            continue  # labels, where images have numbers for names
        known = {name for cell in stated if (name := found.id_of(cell)) in ids}
        share = sum(found.id_of(cell) in ids for cell in stated) / max(len(stated), 1)
        # A table of the whole release is beside a part of its images.
        enough = share >= _ENOUGH or len(known) >= _ENOUGH * len(ids) or column == given
        if known and enough and len(known) > table.matched:
            table.image, table.matched = column, len(known)


def _name_tables(tables: Sequence[_Table]) -> None:
    taken: set[str] = set()
    for table in tables:
        stem = slug(table.key.rsplit("/", 1)[-1].split(".")[0]) or "table"
        table.name = next(name for n in range(len(tables) + 1) if (name := f"{stem}_{n}" if n else stem) not in taken)
        taken.add(table.name)


def _joined(tables: Sequence[_Table]) -> _Table:
    """Tables of one form as one."""
    first, *others = tables
    columns = {name: [*cells, *chain.from_iterable(one.columns[name] for one in others)]
               for name, cells in first.columns.items()}  # fmt: skip
    return _Table(first.key, first.form, columns, first.image, first.matched, first.name)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


# ---- what the file says ----


@dataclass(slots=True)
class _Writer:
    """Puts the file together, block by block."""

    found: _Folder
    name: str
    title: str
    given: Mapping[str, str]
    ask: Ask | None
    blocks: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    used: list[_Table] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The whole file."""
        about = [table for table in self.found.tables if table.image]
        listing = [table for table in about if table.form != "names"]
        if listing:
            main = max(listing, key=lambda table: (table.matched, -len(table.columns[table.image])))
            several = [table for table in listing if list(table.columns) == list(main.columns)]
            several_more: list[_Table] = []
            listed = {self.found.id_of(cell) for table in several for cell in table.columns[table.image] if cell}
            for table in listing:
                # A table that lists further images under the same name, as one of the test images may.
                more = {self.found.id_of(cell) for cell in table.columns[table.image] if cell} - listed
                if table not in several and table.image == main.image and more:
                    several_more.append(table)
                    listed |= more
            self._of_tables(several, several_more)
            for table in listing:
                if table not in several:
                    self._labels([table])
                    self._boxes([table])
                    self._masks(table)
            studies = main.first(ROLES["study"])
            for table in self.found.tables:
                # Labels of studies: an image has those of its study.
                own = table.first(ROLES["study"])
                if not table.image and own and studies and set(table.words(own)) & set(main.words(studies)):
                    self._labels([table], [c for names in ROLES.values() if (c := table.first(names))], study=own)
        else:
            self._of_paths()
        for table in about:
            if table.form == "names" and (split := _split_in(table.key)):
                self.used.append(table)
                self._block("splits", table=table.name, image=self._id(table), split=split)
        tables = list(chain.from_iterable(self._declared(table) for table in self.used))
        return "\n".join([*self._head(), *self._paths(), *tables, *self._vocabulary(), *self.blocks])

    def _head(self) -> list[str]:
        return [
            f"# {' '.join(self.title.split())}: a draft from a folder. Every line may be corrected.",
            "# What each means: docs/howto/own-dataset.md",
            "format = 1",
            f"name = {_toml(self.name)}",
            f"title = {_toml(self.title)}",
            f"summary = {_toml(f'{len(self.found.images):,} images.')}",
            'releases = ["1"]',
            'default_release = "1"',
            *([f"default_label_source = {_toml(self.sources[0])}"] if self.sources else []),
            'homepage = ""                           # where it comes from',
            'citation = ""',
            "",
        ]

    def _paths(self) -> list[str]:
        """The pattern of paths: below the one folder that all images are in, where there is one."""
        tops = {key.split("/", 1)[0] if "/" in key else "" for key in self.found.images}
        top = next(iter(tops)) if len(tops) == 1 else ""
        begin = f"(?:^|/){re.escape(top)}/(?:.*/)?" if top else "^(?:.*/)?"
        ends = sorted({key.rsplit(".", 1)[-1] for key in self.found.images})
        if top and any(key.count("/") < self.found.depth for key in self.found.images):
            begin = "(?:^|/)"  # the folder belongs to the id
        return ["[paths]", f"image = '{begin}(?P<id>{self.found.inside})\\.(?:{'|'.join(ends)})$'", ""]

    def _id(self, table: _Table) -> Any:
        """The image's id as a value: a column, or what is left of a path in it."""
        words = table.words(table.image)
        if all(self.found.id_of(word) == word for word in words):
            return table.image
        ends = "|".join(end.lstrip(".") for end in _PICTURES)
        return {"column": table.image, "match": rf"^(?:.*/)?({self.found.inside}?)(?:\.(?:{ends}))?$"}

    def _of_tables(self, tables: list[_Table], more: list[_Table]) -> None:
        """The images as tables list them, with all that their columns say."""
        main = _joined(tables)
        self.used += tables
        taken = [main.image]
        values: dict[str, Any] = {"id": self._id(main)}
        for role, names in ROLES.items():
            guess = self.given.get(role, main.first(names, taken))
            column = self.ask(f"Column of the {role}, blank for none", guess) if self.ask else guess
            value = _value(role, main, column) if column in main.columns else None
            if value is not None:
                values[role] = value
                taken.append(column)
                if role == "view":
                    self.views = sorted(main.words(column))
        if "split" not in values and len(tables) > 1:
            splits = {table.name: _split_in(table.key) for table in tables}
            if all(splits.values()):
                values["split"] = {"column": "table", "map": splits}
        folders = [re.search(rf"(?:^|[/\\])({_PATIENT})[/\\]", cell) for cell in main.words(main.image)]
        if "patient" not in values and folders and all(folders):
            begins = {re.sub(r"\d+$", "", found[1]) for found in folders if found}
            begin = re.escape(begins.pop()) if len(begins) == 1 else "[^/]*?"
            values["patient"] = {"column": main.image, "match": rf"(?:^|/)({begin}\d+)/"}
        values.setdefault("patient", "unknown")
        values.setdefault("study", "image")
        self._block("image", several=False, table=_names([*tables, *more]), **values)
        self._labels(tables, taken)
        self._boxes(tables)
        self._masks(tables[0])
        self._reports(tables, taken)

    def _of_paths(self) -> None:
        """Images that no table lists: their folders say split and class, as Kaggle's copies often do."""
        folders = [key.split("/")[:-1] for key in self.found.images]
        depth = min(map(len, folders))
        words = [{parts[-1 - n] for parts in folders} for n in range(depth)]
        split = next((n for n, those in enumerate(words) if those and all(map(_split_in, those))), None)
        patient = next((n for n, those in enumerate(words) if all(re.fullmatch(_PATIENT, one) for one in those)), None)
        others = (split, patient)
        label = next((n for n, those in enumerate(words) if n not in others and 1 < len(those) <= _MOST_CLASSES), None)
        places = {place: what for what, place in (("split", split), ("patient", patient), ("label", label))}
        groups = [f"(?P<{places[n]}>[^/]+)/" if n in places else "[^/]+/" for n in range(depth - 1, -1, -1)]
        groups = groups[: len(groups) + 1 - self.found.depth]
        label, split, patient = (
            None if place is not None and place < self.found.depth - 1 else place for place in (label, split, patient)
        )
        ends = sorted({key.rsplit(".", 1)[-1] for key in self.found.images})
        table = _Table("", "files", {}, name="files")
        self.used.append(table)
        patterns = [f"{'*/' * depth}*.{end}" for end in ends]
        pattern = f"(?:^|/){''.join(groups)}(?P<id>{self.found.inside})\\.(?:{'|'.join(ends)})$"
        table.columns = {"patterns": list(patterns), "groups": [pattern]}
        values: dict[str, Any] = {"id": "id", "patient": "unknown" if patient is None else "patient", "study": "image"}
        if split is not None:
            values["split"] = {"column": "split", "map": {word: _split_in(word) for word in sorted(words[split])}}
        self._block("image", several=False, table="files", **values)
        if label is not None:
            self.findings += sorted(words[label])
            self._block("labels", source="tables", table="files", shape="class", image="id", name="label", absent=0)

    def _labels(self, tables: list[_Table], taken: Sequence[str] = (), *, study: str = "") -> None:
        """The labels of a table: a column a finding, a list in a cell, or one word."""
        main = _joined(tables)
        marks = [
            name
            for name in main.columns
            if name not in (main.image, study) and name not in taken and _is_mark(main, name)
        ]
        known = [name for name in marks if _plain(name) not in chain.from_iterable((*_CORNERS, *_CORNER_SIZES))]
        self.used += [table for table in tables if table not in self.used]
        about: dict[str, Any] = {"study": study} if study else {"image": self._id(main)}
        # Two tables may label one image: each is a source of its own then.
        source = main.name.replace("_", "-") if self.sources else "tables"
        common: dict[str, Any] = {"source": source, "table": _names(tables), **about}
        reader = main.first(_READERS)
        more: dict[str, Any] = {"reader": reader} if reader else {}
        if known:
            self.findings += known
            self._block("labels", **common, shape="columns", **more,
                        columns={name: name for name in known}, values=_VALUES, rows_per_image="any")  # fmt: skip
        column = main.first(_FINDINGS, [*taken, *known, main.image, study])
        if not column or known or _is_text(main, column):
            return
        words = main.words(column)
        names = _list_in(words)
        if names is not None:
            value, said = names
            self.findings += sorted(said)
            value = {"column": column, **value}
            self._block("labels", **common, shape="list", names=value, absent=0, **more)
        elif len(words) <= _MOST_CLASSES:
            self.findings += sorted(words)
            self._block("labels", **common, shape="rows", name=column, absent=0, **more)

    def _boxes(self, tables: list[_Table]) -> None:
        main = _joined(tables)
        plain = {_plain(column): column for column in main.columns}
        label = main.first(_FINDINGS, [main.image])
        for key, forms in (("corners", _CORNERS), ("corner_size", _CORNER_SIZES)):
            sides = next((form for form in forms if set(form) <= set(plain)), None)
            if sides is not None:
                reader = main.first(_READERS)
                value = label or {"text": "box"}
                where: dict[str, Any] = {"reader": reader} if reader else {}
                where[key] = [plain[side] for side in sides]
                self._block("boxes", table=_names(tables), image=self._id(main), label=value, **where)
                return

    def _masks(self, table: _Table) -> None:
        """How a column of run lengths would be declared; how they count only their publisher knows."""
        column = table.first(_RUNS)
        if column:
            keys = {"table": table.name, "image": self._id(table), "label": table.first(_FINDINGS) or {"text": "mask"},
                    "encoding": "rle", "runs": column, "order": "columns", "start": "absolute", "base": 1,
                    "size": [1024, 1024]}  # fmt: skip
            lines = [f"# Column {column!r} may hold masks as run lengths: order may be rows, start relative, base 0."]
            lines += ["# [[masks]]", *(f"# {key} = {_toml(value)}" for key, value in keys.items())]
            self.blocks.append("\n".join([*lines, ""]))

    def _reports(self, tables: list[_Table], taken: Sequence[str]) -> None:
        main = _joined(tables)
        columns = [name for name in main.columns if _plain(name) in _REPORTS and _is_text(main, name)]
        columns = [name for name in columns if name not in taken]
        if len(columns) == 1:
            self._block("reports", table=_names(tables), image=self._id(main), text=columns[0])
        elif columns:
            self._block("reports", table=_names(tables), image=self._id(main),
                        sections={slug(name): name for name in columns})  # fmt: skip

    def _declared(self, table: _Table) -> list[str]:
        lines = ["[[table]]", f"name = {_toml(table.name)}"]
        if table.form == "files":
            patterns = table.columns["patterns"]
            (groups,) = table.columns["groups"]
            return [*lines, 'form = "files"', f"patterns = {_toml(patterns)}", f"groups = '{groups}'", ""]
        name = table.key.removesuffix(".gz").removesuffix(".zip")
        form = [] if table.form == "csv" else [f"form = {_toml(table.form)}"]
        return [*lines, *form, f"patterns = {_toml([name])}", ""]

    def _vocabulary(self) -> list[str]:
        names = dict.fromkeys(self.findings)
        same = {name: stem for name in names if (stem := _shared(name))}
        lines = []
        if self.views:
            lines += ["[views]                                  # the dataset's word = the view that it is"]
            for word in self.views:
                view, projection = _VIEWS.get(word.strip().lower(), ("", ""))
                lines.append(f"{_toml(word)} = {{ view = {_toml(view)}, projection = {_toml(projection)} }}")
            lines.append("")
        lines += ["[vocabulary]", f"namespace = {_toml(slug(self.name))}", "open = true", ""]
        if same:
            lines += [
                "[vocabulary.same]                        # the dataset's name = the shared observation that it is"
            ]
            lines += [f"{_toml(name)} = {_toml(stem)}" for name, stem in same.items()] + [""]
        own = [name for name in names if name not in same]
        if own:
            shown = " ".join(", ".join(own)[:80].split())
            lines += [f"# Findings with a column of their own: {shown}"]
            near = [(name, stem, loss) for name in own for stem, loss in _nearly(name)]
            if near:
                lines += ["# As a shared one too, where the loss is yours: put such a line under [vocabulary.same]"]
                lines += [f"# {_toml(name)} = {_toml({'is': stem, 'loss': loss})}" for name, stem, loss in near]
            lines += [""]
        return lines

    def _block(self, kind: str, *, several: bool = True, **values: Any) -> None:
        if kind == "labels":
            self.sources.append(values["source"])
        head = f"[[{kind}]]" if several else f"[{kind}]"
        lines = [head, *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]
        self.blocks.append("\n".join(lines))


def _value(role: str, table: _Table, column: str) -> Any:
    """What a column says, as a value; ``None`` where its cells do not look like that."""
    words = table.words(column)
    if role == "sex":
        known = {word: _SEXES[word.strip().lower()] for word in words if word.strip().lower() in _SEXES}
        return {"column": column, "map": known, "else": "null"} if known else None
    if role == "age":
        if all(re.fullmatch(r"\d+[YMWDymwd]", word) for word in words):
            return {"column": column, "use": "dicom-age"}
        numbers = all(re.fullmatch(r"\d+(\.\d+)?", word) for word in words)
        return {"column": column, "use": "number", "min": 0, "max": 120} if numbers and words else None
    if role == "split":
        known = {word: split for word in words if (split := _split_in(word))}
        return {"column": column, "map": known, "else": "null"} if known else None
    if role == "view":
        return column if 0 < len(words) <= _MOST_CLASSES else None
    return column


def _split_in(text: str) -> str:
    """The split that a word or a file's name speaks of, or nothing."""
    words = re.split(r"[^a-z]+", text.rsplit("/", 1)[-1].lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def _is_mark(table: _Table, column: str) -> bool:
    """Whether a column has labels: nothing but 1, 0, -1 and blanks, and not only one number for all."""
    words = table.words(column)
    if not words or any(word not in _VALUES for word in words) or not _plain(column):
        return False
    return _plain(column) not in _NO_LABELS and any(_VALUES[word] == 1 for word in words)


def _is_text(table: _Table, column: str) -> bool:
    words = table.words(column)
    return bool(words) and sum(map(len, words)) > _LONG * len(words) and len(words) > 1


def _list_in(words: Mapping[str, int]) -> tuple[dict[str, Any], set[str]] | None:
    """How a cell lists names, and which there are; ``None`` where each cell is one name."""
    if words and all(word.startswith("[") and word.endswith("]") for word in words):
        names = {name.strip(" '\"") for word in words for name in word.strip("[]").split(",")}
        return {"use": "json-list" if any('"' in word for word in words) else "python-list"}, names - {""}
    for mark in ("|", ";", ","):
        if any(mark in word for word in words):
            names = {name for word in words for name in word.split(mark)}
            return {"split": mark}, names - {""}
    return None


def _shared(name: str) -> str:
    for vocabulary in VOCABULARIES.values():
        for term in vocabulary.terms:
            if _plain(term.name) == _plain(name) and not term.loss:
                return term.stem
    return ""


def _nearly(name: str) -> list[tuple[str, str]]:
    """The shared observation that releases take a finding of this name for, and what is lost."""
    terms = (term for vocabulary in VOCABULARIES.values() for term in vocabulary.terms)
    return [(term.stem, term.loss) for term in terms if _plain(term.name) == _plain(name) and term.loss][:1]


def _names(tables: Sequence[_Table]) -> Any:
    return tables[0].name if len(tables) == 1 else [table.name for table in tables]


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str) and "\\" in value and "'" not in value:
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
