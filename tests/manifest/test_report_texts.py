"""Report text goes along with images only where it was asked for, in every form that has a place for it."""

from __future__ import annotations

import csv
import importlib
import io
import json
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.errors import UsageError
from tests.commands import cxrprep as command
from tests.manifest.made import made
from tests.parts import need

if TYPE_CHECKING:
    from pathlib import Path

SECTIONS = ("findings", "impression")


def _report(study: str) -> str:
    return f"""                                 FINAL REPORT
 INDICATION:  Cough.

 FINDINGS:

 Lungs of {study} are clear, "so to say".
 There is no effusion.

 IMPRESSION:

 Normal.
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Converted MIMIC images whose dataset has a table of pairs; one study has no report."""
    root = made("mimic-cxr-jpg", tmp_path_factory.mktemp("mimic") / "mimic")
    rows = pq.read_table(root / "manifests/images.parquet").to_pylist()
    studies = {row["study_id"]: row["patient_id"] for row in rows}
    silent = rows[0]["study_id"]
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as archive:
        for study, patient in studies.items():
            if study != silent:
                archive.writestr(f"files/p{patient[:2]}/p{patient}/s{study}.txt", _report(study))
    cxrprep.pairs(root)
    cxrprep.convert(root, recipe="square-224")
    return root / "derived" / "square-224", silent


def _said(row: dict[str, Any], silent: str, *, empty: Any = "") -> dict[str, Any]:
    """What a row of any form must have as its text."""
    if row["study_id"] == silent:
        return dict.fromkeys(SECTIONS, empty)
    lungs = f'Lungs of {row["study_id"]} are clear, "so to say".\n There is no effusion.'
    return {"findings": lungs, "impression": "Normal."}


def _check(rows: list[dict[str, Any]], silent: str, *, empty: Any = "") -> None:
    assert len({row["study_id"] for row in rows}) > 1
    for row in rows:
        assert {name: row[name] for name in SECTIONS} == _said(row, silent, empty=empty)


def test_nothing_has_text_unless_it_was_asked_for(folder: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = folder
    for form in ("csv", "hf", "webdataset"):
        cxrprep.export(root, form=form, out=tmp_path / form)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"so to say" not in path.read_bytes(), path
    assert cxrprep.load(root).texts == ()


def test_csv(folder: tuple[Path, str], tmp_path: Path) -> None:
    root, silent = folder
    events: list[Any] = []
    cxrprep.export(root, form="csv", out=tmp_path, text="impression,Findings", on_event=events.append)
    with (tmp_path / "images.csv").open(newline="") as file:
        _check(list(csv.DictReader(file)), silent)
    assert "Sections: findings, impression." in (tmp_path / "README.md").read_text()
    assert any("report text, which is under" in getattr(event, "message", "") for event in events)


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face(folder: tuple[Path, str], tmp_path: Path, streaming: bool) -> None:
    datasets = importlib.import_module(need("datasets"))
    root, silent = folder
    cxrprep.export(root, form="hf", out=tmp_path / "hf", text=SECTIONS)
    held = datasets.load_dataset(str(tmp_path / "hf"), streaming=streaming, cache_dir=str(tmp_path / "cache"))
    rows = [row for split in held.values() for row in split.remove_columns("image")]
    _check(rows, silent, empty=None)
    assert len(rows) == len(cxrprep.load(root))


def test_webdataset(folder: tuple[Path, str], tmp_path: Path) -> None:
    datasets = importlib.import_module(need("datasets"))
    root, silent = folder
    cxrprep.export(root, form="webdataset", out=tmp_path / "wds", text=SECTIONS)
    held = datasets.load_dataset(str(tmp_path / "wds"), cache_dir=str(tmp_path / "cache"))
    _check([row["json"] for split in held.values() for row in split], silent)


def test_torch_items_have_the_sections(folder: tuple[Path, str]) -> None:
    need("torch")
    root, silent = folder
    data = cxrprep.load(root, text=SECTIONS)
    studies = data.stated.column("study_id").to_pylist()
    _check([{**item, "study_id": study} for item, study in zip(data.torch(), studies, strict=True)], silent)


def test_only_pairs_and_a_file_of_pairs(folder: tuple[Path, str], tmp_path: Path) -> None:
    root, silent = folder
    studies = cxrprep.load(root).stated.column("study_id").to_pylist()
    paired = cxrprep.load(root, text="findings", paired=True)
    assert paired.stated.column("study_id").to_pylist() == [study for study in studies if study != silent]
    named = tmp_path / "pairs.parquet"
    cxrprep.pairs(root.parent.parent, out=named, per="image", text="one-blank")
    text = cxrprep.load(root, text="findings", pairs=named, paired=True).stated.column("text_findings")
    assert all("\n" not in words for words in text.to_pylist())
    assert len(text) == len(paired)


def test_the_digest_knows_the_text(folder: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = folder
    digests = {text: cxrprep.digest(root, text=text).value.value for text in ("", "findings", "findings,impression")}
    assert len(set(digests.values())) == 3
    assert cxrprep.digest(root, text=["impression", "findings"]).value.value == digests["findings,impression"]
    cxrprep.pairs(root.parent.parent, out=tmp_path / "p.parquet", text="one-blank")
    assert cxrprep.digest(root, text="findings", pairs=tmp_path / "p.parquet").value.value == digests["findings"]
    done = command("prove", digests["findings"], root, "--text", "findings", "-q")
    assert (done.returncode, command("prove", digests["findings"], root, "-q").returncode) == (0, 4)
    cxrprep.export(root, form="csv", out=tmp_path / "e", text="findings")
    assert digests["findings"] in (tmp_path / "e" / "README.md").read_text()


def test_what_is_wrong_is_said_with_the_next_step(folder: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = folder
    with pytest.raises(UsageError, match="unknown section 'finding'") as caught:
        cxrprep.load(root, text="finding")
    assert "findings" in caught.value.hint
    with pytest.raises(UsageError, match="which sections"):
        cxrprep.load(root, paired=True)
    for form in ("coco", "original"):
        with pytest.raises(UsageError, match="no place for report text"):
            cxrprep.export(root, form=form, out=tmp_path / form, text="findings")
    nih = made("nih-chestxray14", tmp_path / "nih")
    done = command("export", nih, "--format", "csv", "--text", "findings")
    assert (done.returncode, "cxrprep pairs" in done.stderr) == (2, True)
    with pytest.raises(UsageError, match="is not a table of pairs"):
        cxrprep.load(root, text="findings", pairs=root / "manifests" / "images.parquet")


def test_the_command(folder: tuple[Path, str], tmp_path: Path) -> None:
    root, silent = folder
    words = ("--format", "webdataset", "--text", "findings,impression", "--paired", "--out", tmp_path / "out", "-q")
    assert command("export", root, *words).returncode == 0
    found = []
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as archive:
            found += [json.load(io.BytesIO(archive.extractfile(m).read())) for m in archive if m.name.endswith("json")]
    _check(found, silent)
    assert silent not in {row["study_id"] for row in found}
