"""Folder whose labels.parquet takes in label sources: reports that were labelled, and tables that were imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.folder import where_originals_are
from cxrprep.api.manifest import build_manifest, rebuild_manifest
from cxrprep.collection import FolderKind
from cxrprep.collection.dataset_folder import DatasetFolder, open_folder
from cxrprep.collection.lineage import IMAGES_NAME, read_lineage
from cxrprep.datasets.own_folder import UNLISTED
from cxrprep.errors import UsageError
from cxrprep.events import Note, Sink
from cxrprep.manifest.choices import Choices
from cxrprep.model import FolderRef, ImageId
from cxrprep.storage.parquet import footer_of
from cxrprep.system import plain_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cxrprep.api.keywords import Keywords
    from cxrprep.labels.label_rows import LabelOptions


@dataclass(frozen=True, slots=True)
class LabelledFolder:
    """A folder whose ``labels.parquet`` takes in what is labelled or imported: a known dataset, or any other.

    ``manifest`` holds the choices for the manifest, as ``Choices.with_given`` takes them. ``allow_loss`` lets the
    tables know less than they do.
    """

    where: FolderRef
    home: Path
    known: DatasetFolder | None
    options: LabelOptions | None
    manifest: Mapping[str, Any]
    allow_loss: bool

    @classmethod
    def asked(cls, keywords: Keywords, where: FolderRef, *words: str, allow_loss: bool) -> LabelledFolder:
        """The folder as a verb is asked for it; one that is no known dataset is taken as it is, unless that is said.

        Args:
            keywords: those of ``extract_labels``; any other is refused.
            where: the folder, and what its caller says of it.
            *words: what is added, as the command line says it, for whoever named the wrong folder.
            allow_loss: the tables may know less than they do.

        Returns:
            the folder, for its reports and tables.

        Raises:
            UsageError: an unknown keyword; a folder that is converted or exported, or not what ``where`` says.
        """
        if where.home.exists() and not where.home.is_dir():
            raise UsageError(f"{where.home} is not a folder", hint="name the folder that holds the dataset")
        chosen = keywords.take("label_source")
        options, policy = keywords.label_options(keywords.take("options").get("options")), keywords.policy(None)
        rule = keywords.split_rule(keywords.take("split_by").get("split_by"), "split_seed", "seed")
        keywords.finish()
        known = open_folder(where, held=False, unknown_is_own=True) if where.path.is_dir() else None
        if known is not None and known.kind in (FolderKind.CONVERTED, FolderKind.EXPORTED):
            raise UsageError(
                f"labels are not added to {known.described()}",
                hint=f"add them to the folder of the originals: {where_originals_are(known, 'extract-labels', *words)}",
            )
        # Images of one's own have no tables to stand beside.
        known = known if known is not None and known.kind is FolderKind.RELEASE else None
        choices = {"label_source": None, **chosen, "policy": policy, "split_by": rule}
        return cls(where, known.home if known else where.home, known, options, choices, allow_loss)

    @property
    def labels(self) -> Path:
        """The ``labels.parquet``."""
        return self.home / "manifests" / "labels.parquet"

    def check_free(self, name: str) -> None:
        """Raise ``UsageError`` when the release's own tables have a label source of that name."""
        from cxrprep.labels.label_sources import release_labels

        of_catalog = {table.label_source for table in self.known.spec.table} if self.known else set()
        if self.labels.is_file():
            of_catalog = {use.label_source for use in release_labels(self.labels)[2]}
        if name in of_catalog:
            raise UsageError(
                f"{name} is a label source of the release itself", hint=f"import it as another: --import my-{name}=FILE"
            )

    @plain_memory()
    def add_sources(self, on_event: Sink) -> list[tuple[str, str]]:
        """Bring ``labels.parquet``, and the manifest of a known dataset, up to the added label sources."""
        from cxrprep.labels.extract import read_labels, refresh_labels
        from cxrprep.labels.last_options import last_options

        known = self.known
        last = last_options(self.labels, self.where.path).with_given(self.options, self.where.tables)
        made = refresh_labels(
            known.spec.name if known else UNLISTED,
            known.layout.parse if known else self._study_by_uid(),
            known.release if known else UNLISTED,
            self.labels,
            read=None if known is None else lambda: read_labels(
                known.spec, known.root, release=self.where.release, tables=last.tables, options=last.options
            ),
            asked=last.described(self.where.path),
            allow_loss=self.allow_loss,
            on_event=on_event,
        )  # fmt: skip
        rows = [("label sources", ", ".join(source.label_source for source in made.sources)), ("in", str(made.path))]
        if known is not None:
            choices = Choices.of_last(known.manifests).with_given(**self.manifest)
            shown = rebuild_manifest(known, choices=choices, allow_loss=self.allow_loss, on_event=on_event)
            rows += [("images with labels", f"{shown.labelled:,} of {shown.images:,}")]
        elif self._lists_own_images():
            chosen = {name: value for name, value in self.manifest.items() if value is not None}
            own = build_manifest(
                self.where.path, state=self.where.state, allow_loss=self.allow_loss, on_event=on_event, **chosen
            ).value
            rows += [("images with labels", f"{own.labelled:,} of {own.images:,}")]
            if not own.labelled:
                asked = f"study_id has to be as in {own.images_path}, or for DICOM the StudyInstanceUID"
                on_event(Note("extract-labels", f"no label is of a study here: {asked}", "warning"))
        return rows

    def _study_by_uid(self) -> Callable[[str], ImageId | None] | None:
        """Which study a StudyInstanceUID is, where DICOM files of one's own were listed with the key that is here."""
        if self.known is not None or not self._lists_own_images():
            return None
        from cxrprep.images.dicom_metadata import own_pseudonyms

        pseudonyms = own_pseudonyms()
        if footer_of(self.home / "manifests" / IMAGES_NAME).get("pseudonyms") != pseudonyms.sign:
            return None

        def study(text: str) -> ImageId | None:
            found = pseudonyms.of("study", text) if _UID.fullmatch(text) else None
            return ImageId("", found, "") if found else None

        return study

    def _lists_own_images(self) -> bool:
        """Whether it is a folder of one's own images with a manifest, which then has the labels too."""
        manifests = self.home / "manifests"
        if not (manifests / IMAGES_NAME).is_file() or read_lineage(manifests) is not None:
            return False
        return open_folder(self.where).kind is FolderKind.OWN


# DICOM PS3.5, 9.1
_UID: Final = re.compile(r"(?=.{5,64}$)\d+(\.\d+)+")
