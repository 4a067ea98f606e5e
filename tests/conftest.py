"""What every test gets: no home of a real user, no colours, a fixed width, no credentials from the environment."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cxrprep.storage import object_store
from tests.commands import in_this_process
from tests.parts import need
from tests.servers import s3

# What a user may have set and a test must not see, beside everything of our own.
_LEAKY = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "KAGGLE_API_TOKEN",
    "KAGGLE_CONFIG_DIR",
    "KAGGLE_USERNAME",
    "KAGGLE_KEY",
    "CHEXPERT_URL",
    "CHEXPERT_URL_FILE",
    "CLOUDSDK_CONFIG",
    "GCE_METADATA_HOST",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
    "STORAGE_EMULATOR_HOST",
    "BOX_DEVELOPER_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HOME",
    "PHYSIONET_USERNAME",
    "PHYSIONET_PASSWORD",
    "PHYSIONET_PASSWORD_FILE",
    "NETRC",
    "FORCE_COLOR",
    "CLICOLOR_FORCE",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
)

# The examples are the same on every machine and at every hour, and how long one takes is not judged by a clock:
# to look for new ones, run with --hypothesis-profile=search.
settings.register_profile(
    "suite", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("suite")


def _nobodys(patch: pytest.MonkeyPatch, home: str) -> None:
    patch.setenv("HOME", home)
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        patch.setenv(name, f"{home}/{name.lower()}")
    patch.setenv("NO_COLOR", "1")
    patch.setenv("COLUMNS", "100")
    own = [name for name in os.environ if name.startswith("CXRPREP_") and name != "CXRPREP_REQUIRE_PARTS"]
    for name in (*_LEAKY, *own):
        patch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _no_real_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For what several tests share: it is made before the home of any one of them."""
    with pytest.MonkeyPatch.context() as patch:
        _nobodys(patch, str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders by number; ``mktemp`` would look through all that are there for each (16 s of CPU time a worker)."""
    folders = tmp_path_factory.mktemp("tests")
    return (folders / str(number) for number in itertools.count())


@pytest.fixture
def tmp_path(_folders: Iterator[Path], request: pytest.FixtureRequest) -> Path:
    """An empty folder of this test, in place of pytest's own."""
    folder = next(_folders)
    folder = folder.with_name(f"{re.sub(r'[^a-z0-9]+', '_', request.node.name)[:30]}{folder.name}")
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def _own_home(_folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    home = next(_folders)
    home.mkdir()
    _nobodys(monkeypatch, str(home))


@pytest.fixture(scope="session", autouse=True)
def _quickly() -> Iterator[None]:
    """Whoever tests workers says how many there are."""
    with in_this_process():
        yield


@pytest.fixture(scope="session")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3]:
    need("s3")
    with s3.running(tmp_path_factory.mktemp("moto")) as service:
        yield service


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Working copies of this test alone; returns where they lie."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    object_store._system.cache_clear()
    yield tmp_path / "cache" / "cxrprep" / "buckets"
    object_store._system.cache_clear()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that no worker is left alone with one at the end."""
    cost: Counter[Path] = Counter()
    for item in items:
        cost[item.path] += 40 if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -cost[item.path])
