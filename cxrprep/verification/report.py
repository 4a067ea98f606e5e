"""Report of a verification: what was checked, what was found, what was not checked."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import ExitCode, most_pressing
from cxrprep.humanize import format_bytes, format_count
from cxrprep.verification.finding import Finding, Kind, Level
from cxrprep.verification.published_facts import FactCheck, FactStatus

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.verification.file_checks import FileCounts
    from cxrprep.verification.findings_table import Collector
    from cxrprep.verification.image_checks import ImageCounts
    from cxrprep.verification.options import VerifyOptions


_EXAMPLES: Final = 5
_TOTALS: Final = frozenset({"rows", "images", "studies", "patients", "reports", "boxes"})


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What verification found. It speaks of what was checked only; ``not_checked`` says in sentences what was not.

    ``files`` and ``images`` count; ``images_named`` is how many images the tables name (or the release has, where no
    table is here), ``images_here`` how many of them lie in the folder. ``counts`` has every finding by kind;
    ``findings`` holds up to a thousand of each kind, and ``path`` names the Parquet file that holds them all.
    ``made`` says that cxrprep itself wrote the files, and noted their checksums then. ``left_out`` counts what lies
    among images of one's own and is none: files by suffix, DICOM objects by kind.
    """

    dataset: str
    release: str
    root: Path
    path: Path | None
    files: FileCounts
    images: ImageCounts | None
    images_here: int
    images_named: int
    facts: tuple[FactCheck, ...]
    counts: dict[Kind, int]
    levels: dict[Level, int]
    findings: tuple[Finding, ...]
    not_checked: tuple[str, ...]
    left_out: tuple[tuple[str, int], ...] = ()
    made: bool = False
    repaired: int = 0
    strict: bool = False
    unaccepted: tuple[Kind, ...] = ()
    seconds: float = 0.0

    @classmethod
    def of(cls, out: Collector, options: VerifyOptions, started: float, **found: Any) -> VerifyReport:
        """The report of what ``out`` took since ``started`` by the monotonic clock, and was ``found`` beside that."""
        return cls(
            counts=dict(sorted(out.counts.items(), key=lambda item: list(Kind).index(item[0]))),
            levels=dict(out.levels),
            findings=tuple(out.kept),
            strict=options.strict,
            unaccepted=tuple(sorted(out.lesser - options.accept, key=list(Kind).index)),
            seconds=time.monotonic() - started,
            **found,
        )

    def __repr__(self) -> str:
        """One line; ``findings`` and ``as_dict()`` have the rest."""
        return f"<VerifyReport {self.dataset} {self.release}, {self.root}: {self.verdict}>"

    @property
    def exit_code(self) -> ExitCode:
        """0; 3 when something could not be read; 4 when anything does not hold.

        With ``strict`` the kinds of warnings and notes that were not accepted count as well.
        """
        errors = self.levels.get(Level.ERROR, 0)
        unread = self.counts.get(Kind.UNCHECKED, 0)
        codes = [ExitCode.PARTIAL] if unread else []
        if errors > unread or (self.strict and self.unaccepted):
            codes.append(ExitCode.INTEGRITY)
        return most_pressing(codes)

    @property
    def verdict(self) -> str:
        """One sentence that promises nothing that was not looked at."""
        errors = self.levels.get(Level.ERROR, 0)
        if errors:
            kinds = ", ".join(dict.fromkeys(str(one.kind) for one in self.findings if one.level is Level.ERROR))
            return f"{format_count(errors, 'fault')} found: {kinds}"
        if self.strict and self.unaccepted:
            kinds = ", ".join(f"{self.counts[kind]:,} {kind}" for kind in self.unaccepted)
            names = ",".join(map(str, self.unaccepted))
            return f"strict, and not accepted: {kinds} (after a look at them: --accept {names})"
        if self.files.believed:
            return (
                f"nothing wrong in what was checked: of {self.files.here:,} files {self.files.read:,} were read now, "
                f"and {self.files.believed:,} have the size and time of the last check"
            ) + self._by_the_store()
        if self.files.here and self.files.proven == self.files.here:
            return self._all_proven() + self._by_the_store()
        files = self.files
        without = f"{files.here - files.proven - files.listed:,} of {format_count(files.here, 'file')}"
        listed = f", {files.listed:,} with one that nobody vouches for" if files.listed else ""
        return f"no fault found; {without} without a checksum to compare with{listed}" + self._by_the_store()

    def _by_the_store(self) -> str:
        """What the verdict rests on where a store's word was taken for bytes that nobody read here."""
        if not self.files.stated:
            return ""
        rest = self.files.here - self.files.stated
        read = f"; the other {rest:,} were read" if rest and rest == self.files.read else ""
        return f" ({self.files.stated:,} of them by the checksum that the store states, and not read now{read})"

    def _all_proven(self) -> str:
        """The verdict where each file has a checksum: one of what was first read proves only that it stayed so."""
        files = self.files
        first = "had when they were first read"
        if not files.first_read or self.made:
            words = "were written with" if self.made else "should have"
            return f"all {files.here:,} files here have the bytes that they {words}"
        if files.first_read == files.here:
            return f"all {files.here:,} files here have the bytes that they {first}; no checksum of them is published"
        return (
            f"no fault found; of {files.here:,} files {files.here - files.first_read:,} have the bytes that they "
            f"should have, and {files.first_read:,} those that they {first}"
        )

    def rows(self) -> list[tuple[str, str]]:
        """What to show people: a label and a sentence a line; the gravest findings first, with some examples each."""
        shown = [("verdict", self.verdict)]
        for kind, count in self._gravest_first():
            examples = [finding for finding in self.findings if finding.kind is kind][:_EXAMPLES]
            lines = [f"{count:,}"] if count > 1 else []
            lines += [": ".join(part for part in (one.path, one.detail) if part) for one in examples]
            if count > len(examples):
                lines.append(f"and {count - len(examples):,} more, in {self.path}")
            if examples and examples[0].hint:
                lines.append(f"({examples[0].hint})")
            shown.append((str(kind), "\n".join(lines)))
        files = self.files
        shown.append(("files", f"{files.here:,} here, {format_bytes(files.size_here)}"))
        for count, what in (
            (files.published, "with the publisher's checksum"),
            (files.transport, "with the checksum that the server sent, kept in the record"),
            (
                files.first_read,
                "with the checksum that was noted when they were made"
                if self.made
                else "unchanged since they were first read; no checksum of them is published",
            ),
            (files.listed, "with the checksum in a list in the folder, which may not be the publisher's"),
            (files.unproven, "unproven: there is no published or recorded checksum to compare with"),
            (files.stated, "not read now: the store states the checksum that they should have"),
            (files.believed, "not read now: size and time are those of the last full check"),
        ):
            if count:
                shown.append(("", f"{count:,} {what}"))
        if self.images_named:
            shown.append(("images", f"{self.images_here:,} of {self.images_named:,} here"))
        if self.images is not None:
            shown.append(("", f"{self.images.decoded:,} of {self.images.here:,} decoded"))
            scores = self.images.summary()
            if scores is not None:
                shown.append(("", scores.words()))
        shown += [(f"{count:,} left out", f"no image: {kind}") for kind, count in self.left_out]
        if self.facts:
            shown.append(("published facts", "\n".join(self._facts())))
        shown += [("not checked", sentence) for sentence in self.not_checked]
        return shown

    def _facts(self) -> list[str]:
        """How many hold, and the totals of which a part is here."""
        statuses = Counter(fact.status for fact in self.facts)
        words = {
            FactStatus.HOLDS: "hold",
            FactStatus.CONTRADICTED: "contradicted",
            FactStatus.EXPLAINED: "other than published, for a known reason",
        }
        lines = [f"{statuses[status]} {what}" for status, what in words.items() if statuses[status]]
        counted = [fact for fact in self.facts if fact.status is FactStatus.PART and isinstance(fact.found, int)]
        totals = [fact for fact in counted if fact.measure in _TOTALS and fact.expected]
        # Of several numbers of one thing the release's own: not a stale one, and not that of a lesser table.
        totals.sort(key=lambda fact: (not fact.note, fact.expected))
        named = {fact.measure: fact for fact in totals}
        part = [f"{one.found:,} of {one.expected:,} {name}" for name, one in named.items()]
        return [*(lines or ["none could be checked"]), *([f"counted here: {', '.join(part)}"] if part else [])]

    def _gravest_first(self) -> list[tuple[Kind, int]]:
        order = list(Level)
        grave = {finding.kind: order.index(finding.level) for finding in reversed(self.findings)}
        return sorted(self.counts.items(), key=lambda item: grave[item[0]])

    def _scores(self) -> dict[str, Any] | None:
        """What the scores of the images say of all of them, and the worst by each."""
        summary = None if self.images is None else self.images.summary()
        if self.images is None or summary is None:
            return None
        facts = {**asdict(summary), "is_mirrored_batch": summary.is_mirrored_batch}
        return {**facts, "worst": self.images.worst()}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        files = self.files
        return {
            "dataset": self.dataset,
            "release": self.release,
            "root": str(self.root),
            "verdict": self.verdict,
            "files": {
                "here": files.here,
                "bytes": files.size_here,
                "proven": {"published": files.published, "transport": files.transport, "first-read": files.first_read},
                "listed": files.listed,
                "unproven": files.unproven,
                "read": files.read,
                "bytes_read": files.size_read,
                "believed": files.believed,
                "stated": files.stated,
            },
            "images": {
                "here": self.images_here,
                "of": self.images_named,
                "decoded": self.images.decoded if self.images else 0,
                "scores": self._scores(),
            },
            "facts": [fact.as_dict() for fact in self.facts],
            "counts": {str(kind): count for kind, count in self.counts.items()},
            "levels": {str(level): count for level, count in self.levels.items()},
            "findings": [finding.as_dict() for finding in self.findings],
            "findings_left_out": sum(self.counts.values()) - len(self.findings),
            "not_checked": list(self.not_checked),
            "left_out": [list(one) for one in self.left_out],
            "repaired": self.repaired,
            "strict": self.strict,
            "not_accepted": [str(kind) for kind in self.unaccepted] if self.strict else [],
            "seconds": round(self.seconds, 3),
            "table": str(self.path) if self.path else None,
        }
