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
import itertools
import json
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.errors import NothingSelectedError, StorageError, UsageError
from cxrprep.events import Advanced, Note, StageFinished, StageStarted, ignore
from cxrprep.humanize import short_repr
from cxrprep.images.pixel_digest import pixel_digest
from cxrprep.manifest.merkle_tree import inclusion_path, leaf_hash, merkle_root, root_by_path
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.small_files import regular
from cxrprep.system import available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cxrprep.events import Sink
    from cxrprep.manifest.load import Dataset

FORMAT: Final = "cxrprep-set/1"
PIXELS_NAME: Final = "pixel-digests.parquet"
"""The file of the cache that keeps what was read of each image."""
_CACHED: Final = pa.schema([("path", pa.string()), ("sign", pa.string()), ("pixels", pa.string())])
STAGE: Final = "digest"
_BATCH: Final = 256
# Files whose size and times are held at once.
_FILES: Final = 1 << 15
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
        """The proof that ``as_json`` described. Raises ``UsageError`` for anything else."""
        try:
            names = (str(data["split"]), str(data["leaf"]), int(data["index"]), int(data["size"]))
            path = tuple(str(step) for step in data["path"])
            if data["format"] != FORMAT or not isinstance(data["head"], dict):
                raise ValueError(data["format"])
            return cls(data["head"], *names, path)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                "this is not a proof of a training set",
                hint="make one: cxrprep prove DIGEST ROOT --image ID --out FILE",
            ) from error

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
    if not len(dataset):
        raise NothingSelectedError(
            "there is no image", hint="use fewer conditions in the selection, or build the manifest"
        )
    by_split: dict[str, list[tuple[str, str, bytes]]] = {}
    pixels, unread = _pixels(dataset, cache, on_event)
    if unread:
        on_event(
            Note(
                STAGE,
                f"{unread:,} of {len(dataset):,} images were not read, and their digests taken from the record: "
                f"cxrprep verify {shlex.quote(str(dataset.root))} reads them",
                "warning",
            )
        )
    for row, found in zip(_rows(dataset), pixels, strict=True):
        leaf = {
            "boxes": row["boxes"],
            "dataset": row["dataset"],
            "id": row["id"],
            "labels": row["labels"],
            "pixels": found,
        }
        if row["text"] is not None:
            leaf["text"] = _text(row["text"])
        said = canonical(leaf)
        held = (row["dataset"], row["id"], said if leaves else leaf_hash(said))
        by_split.setdefault(row["split"] or "", []).append(held)
    ordered = {split: _ordered(split, by_split.pop(split)) for split in sorted(by_split)}
    described = dataset.made_from.get("policy") or dataset.policy.describe()
    hashes = {split: [leaf_hash(row) for row in rows] for split, rows in ordered.items()} if leaves else ordered
    source = str(dataset.made_from.get("label_source") or "")
    roots = {split: (len(rows), merkle_root(rows)) for split, rows in hashes.items()}
    head = head_of(dataset.labels().column_names, described, source, roots)
    return SetDigest(digest_of_head(head), head, ordered if leaves else {}, unread)


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


def _ordered(split: str, rows: list[tuple[str, str, bytes]]) -> list[bytes]:
    rows.sort()
    for before, after in itertools.pairwise(rows):
        if before[:2] == after[:2]:
            message = f"two images of {split or 'no split'} are called {after[1]}"
            raise UsageError(message, hint="build the manifest again: cxrprep manifest ROOT")
    return [leaf for _, _, leaf in rows]


def _text(sections: Mapping[str, str]) -> dict[str, str]:
    return {
        name: hashlib.sha256(" ".join(text.split()).encode()).hexdigest() for name, text in sections.items() if text
    }


def _rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    columns = dataset.stated.select(["dataset", "image_id", "study_id", "split", "boxes"])
    labels = dataset.labels()
    texts = dataset.report_sections()
    for start in range(0, len(dataset), 8192):
        about = columns.slice(start, 8192).to_pylist()
        rows_of_text = texts.slice(start, 8192).to_pylist() if dataset.texts else [None] * len(about)
        cells = zip(*(column.to_pylist() for column in labels.slice(start, 8192).columns), strict=True)
        values = list(cells) if labels.num_columns else [()] * len(about)
        for row, label, text in zip(about, values, rows_of_text, strict=True):
            yield {
                "dataset": row["dataset"], "id": row["image_id"], "study": row["study_id"], "split": row["split"],
                "labels": list(label), "boxes": spelled_boxes(row["boxes"]), "text": text,
            }  # fmt: skip


def spelled_boxes(boxes: list[dict[str, Any]] | None) -> list[list[Any]] | None:
    """Boxes as a leaf has them: label, and place and size in thousandths of a pixel; sorted."""
    if boxes is None:
        return None
    return sorted([box["label"], *(round(box[side] * 1000) for side in "xywh")] for box in boxes)


# ---- pixels ----


def _pixels(dataset: Dataset, cache: Path | None, on_event: Sink) -> tuple[list[str], int]:
    """What the pixels of each image are, in order; files that did not change are not read again.

    Beside them how many were never read, and go by what the record says.
    """
    paths = dataset.stated.column("path").to_pylist()
    raw = "recipe" not in dataset.made_from
    known = _read_cache(cache)
    found, unread = _published(dataset, cache) if raw else ({}, 0)
    # Here and below imported late: it loads OpenCV, of which who makes a manifest has no need.
    from cxrprep.manifest.image_reader import file_sign

    signs = ["" if path in found else file_sign(dataset.root, path) for path in paths]
    missing = []
    for index, (path, sign) in enumerate(zip(paths, signs, strict=True)):
        if path not in found and known.get(path, ("", ""))[0] != sign:
            missing.append(index)
        elif path not in found:
            found[path] = known[path][1]
    if missing:
        on_event(StageStarted(STAGE, items=len(missing), unit="images"))
    with ThreadPoolExecutor(available_cores()) as pool:
        batches = [missing[start : start + _BATCH] for start in range(0, len(missing), _BATCH)]
        stated = {} if raw else _stated(dataset)

        def read(batch: Sequence[int]) -> dict[str, str]:
            return _read_batch(dataset.root, [paths[i] for i in batch], stated, raw=raw)

        kept_at = time.monotonic()
        for batch, shown in zip(batches, pool.map(read, batches), strict=True):
            found |= shown
            known |= {paths[i]: (signs[i], found[paths[i]]) for i in batch}
            on_event(Advanced(STAGE, items=len(batch)))
            if cache is not None and (batch is batches[-1] or time.monotonic() - kept_at > _KEEP_SECONDS):
                _write_cache(cache, known)
                kept_at = time.monotonic()
    if missing:
        on_event(StageFinished(STAGE, done=len(missing), kept=len(paths) - len(missing)))
    return [found[path] for path in paths], unread


def _published(dataset: Dataset, cache: Path | None) -> tuple[dict[str, str], int]:
    """The digests of a release's own files: those of the last check, else those of the record; how many are the latter.

    The record is asked of files that are older than the manifest. One that was touched since is read, so that the
    digest is of what a model sees.
    """
    from cxrprep.verification.check_cache import Checks

    rows = dataset.stated.select(["path", "bytes", "digest"])
    rows = rows.filter(pc.starts_with(rows.column("digest"), "sha256:")).sort_by("path")
    checked_at = _written_at(cache.parent / "checks.parquet") if cache is not None else 0
    ask = Checks(cache.parent).known(quick=True) if checked_at and cache is not None else None
    made_at, root = dataset.made_at_ns or 0, os.fspath(dataset.root)
    found: dict[str, str] = {}
    unread = 0
    for start in range(0, len(rows), _FILES):
        here: list[tuple[str, int, int, int]] = []
        stated: dict[str, str] = {}
        for path, size, digest in zip(
            *(column.to_pylist() for column in rows.slice(start, _FILES).columns), strict=True
        ):
            try:
                stat = os.stat(f"{root}/{path}")  # noqa: PTH116  # a path object costs more than the question
            except OSError:
                continue
            if stat.st_ctime_ns <= checked_at:
                here.append((path, stat.st_size, stat.st_mtime_ns, stat.st_ino))
            if stat.st_size == size and max(stat.st_ctime_ns, stat.st_mtime_ns) <= made_at:
                stated[path] = digest
        checked = _checked(ask, here) if here and ask is not None else {}
        found |= stated | checked
        unread += len(stated.keys() - checked.keys())
    return found, unread


def _written_at(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _checked(ask: Callable[[pa.Table], pa.ChunkedArray], here: Sequence[tuple[str, int, int, int]]) -> dict[str, str]:
    """What the last check read of files, in order of path, that have not changed since."""
    from cxrprep.verification.check_cache import SCHEMA

    names = ("path", "size", "mtime_ns", "inode")
    disk = pa.table(
        {
            name: pa.array(values, SCHEMA.field(name).type)
            for name, values in zip(names, zip(*here, strict=True), strict=True)
        }
    )
    found = {}
    for (path, *_), digests in zip(here, ask(disk).to_pylist(), strict=True):
        digest = next((one for one in (digests or "").split() if one.startswith("sha256:")), None)
        if digest is not None:
            found[path] = digest
    return found


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
    if stated is not None and f"sha256:{hashlib.sha256(data).hexdigest()}" == stated[0]:
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
