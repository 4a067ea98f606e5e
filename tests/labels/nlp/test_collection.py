"""Whole collections: the same bytes however they were made, resumed after kill -9, every report accounted for."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cxrprep.errors import NothingSelectedError, SomeFailedError
from cxrprep.events import Advanced, Event, Note, StageFinished, StageStarted
from cxrprep.executors import Engine
from cxrprep.labels.nlp.label_collection import label_collection
from cxrprep.labels.nlp.label_report import label_report
from cxrprep.labels.nlp.output_tables import GROUP
from cxrprep.labels.nlp.policies import policy_named
from cxrprep.model import Shard
from cxrprep.storage.parquet import read_footer
from tests.labels.nlp.collections import folder, labels, member, mimic_report, mimic_zip, openi, parquet, table_csv
from tests.parts import need

MANY = 2 * GROUP + 300


def digests(out: Path) -> dict[str, str]:
    names = ("report_labels.parquet", "mentions.parquet")
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names if (out / name).exists()}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mimic_zip(tmp_path_factory.mktemp("many") / "mimic-cxr-reports.zip", MANY)


@pytest.fixture(scope="module")
def alone(many: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("alone")
    label_collection(many, out, evidence=True)
    return digests(out)


def test_a_row_says_what_the_labeler_says(tmp_path: Path) -> None:
    outcome = label_collection(mimic_zip(tmp_path / "r.zip", 50), tmp_path, evidence=True)
    assert outcome.counts == {"labeled": 50}
    rows = labels(outcome.labels)
    edema = [row["label_edema"] for row in rows]
    assert outcome.labels_given["Edema"] == {
        "positive": edema.count(1), "negative": edema.count(0), "uncertain": edema.count(-1), "null": edema.count(None),
    }  # fmt: skip
    for number, row in enumerate(rows):
        expected = label_report(mimic_report(number))
        assert (row["row"], row["report_id"], row["study_id"]) == (number, member(number), str(50_000_000 + number))
        assert row["section"] == "impression"
        assert row["text_sha256"] == hashlib.sha256(mimic_report(number).encode()).hexdigest()
        assert row["label_pleural_effusion"] == expected.labels["Pleural Effusion"]
        assert row["label_support_devices"] == expected.labels["Support Devices"]
    mentions = pq.read_table(tmp_path / "mentions.parquet").to_pylist()
    for mention in mentions:
        text = mimic_report(mention["row"])
        assert text[mention["start"] : mention["end"]] == mention["phrase"]
        if mention["cue"] is not None:
            assert text[mention["cue_start"] : mention["cue_end"]] == mention["cue"]
    assert {(m["row"], m["observation"], m["status"]) for m in mentions} == {
        (number, m.observation, int(m.status))
        for number in range(50)
        for m in label_report(mimic_report(number)).mentions
    }


def test_no_text_of_a_report_is_in_the_labels(tmp_path: Path) -> None:
    label_collection(mimic_zip(tmp_path / "r.zip", 20), tmp_path)
    assert not (tmp_path / "mentions.parquet").exists()
    data = pq.read_table(tmp_path / "report_labels.parquet").to_pydict()
    cells = {str(cell) for column in data.values() for cell in column}
    assert not any("effusion" in cell or "cardiomegaly" in cell for cell in cells)


@pytest.mark.slow
def test_more_processes_give_the_same_bytes(many: Path, alone: dict[str, str], tmp_path: Path) -> None:
    events: list[Event] = []
    outcome = label_collection(many, tmp_path, engine=Engine(jobs=2), evidence=True, on_event=events.append)
    assert outcome.reports == MANY
    assert digests(tmp_path) == alone
    assert [e.items for e in events if isinstance(e, StageStarted)] == [MANY]
    assert sum(e.items for e in events if isinstance(e, Advanced)) == MANY
    assert [(e.done, e.kept) for e in events if isinstance(e, StageFinished)] == [(MANY, 0)]
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.slow
def test_shards_in_any_order_give_the_same_bytes_once_the_last_is_there(
    many: Path, alone: dict[str, str], tmp_path: Path
) -> None:
    waiting = []
    for index in (2, 3, 1):
        outcome = label_collection(many, tmp_path, shard=Shard(index, 3), evidence=True)
        assert outcome.joined is not None
        waiting.append(outcome.joined.waiting_for)
    assert waiting == [(1, 3), (1,), ()]
    assert digests(tmp_path) == alone
    # A shard made by other rules is none of these.
    other = label_collection(many, tmp_path, shard=Shard(1, 3), policy=policy_named("chexpert-labeler"), evidence=True)
    assert other.joined is not None
    assert other.joined.waiting_for == (2, 3)


@pytest.mark.long
def test_a_dask_cluster_gives_the_same_bytes(many: Path, alone: dict[str, str], tmp_path: Path) -> None:
    need("dask")
    from tests.executors.cluster import cluster

    with cluster(2) as scheduler:
        label_collection(many, tmp_path, engine=Engine("dask", scheduler=scheduler), evidence=True)
    assert digests(tmp_path) == alone


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_done(many: Path, alone: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cxrprep.labels.nlp.label_collection import label_collection;"
        "label_collection(Path(sys.argv[1]), Path(sys.argv[2]), evidence=True)"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(many), str(tmp_path)])
        before = set(tmp_path.glob(".parts-*/*.json"))
        until = time.monotonic() + 60
        while process.poll() is None and set(tmp_path.glob(".parts-*/*.json")) == before and time.monotonic() < until:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
    sealed = len(list(tmp_path.glob(".parts-*/*.json")))
    assert sealed or digests(tmp_path) == alone
    events: list[Event] = []
    label_collection(many, tmp_path, evidence=True, on_event=events.append)
    kept = next(e.kept for e in events if isinstance(e, StageFinished))
    # Three batches in all: the last kill may have come after the end, then there is nothing left to keep.
    assert kept == min(sealed * GROUP, MANY)
    assert digests(tmp_path) == alone


def test_parts_of_a_source_that_changed_are_not_used(tmp_path: Path) -> None:
    root = folder(tmp_path / "r", {"a.txt": "Edema.", "b.txt": "No edema."})
    out = tmp_path / "out"
    label_collection(root, out)
    first = digests(out)
    (root / "a.txt").write_text("No effusion.", "utf-8")
    label_collection(root, out)
    assert digests(out) != first


def test_parts_of_runs_that_nobody_goes_on_with_are_removed(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".parts-old", tmp_path / ".parts-fresh"
    for parts in (old, fresh):
        parts.mkdir()
    os.utime(old, (0, 0))
    label_collection(mimic_zip(tmp_path / "r.zip", 3), tmp_path)
    assert list(tmp_path.glob(".parts-*")) == [fresh]


FORMS = ("zip", "folder", "csv", "parquet", "openi", "chexpert-labeler")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_labels(form: str, tmp_path: Path) -> None:
    texts = ["No effusion.", "Possible edema.", "Stable cardiomegaly."]
    if form == "zip":
        source = tmp_path / "r.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for number, text in enumerate(texts):
                archive.writestr(f"{number}.txt", text)
    elif form == "folder":
        source = folder(tmp_path / "r", {f"{n}.txt": text for n, text in enumerate(texts)})
    elif form == "openi":
        source = folder(tmp_path / "r", {f"{n}.xml": openi(f"CXR{n}", text, "") for n, text in enumerate(texts)})
    elif form == "csv":
        source = table_csv(tmp_path / "r.csv", ("study_id", "report"), [(str(n), t) for n, t in enumerate(texts)])
    elif form == "parquet":
        source = parquet(tmp_path / "r.parquet", {"study_id": [0, 1, 2], "report": texts})
    else:
        source = tmp_path / "r.csv"
        source.write_text("".join(f"{text}\n" for text in texts), "utf-8")
    rows = labels(label_collection(source, tmp_path / "out").labels)
    found = [(row["label_pleural_effusion"], row["label_edema"], row["label_cardiomegaly"]) for row in rows]
    assert found == [(0, None, None), (None, -1, None), (None, None, 1)]


def test_every_report_has_a_row_and_a_status(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "1-labeled.txt": "No effusion.",
        "2-empty.txt": "",
        "3-blank.txt": " \n\t\n",
        "4-headings.txt": "IMPRESSION:\n",
        "5-another-language.txt": "Kein Pleuraerguss. Herz nicht vergrößert.",
        "6-cyrillic.txt": "Лёгкие без очаговых изменений",
        "7-bytes.txt": bytes(range(128, 256)) * 9,
        "8-control.txt": b"No \x00\x07\x1b effusion\x7f.",
        "9-bomb.xml": "<!DOCTYPE x><x/>",
    }
    events: list[Event] = []
    outcome = label_collection(folder(tmp_path / "r", files), tmp_path / "out", on_event=events.append)
    rows = {row["report_id"]: row for row in labels(outcome.labels)}
    assert {key: row["status"] for key, row in rows.items()} == {
        "1-labeled.txt": "labeled",
        "2-empty.txt": "empty",
        "3-blank.txt": "empty",
        "4-headings.txt": "no-section",
        "5-another-language.txt": "unreadable",
        "6-cyrillic.txt": "unreadable",
        "7-bytes.txt": "unreadable",
        "8-control.txt": "labeled",
        "9-bomb.xml": "refused",
    }
    assert all(row["label_no_finding"] is None for key, row in rows.items() if row["status"] != "labeled")
    assert rows["8-control.txt"]["label_pleural_effusion"] == 0
    assert outcome.failed == 4
    assert outcome.problems == ("9-bomb.xml",)
    assert [e.subject for e in events if isinstance(e, Note)] == ["9-bomb.xml"]


def test_an_empty_collection_and_an_empty_shard_say_so(tmp_path: Path) -> None:
    source = table_csv(tmp_path / "r.csv", ("id", "report"), [])
    with pytest.raises(NothingSelectedError):
        label_collection(source, tmp_path / "out")
    one = table_csv(tmp_path / "one.csv", ("id", "report"), [("a", "No edema.")])
    held = next(index for index in (1, 2) if Shard(index, 2).holds("a"))
    with pytest.raises(NothingSelectedError, match="shard"):
        label_collection(one, tmp_path / "out", shard=Shard(3 - held, 2))


def test_the_evidence_is_that_of_the_labels_whoever_asked_for_it_once(tmp_path: Path) -> None:
    """Old mentions beside new labels would say what is not so, and none would be less than there was."""
    source = mimic_zip(tmp_path / "r.zip", 40)
    label_collection(source, tmp_path, evidence=True)
    label_collection(source, tmp_path)
    label_collection(source, tmp_path, policy=policy_named("chexpert-labeler"))
    assert read_footer(tmp_path / "mentions.parquet")["policy"]["name"] == "chexpert-labeler"
    # By the shards of a job array too.
    for number in (1, 2):
        label_collection(source, tmp_path, shard=Shard(number, 2), policy=policy_named("strict"))
    assert read_footer(tmp_path / "mentions.parquet")["policy"]["name"] == "strict"


def test_the_footer_names_rules_policy_and_source(tmp_path: Path) -> None:
    outcome = label_collection(mimic_zip(tmp_path / "r.zip", 5), tmp_path, policy=policy_named("chexpert-labeler"))
    footer = read_footer(outcome.labels)
    assert footer["policy"]["name"] == "chexpert-labeler"
    assert footer["rules"].startswith("sha256:")
    assert footer["source"] == "r.zip"


@pytest.mark.long
def test_a_worker_that_always_dies_is_reported_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Workers are told to end themselves at a report of that name: what memory that runs out does.
    killer = tmp_path / "sitecustomize.py"
    killer.write_text(
        "import os\n"
        "from cxrprep.labels.nlp import batches\n"
        "labelled = batches._labelled\n"
        "def dying(labeler, report, *, evidence):\n"
        f"    if report.key == {member(GROUP + 7)!r}: os._exit(9)\n"
        "    return labelled(labeler, report, evidence=evidence)\n"
        "batches._labelled = dying\n",
        "utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    source = mimic_zip(tmp_path / "r.zip", 2 * GROUP + 10)
    with pytest.raises(SomeFailedError, match="1 batches"):
        label_collection(source, tmp_path / "out", engine=Engine(jobs=2))
    assert len(list((tmp_path / "out").glob(".parts-*/*.json"))) == 2
    assert not (tmp_path / "out" / "report_labels.parquet").exists()
