"""The manifest of images of one's own: what their headers say, digests as they were first read, labels and splits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.datasets.own_folder import NAME
from cxrprep.errors import NothingSelectedError, UsageError
from cxrprep.events import Note, Sink, StageStarted
from cxrprep.humanize import format_count
from cxrprep.images.conversion import spelled
from cxrprep.labels.columns import categories, constant
from cxrprep.labels.extract import LABELS_NAME
from cxrprep.manifest.build import IMAGES_NAME, STAGE, STUDIES_NAME, PreparedManifest, check_tables, described_result
from cxrprep.manifest.converted import read_labels_beside
from cxrprep.manifest.derived import DICOM_FILES, DerivedRows, columns_of_headers
from cxrprep.manifest.label_join import default_sources, relabel_from, stated_sources
from cxrprep.manifest.previous import HEADERS_NAME
from cxrprep.manifest.studies import studies_of
from cxrprep.schemas import IMAGES, null_columns
from cxrprep.storage.parquet import footer_of, read_rows, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cxrprep.collection import DatasetFolder
    from cxrprep.images.own_images import OwnImage
    from cxrprep.manifest.choices import Choices


def write_own_manifest(
    folder: DatasetFolder, found: Iterable[OwnImage], choices: Choices, *, key: str, allow_loss: bool, on_event: Sink
) -> pa.Table:
    """``images.parquet``, ``studies.parquet`` and ``headers.parquet`` of images of one's own, checked and written.

    Args:
        folder: The open folder of the images.
        found: What is in it.
        choices: Whose labels are shown (by default those that are there), policy and split.
        key: The fingerprint of the key of pseudonyms, which stays in the footers.
        allow_loss: The tables may know less, and files that were changed since may be taken as they are now.
        on_event: Told what a person should know.

    Returns:
        The image table.

    Raises:
        NothingSelectedError: There is no image.
        UsageError: The tables would know less, or another key gave the pseudonyms that are there.
        StorageError: The disk refuses.
    """
    on_event(StageStarted(STAGE, unit="images"))
    root, manifests, label_source = folder.root, folder.manifests, choices.label_source
    before = manifests / IMAGES_NAME
    held = footer_of(before).get("pseudonyms")
    if held and held != key:
        raise other_key(manifests, str(held))
    rows, dicom_files = _image_rows(found)
    own = rows.take()
    if not own.num_rows:
        raise NothingSelectedError(f"no image is in {root}", hint="name the folder that holds the images")
    about, headers = columns_of_headers(own)
    images = null_columns(IMAGES, own.num_rows, _columns(own, about, before, on_event, renew=allow_loss))
    labels = read_labels_beside(manifests)
    origin: dict[str, Any] = {
        "dataset": NAME,
        "release": "",
        "kind": "own",
        "pseudonyms": key,
        DICOM_FILES: dicom_files,
    }
    if labels is not None:
        wanted = stated_sources(label_source) if label_source else default_sources(labels, ())
        images = relabel_from(images, labels, wanted, manifests / LABELS_NAME) if wanted else images
        origin["label_source"] = ",".join(wanted)
    elif label_source:
        raise UsageError(f"{root} has no labels", hint="label its reports: cxrprep extract-labels ROOT --reports FILE")
    order = [(name, "ascending") for name in ("patient_id", "study_id", "image_id")]
    images = images.sort_by(order).combine_chunks()
    images = choices.applied(images, origin, on_event)
    studies, _ = studies_of(images, labels)
    if not allow_loss:
        check_tables(manifests, images, studies, root, made_from=origin, has_labels=True)
    write_table(headers.sort_by("source_path"), manifests / HEADERS_NAME, name="headers", made_from=origin)
    result = described_result(images, manifests)
    PreparedManifest(
        folder=manifests,
        images=images,
        studies=studies,
        made_from=origin,
        result=result,
        has_labels=labels is not None,
        beside=(HEADERS_NAME, STUDIES_NAME),
    ).write(on_event)
    return images


def listing(found: Iterable[OwnImage]) -> pa.Table:
    """Path, bytes, width and height of images that no manifest lists yet; of none is a digest known."""
    own = _image_rows(found)[0].take().select(["path", "bytes", "width", "height"])
    for name in ("digest", "source_path", "source_digest"):
        own = own.append_column(name, pa.nulls(own.num_rows, pa.string()))
    return own


def other_key(place: Path, fingerprint: str) -> UsageError:
    """The refusal of another key of pseudonyms than the one that named the patients of ``place``."""
    return UsageError(
        f"patients in {place} were given pseudonyms with another key (its fingerprint is {fingerprint})",
        hint="use the key that it was made with: pseudonyms.key in the state folder (XDG_STATE_HOME) of that run; "
        "or name another folder with --out",
    )


def _image_rows(found: Iterable[OwnImage]) -> tuple[DerivedRows, int]:
    """The images as rows, and how many are DICOM files."""
    rows, dicom_files = DerivedRows(), 0
    for image in found:
        dicom_files += image.is_dicom
        rows.add(
            {
                "path": image.path,
                "bytes": image.size,
                "digest": image.digest,
                "width": image.width,
                "height": image.height,
                "source_mode": image.mode,
                "source_path": image.path,
                "about": spelled(image.about),
            }
        )
    return rows, dicom_files


def _columns(own: pa.Table, about: Mapping[str, Any], before: Path, on_event: Sink, *, renew: bool) -> dict[str, Any]:
    path = own.column("path").combine_chunks()
    digest = pc.if_else(pc.equal(own.column("digest"), ""), pa.scalar(None, pa.string()), own.column("digest"))
    columns: dict[str, Any] = dict(about)
    columns |= {name: own.column(name).combine_chunks() for name in ("path", "bytes", "width", "height")}
    columns["digest"] = digest if renew else _first_read(own, digest, before, on_event)
    columns["source_mode"] = categories(own.column("source_mode"))
    columns |= {name: constant(word, own.num_rows) for name, word in (("dataset", NAME), ("release", ""))}
    columns["image_id"] = path
    for name in ("patient_id", "study_id"):
        # A file whose header names nobody has no identity but its path; a made-up patient would be worse.
        columns[name] = pc.coalesce(columns[name], path)
    return columns


def _first_read(own: pa.Table, digest: pa.ChunkedArray, before: Path, on_event: Sink) -> pa.Array:
    """The digests as they were first read: a file of the same size that was altered since is ``verify``'s to name."""
    now = digest.combine_chunks() if isinstance(digest, pa.ChunkedArray) else digest
    if not before.is_file():
        return now
    try:
        known = read_rows(before, columns=["path", "bytes", "digest"])
    except (OSError, pa.ArrowException):
        return now
    place = pc.index_in(own.column("path").combine_chunks(), value_set=known.column("path").combine_chunks())
    same = pc.equal(known.column("bytes").combine_chunks().take(place), own.column("bytes").combine_chunks())
    held = known.column("digest").combine_chunks().take(place)
    first = pc.if_else(pc.fill_null(same, fill_value=False), held, pa.scalar(None, pa.string()))
    altered = pc.sum(pc.fill_null(pc.not_equal(first, now), fill_value=False)).as_py() or 0
    if altered:
        message = f"{format_count(altered, 'image', 'has')} other bytes than when first read: cxrprep verify names them"
        on_event(Note(STAGE, message, "warning", str(before)))
    return pc.coalesce(first, now)
