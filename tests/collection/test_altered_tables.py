"""A table whose footer was altered: no page's checksum covers that, and what leaves the tool is held to the list."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.api.convert import hospital
from tests.commands import cxrprep, ok
from tests.manifest.made import made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("altered")
    made("nih-chestxray14", home / "release")
    ok("convert", "release", "--recipe", "square-224", "--out", "converted", cwd=home)
    hospital.write(home / "own")
    ok("manifest", "own", cwd=home, env={"XDG_STATE_HOME": str(home / "key")})
    return home


def alter(path: Path) -> None:
    """Another letter in the last place of the file, which is in its footer, that says ``schema``."""
    data = path.read_bytes()
    at = data.rindex(b'"schema"')
    path.write_bytes(data[: at + 1] + b"x" + data[at + 2 :])


@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        ("release", "export"), ("own", "export"), ("own", "convert"), ("converted", "export"), ("converted", "convert"),
        ("converted", "manifest"),
    ],
)  # fmt: skip
def test_what_an_altered_footer_says_goes_no_further(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, verb: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "key"))
    root = shutil.copytree(home / kind, tmp_path / kind)
    alter(root / "manifests/images.parquet")
    more = {"export": ["--format", "csv"], "convert": ["--recipe", "shortest-512", "--out", tmp_path / "out"]}
    done = cxrprep(verb, root, *more.get(verb, []))
    assert (done.returncode, "images.parquet was altered" in done.stderr) == (4, True), done
    assert "cxrprep verify" in done.stderr.partition("Hint:")[2], done
    if kind != "converted":
        # Of what is here it is made again, as verify says.
        ok("manifest", root)
        ok(verb, root, *more[verb])


def test_labels_of_another_source_are_held_to_the_list_too(home: Path, tmp_path: Path) -> None:
    root = shutil.copytree(home / "release", tmp_path / "root")
    alter(root / "manifests/labels.parquet")
    done = cxrprep("export", root, "--format", "csv", "--label-source", "nih-textmined", "--out", tmp_path / "csv")
    assert (done.returncode, "labels.parquet was altered" in done.stderr) == (4, True), done
    ok("export", root, "--format", "csv", "--out", tmp_path / "csv")
