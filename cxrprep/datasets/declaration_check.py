"""A dataset's TOML file read and checked: each mistake with its line (``cxrprep datasets check``)."""

from __future__ import annotations

import difflib
import re
import string
from typing import TYPE_CHECKING, Any, Final

from cxrprep.datasets.declaration import ENCODINGS, FORMAT, FORMS, SHAPES, Declaration, tables_of
from cxrprep.datasets.facts import build
from cxrprep.datasets.patterns import compiled
from cxrprep.errors import ConfigError, did_you_mean
from cxrprep.model import Split, View
from cxrprep.vocabulary import OBSERVATIONS, VOCABULARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from cxrprep.config.toml import TomlText

Problem = tuple[str, str]
"""The dotted name of what is wrong, by which its line is found, and what is wrong."""
_SEE: Final = "see docs/howto/own-dataset.md"
_CELLS: Final = ("column", "columns", "text", "first_of")
_RULES: Final = ("with", "split", "use", "lower", "match", "replace", "map", "else", "min", "max")
_TRANSFORMS: Final = re.compile(r"number|all|python-list|json-list|dicom-age(?::[0-9.]+)?|date:.+")
_ELSE: Final = ("error", "null", "keep")
_NEARLY: Final = 0.9  # one letter of ten; Lung Opacity and Lung cavity are two words
_AGREED: Final = ("any", "majority", "all")
# The keys of a block that are values, and words that stand for none.
_OF_IMAGES: Final = (
    "id", "image", "patient", "study", "file", "view", "split", "sex", "age", "birth_year", "date", "width", "height",
    "spacing", "follow_up",
)  # fmt: skip
_OF_BLOCKS: Final = ("image", "study", "patient", "names", "name", "reader", "score", "label", "text", "split")
_NO_VALUE: Final = {"patient": ("unknown",), "study": ("image",)}
# What a shape or an encoding takes the labels or regions from.
_NEEDED: Final = {
    "list": ("names",), "rows": ("name",), "class": ("name",), "columns": ("values",),
    "rle": ("runs",), "coco-rle": ("runs", "size"), "polygons": ("points",),
}  # fmt: skip


def parse_declaration(file: TomlText) -> Declaration:
    """The declaration that a TOML text is. Raises ``ConfigError`` with all that is wrong with it, line by line."""
    if (version := file.data.get("format")) != FORMAT:
        file.mistake("format", f"format {version!r} is not known", f"this version reads format = {FORMAT}")
        file.raise_mistakes()
    found = build(Declaration, file.data, file)
    file.raise_mistakes()
    for name in _in_circles(found.vocabulary.under):
        file.mistake(f"vocabulary.under.{name}", f"[vocabulary.under] {name!r} is under itself", "name a wider finding")
    for check in (_of_names, _of_paths, _of_tables, _of_words, _of_labels, _of_marks, _of_values, _of_facts):
        for name, problem in check(found):
            file.mistake(name, problem, _SEE)
    file.raise_mistakes()
    return found


def _in_circles(under: dict[str, str]) -> list[str]:
    """The names that lead back to themselves."""
    circles = []
    for name, wider in under.items():
        seen, above = {name}, wider
        while above in under and above not in seen:
            seen.add(above)
            above = under[above]
        circles += [name] if above == name else []
    return circles


def _blocks(found: Declaration) -> Iterator[tuple[str, str, Any]]:
    """Each block that speaks of a table: its dotted name, what messages call it, and the rule."""
    yield "image", "[image]", found.image
    for kind in ("labels", "boxes", "masks", "splits", "link", "reports"):
        for number, rule in enumerate(getattr(found, kind), 1):
            source = getattr(rule, "source", "")
            yield f"{kind}.{number}", f"[[{kind}]] {source}".strip(), rule


def _one_of(name: str, place: str, word: Any, known: Collection[str]) -> Iterator[Problem]:
    if word not in known:
        meant = did_you_mean(str(word), known).strip()
        yield name, f"{place} {word!r} is not one of {', '.join(known)}" + (f" ({meant})" if meant else "")


def _twice(name: str, place: str, words: Collection[str]) -> Iterator[Problem]:
    for word in sorted({word for word in words if [*words].count(word) > 1}):
        yield name, f"{place}: {word!r} stands there twice"


# ---- names, paths, tables ----


def _of_names(found: Declaration) -> Iterator[Problem]:
    """Names that cannot be columns, folders or words of a command, or that name nothing."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", found.name):
        yield "name", f"name {found.name!r}: only small letters, digits, '.', '-' and '_' are possible"
    space = found.vocabulary.namespace
    if not re.fullmatch(r"[a-z0-9_]*", space):
        yield "vocabulary.namespace", f"[vocabulary] namespace {space!r}: only small letters, digits and '_'"
    if found.vocabulary.open and not space:
        yield "vocabulary.open", "[vocabulary] open: findings of its own need a namespace"
    if found.default_release not in found.releases:
        yield "default_release", f"default_release {found.default_release!r} is not one of releases"
    for suffix in found.images.suffixes or ("none",):
        if not re.fullmatch(r"(\.[\w.]+)?", suffix):
            yield "images.suffixes", f"[images] suffixes: {suffix!r} is none; they are such as .png"
    if found.labels and found.default_label_source and not found.has_source(found.default_label_source):
        sources = ", ".join(rule.source for rule in found.labels)
        said = f"default_label_source {found.default_label_source!r} is none of the [[labels]]: {sources}"
        yield "default_label_source", said


def _of_paths(found: Declaration) -> Iterator[Problem]:
    try:
        groups = re.compile(found.paths.image).groupindex
    except re.error as error:
        yield "paths.image", f"[paths] image is not a regular expression: {error}"
        return
    if "id" not in groups:
        yield "paths.image", "[paths] image has no group (?P<id>...)"
    try:
        compiled(found.paths.image)
    except ConfigError as error:
        yield "paths.image", f"[paths] image: {error.message}"
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(found.paths.place) if field is not None]
    except ValueError as error:
        yield "paths.place", f"[paths] place is not a template: {error}"
        return
    if _leads_out(found.paths.place):
        yield "paths.place", f"[paths] place {found.paths.place!r} leads out of the folder"
    known = [*groups]
    for field in fields:
        yield from _one_of("paths.place", "[paths] place: the group", field, known)
    for form in found.paths.files:
        if _leads_out(form):
            yield "paths.files", f"[paths] files: {form!r} leads out of the folder"
    for form in found.paths.sure:
        if not form.strip("*?"):
            yield "paths.sure", f"[paths] sure: {form!r} is the name of any file"


def _leads_out(path: str) -> bool:
    return bool(re.match(r"[/\\]|[A-Za-z]:", path)) or ".." in re.split(r"[/\\]", path)


def _of_tables(found: Declaration) -> Iterator[Problem]:
    names = [table.name for table in found.table]
    for number, table in enumerate(found.table, 1):
        place = f"[[table]] {table.name}"
        yield from _one_of(f"table.{number}.form", f"{place}: form", table.form, FORMS)
        if table.name in names[: number - 1]:
            yield f"table.{number}.name", f"two [[table]] have the name {table.name!r}"
        if not table.patterns:
            yield f"table.{number}.patterns", f"{place}: patterns has no name of a file"
        if not table.has_header and not table.header:
            yield f"table.{number}.has_header", f"{place}: a table without a header needs names of columns: header"
        if len(table.delimiter) > 1:
            yield f"table.{number}.delimiter", f"{place}: delimiter is one sign, not {table.delimiter!r}"
        if table.release:
            yield from _one_of(f"table.{number}.release", f"{place}: release", table.release, found.releases)
        for key in ("columns", "header"):
            yield from _twice(f"table.{number}.{key}", f"{place}: {key}", [w for w in getattr(table, key) if w])
        renamed = [table.rename.get(name, name) for name in {*table.columns, *table.header, *table.rename}]
        yield from _twice(f"table.{number}.rename", f"{place}: rename", renamed)
        for column, rule in table.cells.items():
            for key in ("match", "trim"):
                if (pattern := getattr(rule, key)) and (said := _no_pattern(pattern)):
                    yield f"table.{number}.cells.{column}", f"{place}: cells.{column}: {key}: {said}"
        for pattern in table.patterns:
            if _leads_out(pattern):
                yield f"table.{number}.patterns", f"{place}: the pattern {pattern!r} leads out of the folder"
    for name, place, rule in _blocks(found):
        named = rule.table
        if not isinstance(named, (str, list, tuple)) or not all(isinstance(one, str) for one in named):
            yield f"{name}.table", f"{place} table: expected a name or a list of names, found {named!r}"
            continue
        for one in tables_of(named):
            if one not in names:
                yield f"{name}.table", f"{place} names the table {one!r}, which is not declared"


def _of_words(found: Declaration) -> Iterator[Problem]:
    """Words of views and observations that mean nothing here."""
    projections = sorted({str(view.projection) for view in View})
    for word, rule in found.views.items():
        for key, said, known in (
            ("view", rule.view, list(map(str, View))),
            ("projection", rule.projection, projections),
        ):
            if said and said not in known:
                what = f"[views] {word!r}: {key} {said!r} is not one of {', '.join(known)}, or empty"
                yield f"views.{word}", what
        if rule.view in list(map(str, View)) and rule.projection not in ("", str(View(rule.view).projection)):
            due = View(rule.view).projection
            yield f"views.{word}", f"[views] {word!r}: {rule.view} is {due}, and not {rule.projection}"
    words = found.vocabulary
    if words.use:
        yield from _one_of("vocabulary.use", "[vocabulary] use:", words.use, VOCABULARIES)
        if words.use not in VOCABULARIES:
            return
    for name in words.own:
        place = f"vocabulary.own.{name}"
        if name in words.same:
            yield place, f"[vocabulary.own] {name!r} is in [vocabulary.same] too"
        if same := [other for other in words.own if other < name and words.column(other) == words.column(name)]:
            yield place, f"[vocabulary.own] {name!r} and {same[0]!r} would be one column, {words.column(name)}"
    if words.no_finding and words.no_finding not in words.names:
        yield from _misspelt("vocabulary.no_finding", "[vocabulary] no_finding", words.no_finding, found)
    for name, meant in words.same.items():
        if isinstance(meant, dict) and (strange := [key for key in meant if key not in ("is", "loss")]):
            yield f"vocabulary.same.{name}", f"[vocabulary.same] {name!r}: {strange[0]!r} is none of is, loss"
        if isinstance(meant, dict) and "is" not in meant:
            yield f"vocabulary.same.{name}", f"[vocabulary.same] {name!r}: it does not say what it is"
        elif (shared := words.shared(name)) is not None and shared[0] not in OBSERVATIONS:
            yield f"vocabulary.same.{name}", f"[vocabulary.same] {name!r}: {shared[0]!r} is not a shared observation"


def _misspelt(name: str, place: str, word: str, found: Declaration) -> Iterator[Problem]:
    """A finding that nothing declares: of an open vocabulary only one that is spelled nearly as another."""
    near = [] if found.vocabulary.knows(word) else difflib.get_close_matches(word, found.vocabulary.names, 1, _NEARLY)
    if near:
        yield name, f"{place}: {word!r} is declared nowhere in [vocabulary] (did you mean {near[0]}?)"


# ---- labels, boxes, masks, reports ----


def _of_labels(found: Declaration) -> Iterator[Problem]:
    for number, rule in enumerate(found.labels, 1):
        name, place = f"labels.{number}", f"[[labels]] {rule.source}"
        yield from _one_of(f"{name}.shape", f"{place}: shape", rule.shape, SHAPES)
        needed = _NEEDED.get(rule.shape, ())
        yield from _lacking(name, place, rule, f"shape = {rule.shape!r}", needed)
        read = (*needed, "columns") if rule.shape == "columns" else needed
        for key in ("names", "name", "columns", "values"):
            if getattr(rule, key) and rule.shape in SHAPES and key not in read:
                yield f"{name}.{key}", f"{place}: shape = {rule.shape!r} does not read {key}"
        if not rule.source:
            yield f"{name}.source", "[[labels]] source has no name"
        before = [other for other in found.labels[: number - 1] if other.source == rule.source]
        if any({*tables_of(other.table)} & {*tables_of(rule.table)} for other in before if _is_named(other, rule)):
            yield f"{name}.source", f"{place}: an earlier [[labels]] of this source reads the same table"
        for finding in rule.columns.values() if isinstance(rule.columns, dict) else ():
            yield from _misspelt(f"{name}.columns", f"{place}: columns", finding, found)
        if rule.known:
            yield from _one_of(f"{name}.known", f"{place}: known", rule.known, VOCABULARIES)
        if rule.absent not in (0, None):
            yield f"{name}.absent", f"{place}: absent is 0, or left out, and not {rule.absent!r}"
        if not (rule.columns is None or rule.columns in ("vocabulary", "all") or isinstance(rule.columns, dict)):
            yield f"{name}.columns", f'{place}: columns is "vocabulary", or a table of columns, not {rule.columns!r}'
        yield from _one_of(
            f"{name}.rows_per_image", f"{place}: rows_per_image", rule.rows_per_image, ("", "same", "any")
        )
        for source, how in rule.also.items():
            yield from _one_of(f"{name}.also", f"{place}: also.{source}", how, _AGREED)
        if rule.also and rule.reader is None:
            yield f"{name}.also", f"{place}: also needs a reader"
        for word, value in rule.values.items():  # a field of the rule, not of a data frame
            if value not in (1, 0, -1):
                yield f"{name}.values", f"{place}: values.{word} is 1, 0 or -1, and not {value!r}"


def _of_marks(found: Declaration) -> Iterator[Problem]:
    for number, box in enumerate(found.boxes, 1):
        given = [sides for sides in (box.corners, box.corner_size, box.centre_size) if sides]
        if len(given) != 1 or not (_is_text(given[0]) or (_are_texts(given[0]) and len(given[0]) == 4)):
            said = "[[boxes]] needs the four columns, or the one, of one of corners, corner_size, centre_size"
            yield f"boxes.{number}", said
        sized = box.size in (None, "image") or _are_sizes(box.size)
        if not sized:
            yield f"boxes.{number}.size", '[[boxes]] size is [height, width] in pixels, or "image"'
    for number, mask in enumerate(found.masks, 1):
        name = f"masks.{number}"
        yield from _one_of(f"{name}.encoding", "[[masks]] encoding", mask.encoding, ENCODINGS)
        yield from _one_of(f"{name}.order", "[[masks]] order", mask.order, ("columns", "rows"))
        yield from _one_of(f"{name}.start", "[[masks]] start", mask.start, ("absolute", "relative"))
        yield from _lacking(name, "[[masks]]", mask, f"encoding = {mask.encoding!r}", _NEEDED.get(mask.encoding, ()))
    for number, link in enumerate(found.link, 1):
        if link.image is None and link.study is None and link.patient is None:
            yield f"link.{number}", "[[link]] needs the image, the study or the patient that a row is about"
    for number, report in enumerate(found.reports, 1):
        if report.study is None and report.image is None:
            yield f"reports.{number}", "[[reports]] needs the study or the image that a text is of"
        if report.text is None and not report.sections:
            yield f"reports.{number}", "[[reports]] needs text or sections"


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(one) is int and one > 0 for one in value)


def _is_named(*rules: Any) -> bool:
    """Whether all these blocks name their tables as they must."""
    return all(isinstance(rule.table, (str, list, tuple)) and all(map(_is_text, rule.table)) for rule in rules)


def _lacking(name: str, place: str, rule: Any, why: str, needed: Collection[str]) -> Iterator[Problem]:
    for key in needed:
        if not getattr(rule, key):
            yield name, f"{place}: {why} needs {key}"


# ---- values ----


def _of_values(found: Declaration) -> Iterator[Problem]:
    for name, place, rule in _blocks(found):
        for key in _OF_IMAGES if name.startswith(("image", "link")) else _OF_BLOCKS:
            value = getattr(rule, key, None)
            if value is not None and not (isinstance(value, str) and value in _NO_VALUE.get(key, ())):
                yield from _of_value(f"{name}.{key}", f"{place} {key}", value)
                yield from _of_meanings(f"{name}.{key}", f"{place} {key}", key, value)
        for key, value in getattr(rule, "sections", {}).items():
            yield from _of_value(f"{name}.sections.{key}", f"{place} sections.{key}", value)


def _of_facts(found: Declaration) -> Iterator[Problem]:
    """Numbers that cannot be, and facts of releases that are none."""
    for key, count in found.counts.items():
        yield from _one_of(f"counts.{key}", "[counts]", key, ("images", "patients", "studies", "reports", "bytes"))
        if count <= 0:
            yield f"counts.{key}", f"[counts] {key} is a number above 0, not {count}"
    for number, fact in enumerate(found.fact, 1):
        if fact.release:
            yield from _one_of(f"fact.{number}.release", f"[[fact]] {fact.id}: release", fact.release, found.releases)
        if isinstance(fact.value, str):
            yield f"fact.{number}.value", f"[[fact]] {fact.id}: value is a number or numbers, and not {fact.value!r}"


def _of_value(name: str, place: str, value: Any) -> Iterator[Problem]:
    """What is wrong with a value: a column's name, or a table of one source of cells, and rules."""
    if isinstance(value, str) and value:
        return
    if not isinstance(value, dict):
        yield name, f"{place}: expected a column's name, or a table such as {{ column = ... }}, found {value!r}"
        return
    strange = [key for key in value if key not in (*_CELLS, *_RULES)]
    if strange:
        yield name, f"{place}: {strange[0]!r} is no rule of a value: {', '.join((*_CELLS, *_RULES))}"
    given = [key for key in _CELLS if key in value]
    if len(given) != 1:
        yield name, f"{place}: a value has one of {', '.join(_CELLS)}, not {' and '.join(given) or 'none'}"
    for one in value.get("first_of", ()):
        yield from _of_value(name, f"{place} first_of", one)
    for key, test, what in _EXPECTED:
        if key in value and not test(value[key]):
            yield name, f"{place}: {key} is {what}, not {value[key]!r}"
    if all(_is_number(value.get(key)) for key in ("min", "max")) and value["min"] > value["max"]:
        yield name, f"{place}: min {value['min']} is above max {value['max']}"
    if isinstance(value.get("match"), str):
        yield from _of_match(name, place, value["match"])


def _no_pattern(pattern: str) -> str:
    try:
        compiled(pattern)
    except ConfigError as error:
        return error.message
    return ""


def _of_match(name: str, place: str, pattern: str) -> Iterator[Problem]:
    try:
        groups = compiled(pattern).groups
    except ConfigError as error:
        yield name, f"{place}: {error.message}"
        return
    if groups != 1:
        yield name, f"{place}: match = {pattern!r} has {groups} groups, and needs one: (...), others as (?:...)"


def _of_meanings(name: str, place: str, key: str, value: Any) -> Iterator[Problem]:
    """Splits and sexes that a map makes and that are none."""
    map_ = value.get("map") if isinstance(value, dict) else None
    words = [word for word in map_.values() if isinstance(word, str)] if isinstance(map_, dict) else []
    known = {"split": tuple(map(str, Split)), "sex": ("M", "F")}.get(key, ())
    for word in words if known else ():
        if word not in known:
            yield name, f"{place}: map makes {word!r}, which is none of {', '.join(known)}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(map(_is_text, value))


def _are_words(value: Any) -> bool:
    """``[old, new]`` or ``[old, new, how often]``, each in a list."""
    return isinstance(value, (list, tuple)) and all(
        isinstance(one, (list, tuple)) and len(one) in (2, 3) and all(isinstance(word, str) for word in one[:2])
        for one in value
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_EXPECTED: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    ("column", _is_text, "a column's name"),
    ("columns", _are_texts, "a list of columns' names"),
    ("text", lambda value: isinstance(value, str), "a text"),
    ("first_of", lambda value: isinstance(value, (list, tuple)) and bool(value), "a list of values"),
    ("with", lambda value: isinstance(value, str), "a text"),
    ("split", _is_text, "a text"),
    ("use", lambda value: isinstance(value, str) and bool(_TRANSFORMS.fullmatch(value)),
     "one of number, dicom-age, python-list, json-list, date:FORMAT, all"),
    ("lower", lambda value: isinstance(value, bool), "true or false"),
    ("match", _is_text, "a regular expression with one group"),
    ("replace", _are_words, 'a list such as [["old", "new"]]'),
    ("map", lambda value: isinstance(value, dict) and all(isinstance(one, str) for one in value.values()),
     'a table such as { "M" = "male" }'),
    ("else", lambda value: value in _ELSE, "one of error, null, keep"),
    ("min", _is_number, "a number"),
    ("max", _is_number, "a number"),
)  # fmt: skip
