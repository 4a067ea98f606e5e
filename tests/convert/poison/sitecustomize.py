"""On PYTHONPATH this makes OpenCV's decoder crash the process, as a real defect does, over a file that says POISON."""

import os
import signal

import cv2

_decode = cv2.imdecode


def imdecode(data, flags):  # a stand-in for a function of C
    if b"POISON" in data.tobytes():
        os.kill(os.getpid(), signal.SIGSEGV)
    return _decode(data, flags)


cv2.imdecode = imdecode
