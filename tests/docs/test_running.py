"""The tutorial and the how-to pages, done by a reader who types what they say: on the phantom collection, in order."""

from __future__ import annotations

import html
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.api.convert import hospital
from tests.commands import cxrprep
from tests.docs.lines import PAGES, ROOT, Block, blocks
from tests.parts import need

pytestmark = pytest.mark.slow
TUTORIAL = ROOT / "docs" / "tutorial.md"


@dataclass(frozen=True)
class Done:
    """A block that was run: what it printed on both streams, its exit code, and the lines that the page shows."""

    block: Block
    output: str
    code: int
    shown: tuple[str, ...]


# What a shell would do more than start the program.
_SHELL = re.compile(r"[|&;<>()$#`\\]")


def run(block: Block, folder: Path) -> tuple[str, int]:
    """What a block prints, and its exit code: plain lines of our program in this process, all else as programs.

    The tutorial is done by programs alone; the pages need no second proof that they start.
    """
    lines = block.text.splitlines()
    if block.kind == "sh" and all(line.startswith("cxrprep ") and not _SHELL.search(line) for line in lines):
        return in_here(lines, folder)
    return as_programs(block, folder)


def in_here(lines: list[str], folder: Path) -> tuple[str, int]:
    printed = ""
    home = {name: f"{folder}/home/{name.lower()}" for name in os.environ if name.startswith("XDG_")}
    for line in lines:
        done = cxrprep(*shlex.split(line)[1:], cwd=folder, env={"HOME": f"{folder}/home", **home})
        printed += done.stdout + done.stderr
        if done.returncode:
            return printed, done.returncode
    return printed, 0


def as_programs(block: Block, folder: Path) -> tuple[str, int]:
    program = ["bash", "-eu", "-o", "pipefail", "-c"] if block.kind == "sh" else [sys.executable, "-W", "error", "-c"]
    home = folder / "home"
    home.mkdir(exist_ok=True)
    here = {name: value for name, value in os.environ.items() if name in ("LANG", "TMPDIR", "LD_LIBRARY_PATH")}
    environment = {
        **here,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        **{name: str(home / name.lower()) for name in os.environ if name.startswith("XDG_")},
        "NO_COLOR": "1",
        "PYTHONUTF8": "1",
        "COLUMNS": "100",
        # A worker fewer to start, of which no page shows anything.
        "CXRPREP_ENGINE_JOBS": "1",
    }
    done = subprocess.run(
        [*program, block.text],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    return done.stdout, done.returncode


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Done]]:
    """The folder in which the tutorial was done, and every block of it with what it printed."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("tools", "configs"):
        (folder / name).symlink_to(ROOT / name)
    done: list[Done] = []
    for block in blocks(TUTORIAL):
        if block.kind == "text" and done:
            # What the page shows below a block is what the block must have printed.
            last = done[-1]
            done[-1] = Done(last.block, last.output, last.code, tuple(block.text.splitlines()))
        elif block.kind in ("sh", "python"):
            done.append(Done(block, *as_programs(block, folder), ()))
    return folder, done


def test_every_step_of_the_tutorial_succeeds(tutorial: tuple[Path, list[Done]]) -> None:
    assert len(tutorial[1]) >= 10
    for done in tutorial[1]:
        assert done.code == 0, f"{done.block}: exit code {done.code}\n{done.output}"


def test_the_tutorial_shows_what_its_commands_print(tutorial: tuple[Path, list[Done]]) -> None:
    folder, steps = tutorial
    assert sum(len(done.shown) for done in steps) > 100
    for done in steps:
        printed = steady(done.output.replace(str(folder), "/home/you/cxrprep"))
        for line in done.shown:
            assert steady(line) in printed, f"{done.block}: not printed: {line}\n{done.output}"


def test_the_tutorial_leaves_nothing_out_of_what_it_shows(tutorial: tuple[Path, list[Done]]) -> None:
    folder, steps = tutorial
    for done in steps:
        printed = results(done.output.replace(str(folder), "/home/you/cxrprep"))
        assert not done.shown or printed == results("\n".join(done.shown)), done.block


def test_the_recording_shows_what_its_commands_print(tutorial: tuple[Path, list[Done]]) -> None:
    folder, steps = tutorial
    drawn = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8").replace("&#160;", " ")
    text = "\n".join(html.unescape(line) for line in re.findall(r"<text [^>]*>(?!make demo)(.*?)</text>", drawn))
    text = text.replace("http://127.0.0.1:8000/", "demo/mirror").partition("\nDone in")[0]
    outputs = {done.block.text.strip(): done.output.replace(f"{folder}/", "") for done in reversed(steps)}
    seen = 0
    for command, _, recorded in (part.partition("\n") for part in text.split("\n$ ")[1:]):
        if command in outputs:
            seen += 1
            assert results(recorded) == results(outputs[command]), f"{command}: run tools/record_demo.py again"
    assert seen >= 4


def results(output: str) -> list[str]:
    """Steady pieces of what a command prints, without its progress; lines are broken where the screen ends."""
    lines = [line for line in output.splitlines() if not re.match(r"\d{4}-\d\d-\d\d ", line)]
    return steady(" ".join(lines)).split()


def steady(text: str) -> str:
    """Text without what differs between runs and machines: times, free space, digests, line breaks."""
    for pattern in (
        r"\d[\d.]* (?:ms|s|min)\b",
        r"\d{4}-\d\d-\d\d \d\d:\d\d",
        r"[\d.,]+ .?B free",
        r"\b[0-9a-f]{16,64}\b",
    ):
        text = re.sub(pattern, "...", text)
    return " ".join(text.split())


RUNNING = [page for page in PAGES if page != TUTORIAL and any(block.runs for block in blocks(page))]


# Pages, and those with lines for an optional package once more for each.
CASES = [
    (page, part) for page in RUNNING for part in sorted({"", *(block.part for block in blocks(page) if block.runs)})
]


@pytest.mark.parametrize(("page", "part"), CASES, ids=lambda each: getattr(each, "stem", each))
def test_what_a_page_says_that_runs_runs(
    page: Path, part: str, tutorial: tuple[Path, list[Done]], tmp_path: Path
) -> None:
    if part:
        need(part)
    folder = tmp_path / "checkout"
    shutil.copytree(tutorial[0], folder, symlinks=True)
    for block in blocks(page):
        if block.runs and block.part in ("", part):
            output, code = run(block, folder)
            assert code == 0, f"{block}: exit code {code}\n{output}"


# What a line that is not run here needs: a place of the reader's, a bucket, another host, a login, an installation.
_ELSEWHERE = re.compile(
    r"/data\b|/scratch\b|/shared\b|/hospital\b|/opt/|(?:s3|gs|az|tcp)://|\b(?:docker|make|pip|pipx|az) "
    r"|\.netrc|\.kaggle/"
)


def test_a_line_that_is_not_run_needs_what_no_test_has() -> None:
    shells = [block for page in PAGES if page != TUTORIAL and "reference" not in page.parts for block in blocks(page)]
    due = [block for block in shells if block.kind in ("sh", "bash", "console") and not block.runs]
    assert len(due) > 20
    assert [str(block) for block in due if not _ELSEWHERE.search(block.text)] == []


def test_what_the_pages_for_a_hospital_say_runs(tmp_path: Path) -> None:
    dicom = tmp_path / "hospital" / "dicom"
    dicom.mkdir(parents=True)
    for number in range(3):
        image = hospital.dicom(
            hospital.body(number, 96, 96), StudyInstanceUID="1.2.826.0.1.3680043.77.1", PatientID="7",
            AccessionNumber="A1",
        )  # fmt: skip
        (dicom / f"IM{number:04}").write_bytes(image)
    reports = "uid,report\n1.2.826.0.1.3680043.77.1,Large left effusion.\n"
    (tmp_path / "hospital" / "reports.csv").write_text(reports, encoding="utf-8")
    accessions = "accession,report\nA1,Large left effusion.\nA2,Of another day.\n"
    (tmp_path / "hospital" / "by-accession.csv").write_text(accessions, encoding="utf-8")
    for page in ("own-folder", "hospital"):
        for block in blocks(ROOT / "docs" / "howto" / f"{page}.md"):
            if block.kind in ("sh", "python") and not block.text.startswith("pip "):
                text = block.text.replace("/hospital", f"{tmp_path}/hospital").replace("/data/ours", f"{tmp_path}/ours")
                output, code = run(replace(block, text=text), tmp_path)
                assert code == 0, f"{block}: exit code {code}\n{output}"
                assert "no table of this folder names it" not in output, f"{block}\n{output}"
    labels = pq.read_table(tmp_path / "ours" / "manifests" / "images.parquet")["label_pleural_effusion"]
    assert labels.to_pylist() == [1, 1, 1]


def test_the_steps_of_continuous_integration_run(tutorial: tuple[Path, list[Done]], tmp_path: Path) -> None:
    """The workflow of the page, from the folder that the tutorial made in the place of Kaggle; twice, as CI would."""
    need("yaml")
    yaml = importlib.import_module("yaml")
    page = ROOT / "docs" / "howto" / "ci.md"
    [workflow] = [block for block in blocks(page) if block.kind == "yaml"]
    steps = yaml.safe_load(workflow.text)
    lines = [step["run"] for step in steps if "run" in step and not step["run"].startswith("pip install")]
    assert [line.split()[1] for line in lines] == ["doctor", "run"]
    # Each asks Kaggle, so each has the login.
    assert all("KAGGLE_API_TOKEN" in step["env"] for step in steps if step.get("run") in lines)
    cached = {step["with"]["path"] for step in steps if "uses" in step}
    (tmp_path / "configs").mkdir()
    job = (ROOT / "configs" / "ci-staging.toml").read_text(encoding="utf-8")
    here = job.replace('source = "kaggle"', f'source = "{tutorial[0] / "demo" / "mirror"}"')
    (tmp_path / "configs" / "ci-staging.toml").write_text(here, encoding="utf-8")
    for _ in range(2):
        for line in lines:
            output, code = run(Block(page, 0, "sh", line, runs=True), tmp_path)
            assert code == 0, f"{line}: exit code {code}\n{output}"
        result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
        assert result["exit_code"] == 0
    assert [path for path in cached if not (tmp_path / path / "derived").is_dir()] == []


def test_enough_pages_run() -> None:
    assert len(RUNNING) >= 6
