"""Recipes: ordered steps and an output form, read from TOML, with a fingerprint that travels in every output."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import UsageError, did_you_mean
from cxrprep.images.antialias import KERNELS
from cxrprep.images.geometry import Resize, Spacing, SquarePixels
from cxrprep.images.recipe_file import read
from cxrprep.images.resample import reduction
from cxrprep.images.transforms import STEPS, Invert, Polarity, Step, Voi
from cxrprep.storage.paths import home_path
from cxrprep.storage.small_files import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cxrprep.images.radiograph import Radiograph

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


def named_recipes() -> tuple[str, ...]:
    """The recipes inside the package."""
    folder = importlib.resources.files("cxrprep.images") / "recipes"
    return tuple(sorted(e.name.removesuffix(".toml") for e in folder.iterdir() if e.name.endswith(".toml")))


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
            raise UsageError(f"{name}: the recipe cannot be read: {error}", hint="check the path") from error
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
