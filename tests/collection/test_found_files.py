"""A file that lies in a folder may say anything: the answer goes on without it or names it, in time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cxrprep.collection.lineage import read_export
from tests.commands import cxrprep

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", ['"\\u0000"', "1" + "0" * 400, "1e400", "-1", "true", "null", "[]"])
def test_a_size_that_is_none_is_not_known(tmp_path: Path, size: str) -> None:
    listed = f'{{"csv": ["a.csv"], "about": {{"csv": {{"files": {{"a.csv": [{size}, "sha256:0"]}}}}}}}}'
    (tmp_path / ".cxrprep-export.json").write_text(listed)
    assert [shard.size for export in read_export(tmp_path) for shard in export.shards] == [-1]


def test_a_key_of_a_hundred_thousand_parts_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(".".join(["a"] * 100_000) + ' = "x"\n')
    begun = time.process_time()
    done = cxrprep("config", "check", tmp_path / "job.toml")
    assert (done.returncode, "job.toml" in done.stderr, len(done.stderr) < 2000) == (2, True, True)
    assert time.process_time() - begun < 20
