"""A selection answered by the tables alone, before any image is here."""

from __future__ import annotations

import pytest

from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import TableError, UsageError
from cxrprep.labels.extract import read_labels
from cxrprep.model import LabelTest, Selection, Split
from cxrprep.selection.table_filters import select_images
from tests.generators.small import chexpert, mimic_cxr_jpg, nih_chestxray14


def chosen(dataset, root, **wanted):
    spec = find_dataset(dataset)
    labels = read_labels(spec, root)
    return select_images(labels.table, Selection(**wanted), spec=spec, release=labels.release)


@pytest.fixture
def cx(tmp_path):
    chexpert.write(tmp_path, images=False)
    return tmp_path


@pytest.fixture
def mimic(tmp_path):
    mimic_cxr_jpg.write(tmp_path, images=False)
    return tmp_path


@pytest.mark.parametrize("word", ["patient00002", "2", "00002", "Patient2"])
def test_patients_may_be_written_in_any_way(cx, word):
    assert chosen("chexpert", cx, patients=frozenset({word})).patients == {"patient00002"}


@pytest.mark.parametrize("word", ["50414267", "s50414267", "p10000032/s50414267"])
def test_studies_may_be_written_in_any_way(mimic, word):
    found = chosen("mimic-cxr-jpg", mimic, studies=frozenset({word}))
    assert (found.studies, len(found.ids)) == ({"50414267"}, 2)


def test_everything_that_is_said_must_hold(cx):
    found = chosen("chexpert", cx, patients=frozenset({"2"}), views=frozenset({"lateral"}))
    assert found.ids == {"patient00002/study1/view2_lateral"}
    assert (found.total, found.release) == (10, "v1.0-small")


def test_several_labels_mean_any_and_null_is_a_value(cx):
    labels = (LabelTest("Edema", 1), LabelTest("Pneumonia", -1))
    assert chosen("chexpert", cx, labels=labels).patients == {"patient00002", "patient64538"}
    silent = chosen("chexpert", cx, labels=(LabelTest("Edema", None),), splits=frozenset({Split.TRAIN}))
    assert "patient33093/study1/view1_frontal" in silent.ids
    assert "patient00002/study2/view1_frontal" not in silent.ids


def test_views_by_name_and_by_projection(mimic):
    frontal = chosen("mimic-cxr-jpg", mimic, views=frozenset({"frontal"})).ids
    assert frontal == chosen("mimic-cxr-jpg", mimic, views=frozenset({"PA", "AP"})).ids
    lateral = chosen("mimic-cxr-jpg", mimic, views=frozenset({"lateral"})).ids
    assert len(lateral) == 2
    assert len(chosen("mimic-cxr-jpg", mimic, views=frozenset({"ap axial"})).ids) == 1


def test_a_split_that_a_release_has_not_is_said(tmp_path):
    nih_chestxray14.write(tmp_path, images=False)
    assert chosen("nih-chestxray14", tmp_path, splits=frozenset({Split.TEST})).ids
    with pytest.raises(UsageError, match="has no split 'validate'") as caught:
        chosen("nih-chestxray14", tmp_path, splits=frozenset({Split.VALIDATE}))
    assert "test, train_val" in caught.value.hint


def test_an_unknown_view_suggests_the_nearest(cx):
    with pytest.raises(UsageError, match="unknown view 'frontl'") as caught:
        chosen("chexpert", cx, views=frozenset({"frontl"}))
    assert "did you mean frontal?" in caught.value.hint


def test_tables_that_name_studies_only_cannot_say_which_images(tmp_path):
    chexpert.write_ground_truth(tmp_path)
    with pytest.raises(TableError, match="name studies, not images"):
        chosen("chexpert", tmp_path, splits=frozenset({Split.TEST}))
