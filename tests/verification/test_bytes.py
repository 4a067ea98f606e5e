"""Every way in which a file can be wrong: that finding, and no other."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrprep.digests import FileToRead, digest_files
from cxrprep.errors import IntegrityError, StorageError, UnsafePathError
from cxrprep.events import Advanced, Event, ItemFinished, StageFinished, StageStarted
from cxrprep.model import Digest, Shard
from cxrprep.progress_stats import StageProgress
from cxrprep.record.entry import FileEntry, FileState, Origin
from cxrprep.record.record import Record
from cxrprep.storage.sorted_tables import HeldRows, SortedCursor
from cxrprep.verification import file_checks, findings_table, published_checksums
from tests.record.entries import entries_of
from tests.verification.trees import MIMIC, check, files, flip, found, mimic, nih, nih_spec, remember, write_sums

IMAGE = "images/00000002_000.png"
TABLE = "Data_Entry_2017_v2020.csv"
QUIRK = "files/p10/p10375986/s59475126/44685902-a2ada121-02735bc5-bf1bf167-adfd2ae5.jpg"


def test_a_whole_folder_is_proven_file_by_file(tmp_path: Path) -> None:
    report = check(nih(tmp_path))
    assert found(report) == []
    assert report.exit_code == 0
    assert (report.files.here, report.files.proven, report.files.first_read) == (11, 11, 11)
    assert (report.images_here, report.images_named) == (7, 7)
    assert report.verdict.startswith("all 11 files here have the bytes that they had when they were first read")
    rows = pq.read_table(tmp_path / "manifests" / "verify.parquet").to_pylist()
    assert {row["path"] for row in rows} == {path.relative_to(tmp_path).as_posix() for path in files(tmp_path)}
    assert {(row["finding"], row["level"], row["detail"]) for row in rows} == {("ok", "ok", "first-read sum")}
    assert all(row["found"].startswith("sha256:") for row in rows)


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


BREAKS: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "missing": (lambda root: (root / IMAGE).unlink(), IMAGE, 4),
    "truncated": (lambda root: truncate(root / IMAGE), IMAGE, 4),
    "altered": (lambda root: flip(root / IMAGE), IMAGE, 4),
    "zero-byte": (lambda root: (root / IMAGE).write_bytes(b""), IMAGE, 4),
    "extra": (lambda root: (root / "notes.docx").write_bytes(b"x"), "notes.docx", 0),
    "leftover": (lambda root: (root / "images" / "index.html").write_bytes(b"x"), "images/index.html", 0),
    "unfinished": (lambda root: (root / "images_001.tar.gz.part").write_bytes(b"x"), "images_001.tar.gz.part", 0),
    "unproven": (lambda root: (root / "FAQ_CHESTXRAY.pdf").write_bytes(b"x"), "FAQ_CHESTXRAY.pdf", 0),
    "unchecked": (lambda root: (root / "images" / "gone.png").symlink_to("nowhere"), "images/gone.png", 3),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_each_way_of_breaking_a_folder_gives_that_finding_and_no_other(tmp_path: Path, kind: str) -> None:
    break_it, path, code = BREAKS[kind]
    break_it(nih(tmp_path))
    report = check(tmp_path)
    lacking = [("row-without-image", "")] if kind == "missing" else []
    assert found(report) == [(kind, path), *lacking]
    assert report.exit_code == code
    assert check(tmp_path, strict=True).exit_code == (code or 4)


def test_a_file_that_grew_is_altered(tmp_path: Path) -> None:
    with (nih(tmp_path) / IMAGE).open("ab") as file:
        file.write(b"more")
    report = check(tmp_path)
    assert found(report) == [("altered", IMAGE)]
    assert report.findings[0].detail == "it is 4 bytes too long"


@pytest.mark.parametrize("kind", ["missing", "truncated", "altered", "zero-byte"])
def test_a_broken_table_is_told_once_and_nothing_is_concluded_from_it(tmp_path: Path, kind: str) -> None:
    nih(tmp_path)
    path = tmp_path / TABLE
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        truncate(path)
    elif kind == "altered":
        flip(path)
    else:
        path.write_bytes(b"")
    report = check(tmp_path)
    assert found(report) == [(kind, TABLE)]
    assert report.facts == ()
    assert any("published facts" in sentence for sentence in report.not_checked)


@pytest.mark.parametrize(
    "name",
    [
        "x/00000001_000.jpg_.gstmp",
        "._.gstmp",
        "index.html",
        "index.html?C=N;O=D",
        "robots.txt",
        ".DS_Store",
        "images/._00000001_000.png",
        "Thumbs.db",
        "images_001.tar.gz.aria2",
        "Data_Entry_2017.csv.crdownload",
        "wget-log.1",
        "train_val_list.txt~",
    ],
)
def test_what_other_tools_leave_behind_is_recognised(tmp_path: Path, name: str) -> None:
    nih(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    assert found(check(tmp_path)) == [("leftover", name)]


def test_without_a_record_files_are_unproven_and_never_called_right(tmp_path: Path) -> None:
    report = check(nih(tmp_path, record=False))
    assert report.counts == {"unproven": 11}
    assert report.exit_code == 0
    assert report.files.proven == 0
    assert "11 of 11 files without a checksum" in report.verdict
    assert "all" not in report.verdict
    assert any("no record" in sentence for sentence in report.not_checked)
    assert check(tmp_path, strict=True).exit_code == 4


def test_a_discarded_file_is_not_missing(tmp_path: Path) -> None:
    nih(tmp_path)
    (tmp_path / IMAGE).unlink()
    with Record.open(tmp_path) as record:
        record.add(FileEntry(IMAGE, 5, Digest("md5", "ab" * 16), Origin.PUBLISHED, FileState.DISCARDED))
    assert found(check(tmp_path)) == [("row-without-image", "")]


def test_what_a_selection_names_must_be_here(tmp_path: Path) -> None:
    wanted = [IMAGE, "images/00030805_000.png"]
    report = check(nih(tmp_path), selected=wanted)
    assert found(report) == [("missing", "images/00030805_000.png")]
    assert report.exit_code == 4


def test_a_part_is_counted_and_complete_demands_the_whole(tmp_path: Path) -> None:
    def take_two_away(root: Path) -> None:
        (root / IMAGE).unlink()
        (root / "images" / "00000001_000.png").unlink()

    nih(tmp_path, change=take_two_away)
    report = check(tmp_path)
    assert found(report) == [("row-without-image", "")]
    assert "2 of 7 images" in report.findings[0].detail
    assert (report.images_here, report.images_named) == (5, 7)
    assert report.exit_code == 0
    complete = check(tmp_path, complete=True)
    assert {path for kind, path in found(complete) if kind == "missing"} == {IMAGE, "images/00000001_000.png"}
    assert complete.exit_code == 4


# ---- sums that the publisher gives ----


def test_a_list_that_nobody_vouches_for_is_not_called_the_publishers(tmp_path: Path) -> None:
    report = check(mimic(tmp_path, record=False), MIMIC, "2.1.0")
    assert (report.files.proven, report.files.listed) == (0, report.files.here - 1)
    assert found(report) == [("unproven", "SHA256SUMS.txt")]
    said = " ".join(map(" ".join, report.rows()))
    assert "the publisher's checksum" not in said
    assert f"{report.files.listed} with one that nobody vouches for" in report.verdict


def test_what_the_record_states_is_proven_beside_a_list_that_nobody_vouches_for(tmp_path: Path) -> None:
    mimic(tmp_path)
    with Record.open(tmp_path) as record:
        record.forget("SHA256SUMS.txt")
    report = check(tmp_path, MIMIC, "2.1.0")
    assert (report.files.listed, report.files.proven) == (0, report.files.here - 1)


def test_a_list_that_is_recorded_is_the_publishers(tmp_path: Path) -> None:
    report = check(mimic(tmp_path), MIMIC, "2.1.0")
    assert (report.files.published, report.files.listed) == (report.files.here, 0)


def test_a_published_sum_counts_more_than_the_record(tmp_path: Path) -> None:
    mimic(tmp_path)
    path = next(path for path in files(tmp_path) if path.suffix == ".jpg")
    flip(path)
    remember(tmp_path, MIMIC, "2.1.0", mirror="physionet", origin=Origin.TRANSPORT)
    report = check(tmp_path, MIMIC, "2.1.0")
    assert found(report) == [("altered", path.relative_to(tmp_path).as_posix())]
    assert "though they are what the mirror sent" in report.findings[0].detail


@pytest.mark.parametrize(
    ("mirror", "kind"), [("gcs", "upstream-mismatch"), ("", "upstream-mismatch"), ("physionet", "altered")]
)
def test_a_mismatch_that_is_known_of_one_mirror_is_told_apart(tmp_path: Path, mirror: str, kind: str) -> None:
    mimic(tmp_path, record=False, sums=False)
    path = tmp_path / QUIRK
    path.parent.mkdir(parents=True)
    path.write_bytes(b"as PhysioNet has it")
    write_sums(tmp_path)
    path.write_bytes(b"as the bucket has it")
    remember(tmp_path, MIMIC, "2.1.0", mirror=mirror, origin=Origin.TRANSPORT)
    report = check(tmp_path, MIMIC, "2.1.0", labels=False)
    assert found(report) == [(kind, QUIRK)]
    assert report.exit_code == (0 if kind == "upstream-mismatch" else 4)
    if kind == "upstream-mismatch":
        assert "issue 1763" in report.findings[0].detail
        assert check(tmp_path, MIMIC, "2.1.0", labels=False, strict=True).exit_code == 4
        flip(path, 3)
        assert found(check(tmp_path, MIMIC, "2.1.0", labels=False)) == [("altered", QUIRK)]


def test_sums_are_read_in_every_common_form(tmp_path: Path) -> None:
    mimic(tmp_path, record=False, sums=False)
    lines = []
    for number, path in enumerate(files(tmp_path)):
        name, data = path.relative_to(tmp_path).as_posix(), path.read_bytes()
        lines.append(
            [
                f"{hashlib.sha256(data).hexdigest()} {name}\n",
                f"{hashlib.sha256(data).hexdigest().upper()}  ./{name}\r\n",
                f"{hashlib.md5(data).hexdigest()} *{name}\n\n",
            ][number % 3]
        )
    # Under a name that a download takes for such a list, too.
    for name in ("SHA256SUMS.txt", "sha256sum.txt"):
        (tmp_path / name).write_text("".join(lines), newline="")
        assert check(tmp_path, MIMIC, "2.1.0").files.listed == len(lines), name
        (tmp_path / name).unlink()


def test_a_damaged_sum_file_says_where(tmp_path: Path) -> None:
    mimic(tmp_path)
    (tmp_path / "SHA256SUMS.txt").write_text(f"{'0' * 64} a\n<html>login</html>\n")
    # One that is not what was recorded is a finding, and nothing in it is believed.
    assert found(check(tmp_path, MIMIC, "2.1.0")) == [("truncated", "SHA256SUMS.txt")]
    with Record.open(tmp_path) as record:
        record.forget("SHA256SUMS.txt")
    with pytest.raises(IntegrityError, match=r"SHA256SUMS\.txt, line 2"):
        check(tmp_path, MIMIC, "2.1.0")
    (tmp_path / "SHA256SUMS.txt").write_text(f"{'0' * 64} ../../etc/passwd\n")
    with pytest.raises(UnsafePathError, match="passwd"):
        check(tmp_path, MIMIC, "2.1.0")


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "crc32", "crc32c"])
def test_whatever_the_service_stated_is_checked(tmp_path: Path, algorithm: str) -> None:
    nih(tmp_path)
    ((hashed,),) = digest_files(tmp_path, [FileToRead(IMAGE, 0, (algorithm,))])
    with Record.open(tmp_path) as record:
        record.add(FileEntry(IMAGE, hashed.size, Digest.parse(hashed.digests[0]), Origin.TRANSPORT))
    report = check(tmp_path)
    assert (found(report), report.files.transport) == ([], 1)
    flip(tmp_path / IMAGE)
    assert found(check(tmp_path)) == [("altered", IMAGE)]


def test_the_archives_of_nih_are_held_against_the_sums_of_its_faq(tmp_path: Path) -> None:
    nih(tmp_path)
    (tmp_path / "images_001.tar.gz").write_bytes(b"\x1f\x8b not the archive")
    report = check(tmp_path)
    assert found(report) == [("truncated", "images_001.tar.gz")]
    assert report.findings[0].expected == "2008470987"


# ---- quick, resumed, in shards, repaired ----


def test_quick_reads_nothing_that_is_as_it_was_and_says_so(tmp_path: Path) -> None:
    nih(tmp_path)
    assert check(tmp_path, quick=True).files.read == 11
    check(tmp_path)
    (tmp_path / "BBox_List_2017.csv").touch()
    flip(tmp_path / IMAGE)
    report = check(tmp_path, quick=True)
    assert (report.files.read, report.files.believed) == (1, 10)
    assert found(report) == []
    assert any(sentence.startswith("the bytes of 10 files") for sentence in report.not_checked)
    assert found(check(tmp_path)) == [("altered", IMAGE)]


def test_nothing_is_held_of_parts_of_which_no_file_is_read() -> None:
    reading, files = file_checks._Queue(), pa.table({"path": ["a", "b", "c"]})
    for part in (files.slice(0, 0), files.slice(0, 1), files.slice(0, 0), files.slice(1)):
        reading.put(part)
    assert len(reading._tables) == 2
    assert reading.take(3) == files
    assert not reading._tables


def test_a_file_found_altered_is_not_believed_afterwards(tmp_path: Path) -> None:
    nih(tmp_path)
    flip(tmp_path / IMAGE)
    check(tmp_path)
    report = check(tmp_path, quick=True)
    assert found(report) == [("altered", IMAGE)]
    assert report.files.read == 1


def test_quick_does_not_believe_a_check_against_an_older_record(tmp_path: Path) -> None:
    nih(tmp_path)
    check(tmp_path)
    with Record.open(tmp_path) as record:
        old = entries_of(record)[IMAGE]
        record.add(FileEntry(IMAGE, old.size, Digest("sha256", "0" * 64)))
    assert found(check(tmp_path, quick=True)) == [("altered", IMAGE)]


@pytest.mark.parametrize("rubbish", [b"", b"PAR1 nonsense", None])
def test_a_damaged_cache_costs_a_reading_and_nothing_else(tmp_path: Path, rubbish: bytes | None) -> None:
    nih(tmp_path)
    check(tmp_path)
    checks = tmp_path / ".cxrprep" / "checks.parquet"
    if rubbish is None:
        pq.write_table(pq.read_table(tmp_path / "cxrprep.files.parquet"), checks)
    else:
        checks.write_bytes(rubbish)
    journal = tmp_path / ".cxrprep" / "checks" / "1-x-1-1.jsonl"
    journal.parent.mkdir(exist_ok=True)
    journal.write_text('{"files": [["images/00000002_000.png", "x", 1, 2, 3]]}\n{"files": 7}\n')
    report = check(tmp_path, quick=True)
    assert (found(report), report.files.read) == ([], 11)


def test_shards_together_see_every_file_once(tmp_path: Path) -> None:
    nih(tmp_path)
    (tmp_path / IMAGE).unlink()
    flip(tmp_path / TABLE)
    reports = [check(tmp_path, shard=Shard(n, 3)) for n in (1, 2, 3)]
    assert sum(report.files.here for report in reports) == 10
    assert sorted(one for report in reports for one in found(report)) == [("altered", TABLE), ("missing", IMAGE)]
    assert all("this is shard" in report.not_checked[0] for report in reports)
    assert {path.name for path in (tmp_path / "manifests").iterdir()} == {f"verify.{n}-of-3.parquet" for n in (1, 2, 3)}


def test_repair_fetches_what_is_wrong_and_looks_again(tmp_path: Path) -> None:
    nih(tmp_path)
    good = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in files(tmp_path)}
    (tmp_path / IMAGE).unlink()
    flip(tmp_path / TABLE)
    truncate(tmp_path / "test_list.txt")
    asked: list[str] = []

    def refetch(paths: list[str]) -> dict[str, str]:
        asked.extend(paths)
        for path in paths:
            if path != "test_list.txt":
                (tmp_path / path).write_bytes(good[path])
        return {"test_list.txt": "the mirror answered 404"}

    report = check(tmp_path, refetch=refetch)
    assert asked == [TABLE, IMAGE, "test_list.txt"]
    assert found(report) == [("repaired", TABLE), ("repaired", IMAGE), ("truncated", "test_list.txt")]
    assert "the mirror answered 404" in report.findings[-1].detail
    assert (report.repaired, report.exit_code, report.files.here) == (2, 4, 11)

    def again(paths: list[str]) -> dict[str, str]:
        for path in paths:
            (tmp_path / path).write_bytes(good[path])
        return {}

    assert check(tmp_path, refetch=again).exit_code == 0
    assert check(tmp_path, refetch=again).counts == {}


def test_a_file_that_comes_damaged_again_stays_damaged(tmp_path: Path) -> None:
    nih(tmp_path)
    flip(tmp_path / IMAGE)
    report = check(tmp_path, refetch=lambda paths: {})
    assert found(report) == [("altered", IMAGE)]
    assert report.exit_code == 4


def test_a_read_only_folder_is_checked_with_its_state_beside_it(tmp_path: Path) -> None:
    root, state = nih(tmp_path / "nih"), tmp_path / "state"
    before = sorted(path.relative_to(root) for path in root.rglob("*"))
    report = check(root, state=state)
    assert report.counts == {"unproven": 11}
    assert sorted(path.relative_to(root) for path in root.rglob("*")) == before
    assert (state / "manifests" / "verify.parquet").is_file()


def test_a_place_that_cannot_be_written_is_named_before_anything_is_read(tmp_path: Path) -> None:
    root = nih(tmp_path / "nih")
    (root / "manifests").write_text("in the way")
    with pytest.raises(StorageError, match="manifests"):
        check(root)


def test_a_folder_that_contains_itself_ends(tmp_path: Path) -> None:
    nih(tmp_path)
    (tmp_path / "images" / "loop").symlink_to(tmp_path)
    assert found(check(tmp_path)) == []


def test_a_linked_folder_of_images_is_followed(tmp_path: Path) -> None:
    nih(tmp_path / "nih")
    (tmp_path / "nih" / "images").rename(tmp_path / "elsewhere")
    (tmp_path / "nih" / "images").symlink_to(tmp_path / "elsewhere")
    assert found(check(tmp_path / "nih")) == []


def test_a_name_that_is_not_text_is_extra(tmp_path: Path) -> None:
    nih(tmp_path)
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.csv"))).write_bytes(b"x")
    assert found(check(tmp_path)) == [("extra", "b\\udcff.csv")]


# ---- what is told ----


def test_events_tell_totals_progress_and_faults(tmp_path: Path) -> None:
    nih(tmp_path)
    flip(tmp_path / IMAGE)
    events: list[Event] = []
    report = check(tmp_path, on_event=events.append)
    started = [event for event in events if isinstance(event, StageStarted)]
    # The totals follow once the folder is listed.
    assert [(event.items, event.size) for event in started] == [(None, None), (11, report.files.size_here)]
    assert sum(event.items for event in events if isinstance(event, Advanced)) == 11
    assert sum(event.size for event in events if isinstance(event, Advanced)) == report.files.size_here
    assert [event.key for event in events if isinstance(event, ItemFinished)] == [IMAGE]
    finished = next(event for event in events if isinstance(event, StageFinished))
    assert (finished.done, finished.failed, finished.size) == (11, 1, report.files.size_here)


def test_the_report_is_plain_json_and_a_table(tmp_path: Path) -> None:
    nih(tmp_path)
    flip(tmp_path / IMAGE)
    (tmp_path / "x.tmp").touch()
    report = check(tmp_path)
    data = json.loads(json.dumps(report.as_dict()))
    assert data["counts"] == {"altered": 1, "leftover": 1}
    assert data["findings_left_out"] == 0
    assert data["findings"][0]["hint"]
    shown = dict(report.rows())
    assert shown["verdict"] == "1 fault found: altered"
    assert shown["altered"].startswith(f"{IMAGE}: its bytes are not those that were recorded")
    assert next(label for label, _ in report.rows()[1:]) == "altered"


def test_many_findings_are_counted_in_full_and_kept_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings_table, "_KEPT", 3)
    monkeypatch.setattr(findings_table, "_ROWS", 4)
    report = check(nih(tmp_path, record=False))
    assert report.counts == {"unproven": 11}
    assert len(report.findings) == 3
    assert report.as_dict()["findings_left_out"] == 8
    assert "and 8 more" in dict(report.rows())["unproven"]
    assert pq.read_table(tmp_path / "manifests" / "verify.parquet").num_rows == 11


def test_a_record_of_sizes_only_proves_nothing(tmp_path: Path) -> None:
    nih(tmp_path)
    with Record.open(tmp_path) as record:
        record.add(FileEntry(IMAGE, (tmp_path / IMAGE).stat().st_size))
    assert found(check(tmp_path)) == [("unproven", IMAGE)]


def test_known_copies_of_a_table_need_no_record(tmp_path: Path) -> None:
    spec = nih_spec()
    nih(tmp_path, record=False)
    digest = hashlib.sha256((tmp_path / TABLE).read_bytes()).hexdigest()
    tables = tuple(replace(table, sha256=(digest,)) if table.name == TABLE else table for table in spec.table)
    report = check(tmp_path, replace(spec, table=tables))
    assert report.files.published == 1
    assert ("unproven", TABLE) not in found(report)


def test_a_file_that_failed_is_counted_once(tmp_path: Path) -> None:
    nih(tmp_path)
    flip(tmp_path / IMAGE)
    stats = StageProgress("verify")
    report = check(tmp_path, on_event=stats.add)
    assert (stats.finished, stats.failed, stats.items) == (report.files.here, 1, report.files.here)


@pytest.mark.parametrize("first", ["tables.csv", ""], ids=["tables first", "in order"])
def test_a_list_of_sums_is_read_beside_the_record_and_not_all_of_that_is_held(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"files/{number:03d}.jpg" for number in range(90)]
    listed = [*filter(None, [first]), *names, "new.jpg"]
    (tmp_path / "SHA256SUMS").write_text("".join(f"{'ab' * 32}  {name}\n" for name in listed))
    monkeypatch.setattr("cxrprep.storage.sorted_tables.PART_ROWS", 10)
    monkeypatch.setattr(published_checksums, "_ROWS", 20)
    held: list[int] = []
    upto = SortedCursor.upto

    def counted(self: SortedCursor, path: Any) -> pa.Table:
        rows = upto(self, path)
        held.append(rows.num_rows)
        return rows

    monkeypatch.setattr(SortedCursor, "upto", counted)
    placed: list[str] = []
    layout = SimpleNamespace(place=lambda name, release: placed.append(name) or name)
    known = HeldRows(pa.table({"path": pa.array(names)}))
    found = published_checksums.read_sums(tmp_path / "SHA256SUMS", layout, "1", known)
    assert sorted(name for table in found for name in table["path"].to_pylist()) == sorted(listed)
    assert sorted(placed) == sorted(set(listed) - set(names))
    assert max(held) <= 10
