"""One call of the command: its arguments, settings, output, log and credentials; every command gets it."""

from __future__ import annotations

import contextlib
import sys
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cxrprep.cli.output import Output
from cxrprep.credentials.secret import Secret
from cxrprep.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from cxrprep.api.buckets import BucketFolders
    from cxrprep.cli.log_file import RunLog
    from cxrprep.config.job import Job
    from cxrprep.config.settings import Settings
    from cxrprep.credentials.lookup import Credentials
    from cxrprep.events import Event, Sink
    from cxrprep.model import Shard


# Settings that may name a folder or file in a bucket, what a command does there, and which of the two it is; without
# that word the name decides. --out of convert is served by convert itself, image by image.
_BUCKETS: Final = {
    "root": "written folder",
    "state": "written folder",
    "tables": "read folder",
    "selection.ids": "read file",
    "selection.patients": "read file",
    "selection.studies": "read file",
    "download.from_plan": "read file",
    "download.then": "read file",
    "labels.reports": "read",
    "labels.imports": "read file",
    "labels.compare": "read",
    "labels.vocabulary": "read file",
    "labels.mimic_iv": "read file",
    "convert.recipe": "read file",
    "report.out": "written file",
    "report.beside": "read folder",
    "export.root": "written folder",
    "export.out": "written",
    "export.pairs": "read file",
}
_ABOUT_JOBS: Final = frozenset({"init", "show", "check"})
_ONLY_READ: Final = frozenset({"status", "digest", "prove"})


def _example() -> str:
    """The command at hand with a folder, as somebody would type it."""
    context = click.get_current_context(silent=True)
    verb = context.command_path if context is not None else "cxrprep verify"
    needed = {"cxrprep convert": " --recipe square-224", "cxrprep export": " --format csv"}
    return f"{verb} /data/nih{needed.get(verb, '')}"


class Invocation:
    """What a command needs; everything is made when it is first used, so that ``--help`` makes nothing."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = tuple(arguments)
        self.flags: dict[str, tuple[Any, str]] = {}
        self.config: Path | None = None
        self.asks = False
        self.allow_loss = False
        self.takes_addresses = False
        self.command = ""
        self._buckets: BucketFolders | None = None

    @cached_property
    def settings(self) -> Settings:
        """Where every value comes from. Raises ``UsageError`` and ``ConfigError``."""
        from cxrprep.config.settings import load_settings

        settings = load_settings(config=self.config, flags=self.flags)
        if not self._with_buckets(settings):
            return settings
        return load_settings(config=self.config, flags=self.flags)

    def _with_buckets(self, settings: Settings) -> bool:
        """Put working copies in the place of the buckets that the settings name; whether there was one."""
        from cxrprep.config.settings import refuse_misplaced, with_bucket, with_variables, without_name
        from cxrprep.storage.paths import is_served

        found = False
        if is_served(out := with_bucket(settings.job.convert.out)):
            refuse_misplaced("convert.out", out, settings.origins["convert.out"])
        if out != settings.job.convert.out:
            self.flags["convert.out"] = (out, settings.origins["convert.out"])
            found = True
        # A job file that is written or shown names the addresses themselves.
        for key, role in () if self.command in _ABOUT_JOBS else _BUCKETS.items():
            value = settings.value(key)
            texts = [with_bucket(value)] if isinstance(value, str) else list(map(with_bucket, value))
            # An imported table has a name before its address: NAME=FILE.
            named = key == "labels.imports"
            for text in filter(is_served, map(without_name, texts) if named else texts):
                refuse_misplaced(key, text, settings.origins[key])
            pairs = [text.partition("=") if named and not is_served(text) else ("", "", text) for text in texts]
            if not any(is_served(text) for *_, text in pairs) or (key == "root" and self.takes_addresses):
                continue
            does, _, kind = role.partition(" ")
            writes = does == "written" and self.command not in _ONLY_READ
            writes = writes and not (key == "root" and settings.job.state)
            place = partial(self.bucket, writes=writes, kind=kind, streams=key == "root", shard=settings.job.shard)
            local = [
                f"{name}{sign}{place(with_variables(text)) if is_served(text) else text}" for name, sign, text in pairs
            ]
            option = self.flags[key][1] if key in self.flags else settings.origins[key]
            self.flags[key] = (local[0] if isinstance(value, str) else tuple(local), option)
            found = True
        return found

    def bucket(self, address: str, *, writes: bool, kind: str = "", streams: bool = False, shard: str = "") -> Path:
        """The working copy of a folder or file in a bucket. Raises what opening one raises.

        Args:
            address: as it was written.
            writes: whether the command writes there.
            kind: "folder" or "file" whatever its name is; otherwise a name with a suffix is a file.
            streams: whether a download may put files there while it goes on.
            shard: the part of a job array that a download is of.

        Returns:
            The path here.
        """
        from cxrprep.api.buckets import BucketFolders
        from cxrprep.config.job_array import parse_shard

        if self._buckets is None:
            self._buckets = BucketFolders()
        streams = streams and self.command in ("download", "run")
        part = parse_shard(shard) if shard and streams and writes and self.command == "download" else None
        return self._buckets.local(address, writes=writes, kind=kind, streams=streams, part=part)

    def shown(self, text: str) -> str:
        """``text`` with addresses of buckets where it names their working copies, or a path object took a slash."""
        from cxrprep.storage.paths import whole_addresses

        return whole_addresses(text if self._buckets is None else str(self._buckets.shown(text)))

    def put_back(self) -> None:
        """Put into buckets what the command changed."""
        if self._buckets is not None:
            self._buckets.put_back()

    @contextlib.contextmanager
    def leaving_buckets(self) -> Iterator[None]:
        """Put back what was changed when the command ends, and let go of the buckets' locks."""
        with contextlib.ExitStack() as stack:
            stack.push(lambda *about: self._buckets.__exit__(*about) if self._buckets is not None else None)
            yield

    @property
    def job(self) -> Job:
        """The values themselves."""
        return self.settings.job

    @cached_property
    def out(self) -> Output:
        """Where results and messages go."""
        output = self.job.output
        # A quiet job is quiet when it works, not when somebody asks about it.
        unasked = self.asks and ", line " in self.settings.origins["output.format"]
        out = Output("human" if unasked else output.format, color=output.color, events=output.events)
        out.shown = self.shown
        for note in self.settings.notes:
            out.note(note, level="warning")
        return out

    @cached_property
    def early_out(self) -> Output:
        """The output for errors that come before the settings are known, guessed from the arguments alone."""
        events = "jsonl" if {"--events", "--events=jsonl"} & set(self.arguments) else ""
        out = Output("json" if "--json" in self.arguments else "human", events=events)
        out.shown = self.shown
        return out

    @property
    def safe_out(self) -> Output:
        """``out`` where it was made, else ``early_out``."""
        made: Output | None = self.__dict__.get("out")
        return made or self.early_out

    @cached_property
    def log(self) -> RunLog:
        """The log of this run."""
        from cxrprep.cli.log_file import RunLog
        from cxrprep.config.settings import expand

        named = self.job.output.log_file
        return RunLog(self.arguments, file=expand(named) if named else None)

    def events(self) -> AbstractContextManager[Sink]:
        """Progress on the screen and in the log, for the time of a verb; the log lies beside the record."""
        from cxrprep.cli.progress import choose
        from cxrprep.system import defer_pandas

        defer_pandas()

        @contextlib.contextmanager
        def opened() -> Iterator[Sink]:
            self.log.belongs_to(self.state or self.root)
            self.note_level()
            with choose(self.out) as shown, self.log as logged:

                def both(event: Event) -> None:
                    event = event if self._buckets is None else self._buckets.noted(event)
                    shown(event)
                    logged(event)

                yield both
                # Before the result is said: what is not in the bucket is not done.
                self.put_back()

        return opened()

    def note_level(self) -> None:
        """Say that the folder is a part of a dataset's, where somebody named ``ROOT/images`` for ROOT."""
        import shlex

        from cxrprep.storage.paths import OWN_FOLDERS, enclosing

        # Converted and exported folders are complete by themselves, and a state or dataset is named on purpose.
        own = any(
            (self.root / name).exists() for name in ("cxrprep.lock", "manifests/images.parquet", ".cxrprep-export.json")
        )
        if own or self.state is not None or self.job.dataset or not self.root.is_dir():
            return
        whole = enclosing(self.root, "cxrprep.lock")
        # So are those in its own folders whose table is gone.
        if whole is not None and self.root.absolute().relative_to(whole.absolute()).parts[0] not in OWN_FOLDERS:
            meant = f"did you mean cxrprep {self.command} {shlex.quote(str(whole))}?"
            self.out.note(f"{self.root} is a part of the dataset in {whole}: {meant}", level="warning")

    # ---- what several commands ask for ----

    @property
    def root(self) -> Path:
        """The folder of the dataset: named, else ``./DATASET``, else the folder we stand in when it holds a record.

        Raises ``UsageError`` when none of them is there.
        """
        from cxrprep.config.settings import expand, with_variables

        if self.job.root:
            return Path(with_variables(self.job.root)) if self._is_served(self.job.root) else expand(self.job.root)
        if self.job.dataset:
            return Path(self.job.dataset)
        if Path("cxrprep.lock").is_file():
            return Path()
        raise UsageError("which folder? name the ROOT of the dataset", hint=f"for example: {_example()}")

    @property
    def state(self) -> Path | None:
        """The folder of ``--state``."""
        return self.path(self.job.state)

    @property
    def where(self) -> str:
        """The folder as commands name it, quoted for a shell."""
        import shlex

        from cxrprep.record.record import folder_words

        return shlex.join(folder_words(self.root, self.state or self.root, self.job.dataset))

    @property
    def shard(self) -> Shard | None:
        """The part of ``--shard``."""
        from cxrprep.config.job_array import parse_shard

        return parse_shard(self.job.shard) if self.job.shard else None

    def path(self, text: str) -> Path | None:
        """A path option, ``None`` when it is not given."""
        from cxrprep.config.settings import expand, with_variables

        if text and self._is_served(text):
            return Path(with_variables(text))
        return expand(text) if text else None

    def _is_served(self, text: str) -> bool:
        """Whether this is an address where this command takes one."""
        return "://" in text and (text == self.job.convert.out or (self.takes_addresses and text == self.job.root))

    def credentials(self, *, asks: bool = True) -> Credentials:
        """Credentials; with ``asks``, and where a person sits at the terminal, that person is asked last."""
        from importlib.util import find_spec

        from cxrprep.credentials.files import link_file
        from cxrprep.credentials.lookup import Credentials

        if find_spec("structlog") is not None:
            from stamina.instrumentation import set_on_retry_hooks

            # Retries are told as events; what the library would print of them through structlog belongs on neither
            # stream. Its log lines go nowhere, and without structlog it need not be loaded before something fails.
            set_on_retry_hooks([])
        named = self.job.download.url_file
        link: Path | Secret | None = _from_stdin() if named == "-" else self.path(named) if named else None
        if isinstance(link, Path) and "download.url_file" in self.flags:
            link = link_file(link)
        return Credentials(link=link, prompt=_ask if asks and self.has_person else None)

    @property
    def has_person(self) -> bool:
        """Whether somebody sits at the terminal and can be asked."""
        return self.out.form == "human" and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _from_stdin() -> Secret:
    text = sys.stdin.read(65_536).strip()
    if not text:
        raise UsageError(
            "--url-file -: nothing came from standard input", hint="cxrprep download ... --url-file - < FILE"
        )
    return Secret(text)


def _ask(question: str, hidden: bool) -> str | None:
    try:
        answer: str = click.prompt(question, hide_input=hidden, default="", show_default=False, err=True)
    except click.Abort:
        raise KeyboardInterrupt from None
    return answer or None


def invocation_of(ctx: click.Context) -> Invocation:
    """What this run needs, as far as it is known."""
    found = ctx.find_object(Invocation)
    if found is None:
        # Documentation tools and shell completion parse without the program around.
        found = ctx.obj = Invocation(())
    return found
