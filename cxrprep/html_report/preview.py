"""``preview.html``: a contact sheet that shows what a recipe does, before a million files are made."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from cxrprep._version import __version__
from cxrprep.html_report.svg_charts import data_address
from cxrprep.humanize import short_repr
from cxrprep.storage.atomic import replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cxrprep.images.preview import PreviewImage
    from cxrprep.images.recipe import Recipe

_RULES: Final = {
    "lut": "the header's VOI LUT",
    "window": "the header's window",
    "range": "the range of the stored bits",
    "minmax": "smallest to largest value",
    "none": "the values as they are",
}
_WIDE: Final = 360
_TALL: Final = 120


@dataclass(frozen=True, slots=True)
class PreviewResult:
    """Where the sheet is, how many images it shows, and what a person should look at: (image, warning)."""

    __repr__ = short_repr

    path: Path
    images: int
    unreadable: int
    warnings: tuple[tuple[str, str], ...]


def write_preview(seen: Sequence[PreviewImage], recipe: Recipe, out: Path, *, title: str) -> PreviewResult:
    """Write the sheet in one step; it needs nothing but a browser.

    Args:
        seen: The images, each in its three forms.
        recipe: By which the results were made.
        out: The HTML file.
        title: Its heading.

    Returns:
        The file, and what it shows.

    Raises:
        StorageError: The disk refuses.
    """
    import jinja2

    source = (importlib.resources.files("cxrprep.html_report") / "preview.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["address"] = lambda shown: data_address("image/jpeg", shown.jpeg)
    page = environment.from_string(source).render(
        seen=seen,
        recipe=recipe,
        title=title,
        tool=__version__,
        chart=chart,
        rules=_RULES,
        fingerprint=recipe.fingerprint(),
    )
    replace_file(out, lambda part: part.write_text(page, encoding="utf-8"))
    warnings = tuple((one.name, text) for one in seen for text in one.warnings)
    return PreviewResult(out, len(seen), sum(bool(one.problem) for one in seen), warnings)


def chart(one: PreviewImage) -> str:
    """The histogram of the stored values as SVG, with the curve from stored value to display value over it."""
    largest = max(one.counts, default=0) or 1
    step = _WIDE / max(1, len(one.counts))
    label = f"Stored values of {one.name}: {one.low} to {one.high}"
    lines = [f'<svg viewBox="0 0 {_WIDE} {_TALL}" role="img" aria-label="{escape(label, quote=True)}">']
    for index, count in enumerate(one.counts):
        # By the square root, so that a lung beside a black border is still seen.
        tall = (count / largest) ** 0.5 * (_TALL - 4)
        if count:
            lines.append(
                f'<rect x="{index * step:.1f}" y="{_TALL - tall:.1f}" width="{step:.2f}" height="{tall:.1f}"/>'
            )
    if one.curve is not None:
        points = " ".join(
            f"{(i + 0.5) * step:.1f},{_TALL - 2 - y * (_TALL - 4):.1f}" for i, y in enumerate(one.curve) if y >= 0
        )
        lines.append(f'<polyline points="{points}"/>')
    lines.append("</svg>")
    return "".join(lines)
