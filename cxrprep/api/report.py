"""The verb report: one HTML page about a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.keywords import Keywords
from cxrprep.api.result import Result
from cxrprep.api.running import notes_progress
from cxrprep.collection.dataset_folder import open_folder
from cxrprep.events import Sink, ignore
from cxrprep.html_report.page import ReportResult, write_report
from cxrprep.model import FolderRef
from cxrprep.storage.paths import local_path


@takes_buckets(root="written-folder", state="written-folder", out="written-file", beside="read-folder")
@notes_progress("report")
def report(
    root: Path | str | FolderRef,
    *,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    out: Path | str | None = None,
    thumbnails: int = 24,
    beside: Path | str | None = None,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[ReportResult]:
    """One self-contained HTML page about ROOT's manifest.

    Args:
        root: The folder.
        dataset: What it holds, where it has no record.
        release: Which release.
        state: The folder of record and manifests, beside a ROOT that is read-only.
        out: Where the page goes; ``manifests/report.html`` by default.
        thumbnails: Images on the contact sheet.
        beside: Another folder, whose numbers stand next to those of ROOT.
        on_event: Progress.
        **words: ``images``, as the command calls ``thumbnails``.

    Returns:
        Where the page is, and what it shows.

    Raises:
        UsageError: There is no manifest.
        TableError: A manifest is damaged.
        StorageError: The page cannot be written.

    Examples:
        >>> import cxrprep
        >>> page = cxrprep.report("nih", thumbnails=4).value
        >>> page.images, page.path.as_posix()
        (5, 'nih/manifests/report.html')
    """
    keywords = Keywords(words, thumbnails=thumbnails)
    thumbnails = int(keywords.take("images").get("images", thumbnails))
    keywords.finish()

    folder = open_folder(FolderRef.of(root, dataset=dataset, release=release, state=state), files=False)
    made = write_report(
        folder,
        folder.manifests / "report.html" if out is None else local_path(out, "--out"),
        thumbnails=thumbnails,
        beside=None if beside is None else Path(beside) / "manifests",
        on_event=on_event,
    )
    rows = (
        ("images", made.images),
        ("patients", made.patients),
        ("patients in more than one split", made.leaking_patients),
        *((("scores", made.scores.words()),) if made.scores else ()),
        ("written", str(made.path)),
    )
    return Result("report", made, rows=rows)
