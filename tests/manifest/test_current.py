"""A download that had nothing to do makes the manifest again where something differs, and leaves it else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.api import download
from cxrprep.errors import UsageError
from tests.generators.small import nih_chestxray14
from tests.sample import some


@pytest.fixture
def release(tmp_path: Path) -> tuple[Path, Path]:
    """The folder of a mirror, and one that was downloaded from it, with its manifest."""
    source, root = tmp_path / "source", tmp_path / "nih"
    nih_chestxray14.write(source)
    cxrprep.download("nih-chestxray14", root, source=str(source))
    cxrprep.extract_labels(root)
    return source, root


def rebuilt(source: Path, root: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    """How often a download made the manifest."""
    made: list[object] = []
    again = download.rebuild_manifest
    with monkeypatch.context() as patch:
        patch.setattr(download, "rebuild_manifest", lambda *words, **more: made.append(again(*words, **more)))
        cxrprep.download("nih-chestxray14", root, source=str(source), **options)
    return len(made)


def image(root: Path, number: int = 0) -> Path:
    return sorted(root.rglob("*.png"))[number]


CHANGES: dict[str, Any] = {
    "an image that is not of the release": lambda root: shutil.copy(image(root), image(root).with_name("x.png")),
    "an image that went": lambda root: image(root).unlink(),
    "no studies": lambda root: (root / "manifests/studies.parquet").unlink(),
    "no card": lambda root: (root / "manifests/README.md").unlink(),
    "no labels": lambda root: (root / "manifests/labels.parquet").unlink(),
    "fewer rows": lambda root: fewer(root / "manifests/images.parquet"),
    "a damaged table": lambda root: (root / "manifests/images.parquet").write_bytes(b"PAR1"),
}


def fewer(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


def test_nothing_changed(release: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source, root = release
    # The record was written after the tables: they name what it was before, and are made once more.
    rebuilt(source, root, monkeypatch)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (root / "manifests").iterdir()}
    assert rebuilt(source, root, monkeypatch) == 0
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (root / "manifests").iterdir()} == before
    # A part of the release proves nothing of the rest.
    assert rebuilt(source, root, monkeypatch, limit=2) == 1


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_seen(change: str, release: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source, root = release
    rebuilt(source, root, monkeypatch)
    CHANGES[change](root)
    if change == "no labels":
        with pytest.raises(UsageError, match="would lose"):
            rebuilt(source, root, monkeypatch)
    else:
        assert rebuilt(source, root, monkeypatch) == 1


@pytest.mark.parametrize("change", ["", *some([name for name in CHANGES if name != "no labels"], one_in=3)])
def test_of_a_folder_that_is_adopted_where_it_lies_too(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "nih"
    nih_chestxray14.write(root)
    cxrprep.download("nih-chestxray14", root, source=str(root))
    cxrprep.extract_labels(root)
    rebuilt(root, root, monkeypatch)
    CHANGES.get(change, lambda _: None)(root)
    assert rebuilt(root, root, monkeypatch) == (1 if change else 0)


def swapped(root: Path) -> None:
    """One image went and another came: as many as before."""
    image(root).rename(image(root).with_name("00000001_009.png"))


def relabelled(root: Path) -> None:
    """Another program wrote the table, with as many rows and the same footer."""
    path = root / "manifests/images.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("label_edema")
    pq.write_table(table.set_column(place, table.schema.field(place), table.column(place).take([0] * len(table))), path)


CHANGES_FOR_CONVERT: dict[str, Any] = {
    **{name: change for name, change in CHANGES.items() if name != "no labels"},
    "one image for another": swapped,
    "another size": lambda root: image(root).write_bytes(image(root, 1).read_bytes() + b"\0"),
    "a table of another program": relabelled,
}


def test_a_conversion_leaves_the_manifest_that_is_current(release: tuple[Path, Path]) -> None:
    _, root = release
    cxrprep.convert(root, recipe="square-224", jobs=1)
    before = {path.name: path.stat().st_ino for path in (root / "manifests").iterdir()}
    again = cxrprep.convert(root, recipe="square-224", jobs=1).value
    assert (again.converted, again.kept) == (0, again.images)
    assert {path.name: path.stat().st_ino for path in (root / "manifests").iterdir()} == before


@pytest.mark.parametrize("change", some(CHANGES_FOR_CONVERT, one_in=3))
def test_a_conversion_sees_what_changed(change: str, release: tuple[Path, Path]) -> None:
    _, root = release
    cxrprep.convert(root, recipe="square-224", jobs=1)
    CHANGES_FOR_CONVERT[change](root)
    cxrprep.convert(root, recipe="square-224", jobs=1, sample=2, allow_loss=True)
    found = (root / "manifests/images.parquet").read_bytes()
    (root / "manifests/images.parquet").unlink()
    cxrprep.build_manifest(root)
    assert (root / "manifests/images.parquet").read_bytes() == found


def test_a_manifest_that_is_current_is_left(release: tuple[Path, Path]) -> None:
    _, root = release
    first, events = cxrprep.build_manifest(root).value, list[Any]()
    before = {path.name: path.stat().st_ino for path in (root / "manifests").glob("*.parquet")}
    card = (root / "manifests/README.md").read_bytes()
    (root / "manifests/README.md").write_bytes(b"other words")
    assert cxrprep.build_manifest(root, on_event=events.append).value == first
    assert [type(event).__name__ for event in events][:: len(events) - 1] == ["StageStarted", "StageFinished"]
    assert {path.name: path.stat().st_ino for path in (root / "manifests").glob("*.parquet")} == before
    assert (root / "manifests/README.md").read_bytes() == card


OTHERWISE: dict[str, Any] = {
    **{name: (change, {}) for name, change in CHANGES_FOR_CONVERT.items() if name != "no card"},
    "an image that was touched": (lambda root: image(root).touch(), {}),
    "another policy": (lambda _: None, {"uncertain": "ones", "blank": "zeros"}),
    "another split": (lambda _: None, {"split_by": "patient", "fractions": "0.5,0.25,0.25", "seed": 7}),
}


@pytest.mark.parametrize("change", OTHERWISE)
def test_a_manifest_that_would_be_another_one_is_made(change: str, release: tuple[Path, Path]) -> None:
    _, root = release
    cxrprep.build_manifest(root)
    perform, words = OTHERWISE[change]
    before = (root / "manifests/studies.parquet").stat().st_mtime_ns
    perform(root)
    cxrprep.build_manifest(root, allow_loss=True, **words)
    assert (root / "manifests/studies.parquet").stat().st_mtime_ns != before
    found = (root / "manifests/images.parquet").read_bytes()
    (root / "manifests/images.parquet").unlink()
    cxrprep.build_manifest(root, allow_loss=True, **words)
    assert (root / "manifests/images.parquet").read_bytes() == found
    if words:
        # What was chosen for once is not asked for any more.
        cxrprep.build_manifest(root, allow_loss=True)
        assert (root / "manifests/images.parquet").read_bytes() != found
