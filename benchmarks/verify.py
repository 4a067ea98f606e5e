"""How fast ``cxrprep verify`` reads, beside the tools that people use for it.

usage: python benchmarks/verify.py [--small] [--repeats N] [--work DIR] [--json FILE]

Everything is read once before, so that all measure the processor and the system calls and not the disk. Ours is the
whole command: start-up, walk, joining with the record and the sums, comparing, and writing ``verify.parquet``. The
peers only print digests. CPU time counts where a row says so, because a core's speed does not depend on who else is
using the machine.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from benchmarks.measuring import (  # noqa: E402  # the project's root must be on the path first
    PROGRAM,
    Cost,
    Row,
    arguments,
    finish,
    in_turn,
    measure,
    program_version,
)
from cxrprep.model import Digest  # noqa: E402  # likewise
from cxrprep.record.entry import FileEntry, Origin  # noqa: E402  # likewise
from cxrprep.record.record import Record  # noqa: E402  # likewise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MIB = 1 << 20
CORES = len(os.sched_getaffinity(0))
SECONDS_FOR_QUICK = 1.0
MEMORY_LIMIT = 1024.0


def made(root: Path, sizes: Sequence[int]) -> Path:
    """A folder in the layout of MIMIC-CXR-JPG, a file of each of ``sizes`` bytes, and the sums of all of them."""
    if (root / "SHA256SUMS.txt").exists():
        return root
    block = random.Random(1).randbytes(MIB)
    lines = []
    with Record.open(root) as record:
        root.mkdir(parents=True, exist_ok=True)
        record.describe(dataset="mimic-cxr-jpg", release="2.1.0", tool="benchmark")
        for number, (path, size) in enumerate(zip(paths(), sizes, strict=False)):
            place = root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with place.open("wb") as file:
                left = size
                for piece in (b"%016x" % number, *[block] * (size // len(block) + 1)):
                    file.write(piece[:left])
                    digest.update(piece[:left])
                    left -= len(piece[:left])
            lines.append(f"{digest.hexdigest()} {path}\n")
            record.add(FileEntry(path, size, Digest("sha256", digest.hexdigest()), Origin.PUBLISHED))
    (root / "SHA256SUMS.txt").write_text("".join(lines), encoding="ascii")
    return root


def paths() -> Iterator[str]:
    """Release paths of images, two a study, in order."""
    for number in range(10_000_000):
        patient, study = 10_000_000 + number // 6, 50_000_000 + number // 2
        name = "-".join(hashlib.blake2b(b"%d" % number, digest_size=20).hexdigest()[k : k + 8] for k in range(0, 40, 8))
        yield f"files/p{patient // 1_000_000}/p{patient}/s{study}/{name}.jpg"


def warm(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(MIB):
                    pass


def ours(root: Path, *more: str) -> Cost:
    words = [PROGRAM, "verify", str(root), "--json", *more]
    cost = measure(words, env={"HOME": str(root.parent), "CXRPREP_LOG": "off"})
    if cost.code:
        sys.exit(f"{' '.join(words)}: exit {cost.code}\n{cost.stdout[-2000:]}\n{cost.stderr[-2000:]}")
    return cost


def checked(words: Sequence[str], root: Path) -> Cost:
    cost = measure(words, cwd=root)
    if cost.code:
        sys.exit(f"{' '.join(words)}: exit {cost.code}\n{cost.stderr[-2000:]}")
    return cost


def openssl(root: Path, processes: int) -> Cost:
    """``openssl dgst`` over all files, as many names a process as the system allows."""
    names = root.parent / f"{root.name}.names"
    if not names.exists():
        names.write_text("".join(line[65:] for line in (root / "SHA256SUMS.txt").read_text().splitlines(keepends=True)))
    command = f"xargs -P {processes} openssl dgst -sha256 < {names} > /dev/null"
    return checked(["bash", "-o", "pipefail", "-c", command], root)


def sha256sum(root: Path) -> Cost:
    # coreutils wants two spaces where PhysioNet writes one.
    command = "sed 's/ /  /' SHA256SUMS.txt | sha256sum --quiet -c -"
    return checked(["bash", "-o", "pipefail", "-c", command], root)


def hashing(root: Path) -> float:
    """Seconds of wall time in which a process that has started reads and digests all files, on all cores."""
    program = (
        "import sys, time; from pathlib import Path; from cxrprep.digests import FileToRead, digest_files\n"
        "root = Path(sys.argv[1])\n"
        "jobs = [FileToRead(line[65:].rstrip(), 0) for line in (root / 'SHA256SUMS.txt').open()]\n"
        "jobs = [FileToRead(job.path, (root / job.path).stat().st_size) for job in jobs]\n"
        "begun = time.perf_counter()\n"
        "done = sum(len(batch) for batch in digest_files(root, jobs))\n"
        "assert done == len(jobs)\n"
        "print(time.perf_counter() - begun)"
    )
    return float(measure([sys.executable, "-c", program, str(root)], cwd=PROJECT).stdout)


def large(work: Path, repeats: int, *, small: bool) -> list[Row]:
    count, size = (4, 64 * MIB) if small else (24, 256 * MIB)
    root = made(work / "large", [size] * count)
    warm(root)
    total = count * size / 1e6
    cpu = in_turn(
        {
            "ours": lambda: total / ours(root).cpu,
            "openssl": lambda: total / openssl(root, 1).cpu,
            "sha256sum": lambda: total / sha256sum(root).cpu,
        },
        repeats,
    )
    wall = in_turn(
        {
            "ours": lambda: total / ours(root).wall,
            "openssl": lambda: total / openssl(root, CORES).wall,
            "sha256sum": lambda: total / sha256sum(root).wall,
        },
        repeats,
    )
    what = f"{count} files of {size // MIB} MiB"
    unit = "MB a CPU second"
    return [
        Row(f"{what}, a core", cpu["ours"], unit, "openssl dgst -sha256", cpu["openssl"], 0.9),
        Row(f"{what}, a core", cpu["ours"], unit, "sha256sum -c", cpu["sha256sum"]),
        Row(f"{what}, {CORES} cores", wall["ours"], "MB/s", "sha256sum -c (one core)", wall["sha256sum"], 5.0),
        Row(f"{what}, {CORES} cores", wall["ours"], "MB/s", f"xargs -P {CORES} openssl dgst", wall["openssl"]),
    ]


def many(work: Path, repeats: int, *, small: bool) -> list[Row]:
    count = 2_000 if small else 20_000
    rows = []
    for kilobytes in (2, 90):
        root = made(work / f"many-{kilobytes}", [kilobytes * 1000 + number % 997 for number in range(count)])
        warm(root)
        costs: dict[str, list[Cost]] = {"ours": [], "openssl": []}

        def wall(who: str, costs: dict[str, list[Cost]] = costs, root: Path = root) -> float:
            costs[who].append(ours(root) if who == "ours" else openssl(root, CORES))
            return costs[who][-1].wall

        walls = in_turn({who: partial(wall, who) for who in costs}, repeats)
        spent = {who: sorted(cost.cpu for cost in several)[len(several) // 2] for who, several in costs.items()}
        what, peer = f"{count:,} files of {kilobytes} kB", f"xargs -P {CORES} openssl dgst"
        both = in_turn({"ours": lambda r=root: hashing(r), "openssl": lambda r=root: openssl(r, CORES).wall}, repeats)  # type: ignore[misc]  # bound now
        rows += [
            Row(f"{what}, digests alone", count / both["ours"], "files/s", peer, count / both["openssl"], 1.0),
            Row(f"{what}, the whole command", count / walls["ours"], "files/s", peer, count / walls["openssl"]),
            Row(f"{what}, CPU time of it", spent["ours"], "s", peer, spent["openssl"], lower=True),
        ]
        quick = in_turn({"quick": lambda root=root: ours(root, "--quick").wall}, repeats)["quick"]  # type: ignore[misc]  # bound now
        rows.append(Row(f"{what}, --quick", quick, "s", "limit", SECONDS_FOR_QUICK, 1.0, lower=True))
    return rows


def memory(work: Path, *, small: bool) -> list[Row]:
    rows = []
    for count in (1_000, 4_000) if small else (40_000, 400_000):
        root = made(work / f"memory-{count}", [100 + number % 50 for number in range(count)])
        first, quick = ours(root), ours(root, "--quick")
        for name, cost in (("", first), (", --quick", quick)):
            what = f"{count:,} files{name}, peak memory"
            rows.append(Row(what, cost.peak, "MiB", "limit", MEMORY_LIMIT, 1.0, lower=True))
        rows.append(Row(f"{count:,} files, wall time", first.wall, "s", note=f"--quick {quick.wall:.2f} s"))
        shutil.rmtree(root)
    return rows


@cache
def versions() -> dict[str, str]:
    return {
        "openssl": program_version(["openssl", "version"]),
        "sha256sum": program_version(["sha256sum", "--version"]),
        "xargs": program_version(["xargs", "--version"]),
        "cxrprep": program_version([PROGRAM, "--version"]),
    }


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--work", type=Path, help="keep the files here; default: a temporary folder")
    parser.add_argument("--only", choices=("large", "many", "memory"), action="append", help="only these")
    options = parser.parse_args()
    missing = [name for name in ("openssl", "sha256sum", "xargs") if shutil.which(name) is None]
    if missing:
        sys.exit(f"not here: {', '.join(missing)}: apt-get install openssl coreutils findutils")
    wanted = options.only or ["large", "many", "memory"]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        if "large" in wanted:
            rows += large(work, options.repeats, small=options.small)
        if "many" in wanted:
            rows += many(work, options.repeats, small=options.small)
        if "memory" in wanted:
            rows += memory(work, small=options.small)
    if options.small:
        # Start-up is all that small sizes show: nothing is judged by it.
        rows = [replace(row, floor=None) for row in rows]
    return finish("Verification beside openssl, sha256sum and xargs", rows, json_file=options.json, versions=versions())


if __name__ == "__main__":
    subprocess.run(["sync"], check=False)
    sys.exit(main())
