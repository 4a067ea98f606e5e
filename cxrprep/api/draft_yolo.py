"""Boxes as YOLO writes them, for the draft of a dataset: a file beside each image, and in it a line for each box."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from cxrprep.events import Note, Sink
from cxrprep.images.decode import measure
from cxrprep.storage.small_files import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


_HEADER: Final = ("class", "x", "y", "w", "h", "score")
# The names of classes: under this key of a YAML file, up to the next key; or a line each in a file of this name.
_IN_YAML: Final = re.compile(r"(?ms)^names:(.*?)(?=^\w|\Z)")
_A_NAME: Final = re.compile(r"""(?:(\d+)\s*:|[-\[,])\s*(?:'([^']+)'|"([^"]+)"|([^\s,\]}#'"][^,\]}#\n]*))""")
_LISTS: Final = re.compile(r"(^|/)(classes\.txt|[^/]+\.names|_darknet\.labels)$")


@dataclass(frozen=True, slots=True)
class YoloBoxes:
    """Where the files are, as a pattern and with the group ``id``, the columns of their lines, and what a class is.

    ``size`` is (height, width) of all images, in pixels; ``None`` where they differ.
    """

    pattern: str
    groups: str
    header: tuple[str, ...]
    classes: dict[str, str]
    size: tuple[int, int] | None


def read_boxes(
    root: Path, keys: Sequence[str], beside: Mapping[str, str], inside: str, on_event: Sink
) -> YoloBoxes | None:
    """The boxes that text files beside images hold.

    Args:
        root: The folder.
        keys: All files in it.
        beside: The image of each text file that has the name of one.
        inside: The pattern of an image's id.
        on_event: Called with why they are not read, where their lines are numbers of another form.

    Returns:
        What they are, or ``None`` where they are no such files.
    """
    try:
        lines = [line.split() for key in beside for line in read_text(root / key).splitlines() if line.strip()]
        numbers = [float(word) for line in lines for word in line[1:]]
        classes = sorted({int(line[0]) for line in lines})
    except (OSError, ValueError):
        return None
    if not lines:
        return None
    folders = [key.split("/")[:-1] for key in beside]
    parts = [words.pop() if len(words := {*those}) == 1 else "*" for those in zip(*folders, strict=False)]
    pattern = "/".join([*parts, "*.txt"])
    others = [key for key in keys if key.count("/") == len(parts) and fnmatchcase(key, pattern) and key not in beside]
    if others and all(map(_has_digit, beside)) and not any(map(_has_digit, others)):
        # A list of classes lies there too.
        inside, others = f"{inside.removesuffix('+')}*\\d[^/]*", []
    widths = {len(line) for line in lines}
    wrong = ""
    if widths not in ({5}, {6}) or min(numbers) < 0 or max(numbers) > 1:
        wrong = "a line of YOLO is a class, then x, y, w, h as parts of the image, and maybe a score"
    elif len({*map(len, folders)}) > 1:
        wrong = "some lie further down than others"
    elif others:
        wrong = f"no pattern tells them from {others[0]}"
    if wrong:
        on_event(Note("datasets", f"not read: {next(iter(beside))} and {len(beside) - 1:,} more: {wrong}", "warning"))
        return None
    named = _names_of_classes(root, keys)
    sizes = {one and (one[1], one[0]) for one in measure([root / image for image in beside.values()])}
    return YoloBoxes(
        pattern,
        rf"(?:^|/)(?P<id>{inside})\.txt$",
        _HEADER[: widths.pop()],
        {str(number): named.get(str(number), f"class {number}") for number in classes},
        sizes.pop() if len(sizes) == 1 else None,
    )


def _has_digit(key: str) -> bool:
    return re.search(r"\d", key.rpartition("/")[2]) is not None


def _names_of_classes(root: Path, keys: Sequence[str]) -> dict[str, str]:
    """What each number of a class means, by the first file that says it."""
    for key in keys:
        with contextlib.suppress(OSError, ValueError):
            if key.endswith((".yaml", ".yml")) and (found := _IN_YAML.search(read_text(root / key))):
                names = [(number, "".join(words).strip()) for number, *words in _A_NAME.findall(found[1])]
                return {number or str(place): name for place, (number, name) in enumerate(names)}
            if _LISTS.search(key):
                return {str(place): line.strip() for place, line in enumerate(read_text(root / key).splitlines())}
    return {}
