"""``failures.parquet``: what failed in the last run, a row an item; absent when nothing did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from cxrprep.schemas import FAILURES, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FAILURES_NAME = "failures.parquet"


@dataclass(frozen=True, slots=True)
class Failure:
    """One item that failed; ``error`` is the class of the error, ``hint`` what to do about it."""

    path: str
    stage: str
    error: str
    message: str
    hint: str = ""
    image_id: str | None = None


def write_failures(failures: Iterable[Failure], folder: Path) -> Path | None:
    """Write ``failures.parquet`` into ``folder``, sorted by path; without failures an earlier one is removed."""
    rows = sorted((asdict(failure) for failure in failures), key=lambda row: row["path"])
    path = folder / FAILURES_NAME
    if not rows:
        path.unlink(missing_ok=True)
        return None
    write_table(pa.Table.from_pylist(rows, schema=FAILURES), path, name="failures", made_from={})
    return path
