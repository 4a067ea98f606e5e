"""An address that no store understands: exit 2 before the first byte, for every option of every verb."""

from __future__ import annotations

import socket
from pathlib import Path

import click
import pytest

import cxrprep as package
from cxrprep.cli import options
from cxrprep.cli.main import cli
from cxrprep.config.job import KEYS
from cxrprep.errors import UsageError
from tests.commands import cxrprep
from tests.manifest.made import made

NOWHERE = "quatsch://lab/nih"


def places() -> list[tuple[str, str]]:
    """Each command with each of its options and arguments that take a path."""
    found = []
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            key = getattr(parameter, "key", "")
            if isinstance(parameter.type, click.Path) or (key and KEYS[key].form == "path"):
                word = parameter.opts[0] if isinstance(parameter, click.Option) else "ARGUMENT"
                if name != "config":
                    found.append((name, word))
    return found


def test_there_are_many() -> None:
    assert len(places()) > 40
    assert options.Setting


# What a command wants beside the path, to come as far as to look at it.
NEEDS = {
    "download": ["nih-chestxray14", "ROOT"],
    "convert": ["ROOT", "--recipe", "square-224"],
    "export": ["ROOT", "--format", "csv"],
    "explain": [],
    "run": ["job.toml"],
    "completion": ["bash"],
    "doctor": [],
    "datasets": ["check", "ROOT"],
    "prove": ["abcd", "ROOT"],
    "status": [],
}


@pytest.mark.parametrize(("verb", "word"), places(), ids=str)
@pytest.mark.parametrize("address", [NOWHERE, "https://127.0.0.1:1/x"])
def test_every_path_of_every_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, word: str, address: str
) -> None:
    monkeypatch.chdir(tmp_path)

    def nobody(*_: object) -> None:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(socket.socket, "connect", nobody)
    words = list(NEEDS.get(verb, ["ROOT"]))
    if word == "ARGUMENT" and verb == "run":
        words = [address]
    elif word == "--compare":
        words = [word, address, address]
    elif word == "ARGUMENT":
        words = [address if one == "ROOT" else one for one in words] if "ROOT" in words else [*words, address]
    else:
        words = [*(str(tmp_path / "root") if one == "ROOT" else one for one in words), word, address]
    done = cxrprep(verb, *words)
    said = "no such configuration file" if word == "--config" else "is an address"
    assert (done.returncode, said in " ".join(done.stderr.split())) == (2, True), done
    assert not [path for path in tmp_path.rglob("*") if ":" in path.name], "something was made"
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("name", ["root", "state", "tables", "labels.reports", "report.out", "output.log_file"])
def test_in_a_job_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    section, _, key = name.rpartition(".")
    root = "" if name == "root" else f'root = "{tmp_path}/root"\n'
    line = f'{key} = "{NOWHERE}"\n'
    job = tmp_path / "job.toml"
    text = f'dataset = "nih-chestxray14"\n{root}steps = ["extract-labels", "report"]\n'
    job.write_text(text + (f"[{section}]\n{line}" if section else line))
    assert cxrprep("run", job).returncode == 2
    assert not [path for path in tmp_path.rglob("*") if ":" in path.name]


def test_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for call in (
        lambda: package.download("nih-chestxray14", NOWHERE, source=str(tmp_path)),
        lambda: package.verify(NOWHERE),
        lambda: package.extract_labels(NOWHERE),
        lambda: package.load(NOWHERE),
    ):
        with pytest.raises(UsageError, match="is an address"):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["s3://lab/out", NOWHERE])
@pytest.mark.parametrize("verb", [("convert", "root", "--recipe", "square-224"), ("export", "root", "--format", "csv")])
def test_a_variable_may_hold_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], address: str
) -> None:
    """It became a folder ``./s3:``, with exit code 1 at the end."""
    made("nih-chestxray14", tmp_path / "root")
    monkeypatch.setenv("WHERE", address)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    done = cxrprep(*verb, "--out", "$WHERE/x", cwd=tmp_path)
    assert done.returncode in ((5, 6) if address.startswith("s3") else (2,)), done
    assert f"{address}/x" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
