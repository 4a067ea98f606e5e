"""extract-labels a second time: what was made from the same is not made again, and anything else is."""

from __future__ import annotations

import gzip
import shutil

import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import UsageError
from cxrprep.events import Note, StageFinished
from cxrprep.labels import mimic_cxr
from cxrprep.labels.label_rows import LabelOptions
from cxrprep.labels.policy import Policy
from cxrprep.manifest import build
from tests.generators.small import chexpert, declared, mimic_cxr_jpg
from tests.manifest.made import made
from tests.tables_made import extract_labels

MIMIC = find_dataset("mimic-cxr-jpg")
CHEXPERT = "mimic-cxr-2.0.0-chexpert.csv.gz"


@pytest.fixture
def root(tmp_path):
    mimic_cxr_jpg.write(tmp_path, images=False)
    return tmp_path


@pytest.fixture
def reads(monkeypatch):
    """How often the release's tables are read."""
    counted = []
    own = mimic_cxr.read
    monkeypatch.setattr(mimic_cxr, "read", lambda *given: counted.append(1) or own(*given))
    return counted


def both(root, **more):
    """The counts and notes of a run."""
    notes = []
    result = extract_labels(MIMIC, root, on_event=notes.append, **more)
    return result, [(note.message, note.level) for note in notes if hasattr(note, "level")]


def test_the_second_run_reads_no_table_and_says_the_same(root, reads):
    split = root / "mimic-cxr-2.0.0-split.csv.gz"
    lines = gzip.decompress(split.read_bytes()).splitlines(keepends=True)
    split.write_bytes(gzip.compress(b"".join(lines[:-2]), mtime=0))
    first, said = both(root)
    before = (root / "manifests" / "labels.parquet").read_bytes()
    second, again = both(root)
    assert len(reads) == 1
    assert [note for note, level in said if level == "warning"]
    assert [(m.replace(str(root) + "/", ""), level) for m, level in said] == again
    assert (first.rows, first.splits, first.sources) == (second.rows, second.splits, second.sources)
    assert [(use.name, use.rows, use.used, use.apart) for use in first.tables] == [
        (use.name, use.rows, use.used, use.apart) for use in second.tables
    ]
    assert (root / "manifests" / "labels.parquet").read_bytes() == before


def changed_table(root):
    path = root / CHEXPERT
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b",1.0", b",0.0", 1), mtime=0))
    return {}


def another_table(root):
    (root / "cxr-provider-list.csv.gz").write_bytes(gzip.compress(b"study_id,ordering_provider_id\n50414267,P1\n"))
    return {}


def damaged_result(root):
    path = root / "manifests" / "labels.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    return {}


CHANGES = {
    "a cell": changed_table,
    "one table more": another_table,
    "an option": lambda root: {"options": LabelOptions(strict_source=True)},
    "the release is stated": lambda root: {"release": "2.1.0"},
    "the table that was made is gone": lambda root: (root / "manifests" / "labels.parquet").unlink() or {},
    "the table that was made is damaged": damaged_result,
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_tables_are_read_again(root, reads, change):
    extract_labels(MIMIC, root)
    more = CHANGES[change](root)
    found = extract_labels(MIMIC, root, **more)
    assert len(reads) == 2
    fresh = extract_labels(MIMIC, root, out=root / "elsewhere", **more)
    assert (found.rows, found.sources) == (fresh.rows, fresh.sources)


def test_a_changed_description_of_the_tables_is_another_input(tmp_path):
    from tests.datasets.test_declaration import declaration, ward

    data = ward(tmp_path / "data")
    first = tmp_path / "ward.toml"
    first.write_text(declaration().replace("absent = 0", "# nothing"))
    extract_labels(find_dataset(str(first)), data)
    second = tmp_path / "ward2.toml"
    second.write_text(declaration())
    labels = extract_labels(find_dataset(str(second)), data)
    assert {count.negative > 0 for source in labels.sources for count in source.labels} == {True}


def test_masks_that_are_gone_come_back(tmp_path):
    declared.write(tmp_path, "siim-acr-pneumothorax")
    spec = find_dataset("siim-acr-pneumothorax")
    extract_labels(spec, tmp_path)
    masks = tmp_path / "manifests" / "masks.parquet"
    before = masks.read_bytes()
    masks.unlink()
    extract_labels(spec, tmp_path)
    assert masks.read_bytes() == before


def test_the_verb_leaves_everything_as_it_was(tmp_path):
    chexpert.write(tmp_path)
    first = cxrprep.extract_labels(tmp_path)
    kept = {path: path.read_bytes() for path in (tmp_path / "manifests").iterdir()}
    second = cxrprep.extract_labels(tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "manifests").iterdir()} == kept
    assert first.to_dict() | {"tables": 0} == second.to_dict() | {"tables": 0}


def _an_image(root):
    return min(root.rglob("*.jpg"))


def _damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


MANIFEST_CHANGES = {
    "an image is gone": lambda root: _an_image(root).unlink(),
    "an image is new": lambda root: shutil.copy(_an_image(root), _an_image(root).with_name("view9_frontal.jpg")),
    "an image is longer": lambda root: _an_image(root).write_bytes(_an_image(root).read_bytes() + b"\0"),
    "an image was written again": lambda root: _an_image(root).write_bytes(_an_image(root).read_bytes()),
    "the image table is damaged": lambda root: _damage(root / "manifests/images.parquet"),
    "the studies are damaged": lambda root: _damage(root / "manifests/studies.parquet"),
    "the studies are gone": lambda root: (root / "manifests/studies.parquet").unlink(),
    "the card is gone": lambda root: (root / "manifests/README.md").unlink(),
    "no checksum is noted": lambda root: (root / "manifests/SHA256SUMS").unlink(),
    "another manifest": lambda root: cxrprep.build_manifest(root, policy=Policy(uncertain="ones")),
    "a choice": lambda _: {"policy": Policy(uncertain="ones")},
}


@pytest.fixture
def makes(monkeypatch):
    """How often a manifest is made."""
    counted = []
    own = build.prepare_manifest
    monkeypatch.setattr(build, "prepare_manifest", lambda *given, **more: counted.append(1) or own(*given, **more))
    return counted


def _said(events, table):
    """Notes, without the folder, and what stages came to."""
    notes = [e.message.replace(f"{table.parent}/", "") for e in events if isinstance(e, Note)]
    return sorted(notes) + [(e.stage, e.done) for e in events if isinstance(e, StageFinished)]


@pytest.mark.parametrize("recorded", [False, True])
def test_a_manifest_that_would_be_the_same_is_not_made_and_the_same_is_said(tmp_path, makes, recorded):
    chexpert.write(tmp_path)
    table = next(tmp_path.rglob("train.csv"))
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    if recorded:
        cxrprep.download("chexpert", tmp_path, source=str(tmp_path))
    makes.clear()
    events = []
    cxrprep.extract_labels(tmp_path, on_event=events.append)
    said, events[:] = _said(events, table), []
    again = cxrprep.extract_labels(tmp_path, on_event=events.append)
    assert len(makes) == 1
    assert len(said) > 2
    assert _said(events, table) == said
    assert again.value == cxrprep.extract_labels(tmp_path).value


@pytest.mark.parametrize("change", MANIFEST_CHANGES)
def test_whatever_changes_the_manifest_is_made_again(tmp_path, makes, change):
    chexpert.write(tmp_path)
    cxrprep.extract_labels(tmp_path)
    more = MANIFEST_CHANGES[change](tmp_path)
    before = len(makes)
    options = more if isinstance(more, dict) else {}
    cxrprep.extract_labels(tmp_path, allow_loss=True, **options)
    made_again = len(makes)
    if change != "another manifest":
        assert made_again == before + 1
    found = pq.read_table(tmp_path / "manifests/images.parquet")
    policy = Policy(uncertain="ones") if "manifest" in change or options else None
    cxrprep.build_manifest(tmp_path, policy=policy)
    assert pq.read_table(tmp_path / "manifests/images.parquet") == found


@pytest.mark.parametrize("imported", [False, True])
def test_texts_that_were_asked_for_stay_when_the_labels_table_is_gone(tmp_path, imported):
    root = tmp_path / "raw"
    made("mimic-cxr", root)
    cxrprep.extract_labels(root, options=LabelOptions(report_text=True))
    labels, studies = root / "manifests/labels.parquet", root / "manifests/studies.parquet"
    texts = pq.read_table(studies, columns=["report_text"])
    labels.unlink()
    if imported:
        rows = [f"{study},1" for study in pq.read_table(studies, columns=["study_id"])["study_id"].to_pylist()]
        (tmp_path / "theirs.csv").write_text("\n".join(["study_id,Edema", *rows]))
        cxrprep.import_labels(root, tmp_path / "theirs.csv")
    for _ in range(2):
        cxrprep.extract_labels(root)
        assert pq.read_table(studies, columns=["report_text"]) == texts
        assert not texts["report_text"].null_count


def test_a_refused_import_leaves_no_labels_table_where_none_was(tmp_path):
    root = tmp_path / "raw"
    made("chexpert", root)
    for path in (root / "manifests/labels.parquet", *root.glob("*.csv"), *root.glob("*/*.csv")):
        path.unlink()
    study = pq.read_table(root / "manifests/studies.parquet")["study_id"][0].as_py()
    (tmp_path / "theirs.csv").write_text(f"study_id,Edema\n{study},1\n")
    with pytest.raises(UsageError, match="would lose"):
        cxrprep.import_labels(root, tmp_path / "theirs.csv")
    assert not (root / "manifests/labels.parquet").exists()
    assert not list((root / "manifests/label_sources").glob("*.parquet"))
