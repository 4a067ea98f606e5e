"""Preview of a recipe: original and converted image side by side, on one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.convert_inputs import open_inputs
from cxrprep.api.keywords import Keywords, shard_of
from cxrprep.api.result import Result
from cxrprep.events import Advanced, Sink, StageStarted, ignore
from cxrprep.images.local_files import is_url
from cxrprep.images.radiograph import DEFAULT_LIMITS, ImageLimits
from cxrprep.model import FolderRef, Selection, Shard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cxrprep.html_report.preview import PreviewResult

EXAMPLES: Final = 5


@takes_buckets(root="dataset-folder", state="written-folder", tables="read-folder", out="written-folder")
def preview(
    root: Path | str | FolderRef,
    *,
    recipe: str,
    count: int = 12,
    out: Path | str | None = None,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    selection: Selection | Mapping[str, Any] = Selection(),  # noqa: B008  # frozen
    shard: Shard | str | None = None,
    frame: int | None = None,
    limits: ImageLimits | None = None,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[PreviewResult]:
    """Write a contact sheet: stored values, the header's intent, and the result, side by side. Nothing else is written.

    Args:
        root: The folder, or an address.
        recipe: A name, or a TOML file.
        count: How many images, drawn by a hash of their names.
        out: Below it goes ``preview.html``; by default where the conversion would put its images.
        dataset: The dataset's name, where the folder does not say it.
        release: The release, where it is not the one that the folder shows.
        state: Where record and manifests are when they are not below ROOT.
        tables: A folder with the label tables, where ROOT has none.
        selection: Which images are drawn from.
        shard: The part of a job array.
        frame: Of a file with several frames, the one that is taken, from 1; without it such a file is refused.
        limits: Pixels, bytes and seconds beyond which an image is refused.
        on_event: Called with remarks.
        **words: Select as the command's options do: ``split="train"``, ``limit=100``.

    Returns:
        Where the sheet is, and what was seen.

    Raises:
        UsageError: An unknown recipe or folder.
        NothingSelectedError: Nothing is left.
        StorageError: The disk refuses.

    Examples:
        >>> import cxrprep
        >>> sheet = cxrprep.preview("nih", recipe="square-224", count=2).value
        >>> sheet.images, sheet.path.name
        (2, 'preview.html')
    """
    from cxrprep.api.convert_target import target_of
    from cxrprep.html_report.preview import write_preview
    from cxrprep.html_report.thumbnails import sample_rows
    from cxrprep.images.preview import preview_image
    from cxrprep.images.recipe import load_recipe

    keywords = Keywords(words, count=count, frame=frame)
    selection, shard, limits = keywords.selection(selection), shard_of(shard), keywords.limits(limits)
    keywords.finish()
    chosen = load_recipe(recipe, frame=frame)
    inputs = open_inputs(
        FolderRef.of(root, dataset=dataset, release=release, state=state, tables=tables),
        selection=selection, shard=shard,
        without=out, on_event=on_event,
    )  # fmt: skip
    place = Path(f"preview-{chosen.name}.html")
    if not is_url(str(out)) and (out is not None or inputs.folder is not None):
        place = Path(str(target_of(inputs, chosen, out))) / "preview.html"
    names = [item.relative for item in inputs.items()]
    by_name = sorted(range(len(names)), key=names.__getitem__)
    drawn = {by_name[row] for row in sample_rows(len(names), count)}
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
        *(("look at", f"{name}: {text}") for name, text in made.warnings[:EXAMPLES]),
        ("open", str(made.path.resolve())),
    ]
    return Result("preview", made, rows=tuple(rows))
