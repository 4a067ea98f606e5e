"""Keywords of the verbs: the options of the commands by their names, as Python callers write them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cxrprep.config.job import SelectionSettings, parse_rate
from cxrprep.config.job_array import parse_shard
from cxrprep.config.settings import check_values
from cxrprep.errors import UsageError, did_you_mean
from cxrprep.selection.options import selected
from cxrprep.storage.paths import local_path, refuse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cxrprep.api.download_context import FetchOptions
    from cxrprep.executors import Engine
    from cxrprep.images.radiograph import ImageLimits
    from cxrprep.labels.label_rows import LabelOptions
    from cxrprep.labels.policy import Policy
    from cxrprep.labels.splits import SplitRule
    from cxrprep.model import Selection, Shard
    from cxrprep.verification.options import VerifyOptions

T = TypeVar("T")

_SELECTION: Final = tuple(each.name for each in dataclasses.fields(SelectionSettings))
_NETWORK: Final = (
    "connections", "limit_rate", "timeout", "user_agent", "cookie_file", "billing_project", "requester_pays",
)  # fmt: skip


class Keywords:
    """What a caller wrote beside a verb's own parameters. Each method takes its part; ``finish`` refuses what is left.

    A method gets the value that the caller handed in as a whole, and gives it with the keywords put in, which win.
    Without keywords of its part it gives that value itself.
    """

    def __init__(self, given: Mapping[str, Any], **own: Any) -> None:
        """Nothing is taken yet. Raises ``UsageError`` for a wrong value here or in the verb's ``own`` parameters."""
        check_values({**own, **given})
        self._left = dict(given)
        self._known: list[str] = []

    def take(self, *names: str) -> dict[str, Any]:
        """Those of ``names`` that were given."""
        self._known += names
        return {name: self._left.pop(name) for name in names if name in self._left}

    def finish(self) -> None:
        """Raise ``UsageError`` for a keyword that nobody took, with the nearest one."""
        for name in self._left:
            known = ", ".join(self._known)
            raise UsageError(f"unknown option {name!r}", hint=f"{did_you_mean(name, self._known)}known: {known}")

    def selection(self, selection: Selection | Mapping[str, Any]) -> Selection:
        """Which images: ``split``, ``view``, ``label``, ``patients`` and the others of ``selection.options``."""
        words = self.take(*_SELECTION)
        if isinstance(selection, dict):
            whole = Keywords({**selection, **words})
            words, selection = whole.take(*_SELECTION), {}
            whole.finish()
        made = selected(selection, words)
        check_values({"limit": made.limit, "sample": made.sample})
        return made

    def split_rule(self, rule: SplitRule | str | None, *seeds: str) -> SplitRule | None:
        """How patients are divided: ``fractions``, the seed by the names ``seeds``, ``split_within`` and so on."""
        from cxrprep.labels.splits import SplitRule

        given = self.take("fractions", *seeds, "split_within", "stratify", "folds")
        if isinstance(rule, SplitRule):
            if given:
                raise UsageError(f"{', '.join(given)}: beside a SplitRule", hint="leave them out, or the rule")
            return rule
        if rule is None and not given:
            return None
        seed = next((given[name] for name in seeds if name in given), 0)
        return split_rule_of(
            by=rule or "",
            fractions=_joined(given.get("fractions", "")),
            seed=int(seed),
            within=None if given.get("split_within") is None else str(given["split_within"]),
            stratify=_joined(given.get("stratify") or ""),
            folds=int(given.get("folds") or 0),
        )

    def policy(self, policy: Policy | str | None) -> Policy | None:
        """What labels become: ``uncertain``, ``blank``, ``derive`` and ``per``."""
        from cxrprep.labels.policy import Policy

        given = self.take("uncertain", "blank", "derive", "per")
        if isinstance(policy, str):
            hint = "name its parts: uncertain='ones', blank='zeros'"
            raise UsageError(f"policy: {policy!r} is text, not a Policy", hint=hint)
        return Policy.parse(**given) if given else policy

    def policy_and_split(
        self, policy: Policy | None, split_by: SplitRule | str | None
    ) -> tuple[Policy | None, SplitRule | None]:
        """What a manifest's labels become, and how its patients are divided; no other keyword may be left."""
        chosen = self.policy(policy), self.split_rule(split_by, "split_seed", "seed")
        self.finish()
        return chosen

    def label_options(self, options: LabelOptions | None) -> LabelOptions | None:
        """What the label tables are asked for: ``strict_source``, ``demographics``, ``mimic_iv``, ``report_text``."""
        from cxrprep.labels.label_rows import LabelOptions

        given = self.take("strict_source", "demographics", "mimic_iv", "report_text")
        if "mimic_iv" in given:
            given["patients"] = local_path(given.pop("mimic_iv"), "mimic_iv")
        return _with(options, LabelOptions, given)

    def fetching(self, options: FetchOptions | None, *more: str) -> FetchOptions | None:
        """How a mirror is reached, and what is done with what comes (``more``)."""
        from cxrprep.api.download_context import FetchOptions
        from cxrprep.credentials.files import link_file
        from cxrprep.credentials.lookup import Credentials

        given = self.take(*_NETWORK, "url_file", *more)
        for name in ("url_file", "cookie_file", "then"):
            refuse_address(str(given.get(name) or ""), name)
        if "url_file" in given:
            given["credentials"] = Credentials(link=link_file(Path(given.pop("url_file"))))
            given["has_link"] = True
        _change(given, "limit_rate", lambda rate: parse_rate(rate) if isinstance(rate, str) else rate)
        _change(given, "cookie_file", str)
        _change(given, "shard", shard_of)
        made = _with(options, FetchOptions, given)
        if made is not None and made.discard_raw and not made.then:
            raise UsageError(
                "discard_raw without then would keep nothing",
                hint="name the recipe of what is kept: then='shortest-512'",
            )
        return made

    def verifying(self, options: VerifyOptions | None) -> VerifyOptions | None:
        """How far verify looks."""
        from cxrprep.verification.finding import accepted_kinds, refuse_idle_accept
        from cxrprep.verification.options import VerifyOptions

        names = ("images", "sample", "seed", "quick", "duplicates", "complete", "strict", "accept", "shard")
        given = self.take(*names)
        _change(given, "accept", lambda kinds: accepted_kinds(_texts(kinds)))
        _change(given, "shard", shard_of)
        if given.get("accept"):
            refuse_idle_accept(strict=given.get("strict", options is not None and options.strict))
        return _with(options, VerifyOptions, given)

    def engine(self, engine: Engine | str | None) -> Engine | None:
        """Where the work runs: an engine's name, ``jobs`` and ``scheduler``."""
        from cxrprep.executors import Engine

        given = self.take("jobs", "scheduler")
        if isinstance(engine, str):
            given["name"], engine = engine, None
        return _with(engine, Engine, given)

    def limits(self, limits: ImageLimits | None) -> ImageLimits | None:
        """What one image may cost: ``max_pixels``, ``max_bytes`` and ``max_seconds``."""
        from cxrprep.images.radiograph import ImageLimits

        given = self.take("max_pixels", "max_bytes", "max_seconds")
        names = {"max_pixels": "pixels", "max_bytes": "size", "max_seconds": "seconds"}
        made = _with(limits, ImageLimits, {names[name]: value for name, value in given.items()})
        if made is not None:
            check_values({name: getattr(made, field) for name, field in names.items()})
        return made


def split_rule_of(
    *, by: str, fractions: str, seed: int, within: str | None, stratify: str, folds: int
) -> SplitRule | None:
    """The split of one's own that options ask for; ``None`` where none of them does.

    Args:
        by: ``patient``, or nothing where the others say enough.
        fractions: of train, validate and test, with commas; by default eight, one and one tenth.
        seed: decides where a patient goes.
        within: divide this released split only.
        stratify: observations, with commas.
        folds: how many folds; alone, they leave the split as it is.

    Returns:
        the rule.

    Raises:
        UsageError: a word that names nothing.
    """
    from cxrprep.labels.splits import SplitRule

    divides = bool(by or fractions)
    if not (divides or folds or stratify or within):
        return None
    return SplitRule.parse(
        by=by or "patient",
        fractions=fractions or ("" if folds and not divides else "0.8,0.1,0.1"),
        seed=seed,
        within=within or None,
        stratify=stratify or None,
        folds=folds,
    )


def shard_of(shard: Shard | str | None) -> Shard | None:
    """The part of a job array that ``3/16`` or ``auto/16`` names. Raises ``UsageError``."""
    if not isinstance(shard, str):
        return shard
    try:
        return parse_shard(shard)
    except ValueError as error:
        raise UsageError(f"shard: {error}", hint="write it as 3/16, the third of sixteen parts") from error


def _with(value: T | None, kind: type[T], given: Mapping[str, Any]) -> T | None:
    """``value``, or a new one, with the fields in ``given``."""
    if given:
        value = kind(**given) if value is None else dataclasses.replace(value, **given)  # type: ignore[type-var]
    if value is not None:
        check_values({each.name: getattr(value, each.name) for each in dataclasses.fields(value)})  # type: ignore[arg-type]
    return value


def _change(given: dict[str, Any], name: str, change: Callable[[Any], Any]) -> None:
    if given.get(name) is None:
        return
    try:
        given[name] = change(given[name])
    except ValueError as error:
        raise UsageError(f"{name}: {error}", hint="see: cxrprep download --help") from error


def _texts(value: str | Iterable[Any]) -> list[str]:
    return value.split(",") if isinstance(value, str) else [str(each) for each in value]


def _joined(value: str | Iterable[Any]) -> str:
    return ",".join(_texts(value)) if value else ""
