"""cxrprep: fetch, prove, label and convert the public chest X-ray collections.

The verbs are functions (``plan``, ``download``, ``verify``, ``extract_labels``, ``convert``, ``build_manifest``,
``export``, ``pairs``, ``duplicates``, ``digest``, ``prove``, ``status``, ``report``, ``doctor``), ``run`` does those of
a job file, ``load`` opens what they made, ``label_report`` labels one radiology report. Names are resolved when they
are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cxrprep._version import __version__

if TYPE_CHECKING:
    from cxrprep.api.compare_labels import compare_labels
    from cxrprep.api.convert import convert
    from cxrprep.api.digest import digest, prove
    from cxrprep.api.doctor import doctor
    from cxrprep.api.download import download, plan
    from cxrprep.api.duplicates import duplicates
    from cxrprep.api.export import export, load
    from cxrprep.api.labels import extract_labels
    from cxrprep.api.manifest import build_manifest
    from cxrprep.api.pairs import pairs
    from cxrprep.api.phi import check_phi
    from cxrprep.api.preview import preview
    from cxrprep.api.report import report
    from cxrprep.api.report_labels import import_labels, label_report, label_reports
    from cxrprep.api.status import status
    from cxrprep.api.verify import verify
    from cxrprep.cli.run import run
    from cxrprep.model import Selection

__all__ = [
    "Selection",
    "__version__",
    "build_manifest",
    "check_phi",
    "compare_labels",
    "convert",
    "digest",
    "doctor",
    "download",
    "duplicates",
    "export",
    "extract_labels",
    "import_labels",
    "label_report",
    "label_reports",
    "load",
    "pairs",
    "plan",
    "preview",
    "prove",
    "report",
    "run",
    "status",
    "verify",
]

_MODULES: Final = {
    "Selection": "cxrprep.model",
    "build_manifest": "cxrprep.api.manifest",
    "check_phi": "cxrprep.api.phi",
    "compare_labels": "cxrprep.api.compare_labels",
    "convert": "cxrprep.api.convert",
    "digest": "cxrprep.api.digest",
    "doctor": "cxrprep.api.doctor",
    "download": "cxrprep.api.download",
    "duplicates": "cxrprep.api.duplicates",
    "export": "cxrprep.api.export",
    "extract_labels": "cxrprep.api.labels",
    "import_labels": "cxrprep.api.report_labels",
    "label_report": "cxrprep.api.report_labels",
    "label_reports": "cxrprep.api.report_labels",
    "load": "cxrprep.api.export",
    "pairs": "cxrprep.api.pairs",
    "plan": "cxrprep.api.download",
    "preview": "cxrprep.api.preview",
    "prove": "cxrprep.api.digest",
    "report": "cxrprep.api.report",
    "run": "cxrprep.cli.run",
    "status": "cxrprep.api.status",
    "verify": "cxrprep.api.verify",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'cxrprep' has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module(module), name)
    return _with_progress(found) if _is_interactive() and name != "load" else found


def _is_interactive() -> bool:
    """Whether a person sits before this Python: at its prompt, or in a notebook."""
    import sys

    return hasattr(sys, "ps1") or "ipykernel" in sys.modules


def _with_progress(verb: Any) -> Any:
    """A verb that says how far it is with that on standard error, unless ``on_event`` says who listens."""
    import functools
    import inspect

    if "on_event" not in inspect.signature(verb).parameters:
        return verb

    @functools.wraps(verb)
    def call(*positional: Any, **named: Any) -> Any:
        if "on_event" in named:
            return verb(*positional, **named)
        from cxrprep.cli.output import Output
        from cxrprep.cli.progress import choose

        with choose(Output()) as sink:
            return verb(*positional, on_event=sink, **named)

    return call


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
