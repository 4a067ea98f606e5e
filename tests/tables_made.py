"""The tables of a folder as the verbs make them, without their settings: for tests of what is in them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cxrprep.collection import DatasetFolder
from cxrprep.events import ignore
from cxrprep.labels.extract import LABELS_NAME, read_found, with_added, write_labels
from cxrprep.labels.locate_tables import find_tables
from cxrprep.manifest.build import prepare_manifest
from cxrprep.manifest.choices import Choices
from cxrprep.record.record import Record

if TYPE_CHECKING:
    from pathlib import Path


def extract_labels(spec, root: Path, *, out: Path | None = None, on_event=ignore, **asked: Any):
    """``labels.parquet`` of a release's tables."""
    path = (out or root / "manifests") / LABELS_NAME
    where = {name: asked.pop(name, None) for name in ("release", "tables")}
    found = find_tables(spec, root, where["release"], tables=where["tables"], on_event=on_event)
    labels = read_found(spec, found, known=path, on_event=on_event, **asked)
    labels = with_added(spec.name, spec.layout(labels.release).parse, labels, path, on_event=on_event)
    return write_labels(spec.name, labels, path, on_event=on_event)


def build_manifest(spec, root: Path, *, manifests=None, files=None, label_source=None, policy=None, split=None, **more):
    """``images.parquet`` and ``studies.parquet``; ``files`` is what a record says, and ``more`` as prepare_manifest."""
    record = Record.open(root) if files is None else SimpleNamespace(exists=True, table=files.select)
    folder = DatasetFolder(root, root, spec, spec.default_release, record)
    choices = Choices(label_source, policy, split)
    return prepare_manifest(folder, choices, to=manifests, **more).write(more.get("on_event", ignore))
