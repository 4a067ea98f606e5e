"""Checking a job file without asking any server: syntax, keys, values, and the names in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxrprep.errors import CxrprepError, UsageError, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.config.job import Job


def check_job(file: Path) -> dict[str, Any]:
    """What is wrong with a job file: ``error`` and ``hint`` (empty when nothing is), and a ``summary`` of the job."""
    from cxrprep.config.settings import load_settings

    try:
        # Only the file: what the user's own environment adds is not the file's fault.
        job = load_settings(config=file, environment={"XDG_CONFIG_HOME": str(file) + "/none"}, folder=file / "none").job
        check_names(job, str(file))
    except CxrprepError as error:
        return {"error": error.message, "hint": error.hint, "summary": ""}
    return {"error": "", "hint": "", "summary": summary(job)}


def check_names(job: Job, where: str) -> None:
    """Raise ``UsageError`` when the job names a dataset, release, mirror, recipe or policy that does not exist."""
    from cxrprep.labels.nlp.aggregate import policy_named

    try:
        if job.dataset:
            _check_dataset(job)
        if job.convert.recipe:
            check_recipe(job.convert.recipe)
        if job.download.then:
            check_recipe(job.download.then)
        policy_named(job.labels.policy)
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", hint=error.hint) from error
    if job.download.discard_raw and not job.download.then:
        raise UsageError(f"{where}: discard_raw without then", hint='name the recipe: then = "shortest-512"')
    if job.download.discard_raw and job.convert.recipe not in ("", job.download.then):
        raise UsageError(
            f"{where}: discard_raw drops what convert needs: {job.download.then} is kept, {job.convert.recipe} is to "
            "be made",
            hint="name one recipe for both, or leave discard_raw out",
        )
    if job.engine.name == "dask" and not job.engine.scheduler:
        raise UsageError(f"{where}: the dask engine needs a scheduler", hint='scheduler = "tcp://host:8786"')


def _check_dataset(job: Job) -> None:
    from cxrprep.datasets.catalog import find_dataset

    spec = find_dataset(job.dataset)
    if job.release and job.release not in spec.releases:
        raise UsageError(
            f"{spec.name} has no release {job.release!r}", hint=f"its releases: {', '.join(spec.releases)}"
        )
    source = job.download.source
    names = [mirror.name for mirror in spec.mirror]
    # A folder or an address is taken on trust: the host that runs the job may have it.
    if source and source not in names and not any(mark in source for mark in ("/", "\\", ":", "$", "~", ".")):
        hint = f"{did_you_mean(source, names)}mirrors: {', '.join(names)}; or an address or a folder"
        raise UsageError(f"{source!r} is no mirror of {spec.name}", hint=hint)


def check_recipe(name: str) -> None:
    """Raise ``UsageError`` when ``name`` is neither a recipe that ships nor a file."""
    from cxrprep.cli.options import recipe_names
    from cxrprep.config.settings import expand

    known = recipe_names()
    if name not in known and not expand(name).is_file():
        hint = f"{did_you_mean(name, known)}named recipes: {', '.join(known)}; or the path of a TOML file"
        raise UsageError(f"there is no recipe {name!r}", hint=hint)


def summary(job: Job) -> str:
    """The job in one line."""
    words = [job.dataset or "any dataset", f"into {job.root}" if job.root else ""]
    if job.download.source:
        words.append(f"from {job.download.source}")
    return f"{' '.join(word for word in words if word)}: {', '.join(steps_of(job))}"


def steps_of(job: Job) -> list[str]:
    """The steps that the job does: without a recipe nothing is converted."""
    # What was converted as it arrived gets its labels in the step convert: there were none yet.
    return [step for step in job.steps if step != "convert" or job.convert.recipe or job.download.then]
