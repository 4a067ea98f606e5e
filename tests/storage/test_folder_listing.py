"""The files below a folder: in order of whole paths, and what cannot be read is said or passed over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cxrprep.storage.folder_listing import files_below

if TYPE_CHECKING:
    from pathlib import Path


def test_files_come_in_order_of_path_with_their_bytes(tmp_path: Path) -> None:
    # "a-b" stands before what is in "a", and "a0" behind it: as whole paths are sorted.
    names = ["a/x", "a-b", "a0", "a/b/c", "manifests/t", "b/manifests/t", "é/1"]
    for size, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a" / "z").symlink_to(tmp_path / "a0")
    os.mkfifo(tmp_path / "pipe")
    found = list(files_below(str(tmp_path), {"manifests"}))
    assert found == [("a-b", 1), ("a/b/c", 3), ("a/x", 0), ("a/z", 2), ("a0", 2), ("b/manifests/t", 5), ("é/1", 6)]


@pytest.mark.skipif(os.geteuid() == 0, reason="everything can be read")
def test_a_folder_that_cannot_be_read_is_said_or_passed_over(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    (tmp_path / "x").touch()
    with pytest.raises(PermissionError):
        list(files_below(str(tmp_path)))
    assert list(files_below(str(tmp_path), readable_only=True)) == [("x", 0)]


def test_a_top_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(files_below(str(tmp_path / "gone")))
    assert list(files_below(str(tmp_path / "gone"), readable_only=True)) == []
