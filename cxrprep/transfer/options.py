"""Options of a transfer: how a plan is applied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cxrprep.record.entry import Origin
from cxrprep.sources.base import SourceOptions
from cxrprep.transfer.file_fetch import SPLIT_FROM
from cxrprep.transfer.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.model import Shard


@dataclass(frozen=True, slots=True)
class TransferOptions(SourceOptions):
    """How a plan is applied, beside how its source is reached.

    ``connections`` overrides what the source calls polite; ``limit_rate`` is bytes a second in all; ``link`` is copy,
    reflink or hardlink for files of this machine; ``listing_origin`` says whose digests the listing holds; ``passing``
    tells the release paths that ``on_complete`` uses up, for which no lasting room is needed; ``spent`` tells whether
    what an earlier run used up need not come again (default: never); ``wrong`` names release paths whose bytes a check
    found to be wrong, which are fetched again; ``folder_lock=False`` leaves out the message that another run is at work
    here (tests of file systems without locks). ``planning`` is for a run that is to say what would be done: it asks
    nobody and writes nothing, unless label tables have to come first.
    """

    limit_rate: int | None = None
    keep_archives: bool = False
    link: str = "copy"
    shard: Shard | None = None
    listing_origin: Origin = Origin.PUBLISHED
    passing: Callable[[str], bool] | None = None
    spent: Callable[[str], bool] | None = None
    wrong: frozenset[str] = frozenset()
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    split_from: int = SPLIT_FROM
    folder_lock: bool = True
    planning: bool = False
