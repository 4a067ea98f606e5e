"""Each public name has an example in its docstring, which does what it shows."""

from __future__ import annotations

import doctest
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import cxrprep
from tests.integration.mirrors import phantom
from tests.manifest.made import made
from tests.manifest.test_pairs import TEXT

NAMES = [name for name in cxrprep.__all__ if name != "__version__"]
JOB = 'dataset = "nih-chestxray14"\nroot = "nih"\n[download]\nsource = "mirror"\n[convert]\nrecipe = "square-224"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples stand in: a mirror of five images, a folder made of it, a job file, and MIMIC-CXR's reports."""
    folder = tmp_path_factory.mktemp("examples")
    phantom(folder / "mirror", patients=4, size=64)
    (folder / "job.toml").write_text(JOB)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cxrprep.download("nih-chestxray14", "nih", source="mirror")
        cxrprep.verify("nih")
        cxrprep.extract_labels("nih")
        cxrprep.convert("nih", recipe="square-224")
    name = pq.read_table(folder / "nih/manifests/images.parquet", columns=["image_id"]).column(0)[0]
    (folder / "chexbert.csv").write_text(f"image_id,Edema\n{name},1\n")
    mimic = made("mimic-cxr-jpg", folder / "mimic")
    rows = pq.read_table(mimic / "manifests/images.parquet", columns=["patient_id", "study_id"]).to_pylist()
    with zipfile.ZipFile(mimic / "mimic-cxr-reports.zip", "w") as archive:
        for patient, study in sorted({(row["patient_id"], row["study_id"]) for row in rows}):
            archive.writestr(f"files/p{patient[:2]}/p{patient}/s{study}.txt", TEXT)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name_does_what_it_shows(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    shown = getattr(cxrprep, name).__doc__ or ""
    assert "Examples:" in shown
    examples = doctest.DocTestParser().get_doctest(shown, {}, name, None, None)
    assert examples.examples
    said: list[str] = []
    failed = doctest.DocTestRunner().run(examples, out=said.append).failed
    assert not failed, "".join(said)
