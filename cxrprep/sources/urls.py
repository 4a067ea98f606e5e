"""URLs: splitting, masking, and the sources behind addresses that people copy from a browser."""

from __future__ import annotations

import posixpath
import re
import string
import urllib.parse
from typing import Final, NamedTuple

from cxrprep.errors import UsageError
from cxrprep.humanize import INVISIBLE


class Endpoint(NamedTuple):
    """What a connection goes to, and what a credential is for."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """``host``, with the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


_PORTS = {"http": 80, "https": 443}


# Most addresses, read in one go: nothing in them to refuse, to quote or to turn into lower case.
_PLAIN = re.compile(r"(https?)://([a-z0-9.-]+)(?::([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}))?(/[A-Za-z0-9/._~%-]*)")


# Paths that are written in an address as they are.
_UNQUOTED = re.compile(r"[A-Za-z0-9/._~-]*")


# What no name of a host holds; libcurl would say nothing but that the address is malformed.
_NO_HOST = re.compile(r"[\s<>\"{}|\\^`'()!*+,;=~&$]")


# How the names of a release's files end; an address with another end is a folder's.
FILE_NAME: Final = re.compile(r"\.(?:csv|txt|zip|tar|tgz|gz|png|jpe?g|dcm|json|pdf)$", re.IGNORECASE)


# What must not be shown begins with one of these, or ends with the last.
_HIDES = re.compile("[?#@]")


def parts_of(url: str) -> urllib.parse.SplitResult:
    """The parts of ``url``, whoever wrote it. Raises ``UsageError`` where Python finds it malformed (``http://[::1/``)."""
    try:
        parts = urllib.parse.urlsplit(url)
        # Both are looked at when they are asked for.
        _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{without_query(url)!r} is not an address: {error}", hint="check the address") from error
    return parts


def split_url(url: str) -> tuple[Endpoint, str]:
    """The endpoint of ``url``, and the request target behind it (path and query).

    Raises ``UsageError`` for what is not HTTP, has no host, or carries a login.
    """
    plain = _PLAIN.fullmatch(url)
    if plain is not None:
        scheme, host, number, target = plain.groups()
        return Endpoint(scheme, host, int(number) if number else _PORTS[scheme]), target
    parts = parts_of(url)
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not parts.hostname:
        raise UsageError(f"{without_query(url)!r} is not an http or https address")
    if parts.username is not None:
        raise UsageError(
            f"the address of {parts.hostname} carries a login, which others can read",
            hint=f"put it into ~/.netrc: machine {parts.hostname} login USER password PASSWORD",
        )
    port = parts.port or _PORTS[scheme]
    target = urllib.parse.quote(parts.path or "/", safe="/%!$&'()*+,;=:@~-._")
    if parts.query:
        target += "?" + urllib.parse.quote(parts.query, safe="/%!$&'()*+,;=:@~-._?[]{}|^`\\\"<>")
    return Endpoint(scheme, ascii_host(parts.hostname), port), target


def redirected(url: str, location: str) -> str:
    """Where ``Location`` leads from ``url``; a login in it is left out. Bytes that stand there raw go out quoted."""
    address = location.encode("latin-1", "replace").decode("utf-8", "surrogateescape")
    try:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(url, address))
    except ValueError:
        return address
    path, query = (
        urllib.parse.quote(part.encode("utf-8", "surrogateescape"), safe=string.punctuation) for part in parts[2:4]
    )
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, query, ""))


def folder_and_file(path: str) -> tuple[str, str]:
    """The folder in a bucket's path, with a slash behind it, and the file, if it ends as one; each may be ``""``."""
    name = posixpath.basename(path) if FILE_NAME.search(path) else ""
    folder = path[: len(path) - len(name)].strip("/")
    return folder + "/" if folder else "", name


def quoted(path: str) -> str:
    """``path`` as it stands in an address (RFC 3986, 3.3)."""
    return path if _UNQUOTED.fullmatch(path) else urllib.parse.quote(path)


def ascii_host(host: str) -> str:
    """``host`` as DNS knows it. Raises ``UsageError`` for a name that cannot be one."""
    if host.isascii():
        if _NO_HOST.search(host):
            raise UsageError(f"{host!r} is not the name of a host", hint="check the address")
        return host
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise UsageError(f"{host!r} is not the name of a host", hint="check the address") from error


def without_query(url: str) -> str:
    """``url`` as it may be shown: without query, which may be a signature, without fragment and login."""
    if not _HIDES.search(url):
        return url
    # By hand: what is malformed is shown in errors, too.
    place = re.split("[?#]", url, maxsplit=1)[0]
    scheme, separator, rest = place.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


_PHYSIONET: Final = (
    r"(?i:https?://(?:www\.)?physionet\.org(?::\d+)?)/(?:files|content|sign-dua)/([\w-]+)(?:/(?:get-zip|view-[\w-]+))?"
)
# Kaggle's own older addresses of data sets name their owner first.
_KAGGLE: Final = (
    r"(?i:https?://(?:www\.)?kaggle\.com)/(?:(?:api/v1/)?datasets/(?:(?:download|list|metadata|view)/)?"
    r"|(?=[\w-]+/[\w-]+(?:/(?:home|data|kernels|discussion|metadata|version/\d+))?/?(?:[?#]|$))"
    r"(?!(?:c|code|competitions|datasets|discussions|docs|learn|models|organizations|search|u)/))"
    r"(?!(?:download|list|metadata|view)/)([\w-]+)/([\w-]+)"
)
_KAGGLE_LINE: Final = (
    r"(?s).*?\bkaggle(?:hub)?(?: datasets |\.dataset_)download\b(?:\s+(?:-p|--path)[ =]\S+|\s+--?[a-z]+(?=\s+-))*"
)
_HF: Final = r"(?:https?://|(?:git clone )?git@)(?:huggingface|hf)\.co[:/]datasets/([\w.-]+/[\w.-]+?)(?:\.git)?"
# A line that names a revision is read with it, or not at all.
_HF_REVISION: Final = r"(?:(?=.*\brevision[\s=\"']+([\w.-]+)(?![\w./-]))|(?!.*\brevision\b))"
_HF_PAGE: Final = r"(?:viewer|discussions|(?:blob|raw|resolve|commits)/main)(?:/[^?#]*)?"
_S3: Final = r"s3(?:\.dualstack)?(?:[.-][a-z0-9-]+)?\.amazonaws\.com"
# Pages, and lines of other tools, with the address of the source behind them.
_PAGES: Final = (
    # The list of checksums, and any page about the project, stand for the whole of it; a folder for what lies below it.
    (_PHYSIONET + r"((?:/\d[\w.]*)?)/?(?:SHA256SUMS\.txt)?(?:[?#].*)?", r"physionet://\1\2"),
    (_PHYSIONET + r"(/\d[\w.]*/[^?#]+)(?:[?#].*)?", r"physionet://\1\2"),
    (_KAGGLE + r"(?:/versions?/|(?:/[^?#]*)?\?(?:.*&)?(?i:(?:dataset)?versionNumber)=)(\d+).*", r"kaggle://\1/\2/versions/\3"),
    (_KAGGLE + r"(?:/[^?#]*)?(?:[?#].*)?", r"kaggle://\1/\2"),
    (_KAGGLE_LINE + r"\W+(?:(?:d|dataset)[ =])?([\w-]+)/([\w-]+)(/versions/\d+)?(?:\W.*)?", r"kaggle://\1/\2\3"),
    (r"(?i:https?://([\w-]+)(?:\.app)?\.box\.com)/v/([\w.-]+)/?(?:(?:file|folder)/\d+)?/?(?:[?#].*)?", r"box://\1/\2"),
    (
        r"(?s)(?:.*\W)?(?:hf|huggingface-cli) download (?=.*\bdataset\b)" + _HF_REVISION
        + r"(?:--[\w-]+(?:[ =][^\s/-][^\s/]*)? )*([\w.-]+/[\w.-]+)(?:\s.*)?", r"hf://datasets/\2@\1",
    ),
    (
        r"(?s)(?:.*\W)?(?:load_dataset|snapshot_download(?=.*dataset))\(" + _HF_REVISION
        + r"(?:.*\b(?:repo_id|path)\s*=)?\s*[\"']([\w.-]+/[\w.-]+)[\"'].*", r"hf://datasets/\2@\1",
    ),
    (r"(?:.*\W)?git clone (?:.*\s)?(?:-b|--branch)[ =]([\w.-]+) (?:.*\s)?" + _HF + r"(?:\s.*)?", r"hf://datasets/\2@\1"),
    (_HF + rf"(?:/tree/main|/{_HF_PAGE})?/?(?:[?#].*)?", r"hf://datasets/\1"),
    (_HF + r"/tree/([^/?#]+)/?([^?#]*?)/?(?:[?#].*)?", r"hf://datasets/\1@\2/\3"),
    (_HF + r"/(?:blob|raw|resolve|commits?)/([^/?#]+)(?:[/?#].*)?", r"hf://datasets/\1@\2"),
    (r"https?://console\.cloud\.google\.com/storage/browser/(?:_details/)?([^?#;]+?)/?(?:[;?#].*)?", r"gs://\1"),
    (r"https?://(?:storage|www)\.googleapis\.com/(?:download/)?storage/v1/b/([^/?#]+)(?:[/?#].*)?", r"gs://\1"),
    (r"https?://storage\.(?:googleapis|cloud\.google)\.com/([^?#]+?)/?", r"gs://\1"),
    (r"https?://([a-z0-9][a-z0-9.-]+)\.storage\.googleapis\.com(/[^?#]+?|)/?", r"gs://\1\2"),
    (
        r"https?://(?:[\w-]+\.)?console\.aws\.amazon\.com/s3/buckets/([^/?#]+)/?(?:\?(?:.*?&)?prefix=([^&#]*)|\?)?.*",
        r"s3://\1/\2",
    ),
    (r"((?:gs|s3)://.+?)/\*+", r"\1"),
    (rf"https?://{_S3}/([^?#]+?)/?", r"s3://\1"),
    (rf"https?://([a-z0-9][a-z0-9.-]+)\.{_S3}(?:/([^?#]*?))?/?", r"s3://\1/\2"),
)  # fmt: skip


# What asks for a listing at an object store.
_LISTING_WORDS: Final = frozenset({"prefix", "delimiter", "list-type", "max-keys", "encoding-type", "marker"})
_INDEX: Final = re.compile(r"(?<=/)index\.html?(?=[?#]|$)", re.IGNORECASE)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LINK: Final = re.compile(rf"{_SCHEME.pattern}[^\s\"'<>\u2018\u2019\u201c\u201d]+")


# Where a slash at the end means something: web servers tell folders by it, and / is a folder.
_AS_THEY_ARE: Final = ("http://", "https://", "file://", "/")


def without_listing_words(url: str) -> str:
    """``url`` as a folder's address, where its query asks an object store for a listing: the prefix is the folder."""
    parts = parts_of(url)
    words = dict(urllib.parse.parse_qsl(parts.query))
    if not words or not _LISTING_WORDS.issuperset(words):
        return url
    folder = parts.path.rstrip("/") + "/" + urllib.parse.quote(words.get("prefix", ""))
    return urllib.parse.urlunsplit(parts._replace(path=folder, query=""))


def behind(url: str) -> str:
    """The address of the source that serves what the page at ``url`` shows; ``url`` itself, in one spelling, otherwise.

    ``https://physionet.org/content/mimic-cxr/2.1.0/`` is ``physionet://mimic-cxr/2.1.0``: as a plain web server it
    would turn our requests away.
    """
    line = INVISIBLE.sub("", url).strip()
    links = _LINK.findall(line) if not _SCHEME.match(line) else []
    # In quotes, in a sentence, or in the command of another tool.
    url = links[0].rstrip(").,;]") if len(links) == 1 else line
    url = _SCHEME.sub(lambda scheme: scheme[0].lower(), url, count=1) if _SCHEME.match(url) else url
    # Of some commands more than the address counts, and of the question for a listing its folder.
    listed = [without_listing_words(url)] if url.startswith("http") else []
    forms = [_INDEX.sub("", url), *listed, *([line] if links else [])]
    for page, source in _PAGES:
        found = next(filter(None, (re.fullmatch(page, form) for form in forms)), None)
        if found is not None:
            address = found.expand(source).removesuffix("@")
            # A slash in the name of a revision begins no folder.
            return urllib.parse.unquote(address.replace("%2F", "%252F") if address.startswith("hf:") else address)
    return url if url.startswith(_AS_THEY_ARE) else url.rstrip("/")
