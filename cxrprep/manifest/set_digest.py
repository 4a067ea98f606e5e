"""The digest of a training set: what a model sees of it, in 64 hexadecimal digits, and proofs that an image is in it.

The definition, ``cxrprep-set/1``:

* A leaf is an image as canonical JSON (sorted keys, no blanks, integers only): dataset, image id, pixels, labels after
  the policy in the order of the head's vocabulary, boxes in thousandths of a pixel (sorted), and text where there is
  some. Pixels are those that a lossless file decodes to (size, channels, bits and samples); of JPEG and of a release's
  own files, whose decoders differ or whose digests the publisher states, the SHA-256 of the file.
* The leaves of a split, sorted by dataset and id, form a Merkle tree as in RFC 9162, section 2.1.
* The digest is the SHA-256 of the head: format, vocabulary, policy, label source, and of each split its size and root.

Paths, file names, order, times, encoders, tools, mirrors, engines, shards and all other columns are not in it: two
copies that a model cannot tell apart have one digest. Two papers with the same test part share its root.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.digests import digest_of
from cxrprep.errors import StorageError, UsageError
from cxrprep.events import Advanced, Note, Sink, StageFinished, StageStarted, ignore
from cxrprep.humanize import short_repr
from cxrprep.images.pixel_digest import pixel_digest
from cxrprep.manifest.merkle_tree import GrowingTree, inclusion_path, leaf_hash, root_by_path
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.small_files import regular
from cxrprep.storage.sorted_tables import SortedTable
from cxrprep.system import available_cores
from cxrprep.vocabulary import published_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cxrprep.manifest.load import Dataset

FORMAT: Final = "cxrprep-set/1"
PIXELS_NAME: Final = "pixel-digests.parquet"
"""The file of the cache that keeps what was read of each image."""
_CACHED: Final = pa.schema([("path", pa.string()), ("sign", pa.string()), ("pixels", pa.string())])
STAGE: Final = "digest"
LEAVES: Final = {"key": "string", "leaf": "binary"}
"""Columns of the leaves of a set: split, dataset and id as one text, and the leaf or the hash of it."""
_BATCH: Final = 256
# A run that is killed reads again what it read since. The file of 377,110 images is written in a second.
_KEEP_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class SetDigest:
    """The digest of a training set with its ``head``, and the leaves of each split in their order.

    ``unread`` images of a release go by the digests of its record: their files were there before the manifest was
    written, and no check has read them since. ``leaves`` is empty where nobody asked for them.
    """

    __repr__ = short_repr

    value: str
    head: Mapping[str, Any]
    leaves: Mapping[str, Sequence[bytes]]
    unread: int = 0

    def __str__(self) -> str:
        """The 64 digits."""
        return self.value


@dataclass(frozen=True, slots=True)
class Proof:
    """That one image is in a set: its leaf, its place among ``size`` of its split, and the hashes along its path."""

    __repr__ = short_repr

    head: Mapping[str, Any]
    split: str
    leaf: str
    index: int
    size: int
    path: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The proof as JSON values."""
        return {
            "format": FORMAT, "head": dict(self.head), "split": self.split, "leaf": self.leaf, "index": self.index,
            "size": self.size, "path": list(self.path),
        }  # fmt: skip

    @classmethod
    def of_json(cls, data: Any) -> Proof:
        """The proof that ``as_json`` described. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for other data."""
        if data["format"] != FORMAT:
            raise ValueError(data["format"])
        names = (str(data["split"]), str(data["leaf"]), int(data["index"]), int(data["size"]))
        return cls(dict(data["head"]), *names, tuple(str(step) for step in data["path"]))

    def holds(self, digest: str) -> bool:
        """Whether the image is in the set of this digest."""
        stated = self.head.get("splits", {}).get(self.split)
        if digest_of_head(self.head) != digest or stated is None or stated.get("images") != self.size:
            return False
        root = root_by_path(leaf_hash(self.leaf.encode()), self.index, self.size, self.path)
        return root is not None and root.hex() == stated.get("root")


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and without blanks, as UTF-8: one spelling for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of_head(head: Mapping[str, Any]) -> str:
    """The 64 digits that a head has."""
    return hashlib.sha256(canonical(dict(head))).hexdigest()


def set_digest(
    dataset: Dataset, *, cache: Path | None = None, leaves: bool = True, on_event: Sink = ignore
) -> SetDigest:
    """The digest of the images of ``dataset`` with its labels after its policy.

    Args:
        dataset: The images, with the sections of reports that were asked for; their files are read, unless their size
            and times say that they are those of last time. White space in text counts as one blank.
        cache: A Parquet file that keeps what was read of each file from one call to the next, that of a call that was
            killed too; ``None`` keeps nothing.
        leaves: Whether the leaves are given, of which proofs are made: some 400 bytes an image.
        on_event: Called with progress over the files that are read.

    Returns:
        The digest, its head, and its leaves by split.

    Raises:
        NothingSelectedError: There is no image.
        ImageError: An image cannot be read.
        UsageError: Two images of one split have one id.
    """
    dataset.require_images()
    files = _Files(dataset, cache, on_event)
    rows = SortedTable.of(LEAVES, "key")
    for part in dataset.parts():
        rows.add_rows(_leaves(part, files.shown(part), hashed=not leaves))
    files.close()
    if files.unread:
        reads = f"cxrprep verify {shlex.quote(str(dataset.root))} reads them"
        words = f"{files.unread:,} of {len(dataset):,} images were not read, and their digests taken from the record"
        on_event(Note(STAGE, f"{words}: {reads}", "warning"))
    held: dict[str, list[bytes]] = {}

    def hashes() -> Iterator[tuple[str, bytes]]:
        for key, said in rows.rows():
            if leaves:
                held.setdefault(key.partition("\0")[0], []).append(said)
            yield key, leaf_hash(said) if leaves else said

    roots = roots_of(hashes())
    described = dataset.made_from.get("policy") or dataset.policy.describe()
    source = str(dataset.made_from.get("label_source") or "")
    head = head_of([published_name(stem) for stem in dataset.observations], described, source, roots)
    return SetDigest(digest_of_head(head), head, held, files.unread)


def roots_of(hashes: Iterable[tuple[str, bytes]]) -> dict[str, tuple[int, bytes]]:
    """Of each split how many images it has, and the root over their leaves.

    Args:
        hashes: Split, dataset and id of each image as one text, sorted, and the hash of its leaf.

    Returns:
        Both, by the split.

    Raises:
        UsageError: Two images of one split have one id.
    """
    trees: dict[str, GrowingTree] = {}
    before = ""
    for key, leaf in hashes:
        split, _, name = key.partition("\0")
        if key == before:
            message = f"two images of {split or 'no split'} are called {name.partition(chr(0))[2]}"
            raise UsageError(message, hint="build the manifest again: cxrprep manifest ROOT")
        before = key
        trees.setdefault(split, GrowingTree()).add(leaf)
    return {split: (tree.count, tree.root()) for split, tree in trees.items()}


def head_of(
    vocabulary: Sequence[str], policy: Mapping[str, Any], label_source: str, roots: Mapping[str, tuple[int, bytes]]
) -> dict[str, Any]:
    """The head of a set, whose SHA-256 is its digest.

    Args:
        vocabulary: The observations, in the order in which leaves have their labels.
        policy: The label policy, as ``Policy.describe`` gives it.
        label_source: Who labelled.
        roots: Of each split how many images it has, and the root over their leaves.

    Returns:
        The head as JSON values.
    """
    return {
        "format": FORMAT,
        "vocabulary": list(vocabulary),
        "policy": policy,
        "label_source": label_source,
        "splits": {split: {"images": count, "root": root.hex()} for split, (count, root) in sorted(roots.items())},
    }


def prove(found: SetDigest, image: str, dataset: str = "") -> Proof:
    """The proof that an image is in a set. Raises ``UsageError`` for an image that is not."""
    for split, leaves in found.leaves.items():
        for index, leaf in enumerate(leaves):
            about = json.loads(leaf) if image.encode() in leaf else {}
            if about.get("id") == image and dataset in ("", about["dataset"]):
                path = inclusion_path([leaf_hash(row) for row in leaves], index)
                return Proof(found.head, split, leaf.decode(), index, len(leaves), tuple(step.hex() for step in path))
    raise UsageError(f"no image {image!r} is in this set", hint="name an image_id of its manifest")


def _text(sections: Mapping[str, str]) -> dict[str, str]:
    return {
        name: hashlib.sha256(" ".join(text.split()).encode()).hexdigest() for name, text in sections.items() if text
    }


def _leaves(part: Dataset, shown: Iterable[str], *, hashed: bool) -> Iterator[tuple[str, bytes]]:
    """Split, dataset and id of each image as one text, and its leaf or the hash of it."""
    about = part.stated.select(["dataset", "image_id", "split", "boxes"]).to_pylist()
    texts = part.report_sections().to_pylist() if part.texts else [None] * len(about)
    cells = [column.to_pylist() for column in part.labels().columns]
    labels = zip(*cells, strict=True) if cells else [()] * len(about)
    for row, label, text, found in zip(about, labels, texts, shown, strict=True):
        leaf = {
            "boxes": spelled_boxes(row["boxes"]),
            "dataset": row["dataset"],
            "id": row["image_id"],
            "labels": label,
            "pixels": found,
        }
        if text is not None:
            leaf["text"] = _text(text)
        said = canonical(leaf)
        yield f"{row['split'] or ''}\0{row['dataset']}\0{row['image_id']}", leaf_hash(said) if hashed else said


def spelled_boxes(boxes: list[dict[str, Any]] | None) -> list[list[Any]] | None:
    """Boxes as a leaf has them: label, and place and size in thousandths of a pixel; sorted."""
    if boxes is None:
        return None
    return sorted([box["label"], *(round(box[side] * 1000) for side in "xywh")] for box in boxes)


# ---- pixels ----


class _Files:
    """What the images of a set show, one part after the other; files that did not change are not read again.

    ``unread`` were never read, and go by what the record says.
    """

    def __init__(self, dataset: Dataset, cache: Path | None, on_event: Sink) -> None:
        """Nothing is read yet."""
        self.unread = 0
        self._dataset, self._cache, self._on_event = dataset, cache, on_event
        self._raw = "recipe" not in dataset.made_from
        self._checked_at = _written_at(cache.parent / "checks.parquet") if cache is not None else 0
        self._ask: Callable[[pa.Table], pa.ChunkedArray] | None = None
        self._asked_to = ""
        self._left, self._read = len(dataset), 0
        self._unsaved = False
        self._kept_at = time.monotonic()

    @cached_property
    def _known(self) -> dict[str, tuple[str, str]]:
        """Size and times of each file that was read before, and what it shows."""
        return _read_cache(self._cache)

    def shown(self, part: Dataset) -> list[str]:
        """What the pixels of each image of a part show, in order. Raises ``ImageError``."""
        # Imported late: it loads OpenCV, of which who makes a manifest has no need.
        from cxrprep.manifest.image_reader import file_sign

        paths = part.stated.column("path").to_pylist()
        found = self._published(part) if self._raw else {}
        signs = {path: file_sign(part.root, path) for path in paths if path not in found}
        found |= {path: self._known[path][1] for path, sign in signs.items() if self._known.get(path, ("",))[0] == sign}
        if self._read:
            self._on_event(Advanced(STAGE, items=len(found)))
        self._left -= len(found)
        self._read_files(part, {path: sign for path, sign in signs.items() if path not in found}, found)
        return [found[path] for path in paths]

    def close(self) -> None:
        """Keep what was read. Nothing is said where the disk refuses: it is read again the next time."""
        if self._unsaved and self._cache is not None:
            _write_cache(self._cache, self._known)
        if self._read:
            self._on_event(StageFinished(STAGE, done=self._read, kept=len(self._dataset) - self._read))

    def _read_files(self, part: Dataset, signs: Mapping[str, str], found: dict[str, str]) -> None:
        """Read files, add what they show to ``found``, and keep it from time to time."""
        if signs and not self._read:
            self._on_event(StageStarted(STAGE, items=self._left, unit="images"))
        missing = list(signs)
        stated = {} if self._raw else _stated(part)
        batches = [missing[start : start + _BATCH] for start in range(0, len(missing), _BATCH)]

        def read(batch: Sequence[str]) -> dict[str, str]:
            return _read_batch(part.root, batch, stated, raw=self._raw)

        with ThreadPoolExecutor(available_cores()) as pool:
            for batch, shown in zip(batches, pool.map(read, batches), strict=True):
                found |= shown
                self._known.update((path, (signs[path], shown[path])) for path in batch)
                self._read, self._unsaved = self._read + len(batch), True
                self._on_event(Advanced(STAGE, items=len(batch)))
                if self._cache is not None and time.monotonic() - self._kept_at > _KEEP_SECONDS:
                    _write_cache(self._cache, self._known)
                    self._kept_at, self._unsaved = time.monotonic(), False

    def _published(self, part: Dataset) -> dict[str, str]:
        """The digests of a release's own files: those of the last check, else those of the record.

        The record is asked of files that are older than the manifest. One that was touched since is read, so that the
        digest is of what a model sees.
        """
        rows = part.stated.select(["path", "bytes", "digest"])
        rows = rows.filter(pc.starts_with(rows.column("digest"), "sha256:")).sort_by("path")
        made_at, root = part.made_at_ns or 0, os.fspath(part.root)
        here: list[tuple[str, int, int, int]] = []
        stated: dict[str, str] = {}
        for path, size, digest in zip(*(column.to_pylist() for column in rows.columns), strict=True):
            try:
                stat = os.stat(f"{root}/{path}")  # noqa: PTH116  # a path object costs more than the question
            except OSError:
                continue
            if stat.st_ctime_ns <= self._checked_at:
                here.append((path, stat.st_size, stat.st_mtime_ns, stat.st_ino))
            if stat.st_size == size and max(stat.st_ctime_ns, stat.st_mtime_ns) <= made_at:
                stated[path] = digest
        checked = self._checked(here) if here else {}
        self.unread += len(stated.keys() - checked.keys())
        return stated | checked

    def _checked(self, here: Sequence[tuple[str, int, int, int]]) -> dict[str, str]:
        """What the last check read of files, in order of path, that have not changed since."""
        from cxrprep.verification.check_cache import SCHEMA, Checks

        if self._ask is None or here[0][0] <= self._asked_to:
            # Checks are walked through in order of path, which the manifest's order of patients may not be.
            assert self._cache is not None
            self._ask = Checks(self._cache.parent).known(quick=True)
        self._asked_to = here[-1][0]
        names = ("path", "size", "mtime_ns", "inode")
        columns = zip(names, zip(*here, strict=True), strict=True)
        disk = pa.table({name: pa.array(values, SCHEMA.field(name).type) for name, values in columns})
        found = {}
        for (path, *_), digests in zip(here, self._ask(disk).to_pylist(), strict=True):
            digest = next((one for one in (digests or "").split() if one.startswith("sha256:")), None)
            if digest is not None:
                found[path] = digest
        return found


def _written_at(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _stated(dataset: Dataset) -> dict[str, tuple[str, str]]:
    """What a converted image shows by its manifest, for a file of the digest that stands beside it."""
    if "pixels" not in dataset.stated.column_names:
        return {}
    columns = (dataset.stated.column(name).to_pylist() for name in ("path", "digest", "pixels"))
    return {path: (digest, pixels) for path, digest, pixels in zip(*columns, strict=True) if digest and pixels}


def _read_batch(
    root: Path, paths: Sequence[str], stated: Mapping[str, tuple[str, str]], *, raw: bool
) -> dict[str, str]:
    from cxrprep.manifest.image_reader import ImageReader

    with ImageReader(root) as reader:
        return {path: _shown(reader.read(path), path, stated.get(path), raw=raw) for path in paths}


def _shown(data: bytes, path: str, stated: tuple[str, str] | None, *, raw: bool) -> str:
    """What an image shows: stated where its bytes are those that this was stated of, else decoded."""
    if stated is not None and str(digest_of(data)) == stated[0]:
        return stated[1]
    return pixel_digest(data, path, raw=raw)


def _read_cache(path: Path | None) -> dict[str, tuple[str, str]]:
    if path is None or not path.is_file():
        return {}
    try:
        table = pq.read_table(regular(path), schema=_CACHED)
    except (OSError, pa.ArrowException):
        return {}
    columns = (table.column(name).to_pylist() for name in _CACHED.names)
    return {name: (sign, pixels) for name, sign, pixels in zip(*columns, strict=True)}


def _write_cache(path: Path, known: Mapping[str, tuple[str, str]]) -> None:
    rows = [(name, *pair) for name, pair in sorted(known.items())]
    arrays = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=_CACHED)
    # A folder that may not be written to is read again the next time.
    with contextlib.suppress(StorageError):
        replace_file(path, lambda part: pq.write_table(table, part))
