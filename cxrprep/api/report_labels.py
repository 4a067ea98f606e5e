"""The verbs about free-text reports: label one, label a collection, import and compare other labelers' tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cxrprep.api.result import Result
from cxrprep.errors import ExitCode
from cxrprep.events import ignore
from cxrprep.executors import Engine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cxrprep.events import Sink
    from cxrprep.labels.agreement import Agreement, Comparison
    from cxrprep.labels.nlp.custom_rules import SelfTest
    from cxrprep.labels.nlp.import_labels import Imported
    from cxrprep.labels.nlp.label_collection import Outcome
    from cxrprep.labels.nlp.results import ReportLabels
    from cxrprep.model import Shard


def label_report(text: str, *, rules: Path | str | None = None, policy: str = "default") -> ReportLabels:
    """The labels of one report: ``.labels`` maps the 14 published names to 1, 0, -1 or ``None``; ``.mentions`` say why.

    ``rules`` is a TOML file with a vocabulary of your own; ``policy`` says how mentions add up. Raises ``UsageError``
    for an unknown policy, ``ConfigError`` for a wrong vocabulary.
    """
    from cxrprep.labels.nlp.label_report import label_report as label

    return label(text, rules=None if rules is None else Path(rules), policy=policy)


def label_reports(
    source: Path | str,
    out: Path | str,
    *,
    policy: str = "default",
    vocabulary: Path | str | None = None,
    evidence: bool = False,
    shard: Shard | None = None,
    engine: Engine | None = None,
    on_event: Sink = ignore,
) -> Result[Outcome]:
    """The labels of every report of a zip, folder, CSV, Parquet or Open-i XML, as ``report_labels.parquet`` in ``out``.

    With ``evidence`` the mentions behind them go into ``mentions.parquet``. A report without labels has a row that says
    why; exit code 3 means that some could not be read. ``engine`` says where the work runs (default: all processors
    here). Raises ``UsageError``, ``ConfigError``, ``TableError``, ``ArchiveError``, ``NothingSelectedError``,
    ``StorageError``, ``SourceUnreachableError`` or ``SomeFailedError``.
    """
    from cxrprep.labels.nlp.aggregate import policy_named
    from cxrprep.labels.nlp.label_collection import label_collection

    outcome = label_collection(
        Path(source),
        Path(out),
        engine=engine or Engine(),
        shard=shard,
        vocabulary=None if vocabulary is None else Path(vocabulary),
        policy=policy_named(policy),
        evidence=evidence,
        on_event=on_event,
    )
    rows = [
        ("reports", outcome.reports),
        *((status, count) for status, count in outcome.counts.items()),
        *((name, _given(counts)) for name, counts in outcome.labels_given.items()),
        ("written", str(outcome.labels)),
        *((("evidence", str(outcome.mentions)),) if outcome.mentions else ()),
        *_about_shards(outcome),
    ]
    code = ExitCode.PARTIAL if outcome.failed else ExitCode.DONE
    return Result("extract-labels", outcome, code, rows=tuple(rows))


def _given(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if word != "null")


def _about_shards(outcome: Outcome) -> list[tuple[str, str]]:
    if outcome.joined is None:
        return []
    if outcome.joined.labels is not None:
        return [("all shards", str(outcome.joined.labels))]
    return [("still to come", "shards " + ", ".join(str(index) for index in outcome.joined.waiting_for))]


def check_labeler() -> Result[SelfTest]:
    """Whether the labeler of this installation gives its own examples the labels that it should; exit code 4 if not."""
    from cxrprep.labels.nlp.custom_rules import selftest

    checked = selftest()
    rows = [("examples", checked.examples), *(("wrong", complaint) for complaint in checked.failures)]
    return Result("explain", checked, ExitCode.DONE if checked.passed else ExitCode.INTEGRITY, rows=tuple(rows))


def import_labels(source: Path | str, out: Path | str, *, key: str | None = None) -> Result[Imported]:
    """Another labeler's table (chexpert-labeler, CheXbert, NegBio) as ``report_labels.parquet`` in ``out``.

    Values become 1, 0, -1 or null, columns ours, whatever their order and spelling; ``key`` names the id column
    (without one rows are numbered). Texts of reports stay behind. Raises ``TableError``, ``UsageError`` or
    ``StorageError``.
    """
    from cxrprep.labels.nlp.import_labels import import_table

    made = import_table(Path(source), Path(out), key=key)
    rows = [
        ("rows", made.rows),
        ("observations", ", ".join(made.observations)),
        ("ids from", made.key or "row numbers"),
        ("written", str(made.labels)),
    ]
    return Result("extract-labels", made, rows=tuple(rows))


def compare_labels(first: Path | str, second: Path | str, *, key: str | None = None) -> Result[Comparison]:
    """How two label tables agree, over the keys and observations that both have; the first is the reference.

    Raises ``TableError`` for a table that cannot be read or has a key twice, ``UsageError`` when nothing is common.
    """
    from cxrprep.labels.agreement import compare_tables

    compared = compare_tables(Path(first), Path(second), key=key)

    rows = [
        ("in both", compared.common),
        ("only in the first", compared.only_first),
        ("only in the second", compared.only_second),
        ("matched by", " and ".join(dict.fromkeys(compared.keys))),
    ]
    data = {
        "keys": list(compared.keys),
        "common": compared.common,
        "only_first": compared.only_first,
        "only_second": compared.only_second,
        "observations": [
            {
                "observation": one.observation,
                "agreement": one.agreement,
                "kappa": one.kappa,
                "f1": {_word(value): f1 for value, f1 in one.f1.items()},
                "confusion": [
                    {"first": a, "second": b, "count": count} for (a, b), count in one.confusion.items() if count
                ],
            }
            for one in compared.observations
        ],
    }
    return Result("compare", compared, rows=tuple(rows), data=data)


def agreement_rows(compared: Comparison) -> list[dict[str, str | int]]:
    """A row an observation for people: agreement, kappa, F1 by class, and how often which label meets which other."""

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    def met(one: Agreement, first: int | None) -> str:
        return " ".join(f"{one.confusion[first, second]:,}" for second in (1, 0, -1, None))

    return [
        {
            "observation": one.observation,
            "agreement": shown(one.agreement),
            "kappa": shown(one.kappa),
            **{f"f1_{_word(value)}": shown(one.f1.get(value)) for value in (1, 0, -1)},
            **{"of_" + ("null" if first is None else _word(first)): met(one, first) for first in (1, 0, -1, None)},
        }
        for one in compared.observations
    ]


def _word(value: int) -> str:
    return {1: "positive", 0: "negative", -1: "uncertain"}[value]
