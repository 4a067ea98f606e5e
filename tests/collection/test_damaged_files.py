"""One file of each kind in each kind of folder, gone, empty, cut short or with another byte: then every verb.

Each ends with a code of the list, names the file, and takes nothing else with it. All of them are played with
``CXR_ALL_DAMAGES`` set, and a few without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.collection.found_files import _fresh, files, prepared, wrong
from tests.commands import cxrprep

FOLDERS: Final = (
    "root/derived/square-224", "root/export/csv", "root/export/hf", "root/export/coco", "root", "moved", "shards",
    "own", "small",
)  # fmt: skip
VERBS: Final = (
    "status KIND", "verify KIND", "verify KIND --images", "verify KIND --quick", "report KIND", "digest KIND",
    "duplicates KIND", "extract-labels KIND", "extract-labels KIND --reports HOME/reports2.csv",
    "extract-labels KIND --import others=HOME/theirs2.csv", "manifest KIND", "manifest KIND --split-by patient",
    "convert KIND --recipe square-224 --out HOME/new", "convert HOME/root --recipe square-224 --out HOME/moved",
    "export KIND --format csv --out HOME/new", "export KIND --format webdataset --out HOME/new",
    "export HOME/root --format hf", "verify KIND --repair --source HOME/mirror",
    "download nih-chestxray14 KIND --source HOME/mirror",
)  # fmt: skip
ALONE: Final = {
    "plan.json": ("download nih-chestxray14 HOME/fresh --from-plan HOME/plan.json",),
    "job.toml": ("config check HOME/job.toml", "run HOME/job.toml --dry-run"),
    "recipe.toml": ("convert HOME/root --recipe HOME/recipe.toml --out HOME/new",),
    "reports1.csv": ("extract-labels HOME/root --reports HOME/reports1.csv",),
}
DAMAGES: Final[dict[str, Callable[[bytes], bytes | None]]] = {
    "gone": lambda _: None,
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a byte in the middle": lambda data: flipped(data, len(data) // 2),
    "a byte near the end": lambda data: flipped(data, max(0, len(data) - 300)),
}
USUAL: Final[dict[tuple[str, ...], int]] = {}
SOME: Final = [
    ("root/cxrprep.files.parquet", "a byte in the middle", "manifest KIND"),
    ("root/cxrprep.lock", "cut", "status KIND"),
    ("root/.cxrprep/asked/*.txt", "a byte in the middle", "verify KIND"),
    ("moved/manifests/labels.parquet", "a byte near the end", "convert KIND --recipe square-224 --out HOME/new"),
    ("shards/*.tar", "a byte in the middle", "verify KIND"),
    ("plan.json", "cut", ALONE["plan.json"][0]),
]  # fmt: skip


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if data else b"\1"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with prepared(tmp_path_factory.mktemp("world")) as home:
        yield home


def folder_of(name: str) -> str:
    return next((folder for folder in FOLDERS if name.startswith(f"{folder}/")), "")


def every(good: Path) -> Iterator[tuple[str, str, str]]:
    """Of images and shards of a folder the first one."""
    seen = set()
    for path in files(good):
        name = path.relative_to(good).as_posix()
        folder = folder_of(name)
        kind = (folder, path.suffix) if path.suffix in (".png", ".dcm", ".jpg", ".tar") else name
        verbs = VERBS if folder else ALONE.get(name, ())
        if kind not in seen:
            seen.add(kind)
            yield from ((name, damage, verb) for damage in DAMAGES for verb in verbs)


def damaged(good: Path, home: Path, name: str, damage: str, verb: str) -> str:
    """What is wrong with the answer of a verb after the damage."""
    put = {"KIND": f"{home}/{folder_of(name)}", "HOME": str(home)}
    words = tuple(word.replace("HOME", put["HOME"]) if word != "KIND" else put["KIND"] for word in verb.split())
    if words not in USUAL:
        _fresh(good, home)
        USUAL[words] = cxrprep(*words).returncode
    _fresh(good, home)
    path = next(home.glob(name))
    after = DAMAGES[damage](path.read_bytes())
    path.unlink()
    if after is not None:
        path.write_bytes(after)
    return wrong(home, path, words, USUAL[words])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage", "verb"), SOME)
def test_a_damaged_file_is_named_and_takes_nothing_with_it(
    good: Path, tmp_path: Path, name: str, damage: str, verb: str
) -> None:
    assert damaged(good, tmp_path / "home", name, damage, verb) == ""


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("CXR_ALL_DAMAGES"), reason="an hour or two; CXR_ALL_DAMAGES=1 plays it")
@pytest.mark.timeout(0)
def test_every_file_of_every_folder(good: Path, tmp_path: Path) -> None:
    found = [(*case, what) for case in every(good) if (what := damaged(good, tmp_path / "home", *case))]
    assert found == []
