"""Named selections of image-report pairs, which reproduce published recipes, and the forms of text that these train on.

Each filter states its rule, where it was published, and the counts that the whole release gives by that publication.
A count that differs is said, as verify says of published facts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cxrprep.errors import UsageError, did_you_mean

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PairFilter:
    """A named selection of studies: ``rule`` in words, ``wants`` as a test of a row of pairs.

    ``image`` says which images of the study stay, ``most`` how many of them. ``unit`` is what ``expected`` counts by
    split (image or study) in the whole release of ``dataset``; ``source`` is where that was published.
    """

    name: str
    rule: str
    wants: Callable[[Row], bool]
    source: str = ""
    image: Callable[[Row], bool] = lambda _: True
    most: int | None = None
    unit: str = "study"
    dataset: str = ""
    expected: Mapping[str, int] = field(default_factory=dict)


def _by_parser(row: Row) -> bool:
    """Whether MIT-LCP's own table of sections has the study: it leaves out the 54 that were cut by hand."""
    return bool(row["section_rule"] != "mit-lcp-by-hand")


def _is_frontal(image: Row) -> bool:
    return image["view"] in ("PA", "AP")


def _three_words(row: Row) -> bool:
    text = " ".join(row[name] for name in ("findings", "impression") if row[name] is not None)
    return sum(len(sentence.split()) for sentence in mgca_sentences(text)) >= 3


_MIMIC: Final = "mimic-cxr-jpg"
FILTERS: Final = {
    each.name: each
    for each in (
        PairFilter("all", "every study with a report or an image", lambda _: True),
        PairFilter(
            "official",
            "studies with a report, an image and a split of the release",
            lambda row: row["split"] is not None and row["section_rule"] is not None and row["n_images"] > 0,
            "https://physionet.org/content/mimic-cxr-jpg/2.1.0/",
            dataset=_MIMIC,
            expected={"train": 222_758, "validate": 1_808, "test": 3_269},
        ),
        PairFilter(
            "findings",
            "every image of a study with findings, any view; studies that were cut by hand are left out",
            lambda row: row["findings"] is not None and row["n_images"] > 0 and _by_parser(row),
            "Chen et al., EMNLP 2020 (R2Gen), https://github.com/zhjohnchan/R2Gen",
            unit="image",
            dataset=_MIMIC,
            expected={"train": 270_790, "validate": 2_130, "test": 3_858},
        ),
        PairFilter(
            "findings-frontal-1",
            "the first frontal image of each study with findings; studies that were cut by hand are left out",
            lambda row: row["findings"] is not None and _by_parser(row) and any(map(_is_frontal, row["images"] or ())),
            "Wang et al., ECCV 2024 (HERGen)",
            image=_is_frontal,
            most=1,
            unit="image",
            dataset=_MIMIC,
            expected={"train": 145_471, "validate": 1_151, "test": 2_210},
        ),
        PairFilter(
            "findings-or-impression-frontal-3w",
            "PA and AP images of studies with findings or impression of three words or more",
            lambda row: _three_words(row) and any(map(_is_frontal, row["images"] or ())),
            "Wang et al., NeurIPS 2022 (MGCA), https://github.com/HKU-MedAI/MGCA",
            image=_is_frontal,
            unit="image",
        ),
        PairFilter(
            "both-views-both-sections",
            "studies with a frontal and a lateral image, findings and impression",
            lambda row: (
                row["n_frontal"] > 0
                and row["n_lateral"] > 0
                and row["findings"] is not None
                and row["impression"] is not None
            ),
            "Yang et al., 2023 (TriNet's rule; its own split was drawn at random)",
        ),
        PairFilter(
            "findings-2w",
            "studies whose findings have two words or more",
            lambda row: (row["findings_words"] or 0) >= 2,
            "https://github.com/Stanford-AIMI/chexpert-plus (57,805 rows of images)",
            unit="image",
            dataset="chexpert",
            expected={"": 57_805},
        ),
        PairFilter(
            "openi-r2gen",
            "studies of Open-i with findings and at least two images",
            lambda row: row["findings"] is not None and row["n_images"] >= 2,
            "Chen et al., EMNLP 2020 (R2Gen): 2,069 / 296 / 590, drawn at random",
            dataset="openi",
            expected={"": 2_955},
        ),
    )
}
"""The filters by name."""


def published_counts(dataset: str) -> dict[str, dict[str, int]]:
    """The counts by split, ``""`` for all, that filters of a dataset's whole release give by their publications."""
    return {
        each.name: dict(each.expected)
        for each in FILTERS.values()
        if each.expected and dataset.removesuffix("-jpg") == each.dataset.removesuffix("-jpg")
    }


def find_filter(name: str) -> PairFilter:
    """The filter of that name. Raises ``UsageError`` that suggests the nearest."""
    found = FILTERS.get(name)
    if found is None:
        hint = f"{did_you_mean(name, list(FILTERS))}known: {', '.join(FILTERS)}"
        raise UsageError(f"unknown filter {name!r}", hint=hint)
    return found


def apply_filter(rows: list[dict[str, Any]], chosen: PairFilter) -> list[dict[str, Any]]:
    """The studies that a filter wants, each with the images that it wants."""
    kept = []
    for row in rows:
        if chosen.wants(row):
            images = [image for image in row["images"] or () if chosen.image(image)][: chosen.most]
            kept.append({**row, "images": images})
    return kept


def counts_of(rows: list[dict[str, Any]], chosen: PairFilter) -> dict[str, int]:
    """How many a filter kept, by split, in the unit in which it was published; ``""`` for rows without a split."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["split"] or ""] += len(row["images"]) if chosen.unit == "image" else 1
    return dict(sorted(counts.items()))


# ---- text forms ----

_NUMBER: Final = re.compile(r"(?:^|(?<=\s))[1-9]\d?\. ")
_MARKS: Final = re.compile(r"[.,?;*!%^&_+():<=>@\[\]{}\"/\\']")


def one_blank(text: str) -> str:
    """White space as one blank."""
    return " ".join(text.split())


def r2gen_text(text: str, *, mimic: bool) -> str:
    """Sentences in lower case without punctuation, joined by " . ", as R2Gen trains on them.

    List numbers go, and of MIMIC-CXR's reports the rows of underscores that stand for removed names.
    """
    plain = one_blank(text.replace("\n", " "))
    if mimic:
        plain = re.sub(r"_{2,}", "_", plain)
    plain = _NUMBER.sub("", re.sub(r"\.{2,}", ".", plain)).lower()
    sentences = [one_blank(_MARKS.sub("", sentence)) for sentence in plain.split(". ")]
    return " . ".join(sentence for sentence in sentences if sentence) + " ."


def mgca_sentences(text: str) -> list[str]:
    """Sentences of two words and more in lower case, words alone, as MGCA and its followers cut them."""
    parts = re.split(r"[0-9]+\.|\.", text)
    words = [re.findall(r"\w+", part.lower()) for part in parts]
    return [" ".join(sentence) for sentence in words if len(sentence) > 1]


TEXT_FORMS: Final[Mapping[str, Callable[[str], str]]] = {
    "as-is": lambda text: text,
    "one-blank": one_blank,
    "r2gen-mimic": lambda text: r2gen_text(text, mimic=True),
    "r2gen-iu": lambda text: r2gen_text(text, mimic=False),
    "mgca": lambda text: ". ".join(mgca_sentences(text)),
}
"""The forms by name; each takes and gives a section."""


def find_form(name: str) -> Callable[[str], str]:
    """The text form of that name. Raises ``UsageError``."""
    if name not in TEXT_FORMS:
        raise UsageError(f"unknown form of text {name!r}", hint=f"known: {', '.join(TEXT_FORMS)}")
    return TEXT_FORMS[name]
