"""On PYTHONPATH this makes OpenCV's decoder crash the process, as a real defect does, over a file that says POISON.

Over one that says TREADMILL it never comes to an end.
"""

import os
import signal
import time

import cv2

_decode = cv2.imdecode


def imdecode(data, flags):  # a stand-in for a function of C
    if b"POISON" in data.tobytes():
        os.kill(os.getpid(), signal.SIGSEGV)
    while b"TREADMILL" in data.tobytes():
        time.sleep(1)
    return _decode(data, flags)


cv2.imdecode = imdecode
