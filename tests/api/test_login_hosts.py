"""Where a login goes: to the service, or to a host that the user named; never to one that a file found here names."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cxrprep as package
from tests.servers.loopback import Reply, Request, Server, running

PASSWORD = "hunter2-password"


def _login_site(request: Request) -> Reply:
    if "authorization" not in request.headers:
        return Reply(401, b"", {"WWW-Authenticate": 'Basic realm="PhysioNet"'})
    return Reply(404, b"")


@pytest.fixture
def stranger() -> Iterator[Server]:
    """A server that asks everybody for a login."""
    with running(_login_site) as server:
        yield server


def address(server: Server) -> str:
    return f"physionet://127.0.0.1:{server.server_address[1]}/mimic-cxr-jpg/2.1.0"


def run(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("CXRPREP_", "PHYSIONET_"))}
    variables |= {
        "PHYSIONET_USERNAME": "alice", "PHYSIONET_PASSWORD": PASSWORD, "CXRPREP_KEYRING": "0", "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"), "XDG_CACHE_HOME": str(folder / "cache"),
    } | more  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "cxrprep", *words],
        cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def got_password(server: Server) -> bool:
    sent = base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
    return any(sent in request.headers.get("authorization", "") for request in server.seen)


def lock(folder: Path, mirror: str) -> Path:
    """A folder that somebody else made, whose record names ``mirror``."""
    root = folder / "given"
    root.mkdir()
    about = {"dataset": "mimic-cxr-jpg", "release": "2.1.0", "mirror": mirror, "tool": "cxrprep"}
    (root / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(b"x")
    from cxrprep.record.record import Record

    with Record.open(root) as record:
        record.describe(**about)
    return root


@pytest.mark.parametrize(
    "verb", [("download", "mimic-cxr-jpg"), ("download", "mimic-cxr-jpg", "--dry-run"), ("verify", "--repair")]
)
def test_the_record_of_a_folder_names_no_host_for_the_login(
    tmp_path: Path, stranger: Server, verb: tuple[str, ...]
) -> None:
    root = lock(tmp_path, address(stranger))
    name, *rest = verb
    words = [name, *rest[:1], str(root), *rest[1:]] if name == "download" else [name, str(root), *rest]
    done = run(tmp_path, *words)
    if name == "download":
        assert done.returncode == 5, done.stderr
        assert f"--source {address(stranger)}" in done.stderr
    assert not got_password(stranger)
    assert PASSWORD not in done.stdout + done.stderr


def test_a_saved_plan_names_no_host_for_the_login(tmp_path: Path, stranger: Server) -> None:
    plan = {
        "format": 1, "dataset": "mimic-cxr-jpg", "release": "2.1.0", "mirror": address(stranger), "images": None,
        "passed_over": 0, "foreign": 0, "foreign_names": [], "in_place": False,
        "selection": {
            "include": [], "exclude": [], "patients": [], "studies": [], "images": [], "views": [], "splits": [],
            "labels": [], "limit": None, "sample": None, "seed": 0,
        },
        "items": [{"key": "LICENSE.txt", "dest": "LICENSE.txt", "action": "fetch"}],
    }  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = run(tmp_path, "download", "mimic-cxr-jpg", "out", "--from-plan", "plan.json")
    assert stranger.seen, done.stderr
    assert done.returncode == 5
    assert not got_password(stranger)


def test_a_configuration_file_that_was_found_names_no_host_for_the_login(tmp_path: Path, stranger: Server) -> None:
    (tmp_path / "cxrprep.toml").write_text(f'[download]\nsource = "{address(stranger)}"\n')
    done = run(tmp_path, "download", "mimic-cxr-jpg", "out")
    assert done.returncode == 2, done.stderr
    assert not stranger.seen


@pytest.mark.parametrize(
    "words",
    [
        ("download",),
        ("run", "job.toml"),
        ("run", "job.toml", "--dry-run"),
        ("doctor",),
        ("verify", "given", "--repair"),
        ("status", "given"),
    ],
    ids=" ".join,
)
def test_the_dataset_of_a_configuration_file_that_was_found_names_no_host(
    tmp_path: Path, stranger: Server, words: tuple[str, ...]
) -> None:
    """A dataset's own file has mirrors: found, it is named by nobody. A record that names such a file opens none."""
    mine = (Path(package.__file__).parent / "datasets/vindr_cxr.toml").read_text()
    mine = mine.replace('"vindr-cxr"', '"ward"').replace("physionet://", address(stranger).partition("mimic")[0])
    (tmp_path / "mine.toml").write_text(mine)
    (tmp_path / "job.toml").write_text('root = "out"\nsteps = ["download"]\n')
    (tmp_path / "cxrprep.toml").write_text('dataset = "./mine.toml"\n')
    root = lock(tmp_path, "")
    done = run(tmp_path, *words)
    assert (done.returncode, "cxrprep.toml, line 1: dataset" in done.stderr) == (2, True), done.stderr
    assert not stranger.seen
    record = (root / "cxrprep.lock").read_text()
    (root / "cxrprep.lock").write_text(record.replace('"mimic-cxr-jpg"', f'"{tmp_path}/mine.toml"'))
    (tmp_path / "cxrprep.toml").unlink()
    done = run(tmp_path, "verify", "given", "--repair")
    assert (done.returncode, "no dataset of that name is known" in done.stderr) == (2, True), done.stderr
    assert not stranger.seen


def test_what_was_found_counts_when_it_is_named(tmp_path: Path, stranger: Server) -> None:
    """The hint of the refusal, as it is printed: the file is the user's own word then, and its host gets the login."""
    (tmp_path / "cxrprep.toml").write_text(f'[download]\nsource = "{address(stranger)}"\n')
    done = run(tmp_path, "download", "mimic-cxr-jpg", "out")
    hint = "--config cxrprep.toml"
    assert (done.returncode, hint in done.stderr) == (2, True), done.stderr
    run(tmp_path, "download", "mimic-cxr-jpg", "out", *hint.split())
    assert got_password(stranger)


@pytest.mark.parametrize("how", ["flag", "variable", "config", "user-file", "service-address"])
def test_a_host_that_the_user_named_gets_the_login(tmp_path: Path, stranger: Server, how: str) -> None:
    files = {"config": tmp_path / "job.toml", "user-file": tmp_path / "config" / "cxrprep" / "config.toml"}
    if how in files:
        files[how].parent.mkdir(parents=True, exist_ok=True)
        files[how].write_text(f'[download]\nsource = "{address(stranger)}"\n')
    words = {"flag": ["--source", address(stranger)], "config": ["--config", "job.toml"]}
    variables = {
        "variable": {"CXRPREP_DOWNLOAD_SOURCE": address(stranger)},
        "service-address": {"CXRPREP_PHYSIONET_URL": stranger.url},
    }
    done = run(tmp_path, "download", "mimic-cxr-jpg", "out", *words.get(how, []), **variables.get(how, {}))
    assert got_password(stranger), done.stderr
    assert PASSWORD not in done.stdout + done.stderr
