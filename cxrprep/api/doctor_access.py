"""Checks of access: logins that are there, mirrors that answer and accept them, a scheduler."""

from __future__ import annotations

import email.utils
import os
import socket
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cxrprep.api.doctor_check import Check, State
from cxrprep.credentials.services import ADVICE
from cxrprep.errors import CxrprepError, ExitCode
from cxrprep.sources import endpoints
from cxrprep.sources.base import AccessState, SourceOptions
from cxrprep.sources.http_client import USER_AGENT
from cxrprep.sources.http_connection import ConnectionSettings, HttpConnection, Request
from cxrprep.sources.proxies import proxy_for
from cxrprep.sources.urls import split_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cxrprep.credentials.lookup import Credentials
    from cxrprep.datasets.facts import DatasetSpec, Mirror


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
            date = connection.send(Request(url, head=True)).headers.get("date")
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
