"""The page of workflow managers, run by each of them where it is installed: once, and again with nothing to do."""

from __future__ import annotations

from pathlib import Path

import pytest

import cxrprep
from tests.docs.lines import ROOT, Block, blocks
from tests.docs.test_running import run
from tests.generators.small import nih_chestxray14
from tests.parts import need

PAGE = ROOT / "docs" / "howto" / "workflows.md"
# program -> how its block begins, the block's file, what prepares the folder, the run, what it says with nothing to do
MANAGERS = {
    "dvc": ("# dvc.yaml", "dvc.yaml", "git init -q . && dvc init -q", "dvc repro", "didn't change, skipping"),
    "snakemake": ("rule ", "Snakefile", "true", "snakemake --cores 2", "Nothing to be done"),
    "nextflow": ("process ", "main.nf", "true", "nextflow run main.nf -ansi-log false -resume", "Cached process"),
}


@pytest.mark.slow
@pytest.mark.parametrize("manager", MANAGERS)
def test_a_workflow_manager_runs_its_block_and_then_has_nothing_to_do(manager: str, tmp_path: Path) -> None:
    need(manager)
    begins, name, prepare, line, idle = MANAGERS[manager]
    data = tmp_path / "nih"
    nih_chestxray14.write(data)
    cxrprep.download("nih-chestxray14", data, source=data)
    cxrprep.extract_labels(data)
    [block] = [block for block in blocks(PAGE) if block.text.startswith(begins)]
    (tmp_path / name).write_text(block.text.replace("/data/nih", str(data)), encoding="utf-8")
    first, code = run(Block(PAGE, 0, "sh", f"{prepare} && {line}", runs=True), tmp_path)
    assert code == 0, first
    made = tmp_path / "derived" if manager == "dvc" else data / "derived"
    assert cxrprep.verify(made / "square-224", state=tmp_path / "findings").exit_code == 0
    assert idle not in first
    again, code = run(Block(PAGE, 0, "sh", line, runs=True), tmp_path)
    assert code == 0, again
    assert idle in again
