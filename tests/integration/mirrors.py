"""What the end-to-end tests share: mirrors of real and phantom collections."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from phantom_nih import write_collection

if TYPE_CHECKING:
    from collections.abc import Iterator

# What carries times on purpose; everything else must be the same byte for byte on a second run.
TIMED = (
    "cxrprep.lock",
    "cxrprep.files.parquet",
    ".cxrprep",
    "manifests/verify.parquet",
    "manifests/failures.parquet",
)


def tree(root: Path) -> dict[str, str]:
    """The SHA-256 of every file below ``root`` that is promised to be the same on a second run, by relative path."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not str(path.relative_to(root)).startswith(TIMED)
    }


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that http.server gave it
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of ``folder`` on loopback, as the standard library serves it: a listing, and no ranges."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def phantom(folder: Path, *, patients: int = 8, size: int = 128) -> Path:
    """A small phantom NIH collection, as ``make demo`` writes it."""
    write_collection(folder, patients=patients, size=size)
    return folder


def nih_mirror(
    real: Path, folder: Path, layout: str, table: str = "Data_Entry_2017_v2020.csv", images: int = 114
) -> Path:
    """Real NIH files arranged as ``box`` (unpacked to images/), ``kaggle`` (images_001/images/) or ``flat``."""
    folder.mkdir(parents=True)
    for name in (table, "BBox_List_2017.csv", "train_val_list.txt", "test_list.txt"):
        shutil.copyfile(real / name, folder / name)
    for number, image in enumerate(sorted((real / "images").iterdir())[:images]):
        place = {"box": "images", "kaggle": f"images_{number % 3 + 1:03d}/images", "flat": "."}[layout]
        (folder / place).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, folder / place / image.name)
    return folder
