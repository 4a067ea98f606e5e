"""What every dataset of the catalog must have: a generator, a layout that knows its own paths, tables that read."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cxrprep.api.dataset_check import check_dataset
from cxrprep.api.folder import find_mirror
from cxrprep.api.verify import verify
from cxrprep.collection import open_folder
from cxrprep.collection.dataset_folder import check_stated
from cxrprep.collection.lineage import trace_of_conversion
from cxrprep.collection.recognition import recognise
from cxrprep.config.toml import TomlText
from cxrprep.datasets import catalog as datasets
from cxrprep.datasets.catalog import catalog, declaration_of
from cxrprep.errors import ConfigError, UsageError
from cxrprep.model import FolderRef
from cxrprep.schemas import IMAGES, LABELS, STUDIES
from cxrprep.verification.finding import Kind, Level
from tests.commands import ok
from tests.generators.small import declared
from tests.tables_made import build_manifest, extract_labels

NAMES = sorted(catalog())


def generate(name: str, root: Path):
    """A tiny copy: by a module of its own, or from the dataset's file."""
    if catalog()[name].module == "declared":
        return declared.write(root, name)
    return importlib.import_module(f"tests.generators.small.{name.replace('-', '_')}").write(root)


@pytest.fixture(params=NAMES)
def dataset(request, tmp_path):
    spec = catalog()[request.param]
    root = tmp_path / "release"
    return spec, root, generate(request.param, root)


def test_paths_lead_to_ids_and_back(dataset):
    spec, _, released = dataset
    layout = spec.layout(released.release)
    for path in released.images:
        identity = layout.parse(path)
        assert identity is not None
        assert spec.module == "declared" or layout.key(identity, release=released.release) == path
        assert layout.place(path, release=released.release) == path
        assert layout.place(f"some/mirror/{path}", release=released.release) == path


def test_tables_have_a_place_of_their_own(dataset):
    spec, root, released = dataset
    layout = spec.layout(released.release)
    for path in root.rglob("*"):
        if path.is_file():
            key = path.relative_to(root).as_posix()
            assert layout.place(key, release=released.release) == key
    assert layout.place("index.html", release=released.release) is None
    assert layout.place(released.images[0] + "_.gstmp", release=released.release) is None
    assert layout.parse("README.md") is None


def test_of_a_new_folder_nothing_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("cxrprep.collection.recognition.catalog", lambda: pytest.fail("every dataset was read"))
    monkeypatch.setattr("cxrprep.storage.parquet.footer_of", lambda path: pytest.fail(f"{path} was looked for"))
    check_stated(tmp_path, tmp_path, catalog()["mimic-cxr-jpg"])
    assert not trace_of_conversion(tmp_path)


def test_the_folder_is_recognised_as_this_dataset_and_no_other(dataset):
    spec, root, _ = dataset
    names = frozenset(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert recognise(names) is spec
    assert spec.layout().recognise(names) >= 0.9
    assert spec.layout().recognise(frozenset({"notes.txt", "photo.png"})) < 0.5


# Two projects of one collection: each reads the other's images and tables.
COMPANIONS = {"mimic-cxr", "mimic-cxr-jpg"}


def test_a_folder_of_another_dataset_is_refused_by_name(dataset):
    spec, root, _ = dataset
    for other in set(NAMES) - {spec.name}:
        if {spec.name, other} != COMPANIONS:
            with pytest.raises(UsageError, match=f"looks like {spec.name}, and nothing in it like {other}"):
                open_folder(FolderRef(root, dataset=other))


def test_tables_and_files_become_the_manifest(dataset, tmp_path):
    spec, root, released = dataset
    result = extract_labels(spec, root, out=tmp_path / "m")
    assert (result.release, result.images, result.patients, result.studies) == (
        released.release,
        len(released.images),
        released.patients,
        released.studies,
    )
    assert dict(result.splits) == released.splits
    assert {source.label_source: source.rows for source in result.sources} == released.labels
    for use in result.tables:
        assert use.rows == use.used + sum(count for _, count in use.apart)
    made = build_manifest(spec, root, manifests=tmp_path / "m")
    assert (made.images, made.without_row, made.not_here) == (len(released.images), 0, 0)
    images = pq.read_table(tmp_path / "m" / "images.parquet")
    assert images.column("path").to_pylist() != []
    assert sorted(images.column("path").to_pylist()) == sorted(released.images)
    assert images.schema.names[: len(IMAGES)] == IMAGES.names
    assert pq.read_schema(tmp_path / "m" / "studies.parquet").names[: len(STUDIES)] == STUDIES.names
    if spec.module != "declared":
        assert images.schema.equals(IMAGES, check_metadata=False)
    labels = pq.read_schema(tmp_path / "m" / "labels.parquet")
    assert labels.names[: len(LABELS)] == LABELS.names
    assert all(field.metadata and field.metadata[b"description"] for field in labels)
    assert all(field.metadata[b"description"] for field in images.schema)


def test_it_holds_what_a_file_of_ones_own_must_hold(dataset):
    spec, root, _ = dataset
    found = check_dataset(Path(spec.name), root, contract=True)
    assert len(found.value.contract) >= 6
    assert [clause for clause in found.value.contract if not clause.holds] == []


def test_a_rerun_gives_the_same_bytes(dataset, tmp_path):
    spec, root, _ = dataset
    contents = []
    for _ in range(2):
        extract_labels(spec, root, out=tmp_path / "m")
        build_manifest(spec, root, manifests=tmp_path / "m")
        contents.append({path.name: path.read_bytes() for path in sorted((tmp_path / "m").iterdir())})
    assert contents[0] == contents[1]
    drawn = {"masks.parquet"} if spec.module == "declared" and declaration_of(spec.name).masks else set()
    made = {"labels.parquet", "images.parquet", "studies.parquet", "croissant.json", "README.md", "SHA256SUMS"}
    assert set(contents[0]) == made | drawn


def test_in_what_was_just_made_nothing_is_wrong_or_outdated(dataset):
    spec, root, _ = dataset
    extract_labels(spec, root)
    found = verify(root, dataset=spec.name).value.findings
    assert [one for one in found if one.level is Level.ERROR or one.kind is Kind.OUTDATED] == []


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("openi", "ecgen-radiology/*.xml"),
        ("montgomery-tb", "ClinicalReadings/*.txt"),
        ("shenzhen-tb", "ClinicalReadings/*.txt"),
    ],
)
def test_labels_of_many_files_are_outdated_when_one_of_them_changes(name, files, tmp_path):
    generate(name, tmp_path)

    def outdated():
        return [one for one in verify(tmp_path).value.findings if one.kind is Kind.OUTDATED]

    first, *_, last = sorted(tmp_path.glob(files))
    for change in (first.unlink, lambda: last.write_bytes(last.read_bytes() + b"\n")):
        ok("extract-labels", tmp_path, "--allow-loss")
        assert outdated() == []
        change()
        (found,) = outdated()
        assert shlex.split(found.hint)[1:] == ["extract-labels", str(tmp_path)]
    ok(*shlex.split(found.hint)[1:])
    assert outdated() == []


def test_a_dataset_without_a_mirror_says_what_to_do():
    with pytest.raises(UsageError, match="no mirror of padchest can be listed") as caught:
        find_mirror(catalog()["padchest"], None)
    assert "--source DIR" in str(caught.value.hint)


@pytest.mark.parametrize("name", NAMES)
def test_facts_say_who_made_it_and_under_which_terms(name):
    spec = catalog()[name]
    assert spec.bibtex.strip().startswith("@")
    assert spec.licence.name
    assert spec.licence.agreement
    assert spec.homepage
    assert not spec.mirror or spec.mirror_named(spec.default_mirror) is not None
    assert spec.default_release in spec.releases
    assert all(mirror.release in spec.releases for mirror in spec.mirror)
    known = {table.label_source for table in spec.table}
    assert set(spec.default_label_source.split(",")) <= known


def test_a_file_that_describes_tables_is_read_once_for_facts_and_tables(monkeypatch):
    read = []
    monkeypatch.setattr(datasets, "TomlText", lambda text, where: read.append(where) or TomlText(text, where))
    for known in (datasets._spec_at, datasets._declaration_at):
        known.cache_clear()
    assert datasets.known_dataset("openi").name == declaration_of("openi").name == "openi"
    assert len(read) == 1


@pytest.mark.parametrize("word", ["nih", "NIH", "chestx_ray14", "nih-chestxray14"])
def test_an_alias_of_a_built_in_dataset_is_found_without_the_files_of_others(word, tmp_path, monkeypatch):
    (tmp_path / "broken.toml").write_text("format = 1\nname = \n")
    monkeypatch.setenv(datasets.CATALOG_VARIABLE, str(tmp_path))
    datasets._files.cache_clear()
    datasets.catalog.cache_clear()
    try:
        assert datasets.known_dataset(word).name == "nih-chestxray14"
        with pytest.raises(ConfigError, match=r"broken\.toml, line 2"):
            datasets.known_dataset("nih-chestxray")
    finally:
        datasets._files.cache_clear()
        datasets.catalog.cache_clear()
