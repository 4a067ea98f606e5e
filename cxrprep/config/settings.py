"""Settings: defaults < user file < ./cxrprep.toml < --config < environment variables CXRPREP_* < flags.

The schema is ``cxrprep.config.job``. An unknown key is an error that names file, line and nearest known key.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.config.job import FORMS, KEYS, SECTIONS, Job, Key
from cxrprep.config.toml import TomlText, type_problem, value_problem
from cxrprep.credentials.secret import TOKEN_PREFIX
from cxrprep.errors import ConfigError, UsageError, did_you_mean
from cxrprep.storage.paths import home_path, is_served, refuse_address, refuse_unserved
from cxrprep.storage.small_files import MAX_BYTES, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LOCAL_FILE: Final = "cxrprep.toml"

# Variables that mean something, but are no settings.
OTHER_VARIABLES: Final[Mapping[str, str]] = {
    "CXRPREP_CONFIG": "a job file, as `--config` names it",
    "CXRPREP_DEBUG": "1 prints the traceback of an error",
    "CXRPREP_KEYRING": "0 leaves the system's keyring alone",
    "CXRPREP_PHYSIONET_URL": "a server that answers as physionet.org does, to be asked instead of it",
    "CXRPREP_CATALOG": "folders of further datasets, each a TOML file, separated as in PATH",
    "CXRPREP_KAGGLE_URL": "a server that answers as api.kaggle.com does, to be asked instead of it",
    "CXRPREP_BOX_URL": "a server that answers as Box does, to be asked instead of it",
    "CXRPREP_HUGGINGFACE_URL": "a server that answers as huggingface.co does, to be asked instead of it",
    "CXRPREP_TOKEN_HOST": "the token for a web server, or a file with it; HOST is MIRROR_EXAMPLE_ORG, say",
    "CXRPREP_REQUIRE_PARTS": "for the tests: 1 makes a missing server or program a failure",
}
# What ``./cxrprep.toml`` may choose: no host, no engine, no credential, no file or folder but the root (what is read
# would come from elsewhere, what is written go there), nothing that deletes, pays, or lifts a limit.
_FOUND: Final = """
    dataset root release steps
    selection.include selection.exclude selection.split selection.view selection.label selection.where
    selection.limit selection.sample selection.seed
    labels.source labels.strict_source labels.uncertain labels.uncertain_by labels.blank labels.blank_by labels.derive
    labels.observations labels.demographics
    split.by split.within split.fractions split.folds split.stratify split.seed
    download.connections download.limit_rate download.timeout download.user_agent download.then
    convert.recipe convert.to convert.per_shard convert.scores
    engine.jobs output.format output.events output.color
"""
FOUND_FILE_KEYS: Final = frozenset(_FOUND.split())
# Of these the names: an address would say which host is asked, and gets a login; a file is somebody's.
_BY_NAME: Final = ("download.source", "download.then", "convert.recipe")
_NAME: Final = re.compile(r"[a-z0-9-]+")
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off", ""})
# $NAME, ${NAME} and ${NAME:-DEFAULT}, as a shell has them; a default may name variables of its own.
_VARIABLE: Final = re.compile(r"\$(?:(?P<bare>\w+)|\{(?P<name>\w+)(?P<default>:-(?:[^${}]|\$\w+|\$\{\w+\})*)?\})")
# Beside the keys that are paths, these may name one.
_MAY_BE_PATHS: Final = ("download.source", "download.then", "convert.recipe", "selection.patients", "selection.studies")

# Secrets and what is of this machine: no bucket holds them.
_HERE_ONLY: Final = frozenset(
    {"dataset", "download.cookie_file", "download.url_file", "labeler.checkpoint", "output.log_file"}
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of this run, and for each dotted name who set it.

    ``origins`` holds ``"default"``, ``"FILE, line N"``, a variable or an option. ``files`` were read, weakest first.
    ``notes`` are things to tell the user, such as a ``CXRPREP_`` variable that sets nothing. ``found`` is the
    ``./cxrprep.toml`` that was read without being named.
    """

    job: Job
    origins: Mapping[str, str]
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    found: Path | None = None

    def was_found(self, name: str) -> bool:
        """Whether ``./cxrprep.toml`` set it, a file that nobody named and that another may have put there."""
        return self.found is not None and self.origins[name].startswith(f"{self.found}, line ")

    def value(self, name: str) -> Any:
        """The value of a dotted name such as ``download.source``."""
        section, dot, key = name.rpartition(".")
        return getattr(getattr(self.job, section) if dot else self.job, key)


@dataclass(frozen=True, slots=True)
class _Given:
    value: Any
    origin: str


def user_file(environment: Mapping[str, str] | None = None) -> Path:
    """Where the user's own file is looked for: ``$XDG_CONFIG_HOME/cxrprep/config.toml``, or what the system uses."""
    import platformdirs

    base = (os.environ if environment is None else environment).get("XDG_CONFIG_HOME")
    folder = Path(base) / "cxrprep" if base else platformdirs.user_config_path("cxrprep", appauthor=False)
    return folder / "config.toml"


def load_settings(
    *,
    config: Path | None = None,
    flags: Mapping[str, tuple[Any, str]] | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Settings:
    """The settings of this run.

    Args:
        config: The file of ``--config``; by default that of ``CXRPREP_CONFIG``.
        flags: Maps dotted names to a value and the option that gave it.
        environment: The variables; by default those of the process.
        folder: Where ``cxrprep.toml`` is looked for; by default here.

    Returns:
        Every value, with where it comes from.

    Raises:
        ConfigError: A file is missing or wrong.
        UsageError: A wrong variable or option.
    """
    variables = os.environ if environment is None else environment
    if config is None and variables.get("CXRPREP_CONFIG"):
        config = home_path(variables["CXRPREP_CONFIG"])
    given: dict[str, _Given] = {}
    files = []
    beside = (folder or Path.cwd()) / LOCAL_FILE
    # Somebody may have named this very file, however it was spelt.
    is_named = beside.is_file() and config is not None and config.exists() and beside.samefile(config)
    found = beside if beside.is_file() and not is_named else None
    for path in (user_file(variables), found):
        if path is not None and path.is_file():
            given |= _read(path, found=path == found)
            files.append(path)
    if config is not None:
        given |= _read(config)
        files.append(config)
    from_environment, notes = _environment(variables)
    given |= from_environment
    for name, (value, option) in (flags or {}).items():
        given[name] = _Given(_right(KEYS[name], value, option), option)
    origins = {name: given[name].origin if name in given else "default" for name in KEYS}
    return Settings(_job(given), origins, tuple(files), notes, found)


def read_job(path: Path) -> tuple[Settings, TomlText]:
    """The settings that one job file gives, and the file with the mistakes that were found in it so far.

    A key with a mistake is at its default. Raises ``ConfigError`` for a file that cannot be read, or is no TOML.
    """
    file = _open(path)
    given = _checked_keys(file)
    origins = {name: given[name].origin if name in given else "default" for name in KEYS}
    return Settings(_job(given), origins), file


def expand(text: str) -> Path:
    """A path as the user meant it: ``~`` and ``$VARIABLE`` are replaced.

    Raises ``UsageError`` for a variable that is not set (a folder with a dollar in its name is nobody's wish), and for
    an address.
    """
    refuse_address(text, "a folder or file")
    # A file may have a dollar in its name.
    literal = any(variable_problems(text)) and Path(text).exists()
    path = text if literal else with_variables(text)
    # A variable may hold one: it became a folder ``./s3:``.
    refuse_address(path, "a folder or file")
    return home_path(path)


def with_bucket(text: str) -> str:
    """``text``, with its variables replaced where the address of a bucket comes out; paths are for ``expand``."""
    if "$" not in text or any(variable_problems(text)):
        return text
    found = with_variables(text)
    return found if is_served(found) else text


def refuse_misplaced(name: str, text: str, what: str) -> None:
    """Raise ``UsageError`` for an address that no store understands, or where the setting ``name`` takes none.

    ``what`` names the option. A variable without a value is told by whoever asks for it.
    """
    (refuse_address if name in _HERE_ONLY else refuse_unserved)(_VARIABLE.sub("name", with_bucket(text)), what)


def without_name(text: str) -> str:
    """The file of ``NAME=FILE``, where an imported table may have a name of ours before it."""
    return re.sub(r"^[^=/]*=", "", text)


def with_variables(text: str) -> str:
    """A path or an address with the values of its variables; a default counts where one is not set, or is empty.

    Raises ``UsageError`` for a variable that is not set and has no default, and for what is no variable.
    """
    for message, hint in variable_problems(text):
        raise UsageError(f"{text}: {message}", hint=hint)
    return _VARIABLE.sub(_value, text)


def _value(found: re.Match[str]) -> str:
    return os.environ.get(found["bare"] or found["name"]) or _VARIABLE.sub(_value, (found["default"] or "")[2:])


def variable_problems(text: str) -> Iterator[tuple[str, str]]:
    """What keeps the variables of ``text`` from having values, with a hint: not set (or empty), or not understood."""
    for name in unset_variables(text):
        yield f"the variable {name} is not set", f"export {name}=..., or write the path without it"
    yield from misspelt_variables(text)


def misspelt_variables(text: str) -> Iterator[tuple[str, str]]:
    """What ``text`` has beside variables that looks like one, with a hint: ``${}``, or a command of the shell."""
    if re.search(r"\$[({]", _VARIABLE.sub("", text)):
        yield "a variable is $NAME, ${NAME} or ${NAME:-DEFAULT}", "write it so, or the path without it"


def unset_variables(text: str) -> Iterator[str]:
    """The names in ``text`` that need a value and have none here, or an empty one."""
    for found in _VARIABLE.finditer(text):
        name, default = found["bare"] or found["name"], found["default"]
        if not os.environ.get(name):
            yield from [name] if default is None else unset_variables(default[2:])


def path_values(settings: Settings) -> list[tuple[str, str]]:
    """The dotted names that hold paths, with each value that was given to them."""
    names = [*(name for name, key in KEYS.items() if key.form == "path"), *_MAY_BE_PATHS]
    values = [(name, settings.value(name)) for name in names]
    found = [(n, text) for n, value in values for text in ([value] if isinstance(value, str) else value) if text]
    # NAME=FILE, or a file alone.
    return [*found, *(("labels.imports", without_name(words)) for words in settings.job.labels.imports)]


def _job(given: Mapping[str, _Given]) -> Job:
    values = {name: item.value for name, item in given.items()}
    sections = {
        section: kind(**{n.partition(".")[2]: v for n, v in values.items() if n.startswith(f"{section}.")})
        for section, kind in SECTIONS.items()
    }
    return Job(**{n: v for n, v in values.items() if "." not in n}, **sections)


def _read(path: Path, *, found: bool = False) -> dict[str, _Given]:
    file = _open(path)
    given = _checked_keys(file)
    if found:
        for name, item in given.items():
            if not _may_be_found(name, item.value):
                what = f"{name} = {item.value!r}" if name in FOUND_FILE_KEYS else name
                file.mistake(
                    name,
                    f"{what} cannot be set in a file that is found beside the command, only in one that you name",
                    f"name it: --config {path.name}; or write the key into your own settings, {user_file()}",
                )
    file.raise_mistakes()
    return given


def _may_be_found(name: str, value: Any) -> bool:
    """Whether a file that lies in the folder where a command is started may choose this.

    Folders with data are where people go to work, and anybody may have put the file there. A bucket is a host, and a
    dataset's own file names hosts.
    """
    words = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    if any(isinstance(word, str) and (":/" in word or is_served(with_bucket(word))) for word in words):
        return False
    if name == "dataset":
        return not value.strip().lower().endswith(".toml")
    if name in _BY_NAME:
        return isinstance(value, str) and _NAME.fullmatch(value) is not None
    return name in FOUND_FILE_KEYS


def _open(path: Path) -> TomlText:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES:,} bytes", hint="name a TOML file of settings")
        text = read_text(path)
    except FileNotFoundError:
        raise ConfigError(f"no such configuration file: {path}", hint="cxrprep config init writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read {path}: {reason}", hint="name a TOML file") from error
    return TomlText(text, str(path))


def _checked_keys(file: TomlText) -> dict[str, _Given]:
    """The keys of a file that are right; what is wrong with the others becomes mistakes of the file."""
    given: dict[str, _Given] = {}
    for name, value in _flat(file):
        key = KEYS.get(name)
        if key is None:
            file.mistake(name, f"unknown key {name!r}", _nearest_key(name))
            continue
        right, problem = _checked(key, value)
        if problem is not None:
            file.mistake(name, f"{name}: {problem[0]}", problem[1])
        else:
            given[name] = _Given(right, file.at(name))
    return given


def _flat(file: TomlText) -> Iterable[tuple[str, Any]]:
    for name, value in file.data.items():
        if name not in SECTIONS:
            yield name, value
        elif isinstance(value, dict):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        else:
            hint = f"write [{name}] on a line of its own, its keys below"
            file.mistake(name, f"{name} is a section, found {value!r}", hint)


def _nearest_key(name: str) -> str:
    section, _, key = name.rpartition(".")
    siblings = [n.rpartition(".")[2] for n in KEYS if n.rpartition(".")[0] == section]
    if not section:
        siblings += list(SECTIONS)
    # The right word in the wrong section is a usual mistake.
    names = {n.rpartition(".")[2]: n for n in reversed([*KEYS])}
    here, there = did_you_mean(key, siblings), did_you_mean(key, names, names.__getitem__)
    return f"{here or there}known here: {', '.join(siblings)}"


def _environment(variables: Mapping[str, str]) -> tuple[dict[str, _Given], tuple[str, ...]]:
    known = {key.variable: key for key in KEYS.values() if not key.kind.startswith("dict")}
    given: dict[str, _Given] = {}
    notes = []
    for variable in sorted(v for v in variables if v.startswith("CXRPREP_") and v not in OTHER_VARIABLES):
        key = known.get(variable)
        if key is None and not variable.startswith(TOKEN_PREFIX):
            notes.append(f"{variable} sets nothing. {did_you_mean(variable, known)}".strip())
        if key is None:
            continue
        given[key.name] = _Given(_right(key, _from_text(key, variables[variable], variable), variable), variable)
    return given, tuple(notes)


def _from_text(key: Key, text: str, variable: str) -> Any:
    kind = key.kind.partition(" ")[0]
    if kind.startswith("tuple"):
        return [word.strip() for word in text.split(",") if word.strip()]
    if kind == "bool":
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise UsageError(f"{variable}={text}: neither yes nor no", hint=f"write {variable}=1 or {variable}=0")
        return word in _TRUE
    if kind in ("int", "float"):
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError:
            raise UsageError(f"{variable}={text}: not a number", hint=f"{key.name}: {key.help}") from None
    return text


def _right(key: Key, value: Any, where: str) -> Any:
    value, problem = _checked(key, value)
    if problem is not None:
        raise UsageError(f"{where}: {problem[0]}", hint=problem[1])
    return value


def _checked(key: Key, value: Any) -> tuple[Any, tuple[str, str] | None]:
    """``value`` in the type of ``key``, and what is wrong with it, if anything, with a hint."""
    wrong = type_problem(value, key.kind)
    if wrong:
        return value, (wrong, key.help)
    words = [value]
    if key.kind.startswith("tuple"):
        value = (value,) if isinstance(value, str) else tuple(value)
        words = list(value)
    elif key.kind.startswith("dict"):
        value = dict(value)
        words = list(value.values())
    elif key.kind.startswith("float") and value is not None:
        value = float(value)
    problems = (_word_problem(key, word) for word in words)
    return value, next((problem for problem in problems if problem is not None), None)


# The options of Python whose values are checked as those of a job file, by the names that they have there.
_IN_PYTHON: Final = {key.name.rpartition(".")[2]: key for key in KEYS.values() if key.low is not None} | {
    "thumbnails": KEYS["report.images"],
    "count": KEYS["convert.preview"],
    "link": KEYS["download.link"],
}


def check_values(given: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` for an option of Python with a value that job files and the command line refuse."""
    for name, value in given.items():
        key = _IN_PYTHON.get(name)
        if key is None:
            continue
        try:
            problem = value_problem(value, choices=key.choices, low=key.low, high=key.high)
        except TypeError:
            problem = f"{value!r} is no number", key.help
        if problem is not None:
            raise UsageError(f"{name}: {problem[0]}", hint=problem[1])


def _word_problem(key: Key, word: Any) -> tuple[str, str] | None:
    found = value_problem(word, choices=key.choices, low=key.low, high=key.high)
    parse = FORMS.get(key.form)
    if found is None and parse is not None and word:
        try:
            parse(word)
        except ValueError as problem:
            return str(problem), key.help
    return found
