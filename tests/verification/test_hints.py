"""Every hint of verify is followed, and the finding goes: of each kind there is a case here, or the reason for none."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from cxrprep.verification.finding import Kind
from tests.collection.commands import cxrprep
from tests.collection.worlds import in_this_process
from tests.generators.small import nih_chestxray14

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE, OTHER = "images/00000001_000.png", "images/00000002_000.png"
TABLE, TEST_LIST, TRAIN_LIST = "Data_Entry_2017_v2020.csv", "test_list.txt", "train_val_list.txt"

NO_CASE = {
    Kind.UPSTREAM_MISMATCH: "known files of two mirrors; docs/howto/troubleshooting.md has the command",
    Kind.UNCHECKED: "a file that may not be read: root may read all; tests/verification/test_bytes.py",
    Kind.REPAIRED: "nothing to do",
    Kind.WRONG_SIZE: "it asks a question: is it a converted copy?",
    Kind.WRONG_MODE: "it asks a question",
    Kind.WRONG_DEPTH: "it asks a question",
    Kind.DOUBTFUL: "a person looks at it",
    Kind.DUPLICATE_PIXELS: "a person decides which one stays",
    Kind.ROW_WITHOUT_IMAGE: "nothing to do: a part is normal",
    Kind.IMAGE_WITHOUT_ROW: "nothing to do: it gets no labels",
    Kind.DUPLICATE_ROWS: "the hint of an unreadable table",
    Kind.FACT: "the hint of an unreadable table; totals of the whole release are judged",
    Kind.NO_PIXELS: "the hint of an undecodable image",
    Kind.OUTDATED: "tests/verification/test_made_folders.py",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hints")
    nih_chestxray14.write(folder / "mirror")
    ok("download", "nih-chestxray14", folder / "root", "--source", folder / "mirror")
    return folder


def ok(*words: object) -> str:
    with in_this_process():
        done = cxrprep(*words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def as_it_came(path: Path, change: Callable[[Path], object]) -> Callable[[Path], None]:
    """The mirror's copy was wrong when the folder was made, and is right by now."""

    def damage(home: Path) -> None:
        good = (home / "mirror" / path).read_bytes()
        change(home / "mirror" / path)
        shutil.rmtree(home / "root")
        ok("download", "nih-chestxray14", home / "root", "--source", home / "mirror")
        (home / "mirror" / path).write_bytes(good)

    return damage


def here(change: Callable[[Path], object], path: str = IMAGE) -> Callable[[Path], None]:
    return lambda home: change(home / "root" / path)


def leak(home: Path) -> None:
    """An image of a patient with several goes from one list of the mirror to the other, until it is mended."""
    lists = [home / "mirror" / name for name in (TRAIN_LIST, TEST_LIST)]
    good = [path.read_text() for path in lists]
    names = good[0].splitlines()
    moved = next(name for name in names if sum(other[:8] == name[:8] for other in names) > 1)
    lists[0].write_text(good[0].replace(f"{moved}\n", ""))
    lists[1].write_text(f"{moved}\n{good[1]}")
    shutil.rmtree(home / "root")
    ok("download", "nih-chestxray14", home / "root", "--source", home / "mirror")
    for path, text in zip(lists, good, strict=True):
        path.write_text(text)


def no_record(home: Path) -> None:
    for name in ("cxrprep.lock", "cxrprep.files.parquet"):
        (home / "root" / name).unlink()


def blank(path: Path) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(path), np.zeros((1024, 1024), np.uint8))


CASES: dict[Kind, Callable[[Path], object]] = {
    Kind.MISSING: here(lambda path: path.unlink()),
    Kind.TRUNCATED: here(cut),
    Kind.ALTERED: here(flip),
    Kind.ZERO_BYTE: here(empty),
    Kind.UNPROVEN: no_record,
    Kind.EXTRA: lambda home: (home / "root/notes.bin").write_bytes(b"x"),
    Kind.LEFTOVER: lambda home: (home / "root/Thumbs.db").write_bytes(b"x"),
    Kind.UNFINISHED: lambda home: (home / "root/images/00000001_000.png.part").write_bytes(b"x"),
    Kind.CUT_SHORT: as_it_came(IMAGE, lambda path: path.write_bytes(path.read_bytes()[:-200])),
    Kind.UNDECODABLE: as_it_came(IMAGE, lambda path: path.write_bytes(b"no image at all" * 40)),
    Kind.WRONG_FORMAT: as_it_came(IMAGE, lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 400)),
    Kind.CONSTANT: as_it_came(IMAGE, blank),
    Kind.TABLE: as_it_came(TABLE, lambda path: path.write_text(path.read_text().replace("Finding", "Fnding"))),
    Kind.LEAKAGE: leak,
}


def verified(root: Path) -> dict[str, Any]:
    with in_this_process():
        done = cxrprep("verify", root, "--images", "--json")
    return json.loads(done.stdout)


def ways(hint: str) -> list[str]:
    """The commands of a hint, each of which is to mend what it was for; ``remove`` where that is all."""
    found = [text.strip() for text in re.findall(r"(?<=: )cxrprep [^;]+", hint)]
    return found or ["remove" if re.search("removed|move it out", hint) else hint]


@pytest.mark.parametrize("kind", list(CASES))
def test_a_hint_mends_what_it_is_for(made: Path, tmp_path: Path, kind: Kind) -> None:
    home = tmp_path / "home"

    def damaged() -> dict[str, Any]:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(made, home)
        # The record names the mirror where it lay when the folder was made.
        lock = home / "root/cxrprep.lock"
        lock.write_text(lock.read_text().replace(str(made), str(home)))
        CASES[kind](home)
        report = verified(home / "root")
        assert kind in {one["finding"] for one in report["findings"]}, report
        return report

    one = next(found for found in damaged()["findings"] if found["finding"] == kind)
    for number, command in enumerate(ways(one["hint"])):
        if number:
            damaged()
        if command == "remove":
            (home / "root" / one["path"]).unlink()
        else:
            ok(*shlex.split(command)[1:])
        left = [found for found in verified(home / "root")["findings"] if found["finding"] == kind]
        assert not left, (command, left)


def test_of_each_kind_there_is_a_case_or_a_reason() -> None:
    assert set(CASES) | set(NO_CASE) == set(Kind)
