"""Image checks: decoded, so that a corrupt image shows, and compared with what the release's images are."""

from __future__ import annotations

import hashlib
import heapq
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import AccessError, CxrprepError, MissingExtraError, SourceUnreachableError
from cxrprep.events import Advanced, ItemFinished, Sink, StageFinished, StageStarted
from cxrprep.executors import Engine, Lost, begin_item
from cxrprep.humanize import without_path
from cxrprep.model import ImageCheck, ScoreSummary
from cxrprep.storage.working_copy_paths import address_of
from cxrprep.verification.file_checks import STAGE
from cxrprep.verification.finding import Finding, Kind, Level, make_finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec, Quirk
    from cxrprep.verification.options import VerifyOptions

_BATCH: Final = 16
# What converting grants an image too, if nobody says otherwise.
_SECONDS: Final = 120.0
_BAD_WHEN_HIGH: Final = ("inverted_score", "turned_score", "mirrored_score", "not_frontal_score")
# Images that are named for each score.
_WORST: Final = 12
_FORMATS: Final[Mapping[str, str]] = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".dcm": "DICOM"}


@dataclass(slots=True)
class ImageCounts:
    """How many images were tried and ``decoded``, of how many that are here, and what their scores say."""

    checked: int = 0
    decoded: int = 0
    here: int = 0
    scored: int = 0
    alarms: Counter[str] = field(default_factory=Counter)
    _worst: dict[str, list[tuple[float, str]]] = field(default_factory=dict)

    def add_scores(self, path: str, check: ImageCheck) -> None:
        """Count what the pixels of one image say of it, and keep it while it is among the worst."""
        self.scored += 1
        self.alarms.update(check.alarms)
        for name in _BAD_WHEN_HIGH:
            held = self._worst.setdefault(name, [])
            (heapq.heappush if len(held) < _WORST else heapq.heappushpop)(held, (check.scores[name], path))

    def summary(self) -> ScoreSummary | None:
        """How many are above the alarms; ``None`` where no image was decoded."""
        if not self.scored:
            return None
        found = self.alarms
        share = round(found["mirrored"] / self.scored, 4)
        return ScoreSummary(self.scored, found["inverted"], found["rotated"], found["blank"], share)

    def worst(self) -> dict[str, list[dict[str, Any]]]:
        """The images with the highest scores, the highest first: path and value, by the name of the score."""
        return {
            name: [{"path": path, "value": value} for value, path in sorted(held, key=lambda one: (-one[0], one[1]))]
            for name, held in self._worst.items()
        }


def drawn(paths: Sequence[str], options: VerifyOptions, not_checked: list[str]) -> Sequence[str]:
    """The images of ``paths`` that ``options`` ask for; what is left out is said in ``not_checked``.

    A sample is drawn by a hash of seed and path: the same draw whatever else is in the folder.
    """
    if options.sample is None or options.sample >= len(paths):
        return paths
    by_hash = sorted(paths, key=lambda path: hashlib.sha256(f"{options.seed}:{path}".encode()).digest())
    not_checked.append(f"the pixels of {len(paths) - options.sample:,} images: a sample was asked for")
    return sorted(by_hash[: options.sample])


@dataclass(slots=True)
class PictureCheck:
    """Checks images of one release; with ``duplicates``, ``pixels`` collects the paths by digests of their pixels.

    ``sizes`` is for converted images: width and height of each by its path, in place of what the release's images are.
    """

    root: Path
    spec: DatasetSpec
    release: str
    check_image: Callable[[Path | str], ImageCheck]
    engine: Engine | None
    on_event: Sink
    duplicates: bool = True
    sizes: Mapping[str, tuple[int, int]] | None = None
    counts: ImageCounts = field(default_factory=ImageCounts)
    pixels: dict[bytes, list[str]] = field(default_factory=dict)

    def run_stage(self, paths: Sequence[str], split_of: Callable[[str], str | None]) -> Iterator[Finding]:
        """The stage of these images: what ``run`` finds, and with ``duplicates`` which of them show the same pixels."""
        started, failed = time.monotonic(), 0
        self.on_event(StageStarted(STAGE, items=len(paths), unit="images"))
        for finding in self.run(paths):
            failed += finding.level is Level.ERROR
            yield finding
        if self.duplicates:
            yield from same_pixels(self.pixels, split_of)
        self.on_event(StageFinished(STAGE, done=self.counts.checked, failed=failed, seconds=time.monotonic() - started))

    def run(self, paths: Iterable[str]) -> Iterator[Finding]:
        """What is wrong with the images ``paths``, or known to be odd about them."""
        engine = self.engine or Engine("inline")
        root: Path | str = self.root.absolute()
        if engine.name == "dask":
            # The machines of a cluster read images where they lie: they see no working copy of a bucket.
            root = address_of(str(root)) or root
        check = partial(check_some, self.check_image, root)
        for checked in engine.run(check, paths, batch=_BATCH, seconds=_SECONDS, on_event=self.on_event):
            if isinstance(checked, Lost):
                yield from self._settle(checked.item, ImageCheck(error=checked.cause))
            else:
                path, found = checked
                yield from self._settle(path, replace(found, error=without_path(found.error, f"{root}/{path}")))

    def _settle(self, path: str, check: ImageCheck) -> Iterator[Finding]:
        self.on_event(Advanced(STAGE, items=1))
        self.counts.checked += 1
        self.counts.decoded += not check.error
        if check.scores:
            self.counts.add_scores(path, check)
        if self.duplicates and check.pixels is not None:
            self.pixels.setdefault(hashlib.sha256(check.pixels.encode()).digest()[:16], []).append(path)
        finding = self._judge(path, check)
        if finding is not None:
            if finding.level is Level.ERROR:
                detail = f"{finding.kind}: {finding.detail}"
                self.on_event(ItemFinished(STAGE, path, "error", detail=detail, counted=True))
            yield finding

    def _judge(self, path: str, check: ImageCheck) -> Finding | None:
        facts = self.spec.images
        due = _FORMATS.get(path[path.rfind(".") :].lower(), "")
        if check.truncated:
            return make_finding(Kind.CUT_SHORT, path, check.error or "the image ends too early")
        if check.error and not check.format:
            return make_finding(Kind.UNDECODABLE, path, check.error)
        if due and check.format and check.format != due:
            return make_finding(
                Kind.WRONG_FORMAT, path, f"its content is {check.format}", expected=due, found=check.format
            )
        if not check.has_pixels:
            return make_finding(Kind.NO_PIXELS, path, "the file is in order but holds no pixel data")
        if check.error:
            return make_finding(Kind.UNDECODABLE, path, check.error)
        size, due_size = (check.width, check.height), (facts.width or check.width, facts.height or check.height)
        if self.sizes is not None:
            due_size = self.sizes.get(path, size)
        if size != due_size:
            return make_finding(
                Kind.WRONG_SIZE,
                path,
                f"{check.width} x {check.height} pixels",
                expected=f"{due_size[0]} x {due_size[1]}",
                found=f"{check.width} x {check.height}",
            )
        if self.sizes is not None:
            # Its depth and form are the recipe's, and the bytes are held to their digest.
            return None
        if facts.bits is not None and check.bits is not None and check.bits != facts.bits:
            deep = f"{check.bits} bits a sample"
            finding = make_finding(Kind.WRONG_DEPTH, path, deep, expected=facts.bits, found=check.bits)
            return self._unless_known(finding, f"bits-{check.bits}")
        if facts.modes and check.mode and check.mode not in facts.modes:
            form = f"its pixels are {check.mode}"
            finding = make_finding(Kind.WRONG_MODE, path, form, expected="|".join(facts.modes), found=check.mode)
            return self._unless_known(finding, f"mode-{check.mode.lower()}")
        if check.constant:
            return make_finding(Kind.CONSTANT, path, "all pixels have one value")
        if check.doubts:
            found = ", ".join(f"{name} {value}" for name, value in check.scores.items())
            return make_finding(Kind.DOUBTFUL, path, "; ".join(check.doubts), found=found)
        return None

    def _unless_known(self, finding: Finding, quirk_kind: str) -> Finding:
        """The finding, or a note where the release is known for it."""
        quirk = self._quirk(finding.path, {str(finding.kind), quirk_kind})
        if quirk is None:
            return finding
        detail = f"{finding.detail}: {quirk.note}"
        return replace(finding, level=Level.NOTE, detail=detail, hint="a known quirk of the release")

    def _quirk(self, path: str, kinds: set[str]) -> Quirk | None:
        return next((one for one in self.spec.quirk if one.kind in kinds and one.concerns(path, self.release)), None)


def check_some(
    check_image: Callable[[Path | str], ImageCheck], root: Path | str, paths: Sequence[str]
) -> list[tuple[str, ImageCheck]]:
    """Each of ``paths`` with what was found in it; an image that raises is one that cannot be decoded.

    ``root`` may be the address of a bucket folder, and what its store raises is raised: no image is to blame.
    """
    done = []
    for path in paths:
        begin_item()
        try:
            check = check_image(f"{root}/{path}" if isinstance(root, str) else root / path)
        except (AccessError, SourceUnreachableError, MissingExtraError):
            raise
        except CxrprepError as error:
            check = ImageCheck(error=error.message)
        except (OSError, ValueError, ArithmeticError, LookupError, MemoryError) as error:
            # Decoders fail in many ways on damaged input; the next image has nothing to do with it.
            check = ImageCheck(error=f"{type(error).__name__}: {error}")
        done.append((path, check))
    return done


def same_pixels(pixels: Mapping[bytes, list[str]], split_of: Callable[[str], str | None]) -> Iterator[Finding]:
    """Images that have exactly the same pixels; across splits that is leakage."""
    for paths in pixels.values():
        if len(paths) < 2:
            continue
        first, *others = sorted(paths)
        home = split_of(first)
        for path in others:
            split = split_of(path)
            if home is not None and split is not None and split != home:
                detail = f"the same pixels as {first}, which is in the split {home}"
                hint = "a model would be tested on what it was trained on: leave one of them out"
                yield make_finding(Kind.LEAKAGE, path, detail, expected=home, found=split, hint=hint)
            else:
                yield make_finding(Kind.DUPLICATE_PIXELS, path, f"the same pixels as {first}")
