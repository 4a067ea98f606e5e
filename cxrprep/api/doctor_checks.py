"""Checks of doctor, and how each stands: of this machine, its disk, logins, mirrors, network and a scheduler."""

from __future__ import annotations

import email.utils
import enum
import importlib.util
import os
import platform
import shutil
import socket
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cxrprep._version import __version__
from cxrprep.api.report_labels import check_labeler
from cxrprep.credentials.services import ADVICE
from cxrprep.datasets.catalog import catalog
from cxrprep.errors import CxrprepError, ExitCode
from cxrprep.extras import install_command
from cxrprep.humanize import format_bytes, one_line
from cxrprep.sources import endpoints
from cxrprep.sources.base import AccessState, SourceOptions
from cxrprep.sources.http_client import USER_AGENT
from cxrprep.sources.http_connection import ConnectionSettings, HttpConnection, Request
from cxrprep.sources.proxies import proxy_for
from cxrprep.sources.urls import split_url
from cxrprep.storage.paths import nearest_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cxrprep.credentials.lookup import Credentials
    from cxrprep.datasets.facts import DatasetSpec, Mirror


class State(enum.StrEnum):
    """How a check came out. A problem stops some job; a warning may slow it down or concern a part of it.

    What is optional is not there, and nothing that was asked about needs it.
    """

    OK = "ok"
    OPTIONAL = "optional"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the examination: what was looked at, how it stands, and what to do about it."""

    group: str
    name: str
    state: State
    found: str
    hint: str = ""


_CODECS: Final = (
    ("cv2", "resizing, and pictures of many kinds"),
    ("simplejpeg", "JPEG"),
    ("pydicom", "DICOM headers, uncompressed and RLE pixels"),
    ("imagecodecs", "PNG, compressed DICOM (JPEG, JPEG-LS, JPEG 2000), JPEG XL"),
)
_EXTRAS: Final = (
    ("distributed", "an existing Dask cluster", "dask"),
    ("s3fs", "buckets as folders: s3://", "s3"),
    ("gcsfs", "buckets as folders: gs://", "gcs"),
    ("adlfs", "buckets as folders: az://", "azure"),
    ("keyring", "credentials in the system's keyring", "keyring"),
    ("pylibjpeg", "compressed DICOM in colour", "codecs"),
    ("openpyxl", "CheXpert's demographics, a workbook", "xlsx"),
)


def machine_checks() -> Iterator[Check]:
    """Python, memory, decoders and the labeler."""
    about = f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield Check("machine", "cxrprep", State.OK, about)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("machine", "cores", State.OK, str(cores))
    for module, what in _CODECS:
        state, found, hint = State.OK, what, ""
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:
            # One that is installed may lack a library of the system.
            state, found = State.PROBLEM, f"missing: {what} ({one_line(str(error))})"
            hint = "install cxrprep again, or the library that is named here"
        yield Check("machine", f"codec {module}", state, found, hint)
    for module, what, extra in _EXTRAS:
        there = importlib.util.find_spec(module) is not None
        state = State.OK if there else State.OPTIONAL
        found = what if there else f"not installed; only needed for {what}"
        yield Check("machine", f"extra {extra}", state, found, "" if there else install_command(extra))
    yield _labeler()


def _labeler() -> Check:
    """The report labeler over its own examples, some tenths of a second."""
    checked = check_labeler().value
    if checked.passed:
        return Check("machine", "report labeler", State.OK, f"{checked.examples:,} examples labelled as they should be")
    found = f"{len(checked.failures):,} of {checked.examples:,} examples labelled wrongly"
    return Check("machine", "report labeler", State.PROBLEM, found, "look at them: cxrprep explain --selftest")


def disk_checks(
    root: Path, spec: DatasetSpec | None, judged: Mirror | None, *, whole: bool, folder: Path | None = None
) -> Iterator[Check]:
    """Room on the disk of a folder, and how many files may be open.

    Args:
        root: The folder, which need not be there yet.
        spec: The dataset that is to come into it; ``None`` names the smallest and the largest.
        judged: The mirror that it is to come from.
        whole: Whether all of it is to come.
        folder: The folder that it is to come from, in the place of a mirror.

    Yields:
        What was looked at.
    """
    place = nearest_folder(root)
    try:
        yield _room(root, place, spec, judged, whole=whole, folder=folder)
    except OSError as error:
        yield Check("disk", str(place), State.PROBLEM, error.strerror or "the disk does not answer", "check the mount")
        return
    if not os.access(place, os.W_OK):
        hint = "name a folder of your own, or keep the record elsewhere with --state DIR"
        state = State.WARNING if spec is None else State.PROBLEM
        yield Check("disk", f"writable {place}", state, "no", hint)
    handle_limit = _open_files()
    if handle_limit is not None and handle_limit < 256:
        yield Check("disk", "open files", State.WARNING, str(handle_limit), "ulimit -n 4096")


def _room(
    root: Path, place: Path, spec: DatasetSpec | None, judged: Mirror | None, *, whole: bool, folder: Path | None
) -> Check:
    """Whether there is room: for the whole of ``spec`` beside what is in ``root`` already, else for any collection.

    Raises ``OSError`` when the disk cannot be asked.
    """
    usage = shutil.disk_usage(place)
    free, found = usage.free, f"{format_bytes(usage.free)} of {format_bytes(usage.total)}"
    if spec is None:
        needs = ", ".join(f"{one.name} {format_bytes(_size(one))}" for one in catalog().values() if _size(one))
        hint = "" if free >= 60e9 else f"the collections take: {needs}; choose a part: --limit, --view, --split"
        return Check("disk", f"free at {place}", State.WARNING if hint else State.OK, found, hint)
    need = (judged.size if judged else 0) or _size(spec)
    if folder is not None and free < need:
        # It may hold a part of the release.
        need = sum(size for _, size in _files(folder))
    here = sum(size for _, size in _files(root)) if free < need else 0
    if free + here >= need:
        return Check("disk", f"free at {place}", State.OK, found)
    hint = f"another disk, or a part: cxrprep download {spec.name} --limit 1000 --dry-run says what a part takes"
    state = State.PROBLEM if whole else State.WARNING
    return Check("disk", f"free at {place}", state, f"{found}; all of {spec.name} takes {format_bytes(need)}", hint)


def _files(root: Path) -> Iterator[tuple[str, int]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118  # a release has hundreds of thousands
            if os.path.exists(path):  # noqa: PTH110  # likewise; a dangling link has no size
                yield path, os.stat(path).st_size  # noqa: PTH116  # likewise


def _size(spec: DatasetSpec) -> int:
    return max([spec.counts.get("bytes", 0), *(mirror.size or 0 for mirror in spec.mirror)])


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


_SKEW: Final = 300.0


def netrc_checks() -> Iterator[Check]:
    """Whether others can read the netrc."""
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    if os.name == "posix" and path.is_file() and path.stat().st_mode & 0o077:
        yield Check("access", str(path), State.WARNING, "others can read it", f"chmod 600 {path}")


def login_check(credentials: Credentials, service: str) -> Check:
    """Whether a login of a service is there, and whose."""
    try:
        found = credentials.found(service, *_hosts_of(service))
    except CxrprepError as error:
        return Check("access", f"login {service}", State.PROBLEM, error.message, error.hint)
    if found is None:
        return Check("access", f"login {service}", State.WARNING, "none", ADVICE[service])
    who = f"{found.account}, from {found.origin}" if found.account else f"from {found.origin}"
    return Check("access", f"login {service}", State.OK, who)


def _hosts_of(service: str) -> tuple[str, ...]:
    """The host that the environment names in place of the service's own: it is the one that gets the login."""
    host = urllib.parse.urlsplit((service in endpoints.ENDPOINTS and endpoints.named(service)) or "").hostname
    return (host,) if host else ()


def mirror_check(
    place: tuple[DatasetSpec, Mirror], credentials: Credentials, project: str | None, timeout: float
) -> Check | None:
    """How far access goes at one mirror.

    Args:
        place: The dataset, and the mirror of it.
        credentials: Where logins are looked up.
        project: The Google Cloud project that pays.
        timeout: Seconds to wait for an answer.

    Returns:
        What was found; ``None`` where a login is missing, which was said before.
    """
    from cxrprep.sources import open_source

    spec, mirror = place
    name = f"{spec.name} from {mirror.name}"
    options = SourceOptions(
        credentials=credentials, timeout=timeout, billing_project=project, extra=mirror.source_settings()
    )
    try:
        source = open_source(mirror.url, options)
        try:
            access = source.access()
        finally:
            source.close()
    except CxrprepError as error:
        group = "network" if error.exit_code is ExitCode.UNREACHABLE else "access"
        return Check(group, name, State.WARNING, error.message, error.hint)
    if access.state is AccessState.MISSING:
        return None
    good = access.state in (AccessState.GRANTED, AccessState.OPEN)
    state = State.OK if good else State.WARNING if access.state is AccessState.UNKNOWN else State.PROBLEM
    who = f" as {access.account}" if access.account else ""
    costs = f"; {access.costs}" if access.costs else ""
    return Check("access", name, state, f"{access.state}{who}{costs}", "" if good else access.advice or mirror.how)


def network_checks(hosts: Mapping[str, str], timeout: float) -> Iterator[Check]:
    """Which hosts answer, and whether the clock here agrees with theirs."""
    skews = []
    with ThreadPoolExecutor(max_workers=len(hosts) or 1) as pool:
        for (url, what), answer in zip(hosts.items(), pool.map(lambda u: _head(u, timeout), hosts), strict=True):
            host = url.split("/")[2]
            if isinstance(answer, str):
                yield Check("network", host, State.WARNING, answer, f"needed for {what}; {_way_hint(url, host)}")
                continue
            seconds, skew = answer
            yield Check("network", host, State.OK, f"answers in {seconds * 1000:.0f} ms ({what})")
            if skew is not None:
                skews.append(skew)
    if skews:
        skew = sorted(skews)[len(skews) // 2]
        bad = abs(skew) > _SKEW
        hint = "set the clock (NTP): signed links and TLS certificates depend on it" if bad else ""
        found = f"{abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}" if bad else "right"
        yield Check("machine", "clock", State.PROBLEM if bad else State.OK, found, hint)


def _way_hint(url: str, host: str) -> str:
    """What to do where a host does not answer: the proxy that was asked may be the reason, or one that nobody named."""
    try:
        proxy = proxy_for(split_url(url)[0])
    except CxrprepError as error:
        return error.message
    if proxy is None:
        return f"behind a proxy set HTTPS_PROXY, and ask whether {host} is allowed"
    return f"it was asked through the proxy {proxy.shown}: check that address, and whether {host} is allowed there"


def _head(url: str, timeout: float) -> tuple[float, float | None] | str:
    """Seconds until the server answered and how far our clock is ahead of its; or why it did not answer."""
    begun = time.monotonic()
    try:
        # As a download does it: the same proxies, exceptions from them, and certificates.
        connection = HttpConnection(split_url(url)[0], ConnectionSettings(timeout, USER_AGENT))
        try:
            # Any status is an answer: reach is all that is asked here.
            date = connection.send(url, Request(head=True)).headers.get("date")
        finally:
            connection.close()
    except CxrprepError as error:
        return f"no answer: {error.message}"
    seconds = time.monotonic() - begun
    try:
        there = email.utils.parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        there = None
    return seconds, None if there is None else time.time() - there


def scheduler_check(address: str, timeout: float) -> Check:
    """Whether a Dask scheduler answers."""
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        return Check("engine", address, State.PROBLEM, "not an address", "write it as tcp://host:8786")
    try:
        socket.create_connection((host, port), timeout=timeout).close()
    except OSError as error:
        found = f"no answer: {error.strerror or error}"
        return Check("engine", address, State.PROBLEM, found, "start the scheduler, or name another: --scheduler")
    return Check("engine", address, State.OK, "answers")
