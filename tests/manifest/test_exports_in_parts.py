"""An export is the same whatever part of the manifest is held at a time, and its whole is not."""

from __future__ import annotations

import pyarrow as pa
import pytest

import cxrprep
from cxrprep.manifest.export.csv import csv_of
from cxrprep.storage.parquet import read_footer, read_rows, write_table
from cxrprep.storage.table_on_disk import TableOnDisk
from tests.manifest.made import made


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The same images twice: the manifest of the second is written two rows at a time."""
    first, second = (made("nih-chestxray14", tmp_path_factory.mktemp(name) / "nih") for name in ("one", "two"))
    path = second / "manifests" / "images.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrprep.storage.parquet._ROWS", 2)
        write_table(read_rows(path), path, name="images", made_from=read_footer(path))
    return first, second


@pytest.mark.parametrize(
    "options", [{}, {"split": "test"}, {"sample": 3, "uncertain": "ones", "derive": True}], ids=str
)
@pytest.mark.parametrize("form", ["csv", "coco", "webdataset", "hf", "original"])
def test_an_export_holds_a_part_of_the_manifest_and_writes_the_same(roots, tmp_path, monkeypatch, form, options):
    whole = cxrprep.export(roots[0], form=form, out=tmp_path / "whole", **options).value
    monkeypatch.setattr("cxrprep.manifest.load._PART", 3)
    monkeypatch.setattr(TableOnDisk, "whole", lambda _: pytest.fail("all rows are held"))
    monkeypatch.setattr("cxrprep.manifest.load.read_rows", lambda _: pytest.fail("all rows are held"))
    parts = cxrprep.export(roots[1], form=form, out=tmp_path / "parts", **options).value
    assert (parts.images, parts.left_out) == (whole.images, whole.left_out)
    names = [file.relative_to(tmp_path / "whole").as_posix() for file in whole.files]
    assert names == [file.relative_to(tmp_path / "parts").as_posix() for file in parts.files]
    assert len(names) >= 1
    for name in names:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_table_whose_first_piece_has_no_rows_is_written_as_it_is():
    table = pa.table({"path": ["images/00000001_000.png"], "label": [1]})
    expected = b"path,label\nimages/00000001_000.png,1\n"
    assert csv_of(pa.concat_tables([table.slice(0, 0), table])) == expected == csv_of(table)
