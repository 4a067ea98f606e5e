"""The verbs that hand the manifest over: ``load`` to Python, ``export`` to the tools of others."""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.keywords import Keywords
from cxrprep.api.result import Result
from cxrprep.api.running import notes_progress
from cxrprep.collection.dataset_folder import check_dataset
from cxrprep.collection.lineage import IMAGES_NAME
from cxrprep.collection.state_folder import check_state
from cxrprep.errors import UsageError
from cxrprep.events import Sink, ignore
from cxrprep.labels.policy import Policy
from cxrprep.manifest.combined import combined
from cxrprep.manifest.load import Dataset
from cxrprep.manifest.load import load as open_manifest
from cxrprep.model import FolderRef, Selection
from cxrprep.storage.parquet import check_as_written
from cxrprep.storage.paths import CACHE_NAME, local_path
from cxrprep.storage.working_copy_paths import address_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cxrprep.executors import Engine
    from cxrprep.labels.splits import SplitRule
    from cxrprep.manifest.export.run import ExportResult


@takes_buckets(root="read-folder", state="read-folder", pairs="read-file")
def load(
    root: Path | str | FolderRef | Dataset | Sequence[Path | str | Dataset],
    *,
    dataset: str | None = None,
    state: Path | str | None = None,
    label_source: str | None = None,
    uncertain: str = "keep",
    blank: str = "null",
    derive: bool = False,
    per: Mapping[str, Mapping[str, str] | str] | None = None,
    observations: str | Iterable[str] | None = None,
    split: str | Iterable[str] | None = None,
    split_by: SplitRule | str | None = None,
    text: str | Iterable[str] = (),
    pairs: Path | str | None = None,
    paired: bool = False,
    selection: Selection | Mapping[str, Any] = Selection(),  # noqa: B008  # frozen
    on_event: Sink = ignore,
    **words: Any,
) -> Dataset:
    """The images of ROOT, or of ``derived/RECIPE`` below one, with ``to_pandas``, ``to_arrow``, ``torch`` and ``hf``.

    Args:
        root: A folder with a manifest; or several, as one data set: a finding that one does not have is null in its
            rows. What was loaded already, with options of its own, may stand among them.
        dataset: What it has to hold, where somebody wants to be sure.
        state: Where the manifest is when it is not below ROOT.
        label_source: Take the labels of another source of ``labels.parquet``.
        uncertain: ``keep``, ``ones``, ``zeros`` or ``ignore``.
        blank: ``null`` or ``zeros``.
        derive: Fill parents from children.
        per: The same for single observations: ``{"Edema": "ones"}``.
        observations: A preset's name (``chexpert-competition``) or a list of names.
        split: Take one split, or several.
        split_by: Divide the patients anew, or into folds: a ``SplitRule``, or ``"patient"`` beside the keywords
            ``fractions``, ``split_seed``, ``split_within``, ``stratify`` and ``folds``.
        text: Sections of the reports that go along (``findings,impression``). Report text is under the agreement of
            its release.
        pairs: The table that holds them; by default the one that ``cxrprep.pairs`` wrote for this folder, or for the
            one it was made from.
        paired: Only images whose report has one of these sections.
        selection: Leave images out.
        on_event: Called with remarks.
        **words: Select and divide as the command's options do (``view="frontal"``, ``limit=100``, ``folds=5``).

    Returns:
        The data set; its files are read when they are asked for. Tables that were altered are read with a
        ``UserWarning``.

    Raises:
        UsageError: A folder without a manifest, a word that names nothing, or an image that is in two of the folders.
        TableError: A damaged manifest.

    Examples:
        >>> import cxrprep
        >>> dataset = cxrprep.load("nih/derived/square-224", uncertain="ignore", split="test")
        >>> len(dataset), dataset.splits
        (1, ('test',))
        >>> frame = dataset.to_pandas()
    """
    keywords = Keywords(words)
    wanted, rule = keywords.selection(selection), keywords.split_rule(split_by, "split_seed")
    keywords.finish()
    # A verb names a folder so: it works through its images part by part, and hands nothing on of an altered table.
    held, altered = not isinstance(root, FolderRef), list[str]()
    if isinstance(root, FolderRef):
        where = FolderRef.of(root, dataset=dataset, state=state)
        dataset, state, root = where.dataset, where.state, where.path
    several = not isinstance(root, (Path, str, Dataset))
    if several and (state is not None or pairs is not None):
        raise UsageError(
            "state and pairs are of one folder", hint="load each folder with its own, and then all: load([one, other])"
        )
    roots = root if not isinstance(root, (Path, str, Dataset)) else (root,)
    for one in roots:
        if not isinstance(one, Dataset):
            check_state(Path(one), Path(state or one))
    parts = [
        one
        if isinstance(one, Dataset)
        else open_manifest(
            one,
            manifests=None if state is None else Path(state) / "manifests",
            label_source=label_source,
            policy=Policy.parse(uncertain=uncertain, blank=blank, derive=derive, per=per),
            split=rule,
            selection=replace(wanted, limit=None, sample=None) if several else wanted,
            observations=None if several else observations,
            text=text,
            pairs=None if pairs is None else Path(pairs),
            paired=paired,
            held=held,
            check=functools.partial(check_as_written, warn=altered.append if held else None),
            on_event=on_event,
        )
        for one in roots
    ]
    if not parts:
        raise UsageError("no folder is named", hint="name a folder with a manifest, or several")
    for what in altered:
        warnings.warn(what, stacklevel=3)
    for part in parts:
        check_dataset(part.root, dataset, part.name)
    whole = combined(parts, selection=wanted, observations=observations) if several else parts[0]
    if split is None:
        return whole
    return whole.split(*(split.split(",") if isinstance(split, str) else split))


@takes_buckets(root="written-folder", state="written-folder", out="written", pairs="read-file")
@notes_progress("export")
def export(
    root: Path | str | FolderRef,
    *,
    form: str = "",
    out: Path | str | None = None,
    dataset: str | None = None,
    state: Path | str | None = None,
    label_source: str | None = None,
    uncertain: str = "keep",
    blank: str = "null",
    derive: bool = False,
    per: Mapping[str, Mapping[str, str] | str] | None = None,
    observations: str | Iterable[str] | None = None,
    split_by: SplitRule | str | None = None,
    text: str | Iterable[str] = (),
    pairs: Path | str | None = None,
    paired: bool = False,
    selection: Selection | Mapping[str, Any] = Selection(),  # noqa: B008  # frozen
    engine: Engine | str | None = None,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[ExportResult]:
    """Write the images of ROOT in a form that other tools open, with a card.

    Args:
        root: A folder with a manifest.
        form: ``csv``, ``coco``, ``webdataset``, ``hf`` or ``original``; ``format``, as the command has it, is the same.
        out: A folder, by default ``ROOT/export/FORM``; csv and coco also take a file.
        dataset: As in ``load``.
        state: Where the manifest is when it is not below ROOT.
        label_source: As in ``load``.
        uncertain: As in ``load``.
        blank: As in ``load``.
        derive: As in ``load``.
        per: As in ``load``.
        observations: As in ``load``.
        split_by: As in ``load``.
        text: As in ``load``; coco and original have no place for it.
        pairs: As in ``load``.
        paired: As in ``load``.
        selection: As in ``load``.
        engine: Where the shards of webdataset and hf are made; by default, and in other forms, in this process.
        on_event: Called with progress and remarks.
        **words: As in ``load``; ``jobs`` and ``scheduler`` of the engine.

    Returns:
        The files that were written, and the images in them.

    Raises:
        UsageError: As ``load``; or ``out`` holds what no export wrote.
        TableError: A damaged manifest.
        NothingSelectedError: No image is left.
        StorageError: The disk refuses.

    Examples:
        >>> import cxrprep
        >>> exported = cxrprep.export("nih", form="csv", uncertain="ones").value
        >>> exported.images, exported.out.as_posix()
        (5, 'nih/export/csv')
    """
    keywords = Keywords(words)
    form = form or str(keywords.take("format").get("format", ""))
    wanted, rule = keywords.selection(selection), keywords.split_rule(split_by, "split_seed")
    engine = keywords.engine(engine)
    keywords.finish()
    if out is not None:
        local_path(out, "--out")
    from cxrprep.manifest.export.run import WITH_IMAGES, ExportOptions
    from cxrprep.manifest.export.run import export as write
    from cxrprep.manifest.set_digest import PIXELS_NAME

    where = FolderRef.of(root, dataset=dataset, state=state)
    held = load(
        where,
        label_source=label_source,
        uncertain=uncertain,
        blank=blank,
        derive=derive,
        per=per,
        observations=observations,
        split_by=rule,
        text=text,
        pairs=pairs,
        paired=paired,
        selection=wanted,
        on_event=on_event,
    )
    home = where.home
    target = home / "export" / form if out is None else Path(out)
    images = home / "manifests" / IMAGES_NAME
    parent = {"images": check_as_written(images)}
    if engine is not None and engine.name == "dask" and form in WITH_IMAGES:
        target.mkdir(parents=True, exist_ok=True)
        engine = engine.needing(
            [path for path in (str(held.root.resolve()), str(target.resolve())) if not address_of(path)]
        )
    cache = home / CACHE_NAME / PIXELS_NAME
    options = ExportOptions(cache=cache, parent=parent, manifest=images, engine=engine)
    made = write(held, form, target, options=options, on_event=on_event)
    rows = [
        ("form", form),
        ("images", made.images),
        *((f"left out, {why}", count) for why, count in made.left_out),
        ("files", len(made.files)),
        ("written", str(made.out)),
    ]
    return Result("export", made, rows=tuple(rows))
