"""status of each verb while it runs, after kill -9, and after it failed: never done, and how far."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.collection.worlds import release
from tests.commands import cxrprep
from tests.sample import some
from tests.servers.faults import serving

# The verb in a process of its own, which stops for good where its stage begins, or when an item came to its end.
_HELD = """
import sys, time
import cxrprep
from cxrprep.events import Advanced, ItemFinished, StageStarted

verb, root, at_once, words = sys.argv[1], sys.argv[2], sys.argv[3] == "True", eval(sys.argv[4])

def hold(event):
    if isinstance(event, StageStarted if at_once else (Advanced, ItemFinished)) and getattr(event, "items", 1) != 0:
        print("held", flush=True)
        time.sleep(600)

getattr(cxrprep, verb)(*([root] if verb != "download" else ["nih-chestxray14", root]), on_event=hold, **words)
"""
# What it is called in Python, whether it counts no items, its options.
VERBS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "download": ("download", False, {}),
    "verify": ("verify", False, {}),
    "extract-labels": ("extract_labels", True, {}),
    "manifest": ("build_manifest", True, {}),
    "convert square-224": ("convert", False, {"recipe": "square-224"}),
    "export csv": ("export", True, {"form": "csv"}),
    "pairs": ("pairs", True, {}),
    "duplicates": ("duplicates", False, {}),
    "report": ("report", True, {}),
    "check-phi": ("check_phi", False, {}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release on which every verb was done."""
    home = release("nih-chestxray14", tmp_path_factory.mktemp("running"))
    root = home / "root"
    for words in (
        ("download", "nih-chestxray14", root, "--source", home / "mirror"), ("verify", root),
        ("extract-labels", root), ("convert", root, "--recipe", "square-224"), ("export", root, "--format", "csv"),
    ):  # fmt: skip
        assert cxrprep(*words, "-q").returncode == 0
    assert {stage["state"] for stage in stages(root).values()} == {"done"}
    return home


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "root", tmp_path / "root"))


def stages(root: Path) -> dict[str, dict[str, Any]]:
    told = json.loads(cxrprep("status", root, "--json").stdout)
    return {stage["name"]: stage for stage in told["stages"]}


def until(root: Path, name: str, state: str, at_least: int = 0) -> dict[str, Any]:
    """The stage once it has the state and as many items are done: the counts are written every other second."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        stage = stages(root).get(name, {})
        if stage.get("state") == state and (stage["done"] or 0) >= at_least:
            return stage
        time.sleep(0.1)
    raise AssertionError((name, state, at_least, stages(root)))


@pytest.mark.parametrize("name", some(VERBS, one_in=5))
def test_a_verb_runs_and_is_killed(made: Path, root: Path, name: str) -> None:
    verb, at_once, words = VERBS[name]
    if name == "download":
        words = {"source": str(made / "mirror")}
        next(root.glob("images/*.png")).unlink()
    if name == "pairs":
        words = {"reports": str(made / "reports1.csv")}
    if name.startswith("convert"):
        shutil.rmtree(root / "derived")
    if name == "verify":
        (root / ".cxrprep/checks.parquet").unlink()
    arguments = [sys.executable, "-c", _HELD, verb, str(root), str(at_once), repr(words)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            stage = until(root, name, "running", at_least=0 if at_once else 1)
            assert at_once or stage["total"] >= stage["done"]
            assert json.loads(cxrprep("status", root, "--json").stdout)["following"] == []
        finally:
            process.kill()
    stage = until(root, name, "interrupted")
    assert at_once or stage["total"] >= stage["done"] >= 1
    # Run again, it is done, and nothing tells of the run that was killed.
    again = {
        "download": ("nih-chestxray14", root, "--source", made / "mirror"),
        "convert square-224": (root, "--recipe", "square-224"), "export csv": (root, "--format", "csv"),
        "pairs": (root, "--reports", made / "reports1.csv"), "check-phi": (root, "--check-phi"),
    }.get(name, (root,))  # fmt: skip
    command = "convert" if name == "check-phi" else name.split(maxsplit=1)[0]
    assert cxrprep(command, *again, "-q").returncode == 0
    assert stages(root).get(name, {"state": "done"})["state"] == "done"
    assert not (root / ".cxrprep/runs").exists()


def broken(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def test_a_verb_that_failed_is_not_done(made: Path, root: Path) -> None:
    """Integrity, access and a source out of reach: the exit code is told until the verb is done again."""
    kept = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and ".cxrprep" not in path.parts}
    images, labels, table = "manifests/images.parquet", "manifests/labels.parquet", "Data_Entry_2017_v2020.csv"
    with serving({}, forbidden=".*") as server, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        for code, name, damaged, words in (
            (4, "extract-labels", table, ("extract-labels", root)),
            (4, "extract-labels", labels, ("extract-labels", root, "--reports", made / "reports1.csv")),
            (4, "manifest", labels, ("manifest", root)),
            (4, "convert square-224", labels, ("convert", root, "--recipe", "square-224")),
            (4, "export csv", images, ("export", root, "--format", "csv")),
            (4, "pairs", images, ("pairs", root, "--reports", made / "reports1.csv")),
            (4, "duplicates", images, ("duplicates", root)),
            (4, "report", images, ("report", root)),
            (4, "verify", "images/00000001_000.png", ("verify", root)),
            (5, "download", "", ("download", "nih-chestxray14", root, "--source", server.url)),
            (6, "download", "", ("download", "nih-chestxray14", root, "--source", closed)),
        ):
            if damaged:
                broken(root / damaged)
            done = cxrprep(*words)
            assert done.returncode == code, (words, done.stderr)
            stage = stages(root)[name]
            assert stage["state"] == "failed", (words, stage)
            assert stage["exit_code"] in (code, None)
            for path, data in kept.items():
                if path.is_file() and path.read_bytes() != data and "verify" not in path.name:
                    path.write_bytes(data)
        # A run that was refused tells nothing, and leaves what is known of the one before.
        assert cxrprep("download", "chexpert", root, "--source", made / "mirror").returncode == 2
        assert stages(root)["download"]["exit_code"] == 6
