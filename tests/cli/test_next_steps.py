"""What a result names as next is something that works, in the folder that it is about."""

from __future__ import annotations

import json
import shlex
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.commands import cxrprep
from tests.generators.small import mimic_cxr, nih_chestxray14

if TYPE_CHECKING:
    from pathlib import Path

CHAINS = (
    ("doctor --dataset nih-chestxray14 --source mirror", "cxrprep download nih-chestxray14 --source mirror --dry-run"),
    ("download nih-chestxray14 nih --source mirror --dry-run", "the same command without --dry-run"),
    ("download nih-chestxray14 nih --source mirror --save-plan p.json", "cxrprep download nih --from-plan p.json"),
    ("download nih-chestxray14 nih --source mirror", "cxrprep verify nih"),
    ("download nih-chestxray14 nih --source mirror --dry-run", "cxrprep status nih"),
    ("convert nih --recipe square-224 --preview 2", "cxrprep convert nih --recipe square-224"),
    ("convert nih --recipe square-224 --shard 1/2 --out part", "cxrprep status part"),
    ("extract-labels nih", "cxrprep report nih"),
    ("extract-labels nih --import mine=mine.csv", "cxrprep manifest nih --label-source mine"),
    ("extract-labels nih --import mine=mine.csv", "cxrprep report nih"),
    ("report nih", "open nih/manifests/report.html in a browser"),
    ("export nih --format csv", "cxrprep verify nih/export/csv"),
    ("export nih --format csv --out 'my table.csv'", "read my table.README.md"),
    ("duplicates nih", "cxrprep report nih"),
    ("digest nih --split test", "with the same options: cxrprep prove"),
    ("pairs mimic", "cxrprep export mimic --format webdataset --text findings,impression --paired"),
    ("pairs mimic --out 'my pairs.parquet'", "--pairs 'my pairs.parquet'"),
    ("extract-labels mimic --reports", "cxrprep manifest mimic --label-source cxrprep"),
    ("config init 'a job.toml' --dataset nih --source mirror", "cxrprep config check 'a job.toml'"),
    ("config check 'a job.toml'", "cxrprep run 'a job.toml' --dry-run"),
    ("run 'a job.toml' --dry-run", "the same command without --dry-run"),
    ("run 'a job.toml'", "cxrprep status nih-chestxray14"),
    ("datasets new ward.toml 'a ward'", "cxrprep datasets check ward.toml 'a ward'"),
    ("datasets check ward.toml 'a ward'", "cxrprep extract-labels 'a ward' --dataset ward.toml"),
    ("extract-labels 'a ward' --dataset ward.toml", "cxrprep convert 'a ward' --dataset ward.toml --recipe square-224"),
    ("datasets new own/ward.toml 'a ward'", "cxrprep datasets check own/ward.toml 'a ward'"),
    ("extract-labels 'a ward' --catalog own", "cxrprep report 'a ward' --catalog own"),
    ("manifest 'a ward' --dataset ward.toml", "cxrprep report 'a ward' --dataset ward.toml"),
    ("status 'a ward' --catalog own", "cxrprep verify 'a ward' --catalog own"),
    ("verify 'a ward' --dataset ward.toml", "cxrprep report 'a ward' --dataset ward.toml"),
    ("convert 'a ward' --catalog own --recipe square-224", "cxrprep verify 'a ward/derived/square-224'"),
    ("download ward.toml 'new ward' --source 'a ward' --dry-run", "the same command without --dry-run"),
    ("download ward.toml 'new ward' --source 'a ward' --save-plan w.json", "ward.toml 'new ward' --from-plan w.json"),
    ("download ward.toml 'new ward' --source 'a ward'", "cxrprep verify 'new ward' --dataset ward.toml"),
)  # fmt: skip


def next_steps(said: str) -> list[str]:
    marks = ("→ ", "next: ")
    return [line.strip() for line in said.splitlines() if line.lstrip().startswith(marks)]


def test_every_result_says_what_is_next_and_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nih_chestxray14.write(tmp_path / "mirror")
    mimic_cxr.write(tmp_path / "mimic")
    (tmp_path / "mine.csv").write_text("image_id,Edema\n00000001_000,1\n")
    rows = [f"{path.name},{path.name[:8]},train,1" for path in sorted((tmp_path / "mirror/images").iterdir())]
    (tmp_path / "a ward").mkdir()
    (tmp_path / "own").mkdir()
    for path in (tmp_path / "mirror/images").iterdir():
        shutil.copy(path, tmp_path / "a ward")
    (tmp_path / "a ward/labels.csv").write_text("\n".join(["image,patient,split,Edema", *rows]))
    assert cxrprep("manifest", "mimic").returncode == 0
    for words, expected in CHAINS:
        done = cxrprep(*shlex.split(words))
        assert done.returncode == 0, (words, done.stderr)
        named = next_steps(done.stdout + done.stderr)
        assert any(expected in step for step in named), (words, named)
        for step in named:
            options = ("--split", "test") if words.startswith("digest") else ()
            _, cxr, command = step.partition("cxrprep ")
            after = cxrprep(*shlex.split(command), *options) if cxr else done
            assert after.returncode == 0, (words, step, after.stderr)


def test_a_folder_of_another_level_is_said_with_the_one_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nih_chestxray14.write(tmp_path / "mirror")
    assert cxrprep("download", "nih-chestxray14", "my nih", "--source", "mirror").returncode == 0
    meant = "is a part of the dataset in {}: did you mean cxrprep {} {}?"
    for verb in ("verify", "status", "extract-labels"):
        assert meant.format("my nih", verb, "'my nih'") in cxrprep(verb, "my nih/images").stderr, verb
    monkeypatch.chdir(tmp_path / "my nih" / "images")
    assert meant.format("..", "status", "'..'") in cxrprep("status", ".").stderr.replace(str(tmp_path / "my nih"), "..")
    monkeypatch.chdir(tmp_path)
    assert "is a part of" not in cxrprep("verify", "my nih").stderr
    # Converted images are no part of the originals, though their table is gone.
    assert cxrprep("convert", "my nih", "--recipe", "square-224").returncode == 0
    (tmp_path / "my nih/derived/square-224/manifests/images.parquet").unlink()
    for folder in ("my nih/derived/square-224", "my nih/images/../derived/square-224"):
        done = cxrprep("status", folder)
        assert (done.returncode, "is a part of" in done.stderr) == (4, False), done
    done = cxrprep("verify", "my nih/cxrprep.lock")
    assert (done.returncode, "is a file, not a folder" in done.stderr) == (2, True)


@pytest.mark.parametrize("named", ["--catalog own", "--dataset own/ward.toml"])
def test_what_makes_converted_images_of_one_s_own_dataset_again_names_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    nih_chestxray14.write(tmp_path / "mirror")
    for path in (*tmp_path.glob("mirror/*.csv"), *tmp_path.glob("mirror/*.txt")):
        path.unlink()
    names = sorted(path.name for path in (tmp_path / "mirror/images").iterdir())
    (tmp_path / "mirror/labels.csv").write_text("\n".join(["image,Edema", *(f"{name},1" for name in names)]))
    (tmp_path / "own").mkdir()
    for words in (
        "datasets new own/ward.toml mirror", "download own/ward.toml new --source mirror",
        "convert new --catalog own --recipe square-224",
    ):  # fmt: skip
        assert cxrprep(*words.split()).returncode == 0, words
    image = next((tmp_path / "new/derived/square-224").rglob("*.png"))
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    done = cxrprep("verify", "new/derived/square-224", *named.split(), "--json")
    hint = next(found["hint"] for found in json.loads(done.stdout)["findings"] if image.name in found["path"])
    command = f"{tmp_path / 'new'} {named} --recipe square-224"
    assert hint == f"remove it, then: cxrprep convert {command}"
    image.unlink()
    assert cxrprep("convert", *command.split()).returncode == 0
    assert cxrprep("verify", "new/derived/square-224").returncode == 0
