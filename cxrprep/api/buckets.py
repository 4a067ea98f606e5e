"""Buckets for the verbs: each address of a folder or file becomes a working copy here, and is put back afterwards."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from cxrprep.api.result import Result, plain
from cxrprep.collection.recognition import recognise
from cxrprep.credentials.secret import return_store_secrets
from cxrprep.errors import CxrprepError
from cxrprep.events import Event, Note
from cxrprep.model import FolderRef, Shard
from cxrprep.storage.paths import is_served, refuse_address, refuse_unserved, whole_addresses
from cxrprep.storage.working_copy_paths import EXPORT_LIST

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.storage.working_copy import WorkingCopy

P = ParamSpec("P")
R = TypeVar("R")

# As many names tell a dataset, those near the top first.
_SAMPLE: Final = 2000


class BucketFolders(contextlib.AbstractContextManager["BucketFolders"]):
    """The working copies of one call; leaving the ``with`` puts back what the call changed."""

    def __init__(self) -> None:
        """None yet."""
        self._copies: list[WorkingCopy] = []
        self._stack = contextlib.ExitStack()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Put back what was changed, after an error of ours too: a folder here would have kept it."""
        with self._stack:
            if kind is None or issubclass(kind, CxrprepError):
                self.put_back()

    def put_back(self) -> None:
        """Put into the buckets what was changed. Raises what ``WorkingCopy.put_back`` raises."""
        for copy in self._copies:
            copy.put_back()

    def local(
        self, address: str, *, writes: bool, kind: str = "", streams: bool = False, part: Shard | None = None
    ) -> Path:
        """The path here of a folder or file in a store.

        Args:
            address: as it was given.
            writes: whether the call writes there.
            kind: "folder" or "file" whatever its name is; otherwise a name with a suffix is a file.
            streams: put whole new files there while the call goes on, as downloads do.
            part: the part of a job array that a download is of; others may work there at the same time.

        Returns:
            A path in a working copy, which is up to date.

        Raises:
            BusyError: another run works there.
            MissingExtraError: the store's package is not installed.
        """
        from cxrprep.storage.working_copy import WorkingCopy

        address = whole_addresses(address).rstrip("/")
        for copy in self._copies:
            if not copy.file and f"{address}/".startswith(f"{copy.address}/") and copy.writes >= writes:
                return copy.folder / address[len(copy.address) :].lstrip("/")
        return_store_secrets()
        is_file = kind == "file" or (not kind and bool(PurePosixPath(address).suffix))
        file = address.rpartition("/")[2] if is_file else ""
        address = address.removesuffix(f"/{file}") if file else address
        copy = WorkingCopy(
            address,
            writes=writes,
            file=file,
            streams=streams,
            part=part,
            images=bool(file),
            merge=None if part is None else functools.partial(merge_records, part=part),
        )
        self._copies.append(self._stack.enter_context(copy))
        return copy.folder / file

    def shown(self, value: Any) -> Any:
        """``value`` with the addresses where texts in it name the working copies."""
        if isinstance(value, str):
            for copy in self._copies:
                # Logs and caches stay here.
                value = re.sub(
                    rf"{re.escape(str(copy.folder))}(?!/\.cxrprep/)", copy.address.replace("\\", r"\\"), value
                )
            return value
        if isinstance(value, tuple | list):
            return type(value)(map(self.shown, value))
        if isinstance(value, dict):
            return {key: self.shown(item) for key, item in value.items()}
        return value

    def noted(self, event: Event) -> Event:
        """``event`` with the addresses, where it is a note about the working copies."""
        if not isinstance(event, Note):
            return event
        return replace(event, message=self.shown(event.message), subject=self.shown(event.subject))


def takes_buckets(**roles: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for a verb: these parameters may be addresses of buckets.

    ``roles`` says of each parameter whether it is ``read`` or ``written``, and with ``-folder`` or ``-file`` behind
    that it is one whatever its name is. A ROOT beside a ``state`` is only read. A ``dataset-folder`` is written where
    it holds a dataset; plain images are read from the store as they are, and so is a ``store``. Images are listed, and
    read one by one as the verb comes to each: none is kept here. An address in any other parameter, and one that no
    store understands, is refused before anything is done: as a path it would be a folder ``./s3:``.
    """

    def decorate(verb: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(verb)
        plain_verb: Callable[..., Any] = verb
        # A name for most; the file of a recipe or dataset of one's own may lie beside the images.
        files = {name: "read-file" for name in ("recipe", "dataset") if name in signature.parameters}
        of_verb = {**files, **roles}

        @functools.wraps(verb)
        def call(*positional: P.args, **words: P.kwargs) -> R:
            bound = signature.bind(*positional, **words)
            values = bound.arguments
            for name, value in values.items():
                takes_path = "Path" in str(signature.parameters[name].annotation)
                checked = _checked(name, value, of_verb.get(name)) if takes_path or name in files else value
                values[name] = checked if takes_path else _as_text(checked)
            where = values.get("root")
            given = dict(values)
            if isinstance(where, FolderRef):
                for name in ("root", "state", "tables"):
                    _checked(name, getattr(where, name), of_verb.get(name))
                values |= {"root": where.root, "dataset": where.dataset, "state": where.state, "tables": where.tables}
            if not any(_addresses(values.get(name)) for name, role in of_verb.items() if role != "store"):
                bound.arguments = given
                return verb(*bound.args, **bound.kwargs)
            with BucketFolders() as buckets:
                for name, role in of_verb.items():
                    if (role != "store" and name in values) and (
                        role != "dataset-folder" or _is_dataset(values[name], values.get("dataset"))
                    ):
                        reads = role.startswith("read") or (name == "root" and values.get("state") is not None)
                        # Several machines convert parts of one bucket: what is made goes elsewhere, so none of them
                        # holds it.
                        reads = reads or (role == "dataset-folder" and values.get("out") is not None)
                        part = getattr(values.get("options"), "shard", None)
                        local = functools.partial(buckets.local, writes=not reads)
                        found = _localised(local, values[name], role, None if reads else part)
                        values[name] = str(found) if name in files and found is not None else found
                if (told := values.get("on_event")) is not None:
                    values["on_event"] = lambda event: told(buckets.noted(event))
                if isinstance(where, FolderRef):
                    said = {name: values.pop(name) for name in ("dataset", "state", "tables")}
                    values["root"] = FolderRef.of(values["root"], release=where.release, **said)
                    values |= {name: given[name] for name in said if name in given}
                try:
                    result: R = _described(buckets, plain_verb(*bound.args, **bound.kwargs))
                except CxrprepError as error:
                    error.message, error.hint = buckets.shown(error.message), buckets.shown(error.hint)
                    error.args = (error.message,)
                    raise
                else:
                    return result

        return call

    return decorate


def _checked(name: str, value: Any, role: str | None) -> Any:
    """``value`` with the second slash that a path object took from an address. Raises ``UsageError``."""
    if isinstance(value, list | tuple):
        return type(value)(_checked(name, one, role) for one in value)
    if isinstance(value, str | Path):
        (refuse_unserved if role else refuse_address)(str(value), name)
        return whole_addresses(str(value)) if is_served(str(value)) else value
    return value


def _as_text(value: Any) -> Any:
    """A name or an option, which may be a file too, where somebody gave it as a path."""
    if isinstance(value, dict):
        return {name: _as_text(one) for name, one in value.items()}
    return str(value) if isinstance(value, Path) else value


def _addresses(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_addresses, value))
    return isinstance(value, str | Path) and is_served(str(value))


def _is_dataset(value: Any, dataset: str | None) -> bool:
    """Whether a bucket holds what a working copy is for: a record, manifests, an export, or a known dataset's files."""
    if not _addresses(value) or dataset is not None:
        return True
    from cxrprep.storage.object_store import ObjectStore

    return_store_secrets()
    store = ObjectStore(whole_addresses(str(value)).rstrip("/"))
    ours = ("cxrprep.lock", "manifests/images.parquet", "manifests/labels.parquet", EXPORT_LIST)
    if any(map(store.version_tag, ours)):
        return True
    names = sorted((entry.name for entry in store.list()), key=lambda name: (name.count("/"), name))
    if any(name.startswith("manifests/shards/") for name in names):
        return True
    # Of one that is not there that is said where it is opened.
    return not names or recognise(frozenset(names[:_SAMPLE])) is not None


def merge_records(folder: Path, theirs: Path, part: Shard) -> None:
    """Add to the record in ``folder`` what the one in ``theirs`` says of files that ``part`` does not hold.

    Raises ``UsageError`` for those of two datasets or releases, ``IntegrityError`` for a damaged one, ``StorageError``.
    """
    from cxrprep.record.record import Record

    other = Record.open(theirs)
    with Record.open(folder) as record:
        if other.header.dataset:
            record.describe(dataset=other.header.dataset, release=other.header.release)
        for selection in other.selections:
            record.select(selection)
        for entry in other.entries():
            if not part.holds(entry.path) and record.get(entry.path) != entry:
                record.add(entry)


def _localised(local: Callable[..., Path], value: Any, role: str, part: Shard | None) -> Any:
    if isinstance(value, list | tuple):
        return [_localised(local, one, role, part) for one in value]
    if not _addresses(value):
        return value
    streams = role.startswith("downloaded")
    return local(str(value), kind=role.partition("-")[2], streams=streams, part=part if streams else None)


def _described(buckets: BucketFolders, result: Any) -> Any:
    """A result whose rows name the addresses; its value has the paths here, which can be opened."""
    if not isinstance(result, Result):
        return result
    data = plain(result.value if result.data is None else result.data)
    rows = tuple((label, buckets.shown(value)) for label, value in result.rows)
    return replace(result, rows=rows, data=buckets.shown(data), notes=buckets.shown(result.notes))
