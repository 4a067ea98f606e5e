"""A byte turned over in a table of our own is found in every kind of folder, and the hint mends it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from cxrprep.errors import StorageError
from cxrprep.storage import table_checksums
from cxrprep.storage.parquet import read_rows, write_table
from cxrprep.storage.table_checksums import listed_checksums, replace_listed
from cxrprep.verification import own_tables
from tests.collection.worlds import release
from tests.commands import cxrprep
from tests.sample import some, some_of_each

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {"release": "raw", "converted": "raw/derived/square-224", "own": "own"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = release("mimic-cxr-jpg", tmp_path_factory.mktemp("world"))
    for words in (
        ("extract-labels", home / "raw"), ("convert", home / "raw", "--recipe", "square-224"),
        ("duplicates", home / "raw"),
    ):  # fmt: skip
        assert cxrprep(*words, "-q").returncode == 0
    return home


def turn_over(path: Path, place: float = 0.5) -> bytes:
    """Another byte in ``path``; what it held before."""
    data = path.read_bytes()
    changed = bytearray(data)
    changed[int(len(data) * place)] ^= 1
    path.write_bytes(changed)
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_table_is_found_and_the_hint_mends_it(world: Path, kind: str) -> None:
    root = world / KINDS[kind]
    if kind == "own":
        shutil.rmtree(root / "manifests", ignore_errors=True)
        # Pseudonyms are those of this test's key.
        assert cxrprep("manifest", root, "-q").returncode == 0
    assert cxrprep("verify", root, "-q").returncode == 0
    names = sorted(listed_checksums(root / "manifests"))
    assert {"images.parquet", "studies.parquet", "croissant.json"} < set(names)
    for name, place in some([(name, place) for name in names for place in (0.5, 0.9999)], one_in=3):
        path = root / "manifests" / name
        data = turn_over(path, place)
        done = cxrprep("verify", root, "--json")
        told = json.loads(done.stdout)
        found = [one for one in told.get("findings", ()) if one["finding"] == "altered"] or [told["error"]]
        shown = path.resolve().relative_to(root).as_posix()
        assert done.returncode == 4
        assert shown in found[0].get("path", found[0].get("message"))
        command = re.search(r"cxrprep (.*)", found[0]["hint"])
        assert command, found
        words = [str(root.parents[1]) if word == "ORIGINAL" else word for word in shlex.split(command[1])]
        mended = cxrprep(*words, "-q")
        assert mended.returncode == 0, (words, mended.stderr)
        assert cxrprep("verify", root, "-q").returncode == 0
        assert path.read_bytes() == data


@pytest.mark.parametrize("kind", KINDS)
def test_no_verb_falls_over_a_damaged_table(world: Path, kind: str, tmp_path: Path) -> None:
    root = world / KINDS[kind]
    if kind == "own":
        shutil.rmtree(root / "manifests", ignore_errors=True)
        assert cxrprep("manifest", root, "-q").returncode == 0
    verbs = ("status", "report", "digest", "manifest", "pairs", "duplicates", "extract-labels")
    for path, verb in some_of_each(sorted((root / "manifests").glob("*.parquet")), verbs, one_in=3):
        data = turn_over(path, 0.9999)
        done = cxrprep(verb, root, "--state", tmp_path / path.name / verb)
        assert done.returncode not in (1, 7), done.stderr
        path.write_bytes(data)


def test_converted_images_with_a_damaged_image_table_are_no_release(world: Path) -> None:
    root = world / KINDS["converted"]
    path = root / "manifests/images.parquet"
    data = turn_over(path, 0.9999)
    done = cxrprep("manifest", root)
    assert (done.returncode, "was altered after cxrprep wrote it" in done.stderr) == (4, True)
    path.write_bytes(data)


def test_a_page_is_held_to_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "manifests/x.parquet"
    write_table(pa.table({"a": list(range(5000))}), path, name="x")
    turn_over(path, 0.3)
    with pytest.raises(OSError, match=r"cannot be read.*CRC"):
        read_rows(path)


def test_a_kill_between_a_table_and_its_line_leaves_a_line_that_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "manifests/x.parquet"
    write_table(pa.table({"a": [1]}), path, name="x")
    before = listed_checksums(path.parent)["x.parquet"]

    def killed(*_: object, **__: object) -> None:
        raise StorageError("killed")

    # Before the table gets its name both hold; after it, too.
    with monkeypatch.context() as patched:
        note = table_checksums._note
        patched.setattr(
            table_checksums, "_note", lambda *args, **how: note(*args, **how) if how.get("beside") else killed()
        )
        with pytest.raises(StorageError):
            write_table(pa.table({"a": [2]}), path, name="x")
    both = listed_checksums(path.parent)["x.parquet"]
    assert both[0] == before[0]
    assert both[1] == table_checksums._sha256(path)
    write_table(pa.table({"a": [2]}), path, name="x")
    assert listed_checksums(path.parent)["x.parquet"] == both[1:]


def test_no_list_is_kept_outside_of_manifests(tmp_path: Path) -> None:
    write_table(pa.table({"a": [1]}), tmp_path / "x.parquet", name="x")
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


def test_a_table_that_a_run_writes_meanwhile_is_not_called_altered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "manifests/images.parquet"
    replace_listed(table, lambda part: part.write_bytes(b"first"))
    digest = own_tables.file_digest

    def digest_of_the_next(path: Path) -> str:
        replace_listed(table, lambda part: part.write_bytes(b"second"))
        return digest(path)

    monkeypatch.setattr(own_tables, "file_digest", digest_of_the_next)
    assert list(own_tables.altered_tables(tmp_path, tmp_path, "", "again")) == []
    table.write_bytes(b"third")
    monkeypatch.setattr(own_tables, "file_digest", digest)
    assert [finding.path for finding in own_tables.altered_tables(tmp_path, tmp_path, "", "again")] == [
        "manifests/images.parquet"
    ]
