"""One text has the same labels in whatever form it comes; several reports of one study are joined, and that is said."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cxrprep.labels.nlp.label_collection import label_collection
from tests.labels.nlp.collections import folder, labels, member, parquet
from tests.labels.nlp.test_label_sources import by_source, run

HEAD = " " * 33 + "FINAL REPORT\n EXAMINATION:  CHEST (PORTABLE AP)\n \n INDICATION:  ?pneumonia\n \n"
TEXTS = (
    f"{HEAD} FINDINGS: \n \n Small left effusion.\n \n IMPRESSION: \n \n No pneumothorax.  Mild edema.\n",
    f"{HEAD} FINDINGS: \n \n The heart is enlarged; no edema.\n",
    # Neither title: the last paragraph is read.
    f"{HEAD} TECHNIQUE:  Portable.\n \n Right basal consolidation or\n atelectasis.  ET tube in place.\n",
)


def stripped(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines()).strip()


def as_csv(delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([("study_id", "view", "report"), *((f"s5000000{n}", "AP", text) for n, text in enumerate(TEXTS))])
    return out.getvalue().encode()


def as_files(root: Path, change: Callable[[str], str]) -> Path:
    return folder(root / "files", {member(n): change(text).encode() for n, text in enumerate(TEXTS)})


def as_zip(root: Path) -> Path:
    with zipfile.ZipFile(root / "r.zip", "w") as archive:
        for number, text in enumerate(TEXTS):
            archive.writestr(member(number), text)
    return root / "r.zip"


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


FORMS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda root: as_files(root, str),
    "blanks stripped": lambda root: as_files(root, stripped),
    "line ends of Windows": lambda root: as_files(root, lambda text: text.replace("\n", "\r\n")),
    "blank lines without blanks": lambda root: as_files(root, lambda text: text.replace("\n \n", "\n\n")),
    "dedented": lambda root: as_files(root, lambda text: text.replace("\n ", "\n")),
    "zip": as_zip,
    "csv": lambda root: written(root / "r.csv", as_csv()),
    "csv.gz": lambda root: written(root / "r.csv.gz", gzip.compress(as_csv())),
    "semicolons": lambda root: written(root / "r.csv", as_csv(";")),
    "jsonl": lambda root: written(
        root / "r.jsonl",
        "".join(json.dumps({"study_id": f"s5000000{n}", "text": t}) + "\n" for n, t in enumerate(TEXTS)).encode(),
    ),
    "parquet": lambda root: parquet(root / "r.parquet", {"study_id": ["a", "b", "c"], "text": TEXTS}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_text_has_the_same_labels_in_each_form(tmp_path: Path, form: str) -> None:
    rows = labels(label_collection(FORMS[form](tmp_path), tmp_path / "out").labels)
    given = [
        {k.removeprefix("label_"): v for k, v in row.items() if k.startswith("label_") and v is not None}
        for row in rows
    ]
    assert [row["section"] for row in rows] == ["impression", "findings", "last_paragraph"]
    assert given == [
        {"pneumothorax": 0, "edema": 1},
        {"cardiomegaly": 1, "edema": 0},
        {"consolidation": -1, "atelectasis": -1, "support_devices": 1},
    ]


def test_several_reports_of_a_study_are_joined_and_that_is_said(tmp_path: Path) -> None:
    table = written(
        tmp_path / "radiology.csv.gz",
        gzip.compress(
            b"note_id,subject_id,study_id,text\n1,10,50,No effusion. Possible edema.\n2,10,50,Moderate effusion.\n"
            b"3,10,51,The lungs are clear.\n"
        ),
    )
    told = run("extract-labels", tmp_path / "root", "--reports", table)
    assert "1 study has several reports or rows: joined" in told
    first, second = by_source(tmp_path / "root")["cxrprep"]
    assert (first["label_pleural_effusion"], first["label_edema"], first["label_no_finding"]) == (1, -1, None)
    assert second["label_no_finding"] == 1
