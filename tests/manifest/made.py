"""Folders with a manifest, for the tests of this folder."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from cxrprep.datasets.catalog import find_dataset
from cxrprep.images.decode import measure
from tests.tables_made import build_manifest, extract_labels

if TYPE_CHECKING:
    from pathlib import Path


def made(name: str, root: Path, **options: object) -> Path:
    """A tiny release of ``name`` below ``root`` with labels and manifest."""
    importlib.import_module(f"tests.generators.small.{name.replace('-', '_')}").write(root, **options)
    return remade(name, root)


def remade(name: str, root: Path, **options: object) -> Path:
    spec = find_dataset(name)
    extract_labels(spec, root)
    build_manifest(spec, root, measure=measure, **options)
    return root
