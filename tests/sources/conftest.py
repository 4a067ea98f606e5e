"""For the tests of sources: nobody waits between attempts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stamina

from tests.servers import azurite, s3


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[azurite.Azurite]:
    """One emulator for all tests; each makes containers of its own."""
    with azurite.running(tmp_path_factory.mktemp("azurite")) as service:
        yield service


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3]:
    """One emulator for all tests; each makes buckets of its own."""
    with s3.running(tmp_path_factory.mktemp("s3")) as service:
        yield service
