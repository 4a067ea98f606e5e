"""--url-file where it cannot count: a file that is not there, a mirror that takes no signed URL."""

from __future__ import annotations

from pathlib import Path

import pytest

import cxrprep
from cxrprep.errors import UsageError
from tests.commands import cxrprep as command
from tests.generators.small import nih_chestxray14


@pytest.mark.parametrize("source", ["portal", "kaggle", "mirror"])
def test_a_file_that_is_not_there_is_said(tmp_path: Path, source: str) -> None:
    (tmp_path / "mirror").mkdir()
    done = command("download", "chexpert", "root", "--source", source, "--url-file", "no file", cwd=tmp_path)
    assert done.returncode == 2
    assert "--url-file: no file does not exist" in " ".join(done.stderr.split())
    assert not (tmp_path / "root").exists()
    with pytest.raises(UsageError, match="--url-file: no file does not exist"):
        cxrprep.download("chexpert", tmp_path / "root", source=source, url_file="no file")


def test_a_mirror_that_takes_no_link_is_not_asked_in_silence(tmp_path: Path) -> None:
    nih_chestxray14.write(tmp_path / "mirror", release="2017")
    (tmp_path / "link").write_text("https://a.blob.core.windows.net/c?sv=1&sr=c&sp=rl&sig=x\n")
    words = ("download", "nih-chestxray14", "root", "--source", "mirror", "--release", "2017")
    done = command(*words, "--url-file", "link", cwd=tmp_path)
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert "takes no signed URL" in said
    assert "leave --url-file out" in said
    with pytest.raises(UsageError, match="takes no signed URL"):
        cxrprep.download(
            "nih-chestxray14", tmp_path / "root", source=str(tmp_path / "mirror"), url_file=tmp_path / "link"
        )
    # In settings it is for the datasets that have such a mirror.
    (tmp_path / "mine.toml").write_text('[download]\nurl_file = "link"\n')
    assert command(*words, "--config", "mine.toml", cwd=tmp_path).returncode == 0


def test_the_default_mirror_takes_none_either(tmp_path: Path) -> None:
    (tmp_path / "link").write_text("https://a.blob.core.windows.net/c?sv=1&sr=c&sp=rl&sig=x\n")
    done = command("download", "chexpert", "root", "--url-file", "link", cwd=tmp_path)
    assert done.returncode == 2
    assert "--url-file: kaggle takes no signed URL" in " ".join(done.stderr.split())
