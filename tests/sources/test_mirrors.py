"""Every mirror of the catalog, end to end: the whole command against a service that answers as the real one does."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import random
import secrets
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cxrprep.cli.main import run
from cxrprep.datasets import catalog as specs
from cxrprep.sources import signed_url
from tests.generators.small import chexpert, mimic_cxr, mimic_cxr_jpg, nih_chestxray14
from tests.servers import box, google, kaggle, physionet
from tests.servers.azurite import Azurite
from tests.servers.kaggle import archive_of
from tests.servers.processes import closed_port
from tests.sources.contract import digest_of
from tests.transfer.runs import tar_gz

Command = Callable[..., dict[str, Any]]


def tree(root: Path) -> dict[str, bytes]:
    """Every file below ``root`` that is of the release."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not {".cxrprep", "manifests"} & set(path.parts) and not path.name.startswith("cxrprep.")
    }


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command with ``--json``: its exit code, its answer, and all that it printed."""
    monkeypatch.setenv("CXRPREP_KEYRING", "0")

    def call(*words: object) -> dict[str, Any]:
        code = run([*map(str, words), "--json"])
        printed = capsys.readouterr()
        answer: dict[str, Any] = json.loads(printed.out) if printed.out.strip() else {}
        return {"code": code, "answer": answer, "printed": printed.out + printed.err}

    return call


def fine(done: dict[str, Any]) -> dict[str, Any]:
    assert done["code"] == 0, done["printed"]
    answer: dict[str, Any] = done["answer"]
    return answer


# ---- Kaggle ----


@pytest.fixture
def kaggle_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", kaggle.USER)
    monkeypatch.setenv("KAGGLE_KEY", kaggle.KEY)


@pytest.mark.usefixtures("kaggle_login")
@pytest.mark.parametrize("archive", [True, False])
def test_chexpert_from_kaggle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command, *, archive: bool
) -> None:
    chexpert.write(tmp_path / "kaggle", layout="kaggle")
    files = tree(tmp_path / "kaggle")
    root = tmp_path / "root"
    with kaggle.serving(files, "ashery/chexpert", archive=archive, zipped=frozenset({"train.csv"})) as service:
        assert service.api is not None
        assert service.storage is not None
        monkeypatch.setenv("CXRPREP_KAGGLE_URL", service.api.url)
        fine(command("download", "chexpert", root, "--source", "kaggle"))
        assert tree(root) == {f"CheXpert-v1.0-small/{name}": data for name, data in files.items()}
        assert not any("authorization" in request.headers for request in service.storage.seen)
        before = len(service.signatures), service.storage.sent
        again = command("download", "chexpert", root)
        assert fine(again)["done"] == 0
        assert kaggle.KEY not in again["printed"]
        if archive:
            assert service.storage.sent - before[1] < 70_000, "the archive's end, to see that it is the same"
    assert "kaggle://ashery/chexpert" in (root / "cxrprep.lock").read_text()


@pytest.mark.usefixtures("kaggle_login")
def test_a_part_of_chexpert_from_kaggle_by_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    chexpert.write(tmp_path / "kaggle", layout="kaggle")
    with kaggle.serving(tree(tmp_path / "kaggle"), "ashery/chexpert") as service:
        assert service.api is not None
        monkeypatch.setenv("CXRPREP_KAGGLE_URL", service.api.url)
        fine(command("download", "chexpert", tmp_path / "root", "--source", "kaggle", "--view", "lateral"))
    images = [name for name in tree(tmp_path / "root") if name.endswith(".jpg")]
    # The second is called frontal, and its table says left lateral.
    assert images == [
        "CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg",
        "CheXpert-v1.0-small/train/patient07958/study5/view2_frontal.jpg",
    ]


@pytest.mark.usefixtures("kaggle_login")
def test_nih_from_kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    nih_chestxray14.write(tmp_path / "nih", release="2017")
    files = tree(tmp_path / "nih")
    served = {name.replace("images/", "images_001/images/"): data for name, data in files.items()}
    with kaggle.serving(served, "nih-chest-xrays/data") as service:
        assert service.api is not None
        monkeypatch.setenv("CXRPREP_KAGGLE_URL", service.api.url)
        fine(command("download", "nih-chestxray14", tmp_path / "root", "--source", "kaggle"))
    assert tree(tmp_path / "root") == files


@pytest.mark.usefixtures("kaggle_login")
def test_the_archive_of_kaggle_as_one_file_and_from_where_a_browser_saved_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    nih_chestxray14.write(tmp_path / "nih", release="2017")
    files = tree(tmp_path / "nih")
    served = {name.replace("images/", "images_001/images/"): data for name, data in files.items()}
    with kaggle.serving(served, "nih-chest-xrays/data") as service:
        assert service.api is not None
        monkeypatch.setenv("CXRPREP_KAGGLE_URL", service.api.url)
        fine(command("download", "nih-chestxray14", tmp_path / "root", "--source", "kaggle-archive"))
        assert fine(command("download", "nih-chestxray14", tmp_path / "root"))["done"] == 0
    assert tree(tmp_path / "root") == files
    saved = tmp_path / "Downloads"
    saved.mkdir()
    (saved / "archive.zip").write_bytes(archive_of(served))
    fine(command("download", "nih-chestxray14", tmp_path / "local", "--source", saved, "--release", "2017"))
    assert tree(tmp_path / "local") == files
    assert (saved / "archive.zip").exists()


def test_kaggle_without_a_login_is_exit_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    with kaggle.serving({"train.csv": b"x"}, "ashery/chexpert") as service:
        assert service.api is not None
        monkeypatch.setenv("CXRPREP_KAGGLE_URL", service.api.url)
        done = command("download", "chexpert", tmp_path / "root", "--source", "kaggle")
    assert done["code"] == 5, done["printed"]
    assert "kaggle.com/settings" in done["printed"]


@pytest.mark.usefixtures("kaggle_login")
def test_a_large_file_of_kaggle_goes_on_where_it_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    table = random.Random(3).randbytes(3_000_000)
    with kaggle.serving({"train.csv": table}, "ashery/chexpert", archive=False, uses=1) as service:
        assert service.api is not None
        assert service.storage is not None
        service.cuts = [1_500_000, 900_000]
        monkeypatch.setenv("CXRPREP_KAGGLE_URL", service.api.url)
        fine(command("download", "chexpert", tmp_path / "root", "--source", "kaggle"))
        assert service.storage.sent == len(table), "no byte came twice"
        assert len(service.signatures) == 3, "each attempt had an address of its own"
    assert (tmp_path / "root/CheXpert-v1.0-small/train.csv").read_bytes() == table


# ---- Google Cloud Storage ----


@pytest.fixture
def payer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[google.Bucket], None]:
    def log_in(bucket: google.Bucket) -> None:
        key = google.key_file(tmp_path, f"{google.address(bucket)}/token")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", google.address(bucket))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))

    return log_in


def _own_numbers(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    """Give the catalog's tables the sizes of small ones, and Box the numbers that the catalog knows."""
    real = specs.find_dataset("nih-chestxray14")
    small = tuple(
        dataclasses.replace(file, size=len(files[file.path]), digest="") if file.path in files else file
        for file in real.file
    )
    whole = specs.catalog()
    monkeypatch.setattr(specs, "catalog", lambda: {**whole, real.name: dataclasses.replace(real, file=small)})
    known = {file.id.removeprefix("file:"): file.path for file in small if file.path in files and file.id}
    rest = [path for path in files if path not in known.values()]
    monkeypatch.setattr(box.Box, "ids", lambda _: {**known, **{f"9{n}": path for n, path in enumerate(rest)}})


def test_nih_from_google(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command, payer: Callable[[google.Bucket], None]
) -> None:
    nih_chestxray14.write(tmp_path / "nih", release="2017")
    images = {name: data for name, data in tree(tmp_path / "nih").items() if name.endswith(".png")}
    nih_chestxray14.write(tmp_path / "box")
    tables = {name: data for name, data in tree(tmp_path / "box").items() if name.endswith((".csv", ".txt"))}
    stored = {name.replace("images/", "png/"): data for name, data in images.items()}
    root = tmp_path / "root"
    with google.serving(stored, "gcs-public-data--healthcare-nih-chest-xray", requester_pays=True) as bucket:
        payer(bucket)
        unpaid = command("download", "nih-chestxray14", root, "--source", "gcs")
        assert unpaid["code"] == 5
        assert "requester pays" in unpaid["printed"]
        assert "--billing-project" in unpaid["printed"]
        assert bucket.server is not None
        assert bucket.server.seen == []
        words = ("download", "nih-chestxray14", root, "--source", "gcs", "--billing-project", "mine")
        planned = fine(command(*words, "--dry-run"))
        assert "bills your project" in planned["costs"]
        assert planned["tables_from"] == "box"
        with closed_port() as port:
            monkeypatch.setenv("CXRPREP_BOX_URL", f"http://127.0.0.1:{port}")
            # The images do not wait for the tables; that those are not here is said by the exit code.
            assert command(*words)["code"] == 6
        assert tree(root) == images
        with box.serving(tables) as service:
            monkeypatch.setenv("CXRPREP_BOX_URL", box.address(service))
            _own_numbers(monkeypatch, tables)
            fine(command(*words))
            assert tree(root) == images | tables
            assert fine(command(*words))["done"] == 0
            (root / "test_list.txt").write_bytes(b"damaged\n")
            assert command("verify", root, "--repair", "--billing-project", "mine")["code"] == 0
            assert tree(root) == images | tables
            split = tmp_path / "split"
            fine(command("download", "nih-chestxray14", split, *words[3:], "--split", "test"))
        assert {name for name in tree(split) if name not in tables} < set(images)
    assert command("extract-labels", root)["code"] == 0
    assert command("verify", root)["code"] == 0


def test_mimic_cxr_jpg_from_google(tmp_path: Path, command: Command, payer: Callable[[google.Bucket], None]) -> None:
    mimic_cxr_jpg.write(tmp_path / "jpg")
    files = physionet.with_sums(tree(tmp_path / "jpg"))
    root = tmp_path / "root"
    words = ("download", "mimic-cxr-jpg", root, "--source", "gcs", "--billing-project", "mine", "--split", "test")
    with google.serving(files, "mimic-cxr-jpg-2.1.0.physionet.org", requester_pays=True) as bucket:
        payer(bucket)
        bucket.linked = False
        refused = command(*words)
        assert refused["code"] == 5
        assert "https://physionet.org/settings/cloud/" in refused["printed"]
        bucket.linked = True
        fine(command(*words))
    got = tree(root)
    assert [name for name in got if name.endswith(".jpg")] == [f"{mimic_cxr_jpg.stem(mimic_cxr_jpg.IMAGES[-1])}.jpg"]
    assert all(got[name] == files[name] for name in got)


# ---- Box ----


def test_nih_from_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    nih_chestxray14.write(tmp_path / "nih")
    files = tree(tmp_path / "nih")
    images = {name: data for name, data in files.items() if name.endswith(".png")}
    archive = tar_gz(images)
    shared = {name: data for name, data in files.items() if name not in images}
    shared["images/images_001.tar.gz"] = archive
    real = specs.find_dataset("nih-chestxray14")
    small = []
    for file in real.file:
        if file.path == "images_001.tar.gz":
            small.append(dataclasses.replace(file, size=len(archive), digest=f"md5:{digest_of(archive, 'md5')}"))
        elif file.kind == "table":
            small.append(dataclasses.replace(file, id="" if file.path == "BBox_List_2017.csv" else file.id))
    tiny = dataclasses.replace(real, file=tuple(small))
    whole, one = specs.catalog(), specs._spec_in
    monkeypatch.setattr(specs, "catalog", lambda: {**whole, tiny.name: tiny})
    monkeypatch.setattr(specs, "_spec_in", lambda path: tiny if path.name == "nih_chestxray14.toml" else one(path))
    root = tmp_path / "root"
    with box.serving(shared, {"vfk49d74nhbxq3nqjg0900w5nvkorp5c.gz": "images/images_001.tar.gz"}) as service:
        monkeypatch.setenv("CXRPREP_BOX_URL", box.address(service))
        # The catalog knows the numbers of all tables but one.
        numbers = {path: number for number, path in service.ids().items()}
        numbers |= {
            f.path: f.id.removeprefix("file:") for f in real.file if f.id.startswith("file:") and f.path in shared
        }
        own = {number: path for path, number in numbers.items()}
        monkeypatch.setattr(box.Box, "ids", lambda _: own)
        service.cuts = [len(archive) // 2]
        fine(command("download", "nih-chestxray14", root))
        assert tree(root) == files
        assert fine(command("download", "nih-chestxray14", root))["done"] == 0
        monkeypatch.setenv("BOX_DEVELOPER_TOKEN", box.TOKEN)
        fine(command("download", "nih-chestxray14", tmp_path / "token", "--source", "box", "--keep-archives"))
    assert tree(tmp_path / "token") == {**files, "images_001.tar.gz": archive}


# ---- PhysioNet ----


@pytest.fixture
def projects(tmp_path: Path) -> dict[str, dict[str, bytes]]:
    mimic_cxr.write(tmp_path / "dicom", labels=False)
    mimic_cxr_jpg.write(tmp_path / "jpg")
    return {
        "mimic-cxr/2.1.0": physionet.with_sums(tree(tmp_path / "dicom")),
        "mimic-cxr-jpg/2.1.0": physionet.with_sums(tree(tmp_path / "jpg")),
    }


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Callable[[physionet.PhysioNet], None]:
    def log_in(site: physionet.PhysioNet) -> None:
        monkeypatch.setenv("CXRPREP_PHYSIONET_URL", physionet.address(site))
        monkeypatch.setenv("PHYSIONET_USERNAME", physionet.USER)
        monkeypatch.setenv("PHYSIONET_PASSWORD", physionet.PASSWORD)

    return log_in


Projects = dict[str, dict[str, bytes]]
LogIn = Callable[[physionet.PhysioNet], None]


def test_mimic_cxr_jpg_from_physionet(tmp_path: Path, command: Command, projects: Projects, login: LogIn) -> None:
    root = tmp_path / "root"
    with physionet.serving(projects) as site:
        login(site)
        done = command("download", "mimic-cxr-jpg", root)
        fine(done)
        assert site.hashes == 1, "one password for the whole run"
        assert physionet.PASSWORD not in done["printed"]
        fine(command("verify", root))
        assert fine(command("download", "mimic-cxr-jpg", root))["done"] == 0
    assert tree(root) == projects["mimic-cxr-jpg/2.1.0"]


@pytest.mark.parametrize(
    "selection", [("--split", "test"), ("--view", "AP AXIAL"), ("--label", "Cardiomegaly")], ids=lambda s: s[0]
)
def test_a_part_of_mimic_cxr_by_the_tables_of_the_other_project(
    tmp_path: Path, command: Command, projects: Projects, login: LogIn, selection: tuple[str, str]
) -> None:
    root = tmp_path / "root"
    with physionet.serving(projects) as site:
        login(site)
        fine(command("download", "mimic-cxr", root, *selection))
        assert site.hashes <= 2, "one login for each project"
    got = tree(root)
    assert [name for name in got if name.endswith(".dcm")] == [f"{mimic_cxr_jpg.stem(mimic_cxr_jpg.IMAGES[-1])}.dcm"]
    assert "mimic-cxr-2.0.0-split.csv.gz" in got


def test_without_the_other_agreement_both_are_named(
    tmp_path: Path, command: Command, projects: Projects, login: LogIn
) -> None:
    with physionet.serving(projects, unsigned={"mimic-cxr-jpg/2.1.0"}) as site:
        login(site)
        done = command("download", "mimic-cxr", tmp_path / "root", "--split", "test")
        assert done["code"] == 5, done["printed"]
        assert "https://physionet.org/content/mimic-cxr/2.1.0/" in done["printed"]
        assert "https://physionet.org/content/mimic-cxr-jpg/2.1.0/" in done["printed"]
        assert "--tables" in done["printed"]
        tables = tmp_path / "jpg"
        fine(command("download", "mimic-cxr", tmp_path / "root", "--split", "test", "--tables", tables))
    assert len([name for name in tree(tmp_path / "root") if name.endswith(".dcm")]) == 1


@pytest.mark.usefixtures("projects")
def test_a_labs_copy_without_the_other_projects_tables(tmp_path: Path, command: Command) -> None:
    words = ("download", "mimic-cxr", tmp_path / "root", "--source", tmp_path / "dicom", "--split", "test")
    done = command(*words)
    assert done["code"] == 5, done["printed"]
    assert "https://physionet.org/content/mimic-cxr/2.1.0/" in done["printed"]
    assert "https://physionet.org/content/mimic-cxr-jpg/2.1.0/" in done["printed"]
    fine(command(*words, "--tables", tmp_path / "jpg"))
    assert len([name for name in tree(tmp_path / "root") if name.endswith(".dcm")]) == 1


def test_a_patient_of_mimic_cxr_costs_no_list_of_checksums(
    tmp_path: Path, command: Command, projects: Projects, login: LogIn
) -> None:
    root = tmp_path / "root"
    with physionet.serving(projects) as site:
        login(site)
        fine(command("download", "mimic-cxr", root, "--patients", "p10000764"))
        assert site.server is not None
        paths = [request.path for request in site.server.seen if request.method == "GET"]
        images = [name for name in tree(root) if name.endswith(".dcm")]
        assert images
        assert all("/p10000764/" in name for name in images)
        # Everybody's reports in one archive, beside this one's as files: it comes when it is named.
        assert not any(path.endswith((".zip", "SHA256SUMS.txt", "/")) for path in paths)
        assert any(name.endswith(".txt") for name in tree(root))
        fine(command("download", "mimic-cxr", root, "--patients", "p10000764", "--include", "*.zip"))
    assert "mimic-cxr-reports.zip" in tree(root)


def test_an_agreement_that_is_not_signed_is_exit_5(
    tmp_path: Path, command: Command, projects: Projects, login: LogIn
) -> None:
    with physionet.serving(projects, unsigned={"mimic-cxr/2.1.0"}) as site:
        login(site)
        done = command("download", "mimic-cxr", tmp_path / "root")
    assert done["code"] == 5, done["printed"]
    assert "/content/mimic-cxr/2.1.0/#files" in done["printed"]


# ---- the portal ----


@pytest.fixture
def portal(azure: Azurite, tmp_path: Path) -> tuple[str, dict[str, bytes]]:
    """A file with the signed URL of a container as the portal's, and the files that its archives stand for."""
    chexpert.write(tmp_path / "portal", release="v1.0", layout="batches")
    files = tree(tmp_path / "portal")
    batches: dict[str, dict[str, bytes]] = {}
    for name, data in files.items():
        batches.setdefault(name.partition("/")[0] + ".zip", {})[name] = data
    container = f"portal{secrets.token_hex(6)}"
    readme = {"README.md": b"# CheXpert"}
    azure.put(container, {name: archive_of(members) for name, members in batches.items()} | readme)
    link = tmp_path / "link"
    link.write_text(azure.sas(container))
    return str(link), {f"CheXpert-v1.0/{_placed(name)}": data for name, data in files.items()} | readme


def _placed(name: str) -> str:
    inside = name.partition("/")[2]
    return inside if inside.startswith("valid/") or inside.endswith(".csv") else f"train/{inside}"


def test_chexpert_from_the_portal(tmp_path: Path, portal: tuple[str, dict[str, bytes]], command: Command) -> None:
    link, files = portal
    root = tmp_path / "root"
    done = command("download", "chexpert", root, "--source", "portal", "--url-file", link)
    fine(done)
    assert tree(root) == files
    assert "sig=" not in done["printed"]
    assert "sig=" not in (root / "cxrprep.lock").read_text()
    assert fine(command("download", "chexpert", root, "--url-file", link))["done"] == 0


@pytest.mark.parametrize(
    ("selection", "images"),
    [
        ("--patients patient00002", 3),
        ("--view lateral", 2),
        ("--split validate", 2),
        ("--label Cardiomegaly=1", 2),
        ("--limit 2", 2),
    ],
)
def test_a_part_of_the_portals_archives_is_read_by_range(
    tmp_path: Path, portal: tuple[str, dict[str, bytes]], command: Command, selection: str, images: int
) -> None:
    link, files = portal
    root = tmp_path / "root"
    fine(command("download", "chexpert", root, "--source", "portal", "--url-file", link, *selection.split()))
    got = tree(root)
    assert len([name for name in got if name.endswith(".jpg")]) == images
    assert not any(name.endswith(".zip") for name in got)
    assert all(got[name] == files[name] for name in got)


def test_a_damaged_archive_of_the_portal_is_left_out_and_said(
    tmp_path: Path, azure: Azurite, portal: tuple[str, dict[str, bytes]], command: Command
) -> None:
    link, files = portal
    container = urllib.parse.urlsplit(Path(link).read_text()).path.rpartition("/")[2]
    azure.put(container, {"CheXpert-v1.0 batch 9 (train 9).zip": b"cut short"})
    done = command(
        "download",
        "chexpert",
        tmp_path / "root",
        "--source",
        "portal",
        "--url-file",
        link,
        "--patients",
        "patient00002",
    )
    assert done["code"] == 4, done["printed"]
    got = tree(tmp_path / "root")
    assert len([name for name in got if name.endswith(".jpg")]) == 3
    assert all(got[name] == files[name] for name in got)


def test_a_url_that_has_expired_is_exit_5_and_goes_on_with_a_new_one(
    tmp_path: Path, azure: Azurite, portal: tuple[str, dict[str, bytes]], command: Command
) -> None:
    link, files = portal
    good = Path(link).read_text()
    container = good.partition("?")[0].rpartition("/")[2]
    Path(link).write_text(azure.sas(container, expires=dt.timedelta(minutes=-5)))
    words = ("download", "chexpert", tmp_path / "root", "--source", "portal", "--url-file", link)
    done = command(*words)
    assert done["code"] == 5, done["printed"]
    assert "expired on" in done["printed"]
    assert "sig=" not in done["printed"]
    Path(link).write_text(good)
    fine(command(*words))
    assert tree(tmp_path / "root") == files


def test_a_url_that_expires_midway_keeps_what_is_here(
    tmp_path: Path, portal: tuple[str, dict[str, bytes]], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, _ = portal
    root = tmp_path / "root"
    now = signed_url._now
    # The thirty days are over as soon as two images are here.
    monkeypatch.setattr(signed_url, "_now", lambda: now() + dt.timedelta(days=60 * (len([*root.rglob("*.jpg")]) >= 2)))
    words = ("download", "chexpert", root, "--source", "portal", "--url-file", link, "--split", "train")
    # One after the other: of several at once, all may have been asked for before two of them are here.
    done = command(*words, "--connections", 1)
    assert done["code"] == 5, done["printed"]
    assert "expired on" in done["printed"]
    assert "what is here is kept" in done["printed"]
    before = tree(root)
    images = [name for name in before if name.endswith(".jpg")]
    assert 2 <= len(images) < 8
    monkeypatch.setattr(signed_url, "_now", now)
    again = fine(command(*words))
    assert again["kept"] + again["done"] >= len(before)
    got = tree(root)
    assert before.items() <= got.items()
    assert len([name for name in got if name.endswith(".jpg")]) == 8
