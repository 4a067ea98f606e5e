"""Every ready job file runs, on a small copy of its dataset; a second run finds everything done."""

from __future__ import annotations

import importlib
import json
import tomllib
import types
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest

from cxrprep.cli import download
from cxrprep.cli.config import template
from cxrprep.cli.context import Invocation
from cxrprep.cli.main import COMMANDS, cli, run
from cxrprep.config.job import ALL_STEPS, KEYS
from cxrprep.config.settings import load_settings
from cxrprep.datasets.catalog import catalog
from cxrprep.errors import SourceUnreachableError
from tests.commands import cxrprep
from tests.config.jobs import settings_of
from tests.manifest.made import made
from tests.sample import some

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


def write_mirror(dataset: str, folder: Path) -> Path:
    """A tiny copy of a dataset in its real layout."""
    module = importlib.import_module(f"tests.generators.small.{dataset.replace('-', '_')}")
    # NIH's images all have one size, which verify checks.
    module.write(folder, **({"size": 1024} if dataset == "nih-chestxray14" else {}))
    return folder


def done(file: Path, root: Path, mirror: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> dict[str, Any]:
    """The JSON of ``cxrprep run``, the mirror replaced by a folder, as a person tries a job file before it is used."""
    monkeypatch.setenv("CXRPREP_DOWNLOAD_SOURCE", str(mirror))
    if file.stem == "mimic-cxr":
        # The tiny copy has its frontal images in train.
        monkeypatch.setenv("CXRPREP_SELECTION_SPLIT", "train")
    capsys.readouterr()
    code = run(["run", str(file), "--root", str(root), "--json"])
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == code
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("file", some(CONFIGS, one_in=5), ids=lambda path: path.stem)
def test_a_ready_job_file_runs_and_a_second_run_finds_it_done(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tomllib.loads(file.read_text(encoding="utf-8"))
    mirror = write_mirror(job["dataset"], tmp_path / "mirror")
    first = done(file, tmp_path / "root", mirror, capsys, monkeypatch)
    assert [(s["step"], s["exit_code"], s["message"]) for s in first["steps"] if s["exit_code"]] == []
    steps = [step["step"] for step in first["steps"]]
    assert steps == list(job.get("steps", ["download", "verify", "extract-labels", "convert", "manifest"]))
    results = {step["step"]: step["result"] for step in first["steps"]}
    assert results["download"]["done"] > 0
    assert results["manifest"]["images"] > 0

    again = done(file, tmp_path / "root", mirror, capsys, monkeypatch)
    results = {step["step"]: step["result"] for step in again["steps"]}
    assert results["download"]["done"] == 0
    assert results.get("convert", {"converted": 0})["converted"] == 0


@pytest.mark.slow
def test_a_job_that_keeps_small_copies_alone_has_their_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, root = tmp_path / "job.toml", tmp_path / "root"
    file.write_text('dataset = "nih-chestxray14"\n[download]\nthen = "square-224"\ndiscard_raw = true\n')
    answer = done(file, root, write_mirror("nih-chestxray14", tmp_path / "mirror"), capsys, monkeypatch)
    assert {step["step"]: step["exit_code"] for step in answer["steps"]} == {
        "download": 0, "verify": 0, "extract-labels": 0, "convert": 0, "manifest": 0
    }  # fmt: skip
    made = pq.read_table(root / "derived/square-224/manifests/images.parquet")
    assert made.num_rows == 7
    assert made.column("label_source").null_count == 0
    # Another recipe would find no originals: said before anything is fetched.
    file.write_text(file.read_text() + '[convert]\nrecipe = "shortest-512"\n')
    assert run(["run", str(file), "--root", str(tmp_path / "other")]) == 2
    assert "discard_raw" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_every_dataset_has_a_ready_file_and_cron_and_ci_too() -> None:
    jobs = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in CONFIGS}
    covered = {job["dataset"] for job in jobs.values()}
    # The DICOM release and its JPEGs share a file that explains both.
    # One of those that a file describes stands for all of them.
    described = {name for name, spec in catalog().items() if spec.module == "declared"}
    assert covered | {"mimic-cxr"} | described == set(catalog())
    assert {"cluster-cron", "ci-staging", "demo"} <= set(jobs)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.stem)
def test_a_ready_file_explains_itself(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines[0].startswith("# ")
    assert "cxrprep run configs/" in text or "cxrprep run /etc" in text or "Needs " in text
    assert sum("#" in line for line in lines) >= len(lines) / 3
    assert max(map(len, lines)) <= 120


def test_the_template_holds_every_key_and_reads_back_as_the_defaults(tmp_path: Path) -> None:
    text = template({"dataset": "chexpert"})
    for key in KEYS.values():
        assert f"{key.name.rpartition('.')[2]} = " in text, key.name
    assert settings_of(text, tmp_path).job.dataset == "chexpert"
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line and line.startswith("# ") and '= ""' not in line else line
        for line in text.splitlines()
        # A sentence with an example in it is no assignment.
        if not line.startswith("# the same for single")
    )
    values = settings_of(uncommented, tmp_path)
    defaults = load_settings(environment={"XDG_CONFIG_HOME": "/nowhere"}, folder=Path("/nowhere"))
    assert values.job.convert == defaults.job.convert
    assert values.job.steps == defaults.job.steps


def test_init_writes_a_file_that_check_accepts_and_does_not_write_over_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nih.toml"
    assert run(["config", "init", str(file), "--dataset", "nih-chestxray14"]) == 0
    assert run(["config", "check", str(file)]) == 0
    before = file.read_bytes()
    assert run(["config", "init", str(file)]) == 2
    assert "--force" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_show_says_who_set_each_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cxrprep.toml").write_text('root = "/a"\nrelease = "v1.0"\n')
    (tmp_path / "job.toml").write_text('dataset = "chexpert"\nrelease = "v1.0-small"\n')
    monkeypatch.setenv("CXRPREP_LABELS_UNCERTAIN", "ones")
    assert run(["config", "show", "--changed", "--json", "--config", "job.toml"]) == 0
    shown = {item["name"]: (item["value"], item["set_by"]) for item in json.loads(capsys.readouterr().out)}
    assert shown == {
        "dataset": ("chexpert", "job.toml, line 1"),
        "root": ("/a", f"{tmp_path / 'cxrprep.toml'}, line 1"),
        "release": ("v1.0-small", "job.toml, line 2"),
        "labels.uncertain": ("ones", "CXRPREP_LABELS_UNCERTAIN"),
        "output.format": ("json", "--json"),
    }


def test_all_mistakes_of_a_file_are_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "job.toml"
    file.write_text(
        'dataset = "nih"\nsteps = ["convert", "download"]\n[download]\nsorce = "x"\nconnections = "eight"\n'
        '[convert]\nrecipe = "sqare-224"\n[labels]\nuncertain = "one"\n[selection]\nsplit = "tst"\n'
    )
    assert run(["config", "check", "--json", str(file)]) == 2
    [found] = json.loads(capsys.readouterr().out)
    assert [m["line"] for m in found["mistakes"]] == [2, 4, 5, 7, 9, 11]
    said = " ".join(m["message"] + m["hint"] for m in found["mistakes"])
    for word in ("download before convert", "source", "a whole number", "square-224", "ones", "test"):
        assert word in said
    file.write_text(f'root = "$NOSUCH_FOLDER/x"\n{file.read_text()}')
    assert run(["run", str(file)]) == 2
    err = capsys.readouterr().err
    assert all(f"line {line}" in err for line in (1, 3, 5, 6, 8, 10, 12))
    assert "NOSUCH_FOLDER is not set" in err
    # A check is no run: where the job runs it may be set.
    assert run(["config", "check", str(file)]) == 2
    assert "NOSUCH_FOLDER is not set here" in capsys.readouterr().err


def test_a_variable_is_looked_for_in_every_value_that_names_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOSUCH", raising=False)
    more = ("selection.patients", "selection.studies", "download.source", "download.then", "convert.recipe")
    names = sorted({name for name, key in KEYS.items() if key.form == "path"} | {*more, "labels.imports"})
    head = [name for name in names if "." not in name]
    lines = ['dataset = "mimic-cxr-jpg"', *(f'{name} = "$NOSUCH/x"' for name in head)]
    for section in dict.fromkeys(name.partition(".")[0] for name in names if "." in name):
        lines.append(f"[{section}]")
        for name in names:
            if name.startswith(f"{section}."):
                value = '"chexbert=${NOSUCH}/x"' if name == "labels.imports" else '"$NOSUCH/x"'
                lines.append(f"{name.partition('.')[2]} = {value}")
    Path("job.toml").write_text("\n".join(lines))
    assert run(["run", "job.toml"]) == 2
    err = capsys.readouterr().err
    for number, line in enumerate(lines, 1):
        assert (f"line {number}: the variable NOSUCH is not set" in err) == ("NOSUCH" in line), line
    assert [path.name for path in tmp_path.iterdir()] == ["job.toml"]


def test_a_file_that_a_job_reads_and_nobody_has_ends_it_before_its_first_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every path among the settings is one that the job writes, or has to be there when it begins."""
    monkeypatch.chdir(tmp_path)
    written = {"root", "state", "convert.out", "report.out", "export.root", "export.out", "output.log_file"}
    read = {name for name, key in KEYS.items() if key.form == "path"} - written
    read |= {"selection.patients", "selection.studies", "download.source", "labels.imports"}
    lines = [
        'dataset = "mimic-cxr-jpg"',
        'steps = ["download", "extract-labels", "report", "export"]',
        *(f'{name} = "nowhere/x.csv"' for name in sorted(read) if "." not in name),
    ]
    for section in dict.fromkeys(name.partition(".")[0] for name in sorted(read) if "." in name):
        lines.append(f"[{section}]")
        for name in sorted(read):
            value = {
                "labels.imports": '"chexbert=nowhere/x.csv"',
                "labels.compare": '["nowhere/x.csv", "negbio"]',
            }.get(name, '"nowhere/x.csv"')
            if name.startswith(f"{section}."):
                lines.append(f"{name.partition('.')[2]} = {value}")
    lines.insert(lines.index("[export]") + 1, 'format = "csv"')
    Path("job.toml").write_text("\n".join(lines))
    assert run(["run", "job.toml"]) == 2
    err = capsys.readouterr().err
    for number, line in enumerate(lines, 1):
        assert (f"line {number}: " in err and "there is no nowhere/x.csv" in err) == ("nowhere" in line), (line, err)
    assert [path.name for path in tmp_path.iterdir()] == ["job.toml"]
    # Where the job runs they may be; and what lies in ROOT may come with the download.
    assert run(["config", "check", "job.toml"]) == 0
    assert capsys.readouterr().err.count("there is no nowhere/x.csv") == len(read)
    Path("job.toml").write_text('dataset = "mimic-cxr-jpg"\n[labels]\nreports = "mimic-cxr-jpg/reports.zip"\n')
    assert run(["config", "check", "job.toml"]) == 0
    assert "there is no" not in capsys.readouterr().err
    # Whoever does another step needs no file of this one.
    Path("job.toml").write_text('dataset = "nih"\nroot = "x"\n[labels]\nvocabulary = "nowhere/x.toml"\n')
    assert run(["run", "job.toml", "--steps", "verify"]) == 2
    assert "there is no folder x" in " ".join(capsys.readouterr().out.split())


def test_a_recipe_and_a_folder_of_a_job_may_be_named_by_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made("nih-chestxray14", tmp_path / "nih")
    own = tmp_path / "small.toml"
    own.write_text('summary = "small"\n[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nlongest = 8\n')
    monkeypatch.setenv("RECIPES", str(tmp_path))
    monkeypatch.delenv("NOSUCH", raising=False)
    job = tmp_path / "job.toml"
    job.write_text(
        f'dataset = "nih-chestxray14"\nroot = "${{NOSUCH:-{folder}}}"\nsteps = ["convert"]\n'
        '[convert]\nrecipe = "$RECIPES/small.toml"\nout = "${NOSUCH:-$RECIPES}/out"\n[engine]\njobs = 1\n'
    )
    assert run(["run", str(job), "-q"]) == 0
    assert (tmp_path / "out" / "manifests" / "images.parquet").is_file()


@pytest.mark.parametrize("verb", [["config", "check"], ["run"]])
def test_each_place_that_is_none_is_named_with_its_line(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        'dataset = "nih-chestxray14"', 'root = "~nobody-of-this-name/x"', 'state = "$(pwd)/y"', 'tables = "${}"',
        "[download]", 'source = "~nobody-of-this-name/mirror"',
    ]  # fmt: skip
    (tmp_path / "job.toml").write_text("\n".join(lines))
    assert run([*verb, str(tmp_path / "job.toml")]) == 2
    err = capsys.readouterr().err
    assert [number for number in range(1, 7) if f"line {number}: " in err] == [2, 3, 4, 6]


@pytest.mark.parametrize(
    ("text", "found"),
    [("dataset = true\n", "found true"), ('[dataset]\nname = "nih"\n', 'found { name = "nih" }')],
)
def test_a_value_of_the_wrong_kind_is_one_mistake_as_the_file_writes_it(tmp_path, capsys, text, found):
    (tmp_path / "job.toml").write_text(text)
    assert run(["config", "check", str(tmp_path / "job.toml"), "--json"]) == 2
    [checked] = json.loads(capsys.readouterr().out)
    [only] = checked["mistakes"]
    assert only["message"] == f"dataset: expected text, {found}"


@pytest.mark.parametrize(
    "words",
    [
        ["status", "~nobody-of-this-name/x"],
        ["download", "nih-chestxray14", "x", "--source", "~nobody-of-this-name/x"],
        ["download", "nih-chestxray14", "x", "--source", "y", "--patients", "~nobody-of-this-name/ids.txt"],
        ["download", "nih-chestxray14", "x", "--source", "y", "--from-plan", "~nobody-of-this-name/x"],
        ["convert", "x", "--recipe", "~nobody-of-this-name/x.toml"],
        ["doctor", "--dataset", "nih-chestxray14", "--source", "~nobody-of-this-name/x", "--offline"],
        ["datasets", "check", "~nobody-of-this-name/x.toml"],
        ["run", "~nobody-of-this-name/x.toml"],
    ],
)
def test_a_home_of_nobody_here_is_a_mistake_of_the_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    code, said = run(words), capsys.readouterr()
    assert code == 2, said
    assert "nobody-of-this-name" in said.err
    assert "bug" not in said.err


@pytest.mark.parametrize("key", ["root", "state", "tables", "log_file", "url_file", "reports", "source", "out"])
def test_a_variable_that_is_not_set_ends_a_job_before_its_first_byte(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOSUCH", raising=False)
    home = {"log_file": "output", "url_file": "download", "reports": "labels", "source": "download", "out": "convert"}
    head = "" if key == "root" else 'root = "x"\n'
    section = f"[{home[key]}]\n" if key in home else ""
    Path("job.toml").write_text(f'dataset = "nih-chestxray14"\n{head}{section}{key} = "$NOSUCH/x"\n')
    assert run(["run", "job.toml"]) == 2
    err = capsys.readouterr().err
    assert "NOSUCH is not set" in err
    assert f"line {len(Path('job.toml').read_text().splitlines())}" in err
    assert [path.name for path in tmp_path.iterdir()] == ["job.toml"]
    # The file is right; this machine lacks the variable.
    assert run(["config", "check", "job.toml"]) == 0
    assert "NOSUCH is not set here" in capsys.readouterr().err
    # Set but empty would be the root of the disk.
    monkeypatch.setenv("NOSUCH", "")
    assert run(["run", "job.toml"]) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('root = "x"\n', "no dataset is named"),
        ('dataset = "chexpert"\nsteps = ["verify", "download"]\n', "write download before verify"),
        ('dataset = "chexpert"\nsteps = ["report", "extract-labels"]\n', "write extract-labels before report"),
        ('dataset = "chexpert"\nsteps = ["download", "convert"]\n', "convert has no recipe"),
        ('dataset = "chexpert"\nsteps = ["verify", "verify"]\n', "name each step once"),
        ('dataset = "chexpert"\nsteps = []\n', "no step to do"),
        ('dataset = "chexpert"\nsteps = ["export"]\n', "export has no form"),
        ('dataset = "chexpert"\nsteps = ["export", "manifest"]\n', "write manifest before export"),
        ('dataset = "chexpert"\n[labels]\ncompare = ["a.csv"]\n', "nothing to be compared with"),
        ('dataset = "chexpert"\ndataset = "nih"\n', "stands twice"),
        ("dataset: chexpert\n", 'not YAML: dataset = "chexpert"'),
        ('dataset = "chexpert"\n[download]\nsource = kaggle\n', 'source = "kaggle"'),
    ],
)
def test_jobs_that_cannot_work_are_refused(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.toml"
    file.write_text(text)
    assert run(["config", "check", str(file)]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_settings_for_every_command_need_no_dataset(tmp_path: Path) -> None:
    file = tmp_path / "cxrprep.toml"
    file.write_text("[engine]\njobs = 2\n")
    assert run(["config", "check", str(file)]) == 0


def test_a_folder_without_a_slash_is_a_source_in_a_file_as_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("job.toml").write_text('dataset = "chexpert"\n[download]\nsource = "copy"\n')
    assert run(["config", "check", "job.toml"]) == 2
    Path("copy").mkdir()
    assert run(["config", "check", "job.toml"]) == 0


def test_a_dataset_on_no_mirror_needs_a_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["config", "init", "job.toml", "--dataset", "padchest"]) == 2
    assert "--source DIR" in capsys.readouterr().err
    assert not Path("job.toml").exists()
    assert run(["config", "init", "job.toml", "--dataset", "padchest", "--source", "/data/padchest"]) == 0
    assert run(["config", "check", "job.toml"]) == 0
    Path("job.toml").write_text('dataset = "padchest"\n')
    assert run(["config", "check", "job.toml"]) == 2
    assert "line 1: no mirror of padchest can be listed" in " ".join(capsys.readouterr().err.split())
    Path("job.toml").write_text('dataset = "padchest"\nroot = "/data/padchest"\nsteps = ["verify"]\n')
    assert run(["config", "check", "job.toml"]) == 0


def test_the_mirror_of_a_job_may_be_an_address_in_a_variable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACE", "https://127.0.0.1:9/nih/")
    for name, code in (("source", 6), ("root", 2)):
        root, source = ("$PLACE", "box") if name == "root" else ("nih", "$PLACE")
        Path("job.toml").write_text(
            f'dataset = "nih"\nroot = "{root}"\nsteps = ["download"]\n[download]\nsource = "{source}"\n'
        )
        monkeypatch.setattr(download, "plan", lambda call, _: raised(call.job.download.source))
        assert run(["run", "job.toml", "--dry-run"]) == code
    assert "job.toml, line 2: root: https://127.0.0.1:9/nih/ is an address" in " ".join(capsys.readouterr().err.split())


def raised(source: str) -> None:
    raise SourceUnreachableError(f"asked: {source}")


def test_a_table_that_is_not_there_is_a_mistake_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, said in (
        ("extract-labels --compare a.csv b.csv", "there is no file a.csv"),
        ("pairs nosuch", "there is no nosuch"),
        ("convert . --recipe no.toml", "cannot read the recipe no.toml: No such file or directory"),
        ("datasets check no.toml", "no.toml cannot be read: No such file or directory"),
        ("config chekc", "there is no command 'chekc'; did you mean check?"),
        ("frobnicate", "there is no command 'frobnicate' Hint: cxrprep --help lists the commands"),
    ):
        assert run(words.split()) == 2
        assert said in " ".join(capsys.readouterr().err.split()), words


def test_init_asks_a_person_again_until_a_name_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Invocation, "has_person", True)
    answers = iter(["nhi", "nih", "", "/data/mirror", "square-225", "square-224"])
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: next(answers))
    assert run(["config", "init", "job.toml"]) == 0
    said = capsys.readouterr().err
    assert "Error: unknown dataset 'nhi'; did you mean nih-chestxray14?" in said
    assert "Error: there is no recipe 'square-225'; did you mean square-224?" in said
    job = tomllib.loads(Path("job.toml").read_text())
    assert (job["dataset"], job["root"]) == ("nih-chestxray14", "nih-chestxray14")
    assert (job["download"], job["convert"]) == ({"source": "/data/mirror"}, {"recipe": "square-224"})
    # What was given is not asked, and none is a recipe, too.
    answers = iter(["", "none"])
    assert run(["config", "init", "2.toml", "--dataset", "nih", "--source", "box"]) == 0
    assert tomllib.loads(Path("2.toml").read_text())["convert"] == {}


@pytest.mark.slow
def test_what_init_writes_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mirror = write_mirror("nih-chestxray14", tmp_path / "mirror")
    assert run(["config", "init", "job.toml"]) == 2
    assert "--dataset" in capsys.readouterr().err
    words = ["--dataset", "nih", "--source", str(mirror), "--recipe", "square-224"]
    assert run(["config", "init", "job.toml", *words]) == 0
    assert run(["config", "check", "job.toml"]) == 0
    steps = "download,verify,extract-labels,convert,manifest,report"
    assert run(["run", "job.toml", "--steps", steps, "--json"]) == 0
    made = tmp_path / "nih-chestxray14"
    assert (made / "manifests" / "report.html").is_file()
    assert (made / "derived" / "square-224" / "manifests" / "images.parquet").is_file()


@pytest.mark.slow
def test_a_job_imports_labels_compares_tables_and_exports_what_it_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mirror = write_mirror("nih-chestxray14", tmp_path / "mirror")
    entries = next(mirror.rglob("Data_Entry_2017*.csv")).read_text().splitlines()[1:]
    ids = [line.partition(",")[0] for line in entries]
    Path("theirs.csv").write_text("image_id,Edema\n" + "".join(f"{name.removesuffix('.png')},1\n" for name in ids))
    Path("job.toml").write_text(
        'dataset = "nih-chestxray14"\nroot = "nih"\n'
        'steps = ["download", "extract-labels", "convert", "export"]\n'
        f'[download]\nsource = "{mirror.as_posix()}"\n[convert]\nrecipe = "square-224"\n'
        '[labels]\nimports = ["theirs=theirs.csv"]\nkey = "image_id"\ncompare = ["theirs", "theirs.csv"]\n'
        '[export]\nformat = "csv"\nroot = "nih/derived/square-224"\nout = "out"\n'
    )
    assert run(["config", "check", "job.toml"]) == 0
    for _ in range(2):
        capsys.readouterr()
        assert run(["run", "job.toml", "--json"]) == 0
        steps = {step["step"]: step["result"] for step in json.loads(capsys.readouterr().out)["steps"]}
    assert steps["extract-labels: import theirs=theirs.csv"]["rows"] == len(ids)
    assert "extract-labels: compare" in steps
    assert steps["export"]["images"] == steps["convert"]["images"]
    assert Path("out/images.csv").is_file()
    # The command line takes the same words.
    assert run(["export", "nih", "--config", "job.toml", "--out", "again"]) == 0
    assert Path("again/images.csv").is_file()
    assert run(["export", "nih"]) == 2
    assert "--format is missing; one of csv" in capsys.readouterr().err


def test_kinds_that_are_accepted_where_nothing_is_strict_are_said_to_do_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror, job = write_mirror("nih-chestxray14", tmp_path / "mirror"), tmp_path / "job.toml"
    said = f"{job}, line 4: accept does nothing without strict = true"
    for strict in ("false", "true"):
        job.write_text(
            f'dataset = "nih-chestxray14"\nroot = "{mirror}"\n[verify]\naccept = ["unproven"]\nstrict = {strict}\n'
        )
        assert run(["verify", "--config", str(job)]) == 0
        assert (said in " ".join(capsys.readouterr().err.split())) == (strict == "false")


@pytest.mark.slow
def test_a_strict_job_accepts_a_quirk_by_name_and_names_what_it_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    mirror = write_mirror("nih-chestxray14", tmp_path / "mirror")
    [file] = [path for path in CONFIGS if path.stem == "ci-staging"]
    tests = set((mirror / "test_list.txt").read_text().split())
    path = next(path for path in mirror.rglob("*.png") if path.name in tests)
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(path), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGRA))
    answer = done(file, tmp_path / "root", mirror, capsys, monkeypatch)
    assert answer["exit_code"] == 0, answer
    strict = tmp_path / "strict.toml"
    strict.write_text(file.read_text().replace('accept = ["wrong-mode", ', "accept = ["))
    answer = done(strict, tmp_path / "root", mirror, capsys, monkeypatch)
    assert answer["exit_code"] == 4
    assert run(["run", str(strict), "--root", str(tmp_path / "root")]) == 4
    assert "1 wrong-mode" in capsys.readouterr().out
    strict.write_text(file.read_text().replace('"wrong-mode"', '"wrong-mod"'))
    assert run(["config", "check", str(strict)]) == 2
    assert "did you mean wrong-mode?" in capsys.readouterr().err


def test_a_plan_that_does_not_fit_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = write_mirror("nih-chestxray14", tmp_path / "mirror")
    words = ["download", "nih-chestxray14", str(tmp_path / "root"), "--source", str(mirror)]
    assert run([*words, "--dry-run"]) == 0
    usage = types.SimpleNamespace(total=10**9, used=10**9, free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert run([*words, "--dry-run"]) == 7
    assert "it does not fit" in " ".join(capsys.readouterr().out.split())
    # A saved plan may be for another host.
    assert run([*words, "--save-plan", str(tmp_path / "plan.json")]) == 0
    file = tmp_path / "job.toml"
    file.write_text(f'dataset = "nih-chestxray14"\nroot = "{tmp_path / "root"}"\n[download]\nsource = "{mirror}"\n')
    assert run(["run", str(file), "--dry-run"]) == 7


def test_a_job_follows_a_saved_plan_and_looks_before_it_converts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mirror = write_mirror("nih-chestxray14", tmp_path / "mirror")
    plan = ["--sample", "3", "--save-plan", "plan.json"]
    assert run(["download", "nih-chestxray14", "nih", "--source", str(mirror), *plan]) == 0
    Path("job.toml").write_text(
        'dataset = "nih-chestxray14"\nroot = "nih"\n'
        'steps = ["download", "extract-labels", "check-phi", "preview"]\n'
        f'[download]\nsource = "{mirror.as_posix()}"\nfrom_plan = "plan.json"\n'
        '[convert]\nrecipe = "square-224"\npreview = 2\n'
    )
    capsys.readouterr()
    assert run(["run", "job.toml", "--json"]) == 0
    steps = {step["step"]: step["result"] for step in json.loads(capsys.readouterr().out)["steps"]}
    assert len(list(Path("nih/images").iterdir())) == 3
    assert steps["check-phi"]["files"] == 3
    assert steps["preview"]["images"] == 2
    Path("plan.json").unlink()
    assert run(["run", "job.toml", "--steps", "download"]) == 2
    assert "line 6: download.from_plan: there is no plan.json" in capsys.readouterr().err


# What is asked for one run is no setting: a look beforehand, a plan to keep, the word that a table may lose rows; and
# where other people's datasets lie is the machine's to say (CXRPREP_CATALOG), a job names a dataset's file itself.
ONE_RUN = {
    "--config",
    "--dry-run",
    "--save-plan",
    "--allow-loss",
    "--preview",
    "--check-phi",
    "--compare",
    "--also",
    "--catalog",
}


def test_every_option_of_a_step_is_a_key_of_job_files() -> None:
    known = {name for commands in COMMANDS.values() for name in commands}
    loose = set()
    for step in known.intersection(ALL_STEPS):
        command = cli.get_command(click.Context(cli), step)
        loose |= {p.opts[0] for p in command.params if isinstance(p, click.Option) and not hasattr(p, "key")}
    assert loose == ONE_RUN
    # In a job, three of them have another form.
    assert {"check-phi", "preview"} == set(ALL_STEPS) - known
    assert "labels.compare" in KEYS


def test_a_section_that_none_has_is_said_unless_a_vocabulary_may_have_it(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    (tmp_path / "words.toml").write_text('[sections]\n"gp letter" = ["letter of the gp"]\n')
    begin = 'dataset = "nih-chestxray14"\nroot = "x"\n[labels]\nreports = "r.csv"\n'
    file.write_text(f'{begin}sections = "impresion,findings"\n')
    [checked] = json.loads(cxrprep("config", "check", file, "--json").stdout)
    assert [(said["line"], said["hint"][:24]) for said in checked["mistakes"]] == [(5, "did you mean impression?")]
    file.write_text(f'{begin}vocabulary = "{tmp_path}/words.toml"\nsections = "gp letter"\n')
    [checked] = json.loads(cxrprep("config", "check", file, "--json").stdout)
    assert checked["mistakes"] == []


def test_names_of_labels_sources_and_labelers_are_looked_up_before_anything_is_fetched(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(
        'dataset = "nih-chestxray14"\nroot = "x"\n'
        '[selection]\nlabel = ["Edemma"]\nwhere = ["contrast>>1"]\n'
        '[labels]\nsource = "nih-textminde"\nobservations = ["Edemma"]\nuncertain_by = {Edmea = "ones"}\n'
        'sections = ","\n'
        '[labeler]\nname = "opnai"\n[split]\nstratify = "Edema,Hernai"\nfolds = 1\n'
        '[export]\nformat = "csv"\ntext = ["findngs"]\n'
    )
    [checked] = json.loads(cxrprep("config", "check", file, "--json").stdout)
    found = {mistake["line"]: mistake["message"] + mistake["hint"] for mistake in checked["mistakes"]}
    expected = {
        4: "Edema", 5: "condition on a column", 7: "mean nih-textmined?", 8: "mean Edema?", 9: "mean Edema?",
        10: "names no sections", 12: "mean openai?", 14: "mean Hernia?", 15: "2 or more", 18: "mean findings?",
    }  # fmt: skip
    assert found.keys() == expected.keys()
    assert [line for line, words in expected.items() if words not in found[line]] == []
