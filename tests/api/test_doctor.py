"""What stands between a machine and the data: each check with its next step, and no secret in any of them."""

from __future__ import annotations

import importlib.util
import socket
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina

from cxrprep.api.doctor import Examination, _checks, doctor
from cxrprep.api.doctor_checks import Check, State
from cxrprep.credentials.lookup import Credentials
from cxrprep.errors import ExitCode, UsageError
from cxrprep.sources.endpoints import ENDPOINTS, variable
from tests.servers import loopback, physionet
from tests.servers.faults import serving

OWN = tuple(variable(service) for service in ENDPOINTS)


@pytest.fixture(autouse=True)
def _nobody_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Port 9 of this machine answers to nobody: no check leaves it, and none has to wait.
    for name in (*OWN, "STORAGE_EMULATOR_HOST"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with stamina.set_testing(True, attempts=2, cap=True):
        yield


def checks(root: Path, environment: dict[str, str] | None = None, **options: Any) -> list[Check]:
    credentials = Credentials(environment={"CXRPREP_KEYRING": "0", **(environment or {})}, home=root)
    return list(_checks(root, credentials, **{"hosts": {}, **options}))


def one(found: list[Check], name: str) -> Check:
    (check,) = [check for check in found if check.name == name]
    return check


def test_offline_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    found = checks(tmp_path, offline=True)
    assert {check.group for check in found} == {"machine", "disk", "access"}
    assert all(check.hint for check in found if check.state is not State.OK)
    assert Examination(tuple(found)).exit_code == 0


def test_a_dataset_in_the_place_of_the_folder_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``cxrprep doctor mimic-cxr`` looked at the disk alone, and ended with 0."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="there is no folder mimic-cxr") as caught:
        doctor("mimic-cxr", offline=True)
    assert caught.value.hint == "about the dataset: cxrprep doctor --dataset mimic-cxr"
    Path("mimic-cxr").mkdir()
    assert doctor("mimic-cxr", offline=True).value.exit_code == 0


def test_a_dataset_limits_what_is_asked_of_access(tmp_path: Path) -> None:
    for source, login in ((None, "kaggle"), ("portal", "chexpert"), ("huggingface", "huggingface")):
        found = checks(tmp_path, dataset="chexpert", source=source, offline=True)
        assert [check.name for check in found if check.group == "access"] == [f"login {login}"]
    assert one(found, "mirror").found == "huggingface; others, by --source: kaggle, kaggle-archive, portal"


def test_what_is_there_is_named_by_where_it_comes_from_and_never_shown(tmp_path: Path) -> None:
    environment = {"PHYSIONET_USERNAME": "reader", "PHYSIONET_PASSWORD": "opensesame", "KAGGLE_API_TOKEN": "KGAT_123"}
    found = checks(tmp_path, environment, offline=True)
    assert one(found, "login physionet").found == "reader, from PHYSIONET_USERNAME, PHYSIONET_PASSWORD"
    assert one(found, "login kaggle").found == "from KAGGLE_API_TOKEN"
    assert "opensesame" not in repr(found)
    assert "KGAT_123" not in repr(found)


def test_a_netrc_that_others_can_read_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine physionet.org login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    netrc.chmod(0o644)
    check = one(checks(tmp_path, offline=True), str(netrc))
    assert check.state is State.WARNING
    assert check.hint == f"chmod 600 {netrc}"
    netrc.chmod(0o600)
    assert str(netrc) not in {check.name for check in checks(tmp_path, offline=True)}


def test_a_damaged_netrc_is_a_problem_of_access(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine physionet.org login a pasword hunter2\n")
    found = checks(tmp_path, {"NETRC": str(netrc)}, dataset="mimic-cxr", offline=True)
    assert one(found, "login physionet").state is State.PROBLEM
    assert "hunter2" not in repr(found)
    assert Examination(tuple(found)).exit_code == ExitCode.ACCESS


@pytest.mark.parametrize("case", ["granted", "rejected", "unsigned"])
def test_a_login_is_tried_and_the_agreement_too(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    projects = {f"mimic-cxr-jpg/{version}": {"SHA256SUMS.txt": b""} for version in ("2.1.0", "2.0.0")}
    unsigned = {"mimic-cxr-jpg/2.1.0"} if case == "unsigned" else set()
    password = "mistyped" if case == "rejected" else physionet.PASSWORD
    with physionet.serving(projects, unsigned=unsigned) as site:
        monkeypatch.setenv("CXRPREP_PHYSIONET_URL", physionet.address(site).rstrip("/"))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
        login = {"PHYSIONET_USERNAME": physionet.USER, "PHYSIONET_PASSWORD": password}
        found = checks(tmp_path, login, dataset="mimic-cxr-jpg", timeout=5)
    check = one(found, "mimic-cxr-jpg from physionet")
    assert check.state is (State.OK if case == "granted" else State.PROBLEM), check
    assert case in check.found
    assert physionet.USER in check.found
    if case != "granted":
        assert check.hint
        assert Examination((check,)).exit_code == ExitCode.ACCESS
    assert password not in repr(found)


def test_a_login_of_the_host_that_is_asked_in_place_of_physionet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine cache.example.test login reader password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("CXRPREP_PHYSIONET_URL", "https://cache.example.test")
    found = checks(tmp_path, {"NETRC": str(netrc)}, dataset="mimic-cxr-jpg", offline=True)
    assert one(found, "login physionet").found.startswith("reader, from ")


def test_a_login_that_is_missing_is_a_problem_of_the_dataset(tmp_path: Path) -> None:
    found = checks(tmp_path, dataset="mimic-cxr-jpg", offline=True)
    assert one(found, "login physionet").state is State.PROBLEM
    assert Examination(tuple(found)).exit_code == ExitCode.ACCESS


def test_a_certificate_says_nothing_of_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with loopback.running(lambda _: loopback.Reply(200), loopback.certificate(tmp_path)) as server:
        for name in OWN:
            monkeypatch.setenv(name, server.url)
        login = {"PHYSIONET_USERNAME": physionet.USER, "PHYSIONET_PASSWORD": "b", "KAGGLE_API_TOKEN": "KGAT_123"}
        for dataset in ("mimic-cxr-jpg", "nih-chestxray14", "chexpert"):
            asked = [check for check in checks(tmp_path, login, dataset=dataset, timeout=5) if "from" in check.name]
            refused = [check for check in asked if "rejected" in check.found or "not trusted" in check.found]
            assert refused
            assert all("is not trusted" in check.found and check.hint for check in refused)


def test_reach_and_clock_are_measured_at_the_servers(tmp_path: Path) -> None:
    with serving({"x": b""}) as server:
        found = checks(tmp_path, hosts={server.url: "the test"}, dataset="chexpert", timeout=5)
    reach = next(check for check in found if check.group == "network" and "127.0.0.1" in check.name)
    assert reach.state is State.OK
    assert "(the test)" in reach.found
    assert one(found, "clock").found == "right"


def test_a_service_whose_host_is_silent_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a source was opened")

    monkeypatch.setattr("cxrprep.sources.open_source", refuse)
    for name in OWN:
        monkeypatch.delenv(name)
    monkeypatch.setattr("cxrprep.api.doctor_checks._head", lambda *_: "no answer: timed out")
    hosts = {"https://www.kaggle.com/": "Kaggle", "https://aimistanforddatasets01.blob.core.windows.net/": "CheXpert"}
    hosts["https://huggingface.co/"] = "CheXpert"
    found = checks(tmp_path, {"CHEXPERT_URL": "https://h.example/c?sig=1"}, hosts=hosts, dataset="chexpert")
    assert [check.found for check in found if check.group == "network"] == ["no answer: timed out"] * 3


@pytest.mark.parametrize("way", ["all_proxy", "no_proxy"])
def test_a_host_is_reached_as_a_download_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    for name in ("http_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with loopback.running(lambda _: loopback.page("here")) as server:
        if way == "all_proxy":
            # It answers for any host.
            monkeypatch.setenv("all_proxy", server.url)
            host = "somewhere.invalid"
        else:
            # The proxy is nobody, and not asked for a range of addresses.
            monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
            monkeypatch.setenv("no_proxy", "127.0.0.0/8")
            host = server.url.split("/")[2]
        found = checks(tmp_path, hosts={f"http://{host}/": "a test"}, timeout=5)
    assert one(found, host).state is State.OK


def test_a_host_without_an_answer_says_what_it_is_needed_for(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}/"
        found = checks(tmp_path, hosts={address: "NIH"}, dataset="chexpert", timeout=2)
    reach = next(check for check in found if check.group == "network" and "127.0.0.1" in check.name)
    assert reach.state is State.WARNING
    assert reach.hint.startswith("needed for NIH")
    assert "set HTTPS_PROXY" in reach.hint


def test_a_proxy_that_does_not_answer_is_named_without_its_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        proxy = f"127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", f"http://someone:secret-word@{proxy}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        found = checks(tmp_path, hosts={"http://mirror.example/": "NIH"}, dataset="chexpert", timeout=2)
    reach = next(check for check in found if check.name == "mirror.example")
    assert f"through the proxy http://{proxy}" in reach.hint
    assert "secret-word" not in str(found)


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:1"])
def test_a_scheduler_that_is_not_there_is_a_problem(address: str, tmp_path: Path) -> None:
    found = checks(tmp_path, scheduler=address, offline=True, timeout=2)
    assert one(found, address).state is State.PROBLEM
    assert Examination(tuple(found)).exit_code == ExitCode.USAGE


def test_a_full_disk_is_told_with_what_the_collections_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = types.SimpleNamespace(total=10**12, used=10**12, free=5 * 10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    check = one(checks(tmp_path / "not" / "yet", offline=True), f"free at {tmp_path}")
    assert check.state is State.WARNING
    assert "nih-chestxray14 45.1 GB" in check.hint
    # Where one dataset is asked about, it is a problem; a part of it may fit.
    found = checks(tmp_path, dataset="nih-chestxray14", offline=True)
    assert Examination(tuple(found)).exit_code == ExitCode.STORAGE
    found = checks(tmp_path, dataset="nih-chestxray14", offline=True, whole=False)
    assert Examination(tuple(found)).exit_code == 0


def test_the_report_labeler_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from cxrprep.labels.nlp.custom_rules import SelfTest

    good = one(checks(tmp_path, offline=True), "report labeler")
    assert (good.group, good.state, good.hint) == ("machine", State.OK, "")
    assert "examples labelled as they should be" in good.found
    monkeypatch.setattr("cxrprep.labels.nlp.custom_rules.selftest", lambda: SelfTest(3, ("wrong",)))
    bad = one(checks(tmp_path, offline=True), "report labeler")
    assert (bad.state, bad.found) == (State.PROBLEM, "1 of 3 examples labelled wrongly")
    assert "--selftest" in bad.hint


@pytest.mark.parametrize("source", [None, "physionet"])
def test_a_dataset_that_needs_a_login_fails_without_one(source: str | None, tmp_path: Path) -> None:
    found = checks(tmp_path, dataset="mimic-cxr", source=source, offline=True, whole=False)
    assert one(found, "login physionet").state is State.PROBLEM
    assert Examination(tuple(found)).exit_code == ExitCode.ACCESS


def test_another_mirror_is_judged_by_its_name(tmp_path: Path) -> None:
    found = checks(tmp_path, dataset="chexpert", source="kaggle", offline=True, whole=False)
    assert one(found, "login kaggle").state is State.PROBLEM
    with pytest.raises(UsageError, match="is not a mirror of chexpert"):
        checks(tmp_path, dataset="chexpert", source="kagle", offline=True)


def test_a_dataset_whose_server_is_away_fails_by_the_network(tmp_path: Path) -> None:
    login = {"PHYSIONET_USERNAME": "reader", "PHYSIONET_PASSWORD": "opensesame"}
    found = checks(tmp_path, login, dataset="mimic-cxr-jpg", whole=False, timeout=2)
    assert Examination(tuple(found)).exit_code == ExitCode.UNREACHABLE


def test_only_hosts_that_the_dataset_needs_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OWN:
        monkeypatch.delenv(name)
    asked: list[str] = []
    monkeypatch.setattr("cxrprep.api.doctor_checks._head", lambda url, _: asked.append(url) or "no answer: timed out")
    for source, host in ((None, "physionet.org"), ("gcs", "storage.googleapis.com")):
        asked.clear()
        found = checks(tmp_path, dataset="mimic-cxr-jpg", source=source, hosts=None, timeout=1)
        assert {url.split("/")[2] for url in asked} == {host}
        # Nothing answers: the login is what a person must act on first.
        assert Examination(tuple(found)).exit_code == ExitCode.ACCESS
        assert one(found, host).state is State.PROBLEM


def test_what_is_optional_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "s3fs" else real(name))
    check = one(checks(tmp_path, offline=True), "extra s3")
    assert (check.state, check.hint) == (State.OPTIONAL, "pip install 's3fs>=2024.12'")


def test_a_folder_that_is_the_source_has_to_be_there_and_needs_no_host(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for dataset, source, code in (
        ("openi", None, ExitCode.USAGE),
        ("openi", tmp_path / "none", ExitCode.USAGE),
        ("openi", tmp_path / "copy", ExitCode.DONE),
        ("mimic-cxr", tmp_path / "copy", ExitCode.DONE),
    ):
        found = checks(tmp_path, dataset=dataset, source=source and str(source), hosts=None)
        assert Examination(tuple(found)).exit_code == code, (dataset, source)
        assert not [check for check in found if check.group in ("network", "access")]


def test_an_address_that_is_the_source_is_asked(tmp_path: Path) -> None:
    source = "http://127.0.0.1:9/nih"
    found = checks(tmp_path, dataset="nih-chestxray14", source=source, whole=False, hosts={}, timeout=2)
    assert one(found, "127.0.0.1:9").state is State.PROBLEM
    assert Examination(tuple(found)).exit_code == ExitCode.UNREACHABLE
