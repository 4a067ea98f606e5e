"""A disk that is full in the middle of a verb: exit 7, nothing of what was known is gone, and nothing lies about."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cxrprep.errors import StorageError
from tests.commands import cxrprep, ok
from tests.manifest.made import made
from tests.sample import some_of_each


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing beyond that fails as on a full disk, with an error of the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("chexpert", tmp_path_factory.mktemp("chexpert"))


VERBS = [
    ("verify",), ("manifest", "--split-by", "patient"), ("extract-labels", "--strict-source"), ("duplicates",),
    ("extract-labels", "--import", "theirs=theirs.csv"), ("export", "--format", "csv"), ("report",),
    ("extract-labels", "--reports", "reports.csv", "--evidence"), ("convert", "--recipe", "square-224"),
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_full_disk(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root, tmp_path / "root")
    (tmp_path / "reports.csv").write_text("study_id,report\nx,IMPRESSION: Edema.\n")
    (tmp_path / "theirs.csv").write_text("study_id,Edema\nx,1\n")
    tables = {path: path.read_bytes() for path in tmp_path.glob("root/manifests/*.parquet")}
    words = (verb[0], "root", *verb[1:])
    with files_of_at_most(0):
        done = cxrprep(*words)
    assert done.returncode == 7, done
    assert {path: path.read_bytes() for path in tables} == tables
    left = [path.name for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".before", ".part")]
    assert [*left, *(path.name for path in tmp_path.rglob("saving"))] == []
    # The hint: with room again it works at once.
    ok(*words)


@pytest.mark.parametrize("code", [0, 7])
@pytest.mark.parametrize("verb", VERBS[:3] + VERBS[-1:], ids=" ".join)
def test_a_file_system_that_is_not_asked_to_sync(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], code: int
) -> None:
    """Shared folders and some of FUSE refuse ``fsync``: what they were given is as safe as they make it."""
    shutil.copytree(root, tmp_path / "root")
    number = errno.EIO if code else errno.EINVAL

    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", refuse)
    done = cxrprep(verb[0], tmp_path / "root", *verb[1:])
    assert done.returncode == code, done


@pytest.mark.parametrize("verb", ["manifest", "extract-labels"])
@pytest.mark.parametrize(
    "at", ["cxrprep.manifest.dataset_card.write_card_beside", "cxrprep.manifest.croissant.write_croissant"]
)
def test_what_describes_the_tables_is_of_them_though_a_run_ended_before_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, at: str
) -> None:
    """The next run found the tables current, and left the card and the description of those before."""
    words = ("--split-by", "patient", "--uncertain", "ones")
    for name in ("one", "two"):
        shutil.copytree(root, tmp_path / name)
        ok(verb, tmp_path / name)

    def full(*_: object) -> None:
        raise StorageError("no space left", hint="free space")

    with monkeypatch.context() as disk:
        disk.setattr(at, full)
        assert cxrprep(verb, tmp_path / "one", *words).returncode == 7
    for name in ("one", "two"):
        ok(verb, tmp_path / name, *words)
    for name in ("README.md", "croissant.json", "images.parquet", "studies.parquet"):
        one, two = ((tmp_path / place / "manifests" / name).read_bytes() for place in ("one", "two"))
        assert one == two, name
    ok("verify", tmp_path / "one")


@pytest.mark.parametrize(
    ("verb", "number"), some_of_each([*VERBS, ("digest",), ("status",)], [errno.EIO, errno.ESTALE], one_in=2)
)
def test_a_share_that_fails_is_said_and_is_no_bug(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], number: int
) -> None:
    """From some question on each one about a file of the folder fails, as where an NFS server has lost it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root, tmp_path / "root")
    (tmp_path / "reports.csv").write_text("study_id,report\nx,IMPRESSION: Edema.\n")
    (tmp_path / "theirs.csv").write_text("study_id,Edema\nx,1\n")
    tables = {path: path.read_bytes() for path in tmp_path.glob("root/manifests/*.parquet")}
    ask, asked = os.stat, 0

    def stale(path: os.PathLike[str] | str | int, *more: object, **named: object) -> os.stat_result:
        nonlocal asked
        asked += str(path).startswith("root")
        if asked > answered and str(path).startswith("root"):
            raise OSError(number, os.strerror(number), str(path))
        return ask(path, *more, **named)  # type: ignore[arg-type]

    for answered in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55):
        asked = 0
        with monkeypatch.context() as share:
            share.setattr(os, "stat", stale)
            done = cxrprep(verb[0], "root", *verb[1:])
        assert done.returncode in (0, 2, 4, 7), (answered, done)
        assert "bug in cxrprep" not in done.stderr, (answered, done)
        assert done.returncode != 7 or "disk or share fails" in done.stderr, (answered, done)
        assert {path: path.read_bytes() for path in tables} == tables or not done.returncode
    ok(verb[0], "root", *verb[1:])
