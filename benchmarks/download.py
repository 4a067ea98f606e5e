"""How fast ``cxrprep download`` brings files, beside the tools that people use for it.

usage: python benchmarks/download.py [--small] [--repeats N] [--work DIR] [--only NAME] [--json FILE]

Real nginx on loopback serves files in the layout of MIMIC-CXR-JPG. Ours is the whole command: start-up, reading the
list of checksums, planning, fetching, digesting every byte, and writing the record, which survives ``kill -9`` at any
moment. Client and server share the machine, so read the ratios. The measurements:

latency   2,000 files of 60-120 KB with basic auth, each request delayed by 30 ms (nginx's echo module)
tls       the same over TLS
disk      the same on the disk of the temporary folder, which is what people have: the floors are for this one
many      20,000 files of 60-120 KB
large     one file of 2 GB over TLS
nothing   the same 20,000 files, all here already; and a plan of 400,000 files

All but those on the disk happen in memory (/dev/shm) where there is enough of it: what is measured there is the
program, not how soon a disk has two gigabytes that ours, unlike the others, wait for.
Installed by: apt-get install nginx-light libnginx-mod-http-echo aria2 curl wget rclone
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import mirror
from benchmarks.measuring import PROGRAM, Cost, Row, arguments, file_system, finish, in_turn, measure, program_version
from cxrprep.sources.trust import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.mirror import Corpus

MEASUREMENTS: Final = ("latency", "tls", "disk", "many", "large", "nothing")
DELAY: Final = 0.03
MEMORY: Final = Path("/dev/shm")  # a folder of its own is made there
# The files, and what two programs leave of them for a moment.
_NEEDED: Final = 7_000_000_000


class Bench:
    """Where the runs happen: a fresh target folder for each, emptied outside of the measured time."""

    def __init__(self, work: Path, repeats: int) -> None:
        self.work = work
        self.repeats = repeats
        self.home = mirror.home(work)
        self.env = {"HOME": str(self.home), "NETRC": str(self.home / ".netrc")}
        self._number = 0

    def target(self) -> Path:
        """A new place for what is downloaded."""
        self._number += 1
        folder = self.work / f"out-{self._number}"
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def run(self, corpus: Corpus, words: Sequence[str], folder: Path, *, shell: str = "") -> Cost:
        """What the command cost; it must have brought everything."""
        folder.mkdir(parents=True, exist_ok=True)
        # What others left to write would be written in the next one's time.
        os.sync()
        cost = measure([*words] if not shell else ["sh", "-c", shell], env=self.env, cwd=folder)
        here = sum(1 for path in folder.rglob("*.jpg"))
        if cost.code or here != len(corpus.files):
            raise SystemExit(f"{words or shell}: exit code {cost.code}, {here} files\n{cost.stdout}\n{cost.stderr}")
        self.empty(folder)
        return cost

    @staticmethod
    def empty(folder: Path) -> None:
        """Give the space back. The names stay: for each new file ext4 passes over those removed lately, one by one."""
        for path in folder.rglob("*"):
            if path.is_file():
                os.truncate(path, 0)

    def write(self, name: str, text: str) -> Path:
        """A file of a peer's own: a list of addresses."""
        path = self.work / name
        path.write_text(text, encoding="utf-8")
        return path

    # ---- who downloads ----

    def ours(self, corpus: Corpus, url: str, connections: int) -> Cost:
        folder = self.target()
        words = [PROGRAM, "download", "mimic-cxr-jpg", str(folder), "--source", url]
        return self.run(corpus, [*words, "--connections", str(connections)], folder)

    def aria2(self, corpus: Corpus, url: str, connections: int, *, split: int = 1, checksums: bool = True) -> Cost:
        folder = self.target()
        lines = []
        for path, digest in corpus.files.items():
            lines.append(f"{url}{path}\n  out={path}\n" + (f"  checksum=sha-256={digest}\n" if checksums else ""))
        listed = self.write("aria2.txt", "".join(lines))
        words = [
            "aria2c", "-q", "-i", str(listed), "-d", str(folder), f"-j{connections}", f"-x{split}", f"-s{split}",
            "--file-allocation=none", "--no-conf", f"--netrc-path={self.home / '.netrc'}", *self._aria2_trust(),
        ]  # fmt: skip
        return self.run(corpus, words, folder)

    def curl(self, corpus: Corpus, url: str, connections: int) -> Cost:
        folder = self.target()
        lines = "".join(f'url = "{url}{path}"\noutput = "{folder}/{path}"\n' for path in corpus.files)
        listed = self.write("curl.txt", lines)
        words = ["curl", "-sf", "-Z", "--parallel-max", str(connections), "--create-dirs", "-n", *self._curl_trust()]
        return self.run(corpus, [*words, "-K", str(listed)], folder)

    def wget(self, corpus: Corpus, url: str) -> Cost:
        folder = self.target()
        listed = self.write("wget.txt", "".join(f"{url}{path}\n" for path in corpus.files))
        words = ["wget", "-q", "-x", "-nH", "-i", str(listed), f"--ca-certificate={self._trust()}"]
        return self.run(corpus, words, folder)

    def rclone(self, corpus: Corpus, url: str, connections: int) -> Cost:
        folder = self.target()
        words = ["rclone", "copy", "-q", f"--http-url={url}", ":http:", str(folder), f"--transfers={connections}"]
        return self.run(corpus, [*words, f"--checkers={connections}"], folder)

    def curl_then_digest(self, corpus: Corpus, url: str) -> Cost:
        folder = self.target()
        path = next(iter(corpus.files))
        words = " ".join(["curl", "-sf", "--create-dirs", *self._curl_trust()])
        shell = f"{words} -o '{path}' '{url}{path}' && openssl dgst -sha256 '{path}'"
        return self.run(corpus, (), folder, shell=shell)

    # ---- certificates ----

    def trusting(self, certificate: Path) -> None:
        # And nothing else, as the peers: what other variables of this machine name is read for each connection.
        self.env |= dict.fromkeys(VARIABLES, "") | {"SSL_CERT_FILE": str(certificate)}

    def _trust(self) -> str:
        return self.env.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")

    def _curl_trust(self) -> list[str]:
        return ["--cacert", self._trust()] if "SSL_CERT_FILE" in self.env else []

    def _aria2_trust(self) -> list[str]:
        return [f"--ca-certificate={self._trust()}"] if "SSL_CERT_FILE" in self.env else []


def latency(bench: Bench, count: int, *, where: str = "", judged: bool = True, tls: bool = False) -> list[Row]:
    """Files a second when each request takes 30 ms: what a network looks like; the floors count where ``judged``."""
    corpus = mirror.many(bench.work / f"files-{count}", count)
    work = bench.work / ("nginx-tls" if tls else "nginx")
    with mirror.served(corpus.folder, work, delay=DELAY, login=True, tls=tls) as url:
        if tls:
            bench.trusting(work / "cert.pem")
        runs: dict[str, Callable[[], float]] = {
            "ours 16": lambda: count / bench.ours(corpus, url, 16).wall,
            "ours 64": lambda: count / bench.ours(corpus, url, 64).wall,
            "aria2c -j16": lambda: count / bench.aria2(corpus, url, 16).wall,
            "curl -Z 16": lambda: count / bench.curl(corpus, url, 16).wall,
            "curl -Z 64": lambda: count / bench.curl(corpus, url, 64).wall,
        }
        found = in_turn(runs, bench.repeats)
    what = f"{count:,} files, 30 ms a request, basic auth{where}"
    rows = [
        Row(
            f"{what}, 16 connections", found["ours 16"], "files/s", "aria2c -j16, checksums", found["aria2c -j16"], 1.0
        ),
        Row(f"{what}, 16 connections", found["ours 16"], "files/s", "curl -Z, no digests", found["curl -Z 16"]),
        Row(f"{what}, 64 connections", found["ours 64"], "files/s", "floor", 1000.0, 1.0),
        Row(f"{what}, 64 connections", found["ours 64"], "files/s", "curl -Z, no digests", found["curl -Z 64"]),
    ]
    return rows if judged else [dataclasses.replace(row, floor=None) for row in rows]


def many(bench: Bench, count: int) -> list[Row]:
    """Files a second without any latency: what the client itself costs."""
    corpus = mirror.many(bench.work / f"files-{count}", count)
    with mirror.served(corpus.folder, bench.work / "nginx") as url:
        costs: dict[str, list[Cost]] = {}

        def kept(name: str, cost: Cost) -> float:
            costs.setdefault(name, []).append(cost)
            return count / cost.wall

        runs: dict[str, Callable[[], float]] = {
            "ours": lambda: kept("ours", bench.ours(corpus, url, 16)),
            "aria2c": lambda: kept("aria2c", bench.aria2(corpus, url, 16)),
            "curl": lambda: kept("curl", bench.curl(corpus, url, 16)),
            "wget": lambda: kept("wget", bench.wget(corpus, url)),
            "rclone": lambda: kept("rclone", bench.rclone(corpus, url, 16)),
        }
        found = in_turn(runs, bench.repeats)
    what = f"{count:,} files, 16 connections"
    names = {"aria2c": "aria2c -j16, checksums", "curl": "curl -Z, no digests", "wget": "wget, no digests",
             "rclone": "rclone, no digests"}  # fmt: skip
    rows = [
        Row(what, found["ours"], "files/s", peer, found[name], 1.0 if name == "aria2c" else None)
        for name, peer in names.items()
    ]
    rows += [
        Row("the same", costs["ours"][-1].cpu, "CPU s", names[name], costs[name][-1].cpu, lower=True)
        for name in ("aria2c", "curl")
    ]
    rows.append(Row("the same", costs["ours"][-1].peak, "MiB", names["aria2c"], costs["aria2c"][-1].peak, lower=True))
    return rows


def large(bench: Bench, size: int) -> list[Row]:
    """One large file over TLS, in MB/s with its digest."""
    corpus = mirror.large(bench.work / "large", size)
    work = bench.work / "nginx-tls"
    with mirror.served(corpus.folder, work, tls=True) as url:
        bench.trusting(work / "cert.pem")
        runs: dict[str, Callable[[], float]] = {
            "ours": lambda: size / 1e6 / bench.ours(corpus, url, 8).wall,
            "curl": lambda: size / 1e6 / bench.curl_then_digest(corpus, url).wall,
            "aria2c": lambda: size / 1e6 / bench.aria2(corpus, url, 1, split=4).wall,
            "wget": lambda: size / 1e6 / bench.wget(corpus, url).wall,
        }
        found = in_turn(runs, bench.repeats)
    what = f"one file of {size / 1e9:g} GB over TLS"
    return [
        Row(what, found["ours"], "MB/s", "curl, then openssl dgst", found["curl"], 1.0),
        Row(what, found["ours"], "MB/s", "aria2c -x4, checksum", found["aria2c"], 1.15),
        Row(what, found["ours"], "MB/s", "wget, no digest", found["wget"]),
    ]


def nothing(bench: Bench, count: int, planned: int) -> list[Row]:
    """A download that has nothing to do, and the memory of a large plan."""
    corpus = mirror.many(bench.work / f"files-{count}", count)
    folder = bench.target()
    with mirror.served(corpus.folder, bench.work / "nginx") as url:
        words = [PROGRAM, "download", "mimic-cxr-jpg", str(folder), "--source", url]
        subprocess.run(
            [*words, "--connections", "16"], check=True, capture_output=True, env={**os.environ, **bench.env}
        )
        listed = bench.write("wget.txt", "".join(f"{url}{path}\n" for path in corpus.files))
        again = ["wget", "-q", "-N", "-x", "-nH", "-i", str(listed)]
        subprocess.run(again, check=True, cwd=bench.target().parent, env={**os.environ, **bench.env})
        runs: dict[str, Callable[[], float]] = {
            "ours": lambda: _well(measure(words, env=bench.env)).wall,
            "wget": lambda: _well(measure(again, env=bench.env, cwd=bench.work)).wall,
        }
        found = in_turn(runs, bench.repeats)
    bench.empty(folder)
    listing = bench.work / "listing"
    (listing / "files").mkdir(parents=True, exist_ok=True)
    lines = [
        f"{number:064x} files/p10/p{10_000_000 + number // 4}/s{50_000_000 + number // 2}/"
        f"{number:08x}-bde0afdd-112c0b34-7bc16630-4e384014.jpg\n"
        for number in range(planned)
    ]
    (listing / mirror.SUMS).write_text("".join(lines), encoding="utf-8")
    with mirror.served(listing, bench.work / "nginx") as url:
        words = [PROGRAM, "download", "mimic-cxr-jpg", str(bench.target()), "--source", url, "--dry-run"]
        cost = _well(measure(words, env=bench.env))
    return [
        Row(f"nothing to do, {count:,} files", found["ours"], "s", "floor", 0.5, 1.0, lower=True),
        Row(f"nothing to do, {count:,} files", found["ours"], "s", "wget -N", found["wget"], lower=True),
        Row(f"a plan of {planned:,} files", cost.cpu, "CPU s", lower=True),
        Row(
            f"a plan of {planned:,} files", cost.peak, "MiB", "floor", 300.0, 1.0, lower=True, note=f"{cost.wall:.1f} s"
        ),
    ]


def _memory() -> str | None:
    """The folder that lies in memory, where there is one with enough room."""
    there = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > _NEEDED
    return str(MEMORY) if there else None


def _well(cost: Cost) -> Cost:
    if cost.code:
        raise SystemExit(f"exit code {cost.code}\n{cost.stdout}\n{cost.stderr}")
    return cost


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--work", type=Path, help="a folder to work in (default: one in memory, if there is enough)")
    parser.add_argument("--only", choices=MEASUREMENTS, action="append", help="this measurement only")
    chosen = parser.parse_args()
    wanted = chosen.only or MEASUREMENTS
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="cxrprep-bench-", dir=_memory()) as temporary,
        tempfile.TemporaryDirectory(prefix="cxrprep-bench-") as disk,
    ):
        bench = Bench((chosen.work or Path(temporary)).resolve(), chosen.repeats)
        bench.work.mkdir(parents=True, exist_ok=True)
        few = 200 if chosen.small else 2_000
        on_disk = "disk" in wanted and file_system(disk) != file_system(str(bench.work))
        if on_disk:
            where = f", on {file_system(disk)}"
            rows += latency(Bench(Path(disk).resolve(), chosen.repeats), few, where=where)
        if "latency" in wanted:
            rows += latency(bench, few, where=", in memory" if on_disk else "", judged=not on_disk)
        if "tls" in wanted:
            rows += latency(bench, few, where=", TLS", judged=False, tls=True)
        if "many" in wanted:
            rows += many(bench, 500 if chosen.small else 20_000)
        if "nothing" in wanted:
            rows += nothing(bench, 500 if chosen.small else 20_000, 10_000 if chosen.small else 400_000)
        if "large" in wanted:
            rows += large(bench, 100_000_000 if chosen.small else 2_000_000_000)
    if chosen.small:
        # Start-up is most of so little: it shows that the benchmark runs, and nothing else.
        rows = [dataclasses.replace(row, floor=None) for row in rows]
    versions = {
        "files on": file_system(str(chosen.work or _memory() or tempfile.gettempdir())),
        "aria2c": program_version(["aria2c", "--version"]),
        "curl": program_version(["curl", "--version"]),
        "wget": program_version(["wget", "--version"]),
        "rclone": program_version(["rclone", "version"]),
        "nginx": program_version([shutil.which("nginx") or "/usr/sbin/nginx", "-v"]),
    }
    return finish("Download over loopback", rows, json_file=chosen.json, versions=versions)


if __name__ == "__main__":
    sys.exit(main())
