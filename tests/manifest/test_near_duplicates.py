"""Near-duplicates: altered copies and patients in two splits are found, other images are not; nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.errors import NothingSelectedError, UsageError
from cxrprep.images.decode import decode
from cxrprep.images.similarity import CUTS, coarse_alignment, correlation, fingerprints, reduced, thumbnail
from cxrprep.labels.splits import SplitRule
from cxrprep.manifest.near_duplicates import _shortened
from tests.parts import shared_data
from tests.sample import ALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Grey = NDArray[np.uint8]


def _affine(image: Grey, matrix: object) -> Grey:
    return cv2.warpAffine(image, np.asarray(matrix, np.float32), image.shape[::-1])


def _turned(image: Grey, degrees: float) -> Grey:
    height, width = image.shape
    return _affine(image, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1))


def _cropped(image: Grey, share: float) -> Grey:
    y, x = (round(side * share) for side in image.shape)
    return np.ascontiguousarray(image[y:-y, x:-x])


def _lettered(image: Grey) -> Grey:
    made, width = image.copy(), image.shape[1]
    return cv2.putText(made, "PORTABLE 12:30 AP", (width // 20, width // 12), 0, width / 600, 255, max(2, width // 300))


CHANGES: dict[str, Callable[[Grey], Grey]] = {
    "the same pixels": lambda image: image,
    "jpeg": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], 0),
    "gamma": lambda image: (255 * (image / 255.0) ** 1.6).astype(np.uint8),
    "equalised": cv2.equalizeHist,
    "inverted": lambda image: 255 - image,
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "smaller": lambda image: cv2.resize(
        image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA
    ),
    "cropped": lambda image: _cropped(image, 0.03),
    "turned by 5 degrees": lambda image: _turned(image, 5),
    "shifted": lambda image: _affine(image, [[1, 0, 0.02 * image.shape[1]], [0, 1, 0.02 * image.shape[0]]]),
    "padded": lambda image: cv2.copyMakeBorder(image, 40, 40, 60, 60, cv2.BORDER_CONSTANT),
    "text": _lettered,
}


def _texture(seed: int) -> Grey:
    """An image like no other: blurred noise."""
    rng = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(rng.normal(size=(400, 400)), (0, 0), sigma) * sigma for sigma in (2, 6, 20)]
    return cv2.normalize(sum(layers), None, 10, 245, cv2.NORM_MINMAX).astype(np.uint8)


def _write(image: Grey, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def _converted(root: Path, out: Path) -> Path:
    cxrprep.convert(root, recipe="shortest-512-fast", out=out)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted images of 20 patients, and of each change a copy under another patient's name."""
    root = tmp_path_factory.mktemp("textures")
    for seed in range(20):
        _write(_texture(seed), root / f"p{seed}" / "one.png")
    for place, (name, change) in enumerate(CHANGES.items()):
        _write(change(_texture(place)), root / f"q{place}" / f"{name.replace(' ', '-')}.png")
    return _converted(root, root.with_name("converted"))


def _pairs(path: Path) -> dict[tuple[str, str], dict[str, object]]:
    rows = pq.read_table(path).to_pylist()
    return {(Path(row["path_a"]).parts[0], Path(row["path_b"]).parts[0]): row for row in rows}


def test_each_altered_copy_is_found_and_nothing_else(folder: Path) -> None:
    made = cxrprep.duplicates(folder)
    assert made.value.path == folder / "manifests" / "near_duplicates.parquet"
    found = _pairs(made.value.path)
    assert set(found) == {(f"p{place}", f"q{place}") for place in range(len(CHANGES))}
    assert {row["relation"] for row in found.values()} == {"same-exposure"}
    for place, name in enumerate(CHANGES):
        row = found[f"p{place}", f"q{place}"]
        assert (row["inverted"], row["mirrored"]) == (name == "inverted", name == "mirrored"), name
    assert (made.value.images, made.value.same_exposure, made.value.related) == (20 + len(CHANGES), len(CHANGES), 0)


def test_a_second_run_and_shards_give_the_same(folder: Path, tmp_path: Path) -> None:
    first = pq.read_table(cxrprep.duplicates(folder).value.path)
    assert pq.read_table(cxrprep.duplicates(folder, out=tmp_path / "again.parquet").value.path).equals(first)
    shards = tmp_path / "shards"
    cxrprep.convert(folder.with_name("textures0"), recipe="shortest-512-fast", out=shards, to="webdataset")
    ids = ["image_id_a", "image_id_b"]
    again = pq.read_table(cxrprep.duplicates(shards).value.path)
    assert again.select(ids).equals(first.select(ids))


def test_copies_in_two_splits_and_in_two_folders_are_told(folder: Path, tmp_path: Path) -> None:
    cxrprep.build_manifest(folder, split_by=SplitRule((0.5, 0.5), seed=3))
    made = cxrprep.duplicates(folder, out=tmp_path / "pairs.parquet")
    rows = pq.read_table(made.value.path).to_pylist()
    assert made.value.across_splits == sum(row["split_a"] != row["split_b"] for row in rows) > 0
    other = tmp_path / "other"
    _write(_turned(_texture(3), 2), other / "x" / "y.png")
    both = cxrprep.duplicates(_converted(other, tmp_path / "made"), against=[folder], least=0.65)
    pairs = _pairs(both.value.path)
    assert ("x", "p3") in pairs
    assert ("x", "p4") not in pairs


def test_what_cannot_be_compared_is_refused_and_a_damaged_image_is_left_out(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="out of range for a correlation"):
        cxrprep.duplicates(folder, least=0.1)
    with pytest.raises(UsageError):
        cxrprep.duplicates(folder, out="ftp://bucket/pairs.parquet")
    with pytest.raises(NothingSelectedError):
        cxrprep.duplicates(folder, limit=1)
    root = tmp_path / "own"
    for seed in range(3):
        _write(_texture(seed % 2), root / f"p{seed}" / "one.png")
    made = _converted(root, tmp_path / "made")
    (made / "p1" / "one.png").write_bytes(b"no image")
    events: list[object] = []
    result = cxrprep.duplicates(made, on_event=events.append)
    assert set(_pairs(result.value.path)) == {("p0", "p2")}
    assert any("one.png" in str(event) and "error" in str(event) for event in events)
    # It was among the images that were compared, with exit code 0.
    assert (result.exit_code, result.value.images, result.value.unread) == (3, 2, 1)
    assert ("not compared", "1, which cannot be read; verify names them") in result.rows
    for name in ("p0", "p2"):
        (made / name / "one.png").unlink()
    nothing = cxrprep.duplicates(made)
    assert (nothing.exit_code, nothing.value.images, nothing.value.unread) == (3, 0, 3)


def test_of_real_radiographs_copies_are_near_and_other_patients_are_not() -> None:
    names = sorted(shared_data().rglob("*.png"))[:: 10 if ALL else 20]
    patients = [name.name.split("_")[0] for name in names]
    greys = [cv2.imread(str(name), cv2.IMREAD_GRAYSCALE) for name in names]
    whole = [_reduced(grey) for grey in greys]
    for name, change in CHANGES.items():
        if name != "mirrored":
            near = [_alike(image, _reduced(change(grey))) for image, grey in zip(whole, greys, strict=True)]
            assert min(near) > 0.3, name
            assert np.mean(np.array(near) > 0.65) > 0.9, name
    others = [
        _alike(whole[one], whole[other])
        for one in range(len(whole))
        for other in range(one)
        if patients[one] != patients[other]
    ]
    assert max(others) < 0.3


def _reduced(image: Grey) -> Grey:
    return reduced(decode(cv2.imencode(".png", image)[1].tobytes(), "x.png"))


def _alike(one: Grey, other: Grey) -> float:
    start = coarse_alignment(thumbnail(one), thumbnail(other))
    return 0.0 if start is None else abs(correlation(one, other, start))


def test_fingerprints_are_unit_vectors_that_no_brightness_changes() -> None:
    image = thumbnail(_reduced(_texture(1)))
    darker = (image // 2 + 20).astype(np.uint8)
    for cut in CUTS:
        both = fingerprints(np.stack([image, darker]), cut)
        assert np.allclose(np.linalg.norm(both, axis=1), 1, atol=1e-3)
        assert both[0] @ both[1] > 0.95


def test_short_fingerprints_of_many_images_keep_the_cosines_that_few_directions_make() -> None:
    rng = np.random.default_rng(1)
    many = (rng.standard_normal((2, 400, 60)) @ rng.standard_normal((60, 256))).astype(np.float32)
    many /= np.linalg.norm(many, axis=-1, keepdims=True)
    whole = many.astype(np.float16)
    short = _shortened(whole)
    assert short.shape[-1] < whole.shape[-1]
    assert np.allclose(short[0, :50] @ short[1].T, many[0, :50] @ many[1].T, atol=0.01)
    assert np.array_equal(_shortened(whole[:, :100]), whole[:, :100])
