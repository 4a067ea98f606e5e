"""Settings come from six places, the strongest wins, and each value remembers who set it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrprep.config.job import (
    KEYS,
    SelectionSettings,
    parse_fractions,
    parse_label,
    parse_rate,
    parse_split,
    parse_view,
)
from cxrprep.config.settings import Settings, expand, load_settings, user_file
from cxrprep.errors import ConfigError, UsageError, did_you_mean
from cxrprep.model import LabelTest, Selection, Split
from cxrprep.selection.options import selection_of
from tests.config.jobs import settings_of


def load(tmp_path: Path, **options: Any) -> Settings:
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), **options.pop("environment", {})}
    return load_settings(environment=environment, folder=tmp_path, **options)


def test_the_strongest_place_wins_and_is_remembered(tmp_path: Path) -> None:
    user = tmp_path / "xdg" / "cxrprep" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text('[download]\nsource = "user"\ntimeout = 1\nuser_agent = "u"\nthen = "u"\nlimit_rate = "1k"\n')
    (tmp_path / "cxrprep.toml").write_text('[download]\nsource = "local"\ntimeout = 2\nuser_agent = "l"\nthen = "l"\n')
    config = tmp_path / "job.toml"
    config.write_text('[download]\nsource = "job"\ntimeout = 3\nuser_agent = "j"\n')
    settings = load(
        tmp_path,
        config=config,
        environment={"CXRPREP_DOWNLOAD_SOURCE": "env", "CXRPREP_DOWNLOAD_TIMEOUT": "4"},
        flags={"download.source": ("flag", "--source")},
    )
    got = {
        name: (settings.value(f"download.{name}"), settings.origins[f"download.{name}"])
        for name in ("source", "timeout", "user_agent", "then", "limit_rate", "link")
    }
    assert got == {
        "source": ("flag", "--source"),
        "timeout": (4.0, "CXRPREP_DOWNLOAD_TIMEOUT"),
        "user_agent": ("j", f"{config}, line 4"),
        "then": ("l", f"{tmp_path / 'cxrprep.toml'}, line 5"),
        "limit_rate": ("1k", f"{user}, line 6"),
        "link": ("copy", "default"),
    }
    assert settings.files == (user, tmp_path / "cxrprep.toml", config)


def test_config_may_be_named_by_a_variable(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('dataset = "chexpert"\n')
    settings = load(tmp_path, environment={"CXRPREP_CONFIG": str(tmp_path / "other.toml")})
    assert settings.job.dataset == "chexpert"


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ('dataset = "x"\ndatset = "y"\n', 2, "unknown key 'datset'", "did you mean dataset?"),
        ('\n[download]\n# a comment\nsorce = "box"\n', 4, "unknown key 'download.sorce'", "did you mean source?"),
        ("[dowload]\nx = 1\n", 1, "unknown key 'dowload'", "did you mean download?"),
        ('recipe = "square-224"\n', 1, "unknown key 'recipe'", "did you mean convert.recipe?"),
        ("[convert]\nworkers = 4\n", 2, "unknown key 'convert.workers'", "did you mean engine.jobs?"),
        ('[export]\nrecip = "square-224"\n', 2, "unknown key 'export.recip'", "did you mean convert.recipe?"),
        ('[download]\n"billing-project" = "p"\n', 2, "unknown key", "did you mean billing_project?"),
        ("download.sorce = 1\n", 1, "unknown key 'download.sorce'", "did you mean source?"),
        ("[verify]\nimages = 1\n", 2, "expected true or false, found 1", ""),
        ("[verify]\nsample = true\n", 2, "expected a whole number, found true", ""),
        ("[selection]\nlimit = 0\n", 2, "0 is too small", "the smallest is 1"),
        ("[report]\nimages = 501\n", 2, "501 is too large", "the largest is 500"),
        ('[labels]\nuncertain = "one"\n', 2, "unknown value 'one'", "did you mean ones?"),
        ('[labels.uncertain_by]\nEdema = "sometimes"\n', 1, "unknown value 'sometimes'", "known: keep, ones"),
        ('steps = ["download", "convrt"]\n', 1, "unknown value 'convrt'", "did you mean convert?"),
        ('[selection]\nview = ["front"]\n', 2, "'front' is not a view", ""),
        ('[download]\nlimit_rate = "fast"\n', 2, "'fast' is not a rate", ""),
        ("dataset = 3\n", 1, "expected text, found 3", ""),
        ("download = 3\n", 1, "download is a section", "[download]"),
        ("dataset = nih\n", 1, "", "text needs quotes"),
        ('root = "nih\n', 1, "", 'text needs quotes: root = "nih"'),
        ("dataset = nih  # the large one\n", 1, "", 'text needs quotes: dataset = "nih"'),
        ("dataset = “nih”\n", 1, "", 'text needs quotes: dataset = "nih"'),
        ("root =\n", 1, "", 'text needs quotes: root = "..."'),
        ('root = "a\x01b"\n', 1, "", "the line has a control character in it"),
        ('root = "x"\x01\n', 1, "", "the line has a control character in it"),
        ('root = "C:\\data\\nih"\n', 1, "", "text with a backslash needs single quotes: root = 'C:\\data\\nih'"),
        ("[verify]\nstrict = True\n", 2, "", "true, false and numbers are written so: strict = true"),
        ("[selection]\nlimit = 010\n", 2, "", "true, false and numbers are written so: limit = 10"),
        ('steps = ["download" "verify"]\n', 1, "", 'a list is written so: steps = ["download", "verify"]'),
        ("steps = [download, 'verify']\n", 1, "", 'a list is written so: steps = ["download", "verify"]'),
        ('[labels]\nobservations = ["Pleural Effusion" Edema\n', 2, "", '= ["Pleural Effusion", "Edema"]'),
        ('dataset = "nih" root = "x"\n', 1, "", "a line is one KEY = VALUE"),
        ("[labels.uncertain_by]\nnomé = 1\n", 2, "", 'a key with "é"'),
    ],
)
def test_a_wrong_file_is_named_with_its_line_and_the_nearest_name(
    tmp_path: Path, text: str, line: int, message: str, hint: str
) -> None:
    config = tmp_path / "job.toml"
    config.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, config=config)
    assert f"{config}, line {line}" in str(caught.value)
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load(tmp_path, config=tmp_path / "nowhere.toml")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"job\.toml: it is not UTF-8"):
        load(tmp_path, config=tmp_path / "job.toml")


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_bytes(b'\xef\xbb\xbfdataset = "chexpert"\r\n')
    assert load(tmp_path, config=tmp_path / "job.toml").job.dataset == "chexpert"


def test_variables_are_read_in_their_type(tmp_path: Path) -> None:
    environment = {
        "CXRPREP_ROOT": "/data",
        "CXRPREP_VERIFY_IMAGES": "yes",
        "CXRPREP_SELECTION_LIMIT": "5",
        "CXRPREP_SELECTION_SPLIT": "train, valid",
        "CXRPREP_DOWNLOAD_TIMEOUT": "2.5",
    }
    job = load(tmp_path, environment=environment).job
    assert (job.root, job.verify.images, job.selection.limit) == ("/data", True, 5)
    assert job.selection.split == ("train", "valid")
    assert job.download.timeout == 2.5


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CXRPREP_VERIFY_IMAGES", "maybe"), ("CXRPREP_SELECTION_LIMIT", "many"), ("CXRPREP_OUTPUT_FORMAT", "yaml")],
)
def test_a_wrong_variable_is_named(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=variable):
        load(tmp_path, environment={variable: value})


def test_a_variable_that_sets_nothing_is_said(tmp_path: Path) -> None:
    settings = load(tmp_path, environment={"CXRPREP_DOWNLOAD_SORCE": "x", "CXRPREP_DEBUG": "1"})
    assert settings.notes == ("CXRPREP_DOWNLOAD_SORCE sets nothing. did you mean CXRPREP_DOWNLOAD_SOURCE?",)


def test_a_wrong_flag_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--shard"):
        load(tmp_path, flags={"shard": ("0/4", "--shard")})


def test_single_observations_have_policies_of_their_own(tmp_path: Path) -> None:
    job = settings_of('[labels.uncertain_by]\n"Pleural Effusion" = "ones"\nEdema = "zeros"\n', tmp_path).job
    assert job.labels.uncertain_by == {"Pleural Effusion": "ones", "Edema": "zeros"}


def test_one_word_stands_for_a_list_of_one(tmp_path: Path) -> None:
    assert settings_of('[selection]\nsplit = "test"\n', tmp_path).job.selection.split == ("test",)


def test_the_user_file_follows_xdg(tmp_path: Path) -> None:
    assert user_file({"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "cxrprep" / "config.toml"


def test_paths_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    assert expand("$SCRATCH/nih") == Path("/scratch/me/nih")
    assert expand("~/x") == Path.home() / "x"


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOSUCH", raising=False)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("${SCRATCH}/x", "/scratch/x"),
        ("${SCRATCH:-/tmp}/x", "/scratch/x"),
        ("${NOSUCH:-/tmp}/x", "/tmp/x"),
        ("${EMPTY:-/tmp}/x", "/tmp/x"),
        ("${NOSUCH:-$SCRATCH}/x", "/scratch/x"),
        ("${NOSUCH:-${SCRATCH}/a}/x", "/scratch/a/x"),
        ("a${NOSUCH:-}/x", "a/x"),
    ],
)
@pytest.mark.usefixtures("variables")
def test_variables_have_defaults_as_in_a_shell(text: str, path: str) -> None:
    assert expand(text) == Path(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${NOSUCH:-$ALSO}/x", "the variable ALSO is not set"),
        ("${EMPTY}/x", "the variable EMPTY is not set"),
        ("${SCRATCH:+y}/x", "a variable is $NAME"),
        ("${SCRATCH/x", "a variable is $NAME"),
        ("${}/x", "a variable is $NAME"),
        ("$(whoami)/x", "a variable is $NAME"),
        ("~nobody-of-this-name/x", "no home folder is known for ~nobody-of-this-name"),
    ],
)
@pytest.mark.usefixtures("variables")
def test_what_no_variable_stands_for_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        expand(text)


def test_every_key_has_help_and_a_variable_of_its_own() -> None:
    assert all(key.help for key in KEYS.values())
    assert len({key.variable for key in KEYS.values()}) == len(KEYS)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("20M", 20_000_000), ("500 kB/s", 500_000), ("1.5Gi", 1_610_612_736), ("800", 800), ("1mb", 10**6)],
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0", "-5M", "fast", "1 T", "0.1"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(text)


def test_fractions_sum_to_one() -> None:
    assert parse_fractions("0.8,0.1,0.1") == (0.8, 0.1, 0.1)
    for text in ("0.8", "0.8,0.3", "1,0", "a,b", "0.5,0.5,0", "0.25,0.25,0.25,0.25"):
        with pytest.raises(ValueError, match="are not fractions"):
            parse_fractions(text)


def test_labels_views_and_splits_as_people_write_them() -> None:
    assert parse_label("Pleural Effusion") == LabelTest("Pleural Effusion", 1)
    assert parse_label("Edema=-1") == LabelTest("Edema", -1)
    assert parse_label("Edema=NULL") == LabelTest("Edema", None)
    assert (parse_view("pa"), parse_view("Frontal"), parse_view("ap-axial")) == ("PA", "frontal", "AP_AXIAL")
    assert parse_split("valid") is Split.VALIDATE
    for parse, text in ((parse_label, "=1"), (parse_label, "Edema=2"), (parse_view, "up"), (parse_split, "dev")):
        with pytest.raises(ValueError, match="is not a"):
            parse(text)


def test_a_selection_of_nothing_in_particular_is_everything() -> None:
    assert selection_of(SelectionSettings()).is_everything
    wanted = SelectionSettings(split=("valid",), view=("frontal",), label=("Edema=0",), limit=3, patients=("p1",))
    assert selection_of(wanted) == Selection(
        patients=frozenset({"p1"}),
        splits=frozenset({Split.VALIDATE}),
        views=frozenset({"frontal"}),
        labels=(LabelTest("Edema", 0),),
        limit=3,
    )


@given(
    st.dictionaries(
        st.sampled_from(
            [k for k in KEYS if KEYS[k].kind == "str" and not KEYS[k].choices and KEYS[k].form in ("", "path")]
        ),
        st.text(),
        max_size=5,
    )
)
def test_flags_come_out_as_they_went_in(values: dict[str, str]) -> None:
    settings = load_settings(
        environment={"XDG_CONFIG_HOME": "/nowhere"},
        folder=Path("/nowhere"),
        flags={name: (value, "--flag") for name, value in values.items()},
    )
    assert all(settings.value(name) == value for name, value in values.items())
    assert {n for n, o in settings.origins.items() if o == "--flag"} == set(values)


@given(st.text(max_size=200))
def test_any_text_is_a_job_or_a_named_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    message = str(folder / "job.toml")
    try:
        settings_of(text, folder)
    except ConfigError as error:
        message = str(error)
    assert message.startswith(str(folder / "job.toml"))


def test_nothing_is_suggested_when_nothing_is_near_and_all_that_a_word_is_a_part_of() -> None:
    assert did_you_mean("zzz", KEYS) == ""
    assert did_you_mean("", KEYS) == did_you_mean("-", KEYS) == ""
    recipes = ["shortest-512", "square-224", "square-224-fast", "xrv-224"]
    assert did_you_mean("224", recipes) == "did you mean square-224, square-224-fast or xrv-224? "
    assert did_you_mean("Square", recipes) == "did you mean square-224 or square-224-fast? "
    assert did_you_mean("xrv224", recipes) == "did you mean xrv-224? "
    assert did_you_mean("rate", ["limit_rate", "timeout"]) == "did you mean limit_rate? "
    # The dashes of options are alike, and say nothing.
    assert did_you_mean("--size", ["--view", "--recipe"]) == did_you_mean("workers", ["scores", "recipe"]) == ""


@pytest.mark.parametrize("word", ["--workers", "--num-workers", "n_jobs", "threads", "--cores", "processes", "--JOBS"])
def test_what_other_programs_call_it_is_known(word: str) -> None:
    assert did_you_mean(word, ["--scores", "--where", "--preview", "--jobs"]) == "did you mean --jobs? "
    assert did_you_mean("--output", ["--jobs", "--out"]) == "did you mean --out? "
