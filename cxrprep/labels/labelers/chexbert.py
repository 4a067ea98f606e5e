"""CheXbert (Smit et al. 2020) from a checkpoint that the user has: nothing is downloaded, its licence is Stanford's.

A text is cut to 512 tokens, as its authors do. Classes are blank, positive, negative, uncertain; No Finding has two.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.digests import file_digest
from cxrprep.errors import MissingExtraError, TableError, UsageError
from cxrprep.extras import install_command
from cxrprep.labels.labelers.bert import Bert, Numpy, Torch
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
                raise UsageError(f"{file} is not there", hint=f"it should be {what}")
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
        import numpy as np

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
