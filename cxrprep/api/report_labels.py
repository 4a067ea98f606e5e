"""The verbs about free-text reports: label one, label a collection, import and compare other labelers' tables."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.folder import open_folder
from cxrprep.api.labels import Choices, rebuild_manifest
from cxrprep.api.result import Result
from cxrprep.collection import FolderKind
from cxrprep.errors import ExitCode, UsageError
from cxrprep.events import ignore
from cxrprep.executors import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cxrprep.api.folder import DatasetFolder
    from cxrprep.events import Sink
    from cxrprep.labels.agreement import Agreement, Comparison, Labelled, Scores
    from cxrprep.labels.label_rows import LabelOptions
    from cxrprep.labels.nlp.custom_rules import SelfTest
    from cxrprep.labels.nlp.import_labels import Imported
    from cxrprep.labels.nlp.label_collection import LabelingOutcome, PlugIn
    from cxrprep.labels.nlp.results import ReportLabels
    from cxrprep.model import Shard


def label_report(
    text: str, *, rules: Path | str | None = None, policy: str = "default", sections: str = ""
) -> ReportLabels:
    """The labels of one report: ``.labels`` maps the 14 published names to 1, 0, -1 or ``None``; ``.mentions`` say why.

    ``rules`` is a TOML file with a vocabulary of your own; ``policy`` says how mentions add up, ``sections``
    which parts are read, in order of preference. Raises ``UsageError`` for an unknown policy, ``ConfigError`` for a
    wrong vocabulary.

    Args:
        text: one report, with or without headings.
        rules: a TOML file with a vocabulary of your own, beside the shipped one.
        policy: how mentions add up: the name of a policy.
        sections: which parts are read, in order of preference; by default the policy's.

    Returns:
        the labels, their mentions and the status of the text.

    Raises:
        UsageError: an unknown policy or section.
        ConfigError: a vocabulary that is wrong.

    Examples:
        >>> import cxrprep
        >>> found = cxrprep.label_report("FINDINGS: No pleural effusion. The heart is enlarged.")
        >>> found.labels["Pleural Effusion"], found.labels["Cardiomegaly"], found.labels["Fracture"]
        (0, 1, None)
    """
    from cxrprep.labels.nlp.label_report import label_report as label

    return label(text, rules=None if rules is None else Path(rules), policy=policy, sections=sections)


def label_reports(
    source: Path | str,
    out: Path | str,
    *,
    policy: str = "default",
    sections: str = "",
    vocabulary: Path | str | None = None,
    evidence: bool = False,
    labeler: str = "rules",
    labeler_options: Mapping[str, Any] | None = None,
    shard: Shard | None = None,
    engine: Engine | None = None,
    folder: LabelledFolder | None = None,
    on_event: Sink = ignore,
) -> Result[LabelingOutcome]:
    """The labels of every report of a zip, folder, CSV, Parquet or Open-i XML, as ``report_labels.parquet`` in ``out``.

    A report without labels has a row that says why; exit code 3 means that some could not be read.

    Args:
        source: the reports.
        out: the manifests folder; the label sources of other labelers than the rules have a folder of their own in it.
        policy: how mentions add up.
        sections: those that are read, in order of preference.
        vocabulary: a TOML file that adds phrases, or overrules them.
        evidence: also write ``mentions.parquet``, the mentions behind the labels.
        labeler: another labeler than the rules, as ``SOURCE=LABELER`` where its label source has another name.
        labeler_options: fields of ``LabelerOptions``.
        shard: the part to do.
        engine: where the work runs (default: all processors here).
        folder: the folder whose ``labels.parquet`` and manifest take the label source in; that of the rules is
            ``cxrprep``.
        on_event: receives progress and notes.

    Returns:
        Counts by status and label, and where the table is.

    Raises:
        UsageError: an option is wrong, or text would go to another machine unasked.
        ConfigError: the vocabulary is wrong.
        TableError: a table of reports cannot be read.
        ArchiveError: an archive is damaged.
        NothingSelectedError: there is no report.
        StorageError: the disk refuses.
        SourceUnreachableError: a cluster, or the labeler's server, does not answer.
        AccessError: the labeler's server refuses the key.
        SomeFailedError: worker processes died.
    """
    from cxrprep.labels.label_sources import REPORTS_NAME, put_back_if_refused, source_folder
    from cxrprep.labels.nlp.label_collection import label_collection
    from cxrprep.labels.nlp.output_tables import MENTIONS_NAME
    from cxrprep.labels.nlp.policies import policy_named

    plugin = _plugin(labeler, labeler_options or {}, folder, Path(out))
    if plugin is not None and evidence:
        raise UsageError("--evidence is of the rules: another labeler names no words", hint="leave one of them out")
    place = Path(out) if plugin is None else source_folder(Path(out), plugin.label_source)
    with put_back_if_refused(place / REPORTS_NAME, place / f"{MENTIONS_NAME}.parquet"):
        outcome = label_collection(
            Path(source),
            place,
            plugin=plugin,
            engine=engine or Engine(),
            shard=shard,
            vocabulary=None if vocabulary is None else Path(vocabulary),
            policy=policy_named(policy, sections=sections),
            evidence=evidence,
            on_event=on_event,
        )
        whole = outcome.joined is None or outcome.joined.labels is not None
        added = folder.add_sources(on_event) if folder is not None and whole else ()
    rows = [
        ("reports", outcome.reports),
        *((status, count) for status, count in outcome.counts.items()),
        *((name, _given(counts)) for name, counts in outcome.labels_given.items()),
        ("written", str(outcome.labels)),
        *((("evidence", str(outcome.mentions)),) if outcome.mentions else ()),
        *_about_shards(outcome),
        *added,
    ]
    code = ExitCode.PARTIAL if outcome.failed else ExitCode.DONE
    return Result("extract-labels", outcome, code, rows=tuple(rows))


def _plugin(named: str, options: Mapping[str, Any], folder: LabelledFolder | None, out: Path) -> PlugIn | None:
    """The labeler ``[NAME=]LABELER``, whose labels become the label source NAME; ``None`` for the shipped rules."""
    from cxrprep.labels.label_sources import OURS, check_name
    from cxrprep.labels.labelers.contract import RULES, LabelerOptions
    from cxrprep.labels.nlp.label_collection import PlugIn

    name, equals, labeler = named.partition("=")
    labeler = labeler if equals else name
    if named == RULES:
        return None
    if labeler == RULES or name == OURS:
        raise UsageError(f"{OURS} is the label source of the rules, and of nothing else", hint="--labeler NAME=openai")
    if folder is not None:
        folder.check_free(check_name(name))
    agreement = folder.known.spec.licence.agreement if folder is not None and folder.known is not None else ""
    home = out.parent if folder is None else folder.home
    chosen = LabelerOptions(agreement=agreement, **options)
    return PlugIn(labeler, check_name(name), chosen, home / ".cxrprep" / "labeler-answers")


def _given(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if word != "null")


def _about_shards(outcome: LabelingOutcome) -> list[tuple[str, str]]:
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


def import_labels(
    source: Path | str,
    out: Path | str,
    *,
    name: str | None = None,
    key: str | None = None,
    folder: LabelledFolder | None = None,
    on_event: Sink = ignore,
) -> Result[Imported]:
    """Another labeler's table (chexpert-labeler, CheXbert, NegBio, CXR-LT) as a label source of a folder.

    Values become 1, 0, -1 or null, columns ours, whatever their order and spelling; further columns of labels are kept
    under their own names. Texts of reports stay behind.

    Args:
        source: a CSV or Parquet table.
        out: the manifests folder; the table goes to ``label_sources/NAME.parquet`` in it.
        name: the label source; by default the file's own name.
        key: the id column, where it is not found; without one rows are numbered.
        folder: the folder whose ``labels.parquet`` and manifest take the label source in.
        on_event: receives notes.

    Returns:
        Counts of the rows that were taken, and where they are.

    Raises:
        TableError: the table cannot be read, or a cell is no label.
        UsageError: the name is taken by the release or names nothing, or there is no column ``key``.
        StorageError: the disk refuses.
    """
    from cxrprep.labels.label_sources import FOLDER, put_back_if_refused
    from cxrprep.labels.nlp.import_labels import import_table, name_of

    if folder is not None:
        folder.check_free(name or name_of(Path(source)))
    with put_back_if_refused(Path(out) / FOLDER / f"{name or name_of(Path(source))}.parquet"):
        made = import_table(Path(source), Path(out), name=name, key=key)
        added = folder.add_sources(on_event) if folder is not None else ()
    rows = [
        ("label source", made.name),
        ("rows", made.rows),
        ("observations", ", ".join(made.observations)),
        ("ids from", made.key or "row numbers"),
        ("written", str(made.labels)),
        *added,
    ]
    return Result("extract-labels", made, rows=tuple(rows))


@dataclass(frozen=True, slots=True)
class LabelledFolder:
    """A folder whose ``labels.parquet`` takes in what is labelled or imported: a known dataset, or any other.

    ``manifest`` holds the choices for the manifest, as ``Choices.with_given`` takes them. ``allow_loss`` lets the
    tables know less than they do.
    """

    root: Path
    home: Path
    known: DatasetFolder | None = None
    release: str | None = None
    tables: Path | None = None
    options: LabelOptions | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    allow_loss: bool = False

    @classmethod
    def at(
        cls,
        root: Path,
        *,
        state: Path | None = None,
        dataset: str | None = None,
        release: str | None = None,
        **more: Any,
    ) -> LabelledFolder:
        """The folder ``root``; one that is no known dataset is taken as it is unless ``dataset`` says otherwise.

        Args:
            root: the folder.
            state: where its record and manifests are kept, if not in it.
            dataset: the name of the dataset, where the folder does not say it.
            release: the release, where the folder does not say it.
            more: the other fields, as they are.

        Returns:
            the folder, for its reports and tables.

        Raises:
            UsageError: it is converted or exported, or not what ``dataset`` and ``release`` say.
        """
        known = None
        if root.is_dir():
            try:
                known = open_folder(root, dataset=dataset, release=release, state=state)
            except UsageError:
                if dataset or release:
                    raise
        if known is not None and known.kind in (FolderKind.CONVERTED, FolderKind.EXPORTED):
            raise UsageError(
                f"labels are not added to {known.described()}",
                hint="add them to the folder of the originals, and convert again: what is converted already is kept",
            )
        # Images of one's own have no tables to stand beside.
        known = known if known is not None and known.kind is FolderKind.RELEASE else None
        return cls(root, known.home if known else state or root, known, release, **more)

    @property
    def labels(self) -> Path:
        """The ``labels.parquet``."""
        return self.home / "manifests" / "labels.parquet"

    def check_free(self, name: str) -> None:
        """Raise ``UsageError`` when the release's own tables have a label source of that name."""
        from cxrprep.labels.label_sources import release_labels

        of_catalog = {table.label_source for table in self.known.spec.table} if self.known else set()
        if self.labels.is_file():
            of_catalog = {use.label_source for use in release_labels(self.labels)[2]}
        if name in of_catalog:
            raise UsageError(
                f"{name} is a label source of the release itself", hint=f"import it as another: --import my-{name}=FILE"
            )

    def add_sources(self, on_event: Sink) -> list[tuple[str, str]]:
        """Bring ``labels.parquet``, and the manifest of a known dataset, up to the added label sources."""
        from cxrprep.labels.extract import read_labels, refresh_labels

        known = self.known
        made = refresh_labels(
            known.spec.name if known else _UNLISTED,
            known.layout if known else None,
            known.release if known else _UNLISTED,
            self.labels,
            read=None if known is None else lambda: read_labels(
                known.spec, self.root, release=self.release, tables=self.tables, options=self.options
            ),
            allow_loss=self.allow_loss,
            on_event=on_event,
        )  # fmt: skip
        rows = [("label sources", ", ".join(source.label_source for source in made.sources)), ("in", str(made.path))]
        if known is not None:
            choices = Choices.of_last(known.manifests).with_given(**{**_NONE_CHOSEN, **self.manifest})
            shown = rebuild_manifest(known, choices=choices, allow_loss=self.allow_loss, on_event=on_event)
            rows += [("images with labels", f"{shown.labelled:,} of {shown.images:,}")]
        return rows


# What stands as dataset and release in the labels of a folder that is no known dataset.
_UNLISTED: Final = "unlisted"
_NONE_CHOSEN: Final[Mapping[str, Any]] = {"label_source": None, "policy": None, "split_by": None}


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
    """
    from cxrprep.labels.agreement import compare_tables

    home = state if state is not None else root
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

    path = Path(word)
    table = path.is_file() or len(path.parts) > 1 or path.suffix.lower() in _TABLES
    return Labelled(path) if table or labels is None or not labels.is_file() else Labelled(labels, str(word))


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
                "f1": {_word(value): one.scores(value).f1 for value in _CLASSES},
                "precision": {_word(value): one.scores(value).precision for value in _CLASSES},
                "recall": {_word(value): one.scores(value).recall for value in _CLASSES},
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
