"""Upload of a large file to S3 in parts, each with its SHA-256; one that was stopped goes on with the parts there."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Parts under way: each of them is in memory.
_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the file: its number from 1, where it begins, its bytes, and its digests as S3 spells them."""

    number: int
    start: int
    size: int
    sha256: str
    md5: str


@dataclass(frozen=True, slots=True)
class PartsUpload:
    """An upload of the file at ``path`` to ``key``, in parts of ``part_bytes``.

    ``system`` is s3fs's; ``checksums``: the store takes SHA-256, holds each part to it, and states that of the parts.
    """

    system: Any
    bucket: str
    key: str
    path: Path
    part_bytes: int
    checksums: bool

    def perform(self) -> None:
        """Send what is not there yet, and let the object appear. Raises what the store's library raises.

        What fails leaves its parts there for the next run, as ``kill -9`` does.
        """
        parts = list(self._parts())
        upload, there = self._earlier(parts)
        upload = upload or str(self._call("create_multipart_upload", **self._algorithm())["UploadId"])
        missing = [part for part in parts if part.number not in there]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            sent = dict(pool.map(lambda part: self._send(upload, part), missing))
        tags = {**there, **sent}
        stated = [
            {
                "PartNumber": part.number,
                "ETag": tags[part.number],
                **({"ChecksumSHA256": part.sha256} if self.checksums else {}),
            }
            for part in parts
        ]
        self._call("complete_multipart_upload", UploadId=upload, MultipartUpload={"Parts": stated})

    def _parts(self) -> Iterator[_Part]:
        with self.path.open("rb") as file:
            for number, data in enumerate(iter(lambda: file.read(self.part_bytes), b""), 1):
                sha256 = base64.b64encode(hashlib.sha256(data).digest()).decode()
                md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
                yield _Part(number, (number - 1) * self.part_bytes, len(data), sha256, md5)

    def _earlier(self, parts: list[_Part]) -> tuple[str, dict[int, str]]:
        """An upload of these very parts that was stopped, and the ETags of those that came; others are given up.

        A login that may not ask begins anew, and so does one at a store that cannot tell.
        """
        with contextlib.suppress(OSError, NotImplementedError):
            found = self.system.call_s3("list_multipart_uploads", Bucket=self.bucket, Prefix=self.key)
            ours = [one for one in found.get("Uploads") or () if one["Key"] == self.key]
            for one in sorted(ours, key=lambda one: str(one.get("Initiated")), reverse=True):
                upload = str(one["UploadId"])
                there = {int(part["PartNumber"]): part for part in self._sent_parts(upload)}
                if there and all(_is_same(part, there.get(part.number)) for part in parts) and max(there) <= len(parts):
                    return upload, {number: str(part["ETag"]) for number, part in there.items()}
                self._call("abort_multipart_upload", UploadId=upload)
        return "", {}

    def _sent_parts(self, upload: str) -> Iterator[dict[str, Any]]:
        marker = 0
        while True:
            found = self._call("list_parts", UploadId=upload, PartNumberMarker=marker)
            yield from found.get("Parts") or ()
            if not found.get("IsTruncated"):
                return
            marker = int(found["NextPartNumberMarker"])

    def _send(self, upload: str, part: _Part) -> tuple[int, str]:
        with self.path.open("rb") as file:
            file.seek(part.start)
            data = file.read(part.size)
        more = {"ChecksumSHA256": part.sha256} if self.checksums else {}
        answer = self._call(
            "upload_part", UploadId=upload, PartNumber=part.number, Body=data, **self._algorithm(), **more
        )
        return part.number, str(answer["ETag"])

    def _algorithm(self) -> dict[str, str]:
        return {"ChecksumAlgorithm": "SHA256"} if self.checksums else {}

    def _call(self, method: str, **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.system.call_s3(method, Bucket=self.bucket, Key=self.key, **more)
        return answer


def _is_same(part: _Part, there: dict[str, Any] | None) -> bool:
    """Whether a part that came is that of the file; one that did not come is none that differs."""
    if there is None:
        return True
    stated = there.get("ChecksumSHA256")
    told = stated == part.sha256 if stated else str(there.get("ETag")).strip('"') == part.md5
    return told and int(there.get("Size", -1)) == part.size
