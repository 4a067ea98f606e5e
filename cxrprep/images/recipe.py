"""Recipes: ordered steps and an output form, read from TOML, with a fingerprint that travels in every output.

What cannot work is refused before the first image: steps on the words of the file that come too late, 8-bit steps on
16 bits, an output form that cannot hold the bits, speed that is not declared.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cxrprep.config.job import named_recipes
from cxrprep.config.toml import TomlText, unknown_key
from cxrprep.errors import UsageError, did_you_mean
from cxrprep.images.antialias import KERNELS
from cxrprep.images.geometry import Pad, Resize, Spacing, SquarePixels
from cxrprep.images.resample import FILTERS, reduction
from cxrprep.images.transforms import (
    STEPS,
    Bits,
    Clahe,
    CxrFoundation,
    Equalize,
    Invert,
    Polarity,
    PydicomMinMax,
    Step,
    Stretch,
    Voi,
)
from cxrprep.storage.paths import home_path
from cxrprep.storage.small_files import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cxrprep.images.radiograph import Radiograph


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


# Part of every fingerprint: raised when a step starts to give other pixels than before.
GENERATION: Final = 1
# What ``--fix`` mends, and another word for it.
FIXES: Final = ("inverted", "mirrored", "rotated")
_FIX_WORDS: Final = {"turned": "rotated"}
_SQUARE: Final = 0.01
_SUFFIXES: Final = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "jxl": ".jxl"}


@dataclass(frozen=True, slots=True)
class OutputForm:
    """How outputs are written: ``format`` png, jpeg, webp (lossless) or jxl (lossless); ``quality`` is JPEG's."""

    format: str = "png"
    quality: int = 95

    @property
    def suffix(self) -> str:
        """The file name suffix, with its dot."""
        return _SUFFIXES[self.format]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What happens to every image. ``exact`` is false for variants that trade a stated error for speed.

    ``model`` is what a model does with the image afterwards, for its loader: mean, std, crop, and where that is said.
    ``frame`` (from 1) is taken of files with several, which are refused without it. ``fix`` names what is mended where
    the pixels show it (``FIXES``); nothing is, unless somebody asked.
    """

    name: str
    summary: str
    steps: tuple[Step, ...]
    output: OutputForm
    exact: bool = True
    model: Mapping[str, Any] = field(default_factory=dict)
    frame: int | None = None
    fix: tuple[str, ...] = ()

    def __call__(self, picture: Radiograph) -> Radiograph:
        """The picture after all steps."""
        source = picture
        for step in self.steps:
            picture = step(picture)
        if abs(source.aspect - 1.0) > _SQUARE and not any(isinstance(s, SquarePixels | Spacing) for s in self.steps):
            picture.notes.append("the pixels of the file are not square: the step square-pixels makes them so")
        return picture.settled()

    def reduction(self, width: int, height: int) -> int:
        """How many times smaller (1, 2, 4 or 8) an image of display values may be decoded for this recipe.

        More than 1 only where the recipe says that it trades exactness for speed, and no step needs all pixels first.
        """
        for step in self.steps:
            if isinstance(step, Resize) and step.filter == "area-fast":
                return reduction(width, height, step.target)
            if not isinstance(step, Voi | Polarity | Invert) or (isinstance(step, Voi) and step.source == "minmax"):
                break
        return 1

    def describe(self) -> dict[str, Any]:
        """The recipe as JSON values: what the fingerprint is taken of."""
        return {
            "generation": GENERATION,
            "steps": [{"do": _NAMES[type(step)], **_options(step)} for step in self.steps],
            "output": dataclasses.asdict(self.output),
            **({"frame": self.frame} if self.frame is not None else {}),
            **({"fix": list(self.fix)} if self.fix else {}),
        }

    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when the outputs could."""
        text = json.dumps(self.describe(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _options(step: Any) -> dict[str, Any]:
    """The options of a step as the fingerprint knows them.

    What came later counts where it is used alone, so that older recipes keep their fingerprints; the kernels that
    became anti-aliased give other pixels than before, and say so.
    """
    found = {
        f.name: getattr(step, f.name)
        for f in dataclasses.fields(step)
        if not f.metadata.get("later") or getattr(step, f.name) != f.default
    }
    return found | ({"kernel": "pillow"} if found.get("filter") in KERNELS else {})


_NAMES: Final = {kind: name for name, kind in STEPS.items()}


def load_recipe(name: str, *, frame: int | None = None, fix: Iterable[str] = ()) -> Recipe:
    """The recipe called ``name``, or the one in the TOML file at that path; of files with several frames, ``frame``.

    ``fix`` are of ``FIXES``. Raises ``UsageError`` for an unknown name, with the nearest one; ``ConfigError`` for a
    file that is wrong.
    """
    wanted = tuple(sorted({_FIX_WORDS.get(word, word) for word in fix}))
    if unknown := [word for word in wanted if word not in FIXES]:
        raise UsageError(f"{unknown[0]!r} is not something that can be fixed", hint=f"known: {', '.join(FIXES)}")
    text, where, stem = _recipe_text(name)
    return dataclasses.replace(parse_recipe(text, where, stem), frame=frame, fix=wanted)


def _recipe_text(name: str) -> tuple[str, str, str]:
    """The TOML of a recipe, where it stands for errors, and what it is called."""
    if name.endswith(".toml") or "/" in name:
        path = home_path(name)
        try:
            return read_text(path), str(path), path.stem
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", error)
            raise UsageError(f"cannot read the recipe {name}: {reason}", hint="check the path") from error
    known = named_recipes()
    if name not in known:
        suggestion = did_you_mean(name, known)
        raise UsageError(f"unknown recipe {name!r}", hint=f"{suggestion}recipes: {', '.join(known)}; or a .toml file")
    file = importlib.resources.files("cxrprep.images") / "recipes" / f"{name}.toml"
    return file.read_text(encoding="utf-8"), f"{name}.toml", name


def parse_recipe(text: str, where: str, name: str) -> Recipe:
    """The recipe that a TOML text describes. Raises ``ConfigError`` that begins with ``where`` and the line."""
    summary, exact, steps, output, model = read(text, where)
    return Recipe(name, summary, steps, OutputForm(**output), exact, model)
