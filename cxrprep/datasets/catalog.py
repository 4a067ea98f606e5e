"""Catalog of datasets: built in, from installed packages, and from the user's own folder.

A dataset is one TOML file. ``format = 1`` at its head says that it describes its tables too (see ``declaration``);
without it the tables are read by a module of this package.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from cxrprep.config.toml import TomlText
from cxrprep.datasets.facts import DatasetSpec, build
from cxrprep.errors import ConfigError, UsageError, did_you_mean
from cxrprep.storage.paths import home_path
from cxrprep.storage.small_files import MAX_BYTES, read_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.metadata import EntryPoint

    from cxrprep.datasets.declaration import Declaration

ENTRY_POINTS: Final = "cxrprep.datasets"
CATALOG_VARIABLE: Final = "CXRPREP_CATALOG"


def parse_spec(text: str, where: str) -> DatasetSpec:
    """The spec that a TOML text describes; ``where`` names it in errors. Raises ``ConfigError`` with the line."""
    file = TomlText(text, where)
    if "format" in file.data:
        from cxrprep.datasets.declaration_check import parse_declaration

        return parse_declaration(file).spec()
    spec = build(DatasetSpec, file.data, file)
    file.raise_mistakes()
    return spec


def user_folder() -> Path:
    """Where a person's own datasets are looked for: ``~/.config/cxrprep/datasets``, as the system has it."""
    import platformdirs

    return Path(platformdirs.user_config_dir("cxrprep")) / "datasets"


def _folders() -> list[Path]:
    """The folders of other people's datasets: named in CXRPREP_CATALOG, the user's own, those of installed packages."""
    # A command that names a built-in dataset does not come here: it would cost 30 ms.
    from importlib.metadata import entry_points

    named = [Path(word) for word in os.environ.get(CATALOG_VARIABLE, "").split(os.pathsep) if word]
    packages = [_folder_of(point) for point in entry_points(group=ENTRY_POINTS)]
    return [*(folder for folder in (*named, user_folder()) if folder.is_dir()), *packages]


def _folder_of(point: EntryPoint) -> Path:
    """The folder of a package's datasets: what its entry point names is one, or a package with the files in it."""
    whose = f"the package {point.dist.name if point.dist else point.value} names its datasets as {point.value}"
    hint = "correct or uninstall that package"
    try:
        value = point.load()
        folder = Path(next(iter(value.__path__))) if isinstance(value, ModuleType) else Path(str(value))
    except Exception as error:  # other people's code may raise anything
        raise ConfigError(f"{whose}, which cannot be loaded: {error}", hint=hint) from error
    if not folder.is_dir():
        raise ConfigError(f"{whose}, and {folder} is not a folder", hint=hint)
    return folder


@cache
def _built_in() -> dict[str, Path]:
    return {path.name: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"{path} is larger than {MAX_BYTES >> 20} MiB",
                hint="a dataset's description is smaller; name the right file",
            )
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", error)
        raise ConfigError(f"{path} cannot be read: {reason}", hint="make it a readable text in UTF-8") from error


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when a file is written: who corrects one in a notebook means the new text."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def _spec_in(path: Path) -> DatasetSpec:
    return _spec_at(path, _stamp(path))


@cache
def _spec_at(path: Path, stamp: tuple[int, int]) -> DatasetSpec:
    text, ours = _read(path), path.parent == Path(__file__).parent
    described = re.search(r"(?m)^\s*format\s*=", text)
    if not ours and not described:
        raise ConfigError(f"{path}: it does not say format = 1", hint="cxrprep datasets new drafts such a file")
    # A file that describes tables is read once for both: NIH's takes 0.1 s of CPU time.
    spec = _declaration_at(path, stamp).spec() if described else parse_spec(text, path.name)
    if spec.module != "declared" and not ours:
        raise ConfigError(
            f"{path}: module = {spec.module!r} names a Python module, which only cxrprep's own datasets may do",
            hint="describe its tables: docs/howto/own-dataset.md",
        )
    other = _built_in().get(_file_name(spec.companion))
    return spec if spec.table or other is None else replace(spec, table=_spec_in(other).table)


@cache
def _files() -> dict[str, Path]:
    """Every dataset's file by the dataset's name. Raises ``ConfigError`` for a name that two files have."""
    found: dict[str, Path] = {}
    others = [path for folder in _folders() for path in sorted(folder.glob("*.toml"))]
    for path in (*_built_in().values(), *others):
        name = _spec_in(path).name
        if name in found:
            raise ConfigError(
                f"two files describe the dataset {name}: {found[name]} and {path}", hint="rename or remove one of them"
            )
        found[name] = path
    return found


# Datasets that were named by their file in this process: ``--dataset ./ward.toml``.
_named: dict[str, Path] = {}
# The folders of ``--catalog``, as they were typed, each once and in their order.
_catalogs: dict[str, None] = {}


@cache
def catalog() -> dict[str, DatasetSpec]:
    """Every dataset that cxrprep knows, by name: the built-in ones first, each group in alphabetical order."""
    return {name: _spec_in(path) for name, path in _files().items()}


def add_folders(typed: Sequence[str]) -> None:
    """Look in the folders ``typed``, too, before those of the environment, where worker processes find them."""
    _catalogs.update(dict.fromkeys(typed))
    before = os.environ.get(CATALOG_VARIABLE, "").split(os.pathsep)
    named = [str(home_path(folder).resolve()) for folder in typed]
    os.environ[CATALOG_VARIABLE] = os.pathsep.join(dict.fromkeys([*named, *filter(None, before)]))
    for known in (_files, catalog):
        known.cache_clear()


def naming_options(name: str) -> list[str]:
    """The options that the next command needs, too, to find the dataset ``name``: its file, and each ``--catalog``."""
    file = name if name.lower().endswith(".toml") else _named.get(name)
    return [*(["--dataset", str(file)] if file else []), *catalog_options()]


def catalog_options() -> list[str]:
    """Each ``--catalog`` of this command, for the next one."""
    return [word for folder in _catalogs for word in ("--catalog", folder)]


def naming_words(name: str) -> list[str]:
    """The same for a command that takes the dataset as its first word, as ``download`` does."""
    return [str(_named.get(name, name)), *catalog_options()]


def declaration_of(name: str) -> Declaration:
    """How the tables of a dataset are described, for one whose file describes them. Raises ``UsageError``."""
    path = file_of(name)
    return _declaration_at(path, _stamp(path))


def file_of(name: str) -> Path:
    """The file that describes a dataset. Raises ``UsageError``."""
    known = find_dataset(name).name
    # Of a built-in dataset the other files need no look: reading them all takes 60 ms.
    return _named.get(name) or _built_in().get(_file_name(known)) or _files()[known]


def is_built_in(name: str) -> bool:
    """Whether a dataset's file is one of this package, and not one that somebody wrote or found."""
    return name not in _named and _file_name(name) in _built_in()


def _built_in_names() -> dict[str, str]:
    """The names and aliases of the datasets of this package, with the name of each."""
    specs = map(_spec_in, _built_in().values())
    return {word: spec.name for spec in specs for word in (spec.name, *spec.aliases)}


def _file_with_alias(word: str) -> Path | None:
    """The built-in file that says ``word`` as an alias of its dataset; only those with the word in them are parsed."""
    naming = (path for path in _built_in().values() if f'"{word}"' in _read(path))
    return next((path for path in naming if word in _spec_in(path).aliases), None)


def _file_name(name: str) -> str:
    return f"{name.replace('-', '_')}.toml"


@cache
def _declaration_at(path: Path, stamp: tuple[int, int]) -> Declaration:
    del stamp
    from cxrprep.datasets.declaration_check import parse_declaration

    return parse_declaration(TomlText(_read(path), str(path)))


def is_dataset(name: str) -> bool:
    """Whether ``find_dataset`` knows ``name``."""
    try:
        find_dataset(name)
    except UsageError:
        return False
    return True


def find_dataset(name: str) -> DatasetSpec:
    """The dataset that a user means by ``name``: its name or an alias, in any case.

    A word that ends in ``.toml`` names a dataset's file. Raises ``UsageError`` that suggests the nearest name, and
    ``ConfigError`` for a file with a mistake.
    """
    # No path has a NUL: such a word is no dataset, which the caller says with the file that it stands in.
    if name.strip().lower().endswith(".toml") and "\0" not in name:
        path = home_path(name.strip())
        spec = _spec_in(path)
        _refuse_known_name(spec, path)
        _named[spec.name] = path
        return spec
    return known_dataset(name)


def _refuse_known_name(spec: DatasetSpec, path: Path) -> None:
    """Raise ``ConfigError`` for a file that would answer, later in this process, what a built-in dataset is asked."""
    if path.resolve().parent != Path(__file__).resolve().parent:
        toml = TomlText(_read(path), str(path))
        _check_unused(toml, "name", spec.name, "")
        toml.raise_mistakes()


def check_aliases(spec: DatasetSpec, toml: TomlText) -> None:
    """Note in ``toml``, its file, each alias of ``spec`` that names another dataset of this package."""
    for alias in spec.aliases:
        _check_unused(toml, "aliases", alias, spec.name)


def _check_unused(toml: TomlText, key: str, word: str, name: str) -> None:
    if (other := _built_in_names().get(word.lower(), name)) != name:
        toml.mistake(key, f"{word!r} names {other}, which cxrprep knows", "give it another name")


def known_dataset(name: str) -> DatasetSpec:
    """The dataset of a name or an alias that stands in a file, such as a record or a plan.

    No path is followed there: a dataset's file names hosts. Raises ``UsageError`` that suggests the nearest name.
    """
    if name in _named:
        return _spec_in(_named[name])
    wanted = name.strip().lower().replace("_", "-")
    # One file is read sooner than all of them. measured: 0.46 -> 0.33 s of CPU (busy machine) for `datasets show nih`.
    own = _built_in().get(_file_name(wanted)) or _file_with_alias(wanted)
    if own is not None:
        return _spec_in(own)
    known: dict[str, DatasetSpec] = {}
    for spec in catalog().values():
        for spelling in (spec.name, *spec.aliases):
            known.setdefault(spelling.lower(), spec)
    if wanted in known:
        return known[wanted]
    suggestion = did_you_mean(wanted, known, lambda spelling: known[spelling].name)
    raise UsageError(
        f"unknown dataset {name!r}",
        hint=f"{suggestion}known datasets: {', '.join(catalog())}; name one of your own by its TOML file",
    )
