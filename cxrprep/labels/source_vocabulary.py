"""Vocabulary of each label source: the observations that it can state, whatever labels are present.

Columns, label vectors and category ids follow this, so that an export of one split, one patient or one image has the
schema of the whole release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.datasets.catalog import catalog, declaration_of
from cxrprep.errors import UsageError
from cxrprep.schemas import label_columns, own_columns
from cxrprep.vocabulary import CHEXPERT, GOOGLE_FOUR, NIH, OBSERVATIONS, OWN_MARK, VOCABULARIES, observations_of, slug

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Sources that do not speak the vocabulary of the dataset whose images they label.
_OWN_VOCABULARY = {
    "google-adjudicated": GOOGLE_FOUR.stems,
    "google-adjudicated-all": frozenset(NIH.stems | GOOGLE_FOUR.stems),
}


def published_vocabulary(dataset: str, source: str) -> frozenset[str] | None:
    """The observations that a label source of the catalog knows; ``None`` for a source that the catalog does not."""
    spec = catalog().get(dataset)
    if spec is not None and spec.module == "declared":
        declared = declaration_of(spec.name)
        return declared.shared_stems() if declared.has_source(source) else None
    if spec is None or source not in {table.label_source for table in spec.table if table.label_source}:
        return None
    if source in _OWN_VOCABULARY:
        return _OWN_VOCABULARY[source]
    vocabulary = VOCABULARIES.get(spec.vocabulary)
    return None if vocabulary is None else vocabulary.stems


def own_column(dataset: str, source: str, name: str) -> str:
    """The column of a finding that no shared observation is, of a label source that somebody added.

    It is the dataset's own where its file declares the finding, else one under the source's name. Empty for a name
    without a letter that a column may have.
    """
    spec = catalog().get(dataset)
    if spec is not None and spec.module == "declared":
        words = declaration_of(spec.name).vocabulary
        if words.namespace and words.shared(name) is None and words.knows(name):
            return words.column(name)
    return f"label_{slug(source)}{OWN_MARK}{slug(name)}" if slug(name) and slug(source) else ""


def present_observations(table: pa.Table, source: str | None = None) -> frozenset[str]:
    """The observations that have a label in some row of ``table``, or in some row of one source."""
    if source is not None and "label_source" in table.column_names:
        table = table.filter(pc.equal(table.column("label_source").cast(pa.string()), source))
    return frozenset(
        name.removeprefix("label_")
        for name in label_columns(table.schema)
        if table.column(name).null_count < table.num_rows
    )


def knowledge_of(table: pa.Table, made_from: Mapping[str, Any] | None = None) -> dict[str, frozenset[str]]:
    """The observations that each label source of a manifest knows, also where no label of it is present.

    Sources of the catalog know their published vocabulary. Of a source that somebody added, what it knows shows in the
    labels that it gave. ``made_from`` is the manifest's footer, which names dataset and sources.
    """
    footer = made_from or {}
    held = table.column("dataset")[0].as_py() if table.num_rows and "dataset" in table.column_names else ""
    dataset = str(footer.get("dataset") or held)
    named = [name.strip() for name in str(footer.get("label_source") or "").split(",")]
    if "label_source" in table.column_names:
        named += pc.unique(table.column("label_source").cast(pa.string())).to_pylist()
    found = {}
    for source in dict.fromkeys(filter(None, named)):
        published = published_vocabulary(dataset, source)
        here = present_observations(table, source)
        found[source] = here if published is None else published | {stem for stem in here if OWN_MARK in stem}
    return found


def known_observations(table: pa.Table, made_from: Mapping[str, Any]) -> tuple[str, ...]:
    """The observations that the label sources of a whole manifest know, in the vocabulary's order.

    Labels that are there all the same, as of a folder without a label source, count too.
    """
    return ordered(frozenset().union(*knowledge_of(table, made_from).values()) | present_observations(table))


def chosen_observations(names: str | Iterable[str], table: pa.Table) -> tuple[str, ...]:
    """The observations that a preset or names stand for.

    Raises ``UsageError`` for a finding that no folder here has.
    """
    chosen = observations_of(names if isinstance(names, str) else tuple(names))
    lacking = next((stem for stem in chosen if OWN_MARK in stem and f"label_{stem}" not in table.column_names), None)
    if lacking is not None:
        own = ", ".join(name.removeprefix("label_").replace(OWN_MARK, ":") for name in own_columns(table.schema))
        raise UsageError(
            f"no image here has the observation {lacking.replace(OWN_MARK, ':')}",
            hint=f"findings of the datasets' own: {own[:300] or 'none'}",
        )
    return chosen


def ordered(stems: Iterable[str]) -> tuple[str, ...]:
    """``stems`` in the order of the vocabulary; a collection's own follow by name."""
    wanted = frozenset(stems)
    return (*(stem for stem in OBSERVATIONS if stem in wanted), *sorted(wanted.difference(OBSERVATIONS)))


def box_categories(dataset: str, present: Iterable[str]) -> tuple[str, ...]:
    """The names that boxes of a dataset may have, in an order that never changes: the position is a category's id.

    They are the findings of the dataset's vocabulary in its own order; names that the vocabulary lacks follow in
    alphabetical order. ``present`` are the names of the whole manifest.
    """
    spec = catalog().get(dataset)
    if spec is not None and spec.module == "declared":
        words = declaration_of(spec.name).vocabulary
        used = VOCABULARIES[words.use].names if words.use else ()
        told = dict.fromkeys((*words.same, *words.under, *words.own, *used))
        names = tuple(name for name in told if name not in (words.no_finding, *words.not_observations))
        return (*names, *sorted(set(present) - set(names)))
    vocabulary = VOCABULARIES.get(spec.vocabulary, CHEXPERT) if spec is not None else None
    names = () if vocabulary is None else tuple(t.name for t in vocabulary.terms if t.stem != "no_finding")
    return (*names, *sorted(set(present) - set(names)))
