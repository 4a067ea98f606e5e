"""What Python callers have: the options of the commands by their names, and a data set that shows itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

import cxrprep
from cxrprep.errors import UsageError
from cxrprep.model import Selection, Split
from cxrprep.transfer.result import Outcome, OutcomeStatus, TransferResult
from tests.generators.small import nih_chestxray14
from tests.manifest.made import made


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return made("nih-chestxray14", tmp_path_factory.mktemp("nih"))


def test_a_data_set_iterates_and_indexes(nih):
    data = cxrprep.load(nih, uncertain="ignore")
    rows = list(data)
    assert len(rows) == len(data) == 7
    for index, row in enumerate(rows):
        assert data[index] == row
        assert data[index - 7] == row
        assert row["labels"] == data.labels().to_pylist()[index]
        assert row["mask"] == data.mask().to_pylist()[index]
        assert row["image_id"] == data.stated.column("image_id")[index].as_py()
    assert [row["image_id"] for row in data[1:4]] == [row["image_id"] for row in rows[1:4]]
    assert len(data[5:]) == 2
    with pytest.raises(IndexError):
        data[7]


def test_it_shows_itself_in_a_few_lines(nih):
    data = cxrprep.load(nih)
    assert len(repr(data).splitlines()) <= 4
    assert len(repr(data)) < 400
    shown = data._repr_html_()
    assert "<table>" in shown
    assert "test" in shown
    assert "<script" not in shown
    assert len(shown) < 2000


def test_results_show_themselves_in_a_line_however_much_they_hold(nih, tmp_path):
    listed = replace(cxrprep.status(nih).value, stages=tuple(cxrprep.status(nih).value.stages) * 1000)
    wanted = cxrprep.plan("nih-chestxray14", tmp_path / "new", source=str(nih)).value
    many = replace(wanted, items=list(wanted.items) * 1000)
    found = [
        listed,
        many,
        cxrprep.export(nih, form="csv", out=tmp_path / "out").value,
        cxrprep.digest(nih).value,
        cxrprep.doctor(offline=True).value,
        TransferResult(done=3, failures=[Outcome(item, OutcomeStatus.ERROR) for item in many.items]),
    ]
    for value in found:
        assert repr(value).startswith(type(value).__name__)
        assert "\n" not in repr(value)
        assert len(repr(value)) < 600
    assert f"items=<{len(many):,} items>" in repr(many)
    assert f"failures=<{len(many):,} items>" in repr(found[-1])
    # What has its default is left out.
    assert repr(found[-1]).count("=") == 2


@pytest.mark.parametrize("words", [{"split": "test"}, {"selection": {"split": "test"}}, {"split": ["test"]}])
def test_the_options_of_the_commands_select(nih, tmp_path, words):
    wanted = len(cxrprep.load(nih, split="test"))
    assert cxrprep.export(nih, form="csv", out=tmp_path / "out", **words).value.images == wanted
    made = cxrprep.convert(nih, recipe="square-224", out=tmp_path / "small", engine="inline", **words)
    assert made.value.images == wanted


def test_words_and_a_selection_add_up(nih, tmp_path):
    both = {"selection": Selection(splits=frozenset({Split.TEST})), "limit": 1}
    assert cxrprep.export(nih, form="csv", out=tmp_path, **both).value.images == 1
    assert len(cxrprep.load(nih, limit=3)) == 3
    assert len(cxrprep.load(nih, patients="1,2")) == len(cxrprep.load(nih, patients=["00000001", 2]))


def test_a_word_that_is_no_option_is_said(nih):
    with pytest.raises(UsageError, match="unknown option 'splits'") as caught:
        cxrprep.load(nih, splits="test")
    assert "did you mean split?" in caught.value.hint


def test_status_and_report_are_functions(nih, tmp_path):
    assert cxrprep.status(nih).value.dataset == "nih-chestxray14"
    cxrprep.report(nih, out=tmp_path / "report.html")
    assert (tmp_path / "report.html").is_file()


def test_a_job_file_runs_as_from_the_command_line(tmp_path):
    released = tmp_path / "released"
    nih_chestxray14.write(released)
    job = tmp_path / "job.toml"
    job.write_text(
        f"""steps = ["download", "extract-labels", "convert"]
dataset = "nih-chestxray14"
root = "{tmp_path / "somewhere"}"
[download]
source = "{released}"
[convert]
recipe = "square-224"
"""
    )
    events = []
    made = cxrprep.run(job, root=tmp_path / "nih", on_event=events.append)
    assert made.exit_code == 0, made
    assert [step.step for step in made.value.steps] == ["download", "extract-labels", "convert"]
    assert made.value.skipped == ()
    assert len(cxrprep.load(tmp_path / "nih" / "derived" / "square-224")) == 7
    assert not (tmp_path / "somewhere").exists()
    assert events
    again = cxrprep.run(job, root=tmp_path / "nih", steps=["convert"])
    assert [step.step for step in again.value.steps] == ["convert"]
    assert again.to_dict()["steps"][0]["result"]["kept"] == 7
    with pytest.raises(UsageError, match="dream"):
        cxrprep.run(job, steps=["dream"])


def test_a_job_that_stops_says_what_was_not_reached(tmp_path):
    job, empty = tmp_path / "job.toml", tmp_path / "empty"
    empty.mkdir()
    job.write_text(
        f"""steps = ["download", "extract-labels"]
dataset = "nih-chestxray14"
root = "{tmp_path / "nih"}"
[download]
source = "{empty}"
"""
    )
    made = cxrprep.run(job)
    assert made.exit_code
    assert made.value.skipped == ("extract-labels",)


def test_doctor_gives_its_checks(tmp_path):
    made = cxrprep.doctor(tmp_path, dataset="nih-chestxray14", offline=True)
    names = {check.name for check in made.value.checks}
    assert {"cores", "codec cv2"} <= names
    assert made.to_dict()["exit_code"] == made.exit_code == made.value.exit_code
    with pytest.raises(UsageError, match="unknown dataset"):
        cxrprep.doctor(dataset="dreams")
    with pytest.raises(UsageError, match="'physonet' is not a mirror of any dataset") as caught:
        cxrprep.doctor(source="physonet", offline=True)
    assert caught.value.hint.startswith("did you mean physionet? ")
    logins = {check.name for check in cxrprep.doctor(source="physionet", offline=True).value.checks}
    assert "login physionet" in logins
    assert "login kaggle" not in logins
