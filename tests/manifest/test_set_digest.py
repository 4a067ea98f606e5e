"""One digest names a training set: equal for whatever a model cannot tell apart, another for everything that it can."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.executors import Engine
from cxrprep.manifest.load import load
from cxrprep.manifest.set_digest import Proof, inclusion_path, merkle_root, prove, set_digest
from cxrprep.model import Selection
from tests.generators.small import nih_chestxray14
from tests.integration.river import cxrprep as command
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


# ---- equal where nothing that a model sees differs ----


def test_forms_shards_engines_and_names_of_recipes(nih, small, tmp_path):
    wanted = digest(small)
    engines = (INLINE, Engine("processes", 2))
    for number, (form, per_shard, engine) in enumerate(itertools.product(FORMS, (1, 3), engines)):
        out = tmp_path / f"{number}"
        cxrprep.convert(nih, recipe="square-224", to=form, per_shard=per_shard, out=out, engine=engine)
        assert digest(out) == wanted


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
        assert digest(root) == wanted


# ---- another for everything else ----


def test_a_thousand_single_changes(small, tmp_path):
    wanted = digest(small)
    root = tmp_path / "copy"
    shutil.copytree(small, root)
    dataset = load(root)
    table, names = dataset.stated, [f"label_{stem}" for stem in dataset.observations]
    generator = random.Random(7)
    path = root / "manifests" / "images.parquet"
    seen = {wanted}
    pictures = {p: cv2.imread(str(root / p), cv2.IMREAD_UNCHANGED) for p in table.column("path").to_pylist()}
    for number in range(1000):
        kind = number % 5
        row = generator.randrange(table.num_rows)
        if kind == 0:
            name = table.column("path")[row].as_py()
            pixels = pictures[name].copy()
            place = tuple(generator.randrange(side) for side in pixels.shape)
            bit = np.uint8(1 << generator.randrange(8))
            pixels[place] ^= bit
            cv2.imwrite(str(root / name), pixels)
            found = digest(root)
            cv2.imwrite(str(root / name), pictures[name])
        else:
            rows = table.to_pylist()
            if kind == 1:
                name = generator.choice(names)
                rows[row][name] = generator.choice([v for v in (1, 0, -1, None) if v != rows[row][name]])
            elif kind == 2:
                rows[row]["split"] = generator.choice(
                    [v for v in ("train", "validate", "test", None) if v != rows[row]["split"]]
                )
            elif kind == 3:
                rows[row]["boxes"] = [{"label": "Mass", "x": 1 + number / 100, "y": 2, "w": 3, "h": 4}]
            else:
                rows[row]["image_id"] += f"-{number}"
            pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
            found = digest(root)
            pq.write_table(table, path)
        assert found != wanted
        seen.add(found)
    # Some label or split changes are drawn twice.
    assert len(seen) > 600
    assert digest(root) == wanted


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
    root = merkle_root(hashes)
    assert root == slow_root(leaves)
    head = {"splits": {"test": {"images": count, "root": root.hex()}}}
    name = hashlib.sha256(json.dumps(head, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    for index, leaf in enumerate(leaves):
        path = tuple(step.hex() for step in inclusion_path(hashes, index))
        assert Proof(head, "test", leaf.decode(), index, count, path).holds(name)
        assert not Proof(head, "test", leaf.decode() + "x", index, count, path).holds(name)
        assert not Proof(head, "test", leaf.decode(), (index + 1) % count, count, path).holds(name) or count == 1
        assert not Proof(head, "test", leaf.decode(), index, count + 1, path).holds(name)
        assert not Proof(head, "train", leaf.decode(), index, count, path).holds(name)
        assert not Proof(head, "test", leaf.decode(), index, count, (*path, "00" * 32)).holds(name)


def test_every_image_has_a_proof(small):
    found = set_digest(load(small))
    for image in load(small).stated.column("image_id").to_pylist():
        proof = prove(found, image)
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
