"""A bucket in the place of a folder: every verb gives the bytes of the local run, and nothing is lost on the way."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cxrprep
from cxrprep.api.buckets import merge_records
from cxrprep.api.download_context import FetchOptions
from cxrprep.cli.main import run as run_here
from cxrprep.errors import (
    AccessError,
    BusyError,
    CxrprepError,
    IntegrityError,
    SourceUnreachableError,
    StorageError,
    TableError,
    UsageError,
)
from cxrprep.events import Note
from cxrprep.executors import Engine
from cxrprep.model import Digest, Shard
from cxrprep.planning.plan import Action
from cxrprep.storage import object_store, stored_digests, unfetched, working_copy
from cxrprep.storage.bucket_lock import NAME as LOCK
from cxrprep.storage.object_store import ObjectStore
from cxrprep.storage.working_copy import WorkingCopy
from cxrprep.storage.working_copy_paths import EXPORT_LIST
from tests.api.convert import hospital
from tests.api.convert.commands import run
from tests.commands import in_this_process, ok
from tests.executors.cluster import cluster
from tests.generators.small import chexpert, declared, mimic_cxr, mimic_cxr_jpg, nih_chestxray14
from tests.parts import need
from tests.sample import some
from tests.servers import azurite, fake_gcs, s3
from tests.servers.loopback import running

# What carries times, or says of this machine what it has seen.
TIMED = ("cxrprep.lock", "cxrprep.files.parquet", "manifests/report.html")


@pytest.fixture
def bucket(amazon: s3.S3, at_home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new bucket."""
    for name, value in {**amazon.environment, **s3.KEYS, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{amazon.bucket({}, public=False)}"


def objects(address: str) -> dict[str, bytes]:
    store = ObjectStore(address)
    store.system().invalidate_cache()
    return {entry.name: store.read(entry.name) for entry in store.list()}


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def untimed(found: dict[str, bytes]) -> dict[str, bytes]:
    kept = {name: data for name, data in found.items() if name not in TIMED and not name.startswith(".cxrprep/")}
    # The checksum of a page that says the minute in which it was made.
    return {name: re.sub(rb"(?m)^\w+  report\.html\n", b"", data) for name, data in kept.items()}


def steps(root: str | Path, out: str | Path, source: Path) -> list[Callable[[], Any]]:
    return [
        lambda: cxrprep.download("nih-chestxray14", root, source=str(source)),
        lambda: cxrprep.verify(root),
        lambda: cxrprep.extract_labels(root),
        lambda: cxrprep.build_manifest(root),
        *(lambda form=form: cxrprep.export(root, form=form) for form in ("csv", "hf", "webdataset", "coco")),  # type: ignore[misc]
        lambda: cxrprep.export(root, form="csv", out=f"{out}/one.csv"),
        lambda: cxrprep.convert(root, recipe="square-224", out=f"{out}/small", engine=Engine("inline")),
        lambda: cxrprep.duplicates(root),
        lambda: cxrprep.report(root),
        lambda: cxrprep.digest(root),
        lambda: cxrprep.status(root),
    ]


def copied(at_home: Path) -> list[str]:
    """The images that lie in working copies, other than converted ones."""
    found = (path for path in at_home.rglob("*") if path.suffix in (".png", ".jpg", ".dcm"))
    return sorted(path.name for path in found if "derived" not in path.parts)


def emptied(at_home: Path, step: Callable[[], Any]) -> Any:
    """What ``step`` gives on a machine that knows nothing yet; it copies no image but what it downloads."""
    shutil.rmtree(at_home, ignore_errors=True)
    done = step()
    if done.verb != "download":
        assert copied(at_home) == [], done.verb
    return done


def test_a_folder_may_be_called_what_an_object_may_be_called(bucket: str, at_home: Path, tmp_path: Path) -> None:
    source, name = tmp_path / "nih", "e\u0301 ü/100%20#y?{z}*[1]&a;'b+c=d"
    nih_chestxray14.write(source)
    for step in (0, 2, 5, 9):
        here = steps(tmp_path / name, tmp_path / "out" / name, source)[step]()
        there = steps(f"{bucket}/{name}", f"{bucket}/out/{name}", source)[step]()
        assert (here.exit_code, there.exit_code) == (0, 0)
    assert untimed(objects(f"{bucket}/{name}")) == untimed(files(tmp_path / name))


def test_every_verb_gives_the_bytes_of_the_local_run_and_a_second_run_puts_nothing(
    bucket: str, at_home: Path, tmp_path: Path
) -> None:
    source = tmp_path / "nih"
    nih_chestxray14.write(source)
    here = [step() for step in steps(tmp_path / "here", tmp_path / "out", source)]
    there = [emptied(at_home, step) for step in steps(f"{bucket}/here", f"{bucket}/out", source)]
    assert [int(one.exit_code) for one in there] == [int(one.exit_code) for one in here] == [0] * len(here)
    for local, remote in zip(here, there, strict=True):
        addressed = json.dumps(local.to_dict()).replace(str(tmp_path), bucket)
        assert set(json.loads(addressed)) == set(remote.to_dict())
        assert "/cache/" not in json.dumps([str(value) for _, value in remote.rows])
    assert untimed(objects(f"{bucket}/here")) == untimed(files(tmp_path / "here"))
    kept = {n: data for n, data in files(tmp_path / "out").items() if not n.startswith("small/.cxrprep/")}
    assert objects(f"{bucket}/out") == kept
    assert len(cxrprep.load(f"{bucket}/here")) == 7
    table = cxrprep.load(f"{bucket}/out/small").to_arrow()
    assert set(table.column("split").to_pylist()) == {"test", "train_val"}

    store = ObjectStore(f"{bucket}/here")
    before = {entry.name: entry.stamp for entry in store.list()}
    for verb in (cxrprep.extract_labels, cxrprep.build_manifest):
        verb(f"{bucket}/here")  # type: ignore[operator]
    store.system().invalidate_cache()
    assert {entry.name: entry.stamp for entry in store.list()} == before


@pytest.mark.slow
def test_a_cluster_reads_a_known_dataset_from_its_bucket(
    bucket: str, at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("dask")
    nih_chestxray14.write(tmp_path / "nih")
    cxrprep.extract_labels(tmp_path / "nih")
    system = ObjectStore(bucket).system()
    for name, data in files(tmp_path / "nih").items():
        system.pipe_file(f"{bucket}/nih/{name}", data)
    rows = [f"{name},No edema {number}." for number, name in enumerate(sorted(p.name for p in tmp_path.rglob("*.png")))]
    reports = {"table/reports.csv": "\n".join(["image_id,report", *rows]), **{f"texts/{n}.txt": "Edema." for n in "ab"}}
    for name, text in reports.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        system.pipe_file(f"{bucket}/{name}", text.encode())
    for source in ("texts", "table/reports.csv"):
        cxrprep.label_reports(tmp_path / "nih", reports=tmp_path / source, evidence=True, engine=Engine("inline"))
    cxrprep.convert(tmp_path / "nih", recipe="square-224", out=tmp_path / "small", engine=Engine("inline"))
    local = cxrprep.verify(tmp_path / "nih", images=True, engine=Engine("inline")).value
    with monkeypatch.context() as elsewhere:
        # As on other machines, which have working copies of their own.
        elsewhere.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
        workers = cluster(1)
        scheduler = workers.__enter__()
    with contextlib.ExitStack() as stack:
        stack.push(workers)
        engine = Engine("dask", scheduler=scheduler)
        for source in ("texts", "table/reports.csv"):
            cxrprep.label_reports(f"{bucket}/nih", reports=f"{bucket}/{source}", evidence=True, engine=engine)
        cxrprep.convert(f"{bucket}/nih", recipe="square-224", out=f"{bucket}/small", engine=engine)
        for form in ("webdataset", "hf"):
            cxrprep.export(tmp_path / "nih", form=form, out=tmp_path / "handed" / form)
            cxrprep.export(f"{bucket}/nih", form=form, out=f"{bucket}/handed/{form}", engine=engine)
        checked = cxrprep.verify(f"{bucket}/nih", images=True, engine=engine).value
        assert (checked.verdict, checked.images) == (local.verdict, local.images)
        assert copied(at_home) == []
    here, there = files(tmp_path / "nih"), objects(f"{bucket}/nih")
    for name in ("verify", "labels", "images", "report_labels", "mentions"):
        assert there[f"manifests/{name}.parquet"] == here[f"manifests/{name}.parquet"], name
    assert objects(f"{bucket}/handed") == files(tmp_path / "handed")
    for place in (f"{bucket}/nih", f"{bucket}/nih/images", bucket, f"{bucket}/nih".replace("s3:", "s3a:")):
        with pytest.raises(UsageError, match="holds the originals"):
            cxrprep.convert(f"{bucket}/nih", recipe="square-224", out=place, engine=Engine("inline"))
    assert objects(f"{bucket}/small") == {
        name: data for name, data in files(tmp_path / "small").items() if not name.startswith(".cxrprep/")
    }


def test_the_files_of_a_recipe_and_of_a_dataset_may_lie_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    root = tmp_path / "vin"
    text = (Path(cxrprep.__file__).parent / "datasets/vindr_cxr.toml").read_text().replace("vindr-cxr", "vin-of-ours")
    declared.write(root, "vindr-cxr")
    recipe = (Path(cxrprep.__file__).parent / "images/recipes/square-224.toml").read_text()
    for name, content in (("ours.toml", text), ("small.toml", recipe)):
        (tmp_path / name).write_text(content)
        ObjectStore(bucket).system().pipe_file(f"{bucket}/about/{name}", content.encode())
    made = []
    for where, out in ((str(tmp_path), tmp_path / "here"), (f"{bucket}/about", tmp_path / "there")):
        shutil.rmtree(root / "manifests", ignore_errors=True)
        cxrprep.extract_labels(root, dataset=f"{where}/ours.toml")
        cxrprep.convert(
            root, recipe=f"{where}/small.toml", dataset=f"{where}/ours.toml", out=out, engine=Engine("inline")
        )
        made.append({name: data for name, data in files(out).items() if not name.startswith(".cxrprep/")})
    assert made[0] == made[1]
    assert "manifests/images.parquet" in made[0]
    with pytest.raises(CxrprepError):
        cxrprep.convert(root, recipe=f"{bucket}/about/absent.toml", out=tmp_path / "none")


def test_outputs_in_a_bucket_are_held_against_those_that_are_there(bucket: str, tmp_path: Path) -> None:
    root, out = tmp_path / "nih", f"{bucket}/small"
    nih_chestxray14.write(root)
    cxrprep.extract_labels(root)
    cxrprep.convert(root, recipe="square-224", out=out, engine=Engine("inline"))
    before = objects(out)
    with pytest.raises(UsageError, match="holds images of another recipe"):
        cxrprep.convert(root, recipe="square-320", out=out, engine=Engine("inline"))
    shutil.rmtree(root / "manifests")
    for table in [path for path in root.iterdir() if path.is_file()]:
        table.unlink()
    with pytest.raises(UsageError, match="would lose") as caught:
        cxrprep.convert(root, recipe="square-224", out=out, dataset="nih-chestxray14", engine=Engine("inline"))
    assert caught.value.message.startswith(out)
    assert objects(out) == before


def test_another_machine_goes_on_where_one_was_killed(bucket: str, tmp_path: Path, at_home: Path) -> None:
    address = f"{bucket}/nih"
    code = (
        "import os, signal, sys\nfrom cxrprep.storage.working_copy import WorkingCopy\n"
        f"copy = WorkingCopy({address!r}, writes=True).__enter__()\n"
        "(copy.folder / 'images').mkdir()\n(copy.folder / 'images' / 'a.png').write_bytes(b'first')\n"
        "copy.put_back()\n(copy.folder / 'images' / 'b.png').write_bytes(b'second')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "AWS_REGION": "us-east-1"}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert set(objects(address)) == {"images/a.png", LOCK}
    # Here the lock's process is known to be gone; what it had done lies in the copy and is put back.
    with WorkingCopy(address, writes=True) as copy:
        assert copy.put_back() == 1
    assert objects(address) == {"images/a.png": b"first", "images/b.png": b"second"}


def test_an_export_that_was_cut_off_is_written_by_another_machine(
    bucket: str, tmp_path: Path, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nih_chestxray14.write(tmp_path / "nih")
    cxrprep.extract_labels(tmp_path / "nih")

    def cut_off(store: ObjectStore, name: str, path: Path) -> str:
        if name == EXPORT_LIST:
            raise RuntimeError(name)
        return send(store, name, path)

    send = ObjectStore.send
    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "send", cut_off)
        with pytest.raises(RuntimeError):
            cxrprep.export(tmp_path / "nih", form="csv", out=f"{bucket}/csv")
    shutil.rmtree(at_home)
    cxrprep.export(tmp_path / "nih", form="csv", out=f"{bucket}/csv")
    assert {EXPORT_LIST, "README.md", "images.csv"} <= set(objects(f"{bucket}/csv"))


def test_a_download_puts_whole_files_there_while_it_goes_on(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{bucket}/nih"
    monkeypatch.setattr(working_copy, "PUT_SECONDS", 0.05)
    with WorkingCopy(address, writes=True, streams=True) as copy:
        (copy.folder / "images").mkdir()
        (copy.folder / "images" / "b.png.part").write_bytes(b"half")
        (copy.folder / "cxrprep.lock").write_bytes(b"record")
        (copy.folder / "images" / "a.png").write_bytes(b"whole")
        deadline = time.monotonic() + 60
        while "images/a.png" not in objects(address) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert set(objects(address)) == {"images/a.png", LOCK}
        assert copy.put_back() == 1
    assert objects(address) == {"images/a.png": b"whole", "cxrprep.lock": b"record"}


def test_parts_of_a_download_fill_one_bucket_at_the_same_time(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, address = tmp_path / "nih", f"{bucket}/here"
    nih_chestxray14.write(source)
    cxrprep.download("nih-chestxray14", tmp_path / "here", source=str(source))

    def part(number: int) -> Any:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine-{number}"))
        options = FetchOptions(shard=Shard(number, 3))
        return cxrprep.download("nih-chestxray14", address, source=str(source), options=options)

    # The second begins and ends while the first is still at work, as on another machine.
    first = WorkingCopy(address, writes=True, part=Shard(1, 3), merge=partial(merge_records, part=Shard(1, 3)))
    with first:
        options = FetchOptions(shard=Shard(1, 3))
        cxrprep.download("nih-chestxray14", first.folder, source=str(source), options=options)
        assert int(part(2).exit_code) == 0
        with pytest.raises(BusyError):
            WorkingCopy(address, writes=True, part=Shard(1, 3)).__enter__()
        first.put_back()
    assert int(part(3).exit_code) == 0
    assert int(part(3).exit_code) == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    there = objects(address)
    here = untimed(files(tmp_path / "here"))
    assert untimed(there) == here
    # No lock is left, and one record knows every file.
    assert not [name for name in there if name.endswith(".lock") and "/" in name]
    cxrprep.extract_labels(address)
    cxrprep.extract_labels(tmp_path / "here")
    assert objects(address)["manifests/labels.parquet"] == files(tmp_path / "here")["manifests/labels.parquet"]
    report = cxrprep.verify(address).value
    assert report.verdict == cxrprep.verify(tmp_path / "here").value.verdict
    assert not report.findings


def test_state_tables_pairs_and_proofs_lie_in_buckets_too(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, both = tmp_path / "tables", tmp_path / "mimic"
    mimic_cxr_jpg.write(tables, images=False)
    mimic_cxr.write(both, labels=False)
    system = ObjectStore(bucket).system()
    for name, data in {f"tables/{n}": d for n, d in files(tables).items()}.items():
        system.pipe_file(f"{bucket}/{name}", data)
    for name, data in files(both).items():
        system.pipe_file(f"{bucket}/mimic/{name}", data)
    results = []
    for root, state, beside, out in (
        (both, tmp_path / "state", tables, tmp_path / "out"),
        (f"{bucket}/mimic", f"{bucket}/state", f"{bucket}/tables", f"{bucket}/out"),
    ):
        cxrprep.extract_labels(root, dataset="mimic-cxr", state=state, tables=beside)
        cxrprep.build_manifest(root, state=state)
        pairs = cxrprep.pairs(root, state=state, out=f"{out}/pairs.parquet").value
        digest = cxrprep.digest(root, state=state).value.value
        image = cxrprep.load(root, state=state).to_arrow()["image_id"][0].as_py()
        proof = cxrprep.prove(digest, root, state=state, image=image, out=f"{out}/proof.json")
        checked = cxrprep.prove(digest, proof=f"{out}/proof.json")
        results.append((digest, pairs.counts, int(proof.exit_code), int(checked.exit_code)))
    assert results[0] == results[1]
    assert results[0][2:] == (0, 0)
    for name in ("state", "out"):
        assert untimed(objects(f"{bucket}/{name}")) == untimed(files(tmp_path / name))
    # Tables that were named once are found again, on another machine too.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    before = objects(f"{bucket}/state")["manifests/labels.parquet"]
    cxrprep.extract_labels(f"{bucket}/mimic", state=f"{bucket}/state")
    assert objects(f"{bucket}/state")["manifests/labels.parquet"] == before
    # Beside a state, the folder is only read.
    assert objects(f"{bucket}/mimic") == files(both)


@pytest.mark.parametrize("release", [nih_chestxray14, chexpert, mimic_cxr_jpg])
def test_tables_are_made_by_the_listing_and_no_image_is_copied(
    release: Any, bucket: str, at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "release", f"{bucket}/release"
    release.write(here)
    if release is chexpert:
        # As where a header is longer than what is asked for first.
        monkeypatch.setattr(unfetched, "_HEAD", 16)
    system = ObjectStore(bucket).system()
    for name, data in files(here).items():
        system.pipe_file(f"{there}/{name}", data)
    for root in (here, there):
        cxrprep.extract_labels(root)
        cxrprep.build_manifest(root)
    local, remote = (
        re.sub(r"\d{4}-\d\d-\d\d[ T][\d:]+", "TIME", json.dumps(cxrprep.status(root).to_dict()))
        for root in (here, there)
    )
    assert remote.replace(there, str(here)) == local
    assert not [path for path in at_home.rglob("*") if path.suffix in (".png", ".jpg")]
    assert untimed(objects(there)) == untimed(files(here))
    # An image that goes, and one that changes, are seen; the verbs that read pixels read them there.
    images = sorted(path for path in here.rglob("*") if path.suffix in (".png", ".jpg"))
    images[0].unlink()
    shutil.copy(images[2], images[1])
    ObjectStore(there).remove(images[0].relative_to(here).as_posix())
    system.pipe_file(f"{there}/{images[1].relative_to(here).as_posix()}", images[1].read_bytes())
    for root in (here, there):
        cxrprep.build_manifest(root)
    assert untimed(objects(there)) == untimed(files(here))
    assert cxrprep.verify(there).value.verdict == cxrprep.verify(here).value.verdict
    assert copied(at_home) == []
    # What came once is listed again where it changed there.
    with WorkingCopy(there, writes=False):
        assert len(copied(at_home)) == len(images) - 1
    shutil.copy(images[3], images[1])
    system.pipe_file(f"{there}/{images[1].relative_to(here).as_posix()}", images[1].read_bytes())
    for root in (here, there):
        cxrprep.build_manifest(root)
    assert untimed(objects(there)) == untimed(files(here))


def test_what_is_written_into_the_folder_itself_is_a_part_of_its_working_copy(bucket: str, tmp_path: Path) -> None:
    """``pairs`` and ``duplicates`` waited for a lock of their own: ROOT and the folder of ``--out`` are one."""
    cxrprep.convert(
        hospital.write(tmp_path / "own"), recipe="square-224", out=tmp_path / "made", engine=Engine("inline")
    )
    put(f"{bucket}/made", tmp_path / "made")
    ok("duplicates", f"{bucket}/made", "--out", f"{bucket}/made/near.parquet")
    assert "near.parquet" in objects(f"{bucket}/made")
    ok("verify", f"{bucket}/made", "--strict")


def put(address: str, root: Path) -> None:
    system = ObjectStore(address).system()
    for name, data in files(root).items():
        system.pipe_file(f"{address}/{name}", data)


@pytest.mark.parametrize("kind", some(["own", "declared", "converted", "shards"], one_in=4))
def test_folders_of_every_kind_are_read_image_by_image(kind: str, bucket: str, at_home: Path, tmp_path: Path) -> None:
    here, there = tmp_path / kind, f"{bucket}/{kind}"
    dataset = "vindr-cxr" if kind == "declared" else None
    if kind == "own":
        hospital.write(here)
    elif kind == "declared":
        declared.write(here, "vindr-cxr")
    else:
        nih_chestxray14.write(tmp_path / "nih")
        form = "webdataset" if kind == "shards" else "files"
        cxrprep.convert(tmp_path / "nih", recipe="square-320", out=here, to=form, per_shard=3, engine=Engine("inline"))
    put(there, here)
    verbs: list[Callable[[str | Path, Path | str], Any]] = [
        # Of converted images too: their manifest was emptied, since no image lies in the working copy.
        lambda root, _: cxrprep.build_manifest(root, dataset=dataset),
        lambda root, _: cxrprep.verify(root, dataset=dataset, images=True, engine=Engine("inline")),
        *(
            []
            if kind == "shards"
            else [
                lambda root, out: cxrprep.convert(
                    root, recipe="square-224", out=f"{out}/small", dataset=dataset, engine=Engine("inline")
                )
            ]
        ),
        # A hospital's own headers are handed on to nobody.
        *([] if kind == "own" else [lambda root, out: cxrprep.export(root, form="hf", out=f"{out}/hf")]),
        # Alone in its folder, and among other files; the second time it is known for what it is.
        *2 * [lambda root, out: cxrprep.export(root, form="csv", out=f"{out}/csv/one.csv")],
        lambda root, out: cxrprep.export(root, form="csv", out=f"{out}/one.csv"),
        lambda root, _: cxrprep.digest(root),
        lambda root, _: cxrprep.status(root),
    ]
    for verb in verbs:
        local, remote = verb(here, tmp_path / "out"), emptied(at_home, lambda verb=verb: verb(there, f"{bucket}/out"))
        assert int(remote.exit_code) == int(local.exit_code)
        assert untimed(objects(there)) == untimed(files(here)), local.verb
    kept = {n: data for n, data in files(tmp_path / "out").items() if not n.startswith("small/.cxrprep/")}
    assert untimed(objects(f"{bucket}/out")) == kept
    assert list(cxrprep.load(there)) == list(cxrprep.load(here))


def test_what_others_put_into_a_bucket_is_known_for_what_it_is(bucket: str, tmp_path: Path) -> None:
    """Converted images without tables passed for originals, and --discard-raw took a lab's originals for none."""
    source = tmp_path / "nih"
    nih_chestxray14.write(source)
    for form in ("files", "webdataset", "parquet"):
        made = tmp_path / form
        cxrprep.convert(source, recipe="square-224", out=made, to=form, engine=Engine("inline"))
        for name in ("manifests", "README.md", "croissant.json", ".cxrprep"):
            path = made / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        put(f"{bucket}/{form}", made)
        before = objects(f"{bucket}/{form}")
        for verb in (cxrprep.status, cxrprep.verify, cxrprep.build_manifest):
            with pytest.raises(TableError, match="images that a conversion made"):
                verb(f"{bucket}/{form}")
        with pytest.raises(TableError, match="images that a conversion made"):
            cxrprep.download("nih-chestxray14", f"{bucket}/{form}", source=str(source))
        assert objects(f"{bucket}/{form}") == before
    put(f"{bucket}/lab", source)
    before = objects(f"{bucket}/lab")
    with pytest.raises(UsageError, match="images that cxrprep did not fetch"):
        cxrprep.download("nih-chestxray14", f"{bucket}/lab", source=str(source), then="square-224", discard_raw=True)
    assert objects(f"{bucket}/lab") == before


def test_a_download_replaces_nothing_that_others_put_into_a_bucket(
    bucket: str, at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took what no record names for absent: a lab's own file of a release's name was gone, with exit code 0."""
    source = tmp_path / "nih"
    nih_chestxray14.write(source)
    put(f"{bucket}/lab", source)
    before = objects(f"{bucket}/lab")
    names = sorted(name for name in before if name.endswith(".png"))
    longer, same = b"a scan of our own", bytes(len(before[names[1]]))
    store = ObjectStore(f"{bucket}/lab")
    store.write(names[0], longer)
    store.write(names[1], same)
    planned = {item.dest: item for item in cxrprep.plan("nih-chestxray14", f"{bucket}/lab", source=str(source)).value}
    assert {str(planned[name].action) for name in names[1:]} == {"keep"}
    monkeypatch.setattr(working_copy, "PUT_SECONDS", 0.001)
    done = emptied(at_home, lambda: cxrprep.download("nih-chestxray14", f"{bucket}/lab", source=str(source)))
    assert int(done.exit_code) == 0
    after = objects(f"{bucket}/lab")
    kept = {
        name.split("/replaced/")[1].rpartition("/")[0]: data for name, data in after.items() if "/replaced/" in name
    }
    assert kept == {names[0]: longer, names[1]: same}
    assert {name: after[name] for name in before} == before
    # What was there is not sent back, and what came otherwise is not dropped later.
    record = cxrprep.status(f"{bucket}/lab").value
    assert record.stages[0].state == "done"
    cxrprep.download("nih-chestxray14", f"{bucket}/lab", source=str(source), then="square-224", discard_raw=True)
    assert {name: data for name, data in objects(f"{bucket}/lab").items() if name in names[2:]} == {
        name: before[name] for name in names[2:]
    }


def test_verify_believes_the_checksum_that_a_store_states_and_reads_the_rest_there(
    bucket: str, amazon: s3.S3, at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, there, checked = tmp_path / "nih", f"{bucket}/here", f"{bucket}/checked"
    nih_chestxray14.write(source)
    put(f"{bucket}/source", source)
    # Of objects that others wrote S3 states an MD5, and of those that cxrprep writes the SHA-256 that came with them.
    cxrprep.download("nih-chestxray14", there, source=f"{bucket}/source")
    cxrprep.download("nih-chestxray14", tmp_path / "here", source=str(source))
    cxrprep.download("nih-chestxray14", checked, source=str(source))
    monkeypatch.setattr(stored_digests, "_WORTH_ASKING", 1)
    images = len(list(source.rglob("*.png")))
    local = cxrprep.verify(tmp_path / "here")
    for address in (there, checked):
        report = emptied(at_home, lambda address=address: cxrprep.verify(address)).value
        assert (report.exit_code, report.files.stated) == (local.value.exit_code, images)
        assert report.files.read + report.files.stated == report.files.here
        # The headline says what was proven by whom.
        words = f"({images} of them by the checksum that the store states, and not read now; the other "
        assert words in report.verdict
        assert words not in local.value.verdict
    assert objects(checked)["manifests/verify.parquet"] == files(tmp_path / "here")["manifests/verify.parquet"]
    # A store that states something else accuses nobody: the bytes decide.
    monkeypatch.setattr(ObjectStore, "held_checksum", lambda *_: Digest("sha256", "0" * 64))
    report = emptied(at_home, lambda: cxrprep.verify(checked)).value
    assert (report.verdict, report.files.stated) == (local.value.verdict, 0)
    # And a quick check believes what has the ETag of the last one.
    assert cxrprep.verify(checked, quick=True).value.files.believed == report.files.here
    for address in (there, checked):
        store = ObjectStore(address)
        damaged = next(entry for entry in store.list() if entry.name.endswith(".png"))
        store.write(damaged.name, bytes(damaged.size))
        result = emptied(at_home, lambda address=address: cxrprep.verify(address))
        assert int(result.exit_code) == 4
        assert [(one.path, str(one.kind)) for one in result.value.findings] == [(damaged.name, "altered")]
    assert cxrprep.verify(there, repair=True).value.repaired == 1
    assert int(cxrprep.verify(there).exit_code) == 0


def test_a_download_goes_on_where_it_was_and_copies_no_image_from_its_bucket(
    bucket: str, at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, address = tmp_path / "nih", f"{bucket}/here"
    nih_chestxray14.write(source)
    cxrprep.download("nih-chestxray14", address, source=str(source), split="test")
    shutil.rmtree(at_home)
    planned = cxrprep.plan("nih-chestxray14", address, source=str(source)).value
    result = cxrprep.download("nih-chestxray14", address, source=str(source)).value
    moved = {item.dest for item in planned if item.action is Action.FETCH}
    assert result.done == len(moved) > 0
    assert {path.name for path in at_home.rglob("*.png")} == {
        name.rpartition("/")[2] for name in moved if ".png" in name
    }
    again = cxrprep.download("nih-chestxray14", address, source=str(source)).value
    assert (again.done, again.failed) == (0, 0)
    cxrprep.download("nih-chestxray14", tmp_path / "here", source=str(source))
    assert untimed(objects(address)) == untimed(files(tmp_path / "here"))
    assert cxrprep.verify(address).value.verdict == cxrprep.verify(tmp_path / "here").value.verdict


def test_a_cache_that_was_emptied_meanwhile_empties_no_bucket(bucket: str, at_home: Path) -> None:
    address = f"{bucket}/nih"
    ObjectStore(address).write("a.csv", b"data")
    with WorkingCopy(address, writes=True) as copy:
        # What is in a bucket may be patients' images, and a cache is in nobody's mind.
        assert [stat.S_IMODE(path.stat().st_mode) for path in at_home.iterdir()] == [0o700]
        shutil.rmtree(at_home)
        with pytest.raises(StorageError, match="was removed while it was in use"):
            copy.put_back()
    assert objects(address) == {"a.csv": b"data"}


def test_a_disk_that_cannot_hold_the_copy_is_said_before_the_first_byte(
    bucket: str, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ObjectStore(f"{bucket}/nih").write("a.csv", b"12345")
    usage = type("Usage", (), {"free": 4})
    monkeypatch.setattr(working_copy.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="needs 5 bytes more"):
        cxrprep.status(f"{bucket}/nih")
    assert not list(at_home.rglob("a.csv"))


def test_two_runs_do_not_overwrite_each_other(bucket: str, at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{bucket}/nih"
    store = ObjectStore(address)
    with WorkingCopy(address, writes=True) as copy:
        (copy.folder / "a.csv").write_bytes(b"mine")
        monkeypatch.setenv("XDG_CACHE_HOME", str(at_home / "other"))
        with pytest.raises(BusyError, match="another run works there"):
            WorkingCopy(address, writes=True).__enter__()
        # Who slept too long finds the lock taken, and replaces nothing.
        store.write(LOCK, json.dumps({"token": "other", "host": "elsewhere", "touched": time.time()}).encode())
        with pytest.raises(BusyError, match="took over"):
            copy.put_back()
    assert set(objects(address)) == {LOCK}
    store.write(LOCK, json.dumps({"token": "old", "host": "elsewhere", "touched": 1.0}).encode())
    with WorkingCopy(address, writes=True) as later:
        assert later.put_back() == 0


def test_what_others_changed_comes_and_what_they_removed_goes(bucket: str) -> None:
    address = f"{bucket}/nih"
    store = ObjectStore(address)
    for name in ("a.csv", "b.csv"):
        store.write(name, b"old")
    with WorkingCopy(address, writes=True) as copy:
        assert files(copy.folder) == {"a.csv": b"old", "b.csv": b"old"}
        (copy.folder / "b.csv").unlink()
        assert copy.put_back() == 1
    assert objects(address) == {"a.csv": b"old"}
    store.write("a.csv", b"new")
    with WorkingCopy(address, writes=False) as copy:
        assert files(copy.folder) == {"a.csv": b"new"}
    store.remove("a.csv")
    store.system().invalidate_cache()
    with WorkingCopy(address, writes=False) as copy:
        assert files(copy.folder) == {}


@contextmanager
def emulator(kind: str, folder: Path) -> Iterator[dict[str, str]]:
    """What leads a store's own library to its emulator, which has ``bucket``."""
    need("gcsfs" if kind == "gs" else "azure")
    if kind == "gs":
        with fake_gcs.serving({"x/y": b"z"}, folder) as address:
            yield {"STORAGE_EMULATOR_HOST": address}
        return
    with azurite.running(folder) as service:
        service.put("bucket", {})
        yield service.environment


@pytest.mark.parametrize("kind", ["gs", "az"])
def test_other_stores_do_the_same(
    kind: str, at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "nih"
    nih_chestxray14.write(source)
    with emulator(kind, tmp_path) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        for root in (str(tmp_path / "here"), f"{kind}://bucket/here"):
            cxrprep.download("nih-chestxray14", root, source=str(source))
            cxrprep.extract_labels(root)
            cxrprep.build_manifest(root)
        assert untimed(objects(f"{kind}://bucket/here")) == untimed(files(tmp_path / "here"))
        with WorkingCopy(f"{kind}://bucket/here", writes=True), pytest.raises(BusyError):
            WorkingCopy(f"{kind}://bucket/here", writes=True).__enter__()
    # No service is asked beside the store, and what its library logs does not land on the terminal.
    assert not [line for line in caplog.messages if "bucket type" in line]
    assert logging.getLogger({"gs": "gcsfs", "az": "azure"}[kind]).handlers


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"refuse": 400, "code": "ExpiredToken"}, AccessError),
        ({"refuse": 403}, AccessError),
        ({"refuse": 503, "code": "SlowDown"}, SourceUnreachableError),
        ({"stored": {"nih/a.csv": {"ETag": '"00000000000000000000000000000000"'}}}, IntegrityError),
    ],
)
def test_what_goes_wrong_at_the_store_has_its_exit_code(
    change: dict[str, Any], error: type[CxrprepError], at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("s3")
    rules = s3.Rules({"nih/a.csv": b"data"})
    for name, value in change.items():
        setattr(rules, name, value)
    with running(rules) as server:
        more = {"AWS_ENDPOINT_URL": server.url, "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in {**s3.NOBODY, **s3.KEYS, **more}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(error) as caught:
            cxrprep.status("s3://bucket/nih")
    assert s3.KEYS["AWS_SECRET_ACCESS_KEY"] not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "quatsch://x/y"),
        ("verify", "s3:///y"),
        ("status", "ROOT", "http://x/y"),
        ("export", "ROOT", "--format", "csv", "--out", "ftp://x/y"),
        ("manifest", "ROOT", "--state", "hdfs://x/y"),
        ("extract-labels", "ROOT", "--tables", "quatsch://x/y"),
        ("download", "nih-chestxray14", "quatsch://x/y", "--source", "SOURCE"),
        ("pairs", "ROOT", "--out", "quatsch://x/y.csv"),
        ("report", "ROOT", "--out", "quatsch://x/y.html"),
        ("download", "nih-chestxray14", "ROOT", "--cookie-file", "s3://bucket/cookies.txt"),
    ],
)
def test_an_address_that_no_store_understands_is_refused_before_the_first_byte(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    root = tmp_path / "nih"
    nih_chestxray14.write(root)
    before = files(tmp_path)
    code, _, said = run(*(word.replace("ROOT", str(root)).replace("SOURCE", str(root)) for word in words))
    assert code == 2, said
    assert files(tmp_path) == before


@pytest.mark.parametrize("kind", ["s3", "gs", "az"])
def test_what_another_machine_fetches_has_the_time_at_which_it_was_written(
    kind: str, bucket: str, at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.nullcontext(dict[str, str]()) if kind == "s3" else emulator(kind, tmp_path / "emulator") as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        object_store._system.cache_clear()
        address = f"{bucket}/nih" if kind == "s3" else f"{kind}://bucket/nih"
        ObjectStore(address).write("manifests/verify.parquet", b"findings")
        (entry,) = ObjectStore(address).list()
        assert entry.written == pytest.approx(time.time(), abs=120)
        with WorkingCopy(address, writes=False) as copy:
            assert (copy.folder / entry.name).stat().st_mtime == pytest.approx(entry.written, abs=1e-5)


def test_a_bucket_that_is_not_there_is_said(bucket: str) -> None:
    with pytest.raises(UsageError, match="no such bucket"):
        cxrprep.verify("s3://no-such-bucket/nih")


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        *((verb, {}) for verb in ("verify", "status", "extract_labels", "build_manifest", "report", "digest")),
        ("duplicates", {}),
        ("export", {"form": "csv"}),
        ("convert", {"recipe": "square-224", "out": "small"}),
    ],
    ids=str,
)
def test_a_folder_of_which_a_bucket_has_nothing_is_not_there(
    bucket: str, verb: str, words: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(UsageError, match=f"^there is no folder {bucket}/nowhere$"):
            getattr(cxrprep, verb)(f"{bucket}/nowhere", **words)
    assert objects(bucket) == {}


def test_the_command_names_addresses_and_not_working_copies(bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "nih"
    nih_chestxray14.write(source)
    env = {name: os.environ[name] for name in ("XDG_CACHE_HOME", "AWS_ENDPOINT_URL", *s3.KEYS)}
    code, value, said = run("download", "nih-chestxray14", f"{bucket}/nih", "--source", source, **env)
    assert code == 0, said
    assert "/cache/" not in said + json.dumps(value)
    cxrprep.build_manifest(f"{bucket}/nih")
    code, value, said = run("export", f"{bucket}/nih", "--format", "csv", "--out", f"{bucket}/one.csv", **env)
    assert code == 0, said
    assert value["out"] == f"{bucket}/one.csv"
    assert objects(bucket)["one.csv"]
    # convert serves addresses by itself: it said s3:/bucket, and the path of the table alone.
    for out, where in ((("--out", f"{bucket}/out"), f"{bucket}/out"), ((), f"{bucket}/nih/derived/square-224")):
        with in_this_process():
            said = ok("convert", f"{bucket}/nih", "--recipe", "square-224", *out)
        assert f"{where}/manifests/images.parquet" in said
        assert f"cxrprep verify {where}" in said
        assert f"Converted {bucket}/nih\n" in said
        assert "/cache/" not in said


def test_notes_about_a_bucket_name_its_address(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "nih"
    nih_chestxray14.write(root)
    cxrprep.extract_labels(root)
    notes: list[Note] = []
    cxrprep.export(
        root, form="coco", out=f"{bucket}/coco",
        on_event=lambda event: notes.append(event) if isinstance(event, Note) else None,
    )  # fmt: skip
    assert [note.subject for note in notes if "without boxes" in note.message] == [f"{bucket}/coco"]
    words = ["export", str(root), "--format", "coco", "--out", f"{bucket}/shown"]
    assert run_here(words) == 0
    said = capsys.readouterr().err
    assert f"{bucket}/shown" in said
    assert "/cache/" not in said


def test_an_export_is_refused_and_a_part_of_a_job_array_keeps_its_labels_in_a_bucket_as_here(
    bucket: str, tmp_path: Path
) -> None:
    root = tmp_path / "nih"
    nih_chestxray14.write(root)
    cxrprep.extract_labels(root)
    for form in ("hf", "webdataset"):
        cxrprep.export(root, form=form, out=f"{bucket}/{form}")
        with pytest.raises(UsageError, match=f"{bucket}/{form}, which holds an export in the form {form}"):
            cxrprep.convert(f"{bucket}/{form}", recipe="square-224", out=tmp_path / "out")
    once = {"recipe": "square-224", "engine": Engine("inline")}
    cxrprep.convert(root, out=f"{bucket}/part", shard=Shard(1, 1), **once)  # type: ignore[arg-type]
    cxrprep.convert(f"{bucket}/part", out=tmp_path / "again", **once)  # type: ignore[arg-type]
    table = cxrprep.load(tmp_path / "again").to_arrow()
    assert set(table.column("split").to_pylist()) == {"test", "train_val"}


def test_a_conversion_that_makes_no_image_says_so_in_a_bucket_as_here(bucket: str, tmp_path: Path) -> None:
    root = tmp_path / "nih"
    nih_chestxray14.write(root)
    for out in (f"{bucket}/out", tmp_path / "out"):
        made = cxrprep.convert(root, recipe="square-224", out=out, engine=Engine("inline"), max_bytes=300)
        assert (int(made.exit_code), made.value.images, made.value.failed) == (3, 0, 7)
        assert cxrprep.convert(root, recipe="square-224", out=out, engine=Engine("inline")).value.images == 7


def test_a_plan_in_a_bucket_is_followed_without_root(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    nih_chestxray14.write(source)
    monkeypatch.chdir(tmp_path)
    plan = f"{bucket}/plans/nih.json"
    code, _, said = run("download", "nih-chestxray14", "planned", "--source", str(source), "--save-plan", plan)
    assert code == 0, said
    code, _, said = run("download", "--from-plan", plan)
    assert code == 0, said
    assert (tmp_path / "nih-chestxray14" / "images" / "00000001_000.png").is_file()
    code, _, said = run("download", f"{bucket}/nih", "--from-plan", plan)
    assert code == 0, said
    assert "nih/images/00000001_000.png" in objects(bucket)
