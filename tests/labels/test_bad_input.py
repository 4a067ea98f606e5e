"""Bad input, in every table of every dataset: what is harmless is understood, what is not is named, nothing is lost."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import random
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxrprep.datasets.catalog import catalog
from cxrprep.errors import TableError
from cxrprep.labels.extract import read_labels
from tests.generators.small import chexpert, mimic_cxr_jpg, nih_chestxray14
from tests.sample import some

WRITERS = {"chexpert": chexpert, "mimic-cxr-jpg": mimic_cxr_jpg, "nih-chestxray14": nih_chestxray14}
# dataset, a table of it, its key column
KEYED = [
    ("chexpert", "CheXpert-v1.0-small/train.csv", "Path"),
    ("nih-chestxray14", "Data_Entry_2017_v2020.csv", "Image Index"),
    ("mimic-cxr-jpg", "mimic-cxr-2.0.0-metadata.csv.gz", "dicom_id"),
    ("mimic-cxr-jpg", "mimic-cxr-2.0.0-chexpert.csv.gz", "study_id"),
    ("mimic-cxr-jpg", "mimic-cxr-2.1.0-test-set-labeled.csv", "study_id"),
]
TABLES = [
    *((dataset, name) for dataset, name, _ in KEYED),
    ("nih-chestxray14", "BBox_List_2017.csv"),
    ("mimic-cxr-jpg", "mimic-cxr-2.0.0-split.csv.gz"),
    ("mimic-cxr-jpg", "mimic-cxr-2.0.0-negbio.csv.gz"),
]


def write(dataset, root):
    WRITERS[dataset].write(root, images=False)
    return root


def read(dataset, root, **options):
    return read_labels(catalog()[dataset], root, **options)


def change(path, edit):
    packed = path.suffix == ".gz"
    data = path.read_bytes()
    new = edit(gzip.decompress(data) if packed else data)
    path.write_bytes(gzip.compress(new, mtime=0) if packed else new)


def cells(table):
    """The table's cells but for the digest of the file, which every edit changes."""
    kept = [name for name in table.column_names if name != "table_digest"]
    return table.select(kept).to_pylist()


def mixed(data):
    lines = data.split(b"\n")
    return b"".join(line + (b"\r\n" if number % 2 else b"\n") for number, line in enumerate(lines[:-1])) + lines[-1]


HARMLESS = {
    "BOM": lambda data: b"\xef\xbb\xbf" + data,
    "CRLF": lambda data: data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
    "mixed line ends": lambda data: mixed(data.replace(b"\r\n", b"\n")),
    "no last line end": lambda data: data.rstrip(b"\r\n"),
    "blank lines at the end": lambda data: data + b"\n\n",
    "BOM and CRLF": lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize(("dataset", "name"), TABLES)
def test_what_is_harmless_is_understood(tmp_path, dataset, name):
    root = write(dataset, tmp_path)
    before = read(dataset, root)
    kept = (root / name).read_bytes()
    for form, edit in HARMLESS.items():
        (root / name).write_bytes(kept)
        change(root / name, edit)
        after = read(dataset, root)
        assert cells(after.table) == cells(before.table), form
        assert [(use.name, use.rows, use.used) for use in after.tables] == [
            (use.name, use.rows, use.used) for use in before.tables
        ]


@pytest.mark.parametrize(("dataset", "name", "key"), KEYED)
def test_a_key_that_stands_twice_is_named_with_both_lines(tmp_path, dataset, name, key):
    root = write(dataset, tmp_path)

    def again(data):
        lines = data.splitlines()
        # What says all the same once more is left out of a declared table.
        other = lines[2].partition(b",") if dataset == "nih-chestxray14" else lines[1].partition(b",")
        return b"\n".join([*lines, lines[1].partition(b",")[0] + other[1] + other[2]]) + b"\n"

    change(root / name, again)
    with pytest.raises(TableError) as caught:
        read(dataset, root)
    message = str(caught.value)
    data = (root / name).read_bytes()
    last = len((gzip.decompress(data) if name.endswith(".gz") else data).splitlines())
    assert f"{root / name}, line {last}, column {key!r}" in message
    assert "line 2" in message
    assert "remove one of" in caught.value.hint


def with_column(data, name, cell="x"):
    lines = data.splitlines()
    return b"\n".join(line + b"," + (cell if number else name).encode() for number, line in enumerate(lines)) + b"\n"


@pytest.mark.parametrize(("dataset", "name"), TABLES)
def test_a_column_that_the_release_does_not_have_is_said_and_takes_nothing_away(tmp_path, dataset, name):
    root = write(dataset, tmp_path)
    before = read(dataset, root)
    change(root / name, lambda data: with_column(data, "fold", "3"))
    notes = []
    after = read(dataset, root, on_event=notes.append)
    assert [{key: cell for key, cell in row.items() if key != "raw_fold"} for row in cells(after.table)] == cells(
        before.table
    )
    assert [note for note in notes if "columns that the release does not have, kept as text: fold" in note.message]
    if name != "BBox_List_2017.csv":
        assert "3" in after.table.column("raw_fold").to_pylist()


def test_a_column_that_is_a_misspelt_one_is_an_error_that_names_both(tmp_path):
    root = write("chexpert", tmp_path)
    change(root / "CheXpert-v1.0-small" / "train.csv", lambda data: data.replace(b"Cardiomegaly", b"Cardiomegalie"))
    with pytest.raises(TableError, match=r"line 1: column 'Cardiomegaly' is missing"):
        read("chexpert", root)
    root = write("mimic-cxr-jpg", tmp_path / "mimic")
    change(
        root / "mimic-cxr-2.0.0-metadata.csv.gz",
        lambda data: data.replace(b"ViewCodeSequence_CodeMeaning", b"ViewCodeSequence_CodeMeanings"),
    )
    with pytest.raises(TableError, match=r"unknown column 'ViewCodeSequence_CodeMeanings'") as caught:
        read("mimic-cxr-jpg", root)
    assert "did you mean ViewCodeSequence_CodeMeaning?" in caught.value.hint


# ---- saved again by another program: the meaning is plain, so it is read, and said ----


def unpacked(data):
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def zipped(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("table.csv", data)
    return out.getvalue()


@pytest.mark.parametrize("pack", [lambda data: data, lambda data: gzip.compress(data, mtime=0), zipped])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zip"])
@pytest.mark.parametrize(("dataset", "name"), some(TABLES, one_in=6))
def test_a_table_is_unpacked_by_its_bytes_and_not_by_its_name(tmp_path, dataset, name, suffix, pack):
    root = write(dataset, tmp_path)
    before = read(dataset, root)
    path = root / name
    data = unpacked(path.read_bytes())
    path.unlink()
    if name.endswith(".gz") and suffix != ".gz":
        return  # the release's own name has the suffix; another one is not looked for
    (root / (name.removesuffix(".gz") + suffix)).write_bytes(pack(data))
    after = read(dataset, root)
    said = {"table_name", "table_digest"}
    assert [{k: v for k, v in row.items() if k not in said} for row in after.table.to_pylist()] == [
        {k: v for k, v in row.items() if k not in said} for row in before.table.to_pylist()
    ]


def test_an_error_behind_a_sep_line_still_names_the_line_of_the_file(tmp_path):
    root = write("chexpert", tmp_path)
    table = root / "CheXpert-v1.0-small" / "train.csv"
    change(table, lambda data: b"sep=,\n" + data.replace(b",Frontal,", b",Front,", 1))
    with pytest.raises(TableError, match=r"line 3, column 'Frontal/Lateral'"):
        read("chexpert", root)


def floats(*columns):
    """Ids as pandas saves a column that once had a blank."""

    def edit(data):
        rows = list(csv.reader(io.StringIO(data.decode())))
        places = [rows[0].index(name) for name in columns]
        for row in rows[1:]:
            for place in places:
                row[place] = f"{row[place]}.0" if row[place].isdecimal() else row[place]
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(rows)
        return out.getvalue().encode()

    return edit


def prefixed(data):
    rows = list(csv.reader(io.StringIO(data.decode())))
    patient, study = rows[0].index("subject_id"), rows[0].index("study_id")
    for row in rows[1:]:
        row[study] = f"p{row[patient]}/s{row[study]}"
        row[patient] = f"p{row[patient]}"
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


IDS = [
    ("chexpert", "CheXpert-v1.0-small/train.csv", floats("Age"), ""),
    ("chexpert", "CheXpert-v1.0-small/train.csv", lambda data: data.replace(b"/study", b"\\study"), ""),
    ("nih-chestxray14", "Data_Entry_2017_v2020.csv", floats("Patient ID", "Follow-up #", "Patient Age"), ""),
    *(
        ("mimic-cxr-jpg", name, edit, "ids are read as")
        for name in (
            "mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-split.csv.gz", "mimic-cxr-2.0.0-chexpert.csv.gz",
            "mimic-cxr-2.0.0-negbio.csv.gz",
        )
        for edit in (floats("subject_id", "study_id"), prefixed)
    ),
    ("mimic-cxr-jpg", "mimic-cxr-2.0.0-split.csv.gz", lambda data: data.replace(b",validate", b",valid"), ""),
    ("mimic-cxr-jpg", "mimic-cxr-2.0.0-split.csv.gz", lambda data: data.replace(b",validate", b",val"), ""),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "name", "edit", "said"), IDS)
def test_numbers_and_ids_as_other_programs_write_them(tmp_path, dataset, name, edit, said):
    root = write(dataset, tmp_path)
    before = read(dataset, root)
    change(root / name, edit)
    notes = []
    after = read(dataset, root, on_event=notes.append)
    kept = [one for one in before.table.column_names if one != "table_digest" and not one.startswith(("raw_", "path_"))]
    assert after.table.select(kept).to_pylist() == before.table.select(kept).to_pylist()
    assert any(said in note.message for note in notes) or not said


def test_blanks_that_were_filled_with_zeros_are_said(tmp_path):
    root = write("chexpert", tmp_path)

    def filled(data):
        rows = list(csv.reader(io.StringIO(data.decode())))
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([rows[0], *([cell or "0" for cell in row] for row in rows[1:])])
        return out.getvalue().encode()

    change(root / "CheXpert-v1.0-small" / "train.csv", filled)
    notes = []
    table = read("chexpert", root, on_event=notes.append).table
    assert table.column("view").null_count < table.num_rows
    assert any("cannot be told from a negative one" in note.message for note in notes if note.level == "warning")


@pytest.mark.parametrize("kept", ["test_list.txt", "BBox_List_2017.csv"])
def test_tables_without_the_one_that_lists_images_are_refused_by_name(tmp_path, kept):
    root = write("nih-chestxray14", tmp_path)
    for path in root.iterdir():
        if path.name != kept:
            path.unlink()
    with pytest.raises(TableError, match="holds no findings table of NIH ChestX-ray14") as caught:
        read("nih-chestxray14", root)
    assert "Data_Entry_2017_v2020.csv" in caught.value.hint


def test_a_table_that_labels_no_image_is_refused_by_name(tmp_path):
    (tmp_path / "df_chexpert_plus_240401.csv").write_text(
        "path_to_image,age,sex,frontal_lateral,ap_pa\ntrain/patient00001/study1/view1_frontal.jpg,50,Female,Frontal,AP\n"
    )
    with pytest.raises(TableError, match=r"label no image: df_chexpert_plus_240401\.csv"):
        read("chexpert", tmp_path)


NAMES = {
    "train_val_list.txt": "train_val_list_NIH.txt",
    "test_list.txt": "test_list_NIH.txt",
    "BBox_List_2017.csv": "BBox_list_2017_Official_NIH.csv",
}


def test_the_names_of_kaggles_resized_copy_are_known(tmp_path):
    root = write("nih-chestxray14", tmp_path)
    before = read("nih-chestxray14", root)
    for name, other in NAMES.items():
        (root / name).rename(root / other)
    assert read("nih-chestxray14", root).table.equals(before.table)


def test_mimic_without_splits_says_so(tmp_path):
    root = write("mimic-cxr-jpg", tmp_path)
    split = root / "mimic-cxr-2.0.0-split.csv.gz"
    change(split, lambda data: b"\n".join(data.splitlines()[:-2]) + b"\n")
    notes = []
    read("mimic-cxr-jpg", root, on_event=notes.append)
    assert any("2 of " in note.message and "are not in the split table" in note.message for note in notes)
    split.unlink()
    read("mimic-cxr-jpg", root, on_event=notes.append)
    assert any("no split table is here (mimic-cxr-2.0.0-split.csv.gz)" in note.message for note in notes)


@pytest.mark.parametrize(("dataset", "name"), TABLES)
def test_a_row_with_a_field_too_many_is_named(tmp_path, dataset, name):
    root = write(dataset, tmp_path)

    def longer(data):
        lines = data.splitlines()
        lines[2 if len(lines) > 2 else 1] += b",1"
        return b"\n".join(lines) + b"\n"

    change(root / name, longer)
    with pytest.raises(TableError, match=r", line \d+, column \d+: the line has \d+ fields where the header has \d+"):
        read(dataset, root)


@pytest.mark.parametrize(("dataset", "name"), TABLES)
def test_a_quotation_mark_that_is_never_closed_is_named_however_much_follows(tmp_path, dataset, name):
    """The module that reads CSV takes no cell of more than 131,072 characters, and the error was taken for a bug."""
    root = write(dataset, tmp_path)

    def opened(data):
        header, first, *rest = data.splitlines()
        more = [first, *rest] * (200_000 // len(first))
        return b"\n".join((header, b'"' + first, *more)) + b"\n"

    change(root / name, opened)
    with pytest.raises(TableError, match="the quotation mark that opens a cell in line 2 is never closed"):
        read(dataset, root)


@pytest.mark.parametrize(("dataset", "name"), TABLES)
def test_what_is_another_file_is_named(tmp_path, dataset, name):
    root = write(dataset, tmp_path)
    for content in (b"", b"<!DOCTYPE html>\n<html>sign in</html>\n", b"\x89PNG\r\n\x1a\n", b"a,b\n1,2\n"):
        path = root / name
        path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
        with pytest.raises(TableError) as caught:
            read(dataset, root)
        assert str(path) in str(caught.value)
        assert caught.value.hint


def test_a_table_of_another_dataset_under_this_ones_name(tmp_path):
    root = write("chexpert", tmp_path)
    nih_chestxray14.write(tmp_path / "nih", images=False)
    other = (tmp_path / "nih" / "Data_Entry_2017_v2020.csv").read_bytes()
    (root / "CheXpert-v1.0-small" / "train.csv").write_bytes(other)
    with pytest.raises(TableError, match=r"train\.csv, line 1: column 'Path' is missing; the header begins with Image"):
        read("chexpert", root)


def test_the_release_that_was_asked_for_is_not_the_one_that_is_here(tmp_path):
    root = write("nih-chestxray14", tmp_path)
    with pytest.raises(TableError, match=r"belongs to release v2020, not to 2017") as caught:
        read("nih-chestxray14", root, release="2017")
    assert "--release v2020" in caught.value.hint


@pytest.mark.parametrize(
    "path",
    [
        "CheXpert-v1.0-small/train/patient1/study1/view1_frontal.jpg",
        "CheXpert-v1.0-small/train/patient00001/study1/view1_oblique.jpg",
        "patient00001_study1_view1_frontal.jpg",
        "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg/",
    ],
)
def test_a_path_in_no_known_form_is_named_and_shown(tmp_path, path):
    root = write("chexpert", tmp_path)
    change(
        root / "CheXpert-v1.0-small" / "train.csv",
        lambda data: data.replace(b"CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg", path.encode()),
    )
    with pytest.raises(TableError, match=r"line 3, column 'Path': expected a path such as") as caught:
        read("chexpert", root)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    "prefix",
    [
        "CheXpert-v1.0/train", "CheXpert-v1.0-small/train", "train", "CheXpert-v1.0 batch 2 (train 1)", "/data/x/train",
        "CheXpert/train", "chexpert/CheXpert-v1.0/train",
    ],
)  # fmt: skip
def test_every_prefix_that_mirrors_give_the_paths(tmp_path, prefix):
    root = write("chexpert", tmp_path)
    before = read("chexpert", root).table
    change(
        root / "CheXpert-v1.0-small" / "train.csv",
        lambda data: data.replace(b"CheXpert-v1.0-small/train", prefix.encode()),
    )
    after = read("chexpert", root).table
    assert after.column("image_id").equals(before.column("image_id"))
    assert after.column("split").to_pylist() == before.column("split").to_pylist()


def test_tables_are_found_under_names_of_any_case_and_packed(tmp_path):
    root = write("nih-chestxray14", tmp_path)
    before = read("nih-chestxray14", root)
    (root / "BBox_List_2017.csv").rename(root / "bbox_list_2017.CSV")
    table = root / "Data_Entry_2017_v2020.csv"
    (root / "data_entry_2017_v2020.csv.gz").write_bytes(gzip.compress(table.read_bytes()))
    table.unlink()
    after = read("nih-chestxray14", root)
    changed = {"table_name", "table_digest"}
    kept = [name for name in before.table.column_names if name not in changed]
    assert after.table.select(kept).equals(before.table.select(kept))


# ---- counts in are counts out and counts reported ----


def damaged(dataset, root, rng):
    """Take rows out of some tables and lists, and put names into them that no other table knows."""
    edited = {}
    for path in sorted(root.rglob("*")):
        if not path.is_file() or path.suffix not in (".csv", ".gz", ".txt") or rng.random() < 0.4:
            continue
        head = 0 if path.suffix == ".txt" else 1
        change(path, lambda data, head=head: thinned(data, rng, head))
        data = path.read_bytes()
        edited[path.name] = len((gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()) - head
    return edited


def thinned(data, rng, head):
    lines = data.decode().splitlines()
    kept = [row for row in lines[head:] if rng.random() < 0.7] or lines[head : head + 1]
    if not head and rng.random() < 0.5:
        kept.append("00099999_000.png")
    return ("\n".join([*lines[:head], *kept]) + "\n").encode()


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.sampled_from(sorted(WRITERS)), st.integers(0, 2**32))
def test_every_row_that_was_read_is_used_or_reported(tmp_path_factory, dataset, seed):
    root = tmp_path_factory.mktemp("damaged")
    write(dataset, root)
    edited = damaged(dataset, root, random.Random(seed))
    notes = []
    labels, refused = None, None
    try:
        labels = read(dataset, root, on_event=notes.append)
    except TableError as error:
        refused = error
    if labels is None:
        # A labelled study that no table of images names any more has no patient: said, with file and line.
        assert "no table here says whose study this is" in str(refused)
        assert str(root) in str(refused)
        return
    for use in labels.tables:
        reported = sum(count for _, count in use.apart)
        assert use.rows == use.used + reported
        assert use.rows == edited.get(use.name, use.rows)
        for _, count in use.apart:
            assert any(f"{count:,} of {use.rows:,} rows" in note.message for note in notes)
    # A row of labels for each row of a table of images: none is lost between reading and writing.
    made = labels.table.column("table_name").to_pylist()
    for use in labels.tables:
        if use.role == "labels" and dataset != "mimic-cxr-jpg":
            assert made.count(use.name) == use.used


def test_every_dataset_is_tested_here():
    others = {"mimic-cxr"}  # the same reader as mimic-cxr-jpg
    others |= {name for name, spec in catalog().items() if spec.module == "declared"}  # see tests/datasets
    assert set(WRITERS) | others == set(catalog())
    for name, module in WRITERS.items():
        assert importlib.import_module(f"tests.generators.small.{name.replace('-', '_')}") is module
