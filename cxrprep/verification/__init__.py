"""Verification of a folder: bytes, images and tables."""

from cxrprep.model import ImageCheck
from cxrprep.verification.finding import Finding, Kind, Level
from cxrprep.verification.published_facts import FactCheck, FactStatus
from cxrprep.verification.report import VerifyReport
from cxrprep.verification.verifier import VERIFY_NAME, CheckImage, Refetch, VerifyOptions, verify

__all__ = [
    "VERIFY_NAME",
    "CheckImage",
    "FactCheck",
    "FactStatus",
    "Finding",
    "ImageCheck",
    "Kind",
    "Level",
    "Refetch",
    "VerifyOptions",
    "VerifyReport",
    "verify",
]
