"""CheXbert (Smit et al. 2020) from a checkpoint that the user has: nothing is downloaded, its licence is Stanford's.

A text is cut to 512 tokens, as its authors do. Classes are blank, positive, negative, uncertain; No Finding has two.
BERT's encoder (Devlin et al. 2019) is written out for one sequence at a time, since the weights are all that a
checkpoint brings: the layers of bert-base-uncased, whatever their number and width, with torch or NumPy.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cxrprep.digests import file_digest
from cxrprep.errors import MissingExtraError, TableError, UsageError
from cxrprep.extras import install_command
from cxrprep.labels.labelers.contract import LabelerOptions, Labels, digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# The order of the heads in the authors' code.
_HEADS: Final[tuple[str, ...]] = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding",
)  # fmt: skip
_CLASSES: Final = (None, 1, 0, -1)
_EXTRA: Final = "chexbert"


class Chexbert:
    """The model of ``options.checkpoint``: ``chexbert.pth``, with BERT's ``vocab.txt`` beside it."""

    name = "chexbert"
    version = "1"
    at_once = 32
    observations = _HEADS

    def __init__(self, options: LabelerOptions) -> None:
        """Read the weights and the vocabulary.

        Raises:
            UsageError: no checkpoint or vocabulary is named or there.
            TableError: the checkpoint is none of CheXbert.
            MissingExtraError: torch or tokenizers is not installed.
        """
        if not options.checkpoint:
            raise UsageError("which checkpoint?", hint="name the one that you have: --checkpoint chexbert.pth")
        path = Path(options.checkpoint)
        vocabulary = path.with_name("vocab.txt")
        for file, what in (
            (path, "the checkpoint"),
            (vocabulary, "bert-base-uncased's vocab.txt, beside the checkpoint"),
        ):
            if not file.is_file():
                raise UsageError(f"there is no file {file}", hint=f"it should be {what}")
        self._tokens = _tokenizer(vocabulary)
        weights, maths = _weights(path)
        try:
            self._bert = Bert(weights, maths)
        except (KeyError, ValueError, IndexError) as error:
            raise TableError(f"{path} is not a checkpoint of CheXbert: {error} is missing") from error
        if self._bert.outputs != len(_HEADS):
            raise TableError(f"{path} has {self._bert.outputs} heads, and CheXbert has {len(_HEADS)}")
        self.options = replace(options, digest=options.digest or file_digest(path))
        self.digest = digest_of(self.version, self.options.digest, file_digest(vocabulary))

    def labels(self, texts: Sequence[str]) -> list[Labels | None]:
        """See ``ReportLabeler``."""
        return [self._labels(text) for text in texts]

    def _labels(self, text: str) -> Labels | None:
        tokens = list(self._tokens.encode(" ".join(text.split())).ids)
        if len(tokens) > self._bert.longest:
            # The authors keep the last token, the separator.
            tokens = [*tokens[: self._bert.longest - 1], tokens[-1]]
        return {name: _CLASSES[one] for name, one in zip(_HEADS, self._bert.classes(tokens), strict=True)}


@functools.cache
def _tokenizer(vocabulary: Path) -> Any:
    try:
        from tokenizers import BertWordPieceTokenizer
    except ImportError as error:
        raise _missing() from error
    return BertWordPieceTokenizer(str(vocabulary), lowercase=True)


def _weights(path: Path) -> tuple[Mapping[str, Any], Numpy | Torch]:
    """The weights by name, and what computes with them."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}, Numpy()
    try:
        import torch
    except ImportError as error:
        raise _missing() from error
    try:
        # Without it a checkpoint could run code of whoever made it.
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TableError(f"{path} is not a checkpoint that torch reads: {type(error).__name__}") from error
    state = stored.get("model_state_dict", stored)
    return {name.removeprefix("module."): value for name, value in state.items()}, Torch(torch)


def _missing() -> MissingExtraError:
    return MissingExtraError(
        "CheXbert needs torch and tokenizers, which are not installed", hint=install_command(_EXTRA)
    )


_EPSILON: Final = 1e-12
# BERT's heads are 64 wide in each published size.
_HEAD_WIDTH: Final = 64


class Numpy:
    """Arrays on the processor: for machines without torch."""

    def array(self, values: Any) -> Any:
        """``values`` as float32."""
        return np.asarray(values, dtype=np.float32)

    def softmax(self, scores: Any) -> Any:
        """Over the last axis."""
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    def gelu(self, values: Any) -> Any:
        """The exact form, by an approximation of the error function that is good to 1.5e-7 (Abramowitz and Stegun)."""
        x = np.abs(values) / math.sqrt(2.0)
        t = 1.0 / (1.0 + 0.3275911 * x)
        series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
        erf = np.sign(values) * (1.0 - series * np.exp(-x * x))
        return 0.5 * values * (1.0 + erf)

    def normed(self, values: Any, weight: Any, bias: Any) -> Any:
        """Layer normalisation over the last axis."""
        centred = values - values.mean(-1, keepdims=True)
        return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + _EPSILON) * weight + bias

    def largest(self, scores: Any) -> int:
        """The place of the largest score."""
        return int(np.argmax(scores))


class Torch:
    """Tensors of torch, on a GPU where one is."""

    def __init__(self, torch: Any) -> None:
        """With the module, which is not imported here."""
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"

    def array(self, values: Any) -> Any:
        """``values`` as float32."""
        return self._torch.as_tensor(values, dtype=self._torch.float32, device=self._device)

    def softmax(self, scores: Any) -> Any:
        """Over the last axis."""
        return self._torch.softmax(scores, -1)

    def gelu(self, values: Any) -> Any:
        """The exact form."""
        return self._torch.nn.functional.gelu(values)

    def normed(self, values: Any, weight: Any, bias: Any) -> Any:
        """Layer normalisation over the last axis."""
        return self._torch.nn.functional.layer_norm(values, values.shape[-1:], weight, bias, _EPSILON)

    def largest(self, scores: Any) -> int:
        """The place of the largest score."""
        return int(scores.argmax())


class Bert:
    """The encoder and the linear heads on its first token, of weights by their names in the checkpoint."""

    def __init__(self, weights: Mapping[str, Any], maths: Numpy | Torch) -> None:
        """Raises ``KeyError`` that names a weight that is missing."""
        self._maths = maths
        self._weights = {name: maths.array(value) for name, value in weights.items()}
        self.width = int(self._weights["bert.embeddings.word_embeddings.weight"].shape[1])
        self.longest = int(self._weights["bert.embeddings.position_embeddings.weight"].shape[0])
        self._heads = max(1, self.width // _HEAD_WIDTH)
        self._layers = 1 + max(
            int(name.split(".")[3]) for name in self._weights if name.startswith("bert.encoder.layer")
        )
        self.outputs = 1 + max(int(name.split(".")[1]) for name in self._weights if name.startswith("linear_heads."))

    def classes(self, tokens: Sequence[int]) -> list[int]:
        """For each head the class of its largest score, for one text as token numbers, [CLS] and [SEP] included."""
        first = self._encoded(tokens)[0]
        return [self._maths.largest(self._linear(f"linear_heads.{head}", first)) for head in range(self.outputs)]

    def _encoded(self, tokens: Sequence[int]) -> Any:
        embeddings = "bert.embeddings."
        hidden = (
            self._weights[embeddings + "word_embeddings.weight"][list(tokens)]
            + self._weights[embeddings + "position_embeddings.weight"][: len(tokens)]
            + self._weights[embeddings + "token_type_embeddings.weight"][0]
        )
        hidden = self._normed(embeddings + "LayerNorm", hidden)
        for layer in range(self._layers):
            hidden = self._layer(f"bert.encoder.layer.{layer}.", hidden)
        return hidden

    def _layer(self, name: str, hidden: Any) -> Any:
        attended = self._linear(name + "attention.output.dense", self._attention(name + "attention.self.", hidden))
        hidden = self._normed(name + "attention.output.LayerNorm", hidden + attended)
        inner = self._maths.gelu(self._linear(name + "intermediate.dense", hidden))
        return self._normed(name + "output.LayerNorm", hidden + self._linear(name + "output.dense", inner))

    def _attention(self, name: str, hidden: Any) -> Any:
        length = hidden.shape[0]
        query, key, value = (
            self._linear(name + kind, hidden).reshape(length, self._heads, -1).swapaxes(0, 1)
            for kind in ("query", "key", "value")
        )
        weights = self._maths.softmax(query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1]))
        return (weights @ value).swapaxes(0, 1).reshape(length, self.width)

    def _linear(self, name: str, values: Any) -> Any:
        return values @ self._weights[name + ".weight"].T + self._weights[name + ".bias"]

    def _normed(self, name: str, values: Any) -> Any:
        return self._maths.normed(values, self._weights[name + ".weight"], self._weights[name + ".bias"])
