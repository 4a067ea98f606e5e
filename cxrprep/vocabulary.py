"""Vocabulary: the shared observations, the names of each publisher, and what is lost between them.

A published name ("Pleural Effusion", NIH's "Effusion") leads to a unified observation, whose column is
``label_pleural_effusion``. Two names that share an observation are renamings; where meanings differ the loss is said.
Nothing here derives one observation from another: that is ``policy.derive``, and only when asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cxrprep.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

# The unified observations: stem of the column, and what a 1 in it says.
OBSERVATIONS: Final[Mapping[str, str]] = {
    "no_finding": "nothing else was found; what that covers differs by release, see the vocabulary",
    "enlarged_cardiomediastinum": "the heart or the mediastinum is widened",
    "cardiomegaly": "the heart is enlarged",
    "lung_opacity": "any opacity in the lungs",
    "lung_lesion": "a nodule or a mass",
    "edema": "pulmonary oedema",
    "consolidation": "consolidation of lung tissue",
    "pneumonia": "pneumonia",
    "atelectasis": "atelectasis",
    "pneumothorax": "pneumothorax",
    "pleural_effusion": "pleural effusion",
    "pleural_other": "a pleural abnormality other than effusion",
    "fracture": "a fracture",
    "support_devices": "tubes, lines, pacemakers and other devices",
    "infiltration": "infiltration; NIH only, not the same as lung opacity",
    "mass": "a mass; NIH only",
    "nodule": "a nodule; NIH only",
    "emphysema": "emphysema; NIH only",
    "fibrosis": "pulmonary fibrosis; NIH only",
    "hernia": "hernia; NIH only",
    "pleural_thickening": "pleural thickening; NIH only",
}


# Between the namespace of a collection and its own observation.
OWN_MARK: Final = "__"


def slug(name: str) -> str:
    """A name in snake case, as columns have it: ``Pleural Effusion`` is ``pleural_effusion``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


@dataclass(frozen=True, slots=True)
class Term:
    """A published name, the unified observation that it stands for, and what is lost on the way."""

    name: str
    stem: str
    loss: str = ""

    @property
    def column(self) -> str:
        """The manifest's column, ``label_<stem>``."""
        return f"label_{self.stem}"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names of one publisher, in the order of its tables; ``no_finding`` says what that name means there."""

    name: str
    title: str
    terms: tuple[Term, ...]
    no_finding: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The published names, in order."""
        return tuple(term.name for term in self.terms)

    @property
    def stems(self) -> frozenset[str]:
        """The unified observations that it knows."""
        return frozenset(term.stem for term in self.terms)

    def term(self, name: str) -> Term | None:
        """The term that is spelled exactly ``name``."""
        return next((term for term in self.terms if term.name == name), None)


_CHEXPERT_TERMS = (
    Term("No Finding", "no_finding", "its meaning differs between the releases"),
    Term("Enlarged Cardiomediastinum", "enlarged_cardiomediastinum"),
    Term("Cardiomegaly", "cardiomegaly"),
    Term("Lung Opacity", "lung_opacity"),
    Term("Lung Lesion", "lung_lesion"),
    Term("Edema", "edema"),
    Term("Consolidation", "consolidation"),
    Term("Pneumonia", "pneumonia"),
    Term("Atelectasis", "atelectasis"),
    Term("Pneumothorax", "pneumothorax"),
    Term("Pleural Effusion", "pleural_effusion"),
    Term("Pleural Other", "pleural_other"),
    Term("Fracture", "fracture"),
    Term("Support Devices", "support_devices"),
)


CHEXPERT: Final = Vocabulary(
    "chexpert",
    "the 14 observations of CheXpert and MIMIC-CXR",
    _CHEXPERT_TERMS,
    "1 when no mention other than Support Devices is positive or uncertain and no other abnormality is named; blank "
    "otherwise, never 0. Devices may be present. In valid and test it is the radiologists' word; in MIMIC's test-set "
    "table it is stricter: nothing abnormal at all, devices aside, and -1 occurs.",
)


NIH: Final = Vocabulary(
    "nih-chestxray14",
    "the 14 findings of NIH ChestX-ray14",
    (
        Term("Atelectasis", "atelectasis"),
        Term("Cardiomegaly", "cardiomegaly"),
        Term("Consolidation", "consolidation", "small: mined from other wording"),
        Term("Edema", "edema", "small: mined from other wording"),
        Term("Effusion", "pleural_effusion", "the word also allows effusions that are not pleural"),
        Term("Emphysema", "emphysema", "no counterpart in CheXpert"),
        Term("Fibrosis", "fibrosis", "pulmonary: never Pleural Other"),
        Term("Hernia", "hernia", "no counterpart in CheXpert"),
        Term("Infiltration", "infiltration", "not Lung Opacity: a reader's word, wider and narrower at once"),
        Term("Mass", "mass", "lies under Lung Lesion, which is filled only with --derive"),
        Term("Nodule", "nodule", "lies under Lung Lesion, which is filled only with --derive"),
        Term("Pleural_Thickening", "pleural_thickening", "lies under Pleural Other, one way only, with --derive"),
        Term("Pneumonia", "pneumonia", "small: mined from other wording"),
        Term("Pneumothorax", "pneumothorax"),
        Term("No Finding", "no_finding", "its meaning differs between the releases"),
    ),
    "1 when none of the 14 findings was mined from the report; other abnormalities, and devices, may be there.",
)


GOOGLE_FOUR: Final = Vocabulary(
    "google-four-findings",
    "the four findings that Google had adjudicated on NIH images",
    (
        Term("Fracture", "fracture"),
        Term("Pneumothorax", "pneumothorax"),
        Term("Airspace opacity", "lung_opacity", "narrower than Lung Opacity"),
        Term("Nodule or mass", "lung_lesion", "the distinction by size is lost"),
    ),
)


VOCABULARIES: Final[Mapping[str, Vocabulary]] = {v.name: v for v in (CHEXPERT, NIH, GOOGLE_FOUR)}
PRESETS: Final[Mapping[str, tuple[str, ...]]] = {
    "chexpert-competition": ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"),
    "chexpert": CHEXPERT.names,
    "nih-chestxray14": tuple(name for name in NIH.names if name != "No Finding"),
}
"""Named lists of observations, for exports and loaders."""


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


# Other spellings that are met in the wild: box lists, other labelers' tables, radiologists' files.
_SPELLINGS: Final[Mapping[str, str]] = {
    "infiltrate": "infiltration",
    "oedema": "edema",
    "effusion": "pleural_effusion",
    "airspaceopacity": "lung_opacity",
    "noduleormass": "lung_lesion",
    "enlargedcardiomediastinal": "enlarged_cardiomediastinum",
}


def _index() -> dict[str, str]:
    known = {_plain(stem): stem for stem in OBSERVATIONS}
    for vocabulary in VOCABULARIES.values():
        known.update({_plain(term.name): term.stem for term in vocabulary.terms})
    return {**known, **_SPELLINGS}


_STEMS: Final[Mapping[str, str]] = _index()
_PUBLISHED: Final[Mapping[str, str]] = {
    **{t.stem: t.name for t in NIH.terms},
    **{t.stem: t.name for t in CHEXPERT.terms},
}


def stem_of(name: str) -> str:
    """The unified observation that ``name`` stands for: the release's own name or ours, any case or separator.

    ``padchest:scoliosis`` and ``padchest__scoliosis`` are a collection's own. Raises ``UsageError`` that suggests the
    nearest name.
    """
    bare = name.strip().removeprefix("label_")
    space, mark, own = bare.partition(OWN_MARK) if OWN_MARK in bare else bare.partition(":")
    if mark:
        return f"{space.strip().lower()}{OWN_MARK}{re.sub(r'[^a-z0-9]+', '_', own.lower()).strip('_')}"
    stem = _STEMS.get(_plain(bare))
    if stem is None:
        suggestion = did_you_mean(_plain(bare), _STEMS, lambda plain: published_name(_STEMS[plain]))
        raise UsageError(
            f"unknown observation {name!r}",
            hint=f"{suggestion}known: {', '.join(published_name(s) for s in OBSERVATIONS)}",
        )
    return stem


def column_of(name: str) -> str:
    """The manifest's column for an observation by any of its names. Raises ``UsageError``."""
    return f"label_{stem_of(name)}"


def published_name(stem: str) -> str:
    """The published name of a unified observation: CheXpert's where it has one, else NIH's."""
    # A collection's own observation, ``padchest__scoliosis``, has no other name than that of its column.
    return stem if OWN_MARK in stem else _PUBLISHED[stem]


def observations_of(names: str | tuple[str, ...]) -> tuple[str, ...]:
    """The stems that a preset's name, or a list of observations by any of their names, stands for, in order."""
    if isinstance(names, str):
        preset = PRESETS.get(names.strip().lower())
        names = preset if preset is not None else tuple(n for n in names.split(",") if n.strip())
    return tuple(dict.fromkeys(stem_of(name) for name in names))
