"""Object stores as source and as place, against emulators: Google's through gcsfs, Amazon's through s3fs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cxrprep
from cxrprep.errors import UsageError
from cxrprep.executors import Engine
from cxrprep.images import local_files
from cxrprep.storage import object_store
from tests.api.convert import hospital
from tests.api.convert.commands import run, tree
from tests.parts import need
from tests.sample import some
from tests.servers import azurite, fake_gcs
from tests.servers.processes import free_port, process

INLINE = Engine("inline")


def sources(tmp_path: Path) -> dict[str, bytes]:
    root = hospital.write(tmp_path / "in")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def gcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of a Google emulator whose bucket holds the folder below ``raw``."""
    need("gcsfs")
    files = {f"raw/{name}": data for name, data in sources(tmp_path).items()}
    with fake_gcs.serving(files, tmp_path) as address:
        env = {"STORAGE_EMULATOR_HOST": address}
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        yield env


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of an Amazon emulator whose bucket holds the folder below ``raw``."""
    need("s3")
    need("moto")
    port = free_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    words = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with process(words, port, tmp_path / "moto.log", seconds=60):
        import s3fs

        system = s3fs.S3FileSystem(skip_instance_cache=True)
        system.mkdir("bucket")
        for name, data in sources(tmp_path).items():
            system.pipe_file(f"bucket/raw/{name}", data)
        yield env


@pytest.fixture
def az(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of Microsoft's emulator whose container holds the folder below ``raw``."""
    need("azure")
    with azurite.running(tmp_path) as service:
        service.put("bucket", {f"raw/{name}": data for name, data in sources(tmp_path).items()})
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        yield service.environment


@pytest.fixture(params=some(["gcs", "s3", "az"], one_in=3))
def store(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a bucket, and what the environment must hold."""
    env = request.getfixturevalue(request.param)
    object_store._system.cache_clear()
    yield f"{request.param.replace('gcs', 'gs')}://bucket", env
    object_store._system.cache_clear()


def fetched(address: str, to: Path) -> Path:
    """Everything below an address, as files here."""
    place = local_files.open_store(address)
    for entry in place.list():
        path = to / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(place.read(entry.name))
    return to


@pytest.mark.slow
def test_from_a_store_to_a_store_gives_the_bytes_of_from_a_folder_to_a_folder(
    tmp_path: Path, store: tuple[str, dict[str, str]]
) -> None:
    bucket, env = store
    words = ("--recipe", "square-224", "--jobs", 2)
    code, value, said = run("convert", f"{bucket}/raw", *words, "--out", f"{bucket}/small", **env)
    assert code == 0, said
    assert (value["images"], value["converted"]) == (6, 6)
    code, value, said = run("convert", tmp_path / "in", *words, "--out", tmp_path / "here")
    assert code == 0, said
    there, here = tree(fetched(f"{bucket}/small", tmp_path / "there")), tree(tmp_path / "here")
    # Google states an MD5 of every object, which then is the source's digest; without it the bytes are the same.
    assert sorted(there) == sorted(here)
    if bucket.startswith("s3"):
        assert there == here
    code, value, said = run("convert", f"{bucket}/raw", *words, "--out", f"{bucket}/small", **env)
    assert code == 0, said
    assert (value["converted"], value["kept"]) == (0, 6)


@pytest.mark.slow
@pytest.mark.parametrize("to", some(["files", "parquet"], one_in=2))
def test_from_a_folder_to_a_store_and_again(tmp_path: Path, store: tuple[str, dict[str, str]], to: str) -> None:
    bucket, _ = store
    root = hospital.many(tmp_path / "many", 7)
    arguments = {"recipe": "square-224", "to": to, "per_shard": 3, "engine": INLINE}
    cxrprep.convert(root, out=tmp_path / "here", **arguments)
    address = f"{bucket}/out-{to}"
    first = cxrprep.convert(root, out=address, **arguments).value
    assert (first.converted, first.failed) == (7, 0)
    assert tree(fetched(address, tmp_path / "there")) == tree(tmp_path / "here")
    place = local_files.open_store(address)
    before = {entry.name: entry.stamp for entry in place.list() if not entry.name.startswith("manifests/")}
    second = cxrprep.convert(root, out=address, **arguments).value
    assert (second.converted, second.kept) == (0, 7)
    assert {e.name: e.stamp for e in place.list() if not e.name.startswith("manifests/")} == before
    # A description that somebody else wrote stays, and no checksum of it is stated.
    place.write("croissant.json", b'{"name": "theirs"}')
    cxrprep.convert(root, out=address, **arguments)
    there = fetched(address, tmp_path / "again")
    assert (there / "croissant.json").read_bytes() == b'{"name": "theirs"}'
    assert "../croissant.json" not in (there / "manifests/SHA256SUMS").read_text()


@pytest.mark.slow
def test_a_source_in_a_store_that_changed_is_made_anew_and_a_damaged_one_is_a_failure(
    tmp_path: Path, store: tuple[str, dict[str, str]]
) -> None:
    bucket, _ = store
    arguments = {"recipe": "square-224", "out": tmp_path / "out", "engine": INLINE}
    cxrprep.convert(f"{bucket}/raw", **arguments)
    system = local_files.open_store(bucket).system()
    system.pipe_file(f"{bucket}/raw/z.png", hospital.png(hospital.small(77)))
    system.pipe_file(f"{bucket}/raw/cut.png", hospital.png(hospital.small(7))[:-40])
    system.invalidate_cache()
    result = cxrprep.convert(f"{bucket}/raw", **arguments)
    assert result.exit_code == 3
    assert (result.value.converted, result.value.kept, result.value.failed) == (1, 5, 1)


def test_a_scheme_whose_package_is_missing_names_the_extra() -> None:
    code = (
        "import sys\nsys.modules['s3fs'] = None\nimport cxrprep\nfrom cxrprep import errors\n"
        "try:\n    cxrprep.convert('s3://bucket/raw', recipe='square-224', out='out')\n"
        "except errors.MissingExtraError as error:\n    print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pip install 's3fs>=2024.12'"


def test_an_address_of_no_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an address that no store understands"):
        cxrprep.convert("quatsch://bucket/raw", recipe="square-224", out=tmp_path / "out", engine=INLINE)
