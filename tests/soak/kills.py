"""``kill -9`` at seeded random moments of every stage; what is on disk right after, and what a later run makes of it.

Runs come in chains: one to five kills of the same command on the same folder, then the command to its end. After each
kill nothing under a final name may be broken; at the end of a chain every byte equals that of a run nobody disturbed.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from cxrprep.storage.table_checksums import LIST_NAME, listed_checksums
from tests.api.convert import hospital
from tests.generators.full.mimic_cxr import Mimic
from tests.generators.full.nih_chestxray14 import Nih
from tests.generators.full.server import PASSWORD, USER, Site, folder_reader, serving
from tests.servers import s3
from tests.soak.commands import (
    Home,
    copy_tree,
    differences,
    end_group,
    group_lives,
    half_written,
    leftovers,
    run,
    start,
    tree,
)
from tests.soak.sequences import Bucket

_ORPHANS_MAY_LIVE = 60.0
_LONGEST_CHAIN = 5


@dataclass
class Stage:
    """A command to be disturbed: the folder as it is before and after, and how long it takes when left alone."""

    name: str
    words: tuple[str, ...]
    before: Path
    after: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    bucket: Bucket | None = None

    def at(self, root: Path) -> list[str]:
        """The command over ``root``, or over the bucket that holds what ``root`` shows."""
        words = [f"{root}{word.removeprefix('ROOT')}" if word.split("/")[0] == "ROOT" else word for word in self.words]
        return words if self.bucket is None else [self.bucket.addressed(word) for word in words]

    def begin(self, root: Path) -> None:
        """Make the folder what it was before."""
        copy_tree(self.before, root)
        if self.bucket is not None:
            self.bucket.put()

    def look(self) -> None:
        """Fetch what a command left in a bucket."""
        if self.bucket is not None:
            self.bucket.fetch()


@dataclass
class Campaign:
    """What the kills found. ``problems`` is empty when everything holds."""

    kills: Counter[str] = field(default_factory=Counter)
    too_late: Counter[str] = field(default_factory=Counter)
    chains: int = 0
    problems: list[str] = field(default_factory=list)


def prepare(work: Path, images: int, stack: ExitStack, *, brief: bool = False) -> tuple[list[Stage], Home]:
    """The stages of two collections (NIH's archives, in a bucket too, MIMIC's single files and reports), undisturbed.

    A ``brief`` campaign has the first three of NIH only.
    """
    nih, mimic = work / "nih", work / "mimic"
    Nih.generate(images, seed=3).write(nih)
    release = Mimic.generate(images, seed=3)
    for project in ("mimic-cxr", "mimic-cxr-jpg"):
        release.write_tables(project, mimic / project / "2.1.0")
    address = stack.enter_context(serving(Site(folder_reader(mimic, 3), latency=0.005)))
    home = Home(work / "home", {"PHYSIONET_USERNAME": USER, "PHYSIONET_PASSWORD": PASSWORD})
    (work / "home").mkdir()
    reports = str(mimic / "mimic-cxr" / "2.1.0" / "mimic-cxr-reports.zip")
    physionet = f"physionet://{address.removeprefix('http://')}/mimic-cxr-jpg/2.1.0"
    plans: list[tuple[str, tuple[str, ...]]] = [
        ("download archives", ("download", "nih-chestxray14", "ROOT", "--source", str(nih))),
        ("verify", ("verify", "ROOT", "--images")),
        ("extract-labels", ("extract-labels", "ROOT")),
        ("convert", ("convert", "ROOT", "--recipe", "square-224")),
        ("manifest", ("manifest", "ROOT")),
        ("convert shards", ("convert", "ROOT", "--recipe", "square-224", "--to", "webdataset", "--per-shard", "40")),
        ("export hf", ("export", "ROOT", "--format", "hf")),
        ("export csv", ("export", "ROOT/derived/square-224", "--format", "csv")),
        (
            "convert converted",
            ("convert", "ROOT/derived/square-224", "--recipe", "shortest-512", "--out", "ROOT/small"),
        ),
        ("verify converted", ("verify", "ROOT/derived/square-224", "--images")),
    ]
    if brief:
        return list(_undisturbed(work / "nih-root", plans[:3], work, home)), home
    stages = list(_undisturbed(work / "nih-root", plans, work, home))
    stages += _repaired(work / "nih-root", nih, work, home)
    stages += _beside(work / "root", nih, work, home)
    (work / "moto").mkdir()
    service = stack.enter_context(s3.running(work / "moto"))
    home.variables = {**home.variables, **service.environment, **s3.KEYS, "AWS_DEFAULT_REGION": "us-east-1"}
    bucket = Bucket(service, service.bucket({}, public=False), "nih", work / "root")
    of_bucket = [(f"bucket {name}", words) for name, words in plans if name not in ("verify", "convert shards")][:6]
    stages += _undisturbed(work / "root", of_bucket, work, home, bucket)
    plans = [
        ("download files", ("download", "mimic-cxr-jpg", "ROOT", "--source", physionet)),
        ("mimic labels", ("extract-labels", "ROOT")),
        ("pairs", ("pairs", "ROOT", "--reports", reports)),
        ("extract-labels reports", ("extract-labels", "ROOT", "--reports", reports)),
    ]
    stages += _undisturbed(work / "mimic-root", plans, work, home)
    arriving = ("download", "nih-chestxray14", "ROOT", "--source", str(nih), "--then", "square-224", "--discard-raw")
    stages += _undisturbed(work / "small-root", [("download converted", arriving)], work, home)
    plans = [
        ("own manifest", ("manifest", "ROOT", "--split-by", "patient")),
        ("own convert", ("convert", "ROOT", "--recipe", "square-224", "--out", "ROOT/derived/small")),
        ("own export", ("export", "ROOT/derived/small", "--format", "webdataset")),
        ("own folds", ("manifest", "ROOT", "--folds", "3", "--split-by", "patient")),
    ]
    own = work / "own-root"
    for number in range(images // 6):
        hospital.write(own / f"ward {number}")
    return stages + list(_undisturbed(own, plans, work, home)), home


def _repaired(root: Path, mirror: Path, work: Path, home: Home) -> Iterator[Stage]:
    """A release of which one image and one table were damaged, and the mirror that has them."""
    for path in (next(root.glob("images/*.png")), next(root.glob("*.csv"))):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    yield from _undisturbed(root, [("repair", ("verify", "ROOT", "--repair", "--source", str(mirror)))], work, home)


def _beside(root: Path, mirror: Path, work: Path, home: Home) -> Iterator[Stage]:
    """A lab's copy that is only read, with its record and tables in a folder of state."""
    lab = ("ROOT/lab", "--state", "ROOT/state")
    done = run(["download", "nih-chestxray14", str(root / "lab"), "--source", str(mirror)], home)
    if done.code:
        raise RuntimeError(done.said)
    for name in ("manifests", ".cxrprep"):
        shutil.rmtree(root / "lab" / name, ignore_errors=True)
    for name in ("cxrprep.lock", "cxrprep.files.parquet"):
        (root / "lab" / name).unlink()
    theirs = work / "theirs.csv"
    theirs.write_text("\n".join(["image_id,Edema", *(f"{path.stem},1" for path in (root / "lab/images").iterdir())]))
    plans: list[tuple[str, tuple[str, ...]]] = [
        ("state extract-labels", ("extract-labels", *lab)),
        ("state import", ("extract-labels", *lab, "--import", f"theirs={theirs}")),
        ("state convert", ("convert", *lab, "--recipe", "square-224")),
        ("state duplicates", ("duplicates", *lab)),
        ("state export", ("export", *lab, "--format", "csv", "--out", "ROOT/lab/table")),
    ]
    # A folder of state is that of one place, so that they are killed where they were not.
    yield from _undisturbed(root, plans, work, home)
    shutil.rmtree(root)


def _undisturbed(
    root: Path, plans: list[tuple[str, tuple[str, ...]]], work: Path, home: Home, bucket: Bucket | None = None
) -> Iterator[Stage]:
    root.mkdir(exist_ok=True)
    for name, words in plans:
        stage = Stage(name, words, work / f"before-{name.replace(' ', '-')}", bucket=bucket)
        copy_tree(root, stage.before)
        done = run(stage.at(root), home)
        if done.code:
            raise RuntimeError(f"{name} fails without any kill: exit {done.code}\n{done.said}")
        stage.look()
        stage.after, stage.seconds = tree(root), done.seconds
        yield stage


def campaign(
    work: Path,
    *,
    kills: int,
    seed: int = 1,
    images: int = 240,
    brief: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> Campaign:
    """``kills`` kills spread over all stages; the same seed draws the same moments."""
    rng, found = random.Random(seed), Campaign()
    with ExitStack() as stack:
        stages, home = prepare(work, images, stack, brief=brief)
        say("undisturbed: " + ", ".join(f"{stage.name} {stage.seconds:.1f} s" for stage in stages))
        while sum(found.kills.values()) < kills:
            # The stage that was killed least comes next, so that the kills are spread evenly.
            stage = min(stages, key=lambda s: (found.kills[s.name], s.name))
            length = min(rng.randint(1, _LONGEST_CHAIN), kills - sum(found.kills.values()))
            known = len(found.problems)
            _chain(stage, length, rng, home, found)
            for problem in found.problems[known:]:
                say(f"PROBLEM: {problem}")
            say(f"{sum(found.kills.values())} kills, {len(found.problems)} problems; last: {stage.name} x{length}")
    return found


def _chain(stage: Stage, length: int, rng: random.Random, home: Home, found: Campaign) -> None:
    root = home.folder.parent / "root"
    stage.begin(root)
    moments: list[str] = []
    while len(moments) < length:
        # Start-up is the same for all and holds nothing to break: most moments lie behind it.
        moment = rng.uniform(0.15, max(stage.seconds, 0.3))
        alone = rng.random() < 0.5
        killed = _kill(stage, root, home, moment, alone=alone, found=found)
        moments.append(f"{moment:.3f} s{' (parent only)' if alone else ''}{'' if killed else ' too late'}")
        found.kills[stage.name] += killed
        found.too_late[stage.name] += not killed
        if not killed and sum(text.endswith("late") for text in moments) > 2:
            break
        stage.look()
        _right_after(stage, root, moments, found)
    done = run(stage.at(root), home)
    stage.look()
    story = f"{stage.name} after kills at {', '.join(moments)}"
    found.chains += 1
    if done.code:
        found.problems.append(f"{story}: exit {done.code}: {done.said[-1500:]}")
        return
    found.problems += [f"{story}: {line}" for line in differences(tree(root), stage.after)[:10]]
    found.problems += [f"{story}: left behind: {name}" for name in leftovers(root)[:10]]


def _kill(stage: Stage, root: Path, home: Home, moment: float, *, alone: bool, found: Campaign) -> bool:
    """Whether the command was still running when it was killed."""
    process = start(stage.at(root), home, silent=True)
    time.sleep(moment)
    running = process.poll() is None
    if alone:
        # What a scheduler or the out-of-memory killer does: one process dies, its children must notice by themselves.
        if running:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + _ORPHANS_MAY_LIVE
        while group_lives(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        if group_lives(process.pid):
            found.problems.append(f"{stage.name}: workers live on {_ORPHANS_MAY_LIVE:.0f} s after their parent")
    end_group(process.pid)
    process.wait()
    deadline = time.monotonic() + _ORPHANS_MAY_LIVE
    while group_lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return running


def _right_after(stage: Stage, root: Path, moments: list[str], found: Campaign) -> None:
    story = f"{stage.name}, right after a kill at {moments[-1]}"
    found.problems += [f"{story}: half-written {line}" for line in half_written(root)]
    wanted = stage.after
    found.problems += [f"{story}: {line}" for line in _not_listed(root)]
    for name, digest in tree(root).items():
        # The final name means whole and right; an older version may stand there until the new one takes its place.
        final = name in wanted and not name.endswith((".part", ".tmp", LIST_NAME)) and "/." not in f"/{name}"
        if final and digest != wanted[name] and name not in tree(stage.before):
            found.problems.append(f"{story}: {name} has its final name and other bytes")


def _not_listed(root: Path) -> Iterator[str]:
    """Tables that the list of their checksums calls altered: it grows with them, and holds at every moment."""
    for listed in root.rglob(LIST_NAME):
        for name, digests in listed_checksums(listed.parent).items():
            path = listed.parent / name
            if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() not in digests:
                yield f"{path.relative_to(root)} has another checksum than {listed.relative_to(root)} states"


def main(kills: int, seed: int, images: int, work: Path) -> int:
    """Run the campaign and print what it found; 1 when there are problems."""
    found = campaign(work, kills=kills, seed=seed, images=images, say=lambda text: print(f"  {text}", flush=True))
    print("\n| stage | kills | finished before the kill |\n|---|--:|--:|")
    for name in found.kills:
        print(f"| {name} | {found.kills[name]} | {found.too_late[name]} |")
    print(f"\n{sum(found.kills.values())} kills in {found.chains} chains, seed {seed}: {len(found.problems)} problems")
    for line in found.problems:
        print(f"- {line}", file=sys.stderr)
    return 1 if found.problems else 0
