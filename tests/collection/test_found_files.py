"""A file that lies in a folder may say anything: the answer goes on without it or names it, in time."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrprep.collection.lineage import read_export
from cxrprep.errors import TableError
from cxrprep.storage.parquet import read_footer
from tests.api.convert import hospital
from tests.collection.found_files import draw, prepared
from tests.commands import cxrprep, ok
from tests.generators.small import nih_chestxray14


@pytest.mark.parametrize("size", ['"\\u0000"', "1" + "0" * 400, "1e400", "-1", "true", "null", "[]"])
def test_a_size_that_is_none_is_not_known(tmp_path: Path, size: str) -> None:
    listed = f'{{"csv": ["a.csv"], "about": {{"csv": {{"files": {{"a.csv": [{size}, "sha256:0"]}}}}}}}}'
    (tmp_path / ".cxrprep-export.json").write_text(listed)
    assert [shard.size for export in read_export(tmp_path) for shard in export.shards] == [-1]


@pytest.mark.parametrize("digest", ["../../x", "sha256:0", "shake_128:00", "md5", ":"])
def test_a_digest_that_is_none_is_not_known(tmp_path: Path, digest: str) -> None:
    listed = {"csv": ["a.csv"], "about": {"csv": {"files": {"a.csv": [1, digest]}}}}
    (tmp_path / ".cxrprep-export.json").write_text(json.dumps(listed))
    assert [(shard.size, shard.digest) for export in read_export(tmp_path) for shard in export.shards] == [(-1, "")]


@pytest.mark.parametrize("tables", ["x", [3], [{}], [{"name": 3, "digest": "x"}], {"a": 1}])
def test_source_tables_in_no_form_of_ours_name_the_table(tmp_path: Path, tables: object) -> None:
    path = tmp_path / "images.parquet"
    footer = json.dumps({"dataset": "nih-chestxray14", "tables": tables})
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"cxrprep": footer}), path)
    with pytest.raises(TableError, match=r"images\.parquet: its footer names its source tables"):
        read_footer(path)


def test_labels_that_are_none_and_a_root_that_is_a_file_are_refused(tmp_path: Path) -> None:
    nih_chestxray14.write(tmp_path / "root")
    ok("extract-labels", tmp_path / "root")
    path = tmp_path / "root/manifests/labels.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("label_edema")
    numbers = pa.array(range(table.num_rows), pa.int64())
    pq.write_table(table.set_column(place, "label_edema", numbers), path)
    done = cxrprep("manifest", tmp_path / "root")
    assert (done.returncode, "labels.parquet, column label_edema" in done.stderr) == (4, True), done.stderr
    (tmp_path / "a.csv").write_text("study_id,Edema\n1,1\n")
    for option in ("--import", "--reports"):
        done = cxrprep("extract-labels", tmp_path / "a.csv", option, tmp_path / "a.csv")
        assert (done.returncode, "is not a folder" in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
def test_changed_files_are_answered_and_nothing_else_is_lost(tmp_path: Path) -> None:
    """A short run of the campaign; ``python -m tests.collection.found_files SEED COUNT`` is the long one."""
    with prepared(tmp_path) as good:
        for number in range(6):
            change, why = draw(good, tmp_path / "home", random.Random(f"ci/{number}"))
            assert not why, (number, change, why)


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
