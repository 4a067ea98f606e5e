"""A server that sends exactly the bytes it is told to: for answers that no HTTP library would write."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Connection:
    """One connection: ``number`` counts the requests on it, from 1."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.number = 0

    def send(self, data: bytes, after: float = 0.0) -> None:
        time.sleep(after)
        self.peer.sendall(data)


class RawServer:
    """Answers each request by ``app(connection, method, path, headers)``; closes where that returns ``False``."""

    def __init__(
        self, app: Callable[[Connection, str, str, dict[str, str]], object], certificate: Path | None = None
    ) -> None:
        self.app = app
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"

    def accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            # A second answer is to arrive when it is sent, not with the acknowledgement of the first.
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, peer: socket.socket) -> None:
        with suppress(OSError), self._tls.wrap_socket(peer, server_side=True) if self._tls else peer as speaking:
            connection, reader = Connection(speaking), speaking.makefile("rb")
            while line := reader.readline():
                method, path, _ = line.decode("latin-1").split(" ", 2)
                headers = {}
                while (head := reader.readline().strip()) != b"":
                    name, _, value = head.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                connection.number += 1
                self.seen.append((method, path, headers))
                if self.app(connection, method, path, headers) is False:
                    return


@contextmanager
def serving(
    app: Callable[[Connection, str, str, dict[str, str]], object], certificate: Path | None = None
) -> Iterator[RawServer]:
    """A server for as long as the block lasts."""
    server = RawServer(app, certificate)
    thread = threading.Thread(target=server.accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(5)


def answer(body: bytes, *headers: str, status: str = "200 OK", version: str = "HTTP/1.1") -> bytes:
    """An ordinary answer."""
    lines = [f"{version} {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
