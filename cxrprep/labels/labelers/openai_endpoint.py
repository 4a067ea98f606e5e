"""Labels of a language model behind an OpenAI-compatible endpoint: one prompt, a JSON schema, temperature 0.

Ollama, vLLM, llama.cpp, LM Studio and others serve such an endpoint on the machine itself, which is the default. Text
goes to no other machine unless a person allowed it after reading what the agreement says.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from cxrprep.credentials.secret import WITHDRAWN, Secret
from cxrprep.errors import NotInSourceError, UsageError
from cxrprep.labels.labelers.contract import LabelerOptions, Labels, digest_of
from cxrprep.sources.json_service import JsonService, is_loopback
from cxrprep.storage.small_files import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:11434/v1"
"""Where Ollama listens."""
KEY_VARIABLE: Final = "LABELER_API_KEY"
_VERSION: Final = "1"
# Requests under way at once: a server batches what comes together.
_AT_ONCE: Final = 8
_WORDS: Final[dict[str, int | None]] = {"positive": 1, "negative": 0, "uncertain": -1, "not mentioned": None}
_PROMPT: Final = (
    "You label the text of a chest X-ray report. For each observation answer positive (the text says that it is "
    "there), negative (the text denies it, or says that it has resolved), uncertain (the text leaves it open: "
    "possible, may, cannot be excluded, A or B) or not mentioned. Label what it says of now, not history, advice or "
    'questions. "No Finding" is positive only where nothing abnormal is said, devices aside; otherwise it is not '
    'mentioned. "Support Devices" are tubes, lines, pacemakers, valves and hardware. Answer with the JSON object only.'
)


class OpenaiLabeler:
    """A model at ``options.endpoint``; the one that is named, else the first that the server has."""

    name = "openai"
    at_once = _AT_ONCE

    def __init__(self, options: LabelerOptions) -> None:
        """Ask the server for its model where none is named.

        Raises ``UsageError`` when text would leave this machine unasked or there is no model, and what
        ``JsonService.get`` raises.
        """
        endpoint = options.endpoint or DEFAULT_ENDPOINT
        local = is_loopback(endpoint)
        if not local and not options.allow_remote_text:
            raise _refused(JsonService(endpoint).host, options.agreement)
        self._service = JsonService(endpoint, token=_key())
        self.observations = options.observations
        self.options = replace(options, endpoint=endpoint, model=options.model or self._first_model())
        self.version = self.options.model
        self._schema = _schema(self.observations)
        self.digest = digest_of(_VERSION, _PROMPT, json.dumps(self._schema, sort_keys=True), self.options.model)

    def labels(self, texts: Sequence[str]) -> list[Labels | None]:
        """One request a text, several at once; see ``ReportLabeler``. Raises what ``JsonService.post`` raises."""
        found = dict(self.as_answered(texts))
        return [found[place] for place in range(len(texts))]

    def as_answered(self, texts: Sequence[str]) -> Iterator[tuple[int, Labels | None]]:
        """The place and the labels of each text as its answer comes; after a failure those that are under way."""
        rest = enumerate(texts)
        failure: BaseException | None = None
        with ThreadPoolExecutor(self.at_once) as pool:
            under_way = {pool.submit(self._labels, text): place for place, text in islice(rest, self.at_once)}
            while under_way:
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    place = under_way.pop(future)
                    failure = failure or future.exception()
                    if future.exception() is None:
                        yield place, future.result()
                    if failure is None:
                        under_way |= {pool.submit(self._labels, text): place for place, text in islice(rest, 1)}
        if failure is not None:
            raise failure

    def _labels(self, text: str) -> Labels | None:
        body = {
            "model": self.options.model,
            "temperature": 0,
            "seed": 0,
            "messages": [{"role": "system", "content": _PROMPT}, {"role": "user", "content": text}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "labels", "strict": True, "schema": self._schema},
            },
        }
        for _ in range(2):
            found = self._read(self._service.post("/chat/completions", body))
            if found is not None:
                return found
        return None

    def _read(self, answer: Any) -> Labels | None:
        """The labels in an answer; ``None`` for one that is none, such as that of a server without schemas."""
        try:
            content = answer["choices"][0]["message"]["content"]
            words = parse_json(content[content.index("{") : content.rindex("}") + 1])
            return {name: _WORDS[str(words[name]).lower()] for name in self.observations}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            return None

    def _first_model(self) -> str:
        try:
            models = self._service.get("/models")["data"]
            return str(models[0]["id"])
        except (KeyError, IndexError, TypeError, NotInSourceError):
            raise UsageError(f"{self._service.host} names no model", hint="name it: --model NAME") from None


def _refused(host: str, agreement: str) -> UsageError:
    rule = (
        f"the agreement says: {agreement}" if agreement else "reports are patient data, and whoever runs it reads them"
    )
    return UsageError(
        f"report text would go to {host}, which is not this machine; {rule}",
        hint="use a model of your own, --endpoint http://127.0.0.1:PORT/v1; or, if you may share the text with "
        "whoever runs that host, say --allow-remote-text (PhysioNet's advice: "
        "https://physionet.org/news/post/llm-responsible-use)",
    )


def _key() -> Secret | None:
    """The key of the endpoint that was named; that of OpenAI itself is not taken, since it is not for other hosts."""
    value = os.environ.get(KEY_VARIABLE) or WITHDRAWN.get(KEY_VARIABLE)
    return Secret(value.strip()) if value and value.strip() else None


def _schema(observations: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "enum": [*_WORDS]} for name in observations},
        "required": [*observations],
        "additionalProperties": False,
    }
