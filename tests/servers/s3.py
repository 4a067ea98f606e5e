"""An S3 emulator written by others (moto, as a server of its own) with buckets of files."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest

from tests.parts import need
from tests.servers.loopback import Reply, Request, object_reply
from tests.servers.processes import free_port, process

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "hunter2secret"}
NOBODY = {"AWS_EC2_METADATA_DISABLED": "true"}


@dataclasses.dataclass
class S3:
    """A running emulator."""

    url: str
    count: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """What leads AWS's own tools there, without an account."""
        return {"AWS_ENDPOINT_URL": self.url, **NOBODY}

    def client(self, service: str = "s3") -> Any:
        """Amazon's own library, as the one who fills the buckets."""
        import botocore.session

        return botocore.session.Session().create_client(
            service, region_name="us-east-1", endpoint_url=self.url,
            aws_access_key_id="owner", aws_secret_access_key="owner",
        )  # fmt: skip

    def bucket(self, files: dict[str, bytes], *, public: bool = True, name: str = "") -> str:
        """A new bucket with ``files``; its name."""
        self.count += 1
        name = name or f"bucket-{self.count}"
        client = self.client()
        client.create_bucket(Bucket=name)
        if public:
            client.put_bucket_acl(Bucket=name, ACL="public-read")
        for key, data in files.items():
            client.put_object(Bucket=name, Key=key, Body=data, ACL="public-read" if public else "private")
        return name

    def check_logins_after(self, requests: int) -> None:
        """Check who asks, and the signature, from the given number of requests on."""
        self._say("reset-auth", str(requests).encode())

    def account(self, policy: str = "") -> dict[str, str]:
        """A new user who may do all, or what a policy says, as the variables that AWS's own tools take."""
        iam = self.client("iam")
        self.count += 1
        user = f"user-{self.count}"
        iam.create_user(UserName=user)
        may = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        iam.put_user_policy(UserName=user, PolicyName="read", PolicyDocument=policy or json.dumps(may))
        key = iam.create_access_key(UserName=user)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def _say(self, what: str, data: bytes) -> None:
        asked = urllib.request.Request(f"{self.url}/moto-api/{what}", data, {"Content-Type": "text/plain"})
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked).close()


@contextmanager
def running(folder: Path) -> Iterator[S3]:
    """An emulator for as long as the block lasts."""
    need("moto")
    port = free_port()
    words = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with pytest.MonkeyPatch.context() as patch:
        _read_descriptions_once(patch)
        # Parts of 5 MiB and more, as S3 wants them, would make the tests slow.
        with process(words, port, folder / "moto.log", seconds=120, S3_UPLOAD_PART_MIN_SIZE="65536"):
            yield S3(f"http://127.0.0.1:{port}")


def _read_descriptions_once(patch: pytest.MonkeyPatch) -> None:
    """Each login of a test would read Amazon's descriptions of its services anew: a fifth of the time over buckets."""
    from botocore.loaders import JSONFileLoader

    read = functools.cache(functools.partial(JSONFileLoader.load_file, JSONFileLoader()))
    patch.setattr(JSONFileLoader, "load_file", lambda _, path: read(path))


class Rules:
    """What no emulator enforces: who may read, who pays, in which region the bucket lies, how its objects are stored.

    ``stored`` are the headers of one object; ``redirect`` sends its readers away from here.
    """

    def __init__(self, files: dict[str, bytes], *, page_size: int = 1000) -> None:
        self.files = dict(files)
        self.page_size = page_size
        self.public = True
        self.pays = False
        self.region = ""
        self.refuse = 0
        self.code = "AccessDenied"
        self.retry_after = ""
        self.stored: dict[str, dict[str, str]] = {}
        self.redirect: dict[str, str] = {}
        self.encoded = True

    def __call__(self, request: Request) -> Reply:
        login = request.headers.get("authorization", "")
        if self.refuse:
            more = {"Retry-After": self.retry_after} if self.retry_after else {}
            return _error(self.refuse, self.code, more)
        if self.region and login and f"/{self.region}/s3/" not in login:
            return _error(400, "AuthorizationHeaderMalformed", {"x-amz-bucket-region": self.region})
        if self.pays and request.headers.get("x-amz-request-payer") != "requester":
            return _error(403, "AccessDenied")
        if not self.public and not login:
            return _error(403, "AccessDenied")
        key = request.path.removeprefix("/bucket").lstrip("/")
        if not key:
            return self._listing(request)
        if key in self.redirect:
            return Reply(307, b"", {"Location": self.redirect[key]})
        if key not in self.files:
            return _error(404, "NoSuchKey")
        return object_reply(request, self.files[key], self.stored.get(key))

    def _listing(self, request: Request) -> Reply:
        asked = request.query
        after = asked.get("continuation-token", asked.get("marker", ""))
        keys = [key for key in sorted(self.files) if key.startswith(asked.get("prefix", "")) and key > after]
        page, rest = keys[: self.page_size], keys[self.page_size :]
        plain = quote if self.encoded and asked.get("encoding-type") == "url" else escape
        items = "".join(
            f"<Contents><Key>{plain(key)}</Key><Size>{len(self.files[key])}</Size>"
            f"<ETag>{escape(self._tag(key))}</ETag><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
            for key in page
        )
        more = "<IsTruncated>false</IsTruncated>"
        if rest:
            more = "<IsTruncated>true</IsTruncated>"
            if asked.get("list-type") == "2":
                more += f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>"
        if plain is quote:
            more += "<EncodingType>url</EncodingType>"
        text = f'<?xml version="1.0"?>\n<ListBucketResult xmlns="urn:s3">{more}{items}</ListBucketResult>'
        return Reply(200, text.encode(), {"Content-Type": "application/xml"})

    def _tag(self, key: str) -> str:
        whole = object_reply(Request("GET", "", {}, {}), self.files[key], self.stored.get(key))
        return whole.headers["ETag"]


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> Reply:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    return Reply(status, body.encode(), {"Content-Type": "application/xml", **(headers or {})})
