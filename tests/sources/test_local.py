"""A folder of this machine as a source: a lab's copy as it is, with its links, its sums, and what is ours left out."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxrprep import checksum_files
from cxrprep.errors import AccessError, NotInSourceError, SourceUnreachableError, UsageError
from cxrprep.model import Digest, RemoteFile
from cxrprep.sources import open_source
from cxrprep.sources.base import SourceOptions
from cxrprep.sources.local import LocalSource
from tests.sources.contract import content, digest_of


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def keys(source: LocalSource | object) -> list[str]:
    assert isinstance(source, LocalSource)
    return [file.key for file in source.list()]


@pytest.mark.parametrize("spelling", ["{}", "file://{}", "file://localhost{}", "{}/"])
def test_a_folder_in_every_spelling(tmp_path: Path, spelling: str) -> None:
    root = write(tmp_path / "a copy", {"images/1.png": b"1", "b.csv": b"2"})
    text = str(root) if "://" not in spelling else root.as_uri().removeprefix("file://")
    assert keys(open_source(spelling.format(text), SourceOptions())) == ["b.csv", "images/1.png"]


def test_one_file_is_a_source_of_itself(tmp_path: Path) -> None:
    root = write(tmp_path, {"CheXpert-v1.0-small.zip": b"zip", "other": b""})
    source = open_source(str(root / "CheXpert-v1.0-small.zip"), SourceOptions())
    (file,) = source.list()
    assert (file.key, file.size) == ("CheXpert-v1.0-small.zip", 3)
    assert content(source.open(file)) == b"zip"


def test_sums_in_the_folder_lend_their_digests(tmp_path: Path) -> None:
    root = write(tmp_path, {"files/a.dcm": b"a", "b.csv": b"b"})
    (root / "SHA256SUMS.txt").write_text(f"{digest_of(b'a', 'sha256')} files/a.dcm\n")
    files = {file.key: file for file in open_source(str(root), SourceOptions()).list()}
    assert files["files/a.dcm"].digest == Digest("sha256", digest_of(b"a", "sha256"))
    assert files["b.csv"].digest is None


@pytest.mark.parametrize("held", [3, 1000])
def test_long_lists_of_sums_in_any_order_lend_their_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    names = ["a.png", "a/1.png", "a-b.png", "a/b/2.png", "a/b.png", "z.png", "Z.png", "é.png", "unlisted.png"]
    root = write(tmp_path, {name: name.encode() for name in names})
    sums = [f"{digest_of(name.encode(), 'sha256')}  {name}" for name in names[:-1]]
    random.Random(2).shuffle(sums)
    # Of a file that is named twice the last line counts; a name that is not here is passed over.
    (root / "SHA256SUMS").write_text("\n".join([f"{'0' * 64}  a/b.png", f"{'1' * 64}  gone.png", *sums]) + "\n")
    monkeypatch.setattr(checksum_files, "_HELD", held)
    files = {file.key: file.digest for file in open_source(str(root), SourceOptions()).list()}
    assert list(files) == sorted(files)
    due = {name: Digest("sha256", digest_of(name.encode(), "sha256")) for name in names[:-1]}
    assert files == {**due, "unlisted.png": None, "SHA256SUMS": None}


def test_what_cxrprep_made_is_no_part_of_the_release(tmp_path: Path) -> None:
    made = {"cxrprep.lock": b"", "cxrprep.files.parquet": b"", "manifests/images.parquet": b"", "derived/r/1.png": b"",
            ".cxrprep/parts/x": b""}  # fmt: skip
    root = write(tmp_path, {"images/1.png": b"1", **made})
    assert keys(open_source(str(root), SourceOptions())) == ["images/1.png"]
    inside = {f"small/{name}": data for name, data in {"images/1.png": b"1", **made}.items()}
    around = write(tmp_path / "around", inside)
    assert keys(open_source(str(around), SourceOptions())) == ["small/images/1.png"], "one of ours inside"
    foreign = write(tmp_path / "another", {"derived/1.png": b"1"})
    assert keys(open_source(str(foreign), SourceOptions())) == ["derived/1.png"], "in a folder of others it is theirs"


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    store = write(tmp_path / "store", {"1.png": b"1"})
    root = write(tmp_path / "root", {"2.png": b"2"})
    (root / "images").symlink_to(store)
    (root / "again").symlink_to(root)
    (root / "images" / "up").symlink_to(root)
    (root / "self.png").symlink_to(root / "self.png")
    (root / "nowhere.png").symlink_to(tmp_path / "gone")
    (root / "twice").symlink_to(store)
    assert keys(open_source(str(root), SourceOptions())) == ["2.png", "images/1.png", "twice/1.png"]


def test_a_file_that_changes_is_another(tmp_path: Path) -> None:
    root = write(tmp_path, {"a.png": b"old"})
    source = open_source(str(root), SourceOptions())
    before = next(iter(source.list()))
    os.utime(root / "a.png", ns=(1, 1))
    with source.open(before) as stream:
        assert stream.validator != before.validator


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    root = write(tmp_path, {"a.png": bytes(100)})
    source = open_source(str(root), SourceOptions())
    stream = source.open(RemoteFile("a.png"))
    (root / "a.png").write_bytes(b"")
    with pytest.raises(SourceUnreachableError, match="became shorter"):
        content(stream)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        open_source(str(tmp_path / "nothing"), SourceOptions())
    with pytest.raises(UsageError, match="names no host"):
        open_source("file://server/share", SourceOptions())
    with pytest.raises(NotInSourceError):
        open_source(str(tmp_path), SourceOptions()).open(RemoteFile("a.png"))


@pytest.fixture
def somebody(tmp_path: Path) -> Iterator[Path]:
    """A folder that anybody may enter, for whom root's rights to read everything are taken from."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        before = os.geteuid()
        yield Path(folder)
        os.seteuid(before)


def _without_rights() -> None:
    if os.geteuid() == 0:
        os.seteuid(65_534)


def test_a_folder_that_may_not_be_read_is_left_out_and_said(somebody: Path) -> None:
    """As ``lost+found`` at the top of a disk."""
    root = write(somebody, {"lost+found/x": b"1", "files/a.png": b"1", "files/shut/b.png": b"2", "c.png": b"3"})
    for folder in ("lost+found", "files/shut"):
        (root / folder).chmod(0)
    _without_rights()
    source = open_source(str(root), SourceOptions())
    assert [*keys(source)] == ["c.png", "files/a.png"]
    assert [hole.message.partition(":")[0] for hole in source.holes] == ["files/shut/", "lost+found/"]  # type: ignore[attr-defined]  # of LocalSource


def test_where_nothing_may_be_read_the_reason_is_the_error(somebody: Path) -> None:
    root = write(somebody, {"closed/a.png": b"1"})
    (root / "closed").chmod(0)
    _without_rights()
    with pytest.raises(AccessError, match="closed may not be read"):
        keys(open_source(str(root), SourceOptions()))
