"""Recipes as TOML files: every key, type and range checked, errors with the line and the nearest name.

What cannot work is refused here, before the first image: steps on the words of the file that come too late, 8-bit steps
on 16 bits, an output form that cannot hold the bits, speed that is not declared.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from cxrprep.config.toml import TomlText, unknown_key
from cxrprep.images.antialias import KERNELS
from cxrprep.images.geometry import Pad, Resize
from cxrprep.images.resample import FILTERS
from cxrprep.images.transforms import STEPS, Bits, Clahe, CxrFoundation, Equalize, PydicomMinMax, Step, Stretch, Voi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMATS: Final = {"png": (8, 16), "jpeg": (8,), "webp": (8,), "jxl": (8, 16)}
_TOP: Final = {"summary": "str", "exact": "bool", "step": "list[table]", "output": "table", "model": "table"}
_OUTPUT: Final = {"format": "str", "quality": "int"}
_MODEL: Final = {
    "mean": "list[float]",
    "std": "list[float]",
    "crop": "int",
    "resize": "int",
    "source": "str",
    "libraries": "str",
}
_CHOICES: Final[Mapping[tuple[str, str], tuple[Any, ...]]] = {
    ("voi", "source"): ("auto", "lut", "window", "range", "minmax"),
    ("voi", "bits"): (8, 16),
    ("stretch", "rule"): ("min-max", "max", "percentile"),
    ("stretch", "rounding"): ("truncate", "nearest"),
    ("stretch", "bits"): (8, 16),
    ("resize", "filter"): tuple(FILTERS),
    ("resize", "rounding"): ("nearest", "truncate"),
    ("center-crop", "start"): ("floor", "half-even"),
    ("square-pixels", "filter"): tuple(KERNELS),
    ("spacing", "filter"): ("area", *KERNELS),
    ("bits", "to"): (8, 16),
    ("output", "format"): tuple(FORMATS),
}
_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "width": (1, 20_000), "height": (1, 20_000), "shortest": (1, 20_000), "longest": (1, 20_000), "square": (1, 20_000),
    "window": (1, 100), "tiles": (1, 256), "clip": (0, 1000), "value": (0, 65535), "tolerance": (0, 65535),
    "largest": (0, 0.49), "quality": (1, 100), "low": (0, 100), "high": (0, 100), "strays": (0, 0.5), "mm": (0.01, 100),
    "crop": (1, 20_000), "resize": (1, 20_000),
}  # fmt: skip


def read(text: str, where: str) -> tuple[str, bool, tuple[Step, ...], dict[str, Any], dict[str, Any]]:
    """Summary, exactness, steps, the output's options and the model's of a TOML text. Raises ``ConfigError``."""
    file = TomlText(text, where)
    found = file.check_table("", file.data, _TOP)
    if not file.data.get("step"):
        file.mistake("step", "a recipe needs steps", '[[step]] with do = "voi", and so on')
    steps = [_step(item, number, file) for number, item in enumerate(found.get("step", ()), 1)]
    output = _checked("output", found.get("output", {}), _OUTPUT, file)
    model = _checked("model", found.get("model", {}), _MODEL, file)
    file.raise_mistakes()
    possible = tuple(step for step in steps if step is not None)
    exact = found.get("exact", True)
    _check_order(possible, str(output.get("format", "png")), file, exact=exact)
    file.raise_mistakes()
    return found.get("summary", ""), exact, possible, output, model


def _step(item: Mapping[str, Any], number: int, file: TomlText) -> Step | None:
    """The step of one table; ``None`` where it is wrong, which the file then knows."""
    options, place, before = dict(item), f"step.{number}", len(file.mistakes)
    name = options.pop("do", None)
    if not isinstance(name, str):
        file.mistake(place, "this step has no do", f"do = one of {', '.join(STEPS)}")
        return None
    if name not in STEPS:
        file.mistake(f"{place}.do", f"unknown step {name!r}", unknown_key(name, STEPS))
        return None
    kind = STEPS[name]
    known = {f.name: str(f.type) for f in dataclasses.fields(kind)}
    if {"width", "height"} <= set(known):
        # Steps with a width and a height also take "square", which is both.
        known["square"] = "int"
    _checked(name, options, known, file, place)
    if "square" in options:
        if {"width", "height", "shortest", "longest"} & set(options):
            file.mistake(f"{place}.square", f"{name} takes square, or other sides, not both", "keep one of them")
        options["width"] = options["height"] = options.pop("square")
    sides = {"width", "height", "shortest", "longest"} & set(options)
    if name == "resize" and sides not in ({"width", "height"}, {"shortest"}, {"longest"}):
        file.mistake(place, "resize has no size", "one of: shortest; longest; square; width and height")
    missing = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING and f.name not in options]
    if missing:
        file.mistake(place, f"{name} needs {' and '.join(missing)}", "or square, for both")
    step: Step | None = kind(**options) if len(file.mistakes) == before else None
    return step


def _checked(
    section: str, options: Mapping[str, Any], known: Mapping[str, str], file: TomlText, place: str = ""
) -> dict[str, Any]:
    choices = {key: allowed for (owner, key), allowed in _CHOICES.items() if owner == section}
    return file.check_table(place or section, options, known, choices=choices, ranges=_RANGES)


def _check_order(steps: Sequence[Step], form: str, file: TomlText, *, exact: bool) -> None:
    """Refuse an order of steps that would fail, or mislead, on every image."""
    bits = 8
    for number, step in enumerate(steps, 1):
        place = f"step.{number}"
        first = isinstance(step, Voi | Stretch | PydicomMinMax | CxrFoundation)
        if first != (number == 1) and not (isinstance(step, Stretch) and number > 1):
            file.mistake(
                place,
                "the values of the file become grey levels in the first step, and only there",
                'begin with do = "voi" (as DICOM says) or do = "stretch" (from minimum to maximum)',
            )
        if isinstance(step, Voi | Stretch):
            bits = step.bits
        elif isinstance(step, CxrFoundation):
            bits = 16
        elif isinstance(step, Bits):
            bits = step.to
        elif isinstance(step, Equalize | Clahe) and bits != 8:
            file.mistake(place, "this step works on 8 bits", 'put do = "bits", to = 8 before it')
        elif isinstance(step, Pad) and step.value >> bits:
            file.mistake(place, f"{step.value} is not a value of {bits} bits", f"0 to {(1 << bits) - 1}")
        elif isinstance(step, Resize) and step.filter == "area-fast" and exact:
            file.mistake(place, "area-fast is not exact", "say so: exact = false at the top of the recipe")
    if bits not in FORMATS[form]:
        file.mistake(
            "output.format",
            f"{form} holds 8 bits, the steps give {bits}",
            'add a step do = "bits", to = 8; or format = "png" or "jxl"',
        )
