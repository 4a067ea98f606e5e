"""A folder opened for a verb: where it lies, what kind it is, which dataset, and what is recorded of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cxrprep.collection.lineage import (
    IMAGES_NAME,
    FolderKind,
    Lineage,
    image_tables,
    marked,
    read_export,
    read_lineage,
    shard_tables,
    trace_of_conversion,
)  # fmt: skip
from cxrprep.collection.recognition import contradicts, holds_nothing_of, recognise, release_here, sample_names
from cxrprep.collection.state_folder import check_state
from cxrprep.datasets.catalog import catalog, find_dataset, known_dataset
from cxrprep.datasets.own_folder import NAME as OWN_NAME
from cxrprep.datasets.own_folder import OWN_FOLDER, SUFFIXES, UNLISTED, dataset_words
from cxrprep.errors import FolderKindError, TableError, UsageError
from cxrprep.model import FolderRef
from cxrprep.record.record import Record, folder_words
from cxrprep.storage.paths import CACHE_NAME, perhaps_address, refuse_address
from cxrprep.storage.small_files import open_file
from cxrprep.storage.unfetched import names_and_sizes
from cxrprep.storage.working_copy_paths import address_of

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.datasets.layout import Layout


@dataclass(frozen=True, slots=True)
class DatasetFolder:
    """A ROOT and what it holds. ``home`` is where record, cache and manifests lie: ROOT, or the ``--state`` folder.

    ``lineage`` is what a folder that was made from another says of that; ``None`` for raw images. ``tables`` is another
    folder that holds its label tables.
    """

    root: Path
    home: Path
    spec: DatasetSpec
    release: str
    record: Record
    kind: FolderKind = FolderKind.RELEASE
    lineage: Lineage | None = None
    tables: Path | None = None

    @property
    def layout(self) -> Layout:
        """The paths of the dataset."""
        return self.spec.layout(self.release)

    def derived(self, name: str) -> Path:
        """The folder of the images that a recipe of this name makes, where no other is named."""
        return self.home / "derived" / name

    @property
    def manifests(self) -> Path:
        """Where the manifests are written."""
        return self.home / "manifests"

    @property
    def read_from(self) -> Path:
        """Where the manifests are read: what lies beside the images, where the state folder has none yet."""
        own = self.root / "manifests"
        return own if not image_tables(self.manifests) and image_tables(own) else self.manifests

    @property
    def form(self) -> str:
        """How its images lie: ``files``, or the form of shards (``webdataset``, ``parquet``)."""
        return "files" if self.lineage is None else self.lineage.form

    @property
    def in_shards(self) -> bool:
        """Whether its images lie in shards, so that nothing opens one by its path."""
        return self.form != "files"

    @property
    def image_tables(self) -> tuple[Path, ...]:
        """Its ``images.parquet``, or those of a job array's shards; empty where none was made."""
        return image_tables(self.read_from)

    def files(self) -> pa.Table:
        """Every file that is known with its digest: ``path``, ``size``, ``digest`` and ``state``, sorted by path.

        Of raw images the record; of converted ones their image table or their shards; of an export its list.
        """
        from cxrprep.collection.file_table import files_of

        return files_of(self.record, self.lineage, self.image_tables)

    def with_files(self) -> DatasetFolder:
        """The same, for a verb that asks its record about files after all: see ``open_folder``."""
        return replace(self, record=Record.open(self.root, self.home, held=False))

    def require(self, verb: str, *kinds: FolderKind, instead: str = "") -> None:
        """Raise ``FolderKindError`` with the kind and the command ``instead`` where ``verb`` is for other kinds."""
        if self.kind not in kinds:
            raise FolderKindError(f"{verb} is not for {self.described()}", hint=instead)

    def described(self) -> str:
        """The folder and its kind, for messages."""
        words = {
            FolderKind.RELEASE: f"{self.spec.name} {self.release}",
            FolderKind.OWN: "a folder of images of your own",
            FolderKind.CONVERTED: "converted images"
            + (f" in {self.form} shards" if self.in_shards else "")
            + (f" of the recipe {self.lineage.recipe}" if self.lineage is not None else ""),
            FolderKind.EXPORTED: f"an export in the form {self.form}",
        }
        return f"{self.root}, which holds {words[self.kind]}"

    @property
    def words(self) -> str:
        """The folder as commands name it, quoted for a shell."""
        return shlex.join(folder_words(self.root, self.home, self.spec.name))


def open_folder(
    where: FolderRef | Path, *, unknown_is_own: bool = False, files: bool = True, held: bool = True
) -> DatasetFolder:
    """A folder of any kind: what its record says, what its tables say, what the caller says, what its files look like.

    Args:
        where: The folder, and what the caller says of it; it is never written to here.
        unknown_is_own: Take a folder in which no image was seen for one of one's own, for a verb that looks further.
        files: Whether the verb asks the record about files; without, it has its header alone.
        held: Whether a record that is not small is read into memory, for a verb that asks it often.

    Returns:
        The folder. One that nobody recognises and that holds images is a folder of one's own.

    Raises:
        UsageError: There is no such folder, it holds another dataset than it is said to, or nothing is in it that could
            be opened.
        TableError: It holds converted images, and their image table is gone.
    """
    asked = FolderRef.of(where)
    root, dataset, release = asked.path, asked.dataset, asked.release
    if asked.tables is not None and not asked.tables.is_dir():
        raise UsageError(f"{asked.tables} is not a folder", hint="name the folder of the tables with --tables")
    refuse_address(str(asked.root), "ROOT")
    if asked.state is not None:
        refuse_address(str(asked.state), "--state")
    if root.is_file():
        raise UsageError(f"{root} is a file, not a folder", hint="name the folder of the dataset")
    _require_folder(root, cache_counts=dataset is not None)
    named = _named(dataset)
    record = Record.open(root, asked.state, files=files, held=held)
    home = record.home
    check_state(root, home)
    if record.header.dataset:
        recorded = _known(root, record.header.dataset, "its record")
        _agree(root, named, recorded.name, "its record")
        found = checked_release(recorded, release) or record.header.release
        return DatasetFolder(root, home, recorded, found, record, tables=asked.tables)
    lineage = read_lineage(home / "manifests") or (read_lineage(root / "manifests") if home != root else None)
    if lineage is not None:
        return _converted(root, record, lineage, named)
    exports = read_export(root)
    # Originals stay originals, whatever somebody exported beside them.
    if exports and not stated_dataset(home, root):
        return _exported(root, record, exports)
    names = sample_names(root)
    check_converted(root, home, names, as_own=named is OWN_FOLDER)
    spec = _raw_spec(root, home, names, named, unknown=unknown_is_own)
    if spec is OWN_FOLDER:
        return DatasetFolder(root, home, spec, "", record, FolderKind.OWN)
    found = checked_release(spec, release) or release_here(spec, names)
    return DatasetFolder(root, home, spec, found, record, tables=asked.tables)


def _require_folder(root: Path, *, cache_counts: bool = False) -> None:
    """Raise ``UsageError`` where there is no such folder: one in a bucket is there by what is in it."""
    if root.is_dir():
        ours = () if cache_counts else (CACHE_NAME,)
        if address_of(str(root.absolute())) is None or any(entry.name not in ours for entry in root.iterdir()):
            return
        if next(names_and_sizes(root), None) is not None:
            return
    address = "an address begins with its scheme (s3://, gs://, az://); " if perhaps_address(str(root)) else ""
    raise UsageError(
        f"there is no folder {root}", hint=f"{address}check the path, or run: cxrprep download DATASET ROOT"
    )


def check_converted(root: Path, home: Path, names: frozenset[str], *, as_own: bool = False) -> None:
    """Raise ``TableError`` where converted images have no image table any more, as anything else beside them tells.

    That table is their record: by the labels alone, or by their names, they would pass for originals.

    Args:
        root: The folder.
        home: Where its manifests lie.
        names: Paths in it, some of which are looked at.
        as_own: Somebody said that the images are to be taken as they are.

    Raises:
        TableError: Names the table, and how it is made again.
    """
    for place in dict.fromkeys((home, root)):
        tables = place / "manifests"
        if not image_tables(tables) and trace_of_conversion(place):
            raise TableError(f"{tables / IMAGES_NAME} is missing: it says what made these images", hint=_again(root))
    if not as_own and not image_tables(home / "manifests") and marked(root, names):
        again = _again(root)
        raise TableError(
            f"{root} holds images that a conversion made, and no {IMAGES_NAME} in manifests, which says of what",
            hint=again
            if stated_dataset(home)
            else f"{again}; or, to take them for images of your own, add --dataset {OWN_NAME}",
        )


def require_image_table(root: Path, path: Path) -> None:
    """Raise where ``root`` has no image table at ``path``: ``UsageError``, with the command that makes it.

    Of converted images ``TableError``: ``manifest`` cannot make theirs again.
    """
    if path.is_file():
        return
    _require_folder(root)
    home = path.parent.parent
    dataset = Record.open(root, home, files=False).header.dataset
    if not dataset:
        check_converted(root, home, sample_names(root))
    if exports := read_export(root):
        form = ", ".join(dict.fromkeys(one.form.partition(":")[0] for one in exports))
        raise UsageError(
            f"{root} holds an export in the form {form}, which has no manifest",
            hint="name the folder that was exported",
        )
    require_joined(root, path.parent)
    words = shlex.join(folder_words(root, home, dataset))
    raise UsageError(f"{root} has no manifest ({path})", hint=f"make it: cxrprep manifest {words}")


def require_joined(root: Path, manifests: Path) -> None:
    """Raise ``UsageError`` where the parts of a job array have image tables of their own."""
    if shard_tables(manifests):
        raise UsageError(
            f"{root} holds parts of a job array that were not joined",
            hint="when every part has run, the same convert once without --shard joins them",
        )


def _again(root: Path) -> str:
    from cxrprep.storage.parquet import CONVERT_AGAIN

    return f"{CONVERT_AGAIN}: cxrprep convert ORIGINALS --recipe RECIPE --out {shlex.quote(str(root))}"


def _converted(root: Path, record: Record, lineage: Lineage, named: DatasetSpec | None) -> DatasetFolder:
    spec = named if named and named.name == lineage.dataset else catalog().get(lineage.dataset, OWN_FOLDER)
    _agree(root, named, spec.name, "its manifest")
    return DatasetFolder(root, record.home, spec, lineage.release, record, FolderKind.CONVERTED, lineage)


def _exported(root: Path, record: Record, exports: tuple[Lineage, ...]) -> DatasetFolder:
    """A folder of one or several exports: its files are those of all of them."""
    first = exports[0]
    spec = catalog().get(first.dataset, OWN_FOLDER)
    forms = dict.fromkeys(one.form.partition(":")[0] for one in exports)
    files = {file.name: file for one in exports for file in one.shards}
    whole = replace(first, form=", ".join(forms), shards=tuple(files.values()))
    return DatasetFolder(root, record.home, spec, first.release, record, FolderKind.EXPORTED, whole)


def check_dataset(root: Path, dataset: str | None, recorded: str) -> None:
    """Raise ``UsageError`` where ``dataset`` names another one than the manifest of ``root`` does."""
    if recorded:
        _agree(root, _named(dataset), recorded, "its manifest")


def _named(dataset: str | None) -> DatasetSpec | None:
    """The dataset that the caller names, images of one's own among them."""
    return OWN_FOLDER if dataset == OWN_NAME else find_dataset(dataset) if dataset else None


def check_stated(root: Path, home: Path, spec: DatasetSpec) -> None:
    """Raise ``UsageError`` where a folder is of another dataset than ``spec``: by its tables, else by its files."""
    if (stated := stated_dataset(home, root)) not in ("", spec.name):
        message = f"{root} holds {dataset_words(stated)}, as its manifest says, not {spec.name}"
        raise UsageError(message, hint="name another folder")
    if not stated and root.is_dir():
        _refuse_others(root, sample_names(root), spec, "name another folder")


def _agree(root: Path, named: DatasetSpec | None, recorded: str, witness: str) -> None:
    if named is not None and named.name != recorded:
        raise UsageError(
            f"{root} holds {dataset_words(recorded)}, as {witness} says, not {dataset_words(named.name)}",
            hint="leave --dataset out, or name another folder",
        )


def _known(root: Path, dataset: str, witness: str) -> DatasetSpec:
    """The dataset that a folder says it is of. It is no other for want of the file that describes it."""
    try:
        return known_dataset(dataset)
    except UsageError as error:
        raise UsageError(
            f"{root} holds {dataset}, as {witness} says, and no dataset of that name is known here",
            hint="name its file with --dataset FILE, or the folder of that file with --catalog DIR",
        ) from error


def _raw_spec(
    root: Path, home: Path, names: frozenset[str], named: DatasetSpec | None, *, unknown: bool
) -> DatasetSpec:
    """The dataset of raw images without a record."""
    stated = stated_dataset(home, root)
    if stated:
        _agree(root, named, stated, "its manifest")
        return OWN_FOLDER if stated == OWN_NAME else _known(root, stated, "its manifest")
    if named is not None and named is not OWN_FOLDER:
        _refuse_others(root, names, named, "leave --dataset out, or name another folder")
        return named
    found = None if named is OWN_FOLDER else recognise(names)
    if found is not None:
        return found
    if unknown or _shows_images(root, names):
        return OWN_FOLDER
    raise UsageError(
        f"{root} is not a dataset that cxrprep knows", hint=f"say which it is: --dataset {'|'.join(catalog())}"
    )


def _refuse_others(root: Path, names: frozenset[str], spec: DatasetSpec, hint: str) -> None:
    """Raise ``UsageError`` where the names are surely of another dataset than ``spec``, or of images of none."""
    if (other := contradicts(spec, names)) is not None:
        raise UsageError(f"{root} looks like {other.name}, and nothing in it like {spec.name}", hint=hint)
    if _shows_images(root, names) and holds_nothing_of(spec, names):
        raise UsageError(f"{root} holds images, and none of them is one of {spec.name}", hint=hint)


def _shows_images(root: Path, names: frozenset[str]) -> bool:
    # By their names first: the others have to be opened.
    return any(name.lower().endswith(SUFFIXES) for name in names) or any(_is_dicom(root / name) for name in names)


def _is_dicom(path: Path) -> bool:
    """Whether a file without a suffix has the prefix of PS3.10 7.1, as scanners and archives leave it."""
    if path.suffix and not path.suffix[1:].isdecimal():
        return False
    try:
        with open_file(path) as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def stated_dataset(*places: Path) -> str:
    """The dataset that the tables of the first of these folders that has any were made of; ``""`` where none has."""
    for path in (home / f"manifests/{name}.parquet" for home in dict.fromkeys(places) for name in ("labels", "images")):
        if path.is_file():
            from cxrprep.storage.parquet import read_footer

            try:
                stated = str(read_footer(path).get("dataset") or "")
            except TableError:
                continue
            if stated not in ("", UNLISTED):
                return stated
    return ""


def checked_release(spec: DatasetSpec, release: str | None) -> str | None:
    """``release`` when the dataset has it. Raises ``UsageError`` otherwise."""
    if release is None or release in spec.releases:
        return release
    raise UsageError(f"{spec.name} has no release {release!r}", hint=f"its releases: {', '.join(spec.releases)}")
