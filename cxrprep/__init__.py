"""cxrprep: fetch, prove, label and convert the public chest X-ray collections.

The verbs are functions (``plan``, ``download``, ``verify``, ``extract_labels``, ``convert``, ``build_manifest``,
``export``), ``load`` opens what they made, ``label_report`` labels one radiology report. Names are resolved when they
are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxrprep.api import (
        build_manifest,
        convert,
        download,
        export,
        extract_labels,
        label_report,
        load,
        plan,
        verify,
    )
    from cxrprep.model import Selection

__version__ = "0.1.0"

__all__ = [
    "Selection",
    "__version__",
    "build_manifest",
    "convert",
    "download",
    "export",
    "extract_labels",
    "label_report",
    "load",
    "plan",
    "verify",
]

_HOMES = {"Selection": "cxrprep.model"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'cxrprep' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES.get(name, "cxrprep.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package. Two of its rooms, ``plan`` and ``verify``, have a verb's name; the name belongs to the verb."""

    def __setattr__(self, name: str, value: object) -> None:
        # The import system binds a room to its parent when it is first imported; ``from cxrprep.verify import ...``
        # does not need that.
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
