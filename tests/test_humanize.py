"""One spelling of bytes, durations and counts, and no second one anywhere in the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cxrprep
from cxrprep.humanize import format_bytes, format_count, format_number, format_rate, format_seconds, singular


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1.0 kB"),
        (123_456, "123 kB"),
        (99_949, "99.9 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_501, "1.0 MB"),
        (45_080_000_000, "45.1 GB"),
        (4_700_000_000_000, "4.7 TB"),
        (2_000_000_000_000_000_000, "2,000 PB"),
    ],
)
def test_bytes(size: float, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3599.9, "1 h"),
        (12_000, "3 h 20 min"),
        (352_800, "4 d 2 h"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_counts_know_one() -> None:
    assert format_count(1, "file") == "1 file"
    assert format_count(0, "file") == "0 files"
    assert format_count(1204, "study") == "1,204 studies"
    assert format_count(2, "label table") == "2 label tables"
    assert format_count(1, "row", "says") == "1 row says"
    assert [format_count(2, "image", verb) for verb in ("is", "has", "stands")] == [
        "2 images are", "2 images have", "2 images stand",
    ]  # fmt: skip
    assert [singular(unit) for unit in ("files", "studies", "images")] == ["file", "study", "image"]
    assert format_number(112_120) == "112,120"
    assert format_rate(12_340_000) == "12.3 MB/s"


def test_nobody_else_spells_bytes_or_durations() -> None:
    package = Path(cxrprep.__file__).parent
    units = re.compile(r"""\("B", "kB"|("kB", "MB")|/ 1e[69]\b|/ 60:|/ 3600""")
    found = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if path.name != "humanize.py" and units.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []
