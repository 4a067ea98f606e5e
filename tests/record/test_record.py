"""The record of a folder: what goes in comes out, whoever writes, whenever it is killed, whatever was damaged."""

from __future__ import annotations

import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxrprep.errors import ConfigError, IntegrityError, StorageError, UnsafePathError, UsageError
from cxrprep.model import Digest, LabelTest, Selection, Split
from cxrprep.record import file_table
from cxrprep.record.entry import FileEntry, FileState, Origin
from cxrprep.record.record import Record
from cxrprep.storage.paths import FILES_NAME, LOCK_NAME, UNSAFE_PATTERN, is_safe
from cxrprep.storage.paths import safe_path as check_path
from tests.record.entries import entries_of

SHA = Digest("sha256", "ab" * 32)
MD5 = Digest("md5", "0f" * 16)


@pytest.fixture(autouse=True, params=["in memory", "on the disk"], scope="module")
def _sizes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every record is one of few files, and then one of so many that they stay on the disk, a few in a row group."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "on the disk":
            patch.setattr(file_table, "LARGE", 0)
            patch.setattr(file_table, "ROW_GROUP", 3)
        yield


def entry(path: str, size: int = 7, **more: object) -> FileEntry:
    return FileEntry(path, size, SHA, Origin.PUBLISHED, **more)  # type: ignore[arg-type]


def nih(root: Path, *entries: FileEntry) -> Path:
    with Record.open(root) as record:
        record.describe(dataset="nih-chestxray14", release="v2020", mirror="box", tool="cxrprep 1")
        for one in entries:
            record.add(one)
    return root


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    full = FileEntry(
        "images/00000001_000.png",
        394_000,
        MD5,
        Origin.TRANSPORT,
        FileState.DISCARDED,
        source_key="images_001/images/00000001_000.png",
        validator='W/"x"',
        archive="images_001.tar.gz",
    )
    bare = FileEntry("Data_Entry_2017.csv", 0)
    nih(tmp_path, full, bare)

    record = Record.open(tmp_path)

    assert record.exists
    assert (record.header.dataset, record.header.release, record.header.mirror) == ("nih-chestxray14", "v2020", "box")
    assert list(record.entries()) == [bare, full]
    assert (record.header.files, record.header.size) == (2, 394_000)
    assert record.get("images/none.png") is None


def test_whoever_needs_the_header_alone_reads_no_entry(tmp_path: Path) -> None:
    nih(tmp_path, entry("images/a.png"))
    (tmp_path / FILES_NAME).write_bytes(b"")
    header = Record.open(tmp_path, files=False).header
    assert (header.dataset, header.files, header.size) == ("nih-chestxray14", 1, 7)
    with pytest.raises(IntegrityError):
        Record.open(tmp_path)


def test_a_folder_without_a_record_has_an_empty_one_and_stays_untouched(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    assert not record.exists
    assert len(entries_of(record)) == 0
    record.save()
    assert list(tmp_path.iterdir()) == []


def test_a_state_folder_keeps_the_record_of_a_read_only_root(tmp_path: Path) -> None:
    root, state = tmp_path / "shared", tmp_path / "mine"
    root.mkdir(mode=0o555)
    with Record.open(root, state) as record:
        record.describe(dataset="chexpert", release="v1.0-small")
        record.add(entry("train.csv"))
    assert list(root.iterdir()) == []
    assert Record.open(root, state).get("train.csv") == entry("train.csv")


def test_the_file_table_is_plain_parquet_with_a_description_on_each_column(tmp_path: Path) -> None:
    nih(tmp_path, entry("b"), entry("a"))
    table = pq.read_table(tmp_path / FILES_NAME)
    assert table["path"].to_pylist() == ["a", "b"]
    assert table["digest"].to_pylist() == [str(SHA)] * 2
    assert all(field.metadata[b"description"] for field in table.schema)


selections = st.builds(
    Selection,
    include=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=2).map(tuple),
    patients=st.frozensets(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
    splits=st.frozensets(st.sampled_from(Split)),
    views=st.frozensets(st.sampled_from(["frontal", "PA"])),
    labels=st.lists(
        st.builds(LabelTest, st.sampled_from(["Edema", "No Finding", "a=b"]), st.sampled_from([1, 0, -1, None]))
    ).map(tuple),
    limit=st.none() | st.integers(1, 9),
    sample=st.none() | st.integers(1, 9),
    seed=st.integers(0, 9),
)


@given(st.lists(selections, min_size=1, max_size=3, unique=True))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_selections_come_back_as_they_were_asked(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[Selection]
) -> None:
    root = tmp_path_factory.mktemp("selections")
    record = Record.open(root)
    record.describe(dataset="mimic-cxr", release="2.1.0")
    for one in [*wanted, wanted[0]]:
        record.select(one)
    assert Record.open(root).selections == tuple(wanted)


def test_another_dataset_never_goes_into_the_same_folder(tmp_path: Path) -> None:
    nih(tmp_path)
    with pytest.raises(UsageError, match=r"holds nih-chestxray14 v2020, not chexpert v1\.0"):
        Record.open(tmp_path).describe(dataset="chexpert", release="v1.0")


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "a/../x",
        "a/..",
        "",
        "a//b",
        "./a",
        "a/",
        "C:/x",
        "c:x",
        "a\\b",
        "a\nb",
        "a\x00",
        "\udcff",
    ],
)
def test_a_path_that_leaves_the_root_is_never_taken(path: str) -> None:
    with pytest.raises(UnsafePathError):
        FileEntry(path, 1)


@pytest.mark.parametrize("path", ["a", "CheXpert-v1.0 batch 1 (validate & csv)/valid.csv", ".hidden/..x/y..", "é/ü"])
def test_odd_but_harmless_paths_are_taken(path: str) -> None:
    assert check_path(path) == path


@given(st.text(st.sampled_from("ab.-_/:\\C \x00\x7fé\udcff"), max_size=8))
def test_a_path_that_looks_plain_is_a_path_that_is_safe(path: str) -> None:
    alone = re.search(UNSAFE_PATTERN + "|[\ud800-\udfff]", path) is None
    assert is_safe(path) == alone


# ---- killed, torn, side by side ----

_WRITER = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from cxrprep.record.entry import FileEntry
    from cxrprep.record.record import Record
    record = Record.open(Path(sys.argv[1]))
    for n in range(int(sys.argv[2]), int(sys.argv[3])):
        record.add(FileEntry(f"images/{n:08d}_000.png", n))
    if sys.argv[4] == "killed":
        os.kill(os.getpid(), 9)
    record.close()
""")


def writer(root: Path, start: int, stop: int, end: str = "closed") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _WRITER, str(root), str(start), str(stop), end])


def test_what_a_killed_process_added_is_there(tmp_path: Path) -> None:
    nih(tmp_path, entry("images/99999999_000.png"))
    assert writer(tmp_path, 0, 50, "killed").wait() == -signal.SIGKILL
    record = Record.open(tmp_path)
    assert len(entries_of(record)) == 51
    assert record.get("images/00000049_000.png") == FileEntry("images/00000049_000.png", 49)
    record.save()
    assert list((tmp_path / ".cxrprep" / "journal").iterdir()) == []
    assert len(entries_of(Record.open(tmp_path))) == 51


def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    nih(tmp_path)
    ours = Record.open(tmp_path)
    ours.add(entry("ours/first.csv"))
    writers = [writer(tmp_path, n * 100, n * 100 + 100) for n in range(3)]
    assert [one.wait() for one in writers] == [0, 0, 0]
    ours.add(entry("ours/last.csv"))
    ours.close()
    assert len(entries_of(Record.open(tmp_path))) == 302


def test_a_save_reads_the_journal_of_a_living_writer_once(tmp_path: Path) -> None:
    nih(tmp_path)
    slow = Record.open(tmp_path)
    slow.add(entry("a", 1))
    with Record.open(tmp_path) as other:
        other.add(entry("b"))
    with Record.open(tmp_path) as other:
        other.add(entry("a", 2))
    slow.add(entry("c"))
    slow.close()
    assert {path: one.size for path, one in entries_of(Record.open(tmp_path)).items()} == {"a": 2, "b": 7, "c": 7}


def test_of_two_runs_the_later_has_the_last_word(tmp_path: Path) -> None:
    nih(tmp_path)
    first, second = Record.open(tmp_path), Record.open(tmp_path)
    first.add(entry("a", 1))
    second.add(entry("a", 2))
    assert entries_of(Record.open(tmp_path))["a"].size == 2


@given(st.integers(1, 120))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_last_line_costs_that_line_only(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    root = tmp_path_factory.mktemp("torn")
    record = Record.open(root)
    record.describe(dataset="chexpert", release="v1.0")
    record.add(entry("a"))
    record.add(entry("b"))
    (journal,) = (root / ".cxrprep" / "journal").iterdir()
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert list(entries_of(Record.open(root))) == ["a"]


def test_a_damaged_line_in_a_journal_costs_that_line_only(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    record.describe(dataset="chexpert", release="v1.0")
    record.add(entry("a"))
    (journal,) = (tmp_path / ".cxrprep" / "journal").iterdir()
    with journal.open("ab") as file:
        file.write(b"\x00" * 40 + b"\n[1]\n" + b'{"path": 3, "size": "x"}\n')
    record.add(entry("b"))
    assert list(entries_of(Record.open(tmp_path))) == ["a", "b"]


def test_a_journal_that_names_a_path_outside_is_refused(tmp_path: Path) -> None:
    nih(tmp_path)
    row = entry("a").as_row() | {"path": "../../etc/cron.d/x"}
    folder = tmp_path / ".cxrprep" / "journal"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "1-host-1-0.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UnsafePathError, match="cron"):
        Record.open(tmp_path)


def test_forgotten_files_stay_forgotten(tmp_path: Path) -> None:
    nih(tmp_path, entry("a"), entry("b"))
    with Record.open(tmp_path) as record:
        record.forget("a")
        record.forget("never-there")
        assert record.get("a") is None
        assert list(entries_of(Record.open(tmp_path))) == ["b"]
    assert list(entries_of(Record.open(tmp_path))) == ["b"]


changes = st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 9), st.booleans()), max_size=30)


@given(changes)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_record_is_a_dictionary_on_disk(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int | None, bool]]
) -> None:
    root = tmp_path_factory.mktemp("dictionary")
    model: dict[str, int] = {}
    record = Record.open(root)
    for path, size, save in steps:
        if size is None:
            record.forget(path)
            model.pop(path, None)
        else:
            record.add(entry(path, size))
            model[path] = size
        if save:
            record.save()
        assert {key: one.size for key, one in entries_of(record).items()} == model
    assert {key: one.size for key, one in entries_of(Record.open(root)).items()} == model


def test_columns_are_read_as_their_entries(tmp_path: Path) -> None:
    nih(
        tmp_path,
        entry("a", archive="one.zip", validator='"1"'),
        entry("b", state=FileState.DISCARDED),
        entry("c", archive="two.zip"),
        FileEntry("d", 1),
    )
    record = Record.open(tmp_path)
    assert list(record.rows(["path", "archive", "state", "validator", "digest"])) == [
        ("a", "one.zip", "here", '"1"', str(SHA)),
        ("b", None, "discarded", None, str(SHA)),
        ("c", "two.zip", "here", None, str(SHA)),
        ("d", None, "here", None, None),
    ]
    record.add(entry("aa"))
    assert [path for (path,) in record.rows(["path"])] == ["a", "aa", "b", "c", "d"]


def test_a_folder_without_a_record_is_opened_without_pyarrow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import cxrprep.api.download; from cxrprep.record.record import Record\n"
        "with Record.open(Path(sys.argv[1])) as record:\n"
        "    assert record.get('a') is None and not list(record.rows(['path']))\n"
        "    record.describe(dataset='chexpert', release='v1.0')\n"
        "print('pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


_PLANNED = ["path", "size", "digest", "validator", "state", "archive"]


def test_what_a_plan_asks_of_a_small_record_needs_no_pyarrow(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    nih(tmp_path, entry("a", archive="one.zip", validator='"1"'), entry("b", state=FileState.DISCARDED), entry("ü"))
    code = (
        "import sys; from pathlib import Path; from cxrprep.record.record import Record\n"
        f"with Record.open(Path(sys.argv[1])) as record: found = list(record.rows({_PLANNED}))\n"
        "print(ascii(found)); print('pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    found, loaded = done.stdout.splitlines()
    assert found == ascii(list(Record.open(tmp_path).rows(_PLANNED)))
    assert loaded == str("on the disk" in request.node.name)


@pytest.mark.parametrize("damage", ["cut", "other bytes", "of another save", "a path outside", "no text", "a folder"])
def test_the_rows_as_text_count_only_as_they_were_saved(tmp_path: Path, damage: str) -> None:
    nih(tmp_path, entry("a"), entry("b"))
    kept = tmp_path / ".cxrprep" / "record.json"
    before = kept.read_bytes() if kept.exists() else b""
    nih(tmp_path, entry("b", 8), entry("c"))
    data = kept.read_bytes() if kept.exists() else b""
    outside = data[32:].replace(b'"path": ["a"', b'"path": ["../a"')
    bad = {
        "cut": data[:-9], "other bytes": data.replace(b"8", b"9"), "of another save": before, "no text": b"",
        "a path outside": hashlib.sha256(outside).digest() + outside,
    }  # fmt: skip
    kept.unlink(missing_ok=True)
    if damage == "a folder":
        kept.mkdir()
    else:
        kept.write_bytes(bad[damage])
    record = Record.open(tmp_path)
    assert [row[:2] for row in record.rows(_PLANNED)] == [("a", 7), ("b", 8), ("c", 7)]
    # What cannot be written is no reason for a save to fail.
    nih(tmp_path, entry("d"))
    assert list(entries_of(Record.open(tmp_path))) == ["a", "b", "c", "d"]


def test_many_files_are_folded_into_columns_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrprep.record.record._PENDING_ROWS", 10)
    with Record.open(tmp_path) as record:
        for n in range(95):
            record.add(entry(f"f/{n % 40:03d}", n))
            assert len(record._pending) < 10
    stored = Record.open(tmp_path)
    assert [one.size for one in entries_of(stored).values()] == [*range(80, 95), *range(55, 80)]


@pytest.mark.parametrize("added", [["d", "c"], ["bb", "d"], ["b", "e"]])
def test_files_before_the_first_change_are_not_copied(added: list[str]) -> None:
    before = file_table.from_entries(entry(path) for path in ("a", "b", "c")[: 2 + ("c" not in added)])
    after = file_table.merge(before, {path: entry(path, 9) for path in added})
    assert after["path"].to_pylist() == sorted({*before["path"].to_pylist(), *added})
    assert {row["path"]: row["size"] for row in after.to_pylist() if row["path"] in added} == dict.fromkeys(added, 9)
    assert after["path"].chunk(0).buffers()[2].address == before["path"].chunk(0).buffers()[2].address


# ---- damaged, foreign, from elsewhere ----


def test_a_run_killed_between_table_and_header_is_no_damage(tmp_path: Path) -> None:
    nih(tmp_path, entry("a"))
    old = (tmp_path / LOCK_NAME).read_bytes()
    nih(tmp_path, entry("b"))
    (tmp_path / LOCK_NAME).write_bytes(old)
    with Record.open(tmp_path) as record:
        assert list(entries_of(record)) == ["a", "b"]
        record.select(Selection(limit=3))
        record.add(entry("c"))
    assert list(entries_of(Record.open(tmp_path))) == ["a", "b", "c"]


def test_a_table_without_its_header_is_still_read(tmp_path: Path) -> None:
    nih(tmp_path, entry("a"))
    (tmp_path / LOCK_NAME).unlink()
    record = Record.open(tmp_path)
    assert record.exists
    record.describe(dataset="nih-chestxray14", release="v2020")
    assert list(entries_of(Record.open(tmp_path))) == ["a"]


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (b"\xff\xfe\x00", IntegrityError, "cannot be read as a record"),
        (b"format = 1\ndataset = ", IntegrityError, "cannot be read as a record"),
        (b'format = 1\ndataset = "x"\ntable = "sha256:12"', IntegrityError, "sha256"),
        (b"format = 1\ndataset = 3", IntegrityError, "dataset is not text"),
        (b'format = 1\ndataset = "x"\ngeneration = "many"', IntegrityError, "generation is not a number"),
        (b'format = 1\ndataset = "x"\ncreated = 5', IntegrityError, "created is not a time"),
        (b'format = 1\ndataset = "x"\nselection = [1]', IntegrityError, "cannot be read as a record"),
        (b'format = 1\ndataset = "x"\n[[selection]]\nsplits = ["dev"]', IntegrityError, "dev"),
        (b'format = 99\ndataset = "x"\ntool = "cxrprep 9.9"', ConfigError, r"newer cxrprep \(cxrprep 9\.9\)"),
        (b"[package]\nname = 'cargo'", IntegrityError, "not a record of cxrprep"),
    ],
)
def test_a_lock_that_is_damaged_or_not_ours_says_so(
    tmp_path: Path, text: bytes, kind: type[IntegrityError], says: str
) -> None:
    (tmp_path / LOCK_NAME).write_bytes(text)
    with pytest.raises(kind, match=says) as caught:
        Record.open(tmp_path)
    assert LOCK_NAME in str(caught.value)
    assert caught.value.hint


def test_a_file_table_that_was_altered_says_so(tmp_path: Path) -> None:
    nih(tmp_path, entry("a"))
    table = pq.read_table(tmp_path / FILES_NAME)
    forged = table.set_column(1, table.schema.field("size"), pa.array([8], pa.int64()))
    pq.write_table(forged, tmp_path / FILES_NAME)
    with pytest.raises(IntegrityError, match="was altered since"):
        Record.open(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other-columns"])
def test_a_file_table_that_is_damaged_says_so(tmp_path: Path, damage: str) -> None:
    nih(tmp_path, entry("a"))
    path = tmp_path / FILES_NAME
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "text":
        path.write_text("path,size\na,1\n" * 40)
    else:
        pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(IntegrityError, match=FILES_NAME) as caught:
        Record.open(tmp_path)
    assert "--repair puts what is damaged aside" in caught.value.hint


def test_a_missing_file_table_says_so(tmp_path: Path) -> None:
    nih(tmp_path, entry("a"))
    (tmp_path / FILES_NAME).unlink()
    with pytest.raises(IntegrityError, match="is missing, though"):
        Record.open(tmp_path)


def test_a_file_table_of_another_folder_says_so(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    nih(here, entry("a"))
    for n in range(4):
        nih(there, entry(f"b{n}"))
    (here / FILES_NAME).write_bytes((there / FILES_NAME).read_bytes())
    with pytest.raises(IntegrityError, match="do not belong together"):
        Record.open(here)


def test_a_file_table_that_names_a_path_outside_is_refused(tmp_path: Path) -> None:
    nih(tmp_path, entry("a"))
    (tmp_path / LOCK_NAME).unlink()
    table = pq.read_table(tmp_path / FILES_NAME)
    forged = table.set_column(0, table.schema.field("path"), pa.array(["../../root/.ssh/authorized_keys"]))
    pq.write_table(forged, tmp_path / FILES_NAME)
    with pytest.raises(UnsafePathError, match="authorized_keys"):
        Record.open(tmp_path)


def test_rows_out_of_order_are_refused(tmp_path: Path) -> None:
    nih(tmp_path, entry("a"), entry("b"))
    (tmp_path / LOCK_NAME).unlink()
    table = pq.read_table(tmp_path / FILES_NAME)
    pq.write_table(table.take([1, 0]), tmp_path / FILES_NAME)
    with pytest.raises(IntegrityError, match="out of order"):
        Record.open(tmp_path)


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("not a folder")
    with pytest.raises(StorageError, match="file"):
        Record.open(root).add(entry("a"))


def test_a_full_disk_keeps_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nih(tmp_path, entry("a"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    record = Record.open(tmp_path)
    record.add(entry("b"))
    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    monkeypatch.setattr("pyarrow.parquet.ParquetWriter", full)
    with pytest.raises(StorageError, match="No space left"):
        record.save()
    monkeypatch.undo()
    assert [one.name for one in tmp_path.iterdir() if one.name.endswith(".tmp")] == []
    assert list(entries_of(Record.open(tmp_path))) == ["a", "b"]


def test_the_place_in_line_of_a_killed_run_is_free_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = (
        "import os, sys; from pathlib import Path; from cxrprep.storage.locks import SaveLock;\n"
        "with SaveLock(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / ".cxrprep")], check=False)
    assert (tmp_path / ".cxrprep" / "saving").exists()
    monkeypatch.setattr("cxrprep.storage.locks._WAIT_SECONDS", -1.0)
    with Record.open(tmp_path) as record:
        record.describe(dataset="nih-chestxray14", release="v2020")
    assert not (tmp_path / ".cxrprep" / "saving").exists()


def test_a_record_of_many_files_takes_changes_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrprep.record.record._PENDING_ROWS", 4)
    monkeypatch.setattr("cxrprep.record.record._UNSAVED_ROWS", 12)
    due: dict[str, FileEntry] = {}
    order = random.Random(7)
    for _ in range(3):
        with Record.open(tmp_path) as record:
            record.describe(dataset="nih-chestxray14", release="v2020")
            for _ in range(60):
                path = f"f/{order.randrange(50):03d}"
                if order.random() < 0.3:
                    record.forget(path)
                    due.pop(path, None)
                else:
                    due[path] = entry(path, order.randrange(1000), archive=order.choice([None, "a.zip", "b.zip"]))
                    record.add(due[path])
                assert record.get(path) == due.get(path)
            assert entries_of(record) == due
            assert list(entries_of(record)) == sorted(due)
            assert len(entries_of(record)) == len(due)
            assert record.table(["size"])["size"].to_pylist() == [due[path].size for path in sorted(due)]
            assert pa.concat_tables(record.tables(["path"]))["path"].to_pylist() == sorted(due)
        stored = Record.open(tmp_path)
        assert entries_of(stored) == due
        assert (stored.header.files, stored.header.size) == (len(due), sum(one.size for one in due.values()))
