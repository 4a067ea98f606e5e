"""The manifest as a PyTorch dataset (torch); imported only when one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from cxrprep.manifest.pixel_statistics import grey

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa
    from numpy.typing import NDArray

    from cxrprep.manifest.image_reader import ImageReader


def _matrix(table: pa.Table) -> NDArray[np.float32]:
    columns = [np.asarray(column.fill_null(0).to_numpy(), dtype=np.float32) for column in table.columns]
    return np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0), np.float32)


class Images(TorchDataset[dict[str, Any]]):
    """Images with labels and masks, as ``Dataset.torch`` describes; safe to hand to workers."""

    def __init__(
        self,
        *,
        observations: tuple[str, ...],
        reader: ImageReader,
        rows: pa.Table,
        labels: pa.Table,
        mask: pa.Table,
        texts: pa.Table,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        """``rows`` has ids and paths, ``labels`` and ``mask`` a column per observation; all in one order.

        Args:
            observations: names of the label columns, in order.
            reader: reads pixels from files or shards.
            rows: ids and paths, an image a row.
            labels: a column per observation, an image a row.
            mask: which of them count: a column per observation.
            texts: the sections of reports that go along, a column each.
            transform: applied to the pixels of each image.
        """
        self.observations = observations
        self._reader = reader
        self._paths = rows.column("path").to_pylist()
        self._labels = _matrix(labels)
        self._mask = _matrix(mask)
        self._ids = rows.column("image_id").to_pylist()
        self._patients = rows.column("patient_id").to_pylist()
        self._texts = {name: texts.column(name).fill_null("") for name in texts.column_names}
        self._transform = transform

    def __len__(self) -> int:
        """The number of images."""
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One image with its labels. Raises ``ImageError`` for a file that cannot be decoded."""
        path = self._paths[index]
        image = torch.from_numpy(grey(self._reader.read(path), path)).unsqueeze(0)
        return {
            "image": image if self._transform is None else self._transform(image),
            "labels": torch.from_numpy(self._labels[index]),
            "mask": torch.from_numpy(self._mask[index]),
            "image_id": self._ids[index],
            "patient_id": self._patients[index],
            **{name: column[index].as_py() for name, column in self._texts.items()},
        }
