"""What a command was told to write among the files of a folder is known as its own, and held to its bytes."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

import cxrprep as package
from tests.api.convert import hospital
from tests.commands import cxrprep, ok
from tests.manifest.made import made
from tests.sample import some

# A place in the folder, and the command that writes there.
WRITTEN = {
    "page/report.html": "report ROOT --out",
    "near.parquet": "duplicates ROOT --out",
    "pairs.csv": "pairs ROOT --reports REPORTS --format csv --out",
    "text/pairs.json": "pairs ROOT --reports REPORTS --format json --out",
    "pairs.parquet": "pairs ROOT --reports REPORTS --out",
    "table/csv": "export ROOT --format csv --out",
    "labels.csv": "export ROOT --format csv --out",
    "run.log": "manifest ROOT --log-file",
}
OF_RELEASES = {
    "boxes/boxes.json": "export ROOT --format coco --out",
    "table/hf": "export ROOT --format hf --out",
    "tar": "export ROOT --format webdataset --out",
    "theirs": "export ROOT --format original --out",
    "plan.json": "download nih-chestxray14 ROOT --source ROOT --save-plan",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("beside")
    (home / "reports.csv").write_text('study_id,report\n00000001,"No pneumothorax."\n')
    made("nih-chestxray14", home / "release")
    ok("convert", home / "release", "--recipe", "square-224", "--out", home / "converted")
    hospital.write(home / "own")
    ok("manifest", home / "own", env={"XDG_STATE_HOME": str(home / "key")})
    (home / "own/ward 1/._x.dcm").unlink()
    return home


def run(home: Path, root: Path, line: str, place: str, *more: object) -> int:
    put = {"ROOT": root, "REPORTS": home / "reports.csv"}
    return cxrprep(*(put.get(word, word) for word in line.split()), root / place, *more).returncode


def files_here(root: Path, **state: Path) -> int:
    """How many files count as the folder's, where nothing at all is to be said of any other."""
    done = package.verify(root, strict=True, **state)
    assert done.exit_code == 0, done.rows
    return done.value.files.here


@pytest.mark.parametrize("kind", ["release", "own", "converted"])
def test_verify_calls_nothing_extra_that_a_command_was_told_to_write_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "key"))
    root = shutil.copytree(home / kind, tmp_path / kind)
    if kind == "release":
        ok("download", "nih-chestxray14", root, "--source", root)
    before = files_here(root)
    for place, line in {**WRITTEN, **(OF_RELEASES if kind == "release" else {})}.items():
        assert run(home, root, line, place) == 0, (place, line)
        assert (files_here(root), (root / place).exists()) == (before, True), place
    (root / "stranger.csv").write_text("a,b\n1,2\n")
    if kind != "own":
        assert "extra" in cxrprep("verify", root).stdout


def test_so_does_one_whose_record_lies_in_a_folder_of_state(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root, state = Path("lab"), Path("state")
    shutil.copytree(home / "release", root, ignore=shutil.ignore_patterns("manifests", ".cxrprep"))
    ok("download", "nih-chestxray14", root, "--source", root, "--state", state)
    ok("extract-labels", root, "--state", state)
    before = files_here(root, state=state)
    for place, line in [*some({**WRITTEN, **OF_RELEASES}.items(), one_in=4), ("pairs.csv", WRITTEN["pairs.csv"])]:
        assert run(home, root, line, place, "--state", state) == 0, (place, line)
        # By whatever way the two are named.
        for here, there in ((root, state), (Path("state/../lab"), state.absolute())):
            assert (files_here(here, state=there), (root / place).exists()) == (before, True), place
    (root / "pairs.csv").write_text("a,b\n")
    assert "lab/pairs.csv" in cxrprep("verify", root.absolute(), "--state", state).stdout
    assert not [path for path in root.iterdir() if path.name in ("manifests", ".cxrprep")]


def test_what_was_altered_since_is_named_and_its_removal_is_nothing(home: Path, tmp_path: Path) -> None:
    root = shutil.copytree(home / "release", tmp_path / "root")
    ok("report", root, "--out", root / "page/report.html")
    ok("duplicates", root, "--out", root / "near.parquet")
    data = bytearray((root / "near.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (root / "near.parquet").write_bytes(data)
    done = cxrprep("verify", root)
    assert (done.returncode, "near.parquet" in done.stdout, "report.html" in done.stdout) == (4, True, False)
    for name in ("near.parquet", "page/report.html"):
        (root / name).unlink()
    assert cxrprep("verify", root).returncode == 0


def test_a_list_hides_no_file_of_the_release(home: Path, tmp_path: Path) -> None:
    root = shutil.copytree(home / "release", tmp_path / "root")
    victim, listed = next((root / "images").glob("*.png")), root / "manifests/SHA256SUMS"
    before = package.verify(root).value.files.here
    digest = hashlib.sha256(victim.read_bytes()).hexdigest()
    listed.write_text(f"{listed.read_text()}{digest}  ../images/{victim.name}\n{digest}  ../../elsewhere\n")
    assert package.verify(root).value.files.here == before


@pytest.mark.parametrize("line", [WRITTEN["near.parquet"], WRITTEN["pairs.parquet"], WRITTEN["text/pairs.json"]])
def test_no_table_of_another_kind_is_replaced_by_one_of_pairs(home: Path, tmp_path: Path, line: str) -> None:
    """Any Parquet file, and any JSON object, was taken for one that the command had written."""
    root = shutil.copytree(home / "release", tmp_path / "root")
    ok("download", "nih-chestxray14", root, "--source", root)
    ok("export", root, "--format", "csv", "--out", tmp_path / "csv")
    others = (
        "manifests/labels.parquet",
        "manifests/images.parquet",
        "cxrprep.files.parquet",
        "manifests/croissant.json",
    )
    for place in (*(root / name for name in others), tmp_path / "csv/.cxrprep-export.json"):
        before = place.read_bytes()
        assert run(home, root, line, str(place)) == 2, place
        assert place.read_bytes() == before
    assert run(home, root, line, "mine") == run(home, root, line, "mine") == 0
