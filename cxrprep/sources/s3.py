"""Amazon S3 and servers that speak its protocol: ``s3://BUCKET/FOLDER``, with or without an account.

Listing and bytes go over the common client. A request is signed when AWS's own tools would find credentials; where
those are refused, it is asked once without, for what is public is so for everybody.
"""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from cxrprep.credentials.services import ADVICE
from cxrprep.errors import (
    AccessError,
    CxrprepError,
    NotInSourceError,
    SourceNotFoundError,
    SourceUnreachableError,
    UsageError,
)
from cxrprep.sources.aws_auth import AwsAccess
from cxrprep.sources.base import Access, AccessState, ByteStream, SourceOptions, access_refused
from cxrprep.sources.http_client import HttpClient, OverHttp, nobody
from cxrprep.sources.retry import with_retries
from cxrprep.sources.s3_objects import described, error_code, read_pages
from cxrprep.sources.urls import folder_and_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cxrprep.model import RemoteFile
    from cxrprep.sources.http_response import HttpResponse

T = TypeVar("T")

_PLACE: Final = re.compile(r"s3://(arn:aws[\w-]*:s3:[a-z0-9-]*:\d*:accesspoint[:/][\w-]+|[^/]*)/*(.*)", re.DOTALL)
_REGION: Final = re.compile(rb"<Region>\s*([\w-]+)\s*</Region>")
# What says that the account, and not the object, is the matter.
_REJECTED: Final = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
     "InvalidSecurity", "NotSignedUp", "AuthorizationHeaderMalformed"}
)  # fmt: skip


class _RefusedError(AccessError):
    """Raise when the service refuses this request as it was signed, or not. Do not raise for broken settings."""


class _ElsewhereError(SourceUnreachableError):
    """Raise when the bucket lies in ``region``. Do not raise when that is where it was asked."""

    region = ""


class S3Source(OverHttp):
    """The objects of a bucket below a folder; one object, when its name is given."""

    def __init__(self, url: str, options: SourceOptions) -> None:
        """Nothing is requested yet. Raises ``UsageError`` for an address without a bucket."""
        found = _PLACE.fullmatch(url)
        if found is None or not found[1]:
            raise UsageError(f"{url} names no bucket", hint="write it as s3://BUCKET or s3://BUCKET/FOLDER")
        bucket, path = found[1], found[2].strip("/")
        self._base, self._single = folder_and_file(found[2])
        self._bucket = bucket
        self._pays = options.requester_pays
        self.address = f"s3://{bucket}/{path}" if path else f"s3://{bucket}"
        self.politeness = options.politeness(16)
        self._access = AwsAccess(bucket, options.credentials)
        self._client = HttpClient(options, login=nobody, explain=self._explain)

    def list(self, prefix: str = "") -> Iterator[RemoteFile]:
        """The objects below ``prefix``, in order of name, with size and ETag."""
        if self._single and not self._single.startswith(prefix):
            return
        found, words = False, self._first(prefix)
        for page in read_pages(lambda more: self._page({**words, **more}), self.address):
            for file in page.objects:
                key = file.key[len(self._base) :]
                if file.key.startswith(self._base) and key and (not self._single or key == self._single):
                    found = True
                    yield dataclasses.replace(file, key=key)
        if self._single and not found:
            raise SourceNotFoundError(f"{self.address} does not exist", hint="check the address")

    def open(self, file: RemoteFile, offset: int = 0, end: int | None = None) -> ByteStream:
        """See ``Source.open``."""
        name = urllib.parse.quote(self._base + file.key, safe="/~")

        def request(base: str, headers: Mapping[str, str]) -> ByteStream:
            return self._client.open(base + name, key=file.key, offset=offset, end=end, private=headers)

        return described(self._asked(name, request, {"x-amz-checksum-mode": "ENABLED"}))

    def access(self) -> Access:
        """Whether the bucket may be listed, asked for one name; and who pays."""
        costs = "requester pays: Amazon bills your account" if self._pays else ""
        try:
            self._page({**self._first(""), "max-keys": "1"})
        except AccessError as error:
            nobody_asked = not isinstance(error, _RefusedError) or self._access.is_anonymous
            state = AccessState.MISSING if nobody_asked else AccessState.REJECTED
            refused = access_refused(error, state)
            return dataclasses.replace(refused, advice=f"{error.message}: {error.hint}", costs=costs)
        except NotInSourceError as error:
            return Access(AccessState.UNKNOWN, advice=error.message, costs=costs)
        return Access(AccessState.OPEN if self._access.is_anonymous else AccessState.GRANTED, costs=costs)

    # ---- requests ----

    def _first(self, prefix: str) -> Mapping[str, str]:
        wanted = self._base + (self._single or prefix)
        return {"list-type": "2", **({"prefix": wanted} if wanted else {})}

    def _page(self, words: Mapping[str, str]) -> bytes:
        # Control characters have no place in XML, so the service is asked to write names as in an address.
        asked = {"encoding-type": "url", **words}
        query = urllib.parse.urlencode(sorted(asked.items()), quote_via=urllib.parse.quote, safe="~")

        def request(base: str, headers: Mapping[str, str]) -> bytes:
            return self._client.read(f"{base}?{query}", key=self.address, private=headers)[1]

        return with_retries(partial(self._asked, f"?{query}", request))

    def _asked(
        self, target: str, request: Callable[[str, Mapping[str, str]], T], more: Mapping[str, str] | None = None
    ) -> T:
        """What ``request`` returns of ``target`` below the bucket's address: in its region, signed where that helps."""
        headers = {**(more or {}), **({"x-amz-request-payer": "requester"} if self._pays else {})}
        refused: _RefusedError | None = None
        for _ in range(4):
            base = self._access.base
            signed = self._access.headers(base + target, headers) if refused is None else headers
            try:
                answer = request(base, signed)
            except _ElsewhereError as error:
                if not self._access.move(error.region):
                    raise
            except CxrprepError as error:
                if refused is not None:
                    raise refused from None
                if not isinstance(error, _RefusedError) or self._access.is_anonymous:
                    raise
                refused = error
            else:
                self._access.is_unsigned |= refused is not None
                return answer
        raise SourceUnreachableError(f"{self.address} is sent from region to region", hint="set AWS_REGION")

    # ---- refusals ----

    def _explain(self, answer: HttpResponse, key: str) -> CxrprepError | None:
        code = error_code(answer)
        elsewhere = _REGION.search(answer.body)
        region = answer.headers.get("x-amz-bucket-region") or (elsewhere[1].decode() if elsewhere else "")
        if answer.status in (301, 307, 400, 403) and region and region != self._access.region:
            error = _ElsewhereError(f"{self.address} lies in {region}", hint=f"set AWS_REGION={region}")
            error.region = region
            return error
        if answer.elsewhere and not code:
            return None
        subject = key if key.startswith("s3://") else f"{self.address}: {key}"
        return self._refusal(answer.status, code, subject)

    def _refusal(self, status: int, code: str, subject: str) -> CxrprepError | None:
        what = f"{status} {code}".strip()
        if code == "NoSuchBucket":
            return SourceNotFoundError(f"s3://{self._bucket} does not exist ({what})", hint="check the name")
        if status == 404:
            return NotInSourceError(f"{subject} does not exist ({what})", hint="check the name of bucket and object")
        if code == "InvalidObjectState":
            return NotInSourceError(
                f"{subject} lies in an archive tier, from which nothing can be read ({what})",
                hint="ask whoever owns the bucket to restore it",
            )
        if code == "RequestTimeTooSkewed":
            return AccessError(f"{subject}: the clock of this machine is wrong ({what})", hint="set it, and run again")
        if code in _REJECTED:
            return _RefusedError(f"{subject}: the AWS login found here is refused ({what})", hint=ADVICE["aws"])
        if status not in (401, 403):
            return None
        pays = "" if self._pays else "; where the bucket is requester pays, --requester-pays lets Amazon bill you"
        if self._access.is_anonymous:
            return _RefusedError(f"{subject}: access without a login is refused ({what})", hint=ADVICE["aws"] + pays)
        return _RefusedError(
            f"{subject}: access is refused to the AWS login found by {self._access.origin} ({what})",
            hint=f"ask whoever owns the bucket for s3:GetObject and s3:ListBucket{pays}",
        )
