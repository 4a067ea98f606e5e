"""Plan (dry run): listing x selection x local state. Pure: what is on the disk comes in through ``LocalState``."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cxrprep.checksum_files import NAMES as SUMS_NAMES
from cxrprep.errors import NothingSelectedError, UnsafePathError, UsageError
from cxrprep.model import Digest, ImageId, RemoteFile, Selection
from cxrprep.planning.plan import CHANGED, Action, Item, Plan
from cxrprep.planning.plan_items import SortedItems, items_of
from cxrprep.selection.filters import SelectionFilter, draw, report_of
from cxrprep.storage.paths import is_archive, safe_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cxrprep.datasets.facts import PublishedFile
    from cxrprep.datasets.layout import Layout

_NAMES_SHOWN: Final = 20
_FOUND_WRONG: Final = "verify found other bytes than it should have"


class RecordedFile(NamedTuple):
    """A row of the record, as plain values."""

    path: str
    size: int
    digest: str | None
    validator: str | None
    discarded: bool
    archive: str | None


class LocalState(Protocol):
    """What is here: the record, the disk, and the partial files."""

    same_mirror: bool
    """Whether the record's validators come from the mirror that is asked now."""
    wrong: frozenset[str]
    """Release paths whose bytes a check found to be wrong, though their sizes are right."""

    def rows(self) -> Iterator[RecordedFile]:
        """The record, sorted by path."""
        ...

    def size_of(self, path: str) -> int | None:
        """Bytes of the file at this release path; ``None`` when there is none."""
        ...

    def partial(self, path: str) -> int | None:
        """Bytes of a partial file that may be continued; ``None`` when there is none."""
        ...

    def members(self, archive: str) -> Sequence[tuple[str, int]] | None:
        """Release path and size of every file that the archive was seen to hold; ``None`` when it was never read."""
        ...


def make_plan(
    listing: Iterable[RemoteFile],
    layout: Layout,
    *,
    dataset: str,
    release: str,
    local_state: LocalState,
    mirror: str = "",
    mirror_is_named: bool = False,
    selection: Selection = Selection(),  # noqa: B008  # frozen
    images: frozenset[str] | None = None,
    published: Mapping[str, PublishedFile] | None = None,
    excused: frozenset[str] = frozenset(),
    unpack: Callable[[str], bool] = is_archive,
    in_place: bool = False,
    just_listed: bool = False,
) -> Plan:
    """The plan for a mirror's listing: each file that belongs to the release and is wanted, with its action.

    Args:
        listing: The files of the mirror.
        layout: The paths of the dataset.
        dataset: Its name.
        release: The release.
        local_state: What is here.
        mirror: The mirror's address.
        mirror_is_named: Whether the person named it.
        selection: What is wanted.
        images: The tables' answer to a selection by split, view or label.
        published: Sizes and digests that the publisher states and the listing does not, by release path.
        excused: Files that are known to differ from what is published: their digest is not asked for.
        unpack: Says which release paths are archives to be unpacked.
        in_place: Adopt the files where they lie, archives as they are.
        just_listed: With ``in_place``, the sizes of ``listing`` are those of this moment: no file is asked again.

    Returns:
        The plan.

    Raises:
        NothingSelectedError: The selection wants nothing.
        UsageError: It draws from archives although the tables were not asked which images there are.
    """
    selection_filter = SelectionFilter(selection, images)
    found = _Sorted(
        selection_filter, layout, release, published=published or {}, excused=excused, unpack=unpack, in_place=in_place
    )
    for file in listing:
        found.take(file)
    found.settle(selection, images)
    if (not found.tables and not len(found.images)) or found.misses(images):
        _nothing(found, selection)
    tables = sorted(found.tables, key=attrgetter("dest"))
    archives = [item for item in tables if item.archive]
    plain = [item for item in tables if not item.archive]
    chosen, known = SortedItems(), in_place and just_listed
    for item in _decided(found.chosen(), local_state, known=known):
        chosen.add(_adopted(item) if in_place else item)
    plain = list(_decided(plain, local_state, known=known))
    if in_place:
        # Adopted as they are: unpacked beside themselves they would fill a folder that is somebody else's.
        for item in (*plain, *_decided(archives, local_state, known=known)):
            _adopted(item).archive = False
    else:
        _decide_archives(archives, local_state, _member_wanted(selection_filter, layout))
    return Plan(
        dataset=dataset,
        release=release,
        mirror=mirror,
        mirror_is_named=mirror_is_named,
        items=items_of([*plain, *found.impossible, *archives], chosen),
        selection=selection,
        images=images,
        passed_over=found.passed_over,
        foreign=found.foreign,
        foreign_names=tuple(found.foreign_names),
        # What is in archives, and whose, is not known before they are here.
        unmet=() if archives else tuple(selection_filter.unmet(selection)),
        in_place=in_place,
    )


def _adopted(item: Item) -> Item:
    """``item`` of a folder that is adopted: what is there is kept."""
    if item.action is Action.REFETCH:
        # Nothing else could be had from here, and to record it anew would hide a change of its bytes.
        item.action, item.reason = Action.KEEP, CHANGED
    return item


@dataclass(slots=True, eq=False)
class _Sorted:
    """The listing sorted into tables (with archives), images, and what is left out."""

    selection_filter: SelectionFilter
    layout: Layout
    release: str
    published: Mapping[str, PublishedFile]
    excused: frozenset[str]
    unpack: Callable[[str], bool]
    in_place: bool
    tables: list[Item] = field(default_factory=list)
    images: SortedItems = field(default_factory=SortedItems)
    impossible: list[Item] = field(default_factory=list)
    passed_over: int = 0
    foreign: int = 0
    foreign_names: list[str] = field(default_factory=list)
    _seen: dict[str, Item] = field(default_factory=dict)
    _reports: SortedItems = field(default_factory=SortedItems)
    _unwanted_images: int = 0

    def take(self, file: RemoteFile) -> None:
        """Sort one file of the listing in."""
        try:
            dest = self.layout.place(safe_path(file.key), release=self.release)
            if dest is not None and dest != file.key:
                safe_path(dest)
        except UnsafePathError:
            dest = None
        if dest is None:
            if file.key.rpartition("/")[2] in SUMS_NAMES:
                # The mirror's list of what it has: it describes the release, and is no stray file.
                return
            self.foreign += 1
            if len(self.foreign_names) < _NAMES_SHOWN:
                self.foreign_names.append(file.key)
            return
        if self.in_place:
            dest = file.key
        elif dest == file.key:
            # One string for both: a plan has hundreds of thousands of them.
            dest = file.key
        shown = self.layout.shows_image(file.key)
        image = self.layout.parse(file.key) if shown and self.selection_filter.by_image else None
        if not self.selection_filter.wants(dest, image):
            self.passed_over += 1
            # What the globs leave out nobody misses.
            self._unwanted_images += shown and self.selection_filter.wants_path(dest)
            return
        item = Item(self._described(file, dest), dest, Action.FETCH, "not here")
        if shown:
            self.images.add(item)
        elif report_of(dest) is not None:
            self._reports.add(item)
        elif (twin := self._seen.setdefault(dest, item)) is not item:
            self._second(twin, item)
        else:
            item.archive = self.unpack(dest)
            self.tables.append(item)

    def chosen(self) -> Iterator[Item]:
        """Images and reports in order of path, each path once; what else has its place is impossible."""
        first: Item | None = None
        for item in self.images:
            if first is not None and first.dest == item.dest:
                self._second(first, item)
            else:
                first = item
                yield item

    def misses(self, images: frozenset[str] | None) -> bool:
        """Whether ids were asked for and none of them is there: tables alone are not what was wanted."""
        if len(self.images) or self.impossible:
            return False
        if images is not None and not images:
            return True
        # What an archive holds is known when it is here.
        hidden = any(item.archive for item in self.tables)
        return self.selection_filter.by_image and bool(self._unwanted_images) and not hidden

    def settle(self, selection: Selection, images: frozenset[str] | None) -> None:
        """Apply what needs all images at once: limit, sample, and the reports of the chosen studies."""
        drawing = selection.draws
        if drawing and any(item.archive for item in self.tables) and images is None:
            raise UsageError(
                "images inside archives cannot be counted before they are here",
                hint="--limit and --sample need the label tables there; or name images with --ids FILE",
            )
        if drawing and len(self.images):
            ids = (self._id(item).image for item in self.images)
            drawn = draw(ids, selection)
            kept = SortedItems()
            for item in self.images:
                if self._id(item).image in drawn:
                    kept.add(item)
            self.passed_over += len(self.images) - len(kept)
            self.images = kept
        self._settle_reports(drawing=drawing, named=bool(selection.include))

    def _id(self, item: Item) -> ImageId:
        # Read again when it is asked for: kept for every image, ids would take as much room as the plan.
        image = self.layout.parse(item.file.key)
        assert image is not None
        return image

    def _settle_reports(self, *, drawing: bool, named: bool) -> None:
        by_image = self.selection_filter.by_image or drawing
        if by_image and len(self._reports) and not named:
            # The reports of all patients in one archive, where those of the chosen ones come as files of their own.
            some = [item for item in self.tables if item.archive or not is_archive(item.dest)]
            self.passed_over += len(self.tables) - len(some)
            self.tables = some
        ids = map(self._id, self.images if by_image and len(self._reports) else ())
        studies = {(image.patient, image.study) for image in ids}
        # A listing without images (the study list) leaves patients and studies to decide.
        by_study = not len(self.images) and not drawing
        for item in self._reports:
            study = report_of(item.dest)
            wanted = not by_image or study in studies
            if wanted or (by_study and study is not None and self.selection_filter.wants_study(*study)):
                self.images.add(item)
            else:
                self.passed_over += 1
        self._reports = SortedItems()

    def _second(self, first: Item, second: Item) -> None:
        known, file = first.file, second.file
        same = known.size == file.size and (known.digest == file.digest or None in (known.digest, file.digest))
        if same or known.key == file.key:
            self.passed_over += 1
            return
        reason = f"{known.key} and {file.key} would be saved under one name and are different files"
        self.impossible.append(Item(file, second.dest, Action.IMPOSSIBLE, reason))

    def _described(self, file: RemoteFile, dest: str) -> RemoteFile:
        stated = self.published.get(dest)
        size, digest = file.size, file.digest
        if stated is not None:
            size = stated.size if size is None else size
            digest = Digest.parse(stated.digest) if digest is None and stated.digest else digest
        if dest in self.excused:
            digest = None
        if size == file.size and digest is file.digest:
            return file
        return RemoteFile(file.key, size, digest, file.validator, file.modified)


def _nothing(found: _Sorted, selection: Selection) -> None:
    if found.impossible:
        return
    if found.passed_over:
        raise NothingSelectedError(
            f"the selection wants none of the {found.passed_over:,} files of the release that the mirror has",
            hint="use fewer conditions, or look at the mirror's names with --dry-run and no selection",
        )
    shown = f" (it shows {', '.join(found.foreign_names[:3])}, ...)" if found.foreign_names else ""
    raise NothingSelectedError(
        f"the mirror has no file of the release{shown}",
        hint="check the dataset's name and the address" if selection.is_everything else "check the address",
    )


def _decided(items: Iterable[Item], local_state: LocalState, *, known: bool) -> Iterator[Item]:
    """Each item with its action; ``items`` and the record are both sorted by path, so one walk joins them.

    Where it is ``known``, the size of an item's file is that of the file here.
    """
    rows = local_state.rows()
    row = next(rows, None)
    for item in items:
        while row is not None and row.path < item.dest:
            row = next(rows, None)
        recorded = row if row is not None and row.path == item.dest else None
        _decide_one(item, recorded, local_state, known=known)
        yield item


def _decide_one(item: Item, recorded: RecordedFile | None, local_state: LocalState, *, known: bool) -> None:
    if recorded is not None and recorded.discarded:
        item.action, item.reason = Action.KEEP, "used and discarded"
        return
    size = item.file.size if known else None
    size = local_state.size_of(item.dest) if size is None else size
    if size is None:
        have = local_state.partial(item.dest)
        if have is not None:
            item.action, item.reason, item.have = Action.RESUME, "partly here", have
        elif recorded is not None:
            item.reason = "recorded, but no longer here"
        return
    if item.dest in local_state.wrong:
        item.action, item.reason = Action.REFETCH, _FOUND_WRONG
        return
    if recorded is None:
        if item.file.size in (None, size):
            item.action, item.reason, item.proven = Action.KEEP, "here without a record", False
        else:
            item.action, item.reason = Action.REFETCH, f"has {size} bytes, the mirror's has {item.file.size}"
        return
    reason = _differs(item.file, recorded, size, same_mirror=local_state.same_mirror)
    if reason:
        item.action, item.reason = Action.REFETCH, reason
    else:
        item.action, item.reason = Action.KEEP, "here"


def _differs(file: RemoteFile, recorded: RecordedFile, size: int, *, same_mirror: bool) -> str:
    """Why the file that is here is not the mirror's, or ``""``."""
    if size != recorded.size:
        return f"has {size} bytes, recorded were {recorded.size}"
    # A mirror may list the size that a file has there, compressed; then its validator says that it is the same one.
    same = same_mirror and file.validator is not None and file.validator == recorded.validator
    if file.size is not None and file.size != size and not same:
        return f"the mirror has another one, of {file.size} bytes"
    if file.digest is not None and recorded.digest is not None:
        algorithm, _, value = recorded.digest.partition(":")
        if algorithm == file.digest.algorithm:
            return "" if value == file.digest.value else "the mirror states another digest"
    if (
        same_mirror
        and file.validator is not None
        and recorded.validator is not None
        and file.validator != recorded.validator
    ):
        return "the mirror's file has changed"
    return ""


def _member_wanted(selection_filter: SelectionFilter, layout: Layout) -> Callable[[str], bool]:
    def wanted(path: str) -> bool:
        return selection_filter.wants(path, layout.parse(path))

    return wanted


def _decide_archives(items: Sequence[Item], local_state: LocalState, wanted: Callable[[str], bool]) -> None:
    """Archives are done when every wanted member is here; the archive itself may be gone by then."""
    if not items:
        return
    own: dict[str, RecordedFile] = {}
    members: dict[str, dict[str, int]] = {item.dest: {} for item in items}
    for row in local_state.rows():
        if row.path in members:
            own[row.path] = row
        if row.archive in members and (
            row.discarded or (local_state.size_of(row.path) == row.size and row.path not in local_state.wrong)
        ):
            members[row.archive][row.path] = row.size
    for item in items:
        recorded, here = own.get(item.dest), members[item.dest]
        size = local_state.size_of(item.dest)
        have = local_state.partial(item.dest)
        changed = recorded is not None and _differs(
            item.file, recorded, recorded.size, same_mirror=local_state.same_mirror
        )
        known = local_state.members(item.dest)
        missing = None if known is None else sum(1 for path, _ in known if wanted(path) and path not in here)
        if size is not None and item.dest in local_state.wrong:
            item.action, item.reason = Action.REFETCH, _FOUND_WRONG
        elif recorded is not None and changed:
            item.action, item.reason = Action.REFETCH, changed
        elif recorded is not None and missing == 0 and not (recorded.discarded and size == recorded.size):
            item.action, item.reason = Action.KEEP, "unpacked"
        elif recorded is not None and size == recorded.size:
            item.action, item.reason, item.have = Action.RESUME, "here, to be unpacked", size
        elif size is not None and size == item.file.size:
            item.action, item.reason, item.have, item.proven = Action.RESUME, "here without a record", size, False
        elif have is not None:
            item.action, item.reason, item.have = Action.RESUME, "partly here", have
        elif recorded is not None:
            gone = "its files" if missing is None else f"{missing} of its files"
            item.reason = f"unpacked before, but {gone} are not here"
