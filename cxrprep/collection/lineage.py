"""What a folder that was made from another says of itself: kind, form, recipe, parent, key of pseudonyms, shards.

For converted images it stands in the footer of their image table, so that record and table can never disagree; for an
export in the list of its files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import TableError, storage_errors
from cxrprep.model import CONVERSION_KEY, Digest
from cxrprep.storage.paths import is_safe
from cxrprep.storage.small_files import parse_json, read_file, read_text, regular
from cxrprep.storage.unfetched import ends_of
from cxrprep.storage.working_copy_paths import EXPORT_LIST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

IMAGES_NAME: Final = "images.parquet"
CROISSANT_NAME: Final = "croissant.json"
CARD_NAME: Final = "README.md"
# Stands in each Croissant description that cxrprep writes.
_OWN_DESCRIPTION: Final = b"the manifest's images"
# Stands in those of converted images.
_MADE_BY: Final = b'"rai:dataPreprocessingProtocol": "recipe '
# Stands in each image that a conversion made, and in the schema of its shards: in their first bytes, or in their last.
_MARK: Final = re.compile(CONVERSION_KEY + rb'.\{"recipe"|recipe_fingerprint', re.DOTALL)
_MAY_BE_MARKED: Final = (".png", ".jpg", ".jpeg", ".webp", ".jxl", ".tar", ".parquet")
_END: Final = 1 << 15
_LOOKED_AT: Final = 5
# No table has room for the size of a larger file.
_TOO_LARGE: Final = 1 << 63
_SHARD_TABLES: Final = "shards/*-of-*/images.parquet"


class FolderKind(enum.StrEnum):
    """What a folder is."""

    RELEASE = "release"
    """a dataset of the catalog, as it was published"""
    OWN = "own"
    """images of one's own, that belong to no release"""
    CONVERTED = "converted"
    """images that a recipe made, as files or in shards"""
    EXPORTED = "exported"
    """what export wrote for another tool"""


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file that holds many images, with its size in bytes and its digest."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """What made a folder, and of what.

    ``form`` is files, webdataset or parquet for converted images, and the form of an export. ``parent`` describes the
    folder that it was made from: its kind, dataset, release, and digests (``files``: of its file table, ``images``: of
    its image table). ``pseudonyms`` tells one key of pseudonyms from another. ``shards`` are the files of a form that
    is not files; ``tables`` the digests of the tables beside the image table, by name. ``choices`` are the label
    source, policy and split that were chosen for this folder itself, and not for its parent.
    """

    kind: FolderKind
    form: str = "files"
    dataset: str = ""
    release: str = ""
    recipe: str = ""
    fingerprint: str = ""
    parent: Mapping[str, Any] = field(default_factory=dict)
    pseudonyms: str = ""
    shards: tuple[ShardFile, ...] = ()
    tables: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)

    def as_footer(self) -> dict[str, Any]:
        """What goes into the footer of the image table, beside dataset and release."""
        stated = {
            "kind": str(self.kind),
            "form": self.form,
            "recipe": self.recipe,
            "fingerprint": self.fingerprint,
            "parent": dict(self.parent),
            "pseudonyms": self.pseudonyms,
            "shards": [[shard.name, shard.size, shard.digest] for shard in self.shards],
            "tables_beside": dict(self.tables),
            "choices": dict(self.choices),
        }
        return {name: value for name, value in stated.items() if value}

    @classmethod
    def of_footer(cls, footer: Mapping[str, Any]) -> Lineage | None:
        """What a footer says; ``None`` for the image table of a folder that nothing was converted into."""
        if not footer.get("recipe"):
            return None
        shards = footer.get("shards")
        rows = [row for row in shards if isinstance(row, list) and len(row) == 3] if isinstance(shards, list) else []
        return cls(
            kind=FolderKind.CONVERTED,
            # Earlier versions did not say the form; the paths of the table do (``form_of``).
            form=str(footer.get("form") or ""),
            dataset=str(footer.get("dataset") or ""),
            release=str(footer.get("release") or ""),
            recipe=str(footer["recipe"]),
            fingerprint=str(footer.get("fingerprint") or ""),
            parent=_object(footer.get("parent")),
            pseudonyms=str(footer.get("pseudonyms") or ""),
            shards=tuple(ShardFile(str(name), size, str(digest)) for name, size, digest in rows if _is_size(size)),
            tables={name: str(digest) for name, digest in _object(footer.get("tables_beside")).items()},
            choices=_object(footer.get("choices")),
        )


def _object(value: Any) -> dict[str, Any]:
    return {str(name): held for name, held in value.items()} if isinstance(value, dict) else {}


def image_tables(manifests: Path) -> tuple[Path, ...]:
    """The image table of a folder's ``manifests``; those of a job array's shards where they were not joined yet."""
    whole = manifests / IMAGES_NAME
    return (whole,) if whole.is_file() else shard_tables(manifests)


def shard_tables(manifests: Path) -> tuple[Path, ...]:
    """The image tables of a job array's shards."""
    return tuple(sorted(manifests.glob(_SHARD_TABLES)))


def stated_tables(manifests: Path) -> dict[str, str]:
    """The digests of the tables beside an image table, by name, as its footer states them."""
    from cxrprep.storage.parquet import footer_of

    return {
        name: str(digest) for name, digest in _object(footer_of(manifests / IMAGES_NAME).get("tables_beside")).items()
    }


def read_lineage(manifests: Path) -> Lineage | None:
    """The lineage of converted images by their image table; ``None`` where ``manifests`` has none, or another's.

    A table that cannot be read says nothing: the verb that needs it says why.
    """
    tables = image_tables(manifests)
    if not tables:
        # Without pyarrow, which takes a tenth of a second.
        return None
    from cxrprep.storage.parquet import read_footer

    first: Lineage | None = None
    shards: dict[str, ShardFile] = {}
    for path in tables:
        try:
            found = Lineage.of_footer(read_footer(path))
        except (TableError, TypeError, ValueError):
            continue
        if found is not None:
            first = first or (found if found.form else _with_form(found, path))
            shards |= {shard.name: shard for shard in found.shards}
    if first is None and (manifests / IMAGES_NAME).is_file():
        # A damaged image table is one of converted images still, as the studies beside it say.
        return _damaged(manifests)
    return None if first is None else dataclasses.replace(first, shards=tuple(shards.values()))


def _damaged(manifests: Path) -> Lineage | None:
    """The lineage by the footer of the studies, which is written with that of the images; ``None`` without one."""
    from cxrprep.storage.parquet import footer_of

    found = Lineage.of_footer(footer_of(manifests / "studies.parquet"))
    return found and dataclasses.replace(found, form=found.form or "files")


def trace_of_conversion(root: Path) -> bool:
    """Whether a conversion wrote tables below ``root``, as what lies beside its image table says once that is gone.

    The footer of the studies tells, or else a description, or the list of checksums, that only a conversion writes.
    """
    manifests = root / "manifests"
    if (manifests / "studies.parquet").is_file():
        # Loaded where there is something to read alone: pyarrow takes 0.15 s of CPU time.
        from cxrprep.storage.parquet import footer_of

        if footer_of(manifests / "studies.parquet").get("recipe"):
            return True
    # A job array's shards have folders of their own.
    beside = (manifests, *(path.parent for path in manifests.glob("shards/*-of-*/*.json")))
    texts = {root / CROISSANT_NAME: _MADE_BY, manifests / "SHA256SUMS": b"  ../" + CROISSANT_NAME.encode()}
    texts |= {folder / CROISSANT_NAME: _MADE_BY for folder in beside}
    return any(_holds(path, text) for path, text in texts.items())


def _holds(path: Path, text: bytes) -> bool:
    try:
        return path.is_file() and text in read_file(path)
    except OSError:
        return False


def marked(root: Path, names: frozenset[str]) -> bool:
    """Whether some images and shards among ``names``, taken from all over the folder, bear the mark of a conversion."""
    images = sorted(name for name in names if name.lower().endswith(_MAY_BE_MARKED))
    some = images[:: max(1, len(images) // _LOOKED_AT)][:_LOOKED_AT]
    return bool(some) and all(_is_marked(root, name) for name in some)


def _is_marked(root: Path, name: str) -> bool:
    ends = ends_of(root, name, _END)
    if ends is None:
        try:
            with regular(root / name).open("rb") as file:
                ends = file.read(_END)
                file.seek(max(0, file.seek(0, 2) - _END))
                ends += file.read()
        except OSError:
            return False
    return _MARK.search(ends) is not None


def _with_form(lineage: Lineage, path: Path) -> Lineage:
    """The lineage with the form that the paths of its table show: images in shards lie below a shard's name."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(regular(path)) as file:
        batch = next(file.iter_batches(batch_size=1, columns=["path"]), None)
    first = str(batch.column(0)[0].as_py()) if batch is not None and batch.num_rows else ""
    form = next((form for form, mark in (("webdataset", ".tar/"), ("parquet", ".parquet/")) if mark in first), "files")
    return dataclasses.replace(lineage, form=form)


def export_journal(form: str) -> str:
    """The name of the journal of an export in this form that is not finished."""
    return f".cxrprep-export-{form}.jsonl"


def read_export(root: Path) -> tuple[Lineage, ...]:
    """A lineage for each export that lies in ``root``, by the list of files that export keeps there."""
    try:
        listed = parse_json(read_text(root / EXPORT_LIST))
    except (OSError, ValueError):
        return ()
    about = _object(listed.get("about")) if isinstance(listed, dict) else {}
    return tuple(
        _export(form, names, _object(about.get(form))) for form, names in _object(listed).items() if form != "about"
    )


def files_of_exports(root: Path) -> set[Path]:
    """What the exports that lie in ``root`` wrote: their files, the list of these, and journals of interrupted ones."""
    names = {file.name for one in read_export(root) for file in one.shards if is_safe(file.name)}
    return {root / EXPORT_LIST, *root.glob(export_journal("*")), *(root / name for name in names)}


def _is_size(value: Any) -> bool:
    """Whether a value that somebody else may have written is the size of a file."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOO_LARGE


def _is_digest(value: Any) -> bool:
    """Whether it is one that can be held against a file, or says that none is known."""
    with contextlib.suppress(ValueError):
        return isinstance(value, str) and (not value or bool(Digest.parse(value)))
    return False


def _export(form: str, names: Any, about: dict[str, Any]) -> Lineage:
    files = _object(about.get("files"))
    known = {name: value for name, value in files.items() if isinstance(value, list) and len(value) == 2}
    known = {name: value for name, value in known.items() if _is_size(value[0]) and _is_digest(value[1])}
    listed = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return Lineage(
        kind=FolderKind.EXPORTED,
        form=form,
        dataset=str(about.get("dataset") or ""),
        release=str(about.get("release") or ""),
        recipe=str(_object(about.get("parent")).get("recipe") or ""),
        parent=_object(about.get("parent")),
        shards=tuple(
            ShardFile(name, *((int(known[name][0]), str(known[name][1])) if name in known else (-1, "")))
            for name in listed
        ),
    )


def is_own_description(path: Path) -> bool:
    """Whether a Croissant description that cxrprep wrote lies at ``path``. Raises ``StorageError``."""
    with storage_errors(path, "read"):
        return path.is_file() and _OWN_DESCRIPTION in read_file(path)
