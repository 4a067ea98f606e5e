"""Target folder of an export: files of an earlier export are replaced or removed, others refused.

A list of the files, by form, lies beside them, with what they were made from and their digests: the record by which
``verify`` proves them. A file is listed before it is written, so a run that was killed has left nothing that the next
one would not know; its digest is listed when all are there. Until then a journal beside the list says of what each
was made, and the next run of the same keeps it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cxrprep.collection.lineage import export_journal
from cxrprep.digests import file_digest
from cxrprep.errors import UsageError, storage_errors
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.journal import Journal, read_journal
from cxrprep.storage.locks import check_writing
from cxrprep.storage.paths import CACHE_NAME, is_safe, leads_out
from cxrprep.storage.small_files import parse_json, read_text
from cxrprep.storage.table_checksums import replace_listed
from cxrprep.storage.working_copy_paths import EXPORT_LIST, holds_others

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_CARD: Final = "README.md"
MASKS: Final = "masks.csv"
"""What stands beside a CSV of images whose release draws regions on them."""
_ABOUT: Final = "about"


class Target:
    """The folder ``out``, or the file ``out`` where ``suffix`` is its own, for one export in one form.

    ``carded`` forms write a card. ``about`` says what it was made from. ``files`` are those that were written so far.
    """

    def __init__(self, out: Path, form: str, suffix: str | None, *, carded: bool, about: Mapping[str, Any]) -> None:
        """Nothing is written. Raises ``UsageError`` where the export would replace what no export has written.

        Args:
            out: the folder, or the file where the form is one.
            form: the name of the form.
            suffix: what ``out`` ends with where it names a file.
            carded: whether a dataset card belongs to it.
            about: what the list of files says of the export.

        Raises:
            UsageError: files that no export wrote would be replaced.
        """
        self.out = out
        self.files: list[Path] = []
        self._is_file = suffix is not None and out.suffix == suffix
        # A file that somebody named is nobody's to remove, whatever else is exported beside it.
        self._form = f"{form}:{out.name}" if self._is_file else form
        self._home = out.parent if self._is_file else out
        self._listed, self._about = _read(self._home / EXPORT_LIST)
        self._said = dict(about)
        self._digests: dict[str, list[Any]] = {}
        self._journal = Journal(self._home / export_journal(form))
        self._done = {str(line.get("name")): line for line, _ in read_journal(self._journal.path)}
        self._before = frozenset(self._listed.get(self._form, ()))
        self._keeps_list = not self._is_file or self._has_nothing_else()
        self._had_card = self.card.exists()
        if self._is_file:
            if out.exists() and not self._had_card:
                raise _foreign(out)
        elif carded:
            self._check(self.card)

    @property
    def card(self) -> Path:
        """The place of the card: ``README.md`` in the folder, or beside the file under its name."""
        return self.beside(_CARD)

    def beside(self, name: str) -> Path:
        """The place of a further file: in the folder, or beside the file under its name."""
        return self.out.with_name(f"{self.out.stem}.{name}") if self._is_file else self.out / name

    def may_write(self, path: Path) -> bool:
        """Whether nothing is at ``path``, or what an export wrote."""
        return not path.exists() or any(self._name(path) in names for names in self._listed.values())

    def file(self, name: str) -> Path:
        """The place of the one file of a form: the file ``out``, or ``name`` in the folder."""
        return self.out if self._is_file else self.out / name

    def write(self, path: Path, fill: Callable[[Path], object]) -> None:
        """Put a file in place whole, which ``fill`` writes under another name.

        Raises ``UsageError`` where no export wrote the file that is there, and ``StorageError``.
        """
        self.is_due(path)
        # What no list of an export names is named by that of the folder around it.
        self.done(path, put(path, fill, replace_file if self._keeps_list else replace_listed))

    def is_due(self, path: Path, of: str = "") -> bool:
        """Whether a file has to be made, which is listed from now on. Raises ``UsageError`` as ``write`` does.

        ``of`` is a digest of all that it is made of: one that an interrupted run made of the same stays as it is.
        """
        name = self._name(path)
        if not self._is_file:
            self._check(path)
        elif path not in (self.out, self.card) and path.exists() and not self._had_card:
            raise _foreign(path)
        self._expect(name)
        self.files.append(path)
        return not (of and self._is_done(path, name, of))

    def done(self, path: Path, held: list[Any], of: str = "") -> None:
        """Note that a file which was due is in place, and what ``put`` said of it."""
        self._digests[self._name(path)] = held
        if of:
            self._journal.append({"name": self._name(path), "of": of, "file": held})

    def finish(self) -> list[Path]:
        """Remove what earlier exports in this form wrote and this one did not; those files. The list has digests."""
        written = {self._name(path) for path in self.files}
        others = {name for form, names in self._listed.items() if form != self._form for name in names}
        known = (self._home / name for name in sorted(self._before - written - others))
        stale = [path for path in known if path.exists()]
        for path in stale:
            if leads_out(self._home, self._name(path)):
                raise _foreign(path)  # whatever a list that was found says of it
        check_writing(self.out)
        for path in stale:
            with storage_errors(path, "remove"):
                path.unlink()
        self._listed[self._form] = sorted(written)
        self._about[self._form] = {**self._said, "files": self._digests}
        for form, names in self._listed.items():
            # Forms in one folder share its card.
            if form != self._form and form in self._about:
                shared = {name: self._digests[name] for name in names if name in self._digests}
                self._about[form]["files"] = {**self._files(form), **shared}
        self._write_list()
        self._journal.close()
        with storage_errors(self._journal.path, "remove"):
            self._journal.path.unlink(missing_ok=True)
        return stale

    # ---- inside ----

    def _is_done(self, path: Path, name: str, of: str) -> bool:
        """Whether a run that was interrupted made this file of the same, and it is as that run left it."""
        line = self._done.get(name, {})
        if line.get("of") != of or not path.is_file():
            return False
        held = [path.stat().st_size, file_digest(path, "sha256")]
        if line.get("file") != held:
            return False
        self._digests[name] = held
        return True

    def _name(self, path: Path) -> str:
        return path.relative_to(self._home).as_posix()

    def _has_nothing_else(self) -> bool:
        """Whether the folder of a file that was named holds exports alone: a list in another would call it one."""
        if (self._home / EXPORT_LIST).is_file() or not self._home.is_dir():
            return True
        here = {path.name for path in self._home.iterdir()}
        ours = {self.out.name, self.card.name, self.beside(MASKS).name, CACHE_NAME}
        return here <= ours and not holds_others(self._home)

    def _check(self, path: Path) -> None:
        if not self.may_write(path):
            raise _foreign(path)

    def _files(self, form: str) -> dict[str, Any]:
        files = self._about[form].get("files")
        return files if isinstance(files, dict) else {}

    def _expect(self, name: str) -> None:
        """List a file before it is written; until all are there, nobody vouches for any of this form."""
        known = self._listed.get(self._form, [])
        vouched = [form for form in self._about if form == self._form or name in self._files(form)]
        if name in known and not vouched:
            return
        self._listed[self._form] = sorted({*known, name})
        self._about.pop(self._form, None)
        for form in vouched:
            if form != self._form:
                self._about[form]["files"] = {key: value for key, value in self._files(form).items() if key != name}
        self._write_list()

    def _write_list(self) -> None:
        if self._keeps_list:
            held = {**self._listed, **({_ABOUT: self._about} if self._about else {})}
            text = json.dumps(held, indent=1, sort_keys=True) + "\n"
            replace_listed(self._home / EXPORT_LIST, lambda part: part.write_text(text, encoding="utf-8"))


def put(
    path: Path, fill: Callable[[Path], object], replace: Callable[[Path, Callable[[Path], object]], None] = replace_file
) -> list[Any]:
    """Put a file in place whole; its size and digest. Raises ``StorageError``."""
    held: list[Any] = []

    def filled(part: Path) -> None:
        fill(part)
        held[:] = [part.stat().st_size, file_digest(part, "sha256")]

    replace(path, filled)
    return held


def _foreign(path: Path) -> UsageError:
    return UsageError(
        f"{path} is here already, and no export wrote it", hint="name another place with --out, or move it away"
    )


def _read(path: Path) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
    """The files by form, and what is said of each form; none where there is no list, or one that cannot be read.

    Nothing is replaced then. A folder may come from somebody else: a name that leads out of it is nobody's export.
    """
    try:
        data = parse_json(read_text(path))
    except (OSError, ValueError):
        return {}, {}
    if not isinstance(data, dict):
        return {}, {}
    listed = {
        str(form): [name for name in names if isinstance(name, str) and is_safe(name)]
        for form, names in data.items()
        if isinstance(names, list)
    }
    about = data.get(_ABOUT)
    said = about if isinstance(about, dict) else {}
    return listed, {form: dict(said[form]) for form in listed if isinstance(said.get(form), dict)}
