"""The verbs, wired: the one place that joins rooms which do not know each other.

Names are resolved when they are first used, so that a command loads only what its verb needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cxrprep.api.fetch import download, plan, read_plan
    from cxrprep.api.handover import export, load
    from cxrprep.api.looking import check_phi, preview
    from cxrprep.api.pixels import convert
    from cxrprep.api.planning import FetchOptions
    from cxrprep.api.proof import verify
    from cxrprep.api.reports import check_labeler, compare_labels, import_labels, label_report, label_reports
    from cxrprep.api.results import Result
    from cxrprep.api.tables import build_manifest, extract_labels

_HOMES: Final[Mapping[str, str]] = {
    "FetchOptions": "planning",
    "Result": "results",
    "build_manifest": "tables",
    "check_labeler": "reports",
    "check_phi": "looking",
    "compare_labels": "reports",
    "convert": "pixels",
    "download": "fetch",
    "export": "handover",
    "extract_labels": "tables",
    "import_labels": "reports",
    "label_report": "reports",
    "label_reports": "reports",
    "load": "handover",
    "plan": "fetch",
    "preview": "looking",
    "read_plan": "fetch",
    "verify": "proof",
}

__all__ = [
    "FetchOptions",
    "Result",
    "build_manifest",
    "check_labeler",
    "check_phi",
    "compare_labels",
    "convert",
    "download",
    "export",
    "extract_labels",
    "import_labels",
    "label_report",
    "label_reports",
    "load",
    "plan",
    "preview",
    "read_plan",
    "verify",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'cxrprep.api' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"cxrprep.api.{home}"), name)
