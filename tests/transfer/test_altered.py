"""A file that was changed after it was fetched, and kept its size: the next download reads it, and fetches it again."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

import cxrprep
from tests.generators.small import nih_chestxray14


def changed(path: Path) -> bytes:
    """Turn one byte over; what the file held before."""
    data = path.read_bytes()
    path.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    return data


@pytest.mark.parametrize("packed", [False, True])
def test_what_was_altered_is_fetched_again_and_what_was_only_touched_is_not(tmp_path: Path, packed: bool) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "nih"
    nih_chestxray14.write(mirror)
    if packed:
        with tarfile.open(mirror / "images_001.tar.gz", "w:gz") as archive:
            archive.add(mirror / "images", "images")
        shutil.rmtree(mirror / "images")
    cxrprep.download("nih-chestxray14", root, source=str(mirror))
    first, second, *_ = sorted((root / "images").iterdir())
    os.utime(second)
    untouched = second.stat().st_mtime_ns
    assert cxrprep.download("nih-chestxray14", root).value.done == 0
    data = changed(first)
    cxrprep.download("nih-chestxray14", root)
    assert first.read_bytes() == data
    assert second.stat().st_mtime_ns == untouched
    # In a copy without its times every file would have to be read: that is what verify is for.
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    changed(tmp_path / "copy/images" / first.name)
    assert cxrprep.download("nih-chestxray14", tmp_path / "copy").value.done == 0
    assert cxrprep.verify(tmp_path / "copy").exit_code == 4
