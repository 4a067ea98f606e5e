"""Charts as inline SVG: no script, readable in print and without colours, with the numbers beside the bars.

Each has a title and a description for screen readers; the page gives the same numbers as a table.
"""

from __future__ import annotations

import base64
import csv
import io
import itertools
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROW: Final = 24
_WIDTH: Final = 720
_TEXT: Final = 190
# A longer name is shortened where it is drawn: the table beside the chart has all of it.
_LETTERS: Final = 50
_NUMBERS: Final = 110
DARK: Final = 0.66
"""From this share on white text has more contrast on the colour of a cell than black text; both have at least 4.5."""


@dataclass(frozen=True, slots=True)
class BarPart:
    """A portion of a bar; ``kind`` is a class of the page's style sheet: positive, uncertain, negative, blank, ..."""

    kind: str
    count: int


# What a chart needs when it stands alone, as a file: the colours of the page's style sheet.
_ALONE: Final = (
    "<style>text{font:12px sans-serif;fill:#1a1a1a}.grid{stroke:#d0d0d0}.positive,.male{fill:#08519c}"
    ".uncertain,.female{fill:#e08214}.negative{fill:#c6dbef}.blank{fill:#f2f2f2;stroke:#8c8c8c;stroke-width:.75}"
    ".unknown{fill:#8c8c8c}.plain{fill:#3a6ea5}</style>"
)


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as SVG, and its numbers: a name and portions for each bar."""

    svg: str
    rows: tuple[tuple[str, tuple[BarPart, ...]], ...]

    @property
    def svg_file(self) -> str:
        """The chart as a file of its own, in an address that a link can hold."""
        opening, mark, rest = self.svg.partition(">")
        return data_address("image/svg+xml", (opening + mark + _ALONE + rest).encode())

    @property
    def csv_file(self) -> str:
        """The numbers as CSV, in an address that a link can hold."""
        kinds = list(dict.fromkeys(part.kind for _, parts in self.rows for part in parts))
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["name", *("images" if kind == "plain" else kind for kind in kinds)])
        for name, parts in self.rows:
            counts = {part.kind: part.count for part in parts}
            writer.writerow([name, *(counts.get(kind, 0) for kind in kinds)])
        return data_address("text/csv", text.getvalue().encode())


def data_address(kind: str, content: bytes) -> str:
    """A file within the page, as an address that a link or an image can hold; ``kind`` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, its portions, and the numbers that stand at its end."""

    name: str
    parts: tuple[BarPart, ...]
    note: str = ""


def bars(title: str, rows: Sequence[Bar], *, description: str = "", share: bool = False) -> str:
    """Horizontal bars as SVG.

    Args:
        title: Names the chart, for those who do not see it too.
        rows: A label and the counts of its parts, a row a bar.
        description: What the chart says, in a sentence.
        share: Each bar has the full width, and shows portions of its own total.

    Returns:
        An ``svg`` element.
    """
    top = 8
    height = top + _ROW * len(rows) + 6
    side = _room_for([row.name for row in rows])
    room = _WIDTH - side - _NUMBERS
    totals = [sum(part.count for part in row.parts) for row in rows]
    largest = max(totals, default=0)
    lines = [_open(title, description or title, height)]
    for index, row in enumerate(rows):
        y = top + index * _ROW
        lines.append(_text("name", side - 8, y + 15, row.name, anchor="end"))
        scale = room / ((totals[index] if share else largest) or 1)
        x = float(side)
        for part in row.parts:
            lines.append(_rectangle(row.name, part, x=x, y=y + 3, width=part.count * scale, height=_ROW - 8))
            x += part.count * scale
        lines.append(_text("note", side + room + 8 if share else x + 8, y + 15, row.note))
    lines.append("</svg>")
    return "".join(lines)


def histogram(title: str, counts: Sequence[tuple[str, tuple[BarPart, ...]]], *, axis: str) -> str:
    """Vertical stacked bars over classes of equal width, as SVG, with a count axis that begins at 0.

    Args:
        title: Names the chart, for those who do not see it too.
        counts: The count of each class, by part.
        axis: What the classes are of.

    Returns:
        An ``svg`` element.
    """
    height, left, bottom, top = 260, 64, 44, 12
    room, tall = _WIDTH - left - 10, height - bottom - top
    largest = max((sum(p.count for p in parts) for _, parts in counts), default=0)
    ceiling = _nice(largest)
    lines = [_open(title, title, height)]
    for tick in range(5):
        value = ceiling * tick / 4
        y = top + tall - tall * tick / 4
        lines.append(f'<line class="grid" x1="{left}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(_text("tick", left - 6, y + 4, f"{value:,.0f}", anchor="end"))
    step = room / max(len(counts), 1)
    every = max(1, -(-len(counts) // 14))
    for index, (name, parts) in enumerate(counts):
        x, y = left + index * step, float(top + tall)
        for part in parts:
            size = tall * part.count / ceiling
            y -= size
            lines.append(_rectangle(name, part, x=x + 1, y=y, width=max(step - 2, 1), height=size))
        if index % every == 0:
            lines.append(_text("tick", x + step / 2, top + tall + 16, name, anchor="middle"))
    lines.append(_text("axis", left + room / 2, height - 8, axis, anchor="middle"))
    lines.append("</svg>")
    return "".join(lines)


def heat_map(title: str, names: Sequence[str], shares: Sequence[Sequence[float | None]]) -> str:
    """A square of shares from 0 to 100 %, white to dark blue, as SVG.

    Args:
        title: Names the chart, for those who do not see it too.
        names: Of the rows, and in the same order of the columns.
        shares: In percent, row by row; ``None`` is an empty cell.

    Returns:
        An ``svg`` element.
    """
    text = _room_for(names)
    side = min(34.0, (_WIDTH - text) / max(len(names), 1))
    lines = [_open(title, title, round(text + side * len(names)) + 8)]
    for at, name in enumerate(names):
        start = text + side * at
        lines.append(_text("name", text - 8, start + side / 2 + 4, name, anchor="end"))
        place = f'transform="translate({start + side / 2 + 4:.1f} {text - 8}) rotate(-90)"'
        lines.append(f'<text class="name" {place}>{escape(_drawn(name))}</text>')
        for column, share in enumerate(shares[at]):
            if share is not None:
                left, dark = text + side * column, share / 100 > DARK
                lines.append(
                    f'<rect x="{left:.1f}" y="{start:.1f}" width="{side:.1f}" height="{side:.1f}" '
                    f'style="fill:{blue(share)}"/>'
                    f'<text x="{left + side / 2:.1f}" y="{start + side / 2 + 4:.1f}" text-anchor="middle" '
                    f'style="font-size:{side / 3:.1f}px;fill:{"#fff" if dark else "#000"}">{share:.0f}</text>'
                )
    lines.append("</svg>")
    return "".join(lines)


def blue(percent: float) -> str:
    """The colour of a share from 0 to 100 %: white to dark blue."""
    share = min(max(percent, 0.0), 100.0) / 100
    red, green, deep = (round(255 + (dark - 255) * share) for dark in (8, 48, 107))
    return f"rgb({red},{green},{deep})"


def _room_for(names: Sequence[str]) -> int:
    """The width that names take, in pixels: their letters have seven at most."""
    return max(_TEXT, 7 * min(max(map(len, names), default=0), _LETTERS) + 8)


def _drawn(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"


def _rectangle(name: str, part: BarPart, *, x: float, y: float, width: float, height: float) -> str:
    if not part.count:
        return ""
    # A portion too small to see is still there: one that is not empty has at least three quarters of a pixel.
    sides = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.75):.1f}" height="{max(height, 0.75):.1f}"'
    return f'<rect class="{part.kind}" {sides}><title>{escape(name)}: {part.kind} {part.count:,}</title></rect>'


def _text(kind: str, x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(_drawn(text))}</text>'


def _open(title: str, description: str, height: int) -> str:
    # The viewBox lets the chart shrink with the page; the label is what a screen reader says.
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title, quote=True)}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title><desc>{escape(description)}</desc>'
    )


def _nice(value: int) -> int:
    """The smallest of 4, 8, 20, 40, 80, 200, ... that is not below ``value``: a quarter of it is a round number."""
    steps = (factor * int(4 * 10**power) for power in itertools.count() for factor in (1, 2, 5))
    return next(step for step in steps if step >= value)
