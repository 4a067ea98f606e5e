"""``--help`` loads the standard library and click, nothing else; it touches no disk and asks nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxrprep.cli.main import COMMANDS
from tests.commands import ok
from tests.generators.small import nih_chestxray14

NAMES = [name for commands in COMMANDS.values() for name in commands]

_PROBE = """
import json, sys
before = set(sys.modules)
from cxrprep.cli.main import run
sys.stdout = open(sys.argv[1], "w")
code = run(json.loads(sys.argv[2]))
sys.stdout.close()
sys.stdout = sys.__stdout__
print(json.dumps({"code": code, "modules": sorted(set(sys.modules) - before)}))
"""


def loaded(tmp_path: Path, *words: str) -> set[str]:
    """The top names of the modules that a call of the command loads."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(tmp_path / "out"), json.dumps(words)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    answer = json.loads(done.stdout)
    assert answer["code"] == 0
    assert (tmp_path / "out").read_text().startswith("Usage: cxrprep")
    return {name.partition(".")[0] for name in answer["modules"]}


def printed(code: str) -> str:
    """What a Python of its own prints, which must end well."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("words", [(), ("--help",), *((name, "--help") for name in NAMES)], ids="-".join)
def test_help_loads_click_and_the_standard_library_only(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert loaded(tmp_path, *words) - set(sys.stdlib_module_names) <= {"click", "cxrprep", "__mp_main__"}


def test_help_loads_no_command_and_no_configuration(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(tmp_path / "out"), '["--help"]'], capture_output=True, text=True, check=True
    )
    ours = {name for name in json.loads(done.stdout)["modules"] if name.startswith("cxrprep")}
    commands = {f"cxrprep.cli.{module}" for table in COMMANDS.values() for module, _ in table.values()}
    assert not ours & commands
    assert "tomllib" not in json.loads(done.stdout)["modules"]


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys; import cxrprep; print(sorted(m for m in sys.modules if m.startswith('cxrprep.')))"
    assert printed(code).strip() == "['cxrprep._version']"


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "cxrprep", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cxrprep ")


def test_a_job_file_is_checked_without_the_table_library() -> None:
    code = (
        "import sys; from cxrprep.cli.main import run\n"
        "code = run(['config', 'check', 'configs/demo.toml', '--quiet'])\n"
        "sys.exit(code or sorted({'pyarrow', 'numpy', 'cv2'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# pydoc comes with the parser of the documentation that pyarrow.compute would write.
_OF_NO_USE = "pandas pydoc"
_OF_WRITERS = "cxrprep.manifest.croissant cxrprep.manifest.dataset_card cxrprep.storage.working_copy"


@pytest.mark.parametrize(
    ("words", "useless"),
    [
        ("extract-labels", f"{_OF_NO_USE} {_OF_WRITERS}"),
        ("manifest", _OF_NO_USE),
        ("status", _OF_NO_USE),
        ("export --format csv --out OUT", _OF_NO_USE),
    ],
)
def test_a_command_loads_nothing_heavy_that_it_has_no_use_for(tmp_path: Path, words: str, useless: str) -> None:
    nih_chestxray14.write(tmp_path / "mirror")
    ok("download", "nih-chestxray14", tmp_path / "nih", "--source", tmp_path / "mirror")
    ok("extract-labels", tmp_path / "nih")
    verb, *more = words.split()
    asked = [verb, str(tmp_path / "nih"), *(str(tmp_path / word) if word == "OUT" else word for word in more)]
    code = (
        "import sys; from cxrprep.cli.main import run\n"
        "assert run(sys.argv[2:]) == 0\n"
        "assert 'pyarrow' in sys.modules\n"
        "sys.exit(' '.join(sorted(sys.modules.keys() & set(sys.argv[1].split()))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, useless, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_pyarrow_takes_columns_of_pandas_once_it_sees_them() -> None:
    code = (
        "from cxrprep.system import defer_pandas, see_pandas\n"
        "defer_pandas(); import pyarrow as pa, sys; pa.array([1]); assert 'pandas' not in sys.modules\n"
        "import pandas as pd; see_pandas()\n"
        "words = pd.Series(['a', None, 'a'], dtype='category')\n"
        "print(pa.array(words).to_pylist(), pa.array(pd.Series([1.5, None]), from_pandas=True).to_pylist())"
    )
    assert printed(code) == "['a', None, 'a'] [1.5, None]\n"


def test_what_else_would_ask_for_the_parser_of_documentation_gets_it() -> None:
    code = (
        "from cxrprep.system import defer_pandas\n"
        "defer_pandas(); import pyarrow.compute as pc, sys; assert 'pydoc' not in sys.modules\n"
        "from pyarrow.vendored.docscrape import Reader\n"
        "print(Reader('a').read(), pc.sum([1, 2]), pc.round(1.24, ndigits=1))"
    )
    assert printed(code) == "a 3 1.2\n"
