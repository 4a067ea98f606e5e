"""Lists of ids: in the encodings that programs write, and written for a command that names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cxrprep.selection.id_lists import list_file, read_ids, read_list

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_is_read_in_the_encodings_that_shells_write(tmp_path: Path, encoding: str) -> None:
    listed = tmp_path / "ids.txt"
    listed.write_bytes("10000032\r\n10000764\r\n".encode(encoding))
    assert read_list(listed, "patients") == {"10000032", "10000764"}


@pytest.mark.parametrize("kind", ["patients", "studies", "images"])
def test_a_list_that_is_written_is_read_as_it_was(kind: str) -> None:
    ids = frozenset({"a,b", "#c", "patient", '"d"'})
    assert read_list(list_file(kind, ids), kind) == ids
    assert read_ids(list_file(kind, ids))[kind] == ids
    assert list_file(kind, ids) == list_file(kind, ids)
