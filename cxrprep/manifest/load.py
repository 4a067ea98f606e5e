"""A folder's manifest as an object: Arrow, pandas, a torch data set, a Hugging Face data set, the policy applied."""

from __future__ import annotations

import dataclasses
import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.collection.dataset_folder import require_image_table
from cxrprep.errors import MissingExtraError, NothingSelectedError, TableError, UsageError
from cxrprep.events import Sink, ignore
from cxrprep.labels.extract import LABELS_NAME
from cxrprep.labels.policy import KEEP, Policy, with_parents
from cxrprep.labels.source_vocabulary import (
    box_categories,
    chosen_observations,
    knowledge_of,
    known_observations,
    ordered,
)
from cxrprep.manifest.image_reader import ImageReader
from cxrprep.manifest.label_join import stated_sources
from cxrprep.manifest.region_masks import masks_beside, region_lists, regions_on
from cxrprep.manifest.relabel import relabelled_images
from cxrprep.manifest.report_texts import PREFIX, find_pairs, sections_of, with_texts
from cxrprep.model import Selection, Split
from cxrprep.selection.table_filters import asked_columns, drawn_rows, undrawn_rows, wanted_rows
from cxrprep.storage.parquet import CONVERT_AGAIN, check_as_written, footer_of, read_footer
from cxrprep.storage.paths import is_in_shard, local_path
from cxrprep.storage.table_on_disk import TableOnDisk
from cxrprep.storage.unfetched import unfetched
from cxrprep.vocabulary import published_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cxrprep.labels.splits import SplitRule
    from cxrprep.manifest.torch_dataset import Images

_MANIFEST: Final = Path("manifests") / "images.parquet"


# Images that are turned into Python objects at once.
_ROWS: Final = 1024
# Images that are worked on at once where all are handed over.
_PART: Final = 1 << 14


@dataclass(frozen=True, repr=False)
class Dataset:
    """The images of a folder. ``root`` is what their paths are relative to; ``stated`` their labels before the policy.

    To verbs that work through the images part by part ``stated`` is a ``TableOnDisk``.

    ``observations`` are the stems of the labels that ``torch``, ``hf`` and exports contain. ``made_from`` is the
    footer of the manifest: dataset, release, tables, recipe. ``box_categories`` are the names that boxes may have;
    ``made_at_ns`` is when the manifest was written. ``texts`` are the sections of reports that go along, as columns
    ``text_<section>`` of ``stated``; none unless they were asked for. ``masks`` are the tables of the regions that
    releases draw; none for most.
    """

    root: Path
    stated: pa.Table
    policy: Policy = KEEP
    observations: tuple[str, ...] = ()
    made_from: dict[str, Any] = dataclasses.field(default_factory=dict)
    box_categories: tuple[str, ...] = ()
    made_at_ns: int | None = None
    texts: tuple[str, ...] = ()
    masks: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        """One line: what it is of, how many images and which splits; the tables themselves would fill the screen."""
        words = (self.made_from.get(key) for key in ("dataset", "release", "recipe"))
        about = " ".join(str(word) for word in words if word)
        splits = f", splits {', '.join(self.splits)}" if self.splits else ""
        return f"<Dataset {about}: {len(self):,} images{splits}, {len(self.observations)} observations, {self.root}>"

    def __len__(self) -> int:
        """The number of images."""
        return int(self.stated.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The images one by one, as ``dataset[0]`` gives them."""
        for start in range(0, len(self), _ROWS):
            part = self.rows(start, _ROWS)
            rows = zip(part.stated.to_pylist(), part.labels().to_pylist(), part.mask().to_pylist(), strict=True)
            for stated, labels, mask in rows:
                about = {k: v for k, v in stated.items() if not k.startswith("label_") or k == "label_source"}
                yield {**about, "labels": labels, "mask": mask}

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Dataset: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | Dataset:
        """One image: its columns, with ``labels`` and ``mask`` by observation; of a slice a part of the data set."""
        if isinstance(place, slice):
            return self.select(range(*place.indices(len(self))))
        index = place + len(self) if place < 0 else place
        if not 0 <= index < len(self):
            raise IndexError(f"no image {place}: there are {len(self)}")
        return next(iter(self.select([index])))

    def parts(self) -> Iterator[Dataset]:
        """The same images some thousands at a time, in their order."""
        starts = range(0, len(self), _PART)
        return (self.rows(start, _PART) for start in starts)

    def rows(self, start: int, count: int) -> Dataset:
        """``count`` of the images from one place on, fewer at the end."""
        return dataclasses.replace(self, stated=self.stated.slice(start, count))

    def select(self, places: Iterable[int]) -> Dataset:
        """The images at these places, in their order."""
        return dataclasses.replace(self, stated=self.stated.take(pa.array(places, pa.int64())))

    def _repr_html_(self) -> str:
        """The same in a few lines, for notebooks."""
        counts = "".join(f"<tr><td>{name}</td><td>{len(self.split(name)):,}</td></tr>" for name in self.splits)
        names = ", ".join(published_name(stem) for stem in self.observations)
        head = html.escape(repr(self))
        return f"<p>{head}</p><table><tr><th>split</th><th>images</th></tr>{counts}</table><p>{html.escape(names)}</p>"

    def require_images(self) -> None:
        """Raise ``NothingSelectedError`` where there is no image: a folder may hold those alone that were converted."""
        if not len(self):
            made = sorted(self.root.glob(f"derived/*/{_MANIFEST}"))
            other = f"name the folder of its converted images: {made[0].parents[1]}" if made else "build the manifest"
            raise NothingSelectedError("there is no image", hint=f"use fewer conditions in the selection, or {other}")

    @property
    def name(self) -> str:
        """The dataset's name in the catalog."""
        return str(self.made_from.get("dataset", ""))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have images, in their usual order; an image without one is in none."""
        there = set(pc.unique(self.stated.column("split").cast(pa.string())).to_pylist())
        return tuple(str(split) for split in (*Split,) if split in there)

    def split(self, *names: str) -> Dataset:
        """The images of a split, or of several; ``valid`` is understood.

        Raises ``UsageError`` for a word that names none here.
        """
        here = f"splits here: {', '.join(self.splits) or 'none'}"
        wanted = []
        for name in names:
            try:
                wanted.append(str(Split.parse(name.strip())))
            except ValueError as error:
                raise UsageError(f"unknown split {name!r}", hint=here) from error
            if wanted[-1] not in self.splits:
                raise UsageError(f"no image here is in the split {wanted[-1]}", hint=here)
        return self.filter(pc.is_in(self.stated.column("split").cast(pa.string()), pa.array(wanted, pa.string())))

    @property
    def folds(self) -> int:
        """How many folds the patients are divided into, by the rule in the manifest or in ``split_by``; 0: none."""
        return int((self.made_from.get("split") or {}).get("folds", 0))

    @property
    def split_columns(self) -> tuple[str, ...]:
        """What a split of one's own says beside ``split``: the release's, and the fold where there are folds."""
        rule = self.made_from.get("split") or {}
        asked = (("release_split", bool(rule.get("fractions"))), ("fold", self.folds > 0))
        return tuple(name for name, wanted in asked if wanted and name in self.stated.column_names)

    def fold(self, number: int) -> tuple[Dataset, Dataset]:
        """The images of the other folds, to train on, and those of this one (from 0). Images in no fold are in neither.

        Raises ``UsageError`` where there is no such fold.
        """
        if not 0 <= number < self.folds:
            hint = f"folds here: 0 to {self.folds - 1}" if self.folds else "make them: cxrprep manifest ROOT --folds 5"
            raise UsageError(f"there is no fold {number}", hint=hint)
        held_out = pc.equal(self.stated.column("fold"), number)
        return self.filter(pc.invert(held_out)), self.filter(held_out)

    def filter(self, mask: Any) -> Dataset:
        """The images where ``mask`` (an Arrow Boolean array, in the order of ``to_arrow()``) is true."""
        return dataclasses.replace(self, stated=self.stated.filter(mask))

    def to_arrow(self) -> pa.Table:
        """The manifest's table with the policy applied to its labels."""
        return self.policy.apply(self.stated.select(self.stated.column_names))

    def to_pandas(self) -> Any:
        """The same as a data frame: labels as ``Int8`` with missing values, categories as categories."""
        import pandas as pd

        kinds = {
            pa.int8(): pd.Int8Dtype(),
            pa.int16(): pd.Int16Dtype(),
            pa.int32(): pd.Int32Dtype(),
            pa.int64(): pd.Int64Dtype(),
        }
        return self.to_arrow().to_pandas(types_mapper=kinds.get)

    def labels(self) -> pa.Table:
        """The chosen observations under their published names, with the policy applied."""
        table = self.to_arrow().select([f"label_{stem}" for stem in self.observations])
        return table.rename_columns([published_name(stem) for stem in self.observations])

    def report_sections(self) -> pa.Table:
        """The sections in ``texts`` under their names, null where a report has none; no column unless asked for."""
        return self.stated.select([f"{PREFIX}{name}" for name in self.texts]).rename_columns(list(self.texts))

    def mask(self) -> pa.Table:
        """1 where a loss should count a label, 0 where it is null or an ignored -1; columns as in ``labels()``."""
        # From no columns, and not anew: a table of no observation has as many rows as any other.
        table = self.stated.select([])
        for stem in self.observations:
            table = table.append_column(published_name(stem), self.policy.mask(self.stated, stem))
        return table

    def regions(self) -> pa.Table:
        """The masks that the release draws on these images, a row each as in ``masks.parquet``; none for most releases.

        Their pixels are those of the image that each was drawn on, ``height`` by ``width``.
        """
        return regions_on(self.masks, self.stated)[0]

    def paths(self) -> Iterator[Path]:
        """The files of the images, in order."""
        return (self.root / path for path in self.names())

    def names(self) -> Iterator[str]:
        """The paths of the images as the manifest states them, in order."""
        for batch in self.stated.select(["path"]).to_batches(max_chunksize=_PART):
            yield from batch.column(0).to_pylist()

    def torch(self, transform: Callable[[Any], Any] | None = None) -> Images:
        """A map-style data set for ``torch.utils.data.DataLoader``.

        An item is a dict: ``image`` (float32 tensor, 1 x rows x columns, 0 to 1; ``transform`` is called with it),
        ``labels`` and ``mask`` (float32, one per observation; a masked label is 0), ``image_id``, ``patient_id``, and
        the sections in ``texts`` by name, ``""`` where a report has none. Raises ``MissingExtraError`` without torch.
        """
        try:
            from cxrprep.manifest.torch_dataset import Images
        except ModuleNotFoundError as error:
            raise MissingExtraError("a torch data set needs torch", hint="pip install torch") from error
        return Images(
            observations=self.observations,
            reader=ImageReader(self.root),
            rows=self.stated,
            labels=self.labels(),
            mask=self.mask(),
            texts=self.report_sections(),
            transform=transform,
        )

    def hf(self) -> Any:
        """A ``datasets.Dataset`` with a decoded ``image`` column and everything of the manifest beside it.

        Raises ``MissingExtraError`` without the ``datasets`` package.
        """
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise MissingExtraError("a Hugging Face data set needs datasets", hint="pip install datasets") from error
        table = self.to_arrow().replace_schema_metadata(None)
        if self.masks:
            table = table.append_column("regions", region_lists(self.masks, self.stated))
        some = self.stated.column("path").slice(0, 1).to_pylist()
        if any(map(is_in_shard, some)) or unfetched(self.root) is not None:
            features = datasets.Features(
                {**datasets.Features.from_arrow_schema(table.schema), "image": datasets.Image()}
            )
            # Written to the package's own cache: images in shards or a bucket are too many for memory, and no file here
            # is theirs.
            return datasets.Dataset.from_generator(_with_images, features=features, gen_kwargs={"dataset": self})
        paths = pa.array([str(path.resolve()) for path in self.paths()], pa.string())
        return datasets.Dataset(table.append_column("image", paths)).cast_column("image", datasets.Image())


def _with_images(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows of the manifest, each with the bytes of its image."""
    with ImageReader(dataset.root) as reader:
        table = dataset.to_arrow()
        if dataset.masks:
            table = table.append_column("regions", region_lists(dataset.masks, table))
        for batch in table.to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                yield {**row, "image": {"bytes": reader.read(row["path"]), "path": row["path"]}}


def load(
    root: Path | str,
    *,
    manifests: Path | None = None,
    label_source: str | None = None,
    policy: Policy = KEEP,
    split: SplitRule | None = None,
    selection: Selection | None = None,
    observations: str | Iterable[str] | None = None,
    text: str | Iterable[str] = (),
    pairs: Path | None = None,
    paired: bool = False,
    held: bool = True,
    check: Callable[[Path], object] = check_as_written,
    on_event: Sink = ignore,
) -> Dataset:
    """The images of ROOT, or of ``derived/RECIPE`` below one.

    Args:
        root: A folder with a manifest.
        manifests: Where ``images.parquet`` is when it is not below ROOT.
        label_source: Take the labels of another source, from ``labels.parquet``.
        policy: What becomes of uncertain and blank labels.
        split: Divide the patients anew.
        selection: Asked of the manifest, after ``split``.
        observations: A preset's name (``chexpert-competition``) or names; by default those that the label source knows,
            and with ``derive`` their parents.
        text: Sections of the reports that go along.
        pairs: The table that holds them; by default that of ``cxrprep pairs`` in this folder, or in the one it was made
            from.
        paired: Only images whose report has one of these sections.
        held: Hold the rows in memory, so that each is there at once; else they are read part by part, unless texts go
            along, which is a join of all of them, or a split depends on who else is there.
        check: Called with each table that is read; by default one that was altered is refused.
        on_event: Called with remarks.

    Returns:
        The data set.

    Raises:
        UsageError: A folder without a manifest, or a word that names nothing.
        TableError: A damaged manifest.
    """
    local_path(root, "ROOT")
    root = Path(root)
    path = (manifests / "images.parquet") if manifests is not None else root / _MANIFEST
    require_image_table(root, path)
    made_from, masks = read_footer(path), masks_beside(path)
    for each in (path, *masks):
        check(each)
    applied = made_from.get("policy")
    again = label_source is not None or (applied is not None and policy != KEEP)
    wanted = None if selection is None or selection.is_everything else selection
    sections = sections_of(text)
    if not again and split is None:
        table: pa.Table | TableOnDisk = TableOnDisk.open(path)
    else:
        place: Path | None = None
        sources: tuple[str, ...] = ()
        if again:
            sources = stated_sources(label_source or str(made_from.get("label_source", "")))
            check(place := _label_table(path, root, applied=applied is not None))
            made_from = {**made_from, "label_source": ",".join(sources)}
            made_from.pop("policy", None)
        table = relabelled_images(path, place, sources, split, held=held, on_event=on_event)
        if split is not None:
            made_from = {**made_from, "split": split.describe()}
    about, table = _selected(table, made_from, wanted)
    if (held or sections) and isinstance(table, TableOnDisk):
        table = table.whole()
    policy = dataclasses.replace(policy, knows=tuple(about.knows.items()))
    known = ordered(about.known)
    categories = box_categories(str(made_from.get("dataset", "")), sorted(about.boxes))
    if sections:
        place = pairs or find_pairs(root, label_folders(path, root))
        table = with_texts(table, place, sections, paired=paired)
        check(place)
    elif paired or pairs is not None:
        raise UsageError("which sections of the reports?", hint="name them, such as --text findings,impression")
    if observations is None:
        chosen = ordered(with_parents(known)) if policy.derive else known
    else:
        chosen = chosen_observations(observations, table)
    return Dataset(root, table, policy, chosen, made_from, categories, path.stat().st_mtime_ns, sections, masks)


@dataclass(slots=True)
class _Whole:
    """What is asked of the whole manifest: what is handed over has the same columns for every selection."""

    knows: dict[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    known: set[str] = dataclasses.field(default_factory=set)
    boxes: set[str] = dataclasses.field(default_factory=set)
    splits: set[str] = dataclasses.field(default_factory=set)

    def add(self, table: pa.Table, made_from: dict[str, Any]) -> None:
        """What its next rows say."""
        for source, stems in knowledge_of(table, made_from).items():
            self.knows[source] = self.knows.get(source, frozenset()) | stems
        self.known.update(known_observations(table, made_from))
        self.boxes.update(box_names(table))
        self.splits.update(pc.unique(table.column("split").cast(pa.string())).drop_null().to_pylist())


def _selected(
    table: pa.Table | TableOnDisk, made_from: dict[str, Any], selection: Selection | None
) -> tuple[_Whole, pa.Table | TableOnDisk]:
    """What the whole manifest says, and its selected rows; of those on the disk none are held.

    Raises ``UsageError`` for a view, split or observation that does not exist.
    """
    about = _Whole()
    if isinstance(table, pa.Table):
        about.add(table, made_from)
        return about, table if selection is None else table.filter(wanted_rows(table, selection))
    names = table.column_names
    stated = [name for name in names if name.startswith("label_") or name in ("dataset", "split", "boxes")]
    for group in table.groups(stated):
        about.add(group, made_from)
    if selection is None:
        return about, table
    splits, asked = frozenset(about.splits), asked_columns(selection, table.schema)
    table = table.where(asked, lambda group: undrawn_rows(group, selection, splits=splits))
    return about, drawn_rows(table, selection)


def label_folders(path: Path, root: Path) -> tuple[Path, ...]:
    """Where ``labels.parquet`` may be: beside the manifest at ``path``, or in the dataset that ROOT was made from."""
    # A derived folder stands two levels below the dataset whose tables were read.
    return tuple(dict.fromkeys((path.parent, root.resolve().parent.parent / "manifests")))


def _label_table(path: Path, root: Path, *, applied: bool) -> Path:
    """The ``labels.parquet`` of the manifest at ``path``, whose labels were ``applied`` a policy to, or not."""
    folders = label_folders(path, root)
    found = next((folder / LABELS_NAME for folder in folders if (folder / LABELS_NAME).is_file()), None)
    if found is None and applied:
        raise UsageError(
            f"the labels in {path} were changed by a policy already, and the labels before it are not here",
            hint=CONVERT_AGAIN if footer_of(path).get("recipe") else "read them again: cxrprep extract-labels ROOT",
        )
    if found is None:
        raise TableError(f"{folders[0]} has no {LABELS_NAME}", hint="run: cxrprep extract-labels ROOT")
    return found


def box_names(table: pa.Table) -> list[str]:
    """The names that stand at the boxes of a manifest."""
    boxes = pc.list_flatten(table.column("boxes").combine_chunks()) if "boxes" in table.column_names else []
    return sorted(set(pc.unique(pc.struct_field(boxes, "label")).drop_null().to_pylist())) if len(boxes) else []
