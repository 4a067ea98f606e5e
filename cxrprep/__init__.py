"""cxrprep: fetch, prove, label and convert the public chest X-ray collections.

The verbs are functions (``plan``, ``download``, ``verify``, ``extract_labels``, ``convert``, ``build_manifest``,
``export``, ``pairs``, ``digest``, ``prove``), ``load`` opens what they made, ``label_report`` labels one radiology
report. Names are resolved when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cxrprep._version import __version__

if TYPE_CHECKING:
    from cxrprep.api.convert import convert
    from cxrprep.api.digest import digest, prove
    from cxrprep.api.download import download, plan
    from cxrprep.api.export import export, load
    from cxrprep.api.labels import build_manifest, extract_labels
    from cxrprep.api.pairs import pairs
    from cxrprep.api.report import report
    from cxrprep.api.report_labels import label_report
    from cxrprep.api.status import status
    from cxrprep.api.verify import verify
    from cxrprep.model import Selection

__all__ = [
    "Selection",
    "__version__",
    "build_manifest",
    "convert",
    "digest",
    "download",
    "export",
    "extract_labels",
    "label_report",
    "load",
    "pairs",
    "plan",
    "prove",
    "report",
    "status",
    "verify",
]

_MODULES: Final = {
    "Selection": "cxrprep.model",
    "build_manifest": "cxrprep.api.labels",
    "convert": "cxrprep.api.convert",
    "digest": "cxrprep.api.digest",
    "download": "cxrprep.api.download",
    "export": "cxrprep.api.export",
    "extract_labels": "cxrprep.api.labels",
    "label_report": "cxrprep.api.report_labels",
    "load": "cxrprep.api.export",
    "pairs": "cxrprep.api.pairs",
    "plan": "cxrprep.api.download",
    "prove": "cxrprep.api.digest",
    "report": "cxrprep.api.report",
    "status": "cxrprep.api.status",
    "verify": "cxrprep.api.verify",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'cxrprep' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
