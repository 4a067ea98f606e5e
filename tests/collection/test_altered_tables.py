"""A table whose footer was altered: no page's checksum covers that, and what leaves the tool is held to the list."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cxrprep as package
from tests.api.convert import hospital
from tests.commands import cxrprep, ok
from tests.manifest.made import made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("altered")
    made("nih-chestxray14", home / "release")
    ok("convert", "release", "--recipe", "square-224", "--out", "converted", cwd=home)
    studies = sorted(set(pq.read_table(home / "release/manifests/studies.parquet")["study_id"].to_pylist()))
    (home / "reports.csv").write_text("study_id,report\n" + "".join(f"{name},FINDINGS: Edema.\n" for name in studies))
    (home / "theirs.csv").write_text("study_id,Edema\n" + "".join(f"{name},1\n" for name in studies))
    hospital.write(home / "own")
    ok("manifest", "own", cwd=home, env={"XDG_STATE_HOME": str(home / "key")})
    return home


def alter(path: Path) -> None:
    """Another letter in the last place of the file, which is in its footer, that says ``schema``."""
    data = path.read_bytes()
    at = data.rindex(b'"schema"')
    path.write_bytes(data[: at + 1] + b"x" + data[at + 2 :])


@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        ("release", "export"), ("own", "export"), ("own", "convert"), ("converted", "export"), ("converted", "convert"),
        ("converted", "manifest"),
    ],
)  # fmt: skip
def test_what_an_altered_footer_says_goes_no_further(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, verb: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "key"))
    root = shutil.copytree(home / kind, tmp_path / kind)
    alter(root / "manifests/images.parquet")
    more = {"export": ["--format", "csv"], "convert": ["--recipe", "shortest-512", "--out", tmp_path / "out"]}
    done = cxrprep(verb, root, *more.get(verb, []))
    assert (done.returncode, "images.parquet was altered" in done.stderr) == (4, True), done
    assert "cxrprep verify" in done.stderr.partition("Hint:")[2], done
    if kind != "converted":
        # Of what is here it is made again, as verify says.
        ok("manifest", root)
        ok(verb, root, *more[verb])


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("release/manifests/images.parquet", "digest {ROOT}"),
        ("converted/manifests/images.parquet", "prove " + "0" * 64 + " {ROOT}"),
        ("own/manifests/images.parquet", "duplicates {ROOT}"),
        ("converted/manifests/images.parquet", "duplicates {HOME}/release --against {ROOT} --out {TO}/pairs.parquet"),
        ("release/manifests/images.parquet", "pairs {ROOT} --reports {HOME}/reports.csv"),
        ("release/manifests/pairs.parquet", "digest {ROOT} --text findings"),
        ("release/manifests/labels.parquet", "digest {ROOT} --label-source nih-textmined"),
        ("release/manifests/labels.parquet", "extract-labels {ROOT} --compare nih-textmined {HOME}/theirs.csv"),
        ("release/manifests/labels.parquet", "manifest {ROOT}"),
        ("release/manifests/labels.parquet", "export {ROOT} --format original --out {TO}/tables"),
        ("converted/manifests/labels.parquet", "manifest {ROOT} --label-source nih-textmined"),
        ("release/manifests/labels.parquet", "extract-labels {ROOT} --import theirs={HOME}/theirs.csv"),
        ("release/manifests/report_labels.parquet", "extract-labels {ROOT}"),
    ],
)
def test_every_reader_of_a_table_holds_it_to_the_list(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, words: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "key"))
    kind, table = Path(place).parts[0], Path(place).stem
    root = shutil.copytree(home / kind, tmp_path / kind)
    if table in ("pairs", "report_labels"):
        ok(table.replace("report_labels", "extract-labels"), root, "--reports", home / "reports.csv")
    kept = shutil.copytree(root / "manifests", tmp_path / "kept")
    line = words.format(ROOT=root, HOME=home, TO=tmp_path).split()
    assert cxrprep(*line).returncode == (4 if words.startswith("prove") else 0)
    shutil.rmtree(root / "manifests")
    shutil.copytree(kept, root / "manifests")
    alter(tmp_path / place)
    done = cxrprep(*line)
    assert (done.returncode, f"{table}.parquet was altered" in done.stderr) == (4, True), done


def test_labels_of_another_source_are_held_to_the_list_too(home: Path, tmp_path: Path) -> None:
    root = shutil.copytree(home / "release", tmp_path / "root")
    alter(root / "manifests/labels.parquet")
    done = cxrprep("export", root, "--format", "csv", "--label-source", "nih-textmined", "--out", tmp_path / "csv")
    assert (done.returncode, "labels.parquet was altered" in done.stderr) == (4, True), done
    ok("export", root, "--format", "csv", "--out", tmp_path / "csv")


@pytest.mark.parametrize("kind", ["release", "converted"])
def test_load_and_report_say_that_a_table_was_altered(home: Path, tmp_path: Path, kind: str) -> None:
    root = shutil.copytree(home / kind, tmp_path / kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        package.load(root, label_source="nih-textmined")
    assert "was altered" not in cxrprep("report", root).stderr
    alter(root / "manifests/labels.parquet")
    with pytest.warns(UserWarning, match="labels.parquet was altered after cxrprep wrote it"):
        package.load([root], label_source="nih-textmined")
    alter(root / "manifests/images.parquet")
    with pytest.warns(UserWarning, match="images.parquet was altered after cxrprep wrote it"):
        assert len(package.load(root)) == 7
    for words in (["report", root], ["report", home / "own", "--beside", root, "--out", tmp_path / "own.html"]):
        assert "images.parquet was altered" in cxrprep(*words).stderr
    assert "labels.parquet was altered" in cxrprep("report", root).stderr


def test_columns_of_one_s_own_have_two_ways(home: Path, tmp_path: Path) -> None:
    """The two of docs/howto/python.md: a table beside, and, in the table of converted images, as it was asked for."""
    root = shutil.copytree(home / "converted", tmp_path / "converted")
    path = root / "manifests/images.parquet"
    table = pq.read_table(path)
    mine = pa.table({"image_id": table["image_id"], "score": pa.array(range(7), pa.float32())})
    frame = package.load(root).to_pandas().merge(mine.to_pandas(), on="image_id", how="left")
    assert frame["score"].notna().all()
    ok("verify", root)
    pq.write_table(table.append_column("score", mine["score"]), path)
    for words in (["export", root, "--format", "csv"], ["manifest", root]):
        done = cxrprep(*words)
        assert (done.returncode, "columns of your own belong in a table beside it" in done.stderr) == (4, True), done
    ok("manifest", root, "--allow-loss")
    ok("verify", root)
    ok("export", root, "--format", "csv", "--out", tmp_path / "csv")
    assert pq.read_table(path)["score"].to_pylist() == list(range(7))
    # What pandas writes has no footer of ours.
    package.load(root).to_pandas().to_parquet(path)
    done = cxrprep("export", root, "--format", "csv")
    assert (done.returncode, "pandas keeps none" in done.stderr) == (4, True), done
    ok("convert", home / "release", "--recipe", "square-224", "--out", root, "--allow-loss")
    ok("verify", root)
