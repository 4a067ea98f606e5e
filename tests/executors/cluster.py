"""A real Dask cluster: a scheduler and workers as processes of their own, on loopback.

``python -m tests.executors.cluster N`` prints the scheduler's address, and ends when its standard input is closed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parents[2]
# A cluster that waits takes 0.015 of a core in place of 0.12: one is there for as long as the tests run.
QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "2s",
}


@contextmanager
def cluster(workers: int, *paths: Path) -> Iterator[str]:
    """The address of a scheduler with ``workers`` processes of one thread each, restarted by their nannies.

    ``paths`` are folders of further packages.
    """
    words = [sys.executable, "-m", "tests.executors.cluster", str(workers)]
    path = os.pathsep.join(map(str, (PROJECT, *paths)))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", **QUIET}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=PROJECT, env=env
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        address = process.stdout.readline().strip()
        try:
            if not address:
                raise RuntimeError("the Dask cluster did not start")
            yield address
        finally:
            process.stdin.close()
            process.wait(timeout=60)


@contextmanager
def joined(scheduler: str, *paths: Path) -> Iterator[None]:
    """One worker more, of one thread; ``paths`` are folders of further packages."""
    words = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--nthreads", "1", "--no-dashboard"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*paths, PROJECT))), "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=PROJECT, env=env) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def main() -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=int(sys.argv[1]), threads_per_worker=1, processes=True, dashboard_address=None, memory_limit="1GiB"
    ) as held:
        print(held.scheduler_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
