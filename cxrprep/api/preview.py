"""Preview of a recipe: original and converted image side by side, on one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.api.convert_inputs import open_inputs
from cxrprep.api.result import Result
from cxrprep.events import Advanced, StageStarted, ignore
from cxrprep.model import Selection

if TYPE_CHECKING:
    from cxrprep.events import Sink
    from cxrprep.html_report.preview import PreviewResult
    from cxrprep.images.radiograph import Limits
    from cxrprep.model import Shard

_EXAMPLES: Final = 5


def preview(
    root: Path | str,
    *,
    recipe: str,
    count: int,
    out: Path | str | None = None,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    selection: Selection = Selection(),  # noqa: B008  # frozen
    shard: Shard | None = None,
    limits: Limits | None = None,
    on_event: Sink = ignore,
) -> Result[PreviewResult]:
    """A contact sheet of ``count`` images: stored values, the header's intent, and the result, side by side.

    It goes to ``preview.html`` below ``out`` (by default where the conversion would put its images). Nothing else is
    written. Raises ``UsageError`` and ``NothingSelectedError`` as ``convert`` does.
    """
    from cxrprep.api.convert import target_of
    from cxrprep.html_report.preview import write_preview
    from cxrprep.html_report.thumbnails import draw
    from cxrprep.images.local_files import is_url
    from cxrprep.images.preview import preview_image
    from cxrprep.images.radiograph import DEFAULT_LIMITS
    from cxrprep.images.recipe import load_recipe

    chosen = load_recipe(recipe)
    inputs = open_inputs(
        root, dataset=dataset, release=release, state=state, tables=tables, selection=selection, shard=shard,
        without=out, on_event=on_event,
    )  # fmt: skip
    place = Path(f"preview-{chosen.name}.html")
    if not is_url(str(out)) and (out is not None or inputs.folder is not None):
        place = Path(str(target_of(inputs, chosen, out))) / "preview.html"
    drawn = set(draw([item.relative for item in inputs.items()], count))
    on_event(StageStarted("preview", items=len(drawn), unit="images"))
    seen = []
    for index, item in enumerate(inputs.items()):
        if index in drawn:
            seen.append(preview_image(item, chosen, limits or DEFAULT_LIMITS))
            on_event(Advanced("preview", items=1))
    seen.sort(key=lambda one: one.name)
    made = write_preview(seen, chosen, place, title=Path(inputs.address).name or inputs.address)
    rows = [
        ("images", made.images),
        *((("cannot be converted", made.unreadable),) if made.unreadable else ()),
        *(("look at", f"{name}: {text}") for name, text in made.warnings[:_EXAMPLES]),
        ("open", str(made.path.resolve())),
    ]
    return Result("preview", made, rows=tuple(rows))
