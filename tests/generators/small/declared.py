"""A tiny copy of any dataset that its file describes, made from the description: images, tables, and their numbers.

What the reader takes apart is put together here: a path from its regular expression, a cell from the value's rules.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
from re import _parser  # type: ignore[attr-defined]  # the parsed form of a pattern; it has no public home
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from cxrprep.datasets.catalog import declaration_of, find_dataset
from cxrprep.datasets.declaration import Declaration, DeclaredTable, tables_of
from cxrprep.labels.declared_marks import compressed
from cxrprep.model import Split
from tests.generators.small import pictures
from tests.generators.small.released import Released

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 64
Row = dict[str, Any]


def text_of(pattern: str, seed: int, **fixed: str) -> str:
    """A text that ``pattern`` matches; a group in ``fixed`` (the first one is ``it``) is that text."""
    state = _parser.parse(pattern)
    names = {number: name for name, number in state.state.groupdict.items()}
    rng = random.Random(seed)

    def walk(items: Any) -> str:
        return "".join(piece(str(op), value) for op, value in items)

    def piece(op: str, value: Any) -> str:
        if op == "LITERAL":
            return chr(value)
        if op == "IN":
            return _one_of(value, rng)
        if op == "ANY":
            return rng.choice("abc")
        if op == "BRANCH":
            # The beginning of a text, or else by turns: every split has images.
            return walk(value[1][0 if str(value[1][0][:1]).find("AT") >= 0 else (seed // 2) % len(value[1])])
        if op in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, inner = value
            return "".join(walk(inner) for _ in range(least if most < 1000 or least > 9 else 6))
        if op == "SUBPATTERN":
            number, *_, inner = value
            name = names.get(number, "it" if number == 1 else "")
            return fixed[name] if name in fixed else walk(inner)
        return ""

    return walk(state)


def _one_of(choices: Any, rng: random.Random) -> str:
    ranges = [one for one in choices if str(one[0]) in ("RANGE", "CATEGORY")]
    op, value = rng.choice(ranges or choices)
    if str(op) == "RANGE":
        return chr(rng.randint(*value))
    return chr(value) if str(op) == "LITERAL" else " " if "SPACE" in str(value) else str(rng.randint(1, 9))


def put(row: Row, value: Any, wanted: Any) -> None:
    """Write ``wanted`` into the cells that a declared value takes it from; what is there already stays."""
    value = {"column": value} if isinstance(value, str) else value
    if value is None or "text" in value:
        return
    if "first_of" in value:
        put(row, value["first_of"][0], wanted)
    elif "columns" in value:
        parts = str(wanted).split(value["with"])
        for name, part in zip(reversed(value["columns"]), [*reversed(parts), "0"], strict=False):
            row.setdefault(name, part)
    else:
        row.setdefault(value["column"], _cell(value, wanted))


def _cell(value: dict[str, Any], wanted: Any) -> Any:
    use = value.get("use", "")
    if "map" in value:
        wanted = next((k for k, v in value["map"].items() if v == wanted), next(iter(value["map"])))
    if isinstance(wanted, list):
        if use == "all":
            return wanted
        return repr(wanted) if use == "python-list" else value.get("split", "|").join(wanted)
    if use.startswith("date"):
        return "20150102"
    if "match" in value:
        wanted = text_of(value["match"], 1, it=str(wanted))
    for old, new, *often in value.get("replace", ()):
        wanted = str(wanted).replace(new, old, *often)
    return str(wanted)


class Copy:
    """The images and rows of a tiny copy in the making."""

    def __init__(self, declared: Declaration, images: int) -> None:
        self.declared = declared
        self.layout = find_dataset(declared.name).layout()
        self.paths: list[str] = []
        pattern = re.compile(declared.paths.image)
        shared: dict[str, str] = {}
        for number in range(images):
            path = text_of(declared.paths.image, number, **(shared if number % 2 else {}))
            groups = pattern.search(path).groupdict()  # type: ignore[union-attr]  # it was made from the pattern
            shared = {name: groups[name] for name in ("patient", "study", "split") if groups.get(name)}
            self.paths.append(path)
        self.ids = [self.layout.parse(path) for path in self.paths]
        # Of a cell that the release counts by its words, one of these.
        counted = {fact.measure: fact.value for fact in find_dataset(declared.name).fact}
        self.words = {m.removeprefix("raw."): next(iter(v)) for m, v in counted.items() if isinstance(v, dict) and v}
        self.splits = [pattern.search(path).groupdict().get("split") for path in self.paths]  # type: ignore[union-attr]

    def listed(self, table: str) -> list[int]:
        """The places of the images that a table of images speaks of."""
        rule = self.declared.image
        words = (
            rule.split.get("map", {}) if isinstance(rule.split, dict) and rule.split.get("column") == "table" else {}
        )
        part = next((word for name, word in words.items() if table.endswith(name.rsplit("-", 1)[-1])), None)
        everyone = range(len(self.paths))
        return [n for n in everyone if part is None or Split.parse(self.splits[n] or "train") == part]

    def rows(self, table: DeclaredTable) -> list[Row]:
        """The rows of a table with the cells that every block about it asks for."""
        found = []
        about = [r for r in self.declared.labels if table.name in tables_of(r.table)]
        readers = ["R1", "R2"] if any(rule.reader for rule in about) else [None]
        for number in self.listed(table.name):
            for reader in readers:
                row: Row = {}
                self._identity(row, table, number)
                for rule in about:
                    put(row, rule.reader, reader)
                    put(row, rule.image, self.ids[number].image)
                    self._labels(row, rule, number)
                    row.update({name: self.words.get(name, "kept") for name in rule.raw if name not in row})
                self._marks(row, table, number)
                found.append(row)
        return found

    def _identity(self, row: Row, table: DeclaredTable, number: int) -> None:
        rule, image = self.declared.image, self.ids[number]
        if table.name in tables_of(rule.table):
            path = self.paths[number]
            of_pictures = isinstance(rule.id, dict) and rule.id.get("match", "").endswith(r"\.png$")
            put(row, rule.file, path.replace(".dcm", ".png") if of_pictures else path)
            put(row, rule.id, image.image)
            patient = image.patient if image.patient != image.image else f"p{number // 2}"
            put(row, None if rule.patient == "unknown" else rule.patient, patient)
            study = image.study if image.study != image.image else f"{patient}/s{number // 2}"
            put(row, None if rule.study == "image" else rule.study, study)
            put(row, rule.view, next(iter(self.declared.views), ""))
            for name, word in (("sex", "F"), ("age", "60"), ("birth_year", "1950"), ("date", ""), ("width", "2000"),
                               ("height", "2400"), ("spacing", "0.15"), ("follow_up", "0")):  # fmt: skip
                put(row, getattr(rule, name), word)
        for split in self.declared.splits:
            if table.name in tables_of(split.table):
                put(row, split.image, image.image)

    def _labels(self, row: Row, rule: Any, number: int) -> None:
        words = self.declared.vocabulary
        names = [*words.names]
        if rule.shape == "columns":
            columns = list(rule.columns) if isinstance(rule.columns, dict) else names
            for place, column in enumerate(columns):
                cells = [key for key in rule.values if key != "*"] + (["5 3 10 2"] if "*" in rule.values else [])
                row.setdefault(column, cells[(number + place) % len(cells)])
        elif rule.shape == "list":
            put(row, rule.names, [names[number % len(names)], *(["own finding"] if words.open else [])])
        else:
            put(row, rule.name, names[number % len(names)])

    def _marks(self, row: Row, table: DeclaredTable, number: int) -> None:
        for rule in (*self.declared.boxes, *self.declared.masks):
            if table.name in tables_of(rule.table):
                put(row, rule.image, self.ids[number].image)
                words = self.declared.vocabulary.same
                put(
                    row,
                    rule.label,
                    [w for w in words if w != self.declared.vocabulary.no_finding][-1] if words else "x",
                )
                put(row, rule.reader, "R1")
                sides = getattr(rule, "corners", ()) or getattr(rule, "corner_size", ()) or ()
                drawn = all(_meets(row, column, wanted) for column, wanted in rule.where.items())
                row.update({name: str(10 + 10 * place) if drawn else "" for place, name in enumerate(sides)})
        for rule in self.declared.reports:
            if table.name in tables_of(rule.table):
                put(row, rule.text, f"report {number}")


def _meets(row: Row, column: str, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return row.get(column) not in wanted["not"]
    return row.setdefault(column, wanted[0]) in wanted


def write(root: Path, name: str, *, images: int = 6) -> Released:
    """Write a tiny copy of the dataset ``name`` below ``root``."""
    declared = declaration_of(name)
    copy = Copy(declared, images)
    for number, path in enumerate(copy.paths):
        maker = {"png": pictures.png, "jpg": pictures.jpeg}.get(path.rsplit(".", 1)[-1], pictures.dicom)
        maker(root / path, number, width=SIDE, height=SIDE)
    labels: dict[str, int] = {}
    for table in declared.table:
        if table.optional or table.release not in ("", declared.default_release):
            continue
        _write_table(root, copy, table)
        for rule in declared.labels:
            if table.name in tables_of(rule.table):
                count = len(copy.listed(table.name))
                names = [f"{rule.source}-R1", f"{rule.source}-R2", *rule.also] if rule.reader else [rule.source]
                for source in names if count else ():
                    labels[source] = labels.get(source, 0) + count
    studies = {image.study for image in copy.ids}
    patients = {image.patient for image in copy.ids} if "(?P<patient>" in declared.paths.image else studies
    if isinstance(declared.image.study, dict) and "columns" in declared.image.study:
        studies = patients = set(range((images + 1) // 2))  # type: ignore[assignment]  # as the table says, not the path
    splits: dict[str, int] = {}
    stated = declared.image.split is not None
    for word in copy.splits:
        split = str(Split.parse(word)) if stated and word else ""
        splits[split] = splits.get(split, 0) + 1
    return Released(declared.default_release, tuple(copy.paths), len(patients), len(studies), splits, labels)


def _write_table(root: Path, copy: Copy, table: DeclaredTable) -> None:
    pattern = table.patterns[0]
    if table.form == "xml":
        if not table.rows:
            _write_documents(root, copy, pattern)
        return
    if table.form == "files":
        for number, image in enumerate(copy.ids):
            name = pattern.rsplit("/", 1)[0] + "/" + text_of(table.groups, number, id=image.image)
            if table.text:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(f"Patient's Sex: M\nPatient's Age: 04{number}Y\nmale 4{number}yrs\nnormal\n")
            elif name not in copy.paths:
                pictures.png(root / name, number, width=SIDE, height=SIDE)
        return
    path = root / pattern.replace("*", "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = copy.rows(table)
    if table.form == "names":
        path.write_text("".join(f"{row['name']}\n" for row in rows))
    elif table.form == "json":
        path.write_text(json.dumps(_nested(copy.declared, table, rows)))
    else:
        buffer = io.StringIO()
        spelled = {new: old for old, new in table.rename.items()}
        columns = list(dict.fromkeys(column for row in rows for column in row))
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([spelled.get(column, column) for column in columns])
        writer.writerows([row.get(column, "") for column in columns] for row in rows)
        data = buffer.getvalue().encode()
        path.write_bytes(gzip.compress(data, mtime=0) if pattern.endswith(".gz") else data)


def _nested(declared: Declaration, table: DeclaredTable, rows: list[Row]) -> dict[str, Any]:
    """Objects in objects by the table's keys, with a mask or an outline as the leaf."""
    (rule,) = (rule for rule in declared.masks if table.name in tables_of(rule.table))
    found: dict[str, Any] = {}
    for row in rows:
        image, finding = (row[key] for key in table.keys)
        runs = compressed([10, 5, SIDE * SIDE - 15])
        leaf: Any = {"size": [SIDE, SIDE], "counts": runs} if rule.runs else [[[1.0, 2.0], [9.0, 2.0], [9.0, 8.5]]]
        found[image] = {**{key: [SIDE, SIDE] for key in table.aside}, finding: leaf}
    return found


def _write_documents(root: Path, copy: Copy, pattern: str) -> None:
    declared = copy.declared
    by_study: dict[str, list[int]] = {}
    for number, image in enumerate(copy.ids):
        by_study.setdefault(image.study, []).append(number)
    (element,) = {table.rows for table in declared.table if table.form == "xml" and table.rows}
    for study, numbers in by_study.items():
        document = ET.Element("document")
        row: Row = {}
        put(row, declared.image.study, study)
        for rule in declared.labels:
            put(row, rule.names, [f"{[*declared.vocabulary.same][numbers[0]]}/own", "Own finding"])
        for rule in declared.reports:
            for name, value in rule.sections.items():
                put(row, value, f"{name} of {study}")
        for path, cell in row.items():
            for text in cell if isinstance(cell, list) else [cell]:
                plant(document, path.lstrip("/"), text)
        for number in numbers:
            own: Row = {}
            put(own, declared.image.id, copy.ids[number].image)
            plant(document, f"{element}[]/{next(iter(own))}", next(iter(own.values())))
        target = root / pattern.replace("*", study)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(ET.tostring(document))


def plant(element: ET.Element, path: str, text: str) -> None:
    """Put ``text`` where ElementTree's ``path`` leads to; the last step is always a new element."""
    steps = path.removeprefix(".//").split("/")
    for place, step in enumerate(steps):
        if step.startswith("@"):
            element.set(step[1:], text)
            return
        tag, attribute, word = re.fullmatch(r"(\w+)(?:\[(?:@(\w+)='([^']*)')?\])?", step).groups()  # type: ignore[union-attr]  # the paths of our own files
        last = place == len(steps) - 1 or step.endswith("[]")
        found = None if last else element.find(tag)
        element = ET.SubElement(element, tag) if found is None else found
        if attribute:
            element.set(attribute, word)
    element.text = text
