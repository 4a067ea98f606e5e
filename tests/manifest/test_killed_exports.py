"""Each form of export, of files and of shards, is killed (-9): the next run goes on and gives the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
import zipfile

import pytest

import cxrprep
from cxrprep.events import Advanced
from cxrprep.executors import Engine
from tests.manifest.made import made
from tests.sample import some

OF_FILES = pytest.mark.parametrize("folders", ["files"], indirect=True)
KILLED = """
import os, signal, sys, cxrprep
from cxrprep.events import Advanced

def dies(event):
    if isinstance(event, Advanced):
        os.kill(os.getpid(), signal.SIGKILL)

getattr(cxrprep, sys.argv[1])(sys.argv[2], **eval(sys.argv[3]), on_event=dies)
"""
REPORT = "                 FINAL REPORT\n FINDINGS:\n \n Clear.\n \n IMPRESSION:\n \n Normal.\n"
CASES = {
    **{form: ("nih-chestxray14", {"form": form}) for form in ("csv", "coco", "original", "webdataset", "hf")},
    **{f"{form} with text": ("mimic-cxr-jpg", {"form": form, "text": "findings"}) for form in ("webdataset", "hf")},
}


@pytest.fixture(scope="module", params=["files", "webdataset"])
def folders(request, tmp_path_factory):
    """A converted folder of each data set, as files or in shards."""
    found = {}
    for name in ("nih-chestxray14", "mimic-cxr-jpg"):
        base = tmp_path_factory.mktemp(name)
        root = made(name, base / "raw")
        if name.startswith("mimic"):
            with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as archive:
                for patient, study in {(row["patient_id"], row["study_id"]) for row in cxrprep.load(root)}:
                    archive.writestr(f"files/p{patient[:2]}/p{patient}/s{study}.txt", REPORT)
            cxrprep.pairs(root)
        found[name] = base / "raw" / "derived" / "out"
        to = {} if request.param == "files" else {"to": request.param}
        cxrprep.convert(root, recipe="square-224", out=found[name], engine=Engine("inline"), **to)
    return found


def killed(verb, root, **options):
    words = [sys.executable, "-c", KILLED, verb, str(root), repr(options)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize(
    ("folders", "case"),
    some(
        [
            *(("files", case) for case in CASES),
            *(("webdataset", case) for case in CASES if CASES[case][1]["form"] != "csv"),
        ],
        one_in=5,
    ),
    indirect=["folders"],
)
def test_an_export(folders, tmp_path, case):
    name, options = CASES[case]
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    killed("export", folders[name], out=str(out), **options)
    shards = {p: p.stat().st_ino for p in out.rglob("*") if p.suffix in (".tar", ".parquet")}
    assert bool(shards) == (options["form"] in ("webdataset", "hf"))
    seen = []
    cxrprep.export(folders[name], out=out, **options, on_event=seen.append)
    assert {path: path.stat().st_ino for path in shards} == shards
    done = sum(event.items for event in seen if isinstance(event, Advanced) and event.stage == "export")
    exported = cxrprep.export(folders[name], out=fresh, **options).value
    assert done == exported.images
    assert contents(out) == contents(fresh)


@OF_FILES
@pytest.mark.parametrize("options", [{"uncertain": "ones", "observations": ["Edema"]}, {"sample": 3}])
def test_what_a_killed_run_made_of_something_else_is_not_kept(folders, tmp_path, options):
    root = folders["mimic-cxr-jpg"]
    killed("export", root, form="hf", out=str(tmp_path / "out"))
    cxrprep.export(root, form="hf", out=tmp_path / "out", **options)
    cxrprep.export(root, form="hf", out=tmp_path / "fresh", **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@OF_FILES
def test_a_shard_that_was_altered_since_is_made_again(folders, tmp_path):
    root, out = folders["nih-chestxray14"], tmp_path / "out"
    killed("export", root, form="webdataset", out=str(out))
    (shard,) = out.glob("*.tar")
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    cxrprep.export(root, form="webdataset", out=out)
    cxrprep.export(root, form="webdataset", out=tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


@OF_FILES
def test_pairs(folders, tmp_path):
    raw = folders["mimic-cxr-jpg"].parent.parent
    for form in ("parquet", "csv", "json"):
        table = tmp_path / f"pairs.{form}"
        killed("pairs", raw, form=form, out=str(table))
        assert not table.exists()
        cxrprep.pairs(raw, form=form, out=table)
        cxrprep.pairs(raw, form=form, out=tmp_path / f"fresh.{form}")
        assert table.read_bytes() == (tmp_path / f"fresh.{form}").read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") and path.is_file()]
