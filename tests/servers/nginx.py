"""nginx in front of a folder, set up as PhysioNet's is: agents by list, Basic auth, folder pages, ranges, ETags."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.parts import need
from tests.servers.processes import free_port, process

USER, PASSWORD = "reader", "a secret of nginx"

_CONFIGURATION = """\
daemon off;
master_process off;
pid {work}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
  log_format seen '$status $request_method $uri $server_protocol $connection '
    '"$http_range" "$http_authorization" $body_bytes_sent';
  access_log {work}/access.log seen;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  default_type application/octet-stream;
  keepalive_requests {requests};
  limit_conn_zone $binary_remote_addr zone=all:1m;
  map $http_user_agent $known {{ default 0; "~^Wget/" 1; "~^libwfdb/" 1; }}
  server {{
    listen 127.0.0.1:{port}{listen};
    location {start} {{
      alias {root}/;
      {rules}
      autoindex on;
    }}
  }}
}}
"""
_RULES = 'if ($known = 0) {{ return 403; }} auth_basic "PhysioNet"; auth_basic_user_file {work}/users;'


@dataclass(frozen=True)
class Nginx:
    """A running nginx; ``url`` is the address of its folder, with a slash at its end."""

    address: str
    url: str
    log: Path

    def seen(self) -> list[list[str]]:
        """Status, method, path and the rest of each request so far, as words."""
        return [line.split(" ", 3) for line in self.log.read_text().splitlines()]


@contextmanager
def serving(
    root: Path,
    work: Path,
    *,
    start: str = "/",
    login: bool = False,
    most: int | None = None,
    more: str = "",
    http2: Path | None = None,
    requests: int = 1_000,
) -> Iterator[Nginx]:
    """Serves ``root`` below ``start``; with ``login`` under the rules of PhysioNet. ``work`` is for its own files.

    ``http2`` is a certificate: HTTP/2 is offered over TLS. A connection serves ``requests`` times. ``more`` are further
    directives of the folder; ``most`` is how many requests are served at once, slowly then, before others are answered
    with 503.
    """
    program = need("nginx")
    work.mkdir(parents=True, exist_ok=True)
    digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    (work / "users").write_text(f"{USER}:{{SHA}}{digest}\n")
    port = free_port()
    rules = _RULES.format(work=work) if login else ""
    rules += f" limit_conn all {most}; limit_rate 50k;" if most is not None else ""
    rules += more
    listen = f" ssl http2; ssl_certificate {http2}; ssl_certificate_key {http2}" if http2 else ""
    text = _CONFIGURATION.format(
        work=work, port=port, listen=listen, root=root, start=start, rules=rules, requests=requests
    )
    (work / "nginx.conf").write_text(text)
    words = [program, "-p", str(work), "-c", str(work / "nginx.conf")]
    address = f"http{'s' if http2 else ''}://127.0.0.1:{port}"
    with process(words, port, work / "nginx.log"):
        yield Nginx(address, f"{address}{start}", work / "access.log")
