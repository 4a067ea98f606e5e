"""From settings to the arguments of the verbs of ``api``: the one place where the two are matched."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from cxrprep.api.keywords import split_rule_of
from cxrprep.config.job import parse_rate
from cxrprep.config.settings import expand, with_variables
from cxrprep.errors import UsageError
from cxrprep.model import FolderRef
from cxrprep.selection.options import selection_of

if TYPE_CHECKING:
    from cxrprep.api.download_context import FetchOptions
    from cxrprep.cli.context import Invocation
    from cxrprep.executors import Engine
    from cxrprep.images.radiograph import ImageLimits
    from cxrprep.labels.policy import Policy
    from cxrprep.labels.splits import SplitRule


def _given(text: str) -> str | None:
    return text or None


def folder_of(invocation: Invocation) -> FolderRef:
    """The folder that every verb takes."""
    job = invocation.job
    return FolderRef(
        # As it was written where it is an address: as a path it would lose a slash.
        with_variables(job.root) if "://" in job.root else invocation.root,
        _given(job.dataset),
        _given(job.release),
        invocation.state,
        invocation.path(job.tables),
    )


def _of_same_name(kind: type[Any], settings: Any) -> dict[str, Any]:
    """The settings that the options of a verb, a dataclass, hold under the same name."""
    return {field.name: getattr(settings, field.name) for field in fields(kind) if hasattr(settings, field.name)}


def label_arguments(invocation: Invocation) -> dict[str, Any]:
    """For ``extract_labels``."""
    from cxrprep.labels.label_rows import LabelOptions

    labels = invocation.job.labels

    def given_flag(name: str) -> bool | None:
        # A switch that nobody touched leaves the choice as it was made last.
        value: bool = getattr(labels, name)
        return value or (False if f"labels.{name}" in invocation.flags else None)

    options = LabelOptions(
        strict_source=given_flag("strict_source"),
        demographics=given_flag("demographics"),
        patients=invocation.path(labels.mimic_iv),
        report_text=given_flag("report_text"),
    )
    return {**manifest_arguments(invocation), "options": options}


def _policy_words(invocation: Invocation) -> dict[str, Any]:
    """What uncertain and blank labels become, for all observations and for single ones."""
    labels = invocation.job.labels
    per: dict[str, dict[str, str]] = {}
    for key, table in (("uncertain", labels.uncertain_by), ("blank", labels.blank_by)):
        for name, word in table.items():
            per.setdefault(name, {})[key] = word
    return {"uncertain": labels.uncertain, "blank": labels.blank, "derive": labels.derive, "per": per}


def _policy(invocation: Invocation) -> Policy | None:
    """The policy for the manifest, where one was asked for."""
    from cxrprep.labels.policy import KEEP, Policy

    policy = Policy.parse(**_policy_words(invocation))
    return None if policy == KEEP else policy


def _split_rule(invocation: Invocation) -> SplitRule | None:
    """The split of one's own, where one was asked for."""
    split = invocation.job.split
    seed = split.seed
    if "split.seed" not in invocation.flags and "selection.seed" in invocation.flags:
        # Beside --sample there are two seeds; whoever writes one --seed and draws no sample means the split's.
        seed = invocation.job.selection.seed if invocation.job.selection.sample is None else seed
    return split_rule_of(
        by=split.by,
        fractions=split.fractions,
        seed=seed,
        within=split.within,
        stratify=split.stratify,
        folds=split.folds,
    )


def manifest_arguments(invocation: Invocation) -> dict[str, Any]:
    """For ``build_manifest``."""
    return {
        "root": folder_of(invocation),
        "label_source": _given(invocation.job.labels.source),
        "policy": _policy(invocation),
        "split_by": _split_rule(invocation),
        "allow_loss": invocation.allow_loss,
    }


def export_arguments(invocation: Invocation) -> dict[str, Any]:
    """For ``export``."""
    return {
        "root": folder_of(invocation),
        "label_source": _given(invocation.job.labels.source),
        **_policy_words(invocation),
        "split_by": _split_rule(invocation),
        "observations": ",".join(invocation.job.labels.observations) or None,
        "selection": selection_of(invocation.job.selection),
    }


def engine_of(invocation: Invocation) -> Engine:
    """Where the work runs."""
    from cxrprep.executors import Engine

    engine = invocation.job.engine
    return Engine(engine.name, engine.jobs, engine.scheduler)


def fetch_options(invocation: Invocation) -> FetchOptions:
    """How the mirror is reached, and what is done with what comes."""
    from cxrprep.api.download_context import FetchOptions

    download = invocation.job.download
    if download.discard_raw and not download.then:
        raise UsageError(
            "--discard-raw without --then would keep nothing",
            hint="name the recipe of what is kept: --then shortest-512",
        )
    cookies = invocation.path(download.cookie_file)
    told: dict[str, Any] = {
        "credentials": invocation.credentials(),
        "has_link": "download.url_file" in invocation.flags,
        "limit_rate": parse_rate(download.limit_rate) if download.limit_rate else None,
        "user_agent": _given(download.user_agent),
        "cookie_file": None if cookies is None else str(cookies),
        "billing_project": _given(download.billing_project),
        "shard": invocation.shard,
        "then": _recipe(download.then),
        "is_named": not invocation.settings.was_found("download.source"),
    }
    return FetchOptions(**_of_same_name(FetchOptions, download) | told)


def _source(text: str) -> str | None:
    # A folder may be named by a variable; an address may hold a dollar of its own.
    if "$" not in text or "://" in text:
        return _given(text)
    found = with_variables(text)
    return found if "://" in found else str(expand(text))


def download_arguments(invocation: Invocation) -> dict[str, Any]:
    """For ``plan``, ``download`` and ``read_plan``."""
    job = invocation.job
    return {
        "dataset": job.dataset,
        "root": folder_of(invocation),
        "source": _source(job.download.source),
        "selection": selection_of(job.selection),
        "options": fetch_options(invocation),
    }


def verify_arguments(invocation: Invocation) -> dict[str, Any]:
    """For ``verify``."""
    from cxrprep.verification.finding import accepted_kinds
    from cxrprep.verification.options import VerifyOptions

    job = invocation.job
    checks = job.verify
    told: dict[str, Any] = {
        "accept": accepted_kinds(checks.accept),
        "images": checks.images or checks.sample is not None,
        "seed": job.selection.seed,
        "shard": invocation.shard,
        "jobs": job.engine.jobs,
    }
    return {
        "root": folder_of(invocation),
        "options": VerifyOptions(**_of_same_name(VerifyOptions, checks) | told),
        "repair": checks.repair,
        "source": _given(job.download.source) if checks.repair else None,
        "engine": engine_of(invocation),
        "fetching": fetch_options(invocation) if checks.repair else None,
    }


def report_arguments(invocation: Invocation) -> dict[str, Any]:
    """For ``label_reports``; ``auto`` means the reports that lie in ROOT."""
    job = invocation.job
    named = job.labels.reports
    return {
        **added_label_arguments(invocation),
        "reports": None if named == "auto" else invocation.path(named),
        "policy": job.labels.policy,
        "sections": job.labels.sections,
        "vocabulary": invocation.path(job.labels.vocabulary),
        "evidence": job.labels.evidence,
        "labeler": job.labeler.name,
        "endpoint": job.labeler.endpoint,
        "model": job.labeler.model,
        "checkpoint": invocation.path(job.labeler.checkpoint),
        "allow_remote_text": job.labeler.allow_remote_text,
        "shard": invocation.shard,
        "engine": engine_of(invocation),
    }


def added_label_arguments(invocation: Invocation) -> dict[str, Any]:
    """What ``label_reports`` and ``import_labels`` take of the folder whose labels they add to."""
    given = label_arguments(invocation)
    # The name of the reports' policy is another thing.
    words = _policy_words(invocation) if given.pop("policy") else {}
    return {**given, **words}


def source_arguments(invocation: Invocation) -> dict[str, Any]:
    """For the verbs that look at the images of a folder."""
    return {"root": folder_of(invocation), "selection": selection_of(invocation.job.selection)}


def preview_arguments(invocation: Invocation) -> dict[str, Any]:
    """For ``preview``. Raises ``UsageError`` when no recipe is named."""
    out = invocation.job.convert.out
    return {
        **source_arguments(invocation),
        "recipe": recipe_of(invocation),
        "out": out if "://" in out else invocation.path(out),
        "shard": invocation.shard,
        "frame": invocation.job.convert.frame or None,
        "limits": limits_of(invocation),
    }


def limits_of(invocation: Invocation) -> ImageLimits:
    """What one image may cost."""
    from cxrprep.images.radiograph import ImageLimits

    convert = invocation.job.convert
    return ImageLimits(convert.max_pixels, convert.max_bytes, convert.max_seconds)


def convert_arguments(invocation: Invocation) -> dict[str, Any]:
    """For ``convert``. Raises ``UsageError`` when no recipe is named."""
    convert = invocation.job.convert
    return {
        **preview_arguments(invocation),
        "to": convert.to,
        "per_shard": convert.per_shard,
        "scores": convert.scores,
        "fix": tuple(convert.fix.replace(",", " ").split()),
        "allow_loss": invocation.allow_loss,
        "engine": engine_of(invocation),
    }


def recipe_of(invocation: Invocation) -> str:
    """The recipe that was named, if only for what arrives. Raises ``UsageError`` when none was."""
    recipe = invocation.job.convert.recipe or invocation.job.download.then
    if not recipe:
        raise UsageError("which recipe?", hint="for example: cxrprep convert ROOT --recipe square-224")
    return _recipe(recipe)


def _recipe(name: str) -> str:
    """A recipe's name, or its file as a job names it: with variables and ``~``."""
    return str(expand(name)) if name.startswith("~") or "$" in name else name
