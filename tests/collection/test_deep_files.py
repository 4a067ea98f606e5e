"""JSON that others wrote, deeper than Python reads or of another form: the answer names the file, and is no bug."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.commands import cxrprep, ok, result
from tests.manifest.made import made

DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("chexpert", tmp_path_factory.mktemp("chexpert"))


@pytest.mark.parametrize(
    "words", ["extract-labels ROOT --reports FILE", "pairs ROOT --reports FILE", "extract-labels ROOT --import x=FILE"]
)
def test_a_line_that_is_nested_too_deeply_is_named(root: Path, tmp_path: Path, words: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(f"{DEEP}\n")
    done = cxrprep(*words.replace("ROOT", str(root)).replace("FILE", str(path)).split())
    assert (done.returncode, f"{path}, line 1" in done.stderr) == (4, True), done.stderr


def test_a_proof_that_is_none_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    """A leaf that is no JSON, splits that are a list: it ended as a bug."""
    path = tmp_path / "proof.json"
    digest = result("digest", root)["digest"]
    name = pq.read_table(root / "manifests/images.parquet")["image_id"][0].as_py()
    ok("prove", digest, root, "--image", name, "--out", path)
    good = json.loads(path.read_text())
    ok("prove", digest, "--proof", path)
    head = good["head"]
    wrong = [
        *({**good, "leaf": leaf} for leaf in ("x", DEEP, "[1]", "3", "\ud800")),
        *({**good, "head": {**head, "splits": splits}} for splits in ([], None, {good["split"]: 3}, {"train": []})),
        *({**good, "index": index} for index in (float("inf"), float("nan"), None, [])),
        *({**good, "path": path} for path in (["xy"], 3, None)),
        *({**good, name: None} for name in good),
    ]
    for told in [DEEP, "null", "[]", "3", '"x"', *map(json.dumps, wrong)]:
        path.write_text(told)
        done = cxrprep("prove", digest, "--proof", path)
        assert done.returncode in (2, 4), (told[:500], done)
        assert done.returncode == 4 or "no proof of a training set" in done.stderr, (told[:500], done)
