"""Verify of what cxrprep made: converted images, shards, exports, an image table of one's own folder.

The bytes against the digests that were written down when they were made, the images against the size that their table
states, the tables beside them against their digests, and the originals, where they are known, against those that the
images were made from. What nobody wrote down is called unproven.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.collection import folder_words
from cxrprep.collection.lineage import shard_tables
from cxrprep.digests import file_digest
from cxrprep.events import Sink, StageStarted
from cxrprep.record.entry import Origin
from cxrprep.storage.paths import CACHE_NAME
from cxrprep.storage.sorted_tables import PATHS, HeldRows, by_path
from cxrprep.verification.check_cache import Checks
from cxrprep.verification.file_checks import STAGE, FileCheck
from cxrprep.verification.finding import REPAIRABLE, Finding, Kind, Level, make_finding
from cxrprep.verification.findings_table import Collector
from cxrprep.verification.image_checks import ImageCounts, PictureCheck, drawn
from cxrprep.verification.made_from import outdated_images
from cxrprep.verification.merge_join import Row, absent, merge_join
from cxrprep.verification.own_tables import altered_tables, not_noted
from cxrprep.verification.report import VerifyReport
from cxrprep.verification.scan import leftover, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.executors import Engine
    from cxrprep.model import ImageCheck
    from cxrprep.verification.options import VerifyOptions

_NOTHING_PUBLISHED: Final = HeldRows(pa.schema([("path", pa.string()), ("digest", pa.string())]).empty_table())


@dataclass(frozen=True, slots=True)
class MadeFolder:
    """A folder that cxrprep made, as it is to be.

    Attributes:
        root: where its files lie; ``home`` where its manifests do.
        files: ``path``, ``size`` in bytes, ``digest`` (algorithm:hexadecimal) and ``state`` of every file.
        images: of converted images ``path``, ``width`` and ``height`` in pixels, ``source_path`` and ``source_digest``,
            else ``None``.
        originals: ``path`` and ``digest`` of the folder that they were made from, where it is known.
        tables: digests of the tables in ``manifests``, by name.
        own: names in the root that are no part of it.
        again: the command that makes it again.
        commands: the command that makes a file again, of those that another one makes.
        are_originals: whether nothing can make its files again.
        left_out_as: what a file that no table names is called where it is no part of this folder, ``""`` where nobody
            needs to know of it, ``None`` where it is a part; without it every file is.
        keeps_findings: whether findings and the cache of checks may be written beside it.
    """

    root: Path
    home: Path
    spec: DatasetSpec
    release: str
    files: pa.Table
    images: pa.Table | None = None
    originals: pa.Table | None = None
    tables: Mapping[str, str] = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    again: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    keeps_findings: bool = True
    are_originals: bool = False
    left_out_as: Callable[[str], str | None] | None = None


@dataclass(slots=True)
class _MadeFileCheck(FileCheck):
    """Files of a folder that cxrprep made: one that nothing names is no part of it."""

    named: frozenset[str] = frozenset()
    are_originals: bool = False

    def _stranger(self, row: Row) -> Finding | None:
        remains = leftover(row.path)
        if row.path in self.named or (self.are_originals and remains is None):
            return make_finding(Kind.UNPROVEN, row.path, "no checksum of it was recorded", found=row.size)
        if remains is not None:
            return make_finding(
                remains, row.path, "left by an interrupted run or by another tool", hint="it can be removed"
            )
        hint = "move it out of the folder"
        if shard_tables(self.root / "manifests"):
            hint = f"list it with the same convert once without --shard, or {hint}"
        return make_finding(Kind.EXTRA, row.path, "no table of this folder names it", hint=hint)


def verify_made(
    folder: MadeFolder,
    options: VerifyOptions,
    *,
    check_image: Callable[[Path | str], ImageCheck] | None,
    engine: Engine | None,
    on_event: Sink,
) -> VerifyReport:
    """What is true of a folder that cxrprep made.

    Args:
        folder: the folder and what was written down of it.
        options: how far to look.
        check_image: decodes one image; ``None`` where none is to be decoded.
        engine: where images are decoded; ``None`` means in this process.
        on_event: is told of progress and of what is wrong.

    Returns:
        The report; it promises nothing that was not looked at.

    Raises:
        StorageError: when nothing can be written beside the manifests.
    """
    started = time.monotonic()
    not_checked: list[str] = []
    if options.shard is not None:
        not_checked.append(f"files of other shards: this is shard {options.shard}")
    with _home(folder) as home, Collector(home / "manifests" / options.table_name, options.demanded) as out:
        left_out: Counter[str] = Counter()
        check, wrong = _bytes(folder, home, options, out, left_out, on_event=on_event)
        not_checked += check.counts.unread()
        if options.quick:
            not_checked.append("the tables beside the images: run without --quick")
        else:
            not_checked += not_noted(folder.root, folder.home)
            for finding in (*_tables(folder), *_originals(folder, not_checked)):
                out.finding(finding)
        counts = _images(
            folder, options, out, wrong=wrong, not_checked=not_checked, check_image=check_image, engine=engine,
            on_event=on_event,
        )  # fmt: skip
        named = 0 if folder.images is None else folder.images.num_rows
        as_files = folder.images is not None and _are_files(folder)
        return VerifyReport.of(
            out,
            options,
            started,
            dataset=folder.spec.name,
            release=folder.release,
            root=folder.root,
            path=out.finish() if folder.keeps_findings else None,
            files=check.counts,
            images=counts,
            images_here=named - (out.counts[Kind.MISSING] if as_files else 0),
            images_named=named,
            facts=(),
            not_checked=tuple(not_checked),
            left_out=tuple(left_out.most_common()),
            made=not folder.are_originals,
        )


@contextlib.contextmanager
def _home(folder: MadeFolder) -> Iterator[Path]:
    """Where findings and the cache of checks are written: beside the manifests, or for this run alone."""
    if folder.keeps_findings:
        yield folder.home
        return
    with tempfile.TemporaryDirectory(prefix="cxrprep-") as passing:
        yield Path(passing)


def _bytes(
    folder: MadeFolder, home: Path, options: VerifyOptions, out: Collector, left_out: Counter[str], *, on_event: Sink
) -> tuple[FileCheck, frozenset[str]]:
    """Check every file, and count what is none of this folder's.

    Args:
        folder: what was written down of it.
        home: where what is known of its bytes is kept.
        options: how far to look.
        out: takes the findings.
        left_out: counts what is no part of it, by what it is.
        on_event: is told of progress and of what is wrong.

    Returns:
        The check with its counts, and the paths of what is wrong or could not be read.
    """
    started = time.monotonic()
    on_event(StageStarted(STAGE))
    recorded = by_path(folder.files)
    recorded = recorded.append_column("origin", pa.array([str(Origin.FIRST_READ)] * len(recorded), pa.string()))
    if options.shard is not None:
        recorded = recorded.filter(options.mask(recorded["path"].to_pylist()))
    problems: list[Finding] = []
    wrong: set[str] = set()
    seen = [PATHS.empty_table()]
    checks = Checks(home / CACHE_NAME)
    check = _MadeFileCheck(folder.root, folder.spec, folder.release, "", checks, on_event, options.jobs)
    check.are_originals = folder.are_originals
    check.named = frozenset(recorded.filter(pc.is_null(recorded["digest"]))["path"].to_pylist())

    def take(finding: Finding) -> None:
        if finding.level is Level.ERROR:
            wrong.add(finding.path)
        out.finding(_hinted(finding, folder))

    def listed() -> Iterator[pa.Table]:
        for table in scan(folder.root, problems, [folder.home] if folder.home != folder.root else []):
            part = table.filter(pc.invert(pc.is_in(table["path"], value_set=pa.array(sorted(folder.own), pa.string()))))
            part = _of_this_folder(part, recorded, folder, left_out)
            part = part if options.shard is None else part.filter(options.mask(part["path"].to_pylist()))
            if part.num_rows:
                seen.append(part.select(["path"]))
                yield part

    try:
        known = checks.known(quick=options.quick)
        check.run(merge_join(listed(), HeldRows(recorded), _NOTHING_PUBLISHED, known), take, out.proven)
        disk = HeldRows(pa.concat_tables(seen))
        for problem in problems:
            take(problem)
        for finding in absent(disk, HeldRows(recorded), {}):
            if finding.path not in wrong:
                take(dataclasses.replace(finding, detail="it was here when the folder was made"))
        checks.finish(disk, keep_others=options.shard is not None)
    finally:
        checks.close()
    check.finish(len(wrong), started)
    return check, frozenset(wrong)


def _of_this_folder(listed: pa.Table, recorded: pa.Table, folder: MadeFolder, left_out: Counter[str]) -> pa.Table:
    """What is listed, without files among a hospital's images that are none: those are counted by what they are."""
    if folder.left_out_as is None:
        return listed
    known = pc.is_in(listed["path"], value_set=recorded["path"].combine_chunks()).to_pylist()
    kept = []
    for path, named in zip(listed["path"].to_pylist(), known, strict=True):
        kind = None if named or leftover(path) is not None else folder.left_out_as(path)
        kept.append(kind is None)
        if kind:
            left_out[kind] += 1
    return listed.filter(pa.array(kept, pa.bool_()))


def _hinted(finding: Finding, folder: MadeFolder) -> Finding:
    """The finding with the command that mends it here: nothing is fetched again in a folder that was made."""
    if finding.kind not in REPAIRABLE and finding.kind is not Kind.UNPROVEN:
        return finding
    again = folder.commands.get(finding.path, folder.again)
    if finding.kind is Kind.UNPROVEN:
        return dataclasses.replace(finding, hint=f"to have it written down: {again}" if again else "")
    if folder.are_originals:
        taken = "leave it out" if finding.kind is Kind.MISSING else "take it as it is"
        # What was known of a file that is here is given up when somebody says so.
        loss = "" if finding.kind is Kind.MISSING else " --allow-loss"
        return dataclasses.replace(finding, hint=f"restore it; or, to {taken}: {again}{loss}")
    remove = "" if finding.kind is Kind.MISSING else "remove it, then: "
    return dataclasses.replace(finding, hint=f"{remove}{again}" if again else "make it again")


def _tables(folder: MadeFolder) -> Iterator[Finding]:
    """Tables beside the images whose bytes are not those that were written down."""
    for name, stated in sorted(folder.tables.items()):
        shown = f"manifests/{name}"
        # With --state the folder's own tables lie where they were made.
        path = next(
            (place / shown for place in (folder.home, folder.root) if (place / shown).is_file()), folder.home / shown
        )
        if not path.is_file():
            yield make_finding(Kind.MISSING, shown, "it was here when the folder was made", hint=folder.again)
            continue
        found = file_digest(path, stated.partition(":")[0])
        if found != stated:
            detail = "its bytes are not those that were recorded"
            yield make_finding(Kind.ALTERED, shown, detail, expected=stated, found=found, hint=folder.again)
    words = shlex.join(folder_words(folder.root, folder.home, folder.spec.name))
    for finding in altered_tables(folder.root, folder.home, words, folder.again):
        if finding.path.removeprefix("manifests/") not in folder.tables:
            yield finding


def _originals(folder: MadeFolder, not_checked: list[str]) -> Iterator[Finding]:
    """Images that were made from other bytes than their original has now, by the record of the original folder."""
    if folder.images is None or folder.are_originals:
        return
    if folder.originals is None:
        not_checked.append(
            "whether the originals are still those that the images were made from: they are not beside it"
        )
        return
    yield from outdated_images(folder.images, folder.originals, folder.again)


def _images(
    folder: MadeFolder,
    options: VerifyOptions,
    out: Collector,
    *,
    wrong: frozenset[str],
    not_checked: list[str],
    check_image: Callable[[Path | str], ImageCheck] | None,
    engine: Engine | None,
    on_event: Sink,
) -> ImageCounts | None:
    """Decode what was asked for, and compare its size with what its table states."""
    if check_image is None:
        not_checked.append("the images' pixels: run with --images")
        return None
    if folder.images is None or not _are_files(folder):
        not_checked.append("the images' pixels: the images are inside shards, whose checksums are compared")
        return None
    rows = folder.images.select(["path", "width", "height"]).to_pylist()
    sizes = {row["path"]: (row["width"], row["height"]) for row in rows}
    shard = options.shard
    sound = sorted(path for path in sizes if path not in wrong and (shard is None or shard.holds(path)))
    chosen = drawn(sound, options, not_checked)
    check = PictureCheck(
        folder.root, folder.spec, folder.release, check_image, engine, on_event, options.duplicates, sizes
    )
    check.counts.here = len(sizes)
    hint = f"remove it, then: {folder.again}" if folder.again else ""
    for finding in check.run_stage(chosen, lambda _: None):
        out.finding(finding if finding.kind is Kind.DUPLICATE_PIXELS else dataclasses.replace(finding, hint=hint))
    return check.counts


def _are_files(folder: MadeFolder) -> bool:
    """Whether each image is a file of its own, and none lies in a file of many."""
    assert folder.images is not None
    return bool(pc.all(pc.is_in(folder.images["path"], value_set=folder.files["path"].combine_chunks())).as_py())
