"""CheXbert from a checkpoint: a tiny one, made here, whose answers can be worked out by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxrprep.errors import MissingExtraError, TableError
from cxrprep.labels.labelers.chexbert import Bert, Numpy
from cxrprep.labels.labelers.contract import LabelerOptions
from cxrprep.labels.labelers.registry import labeler_named

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "edema", "no", "pneumo", "##thorax", "possible", ".")
WIDTH = 64
needs_tokenizers = pytest.mark.skipif(
    importlib.util.find_spec("tokenizers") is None, reason="tokenizers is not here; pip install tokenizers"
)


def weights(layers: int = 1, heads: int = 14) -> dict[str, Any]:
    """Each token has a direction of its own; attention is even, so that the first token is the mean of all."""
    embedded = np.eye(len(WORDS), WIDTH, dtype=np.float32) * 40
    embedded[WORDS.index("[CLS]")] = 0
    found: dict[str, Any] = {
        "bert.embeddings.word_embeddings.weight": embedded,
        "bert.embeddings.position_embeddings.weight": np.zeros((6, WIDTH), np.float32),
        "bert.embeddings.token_type_embeddings.weight": np.zeros((2, WIDTH), np.float32),
    }
    norms = ["bert.embeddings.LayerNorm"]
    for layer in range(layers):
        name = f"bert.encoder.layer.{layer}."
        for kind, shape in (
            ("attention.self.query", (WIDTH, WIDTH)), ("attention.self.key", (WIDTH, WIDTH)),
            ("attention.self.value", (WIDTH, WIDTH)), ("attention.output.dense", (WIDTH, WIDTH)),
            ("intermediate.dense", (2 * WIDTH, WIDTH)), ("output.dense", (WIDTH, 2 * WIDTH)),
        ):  # fmt: skip
            same = kind in ("attention.self.value", "attention.output.dense")
            found[f"{name}{kind}.weight"] = np.eye(*shape, dtype=np.float32) if same else np.zeros(shape, np.float32)
            found[f"{name}{kind}.bias"] = np.zeros(shape[0], np.float32)
        norms += [name + "attention.output.LayerNorm", name + "output.LayerNorm"]
    for name in norms:
        found |= {f"{name}.weight": np.ones(WIDTH, np.float32), f"{name}.bias": np.zeros(WIDTH, np.float32)}
    for head in range(heads):
        found[f"linear_heads.{head}.weight"] = np.zeros((2 if head == 13 else 4, WIDTH), np.float32)
        found[f"linear_heads.{head}.bias"] = np.eye(2 if head == 13 else 4, dtype=np.float32)[0]
    # Edema: positive where the word is, uncertain where it is called possible, negative where it is denied.
    edema, no, possible = (WORDS.index(word) for word in ("edema", "no", "possible"))
    found["linear_heads.4.weight"][1, edema] = 3
    for place, word in ((2, no), (3, possible)):
        found["linear_heads.4.weight"][place, edema] = 3
        found["linear_heads.4.weight"][place, word] = 3
    return found


def checkpoint(folder: Path, **given: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    np.savez(folder / "chexbert.npz", **weights(**given))
    return folder / "chexbert.npz"


@needs_tokenizers
def test_a_text_has_the_classes_of_its_heads(tmp_path: Path) -> None:
    labeler = labeler_named("chexbert", LabelerOptions(checkpoint=str(checkpoint(tmp_path))))
    found = labeler.labels(["Edema.", "No edema", "POSSIBLE\n edema", "Pneumothorax ."])
    assert [one["Edema"] for one in found if one] == [1, 0, -1, None]
    assert [one["No Finding"] for one in found if one] == [None] * 4
    assert len(labeler.observations) == 14
    other = weights()
    other["linear_heads.0.bias"][0] = 2
    np.savez(tmp_path / "other.npz", **other)
    second = labeler_named("chexbert", LabelerOptions(checkpoint=str(tmp_path / "other.npz")))
    assert second.digest != labeler.digest


@needs_tokenizers
def test_a_long_text_is_cut_as_the_authors_cut_it(tmp_path: Path) -> None:
    labeler = labeler_named("chexbert", LabelerOptions(checkpoint=str(checkpoint(tmp_path))))
    # Six places: the sixth token is the separator, whatever follows.
    assert [one["Edema"] for one in labeler.labels([". . . . edema", ". . . edema"]) if one] == [None, 1]


def test_layers_compute_what_the_paper_says() -> None:
    """One layer against its formula, written out with loops."""
    random = np.random.default_rng(7)
    given = {name: random.normal(0, 0.3, value.shape).astype(np.float32) for name, value in weights().items()}
    bert = Bert(given, Numpy())
    hidden = bert._encoded([2, 5, 6, 3])
    w = {name: value.astype(np.float64) for name, value in given.items()}

    def norm(name: str, x: Any) -> Any:
        deviation = np.sqrt(x.var() + 1e-12)
        return (x - x.mean()) / deviation * w[name + ".weight"] + w[name + ".bias"]

    def linear(name: str, x: Any) -> Any:
        return w[name + ".weight"] @ x + w[name + ".bias"]

    import math

    e, p = "bert.embeddings.", "bert.encoder.layer.0."
    tokens = [2, 5, 6, 3]
    x = [
        norm(e + "LayerNorm", w[e + "word_embeddings.weight"][t] + w[e + "position_embeddings.weight"][i]
             + w[e + "token_type_embeddings.weight"][0])
        for i, t in enumerate(tokens)
    ]  # fmt: skip
    q, k, v = ([linear(f"{p}attention.self.{kind}", one) for one in x] for kind in ("query", "key", "value"))
    for i in range(4):
        scores = np.array([q[i] @ k[j] / math.sqrt(WIDTH) for j in range(4)])
        shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        mixed = sum(share * value for share, value in zip(shares, v, strict=True))
        one = norm(p + "attention.output.LayerNorm", x[i] + linear(p + "attention.output.dense", mixed))
        inner = linear(p + "intermediate.dense", one)
        inner = np.array([0.5 * y * (1 + math.erf(y / math.sqrt(2))) for y in inner])
        expected = norm(p + "output.LayerNorm", one + linear(p + "output.dense", inner))
        assert np.allclose(hidden[i], expected, atol=2e-4)


@needs_tokenizers
def test_another_model_s_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="13 heads"):
        labeler_named("chexbert", LabelerOptions(checkpoint=str(checkpoint(tmp_path, heads=13))))
    np.savez(tmp_path / "none.npz", weight=np.zeros(3))
    with pytest.raises(TableError, match="not a checkpoint of CheXbert"):
        labeler_named("chexbert", LabelerOptions(checkpoint=str(tmp_path / "none.npz")))


@needs_tokenizers
def test_a_checkpoint_of_torch_needs_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint(tmp_path).rename(tmp_path / "chexbert.pth")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match="torch") as missing:
        labeler_named("chexbert", LabelerOptions(checkpoint=str(path)))
    assert "pip install" in str(missing.value.hint)


@needs_tokenizers
def test_torch_gives_what_numpy_gives(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = checkpoint(tmp_path)
    state = {f"module.{name}": torch.from_numpy(value) for name, value in weights().items()}
    torch.save({"model_state_dict": state}, tmp_path / "chexbert.pth")
    texts = ["Edema.", "No edema", "possible edema", "."]
    first, second = (
        labeler_named("chexbert", LabelerOptions(checkpoint=str(file))).labels(texts)
        for file in (path, tmp_path / "chexbert.pth")
    )
    assert first == second
