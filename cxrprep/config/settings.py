"""Settings: defaults < user file < ./cxrprep.toml < --config < CXRPREP_* < flags; who set what is remembered.

The schema is ``cxrprep.config.job``. An unknown key is an error that names file, line and nearest known key.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.config.job import FORMS, KEYS, SECTIONS, Job, Key
from cxrprep.errors import ConfigError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

LOCAL_FILE: Final = "cxrprep.toml"

# Variables that mean something, but are no settings.
OTHER_VARIABLES: Final[Mapping[str, str]] = {
    "CXRPREP_CONFIG": "a job file, as `--config` names it",
    "CXRPREP_DEBUG": "1 prints the traceback of an error",
    "CXRPREP_KEYRING": "0 leaves the system's keyring alone",
    "CXRPREP_PHYSIONET_URL": "a server that answers as physionet.org does, to be asked instead of it",
    "CXRPREP_KAGGLE_URL": "a server that answers as api.kaggle.com does, to be asked instead of it",
    "CXRPREP_BOX_URL": "a server that answers as Box does, to be asked instead of it",
    "CXRPREP_REQUIRE_PARTS": "for the tests: 1 makes a missing server or program a failure",
}
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off", ""})
_TABLE: Final = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_ASSIGNMENT: Final = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of this run, and for each dotted name who set it.

    ``origins`` holds ``"default"``, ``"FILE, line N"``, a variable or an option. ``files`` were read, weakest first.
    ``notes`` are things to tell the user, such as a ``CXRPREP_`` variable that sets nothing.
    """

    job: Job
    origins: Mapping[str, str]
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

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

    ``config`` is the file of ``--config`` (else ``CXRPREP_CONFIG``); ``flags`` maps dotted names to a value and the
    option that gave it; ``folder`` is where ``cxrprep.toml`` is looked for. Raises ``ConfigError`` for a file that is
    missing or wrong, ``UsageError`` for a wrong variable or option.
    """
    variables = os.environ if environment is None else environment
    if config is None and variables.get("CXRPREP_CONFIG"):
        config = Path(variables["CXRPREP_CONFIG"]).expanduser()
    given: dict[str, _Given] = {}
    files = []
    for path in (user_file(variables), (folder or Path.cwd()) / LOCAL_FILE):
        if path.is_file():
            given |= _read(path)
            files.append(path)
    if config is not None:
        given |= _read(config)
        files.append(config)
    from_environment, notes = _environment(variables)
    given |= from_environment
    for name, (value, option) in (flags or {}).items():
        given[name] = _Given(_checked(KEYS[name], value, option, UsageError), option)
    origins = {name: given[name].origin if name in given else "default" for name in KEYS}
    return Settings(_job(given), origins, tuple(files), notes)


def parse_job(text: str, where: str) -> Settings:
    """The settings that one TOML text gives, everything else at its default. Raises ``ConfigError``."""
    given = _parse(text, where)
    origins = {name: given[name].origin if name in given else "default" for name in KEYS}
    return Settings(_job(given), origins)


def expand(text: str) -> Path:
    """A path as the user meant it: ``~`` and ``$VARIABLE`` are replaced."""
    return Path(os.path.expandvars(text)).expanduser()


def _job(given: Mapping[str, _Given]) -> Job:
    values = {name: item.value for name, item in given.items()}
    sections = {
        section: kind(**{n.partition(".")[2]: v for n, v in values.items() if n.startswith(f"{section}.")})
        for section, kind in SECTIONS.items()
    }
    return Job(**{n: v for n, v in values.items() if "." not in n}, **sections)


def _read(path: Path) -> dict[str, _Given]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"no such configuration file: {path}", hint="cxrprep config init writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read {path}: {reason}", hint="name a TOML file") from error
    return _parse(text, str(path))


def _parse(text: str, where: str) -> dict[str, _Given]:
    import tomllib

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        place = f", line {found[1]}" if found else ""
        reason = re.sub(r"\s*\(at .*\)$", "", str(error))
        raise ConfigError(f"{where}{place}: {reason}", hint='text needs quotes: source = "box"') from error
    lines = _lines(text)
    given: dict[str, _Given] = {}
    for name, value in _flat(data, where, lines):
        key = KEYS.get(name)
        if key is None:
            raise _unknown(name, f"{where}, line {lines.get(name, 1)}")
        origin = f"{where}, line {lines.get(name, 1)}"
        given[name] = _Given(_checked(key, value, f"{origin}: {name}", ConfigError), origin)
    return given


def _flat(data: Mapping[str, Any], where: str, lines: Mapping[str, int]) -> Iterable[tuple[str, Any]]:
    for name, value in data.items():
        if name not in SECTIONS:
            if isinstance(value, dict) and name not in KEYS:
                raise _unknown(name, f"{where}, line {lines.get(name, 1)}")
            yield name, value
        elif isinstance(value, dict):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        else:
            raise ConfigError(
                f"{where}, line {lines.get(name, 1)}: {name} is a section, found {value!r}",
                hint=f"write [{name}] on a line of its own, its keys below",
            )


def _unknown(name: str, place: str) -> ConfigError:
    section, _, key = name.rpartition(".")
    siblings = [n.rpartition(".")[2] for n in KEYS if n.rpartition(".")[0] == section]
    if not section:
        siblings += list(SECTIONS)
    suggestion = did_you_mean(key, siblings)
    if not suggestion:
        # The right word in the wrong section is the usual mistake.
        homes = [n for n in KEYS if n.rpartition(".")[2] == key]
        suggestion = f"did you mean {homes[0]}? " if homes else ""
    return ConfigError(f"{place}: unknown key {name!r}", hint=f"{suggestion}known here: {', '.join(siblings)}")


def _lines(text: str) -> dict[str, int]:
    # tomllib keeps no positions. Keys within multi-line strings may be found too; that misleads by a line at worst.
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = _TABLE.match(line)
        assignment = _ASSIGNMENT.match(line)
        if header:
            section = re.sub(r"[\s\"']", "", header[1])
            found.setdefault(section, number)
            found.setdefault(".".join(section.split(".")[:2]), number)
        elif assignment:
            name = re.sub(r"\s*\.\s*", ".", assignment[1]).strip("\"'")
            full = f"{section}.{name}" if section else name
            found.setdefault(full, number)
            found.setdefault(".".join(full.split(".")[:2]), number)
            found.setdefault(full.split(".")[0], number)
    return found


def _environment(variables: Mapping[str, str]) -> tuple[dict[str, _Given], tuple[str, ...]]:
    known = {key.variable: key for key in KEYS.values() if not key.kind.startswith("dict")}
    given: dict[str, _Given] = {}
    notes = []
    for variable in sorted(v for v in variables if v.startswith("CXRPREP_") and v not in OTHER_VARIABLES):
        key = known.get(variable)
        if key is None:
            notes.append(f"{variable} sets nothing. {did_you_mean(variable, known)}".strip())
            continue
        given[key.name] = _Given(
            _checked(key, _from_text(key, variables[variable], variable), variable, UsageError), variable
        )
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


def _checked(key: Key, value: Any, where: str, error: type[UsageError]) -> Any:
    """``value`` in the type of ``key``; ``error`` with ``where`` when it is none, or not one that is allowed."""
    kind = key.kind.partition(" ")[0]
    if kind.startswith("tuple"):
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, list | tuple) or not all(isinstance(w, str) for w in words):
            raise error(f"{where}: expected a list of text, found {value!r}", hint=key.help)
        value = tuple(words)
    elif kind.startswith("dict"):
        if not isinstance(value, Mapping) or not all(isinstance(w, str) for w in value.values()):
            raise error(f"{where}: expected a table of text, found {value!r}", hint=key.help)
        value = dict(value)
    elif kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif value is not None or "None" not in key.kind:
        wanted = {"str": str, "int": int, "float": float, "bool": bool}[kind]
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise error(f"{where}: expected {_KINDS[kind]}, found {value!r}", hint=key.help)
    words = list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else [value]
    for word in words:
        _check_word(key, word, where, error)
    return value


def _check_word(key: Key, word: Any, where: str, error: type[UsageError]) -> None:
    if key.choices and word not in key.choices:
        known = ", ".join(choice for choice in key.choices if choice)
        raise error(f"{where}: unknown value {word!r}", hint=f"{did_you_mean(str(word), key.choices)}known: {known}")
    if key.low is not None and word is not None and word < key.low:
        raise error(f"{where}: {word} is too small", hint=f"the smallest is {key.low:g}")
    parse = FORMS.get(key.form)
    if parse is not None and word:
        try:
            parse(word)
        except ValueError as problem:
            raise error(f"{where}: {problem}", hint=key.help) from None


_KINDS: Final = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}


def to_plain(job: Job) -> dict[str, Any]:
    """The job as plain values, ready for JSON."""
    return dataclasses.asdict(job)
