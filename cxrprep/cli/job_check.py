"""Check of a job file without a server: syntax, keys, values, and the names in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.config.job import FORMATS, Job, named_recipes, parse_label
from cxrprep.config.settings import (
    Settings,
    expand,
    misspelt_variables,
    path_values,
    read_job,
    refuse_misplaced,
    unset_variables,
    variable_problems,
    with_variables,
)
from cxrprep.config.toml import Mistake, MistakesError, TomlText
from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import CxrprepError, UsageError, did_you_mean
from cxrprep.storage.paths import home_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    # A dotted name, what is wrong with it, and what to do about it.
    Problem = tuple[str, str, str]

# step -> the steps whose result it needs: where both are in a job, they come before it.
_NEEDS: Final = {
    "verify": ("download",),
    "extract-labels": ("download",),
    "convert": ("download", "extract-labels"),
    "manifest": ("download",),
    "check-phi": ("download",),
    "preview": ("download",),
    "report": ("download", "extract-labels", "manifest"),
    "export": ("download", "extract-labels", "convert", "manifest"),
}
# Files of settings for every command, which need not be a whole job.
NO_JOBS: Final = ("cxrprep.toml", "config.toml")


def check_job(file: Path) -> dict[str, Any]:
    """What is wrong with a job file, asking no server and looking at no variable but those that it names.

    Returns ``error`` and ``hint`` (empty when nothing is wrong), ``mistakes`` (each with its line), ``warnings`` (what
    this machine lacks, and another may have) and a ``summary`` of the job.
    """
    found: dict[str, Any] = {"error": "", "hint": "", "summary": "", "mistakes": [], "warnings": []}
    try:
        settings, text = read_job(file)
        found["warnings"] = [
            f"{settings.origins[name]}: the variable {variable} is not set here; `cxrprep run` needs it"
            for name, value in path_values(settings)
            for variable in (() if Path(value).exists() else unset_variables(value))
        ]
        if file.name not in NO_JOBS:
            found["warnings"] += [
                f"{settings.origins[name]}: {message}; `cxrprep run` needs it"
                for name, message, _ in _missing_problems(settings)
            ]
        problems = name_problems(settings, whole=file.name not in NO_JOBS)
        misspelt = [(n, *told) for n, value in path_values(settings) for told in misspelt_variables(value)]
        _raise_all(text, [*problems, *_address_problems(settings), *misspelt])
    except MistakesError as error:
        mistakes = [{"line": m.line, "message": m.message, "hint": m.hint.strip()} for m in error.mistakes]
        return {**found, "error": error.message, "hint": error.hint, "mistakes": mistakes}
    except CxrprepError as error:
        return {**found, "error": error.message, "hint": error.hint}
    return {**found, "summary": summary(settings.job)}


def raise_every_mistake(file: Path) -> None:
    """Raise ``MistakesError`` with all that keeps a job file from being run, in keys, values, names and variables."""
    settings, text = read_job(file)
    _raise_all(text, [*name_problems(settings, whole=True), *_path_problems(settings)])


# Whose files a step reads; those of other sections are for whichever comes first.
_READERS: Final = {
    "download": "download", "labels": "extract-labels", "labeler": "extract-labels", "report": "report",
    "export": "export",
}  # fmt: skip
# Paths that a job writes; all others have to be there.
_WRITTEN: Final = ("root", "state", "convert.out", "report.out", "export.root", "export.out", "output.log_file")
# Ids, label sources and recipes, or files of them.
_NAMES_TOO: Final = ("selection.patients", "selection.studies", "labels.compare")


def _missing_problems(settings: Settings) -> Iterator[Problem]:
    """Files and folders that a step reads and nobody has: a job of days would come to them at its end.

    What lies in a folder of the job may come with the download, or be made before it is read.
    """
    job = settings.job
    folders = [job.root or job.dataset, *map(settings.value, _WRITTEN)]
    own = [expand(text).absolute() for text in folders if text and _is_path(text)]
    for name, value in path_values(settings):
        # Recipes are looked up by their names.
        if name in _WRITTEN or name in ("convert.recipe", "download.then") or value in ("-", "auto"):
            continue
        if name in _NAMES_TOO and Path(value).suffix not in (".txt", ".csv", ".parquet"):
            continue
        if (name == "download.source" and "/" not in value) or not _is_path(value):
            continue
        if _READERS.get(name.partition(".")[0]) not in (None, *job.steps):
            continue
        path = expand(value)
        if not path.exists() and not any(path.absolute().is_relative_to(place) for place in own):
            yield name, f"{name}: there is no {path}", "check the path"


def _is_path(text: str) -> bool:
    """Whether ``text`` names a place of this machine: other problems of it are said elsewhere."""
    try:
        expand(text)
    except UsageError:
        return False
    return ":/" not in text


def _raise_all(text: TomlText, problems: Iterable[Problem]) -> None:
    # A value that is wrong counts as none: what else follows from that is no mistake of its own.
    wrong = {mistake.line for mistake in text.mistakes} - {0}
    for name, message, hint in problems:
        if text.line(name) not in wrong:
            text.mistake(name, message, hint)
    text.raise_mistakes()


def _path_problems(settings: Settings) -> Iterator[Problem]:
    yield from _variable_problems(settings)
    yield from _address_problems(settings)
    yield from _missing_problems(settings)


def _address_problems(settings: Settings) -> Iterator[Problem]:
    """Addresses that no store understands, where a folder or file has to stand, and homes of nobody here."""
    for name, value in path_values(settings):
        try:
            home_path(value)
            # A mirror may be any address; whoever opens it knows which.
            if name != "download.source":
                refuse_misplaced(name, value if any(variable_problems(value)) else with_variables(value), name)
        except UsageError as error:
            yield name, error.message, error.hint


def _variable_problems(settings: Settings) -> Iterator[Problem]:
    """Paths with a variable that is not set: a folder with a dollar in its name is nobody's wish."""
    for name, value in path_values(settings):
        for message, hint in () if Path(value).exists() else variable_problems(value):
            yield name, message, hint


def check_names(settings: Settings, file: Path) -> None:
    """Raise when the job cannot be run as it stands, before anything is done: ``MistakesError`` with all reasons.

    Names that nothing has, steps in an order that cannot work, paths with variables that are not set.
    """
    mistakes = []
    for name, message, hint in (*name_problems(settings, whole=True), *_path_problems(settings)):
        origin = settings.origins.get(name, "")
        here, _, line = origin.rpartition(", line ")
        if here == str(file):
            mistakes.append(Mistake(int(line), message, hint))
        else:
            about = f"{origin}: " if origin not in ("", "default") else ""
            mistakes.append(Mistake(0, about + message, hint))
    if mistakes:
        raise MistakesError(str(file), mistakes)


def name_problems(settings: Settings, *, whole: bool) -> Iterator[Problem]:
    """Names in a job that nothing has, and parts that do not go together. ``whole``: it is to be run as it is."""
    from cxrprep.labels.nlp.policies import policy_named

    job = settings.job
    if job.dataset:
        yield from _dataset_problems(job, whole=whole)
    elif whole and "download" in job.steps:
        yield "dataset", "no dataset is named", 'for example: dataset = "chexpert"; cxrprep datasets lists them'
    for name, recipe in (("convert.recipe", job.convert.recipe), ("download.then", job.download.then)):
        if recipe and "$" not in recipe:
            yield from _raised(name, check_recipe, recipe)
    yield from _raised("labels.policy", policy_named, job.labels.policy)
    yield from _label_problems(job)
    if job.verify.accept:
        # With the kinds come all rooms of verification, and pyarrow with them: only a job that names some waits for it.
        from cxrprep.verification.finding import accepted_kinds

        yield from _raised("verify.accept", accepted_kinds, job.verify.accept)
    yield from _step_problems(settings)
    if job.download.discard_raw and not job.download.then:
        yield "download.discard_raw", "discard_raw without then", 'name the recipe: then = "shortest-512"'
    elif job.download.discard_raw and job.convert.recipe not in ("", job.download.then):
        yield (
            "download.discard_raw",
            f"discard_raw drops what convert needs: {job.download.then} is kept, {job.convert.recipe} is to be made",
            "name one recipe for both, or leave discard_raw out",
        )
    if job.engine.name == "dask" and not job.engine.scheduler:
        yield "engine.name", "the dask engine needs a scheduler", 'scheduler = "tcp://host:8786"'


def _label_problems(job: Job) -> Iterator[Problem]:
    """Observations, label sources, sections and labelers that there are not: known before hours of download."""
    from cxrprep.labels.nlp.policies import section_order
    from cxrprep.labels.nlp.sections import check_sections
    from cxrprep.vocabulary import observations_of, stem_of

    labels = job.labels
    for text in job.selection.label:
        yield from _raised("selection.label", stem_of, parse_label(text).observation)
    yield from _raised("labels.observations", observations_of, ",".join(labels.observations))
    for key, table in (("labels.uncertain_by", labels.uncertain_by), ("labels.blank_by", labels.blank_by)):
        for name in table:
            yield from _raised(key, stem_of, name)
    if labels.sections:
        # A vocabulary may have sections of its own.
        yield from _raised("labels.sections", section_order if labels.vocabulary else check_sections, labels.sections)
    yield from _labeler_problems(job)
    if job.split.stratify not in ("", "all"):
        yield from _raised("split.stratify", observations_of, tuple(job.split.stratify.split(",")))
    if job.split.folds == 1:
        yield "split.folds", "1 fold divides nothing", "use 2 or more, or leave it out"
    if job.export.text:
        # With pyarrow, for which only a job that exports text waits.
        from cxrprep.manifest.report_texts import sections_of

        yield from _raised("export.text", sections_of, job.export.text)


def _labeler_problems(job: Job) -> Iterator[Problem]:
    """A labeler that is not here, and a label source that neither release nor job has."""
    from cxrprep.datasets.catalog import catalog
    from cxrprep.labels.labelers.registry import labeler_names

    source, _, name = job.labeler.name.rpartition("=")
    known = labeler_names()
    if name not in known:
        yield "labeler.name", f"no labeler is called {name!r}", f"{did_you_mean(name, known)}known: {', '.join(known)}"
    spec = catalog().get(job.dataset)
    # What was added to the folder before is not known here: only a job that brings all of its labels is judged.
    if spec is None or not job.labels.source or "download" not in job.steps or job.labels.imports:
        return
    names = {table.label_source for table in spec.table if table.label_source} | {source or name, "cxrprep"}
    if job.labels.source not in names:
        hint = f"{did_you_mean(job.labels.source, sorted(names))}known: {', '.join(sorted(names))}"
        yield "labels.source", f"{spec.name} has no label source {job.labels.source!r}", hint


def _raised(name: str, check: Any, value: Any) -> Iterator[Problem]:
    try:
        check(value)
    except UsageError as error:
        yield name, error.message, error.hint


def _dataset_problems(job: Job, *, whole: bool) -> Iterator[Problem]:
    try:
        spec = find_dataset(job.dataset)
    except UsageError as error:
        yield "dataset", error.message, error.hint
        return
    if job.release and job.release not in spec.releases:
        hint = f"{did_you_mean(job.release, spec.releases)}its releases: {', '.join(spec.releases)}"
        yield "release", f"{spec.name} has no release {job.release!r}", hint
    source = job.download.source
    if whole and not source and not spec.default_mirror and "download" in job.steps and not job.download.from_plan:
        yield "dataset", f"no mirror of {spec.name} can be listed", 'name the folder of its files: source = "DIR"'
    names = [mirror.name for mirror in spec.mirror]
    # A folder or an address is taken on trust: the host that runs the job may have it.
    named = any(mark in source for mark in ("/", "\\", ":", "$", "~", ".")) or Path(source).is_dir()
    if source and source not in names and not named:
        hint = f"{did_you_mean(source, names)}mirrors: {', '.join(names)}; or an address, or a folder: ./{source}"
        yield "download.source", f"{source!r} is not a mirror of {spec.name}", hint


def _step_problems(settings: Settings) -> Iterator[Problem]:
    job, steps = settings.job, settings.job.steps
    for index, step in enumerate(steps):
        late = [other for other in _NEEDS.get(step, ()) if other in steps[index + 1 :]]
        if late:
            yield "steps", f"{step} comes before {late[0]}, whose result it needs", f"write {late[0]} before {step}"
        if step in steps[:index]:
            yield "steps", f"{step} is listed twice in steps", "name each step once"
    if settings.origins["steps"] != "default" and "convert" in steps and not (job.convert.recipe or job.download.then):
        yield "steps", "convert has no recipe", '[convert] with recipe = "square-224", or leave the step out'
    if "export" in steps and not job.export.format:
        yield "steps", "export has no form", f"[export] with format = one of {', '.join(FORMATS)}"
    if len(job.labels.compare) == 1:
        yield "labels.compare", "one table has nothing to be compared with", 'compare = ["ours.csv", "theirs.csv"]'
    if not steps:
        yield "steps", "there is no step to do", "leave steps out to do all of them"


def check_recipe(name: str) -> None:
    """Raise ``UsageError`` when ``name`` is neither a recipe that ships nor a file."""
    known = named_recipes()
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
