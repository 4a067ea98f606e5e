"""The verb verify: the proof of bytes, images and dataset, with a decoder and a way to fetch again handed in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrprep.api.folder import find_place, open_folder
from cxrprep.api.result import Result
from cxrprep.events import ignore
from cxrprep.record.requested import asked
from cxrprep.verification import ImageCheck, VerifyOptions, VerifyReport
from cxrprep.verification import verify as prove

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cxrprep.api.download_plan import FetchOptions
    from cxrprep.events import Sink
    from cxrprep.executors import Engine


def check_image(path: Path) -> ImageCheck:
    """One image decoded, in verify's words; runs in worker processes."""
    from cxrprep.images.image_info import inspect

    return ImageCheck(**dataclasses.asdict(inspect(path)))


def verify(
    root: Path | str,
    *,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    options: VerifyOptions | None = None,
    repair: bool = False,
    source: str | None = None,
    engine: Engine | None = None,
    fetching: FetchOptions | None = None,
    on_event: Sink = ignore,
) -> Result[VerifyReport]:
    """What is true of the folder; the report never says more than was checked.

    With ``repair`` wrong and missing files are fetched again from ``source`` (by default the record's mirror), as
    ``fetching`` says. ``engine`` decodes images, by default processes here. Raises ``UsageError`` for a folder that is
    no known dataset, and for a ``source`` that is no mirror.
    """
    chosen = options or VerifyOptions()
    home = None if state is None else Path(state)
    folder = open_folder(Path(root), dataset=dataset, release=release, state=home)

    def labels() -> Any:
        from cxrprep.labels.extract import read_labels

        read = read_labels(
            folder.spec,
            folder.root,
            release=release,
            tables=None if tables is None else Path(tables),
            on_event=on_event,
        )
        return read.table

    def refetch(paths: Sequence[str]) -> Mapping[str, str]:
        from cxrprep.api.download import fetch_again

        return fetch_again(folder, paths, fetching, source=source, on_event=on_event)

    if repair:
        # A source that nobody understands is refused before the hours of a check, not after them.
        find_place(folder.spec, source or folder.record.header.mirror or None, folder.release)
    decoding = chosen.images or chosen.duplicates or chosen.sample is not None
    if decoding and engine is not None:
        engine.needs([str(folder.root.absolute())])
    report = prove(
        folder.root,
        folder.spec,
        folder.release,
        folder.record,
        options=chosen,
        selected=asked(folder.record.cache),
        labels=labels,
        check_image=check_image if decoding else None,
        engine=engine or _engine() if decoding else None,
        refetch=refetch if repair else None,
        on_event=on_event,
    )
    shown = [*report.rows()]
    if report.path is not None:
        shown.append(("all findings", str(report.path)))
    return Result("verify", report, report.exit_code, rows=tuple(shown), data=report.as_dict())


def _engine() -> Engine:
    from cxrprep.executors import Engine

    return Engine()
