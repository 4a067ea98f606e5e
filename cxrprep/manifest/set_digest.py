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

import hashlib
import json
import os
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.digests import digest_of
from cxrprep.errors import UsageError
from cxrprep.events import Advanced, Note, Sink, StageFinished, StageStarted, ignore
from cxrprep.humanize import short_repr
from cxrprep.images.pixel_digest import pixel_digest
from cxrprep.manifest.merkle_tree import GrowingTree, leaf_hash, root_by_path
from cxrprep.manifest.pixel_cache import PixelCache
from cxrprep.storage.sorted_tables import SortedTable
from cxrprep.system import available_cores
from cxrprep.vocabulary import published_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from cxrprep.labels.policy import Policy
    from cxrprep.manifest.load import Dataset

FORMAT: Final = "cxrprep-set/1"
PIXELS_NAME: Final = "pixel-digests.parquet"
"""The file of the cache that keeps what was read of each image."""
STAGE: Final = "digest"
_ROWS: Final = 8192
_ESCAPED: Final = r"[\x00-\x1f\"\\]"
_BATCH: Final = 256


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


@dataclass(frozen=True, slots=True)
class SetDigest:
    """The digest of a training set with its ``head``, and the ``proof`` that the image is in it that one was asked of.

    ``unread`` images of a release go by the digests of its record: their files were there before the manifest was
    written, and no check has read them since.
    """

    __repr__ = short_repr

    value: str
    head: Mapping[str, Any]
    unread: int = 0
    proof: Proof | None = None

    def __str__(self) -> str:
        """The 64 digits."""
        return self.value


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and without blanks, as UTF-8: one spelling for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of_head(head: Mapping[str, Any]) -> str:
    """The 64 digits that a head has."""
    return hashlib.sha256(canonical(dict(head))).hexdigest()


def set_digest(
    dataset: Dataset, *, cache: Path | None = None, image: str | None = None, on_event: Sink = ignore
) -> SetDigest:
    """The digest of the images of ``dataset`` with its labels after its policy.

    Args:
        dataset: The images, with the sections of reports that were asked for; their files are read, unless their size
            and times say that they are those of last time. White space in text counts as one blank.
        cache: A Parquet file that keeps what was read of each file from one call to the next, that of a call that was
            killed too; ``None`` keeps nothing.
        image: The id of an image of which a proof is made.
        on_event: Called with progress over the files that are read.

    Returns:
        The digest, its head, and the proof, which is ``None`` for an image that is not in the set.

    Raises:
        NothingSelectedError: There is no image.
        ImageError: An image cannot be read.
        UsageError: Two images of one split have one id.
    """
    dataset.require_images()
    files, leaves = _Files(dataset, cache, on_event), Leaves(image)
    for part in dataset.parts():
        texts = [canonical(_text(row)).decode() for row in part.report_sections().to_pylist()] if part.texts else None
        leaves.add(part.stated, part.labels(), pa.array(files.shown(part), pa.string()), texts)
    files.close()
    if files.unread:
        reads = f"cxrprep verify {shlex.quote(str(dataset.root))} reads them"
        words = f"{files.unread:,} of {len(dataset):,} images were not read, and their digests taken from the record"
        on_event(Note(STAGE, f"{words}: {reads}", "warning"))
    found = leaves.digest(dataset.observations, dataset.made_from, dataset.policy)
    return replace(found, unread=files.unread)


class Leaves:
    """The leaves of a set: their hashes in a temporary file, and that of the image ``proven`` as it is."""

    def __init__(self, proven: str | None = None) -> None:
        """No leaf yet."""
        self._hashes = SortedTable.of({"key": "string", "leaf": "binary"}, "key")
        self._image = proven
        self._proven: dict[str, str] = {}

    def add(self, images: pa.Table, labels: pa.Table, pixels: Any, texts: Sequence[str] | None = None) -> None:
        """The leaves of some images, spelled and hashed column by column: 1.6 s for 377,110 on one core.

        Args:
            images: Rows of a manifest.
            labels: Their labels after the policy, in the order of the vocabulary.
            pixels: What each of them shows.
            texts: The sections of their reports as JSON, where some are asked for.
        """
        dataset, name, split = (images.column(each).cast(pa.string()) for each in ("dataset", "image_id", "split"))
        boxes = images.column("boxes") if "boxes" in images.column_names else pa.nulls(images.num_rows)
        key = pc.binary_join_element_wise(pc.fill_null(split, ""), dataset, name, "\0")
        about = {"key": key, "dataset": dataset, "id": name, "boxes": boxes, "pixels": pixels}
        about |= {} if texts is None else {"text": pa.array(texts, pa.string())}
        held = pa.table(
            [*about.values(), *labels.columns], [*about, *(f"label {n}" for n in range(len(labels.columns)))]
        )
        for start in range(0, len(held), _ROWS):
            rows = held.slice(start, _ROWS)
            leaves = _spelled(rows)
            if self._image is not None:
                asked = pc.equal(rows.column("id"), self._image)
                both = (column.filter(asked).to_pylist() for column in (rows.column("key"), leaves))
                self._proven.update(zip(*both, strict=True))
            hashes = [leaf_hash(leaf) for leaf in leaves.cast(pa.binary()).to_pylist()]
            self._hashes.append(pa.table({"key": rows.column("key"), "leaf": pa.array(hashes, pa.binary())}))

    def digest(self, stems: Iterable[str], made_from: Mapping[str, Any], policy: Policy) -> SetDigest:
        """The digest of all of them, whose labels are of these observations; ``policy`` where the footer says of none.

        Raises ``UsageError`` where two images of one split have one id.
        """
        # Of an id that stands in several splits the first.
        key, leaf = min(self._proven.items(), default=("", ""))
        trees = self._trees(key)
        splits = {split: {"images": tree.count, "root": tree.root().hex()} for split, tree in sorted(trees.items())}
        head = {
            "format": FORMAT,
            "vocabulary": [published_name(stem) for stem in stems],
            "policy": made_from.get("policy") or policy.describe(),
            "label_source": str(made_from.get("label_source") or ""),
            "splits": splits,
        }
        proof = None
        if key:
            tree = trees[split := key.partition("\0")[0]]
            path = tuple(step.hex() for step in tree.inclusion_path())
            proof = Proof(head, split, leaf, tree.index, tree.count, path)
        return SetDigest(digest_of_head(head), head, proof=proof)

    def _trees(self, proven: str) -> dict[str, GrowingTree]:
        trees: dict[str, GrowingTree] = {}
        before = ""
        for key, leaf in self._hashes.rows():
            split, _, name = key.partition("\0")
            if key == before:
                message = f"two images of {split or 'no split'} are called {name.partition(chr(0))[2]}"
                raise UsageError(message, hint="build the manifest again: cxrprep manifest ROOT")
            before = key
            trees.setdefault(split, GrowingTree()).add(leaf, proven=key == proven)
        return trees


def _spelled(rows: pa.Table) -> pa.ChunkedArray:
    """The leaves of some rows, as ``canonical`` would spell each."""
    cells = [rows.column(name).cast(pa.string()) for name in rows.column_names if name.startswith("label ")]
    labels: Any = pa.array([""]).take(pa.array([0] * len(rows)))
    if cells:
        labels = pc.binary_join_element_wise(*cells, ",", null_handling="replace", null_replacement="null")
    boxes = rows.column("boxes")
    drawn = (
        pa.array(["null"]).take(pa.array([0] * len(rows)))
        if boxes.null_count == len(rows)
        else pa.array([canonical(spelled_boxes(each)).decode() for each in boxes.to_pylist()], pa.string())
    )
    text = (',"text":', rows.column("text")) if "text" in rows.column_names else ()
    return pc.binary_join_element_wise(
        '{"boxes":', drawn, ',"dataset":', _quoted(rows.column("dataset")), ',"id":', _quoted(rows.column("id")),
        ',"labels":[', labels, '],"pixels":', _quoted(rows.column("pixels")), *text, "}", "",
    )  # fmt: skip


def _quoted(words: pa.ChunkedArray) -> Any:
    """Words as JSON has them."""
    if pc.any(pc.match_substring_regex(words, _ESCAPED)).as_py():
        return pa.array([canonical(word).decode() for word in words.to_pylist()], pa.string())
    return pc.binary_join_element_wise('"', words, '"', "")


def _text(sections: Mapping[str, str]) -> dict[str, str]:
    return {
        name: hashlib.sha256(" ".join(text.split()).encode()).hexdigest() for name, text in sections.items() if text
    }


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
        self._known = PixelCache(cache)

    def shown(self, part: Dataset) -> list[str]:
        """What the pixels of each image of a part show, in order. Raises ``ImageError``."""
        # Imported late: it loads OpenCV, of which who makes a manifest has no need.
        from cxrprep.manifest.image_reader import file_sign

        paths = part.stated.column("path").to_pylist()
        found = self._published(part) if self._raw else {}
        signs = {path: file_sign(part.root, path) for path in paths if path not in found}
        found |= self._known.known(signs)
        if self._read:
            self._on_event(Advanced(STAGE, items=len(found)))
        self._left -= len(found)
        self._read_files(part, {path: sign for path, sign in signs.items() if path not in found}, found)
        return [found[path] for path in paths]

    def close(self) -> None:
        """Keep what was read. Nothing is said where the disk refuses: it is read again the next time."""
        self._known.save()
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
                self._known.add(signs, shown)
                self._read += len(batch)
                self._on_event(Advanced(STAGE, items=len(batch)))

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
