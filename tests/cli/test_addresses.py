"""An address that no store understands: exit 2 before the first byte, for every option of every verb."""

from __future__ import annotations

import inspect
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

import cxrprep as package
from cxrprep.cli.main import cli
from cxrprep.config.job import KEYS
from cxrprep.errors import UsageError
from cxrprep.storage.object_store import ObjectStore
from tests.commands import cxrprep, in_this_process
from tests.generators.small import nih_chestxray14
from tests.manifest.made import made
from tests.parts import need
from tests.sample import some
from tests.servers import azurite, fake_gcs, s3

NOWHERE = "quatsch://lab/nih"


# How the help names what a path may stand for; a dataset or recipe of one's own is a file too.
PLACE = re.compile("FILE|DIR|PATH|FOLDER|ROOT|RECIPE|^NAME$|DATASET")
NO_PLACE = {
    "--view", "--split", "--split-within", "--label-source", "--release", "--policy", "--model", "--key",
    "--observations", "--format", "--filter",
}  # fmt: skip


def commands(
    group: click.Group, context: click.Context, *above: str
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command, those of a group among them, with its words."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, context, *above, name)
        else:
            yield (*above, name), command


def places() -> list[tuple[str, str]]:
    """Each command with each of its options and arguments that take a path."""
    found = []
    for words, command in commands(cli, click.Context(cli)):
        for parameter in command.params:
            key = getattr(parameter, "key", "")
            named = PLACE.search(parameter.metavar or "") and parameter.opts[0] not in NO_PLACE
            if isinstance(parameter.type, click.Path) or (key and KEYS[key].form == "path") or named:
                word = parameter.opts[0] if isinstance(parameter, click.Option) else "ARGUMENT"
                found.append((" ".join(words), word))
    return sorted(set(found))


def test_there_are_many() -> None:
    assert len(places()) > 140


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
    "config check": ["ROOT"],
    "config init": [],
    "config show": [],
}


def spoiled(verb: str, word: str, address: str, root: object) -> list[object]:
    """The words of a command with an address where ``word`` takes a path."""
    words: list[object] = list(NEEDS.get(verb, ["ROOT"]))
    if word == "ARGUMENT" and verb == "run":
        return [verb, address]
    if word == "--compare":
        return [verb, word, address, address]
    if word == "ARGUMENT":
        words = [address if one == "ROOT" else one for one in words] if "ROOT" in words else [*words, address]
        return [*verb.split(), *words]
    value = f"mine={address}" if word == "--import" else address
    return [*verb.split(), *(root if one == "ROOT" else one for one in words), word, value]


# Slips too (they became folders ``./s3`` and ``./file:``), and what no bucket or folder in one can be called.
OTHERS = (
    "https://127.0.0.1:1/x", "s3//lab/x", "file:///x", "s3:lab/x", "S3://lab/x", "hdfs://lab/x", "s3:///x", "s3://",
    "s3://a/x", "s3://my lab/x", "s3://../x", "s3://lab/../x", "gs://-lab/x", "gs://lab/a//x", "az://Lab/x",
    "abfss://lab@account.dfs.core.windows.net/x", "s3://lab/x/./y", "s3://key:secret@lab/x", "GS://lab/x", "wasbs://lab/x",
)  # fmt: skip
SPOILED = [
    (*place, address) for number, place in enumerate(places()) for address in (NOWHERE, OTHERS[number % len(OTHERS)])
]


@pytest.mark.parametrize(("verb", "word", "address"), SPOILED, ids=str)
def test_every_path_of_every_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, word: str, address: str
) -> None:
    monkeypatch.chdir(tmp_path)

    def nobody(*_: object) -> None:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(socket.socket, "connect", nobody)
    done = cxrprep(*spoiled(verb, word, address, tmp_path / "root"))
    said = re.search("an address|names no bucket", " ".join(done.stderr.split())) or "://" not in address
    assert (done.returncode, bool(said), "secret" in done.stderr) == (2, True, False), done
    assert not list(tmp_path.iterdir()), "something was made"


@pytest.mark.parametrize("address", [NOWHERE, "s3://my lab/x", "gs://lab/../x"])
@pytest.mark.parametrize("name", sorted(name for name, key in KEYS.items() if key.form == "path"))
def test_in_a_job_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, address: str) -> None:
    monkeypatch.chdir(tmp_path)
    section, _, key = name.rpartition(".")
    root = "" if name == "root" else f'root = "{tmp_path}/root"\n'
    value = f'["{address}", "{address}"]' if KEYS[name].kind.startswith("tuple") else f'"{address}"'
    line = f"{key} = {value}\n"
    job = tmp_path / "job.toml"
    text = f'dataset = "nih-chestxray14"\n{root}steps = ["extract-labels", "report"]\n'
    job.write_text(text + (f"[{section}]\n{line}" if section else line))
    for verb in (("config", "check"), ("run",)):
        done = cxrprep(*verb, job)
        assert (done.returncode, "an address" in " ".join(done.stderr.split())) == (2, True), done
    assert not [path for path in tmp_path.rglob("*") if ":" in path.name]


@pytest.mark.parametrize("address", ["s3://my lab/x", "gs://lab/../x", "az://L/x"])
@pytest.mark.parametrize("name", ["root", "state", "tables", "convert.out", "export.out", "report.out"])
def test_from_the_environment_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, address: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"CXRPREP_{name.replace('.', '_').upper()}", address)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("somebody was asked"))
    for words in (("convert", "--recipe", "square-224"), ("export", "--format", "csv"), ("report",)):
        done = cxrprep(*words, *(() if name == "root" else (tmp_path / "root",)))
        assert (done.returncode, "an address" in " ".join(done.stderr.split())) == (2, True), done
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("source", "code"), [("http://127.0.0.1:1/x/", 6), ("file://ROOT", 0), (NOWHERE, 2)])
def test_the_mirror_of_a_job_may_be_any_address(tmp_path: Path, source: str, code: int) -> None:
    """It was refused as a path of this machine, but for buckets."""
    nih_chestxray14.write(tmp_path / "mirror")
    job = tmp_path / "job.toml"
    source = source.replace("ROOT", str(tmp_path / "mirror"))
    text = f'dataset = "nih-chestxray14"\nroot = "{tmp_path}/root"\nsteps = ["download"]\n[download]\n'
    job.write_text(f'{text}source = "{source}"\n')
    done = cxrprep("run", job, cwd=tmp_path)
    assert done.returncode == code, done


# What a function of Python needs beside a path, and the options without a parameter of their own that take one.
CALLS: dict[str, dict[str, object]] = {
    "compare_labels": {"first": "a.csv", "second": "b.csv"},
    "convert": {"recipe": "square-224"},
    "download": {"dataset": "nih-chestxray14", "source": "root"},
    "export": {"form": "csv"},
    "import_labels": {"source": "a.csv"},
    "label_report": {"text": "No edema."},
    "plan": {"dataset": "nih-chestxray14", "source": "root"},
    "preview": {"recipe": "square-224"},
    "prove": {"digest": "ab" * 32},
    "run": {"file": "job.toml"},
}
WORDS = {
    "convert": ["recipe", "patients", "ids"],
    "download": ["source", "then", "studies", "ids", "url_file", "cookie_file", "dataset"],
    "extract_labels": ["mimic_iv", "dataset"],
    "load": ["ids"],
    "plan": ["then", "ids"],
    "verify": ["source"],
}
FUNCTIONS = {name: getattr(package, name) for name in package.__all__ if inspect.isfunction(getattr(package, name))}


def path_parameters() -> list[tuple[str, str]]:
    """Each function of the package with each parameter that takes a path."""
    found = []
    for name, function in FUNCTIONS.items():
        parameters = inspect.signature(function).parameters.values()
        found += [(name, each.name) for each in parameters if "Path" in str(each.annotation)]
        found += [(name, word) for word in WORDS.get(name, [])]
    return found


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize(("name", "parameter"), path_parameters())
def test_every_path_of_every_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, parameter: str, kind: type
) -> None:
    """A path object takes a slash away: what is left was a folder ``./s3:``, or a host that was asked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    (tmp_path / "job.toml").write_text('dataset = "nih-chestxray14"\nroot = "root"\nsteps = ["report"]\n')
    before = set(tmp_path.rglob("*"))

    def nobody(*_: object) -> None:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(socket.socket, "connect", nobody)
    for address in (
        NOWHERE,
        "ftp://127.0.0.1/x",
        "s3://my lab/x",
        "gs://lab/../x",
        *(() if parameter == "source" else ("http://127.0.0.1:1/x",)),
    ):
        named = {
            **({} if name in ("compare_labels", "label_report", "run") else {"root": "root"}),
            **CALLS.get(name, {}),
        }
        value = kind(address)
        words = [named.pop("first"), named.pop("second"), value] if parameter == "more" else []
        named |= {} if words else {parameter: [value] if parameter == "against" else value}
        with pytest.raises(UsageError):
            FUNCTIONS[name](*words, **named)
        assert set(tmp_path.rglob("*")) == before


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


RECIPE = Path(__file__).parents[2] / "configs/recipes/stretched-224.toml"
# Commands that name a file or folder: what they make is the same, whether PLACE is a folder here or a bucket.
SERVED = [
    "download nih-chestxray14 NEW --source ROOT --patients PLACE/patients.txt --dry-run --save-plan PLACE/plan",
    "download nih-chestxray14 NEW --source ROOT --from-plan PLACE/plan",
    "extract-labels ROOT --import mine=PLACE/mine.csv",
    "explain PLACE/report.txt --vocabulary PLACE/words.toml",
    "download nih-chestxray14 NEW --source ROOT --ids PLACE/ids.csv --then PLACE/own.toml",
    "convert ROOT --studies PLACE/studies.txt --recipe PLACE/own.toml",
    "extract-labels ROOT --import PLACE/mine.csv",
    "extract-labels ROOT --reports PLACE/reports.csv --vocabulary PLACE/words.toml",
    "extract-labels --compare PLACE/mine.csv PLACE/mine.csv --key image_id",
    "export ROOT --format csv --ids PLACE/ids.csv --out PLACE/one.csv",
    "report ROOT --out PLACE/page",
    "config init PLACE/new.toml --dataset nih-chestxray14 --root s3://lab/nih",
    "config check PLACE/new.toml",
]


def named_files(root: Path) -> dict[str, bytes]:
    """The files that the options name, of two images."""
    table = package.load(root).to_arrow().slice(0, 2)
    names = table["image_id"].to_pylist()
    rows = {
        "studies.txt": table["study_id"].to_pylist(),
        "patients.txt": [str(int(name[:8])) for name in names],
        "ids.csv": ["image_id", *names],
        "mine.csv": ["image_id,Edema", *(f"{name},1" for name in names)],
        "reports.csv": ["image_id,report", *(f"{name},No hernia." for name in names)],
        "report.txt": ["No hernia."],
        "words.toml": ["[[observation]]", 'name = "Hernia"', 'findings = ["hernia"]'],
    }
    return {"own.toml": RECIPE.read_bytes(), **{name: "\n".join(lines).encode() for name, lines in rows.items()}}


@contextmanager
def store(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """An empty bucket of a provider's emulator, and what leads that provider's own library there."""
    if kind == "s3":
        amazon = request.getfixturevalue("amazon")
        keys = {**amazon.environment, **s3.KEYS, "AWS_DEFAULT_REGION": "us-east-1"}
        yield f"s3://{amazon.bucket({}, public=False)}", keys
        return
    need("gcsfs" if kind == "gs" else "azure")
    folder.mkdir()
    if kind == "gs":
        with fake_gcs.serving({"x/y": b"z"}, folder) as address:
            yield "gs://bucket", {"STORAGE_EMULATOR_HOST": address}
        return
    with azurite.running(folder) as service:
        service.put("bucket", {})
        yield "az://bucket", service.environment


def written(root: Path) -> dict[str, bytes]:
    """What a command left, but records and pages, which carry times, and logs."""
    found = (path for path in root.rglob("*") if path.is_file() and ".cxrprep" not in path.parts)
    timed = ("cxrprep.lock", "cxrprep.files.parquet", "report.html", "page")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found if path.name not in timed}


@pytest.mark.parametrize("kind", some(["s3", "gs", "az"], one_in=3))
def test_options_are_served_from_a_bucket_as_from_a_folder(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = tmp_path / "release"
    nih_chestxray14.write(release)
    package.extract_labels(release)
    given, answers = named_files(release), []
    with in_this_process(), store(kind, request, tmp_path / "store") as (bucket, env):
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        files = ObjectStore(f"{bucket}/in")
        (tmp_path / "in").mkdir()
        for name, data in given.items():
            files.write(name, data)
            (tmp_path / "in" / name).write_bytes(data)
        for place in (str(tmp_path / "in"), f"{bucket}/in"):
            for line in SERVED if kind == "s3" else SERVED[:4]:
                at = tmp_path / "at"
                shutil.copytree(release, at / "root")
                words = [
                    word.replace("PLACE", place).replace("ROOT", f"{at}/root").replace("NEW", f"{at}/new")
                    for word in line.split()
                ]
                done = cxrprep(*words, cwd=tmp_path)
                assert done.returncode == 0, (line, done)
                said = "" if "ROOT" in line else done.stdout.replace(place, "PLACE")
                answers.append((line, said, written(at)))
                shutil.rmtree(at)
        half = len(answers) // 2
        for here, there in zip(answers[:half], answers[half:], strict=True):
            assert there == here, here[0]
        listed = {entry.name for entry in files.list()}
        assert listed - {".cxrprep/bucket.lock"} == {path.name for path in (tmp_path / "in").iterdir()}
        if kind != "s3":
            return
        assert files.read("one.csv") == (tmp_path / "in" / "one.csv").read_bytes()
        assert files.read("new.toml") == (tmp_path / "in" / "new.toml").read_bytes()
    assert b"s3://lab/nih" in (tmp_path / "in" / "new.toml").read_bytes()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(":")]


NO_BUCKET = [
    "convert root --recipe square-224 --out s3://there-is-none/x",
    "convert root --recipe square-224 --to parquet --out s3://there-is-none/x",
    "export root --format csv --out s3://there-is-none/x.csv",
    "export root --format hf --out s3://there-is-none/x",
    "report root --out s3://there-is-none/page.html",
    "verify root --state s3://there-is-none/x",
    "download nih-chestxray14 s3://there-is-none/x --source root",
    "verify s3://there-is-none/x",
]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_bucket_may_be_named_by_a_path_object(request: pytest.FixtureRequest, tmp_path: Path, kind: type) -> None:
    amazon = request.getfixturevalue("amazon")
    keys = {**amazon.environment, **s3.KEYS, "AWS_DEFAULT_REGION": "us-east-1"}
    bucket = f"s3://{amazon.bucket({}, public=False)}"
    made("nih-chestxray14", tmp_path / "root")
    (tmp_path / "mine.toml").write_bytes(RECIPE.read_bytes())
    with in_this_process(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for name, value in keys.items():
            patch.setenv(name, value)
        made_there = package.convert(tmp_path / "root", recipe=Path("mine.toml"), out=kind(f"{bucket}/out"))
        assert made_there.value.out == f"{bucket}/out"
        assert len(package.load(kind(f"{bucket}/out"))) == made_there.value.images > 0
        again = package.convert(kind(f"{bucket}/out"), recipe="square-224", out=kind(f"{bucket}/more"))
        assert again.value.images == made_there.value.images
        for verb in NO_BUCKET:
            done = cxrprep(*verb.split())
            assert done.returncode == 2, (verb, done)
            assert "bucket" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.toml", "root"]
