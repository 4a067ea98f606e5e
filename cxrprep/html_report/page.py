"""``report.html``: what a folder holds, on one page that needs nothing but a browser.

Only numbers, ids and small images go in: no report text, and no identifier beyond the dataset's own.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from cxrprep._version import __version__
from cxrprep.collection.dataset_folder import require_image_table
from cxrprep.events import Note, Sink, StageFinished, StageStarted, ignore
from cxrprep.html_report.svg_charts import DARK, Bar, BarPart, Chart, bars, blue, heat_map, histogram
from cxrprep.html_report.wording import FactRow, fact_row, outcome, outcome_of_one
from cxrprep.humanize import format_bytes, short_repr
from cxrprep.labels.agreement import SourceAgreement, source_agreements
from cxrprep.manifest import label_statistics
from cxrprep.storage.atomic import refuse_over_others, replace_file
from cxrprep.storage.parquet import check_as_written, check_columns, count_rows, read_combined, read_schema, single_rows
from cxrprep.storage.patient_table import NotByPatientError, OneRange, PatientTable
from cxrprep.storage.table_checksums import replace_listed
from cxrprep.storage.value_codes import numbers, take_rows, value_codes, with_codes
from cxrprep.system import FILES_IN_MEMORY, plain_memory
from cxrprep.verification.measures import IDS
from cxrprep.verification.published_facts import check_facts, fact_columns
from cxrprep.vocabulary import OWN_MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    import jinja2

    from cxrprep.collection import DatasetFolder
    from cxrprep.html_report.thumbnails import Thumbnail
    from cxrprep.model import ScoreSummary
    from cxrprep.storage.patient_table import ByPatient

STAGE: Final = "report"
# Images shown for each measure of quality.
_WORST: Final = 4


@dataclass(frozen=True, slots=True)
class ReportResult:
    """Where the page is, and what it counts: images, studies, patients, and patients in more than one split.

    Of converted images ``worst`` has those that the page shows by each measure of quality and each score, as dicts of
    ``image_id``, ``path`` and ``value``; ``scores`` says how many are above the alarms, where they were asked for.
    """

    __repr__ = short_repr

    path: Path
    images: int
    studies: int
    patients: int
    leaking_patients: int
    size: int
    scores: ScoreSummary | None = None
    worst: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)


@plain_memory(keep=True)
def write_report(
    folder: DatasetFolder, out: Path, *, thumbnails: int = 24, beside: Path | None = None, on_event: Sink = ignore
) -> ReportResult:
    """Write the page of a folder's manifest to ``out``, in one step.

    Args:
        folder: The open folder.
        out: Where the page goes.
        thumbnails: Images on the contact sheet.
        beside: The manifests of another folder, whose numbers stand beside those of this one.
        on_event: Progress.

    Returns:
        Where the page is and what it counts.

    Raises:
        UsageError: There is no manifest.
        TableError: A manifest is damaged.
        StorageError: ``out`` cannot be written.
    """
    import time

    def warn(text: str) -> None:
        on_event(Note(STAGE, text, "warning"))

    begun = time.monotonic()
    images = folder.manifests / "images.parquet"
    others = [] if beside is None else [beside / "images.parquet"]
    require_image_table(folder.root, images)
    for other in others:
        require_image_table(other.parent.parent, other)
    refuse_over_others(out, lambda head: b'name="generator" content="cxrprep' in head, "report page", "--out")
    on_event(StageStarted(STAGE, items=thumbnails, unit="thumbnails"))
    tables = [images, images.with_name("labels.parquet"), *others]
    # Tables are read and hashed without Python's lock, while this thread loads what draws.
    with ThreadPoolExecutor(3, "tables") as pool:
        of_labels = pool.submit(_of_label_table, folder)
        checks = pool.map(lambda table: check_as_written(table, warn), filter(Path.is_file, tables))
        if count_rows(images) > FILES_IN_MEMORY:
            # Both tables at once would take too much room, and so would what the first one needed.
            of_labels.result()
            pa.default_memory_pool().release_unused()
        page = _page(folder, thumbnails, beside, pool, of_labels)
        list(checks)
    text = _template().render(page=page)
    # It carries the time: beside the tables it is no stranger, and their list stays as it is.
    replace = replace_file if out.parent == folder.manifests else replace_listed
    replace(out, lambda part: part.write_text(text, encoding="utf-8"))
    on_event(StageFinished(STAGE, done=len(page["sheet"]), size=0, seconds=time.monotonic() - begun))
    counts = {name: page[name] for name in ("images", "studies", "patients", "scores")}
    leaking, size = page["leak"].count, len(text.encode())
    return ReportResult(out, **counts, leaking_patients=leaking, size=size, worst=page["worst_images"])


@functools.cache
def _template() -> jinja2.Template:
    import jinja2
    import platformdirs

    # Everything is escaped; only the charts, which escape what they are given, come as HTML.
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.PackageLoader("cxrprep.html_report", "."),
    )  # fmt: skip
    environment.filters["count"] = lambda value: "not known" if value is None else f"{value:,}"
    environment.filters["percent"] = _percent
    environment.filters["outcome"] = outcome
    environment.filters["outcome_of_one"] = outcome_of_one
    environment.filters["one_digit"] = lambda value: "" if value is None else f"{value:,.1f}"
    environment.filters["words"] = _words
    environment.filters["bytes"] = format_bytes
    environment.globals["shade"] = shade
    # Compiled once, and kept. measured: 2.06 -> 1.91 s of CPU time for the page of 377,110 images (medians of 10
    # alternating runs on a busy machine).
    with contextlib.suppress(OSError):
        folder = platformdirs.user_cache_path("cxrprep", ensure_exists=True) / "pages"
        folder.mkdir(exist_ok=True)
        environment.bytecode_cache = jinja2.FileSystemBytecodeCache(str(folder))
        return environment.get_template("page.html.j2")
    # Nothing can be kept there.
    environment.bytecode_cache = None
    return environment.get_template("page.html.j2")


def _percent(value: float | None) -> str:
    if value is None:
        return ""
    # Something is never shown as nothing, nor a part as the whole.
    if 0 < value < 0.05:
        return "under 0.1 %"
    return "over 99.9 %" if 99.95 <= value < 100 else f"{value:.1f} %"


def _page(
    folder: DatasetFolder,
    thumbnails: int,
    beside: Path | None,
    pool: ThreadPoolExecutor,
    of_labels: Future[tuple[list[FactRow], tuple[SourceAgreement, ...]]],
) -> dict[str, Any]:
    """Everything that the template shows, by the names that it has there."""
    root, manifest = folder.root, folder.manifests / "images.parquet"
    of_images = pool.submit(label_statistics.read_images, manifest)
    _template()
    from cxrprep.html_report.thumbnails import sample_rows, thumbnail

    draw = functools.partial(thumbnail, root)
    table, footer = of_images.result()
    worst = label_statistics.worst(table, _WORST)
    drawn = sample_rows(table.num_rows, thumbnails)
    shown = dict.fromkeys([*drawn, *(row for rows in worst.values() for row, _ in rows)])
    # Names are as many letters as all the rest, and are read for the few images that are shown.
    names = pool.submit(single_rows, manifest, ("image_id", "path"), [*shown])
    by_split = label_statistics.prevalence_by_split(table)
    labels = _named(by_split[-1])
    ages = label_statistics.ages(table)
    sources = [value for value, _ in label_statistics.value_counts(table, "label_source") if value]
    together = label_statistics.together(table, labels)
    charts = _charts(table, labels, ages) | _matrix(together)
    profiles = label_statistics.split_profiles(table, by_split)
    images = dict(zip(shown, names.result(), strict=True))
    worst_images = {name: [{**images[row], "value": value} for row, value in rows] for name, rows in worst.items()}
    named = {f"label_{row.stem}": row.name for row in labels}
    sheet = _sheet(table, draw, named, [(row, images[row]) for row in drawn])
    published, agreements = of_labels.result()
    return {
        "spec": folder.spec,
        "release": folder.release,
        "name": root.absolute().name,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "tool": __version__,
        "images": table.num_rows,
        "studies": label_statistics.distinct(table, "study_id"),
        "patients": label_statistics.distinct(table, "patient_id"),
        "size": int(numbers(table["bytes"], 0).sum()),
        "published": published,
        "outcomes": sorted(Counter(row.outcome for row in published).items()),
        "splits": label_statistics.by_split(table),
        "leak": label_statistics.leak(table),
        "labels": labels,
        "together": together,
        "charts": charts,
        "profiles": profiles,
        "beside": None if beside is None else _beside(table, labels, beside),
        "views": label_statistics.value_counts(table, "view"),
        "sexes": label_statistics.value_counts(table, "sex"),
        "flags": [(value, count) for value, count in label_statistics.value_counts(table, "age_flag") if value],
        "ages": ages,
        "modes": label_statistics.value_counts(table, "source_mode"),
        "sizes": label_statistics.sizes(table, "width", "height"),
        "originals": label_statistics.sizes(table, "orig_width", "orig_height"),
        "label_source": ", ".join(sources) or "none",
        "tables": _tables(table),
        "sheet": sheet,
        "agreements": agreements,
        "worst": [
            (label_statistics.QUALITY[name], [(draw(row["path"]) if thumbnails else None, row) for row in rows])
            for name, rows in worst_images.items()
        ],
        "worst_images": worst_images,
        "scores": label_statistics.score_summary(table),
        "header": folder.record.header if folder.record.exists else None,
        "footer": footer,
    }


def _words(name: str) -> str:
    """An observation's published name for readers: NIH writes ``Pleural_Thickening``."""
    return name.replace(OWN_MARK, ": ").replace("_", " ")


def _named(rows: list[label_statistics.Prevalence]) -> list[label_statistics.Prevalence]:
    return [replace(row, name=_words(row.name)) for row in rows]


def _beside(table: pa.Table, labels: list[label_statistics.Prevalence], manifests: Path) -> dict[str, Any]:
    """The numbers of this folder and of another one: totals in images, studies and patients, and labels by name."""
    other, _ = label_statistics.read_images(manifests / "images.parquet")
    here = {row.name: row for row in labels}
    there = {row.name: row for row in _named(label_statistics.prevalence(other))}
    totals = [("images", table.num_rows, other.num_rows)]
    totals += [
        (what, label_statistics.distinct(table, column), label_statistics.distinct(other, column))
        for what, column in (("studies", "study_id"), ("patients", "patient_id"))
    ]
    names = dict.fromkeys((*here, *there))
    profiles = [profile for each in (table, other) for profile in label_statistics.whole_profile(each)]
    views = dict.fromkeys(view for each in (table, other) for view, _ in label_statistics.value_counts(each, "view"))
    return {
        "name": manifests.absolute().parent.name,
        "totals": totals,
        "profiles": profiles if len(profiles) == 2 else (),
        "views": [view for view in views if view],
        "labels": [(name, here.get(name), there.get(name)) for name in names],
    }


def _of_label_table(folder: DatasetFolder) -> tuple[list[FactRow], tuple[SourceAgreement, ...]]:
    """What the page says of labels.parquet, a row for each source: it is let go before the manifest is read."""
    spec, release, path = folder.spec, folder.release, folder.manifests / "labels.parquet"
    if not path.is_file():
        return [], ()
    schema = read_schema(path)
    check_columns(schema, path)
    columns = fact_columns(spec, release, schema.names)
    labels = _by_patient(path, columns)
    # measured: 1.9 -> 1.2 s for 377,110 images on two processors, with 350 -> 480 MB at the peak.
    with ThreadPoolExecutor(1, "labels") as pool:
        agreements = pool.submit(source_agreements, labels)
        if not isinstance(labels, OneRange):
            # Two parts of a large table at once would take too much room.
            agreements.result()
        facts = check_facts(spec, release, folder.root, labels)
    tables = {fact.id: fact.table for fact in spec.fact}
    rows: dict[str, FactRow] = {}
    for check, _ in facts:
        row = fact_row(check, tables[check.id])
        # Two sources may state the same count, and differ.
        name = row.what if row.what not in rows else f"{row.what}, as stated by {row.source}"
        rows[name] = replace(row, what=name)
    return [*rows.values()], agreements.result()


def _by_patient(path: Path, columns: list[str]) -> ByPatient:
    """Columns of a label table: in memory, or of a large one on the disk, where that says of which patients it is."""
    if count_rows(path) > 2 * FILES_IN_MEMORY:
        with contextlib.suppress(NotByPatientError):
            return PatientTable(path, columns)
    return OneRange(with_codes(read_combined(path, columns), IDS))


def _tables(table: pa.Table) -> list[tuple[str, str]]:
    names, digests = value_codes(table["table_name"]), value_codes(table["table_digest"])
    words, sums = names.values.to_pylist(), [*(digest or "" for digest in digests.values.to_pylist()), ""]
    pairs = np.argwhere(names.beside(digests)[:-1]).tolist()
    return sorted({(words[name], sums[digest]) for name, digest in pairs if words[name]})


def _charts(
    table: pa.Table, labels: list[label_statistics.Prevalence], ages: list[tuple[str, dict[str, int]]]
) -> dict[str, Chart]:
    charts: dict[str, Chart] = {}
    if labels:
        rows = [
            Bar(
                row.name,
                (
                    BarPart("positive", row.positive), BarPart("uncertain", row.uncertain),
                    BarPart("negative", row.negative), BarPart("blank", row.blank),
                ),
                f"{row.share:.1f} % positive",
            )
            for row in labels
        ]  # fmt: skip
        described = "; ".join(f"{r.name}: {r.positive:,} positive, {r.uncertain:,} uncertain" for r in labels)
        drawn = bars("Labels: share of images by value", rows, description=described, share=True)
        charts["labels"] = Chart(drawn, tuple((row.name, row.parts) for row in rows))
    if ages:
        counts = [
            (name, (BarPart("female", s["F"]), BarPart("male", s["M"]), BarPart("unknown", s["unknown"])))
            for name, s in ages
        ]
        charts["ages"] = Chart(histogram("Age by sex", counts, axis="age in years, classes of five"), tuple(counts))
    for key, title in (("width", "Width"), ("height", "Height")):
        for prefix, what in (("", "of the files"), ("orig_", "of the original radiographs")):
            counted = label_statistics.sides(table, f"{prefix}{key}")
            if counted:
                shown = [(name, (BarPart("plain", count),)) for name, count in counted]
                drawn = histogram(f"{title} {what}", shown, axis=f"{key} {what}, in pixels")
                charts[f"{prefix}{key}"] = Chart(drawn, tuple(shown))
    views = label_statistics.value_counts(table, "view")
    seen = [Bar(view or "not stated", (BarPart("plain", count),), f"{count:,}") for view, count in views]
    charts["views"] = Chart(bars("Images by view", seen), tuple((row.name, row.parts) for row in seen))
    return charts


def _matrix(together: label_statistics.Together) -> dict[str, Chart]:
    """The co-occurrence to be saved; on the page it is a table."""
    names, places = together.names, range(len(together.names))
    if not names:
        return {}
    shares = [[None if row == column else together.percent(row, column) for column in places] for row in places]
    drawn = heat_map("Of the images positive for the row, percent positive for the column", names, shares)
    rows = [(name, tuple(map(BarPart, names, counts))) for name, counts in zip(names, together.counts, strict=True)]
    return {"together": Chart(drawn, tuple(rows))}


def _sheet(
    table: pa.Table, draw: Callable[[str], Thumbnail], names: dict[str, str], images: list[tuple[int, dict[str, Any]]]
) -> list[tuple[Thumbnail, dict[str, Any]]]:
    chosen = take_rows(table.select(["view", "split", *names]), [row for row, _ in images]).to_pylist()
    sheet = []
    for row, (_, image) in zip(chosen, images, strict=True):
        about = {
            "image_id": image["image_id"],
            "view": row["view"] or "view not stated",
            "split": row["split"] or "no split",
            "positive": [name for column, name in names.items() if row[column] == 1],
            "uncertain": [name for column, name in names.items() if row[column] == -1],
        }
        sheet.append((draw(image["path"]), about))
    return sheet


def shade(percent: float | None) -> str:
    """The colours of a cell from 0 to 100 %: white to dark blue, the text dark or white so that it can be read."""
    if percent is None:
        return "background:#fff;color:#555"
    return f"background:{blue(percent)};color:{'#fff' if percent / 100 > DARK else '#000'}"
