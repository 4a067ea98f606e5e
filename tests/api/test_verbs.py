"""The verbs as functions: typed results, events to whoever listens, and a dataset object at the end."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cxrprep
from cxrprep.api.result import Result
from cxrprep.errors import CxrprepError, ExitCode, UsageError
from cxrprep.events import Event, ItemFinished, Note, StageFinished, StageStarted
from tests.generators.small import nih_chestxray14
from tests.integration.mirrors import phantom


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom(tmp_path_factory.mktemp("mirror") / "nih", patients=6, size=64)


class Heard:
    """What a listener hears, and the results of the whole job."""

    def __init__(self, root: Path, mirror: Path) -> None:
        self.root = root
        self.events: list[Event] = []
        listen = self.events.append
        self.results: dict[str, Result[Any]] = {
            "download": cxrprep.download("nih-chestxray14", root, source=str(mirror), on_event=listen),
            "verify": cxrprep.verify(root, on_event=listen),
            "extract-labels": cxrprep.extract_labels(root, on_event=listen),
            "convert": cxrprep.convert(root, recipe="square-224", on_event=listen),
            "manifest": cxrprep.build_manifest(root, on_event=listen),
            "export": cxrprep.export(root, form="csv", on_event=listen),
        }


@pytest.fixture(scope="module")
def heard(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Heard:
    return Heard(tmp_path_factory.mktemp("heard") / "nih", mirror)


VERBS = ("download", "verify", "extract-labels", "convert", "manifest", "export")


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_gives_a_typed_result_that_json_can_hold(heard: Heard, verb: str) -> None:
    result = heard.results[verb]
    assert isinstance(result, Result)
    assert result.exit_code is ExitCode.DONE
    plain = result.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["exit_code"] == 0
    assert result.summary_rows()


@pytest.mark.parametrize("verb", VERBS)
def test_a_listener_hears_the_stage_begin_and_end(heard: Heard, verb: str) -> None:
    of_stage = [event for event in heard.events if event.stage == verb]
    first = next(event for event in of_stage if not isinstance(event, Note))
    assert isinstance(first, StageStarted)
    assert any(isinstance(event, StageFinished) for event in of_stage)


def test_items_are_told_one_by_one(heard: Heard) -> None:
    keys = {e.key for e in heard.events if isinstance(e, ItemFinished) and e.stage == "download" and e.status == "ok"}
    assert "BBox_List_2017.csv" in keys
    assert any(key.endswith(".tar.gz") for key in keys)


def test_nothing_is_printed(mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cxrprep.download("nih-chestxray14", tmp_path / "nih", source=str(mirror))
    assert capsys.readouterr() == ("", "")


def test_a_plan_is_a_value_and_fetches_nothing(mirror: Path, tmp_path: Path) -> None:
    planned = cxrprep.plan("nih-chestxray14", tmp_path / "nih", source=str(mirror))
    assert sum(total.files for total in planned.value.totals().values()) > 0
    assert not (tmp_path / "nih" / "images").exists()


def test_what_was_made_opens_as_a_data_set(heard: Heard) -> None:
    dataset = cxrprep.load(heard.root)
    frame = dataset.to_pandas()
    assert len(dataset) == len(frame) == heard.results["manifest"].value.images
    assert dataset.to_arrow().column_names == list(frame.columns)
    assert str(frame.label_cardiomegaly.dtype) == "Int8"
    small = cxrprep.load(heard.root / "derived" / "square-224").split("test")
    assert all(path.is_file() for path in small.paths())
    assert 0 < len(small) < len(dataset)


def test_a_selection_leaves_images_out(heard: Heard) -> None:
    patient = cxrprep.load(heard.root).to_pandas().patient_id.iloc[0]
    few = cxrprep.load(heard.root, selection=cxrprep.Selection(patients=frozenset({patient})))
    assert set(few.to_pandas().patient_id) == {patient}


def test_one_report_is_labelled_without_any_folder() -> None:
    found = cxrprep.label_report("FINDINGS: No pleural effusion. Possible edema.")
    assert found.labels["Pleural Effusion"] == 0
    assert found.labels["Edema"] == -1


@pytest.mark.parametrize(
    "call",
    [
        lambda: cxrprep.load("nowhere"),
        lambda: cxrprep.verify("nowhere"),
        lambda: cxrprep.download("nih-chestxray15"),
        lambda: cxrprep.download("chexpert", "x", source="kagle"),
    ],
    ids=["load", "verify", "dataset", "source"],
)
def test_errors_are_ours_with_a_next_step(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        call()
    assert isinstance(caught.value, CxrprepError)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in cxrprep.__all__ if name not in ("__version__", "Selection")])
def test_public_functions_are_described_and_typed(name: str) -> None:
    function = getattr(cxrprep, name)
    assert len(function.__doc__.splitlines()[0]) > 20
    signature = inspect.signature(function)
    assert signature.return_annotation is not signature.empty
    assert all(p.annotation is not p.empty for p in signature.parameters.values())


def test_the_static_names_are_the_lazy_ones() -> None:
    import ast

    tree = ast.parse(Path(cxrprep.__file__).read_text(encoding="utf-8"))
    listed = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in node.body
        if isinstance(inner, ast.ImportFrom)
        for alias in inner.names
    }
    assert listed == set(cxrprep.__all__) - {"__version__"}


def test_results_are_short_to_look_at(tmp_path: Path) -> None:
    import cxrprep
    from tests.cli.test_configs import write_mirror

    mirror = write_mirror("nih-chestxray14", tmp_path / "mirror")
    fetched = cxrprep.download("nih-chestxray14", tmp_path / "root", source=str(mirror))
    checked = cxrprep.verify(tmp_path / "root")
    cxrprep.extract_labels(tmp_path / "root")
    dataset = cxrprep.load(tmp_path / "root")
    for shown in (repr(dataset), repr(checked.value)):
        assert "\n" not in shown
        assert len(shown) < 300
        assert "nih-chestxray14" in shown
    assert len(repr(fetched)) < 1000
    assert repr(fetched).startswith("<download: DONE>")


def test_the_reason_of_many_failures_is_said_once(tmp_path: Path) -> None:
    import cxrprep
    from tests.cli.test_configs import write_mirror

    mirror = write_mirror("nih-chestxray14", tmp_path / "mirror")
    plan = cxrprep.plan("nih-chestxray14", tmp_path / "root", source=str(mirror)).value
    for path in mirror.rglob("*.png"):
        path.unlink()
    result = cxrprep.download("nih-chestxray14", tmp_path / "root", source=str(mirror), plan=plan)
    assert result.exit_code != 0
    reasons = [value for label, value in result.rows if not label]
    assert len(reasons) == 2
    assert "for the same reason" in reasons[0]
    assert reasons[1].endswith("failures.parquet")


@pytest.mark.parametrize("interactive", [True, False])
def test_a_person_at_the_prompt_sees_progress_and_a_script_does_not(interactive: bool, tmp_path: Path) -> None:
    from tests.cli.test_configs import write_mirror

    mirror = write_mirror("nih-chestxray14", tmp_path / "mirror")
    code = (
        f"import sys; {'sys.ps1 = str()' if interactive else 'pass'}; import cxrprep\n"
        f"made = cxrprep.download('nih-chestxray14', {str(tmp_path / 'root')!r}, source={str(mirror)!r})\n"
        "print(made.exit_code.name, file=sys.stdout)\n"
        f"cxrprep.verify({str(tmp_path / 'root')!r}, on_event=cxrprep.events.ignore)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "DONE\n"
    assert ("download: " in done.stderr) is interactive
    assert "verify: " not in done.stderr


def test_a_check_that_reads_the_record_part_by_part_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does for a record of more files than are held while tables are read too."""
    from cxrprep.record import loading

    root = tmp_path / "nih"
    nih_chestxray14.write(tmp_path / "release")
    cxrprep.download("nih-chestxray14", root, source=str(tmp_path / "release"))
    first, second, third = sorted((root / "images").iterdir())[:3]
    first.unlink()
    second.write_bytes(b"other")
    third.rename(third.with_name("stranger.png"))
    reports = []
    for most in (loading.FILES_AT_ONCE, 0):
        monkeypatch.setattr(loading, "FILES_AT_ONCE", most)
        shutil.rmtree(root / ".cxrprep")
        reports.append(cxrprep.verify(root, complete=True).value)
    assert reports[0].findings == reports[1].findings
    assert (reports[0].counts, reports[0].facts) == (reports[1].counts, reports[1].facts)
    assert {"missing", "truncated"} <= set(map(str, reports[1].counts))
    assert cxrprep.verify(root, repair=True, source=str(tmp_path / "release")).value.repaired > 0
