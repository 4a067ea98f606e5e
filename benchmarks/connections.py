"""How well ``cxrprep download`` finds the number of connections, on servers that differ in what they bear.

usage: python benchmarks/connections.py [--small] [--repeats N] [--only NAME] [--json FILE]

Each server runs on loopback and sends files of 60 to 120 KB. A transfer runs for a while with 2, 8, 16, 32 and 64
connections, and for longer with none named, so that the number is found. Compared is what came per second in the last
third of each run; ``refused`` counts answers 429 and 503. The servers:

latency   30 ms a request, no other limit
throttled 45,000 bytes a second for each connection
limit-8   429 with Retry-After: 1 above 8 requests at a time, 30 ms a request
limit-20  503 without Retry-After above 20 requests at a time, 30 ms a request
busy      133 requests a second in all, whoever asks
near      no latency and no limit: client and server share the machine
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import Row, arguments, finish
from cxrprep.datasets.catalog import find_dataset
from cxrprep.events import Event, ItemFinished, Retrying, StageStarted
from cxrprep.model import RemoteFile
from cxrprep.planning.plan import Action, Item, Plan
from cxrprep.record.record import Record
from cxrprep.sources import open_source
from cxrprep.sources.base import SourceOptions
from cxrprep.transfer.connection_limit import ConnectionLimit
from cxrprep.transfer.downloader import Transfer
from cxrprep.transfer.options import TransferOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

FIXED: Final = (2, 8, 16, 32, 64)
MOST: Final = 64
_NOISE: Final = random.Random(5).randbytes(120_000)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a server bears. ``delay`` in seconds a request, ``rate`` in bytes a second for a connection.

    Above ``bears`` requests at a time it answers ``refusal``; ``busy`` is how many requests a second it serves in all.
    """

    delay: float = 0.0
    rate: float = 0.0
    bears: int = 10_000
    refusal: bytes = b""
    busy: float = 0.0


_TOO_MANY: Final = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_OVERLOADED: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
PROFILES: Final = {
    "latency": Profile(delay=0.03),
    "throttled": Profile(rate=45_000),
    "limit-8": Profile(delay=0.03, bears=8, refusal=_TOO_MANY),
    "limit-20": Profile(delay=0.03, bears=20, refusal=_OVERLOADED),
    "busy": Profile(busy=133.0),
    "near": Profile(),
}


class Server:
    """An HTTP server of one profile; any path is a file."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._open = 0
        self._next = 0.0

    async def serve(self, started: Connection) -> None:
        """Serve until the process ends; ``started`` is told the port."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=256)
        started.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        profile = self._profile
        if self._open >= profile.bears:
            writer.write(profile.refusal)
            return
        self._open += 1
        try:
            await asyncio.sleep(self._wait(profile))
            size = 60_000 + hash(head[:60]) % 60_000
            writer.write(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: %d\r\n\r\n' % size)
            if not profile.rate:
                writer.write(_NOISE[:size])
            else:
                for at in range(0, size, 4500):
                    writer.write(_NOISE[at : min(at + 4500, size)])
                    await writer.drain()
                    await asyncio.sleep(4500 / profile.rate)
            await writer.drain()
        finally:
            self._open -= 1

    def _wait(self, profile: Profile) -> float:
        if not profile.busy:
            return profile.delay
        now = time.monotonic()
        self._next = max(self._next, now) + 1 / profile.busy
        return self._next - now


def _run(profile: Profile, started: Connection) -> None:
    asyncio.run(Server(profile).serve(started))


@contextmanager
def served(profile: Profile) -> Iterator[str]:
    """The address of a server in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(profile, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/"
    finally:
        process.terminate()
        process.join()


@dataclass
class Outcome:
    """Bytes a second in the last third of a run, the answers that refused, and the number in use when."""

    rate: float
    refused: int
    numbers: list[tuple[float, int]]


def transfer(url: str, folder: Path, connections: int | None, seconds: float) -> Outcome:
    """What a transfer of ``seconds`` brings; files go as soon as they have come."""
    source = open_source(url, SourceOptions(connections=connections))
    items = [
        Item(RemoteFile(f"images/{number:08d}_000.png"), f"images/{number:08d}_000.png", Action.FETCH)
        for number in range(120_000)
    ]
    plan = Plan("nih-chestxray14", "v2020", source.address, items)
    moved: deque[tuple[float, int]] = deque()
    refused, began = 0, time.monotonic()

    def on_event(event: Event) -> None:
        nonlocal refused, began
        if isinstance(event, StageStarted):
            began = time.monotonic()
            threading.Timer(seconds, work.stop).start()
        elif isinstance(event, ItemFinished):
            moved.append((time.monotonic(), event.size))
        elif isinstance(event, Retrying) and ("429" in event.cause or "503" in event.cause):
            refused += 1

    numbers: list[tuple[float, int]] = []
    resize = ConnectionLimit.resize

    def noted(limit: ConnectionLimit, number: int) -> None:
        numbers.append((time.monotonic() - began, number))
        resize(limit, number)

    ConnectionLimit.resize = noted  # type: ignore[method-assign, assignment]  # to see what is chosen
    options = TransferOptions(connections=connections, folder_lock=False)
    try:
        with (
            closing(source),
            Record.open(folder) as record,
            Transfer(
                record,
                find_dataset("nih-chestxray14").layout(),
                options=options,
                on_event=on_event,
                on_complete=lambda *_: True,
            ) as work,
        ):
            work.run(plan, source)
    finally:
        ConnectionLimit.resize = resize  # type: ignore[method-assign]
    since = began + seconds * 2 / 3
    rate = sum(size for at, size in moved if since < at <= began + seconds) / (seconds / 3)
    return Outcome(rate, refused, numbers)


def profile_rows(name: str, repeats: int, fixed_seconds: float, seconds: float) -> list[Row]:
    """The best fixed number beside the number that is found."""
    fixed: dict[int, list[float]] = {number: [] for number in FIXED}
    found: list[Outcome] = []
    with served(PROFILES[name]) as url:
        for _ in range(repeats):
            for number in (*FIXED, None):
                with tempfile.TemporaryDirectory(prefix="cxrprep-connections-", dir=_memory()) as folder:
                    one = transfer(url, Path(folder), number, fixed_seconds if number else seconds)
                if number is None:
                    found.append(one)
                else:
                    fixed[number].append(one.rate)
    rates = {number: statistics.median(values) for number, values in fixed.items()}
    best = max(rates, key=lambda number: rates[number])
    last = found[-1]
    ends = last.numbers[-1][1] if last.numbers else 4
    climb = next((at for at, number in last.numbers if number == max(n for _, n in last.numbers)), 0.0)
    listed = ", ".join(f"{number}: {rate / 1e6:.3g}" for number, rate in rates.items())
    refused = statistics.median(outcome.refused for outcome in found)
    note = f"{listed}; ends at {ends}, highest after {climb:.0f} s, refused {refused:g}"
    ours = statistics.median(outcome.rate for outcome in found)
    return [Row(name, ours / 1e6, "MB/s", f"{best} connections", rates[best] / 1e6, 0.9, note=note)]


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # a folder of its own is made there


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=PROFILES, action="append", help="this server only")
    # A round takes five minutes, and each of its runs counts thousands of files.
    parser.set_defaults(repeats=1)
    chosen = parser.parse_args()
    rows: list[Row] = []
    for name in chosen.only or PROFILES:
        fixed_seconds, seconds = (1.5, 6.0) if chosen.small else (4.0, 33.0)
        rows += profile_rows(name, 1 if chosen.small else chosen.repeats, fixed_seconds, seconds)
        print(rows[-1], flush=True)
    return finish("Connections that find their number", rows, json_file=chosen.json)


if __name__ == "__main__":
    sys.exit(main())
