"""``load`` of several folders: every finding of each, null where a folder does not have it."""

from __future__ import annotations

import pyarrow.compute as pc
import pytest

import cxrprep
from cxrprep.errors import UsageError
from tests.datasets.test_catalog import generate


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three datasets: originals, converted images, and boxes that say who drew them."""
    top = tmp_path_factory.mktemp("several")
    for name in ("nih-chestxray14", "padchest", "vindr-cxr"):
        generate(name, top / name)
        cxrprep.extract_labels(top / name)
    cxrprep.convert(top / "vindr-cxr", recipe="square-224")
    return [top / "nih-chestxray14", top / "padchest", top / "vindr-cxr" / "derived" / "square-224"]


def test_each_row_is_that_of_its_folder_and_what_it_does_not_have_is_null(folders):
    parts = [cxrprep.load(folder, uncertain="ones", blank="zeros") for folder in folders]
    whole = cxrprep.load(folders, uncertain="ones", blank="zeros")
    assert len(whole) == sum(map(len, parts))
    assert [str(path) for path in whole.paths()] == [str(path) for part in parts for path in part.paths()]
    assert set(whole.observations) == {stem for part in parts for stem in part.observations}
    begins = 0
    for part in parts:
        here = whole.select(range(begins, begins + len(part)))
        begins += len(part)
        labels, mask = here.labels(), here.mask()
        assert labels.select(part.labels().column_names).equals(part.labels())
        assert mask.select(part.mask().column_names).equals(part.mask())
        for name in set(labels.column_names) - set(part.labels().column_names):
            assert labels.column(name).null_count == len(part)
            assert not any(mask.column(name).to_pylist())
    drawn = pc.list_flatten(whole.to_arrow().column("boxes").combine_chunks()).to_pylist()
    assert {box["reader"] for box in drawn} == {None, "R1"}


@pytest.mark.slow
def test_images_are_drawn_from_all_and_can_be_read(folders):
    whole = cxrprep.load([*folders[:1], cxrprep.load(folders[2], label_source="radiologists-any")])
    assert {row["label_source"] for row in whole} == {"nih-textmined", "radiologists-any", None}
    assert len(cxrprep.load(folders, limit=3)) == 3
    chosen = cxrprep.load(folders, sample=8, seed=1, split="test", observations=["Effusion", "vindr:nodule_mass"])
    assert chosen.labels().column_names == ["Pleural Effusion", "vindr__nodule_mass"]
    assert {row["split"] for row in chosen} == {"test"}
    assert whole.hf()[len(whole) - 1]["image"].size == (224, 224)


def test_a_finding_that_no_folder_has_is_refused_with_those_that_they_have(folders):
    for root in (folders, folders[0]):
        with pytest.raises(UsageError, match="padchest:nothing_such"):
            cxrprep.load(root, observations=["Effusion", "padchest:nothing_such"])


def test_an_image_in_two_folders_is_refused(folders):
    with pytest.raises(UsageError, match=r"images are in two of .*, such as"):
        cxrprep.load([folders[2], folders[2].parents[1]])
    for mistake in ({"root": []}, {"root": folders, "state": folders[0]}):
        with pytest.raises(UsageError):
            cxrprep.load(**mistake)


def test_regions_of_several_folders_are_those_of_each_and_follow_a_selection(tmp_path):
    names = ("chexlocalize", "padchest", "siim-acr-pneumothorax")
    for name in names:
        generate(name, tmp_path / name)
        cxrprep.extract_labels(tmp_path / name)
    folders = [tmp_path / name for name in names]
    parts = [cxrprep.load(folder) for folder in folders]
    whole = cxrprep.load(folders)
    assert whole.regions().to_pylist() == [row for part in parts for row in part.regions().to_pylist()]
    assert {*whole.regions().column("dataset").to_pylist()} == {names[0], names[2]}
    told = whole.hf().select_columns(["dataset", "image_id", "regions"])
    drawn = {(row["dataset"], row["image_id"]): row["regions"] for row in told}
    assert sum(len(regions or ()) for regions in drawn.values()) == whole.regions().num_rows
    assert not any(regions for (dataset, _), regions in drawn.items() if dataset == "padchest")
    # Of some of the images, in another order, with findings that a folder does not have.
    chosen = cxrprep.load(folders[::-1], sample=4, seed=3, observations=["Pneumothorax", "padchest:own_finding"])
    kept = {(row["dataset"], row["image_id"]) for row in chosen}
    assert {(r["dataset"], r["image_id"]) for r in chosen.regions().to_pylist()} == {k for k in kept if drawn[k]}
    here = [row["padchest__own_finding"] is None for row in chosen.labels().to_pylist()]
    assert all(absent or row["dataset"] == "padchest" for absent, row in zip(here, chosen, strict=True))
