"""What a person can choose, as frozen dataclasses: the schema of job files, of ``cxrprep.toml`` and of the options.

Every field carries its help text, so that ``--help``, the configuration reference and ``cxrprep config show`` say the
same. Paths are text as the user wrote it; they are relative to the folder where the command is started.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cxrprep.config.job_array import parse_shard
from cxrprep.errors import did_you_mean
from cxrprep.model import ColumnTest, LabelTest, Split, View

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STEPS: Final = ("download", "verify", "extract-labels", "convert", "manifest")
# Those that a job may name beside them.
ALL_STEPS: Final = (*STEPS, "check-phi", "preview", "report", "export")
UNCERTAIN: Final = ("keep", "ones", "zeros", "ignore")
BLANK: Final = ("null", "zeros")
FORMATS: Final = ("csv", "coco", "webdataset", "hf", "original")
TO: Final = ("files", "webdataset", "parquet")
PROJECTIONS: Final = ("frontal", "lateral", "other")

_UNITS: Final = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?(?:b|b/s|/s)?", re.IGNORECASE)


def parse_rate(text: str) -> int:
    """Bytes a second that ``"20M"``, ``"500 kB/s"`` or ``"1.5Gi"`` means. Raises ``ValueError``."""
    found = _RATE.fullmatch(text.strip())
    value = float(found[1]) * _UNITS[(found[2] or "").lower()] if found else 0
    if value < 1:
        raise ValueError(f"{text!r} is not a rate; write bytes per second, such as 500k, 20M or 1G")
    return int(value)


def parse_fractions(text: str) -> tuple[float, ...]:
    """Two or three fractions that sum to 1, from ``"0.8,0.1,0.1"``. Raises ``ValueError``."""
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (2, 3) or any(not 0 < v < 1 for v in values) or abs(sum(values) - 1) > 1e-6:
        raise ValueError(f"{text!r} are not fractions; write two or three that sum to 1, such as 0.8,0.1,0.1")
    return values


def parse_label(text: str) -> LabelTest:
    """The condition that ``"Cardiomegaly"`` or ``"Edema=-1"`` states; the value is 1, 0, -1 or null."""
    name, equals, value = text.partition("=")
    values = {"1": 1, "0": 0, "-1": -1, "null": None}
    if not name.strip() or (equals and value.strip().lower() not in values):
        raise ValueError(f"{text!r} is not a label condition; write NAME, NAME=1, NAME=0, NAME=-1 or NAME=null")
    return LabelTest(name.strip(), values[value.strip().lower()] if equals else 1)


def parse_view(text: str) -> str:
    """The view or projection that ``text`` names, in any case. Raises ``ValueError``."""
    name = text.strip()
    if name.lower() in PROJECTIONS:
        return name.lower()
    try:
        return View(name.upper().replace("-", "_").replace(" ", "_")).value
    except ValueError:
        known = (*PROJECTIONS, *(v.value for v in View))
        raise ValueError(f"{text!r} is not a view; {did_you_mean(text, known)}known: {', '.join(known)}") from None


def parse_split(text: str) -> Split:
    """The split that ``text`` names; ``valid`` and ``val`` are understood. Raises ``ValueError``."""
    try:
        return Split.parse(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a split; {did_you_mean(text, Split)}known: {', '.join(Split)}") from None


FORMS: Final[Mapping[str, Callable[[str], object]]] = {
    "rate": parse_rate,
    "fractions": parse_fractions,
    "label": parse_label,
    "where": ColumnTest.parse,
    "view": parse_view,
    "split": parse_split,
    "shard": parse_shard,
}


def named_recipes() -> tuple[str, ...]:
    """The recipes inside the package."""
    import importlib.resources

    folder = importlib.resources.files("cxrprep") / "images" / "recipes"
    return tuple(sorted(e.name.removesuffix(".toml") for e in folder.iterdir() if e.name.endswith(".toml")))


def _about(text: str, choices: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    # ``form`` names a parser of FORMS, or "path"; ``low`` and ``high`` are the smallest and largest number allowed.
    return {"help": text, "choices": choices, "form": "", "low": None, "high": None, **more}


def _set(default: Any, text: str, **more: Any) -> Any:
    return field(default=default, metadata=_about(text, **more))


@dataclass(frozen=True, slots=True)
class SelectionSettings:
    """Which part of a release is wanted; empty means all of it."""

    include: tuple[str, ...] = _set((), "only files that match this gitignore-style glob")
    exclude: tuple[str, ...] = _set((), "no files that match this glob")
    patients: tuple[str, ...] = _set((), "patient ids, or a file with one id per line")
    studies: tuple[str, ...] = _set((), "study ids, or a file with one id per line")
    ids: str = _set("", "a CSV, Parquet or text file with patient_id, study_id or image_id columns", form="path")
    split: tuple[str, ...] = _set((), "train, validate, test or train_val, as the release divides it", form="split")
    view: tuple[str, ...] = _set((), "frontal, lateral, PA, AP, ...", form="view")
    label: tuple[str, ...] = _set(
        (),
        "an observation: NAME, or NAME=1|0|-1|null; given several times: images that match any of them",
        form="label",
    )
    where: tuple[str, ...] = _set(
        (),
        "a condition on a column of the manifest, such as contrast>=0.1; given several times: all must hold",
        form="where",
    )
    limit: int | None = _set(None, "at most this many images; counted after every other condition", low=1)
    sample: int | None = _set(None, "draw this many images, the same ones for the same seed", low=1)
    seed: int = _set(0, "seed of --sample")


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """Where the files come from and how."""

    source: str = _set(
        "",
        "a mirror (physionet, kaggle, gcs, box, portal), a URL (s3://, hf://, ...) or a folder; default: the dataset's",
    )
    connections: int | None = _set(None, "connections at once; default: as many as the mirror allows", low=1)
    limit_rate: str = _set("", "bytes per second in all, such as 20M", form="rate")
    timeout: float = _set(60.0, "seconds without a byte before a connection is dropped and opened again", low=1)
    user_agent: str = _set("", "user agent to send; PhysioNet refuses those that it does not know")
    cookie_file: str = _set("", "the cookies of a browser's session, as a file in Netscape format", form="path")
    billing_project: str = _set("", "Google Cloud project that pays for requester-pays buckets")
    requester_pays: bool = _set(
        False, "let Amazon bill your account for what it sends from a requester-pays bucket (s3://)"
    )
    url_file: str = _set("", "file that holds a signed URL (CheXpert's portal); - reads standard input", form="path")
    keep_archives: bool = _set(False, "keep archives after they are unpacked")
    link: str = _set("copy", "how files of a local folder are copied", choices=("copy", "reflink", "hardlink"))
    then: str = _set("", "convert each image by this recipe as it arrives")
    discard_raw: bool = _set(False, "with --then: keep the converted image only")
    from_plan: str = _set("", "do what a saved plan says, here or on another host", form="path")


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """How deep the proof goes."""

    images: bool = _set(False, "decode every image as well")
    sample: int | None = _set(None, "with --images: decode only this many, drawn at random", low=1)
    quick: bool = _set(False, "skip files that still have the size and time of the last full check")
    duplicates: bool = _set(False, "look for images with the same pixels")
    complete: bool = _set(False, "fail unless the whole release is here")
    strict: bool = _set(False, "fail also for known quirks of the release and for files without a published checksum")
    accept: tuple[str, ...] = _set((), "with --strict: kinds of findings to accept, such as wrong-mode")
    repair: bool = _set(False, "fetch again what is wrong, and nothing else")


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """Which labels go into the manifest and what uncertain ones become."""

    source: str = _set("", "whose labels to take, where there are several sources; default: the release's own")
    uncertain: str = _set("keep", "what -1 becomes in manifest and export; labels.parquet keeps it", choices=UNCERTAIN)
    blank: str = _set("null", "what null (not mentioned) becomes in manifest and export", choices=BLANK)
    uncertain_by: dict[str, str] = field(
        default_factory=dict, metadata=_about('the same for single observations: Edema = "ones"', UNCERTAIN)
    )
    blank_by: dict[str, str] = field(
        default_factory=dict, metadata=_about('the same for single observations: Edema = "zeros"', BLANK)
    )
    observations: tuple[str, ...] = _set(
        (), "the labels to export: a preset (chexpert-competition, chexpert, nih-chestxray14) or names; default: all"
    )
    reports: str = _set("", "radiology reports to label: a zip, folder, CSV, Parquet or Open-i XML", form="path")
    imports: tuple[str, ...] = _set(
        (), "tables of other labelers (CheXbert, NegBio, CXR-LT) to take over as label sources: NAME=FILE"
    )
    compare: tuple[str, ...] = _set((), "two or more label tables or sources to compare", form="path")
    key: str = _set("", "the id column of tables to import or to compare, where it is not found")
    evidence: bool = _set(False, "with --reports: write mentions.parquet, the reason for each label")
    report_text: bool = _set(False, "carry the report text as a column (mind the data use agreement)")
    policy: str = _set(
        "default",
        "how reports are read: default, chexpert-labeler, chexpert-annotators, open-i, presence, strict or derived",
    )
    sections: str = _set(
        "", "sections of reports to label, the preferred first: impression,findings or findings+impression,report"
    )
    vocabulary: str = _set("", "your own observations and phrases, a TOML file", form="path")
    demographics: bool = _set(False, "take age and sex from CheXpert's CHEXPERT DEMO.xlsx in ROOT")
    mimic_iv: str = _set("", "MIMIC-IV's patients.csv.gz, for age and sex", form="path")
    strict_source: bool = _set(False, "keep what a table says even where it is known to be wrong")
    derive: bool = _set(False, "fill in what the hierarchy of observations implies")


@dataclass(frozen=True, slots=True)
class LabelerSettings:
    """Which labeler reads reports. A file that is found may not say it: report text would go where it points."""

    name: str = _set("rules", "rules, openai, chexbert, both, both-chexbert or an installed one; or SOURCE=LABELER")
    endpoint: str = _set("", "with openai: address of an OpenAI-compatible server; default: http://127.0.0.1:11434/v1")
    model: str = _set("", "with openai: the model; default: the first that the server has")
    checkpoint: str = _set("", "with chexbert: your chexbert.pth, with BERT's vocab.txt beside it", form="path")
    allow_remote_text: bool = _set(False, "let report text go to another machine; mind the data use agreement")


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """A split of your own beside the released one; never through a patient."""

    by: str = _set(
        "", "make a split of your own: all images of a patient go into the same part", choices=("", "patient")
    )
    fractions: str = _set("", "shares of train,validate,test for --split-by; default: 0.8,0.1,0.1", form="fractions")
    seed: int = _set(0, "seed of the split")
    within: str = _set("", "divide this released split only, such as NIH's train_val", form="split")
    stratify: str = _set(
        "", "give each part its share of these observations, or of all; new patients may then move old ones"
    )
    folds: int = _set(
        0, "divide the patients into K folds, in the column fold; the split stays, and test images are in none", low=0
    )


@dataclass(frozen=True, slots=True)
class ConvertSettings:
    """Which images are made, and where."""

    recipe: str = _set("", "a named recipe, or the path of your own TOML")
    out: str = _set("", "folder, or s3://, gs://, az://, of the images; default: ROOT/derived/RECIPE", form="path")
    to: str = _set(
        "files", "one file per image, or shards: tar for WebDataset, Parquet for Hugging Face's datasets", choices=TO
    )
    per_shard: int = _set(1000, "images in one shard", low=1)
    preview: int = _set(24, "images on the contact sheet of the step preview", low=1)
    frame: int = _set(0, "convert this frame of a file that has several; the first is 1", low=0)
    scores: bool = _set(False, "score by its pixels how much each image looks inverted, turned, mirrored or blank")
    fix: str = _set(
        "", "correct what the pixels show, and note it: inverted (negatives become positives), rotated, mirrored"
    )
    max_pixels: int = _set(200_000_000, "refuse an image of more pixels: it may be a decompression bomb", low=1)
    max_bytes: int = _set(1_000_000_000, "refuse a file of more bytes", low=1)
    max_seconds: float = _set(120.0, "skip an image that takes longer than this; 0: no limit", low=0)


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """The HTML page about a folder."""

    out: str = _set("", "where the page goes; default: ROOT/manifests/report.html", form="path")
    images: int = _set(24, "images on the contact sheet; 0: none", low=0, high=500)
    beside: str = _set("", "another folder to compare with: its numbers stand next to those of ROOT", form="path")


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """The manifest in the form of another tool."""

    format: str = _set(
        "",
        "csv, coco (boxes), webdataset (tar shards), hf (for load_dataset) or original (the release's own CSV)",
        choices=("", *FORMATS),
    )
    root: str = _set("", "what a job exports, such as ROOT/derived/RECIPE; default: ROOT itself", form="path")
    out: str = _set("", "where it goes; default: ROOT/export/NAME", form="path")
    text: tuple[str, ...] = _set((), "add the text of these report sections, such as findings")
    pairs: str = _set(
        "",
        "with --text: the table of image-report pairs; default: that of ROOT, or of the folder ROOT was made from",
        form="path",
    )
    paired: bool = _set(False, "only images whose report has one of these sections")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Where work runs."""

    name: str = _set("local", "processes on this machine, or an existing Dask cluster", choices=("local", "dask"))
    scheduler: str = _set("", "address of the Dask scheduler, such as tcp://host:8786")
    jobs: int | None = _set(None, "processes on this machine; default: one per core", low=1)


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """What is said, and how."""

    format: str = _set(
        "human", "results for people, for machines, or nothing on success", choices=("human", "json", "quiet")
    )
    events: str = _set("", "progress as JSON lines on standard error", choices=("", "jsonl"))
    color: str = _set("auto", "colours on a terminal", choices=("auto", "always", "never"))
    log_file: str = _set("", "where this run's log goes; default: ROOT/.cxrprep/logs", form="path")


@dataclass(frozen=True, slots=True)
class Job:
    """One job: a dataset, a folder, and what to do with them."""

    dataset: str = _set("", "a name that `cxrprep datasets` lists, or the TOML file of a dataset of your own")
    root: str = _set("", "the folder of the dataset; default: ./DATASET", form="path")
    release: str = _set(
        "", "which release, where there are several; default: the one that the mirror has, or else the newest"
    )
    state: str = _set(
        "", "keep the record, cache and manifests in this folder and not in ROOT, which may be read-only", form="path"
    )
    tables: str = _set(
        "", "folder with the label tables that are not in ROOT (MIMIC-CXR's come with MIMIC-CXR-JPG)", form="path"
    )
    steps: tuple[str, ...] = _set(STEPS, "steps, done in the order given", choices=ALL_STEPS)
    shard: str = _set("", "work on part I of N, such as 3/16; counts from 1; auto/16 in a job array", form="shard")
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    download: DownloadSettings = field(default_factory=DownloadSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    labels: LabelSettings = field(default_factory=LabelSettings)
    labeler: LabelerSettings = field(default_factory=LabelerSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    convert: ConvertSettings = field(default_factory=ConvertSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    output: OutputSettings = field(default_factory=OutputSettings)


SECTIONS: Final[Mapping[str, Any]] = {
    each.name: each.default_factory
    for each in dataclasses.fields(Job)
    if each.default_factory is not dataclasses.MISSING
}


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its dotted name, type, default and the words that explain it."""

    name: str
    kind: str
    default: Any
    help: str
    choices: tuple[str, ...]
    form: str
    low: float | None
    high: float | None

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "CXRPREP_" + self.name.upper().replace(".", "_")


def _keys() -> dict[str, Key]:
    found = {}
    for section, owner in (("", Job), *SECTIONS.items()):
        for item in dataclasses.fields(owner):
            if "help" not in item.metadata:
                continue
            name = f"{section}.{item.name}" if section else item.name
            default = {} if item.default is dataclasses.MISSING else item.default
            found[name] = Key(name, str(item.type), default, **item.metadata)
    return found


KEYS: Final[Mapping[str, Key]] = _keys()
