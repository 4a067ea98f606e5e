"""Whatever commands follow each other over whatever folders, nothing that was known is known less."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.collection.sequences import play
from tests.collection.worlds import release, world

NAMES = ("nih-chestxray14", "mimic-cxr-jpg")


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny folders of each dataset, to be copied."""
    return {name: release(name, tmp_path_factory.mktemp(name)) for name in NAMES}


@settings(max_examples=4)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 2**32))
def test_nothing_is_known_less(releases: dict[str, Path], name: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        play(world(releases[name], Path(home), name, random.Random(seed)), 6)
