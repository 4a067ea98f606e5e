"""What is installed is whole: SDKs import under their real names, the wheel carries its data, imports stay light."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

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


def test_whatever_is_imported_is_required_by_name() -> None:
    """What comes with another package today may be gone with its next release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    stated = [*project["dependencies"], *(one for name in set(extras) - {"dev", "docs"} for one in extras[name])]
    required = {canonicalize_name(Requirement(one).name) for one in stated}
    # fsspec comes with each extra for buckets, distributed with dask; load().hf is for those who have datasets.
    left = {"fsspec", "distributed", "datasets", "torch", "tokenizers", *sys.stdlib_module_names, "cxrprep"}
    provided = importlib.metadata.packages_distributions()
    imported = {
        name.partition(".")[0]
        for path in (ROOT / "cxrprep").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in names_of(node)
    }
    assert "google_crc32c" in imported
    strange = {
        name for name in imported - left if not required & {canonicalize_name(one) for one in provided.get(name, [])}
    }
    assert strange == set()


def names_of(node: ast.AST) -> list[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


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
