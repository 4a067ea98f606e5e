"""The verb doctor: checks of this machine, its logins and its network, each with the next step."""

from __future__ import annotations

import enum
import importlib.util
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.result import Result
from cxrprep.credentials.services import ADVICE
from cxrprep.datasets.catalog import catalog, find_dataset
from cxrprep.errors import CxrprepError, ExitCode, UsageError, did_you_mean
from cxrprep.extras import install_command
from cxrprep.humanize import format_bytes
from cxrprep.sources.base import AccessState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cxrprep.credentials.lookup import Credentials
    from cxrprep.datasets.catalog import DatasetSpec, Mirror


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


@dataclass(frozen=True, slots=True)
class Examination:
    """All checks. Problems of access alone give exit code 5, of the disk 7, of the network 6, others 2."""

    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """0 when nothing is a problem; warnings do not count."""
        groups = {check.group for check in self.checks if check.state is State.PROBLEM}
        for group, code in _CODES.items():
            if group in groups:
                return int(code)
        return int(ExitCode.DONE)

    def to_dict(self) -> dict[str, Any]:
        """The checks as plain values, ready for JSON."""
        return {
            "checks": [
                {"group": c.group, "name": c.name, "state": str(c.state), "found": c.found, "hint": c.hint}
                for c in self.checks
            ]
        }

    def summary_rows(self) -> Sequence[tuple[str, Any]]:
        """How many checks came out how."""
        return [(str(state), sum(c.state is state for c in self.checks)) for state in State]


_CODES: Final[Mapping[str, ExitCode]] = {
    "machine": ExitCode.USAGE,
    "engine": ExitCode.USAGE,
    "access": ExitCode.ACCESS,
    "disk": ExitCode.STORAGE,
    "network": ExitCode.UNREACHABLE,
}

_CODECS: Final = (
    ("cv2", "PNG and JPEG", "", State.PROBLEM),
    ("pydicom", "DICOM headers, uncompressed and RLE pixels", "", State.PROBLEM),
    ("imagecodecs", "compressed DICOM (JPEG, JPEG-LS, JPEG 2000), JPEG XL", "", State.PROBLEM),
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
# host -> what it serves; asked with HEAD, which moves no data.
_HOSTS: Final = {
    "https://physionet.org/": "MIMIC-CXR",
    "https://nihcc.app.box.com/v/ChestXray-NIHCC": "NIH ChestX-ray14",
    "https://www.kaggle.com/": "CheXpert small, NIH ChestX-ray14",
    "https://storage.googleapis.com/": "Google's mirrors",
    "https://huggingface.co/": "CheXpert at 512 pixels",
    "https://aimistanforddatasets01.blob.core.windows.net/": "CheXpert",
}
# scheme of a mirror -> the host above that stands for it.
_SERVED_BY: Final = {
    "physionet": "physionet.org",
    "box": "nihcc.app.box.com",
    "kaggle": "www.kaggle.com",
    "gs": "storage.googleapis.com",
    "hf": "huggingface.co",
    "url": "aimistanforddatasets01.blob.core.windows.net",
}
_SKEW: Final = 300.0


def doctor(
    root: Path | str = ".",
    *,
    dataset: str | None = None,
    source: str | None = None,
    whole: bool = True,
    billing_project: str | None = None,
    scheduler: str | None = None,
    offline: bool = False,
    timeout: float = 10.0,
    credentials: Credentials | None = None,
) -> Result[Examination]:
    """Check this machine, its logins, agreements, network and cluster; nothing is written.

    Args:
        root: Where the data shall go; its disk is looked at.
        dataset: Ask about this one alone, and judge whether a download of it can start.
        source: The mirror that is judged; the dataset's own when it is not named.
        whole: All of the dataset is wanted, so it has to fit on the disk.
        billing_project: Who pays for buckets that ask for it.
        scheduler: Address of a Dask scheduler that has to answer.
        offline: Ask no server.
        timeout: Seconds to wait for each server.
        credentials: Logins; by default those of the environment and of the services' own files.

    Returns:
        The checks, each with the next step. The exit code is 0 when nothing is a problem, 5 for a login or an
        agreement, 6 for the network, 7 for the disk, 2 for what this machine lacks.

    Raises:
        UsageError: ``dataset`` is unknown, or has no mirror ``source``.

    Examples:
        >>> import cxrprep
        >>> examined = cxrprep.doctor("nih", offline=True)
        >>> examined.verb
        'doctor'
    """
    from cxrprep.credentials.lookup import Credentials

    checks = examine(
        root=Path(root),
        credentials=credentials or Credentials(),
        dataset=dataset,
        source=source,
        whole=whole,
        billing_project=billing_project,
        scheduler=scheduler,
        offline=offline,
        timeout=timeout,
    )
    found = Examination(tuple(checks))
    rows = tuple((check.name, f"{check.state}: {check.found}") for check in found.checks)
    return Result("doctor", found, ExitCode(found.exit_code), rows=rows, data=found.to_dict())


def examine(
    *,
    root: Path,
    credentials: Credentials,
    dataset: str | None = None,
    source: str | None = None,
    whole: bool = True,
    billing_project: str | None = None,
    scheduler: str | None = None,
    offline: bool = False,
    timeout: float = 10.0,
    hosts: Mapping[str, str] | None = None,
) -> Iterator[Check]:
    """The checks one by one, those that ask the network last. Nothing is written.

    Args:
        root: Where the data shall go; its disk is looked at.
        credentials: The logins that are tried, and never shown.
        dataset: Ask about this one alone, and judge: what keeps a download of it from starting is a problem.
        source: The mirror that is judged; the dataset's own when it is not named. Other mirrors make warnings at most.
        whole: All of the dataset is wanted, so it has to fit on the disk.
        billing_project: Who pays for buckets that ask for it.
        scheduler: Address of a Dask scheduler that has to answer.
        offline: Ask no server.
        timeout: Seconds to wait for each server.
        hosts: Address and purpose of the hosts to reach; those that the datasets need when not given.

    Yields:
        The checks, in the order in which they are known.

    Raises:
        UsageError: ``dataset`` is unknown, or has no mirror ``source``.
    """
    specs = [find_dataset(dataset)] if dataset else list(catalog().values())
    judged = _judged(specs[0], source) if dataset else None
    yield from _machine()
    yield from _disk(root, specs[0] if dataset else None, judged, whole=whole)
    yield from _netrc()
    for service in dict.fromkeys(_service(mirror) for spec in specs for mirror in spec.mirror):
        if service:
            yield _strict(_present(credentials, service), judged is not None and _needs(judged, service))
    if scheduler:
        yield _reachable_scheduler(scheduler, timeout)
    if not offline:
        silent = set()
        for check in _network(_hosts_of(specs) if hosts is None else hosts, timeout):
            if check.group == "network" and check.state is not State.OK:
                silent.add(check.name)
            yield _strict(check, judged is not None and _behind(judged, {check.name}))
        # A service whose host does not answer was named just now; asking it again and again would only take time.
        asked = [(s, m) for s in specs for m in s.mirror if not _behind(m, silent)]
        with ThreadPoolExecutor(max_workers=max(len(asked), 1)) as pool:
            answers = pool.map(lambda pair: _accepted(pair, credentials, billing_project, timeout), asked)
            for (_, mirror), found in zip(asked, answers, strict=True):
                if found is not None:
                    yield _strict(found, mirror is judged and found.group in ("access", "network"))


def _judged(spec: DatasetSpec, source: str | None) -> Mirror | None:
    """The mirror that a download would take; ``None`` for a folder or an address, which is not asked here."""
    mirror = spec.mirror_named(source or spec.default_mirror)
    if mirror is None and source and not any(mark in source for mark in "/:."):
        names = [mirror.name for mirror in spec.mirror]
        hint = f"{did_you_mean(source, names)}mirrors: {', '.join(names)}"
        raise UsageError(f"{source!r} is no mirror of {spec.name}", hint=hint)
    return mirror


def _needs(mirror: Mirror, service: str) -> bool:
    # Google's open buckets are read without a login, and everyone may ask for a payer's bucket with a project.
    return _service(mirror) == service and mirror.access != "open"


def _strict(check: Check, judged: bool) -> Check:
    """The check as it counts for the mirror that is judged: what is not right keeps the data away."""
    if judged and check.state is State.WARNING and not check.found.startswith(str(AccessState.UNKNOWN)):
        return replace(check, state=State.PROBLEM)
    return check


def _hosts_of(specs: Sequence[DatasetSpec]) -> dict[str, str]:
    """The hosts that serve these datasets, but for services that the environment sends elsewhere."""
    mirrors = [mirror for spec in specs for mirror in spec.mirror]
    wanted = {host for host in _SERVED_BY.values() if any(_behind(mirror, {host}) for mirror in mirrors)}
    return {url: what for url, what in _HOSTS.items() if url.split("/")[2] in wanted}


def _machine() -> Iterator[Check]:
    import platform

    from cxrprep._version import __version__

    about = f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield Check("machine", "cxrprep", State.OK, about)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("machine", "cores", State.OK, str(cores))
    for module, what, extra, missing in _CODECS:
        there = importlib.util.find_spec(module) is not None
        install = install_command(extra) if extra else "install cxrprep again: a package that it needs is gone"
        state, found, hint = (State.OK, what, "") if there else (missing, f"missing: {what}", install)
        yield Check("machine", f"codec {module}", state, found, hint)
    for module, what, extra in _EXTRAS:
        there = importlib.util.find_spec(module) is not None
        state = State.OK if there else State.OPTIONAL
        found = what if there else f"not installed; only needed for {what}"
        yield Check("machine", f"extra {extra}", state, found, "" if there else install_command(extra))
    yield _labeler()


def _labeler() -> Check:
    """The report labeler over its own examples, some tenths of a second."""
    from cxrprep.api.report_labels import check_labeler

    checked = check_labeler().value
    if checked.passed:
        return Check("machine", "report labeler", State.OK, f"{checked.examples:,} examples labelled as they should be")
    found = f"{len(checked.failures):,} of {checked.examples:,} examples labelled wrongly"
    return Check("machine", "report labeler", State.PROBLEM, found, "look at them: cxrprep explain --selftest")


def _disk(root: Path, spec: DatasetSpec | None, judged: Mirror | None, *, whole: bool) -> Iterator[Check]:
    place = root.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        yield _room(root, place, spec, judged, whole=whole)
    except OSError as error:
        yield Check("disk", str(place), State.PROBLEM, error.strerror or "cannot be asked", "check the mount")
        return
    if not os.access(place, os.W_OK):
        hint = "name a folder of your own, or keep the record elsewhere with --state DIR"
        state = State.WARNING if spec is None else State.PROBLEM
        yield Check("disk", f"writable {place}", state, "no", hint)
    handle_limit = _open_files()
    if handle_limit is not None and handle_limit < 256:
        yield Check("disk", "open files", State.WARNING, str(handle_limit), "ulimit -n 4096")


def _room(root: Path, place: Path, spec: DatasetSpec | None, judged: Mirror | None, *, whole: bool) -> Check:
    """Whether there is room: for the whole of ``spec`` beside what is in ``root`` already, else for any collection.

    Raises ``OSError`` when the disk cannot be asked.
    """
    usage = shutil.disk_usage(place)
    free, found = usage.free, f"{format_bytes(usage.free)} of {format_bytes(usage.total)}"
    if spec is None:
        needs = ", ".join(f"{name} {format_bytes(size)}" for name, size in _sizes())
        hint = "" if free >= 60e9 else f"the collections take: {needs}; choose a part: --limit, --view, --split"
        return Check("disk", f"free at {place}", State.WARNING if hint else State.OK, found, hint)
    need = (judged.size if judged else 0) or _size(spec)
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


def _sizes() -> list[tuple[str, int]]:
    return [(spec.name, _size(spec)) for spec in catalog().values() if _size(spec)]


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _netrc() -> Iterator[Check]:
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    if os.name == "posix" and path.is_file() and path.stat().st_mode & 0o077:
        yield Check("access", str(path), State.WARNING, "others can read it", f"chmod 600 {path}")


def _service(mirror: Mirror) -> str:
    scheme, _, rest = mirror.url.partition("://")
    own = {"physionet": "physionet", "kaggle": "kaggle", "gs": "google", "hf": "huggingface"}
    return own.get(scheme, rest.partition("/")[0] if scheme == "url" else "")


def _behind(mirror: Mirror, silent: set[str]) -> bool:
    """Whether the mirror's host is among those that do not answer, unless the environment names another one."""
    from cxrprep.sources.endpoints import ENDPOINTS, variable

    scheme = mirror.url.partition("://")[0]
    service = "huggingface" if scheme == "hf" else scheme
    if service in ENDPOINTS and os.environ.get(variable(service)):
        return False
    return _SERVED_BY.get(scheme, "") in silent


def _present(credentials: Credentials, service: str) -> Check:
    try:
        found = credentials.found(service)
    except CxrprepError as error:
        return Check("access", f"login {service}", State.PROBLEM, error.message, error.hint)
    if found is None:
        return Check("access", f"login {service}", State.WARNING, "none", ADVICE[service])
    who = f"{found.account}, from {found.origin}" if found.account else f"from {found.origin}"
    return Check("access", f"login {service}", State.OK, who)


def _accepted(
    place: tuple[DatasetSpec, Mirror], credentials: Credentials, project: str | None, timeout: float
) -> Check | None:
    """How far access goes at one mirror; ``None`` where a login is missing, which was said before."""
    from cxrprep.sources import open_source
    from cxrprep.sources.base import SourceOptions

    spec, mirror = place
    name = f"{spec.name} from {mirror.name}"
    options = SourceOptions(
        credentials=credentials,
        timeout=timeout,
        billing_project=project,
        extra=mirror.source_settings(),
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


def _network(hosts: Mapping[str, str], timeout: float) -> Iterator[Check]:
    skews = []
    with ThreadPoolExecutor(max_workers=len(hosts) or 1) as pool:
        for (url, what), answer in zip(hosts.items(), pool.map(lambda u: _head(u, timeout), hosts), strict=True):
            host = url.split("/")[2]
            if isinstance(answer, str):
                hint = f"needed for {what}; behind a proxy set HTTPS_PROXY, and ask whether {host} is allowed"
                yield Check("network", host, State.WARNING, answer, hint)
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


def _head(url: str, timeout: float) -> tuple[float, float | None] | str:
    """Seconds until the server answered and how far our clock is ahead of its; or why it did not answer."""
    import email.utils
    import urllib.error
    import urllib.request

    begun = time.monotonic()
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310  # the addresses are constants of this module
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310  # likewise
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        # Any status is an answer: reach is all that is asked here.
        with error:
            date = error.headers.get("Date")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return f"no answer: {getattr(reason, 'strerror', None) or reason}"
    seconds = time.monotonic() - begun
    try:
        there = email.utils.parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        there = None
    return seconds, None if there is None else time.time() - there


def _reachable_scheduler(address: str, timeout: float) -> Check:
    import socket
    from urllib.parse import urlsplit

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
