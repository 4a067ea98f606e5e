"""Sections of radiology reports beside the images of a data set, from the table that ``cxrprep pairs`` wrote.

Text is never there unless it was asked for: reports are under the agreement of their release.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.datasets.catalog import catalog
from cxrprep.errors import TableError, UsageError, did_you_mean
from cxrprep.events import Note, Sink
from cxrprep.manifest.pairs import PAIRS_NAME, SECTIONS
from cxrprep.storage.parquet import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


PREFIX: Final = "text_"
"""Before the name of a section, as a column of the data set."""

_MAKE_ONE: Final = "make one: cxrprep pairs ROOT --reports PATH"


def sections_of(text: str | Iterable[str]) -> tuple[str, ...]:
    """The sections that ``findings,impression`` or a list names, in the order of ``SECTIONS``.

    Raises ``UsageError`` for a word that names none.
    """
    named = text.split(",") if isinstance(text, str) else list(text)
    wanted = {name.strip().lower().replace(" ", "_") for name in named if name.strip()}
    for name in sorted(wanted - set(SECTIONS)):
        raise UsageError(
            f"unknown section {name!r}", hint=f"{did_you_mean(name, SECTIONS)}known: {', '.join(SECTIONS)}"
        )
    return tuple(name for name in SECTIONS if name in wanted)


def find_pairs(root: Path, folders: Iterable[Path]) -> Path:
    """The table of pairs in the first of ``folders`` that has one. Raises ``UsageError`` that says how to make it."""
    for folder in folders:
        if (folder / PAIRS_NAME).is_file():
            return folder / PAIRS_NAME
    raise UsageError(
        f"{root} has no table of pairs, which holds the sections of its reports",
        hint=f"make it: cxrprep pairs {shlex.quote(str(root))} --reports PATH; or name it: --pairs FILE",
    )


def with_texts(images: pa.Table, path: Path, sections: Sequence[str], *, paired: bool = False) -> pa.Table:
    """``images`` with a column ``text_<section>`` for each of ``sections``; null where the report has none.

    Args:
        images: Rows of a manifest.
        path: ``pairs.parquet``, a row a study or an image.
        sections: Names out of ``SECTIONS``.
        paired: Leave out the images whose study has none of these sections.

    Returns:
        The rows in their order.

    Raises:
        TableError: The table cannot be read.
        UsageError: It is not a table of pairs.
    """
    try:
        pairs = read_rows(path, columns=["dataset", "study_id", *sections])
    except pa.ArrowInvalid as error:
        raise UsageError(f"{path} is not a table of pairs", hint=_MAKE_ONE) from error
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror or error}", hint=_MAKE_ONE) from error
    rows = pc.index_in(_key(images), value_set=_key(pairs))
    known: pa.Array = pa.array([False]).take(pa.array([0] * images.num_rows, pa.int8()))
    for name in sections:
        # At 2 GiB a column of plain text would be in several parts.
        texts = pc.take(pairs.column(name).cast(pa.large_string()).combine_chunks(), rows)
        known = pc.or_(known, pc.is_valid(texts))
        images = images.append_column(f"{PREFIX}{name}", texts)
    return images.filter(known) if paired else images


def name_agreement(dataset: str, target: Path, stage: str, on_event: Sink) -> None:
    """Say under which terms report text is.

    Args:
        dataset: Its name in the catalog.
        target: The file or folder that holds the text.
        stage: Whose note it is.
        on_event: Gets the note.
    """
    spec = catalog().get(dataset)
    if spec is not None:
        message = (
            f"{target.name} holds report text, which is under {spec.licence.name}: store it only where images may be"
        )
        on_event(Note(stage, message, "info", str(target)))


def _key(table: pa.Table) -> pa.Array:
    columns = (table.column(name).combine_chunks().cast(pa.string()) for name in ("dataset", "study_id"))
    return pc.binary_join_element_wise(*columns, "\t")
