"""One Dask cluster for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.executors.cluster import cluster
from tests.parts import need


@pytest.fixture(scope="session")
def scheduler() -> Iterator[str]:
    need("dask")
    with cluster(2) as address:
        yield address
