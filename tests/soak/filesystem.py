"""A file system that misbehaves, in user space: names that fold case, no hard links, a quota.

``python -m tests.soak.filesystem BACKING MOUNT [--fold] [--no-links] [--quota BYTES]`` serves BACKING at MOUNT until it
is unmounted. It needs ``mfusepy`` and the system's FUSE.
"""

# FUSE's calls are the system's calls, one to one.
# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH115, PTH208
from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
WAYS = ("fold", "no-links", "quota")


def operations(backing: str, *, fold: bool, links: bool, quota: int | None) -> object:
    """What FUSE calls, over the folder ``backing``."""
    import mfusepy

    class Passing(mfusepy.Operations):
        use_ns = True
        room = threading.Lock()

        def real(self, path: str) -> str:
            place = backing
            for name in filter(None, path.split("/")):
                place = f"{place}/{self.spelt(place, name)}"
            return place

        def spelt(self, folder: str, name: str) -> str:
            """The name as it was first written: what folding, case-preserving systems do."""
            if not fold or os.path.lexists(f"{folder}/{name}"):
                return name
            try:
                return next((known for known in os.listdir(folder) if known.casefold() == name.casefold()), name)
            except OSError:
                return name

        def used(self) -> int:
            return sum(os.lstat(f"{folder}/{name}").st_size for folder, _, names in os.walk(backing) for name in names)

        def take(self, size: int) -> None:
            if quota is not None and self.used() + size > quota:
                raise mfusepy.FuseOSError(errno.EDQUOT)

        def getattr(self, path, fh=None):
            found = os.lstat(self.real(path))
            kept = {
                key: getattr(found, key) for key in ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino")
            }
            return kept | {f"st_{key}": getattr(found, f"st_{key}_ns") for key in ("atime", "mtime", "ctime")}

        def readdir(self, path, fh=None):
            return [".", "..", *os.listdir(self.real(path))]

        def create(self, path, mode, fi=None):
            self.take(1)
            return os.open(self.real(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

        def open(self, path, flags):
            return os.open(self.real(path), flags & ~os.O_APPEND)

        def read(self, path, size, offset, fh):
            return os.pread(fh, size, offset)

        def write(self, path, data, offset, fh):
            with self.room:
                self.take(max(0, offset + len(data) - os.fstat(fh).st_size))
                return os.pwrite(fh, data, offset)

        def truncate(self, path, length, fh=None):
            os.truncate(self.real(path), length)
            return 0

        def release(self, path, fh):
            os.close(fh)
            return 0

        def flush(self, path, fh):
            return 0

        def fsync(self, path, datasync, fh):
            os.fsync(fh)
            return 0

        def rename(self, old, new):
            os.rename(self.real(old), self.real(new))
            return 0

        def unlink(self, path):
            os.unlink(self.real(path))
            return 0

        def mkdir(self, path, mode):
            os.mkdir(self.real(path), mode)
            return 0

        def rmdir(self, path):
            os.rmdir(self.real(path))
            return 0

        def chmod(self, path, mode):
            os.chmod(self.real(path), mode)
            return 0

        def chown(self, path, uid, gid):
            return 0

        def utimens(self, path, times=None):
            os.utime(self.real(path), ns=times)
            return 0

        def link(self, target, source):
            if not links:
                raise mfusepy.FuseOSError(errno.EPERM)
            os.link(self.real(source), self.real(target))
            return 0

        def symlink(self, target, source):
            raise mfusepy.FuseOSError(errno.EPERM)

        def readlink(self, path):
            return os.readlink(self.real(path))

        def statfs(self, path):
            found = os.statvfs(backing)
            return {key: getattr(found, key) for key in ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize")}

    return Passing()


def lacking() -> str:
    """What a person must install before ``mounted`` works; empty when it does."""
    try:
        import mfusepy  # noqa: F401  # only whether it is there
    except (ImportError, OSError):
        return "pip install mfusepy; apt-get install fuse3"
    return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "a /dev/fuse that this user may open"


@contextmanager
def mounted(work: Path, *ways: str) -> Iterator[Path]:
    """A fresh folder on a file system that misbehaves in these ways, such as ``--fold`` or ``--quota=100000``."""
    backing, mount = work / "backing", work / "mount"
    for folder in (backing, mount):
        folder.mkdir(parents=True)
    words = [sys.executable, "-m", "tests.soak.filesystem", str(backing), str(mount), *ways]
    with subprocess.Popen(words, cwd=PROJECT) as server:
        try:
            deadline = time.monotonic() + 10
            while not os.path.ismount(mount) and time.monotonic() < deadline and server.poll() is None:
                time.sleep(0.02)
            if not os.path.ismount(mount):
                raise RuntimeError(f"the file system did not come up: {' '.join(words)}")
            yield mount
        finally:
            subprocess.run(["umount", "-l", str(mount)], check=False)
            server.wait(10)


def main() -> None:
    """Serve until it is unmounted."""
    import mfusepy

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backing")
    parser.add_argument("mount")
    parser.add_argument("--fold", action="store_true")
    parser.add_argument("--no-links", action="store_true")
    parser.add_argument("--quota", type=int)
    options = parser.parse_args()
    served = operations(options.backing, fold=options.fold, links=not options.no_links, quota=options.quota)
    mfusepy.FUSE(served, options.mount, foreground=True, nothreads=False)


if __name__ == "__main__":
    main()
