"""Every source keeps the contract, against the real service where there is one that runs here."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxrprep.model import Digest, RemoteFile
from cxrprep.sources import SOURCES
from tests.servers import azurite, box, fake_gcs, faults, google, hugging_face, kaggle, loopback, physionet, s3
from tests.sources.contract import FILES, SourceContract, Subject, digest_of


def _kaggle(service: kaggle.Kaggle) -> Subject:
    assert service.api is not None
    return Subject(
        "kaggle://owner/data",
        environment={"KAGGLE_API_TOKEN": kaggle.TOKEN, "CXRPREP_KAGGLE_URL": service.api.url},
        refuse=lambda status: setattr(service, "refuse", status),
        fail=lambda status, after: (setattr(service, "refuse", status), setattr(service, "retry_after", after)),
        nowhere=lambda port: ("kaggle://owner/data", {"CXRPREP_KAGGLE_URL": f"http://127.0.0.1:{port}"}),
        secrets=(kaggle.TOKEN, "X-Goog-Signature="),
    )


class TestKaggleFiles(SourceContract):
    """Single files, each behind a signed address of its own; one of them arrives zipped."""

    schemes = ("kaggle",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        with kaggle.serving(FILES, zipped=frozenset({"Data_Entry_2017_v2020.csv"})) as service:
            yield _kaggle(service)


class TestKaggleMembers(SourceContract):
    """The same files out of the archive of all, by range."""

    schemes = ("kaggle",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        with kaggle.serving(FILES) as service:
            subject = _kaggle(service)
            subject.options["extra"] = {"members": "yes"}
            subject.keys = lambda key: f"archive.zip!/{key}"
            subject.fail, subject.goes_on = None, True
            yield subject


class TestGcsEmulator(SourceContract):
    """An emulator written by others."""

    schemes = ("gs",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        with fake_gcs.serving(FILES, tmp_path) as address:
            yield Subject(
                "gs://bucket",
                environment={"STORAGE_EMULATOR_HOST": address},
                nowhere=lambda port: ("gs://bucket", {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}),
            )


class TestGcsPayer(SourceContract):
    """A bucket that bills its readers, read by a service account."""

    schemes = ("gs",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        stored = {f"png/{key}": data for key, data in FILES.items()}
        with google.serving(stored, requester_pays=True, page_size=2) as bucket:
            key = google.key_file(tmp_path, f"{google.address(bucket)}/token")
            yield Subject(
                "gs://bucket/png",
                options={"billing_project": "mine", "extra": {"access": "payer"}},
                environment={
                    "STORAGE_EMULATOR_HOST": google.address(bucket),
                    "GOOGLE_APPLICATION_CREDENTIALS": str(key),
                },
                refuse=lambda status: setattr(bucket, "refuse", status),
                fail=lambda status, after: (setattr(bucket, "refuse", status), setattr(bucket, "retry_after", after)),
                nowhere=lambda port: ("gs://bucket/png", {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}),
                secrets=("ya29.secret", "PRIVATE KEY"),
            )


class TestS3Emulator(SourceContract):
    """An emulator written by others, without an account."""

    schemes = ("s3",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        service: s3.S3 = self.request.getfixturevalue("aws")
        yield Subject(
            f"s3://{service.bucket(FILES)}",
            environment=service.environment,
            nowhere=lambda port: ("s3://bucket", {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}),
        )


class TestS3Login(SourceContract):
    """A private bucket below a folder, page by page."""

    schemes = ("s3",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        rules = s3.Rules({f"png/{key}": data for key, data in FILES.items()}, page_size=2)
        rules.public = False
        with loopback.running(rules) as server:
            yield Subject(
                "s3://bucket/png",
                environment={"AWS_ENDPOINT_URL": server.url, **s3.NOBODY, **s3.KEYS},
                refuse=lambda status: setattr(rules, "refuse", status),
                fail=lambda status, after: (setattr(rules, "refuse", status), setattr(rules, "retry_after", after)),
                nowhere=lambda port: ("s3://bucket/png", {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}),
                secrets=(s3.KEYS["AWS_SECRET_ACCESS_KEY"], "Signature="),
            )


class TestHuggingFace(SourceContract):
    """A gated repository: the hub has the names and the small files, another host the bytes of LFS."""

    schemes = ("hf",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        with hugging_face.serving({f"data/{key}": data for key, data in FILES.items()}, page_size=2) as hub:
            yield Subject(
                f"hf://datasets/{hugging_face.NAME}/data",
                environment={"CXRPREP_HUGGINGFACE_URL": hub.url, "HF_TOKEN": hugging_face.TOKEN},
                refuse=lambda status: setattr(hub, "refuse", status),
                fail=lambda status, after: (setattr(hub, "refuse", status), setattr(hub, "retry_after", after)),
                nowhere=lambda port: (
                    f"hf://datasets/{hugging_face.NAME}/data",
                    {"CXRPREP_HUGGINGFACE_URL": f"http://127.0.0.1:{port}"},
                ),
                secrets=(hugging_face.TOKEN, "Signature="),
            )


def _box(service: box.Box) -> Subject:
    url = f"box://nihcc/{box.VANITY}"
    return Subject(
        url,
        environment={"CXRPREP_BOX_URL": box.address(service)},
        refuse=lambda status: setattr(service, "refuse", status),
        fail=lambda status, after: (setattr(service, "refuse", status), setattr(service, "retry_after", after)),
        nowhere=lambda port: (url, {"CXRPREP_BOX_URL": f"http://127.0.0.1:{port}"}),
        secrets=(box.TOKEN,),
    )


class TestBoxFolder(SourceContract):
    """A shared folder by its page, without an account."""

    schemes = ("box",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        with box.serving(FILES, page_size=2) as service:
            yield _box(service)


class TestBoxLinks(SourceContract):
    """Static links that the catalog knows, with published digests."""

    schemes = ("box",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        links = {f"hash{number}.gz": key for number, key in enumerate(FILES)}
        known = tuple(
            RemoteFile(key, len(FILES[key]), Digest("md5", digest_of(FILES[key], "md5")), f"static:{link}")
            for link, key in links.items()
        )
        with box.serving(FILES, links) as service:
            subject = _box(service)
            subject.options["known"] = known
            subject.lists_alone = True
            yield subject


class TestBoxApi(SourceContract):
    """The shared folder through the API, with a developer token."""

    schemes = ("box",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        with box.serving(FILES, page_size=2) as service:
            subject = _box(service)
            subject.environment["BOX_DEVELOPER_TOKEN"] = box.TOKEN
            yield subject


class TestPhysioNet(SourceContract):
    schemes = ("physionet",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        projects = {"mimic-cxr/2.1.0": physionet.with_sums(FILES)}
        with physionet.serving(projects) as site:

            def refuse(status: int) -> None:
                if status == 401:
                    site.password = "changed"
                    site.expire()
                else:
                    site.unsigned.add("mimic-cxr/2.1.0")

            yield Subject(
                "physionet://mimic-cxr/2.1.0",
                environment={
                    "CXRPREP_PHYSIONET_URL": physionet.address(site),
                    "PHYSIONET_USERNAME": physionet.USER,
                    "PHYSIONET_PASSWORD": physionet.PASSWORD,
                },
                refuse=refuse,
                fail=lambda status, after: (setattr(site, "fail", status), setattr(site, "retry_after", after)),
                nowhere=lambda port: (
                    "physionet://mimic-cxr/2.1.0",
                    {"CXRPREP_PHYSIONET_URL": f"http://127.0.0.1:{port}"},
                ),
                secrets=(physionet.PASSWORD, base64.b64encode(physionet.PASSWORD.encode()).decode()[:12]),
                extra_keys=frozenset({"SHA256SUMS.txt"}),
            )


def _portal(contract: SourceContract, blobs: dict[str, bytes]) -> Subject:
    azure: azurite.Azurite = contract.request.getfixturevalue("azure")
    container = f"c{secrets.token_hex(6)}"
    azure.put(container, blobs)
    signed = azure.sas(container)
    subject = Subject("url://chexpert", environment={"CHEXPERT_URL": signed}, goes_on=True, secrets=("sig=",))

    def refuse(status: int) -> None:
        subject.environment["CHEXPERT_URL"] = azurite.forged(signed)

    def nowhere(port: int) -> tuple[str, dict[str, str]]:
        moved = signed.replace(azure.address, f"http://127.0.0.1:{port}")
        return "url://chexpert", {"CHEXPERT_URL": moved}

    subject.refuse, subject.nowhere = refuse, nowhere
    return subject


class TestPortalBlobs(SourceContract):
    """A signed container on Azure's own emulator."""

    schemes = ("url",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        yield _portal(self, FILES)


class TestPortalMembers(SourceContract):
    """The same files inside an archive there."""

    schemes = ("url",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        subject = _portal(self, {"CheXpert-v1.0 batch 2 (train 1).zip": kaggle.archive_of(FILES)})
        subject.options["extra"] = {"members": "yes"}
        subject.keys = lambda key: f"CheXpert-v1.0 batch 2 (train 1).zip!/{key}"
        yield subject


class TestHttp(SourceContract):
    schemes = ("http", "https")

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        with faults.serving(FILES) as server:
            yield Subject(
                server.url,
                refuse=lambda status: setattr(server.faults, "statuses", [status] * 99),
                fail=lambda status, after: (
                    setattr(server.faults, "statuses", [status] * 99),
                    setattr(server.faults, "retry_after", after),
                ),
                nowhere=lambda port: (f"http://127.0.0.1:{port}/", {}),
            )


class TestLocal(SourceContract):
    schemes = ("file",)

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        root = tmp_path / "copy"
        for key, data in FILES.items():
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_bytes(data)
        yield Subject(root.as_uri())


def test_every_source_has_a_contract() -> None:
    covered = {scheme for contract in SourceContract.__subclasses__() for scheme in contract.schemes}
    assert covered == set(SOURCES)
