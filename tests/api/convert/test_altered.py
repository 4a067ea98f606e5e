"""An image with other bytes than were recorded is never passed on as what was recorded: it is named and left out."""

from __future__ import annotations

from pathlib import Path

import cv2
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.errors import AlteredImageError, ExitCode
from cxrprep.executors import Engine
from tests.api.convert import hospital
from tests.generators.small import nih_chestxray14
from tests.manifest.made import made

INLINE = Engine("inline")
FORMS = ("files", "webdataset", "parquet")


def fetched(tmp_path: Path) -> Path:
    root, mirror = tmp_path / "root", tmp_path / "mirror"
    nih_chestxray14.write(mirror)
    cxrprep.download("nih-chestxray14", root, source=str(mirror))
    cxrprep.build_manifest(root)
    return root


def adopted(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    nih_chestxray14.write(root)
    cxrprep.download("nih-chestxray14", root, source=str(root))
    return root


def own(tmp_path: Path) -> Path:
    root = hospital.write(tmp_path / "root")
    cxrprep.build_manifest(root)
    return root


def converted(tmp_path: Path) -> Path:
    cxrprep.convert(
        made("nih-chestxray14", tmp_path / "raw"), recipe="square-224", out=tmp_path / "root", engine=INLINE
    )
    return tmp_path / "root"


KINDS = {"downloaded": fetched, "adopted": adopted, "own": own, "converted": converted}


def alter(path: Path, *, longer: bool) -> None:
    """Another image under the same name: one that every decoder reads, with other pixels."""
    size, pixels = path.stat().st_size, cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    data = cv2.imencode(".png", 255 - pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0 if longer else 9])[1].tobytes()
    # What follows the end of an image is nobody's.
    path.write_bytes(data.ljust(size + longer, b"\0"))
    assert (path.stat().st_size == size) is not longer


@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_was_altered_since_it_was_recorded_is_named_and_left_out(
    tmp_path: Path, kind: str, *, longer: bool
) -> None:
    root = KINDS[kind](tmp_path)
    victim = max(root.rglob("*.png"))
    name = victim.relative_to(root).as_posix()
    alter(victim, longer=longer)
    done = cxrprep.convert(root, recipe="square-224", out=tmp_path / "out", engine=INLINE)
    assert done.exit_code is ExitCode.PARTIAL
    assert (done.value.failed, done.value.converted) == (1, done.value.images)
    failures = pq.read_table(done.value.failures).to_pylist()
    assert [(row["path"], row["error"]) for row in failures] == [(name, AlteredImageError.__name__)]
    listed = pq.read_table(done.value.manifest).to_pylist()
    assert name not in [row["source_path"] for row in listed]
    assert len(list((tmp_path / "out").rglob("*.png"))) == len(listed)


@pytest.mark.parametrize("to", FORMS)
def test_what_was_made_before_a_source_was_altered_stays_listed(tmp_path: Path, to: str) -> None:
    root, out = own(tmp_path), tmp_path / "out"
    first = cxrprep.convert(root, recipe="square-224", out=out, to=to, engine=INLINE).value
    alter(root / "z.png", longer=False)
    again = cxrprep.convert(root, recipe="square-224", out=out, to=to, engine=INLINE)
    assert (again.exit_code, again.value.failed) == (ExitCode.PARTIAL, 1)
    listed = pq.read_table(again.value.manifest).num_rows
    # Shards are made anew, and hold what could be made.
    assert listed == (first.images if to == "files" else first.images - 1)
    cxrprep.build_manifest(root, allow_loss=True)
    assert cxrprep.convert(root, recipe="square-224", out=out, to=to, engine=INLINE).exit_code is ExitCode.DONE


@pytest.mark.parametrize("form", ["webdataset", "hf"])
@pytest.mark.parametrize("kind", ["downloaded", "converted"])
def test_no_export_holds_an_image_that_was_altered(tmp_path: Path, kind: str, form: str) -> None:
    root = KINDS[kind](tmp_path)
    victim = max(root.rglob("*.png"))
    alter(victim, longer=False)
    with pytest.raises(AlteredImageError, match=victim.name):
        cxrprep.export(root, form=form, out=tmp_path / "out")
