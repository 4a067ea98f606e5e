"""A language model behind an endpoint: what is sent, what is kept, and where text never goes."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cxrprep.labels.labelers.contract import LabelerOptions
from cxrprep.labels.labelers.registry import labeler_named
from cxrprep.labels.nlp.output_tables import making
from cxrprep.labels.nlp.ruleset import OBSERVATIONS
from cxrprep.sources.json_service import is_loopback
from tests.labels.nlp.collections import folder
from tests.labels.nlp.test_label_sources import by_source, run
from tests.servers.loopback import Reply, Request, Server, as_json, running

TEXTS = {
    "a.txt": "FINDINGS: Clear.\nIMPRESSION: Pulmonary edema.",
    "b.txt": "No pneumothorax.",
    "c.txt": "IMPRESSION: Pulmonary edema.",
    "d.txt": "   ",
}


def text_of(request: Request) -> str:
    return str(request.json()["messages"][-1]["content"])


def answer(text: str) -> dict[str, str]:
    said = dict.fromkeys(OBSERVATIONS, "not mentioned")
    said["Edema"] = "positive" if "edema" in text else "not mentioned"
    said["Pneumothorax"] = "negative" if "pneumothorax" in text else "not mentioned"
    return said


def model(request: Request) -> Reply:
    if request.path.endswith("/models"):
        return as_json({"data": [{"id": "small-model"}]})
    return as_json(
        {"choices": [{"message": {"content": "```json\n" + json.dumps(answer(text_of(request))) + "\n```"}}]}
    )


@pytest.fixture
def server() -> Iterator[Server]:
    with running(model) as served:
        yield served


def asked(server: Server) -> list[str]:
    return sorted(text_of(request) for request in server.seen if request.method == "POST")


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return folder(tmp_path / "reports", TEXTS)


def label(root: Path, reports: Path, url: str, *more: str, code: int = 0) -> str:
    endpoint = ("--endpoint", f"{url}/v1")
    return run("extract-labels", root, "--reports", reports, "--labeler", "llama=openai", *endpoint, *more, code=code)


def rows(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / "manifests" / "label_sources" / "llama" / "report_labels.parquet").to_pylist()


def test_a_model_is_a_label_source_beside_the_rules(
    server: Server, tmp_path: Path, reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELER_API_KEY", "key-of-the-labeler")
    root = tmp_path / "root"
    run("extract-labels", root, "--reports", reports)
    label(root, reports, server.url)
    assert [row["label_edema"] for row in rows(root)] == [1, None, 1, None]
    assert [row["label_pneumothorax"] for row in rows(root)] == [None, 0, None, None]
    assert [row["status"] for row in rows(root)] == ["labeled", "labeled", "labeled", "empty"]
    assert set(by_source(root)) == {"cxrprep", "llama"}
    # The impression alone, and one question for the same text.
    assert asked(server) == ["No pneumothorax.", "Pulmonary edema."]
    body = server.seen[-1].json()
    assert (body["model"], body["temperature"]) == ("small-model", 0)
    assert body["response_format"]["json_schema"]["schema"]["required"] == [*OBSERVATIONS]
    assert server.seen[-1].headers["authorization"] == "Bearer key-of-the-labeler"
    made = making(root / "manifests" / "label_sources" / "llama" / "report_labels.parquet")
    assert made is not None
    assert (made["labeler"]["name"], made["labeler"]["version"]) == ("openai", "small-model")
    assert made["labeler"]["digest"].startswith("sha256:")


def test_what_was_answered_is_asked_for_once_whatever_ends_a_run(tmp_path: Path, reports: Path) -> None:
    refuses = True

    def app(request: Request) -> Reply:
        if refuses and request.method == "POST" and "edema" in text_of(request):
            return as_json({}, status=401)
        return model(request)

    with running(app) as server:
        root = tmp_path / "root"
        told = label(root, reports, server.url, code=5)
        assert "LABELER_API_KEY" in told
        folder(reports, {"e.txt": "No pneumothorax at all."})
        label(root, reports, server.url, "--sections", "technique", code=0)
        refuses = False
        label(root, reports, server.url)
        first = len(asked(server))
        label(root, reports, server.url)
    assert len(asked(server)) == first
    assert [row["label_edema"] for row in rows(root)] == [1, None, 1, None, None]


def test_kill_9_costs_what_is_under_way_and_no_more(tmp_path: Path) -> None:
    reports = folder(tmp_path / "many", {f"{n:02}.txt": f"Pulmonary edema, film {n}." for n in range(12)})
    root, released, answered = tmp_path / "root", threading.Event(), itertools.count()

    def app(request: Request) -> Reply:
        if request.method == "POST" and next(answered) >= 5:
            released.wait(120)
        return model(request)

    words = ("extract-labels", root, "--reports", reports, "--labeler", "llama=openai", "-j", "1")
    with running(app) as server:
        words = (*words, "--endpoint", f"{server.url}/v1")
        program = [sys.executable, "-m", "cxrprep", *map(str, words)]
        with subprocess.Popen(program, start_new_session=True, stderr=subprocess.DEVNULL) as process:
            while sum(len(file.read_text().splitlines()) for file in root.rglob("*.jsonl")) < 5:
                assert process.poll() is None
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
        released.set()
    with running(model) as server:
        run(*words[:-1], f"{server.url}/v1")
        # The endpoint's port is no part of what an answer depends on.
        assert len(asked(server)) == 12 - 5
    assert [row["label_edema"] for row in rows(root)] == [1] * 12


def test_a_cut_line_of_the_answers_is_asked_for_again(server: Server, tmp_path: Path, reports: Path) -> None:
    root = tmp_path / "root"
    label(root, reports, server.url)
    (kept,) = (root / ".cxrprep" / "labeler-answers").rglob("*.jsonl")
    kept.write_text(kept.read_text()[:-20] + "\n" + "[" * 100_000 + "\n")
    label(root, reports, server.url)
    assert len(asked(server)) == 3
    assert [row["label_edema"] for row in rows(root)] == [1, None, 1, None]


def test_no_text_is_kept_or_said(server: Server, tmp_path: Path, reports: Path) -> None:
    root = tmp_path / "root"
    told = label(root, reports, server.url)
    words = [b"Pulmonary edema", b"pneumothorax."]
    for file in (*root.rglob("*"),):
        if file.is_file():
            assert not [word for word in words if word in file.read_bytes()], file
    assert "Pulmonary edema" not in told


def test_text_goes_to_another_machine_only_when_that_is_allowed(tmp_path: Path, reports: Path) -> None:
    told = label(tmp_path / "root", reports, "http://labeler.invalid", code=2)
    assert "labeler.invalid" in told
    assert "--allow-remote-text" in told
    assert not (tmp_path / "root" / "manifests").exists()
    with pytest.raises(Exception, match="the agreement says: nobody else") as refused:
        labeler_named("openai", LabelerOptions(endpoint="http://192.0.2.1/v1", agreement="nobody else"))
    assert refused.value.exit_code == 2  # type: ignore[attr-defined]
    # Allowed, it is asked; that nobody is there is another matter.
    label(tmp_path / "root", reports, "http://labeler.invalid", "--allow-remote-text", "--model", "m", code=6)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:1/v1", True), ("http://127.0.0.9/v1", True), ("http://[::1]:8080/v1", True),
        ("http://localhost.example/v1", False), ("http://10.0.0.1/v1", False), ("http://127.0.0.1.example/", False),
    ],
)  # fmt: skip
def test_what_this_machine_is(url: str, here: bool) -> None:
    assert is_loopback(url) is here


def test_text_is_not_sent_on(tmp_path: Path, reports: Path) -> None:
    with running(model) as other:

        def app(request: Request) -> Reply:
            return Reply(307, b"", {"Location": f"{other.url}{request.path}"})

        with running(app) as server:
            assert "sends requests on" in label(tmp_path / "root", reports, server.url, "--model", "m", code=2)
        assert not other.seen


def bad(content: str) -> Callable[[Request], Reply]:
    return lambda request: (
        model(request)
        if request.method == "GET"
        else as_json({"choices": [{"message": {"content": content}}]})
        if "edema" in text_of(request)
        else model(request)
    )


@pytest.mark.parametrize(
    "content", ["I think it is edema.", '{"Edema": "positive"}', '{"Edema": 1', '{"Edema": ' + "[" * 100_000 + "}"]
)
def test_an_answer_that_is_none_is_no_label(tmp_path: Path, reports: Path, content: str) -> None:
    root = tmp_path / "root"
    with running(bad(content)) as server:
        told = label(root, reports, server.url, code=3)
    assert "gave no labels" in told
    assert content not in told
    assert [row["status"] for row in rows(root)] == ["unreadable", "labeled", "unreadable", "empty"]
    assert [row["label_edema"] for row in rows(root)] == [None, None, None, None]
    # Nothing was kept for it: the next run asks again.
    with running(model) as server:
        label(root, reports, server.url)
        assert asked(server) == ["Pulmonary edema."]


def test_the_rules_only_ask_where_they_leave_something_open(server: Server, tmp_path: Path) -> None:
    texts = {
        "a.txt": "No pneumothorax.",
        "b.txt": "Possible pulmonary edema. Right effusion.",
        "c.txt": "Left apex: pneumothorax. No pneumothorax.",
        "d.txt": "Zwischen Gallertkernen quabbelige Seltsamkeiten.",
    }
    reports = folder(tmp_path / "more", texts)
    run(
        "extract-labels", tmp_path / "root", "--reports", reports, "--labeler", "both", "--endpoint", f"{server.url}/v1"
    )
    assert asked(server) == sorted(texts[name] for name in ("b.txt", "c.txt", "d.txt"))
    found = by_source(tmp_path / "root")["both"]
    assert [row["label_edema"] for row in found] == [None, 1, None, None]
    assert [row["label_pleural_effusion"] for row in found] == [None, 1, None, None]
    assert [row["label_pneumothorax"] for row in found] == [0, None, 0, None]


def test_shards_give_the_bytes_of_one_run(server: Server, tmp_path: Path) -> None:
    reports = folder(tmp_path / "many", {f"{n}.txt": f"Pulmonary edema, film {n}." for n in range(9)})
    for root, words in ((tmp_path / "one", [""]), (tmp_path / "two", ["1/2", "2/2"])):
        for shard in words:
            label(root, reports, server.url, *(("--shard", shard) if shard else ()))
    table = Path("manifests") / "label_sources" / "llama" / "report_labels.parquet"
    assert (tmp_path / "one" / table).read_bytes() == (tmp_path / "two" / table).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--labeler", "gpt"), "no labeler is called 'gpt'"),
        (("--labeler", "cxrprep=openai"), "reserved for the labels"),
        (("--labeler", "x=rules"), "reserved for the labels"),
        (("--labeler", "openai", "--evidence", "--model", "m"), "names the words"),
        (("--labeler", "a b=openai"), "cannot name a label source"),
        (("--labeler", "chexbert"), "which checkpoint"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, reports: Path, words: tuple[str, ...], said: str) -> None:
    assert said in run("extract-labels", tmp_path / "root", "--reports", reports, *words, code=2)


def test_text_for_this_machine_goes_through_no_proxy(
    server: Server, tmp_path: Path, reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(model) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        label(tmp_path / "root", reports, server.url)
        assert proxy.seen == []
    assert len(asked(server)) == 2
