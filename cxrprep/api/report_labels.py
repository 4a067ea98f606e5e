"""The verbs about free-text reports: label one, label a collection, import and compare other labelers' tables."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.folder import open_folder
from cxrprep.api.keywords import Keywords, shard_of
from cxrprep.api.labels import Choices, rebuild_manifest
from cxrprep.api.result import Result
from cxrprep.api.running import notes_progress
from cxrprep.collection import FolderKind
from cxrprep.errors import ExitCode, UsageError
from cxrprep.events import ignore
from cxrprep.executors import Engine
from cxrprep.model import FolderRef

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


@takes_buckets(root="written-folder", state="written-folder", tables="read-folder", reports="read")
@notes_progress("extract-labels")
def label_reports(
    root: Path | str | FolderRef,
    *,
    reports: Path | str | None = None,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    policy: str = "default",
    sections: str = "",
    vocabulary: Path | str | None = None,
    evidence: bool = False,
    labeler: str = "rules",
    endpoint: str = "",
    model: str = "",
    checkpoint: Path | str | None = None,
    allow_remote_text: bool = False,
    shard: Shard | str | None = None,
    engine: Engine | str | None = None,
    allow_loss: bool = False,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[LabelingOutcome]:
    """The labels of every report of a zip, folder, CSV, Parquet or Open-i XML, as ``manifests/report_labels.parquet``.

    They become a label source of the folder: that of the rules is ``cxrprep``. A report without labels has a row that
    says why; exit code 3 means that some could not be read.

    Args:
        root: a folder of any kind.
        reports: the reports; by default those in ROOT.
        dataset: the dataset, where the folder does not say it.
        release: the release, where it is not the one that the folder shows.
        state: where record and manifests are, beside a ROOT that is read-only.
        tables: a folder that holds the label tables when ROOT does not.
        policy: how mentions add up.
        sections: those that are read, in order of preference.
        vocabulary: a TOML file that adds phrases, or overrules them.
        evidence: also write ``mentions.parquet``, the mentions behind the labels.
        labeler: another labeler than the rules, as ``SOURCE=LABELER`` where its label source has another name.
        endpoint: the address of the labeler's server.
        model: the model that it runs.
        checkpoint: the file of a model that runs here.
        allow_remote_text: texts may go to another machine.
        shard: the part to do.
        engine: where the work runs (default: all processors here).
        allow_loss: the tables may know less than those that they replace.
        on_event: receives progress and notes.
        **words: further options of the command: those of ``extract_labels``, ``jobs`` and ``scheduler``.

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

    Examples:
        >>> import cxrprep
        >>> labelled = cxrprep.label_reports("mimic").value
        >>> labelled.labels.as_posix()
        'mimic/manifests/report_labels.parquet'
    """
    from cxrprep.labels.label_sources import REPORTS_NAME, put_back_if_refused, source_folder
    from cxrprep.labels.nlp.label_collection import label_collection
    from cxrprep.labels.nlp.output_tables import MENTIONS_NAME
    from cxrprep.labels.nlp.policies import policy_named

    keywords = Keywords(words)
    engine = keywords.engine(engine)
    where = FolderRef.of(root, dataset=dataset, release=release, state=state, tables=tables)
    folder = LabelledFolder.asked(keywords, where, allow_loss=allow_loss)
    out = folder.home / "manifests"
    options = {
        "endpoint": endpoint, "model": model, "checkpoint": str(checkpoint or ""),
        "allow_remote_text": allow_remote_text,
    }  # fmt: skip
    plugin = _plugin(labeler, options, folder)
    if plugin is not None and evidence:
        raise UsageError("--evidence is of the rules: another labeler names no words", hint="leave one of them out")
    place = out if plugin is None else source_folder(out, plugin.label_source)
    with put_back_if_refused(place / REPORTS_NAME, place / f"{MENTIONS_NAME}.parquet", folder.labels):
        outcome = label_collection(
            _reports_in(folder.where.path) if reports is None else Path(reports),
            place,
            plugin=plugin,
            engine=engine or Engine(),
            shard=shard_of(shard),
            vocabulary=None if vocabulary is None else Path(vocabulary),
            policy=policy_named(policy, sections=sections),
            evidence=evidence,
            on_event=on_event,
        )
        whole = outcome.joined is None or outcome.joined.labels is not None
        added = folder.add_sources(on_event) if whole else ()
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


def _reports_in(root: Path) -> Path:
    # MIMIC-CXR has one archive; a folder of text files is read as it is.
    archive = root / "mimic-cxr-reports.zip"
    return archive if archive.is_file() else root


def _plugin(named: str, options: Mapping[str, Any], folder: LabelledFolder) -> PlugIn | None:
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
    folder.check_free(check_name(name))
    agreement = folder.known.spec.licence.agreement if folder.known is not None else ""
    chosen = LabelerOptions(agreement=agreement, **options)
    return PlugIn(labeler, check_name(name), chosen, folder.home / ".cxrprep" / "labeler-answers")


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


@takes_buckets(root="written-folder", state="written-folder", tables="read-folder", source="read")
@notes_progress("extract-labels")
def import_labels(
    root: Path | str | FolderRef,
    source: Path | str,
    *,
    name: str | None = None,
    key: str | None = None,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    allow_loss: bool = False,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[Imported]:
    """Another labeler's table (chexpert-labeler, CheXbert, NegBio, CXR-LT) as a label source of a folder.

    Values become 1, 0, -1 or null, columns ours, whatever their order and spelling; further columns of labels are kept
    under their own names. Texts of reports stay behind.

    Args:
        root: a folder of any kind; the table goes to ``manifests/label_sources/NAME.parquet``.
        source: a CSV, Parquet or JSON lines table.
        name: the label source; by default the file's own name.
        key: the id column, where it is not found; without one rows are numbered.
        dataset: the dataset, where the folder does not say it.
        release: the release, where it is not the one that the folder shows.
        state: where record and manifests are, beside a ROOT that is read-only.
        tables: a folder that holds the label tables when ROOT does not.
        allow_loss: the tables may know less than those that they replace.
        on_event: receives notes.
        **words: further options of the command, as ``extract_labels`` takes them.

    Returns:
        Counts of the rows that were taken, and where they are.

    Raises:
        TableError: the table cannot be read, or a cell is no label.
        UsageError: the name is taken by the release or names nothing, or there is no column ``key``.
        StorageError: the disk refuses.

    Examples:
        >>> import cxrprep
        >>> taken = cxrprep.import_labels("nih", "chexbert.csv", name="chexbert").value
        >>> taken.name, taken.rows
        ('chexbert', 1)
    """
    from cxrprep.labels.label_sources import FOLDER, put_back_if_refused
    from cxrprep.labels.nlp.import_labels import import_table, name_of

    where = FolderRef.of(root, dataset=dataset, release=release, state=state, tables=tables)
    folder = LabelledFolder.asked(Keywords(words), where, allow_loss=allow_loss)
    out = folder.home / "manifests"
    folder.check_free(name or name_of(Path(source)))
    with put_back_if_refused(out / FOLDER / f"{name or name_of(Path(source))}.parquet", folder.labels):
        made = import_table(Path(source), out, name=name, key=key)
        added = folder.add_sources(on_event)
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

    where: FolderRef
    home: Path
    known: DatasetFolder | None = None
    options: LabelOptions | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    allow_loss: bool = False

    @classmethod
    def at(
        cls,
        where: FolderRef,
        **more: Any,
    ) -> LabelledFolder:
        """A folder; one that is no known dataset is taken as it is unless ``where`` says otherwise.

        Args:
            where: the folder, and what its caller says of it.
            more: the other fields, as they are.

        Returns:
            the folder, for its reports and tables.

        Raises:
            UsageError: it is converted or exported, or not what ``where`` says.
        """
        known = None
        if where.path.is_dir():
            try:
                known = open_folder(where)
            except UsageError:
                if where.dataset or where.release:
                    raise
        if known is not None and known.kind in (FolderKind.CONVERTED, FolderKind.EXPORTED):
            raise UsageError(
                f"labels are not added to {known.described()}",
                hint="add them to the folder of the originals, and convert again: what is converted already is kept",
            )
        # Images of one's own have no tables to stand beside.
        known = known if known is not None and known.kind is FolderKind.RELEASE else None
        return cls(where, known.home if known else where.home, known, **more)

    @classmethod
    def asked(
        cls,
        keywords: Keywords,
        where: FolderRef,
        **more: Any,
    ) -> LabelledFolder:
        """The folder as a verb is asked for it.

        Args:
            keywords: those of ``extract_labels``; any other is refused.
            where: the folder, and what its caller says of it.
            more: as for ``at``.

        Returns:
            the folder.

        Raises:
            UsageError: an unknown keyword; and what ``at`` raises.
        """
        chosen = keywords.take("label_source")
        options, policy = keywords.label_options(keywords.take("options").get("options")), keywords.policy(None)
        rule = keywords.split_rule(keywords.take("split_by").get("split_by"), "split_seed", "seed")
        keywords.finish()
        return cls.at(
            where,
            options=options,
            manifest={"label_source": None, **chosen, "policy": policy, "split_by": rule},
            **more,
        )

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
        from cxrprep.labels.last_options import last_options

        known = self.known
        last = last_options(self.labels, self.where.path).with_given(self.options, self.where.tables)
        made = refresh_labels(
            known.spec.name if known else _UNLISTED,
            known.layout if known else None,
            known.release if known else _UNLISTED,
            self.labels,
            read=None if known is None else lambda: read_labels(
                known.spec, known.root, release=self.where.release, tables=last.tables, options=last.options
            ),
            asked=last.described(self.where.path),
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

    Examples:
        >>> import cxrprep
        >>> cxrprep.compare_labels("nih-textmined", "chexbert.csv", root="nih").value.common
        1
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
