"""Image files by the path that a manifest gives them: files of the folder, or members of its tar or Parquet shards."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from cxrprep.digests import digest_of
from cxrprep.errors import AlteredImageError, ImageError
from cxrprep.images.decode import read_bytes
from cxrprep.images.local_files import open_store
from cxrprep.images.shard_files import ShardReader
from cxrprep.storage.paths import MEMBER, inside
from cxrprep.storage.unfetched import unfetched

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.images.radiograph import ImageLimits

_FORMS: Final = {"tar": "webdataset", "parquet": "parquet"}
# Open shards that a reader keeps: a loader that shuffles comes back to each of them.
_OPEN: Final = 16


class ImageReader(contextlib.AbstractContextManager["ImageReader"]):
    """Reads the images of one folder. It may be handed to worker processes, which open shards themselves.

    ``root`` may be the address of a bucket folder, for workers that see no working copy of it.
    """

    def __init__(self, root: Path | str) -> None:
        self._root = root
        self._shards: OrderedDict[str, ShardReader] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """The folder alone: open files belong to their process."""
        return {"_root": self._root, "_shards": OrderedDict()}

    def read(self, path: str, limits: ImageLimits | None = None) -> bytes:
        """The bytes of the image at ``path``, as the manifest spells it.

        Raises ``ImageError`` when it is not there, ``UnsafePathError`` for a path that leads out of the folder.
        """
        member = MEMBER.fullmatch(inside(path))
        if member is not None and (isinstance(self._root, str) or not (self._root / path).is_file()):
            return self._of_shard(member[1], _FORMS[member[2]], member[3])
        if isinstance(self._root, str):
            return open_store(self._root).read(path, limits)
        return read_bytes(self._root / path) if limits is None else read_bytes(self._root / path, limits)

    def read_recorded(self, path: str, digest: str | None) -> bytes:
        """The same, where the manifest states ``digest``. Raises ``AlteredImageError`` for other bytes."""
        data = self.read(path)
        if digest and str(digest_of(data, digest.partition(":")[0])) != digest:
            raise AlteredImageError.of(f"{self._root}/{path}")
        return data

    def _of_shard(self, shard: str, form: str, name: str) -> bytes:
        held = self._shards.pop(shard, None) or ShardReader(open_store(self._root), shard, form)
        self._shards[shard] = held
        if len(self._shards) > _OPEN:
            self._shards.popitem(last=False)[1].close()
        data = held.get(name)
        if data is None:
            raise ImageError(
                f"{self._root}/{shard} does not hold {name}", hint="convert again: the shard is made again"
            )
        return data

    def close(self) -> None:
        """Let go of the shards that are open."""
        while self._shards:
            self._shards.popitem()[1].close()

    def __del__(self) -> None:
        """Let go of the shards: the data sets of loaders have no end that anybody would tell them of."""
        self.close()

    def __exit__(self, *_: object) -> None:
        """Let go of the shards."""
        self.close()


def file_sign(root: Path, path: str) -> str:
    """What changes with the file that holds an image: its size, times and inode. Raises ``ImageError``."""
    member = MEMBER.fullmatch(path)
    place = root / (path if member is None else member[1])
    try:
        stat = place.stat()
    except OSError as error:
        there = unfetched(root)
        entry = None if there is None else there.find(path)
        if entry is not None:
            return entry.stamp
        raise ImageError(f"{place} is gone", hint="cxrprep verify ROOT lists what is missing") from error
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}"
