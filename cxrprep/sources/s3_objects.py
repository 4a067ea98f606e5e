"""Objects as S3 describes them, and what speaks its protocol (MinIO, Ceph, R2, Google's XML): listings and digests.

The rules of listings are those of Amazon's "ListObjectsV2" and "ListObjects". The digests stand in neither: an ETag is
the MD5 of some objects only, and which ones the answer to GET alone says.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cxrprep.model import Digest, RemoteFile
from cxrprep.sources.azure_blob import quoted, read_xml
from cxrprep.sources.base import no_listing, pages
from cxrprep.sources.http_response import HttpResponse, date_of, from_base64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from xml.etree.ElementTree import Element

    from cxrprep.sources.base import ByteStream

_XML: Final = re.compile(
    rb"\s*(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*)?<(?:\w+:)?ListBucketResult\b", re.DOTALL
)
_CODE: Final = re.compile(rb"<Error>.*<Code>\s*(\w+)\s*</Code>", re.DOTALL)
_MD5: Final = re.compile(r'"([0-9a-f]{32})"')
# Strongest first; x-amz-checksum-crc64nvme is an algorithm that no file here is checked by.
_CHECKSUMS: Final = ("sha256", "sha1", "crc32c", "crc32")
_NAMESPACE: Final = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class ListingPage:
    """The objects of one page, their keys counted from the bucket, and the query words that ask for the next page.

    ``next`` is empty at the end. ``prefix`` is what the keys of the page begin with.
    """

    objects: tuple[RemoteFile, ...]
    next: Mapping[str, str]
    prefix: str = ""


def is_listing(body: bytes) -> bool:
    """Whether ``body`` is a listing of this kind."""
    return _XML.match(body) is not None


def read_listing(body: bytes, where: str) -> ListingPage:
    """The page in ``body``. Raises ``SourceUnreachableError`` for what is none, or has no way to what follows."""
    root = read_xml(body, where)
    for element in root.iter():
        element.tag = _NAMESPACE.sub("", element.tag)
    if root.tag != "ListBucketResult":
        raise no_listing(where, f"that begins with {root.tag!r}")
    plain: Callable[[str], str] = urllib.parse.unquote_plus if root.findtext("EncodingType") == "url" else str
    objects = tuple(_objects(root, plain))
    following: dict[str, str] = {}
    if (root.findtext("IsTruncated") or "").strip().lower() == "true":
        token, marker = root.findtext("NextContinuationToken"), root.findtext("NextMarker")
        # ListObjects (version 1) names its marker only where keys are grouped; else the last key is it.
        last = root.findall("Contents")[-1].findtext("Key") if root.find("Contents") is not None else None
        if token:
            following = {"list-type": "2", "continuation-token": token}
        elif marker or last:
            following = {"marker": plain(marker or last or "")}
        else:
            raise no_listing(where, "that goes on and does not say where")
    return ListingPage(objects, following, plain(root.findtext("Prefix") or ""))


def read_pages(ask: Callable[[Mapping[str, str]], bytes], where: str) -> Iterator[ListingPage]:
    """All pages; ``ask`` gets the body of the one that query words ask for, none for the first.

    Raises as ``read_listing``, and for a listing that comes back to where it was.
    """

    def read(words: tuple[tuple[str, str], ...]) -> tuple[ListingPage, tuple[tuple[str, str], ...]]:
        page = read_listing(ask(dict(words)), where)
        return page, tuple(page.next.items())

    first: tuple[tuple[str, str], ...] = ()
    return pages(read, where, first)


def _objects(root: Element, plain: Callable[[str], str]) -> Iterator[RemoteFile]:
    for item in root.findall("Contents"):
        key, size = plain(item.findtext("Key") or ""), item.findtext("Size") or ""
        if not key or key.endswith("/"):
            # Consoles make objects that stand for folders.
            continue
        yield RemoteFile(
            key,
            int(size) if size.isdecimal() else None,
            validator=quoted(item.findtext("ETag")),
            modified=date_of(item.findtext("LastModified")),
        )


def error_code(answer: HttpResponse) -> str:
    """What the service calls the reason of a refusal, such as ``AccessDenied``; ``""`` where it is no such service."""
    found = _CODE.search(answer.body)
    return found[1].decode() if found else ""


def described(stream: ByteStream) -> ByteStream:
    """The stream with the digest that its answer states of the whole object, where it states one."""
    answer: HttpResponse | None = getattr(stream, "answer", None)
    if answer is None or answer.codings:
        return stream
    found = _checksums(answer)
    strong = next((digest for digest in found if digest.algorithm.startswith("sha")), None)
    stream.digest = strong or _md5(answer) or next(iter(found), stream.digest)
    return stream


def _checksums(answer: HttpResponse) -> Sequence[Digest]:
    """The checksums that the object was stored with, strongest first.

    One of parts (``...-3``, COMPOSITE) is of no whole file, nor may be one that came with a range:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html.
    """
    if answer.status != 200 or answer.headers.get("x-amz-checksum-type", "").upper() == "COMPOSITE":
        return ()
    found = [from_base64(algorithm, answer.headers.get(f"x-amz-checksum-{algorithm}")) for algorithm in _CHECKSUMS]
    return [digest for digest in found if digest is not None]


def _md5(answer: HttpResponse) -> Digest | None:
    """The MD5 in the ETag of an object that was stored in one part, and not encrypted by a key of KMS or the user's.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    """
    encrypted = answer.headers.get("x-amz-server-side-encryption", "AES256")
    by_customer = "x-amz-server-side-encryption-customer-algorithm" in answer.headers
    found = _MD5.fullmatch(answer.headers.get("etag", ""))
    return Digest("md5", found[1]) if found and encrypted == "AES256" and not by_customer else None
