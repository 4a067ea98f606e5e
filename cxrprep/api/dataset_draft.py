"""Draft of a dataset's file from a folder: which table lists the images, and which of its columns says what.

A draft is a beginning. What it says is read off names and cells of the folder's tables; whoever knows the collection
corrects it, and ``cxrprep datasets check`` says what it makes of the folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.dataset_check import DatasetCheck, check_dataset
from cxrprep.api.draft_columns import (
    BOXES,
    CORNER_SIZES,
    CORNERS,
    FINDINGS,
    MOST_CLASSES,
    POLYGON,
    READERS,
    REPORTS,
    ROLES,
    RUNS,
    VIEWS,
    are_numbered,
    is_mark,
    is_text,
    list_in,
    meanings_of,
    shared_observation,
    split_in,
    value_of_role,
)
from cxrprep.api.draft_croissant import Described, described_by_publisher
from cxrprep.api.draft_folder import PICTURES, FolderFiles, FolderTable, free_name, joined, plain_name, read_folder
from cxrprep.errors import UsageError
from cxrprep.events import Note, Sink, ignore
from cxrprep.labels.image_ids import broken_by_spreadsheet
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.paths import refuse_address
from cxrprep.storage.small_files import toml_key
from cxrprep.storage.small_files import toml_value as toml
from cxrprep.vocabulary import slug

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cxrprep.api.result import Result

    Ask = Callable[[str, str], str]

# How a picture of a region is named for its image.
_OF_REGION: Final = re.compile(
    r"(?i)(?P<begin>(?:mask|segmentation)[-_ ]?)?(?P<id>.+?)(?P<behind>[-_ ]?(?:mask|segmentation))?\.\w+$"
)
_BOXES_ASIDE: Final = "# [[boxes]]"
# A folder for each patient, as most people call it.
_PATIENT: Final = r"(?i:p|pt|pat|patient|subj|subject|sub|case|person)[-_ ]?\d+"


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
    found = read_folder(root, dict(columns or {}), on_event)
    name = slug(file.stem).replace("_", "-") or "own"
    said = described_by_publisher(root, on_event)
    title = title or (ask("Title of the dataset", said.title or name) if ask else said.title or name)
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = _Writer(found, name, title, dict(columns or {}), ask, said)
    text = writer.text()
    bare = {found.id_of(key).lstrip("0") for key in found.images}
    for table in found.tables:
        if table.form in ("csv", "json") and not any(table is one for one in writer.used):
            words = ((word, broken_by_spreadsheet(word)) for column in table.columns for word in table.words(column))
            broken = next((f"{word!r} is {made}; export the table anew" for word, made in words if made), "")
            held = {column: {*table.words(column)} for column in table.columns}
            lost = next((column for column, ids in held.items() if ids <= bare and 2 * len(ids) > len(bare)), "")
            what = broken or "no column of it names images, studies or patients as the folder and its other tables do"
            what = f"the zeros before its numbers in {lost!r} are gone; export the table anew" if lost else what
            on_event(Note("datasets", f"not read: {table.key}: {what}", "warning", table.key))
    if _BOXES_ASIDE in text:
        what = "boxes may be here; how they are written, or how large the images are, only who knows them can say"
        on_event(Note("datasets", f"{file}: {what}", "info"))
    replace_file(file, lambda place: place.write_text(text, encoding="utf-8"))
    on_event(Note("datasets", f"written: {file}, a draft: correct what is wrong in it", "info"))
    return check_dataset(file, root, on_event=on_event)


# ---- what the file says ----


@dataclass(slots=True)
class _Writer:
    """Puts the file together, block by block."""

    found: FolderFiles
    name: str
    title: str
    given: Mapping[str, str]
    ask: Ask | None
    said: Described
    blocks: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    used: list[FolderTable] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The whole file."""
        about = [table for table in self.found.tables if table.image]
        listing = [table for table in about if table.form != "names"]
        if listing:
            main = max(listing, key=lambda table: (table.matched, -len(table.columns[table.image])))
            several = [table for table in listing if list(table.columns) == list(main.columns)]
            several_more: list[FolderTable] = []
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
            self._links(main, [table for table in self.found.tables if table not in (*several, *several_more)])
        else:
            self._of_paths()
        for table in about:
            if table.form == "names" and (split := split_in(table.key)):
                self.used.append(table)
                self._block("splits", table=table.name, image=self._id(table), split=split)
        self._drawn()
        self._yolo()
        self._voc()
        tables = list(chain.from_iterable(self._declared(table) for table in self.used))
        tables += self._left_out()
        return "\n".join([*self._head(), *self._paths(), *tables, *self._vocabulary(), *self.blocks])

    def _links(self, main: FolderTable, others: Sequence[FolderTable]) -> None:
        """What further tables say of the images, or of their patients."""
        patients = main.words(whose) if (whose := self.given.get("patient", main.first(ROLES["patient"]))) else {}
        for table in others:
            person = table.first(ROLES["patient"])
            about: dict[str, Any] = {"image": self._id(table)} if table.image else {"patient": person}
            if not table.image and (table in self.used or not person or not {*table.words(person)} & {*patients}):
                continue
            ids = ("patient", "study") if table.image else ()
            roles = (*ids, "sex", "age", "birth_year", "date", "split")
            named = {role: table.first(ROLES[role], [table.image or person]) for role in roles}
            said = {role: value for role, name in named.items() if name and (value := value_of_role(role, table, name))}
            if said:
                self.used += [table] if table not in self.used else []
                self._block("link", table=table.name, **about, **said)

    def _left_out(self) -> list[str]:
        """Tables and columns that no block names, as comments: whoever knows them writes what they say."""
        named = "\n".join(self.blocks)
        lines = [_comment(f"{table.key}: no block reads it") for table in self.found.tables if table not in self.used]
        for table in self.used:
            gone = [name for name in table.columns if table.form in ("csv", "json") and not _is_named(name, named)]
            lines += [_comment(f"Columns of {table.key} that no block names: {', '.join(gone)}")] if gone else []
        return [*lines, ""] if lines else []

    def _head(self) -> list[str]:
        return [
            _comment(f"{self.title}: a draft from a folder. Every line may be corrected."),
            "# What each means: docs/howto/own-dataset.md",
            "format = 1",
            f"name = {toml(self.name)}",
            f"title = {toml(self.title)}",
            f"summary = {toml(self.said.summary or f'{len(self.found.images):,} images.')}",
            'releases = ["1"]',
            'default_release = "1"',
            *([f"default_label_source = {toml(self.sources[0])}"] if self.sources else []),
            f"homepage = {toml(self.said.homepage):<28} # where it comes from",
            f"citation = {toml(self.said.citation)}",
            "",
            *(["[licence]", f"name = {toml(self.said.licence)}", ""] if self.said.licence else []),
            *(
                "\n".join(["[[file]]", *(f"{key} = {toml(value)}" for key, value in one.items()), ""])
                for one in self.said.files
            ),
        ]

    def _paths(self) -> list[str]:
        """The pattern of paths: below the one folder that all images are in, where there is one."""
        tops = {key.split("/", 1)[0] if "/" in key else "" for key in self.found.images}
        top = next(iter(tops)) if len(tops) == 1 else ""
        begin = f"(?:^|/){re.escape(top)}/(?:.*/)?" if top else "^(?:.*/)?"
        ends = sorted({key.rsplit(".", 1)[-1] for key in self.found.images})
        if top and any(key.count("/") < self.found.depth for key in self.found.images):
            begin = "(?:^|/)"  # the folder belongs to the id
        pattern = f"{begin}(?P<id>{self.found.inside})\\.(?:{'|'.join(ends)})$"
        return ["[paths]", f"image = {toml(pattern)}", ""]

    def _id(self, table: FolderTable) -> Any:
        """The image's id as a value: a column, or what is left of a path in it."""
        words = table.words(table.image)
        if all(self.found.id_of(word) == word for word in words):
            return table.image
        ends = "|".join(end.lstrip(".") for end in PICTURES)
        behind = "(?:[?#].*)?" if any("://" in word for word in words) else ""
        return {"column": table.image, "match": rf"^(?:.*/)?({self.found.inside}?)(?:\.(?i:{ends}))?{behind}$"}

    def _of_tables(self, tables: list[FolderTable], more: list[FolderTable]) -> None:
        """The images as tables list them, with all that their columns say."""
        main = joined(tables)
        self.used += tables
        taken = [main.image]
        values: dict[str, Any] = {"id": self._id(main)}
        for role, names in ROLES.items():
            guess = self.given.get(role, main.first(names, taken))
            column = self.ask(f"Column of the {role}, blank for none", guess) if self.ask else guess
            value = value_of_role(role, main, column) if column in main.columns else None
            if value is not None:
                values[role] = value
                taken.append(column)
                if role == "view":
                    self.views = sorted(main.words(column))
        if "split" not in values and len(tables) > 1:
            splits = {table.name: split_in(table.key) for table in tables}
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
        split = next((n for n, those in enumerate(words) if those and all(map(split_in, those))), None)
        patient = next((n for n, those in enumerate(words) if all(re.fullmatch(_PATIENT, one) for one in those)), None)
        classes = [n for n, those in enumerate(words) if 1 < len(those) <= MOST_CLASSES and not are_numbered(those)]
        label = next((n for n in classes if n not in (split, patient)), None)
        places = {place: what for what, place in (("split", split), ("patient", patient), ("label", label))}
        # A folder that all images are in is named: masks lie beside it.
        unnamed = [re.escape(next(iter(those))) if len(those) == 1 else "[^/]+" for those in words]
        groups = [f"(?P<{places[n]}>[^/]+)/" if n in places else f"{unnamed[n]}/" for n in range(depth - 1, -1, -1)]
        # Where images of several folders have one name, folders belong to the id, and say what they say all the same.
        groups = ["[^/]+/"] * (self.found.depth - 1 - depth) + groups
        groups.insert(len(groups) + 1 - self.found.depth, "(?P<id>")
        ends = sorted({key.rsplit(".", 1)[-1] for key in self.found.images})
        patterns = [f"{'*/' * depth}*.{end}" for end in ends]
        pattern = f"(?:^|/){''.join(groups)}[^/]+)\\.(?:{'|'.join(ends)})$"
        self._of_files("files", patterns, groups=pattern)
        values: dict[str, Any] = {"id": "id", "patient": "unknown" if patient is None else "patient", "study": "image"}
        if split is not None:
            values["split"] = {"column": "split", "map": {word: split_in(word) for word in sorted(words[split])}}
        self._block("image", several=False, table="files", **values)
        remarks = []
        if patient is None:
            remarks += ["Nothing shows whose the images are. Where their names do, say it in [image]:"]
            remarks += ["patient = { column = \"id\", match = '^(person\\d+)_' }"]
        if {*ends} <= {"dcm", "dicom"}:
            remarks += ["Their headers say patient, study, view, sex and age: docs/howto/own-folder.md reads them"]
        self.blocks += ["\n".join([*map(_comment, remarks), ""])] if remarks else []
        if label is not None:
            self.findings += sorted(words[label])
            self._block("labels", source="tables", table="files", shape="class", image="id", name="label", absent=0)

    def _labels(self, tables: list[FolderTable], taken: Sequence[str] = (), *, study: str = "") -> None:
        """The labels of a table: a column a finding, a list in a cell, or one word."""
        main = joined(tables)
        marks = [
            name
            for name in main.columns
            if name not in (main.image, study) and name not in taken and is_mark(main, name)
        ]
        known = [name for name in marks if plain_name(name) not in chain.from_iterable((*CORNERS, *CORNER_SIZES))]
        self.used += [table for table in tables if table not in self.used]
        about: dict[str, Any] = {"study": study} if study else {"image": self._id(main)}
        # Two tables may label one image: each is a source of its own then.
        source = main.name.replace("_", "-") if self.sources else "tables"
        common: dict[str, Any] = {"source": source, "table": _names(tables), **about}
        reader = main.first(READERS)
        more: dict[str, Any] = {"reader": reader} if reader else {}
        if known:
            self.findings += known
            self._block("labels", **common, shape="columns", **more,
                        columns={name: name for name in known}, values=meanings_of(main, known),
                        rows_per_image="any")  # fmt: skip
        column = main.first(FINDINGS, [*taken, *known, main.image, study])
        if not column or known or is_text(main, column):
            return
        words = main.words(column)
        names = list_in(words)
        if names is not None:
            value, said = names
            self.findings += sorted(said)
            value = {"column": column, **value}
            self._block("labels", **common, shape="list", names=value, absent=0, **more)
        elif len(words) <= MOST_CLASSES:
            self.findings += sorted(words)
            self._block("labels", **common, shape="rows", name=column, absent=0, **more)

    def _boxes(self, tables: list[FolderTable]) -> None:
        main = joined(tables)
        plain = {plain_name(column): column for column in main.columns}
        label = main.first(FINDINGS, [main.image])
        for key, forms in (("corners", CORNERS), ("corner_size", CORNER_SIZES)):
            sides = next((form for form in forms if set(form) <= set(plain)), None)
            if sides is not None:
                reader = main.first(READERS)
                value = label or {"text": "box"}
                where: dict[str, Any] = {"reader": reader} if reader else {}
                where[key] = [plain[side] for side in sides]
                self._block("boxes", table=_names(tables), image=self._id(main), label=value, **where)
                return

    def _shapes(self, table: FolderTable) -> None:
        """Shapes in cells: polygons, and how boxes would be declared, of which only their publisher knows the sides."""
        label = table.first(FINDINGS) or {"text": "region"}
        about = {"table": table.name, "image": self._id(table), "label": label}
        for column in table.columns:
            cells = [cell for cell in table.columns[column] if cell]
            if cells and all(POLYGON.match(cell) for cell in cells):
                self._block("masks", **about, encoding="polygons", points=column)
            elif plain_name(column) in BOXES and cells and any(re.search(r"\d\D+\d", cell) for cell in cells):
                why = f"Column {column!r} may hold boxes: x, y, w, h, or say corners (x1, y1, x2, y2) or centre_size."
                self._block("boxes", aside=why, **about, corner_size=column)

    def _masks(self, table: FolderTable) -> None:
        """How a column of run lengths would be declared; how they count only their publisher knows."""
        self._shapes(table)
        column = table.first(RUNS)
        if column:
            why = f"Column {column!r} may hold masks as run lengths: order may be rows, start relative, base 0."
            label = table.first(FINDINGS) or {"text": "mask"}
            self._block("masks", aside=why, table=table.name, image=self._id(table), label=label, encoding="rle",
                        runs=column, order="columns", start="absolute", base=1, size=[1024, 1024])  # fmt: skip

    def _drawn(self) -> None:
        """Pictures of regions that have the names of images, a table for each of their folders."""
        ids = {self.found.id_of(key) for key in self.found.images}
        folders: dict[tuple[str, str], list[str]] = {}
        for key in self.found.drawn:
            folder, _, file = key.rpartition("/")
            folders.setdefault((folder, file.rsplit(".", 1)[-1]), []).append(file)
        for (folder, end), files in folders.items() if self.found.depth == 1 else ():
            named = [found for file in files if (found := _OF_REGION.match(file)) and found["id"] in ids]
            if 2 * len(named) < len(files):
                continue
            begin, behind = named[0]["begin"] or "", named[0]["behind"] or ""
            place = f"{re.escape(folder)}/" if folder else "(?:^|/)"
            groups = rf"{place}{re.escape(begin)}(?P<id>[^/]+){re.escape(behind)}\.{end}$"
            name = free_name(slug(folder) or "masks", self.used)
            self._of_files(name, [f"{folder}/{begin}*.{end}".lstrip("/")], groups=groups)
            label = slug(re.sub(r"(?i)masks?|segmentations?", "", folder.rsplit("/", 1)[-1])).replace("_", " ")
            self._block("masks", table=name, image="id", label={"text": label or "region"}, encoding="files")

    def _yolo(self) -> None:
        """Labels and boxes of YOLO's files; where images differ in size, boxes wait for a table that says how."""
        boxes = self.found.yolo
        if boxes is None:
            return
        name = free_name("yolo", self.found.tables)
        self._of_files(name, [boxes.pattern], groups=boxes.groups, header=boxes.header)
        self.findings += boxes.classes.values()
        word = {"column": "class", "map": boxes.classes}
        source = "yolo" if self.sources else "tables"
        self._block("labels", source=source, table=name, image="id", shape="rows", name=word, absent=0)
        about: dict[str, Any] = {"score": "score"} if "score" in boxes.header else {}
        about |= {"centre_size": boxes.header[1:5], "size": boxes.size or "image"}
        aside = "" if boxes.size else "Images differ in size: [image] needs their height and width, which no table has."
        self._block("boxes", aside=aside, table=name, image="id", label=word, **about)

    def _voc(self) -> None:
        """Labels and boxes of Pascal VOC's files: a row for each of them, and one for each object in it."""
        if self.found.voc is None:
            return
        files, objects = (free_name(stem, self.found.tables) for stem in ("documents", "objects"))
        self.used.append(replace(self.found.voc, name=files))
        self.used.append(replace(self.found.voc, name=objects, more={**self.found.voc.more, "rows": "object"}))
        self.findings += sorted(self.found.voc.words("name"))
        image = {"column": "path", "match": rf"(?:^|/)({self.found.inside})\.xml$"}
        # A file without an object says that nothing is there.
        names = {"first_of": [{"column": "object/name", "use": "all"}, {"text": ""}]}
        source = "voc" if self.sources else "tables"
        self._block("labels", source=source, table=files, image=image, shape="list", names=names, absent=0)
        sides = [f"bndbox/{side}" for side in ("xmin", "ymin", "xmax", "ymax")]
        self._block("boxes", table=objects, image=image, label="./name", corners=sides)

    def _reports(self, tables: list[FolderTable], taken: Sequence[str]) -> None:
        main = joined(tables)
        columns = [c for c in main.columns if c not in taken and plain_name(c) in REPORTS and is_text(main, c)]
        if len(columns) == 1:
            self._block("reports", table=_names(tables), image=self._id(main), text=columns[0])
        elif columns:
            self._block("reports", table=_names(tables), image=self._id(main),
                        sections={slug(name): name for name in columns})  # fmt: skip

    def _of_files(self, name: str, patterns: Sequence[str], **more: Any) -> None:
        """Declare a table that is many files."""
        self.used.append(FolderTable("", "files", {}, name=name, more={"patterns": patterns, **more}))

    def _declared(self, table: FolderTable) -> list[str]:
        place = table.key.removesuffix(".gz").removesuffix(".zip")
        said = {"name": table.name, "form": table.form, "patterns": [place], **table.more}
        return ["[[table]]", *(f"{key} = {toml(value)}" for key, value in said.items()), ""]

    def _vocabulary(self) -> list[str]:
        names = dict.fromkeys(self.findings)
        same = {name: found[0] for name in names if (found := shared_observation(name))}
        lines = []
        if self.views:
            lines += ["[views]                                  # the dataset's word = the view that it is"]
            for word in self.views:
                view, projection = VIEWS.get(word.strip().lower(), ("", ""))
                lines.append(f"{toml(word)} = {{ view = {toml(view)}, projection = {toml(projection)} }}")
            lines.append("")
        lines += ["[vocabulary]", f"namespace = {toml(slug(self.name))}", "open = true", ""]
        if same:
            lines += [
                "[vocabulary.same]                        # the dataset's name = the shared observation that it is"
            ]
            lines += [f"{toml(name)} = {toml(stem)}" for name, stem in same.items()] + [""]
        own = [name for name in names if name not in same]
        if own:
            lines += [_comment(f"Findings with a column of their own: {', '.join(own)[:80]}")]
            near = [(name, *found) for name in own if (found := shared_observation(name, at_a_loss=True))]
            if near:
                lines += ["# As a shared one too, where the loss is yours: put such a line under [vocabulary.same]"]
                lines += [f"# {toml(name)} = {toml({'is': stem, 'loss': loss})}" for name, stem, loss in near]
            lines += [""]
        return lines

    def _block(self, kind: str, *, several: bool = True, aside: str = "", **values: Any) -> None:
        """Write a block; as a comment, where ``aside`` says why it may not hold."""
        if kind == "labels":
            self.sources.append(values["source"])
        head = f"[[{kind}]]" if several else f"[{kind}]"
        lines = [head, *(f"{key} = {toml(value)}" for key, value in values.items())]
        lines = [f"# {line}" for line in (aside, *lines)] if aside else lines
        self.blocks.append("\n".join([*lines, ""]))


def _is_named(name: str, blocks: str) -> bool:
    """Whether a column stands in blocks, in quotation marks or as a key."""
    return any(word in blocks for word in (toml(name), f"'{name}'", f"{toml_key(name)} ="))


def _names(tables: Sequence[FolderTable]) -> Any:
    return tables[0].name if len(tables) == 1 else [table.name for table in tables]


def _comment(text: str) -> str:
    """A comment in one line, which TOML wants without control characters."""
    return "# " + " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
