"""Label policy: what uncertain and blank labels become on export and load. ``labels.parquet`` never changes.

The policies are those of the CheXpert paper (Irvin et al., AAAI 2019, section 3.1): U-Ones, U-Zeros, U-Ignore, and
``keep`` for models with a class of its own for "uncertain". The paper counts a blank as negative; here a blank stays
null unless ``blank`` says otherwise. ``ignore`` makes an uncertain label null, and a mask tells it apart from one that
was never mentioned.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import UsageError
from cxrprep.labels.source_vocabulary import knowledge_of
from cxrprep.schemas import label_columns
from cxrprep.vocabulary import published_name, stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self


class Uncertain(enum.StrEnum):
    """What an uncertain label (-1) becomes."""

    KEEP = "keep"
    """stays -1"""
    ONES = "ones"
    """becomes 1 (U-Ones)"""
    ZEROS = "zeros"
    """becomes 0 (U-Zeros)"""
    IGNORE = "ignore"
    """becomes null, and 0 in the mask of what a loss should count (U-Ignore)"""


class Blank(enum.StrEnum):
    """What a label that was not mentioned (null) becomes."""

    NULL = "null"
    """stays null"""
    ZEROS = "zeros"
    """becomes 0; only where the label source can say something about the observation"""


# Which observations a positive one implies, by the paper's hierarchy and the vocabulary's "lies under"; children that
# are parents themselves come before their own parents.
_IMPLIES: Final[Mapping[str, tuple[str, ...]]] = {
    "enlarged_cardiomediastinum": ("cardiomegaly",),
    "consolidation": ("pneumonia",),
    "lung_lesion": ("mass", "nodule"),
    "lung_opacity": (
        "edema", "consolidation", "pneumonia", "lung_lesion", "atelectasis", "infiltration", "mass", "nodule",
    ),
    "pleural_other": ("pleural_thickening",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Policy:
    """What labels become on the way out. ``per`` names observations that are treated otherwise.

    ``derive`` fills parents from children before the rest: a positive child makes its parent positive where the parent
    is null. ``knows`` says which observations each label source knows; what is not said there shows in the labels.
    """

    uncertain: Uncertain = Uncertain.KEEP
    blank: Blank = Blank.NULL
    per: tuple[tuple[str, Uncertain, Blank], ...] = field(default=())
    derive: bool = False
    knows: tuple[tuple[str, frozenset[str]], ...] = field(default=(), compare=False)

    @classmethod
    def parse(
        cls,
        *,
        uncertain: str = "keep",
        blank: str = "null",
        derive: bool = False,
        per: Mapping[str, Mapping[str, str] | str] | None = None,
    ) -> Self:
        """The policy that words name.

        Args:
            uncertain: ``keep``, ``ones``, ``zeros`` or ``ignore``: what becomes of -1.
            blank: ``null`` or ``zeros``: what becomes of what is not mentioned.
            derive: Fill parents from children.
            per: Maps an observation, by any of its names, to ``"ones"`` or to ``{uncertain = "ones", blank =
                "zeros"}``.

        Returns:
            The policy.

        Raises:
            UsageError: Lists the words that there are.
        """
        rules = []
        for name, words in (per or {}).items():
            both = {"uncertain": words} if isinstance(words, str) else dict(words)
            unknown = set(both) - {"uncertain", "blank"}
            if unknown:
                raise UsageError(f"policy of {name}: unknown key {min(unknown)!r}", hint="known: uncertain, blank")
            rules.append(
                (
                    stem_of(name),
                    _word(Uncertain, both.get("uncertain", uncertain)),
                    _word(Blank, both.get("blank", blank)),
                )
            )
        return cls(_word(Uncertain, uncertain), _word(Blank, blank), tuple(sorted(rules)), derive)

    def of(self, stem: str) -> tuple[Uncertain, Blank]:
        """What holds for one observation."""
        for name, uncertain, blank in self.per:
            if name == stem:
                return uncertain, blank
        return self.uncertain, self.blank

    def describe(self) -> dict[str, Any]:
        """The policy as JSON values, for footers and cards."""
        return {
            "uncertain": str(self.uncertain),
            "blank": str(self.blank),
            "derive": self.derive,
            "per": {published_name(stem): {"uncertain": str(u), "blank": str(b)} for stem, u, b in self.per},
        }

    def apply(self, table: pa.Table) -> pa.Table:
        """``table`` with its ``label_*`` columns changed accordingly; nothing else is touched."""
        if self.derive:
            table = derive(table)
        knows = self._knowledge(table)
        for name in label_columns(table.schema):
            index = table.schema.get_field_index(name)
            changed = self._changed(table, name.removeprefix("label_"), knows)
            table = table.set_column(index, table.schema.field(index), changed)
        return table

    def mask(self, table: pa.Table, stem: str) -> pa.ChunkedArray:
        """1 where a loss should count the label after ``apply``, else 0: not null, and not an ignored -1.

        ``table`` is as it was before ``apply``.
        """
        source = derive(table) if self.derive else table
        return pc.is_valid(self._changed(source, stem, self._knowledge(source))).cast(pa.int8())

    def _knowledge(self, table: pa.Table) -> Mapping[str, frozenset[str]]:
        """What each label source of ``table`` knows; it is looked up once, and only where a blank becomes a zero."""
        filled = Blank.ZEROS in (self.blank, *(blank for _, _, blank in self.per))
        return {**knowledge_of(table), **dict(self.knows)} if filled and "label_source" in table.column_names else {}

    def _changed(self, table: pa.Table, stem: str, knows: Mapping[str, frozenset[str]]) -> pa.ChunkedArray:
        values = table.column(f"label_{stem}")
        uncertain, blank = self.of(stem)
        was_blank = pc.is_null(values)
        if uncertain is not Uncertain.KEEP:
            instead = {Uncertain.ONES: pa.scalar(1, pa.int8()), Uncertain.ZEROS: pa.scalar(0, pa.int8())}.get(
                uncertain, pa.scalar(None, pa.int8())
            )
            values = pc.if_else(pc.fill_null(pc.equal(values, -1), fill_value=False), instead, values)
        if blank is Blank.ZEROS:
            filled = pc.and_(was_blank, self._known(table, stem, knows))
            values = pc.if_else(filled, pa.scalar(0, pa.int8()), values)
        return values

    @staticmethod
    def _known(table: pa.Table, stem: str, knows: Mapping[str, frozenset[str]]) -> Any:
        """Where the label source has a word for the observation at all: there a blank means "not mentioned".

        A row without a label source has no labels, and what a source does not know stays null.
        """
        if "label_source" not in table.column_names:
            column = table.column(f"label_{stem}")
            return pa.scalar(column.null_count < len(column))
        knowing = [name for name, stems in knows.items() if stem in stems]
        return pc.is_in(table.column("label_source").cast(pa.string()), value_set=pa.array(knowing, pa.string()))


KEEP: Final = Policy()


def _word(kind: type[Any], word: str) -> Any:
    try:
        return kind(word)
    except ValueError as error:
        known = ", ".join(str(member) for member in kind)
        raise UsageError(
            f"unknown policy {word!r} for {kind.__name__.lower()} labels", hint=f"known: {known}"
        ) from error


def derive(table: pa.Table) -> pa.Table:
    """``table`` with parents that are null made positive by a positive child; nothing else is filled.

    Cardiomegaly implies an enlarged cardiomediastinum; pneumonia implies consolidation; oedema, consolidation,
    pneumonia, lesion, atelectasis and infiltration imply a lung opacity; mass and nodule imply a lung lesion; pleural
    thickening implies Pleural Other. A stated parent, 0 and -1 included, is never overruled. An uncertain or a negative
    child says nothing of its parent.
    """
    for stem, children in _IMPLIES.items():
        name = f"label_{stem}"
        index = table.schema.get_field_index(name)
        held = [pc.equal(table.column(f"label_{child}"), 1) for child in children]
        positive = functools.reduce(pc.or_, [pc.fill_null(one, fill_value=False) for one in held])
        implied = pc.if_else(positive, pa.scalar(1, pa.int8()), pa.scalar(None, pa.int8()))
        table = table.set_column(index, table.schema.field(index), pc.coalesce(table.column(index), implied))
    return table


def with_parents(stems: Iterable[str]) -> frozenset[str]:
    """``stems`` and the observations that ``derive`` may fill from them."""
    found = set(stems)
    for parent, children in _IMPLIES.items():
        if found.intersection(children):
            found.add(parent)
    return frozenset(found)
