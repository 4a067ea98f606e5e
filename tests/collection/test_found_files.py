"""A file that lies in a folder may say anything: the answer goes on without it or names it, in time."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cxrprep.collection.lineage import read_export
from tests.api.convert import hospital
from tests.commands import cxrprep, ok
from tests.generators.small import nih_chestxray14


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


@pytest.mark.parametrize("said", ["null", "[]", '"text"', "1"])
def test_metadata_of_a_record_that_is_no_object_is_damage(tmp_path: Path, said: str) -> None:
    nih_chestxray14.write(tmp_path / "mirror")
    root = tmp_path / "root"
    ok("download", "nih-chestxray14", root, "--source", tmp_path / "mirror")
    path = root / "cxrprep.files.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(dict.fromkeys(table.schema.metadata, said)), path)
    done = cxrprep("verify", root)
    assert (done.returncode, path.name in done.stderr) == (4, True), done.stderr


def test_a_link_to_itself_among_images_is_passed_over(tmp_path: Path) -> None:
    own = hospital.write(tmp_path / "own")
    ok("manifest", own)
    for name in ("manifests/croissant.json", "ward.png", "manifests/README.md"):
        (own / name).unlink(missing_ok=True)
        (own / name).symlink_to(Path(name).name)
    done = cxrprep("convert", own, "--recipe", "square-224", "--out", tmp_path / "out")
    assert done.returncode in (0, 3), done.stderr
