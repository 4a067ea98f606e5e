"""The demo: generate a phantom NIH collection, and run download, verify, extract-labels, convert and manifest on it.

No account and no network are needed. Every step is the command that a user would type.
"""

from __future__ import annotations

import argparse
import http.server
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

from phantom_nih import write_collection


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that http.server gave it
        """Say nothing: the commands speak."""


def _run(*words: str) -> None:
    shown = " ".join(shlex.quote(word) for word in words)
    print(f"\n\033[1m$ {shown}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else f"\n$ {shown}")
    sys.stdout.flush()
    program = Path(sys.executable).with_name("cxrprep")
    finished = subprocess.run([str(program), *words[1:]], check=False)
    if finished.returncode:
        sys.exit(f"the demo stops here: {shown} ended with exit code {finished.returncode}")


def main() -> None:
    """Run the whole job and say where its results are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("demo"), help="made anew; ./demo when none is named"
    )
    folder = parser.parse_args().folder
    if folder.exists() and any(folder.iterdir()) and not (folder / "mirror" / "MD5SUMS").exists():
        sys.exit(f"{folder} holds something else; name another folder: python tools/demo.py FOLDER")
    shutil.rmtree(folder, ignore_errors=True)
    mirror, root = folder / "mirror", folder / "nih"
    begun = time.monotonic()
    count = write_collection(mirror)
    print(f"Generated {count} phantom images in the layout of NIH ChestX-ray14: {mirror}")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(mirror)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    print(f"Serving it at {address}")

    _run("cxrprep", "download", "nih-chestxray14", str(root), "--source", address)
    _run("cxrprep", "verify", str(root), "--images")
    _run("cxrprep", "extract-labels", str(root))
    _run("cxrprep", "convert", str(root), "--recipe", "square-224")
    _run("cxrprep", "manifest", str(root))
    server.shutdown()

    derived = root / "derived" / "square-224"
    found = (
        (f"{root}/images/", "the images, as released"),
        (f"{root}/manifests/images.parquet", "one row per image: ids, split, labels, ..."),
        (f"{root}/manifests/studies.parquet", "one row per study"),
        (f"{derived}/", "224 x 224 images, with their own manifest"),
    )
    width = max(len(place) for place, _ in found)
    places = "\n".join(f"  {place:{width}}  {what}" for place, what in found)
    print(f"""
Done in {time.monotonic() - begun:.0f} s. What is where:

{places}

Open them:

  pandas     pd.read_parquet("{root}/manifests/images.parquet")
  DuckDB     select split, count(*), sum(label_cardiomegaly)
             from '{root}/manifests/images.parquet' group by split
  datasets   load_dataset("parquet",
                          data_files="{root}/manifests/images.parquet")
  Python     import cxrprep; cxrprep.load("{root}").to_pandas()
""")


if __name__ == "__main__":
    main()
