"""A selection answered by the tables alone, before any image is here."""

from __future__ import annotations

import pytest

from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import TableError, UsageError
from cxrprep.labels.extract import read_labels
from cxrprep.model import ColumnTest, LabelTest, Selection, Split
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


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (("age_years>=68",), lambda t: t.age_years >= 68),
        (("age_years>=68", "sex=F"), lambda t: (t.age_years >= 68) & (t.sex == "F")),
        (("age_years==68",), lambda t: t.age_years == 68),
        (("sex!=F", "view = AP"), lambda t: t.sex.notna() & (t.sex != "F") & (t["view"] == "AP")),
        (("label_edema=null",), lambda t: t.label_edema.isna()),
        (("view!=null", "split=validate"), lambda t: t["view"].notna() & (t.split == "validate")),
    ],
)
def test_conditions_on_columns_must_all_hold(cx, conditions, expected):
    table = read_labels(find_dataset("chexpert"), cx).table.to_pandas()
    wanted = set(table[expected(table)].image_id)
    assert 0 < len(wanted) < table.image_id.nunique()
    assert chosen("chexpert", cx, where=tuple(map(ColumnTest.parse, conditions))).ids == wanted


@pytest.mark.parametrize(
    ("condition", "message", "hint"),
    [
        ("age_year>3", "no column 'age_year'", "age_years"),
        ("contrast>0.1", "no column 'contrast'", "measured by convert"),
        ("age_years>old", "'old' is not a value of age_years", ""),
        ("age_years<null", "null is neither less nor more", "write = or !="),
    ],
)
def test_a_condition_that_means_nothing_is_said(cx, condition, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        chosen("chexpert", cx, where=(ColumnTest.parse(condition),))
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", ["contrast", ">3", "a b>3", "contrast>="])
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(ValueError, match="not a condition"):
        ColumnTest.parse(text)


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
