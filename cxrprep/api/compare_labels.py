"""The verb that compares label tables, and its rows: agreement, kappa, precision, recall, F1 and confusion."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.result import Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cxrprep.labels.agreement import Agreement, Comparison, Labelled, Scores


@takes_buckets(first="read", second="read", more="read", root="read-folder", state="read-folder")
def compare_labels(
    first: Path | str,
    second: Path | str,
    *more: Path | str,
    key: str | None = None,
    root: Path | str | None = None,
    state: Path | str | None = None,
) -> Result[Comparison]:
    """How label tables agree with the first, the reference, over the keys and observations that two have in common.

    The value is the comparison of the first two; its ``others`` are those of ``more``.

    Args:
        first: a table, or a label source of ``root``.
        second: another.
        more: further ones, each of which is compared with the first.
        key: the id column, where it is not found.
        root: the folder whose label sources may be named.
        state: where its manifests lie, beside a ``root`` that is read-only.

    Returns:
        Counts, precision, recall, F1 and kappa by observation, and their means.

    Raises:
        TableError: a table cannot be read or has a key twice.
        UsageError: nothing is common, or a name is neither a file nor a label source.

    Examples:
        >>> import cxrprep
        >>> cxrprep.compare_labels("nih-textmined", "chexbert.csv", root="nih").value.common
        1
    """
    from cxrprep.collection.state_folder import check_state
    from cxrprep.labels.agreement import compare_tables

    home = state if state is not None else root
    if root is not None:
        check_state(Path(root), Path(state or root))
    labels = None if home is None else Path(home) / "manifests" / "labels.parquet"
    reference, *others = [_labelled(word, labels) for word in (first, second, *more)]
    compared = tuple(compare_tables(reference, other, key=key) for other in others)
    rows = [row for one in compared for row in _about_comparison(one, several=len(compared) > 1)]
    data = _as_data(compared[0])
    if len(compared) > 1:
        data["comparisons"] = [_as_data(one) for one in compared]
    return Result("compare", dataclasses.replace(compared[0], others=compared[1:]), rows=tuple(rows), data=data)


def _labelled(word: Path | str, labels: Path | None) -> Labelled:
    """What ``word`` names: a file, else a label source of a folder."""
    from cxrprep.labels.agreement import Labelled
    from cxrprep.storage.parquet import check_as_written

    path = Path(word)
    table = path.is_file() or len(path.parts) > 1 or path.suffix.lower() in _TABLES
    if table or labels is None or not labels.is_file():
        return Labelled(path)
    check_as_written(labels)
    return Labelled(labels, str(word))


_TABLES: Final = frozenset((".csv", ".gz", ".tsv", ".parquet", ".pq"))


def _about_comparison(compared: Comparison, *, several: bool) -> Iterator[tuple[str, Any]]:
    if several:
        yield "compared", f"{compared.first} with {compared.second}"
    yield "in both", compared.common
    yield "only in the first", compared.only_first
    yield "only in the second", compared.only_second
    yield "matched by", " and ".join(dict.fromkeys(compared.keys))


_CLASSES: Final = (1, 0, -1)


def _as_data(compared: Comparison) -> dict[str, Any]:
    return {
        "first": compared.first,
        "second": compared.second,
        "keys": list(compared.keys),
        "common": compared.common,
        "only_first": compared.only_first,
        "only_second": compared.only_second,
        "summary": {
            mean: {_word(value): dataclasses.asdict(getattr(compared, mean)(value)) for value in _CLASSES}
            for mean in ("micro", "macro", "weighted")
        },
        "observations": [
            {
                "observation": one.observation,
                "agreement": one.agreement,
                "kappa": one.kappa,
                **{
                    measure: {_word(value): getattr(one.scores(value), measure) for value in _CLASSES}
                    for measure in ("f1", "precision", "recall")
                },
                "confusion": [
                    {"first": a, "second": b, "count": count} for (a, b), count in one.confusion.items() if count
                ],
            }
            for one in compared.observations
        ],
    }


def agreement_rows(compared: Comparison) -> list[dict[str, str | int]]:
    """A row an observation for people: agreement, kappa, precision, recall and F1 by class; then their means."""
    rows: list[dict[str, str | int]] = [
        {
            "observation": one.observation,
            "agreement": _shown(one.agreement),
            "kappa": _shown(one.kappa),
            **{_word(value): _scores(one.scores(value)) for value in _CLASSES},
        }
        for one in compared.observations
    ]
    means = (("micro", compared.micro), ("macro", compared.macro), ("weighted", compared.weighted))
    rows += [
        {"observation": name, "agreement": "", "kappa": "", **{_word(value): _scores(of(value)) for value in _CLASSES}}
        for name, of in means
    ]
    return rows


def confusion_rows(compared: Comparison) -> list[dict[str, str | int]]:
    """A row an observation for people: how often which label meets which other."""

    def met(one: Agreement, first: int | None) -> str:
        return " ".join(f"{one.confusion[first, second]:,}" for second in (1, 0, -1, None))

    return [
        {
            "observation": one.observation,
            **{"of_" + ("null" if first is None else _word(first)): met(one, first) for first in (1, 0, -1, None)},
        }
        for one in compared.observations
    ]


def _scores(found: Scores) -> str:
    return " ".join(_shown(each) for each in (found.precision, found.recall, found.f1))


def _shown(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def _word(value: int) -> str:
    return {1: "positive", 0: "negative", -1: "uncertain"}[value]
