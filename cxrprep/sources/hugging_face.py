"""Hugging Face: the files of a dataset repository at one commit, ``hf://datasets/OWNER/NAME[@REVISION][/FOLDER]``.

The interface is the hub's own (https://huggingface.co/docs/hub/api). A revision is turned into its commit once, so that
the listing and the bytes are of the same. Large files lie in LFS, whose listing states their SHA-256; they come from a
network of copies to which the hub redirects, and which the token does not follow.
"""

from __future__ import annotations

import contextlib
import re
import threading
import urllib.parse
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cxrprep.credentials.services import ADVICE
from cxrprep.errors import AccessError, CxrprepError, NotInSourceError, SourceNotFoundError, UsageError
from cxrprep.model import Digest, RemoteFile
from cxrprep.sources.base import Access, AccessState, ByteStream, SourceOptions, access_refused, pages, stated_size
from cxrprep.sources.endpoints import ENDPOINTS, named
from cxrprep.sources.http_client import HttpClient, OverHttp, nobody
from cxrprep.sources.retry import with_retries
from cxrprep.sources.sdk_errors import not_understood
from cxrprep.sources.urls import quoted
from cxrprep.storage.small_files import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cxrprep.sources.http_response import HttpResponse

_PLACE: Final = re.compile(r"hf://(?:datasets/)?([\w.-]+/[\w.-]+)(?:@([^/\s]+))?(?:/(.*))?", re.DOTALL)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_NEXT: Final = re.compile(r'<([^>]+)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)


class _GatedError(AccessError):
    """Raise when a repository's owner has to let the account in. Do not raise for a token that is refused."""


class HuggingFaceSource(OverHttp):
    """The files of a dataset repository below a folder."""

    def __init__(self, url: str, options: SourceOptions) -> None:
        """Nothing is requested yet. Raises ``UsageError`` for an address without owner and name."""
        found = _PLACE.fullmatch(url)
        if found is None:
            raise UsageError(f"{url} names no repository", hint="write it as hf://datasets/OWNER/NAME[@REVISION]")
        self._name, revision, folder = found[1], found[2] or "main", (found[3] or "").strip("/")
        self._revision = urllib.parse.unquote(revision)
        self._base = folder + "/" if folder else ""
        at = f"@{revision}" if found[2] else ""
        self.address = f"hf://datasets/{self._name}{at}" + (f"/{folder}" if folder else "")
        self.politeness = options.politeness(16)
        self._hub = named("huggingface") or ENDPOINTS["huggingface"]
        self._credentials = options.credentials
        self._client = HttpClient(options, login=nobody, explain=self._explain)
        self._lock = threading.Lock()
        self._commit = self._revision if _COMMIT.fullmatch(self._revision) else ""

    def list(self, prefix: str = "") -> Iterator[RemoteFile]:
        """The files below ``prefix``; those in LFS with their SHA-256."""
        folder = f"/{quoted(self._base.rstrip('/'))}" if self._base else ""
        first = f"{self._api()}/tree/{self._pinned()}{folder}?recursive=true"

        def ask(url: str) -> tuple[Sequence[Mapping[str, Any]], str]:
            answer, entries = self._asked(url or first)
            known = [e for e in entries if isinstance(e, dict) and "type" in e] if isinstance(entries, list) else None
            if known is None or (entries and not known):
                raise not_understood(self._hub)
            return known, self._next(answer)

        for page in pages(ask, self.address, ""):
            for entry in page:
                file = self._file(entry)
                if file is not None and file.key.startswith(prefix):
                    yield file

    def open(self, file: RemoteFile, offset: int = 0, end: int | None = None) -> ByteStream:
        """See ``Source.open``; of the commit that was listed."""
        url = f"{self._hub}/datasets/{self._name}/resolve/{self._pinned()}/{quoted(self._base + file.key)}"
        stream = self._client.open(url, key=file.key, offset=offset, end=end, private=self._private())
        answer: HttpResponse | None = getattr(stream, "answer", None)
        if answer is not None and not answer.url.startswith(self._hub) and file.validator:
            # Each copy has an ETag of its own; a commit has one content under a name, and the SHA-256 judges it.
            stream.validator = file.validator
        return stream

    def access(self) -> Access:
        """Whether the repository lets the account read its files, and not only their names."""
        token = self._credentials.hugging_face() if self._credentials is not None else None
        try:
            with_retries(partial(self._read, f"{self._api()}/auth-check"))
        except _GatedError as error:
            return Access(AccessState.MISSING if token is None else AccessState.UNSIGNED, advice=error.hint)
        except AccessError as error:
            return access_refused(error, AccessState.MISSING if token is None else AccessState.REJECTED)
        except NotInSourceError as error:
            return Access(AccessState.UNKNOWN, advice=error.message)
        return Access(AccessState.OPEN if token is None else AccessState.GRANTED)

    # ---- requests ----

    def _api(self) -> str:
        return f"{self._hub}/api/datasets/{self._name}"

    def _private(self) -> Mapping[str, str]:
        token = self._credentials.hugging_face() if self._credentials is not None else None
        return {"Authorization": f"Bearer {token.secret.reveal()}"} if token is not None else {}

    def _read(self, url: str) -> tuple[HttpResponse, bytes]:
        return self._client.read(url, key=self.address, private=self._private())

    def _asked(self, url: str) -> tuple[HttpResponse, Any]:
        answer, body = with_retries(partial(self._read, url))
        try:
            return answer, parse_json(body.decode())
        except ValueError:
            raise not_understood(self._hub) from None

    def _pinned(self) -> str:
        """The commit that the revision means now, asked once."""
        with self._lock:
            if not self._commit:
                about = self._asked(f"{self._api()}/revision/{urllib.parse.quote(self._revision, safe='')}")[1]
                commit = about.get("sha") if isinstance(about, dict) else None
                if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
                    raise not_understood(self._hub)
                self._commit = commit
            return self._commit

    def _next(self, answer: HttpResponse) -> str:
        found = _NEXT.search(answer.headers.get("link", ""))
        if found is None:
            return ""
        if not found[1].startswith(f"{self._api()}/tree/"):
            # The token goes there.
            raise not_understood(self._hub)
        return found[1]

    def _file(self, entry: Mapping[str, Any]) -> RemoteFile | None:
        """One entry of a tree, ``None`` for a folder, and for what names no file."""
        path = entry.get("path")
        if not isinstance(path, str) or entry.get("type") != "file":
            return None
        stored = entry.get("lfs")
        lfs = stored if isinstance(stored, dict) else {}
        size = stated_size(lfs.get("size", entry.get("size")))
        # One file whose digest cannot be read is a file without a digest.
        digest = None
        with contextlib.suppress(ValueError):
            digest = Digest("sha256", str(lfs.get("oid", "")).removeprefix("sha256:"))
        if not path.startswith(self._base):
            return None
        return RemoteFile(path[len(self._base) :], size, digest, f'"{digest.value if digest else entry.get("oid")}"')

    # ---- refusals ----

    def _explain(self, answer: HttpResponse, key: str) -> CxrprepError | None:
        code, said = answer.headers.get("x-error-code", ""), answer.headers.get("x-error-message", "")
        what, page = f"{answer.status} {code}".strip(), f"https://huggingface.co/datasets/{self._name}"
        found = self._credentials.hugging_face() if self._credentials is not None else None
        if answer.elsewhere and not code:
            return None
        if code == "RevisionNotFound":
            return SourceNotFoundError(
                f"{self.address} has no revision {self._revision!r} ({what})", hint=f"see {page}"
            )
        if code == "GatedRepo":
            hint = (
                f"accept the terms at {page} with the account of the token found in {found.origin}"
                if found
                else (f"accept the terms at {page}; then {ADVICE['huggingface']}")
            )
            return _GatedError(f"{key}: {self._name} is open to those who accepted its terms ({what})", hint=hint)
        if answer.status == 401 and found is not None and (code != "RepoNotFound" or "credentials" in said.lower()):
            return AccessError(
                f"{key}: Hugging Face rejects the token found in {found.origin} ({what})", hint=ADVICE["huggingface"]
            )
        if code == "RepoNotFound" or (answer.status == 401 and found is None):
            if found is None:
                return AccessError(
                    f"{self._name} does not exist, or is not shown without a login ({what})",
                    hint=f"check the name at {page}; {ADVICE['huggingface']}",
                )
            return SourceNotFoundError(
                f"{self._name} does not exist, or not for this account ({what})", hint=f"see {page}"
            )
        if answer.status == 403:
            return AccessError(
                f"{key}: Hugging Face refuses access ({what})", hint=f"see {page}; {ADVICE['huggingface']}"
            )
        return None
