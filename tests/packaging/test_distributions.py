"""The wheel and the source distribution: whole, true to their metadata, and working where no checkout is."""

from __future__ import annotations

import email
import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.cli.golden import commands

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OLDEST = Path(__file__).with_name("oldest.txt")


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both distributions, after tests of the installed wheel in an empty folder."""
    kept = tmp_path_factory.mktemp("dist")
    words = [
        "--keep",
        str(kept),
        "tests/config",
        "tests/generators/small",
        "tests/cli/test_startup.py",
        "-n",
        "0",
        "-q",
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "check_wheel.py"), *words],
        cwd=kept, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    return kept


def tracked(*folders: str) -> set[str]:
    done = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    names = {name for name in done.stdout.split("\n") if name and (ROOT / name).is_file()}
    # Without git, as in a source distribution, what lies there is what there is.
    return names or {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "_build" not in path.parts
    }


@pytest.mark.slow
def test_the_wheel_holds_the_package_its_data_and_the_manual_pages_and_nothing_else(checked: Path) -> None:
    (wheel,) = checked.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in held if name.startswith("cxrprep/")}
    assert tracked("cxrprep") - package == set()
    assert "cxrprep/py.typed" in package
    pages = {name for name in held if name.startswith("cxrprep-") and ".data/data/share/man/man1/" in name}
    names = {f"cxrprep-{'-'.join(words)}.1" for words in commands()} | {"cxrprep.1"}
    assert {name.rpartition("/")[2] for name in pages} == names
    rest = {name for name in held - package - pages if ".dist-info/" not in name}
    assert rest == set()


@pytest.mark.slow
def test_the_source_distribution_holds_what_is_needed_to_test_and_document_it(checked: Path) -> None:
    (source,) = checked.glob("*.tar.gz")
    with tarfile.open(source) as packed:
        held = {name.partition("/")[2] for name in packed.getnames()}
    assert tracked("cxrprep", "tests", "docs", "configs", "tools", "benchmarks") - held == set()
    assert {"README.md", "LICENSE", "CHANGELOG.md", "Makefile", "Dockerfile", "pyproject.toml"} <= held


@pytest.mark.slow
def test_the_metadata_says_what_pyproject_says(checked: Path) -> None:
    (wheel,) = checked.glob("*.whl")
    with zipfile.ZipFile(wheel) as zipped:
        (name,) = (n for n in zipped.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(zipped.read(name))
        (points,) = (n for n in zipped.namelist() if n.endswith(".dist-info/entry_points.txt"))
        assert b"cxrprep = cxrprep.__main__:main" in zipped.read(points)
    assert metadata["Requires-Python"] == PYPROJECT["project"]["requires-python"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(PYPROJECT["project"]["optional-dependencies"])
    assert metadata["License-Expression"] == "MIT"
    assert "# cxrprep" in metadata.get_payload()


EXTRAS = ("dask", "s3", "gcs", "azure", "codecs", "keyring", "xlsx")


def lower_bounds() -> dict[str, str]:
    project = PYPROJECT["project"]
    listed = [*project["dependencies"], *(text for extra in EXTRAS for text in project["optional-dependencies"][extra])]
    found = {}
    for text in listed:
        requirement = Requirement(text)
        (bound,) = [s.version for s in requirement.specifier if s.operator == ">="]
        # An extra of theirs is a package of the same version.
        for name in (requirement.name, *requirement.extras):
            found[name.lower()] = bound
    return found


def test_every_dependency_has_a_lower_bound_and_oldest_txt_names_it() -> None:
    pinned = dict(
        re.fullmatch(r"([\w-]+)==([\w.]+)", line).groups()
        for line in OLDEST.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    bounds = lower_bounds()
    assert set(pinned) == set(bounds)
    for name, version in pinned.items():
        # 18 and 18.0.0 are the same version.
        assert (version + ".").startswith(bounds[name].removesuffix(".0") + "."), name


def test_every_extra_of_the_issue_is_there() -> None:
    assert set(EXTRAS) <= set(PYPROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize(
    ("module", "code", "extra"),
    [
        (
            "distributed",
            "from cxrprep.executors import Engine; list(Engine('dask', 1, 'tcp://x:1').run(list, [1]))",
            "dask",
        ),
        ("datasets", "import cxrprep.manifest.load as l; l.Dataset.hf(None)", "datasets"),
        ("torch", "import cxrprep.manifest.load as l; l.Dataset.torch(None)", "torch"),
    ],
)
def test_a_missing_extra_says_how_to_install_it(module: str, code: str, extra: str) -> None:
    hidden = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from cxrprep.errors import MissingExtraError\n"
        f"try:\n    {code}\nexcept MissingExtraError as error:\n    print(error, '|', error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pip install" in done.stdout
    assert extra in done.stdout


def test_the_version_is_one_literal_and_the_installed_one() -> None:
    text = (ROOT / "cxrprep" / "_version.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "([\d.]+)"$', text, re.MULTILINE)
    assert importlib.metadata.version("cxrprep") == version
