"""Published facts: numbers of a paper or release page against the release's tables.

Which numbers, from where, and how grave a contradiction is, stands in the catalog (``[[fact]]``); what can be counted
is in ``measures``. A table that holds less than half of the rows it has in the release is somebody's selection: of it
only what holds for every part is checked, and totals are reported as n of N. One that holds more claims to be whole.
"""

from __future__ import annotations

import enum
import operator
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cxrprep.storage.value_codes import take_rows, value_codes, with_codes
from cxrprep.verification.finding import Finding, Kind, Level, make_finding
from cxrprep.verification.measures import BLANK, IDS, READ_BY, USED, Subject, measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from cxrprep.datasets.facts import DatasetSpec, Fact
    from cxrprep.storage.patient_table import ByPatient

_PART: Final = 0.5
# A selection of studies has gaps in their numbers; every other "none at all" holds for a part as well.
_WHOLE_ONLY: Final = frozenset({"study_gaps", "view_gaps"})


class FactStatus(enum.StrEnum):
    """What became of a published number."""

    HOLDS = "holds"
    CONTRADICTED = "contradicted"
    EXPLAINED = "explained"
    """It differs, and the catalog says why that is right."""
    PART = "n of N"
    """The tables here are a part of the release: the total cannot be checked, and nothing contradicts it."""
    ABSENT = "not checked"
    """The tables that it is about are not here."""


@dataclass(frozen=True, slots=True)
class FactCheck:
    """One published number: what is stated, what is here, and what that means."""

    id: str
    measure: str
    expected: Any
    found: Any
    status: FactStatus
    source: str
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the form of ``--json``."""
        return {
            "id": self.id,
            "measure": self.measure,
            "expected": self.expected,
            "found": self.found,
            "status": str(self.status),
            "source": self.source,
            "note": self.note or None,
        }


def check_facts(
    spec: DatasetSpec, release: str, root: Path, labels: ByPatient, *, complete: bool = False
) -> list[tuple[FactCheck, tuple[Finding, ...]]]:
    """Every fact of a release in the catalog's order, with what was found.

    Args:
        spec: The dataset.
        release: The release.
        root: The folder.
        labels: Rows as in ``labels.parquet``, with the release's own columns as ``raw_...``.
        complete: Demand the totals of a part, too.

    Returns:
        The facts, each with its outcome.
    """
    facts = [fact for fact in spec.fact if fact.release in ("", release)]
    sources = _sources_of(labels)
    rows, images, found = Counter[str](), Counter[str](), dict[str, Any]()
    for part in labels.ranges():
        coded = with_codes(part, IDS)
        # Table by table: the rows of each are a copy, and one of them at a time is enough.
        for table in dict.fromkeys(fact.table for fact in facts):
            subject = Subject(_rows_of(coded, table, sources), spec, release, root)
            rows[table] += subject.rows.num_rows
            images[table] += subject.codes("image_id").distinct()
            for fact in facts:
                # A file is counted once, and not with each part of the rows.
                if fact.table == table and not (fact.measure.startswith("lines.") and found.get(fact.id)):
                    counted = _measured(fact, subject.counting(fact.value))
                    found[fact.id] = _together(fact.measure, found.get(fact.id), counted)
            del subject
    done = []
    for fact in facts:
        held = images[fact.table] or rows[fact.table]
        whole = complete or held >= _PART * _expected_rows(spec, release, fact)
        done.append(_judged(fact, found[fact.id], whole=whole))
    return done


def fact_columns(spec: DatasetSpec, release: str, names: Sequence[str]) -> list[str]:
    """Those columns of a ``labels.parquet`` that ``check_facts`` reads; most of the release's own are in no fact."""
    facts = [fact for fact in spec.fact if fact.release in ("", release)]
    words = [fact.measure.partition("@")[0].partition(".") for fact in facts]
    stated = {argument for _, _, argument in words}
    stated.update(key for fact in facts if isinstance(fact.value, dict) for key in fact.value)
    # measured: 35 -> 30 columns, 127 -> 100 ms of CPU time for the labels of MIMIC-CXR-JPG's 377,110 images.
    read = {*USED, *(f"raw_{name}" for name in stated), *(READ_BY.get(name) for name, _, _ in words)}
    return [name for name in names if name in read or name.startswith("label_")]


def _sources_of(labels: ByPatient) -> dict[str, set[str]]:
    """The label sources of the rows of each table."""
    found: dict[str, set[str]] = {}
    for part in labels.values("table_name", "label_source"):
        names, sources = (value_codes(column) for column in part.columns)
        words = names.values.to_pylist(), sources.values.to_pylist()
        for name, source in np.argwhere(names.beside(sources)[:-1, :-1]).tolist():
            found.setdefault(words[0][name], set()).add(words[1][source])
    return found


def _rows_of(labels: pa.Table, pattern: str, sources_of: Mapping[str, set[str]]) -> pa.Table:
    """The rows of a table, with those of its label source about images that it does not name: they name no table."""
    if not pattern:
        return labels
    names, sources = value_codes(labels["table_name"]), value_codes(labels["label_source"])
    wanted = {word for word in sources_of if fnmatchcase(word, pattern)}
    its_own = set().union(*(sources_of[word] for word in wanted))
    listed, of_source = (
        np.array([*(word in these for word in codes.values.to_pylist()), False])[codes.at]
        for codes, these in ((names, wanted), (sources, its_own))
    )
    return take_rows(labels, np.flatnonzero(listed | ((names.at < 0) & of_source)))


def _expected_rows(spec: DatasetSpec, release: str, fact: Fact) -> int:
    """How many rows the table of ``fact`` has in the release: what the catalog says of it, or one for each image."""
    for other in spec.fact:
        same = other.table == fact.table and other.release in ("", release)
        if same and other.measure in ("rows", "images") and isinstance(other.value, int) and other.level != "info":
            return other.value
    return spec.counts.get("images", 0)


def _measured(fact: Fact, subject: Subject) -> Any:
    # A file can be counted without any row; everything else needs the table that it is about.
    return measure(fact.measure, subject) if subject.rows.num_rows or fact.measure.startswith("lines.") else None


def _together(name: str, one: Any, other: Any) -> Any:
    """What a measure counts in two parts of the rows: all are counts, but for extremes and what is no row."""
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, dict):
        return {key: _together(name, one.get(key), other.get(key)) for key in {**one, **other}}
    if isinstance(one, list):
        return [_together(name, *pair) for pair in zip(one, other, strict=True)]
    return {"age_min": min, "age_max": max, "lines": max}.get(name.partition(".")[0], operator.add)(one, other)


def _judged(fact: Fact, found: Any, *, whole: bool) -> tuple[FactCheck, tuple[Finding, ...]]:
    def answer(status: FactStatus, found: Any = None) -> FactCheck:
        return FactCheck(fact.id, fact.measure, fact.value, found, status, fact.source, fact.note)

    if found is None:
        return answer(FactStatus.ABSENT), ()
    if not whole and fact.measure in _WHOLE_ONLY:
        return answer(FactStatus.PART, found), ()
    wrong = list(_differences(fact, found, whole=whole))
    if not wrong:
        return answer(FactStatus.HOLDS if whole or fact.value == found else FactStatus.PART, found), ()
    if fact.note and fact.level == Level.INFO:
        return answer(FactStatus.EXPLAINED, found), ()
    findings = tuple(
        make_finding(
            Kind.FACT,
            fact.table,
            f"{fact.id}: {what}, where {fact.source} has {_shown(expected)}" + (f"; {fact.note}" if fact.note else ""),
            level=Level(fact.level),
            expected=expected,
            found=number,
        )
        for what, expected, number in wrong
    )
    return answer(FactStatus.CONTRADICTED, found), findings


def _shown(number: Any) -> str:
    return f"{number:,}" if isinstance(number, int) else str(number)


def _differences(fact: Fact, found: Any, *, whole: bool) -> Iterator[tuple[str, Any, Any]]:
    """What is said, expected and found, for each number that is not as stated. A part may have less, never more."""

    def differs(expected: Any, number: Any) -> bool:
        return bool(number != expected) if whole else bool(number > expected)

    name = fact.measure
    if not isinstance(fact.value, dict):
        # An extreme of a part lies within the whole's range; which side that is, its name says.
        if name == "age_min":
            if found < fact.value or (whole and found != fact.value):
                yield f"{name} is {found:g}", fact.value, found
        elif differs(fact.value, found):
            yield f"{name} is {found:,}", fact.value, found
        return
    for key in (*fact.value, *sorted(set(found) - set(fact.value))):
        expected = fact.value.get(key)
        number = found.get(key)
        if isinstance(expected, list):
            if number is None or any(map(differs, expected, number)):
                shown = "absent" if number is None else f"{number} (1, 0, -1, blank)"
                yield f"{name} of {key} is {shown}", expected, number
        elif expected is None:
            # Blank cells may stand beside values that were counted; another value may not.
            if key != BLANK:
                yield f"{name} has {key!r} {number:,} times", 0, number
        elif differs(expected, number or 0):
            yield f"{name} of {key} is {number or 0:,}", expected, number or 0
