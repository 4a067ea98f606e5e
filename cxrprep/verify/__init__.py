"""Proof of what a folder holds: the bytes, the images, and the dataset."""

from cxrprep.verify.facts import FactCheck, Status
from cxrprep.verify.finding import Finding, Kind, Level
from cxrprep.verify.pictures import ImageCheck
from cxrprep.verify.report import VerifyReport
from cxrprep.verify.run import VERIFY_NAME, CheckImage, Refetch, VerifyOptions, verify

__all__ = [
    "VERIFY_NAME",
    "CheckImage",
    "FactCheck",
    "Finding",
    "ImageCheck",
    "Kind",
    "Level",
    "Refetch",
    "Status",
    "VerifyOptions",
    "VerifyReport",
    "verify",
]
