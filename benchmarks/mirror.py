"""What the download benchmark downloads: files in the layout of MIMIC-CXR-JPG, and the nginx that serves them."""

from __future__ import annotations

import hashlib
import random
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGIN: Final = ("reader", "open-sesame")
SUMS: Final = "SHA256SUMS.txt"
# nginx's module with echo_sleep: a delay that costs the server nothing.
ECHO: Final = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")

_HTTP: Final = """\
daemon off; master_process off; pid {work}/nginx.pid; error_log {work}/error.log crit;
{modules}
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000; keepalive_timeout 300;
  default_type application/octet-stream; etag on;
  client_body_temp_path {work}/t1; proxy_temp_path {work}/t2; fastcgi_temp_path {work}/t3;
  uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5;
  server {{ listen 127.0.0.1:{port} {tls}; root {root}; autoindex on;
{locations}
  }}
}}
"""


@dataclass(frozen=True)
class Corpus:
    """A folder to be served: ``files`` maps each path to its SHA-256, ``size`` is the bytes of all."""

    folder: Path
    files: dict[str, str]
    size: int


def many(folder: Path, count: int) -> Corpus:
    """``count`` JPEG names with 60 to 120 KB of noise each, and their list of checksums; kept for the next time."""
    rng = random.Random(20)
    files: dict[str, str] = {}
    size = 0
    for number in range(count):
        patient, study = 10_000_000 + number // 4, 50_000_000 + number // 2
        name = "-".join(f"{rng.getrandbits(32):08x}" for _ in range(5))
        path = f"files/p{str(patient)[:2]}/p{patient}/s{study}/{name}.jpg"
        data = rng.randbytes(rng.randrange(60_000, 120_000))
        target = folder / path
        if not target.exists() or target.stat().st_size != len(data):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        files[path] = hashlib.sha256(data).hexdigest()
        size += len(data)
    return _summed(Corpus(folder, files, size))


def large(folder: Path, size: int) -> Corpus:
    """One file of ``size`` bytes under an image's name."""
    path = "files/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg"
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(2)
    hasher = hashlib.sha256()
    with target.open("wb") as file:
        for at in range(0, size, 1 << 24):
            block = rng.randbytes(min(1 << 24, size - at))
            hasher.update(block)
            file.write(block)
    return _summed(Corpus(folder, {path: hasher.hexdigest()}, size))


def _summed(corpus: Corpus) -> Corpus:
    lines = [f"{digest} {path}\n" for path, digest in corpus.files.items()]
    (corpus.folder / SUMS).write_text("".join(lines), encoding="utf-8")
    return corpus


@contextmanager
def served(folder: Path, work: Path, *, delay: float = 0.0, login: bool = False, tls: bool = False) -> Iterator[str]:
    """The address of ``folder``: ``delay`` seconds are added to each request for an image, ``login`` asks for one."""
    work.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    lock = f'auth_basic "files"; auth_basic_user_file {work}/htpasswd;' if login else ""
    (work / "htpasswd").write_text(f"{LOGIN[0]}:{{PLAIN}}{LOGIN[1]}\n")
    if delay:
        waiting = f"location /files/ {{ {lock} echo_sleep {delay}; echo_exec @files; }}\n    location @files {{ }}"
    else:
        waiting = f"location /files/ {{ {lock} }}"
    encryption = ""
    if tls:
        certificate(work)
        encryption = (
            f"ssl; ssl_certificate {work}/cert.pem; ssl_certificate_key {work}/key.pem; ssl_session_cache shared:S:1m"
        )
    config = _HTTP.format(
        work=work,
        modules=f"load_module {ECHO};" if delay else "",
        port=port,
        tls=encryption,
        root=folder,
        locations=f"    {waiting}\n    location / {{ {lock} }}",
    )
    (work / "nginx.conf").write_text(config)
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    server = subprocess.Popen([nginx, "-c", str(work / "nginx.conf"), "-p", str(work)], stderr=subprocess.PIPE)
    try:
        _await(port, server)
        yield f"{'https' if tls else 'http'}://localhost:{port}/"
    finally:
        server.terminate()
        server.wait()


def certificate(work: Path) -> Path:
    """A certificate for localhost, which clients are told to trust."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(work / "key.pem"), "-out", str(work / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return work / "cert.pem"


def home(work: Path) -> Path:
    """A home with the login in ``.netrc``."""
    folder = work / "home"
    folder.mkdir(parents=True, exist_ok=True)
    netrc = folder / ".netrc"
    netrc.write_text(f"machine localhost login {LOGIN[0]} password {LOGIN[1]}\n")
    netrc.chmod(0o600)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if server.poll() is not None:
            raise SystemExit(f"nginx did not start: {server.stderr.read().decode() if server.stderr else ''}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("nginx does not answer")
