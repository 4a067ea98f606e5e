"""``cxrprep explain``, and reports on the command line: what a person sees, and what stays out of logs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from cxrprep.api.report_labels import check_labeler
from cxrprep.labels.nlp import custom_rules
from tests.commands import PROGRAM, cxrprep
from tests.labels.nlp.collections import folder, labels, mimic_report, mimic_zip, table_csv

REPORT = "INDICATION: Pneumonia? IMPRESSION: Small effusion. No edema. Stable heart size."


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.txt"
    path.write_text(REPORT, "utf-8")
    return path


def test_mentions_are_marked_and_reasons_given(report: Path) -> None:
    done = cxrprep("explain", report)
    assert done.returncode == 0
    assert "Small [+effusion]. No [-edema]. Stable [?heart size]." in done.stdout
    assert "INDICATION: Pneumonia?" in done.stdout
    assert "labeled; read: impression" in done.stdout
    assert 'denied by "No" before it' in done.stdout
    assert 'only said to be "Stable": normal or not is left open' in done.stdout


def test_colours_where_they_are_asked_for(report: Path) -> None:
    done = cxrprep("explain", report, "--color", "always", env={"NO_COLOR": ""})
    # What was not read is dim, a finding red.
    assert "\x1b[2mINDICATION" in done.stdout
    assert "\x1b[31m" in done.stdout


def test_json_has_labels_mentions_and_reasons(report: Path) -> None:
    found = json.loads(cxrprep("explain", report, "--json").stdout)
    assert found["labels"]["Edema"] == 0
    assert found["status"] == "labeled"
    (effusion, *_) = found["mentions"]
    assert REPORT[effusion["start"] : effusion["end"]] == "effusion"
    assert effusion["reason"] == "named, and nothing denies it"


def test_standard_input_and_its_control_characters() -> None:
    done = subprocess.run(
        [PROGRAM, "explain", "-"], input=b"No \x1b[31meffusion\x07. Edema\xff.", capture_output=True, check=True
    )
    assert b"\x1b" not in done.stdout
    assert b"\x07" not in done.stdout
    assert b"[+Edema]" in done.stdout


def test_a_file_that_is_no_report_is_refused_by_name(tmp_path: Path) -> None:
    for words, said in (
        ([tmp_path / "nowhere.txt"], "nowhere.txt"),
        ([tmp_path], "Is a directory"),
        ([], "which report?"),
        (["--policy", "nobody", "-"], "nobody"),
        (["--vocabulary", tmp_path / "no.toml", "-"], "no.toml"),
    ):
        done = subprocess.run(
            [PROGRAM, "explain", *map(str, words)], input="x", capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert said in done.stderr


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n0000", "a PNG image"),
        (b"GIF89a. effusion", "a GIF image"),
        (b"BM\0\0 edema", "binary data"),
        (b"\0" * 128 + b"DICM edema", "a DICOM file"),
        (b"\n<!DOCTYPE html><p>No effusion", "a web page"),
        (b'{"report": "No effusion"}', "JSON"),
        (b"id,report,sex\n1,No effusion,M\n2,Edema,F\n3,Mass,F\n".replace(b",", b", ,"), "a table"),
    ],
    ids=lambda word: word if isinstance(word, str) else "",
)
@pytest.mark.parametrize("piped", [True, False])
def test_what_is_no_report_is_not_labelled(data: bytes, kind: str, piped: bool, tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(data)
    name = "-" if piped else str(file)
    done = subprocess.run([PROGRAM, "explain", name], input=data, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stdout == b""
    assert f"{'standard input' if piped else file} is {kind}, not a report" in done.stderr.decode()


def test_text_that_looks_like_none_of_these_is_labelled(tmp_path: Path) -> None:
    for text in ("[Edema] is seen.", "A, b, c: no edema.\n", "{name}: no edema, no mass\nMass, no edema\n"):
        (tmp_path / "x.txt").write_text(text, "utf-8")
        assert cxrprep("explain", tmp_path / "x.txt").returncode == 0


def test_an_empty_report_says_so(tmp_path: Path) -> None:
    (tmp_path / "e.txt").write_text("", "utf-8")
    done = cxrprep("explain", tmp_path / "e.txt")
    assert done.returncode == 0
    assert done.stdout.strip() == "empty; read: nothing"


def test_the_selftest_passes_and_fails_when_the_rules_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    done = cxrprep("explain", "--selftest")
    assert done.returncode == 0
    assert "examples" in done.stdout
    for more in ("r.txt", "--policy=foo", "--policy=strict", "--compat=chexpert-labeler", "--sections=findings"):
        refused = cxrprep("explain", "--selftest", more)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"it does not take {more.partition('=')[0]}" in refused.stderr
    monkeypatch.setattr(custom_rules, "examples", lambda: ["No edema. => Edema=1"])
    broken = check_labeler()
    assert int(broken.exit_code) == 4
    assert "gives Edema=0, not 1" in str(broken.rows)


def test_a_collection_from_the_command_line(tmp_path: Path) -> None:
    source = mimic_zip(tmp_path / "mimic-cxr-reports.zip", 9, {"../evil.txt": b"Edema."})
    done = cxrprep("extract-labels", tmp_path / "root", "--reports", source, "--evidence", "--json", "-j", 1)
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["counts"] == {"labeled": 9, "refused": 1}
    assert "../evil.txt" in done.stderr
    rows = labels(tmp_path / "root" / "manifests" / "report_labels.parquet")
    assert len(rows) == 10
    assert (tmp_path / "root" / "manifests" / "mentions.parquet").exists()


def test_reports_in_root_are_found_without_a_name(tmp_path: Path) -> None:
    folder(tmp_path / "root", {"p10000032/s50414267.txt": mimic_report(1)})
    assert cxrprep("extract-labels", tmp_path / "root", "--reports", "-q").returncode == 0
    (row,) = labels(tmp_path / "root" / "manifests" / "report_labels.parquet")
    assert row["study_id"] == "50414267"


def test_no_word_of_a_report_is_in_logs_or_messages(tmp_path: Path) -> None:
    secret = "Mrs. Sekretariat has a small effusion."
    source = table_csv(tmp_path / "r.csv", ("id", "report"), [("1", secret)])
    log = tmp_path / "run.log"
    done = cxrprep("extract-labels", tmp_path / "root", "--reports", source, "--log-file", log, "--events", "jsonl")
    assert done.returncode == 0
    assert cxrprep("explain", source, "--json", "--log-file", log).returncode == 0
    assert log.exists()
    for text in (done.stdout, done.stderr, log.read_text("utf-8")):
        assert "Sekretariat" not in text


def test_shards_and_comparison_on_the_command_line(tmp_path: Path) -> None:
    source = mimic_zip(tmp_path / "mimic-cxr-reports.zip", 40)
    root = tmp_path / "root"
    first = cxrprep("extract-labels", root, "--reports", source, "--shard", "1/2")
    assert "shards 2" in first.stdout
    assert "all shards" in cxrprep("extract-labels", root, "--reports", source, "--shard", "2/2").stdout
    table = root / "manifests" / "report_labels.parquet"
    compared = cxrprep("extract-labels", "--compare", table, table)
    assert compared.returncode == 0
    assert "Kappa" in compared.stdout
    assert json.loads(cxrprep("extract-labels", "--compare", table, table, "--json").stdout)["common"] == 40
