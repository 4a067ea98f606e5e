"""requests sessions for the services' own clients (SDKs): no netrc, and the same certificates and proxies as libcurl.

requests reads ``~/.netrc`` for every host, ``default`` included, and lets it replace the Authorization header that an
SDK has set (psf/requests#3929): the password of one site goes to another, and the token does not go at all.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter

from cxrprep.sources.network_errors import CONNECT_SECONDS
from cxrprep.sources.proxies import proxy_for
from cxrprep.sources.trust import ca_bundle
from cxrprep.sources.urls import split_url

if TYPE_CHECKING:
    import requests


class ServiceAdapter(HTTPAdapter):
    """Sends over the proxy that ``proxies`` finds, or ``direct``; ``timeout`` counts where the SDK passes none."""

    def __init__(self, timeout: float | None = None, *, direct: bool = False, **options: Any) -> None:
        """``options`` are those of ``HTTPAdapter``."""
        self.timeout = timeout
        self.direct = direct
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """See ``HTTPAdapter.init_poolmanager``."""
        super().init_poolmanager(*args, ssl_context=_as_libcurl(), **options)

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """See ``HTTPAdapter.proxy_manager_for``."""
        return super().proxy_manager_for(*args, ssl_context=_as_libcurl(), **options)

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """See ``HTTPAdapter.send``. Raises ``UsageError`` for a proxy whose address cannot be read."""
        endpoint, _ = split_url(request.url or "")
        proxy = None if self.direct else proxy_for(endpoint)
        options["proxies"] = {endpoint.scheme: proxy.url} if proxy is not None else {}
        asked = options.get("timeout") or self.timeout
        to_connect, to_read = asked if isinstance(asked, tuple) else (asked, asked)
        # An address that is silent, as IPv6 is in many networks, keeps the next one waiting for so long.
        options["timeout"] = (min(to_connect or CONNECT_SECONDS, CONNECT_SECONDS), to_read)
        return super().send(request, *args, **options)


def _as_libcurl() -> ssl.SSLContext:
    """What trusts a certificate that was named, as libcurl does, though it is no authority's own, or not strictly one.

    Companies hand out the authority in the middle; Python 3.13 refuses theirs where one extension is missing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def prepare_session(
    session: requests.Session, timeout: float | None = None, *, direct: bool = False
) -> requests.Session:
    """``session``, made to read nothing of the environment but what every source reads; ``direct`` uses no proxy.

    Raises ``UsageError`` for certificates that cannot be read.
    """
    # Without it netrc is asked again at each redirect, whatever ``auth`` is.
    session.trust_env = False
    session.verify = ca_bundle()
    for prefix, old in list(session.adapters.items()):
        retries = getattr(old, "max_retries", 0)
        session.mount(prefix, ServiceAdapter(timeout, direct=direct, max_retries=retries, pool_maxsize=64))
    return session
