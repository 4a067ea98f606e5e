"""Listing of an object store, page by page: what fsspec itself keeps of a listing takes a kilobyte an object."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import SourceUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

# What is asked of Google: names, times and what tells their content.
_FIELDS: Final = "kind,nextPageToken,items(name,size,etag,generation,updated,md5Hash,crc32c)"
_GOOGLE_PAGE: Final = 5000
ANOTHER_ANSWERS: Final = "a proxy or a page to sign in may stand before the store: check its address and the network"
"""The hint where an answer is none of the store's."""


def objects_below(system: Any, url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object below a folder: its name counted from there, and what the store says of it, as when ``written``.

    Args:
        system: The fsspec file system that serves ``url``.
        url: The folder; nothing is yielded where there is none.
    """
    inside = system._strip_protocol(url)  # noqa: SLF001  # fsspec's own way from URL to path
    bucket, _, folder = inside.partition("/")
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    if hasattr(system, "call_s3"):
        found = _amazon(system, bucket, prefix)
    elif hasattr(system, "service_client"):
        found = _azure(system, bucket, prefix)
    elif "gs" in system.protocol:
        found = _google(system, bucket, prefix)
    else:
        found = ((about["name"][len(bucket) + 1 :], about) for about in system.find(url, detail=True).values())
    return ((key[len(prefix) :], about) for key, about in found)


def _amazon(system: Any, bucket: str, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    following: dict[str, str] = {}
    while True:
        page = system.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **following)
        _require_listing(page, "IsTruncated", bucket)
        for about in page.get("Contents") or ():
            yield about["Key"], {"size": about["Size"], "ETag": about.get("ETag"), "written": about.get("LastModified")}
        if not page.get("IsTruncated"):
            return
        following = {"ContinuationToken": page["NextContinuationToken"]}


def _require_listing(page: Mapping[str, Any], sign: str, bucket: str) -> None:
    """Raise for what is no listing, and has no ``sign`` of one: a page to sign in would pass for an empty bucket."""
    if sign not in page:
        raise SourceUnreachableError(
            f"the list of {bucket}'s objects was answered with something else", hint=ANOTHER_ANSWERS
        )


def _google(system: Any, bucket: str, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    words = {"prefix": prefix, "maxResults": _GOOGLE_PAGE, "fields": _FIELDS}
    while True:
        page = system.call("GET", "b/{}/o", bucket, json_out=True, **words)
        _require_listing(page, "kind", bucket)
        for about in page.get("items") or ():
            written = datetime.fromisoformat(about["updated"]) if about.get("updated") else None
            yield about["name"], {**about, "size": int(about.get("size") or 0), "written": written}
        if not page.get("nextPageToken"):
            return
        words["pageToken"] = page["nextPageToken"]


def _azure(system: Any, container: str, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from fsspec.asyn import sync

    client = system.service_client.get_container_client(container=container)
    pages = client.list_blobs(include=["metadata"], name_starts_with=prefix).by_page()
    try:
        while page := sync(system.loop, _next_page, pages):
            for blob in page:
                kind = {name.lower(): value for name, value in (blob.metadata or {}).items()}
                # What stands for a folder where the account has a tree of them.
                if "true" not in (kind.get("hdi_isfolder"), kind.get("is_directory")):
                    about = {"size": blob.size, "etag": blob.etag, "written": blob.last_modified}
                    yield blob.name, {**about, "content_settings": blob.content_settings}
    finally:
        sync(system.loop, client.close)


async def _next_page(pages: AsyncIterator[AsyncIterator[Any]]) -> list[Any]:
    async for page in pages:
        blobs = [blob async for blob in page]
        if blobs:
            return blobs
    return []
