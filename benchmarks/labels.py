"""How fast label tables become Parquet, beside the scripts and classes that people use instead.

usage: python benchmarks/labels.py [--small] [--repeats N] [--chexpert TRAIN.CSV] [--nih FOLDER] [--xrv PYTHON]

Every run is a process of its own on one core, which imports first and is timed afterwards; medians of CPU seconds over
runs in turn. CheXpert's ``train.csv`` is the released one with ``--chexpert``, else a generated one of its size, form
and counts; NIH's tables are those in ``--nih``, else generated ones. MIMIC-CXR's are always generated: 377,110 images.

The pandas script reads the table, takes the ids out of the path by one regular expression, turns the labels into
nullable integers and writes Parquet. It comes twice: with the cells as text beside the integers, as ``labels.parquet``
has them, and in its shortest form, which reads numbers and keeps no text; ours does the same work in both rows.
``--xrv`` names a Python that has torchxrayvision as pip installs it: its dataset classes only read the table. (With
pyarrow beside it pandas has faster strings, and NIH's class takes half the time.)
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from benchmarks.measuring import Row, arguments, finish, in_turn, program_version  # noqa: E402  # the path comes first

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SECONDS = 1.0
TIMES_FASTER = 2.5
JOIN_SECONDS, JOIN_MIB = 5.0, 600.0
CHEXPERT_IMAGES, NIH_IMAGES, MIMIC_IMAGES = 223_414, 112_120, 377_110

_XRV = """
import json, os, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import torchxrayvision as xrv
made = {
    "chexpert": xrv.datasets.CheX_Dataset,
    "nih": xrv.datasets.NIH_Dataset,
}[sys.argv[1]]
begun = time.process_time()
made(imgpath=".", csvpath=sys.argv[2], views=["PA", "AP"], unique_patients=False)
print(json.dumps({"seconds": time.process_time() - begun, "version": xrv.__version__}))
"""


# ---- what is timed, each in a process of its own ----


def ours(dataset: str, folder: Path, out: Path) -> Callable[[], object]:
    """``extract-labels`` as the verb runs it, tables only."""
    import importlib

    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet  # imports apart

    from cxrprep.datasets.catalog import find_dataset
    from cxrprep.labels.extract import read_labels, with_added, write_labels
    from cxrprep.system import plain_memory

    spec = find_dataset(dataset)
    importlib.import_module(f"cxrprep.labels.{spec.module}")
    pa.array([1])  # pyarrow imports pandas at its first array
    # A table that was made from the same is left as it is: that would be no measure of reading them.
    path = out / "labels.parquet"
    path.unlink(missing_ok=True)

    def made() -> object:
        with plain_memory():
            labels = read_labels(spec, folder)
            labels = with_added(spec.name, spec.layout(labels.release).parse, labels, path)
            return write_labels(spec.name, labels, path)

    return made


def _ids(frame: Any) -> None:
    ids = frame["Path"].str.extract(
        r"(?P<patient>patient\d{5})/(?P<study>study\d+)/(?P<view>view\d+_(?:frontal|lateral))"
    )
    frame["patient_id"] = ids["patient"]
    frame["study_id"] = ids["patient"] + "/" + ids["study"]
    frame["image_id"] = frame["study_id"] + "/" + ids["view"]


def _finish_chexpert(frame: Any, values: dict[Any, int], out: Path) -> None:
    _ids(frame)
    for name in list(frame.columns[5:19]):
        frame["label_" + name.lower().replace(" ", "_")] = frame[name].map(values).astype("Int8")
    frame["sex"] = frame["Sex"].map({"Male": "M", "Female": "F"})
    frame["view"] = frame["AP/PA"].where(frame["Frontal/Lateral"] == "Frontal", "LATERAL")
    frame.sort_values(["patient_id", "study_id", "image_id"]).to_parquet(out / "pandas.parquet", index=False)


def pandas_chexpert(path: Path, out: Path, *, text: bool) -> Callable[[], object]:
    """The usual script for CheXpert's table."""
    pd = _pandas(out)

    def script() -> None:
        if text:
            frame = pd.read_csv(path, dtype=str)
            _finish_chexpert(frame, {"1.0": 1, "0.0": 0, "-1.0": -1}, out)
        else:
            _finish_chexpert(pd.read_csv(path), {1.0: 1, 0.0: 0, -1.0: -1}, out)

    return script


def pandas_nih(folder: Path, out: Path, *, text: bool) -> Callable[[], object]:
    """The usual script for NIH's table, its split lists and boxes."""
    pd = _pandas(out)

    def script() -> None:
        frame = pd.read_csv(folder / "Data_Entry_2017_v2020.csv", dtype=str if text else None)
        frame["image_id"] = frame["Image Index"].str.slice(0, -4)
        frame["patient_id"] = frame["Image Index"].str.slice(0, 8)
        words = frame["Finding Labels"].str.get_dummies("|")
        for name in words.columns:
            frame["label_" + name.lower().replace(" ", "_")] = words[name].astype("int8")
        names = {
            part: set((folder / f"{part}_list.txt").read_text(encoding="ascii").split())
            for part in ("train_val", "test")
        }
        for part, listed in names.items():
            frame.loc[frame["Image Index"].isin(listed), "split"] = part
        boxes = pd.read_csv(folder / "BBox_List_2017.csv").iloc[:, :6]
        boxes.columns = ["Image Index", "label", "x", "y", "w", "h"]
        by_image = boxes.groupby("Image Index")[["label", "x", "y", "w", "h"]].apply(
            lambda rows: rows.to_dict("records")
        )
        frame["boxes"] = frame["Image Index"].map(by_image)
        frame.sort_values("image_id").to_parquet(out / "pandas.parquet", index=False)

    return script


def _pandas(out: Path) -> Any:
    import pandas as pd

    # The first table loads what reading and writing need, as our own imports do.
    pd.DataFrame({"a": [1]}).to_parquet(out / "first.parquet")
    return pd


def pandas_mimic(folder: Path, out: Path) -> Callable[[], object]:
    """The usual script for MIMIC-CXR-JPG: metadata, split and both labelers joined into a table each."""
    pd = _pandas(out)

    def script() -> None:
        images = pd.read_csv(folder / "mimic-cxr-2.0.0-metadata.csv.gz")
        split = pd.read_csv(folder / "mimic-cxr-2.0.0-split.csv.gz")
        images = images.merge(split, on=["dicom_id", "subject_id", "study_id"], how="left")
        frames = []
        for labeler in ("chexpert", "negbio"):
            labels = pd.read_csv(folder / f"mimic-cxr-2.0.0-{labeler}.csv.gz")
            for name in labels.columns[2:]:
                labels[name] = labels[name].map({1.0: 1, 0.0: 0, -1.0: -1}).astype("Int8")
            frames.append(images.merge(labels, on=["subject_id", "study_id"], how="left").assign(source=labeler))
        pd.concat(frames).to_parquet(out / "pandas.parquet", index=False)

    return script


RUNS: dict[str, Callable[[Path, Path], Callable[[], object]]] = {
    "ours-chexpert": partial(ours, "chexpert"),
    "ours-nih": partial(ours, "nih-chestxray14"),
    "ours-mimic": partial(ours, "mimic-cxr-jpg"),
    "pandas-chexpert-text": lambda folder, out: pandas_chexpert(folder / "train.csv", out, text=True),
    "pandas-chexpert": lambda folder, out: pandas_chexpert(folder / "train.csv", out, text=False),
    "pandas-nih-text": lambda folder, out: pandas_nih(folder, out, text=True),
    "pandas-nih": lambda folder, out: pandas_nih(folder, out, text=False),
    "pandas-mimic": pandas_mimic,
}


def child(name: str, folder: Path, out: Path) -> None:
    """Time one run and print what it cost."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    run = RUNS[name](folder, out)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    cost = {"wall": time.perf_counter() - wall, "seconds": time.process_time() - cpu}
    print(json.dumps({**cost, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def _run(words: Sequence[str], key: str = "seconds") -> float:
    done = subprocess.run(list(words), capture_output=True, text=True, check=False, cwd=PROJECT)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1])[key])


def timed(name: str, folder: Path, out: Path, key: str = "seconds") -> Callable[[], float]:
    """One run of ``name`` in a fresh process; what it returns is ``key`` of its cost."""
    return lambda: _run([sys.executable, str(Path(__file__)), "--child", name, str(folder), str(out)], key)


def xrv(python: str, dataset: str, path: Path) -> Callable[[], float]:
    """Making torchxrayvision's dataset object, in the Python that has it."""
    return lambda: _run([python, "-c", _XRV, dataset, str(path)])


# ---- the tables ----


def chexpert_tables(folder: Path, given: Path | None, *, small: bool) -> Path:
    """A folder with ``train.csv``."""
    from tests.generators.full.chexpert import PATIENTS, Chexpert

    folder.mkdir()
    if given is not None:
        (folder / "train.csv").write_bytes(given.read_bytes())
        return folder
    release = Chexpert.generate(PATIENTS // 20 if small else PATIENTS)
    (folder / "train.csv").write_text("\n".join(release.train_csv()) + "\n", encoding="ascii")
    return folder


def nih_tables(folder: Path, given: Path | None, *, small: bool) -> Path:
    """A folder with the findings table, the lists and the boxes."""
    if given is not None:
        folder.mkdir()
        names = ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv")
        for name in names:
            (folder / name).write_bytes((given / name).read_bytes())
        return folder
    from tests.generators.full.nih_chestxray14 import Nih

    release = Nih.generate(NIH_IMAGES // 20 if small else NIH_IMAGES)
    train_val, test = release.lists()
    _write(folder / "Data_Entry_2017_v2020.csv", "\n".join(release.table()) + "\n")
    _write(folder / "BBox_List_2017.csv", "\n".join(release.boxes()) + "\n")
    _write(folder / "train_val_list.txt", train_val)
    _write(folder / "test_list.txt", test)
    return folder


def mimic_tables(folder: Path, *, small: bool) -> Path:
    """A folder with the tables of MIMIC-CXR-JPG and the lists of MIMIC-CXR, without sums, images and reports."""
    from tests.generators.full.mimic_cxr import Mimic

    release = Mimic.generate(MIMIC_IMAGES // 20 if small else MIMIC_IMAGES)
    tables = {
        "mimic-cxr-2.0.0-metadata.csv.gz": release.metadata(),
        "mimic-cxr-2.0.0-split.csv.gz": release.splits(),
        "mimic-cxr-2.0.0-chexpert.csv.gz": release.labels("chexpert"),
        "mimic-cxr-2.0.0-negbio.csv.gz": release.labels("negbio"),
        "mimic-cxr-2.1.0-test-set-labeled.csv": release.radiologist(),
        "cxr-record-list.csv.gz": release.record_list(),
        "cxr-study-list.csv.gz": release.study_list(),
        "cxr-provider-list.csv.gz": release.providers(),
        "IMAGE_FILENAMES": release.paths("mimic-cxr-jpg"),
    }
    for name, lines in tables.items():
        _write(folder / name, "\n".join(lines) + "\n")
    return folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    data = text.encode("ascii")
    path.write_bytes(gzip.compress(data, compresslevel=6, mtime=0) if path.suffix == ".gz" else data)


# ---- the table of results ----


def rows_of(options: Any, work: Path) -> list[Row]:
    """Everything measured."""
    out = work / "out"
    out.mkdir()
    rows = []
    python = options.xrv or (sys.executable if importlib.util.find_spec("torchxrayvision") else None)
    made = {
        "chexpert": chexpert_tables(work / "chexpert", options.chexpert, small=options.small),
        "nih": nih_tables(work / "nih", options.nih, small=options.small),
    }
    titles = {"chexpert": "CheXpert's train.csv", "nih": "NIH's tables"}
    for name, folder in made.items():
        runs = {kind: timed(f"{kind}-{name}", folder, out) for kind in ("ours", "pandas")}
        runs["pandas-text"] = timed(f"pandas-{name}-text", folder, out)
        if python:
            table = "train.csv" if name == "chexpert" else "Data_Entry_2017_v2020.csv"
            runs["xrv"] = xrv(python, name, folder / table)
        found = in_turn(runs, options.repeats)
        cpu = partial(Row, ours=found["ours"], unit="s", lower=True)
        rows.append(cpu(f"{titles[name]} to Parquet", peer="about a second", theirs=SECONDS, floor=1))
        rows.append(
            cpu(f"{titles[name]}, text kept", peer="pandas script", theirs=found["pandas-text"], floor=TIMES_FASTER)
        )
        rows.append(cpu(f"{titles[name]}, numbers only", peer="pandas script", theirs=found["pandas"]))
        if "xrv" in found:
            rows.append(cpu(f"{titles[name]}, read", peer="torchxrayvision", theirs=found["xrv"], floor=1))
    folder = mimic_tables(work / "mimic", small=options.small)
    four = work / "four"
    four.mkdir()
    for name in ("metadata", "split", "chexpert", "negbio"):
        packed = folder / f"mimic-cxr-2.0.0-{name}.csv.gz"
        (four / packed.name).hardlink_to(packed)
    runs = {"ours": timed("ours-mimic", folder, out), "four": timed("ours-mimic", four, out)}
    found = in_turn({**runs, "pandas": timed("pandas-mimic", four, out)}, max(1, options.repeats // 2))
    peak = timed("ours-mimic", folder, out, "peak")()
    joined = partial(Row, ours=found["ours"], unit="s", lower=True)
    rows.append(joined("MIMIC-CXR-JPG joined", peer="limit", theirs=JOIN_SECONDS, floor=1))
    rows.append(Row("MIMIC-CXR-JPG joined, memory", peak, "MiB", "limit", JOIN_MIB, 1, lower=True))
    rows.append(
        Row("MIMIC-CXR-JPG, four tables only", found["four"], "s", "pandas script", found["pandas"], lower=True)
    )
    return rows


def main() -> int:
    """Run from the command line."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return 0
    parser = arguments(__doc__)
    shared = Path(os.environ.get("CXR_SHARED_DATA", PROJECT.parent / "shared" / "data")) / "nih-chestxray14"
    parser.add_argument("--chexpert", type=Path, metavar="TRAIN.CSV", help="the released training table")
    parser.add_argument(
        "--nih", type=Path, metavar="FOLDER", default=shared if shared.is_dir() else None, help="NIH's released tables"
    )
    parser.add_argument(
        "--xrv", metavar="PYTHON", help="a Python that has torchxrayvision; default: this one, if it has"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = rows_of(options, Path(temporary))
    versions = {
        name: program_version([sys.executable, "-c", f"import {name}; print({name}.__version__)"])
        for name in ("pandas", "pyarrow")
    }
    return finish("Label tables to Parquet, CPU seconds on one core", rows, json_file=options.json, versions=versions)


if __name__ == "__main__":
    raise SystemExit(main())
