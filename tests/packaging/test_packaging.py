"""What is installed is whole: SDKs import under their real names, the wheel carries its data, imports stay light."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "click",
    "rich",
    "requests",
    "pandas",
    "pyarrow",
    "numpy",
    "cv2",
    "pydicom",
    "google",
    "kagglesdk",
    "box_sdk_gen",
)


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "module",
    ["click", "rich", "requests", "pandas", "pyarrow", "google.cloud.storage", "box_sdk_gen", "kagglesdk", "six"],
)
def test_each_required_package_imports_under_its_real_name(module: str) -> None:
    assert _python(f"import {module}; print('yes')").endswith("yes")


def test_kaggle_is_installed_but_only_its_sdk_is_ever_imported() -> None:
    code = (
        "import importlib.metadata as m, sys; m.version('kaggle');"
        "import cxrprep.sources.kaggle, kagglesdk; print('kaggle' in sys.modules)"
    )
    assert _python(code) == "False"


def test_importing_cxrprep_loads_the_standard_library_only() -> None:
    code = f"import sys, cxrprep; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert _python(code) == "[]"


def test_public_names_resolve_and_are_listed() -> None:
    code = "import cxrprep as c; print([n for n in c.__all__ if not hasattr(c, n) or n not in dir(c)])"
    assert _python(code) == "[]"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    code = "import cxrprep\ntry:\n    cxrprep.nothing\nexcept AttributeError as e:\n    print(e)"
    assert "nothing" in _python(code)
