"""The scan of a disk: folders that are left out, by their name and behind a link, at the price of no question more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cxrprep.verification.scan import scan

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_folder_of_state_is_left_out_wherever_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, state = tmp_path / "root", tmp_path / "root" / "a" / "state"
    state.mkdir(parents=True)
    (state / "x").touch()
    (root / "link").symlink_to(state)
    # Of the same name, and another folder.
    (root / "state").mkdir()
    (root / "state" / "y").touch()
    for number in range(20):
        (root / f"p{number}").mkdir()
        (root / f"p{number}" / "z").touch()
    asked: list[object] = []
    again = os.path.realpath

    def counted(path: str, **words: bool) -> str:
        asked.append(path)
        return again(path, **words)

    with monkeypatch.context() as patch:
        patch.setattr(os.path, "realpath", counted)
        found = [path for table in scan(root, [], [state]) for path in table["path"].to_pylist()]
    assert found == sorted([*(f"p{number}/z" for number in range(20)), "state/y"])
    # The one that is meant, the one that is called alike, the link, and the folder itself: none of the twenty.
    assert len(asked) <= 6
