"""The verbs that hand the manifest over: ``load`` to Python, ``export`` to the tools of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrprep.api.result import Result
from cxrprep.events import ignore
from cxrprep.model import Selection
from cxrprep.selection.id_lists import selected
from cxrprep.storage.paths import local_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cxrprep.events import Sink
    from cxrprep.labels.splits import SplitRule
    from cxrprep.manifest.export.run import ExportResult
    from cxrprep.manifest.load import Dataset


def load(
    root: Path | str,
    *,
    state: Path | str | None = None,
    label_source: str | None = None,
    uncertain: str = "keep",
    blank: str = "null",
    derive: bool = False,
    per: Mapping[str, Mapping[str, str] | str] | None = None,
    observations: str | Iterable[str] | None = None,
    split: str | None = None,
    split_by: SplitRule | None = None,
    text: str | Iterable[str] = (),
    pairs: Path | str | None = None,
    paired: bool = False,
    selection: Selection | Mapping[str, Any] = Selection(),  # noqa: B008  # frozen
    on_event: Sink = ignore,
    **words: Any,
) -> Dataset:
    """The images of ROOT, or of ``derived/RECIPE`` below one, with ``to_pandas``, ``to_arrow``, ``torch`` and ``hf``.

    ``uncertain`` is keep, ones, zeros or ignore, ``blank`` null or zeros; ``per`` says so for single observations
    (``{"Edema": "ones"}``); ``derive`` fills parents from children. ``observations`` is a preset's name
    (``chexpert-competition``) or a list of names. ``label_source`` takes the labels of another source of
    ``labels.parquet``. ``split_by`` divides the patients anew, ``selection`` leaves images out, ``split`` takes one
    split; ``words`` select as the command's options do (``view="frontal"``, ``limit=100``).

    ``text`` names sections of the reports that go along (``findings,impression``), out of the table ``pairs``, by
    default the one that ``cxrprep.pairs`` wrote for this folder or for the one it was made from; with ``paired`` only
    images whose study has one of them are taken. Report text is under the agreement of its release.

    Raises ``UsageError`` for a folder without a manifest and for a word that names nothing, ``TableError`` for a
    damaged manifest.
    """
    from cxrprep.labels.policy import Policy
    from cxrprep.manifest.load import load as open_manifest

    dataset = open_manifest(
        root,
        manifests=None if state is None else Path(state) / "manifests",
        label_source=label_source,
        policy=Policy.parse(uncertain=uncertain, blank=blank, derive=derive, per=per),
        split=split_by,
        selection=selected(selection, words),
        observations=observations,
        text=text,
        pairs=None if pairs is None else Path(pairs),
        paired=paired,
        on_event=on_event,
    )
    return dataset if split is None else dataset.split(split)


def export(
    root: Path | str,
    *,
    form: str,
    out: Path | str | None = None,
    state: Path | str | None = None,
    label_source: str | None = None,
    uncertain: str = "keep",
    blank: str = "null",
    derive: bool = False,
    per: Mapping[str, Mapping[str, str] | str] | None = None,
    observations: str | Iterable[str] | None = None,
    split_by: SplitRule | None = None,
    text: str | Iterable[str] = (),
    pairs: Path | str | None = None,
    paired: bool = False,
    selection: Selection | Mapping[str, Any] = Selection(),  # noqa: B008  # frozen
    on_event: Sink = ignore,
    **words: Any,
) -> Result[ExportResult]:
    """What was written in the ``form`` csv, coco, webdataset, hf or original; the other arguments as in ``load``.

    ``out`` is a folder, by default ``ROOT/export/FORM``; csv and coco also take a file. Raises as ``load``, and
    ``NothingSelectedError`` when no image is left, ``StorageError`` when the disk refuses.
    """
    if out is not None:
        local_path(out, "--out")
    from cxrprep.collection.lineage import IMAGES_NAME
    from cxrprep.digests import file_digest
    from cxrprep.manifest.export.run import Options
    from cxrprep.manifest.export.run import export as write
    from cxrprep.manifest.set_digest import PIXELS_NAME
    from cxrprep.record import CACHE_NAME

    dataset = load(
        root,
        state=state,
        label_source=label_source,
        uncertain=uncertain,
        blank=blank,
        derive=derive,
        per=per,
        observations=observations,
        split_by=split_by,
        text=text,
        pairs=pairs,
        paired=paired,
        selection=selected(selection, words),
        on_event=on_event,
    )
    home = Path(root) if state is None else Path(state)
    target = home / "export" / form if out is None else Path(out)
    images = home / "manifests" / IMAGES_NAME
    options = Options(cache=home / CACHE_NAME / PIXELS_NAME, parent={"images": file_digest(images, "sha256")})
    made = write(dataset, form, target, options=options, on_event=on_event)
    rows = [
        ("form", form),
        ("images", made.images),
        *((f"left out, {why}", count) for why, count in made.left_out),
        ("files", len(made.files)),
        ("written", str(made.out)),
    ]
    return Result("export", made, rows=tuple(rows))
