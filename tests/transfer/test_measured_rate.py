"""The rate of a mirror, from the run that measured it to the plan that counts on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrprep.transfer import measured_rate
from cxrprep.transfer.measured_rate import mirror_name, remember_rate
from tests.servers import nginx
from tests.transfer.runs import release

_MB = 1_000_000


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_last_long_run_counts() -> None:
    address = "https://files.example.org:8443/a/"
    assert measured_rate.measured_rate(address) is None
    remember_rate(address, 600 * _MB, 60.0)
    remember_rate(address, 300 * _MB, 60.0)
    remember_rate(address, 1000, 60.0)
    remember_rate(address, 600 * _MB, 0.1)
    remember_rate("/mnt/copy", 600 * _MB, 60.0)
    found = measured_rate.measured_rate("https://files.example.org:8443/b/")
    assert found is not None
    assert (found.mirror, found.bytes_per_second) == ("files.example.org:8443", 5 * _MB)
    assert measured_rate.measured_rate("https://other.example.org/") is None


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://reader:pw@example.org/x", "example.org"),
        ("physionet://mimic-cxr/2.1.0", "physionet"),
        ("gs://bucket/folder", "gs"),
        ("/mnt/lab/nih", ""),
    ],
)
def test_a_rate_belongs_to_a_host_or_a_service(address: str, name: str) -> None:
    assert mirror_name(address) == name


@pytest.mark.parametrize(
    "damage", ["", "[]", "{", '{"example.org": 3}', '{"example.org": {"bytes_per_second": 0, "when": 1}}']
)
def test_a_damaged_file_is_no_rate(damage: str) -> None:
    remember_rate("https://example.org/", 600 * _MB, 60.0)
    measured_rate._path().write_text(damage)
    assert measured_rate.measured_rate("https://example.org/") is None
    remember_rate("https://example.org/", 600 * _MB, 60.0)
    assert measured_rate.measured_rate("https://example.org/") is not None


def test_a_plan_counts_on_what_a_run_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cxrprep

    monkeypatch.setattr(measured_rate, "_LEAST_BYTES", 1)
    monkeypatch.setattr(measured_rate, "_LEAST_SECONDS", 0.0)
    for name, data in release().items():
        target = tmp_path / "mirror" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    with nginx.serving(tmp_path / "mirror", tmp_path / "nginx") as server:
        before = cxrprep.plan("nih-chestxray14", tmp_path / "a", source=server.url)
        cxrprep.download("nih-chestxray14", tmp_path / "a", source=server.url)
        after = cxrprep.plan("nih-chestxray14", tmp_path / "b", source=server.url)
    assert before.data["bytes_per_second_measured"] is None
    assert before.data["seconds_at_best"] <= before.data["seconds_at_worst"]
    rate = after.data["bytes_per_second_measured"]
    assert rate > 0
    assert after.data["seconds_at_best"] == after.data["seconds_at_worst"]
    (said,) = [value for name, value in after.rows if name == "estimated time"]
    assert server.url.partition("://")[2].strip("/") in said
