"""How a folder stands at every point of its life, and the command that goes on without asking for more."""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
from pathlib import Path

import click
import pytest

import cxrprep
from cxrprep.api.status import Status, again_command, status
from cxrprep.cli.context import Invocation
from cxrprep.cli.main import cli
from cxrprep.collection.dataset_folder import DatasetFolder, open_folder
from cxrprep.collection.file_counts import PartStatus
from cxrprep.config.settings import load_settings
from cxrprep.events import StageStarted, ignore
from cxrprep.model import LabelTest, Selection, Split
from cxrprep.record.last_run import LastRun
from cxrprep.record.record import Record
from cxrprep.selection.options import options_of, selection_of
from tests.integration.mirrors import phantom
from tests.servers.faults import serving

# The function has its module's name.
api_status = importlib.import_module("cxrprep.api.status")


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom(tmp_path_factory.mktemp("mirror") / "nih", patients=5, size=64)


@pytest.fixture(scope="module")
def downloaded(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "nih"
    cxrprep.download("nih-chestxray14", root, source=str(mirror))
    return root


@pytest.fixture
def root(downloaded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(downloaded, tmp_path / "nih"))


def of(root: Path) -> tuple[Status, dict[str, str]]:
    value = status(root).value
    return value, {stage.name: stage.state for stage in value.stages}


def test_who_asked_for_tables_alone_has_them(mirror: Path, tmp_path: Path) -> None:
    wanted = Selection(include=("*.csv",))
    cxrprep.download("nih-chestxray14", tmp_path / "nih", source=str(mirror), selection=wanted)
    value, _ = of(tmp_path / "nih")
    [download] = [stage for stage in value.stages if stage.name == "download"]
    # Without an image it is not called done; that this was meant is said.
    assert (download.state, download.detail.endswith("no image yet of those that were selected")) == (
        "incomplete",
        True,
    )
    assert value.following[0] == f"cxrprep verify {tmp_path / 'nih'}"
    shutil.rmtree(tmp_path / "nih/.cxrprep/asked")
    assert [stage.detail for stage in of(tmp_path / "nih")[0].stages if stage.name == "download"] != [download.detail]


def test_a_run_that_ends_while_the_files_are_counted_goes_on_for_this_look(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the last line of a download that was watched would be ``52 of 54 files``."""
    run = LastRun([root / ".cxrprep"], "download", ["download"])
    parts = api_status.count_parts

    def counted(folder: DatasetFolder) -> tuple[tuple[PartStatus, ...], int]:
        found = parts(folder)
        run.__exit__(None, None)
        return found

    run.__enter__()
    monkeypatch.setattr(api_status, "count_parts", counted)
    assert of(root)[1]["download"] == "running"
    monkeypatch.undo()
    assert of(root)[1]["download"] == "done"


def test_a_stage_that_is_counted_at_its_end_is_not_said_to_have_nothing(root: Path) -> None:
    run = LastRun([root / ".cxrprep"], "extract-labels", ["extract-labels"])
    run.counting(ignore)(StageStarted("extract-labels", unit="rows"))
    with run:
        (stage,) = [one for one in of(root)[0].stages if one.name == "extract-labels"]
    assert (stage.state, stage.detail) == ("running", "counting rows")


@pytest.mark.parametrize("name", ["00000099_000.png", "mine.PNG"])
def test_a_manifest_without_a_new_image_is_older_than_the_files(downloaded: Path, tmp_path: Path, name: str) -> None:
    """Of images that cxrprep did not fetch, of a release and of one's own."""
    images, root = sorted(downloaded.rglob("*.png")), tmp_path / "root"
    root.mkdir()
    for number, image in enumerate(images[:3]):
        shutil.copy(image, root / (image.name if name.startswith("0") else f"{number}.png"))
    for _ in range(2):
        cxrprep.build_manifest(root)
        cxrprep.verify(root)
        _, states = of(root)
        assert (states["manifest"], states["verify"]) == ("done", "done")
        shutil.copy(images[3], root / name)
        _, states = of(root)
        assert (states["manifest"], states["verify"]) == ("older than the files", "older than the files")
        name = name.replace("9", "8").replace("mine", "other")


def test_a_download_is_done_and_labels_come_next(root: Path) -> None:
    value, stages = of(root)
    assert stages["download"] == "done"
    assert stages["extract-labels"] == "not done"
    parts = {part.name: part for part in value.parts}
    assert parts["images"].here == len(list((root / "images").glob("*.png")))
    assert parts["images"].expected == 112_120
    assert parts["tables"].here == 4
    assert value.following == (
        f"cxrprep verify {root}",
        f"cxrprep extract-labels {root}",
        f"cxrprep convert {root} --recipe square-224",
    )


def test_what_was_recorded_and_is_gone_is_missing_and_the_same_download_brings_it_back(
    root: Path, mirror: Path
) -> None:
    min((root / "images").glob("*.png")).unlink()
    value, stages = of(root)
    assert stages["download"] == "incomplete"
    assert next(part for part in value.parts if part.name == "images").missing == 1
    assert value.following[0] == f"cxrprep download nih-chestxray14 {root}"
    cxrprep.download("nih-chestxray14", root)
    assert of(root)[1]["download"] == "done"


def test_a_file_that_the_download_may_not_replace_is_no_download_that_is_done(root: Path, tmp_path: Path) -> None:
    mirror, root = root, tmp_path / "new"
    root.mkdir()
    shutil.copytree(mirror / "images", tmp_path / "lab")
    (root / "images").symlink_to(tmp_path / "lab")
    image = min((tmp_path / "lab").glob("*.png"))
    image.write_bytes(image.read_bytes()[:-1])
    assert cxrprep.download("nih-chestxray14", root, source=str(mirror)).exit_code == 4
    [download] = [stage for stage in status(root).value.stages if stage.name == "download"]
    assert (download.state, download.failed) == ("failed", 1)
    assert status(root).value.following[0] == f"cxrprep download nih-chestxray14 {root}"
    assert status(root).value.trouble == 3
    # What is mended by another verb does not stay there.
    (root / "images").unlink()
    (tmp_path / "lab").rename(root / "images")
    image = root / "images" / image.name
    image.unlink()
    assert cxrprep.verify(root, repair=True).exit_code == 0
    assert of(root)[1]["download"] == "done"


def test_another_size_is_for_verify_to_mend(root: Path) -> None:
    with (root / "BBox_List_2017.csv").open("a") as stream:
        stream.write("x\n")
    value, _ = of(root)
    assert next(part for part in value.parts if part.name == "tables").wrong_size == 1
    assert value.following[0] == f"cxrprep verify {root} --repair"


def test_when_all_is_done_the_report_is_next(root: Path, tmp_path: Path) -> None:
    cxrprep.verify(root)
    cxrprep.extract_labels(root)
    cxrprep.convert(root, recipe="square-224")
    value, stages = of(root)
    assert set(stages.values()) == {"done"}
    assert "convert square-224" in stages
    assert value.following == (f"cxrprep report {root}",)
    # What goes since is not called done, whatever kind of folder it went from.
    own = Path(shutil.copytree(root / "images", tmp_path / "own"))
    for path in own.iterdir():
        path.rename(own / f"scan {path.name}")
    cxrprep.build_manifest(own)
    cxrprep.convert(root, recipe="square-224", out=tmp_path / "shards", to="webdataset")
    derived = root / "derived/square-224"
    for folder in (derived, tmp_path / "shards", own):
        cxrprep.verify(folder)
        assert set(of(folder)[1].values()) == {"done"}
    for path in (root / "images", derived / "images", tmp_path / "shards", own):
        next(file for file in path.iterdir() if file.suffix in (".png", ".tar")).unlink()
    made, old, lost = "convert square-224", "older than the files", "incomplete"
    whole = {"download": lost, "verify": old, "extract-labels": "done", "manifest": old, made: lost}
    assert of(root)[1] == whole
    assert of(derived)[1] == of(tmp_path / "shards")[1] == {made: lost, "verify": old}
    assert of(own)[1] == {"manifest": old, "verify": old}
    # Of a folder without a record its manifest knows.
    for path in root.glob("cxrprep.*"):
        path.unlink()
    assert of(root)[1] == {**whole, "download": "not recorded"}


def test_a_manifest_that_came_out_the_same_is_not_old(root: Path, mirror: Path) -> None:
    cxrprep.extract_labels(root)
    table = root / "BBox_List_2017.csv"
    table.write_bytes(b"x" + table.read_bytes()[1:])
    cxrprep.verify(root, repair=True, source=str(mirror))
    # The repair is later than the manifest, which is of the same bytes as before, and is not written again.
    os.utime(root / "manifests/images.parquet", (0, 0))
    cxrprep.extract_labels(root)
    assert (root / "manifests/images.parquet").stat().st_mtime == 0
    value, states = of(root)
    assert value.following[0] == f"cxrprep convert {root} --recipe square-224"
    assert states["manifest"] == "done"


def test_a_manifest_of_fewer_files_than_are_here_is_old(mirror: Path, tmp_path: Path) -> None:
    cxrprep.download("nih-chestxray14", tmp_path / "nih", source=str(mirror), selection=Selection(limit=2))
    cxrprep.extract_labels(tmp_path / "nih")
    assert of(tmp_path / "nih")[1]["manifest"] == "done"
    table = tmp_path / "nih/manifests/images.parquet"
    before = table.read_bytes()
    cxrprep.download("nih-chestxray14", tmp_path / "nih", source=str(mirror))
    # As one that was carried over from before; the record's time is in whole seconds, and this takes less than one.
    table.write_bytes(before)
    os.utime(table, (0, 0))
    value, states = of(tmp_path / "nih")
    assert states["manifest"] == "older than the files"
    assert f"cxrprep manifest {tmp_path / 'nih'}" in value.following


def test_a_folder_that_others_made_is_adopted_by_verify(downloaded: Path, tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    shutil.copytree(downloaded, root, ignore=shutil.ignore_patterns("cxrprep.*", ".cxrprep"))
    value, stages = of(root)
    assert not value.recorded
    assert stages["download"] == "not recorded"
    assert value.following[0] == f"cxrprep verify {root}"
    assert not (root / ".cxrprep").exists()


def test_a_state_folder_is_named_in_what_comes_next(downloaded: Path, tmp_path: Path) -> None:
    root, state = tmp_path / "theirs", tmp_path / "my state"
    shutil.copytree(downloaded, root, ignore=shutil.ignore_patterns("cxrprep.*", ".cxrprep"))
    value = status(root, state=state).value
    assert value.following[0] == f"cxrprep verify {root} --state '{state}'"


SELECTIONS = [
    Selection(),
    Selection(include=("files/p10/**", "*.csv.gz"), exclude=("*.pdf",)),
    Selection(patients=frozenset({"10000032"}), studies=frozenset({"50414267", "53189527"})),
    Selection(splits=frozenset({Split.TEST, Split.VALIDATE}), views=frozenset({"frontal"})),
    Selection(labels=(LabelTest("Pleural Effusion", -1), LabelTest("Edema", None)), limit=9),
    Selection(sample=100, seed=20),
    Selection(patients=frozenset(map(str, range(10_000_000, 10_000_400)))),
    Selection(studies=frozenset(map(str, range(50_000_000, 50_000_006))), limit=3),
    Selection(images=frozenset({"1a2b", "a,b", "#c"})),
]


@pytest.mark.parametrize("selection", SELECTIONS, ids=range(len(SELECTIONS)))
def test_the_command_that_goes_on_asks_for_what_was_asked(selection: Selection, tmp_path: Path) -> None:
    root = tmp_path / "my data"
    root.mkdir()
    record = Record.open(root)
    record.describe(dataset="mimic-cxr-jpg", release="2.1.0", mirror="physionet://mimic-cxr-jpg/2.1.0")
    record.select(selection)
    words = shlex.split(again_command(open_folder(root)))
    assert words[:4] == ["cxrprep", "download", "mimic-cxr-jpg", str(root)]
    invocation = Invocation(words[1:])
    command = cli.get_command(click.Context(cli), "download")
    assert command is not None
    command.make_context("download", words[2:], parent=click.Context(cli, obj=invocation))
    settings = load_settings(flags=invocation.flags, environment={"XDG_CONFIG_HOME": str(tmp_path)}, folder=tmp_path)
    assert selection_of(settings.job.selection) == selection


def test_a_list_of_ids_that_is_gone_is_written_again(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    record.describe(dataset="nih-chestxray14", release="v2020")
    record.select(Selection(images=frozenset({"a", "b"})))
    command = again_command(open_folder(tmp_path), ("--ids", str(tmp_path / ("theirs" * 60 + ".csv"))))
    listed = Path(shlex.split(command)[-1])
    assert shlex.split(command)[-2] == "--ids"
    assert listed.read_text() == "image_id\na\nb\n"
    assert "theirs" not in command


def test_ids_are_listed_where_the_users_cache_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (option,) = options_of(Selection(images=frozenset({"a"})))
    assert Path(shlex.split(option)[1]).read_text() == "image_id\na\n"


def test_what_was_refused_is_missing_and_failed_until_it_comes(mirror: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    files = {path.name: path.read_bytes() for path in mirror.iterdir() if path.name != "MD5SUMS"}
    root = tmp_path / "nih"
    with serving(files, forbidden=r"BBox_List") as server:
        result = cxrprep.download("nih-chestxray14", root, source=server.url)
        assert result.value.failed == 1
        (row,) = pq.read_table(root / "manifests" / "failures.parquet").to_pylist()
        assert (row["path"], row["stage"]) == ("BBox_List_2017.csv", "download")
        assert row["message"]
        value, stages = of(root)
        assert stages["download"] == "incomplete"
        assert next(part for part in value.parts if part.name == "tables").missing == 1
        assert next(stage for stage in value.stages if stage.name == "download").failed == 1
        server.faults.forbidden = None
        cxrprep.download("nih-chestxray14", root, source=server.url)
    assert of(root)[1]["download"] == "done"
    assert not (root / "manifests" / "failures.parquet").exists()
