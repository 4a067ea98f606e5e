"""Target of a conversion: the folder of a recipe's outputs, and what must never be written over."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.api.convert_previous import has_digest
from cxrprep.collection import FolderKind
from cxrprep.collection.image_table import losses, stored_table
from cxrprep.collection.lineage import IMAGES_NAME, read_export, read_lineage
from cxrprep.datasets.own_folder import NAME as OWN_NAME
from cxrprep.errors import UsageError
from cxrprep.humanize import format_count
from cxrprep.images.dicom_metadata import own_pseudonyms
from cxrprep.images.local_files import is_url, open_store
from cxrprep.images.output_metadata import metadata_in
from cxrprep.images.radiograph import DEFAULT_LIMITS
from cxrprep.images.shard_files import maker_of_shard
from cxrprep.labels.extract import LABELS_NAME
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.parquet import footer_of, read_rows
from cxrprep.storage.paths import CACHE_NAME, LOCK_NAME, OWN_FOLDERS
from cxrprep.storage.small_files import read_file
from cxrprep.storage.working_copy_paths import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cxrprep.api.convert_inputs import Inputs
    from cxrprep.collection.dataset_folder import DatasetFolder
    from cxrprep.images.conversion import ConvertItem
    from cxrprep.images.recipe import Recipe
    from cxrprep.storage.filesystem import ImageStore

_SOURCE_NAME: Final = "source"
# Sources whose content tells one folder from another.
_ASKED: Final = 16
_OUTPUTS: Final = (".png", ".jpg", ".webp", ".jxl")
_HEAD: Final = 8192
_ELSEWHERE: Final = "name another folder with --out; or, to replace them, say --allow-loss"


def target_of(inputs: Inputs, recipe: Recipe, out: Path | str | None, form: str = "files") -> Path | str:
    """Where the images go: ``out``, or ``derived/RECIPE`` of a dataset.

    Args:
        inputs: The images to convert.
        recipe: Its name is that of the default folder.
        out: What was asked for; ``None`` takes the default.
        form: ``files``, ``webdataset`` or ``parquet``.

    Returns:
        A folder, or the address of one.

    Raises:
        UsageError: A plain folder without ``out``, a place that holds the originals, or one of another form.
    """
    if out is None:
        if inputs.folder is None:
            raise UsageError(f"{inputs.address} is a plain folder", hint="say where the images go: --out DIR")
        name = recipe.name if form == "files" else f"{recipe.name}-{form}"
        return inputs.folder.derived(name)
    if is_url(str(out)):
        # A known dataset is a working copy of what lies there.
        originals, place = (_same_scheme(one) for one in (address_of(inputs.address) or inputs.address, str(out)))
        if place in (originals, f"{originals}/images") or originals.startswith(f"{place}/"):
            raise UsageError(f"{out} holds the originals", hint="name another place with --out")
        if place.startswith(f"{originals}/"):
            _never_among_originals(inputs.folder, place.removeprefix(f"{originals}/"), out)
        return str(out)
    target = Path(out)
    if not is_url(inputs.address):
        root, inside = Path(inputs.address).resolve(), target.resolve()
        if inside in (root, root / "images") or root.is_relative_to(inside):
            raise UsageError(f"{target} holds the originals", hint="name another folder with --out")
        if inside.is_relative_to(root):
            _never_among_originals(inputs.folder, inside.relative_to(root).as_posix(), out)
    return target


def _same_scheme(address: str) -> str:
    """An address in one spelling: a store answers to several schemes."""
    scheme, colon, rest = address.rstrip("/").partition("://")
    return {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}.get(scheme, scheme) + colon + rest


def _never_among_originals(folder: DatasetFolder | None, inside: str, out: Path | str) -> None:
    """Raise ``UsageError`` for a place ``inside`` a release but its own folders: its listing would take what is there.

    ``out`` is the place as it was named.
    """
    if folder is not None and folder.kind is FolderKind.RELEASE and inside.partition("/")[0] not in OWN_FOLDERS:
        raise UsageError(
            f"{out} lies in the folder of the originals, which would then list these images as originals",
            hint=f"name a folder outside of {folder.root}, or below {folder.root / 'derived'}, with --out",
        )


def cache_folder(inputs: Inputs, recipe: Recipe, address: str, home: Path | None) -> Path:
    """Where it is written down what is finished: beside the record of a dataset, so that OUT can be handed on.

    Args:
        inputs: The images that are converted.
        recipe: By which they are.
        address: Of the folder of outputs.
        home: The folder of the record, where one was named.

    Returns:
        A folder, which need not be there yet.
    """
    where = address if is_url(address) else str(Path(address).resolve())
    name = f"{recipe.name}-{hashlib.sha256(where.encode()).hexdigest()[:8]}"
    home = home or (inputs.folder.home if inputs.folder is not None else None)
    if home is not None:
        return home / CACHE_NAME / "derived" / name
    if not is_url(address):
        return Path(address) / CACHE_NAME
    import platformdirs

    return Path(platformdirs.user_cache_path("cxrprep")) / "derived" / name


def note_source(cache: Path, inputs: Inputs) -> None:
    """Write down which folder was converted last, by a digest of its address: what changes in that one is made anew."""
    if not _was_last(cache, inputs):
        replace_file(cache / _SOURCE_NAME, lambda part: part.write_bytes(_digest_of_address(inputs)))


def _was_last(cache: Path, inputs: Inputs) -> bool:
    try:
        return read_file(cache / _SOURCE_NAME) == _digest_of_address(inputs)
    except OSError:
        return False


def _digest_of_address(inputs: Inputs) -> bytes:
    address = address_of(inputs.address) or inputs.address
    return hashlib.sha256((address if is_url(address) else str(Path(address).resolve())).encode()).hexdigest().encode()


def check_target(
    target: Path | str, inputs: Inputs, recipe: Recipe, form: str, *, whole: bool, allow_loss: bool, home: Path | None
) -> None:
    """Raise ``UsageError`` where the target holds images of another make, whose files or rows would be replaced.

    A recipe of the same name that was edited makes all of its images anew; a part of them would orphan the others.

    Args:
        target: The folder, or the address, of the outputs.
        inputs: The images that are converted.
        recipe: By which they are.
        form: ``files``, ``webdataset`` or ``parquet``.
        whole: Whether the selection leaves no image out.
        allow_loss: Whether what is there may be replaced by less.
        home: The folder of the record, where one was named.

    Raises:
        UsageError: As said; another key of pseudonyms than the one that named the patients.
    """
    from cxrprep.manifest.own_manifest import other_key

    own_key = "" if inputs.folder is not None else own_pseudonyms().sign
    named_by = "" if inputs.base is None else str(footer_of(inputs.base).get("pseudonyms") or "")
    if own_key and named_by and named_by != own_key:
        raise other_key(Path(inputs.address), named_by)
    if allow_loss:
        return
    same = _was_last(cache_folder(inputs, recipe, str(target), home), inputs)
    with contextlib.ExitStack() as stack:
        tables = Path(target) if not is_url(str(target)) else stack.enter_context(_tables_in_store(str(target)))
        _Outputs(target, tables, inputs, recipe, form, whole=whole, own_key=own_key, same_source=same).check()


@contextlib.contextmanager
def _tables_in_store(target: str) -> Iterator[Path]:
    """A folder with the tables of a folder in a store, and an empty record where that has one."""
    out = open_store(target)
    with tempfile.TemporaryDirectory(prefix="cxrprep-") as folder:
        bring_manifests(out, "manifests", Path(folder, "manifests"))
        if out.version_tag(LOCK_NAME) is not None:
            Path(folder, LOCK_NAME).touch()
        yield Path(folder)


def bring_manifests(out: ImageStore, below: str, folder: Path) -> None:
    """Bring the manifests of outputs in a store to a new ``folder``, those of job arrays' shards aside."""
    folder.mkdir()
    place = open_store(out.full(below))
    for entry in place.list():
        if "/" not in entry.name:
            (folder / entry.name).write_bytes(place.read(entry.name))


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Outputs that are about to be made at ``target``, and the ``tables`` of those that are there, or a copy of them.

    ``whole`` says that the selection leaves no image out, ``same_source`` that it was the folder of these inputs that
    was converted last: what changed there is replaced.
    """

    target: Path | str
    tables: Path
    inputs: Inputs
    recipe: Recipe
    form: str
    whole: bool
    own_key: str
    same_source: bool

    def refused(self, what: str) -> UsageError:
        """The error for what is there and would be replaced."""
        return UsageError(f"{self.target} holds {what}", hint=_ELSEWHERE)

    def check(self) -> None:
        """Raise ``UsageError`` where what is there is of another make."""
        from cxrprep.manifest.own_manifest import other_key

        inputs, recipe, form = self.inputs, self.recipe, self.form
        held = read_lineage(self.tables / "manifests")
        if held is None:
            self._never_into_others()
            self._never_over_marks()
            return
        if (name := held.dataset or OWN_NAME) != inputs.name:
            # A folder has one dataset: its ids, its labels and the splits of its shards would be those of the last run.
            raise self.refused(f"images of {name}, not of {inputs.name}")
        if held.form != form:
            words = {"files": "images as files"}
            there, new = (words.get(name, f"images in {name} shards") for name in (held.form, form))
            raise self.refused(f"{there}, not {new}")
        edited = held.fingerprint != recipe.fingerprint()
        if edited and (held.recipe != recipe.name or not self.whole):
            raise self.refused(
                f"images of another recipe ({held.recipe} {held.fingerprint}), not of {recipe.name} "
                f"{recipe.fingerprint()}"
            )
        if held.pseudonyms and self.own_key and held.pseudonyms != self.own_key:
            raise other_key(Path(self.target), held.pseudonyms)
        if edited or not self.same_source:
            self._never_over_other_sources(anew=edited or (self.whole and form != "files"))

    def _never_over_other_sources(self, *, anew: bool) -> None:
        """Raise ``UsageError`` where images of another folder are there that this run would replace or drop.

        ``anew`` says that all outputs are made anew, so that no row of another source stays.
        """
        images = self.tables / "manifests" / IMAGES_NAME
        try:
            rows = read_rows(images, columns=["path", "source_path", "source_digest"])
        except (OSError, KeyError, ValueError):
            return
        stated = dict(zip(rows["source_path"].to_pylist(), rows["source_digest"].to_pylist(), strict=True))
        made_of = dict(zip(rows["path"].to_pylist(), rows["source_path"].to_pylist(), strict=True))
        common, replacing = [], []
        for item in self.inputs.items():
            if item.relative in stated:
                common.append(item)
            elif item.output(self.recipe.output.suffix) in made_of:
                replacing.append(item)
        if anew and len(common) < len(stated):
            ours = {item.relative for item in common}
            lost = [path for path, source in made_of.items() if source not in ours]
            raise self.refused(
                f"{format_count(len(lost), 'image')} of other sources, which would no longer be in its manifest; "
                f"the first: {lost[0]}"
            )
        if anew and self.inputs.base is not None:
            _never_for_less(images, self.inputs.base, self.target)
        # Two folders with the same names of files: hardly one has the same content. Some tell it, evenly spread.
        asked = common[:: max(1, len(common) // _ASKED)]
        self._never_over_others([(item, stated[item.relative] or "") for item in asked], replacing)

    def _never_over_others(self, asked: Sequence[tuple[ConvertItem, str]], replacing: Sequence[ConvertItem]) -> None:
        """Raise ``UsageError`` for images that would be replaced, or where none asked for has the digest stated."""
        if self.same_source:
            return
        if asked and all(has_digest(item, stated, DEFAULT_LIMITS) is False for item, stated in asked):
            replacing = [*replacing, *(item for item, _ in asked)]
        if replacing:
            raise self.refused(
                "images of another folder whose files have the same names, and they would be replaced; the first: "
                f"{replacing[0].relative}"
            )

    def _never_into_others(self) -> None:
        """Raise where this is no folder of converted images, and has tables, a record or exports of its own.

        Labels that are those of the source were brought by a conversion that was stopped halfway.
        """
        images, labels = (self.tables / "manifests" / name for name in (IMAGES_NAME, LABELS_NAME))
        source = None if self.inputs.folder is None else self.inputs.folder.read_from / LABELS_NAME
        there = source is not None and source.is_file() and labels.is_file()
        brought = source is not None and there and filecmp.cmp(labels, source, shallow=False)
        held = "tables of its own images" if images.is_file() or (labels.is_file() and not brought) else ""
        held = held or ("the record of a download" if (self.tables / LOCK_NAME).is_file() else "")
        held = held or ("an export" if read_export(self.tables) else "")
        if held:
            raise self.refused(f"{held}, and no images of a conversion")

    def _never_over_marks(self) -> None:
        """Raise ``UsageError`` where outputs of another make are there, and their table is gone: their marks tell.

        A run that was killed leaves outputs without a table too; its recipe may be edited then, as with a table.
        """
        if not is_url(str(self.target)) and not Path(self.target).is_dir():
            return
        recipe, out = self.recipe, open_store(str(self.target))
        names = [entry.name for entry in out.list()]
        own = {"webdataset": ".tar", "parquet": ".parquet"}.get(self.form, "-")
        for name in names:
            made = maker_of_shard(out, name) if name.endswith((".tar", ".parquet")) else None
            if made and (not name.endswith(own) or made != recipe.fingerprint()):
                raise self.refused(f"shards of the recipe {made}, such as {name}")
        images = [name for name in names if name.endswith(_OUTPUTS)]
        heads = {name: out.head(name, _HEAD) or b"" for name in images[:: max(1, len(images) // _ASKED)]}
        marks = {name: mark for name, head in heads.items() if (mark := metadata_in(head)) is not None}
        for name, mark in marks.items():
            same = mark.fingerprint == recipe.fingerprint() or (mark.recipe == recipe.name and self.whole)
            if self.form != "files" or not same:
                raise self.refused(
                    f"images of the recipe {mark.recipe} {mark.fingerprint}, such as {name}, and no table that names "
                    "them"
                )
        if marks and not self.same_source:
            made_now = ((item, marks.get(item.output(recipe.output.suffix))) for item in self.inputs.items())
            self._never_over_others([(item, mark.source) for item, mark in made_now if mark is not None], ())


def _never_for_less(held: Path, base: Path, target: Path | str) -> None:
    """Raise where images that are made anew would know less: the same ones from a folder without their labels.

    The new table is refused at the end too, but then the images that the old one describes are gone.
    """
    before = stored_table(held)
    if before is None:
        return
    source = read_rows(base)
    # What only a conversion knows it finds out again, and what was chosen for the folder itself is applied again.
    own = {name for name in before.column_names if name not in source.column_names and not name.startswith("label_")}
    chosen = ("label", "split", "table_") if footer_of(held).get("choices") else ("-",)
    exempt = own | {name for name in before.column_names if name.startswith(chosen)}
    found = [loss for loss in losses(before, source, keys=("image_id",), exempt=exempt) if loss.what != "rows"]
    if found:
        raise UsageError(f"the images of {target} would be converted again and lose {found[0]}", hint=_ELSEWHERE)
