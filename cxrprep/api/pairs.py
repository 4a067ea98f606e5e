"""The verb pairs: images with their reports by sections, as a table for models of image and text."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.keywords import Keywords
from cxrprep.api.result import Result
from cxrprep.api.running import notes_progress
from cxrprep.collection.dataset_folder import check_converted, check_dataset, require_image_table
from cxrprep.collection.recognition import sample_names
from cxrprep.collection.state_folder import check_state
from cxrprep.datasets.catalog import catalog
from cxrprep.errors import NothingSelectedError, UsageError
from cxrprep.events import Note, Sink, StageFinished, StageStarted, Throttle, ignore
from cxrprep.humanize import format_count, short_repr
from cxrprep.labels.declared_reports import has_reports, reports_in
from cxrprep.labels.nlp.readers import Collection, Report, open_collection
from cxrprep.manifest.dataset_card import write_card_beside
from cxrprep.manifest.pair_filters import PairFilter, apply_filter, counts_of, find_filter, find_form
from cxrprep.manifest.pairs import SECTIONS, cut_reports, made_from, pair_rows, pairs_table, per_image
from cxrprep.manifest.report_texts import name_agreement
from cxrprep.model import FolderRef
from cxrprep.storage.atomic import refuse_over_others
from cxrprep.storage.parquet import check_as_written, footer_of, read_footer, write_table
from cxrprep.storage.table_checksums import replace_listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cxrprep.datasets.facts import DatasetSpec

STAGE: Final = "pairs"
FORMATS: Final = ("parquet", "csv", "json")
# Reports that are read at once from a zip or folder.
_BATCH: Final = 2048


@dataclass(frozen=True, slots=True)
class PairsResult:
    """What ``pairs`` wrote: ``pairs`` rows of ``studies`` studies at ``path``; ``counts`` by split."""

    __repr__ = short_repr

    path: Path
    filter: str
    pairs: int
    studies: int
    counts: dict[str, int]
    expected: dict[str, int]


@takes_buckets(root="written-folder", state="written-folder", tables="read-folder", reports="read", out="written-file")
@notes_progress("pairs")
def pairs(
    root: Path | str | FolderRef,
    *,
    reports: Path | str | None = None,
    filter: str = "all",  # noqa: A002  # the option's name
    per: str = "study",
    text: str = "as-is",
    form: str = "",
    out: Path | str | None = None,
    dataset: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[PairsResult]:
    """Write the image-report pairs of ROOT. Report text is under the release's agreement: it goes where you ask for it.

    Args:
        root: A folder with a manifest, or Open-i's XML reports (a folder or ``NLMCXR_reports.tgz``), which name images.
        reports: MIMIC-CXR's zip or folder of reports, CheXpert Plus's table, or Open-i's XML; by default those in ROOT,
            or in the tables of a dataset whose file says where they are.
        filter: A named recipe: all, official, findings, findings-frontal-1, findings-or-impression-frontal-3w,
            both-views-both-sections, findings-2w or openi-r2gen.
        per: ``study`` or ``image``: what a row is about.
        text: The form of the sections: as-is, one-blank, r2gen-mimic, r2gen-iu or mgca.
        form: parquet (the default), csv, or json (R2Gen's ``annotation.json``: id, report, image_path, split).
        out: The file; by default ``manifests/pairs.parquet`` (or .csv, .json) below ROOT.
        dataset: What ROOT has to hold, where somebody wants to be sure.
        state: Where the manifests are when they are not below ROOT.
        tables: A folder that holds the reports when ROOT does not.
        on_event: Called with progress and remarks.
        **words: ``format``, as the command calls ``form``.

    Returns:
        What was written, with the counts that the filter gives, beside those that were published of the whole release.

    Raises:
        UsageError: An unknown filter or form, a folder without reports.
        NothingSelectedError: The filter leaves nothing.
        StorageError: The disk refuses.

    Examples:
        >>> import cxrprep
        >>> written = cxrprep.pairs("mimic", filter="findings").value
        >>> written.path.as_posix()
        'mimic/manifests/pairs.parquet'
    """
    chosen, spelled = find_filter(filter), find_form(text)
    keywords = Keywords(words)
    form = form or str(keywords.take("format").get("format", FORMATS[0]))
    keywords.finish()
    if form not in FORMATS:
        raise UsageError(f"unknown form {form!r}", hint=f"known: {', '.join(FORMATS)}")
    if per not in ("study", "image"):
        raise UsageError(f"a row cannot be a {per}", hint="use --per study or --per image")
    where = FolderRef.of(root, dataset=dataset, state=state, tables=tables)
    check_state(where.path, where.home)
    images = where.home / "manifests" / "images.parquet"
    manifest = images if images.is_file() else None
    if manifest is None and images.parent.is_dir():
        check_converted(where.path, where.home, sample_names(where.path))
    if manifest is not None:
        check_as_written(manifest)
        check_dataset(where.path, where.dataset, str(read_footer(manifest).get("dataset") or ""))
    if manifest is None and out is None:
        if not where.path.exists():
            raise UsageError(f"there is no {where.path}", hint="check the path")
        if reports is not None:
            require_image_table(where.path, images)
        raise UsageError(f"{where.path} is no folder with a manifest", hint="say where the pairs go: --out FILE")
    cut = cut_reports(_stream(_reports_of(where, manifest, reports, on_event), on_event))
    paired = pair_rows(manifest, cut)
    check_dataset(where.path, where.dataset, str(paired[0]["dataset"] or "") if paired else "")
    rows = apply_filter(paired, chosen)
    if not rows:
        raise NothingSelectedError(f"no study is left by the filter {chosen.name}", hint=chosen.rule)
    counts = counts_of(rows, chosen)
    origin = {**made_from(manifest), "filter": chosen.name, "text": text, "counts": counts}
    target = images.parent / f"pairs.{form}" if out is None else Path(out)
    marks = {"parquet": b"PAR1", "json": b'{"train": [', "csv": b"dataset,"}

    def is_ours(head: bytes) -> bool:
        return head.startswith(marks[form]) and (form != "parquet" or footer_of(target).get("schema") == "pairs")

    refuse_over_others(target, is_ours, f"table of pairs as {form}", "--out")
    written = _write(target, rows, form=form, per=per, spelled=spelled, made=origin)
    held = str(rows[0]["dataset"] or "")
    if manifest is not None and out is None and form == "parquet":
        # Its head names the tables of the folder, by which ``load_dataset`` finds this one.
        write_card_beside(manifest)
    expected = dict(chosen.expected) if held.startswith(chosen.dataset.removesuffix("-jpg")) else {}
    _compare(chosen, counts, expected, on_event)
    name_agreement(held, target, STAGE, on_event)
    on_event(StageFinished(STAGE, done=len(cut)))
    value = PairsResult(target, chosen.name, written, len(rows), counts, expected)
    shown = tuple((f"split {name or 'none'}", f"{format_count(count, chosen.unit)}") for name, count in counts.items())
    facts = (("filter", f"{chosen.name}: {chosen.rule}"), ("rows", written), ("studies", len(rows)), *shown)
    return Result("pairs", value, rows=(*facts, ("written", str(target))))


# ---- where the reports are ----


def _reports_of(
    where: FolderRef, manifest: Path | None, named: Path | str | None, on_event: Sink
) -> Collection | Iterator[Report]:
    if named is not None or manifest is None:
        return open_collection(where.path if named is None else Path(named))
    spec = catalog().get(str(read_footer(manifest).get("dataset") or ""))
    for place in filter(None, (where.path, where.tables)):
        found = _in_folder(place, spec)
        if found is not None:
            return open_collection(found)
    if spec is not None and has_reports(spec):
        return reports_in(spec, where.path, tables=where.tables, on_event=on_event)
    raise UsageError(
        f"{where.path} holds no reports", hint="name them with --reports: a zip, a folder, a CSV, Open-i's XML"
    )


def _in_folder(folder: Path, spec: DatasetSpec | None) -> Path | None:
    roles = ("reports", "plus")
    patterns = [pattern for t in (spec.table if spec is not None else ()) if t.role in roles for pattern in t.patterns]
    table = next((path for pattern in patterns for path in sorted(folder.rglob(pattern))), None)
    files = folder / "files"
    return table or (files if files.is_dir() and next(files.rglob("s*.txt"), None) is not None else None)


def _stream(held: Collection | Iterator[Report], on_event: Sink) -> Iterator[Report]:
    names = held.names if isinstance(held, Collection) else None
    on_event(StageStarted(STAGE, items=None if names is None else len(names), unit="reports"))
    progress = Throttle(STAGE, on_event)
    if not isinstance(held, Collection):
        each = held
    elif names is None:
        each = held.rows()
    else:
        each = (one for start in range(0, len(names), _BATCH) for one in held.read(names[start : start + _BATCH]))
    for report in each:
        yield report
        progress.advance(items=1)
    progress.flush()


# ---- what is written ----


def _write(
    target: Path,
    rows: list[dict[str, Any]],
    *,
    form: str,
    per: str,
    spelled: Callable[[str], str],
    made: Mapping[str, Any],
) -> int:
    """Write the rows; how many there are."""
    for row in rows:
        row |= {name: spelled(row[name]) for name in SECTIONS if row[name] is not None}
    held = list(per_image(rows)) if per == "image" and form != "json" else rows
    if form == "parquet":
        write_table(pairs_table(held, per=per), target, name="pairs", made_from=made)
        return len(held)
    data, count = _annotations(rows, per) if form == "json" else (_csv(held), len(held))
    replace_listed(target, lambda part: part.write_bytes(data))
    return count


def _csv(rows: list[dict[str, Any]]) -> bytes:
    """Lists as JSON in their cell: CSV has none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({n: json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v for n, v in row.items()})
    return text.getvalue().encode()


def _annotations(rows: list[dict[str, Any]], per: str) -> tuple[bytes, int]:
    """R2Gen's form: a list a split, each entry with the text of the findings, or of the impression without them."""
    found: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    for row in rows:
        split = {"validate": "val", None: "unsplit"}.get(row["split"], row["split"])
        report = row["findings"] if row["findings"] is not None else row["impression"]
        entry = {"study_id": row["study_id"], "subject_id": row["patient_id"], "report": report or "", "split": split}
        groups = [[image] for image in row["images"]] if per == "image" else [row["images"]]
        for images in groups:
            paths = [image["path"] or image["image_id"] for image in images]
            name = images[0]["image_id"] if per == "image" else row["study_id"]
            found.setdefault(split, []).append({"id": name, **entry, "image_path": paths})
    return (json.dumps(found, ensure_ascii=False) + "\n").encode(), sum(map(len, found.values()))


def _compare(chosen: PairFilter, counts: dict[str, int], expected: dict[str, int], on_event: Sink) -> None:
    """Say where a published count differs: of a part of a release it has to."""
    found = {"": sum(counts.values())} if set(expected) == {""} else counts
    for split, number in expected.items():
        if found.get(split, 0) != number:
            where = f" in {split}" if split else ""
            published = f"{number:,} are published of the whole release ({chosen.source})"
            on_event(Note(STAGE, f"{chosen.name}: {found.get(split, 0):,}{where}; {published}", "warning"))
