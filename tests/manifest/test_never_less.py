"""No command with exit code 0 writes a table that knows less than the one that it replaces."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.commands import cxrprep, ok
from tests.generators.small import nih_chestxray14
from tests.manifest.made import made


def cells(root: Path, name: str = "images") -> int:
    """How many cells of labels a table of ROOT has."""
    table = pq.read_table(root / f"manifests/{name}.parquet")
    labels = [column for column in table.column_names if column.startswith("label_") and column != "label_source"]
    return sum(len(table) - table.column(column).null_count for column in labels)


def count(root: Path, column: str, name: str = "images") -> int:
    values = pq.read_table(root / f"manifests/{name}.parquet", columns=[column]).column(column)
    return len(values) - values.null_count


def state(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "manifests").glob("*.parquet"))}


def refused(before: dict[str, bytes], root: Path, *words: object) -> str:
    """What a command says that is refused, and has changed no table."""
    done = cxrprep(*words)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert state(root) == before
    return done.stderr


def test_another_dataset_than_the_folder_holds_is_refused(tmp_path: Path) -> None:
    root = made("mimic-cxr-jpg", tmp_path)
    before = state(root)
    assert "holds mimic-cxr-jpg" in refused(before, root, "manifest", root, "--dataset", "nih-chestxray14")
    shutil.rmtree(root / "manifests")
    done = cxrprep("verify", root, "--dataset", "chexpert")
    assert done.returncode == 2
    assert "looks like mimic-cxr-jpg" in done.stderr


def test_a_dataset_of_one_s_own_that_nobody_names_is_no_other(tmp_path: Path) -> None:
    """Its images were taken for those of NIH, or for anybody's, by whatever their names look like."""
    root, own, reports = tmp_path / "ward", tmp_path / "own", tmp_path / "reports.csv"
    nih_chestxray14.write(root)
    for path in (*root.glob("*.csv"), *root.glob("*.txt")):
        path.unlink()
    names = sorted(path.name for path in (root / "images").iterdir())
    (root / "labels.csv").write_text("\n".join(["image,patient,Edema", *(f"{name},P{name[6]},1" for name in names)]))
    reports.write_text(f"study_id,report\n{names[0][:-4]},Edema.\n")
    own.mkdir()
    ok("datasets", "new", own / "ward.toml", root)
    ok("extract-labels", root, "--catalog", own)
    before, labelled = state(root), cells(root)
    for words in (
        "manifest", f"manifest --state {tmp_path / 'state'}", "extract-labels", "verify", "status",
        f"extract-labels --reports {reports}", f"convert --recipe square-224 --out {tmp_path / 'out'}",
    ):  # fmt: skip
        verb, *options = words.split()
        assert "holds ward, as its manifest says" in refused(before, root, verb, root, *options), words
    assert not (tmp_path / "out").exists()
    ok("manifest", root, "--catalog", own)
    ok("manifest", root, "--dataset", own / "ward.toml")
    assert cells(root) == labelled


@pytest.mark.parametrize("verb", [("manifest",), ("convert", "--recipe", "square-224")])
def test_labels_that_somebody_removed_are_asked_for_and_not_forgotten(tmp_path: Path, verb: tuple[str, ...]) -> None:
    root = made("nih-chestxray14", tmp_path)
    labelled = cells(root)
    (root / "manifests/labels.parquet").unlink()
    before = state(root)
    said = refused(before, root, verb[0], root, *verb[1:])
    assert f"cxrprep extract-labels {root}" in said
    assert cxrprep("extract-labels", root).returncode == 0
    assert cells(root) == labelled
    assert cxrprep(verb[0], root, *verb[1:]).returncode == 0
    (root / "manifests/labels.parquet").unlink()
    assert cxrprep("manifest", root, "--allow-loss").returncode == 0
    assert cells(root) == 0


def test_a_table_that_is_gone_takes_no_label_source_with_it_unasked(tmp_path: Path) -> None:
    root = made("mimic-cxr-jpg", tmp_path)
    assert cxrprep("extract-labels", root, "--label-source", "negbio").returncode == 0
    assert cells(root) > 0
    next(root.glob("*negbio*")).unlink()
    before = state(root)
    said = refused(before, root, "extract-labels", root)
    assert "negbio" in said
    said = refused(before, root, "extract-labels", root, "--label-source", "chexpert-labeler")
    assert "--allow-loss" in said
    words = ("--label-source", "chexpert-labeler", "--allow-loss")
    assert cxrprep("extract-labels", root, *words).returncode == 0
    assert cells(root) > 0


def test_a_label_source_that_no_table_gives_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    root = made("mimic-cxr-jpg", tmp_path)
    before = state(root)
    # With another option the labels would be other bytes, and be there before the manifest is refused.
    for more in ([], ["--strict-source"]):
        said = refused(before, root, "extract-labels", root, "--label-source", "nobody", *more)
        assert "chexpert-labeler" in said


@pytest.mark.parametrize("verb", [("digest",), ("export", "--format", "csv"), ("convert", "--recipe", "square-224")])
def test_a_label_of_another_collections_own_is_none_here(tmp_path: Path, verb: tuple[str, ...]) -> None:
    root = made("nih-chestxray14", tmp_path)
    before = state(root)
    words = (verb[0], root, *verb[1:], "--label", "padchest:scoliosis")
    assert "no label 'padchest:scoliosis' is here" in refused(before, root, *words)


def test_what_was_chosen_for_the_manifest_is_remembered(tmp_path: Path) -> None:
    root = made("mimic-cxr-jpg", tmp_path)
    chosen = ("--label-source", "negbio", "--uncertain", "ones", "--split-by", "patient", "--folds", 3)
    assert cxrprep("manifest", root, *chosen).returncode == 0
    before = state(root)
    assert cxrprep("extract-labels", root).returncode == 0
    assert state(root) == before


def test_a_folder_of_tables_is_remembered(tmp_path: Path) -> None:
    root, tables = made("nih-chestxray14", tmp_path / "nih"), tmp_path / "tables"
    tables.mkdir()
    boxes = next(root.glob("BBox*"))
    boxes.rename(tables / boxes.name)
    shutil.rmtree(root / "manifests")
    assert cxrprep("extract-labels", root, "--tables", tables).returncode == 0
    boxed = count(root, "boxes")
    assert boxed > 0
    before = state(root)
    assert cxrprep("extract-labels", root).returncode == 0
    assert state(root) == before
    shutil.rmtree(tables)
    assert "--tables" in refused(before, root, "extract-labels", root)


def test_a_report_text_that_was_asked_for_stays(tmp_path: Path) -> None:
    root = made("mimic-cxr", tmp_path)
    assert cxrprep("extract-labels", root, "--report-text").returncode == 0
    texts = count(root, "report_text", "studies")
    assert texts > 0
    before = state(root)
    for verb in ("extract-labels", "manifest"):
        assert cxrprep(verb, root).returncode == 0
        assert state(root) == before


def test_a_split_of_ones_own_goes_only_where_another_takes_its_place(tmp_path: Path) -> None:
    root = made("mimic-cxr", tmp_path)
    for table in root.glob("*split*"):
        table.unlink()
    assert cxrprep("extract-labels", root, "--allow-loss").returncode == 0
    assert count(root, "split") == 0
    assert cxrprep("manifest", root, "--split-by", "patient").returncode == 0
    before = state(root)
    assert "--allow-loss" in refused(before, root, "manifest", root)


@pytest.mark.parametrize("name", ["nih-chestxray14", "chexpert", "mimic-cxr-jpg"])
def test_lists_without_a_table_of_images_are_an_error_with_the_next_step(tmp_path: Path, name: str) -> None:
    from cxrprep.datasets.catalog import find_dataset

    root = made(name, tmp_path)
    spec = find_dataset(name)
    labels = [pattern for table in spec.table if table.role in ("labels", "metadata") for pattern in table.patterns]
    for pattern in labels:
        for path in root.rglob(Path(pattern).name):
            path.unlink()
    shutil.rmtree(root / "manifests")
    done = cxrprep("extract-labels", root)
    assert done.returncode in (0, 2, 4), done.stderr
    assert "a bug in cxrprep" not in done.stderr


def test_files_do_not_replace_shards_and_a_manifest_of_shards_keeps_its_rows(tmp_path: Path) -> None:
    root, out = made("nih-chestxray14", tmp_path / "raw"), tmp_path / "shards"
    ok("convert", root, "--recipe", "square-224", "--out", out, "--to", "webdataset")
    before = pq.read_table(out / "manifests/images.parquet")
    done = cxrprep("convert", root, "--recipe", "square-224", "--out", out, "--split", "test")
    assert (done.returncode, "--out" in done.stderr) == (2, True), done.stderr
    cxrprep("manifest", out)
    assert pq.read_table(out / "manifests/images.parquet").equals(before)
    assert cxrprep("verify", out).returncode == 0


def test_shards_of_images_without_a_label_are_written(tmp_path: Path) -> None:
    nih_chestxray14.write(tmp_path / "raw")
    ok("manifest", tmp_path / "raw")
    ok("export", tmp_path / "raw", "--format", "webdataset", "--out", tmp_path / "out")
    with tarfile.open(next((tmp_path / "out").glob("*.tar"))) as archive:
        assert sum(name.endswith(".png") for name in archive.getnames()) == 7


def test_who_would_lose_the_folds_is_said_how_to_number_them_again(tmp_path: Path) -> None:
    root = tmp_path / "nih"
    nih_chestxray14.write(root)
    ok("extract-labels", root)
    ok("manifest", root, "--folds", "2")
    done = cxrprep("manifest", root)
    assert done.returncode == 2
    assert "number the folds again: --folds 2;" in done.stderr
    ok("manifest", root, "--folds", "2")


def test_what_reports_gave_is_not_lost_where_the_table_of_all_labels_is_gone(tmp_path: Path) -> None:
    root = made("nih-chestxray14", tmp_path / "root")
    study = pq.read_table(root / "manifests/studies.parquet", columns=["study_id"])["study_id"][0].as_py()
    for name, text in (("full", "The heart is enlarged. No pneumothorax."), ("less", "Edema.")):
        (tmp_path / f"{name}.csv").write_text(f'study_id,report\n{study},"FINDINGS: {text}"\n')
    ok("extract-labels", root, "--reports", tmp_path / "full.csv")
    (root / "manifests/labels.parquet").unlink()
    before = state(root)
    assert "would lose" in refused(before, root, "extract-labels", root, "--reports", tmp_path / "less.csv")
    ok("extract-labels", root, "--reports", tmp_path / "full.csv")
    assert cells(root, "report_labels") > 1


@pytest.mark.parametrize("option", ["--reports", "--import"])
def test_a_file_in_the_place_of_the_manifests_is_what_is_said(tmp_path: Path, option: str) -> None:
    """What was to be put back ended the command with exit code 1 instead of its reason."""
    root = tmp_path / "root"
    nih_chestxray14.write(root)
    (root / "manifests").write_text("mine")
    table = tmp_path / "t.csv"
    table.write_text('study_id,report,Edema\n00000001,"No edema.",0\n')
    done = cxrprep("extract-labels", root, option, f"t={table}" if option == "--import" else table)
    assert (done.returncode, "manifests" in done.stderr.partition("Error:")[2]) == (7, True), done
