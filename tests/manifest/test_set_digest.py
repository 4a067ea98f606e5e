"""One digest names a training set: equal for whatever a model cannot tell apart, another for everything that it can."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import random
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.events import Advanced, StageStarted
from cxrprep.executors import Engine
from cxrprep.images.pixel_digest import pixel_digest
from cxrprep.manifest.load import load
from cxrprep.manifest.merkle_tree import GrowingTree
from cxrprep.manifest.set_digest import Proof, canonical, set_digest
from cxrprep.manifest.stated_digest import stated_digest
from cxrprep.model import Selection, Shard
from cxrprep.storage.parquet import read_footer, read_rows, write_table
from tests.commands import cxrprep as command
from tests.commands import ok
from tests.generators.small import nih_chestxray14
from tests.manifest.made import made

INLINE = Engine("inline")
FORMS = ("files", "webdataset", "parquet")


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return made("nih-chestxray14", tmp_path_factory.mktemp("nih"))


@pytest.fixture(scope="module")
def small(nih, tmp_path_factory):
    out = tmp_path_factory.mktemp("small") / "out"
    cxrprep.convert(nih, recipe="square-224", out=out, engine=INLINE)
    return out


def digest(root, **options):
    return cxrprep.digest(root, **options).value.value


def stated(root):
    """The digest in the footer of the manifest, which was computed without reading an image."""
    return read_footer(root / "manifests" / "images.parquet").get("set_digest")


# ---- equal where nothing that a model sees differs ----


@pytest.mark.long
def test_forms_shards_engines_and_names_of_recipes(nih, small, tmp_path):
    wanted = digest(small)
    engines = (INLINE, Engine("local", 2))
    for number, (form, per_shard, engine) in enumerate(itertools.product(FORMS, (1, 3), engines)):
        out = tmp_path / f"{number}"
        done = cxrprep.convert(nih, recipe="square-224", to=form, per_shard=per_shard, out=out, engine=engine)
        assert digest(out) == stated(out) == done.value.digest == wanted


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("parts", [2, 3])
def test_job_arrays(nih, small, tmp_path, form, parts):
    options = {"recipe": "square-224", "to": form, "per_shard": 2, "out": tmp_path, "engine": INLINE}
    for index in range(parts):
        cxrprep.convert(nih, shard=Shard(index + 1, parts), **options)
    cxrprep.convert(nih, **options)
    assert digest(tmp_path) == stated(tmp_path) == digest(small)


@pytest.mark.parametrize("gone", ["cache", "manifest", "both", "one image", "every image"])
def test_a_second_run_after_something_went(nih, small, tmp_path, gone):
    options = {"recipe": "square-224", "out": tmp_path / "out", "state": tmp_path / "state", "engine": INLINE}
    shutil.copytree(nih / "manifests", tmp_path / "state" / "manifests")
    cxrprep.convert(nih, **options)
    if gone in ("cache", "both"):
        shutil.rmtree(tmp_path / "state" / ".cxrprep")
    if gone in ("manifest", "both"):
        shutil.rmtree(tmp_path / "out" / "manifests")
    if gone.endswith("image"):
        for path in sorted((tmp_path / "out").rglob("*.png"))[: 1 if gone.startswith("one") else None]:
            path.unlink()
    cxrprep.convert(nih, **options)
    assert digest(tmp_path / "out") == stated(tmp_path / "out") == digest(small)


def test_a_manifest_that_is_built_again_and_one_converted_from_converted_images(nih, small, tmp_path):
    root = tmp_path / "again"
    shutil.copytree(small, root)
    cxrprep.build_manifest(root)
    assert digest(root) == stated(root) == digest(small)
    cxrprep.convert(root, recipe="square-224", to="parquet", out=tmp_path / "twice", engine=INLINE)
    cxrprep.convert(root, recipe="square-224", to="webdataset", out=tmp_path / "other", engine=INLINE)
    assert digest(tmp_path / "twice") == stated(tmp_path / "other")


def test_parts_that_were_joined_and_copies_that_were_moved(nih, small, tmp_path):
    wanted = digest(small)
    parts = tmp_path / "parts"
    for split in ("test", "train_val"):
        ids = frozenset(
            r["image_id"] for r in pq.read_table(nih / "manifests/images.parquet").to_pylist() if r["split"] == split
        )
        cxrprep.convert(nih, recipe="square-224", out=parts, selection=Selection(images=ids), engine=INLINE)
    assert digest(parts) == wanted
    shutil.copytree(small, tmp_path / "moved" / "elsewhere")
    assert digest(tmp_path / "moved" / "elsewhere") == wanted


def test_every_png_written_again_with_another_setting(small, tmp_path):
    wanted = digest(small)
    for level in range(10):
        root = tmp_path / f"{level}"
        shutil.copytree(small, root)
        for path in root.rglob("*.png"):
            cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED), [cv2.IMWRITE_PNG_COMPRESSION, level])
        assert digest(root) == wanted


@pytest.mark.parametrize("recipe", ["square-224", "mimic-cxr-jpg", "shortest-1024-16bit"])
def test_the_column_is_what_the_files_decode_to(nih, tmp_path, recipe):
    cxrprep.convert(nih, recipe=recipe, out=tmp_path / "out", engine=INLINE)
    rows = pq.read_table(tmp_path / "out" / "manifests" / "images.parquet").to_pylist()
    assert rows
    for row in rows:
        assert row["pixels"] == pixel_digest((tmp_path / "out" / row["path"]).read_bytes(), row["path"])
        assert row["pixels"].startswith("pixels:" if row["path"].endswith(".png") else row["digest"])


def test_of_converted_images_no_unchanged_one_is_decoded(small, monkeypatch):
    monkeypatch.setattr("cxrprep.manifest.set_digest.pixel_digest", lambda *_, **__: pytest.fail("decoded"))
    assert set_digest(load(small)).value == stated(small)


def test_an_altered_image_is_seen_behind_a_manifest_that_was_built_again(small, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(small, root)
    before, path = digest(root), next(root.rglob("*.png"))
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    pixels[0, 0] ^= 1
    cv2.imwrite(str(path), pixels)
    cxrprep.build_manifest(root)
    assert digest(root) != before


def test_the_digest_stands_in_card_croissant_manifest_and_summary(nih, small, tmp_path):
    mirrored = tmp_path / "mirrored"
    cxrprep.download("nih-chestxray14", mirrored, source=str(nih))
    cxrprep.extract_labels(mirrored)
    assert digest(mirrored) == digest(nih)
    for root in (mirrored, small):
        value = digest(root)
        assert stated(root) == value
        assert f"`{value}`" in (root / "manifests" / "README.md").read_text()
        held = json.loads((root / "manifests" / "croissant.json").read_text())
        assert held["identifier"] == f"cxrprep-set/1:{value}"
    assert f"`{digest(small)}`" in (small / "README.md").read_text()
    done = cxrprep.convert(mirrored, recipe="square-224", out=tmp_path / "out", engine=INLINE)
    assert ("digest", digest(small)) in done.rows
    assert digest(tmp_path / "out") == digest(small)


def test_ids_that_json_escapes_and_rows_without_a_split(small, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(small, root)
    path = root / "manifests" / "images.parquet"
    path.with_name("SHA256SUMS").unlink()
    table = pq.read_table(path)
    for number, odd in enumerate(['a"b', "a\\b", "a\tb", "\u00e9\u4e00\U0001f600", "\x7f", ""]):
        rows = table.to_pylist()
        rows[number % len(rows)] |= {"image_id": odd, "split": None}
        changed = pa.Table.from_pylist(rows, schema=table.schema)
        pq.write_table(changed, path)
        found = set_digest(load(root), image=odd)
        assert stated_digest(changed, read_footer(path)) == found.value == digest(root)
        # Spelled column by column, as JSON spells it.
        assert found.proof.leaf == canonical(json.loads(found.proof.leaf)).decode()
        assert (json.loads(found.proof.leaf)["id"], found.proof.holds(found.value)) == (odd, True)
    twice = table.to_pylist()
    twice[1] |= {name: twice[0][name] for name in ("image_id", "split")}
    assert stated_digest(pa.Table.from_pylist(twice, schema=table.schema), read_footer(path)) is None


@pytest.mark.parametrize("layout", ["images", "images_001/images", "sub/images"])
def test_layouts_and_orders_of_a_raw_copy(nih, tmp_path, layout):
    released = nih_chestxray14.write(tmp_path)
    if layout != "images":
        (tmp_path / layout).parent.mkdir(parents=True)
        (tmp_path / "images").rename(tmp_path / layout)
    assert released
    cxrprep.extract_labels(tmp_path)
    assert digest(tmp_path) == digest(nih)


def test_orders_of_rows_and_other_columns(small, tmp_path):
    wanted = digest(small)
    for seed in range(20):
        root = tmp_path / f"{seed}"
        shutil.copytree(small, root)
        path = root / "manifests" / "images.parquet"
        table = pq.read_table(path)
        order = list(range(table.num_rows))
        random.Random(seed).shuffle(order)
        changed = table.take(order)
        changed = changed.set_column(
            changed.schema.get_field_index("view_raw"), "view_raw", pa.nulls(len(order), pa.string())
        )
        pq.write_table(changed, path)
        path.with_name("SHA256SUMS").unlink()
        assert digest(root) == wanted


# ---- another for everything else ----


def test_every_single_change_gives_another_digest(small, tmp_path):
    """160 of rows, 40 of single bits of pixels; the manifest alone says the same of rows."""
    root = tmp_path / "copy"
    shutil.copytree(small, root)
    dataset = load(root)
    wanted, made_from = set_digest(dataset).value, read_footer(root / "manifests" / "images.parquet")
    table, names = dataset.stated, [f"label_{stem}" for stem in dataset.observations]
    pictures = {p: cv2.imread(str(root / p), cv2.IMREAD_UNCHANGED) for p in table.column("path").to_pylist()}
    generator = random.Random(7)
    seen = {wanted}
    for number in range(200):
        row, kind = generator.randrange(table.num_rows), number % 5
        if kind == 0:
            name = table.column("path")[row].as_py()
            pixels = pictures[name].copy()
            pixels[tuple(generator.randrange(side) for side in pixels.shape)] ^= np.uint8(1 << generator.randrange(8))
            cv2.imwrite(str(root / name), pixels)
            found = set_digest(dataset).value
            shutil.copy2(small / name, root / name)
        else:
            changed = table.to_pylist()
            changed[row] |= one_change(kind, number, changed[row], names, generator)
            rows = pa.Table.from_pylist(changed, schema=table.schema)
            found = set_digest(dataclasses.replace(dataset, stated=rows)).value
            assert stated_digest(rows, made_from) == found
        assert found != wanted
        seen.add(found)
    # Some label or split changes are drawn twice.
    assert len(seen) > 120
    assert set_digest(dataset).value == wanted


def one_change(kind, number, row, names, generator):
    if kind == 1:
        name = generator.choice(names)
        return {name: generator.choice([value for value in (1, 0, -1, None) if value != row[name]])}
    if kind == 2:
        splits = ("train", "validate", "test", None)
        return {"split": generator.choice([value for value in splits if value != row["split"]])}
    if kind == 3:
        return {"boxes": [{"label": "Mass", "x": 1 + number / 100, "y": 2, "w": 3, "h": 4}]}
    return {"image_id": f"{row['image_id']}-{number}"}


def test_policies_observations_and_dropped_images(small):
    values = [digest(small), digest(small, uncertain="ones"), digest(small, blank="zeros"), digest(small, derive=True)]
    values += [digest(small, observations=["Mass"]), digest(small, observations=["Mass", "Nodule"])]
    values += [digest(small, selection=Selection(limit=count)) for count in range(1, 7)]
    assert len(set(values)) == len(values)


def test_a_changed_file_of_a_raw_release_is_read(tmp_path):
    root = made("nih-chestxray14", tmp_path)
    before = digest(root)
    path = next((root / "images").glob("*.png"))
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    assert digest(root) != before


def test_a_file_that_was_altered_before_the_manifest_is_said_to_be_unread_until_verify_has_read_it(tmp_path):
    nih_chestxray14.write(tmp_path / "mirror")
    root = tmp_path / "root"
    ok("download", "nih-chestxray14", root, "--source", tmp_path / "mirror")
    ok("extract-labels", root)
    before = digest(root)
    path = next((root / "images").glob("*.png"))
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    ok("manifest", root)
    told = json.loads(command("digest", root, "--json").stdout)
    # The record is believed, and that it is is said.
    assert (told["digest"], told["unread"]) == (before, 7)
    assert f"7 of 7 images were not read, and their digests taken from the record: cxrprep verify {root}" in (
        command("digest", root).stderr
    )
    assert command("verify", root).returncode == 4
    told = json.loads(command("digest", root, "--json").stdout)
    assert (told["digest"] != before, told["unread"]) == (True, 0)
    # A file that is altered after the check is read, whatever its time says.
    times = path.stat()
    data[-21] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert command("digest", root).stdout.strip() not in (before, told["digest"])
    assert command("prove", before, root).returncode == 4


def test_images_in_parts_have_the_digest_of_the_whole_and_each_is_read_once(nih, small, tmp_path, monkeypatch):
    root = tmp_path / "root"
    shutil.copytree(nih, root)
    ok("verify", root)
    path = root / "manifests" / "images.parquet"
    whole, table = digest(root), read_rows(path)
    # Checks are kept in order of path, which need not be that of the manifest.
    turned = table.take(list(range(len(table)))[::-1])
    write_table(turned, path, name="images", made_from=read_footer(path))
    monkeypatch.setattr("cxrprep.manifest.load._PART", 2)
    found = cxrprep.digest(root).value
    assert (found.value, found.unread) == (whole, 0)
    events, again = [], []
    shutil.rmtree(small / ".cxrprep", ignore_errors=True)
    assert cxrprep.digest(small, on_event=events.append).value.value == stated(small)
    read = [event.items for event in events if isinstance(event, Advanced)]
    assert [event.items for event in events if isinstance(event, StageStarted)] == [sum(read)] == [7]
    assert cxrprep.digest(small, on_event=again.append).value.value == stated(small)
    assert not any(isinstance(event, StageStarted) for event in again)


# ---- trees and proofs ----


def slow_root(leaves):
    """RFC 9162, section 2.1.1, as it is written there."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + slow_root(leaves[:k]) + slow_root(leaves[k:])).digest()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 32, 33, 100])
def test_the_tree_is_that_of_the_rfc_and_every_leaf_has_a_proof(count):
    leaves = [f"leaf {number}".encode() for number in range(count)]
    hashes = [hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]
    tree = GrowingTree()
    for each in hashes:
        tree.add(each)
    root = tree.root()
    assert root == slow_root(leaves)
    head = {"splits": {"test": {"images": count, "root": root.hex()}}}
    name = hashlib.sha256(json.dumps(head, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    for index, leaf in enumerate(leaves):
        tree = GrowingTree()
        for number, each in enumerate(hashes):
            tree.add(each, proven=number == index)
        assert (tree.index, tree.root()) == (index, root)
        path = tuple(step.hex() for step in tree.inclusion_path())
        assert Proof(head, "test", leaf.decode(), index, count, path).holds(name)
        assert not Proof(head, "test", leaf.decode() + "x", index, count, path).holds(name)
        assert not Proof(head, "test", leaf.decode(), (index + 1) % count, count, path).holds(name) or count == 1
        assert not Proof(head, "test", leaf.decode(), index, count + 1, path).holds(name)
        assert not Proof(head, "train", leaf.decode(), index, count, path).holds(name)
        assert not Proof(head, "test", leaf.decode(), index, count, (*path, "00" * 32)).holds(name)


def test_every_image_has_a_proof(small):
    assert set_digest(load(small), image="another").proof is None
    for image in load(small).stated.column("image_id").to_pylist():
        found = set_digest(load(small), image=image)
        proof = found.proof
        assert json.loads(proof.leaf)["id"] == image
        assert proof.holds(found.value)
        assert Proof.of_json(json.loads(json.dumps(proof.as_json()))) == proof
        assert not proof.holds("0" * 64)


# ---- the commands ----


def test_digest_and_prove(small, tmp_path):
    done = command("digest", small)
    assert done.returncode == 0, done.stderr
    value = done.stdout.strip()
    assert value == digest(small)
    told = json.loads(command("digest", small, "--json").stdout)
    assert (told["digest"], told["head"]["format"]) == (value, "cxrprep-set/1")
    assert command("prove", value, small).returncode == 0
    assert command("prove", "0" * 64, small).returncode == 4
    assert command("prove", value, small, "--uncertain", "ones").returncode == 4
    assert command("prove", "abc", small).returncode == 2
    out = tmp_path / "proof.json"
    done = command("prove", value, small, "--image", "00000003_001", "--out", out)
    assert done.returncode == 0, done.stderr
    assert command("prove", value, "--proof", out).returncode == 0
    held = json.loads(out.read_text())
    held["leaf"] = held["leaf"].replace("00000003_001", "00000003_002")
    out.write_text(json.dumps(held))
    assert command("prove", value, "--proof", out).returncode == 4
    out.write_text("{}")
    assert command("prove", value, "--proof", out).returncode == 2
    assert command("prove", value, small, "--image", "nobody").returncode == 2


def test_exports_state_the_digest_of_what_they_hold(small, tmp_path):
    for form in ("csv", "hf", "webdataset"):
        for words, options in (((), {}), (("ones",), {"uncertain": "ones"})):
            out = tmp_path / form / "-".join(words)
            cxrprep.export(small, form=form, out=out, **options)
            assert f"`{digest(small, **options)}`" in (out / "README.md").read_text()
