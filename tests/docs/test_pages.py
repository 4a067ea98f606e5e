"""The reference is what the code says, and links lead somewhere; `make docs` builds it all, warnings as errors."""

from __future__ import annotations

import html
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.lines import PAGES, ROOT


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_is_made_from_the_code_is_not_kept_beside_it(tmp_path: Path) -> None:
    """A page that stands twice goes out of date once: git holds none of those that the code makes."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert python("tools/reference.py", "--out", str(tmp_path)).returncode == 0
    made = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.md")]
    assert {"commands.md", "python.md"} <= set(made)
    for name in made:
        assert f"docs/reference/{name}" in ignored or f"docs/reference/{name.partition('/')[0]}/" in ignored, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_recording_shows_the_commands_of_the_demo() -> None:
    shown = html.unescape((ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")).replace("\N{NO-BREAK SPACE}", " ")
    demo = (ROOT / "tools" / "demo.py").read_text(encoding="utf-8")
    verbs = re.findall(r'_run\("cxrprep", "([\w-]+)"', demo)
    assert len(verbs) == 5
    for verb in verbs:
        assert f"$ cxrprep {verb} " in shown


@pytest.mark.parametrize("name", ["demo", "dependencies", "record_demo"])
def test_a_tool_says_what_it_takes_and_makes_no_file_of_the_name_help(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {name}.py")
    assert [*tmp_path.iterdir()] == []
