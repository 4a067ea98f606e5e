"""Every way in which disks fail, one case each: full, read-only, over quota, gone, shared by several writers, and odd.

Each case says what the command must do: its exit code, that it names the path and the next step, and that the next run
makes of what is left what an undisturbed run would have made.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.generators.full.mimic_cxr import Mimic
from tests.generators.full.nih_chestxray14 import Nih
from tests.generators.full.server import PASSWORD, USER, Site, folder_reader, serving
from tests.soak.commands import Done, Home, copy_tree, differences, end_group, half_written, leftovers, run, start, tree
from tests.soak.filesystem import lacking, mounted

# Loaded by Python itself before the program: what the operating system does is what is changed.
INJECTIONS = {
    "no locks": """
        import fcntl
        fcntl.flock = lambda *_: None
        fcntl.lockf = lambda *_: None
        """,
    "no exclusive files": """
        import fcntl, os
        fcntl.flock = fcntl.lockf = lambda *_: None
        _open = os.open
        os.open = lambda path, flags, *more, **named: _open(path, flags & ~os.O_EXCL, *more, **named)
        """,
    "clock steps": """
        import random, time
        _rng, _now, _now_ns = random.Random(7), time.time, time.time_ns
        def _step():
            return _rng.choice((0, 0, 0, 86_400, -86_400, 3_600, -1, 400 * 86_400))
        time.time = lambda: _now() + _step()
        time.time_ns = lambda: _now_ns() + _step() * 10**9
        """,
}


@dataclass(frozen=True)
class Stage:
    """A command, the folder that it starts from, and the files that it must have made."""

    name: str
    words: tuple[str, ...]
    before: Path
    after: dict[str, str]


@dataclass
class Bench:
    """What the cases share: two small collections, each stage run once undisturbed, a server, an environment."""

    work: Path
    home: Home
    stages: list[Stage]
    files: Stage
    images: Path
    site: Site

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def injected(self, name: str) -> Home:
        """The environment with one of ``INJECTIONS`` in every Python process."""
        folder = self.work / "injected" / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sitecustomize.py").write_text(textwrap.dedent(INJECTIONS[name]))
        path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
        return Home(self.home.folder, {**self.home.variables, "PYTHONPATH": path})


@dataclass
class Outcome:
    """What came of a case; ``wrong`` is empty when it is what it must be, ``skipped`` says what it would need."""

    name: str
    codes: list[int] = field(default_factory=list)
    said: str = ""
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    skipped: str = ""

    def took(self, done: Done) -> Done:
        self.codes.append(done.code)
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        self.said = errors[0] if errors else self.said
        if "Traceback" in done.said or "a bug in cxrprep" in done.said:
            self.wrong.append(f"a crash: {done.said[-600:]}")
        return done


@dataclass(frozen=True)
class Case:
    """A fault of a disk; ``play`` yields what is wrong, and tells the outcome what the command said."""

    name: str
    play: Callable[[Bench, Outcome], Iterator[str]]
    quick: bool = False
    needs: Callable[[], str] = str


@contextmanager
def bench(work: Path, images: int = 60) -> Iterator[Bench]:
    """The bench, its server running for as long as the block lasts."""
    nih, mimic, home = work / "nih", work / "mimic", Home(work / "home")
    (work / "home").mkdir(parents=True)
    Nih.generate(max(images, 100), seed=3).write(nih)
    Mimic.generate(images, seed=3).write_tables("mimic-cxr-jpg", mimic / "mimic-cxr-jpg" / "2.1.0")
    plans = (
        ("download", ("download", "nih-chestxray14", "ROOT", "--source", str(nih))),
        ("verify", ("verify", "ROOT", "--images")),
        ("extract-labels", ("extract-labels", "ROOT")),
        ("convert", ("convert", "ROOT", "--recipe", "square-224")),
        ("manifest", ("manifest", "ROOT")),
    )
    site = Site(folder_reader(mimic, 3), latency=0.02)
    with serving(site) as address:
        home.variables = {"PHYSIONET_USERNAME": USER, "PHYSIONET_PASSWORD": PASSWORD}
        physionet = f"physionet://{address.removeprefix('http://')}/mimic-cxr-jpg/2.1.0"
        files = ("download", "mimic-cxr-jpg", "ROOT", "--source", physionet, "--connections", "4")
        root = work / "reference"
        root.mkdir()
        stages = [_undisturbed(name, words, root, work, home) for name, words in plans]
        root = work / "reference-files"
        root.mkdir()
        yield Bench(work, home, stages, _undisturbed("files", files, root, work, home), nih, site)


def _undisturbed(name: str, words: tuple[str, ...], root: Path, work: Path, home: Home) -> Stage:
    before = work / f"before-{name}"
    copy_tree(root, before)
    done = run(at(words, root), home)
    if done.code:
        raise RuntimeError(f"{name} fails on a good disk: exit {done.code}\n{done.said}")
    return Stage(name, words, before, tree(root))


def at(words: tuple[str, ...], root: Path) -> list[str]:
    """The words with ``ROOT`` filled in."""
    return [str(root) if word == "ROOT" else word for word in words]


def refused(done: Done, root: Path, *, code: int = 7) -> Iterator[str]:
    """What is wrong with how a command answered a disk that refused."""
    if done.code != code:
        yield f"exit {done.code}, not {code}: {done.said[-500:]}"
    if str(root) not in done.stderr:
        yield f"does not name {root}: {done.stderr[-400:]}"
    # An error says what to do in its hint, a run that ended with failures in the last line of its table.
    if "hint:" not in done.stderr.lower() and f"exit code {code}:" not in done.stdout:
        yield f"no next step: {done.said[-400:]}"


def mended(stage: Stage, root: Path, home: Home, outcome: Outcome) -> Iterator[str]:
    """What is wrong after the same command ran once more on a disk that is well again."""
    yield from (f"half-written: {line}" for line in half_written(root))
    done = outcome.took(run(at(stage.words, root), home))
    if done.code:
        yield f"the next run ends with {done.code}: {done.said[-500:]}"
        return
    yield from differences(tree(root), stage.after)[:5]
    yield from (f"left behind: {name}" for name in leftovers(root)[:5])


# ---- full, read-only, over quota ----


def may_mount() -> str:
    """What is needed before a file system may be mounted; empty when nothing is."""
    return "" if os.name == "posix" and os.geteuid() == 0 else "root, to mount a file system of its own"


@contextmanager
def memory_disk(place: Path, options: str = "size=200m") -> Iterator[Path]:
    """A fresh file system in memory at ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def remount(place: Path, options: str) -> None:
    """Change the options of a mounted file system."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def full(name: str, room: int = 32_768) -> Callable[[Bench, Outcome], Iterator[str]]:
    """``name`` on a disk with ``room`` bytes left, and again when there is more."""

    def play(bench: Bench, outcome: Outcome) -> Iterator[str]:
        stage = bench.stage(name)
        with memory_disk(bench.work / "full") as disk:
            root = disk / "nih"
            copy_tree(stage.before, root)
            status = os.statvfs(disk)
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            remount(disk, f"size={used + room}")
            yield from refused(outcome.took(run(at(stage.words, root), bench.home)), root)
            remount(disk, "size=200m")
            yield from mended(stage, root, bench.home, outcome)

    return play


def read_only(bench: Bench, outcome: Outcome) -> Iterator[str]:
    """Every verb on a folder that may not be written: refused, and with ``--state`` it works."""
    state = bench.work / "state"
    with memory_disk(bench.work / "read-only") as disk:
        root = disk / "nih"
        copy_tree(bench.stage("verify").before, root)
        remount(disk, "ro")
        for name in ("verify", "extract-labels", "convert", "manifest"):
            words = at(bench.stage(name).words, root)
            for problem in refused(outcome.took(run(words, bench.home)), root):
                yield f"{name}: {problem}"
            done = outcome.took(run([*words, "--state", str(state)], bench.home))
            if done.code:
                yield f"{name} --state: exit {done.code}: {done.said[-500:]}"
    made = {path for path in tree(state) if path.startswith("derived")}
    if made != {path for path in bench.stage("convert").after if path.startswith("derived")}:
        yield "the converted images beside the read-only folder are not those of an ordinary one"


def over_quota(bench: Bench, outcome: Outcome) -> Iterator[str]:
    """A download over quota names the folder, and goes on when the quota is raised."""
    stage = bench.stage("download")
    with mounted(bench.work / "quota", "--quota=200000") as disk:
        root = disk / "nih"
        yield from refused(outcome.took(run(at(stage.words, root), bench.home)), root)
        kept = bench.work / "quota" / "kept"
        copy_tree(bench.work / "quota" / "backing" / "nih", kept)
    yield from mended(stage, kept, bench.home, outcome)


# ---- a folder that vanishes ----


def vanishing(bench: Bench, outcome: Outcome) -> Iterator[str]:
    """The folder is moved away in the middle of a download; nothing that is in it is hurt."""
    root, gone = bench.work / "vanishing", bench.work / "vanished"
    # Slow enough for the folder to vanish before the last file is here, on any machine.
    usual, bench.site.latency = bench.site.latency, 0.5
    process = start(at(bench.files.words, root), bench.home)
    deadline = time.monotonic() + 60
    while not any(root.glob("files/*/*/*/*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.01)
    root.rename(gone)
    bench.site.latency = usual
    begun = time.monotonic()
    out, err = process.communicate(timeout=100)
    text = (out.decode(), err.decode())
    yield from refused(outcome.took(Done(process.returncode, *text, time.monotonic() - begun)), root)
    yield from mended(bench.files, gone, bench.home, outcome)


# ---- several writers, odd clocks, odd names ----


def writers(count: int, name: str, injection: str = "no locks") -> Callable[[Bench, Outcome], Iterator[str]]:
    """``count`` runs of one command on one folder at the same time; ``injection`` is what locks do there."""

    def play(bench: Bench, outcome: Outcome) -> Iterator[str]:
        stage = bench.files if name == "files" else bench.stage(name)
        home = bench.injected(injection)
        root = bench.work / f"writers-{count}-{name}-{injection}".replace(" ", "-")
        copy_tree(stage.before, root)
        running = [start(at(stage.words, root), home) for _ in range(count)]
        for process in running:
            try:
                out, err = process.communicate(timeout=100)
            except subprocess.TimeoutExpired:
                end_group(process.pid)
                yield "one of them hangs"
                continue
            done = outcome.took(Done(process.returncode, out.decode(), err.decode(), 0.0))
            if done.code not in (0, 3, 75):
                yield f"exit {done.code}: {done.said[-500:]}"
        yield from mended(stage, root, bench.home, outcome)

    return play


def every_stage(home: Callable[[Bench], Home], *ways: str) -> Callable[[Bench, Outcome], Iterator[str]]:
    """All stages in turn, on a disk that is odd in these ``ways``; all must come out as on an ordinary one."""

    def play(bench: Bench, outcome: Outcome) -> Iterator[str]:
        with ExitStack() as stack:
            place = bench.work / f"odd-{outcome.name.replace(' ', '-')}"
            disk = stack.enter_context(mounted(place, *ways)) if ways else place
            root = disk / "nih"
            for stage in bench.stages:
                done = outcome.took(run(at(stage.words, root), home(bench)))
                if done.code:
                    yield f"{stage.name}: exit {done.code}: {done.said[-500:]}"
                    return
                yield from (f"{stage.name}: {line}" for line in differences(tree(root), stage.after)[:5])
            yield from (f"left behind: {name}" for name in leftovers(root)[:5])

    return play


def linked(way: str, *, code: int) -> Callable[[Bench, Outcome], Iterator[str]]:
    """A download from a folder that asks for hard links, on a disk that has none."""

    def play(bench: Bench, outcome: Outcome) -> Iterator[str]:
        source = bench.work / "reference"
        with mounted(bench.work / f"links-{way}", "--no-links") as disk:
            words = ["download", "nih-chestxray14", str(disk / "nih"), "--source", str(source), "--link", way]
            done = outcome.took(run(words, bench.home))
            if done.code != code:
                yield f"exit {done.code}, not {code}: {done.said[-500:]}"
            if done.code == 0:
                images = {
                    name: digest for name, digest in bench.stage("download").after.items() if name[:7] == "images/"
                }
                found = {name: digest for name, digest in tree(disk / "nih").items() if name[:7] == "images/"}
                yield from differences(found, images)[:5]

    return play


def _images(files: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name.startswith("images/")}


CASES = (
    Case("full during download", full("download"), True, may_mount),
    Case("full during verify", full("verify", 8_192), False, may_mount),
    Case("full during extract-labels", full("extract-labels"), False, may_mount),
    Case("full during convert", full("convert"), False, may_mount),
    Case("full during manifest", full("manifest"), False, may_mount),
    Case("read-only", read_only, False, may_mount),
    Case("over quota", over_quota, False, lacking),
    Case("the folder vanishes", vanishing, True),
    Case("two writers, locks lock nothing", writers(2, "files"), True),
    Case("five writers, locks lock nothing", writers(5, "files")),
    Case("two writers, no exclusive files either", writers(2, "files", "no exclusive files")),
    Case("five writers, no exclusive files either", writers(5, "files", "no exclusive files")),
    Case("five unpack, no exclusive files either", writers(5, "download", "no exclusive files")),
    Case("two unpack the same archives", writers(2, "download")),
    Case("two convert the same images", writers(2, "convert")),
    Case("five verify at once", writers(5, "verify")),
    Case("two extract labels at once", writers(2, "extract-labels")),
    Case("clock steps", every_stage(lambda bench: bench.injected("clock steps"))),
    Case("names fold case", every_stage(lambda bench: bench.home, "--fold"), False, lacking),
    Case("no hard links", every_stage(lambda bench: bench.home, "--no-links"), False, lacking),
    Case("no hard links, though asked for", linked("hardlink", code=0), False, lacking),
)


def play(case: Case, found: Bench) -> Outcome:
    """Run the case on the bench."""
    outcome = Outcome(case.name, skipped=case.needs())
    begun = time.monotonic()
    if not outcome.skipped:
        outcome.wrong += list(case.play(found, outcome))
    outcome.seconds = time.monotonic() - begun
    return outcome


def line(outcome: Outcome) -> str:
    """A row of the table."""
    state = "as it must" if not outcome.wrong else "WRONG: " + "; ".join(outcome.wrong)
    if outcome.skipped:
        state = f"skipped: needs {outcome.skipped}"
    codes = ", ".join(map(str, outcome.codes))
    return f"| {outcome.name} | {codes} | {outcome.seconds:.1f} | {state} | {outcome.said[:150]} |"


HEADER = "| disk | exit codes | seconds | outcome | what it said |\n|---|---|--:|---|---|"


def main(work: Path, only: str = "") -> int:
    """Play every case and print the table; 1 when one came out wrong."""
    wrong = 0
    print(HEADER)
    with bench(work) as found:
        for case in CASES:
            if only in case.name:
                outcome = play(case, found)
                wrong += bool(outcome.wrong)
                print(line(outcome), flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:3]))
