"""Recipes as TOML files: every key, type and range checked, errors with the line and the nearest name.

What cannot work is refused here, before the first image: steps on the words of the file that come too late, 8-bit steps
on 16 bits, an output form that cannot hold the bits, speed that is not declared.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import ConfigError, did_you_mean
from cxrprep.images.antialias import KERNELS
from cxrprep.images.resample import FILTERS
from cxrprep.images.transforms import (
    STEPS,
    Bits,
    Clahe,
    CxrFoundation,
    Equalize,
    Pad,
    PydicomMinMax,
    Resize,
    Step,
    Stretch,
    Voi,
)
from cxrprep.storage.small_files import parse_toml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FORMATS: Final = {"png": (8, 16), "jpeg": (8,), "webp": (8,), "jxl": (8, 16)}
_TOP: Final = ("summary", "exact", "step", "output", "model")
_MODEL: Final = {"mean": "list", "std": "list", "crop": "int", "resize": "int", "source": "str", "libraries": "str"}
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
# Steps with a width and a height also take "square", which is both.
_TYPES: Final[Mapping[str, Any]] = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list}
_HEADER: Final = re.compile(r"\s*(\[\[?)\s*[\"']?([\w-]+)[\"']?\s*\]")
_KEY: Final = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*=")


class Lines:
    """Where each key of a TOML text stands. tomllib keeps no positions, and a recipe has a simple form."""

    def __init__(self, text: str, where: str) -> None:
        """Find the headers and keys of ``text``, which errors call ``where``."""
        self._where = where
        self._found: dict[tuple[str, int, str], int] = {}
        section, number = "", 0
        steps = 0
        for at, line in enumerate(text.splitlines(), 1):
            header, key = _HEADER.match(line), _KEY.match(line)
            if header is not None:
                section, number = header[2], 0
                if header[1] == "[[" and section == "step":
                    steps += 1
                    number = steps
                self._found.setdefault((section, number, ""), at)
                self._found.setdefault(("", 0, section), at)
            elif key is not None:
                self._found.setdefault((section, number, key[1]), at)

    def __call__(self, section: str = "", number: int = 0, key: str = "") -> str:
        """``where``, and the line of the key, or else of its section."""
        line = self._found.get((section, number, key)) or self._found.get((section, number, ""))
        return f"{self._where}, line {line}" if line else self._where


def read(text: str, where: str) -> tuple[str, bool, tuple[Step, ...], dict[str, Any], dict[str, Any]]:
    """Summary, exactness, steps, the output's options and the model's of a TOML text. Raises ``ConfigError``."""
    try:
        data = parse_toml(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = found[1] if found else max(1, len(text.splitlines()))
        place = f"{where}, line {line}"
        raise ConfigError(f"{place}: {error}", hint="fix the TOML syntax there") from error
    lines = Lines(text, where)
    for key in data:
        if key not in _TOP:
            raise _unknown(lines(key=key), "a recipe", key, _TOP)
    listed = data.get("step")
    if not isinstance(listed, list) or not listed or not all(isinstance(item, dict) for item in listed):
        raise ConfigError(f"{lines(key='step')}: a recipe needs steps", hint='[[step]] with do = "voi", and so on')
    steps = tuple(_step(item, number, lines) for number, item in enumerate(listed, 1))
    output = data.get("output", {})
    if not isinstance(output, dict):
        raise ConfigError(f"{lines(key='output')}: output is a section", hint='[output] with format = "png" below')
    _checked("output", output, {"format": "str", "quality": "int"}, lines, 0)
    summary, exact = data.get("summary", ""), data.get("exact", True)
    for key, value, kind in (("summary", summary, str), ("exact", exact, bool)):
        if not isinstance(value, kind):
            raise ConfigError(f"{lines(key=key)}: {key} = {value!r}", hint=f"a {_type_words(kind.__name__)}")
    _possible(steps, str(output.get("format", "png")), exact=exact, lines=lines)
    model = data.get("model", {})
    if not isinstance(model, dict):
        raise ConfigError(f"{lines(key='model')}: model is a section", hint="[model] with mean, std and crop below")
    _checked("model", model, _MODEL, lines, 0)
    return summary, exact, steps, output, model


def _step(item: Mapping[str, Any], number: int, lines: Lines) -> Step:
    options = dict(item)
    name = options.pop("do", None)
    if not isinstance(name, str):
        raise ConfigError(f"{lines('step', number)}: what does this step do?", hint=f"do = one of {', '.join(STEPS)}")
    if name not in STEPS:
        raise _unknown(lines("step", number, "do"), "a recipe", name, STEPS, "step")
    kind = STEPS[name]
    known = {f.name: str(f.type) for f in dataclasses.fields(kind)}
    if {"width", "height"} <= set(known):
        known["square"] = "int"
    _checked(name, options, known, lines, number)
    if "square" in options:
        if len({"width", "height", "shortest", "longest"} & set(options)):
            raise ConfigError(f"{lines('step', number, 'square')}: {name} takes square, or other sides, not both")
        options["width"] = options["height"] = options.pop("square")
    if name == "resize":
        sides = {"width", "height", "shortest", "longest"} & set(options)
        if sides not in ({"width", "height"}, {"shortest"}, {"longest"}):
            raise ConfigError(
                f"{lines('step', number)}: resize to which size?",
                hint="one of: shortest; longest; square; width and height",
            )
    missing = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING and f.name not in options]
    if missing:
        raise ConfigError(f"{lines('step', number)}: {name} needs {' and '.join(missing)}", hint="or square, for both")
    step: Step = kind(**options)
    return step


def _checked(section: str, options: Mapping[str, Any], known: Mapping[str, str], lines: Lines, number: int) -> None:
    for key, value in options.items():
        where = lines("step" if number else section, number, key)
        if key not in known:
            raise _unknown(where, section, key, known)
        names = [name for name in known[key].split(" | ") if name != "None"]
        if not any(_is(value, name) for name in names):
            raise ConfigError(f"{where}: {section} {key} = {value!r}", hint=f"a {_type_words(names[0])}")
        choices = _CHOICES.get((section, key))
        if choices is not None and value not in choices:
            suggestion = did_you_mean(str(value), map(str, choices))
            raise ConfigError(
                f"{where}: {section} {key} = {value!r}", hint=f"{suggestion}one of: {', '.join(map(str, choices))}"
            )
        least, most = _RANGES.get(key, (value, value))
        if key in _RANGES and not least <= value <= most:
            raise ConfigError(f"{where}: {section} {key} = {value!r}", hint=f"{least:g} to {most:g}")


def _is(value: Any, name: str) -> bool:
    # To Python True is a number; to the writer of a recipe it is a mistake.
    return isinstance(value, _TYPES[name]) and isinstance(value, bool) == (name == "bool")


def _type_words(name: str) -> str:
    return {
        "int": "whole number",
        "float": "number",
        "bool": "true or false",
        "list": "list of numbers",
        "str": "text in quotes",
    }[name]


def _unknown(where: str, owner: str, key: str, known: Iterable[str], what: str = "key") -> ConfigError:
    names = list(known)
    return ConfigError(
        f"{where}: {owner} has no {what} {key!r}", hint=f"{did_you_mean(key, names)}known: {', '.join(names) or 'none'}"
    )


def _possible(steps: Sequence[Step], form: str, *, exact: bool, lines: Lines) -> None:
    """Raise for an order of steps that would fail, or mislead, on every image."""
    bits = 8
    for number, step in enumerate(steps, 1):
        where = lines("step", number)
        first = isinstance(step, Voi | Stretch | PydicomMinMax | CxrFoundation)
        if first != (number == 1) and not (isinstance(step, Stretch) and number > 1):
            raise ConfigError(
                f"{where}: the values of the file become grey levels in the first step, and only there",
                hint='begin with do = "voi" (as DICOM says) or do = "stretch" (from minimum to maximum)',
            )
        if isinstance(step, Voi | Stretch):
            bits = step.bits
        elif isinstance(step, CxrFoundation):
            bits = 16
        elif isinstance(step, Bits):
            bits = step.to
        elif isinstance(step, Equalize | Clahe) and bits != 8:
            raise ConfigError(f"{where}: this step works on 8 bits", hint='put do = "bits", to = 8 before it')
        elif isinstance(step, Pad) and step.value >> bits:
            raise ConfigError(f"{where}: {step.value} is no value of {bits} bits", hint=f"0 to {(1 << bits) - 1}")
        elif isinstance(step, Resize) and step.filter == "area-fast" and exact:
            raise ConfigError(f"{where}: area-fast is not exact", hint="say so: exact = false at the top of the recipe")
    if bits not in FORMATS[form]:
        raise ConfigError(
            f"{lines('output', 0, 'format')}: {form} holds 8 bits, the steps give {bits}",
            hint='add a step do = "bits", to = 8; or format = "png" or "jxl"',
        )
