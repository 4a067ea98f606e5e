"""The verbs of Python take the options of the commands by their names, and do the same with them."""

from __future__ import annotations

import inspect
import re
import shutil
from typing import TYPE_CHECKING

import click
import pytest

import cxrprep
from cxrprep.cli.main import cli
from cxrprep.config.job import KEYS
from cxrprep.errors import UsageError
from tests.generators.small import nih_chestxray14
from tests.labels.nlp.test_label_sources import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What concerns the terminal and files of settings: a Python caller has the value itself, an exception and ``on_event``.
OUTPUT = {"json", "quiet", "events", "color", "log_file", "config"}
# In Python the environment's CXRPREP_CATALOG, or a path in the place of the dataset's name.
OUTPUT |= {"catalog"}
VERBS = {
    "manifest": ("build_manifest",),
    "explain": ("label_report",),
    "convert": ("convert", "preview", "check_phi"),
    "extract-labels": ("extract_labels", "label_reports", "import_labels", "compare_labels"),
    "download": ("download", "plan"),
    # Their further options are those of load, which they call.
    "digest": ("digest", "load"),
    "prove": ("prove", "load"),
}
# Commands about the program, its catalog and its settings, and not about a folder.
NO_VERB = {"datasets", "config", "completion"}
# Options with another name in Python, or another function.
OTHERWISE = {
    ("download", "dry_run"): "cxrprep.plan",
    ("download", "save_plan"): "cxrprep.planning.save_plan(PLAN, FILE)",
    ("download", "from_plan"): "download(plan=FILE)",
    ("convert", "preview"): "cxrprep.preview(count=N)",
    ("convert", "check_phi"): "cxrprep.check_phi",
    ("extract-labels", "compare"): "cxrprep.compare_labels(FIRST, SECOND)",
    ("extract-labels", "also"): "cxrprep.compare_labels(FIRST, SECOND, *MORE)",
    ("extract-labels", "import"): "cxrprep.import_labels(ROOT, FILE, name=NAME)",
    ("extract-labels", "compat"): "label_reports(policy='chexpert-labeler')",
    ("explain", "compat"): "label_report(policy='chexpert-labeler')",
    ("explain", "file"): "label_report(text)",
    ("explain", "vocabulary"): "label_report(rules=FILE)",
    ("explain", "selftest"): "a check of the installation; the tests of a project have their own examples",
    ("manifest", "tables"): "refused by the command: it reads no tables",
    ("run", "dry_run"): "cxrprep.plan; the other steps do what is not done yet",
    ("status", "roots"): "status(root), a folder at a time",
    ("status", "check"): "an exit code; Python has the state of each stage",
    ("status", "watch"): "a screen that is drawn again",
    ("status", "every"): "a screen that is drawn again",
    ("doctor", "limit_rate"): "nothing is fetched",
    ("doctor", "connections"): "nothing is fetched",
    ("doctor", "cookie_file"): "doctor(credentials=...)",
    ("doctor", "url_file"): "doctor(credentials=...)",
    ("doctor", "user_agent"): "asked of nobody by doctor",
    ("doctor", "requester_pays"): "asked of nobody by doctor",
}


def options() -> Iterator[tuple[str, str]]:
    """Each command with each of its options, by the name that click hands over."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        if name not in NO_VERB:
            yield from ((name, str(option.name)) for option in command.params if option.name not in OUTPUT)


def taken(name: str) -> set[str]:
    """What a verb takes by name: its parameters, and the keywords that it lists when it refuses one."""
    verb = getattr(cxrprep, name)
    parameters = inspect.signature(verb).parameters.values()
    found = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
    if len(found) < len(parameters):
        needed = {each.name: "0" * 64 for each in parameters if each.name in found and each.default is each.empty}
        needed["root"] = "."
        with pytest.raises(UsageError, match="unknown option 'no_such_word'") as refused:
            verb(**needed, no_such_word=1)
        found |= set(re.findall(r"\w+", str(refused.value.hint).partition("known: ")[2]))
    return found


def test_every_option_of_a_command_is_one_in_python() -> None:
    listed = set(options())
    verbs = {name: VERBS.get(name, (name.replace("-", "_"),)) for name, _ in listed}
    known = {name: set().union(*map(taken, functions)) for name, functions in verbs.items()}
    missing = {(name, option) for name, option in listed if option not in known[name]}
    assert missing == set(OTHERWISE), (missing - set(OTHERWISE), set(OTHERWISE) - missing)


# What Python calls otherwise than job files do; texts whose choices a verb of Python has under the same name.
RENAMED = {"thumbnails": "report.images", "count": "convert.preview", "engine": "engine.name", "form": "export.format"}
WORDS = ("download.link", "labels.uncertain", "labels.blank", "convert.to", "split.within", "selection.view")


def refused() -> Iterator[tuple[str, str, object]]:
    """Each verb with each of its options that has limits, and a value that job files and the command line refuse."""
    named = {key.name.rpartition(".")[2]: key for key in KEYS.values() if key.low is not None or key.name in WORDS}
    named |= {name: KEYS[key] for name, key in RENAMED.items()}
    signatures = {name: inspect.signature(getattr(cxrprep, name)).parameters for name in cxrprep._MODULES}
    for verb in ("doctor", *(name for name in signatures.keys() - {"run"} if "on_event" in signatures[name])):
        for name in sorted(taken(verb) & named.keys()):
            key = named[name]
            # Of verify, ``images`` is another setting; of pairs, ``form`` has other choices.
            if (verb, name) != ("verify", "images"):
                limits = (None if key.low is None else key.low - 1, None if key.high is None else key.high + 1)
                yield from ((verb, name, limit) for limit in limits if limit is not None)
                if limits == (None, None):
                    yield verb, name, "no such word"


def test_what_job_files_and_the_command_line_refuse_python_refuses(tmp_path: Path) -> None:
    released = tmp_path / "nih"
    nih_chestxray14.write(released)
    cxrprep.extract_labels(released)
    found = list(refused())
    assert {("convert", "per_shard", 0), ("report", "thumbnails", 501), ("plan", "connections", 0)} <= set(found)
    for verb, name, value in found:
        needed = {"recipe": "square-224"} if verb in ("convert", "preview") and name != "recipe" else {}
        needed |= {"form": "csv"} if verb == "export" and name != "form" else {}
        first = {"download": "nih", "plan": "nih", "prove": "0" * 64, "doctor": released}.get(verb, released)
        more = [released / "BBox_List_2017.csv"] if verb == "import_labels" else []
        more += [released] if verb in ("prove", "download", "plan") else []
        with pytest.raises(UsageError) as caught:
            getattr(cxrprep, verb)(first, *more, **needed, **{name: value})
        assert re.search(name.replace("_", ".") + "|" + re.escape(str(value)), str(caught.value)), (verb, name, value)
        assert caught.value.hint, (verb, name, value)


def test_no_option_has_limits_that_its_setting_has_not() -> None:
    context = click.Context(cli)
    commands = [cli.get_command(context, name) for name in cli.list_commands(context)]
    parameters = [parameter for command in commands if command for parameter in command.params]
    ranged = [p.opts for p in parameters if isinstance(p.type, click.IntRange | click.FloatRange)]
    # Of those that are no setting, one has its limit from the setting of the step.
    assert ranged == [["--preview"], ["--every"]]
    assert KEYS["convert.preview"].low == 1


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    nih_chestxray14.write(folder)
    return folder


def tables(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "manifests").glob("*.parquet"))}


def test_they_do_what_the_options_do(released: Path, tmp_path: Path) -> None:
    command, python = tmp_path / "command" / "nih", tmp_path / "python" / "nih"
    wanted = {"split": "test", "then": "square-224", "discard_raw": True, "limit_rate": "20M", "connections": 2}
    assert not cxrprep.download("nih-chestxray14", python, source=str(released), tables=released, **wanted).exit_code
    words = ["--split", "test", "--then", "square-224", "--discard-raw", "--limit-rate", "20M", "--connections", "2"]
    run("download", "nih-chestxray14", command, "--source", released, "--tables", released, *words)
    assert not list(python.glob("images/**/*.png"))
    assert tables(python / "derived/square-224") == tables(command / "derived/square-224")
    for root in (command, python):
        shutil.copytree(released, root, dirs_exist_ok=True)
    divided = {"split_by": "patient", "fractions": (0.5, 0.25, 0.25), "seed": 3, "stratify": ["Edema"]}
    cxrprep.extract_labels(python, uncertain="ones", report_text=False, **divided)
    words = ["--split-by", "patient", "--fractions", "0.5,0.25,0.25", "--seed", "3", "--stratify", "Edema"]
    run("extract-labels", command, "--uncertain", "ones", "--no-report-text", *words)
    assert tables(python) == tables(command)
    cxrprep.build_manifest(python, split_within="train_val", fractions="0.9,0.1", folds=3)
    run("manifest", command, "--split-within", "train_val", "--fractions", "0.9,0.1", "--folds", "3")
    assert tables(python) == tables(command)
    made = cxrprep.convert(python, recipe="square-224", shard="1/2", engine="inline", max_seconds=60, split="train_val")
    assert 0 < made.value.images < len(cxrprep.load(python, split="train"))
    assert cxrprep.verify(python, images=True, strict=True, accept="unproven,wrong-mode", jobs=1).to_dict()["images"]
    digest = cxrprep.digest(python, folds=3, split=["train", "test"], uncertain="ones").value.value
    words = ["--folds", "3", "--split", "train,test", "--uncertain", "ones"]
    assert f"\n{digest}\n" in run("digest", command, *words)


def test_another_dataset_than_the_one_that_is_here_is_refused(released: Path, tmp_path: Path) -> None:
    shutil.copytree(released, tmp_path / "nih")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "1.txt").write_text("FINDINGS: none")
    run("extract-labels", tmp_path / "nih")
    for words in (
        ["export", "--format", "csv"],
        ["digest"],
        ["prove", "0" * 64],
        ["duplicates"],
        ["pairs", "--reports", tmp_path / "reports"],
    ):
        said = run(*words, tmp_path / "nih", "--dataset", "chexpert", code=2)
        assert "holds nih-chestxray14, as its manifest says, not chexpert" in said
    with pytest.raises(UsageError, match="not chexpert"):
        cxrprep.load(tmp_path / "nih", dataset="chexpert")
    assert cxrprep.load(tmp_path / "nih", dataset="nih").name == "nih-chestxray14"
