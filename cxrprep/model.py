"""Model: digests, remote files, image ids and selections, as frozen dataclasses.

Frozen, without I/O, standard library only. An unknown value is ``None``, never 0 and never ``""``.
"""

from __future__ import annotations

import enum
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_HEX_LENGTHS: Final[Mapping[str, int]] = {"md5": 32, "sha1": 40, "sha256": 64, "crc32": 8, "crc32c": 8}
_HEX: Final = re.compile("[0-9a-f]*")
CONVERSION_KEY: Final = b"cxrprep"
"""The key of the text in each image that a conversion made."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A checksum with its algorithm; ``str()`` is ``"sha256:ab..."``, its only spelling anywhere.

    ``algorithm`` is md5, sha1, sha256, crc32 or crc32c; ``value`` is lower-case hexadecimal. Raises ``ValueError``
    for an unknown algorithm and for a value of the wrong length.
    """

    algorithm: str
    value: str

    def __post_init__(self) -> None:
        """Refuse what could never equal a computed digest."""
        length = _HEX_LENGTHS.get(self.algorithm)
        if length is None:
            message = f"unknown digest algorithm {self.algorithm!r}; known: {', '.join(_HEX_LENGTHS)}"
            raise ValueError(message)
        if len(self.value) != length or _HEX.fullmatch(self.value) is None:
            message = f"{self.value!r} is not a {self.algorithm} digest: expected {length} lower-case hex digits"
            raise ValueError(message)

    def __str__(self) -> str:
        """The spelling that files, logs and tables use."""
        return f"{self.algorithm}:{self.value}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The digest that ``"sha256:ab..."`` spells; upper-case hexadecimal is accepted. Raises ``ValueError``."""
        algorithm, colon, value = text.partition(":")
        if not colon:
            message = f"{text!r} has no algorithm; write it as sha256:{text[:8]}..."
            raise ValueError(message)
        return cls(algorithm.lower(), value.strip().lower())


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as a source lists it.

    ``key`` is its name within the source, ``/``-separated and relative. ``size`` is in bytes. ``digest`` is what the
    publisher states of the content. ``validator`` (an ETag, a generation, ``mtime-size``) changes with the content.
    """

    key: str
    size: int | None = None
    digest: Digest | None = None
    validator: str | None = None
    modified: datetime | None = None


class Projection(enum.StrEnum):
    """Which way the beam went, as far as training needs to know."""

    FRONTAL = "frontal"
    LATERAL = "lateral"
    OTHER = "other"


class View(enum.StrEnum):
    """A radiographic view, normalised over the three collections."""

    PA = "PA"
    AP = "AP"
    LATERAL = "LATERAL"
    LL = "LL"
    RL = "RL"
    AP_AXIAL = "AP_AXIAL"
    AP_LLD = "AP_LLD"
    AP_RLD = "AP_RLD"
    PA_LLD = "PA_LLD"
    PA_RLD = "PA_RLD"
    XTABLE_LATERAL = "XTABLE_LATERAL"
    LAO = "LAO"
    RAO = "RAO"
    LPO = "LPO"
    RPO = "RPO"
    SWIMMERS = "SWIMMERS"
    L5_S1 = "L5_S1"
    AP_SUPINE = "AP_SUPINE"
    COSTAL = "COSTAL"

    @property
    def projection(self) -> Projection:
        """Frontal for PA and AP, lying too; lateral for LATERAL, LL and RL; other for oblique views and the rest."""
        if self in (View.PA, View.AP, View.AP_SUPINE):
            return Projection.FRONTAL
        if self in (View.LATERAL, View.LL, View.RL):
            return Projection.LATERAL
        return Projection.OTHER


class Split(enum.StrEnum):
    """A part of a release meant for one purpose. NIH's ``train_val`` is never divided silently."""

    TRAIN = "train"
    VALIDATE = "validate"
    TEST = "test"
    TRAIN_VAL = "train_val"

    @classmethod
    def parse(cls, text: str) -> Split:
        """The split that ``text`` names, in any case; ``valid`` and ``val`` are understood. Raises ``ValueError``."""
        name = text.strip().lower().replace("-", "_")
        return cls({"valid": "validate", "val": "validate", "validation": "validate"}.get(name, name))


@dataclass(frozen=True, slots=True, order=True)
class ImageId:
    """What a path says of an image; a label table may know more (the view, mostly).

    ``patient``, ``study`` and ``image`` are ids as the manifest spells them; ``view`` is ``None`` where it is silent.
    ``projection`` (``frontal``, ``lateral``) is what it says where that is no view, and ``split`` that of its patient.
    """

    patient: str
    study: str
    image: str
    view: View | None = None
    projection: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class LabelTest:
    """A condition on one observation: ``value`` is 1, 0, -1, or ``None`` for "not mentioned"."""

    observation: str
    value: int | None = 1

    def __str__(self) -> str:
        """The command-line spelling, ``Cardiomegaly=1``."""
        return f"{self.observation}={'null' if self.value is None else self.value}"


@dataclass(frozen=True, slots=True)
class ColumnTest:
    """A condition on one column of the manifest: ``operator`` is ``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.

    ``value`` is as it was written: a number, a word, or ``null``.
    """

    column: str
    operator: str
    value: str

    def __str__(self) -> str:
        """The command-line spelling, ``contrast>=0.1``."""
        return f"{self.column}{self.operator}{self.value}"

    @classmethod
    def parse(cls, text: str) -> ColumnTest:
        """The condition that ``text`` states. Raises ``ValueError``."""
        found = re.fullmatch(r"\s*(\w+)\s*(!=|<=|>=|==|=|<|>)\s*([^<>=!\s].*?)\s*", text)
        if found is None:
            raise ValueError(
                f"{text!r} is not a condition on a column; write COLUMN>=NUMBER, COLUMN=WORD or COLUMN=null"
            )
        return cls(found[1], "=" if found[2] == "==" else found[2], found[3])


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of a release are wanted; the default wants all. A value: it is recorded in the lock.

    ``include`` and ``exclude`` are gitignore-style globs on release paths. ``views`` holds view names or projections.
    Repeated ``labels`` mean any of them, repeated ``where`` all of them. ``limit`` counts images after everything else;
    ``sample`` draws that many images by a hash of ``seed`` and image id, so a draw does not depend on the order of the
    listing.

    Examples:
        >>> import cxrprep
        >>> from cxrprep.model import Split
        >>> wanted = cxrprep.Selection(splits=frozenset({Split.TEST}), limit=1)
        >>> len(cxrprep.load("nih", selection=wanted))
        1
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    patients: frozenset[str] = frozenset()
    studies: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    splits: frozenset[Split] = frozenset()
    views: frozenset[str] = frozenset()
    labels: tuple[LabelTest, ...] = ()
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    where: tuple[ColumnTest, ...] = ()

    @property
    def needs_tables(self) -> bool:
        """Whether paths alone cannot answer it: splits, views, labels and columns stand in tables."""
        return bool(self.splits or self.views or self.labels or self.where)

    @property
    def names_ids(self) -> bool:
        """Whether it names patients, studies or images."""
        return bool(self.patients or self.studies or self.images)

    @property
    def draws(self) -> bool:
        """Whether it takes some of the images that the rest of it leaves, which needs all of them at once."""
        return self.limit is not None or self.sample is not None

    @property
    def is_everything(self) -> bool:
        """Whether it leaves nothing out."""
        return self == Selection(seed=self.seed)


@dataclass(frozen=True, slots=True)
class FolderRef:
    """The folder that a verb is about, and what its caller says of it before anything in it was read.

    ``root`` is a path, or for convert an address. ``dataset`` and ``release`` say what it holds where it does not say
    so itself, ``state`` is where record and manifests lie beside a ``root`` that is read-only, and ``tables`` holds the
    label tables where ``root`` has none.
    """

    root: Path | str
    dataset: str | None = None
    release: str | None = None
    state: Path | None = None
    tables: Path | None = None

    @classmethod
    def of(
        cls,
        root: Path | str | FolderRef,
        *,
        dataset: str | None = None,
        release: str | None = None,
        state: Path | str | None = None,
        tables: Path | str | None = None,
    ) -> FolderRef:
        """The folder that the parameters of a verb describe.

        Args:
            root: the folder; or all of it in one value, of which the other parameters replace what they say.
            dataset: the name of the dataset, where the folder does not say it.
            release: the release, where it is not the one that the folder shows.
            state: the folder of record and manifests, beside a ROOT that is read-only.
            tables: a folder with the label tables, where ROOT has none.

        Returns:
            the value that travels on.
        """
        known = root if isinstance(root, FolderRef) else cls(root if "://" in str(root) else Path(root))
        return cls(
            known.root,
            dataset or known.dataset,
            release or known.release,
            known.state if state is None else Path(state),
            known.tables if tables is None else Path(tables),
        )

    @property
    def path(self) -> Path:
        """The folder as a path."""
        return Path(self.root)

    @property
    def home(self) -> Path:
        """Where its record and manifests lie."""
        return self.state or self.path


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``index`` of ``count``; counts from 1, as in ``--shard 3/16``. Membership is by a hash of the key."""

    index: int
    count: int

    def __post_init__(self) -> None:
        """Refuse shards that would silently hold nothing."""
        if not 1 <= self.index <= self.count:
            message = f"shard {self.index}/{self.count} does not exist; shards count from 1 to {self.count}"
            raise ValueError(message)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shard that ``"3/16"`` names. Raises ``ValueError``."""
        index, slash, count = text.partition("/")
        if not slash or not index.strip().isdecimal() or not count.strip().isdecimal():
            message = f"{text!r} is not a shard; write it as 3/16"
            raise ValueError(message)
        return cls(int(index), int(count))

    def __str__(self) -> str:
        """The command-line spelling."""
        return f"{self.index}/{self.count}"

    @property
    def in_names(self) -> str:
        """The spelling in names of files and folders: ``3-of-16``."""
        return f"{self.index}-of-{self.count}"

    def holds(self, key: str) -> bool:
        """Whether ``key`` belongs to this part: stable over runs, hosts and Python versions."""
        return zlib.crc32(key.encode()) % self.count == self.index - 1


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle around a finding, in pixels of the image it belongs to; ``x``, ``y`` is its top left edge corner.

    ``reader`` drew it, ``score`` says how sure it is, where the release tells.
    """

    label: str
    x: float
    y: float
    w: float
    h: float
    reader: str | None = None
    score: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Label and sides, and who drew it and how sure it is where that is known."""
        told = {"reader": self.reader, "score": self.score}
        sides = {"label": self.label, "x": self.x, "y": self.y, "w": self.w, "h": self.h}
        return sides | {name: value for name, value in told.items() if value is not None}


# Images from which on the share of those that look mirrored tells something.
_TELLING: Final = 20


@dataclass(frozen=True, slots=True)
class ScoreSummary:
    """How many of the ``scored`` images are above the alarms of their scores, and the share that looks mirrored.

    Of collections as they are up to a quarter looks mirrored, of mirrored ones three quarters and more: the share of a
    batch tells what a single score does not.
    """

    scored: int
    inverted: int
    turned: int
    blank: int
    mirrored_share: float

    @property
    def is_mirrored_batch(self) -> bool:
        """Whether so many look mirrored that the whole batch may be."""
        return self.scored >= _TELLING and self.mirrored_share > 1 / 2

    def words(self) -> str:
        """In a line."""
        batch = ": the whole batch may be" if self.is_mirrored_batch else ""
        return (
            f"of {self.scored:,} images, {self.inverted:,} look inverted, {self.turned:,} turned, "
            f"{self.blank:,} blank; {self.mirrored_share:.0%} look mirrored{batch}"
        )


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """What a decoder found in one file.

    ``format`` is PNG, JPEG or DICOM by content, ``""`` for neither; ``mode`` the file's own pixel form (L, RGBA, I;16,
    MONOCHROME1, ...); ``bits`` per sample; ``constant`` says that all pixels have one value; ``pixels`` is a digest of
    the decoded pixels, asked for only to find duplicates. ``error`` says in one line why it could not be decoded, and
    ``truncated`` that it ends too early. ``doubts`` say what a person should look at: inverted, turned, blank;
    ``scores`` are the numbers behind them, by the names of the manifest's columns, and ``alarms`` those that say so:
    inverted, rotated, blank, mirrored.
    """

    format: str = ""
    width: int | None = None
    height: int | None = None
    mode: str = ""
    bits: int | None = None
    constant: bool = False
    has_pixels: bool = True
    pixels: str | None = None
    error: str = ""
    truncated: bool = False
    doubts: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    alarms: frozenset[str] = frozenset()
