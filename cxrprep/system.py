"""Cores and memory that this process may use."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.machinery import ModuleSpec
    from types import ModuleType

# <malloc.h> of glibc; the largest threshold that it takes is half of one of its heaps.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_BLOCK: Final = 32 << 20
_KEPT: Final = 128 << 20
_GIVEN_BACK: Final = 8 << 20
_TRIMMED: Final = 16 << 20

_DOCSTRINGS: Final = "pyarrow.vendored.docscrape"

FILES_IN_MEMORY: Final = 500_000
"""More than MIMIC-CXR has. Lists of more files than these lie on the disk, which takes two to three times the CPU time
of a second download, and saves 0.3 to 0.5 KB a file: a plan's items, a list of checksums, the record.

measured: a plan of 400,000 files takes 6.6 s of CPU and 232 MiB; when just so many were the limit it took 11.3 s and
381 MiB, since they were all held before they were written (`nothing` of benchmarks/download.py)."""
FILES_AT_ONCE: Final = 50_000
"""So many are handed to such a list together."""


def available_cores() -> int:
    """Processors that this process may use, at least 1."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return os.cpu_count() or 1


@functools.cache
def keep_freed_memory() -> None:
    """Let the C library keep what one image needed (up to 128 MiB) for the next; does nothing outside of glibc.

    It would give blocks of this size back to the system and get them anew, zeroed page by page, several times an image:
    for a radiograph that costs as much as all arithmetic on it. For processes that do little else; call it once.

    measured: 3.62 -> 3.16 s of CPU (medians of 5 alternating runs) on `convert --recipe shortest-512 --jobs 1`, 24
    DICOM files of 2,544 x 3,056 pixels at 12 bits, start-up included (benchmarks/convert.py has the images a second).
    """
    _mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
    _mallopt(_M_TRIM_THRESHOLD, _KEPT)


class _NoPandas:
    """A finder of modules that does not find pandas."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ImportError(name)


class _NoDocstrings:
    """Stands for the parser with which pyarrow.compute writes the documentation of its functions: it finds nothing."""

    NumpyDocString: Any = staticmethod(lambda _: defaultdict(list))
    # Python looks at it where the module is there already.
    __spec__ = None

    def __getattr__(self, name: str) -> Any:
        # Another version of pyarrow may ask for more.
        del sys.modules[_DOCSTRINGS]
        return getattr(importlib.import_module(_DOCSTRINGS), name)


class _PyarrowAlone:
    """A finder of modules that finds pyarrow, and lets it look for pandas where there is none, as it is loaded."""

    @classmethod
    def find_spec(cls, name: str, *_: object) -> ModuleSpec | None:
        if name != "pyarrow":
            return None
        sys.meta_path.remove(cls)
        found = importlib.util.find_spec(name)
        if found is None or found.loader is None:
            return found
        load = found.loader.exec_module

        def load_alone(module: ModuleType) -> None:
            load(module)
            sys.meta_path.insert(0, _NoPandas)
            try:
                module.array([])
            finally:
                sys.meta_path.remove(_NoPandas)
            sys.modules.setdefault(_DOCSTRINGS, _NoDocstrings())  # type: ignore[arg-type]  # an object will do

        found.loader.exec_module = load_alone  # type: ignore[method-assign]
        return found


def defer_pandas() -> None:
    """Let pyarrow be loaded without pandas, for which it looks when the first list becomes an array.

    It looks once more where a table goes to pandas; ``see_pandas`` lets it see what is handed to it from there. For the
    process of a command; where pyarrow is loaded already, nothing changes.

    Nor does pyarrow.compute write the documentation of its functions: 46 -> 25 ms of CPU time to load it.
    measured: 0.65 -> 0.42 s of CPU and 132 -> 97 MB at the peak of `status` on a folder of seven images, and as much
    less for `convert`, `manifest` and `export` (medians of 3 alternating runs on a busy machine; benchmarks/start.py).
    """
    if "pyarrow" not in sys.modules and _PyarrowAlone not in sys.meta_path:
        sys.meta_path.insert(0, _PyarrowAlone)


def see_pandas() -> None:
    """Let pyarrow take columns of pandas for what they are, after ``defer_pandas``; loads pandas."""
    import pyarrow as pa

    pa.nulls(0).to_pandas()


@contextmanager
def plain_memory(*, keep: bool = False) -> Iterator[None]:
    """Pyarrow takes the C library's memory for a while, and blocks of 8 MiB go back to the system when they are freed.

    pyarrow's own memory asks for huge pages, which cost more than they bring to tables that are joined once (on a
    machine whose memory is in pieces the kernel spends as long on finding them as the tables take), and keeps what was
    freed, as the C library does with the blocks of columns once it has seen one.

    measured: 550 -> 445 MiB at the peak of `extract-labels` on the tables of MIMIC-CXR-JPG's 377,110 images, without
    the images, when all from 1 MiB on went back; from 4 MiB on it takes 0.3 s less of the system's time, from 8 MiB on
    0.05 s less again, and 60 to 80 MiB more there, none at the peak of a folder with its images (benchmarks/labels.py).

    Args:
        keep: Keep what was freed for the next column, for tables that are counted column by column: the labels of
            377,110 images are read with 0.15 s of the system's time, where giving back takes 0.30 and pyarrow's memory
            0.50, and 40 MB more at the peak.
    """
    import pyarrow as pa

    if keep:
        keep_freed_memory()
    else:
        _mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK)
        _mallopt(_M_TRIM_THRESHOLD, _TRIMMED)
    before, plain = pa.default_memory_pool(), pa.system_memory_pool()
    before.release_unused()
    pa.set_memory_pool(plain)
    try:
        yield
    finally:
        pa.set_memory_pool(before)
        plain.release_unused()


def _mallopt(parameter: int, value: int) -> None:
    import ctypes

    try:
        ctypes.CDLL(None).mallopt(parameter, value)
    except (OSError, AttributeError, TypeError):
        return
