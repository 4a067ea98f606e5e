"""What a labeler of report text is, and the options that it is made with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from cxrprep.labels.nlp.ruleset import OBSERVATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RULES: Final = "rules"
"""The shipped rules, which are no plug-in: they read characters in place, give mentions, and need no cache."""
Labels = dict[str, int | None]


@dataclass(frozen=True, slots=True)
class LabelerOptions:
    """What a person chose, handed to every labeler; each takes what concerns it. No secret is among it.

    ``sources`` and ``policy`` are the rule set for a labeler that begins with the rules. ``agreement`` is what the
    release's agreement says of sharing. ``digest`` is that of the checkpoint, once it was computed.
    """

    endpoint: str = ""
    model: str = ""
    checkpoint: str = ""
    allow_remote_text: bool = False
    agreement: str = ""
    observations: tuple[str, ...] = OBSERVATIONS
    sources: tuple[tuple[str, str], ...] = ()
    policy: str = "default"
    digest: str = ""


class ReportLabeler(Protocol):
    """Gives texts their labels.

    ``name`` and ``version`` say who labels, ``digest`` is that of all else that an answer depends on (the prompt, the
    checkpoint): answers are kept under the three. ``observations`` are the names that it gives a label. ``at_once`` is
    the number of texts that it takes in one go; they are kept after each. ``options`` are those that it was made with,
    and what was found out since (the model that a server has), so that a worker process need not ask again.
    """

    name: str
    version: str
    digest: str
    observations: tuple[str, ...]
    at_once: int
    options: LabelerOptions

    def labels(self, texts: Sequence[str]) -> Sequence[Mapping[str, int | None] | None]:
        """1, 0, -1 or ``None`` by observation for each text, in their order; ``None`` for a text without an answer."""
        ...


def labels_as_given(labeler: ReportLabeler, texts: Sequence[str]) -> Iterator[tuple[int, Labels | None]]:
    """The place and the labels of each text, as soon as they are there; raises what the labeler raises.

    A labeler that asks for one text at a time may have a method ``as_answered`` that gives them one by one, in any
    order; of others ``at_once`` come together.
    """
    one_by_one = getattr(labeler, "as_answered", None)
    if one_by_one is not None:
        yield from one_by_one(texts)
        return
    for begin in range(0, len(texts), labeler.at_once):
        held = texts[begin : begin + labeler.at_once]
        for place, one in zip(range(begin, begin + len(held)), labeler.labels(held), strict=True):
            yield place, None if one is None else dict(one)


def digest_of(*parts: str) -> str:
    """``sha256:...`` over texts."""
    return "sha256:" + hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
