"""Target folder of an export: files of an earlier export are replaced or removed, others refused.

A list of the files, by form, lies beside them. It is written before each file is, so a run that was killed has left
nothing that the next one would not know.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from cxrprep.errors import UsageError, storage_error
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.paths import is_safe
from cxrprep.storage.small_files import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIST_NAME: Final = ".cxrprep-export.json"
_CARD: Final = "README.md"


class Target:
    """The folder ``out``, or the file ``out`` where ``suffix`` is its own, for one export in one form.

    ``carded`` forms write a card. ``files`` are those that were written so far.
    """

    def __init__(self, out: Path, form: str, suffix: str | None = None, *, carded: bool = True) -> None:
        """Nothing is written. Raises ``UsageError`` where the export would replace what no export has written."""
        self.out = out
        self.files: list[Path] = []
        self._form = form
        self._is_file = suffix is not None and out.suffix == suffix
        self._listed = {} if self._is_file else _read(out / LIST_NAME)
        self._before = frozenset(self._listed.get(form, ()))
        if self._is_file:
            if out.exists() and not self.card.exists():
                raise _foreign(out)
        elif carded:
            self._check(self.card)

    @property
    def card(self) -> Path:
        """The place of the card: ``README.md`` in the folder, or beside the file under its name."""
        return self.out.with_name(f"{self.out.stem}.{_CARD}") if self._is_file else self.out / _CARD

    def file(self, name: str) -> Path:
        """The place of the one file of a form: the file ``out``, or ``name`` in the folder."""
        return self.out if self._is_file else self.out / name

    def write(self, path: Path, fill: Callable[[Path], object]) -> None:
        """Put a file in place whole: ``fill`` writes it under another name. Raises ``UsageError``, ``StorageError``."""
        if not self._is_file:
            self._check(path)
            self._list({*self._listed.get(self._form, ()), self._name(path)})
        replace_file(path, fill)
        self.files.append(path)

    def finish(self) -> list[Path]:
        """Remove what earlier exports in this form wrote and this one did not; those files."""
        if self._is_file:
            return []
        written = {self._name(path) for path in self.files}
        others = {name for form, names in self._listed.items() if form != self._form for name in names}
        stale = [self.out / name for name in sorted(self._before - written - others)]
        stale = [path for path in stale if path.exists()]
        for path in stale:
            try:
                path.unlink()
            except OSError as error:
                raise storage_error(path, "remove", error) from error
        self._list(written)
        return stale

    # ---- inside ----

    def _name(self, path: Path) -> str:
        return path.relative_to(self.out).as_posix()

    def _check(self, path: Path) -> None:
        if path.exists() and not any(self._name(path) in names for names in self._listed.values()):
            raise _foreign(path)

    def _list(self, names: set[str]) -> None:
        if set(self._listed.get(self._form, ())) != names:
            self._listed[self._form] = sorted(names)
            text = json.dumps(self._listed, indent=1, sort_keys=True) + "\n"
            replace_file(self.out / LIST_NAME, lambda part: part.write_text(text, encoding="utf-8"))


def _foreign(path: Path) -> UsageError:
    return UsageError(
        f"{path} is here already, and no export wrote it", hint="name another place with --out, or move it away"
    )


def _read(path: Path) -> dict[str, list[str]]:
    """The files by form; none where there is no list, or one that cannot be read: then nothing is replaced.

    A folder may come from somebody else: a name that leads out of it is nobody's export.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {
        str(form): [name for name in names if isinstance(name, str) and is_safe(name)]
        for form, names in data.items()
        if isinstance(names, list)
    }
