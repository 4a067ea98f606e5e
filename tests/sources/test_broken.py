"""Connections that break within the first bytes, again and again: every byte that came is progress."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cxrprep.errors import SourceUnreachableError
from cxrprep.model import RemoteFile
from cxrprep.sources import open_source
from cxrprep.sources.base import SourceOptions
from tests.servers import faults
from tests.transfer.runs import download, tree

NAME = "images/00000001_000.png"
DATA = random.Random(9).randbytes(1_200_000)


@pytest.mark.parametrize("chunked", [False, True])
def test_what_came_before_the_end_is_handed_out(*, chunked: bool) -> None:
    with faults.serving({NAME: DATA}, cut_after=100_000, chunked=chunked) as server:
        source = open_source(server.url, SourceOptions(timeout=5))
        buffer = memoryview(bytearray(1 << 20))
        got = b""

        def read() -> None:
            nonlocal got
            with source.open(RemoteFile(NAME)) as stream:
                while count := stream.readinto(buffer):
                    got += bytes(buffer[:count])

        with pytest.raises(SourceUnreachableError) as caught:
            read()
        assert got == DATA[:100_000]
        assert caught.value.hint
        source.close()


def test_a_line_that_breaks_every_hundred_kilobytes_brings_the_file_in_the_end(tmp_path: Path) -> None:
    with faults.serving({NAME: DATA}, cut_after=100_000) as server:
        result = download(tmp_path / "root", server.url)
        assert result.failures == []
        assert server.sent == len(DATA), "no byte came twice"
    assert tree(tmp_path / "root") == {NAME: DATA}
