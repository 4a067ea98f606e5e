"""What a file that is found may choose, and what no file may do to the reader: nested, dotted, or large without end."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from cxrprep.config.job import KEYS
from cxrprep.config.settings import FOUND_FILE_KEYS, load_settings
from cxrprep.errors import ConfigError
from cxrprep.planning.plan_file import load_plan
from cxrprep.record.record import Record
from cxrprep.storage.small_files import parse_json, parse_toml
from tests.commands import cxrprep
from tests.record.entries import entries_of

REFUSED = {
    "engine.name": '"dask"',
    "engine.scheduler": '"tcp://127.0.0.1:1"',
    "download.source": '"physionet://127.0.0.1:1/mimic-cxr-jpg/2.1.0"',
    "download.cookie_file": '"cookies.txt"',
    "download.url_file": '"url.txt"',
    "download.billing_project": '"mine"',
    "download.requester_pays": "true",
    "download.discard_raw": "true",
    "verify.repair": "true",
    "labeler.name": '"openai"',
    "labeler.endpoint": '"http://192.0.2.1/v1"',
    "labeler.model": '"m"',
    "labeler.checkpoint": '"chexbert.pth"',
    "labeler.allow_remote_text": "true",
    "convert.out": '"elsewhere"',
    "convert.fix": '"inverted"',
    "convert.max_bytes": "100000000000",
    "convert.max_pixels": "100000000000",
    "convert.max_seconds": "0",
    "report.out": '"page.html"',
    "report.beside": '"other"',
    "export.format": '"csv"',
    "export.root": '"elsewhere"',
    "export.out": '"elsewhere"',
    "export.text": '["findings"]',
    "export.pairs": '"pairs.parquet"',
    "export.paired": "true",
    "download.from_plan": '"plan.json"',
    "output.log_file": '"log.txt"',
    "state": '"elsewhere"',
    "tables": '"elsewhere"',
    "shard": '"1/2"',
    "selection.ids": '"ids.csv"',
    "selection.patients": '["patients.csv"]',
    "selection.studies": '["studies.csv"]',
    "labels.imports": '["theirs=theirs.csv"]',
    "labels.reports": '"reports.csv"',
    "labels.vocabulary": '"words.toml"',
    "labels.mimic_iv": '"elsewhere"',
    "labels.compare": '["a.csv", "b.csv"]',
    "labels.key": '"image_id"',
    "labels.sections": '"impression"',
    "labels.policy": '"strict"',
    "labels.evidence": "true",
    "labels.report_text": "true",
    "download.keep_archives": "true",
    "download.link": '"copy"',
    "convert.frame": "1",
    "convert.preview": "2",
    "report.images": "3",
    "verify.accept": '["extra"]',
    "verify.quick": "true",
    "verify.sample": "2",
    "verify.images": "true",
    "verify.complete": "true",
    "verify.duplicates": "true",
    "verify.strict": "true",
}


def write(folder: Path, name: str, value: str) -> Path:
    section, _, key = name.rpartition(".")
    path = folder / "cxrprep.toml"
    path.write_text(f"[{section}]\n{key} = {value}\n" if section else f"{key} = {value}\n")
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_found_may_not_choose_this_and_one_that_is_named_may(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, REFUSED[name])
    with pytest.raises(ConfigError, match="only in one that you name") as caught:
        load_settings(folder=tmp_path, environment={"XDG_CONFIG_HOME": str(tmp_path / "none")})
    assert f"{path}, line {path.read_text().count(chr(10))}" in str(caught.value)
    # The hint: named, it is the user's own word. The user's own file may choose everything, too.
    assert load_settings(config=path, folder=tmp_path / "other", environment={"XDG_CONFIG_HOME": str(tmp_path / "n")})
    (tmp_path / "own/cxrprep").mkdir(parents=True)
    path.rename(tmp_path / "own/cxrprep/config.toml")
    assert load_settings(folder=tmp_path, environment={"XDG_CONFIG_HOME": str(tmp_path / "own")})


def test_every_key_is_decided() -> None:
    """A new key is refused until somebody says that a stranger may choose it."""
    assert set(KEYS) - FOUND_FILE_KEYS == set(REFUSED)


@pytest.mark.parametrize(
    ("name", "value"), [("download.source", '"physionet"'), ("root", '"x"'), ("labels.blank", '"zeros"')]
)
def test_the_rest_may_be_chosen(tmp_path: Path, name: str, value: str) -> None:
    write(tmp_path, name, value)
    settings = load_settings(folder=tmp_path, environment={"XDG_CONFIG_HOME": str(tmp_path / "none")})
    assert settings.value(name) == json.loads(value)


@pytest.mark.parametrize("name", [n for n, key in KEYS.items() if key.form == "path" and n in FOUND_FILE_KEYS])
@pytest.mark.parametrize("address", ["s3://lab/x", "gs:/lab/x", "$BUCKET/x", "${NONE:-s3:}//lab/x"])
def test_no_path_of_a_found_file_is_a_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    monkeypatch.setenv("BUCKET", "az://lab")
    write(tmp_path, name, f'["{address}"]' if KEYS[name].kind.startswith("tuple") else f'"{address}"')
    with pytest.raises(ConfigError, match="only in one that you name"):
        load_settings(folder=tmp_path, environment={"XDG_CONFIG_HOME": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", '"./x.toml"'),
        ("dataset", '"X.TOML "'),
        ("convert.recipe", '"./mine.toml"'),
        ("download.then", '"mine.toml"'),
    ],
)
def test_what_has_a_name_is_chosen_by_its_name_and_no_file(tmp_path: Path, name: str, value: str) -> None:
    write(tmp_path, name, value)
    with pytest.raises(ConfigError, match="only in one that you name"):
        load_settings(folder=tmp_path, environment={"XDG_CONFIG_HOME": str(tmp_path / "none")})


def test_a_scheduler_of_a_found_file_is_not_connected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "engine.scheduler", '"tcp://127.0.0.1:1"')
    monkeypatch.chdir(tmp_path)
    done = cxrprep("convert", tmp_path, "--recipe", "square-224")
    assert done.returncode == 2
    assert "cxrprep.toml, line 2" in done.stderr.replace("\n", " ")


DEEP = "[" * 200_000
DOTTED = ".".join(["a"] * 50_000) + " = 1\n"


@pytest.mark.parametrize("text", ["a = " + DEEP, DOTTED, "[" + DOTTED[:-5] + "]\n", "a = {" + DOTTED[:-1] + "}\n"])
def test_toml_without_end_is_no_toml(tmp_path: Path, text: str) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"deeply|parts"):
        parse_toml(text)
    path = tmp_path / "job.toml"
    path.write_text(text)
    assert cxrprep("config", "check", path).returncode == 2
    assert time.monotonic() - began < 20
    (tmp_path / "root").mkdir()
    (tmp_path / "root/cxrprep.lock").write_text(text)
    assert cxrprep("status", tmp_path / "root").returncode == 4


def test_json_without_end_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="deeply"):
        parse_json(DEEP)
    plan = tmp_path / "plan.json"
    plan.write_text(DEEP)
    with pytest.raises(ConfigError, match="not a plan"):
        load_plan(plan)
    # A journal line that is damaged is passed over, as others are.
    journal = tmp_path / "root/.cxrprep/journal/1-host-1-00000000.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text(DEEP + "\n")
    assert not list(entries_of(Record.open(tmp_path / "root")))


def test_a_settings_file_of_megabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text("#" * (2 << 20))
    with pytest.raises(ConfigError, match="larger than"):
        load_settings(config=path, folder=tmp_path, environment={})


def test_a_dataset_with_a_nul_in_its_name_is_said_with_the_file(tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    for name in ("", ".toml"):
        job.write_text(f'dataset = "\\u0000{name}"\nroot = "{tmp_path}/root"\nsteps = ["extract-labels"]\n')
        done = cxrprep("run", job)
        assert (done.returncode, "job.toml, line 1: unknown dataset" in " ".join(done.stderr.split())) == (2, True), (
            done
        )
