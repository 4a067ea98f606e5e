"""On PYTHONPATH this makes the raster decoder crash the process, as a real defect does, over a file that says POISON.

Over one that says TREADMILL it never comes to an end.
"""

import os
import signal
import time

from cxrprep.images import png_jpeg

_decode = png_jpeg.decode_raster


def decode_raster(data, *words, **options):
    if b"POISON" in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    while b"TREADMILL" in data:
        time.sleep(1)
    return _decode(data, *words, **options)


png_jpeg.decode_raster = decode_raster
