"""The documentation builds without a warning, its reference is what the code says, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.lines import PAGES, ROOT
from tests.parts import need


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_reference_is_what_the_code_says() -> None:
    done = python("tools/reference.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_notices_a_page_that_is_out_of_date(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tools'); import reference; from pathlib import Path;"
        f"reference.OUT = Path({str(tmp_path)!r}); reference.PROJECT = Path({str(tmp_path)!r});"
        "reference.pages = lambda: {'a.md': 'new'};"
        "sys.argv = ['reference.py', *sys.argv[1:]]; sys.exit(reference.main())"
    )
    (tmp_path / "a.md").write_text("old")
    stale = python("-c", code, "--check")
    assert stale.returncode == 1
    assert "-old" in stale.stdout
    assert (tmp_path / "a.md").read_text() == "old"
    assert python("-c", code).returncode == 0
    assert python("-c", code, "--check").returncode == 0


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    need("sphinx")
    need("furo")
    words = ["-q", "-W", "--keep-going", "-b", "html", str(ROOT / "docs"), str(tmp_path / "html")]
    done = python("-m", "sphinx", *words, "-d", str(tmp_path / "trees"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "tutorial.html").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"
