"""Memory of a worker process: kept from one image to the next."""

from __future__ import annotations

import ctypes
import functools
from typing import Final

# <malloc.h> of glibc; the largest threshold that it takes is half of one of its heaps.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_BLOCK: Final = 32 << 20
_KEPT: Final = 128 << 20


@functools.cache
def keep_freed_memory() -> None:
    """Let the C library keep what one image needed (up to 128 MiB) for the next; does nothing outside of glibc.

    It would give blocks of this size back to the system and get them anew, zeroed page by page, several times an image:
    for a radiograph that costs as much as all arithmetic on it. For processes that do little else; call it once.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
