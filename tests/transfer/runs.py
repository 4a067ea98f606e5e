"""What the transfer tests share: one download as a function, and NIH-like files."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from typing import TYPE_CHECKING, Any

from cxrprep.datasets.catalog import find_dataset
from cxrprep.planning.build import make_plan
from cxrprep.record.record import Record
from cxrprep.sources import open_source
from cxrprep.sources.base import SourceOptions
from cxrprep.transfer.downloader import Transfer
from cxrprep.transfer.options import TransferOptions
from cxrprep.transfer.retry import RetryPolicy

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.planning.plan import Plan
    from cxrprep.transfer.result import TransferResult

QUICK = RetryPolicy(attempts=4, first_wait=0.01, longest_wait=0.02, jitter=0.0)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def image(number: int, view: int = 0) -> str:
    return f"images/{number:08d}_{view:03d}.png"


def release(count: int = 6, size: int = 5_000) -> dict[str, bytes]:
    """A small mirror: images, tables and the sums of all."""
    files = {image(n): noise(size + n, n) for n in range(1, count + 1)}
    files["Data_Entry_2017_v2020.csv"] = b"Image Index,Finding Labels\n" * 50
    return with_sums(files)


def with_sums(files: dict[str, bytes]) -> dict[str, bytes]:
    lines = [f"{hashlib.md5(data).hexdigest()}  {name}" for name, data in files.items() if name != "MD5SUMS"]
    return {**files, "MD5SUMS": ("\n".join(lines) + "\n").encode()}


def expected(files: dict[str, bytes]) -> dict[str, bytes]:
    """What must lie in the folder when a mirror has ``files``."""
    return {name: data for name, data in files.items() if name != "MD5SUMS"}


def tar_gz(members: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return raw.getvalue()


def plan_for(root: Path, url: str, transfer: Transfer, **options: Any) -> Plan:
    source = open_source(url, SourceOptions(timeout=5))
    try:
        return make_plan(
            source.list(),
            find_dataset("nih-chestxray14").layout(),
            dataset="nih-chestxray14",
            release="v2020",
            mirror=source.address,
            local_state=transfer.local_state(),
            **options,
        )
    finally:
        source.close()


def download(
    root: Path, url: str, *, options: TransferOptions | None = None, on_event: Any = None, on_complete: Any = None,
    credentials: Any = None, timeout: float = 5, state: Path | None = None, **selecting: Any,
) -> TransferResult:  # fmt: skip
    """One whole run, as ``api`` does it."""
    root.mkdir(parents=True, exist_ok=True)
    connections = options.connections if options else None
    source = open_source(url, SourceOptions(timeout=timeout, credentials=credentials, connections=connections))
    with (
        Record.open(root, state) as record,
        Transfer(
            record,
            find_dataset("nih-chestxray14").layout(),
            options=options or TransferOptions(retry_policy=QUICK),
            on_event=on_event or (lambda event: None),
            on_complete=on_complete,
        ) as transfer,
    ):
        plan = make_plan(
            source.list(),
            find_dataset("nih-chestxray14").layout(),
            dataset="nih-chestxray14",
            release="v2020",
            mirror=source.address,
            local_state=transfer.local_state(),
            **selecting,
        )
        try:
            return transfer.run(plan, source)
        finally:
            source.close()


def tree(root: Path) -> dict[str, bytes]:
    """Every file below ``root`` that belongs to the release."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".cxrprep" not in path.parts and not path.name.startswith("cxrprep.")
    }


def leftovers(root: Path) -> list[str]:
    """Partial files, sidecars and the like."""
    folder = root / ".cxrprep" / "parts"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
