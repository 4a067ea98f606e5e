"""A check that was killed goes on where it stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from cxrprep.model import Digest
from cxrprep.record.entry import FileEntry, Origin
from cxrprep.record.record import Record
from tests.verification.trees import check, flip, nih_spec

PROJECT = Path(__file__).parents[2]
COUNT = 600

_KILLED = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from cxrprep import digests
    from cxrprep.verification.check_cache import Checks
    from tests.verification.trees import check
    digests._BATCH_FILES = 50
    remembered = Checks.add
    def add(self, files):
        remembered(self, files)
        add.count += len(files)
        if add.count >= 200:
            os.kill(os.getpid(), 9)
    add.count = 0
    Checks.add = add
    check(Path(sys.argv[2]), labels=False)
""")


def many(root: Path) -> Path:
    """A folder of many small images with their record."""
    import hashlib

    (root / "images").mkdir()
    with Record.open(root) as record:
        record.describe(dataset="nih-chestxray14", release="v2020")
        for number in range(COUNT):
            data = b"%08d" % number * 40
            path = f"images/{number:08d}_000.png"
            (root / path).write_bytes(data)
            digest = Digest("sha256", hashlib.sha256(data).hexdigest())
            record.add(FileEntry(path, len(data), digest, Origin.TRANSPORT))
    return root


def test_a_killed_check_is_gone_on_with_and_reads_nothing_twice(tmp_path: Path) -> None:
    many(tmp_path)
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(PROJECT), str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "manifests" / "verify.parquet").exists()

    flip(tmp_path / "images" / f"{COUNT - 1:08d}_000.png")
    os.utime(tmp_path / "images" / "00000003_000.png")
    report = check(tmp_path, labels=False)

    assert report.files.believed >= 199
    assert report.files.read + report.files.believed == COUNT
    assert report.files.read <= COUNT - 199
    assert report.counts == {"altered": 1}
    # The next one begins anew: a finished check is believed by --quick only.
    assert check(tmp_path, labels=False).files.read == COUNT
    assert check(tmp_path, labels=False, quick=True).files.read == 1


def test_an_interrupted_check_of_last_month_is_not_believed(tmp_path: Path) -> None:
    many(tmp_path)
    subprocess.run([sys.executable, "-c", _KILLED, str(PROJECT), str(tmp_path)], check=False)
    (journal,) = (tmp_path / ".cxrprep" / "checks").iterdir()
    os.utime(journal, (0, 0))
    assert check(tmp_path, labels=False).files.read == COUNT
    assert not journal.exists()


def test_folders_of_many_batches_are_joined_and_written_in_order(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    report = check(many(tmp_path), labels=False)
    assert report.files.transport == COUNT
    rows = pq.read_table(tmp_path / "manifests" / "verify.parquet")["path"].to_pylist()
    assert rows == sorted(rows)
    assert len(rows) == COUNT
    assert nih_spec().counts["images"] == report.images_named
