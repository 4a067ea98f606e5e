"""Target of a conversion: the folder of a recipe's outputs, and what must never be written over."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from cxrprep.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cxrprep.api.convert_inputs import Inputs
    from cxrprep.images.recipe import Recipe
    from cxrprep.storage.filesystem import ImageStore


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
    from cxrprep.images.local_files import is_url
    from cxrprep.storage.working_copy import address_of

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
        return str(out)
    target = Path(out)
    if not is_url(inputs.address):
        _never_over_sources(Path(inputs.address), target)
    return target


def _same_scheme(address: str) -> str:
    """An address in one spelling: a store answers to several schemes."""
    scheme, colon, rest = address.rstrip("/").partition("://")
    return {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}.get(scheme, scheme) + colon + rest


def _never_over_sources(originals: Path, target: Path) -> None:
    root, place = originals.resolve(), target.resolve()
    if place == root or (root / "images") == place or any(part == place for part in root.parents):
        raise UsageError(f"{target} holds the originals", hint="name another folder with --out")


def check_target(
    target: Path | str, inputs: Inputs, recipe: Recipe, form: str, *, whole: bool, allow_loss: bool
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

    Raises:
        UsageError: As said; another key of pseudonyms than the one that named the patients.
    """
    from cxrprep.images.dicom_metadata import own_pseudonyms
    from cxrprep.images.local_files import is_url
    from cxrprep.manifest.own_manifest import other_key
    from cxrprep.storage.parquet import footer_of

    own_key = "" if inputs.folder is not None else own_pseudonyms().sign
    named_by = "" if inputs.base is None else str(footer_of(inputs.base).get("pseudonyms") or "")
    if own_key and named_by and named_by != own_key:
        raise other_key(Path(inputs.address), named_by)
    if allow_loss:
        return
    with contextlib.ExitStack() as stack:
        tables = Path(target) if not is_url(str(target)) else stack.enter_context(_tables_in_store(str(target)))
        _check_tables(tables, target, inputs, recipe, form, whole=whole, own_key=own_key)


@contextlib.contextmanager
def _tables_in_store(target: str) -> Iterator[Path]:
    """A folder with the tables of a folder in a store, and an empty record where that has one."""
    import tempfile

    from cxrprep.images.local_files import open_store
    from cxrprep.record import LOCK_NAME

    out = open_store(target)
    with tempfile.TemporaryDirectory(prefix="cxrprep-") as folder:
        bring_manifests(out, "manifests", Path(folder, "manifests"))
        if out.version_tag(LOCK_NAME) is not None:
            Path(folder, LOCK_NAME).touch()
        yield Path(folder)


def bring_manifests(out: ImageStore, below: str, folder: Path) -> None:
    """Bring the manifests of outputs in a store to a new ``folder``, those of job arrays' shards aside."""
    from cxrprep.images.local_files import open_store

    folder.mkdir()
    place = open_store(out.full(below))
    for entry in place.list():
        if "/" not in entry.name:
            (folder / entry.name).write_bytes(place.read(entry.name))


def _check_tables(
    tables: Path, target: Path | str, inputs: Inputs, recipe: Recipe, form: str, *, whole: bool, own_key: str
) -> None:
    from cxrprep.collection.lineage import read_lineage
    from cxrprep.manifest.own_manifest import other_key

    elsewhere = "name another folder with --out; or, to replace them, say --allow-loss"
    held = read_lineage(tables / "manifests")
    if held is None:
        _never_into_others(tables, target, None if inputs.folder is None else inputs.folder.read_from, elsewhere)
        return
    if held.form != form:
        words = {"files": "images as files"}
        there, new = (words.get(name, f"images in {name} shards") for name in (held.form, form))
        raise UsageError(f"{target} holds {there}, not {new}", hint=elsewhere)
    if held.fingerprint != recipe.fingerprint() and (held.recipe != recipe.name or not whole):
        raise UsageError(
            f"{target} holds images of another recipe ({held.recipe} {held.fingerprint}), not of {recipe.name} "
            f"{recipe.fingerprint()}",
            hint=elsewhere,
        )
    if held.pseudonyms and own_key and held.pseudonyms != own_key:
        raise other_key(Path(target), held.pseudonyms)


def _never_into_others(tables: Path, target: Path | str, manifests: Path | None, elsewhere: str) -> None:
    """Raise where the target is no folder of converted images, and has tables, a record or exports of its own.

    Labels that are those in the ``manifests`` of the source were brought by a conversion that was stopped halfway.
    """
    from cxrprep.collection.lineage import IMAGES_NAME, read_export
    from cxrprep.labels.extract import LABELS_NAME
    from cxrprep.record import LOCK_NAME

    images, labels = (tables / "manifests" / name for name in (IMAGES_NAME, LABELS_NAME))
    brought = manifests is not None and labels.is_file() and _same_bytes(labels, manifests / LABELS_NAME)
    held = "tables of its own images" if images.is_file() or (labels.is_file() and not brought) else ""
    held = held or ("the record of a download" if (tables / LOCK_NAME).is_file() else "")
    held = held or ("an export" if read_export(tables) else "")
    if held:
        raise UsageError(f"{target} holds {held}, and no images of a conversion", hint=elsewhere)


def _same_bytes(one: Path, other: Path) -> bool:
    import filecmp

    return other.is_file() and filecmp.cmp(one, other, shallow=False)
