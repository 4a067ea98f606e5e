"""Checksums that object stores state of an object, and whether a file here agrees with them.

Google states MD5 and CRC32C (of a composite object CRC32C alone), Azure an MD5 of what came in one piece. The ETag of
S3 is the MD5 of an object written in one part and not encrypted with a key of its own; of one written in parts it is
the MD5 of the parts' MD5s, which can be computed where their size can be told. Beside it S3 may hold a checksum of the
whole (x-amz-checksum-*), which it tells who asks for it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import re
from typing import TYPE_CHECKING, Any, Final

from cxrprep.digests import digest_of, file_digest
from cxrprep.model import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    # A file, or the bytes of one that lies nowhere here.
    Content = Path | bytes

MIB: Final = 1 << 20
# Size of the parts in which files go up; a file of less than two of them goes up whole.
PART_BYTES: Final = 16 * MIB
# What others write with: aws-cli and boto3, Hadoop and s3fs, rclone, s3cmd, MinIO, AWS' transfer manager and consoles.
_PARTS: Final = tuple(size * MIB for size in (16, 8, 50, 5, 15, 64, 10, 17, 32, 100, 128, 512))
_OF_PARTS: Final = re.compile(r"([0-9a-f]{32})-(\d+)")
_OF_SHA: Final = frozenset({"sha256", "sha1"})
_WHOLE: Final = {
    "sha256": "ChecksumSHA256",
    "sha1": "ChecksumSHA1",
    "crc32c": "ChecksumCRC32C",
    "crc32": "ChecksumCRC32",
}


def stated_md5(about: Mapping[str, Any]) -> Digest | None:
    """The MD5 that Google or Azure states of the whole object in its listing; ``None`` without one."""
    settings = about.get("content_settings")
    if settings is not None and settings.get("content_md5"):
        return Digest("md5", bytes(settings["content_md5"]).hex())
    return _decoded("md5", about.get("md5Hash"))


def stated(about: Mapping[str, Any]) -> Digest | None:
    """The MD5, or else the CRC32C, that Google or Azure states of the whole object; ``None`` without either."""
    return stated_md5(about) or _decoded("crc32c", about.get("crc32c"))


def etag_md5(tag: str) -> Digest | None:
    """The ETag of S3 where it has the form of an MD5: it is one unless the object has a key of its own."""
    return Digest("md5", tag) if re.fullmatch(r"[0-9a-f]{32}", tag) else None


def whole(head: Mapping[str, Any]) -> Digest | None:
    """The checksum of the whole object that S3 tells with ``ChecksumMode``; that of parts has a dash in it."""
    if head.get("ChecksumType") == "COMPOSITE":
        return None
    # Of an object in parts S3 has no SHA of the whole, whatever an imitation of it leaves out.
    left = _OF_SHA if is_of_parts(_tag(head)) else frozenset[str]()
    found = (_decoded(algorithm, head.get(name)) for algorithm, name in _WHOLE.items() if algorithm not in left)
    return next((digest for digest in found if digest is not None), None)


def of_parts(head: Mapping[str, Any]) -> str | None:
    """The SHA-256 of the parts' SHA-256, with their number, that S3 tells with ``ChecksumMode`` of such an object."""
    stated, count = str(head.get("ChecksumSHA256") or ""), _OF_PARTS.fullmatch(_tag(head))
    if stated and count is not None:
        return f"{stated.partition('-')[0]}-{count[2]}"
    return stated if "-" in stated else None


def _tag(head: Mapping[str, Any]) -> str:
    return str(head.get("ETag") or "").strip('"')


def sha256_of_parts(content: Content, part: int) -> str:
    """The same of a file or bytes in parts of this size."""
    sums = [hashlib.sha256(data).digest() for data in _blocks(content, part)]
    return f"{base64.b64encode(hashlib.sha256(b''.join(sums)).digest()).decode()}-{len(sums)}"


def is_keyed(head: Mapping[str, Any]) -> bool:
    """Whether an object of S3 is encrypted with a key of its own: its ETag then says nothing of its bytes."""
    return head.get("ServerSideEncryption") in ("aws:kms", "aws:kms:dsse") or bool(head.get("SSECustomerAlgorithm"))


def agrees_in_parts(content: Content, tag: str) -> bool:
    """Whether a usual size of parts gives the content this ETag of parts; if none does, they had another."""
    match = _OF_PARTS.fullmatch(tag)
    if match is None:
        return False
    size, count = size_of(content), int(match[2])
    fitting = [part for part in _PARTS if max(1, -(-size // part)) == count]
    return any(_etag(content, part) == match[0] for part in fitting)


def is_of_parts(tag: str) -> bool:
    """Whether an ETag is one of parts."""
    return _OF_PARTS.fullmatch(tag) is not None


def agrees(content: Content, digest: Digest) -> bool:
    """Whether the content has this digest."""
    if isinstance(content, bytes):
        return digest_of(content, digest.algorithm) == digest
    return file_digest(content, digest.algorithm) == str(digest)


def sha256_header(content: Content) -> str:
    """The SHA-256 of the content as ``x-amz-checksum-sha256`` spells it."""
    if isinstance(content, bytes):
        return base64.b64encode(hashlib.sha256(content).digest()).decode()
    with content.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha256").digest()).decode()


def size_of(content: Content) -> int:
    """Bytes of the content."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _etag(content: Content, part: int) -> str:
    sums = [hashlib.md5(data, usedforsecurity=False).digest() for data in _blocks(content, part)]
    return f"{hashlib.md5(b''.join(sums), usedforsecurity=False).hexdigest()}-{len(sums)}"


def _blocks(content: Content, size: int) -> Iterator[bytes]:
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while data := file.read(size):
            yield data


def _decoded(algorithm: str, text: object) -> Digest | None:
    if isinstance(text, str):
        with contextlib.suppress(ValueError):
            return Digest(algorithm, base64.b64decode(text).hex())
    return None
