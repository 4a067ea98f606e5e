"""Every hint of verify is followed, and the finding goes: of each kind there is a case here, or the reason for none."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from cxrprep.verification.finding import Kind
from tests.commands import cxrprep, ok
from tests.generators.small import mimic_cxr, nih_chestxray14

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE, OTHER = "images/00000001_000.png", "images/00000002_000.png"
TABLE, BOXES = "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"
TEST_LIST, TRAIN_LIST = "test_list.txt", "train_val_list.txt"

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
    Kind.DUPLICATE_ROWS: "each reader refuses a second row first: it has the hint of an unreadable table",
    Kind.OUTDATED: "tests/verification/test_made_folders.py",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hints")
    nih_chestxray14.write(folder / "mirror")
    mimic_cxr.write(folder / "dicom-mirror")
    for name in ("root", "dicom"):
        fetch(folder, name)
    return folder


def fetch(home: Path, name: str = "root") -> None:
    shutil.rmtree(home / name, ignore_errors=True)
    dataset, mirror = {"root": ("nih-chestxray14", "mirror"), "dicom": ("mimic-cxr", "dicom-mirror")}[name]
    ok("download", dataset, home / name, "--source", home / mirror)


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
        fetch(home)
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
    fetch(home)
    for path, text in zip(lists, good, strict=True):
        path.write_text(text)


def no_record(home: Path) -> None:
    for name in ("cxrprep.lock", "cxrprep.files.parquet"):
        (home / "root" / name).unlink()


def blank(path: Path) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(path), np.zeros((1024, 1024), np.uint8))


def edit(old: str, new: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(path.read_text().replace(old, new))


def twice(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    # Of another patient: a row that says all the same once more is no mistake.
    name, comma, _ = lines[-1].partition(",")
    path.write_text("".join([*lines, name, comma, lines[1].partition(",")[2]]))


def unlisted(home: Path) -> None:
    """The mirror's table and split lists named another image in the place of one, until they were mended."""
    lists = [home / "mirror" / name for name in (TABLE, TEST_LIST, TRAIN_LIST)]
    good = [path.read_bytes() for path in lists]
    for path in lists:
        edit(IMAGE[7:], f"{IMAGE[7:-5]}7.png")(path)
    fetch(home)
    for path, data in zip(lists, good, strict=True):
        path.write_bytes(data)


def no_pixels(home: Path) -> None:
    """An image of the mirror is a DICOM file that holds a header alone, until it is mended."""
    import pydicom

    path = min((home / "dicom-mirror").rglob("*.dcm"))
    good = path.read_bytes()
    header = pydicom.dcmread(path)
    del header.PixelData
    header.save_as(path)
    fetch(home, "dicom")
    path.write_bytes(good)


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
    Kind.FACT: as_it_came(BOXES, edit("512.0,500.0", "999.0,500.0")),
    Kind.IMAGE_WITHOUT_ROW: unlisted,
    Kind.NO_PIXELS: no_pixels,
}


def verified(root: Path) -> dict[str, Any]:
    return json.loads(cxrprep("verify", root, "--images", "--json").stdout)


def ways(hint: str) -> list[str]:
    """The commands of a hint, each of which is to mend what it was for; ``remove`` where that is all."""
    found = [text.strip() for text in re.findall(r"(?<=: )cxrprep [^;]+", hint)]
    return found + (["remove"] if re.search("removed|move it out", hint) else [hint][len(found) :])


@pytest.mark.parametrize(("kind", "damage"), [*CASES.items(), (Kind.TABLE, as_it_came(TABLE, twice))])
def test_a_hint_mends_what_it_is_for(made: Path, tmp_path: Path, kind: Kind, damage: Callable[[Path], object]) -> None:
    home = tmp_path / "home"
    root = home / ("dicom" if kind is Kind.NO_PIXELS else "root")

    def damaged() -> dict[str, Any]:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(made, home)
        # The record names the mirror where it lay when the folder was made.
        for lock in home.glob("*/cxrprep.lock"):
            lock.write_text(lock.read_text().replace(str(made), str(home)))
        damage(home)
        report = verified(root)
        assert kind in {one["finding"] for one in report["findings"]}, report
        return report

    one = next(found for found in damaged()["findings"] if found["finding"] == kind)
    for number, command in enumerate(ways(one["hint"])):
        if number:
            damaged()
        if command == "remove":
            (root / one["path"]).unlink()
        else:
            ok(*shlex.split(command)[1:])
        left = [found for found in verified(root)["findings"] if found["finding"] == kind]
        assert not left, (command, left)


def test_of_each_kind_there_is_a_case_or_a_reason() -> None:
    assert set(CASES) | set(NO_CASE) == set(Kind)
