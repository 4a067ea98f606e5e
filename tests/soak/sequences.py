"""Random sequences of commands, as many as wanted: ``python -m tests.soak.sequences 10000 --seed 1``."""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.collection.sequences import play
from tests.collection.worlds import DECLARED, NAMES, WARD, release, world
from tests.commands import in_this_process
from tests.datasets.test_declaration import declaration
from tests.servers import s3


class Bucket:
    """Objects of an emulator below one prefix, and a folder that holds what they hold."""

    def __init__(self, service: s3.S3, bucket: str, prefix: str, folder: Path) -> None:
        self._client, self._bucket, self._prefix, self._folder = service.client(), bucket, f"{prefix}/", folder
        self._tags: dict[str, str] = {}

    def addressed(self, word: str) -> str:
        return word.replace(str(self._folder), f"s3://{self._bucket}/{self._prefix.rstrip('/')}")

    def fetch(self) -> None:
        there: dict[str, str] = {}
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix):
            there |= {one["Key"].removeprefix(self._prefix): one["ETag"] for one in page.get("Contents", ())}
        for name in self._tags.keys() - there.keys():
            (self._folder / name).unlink(missing_ok=True)
        for name in sorted(there):
            if self._tags.get(name) != there[name]:
                path = self._folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read())
        for folder in sorted((path for path in self._folder.rglob("*") if path.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
        self._tags = there

    def put(self) -> None:
        here = {path.relative_to(self._folder).as_posix(): path for path in self._folder.rglob("*") if path.is_file()}
        for name in self._tags.keys() - here.keys():
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)
        for name, path in here.items():
            data = path.read_bytes()
            if self._tags.get(name) != f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"':
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=data)
        self.fetch()


def main() -> int:
    """Play them; the exit code is 1 when any lost something, and each such sequence is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sequences", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="the number of the first; to play one again")
    parser.add_argument(
        "--wide", action="store_true", help="folders in a bucket, one that is only read, and a dataset of one file"
    )
    parser.add_argument("--declared", action="store_true", help="releases that are declared by one file each, too")
    given = parser.parse_args()
    failed = 0
    # In memory where there is such a place: thousands of small files are made and removed.
    tempfile.tempdir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sequences-"))
        stack.enter_context(in_this_process())
        os.environ |= {f"XDG_{name}_HOME": f"{folder}/home" for name in ("STATE", "CACHE", "CONFIG", "DATA")}
        names = (*NAMES, *(DECLARED if given.declared else ()), *((WARD, WARD) if given.wide else ()))
        service = None
        if given.wide:
            os.environ["CXRPREP_CATALOG"] = str(Path(folder, "catalog"))
            Path(folder, "catalog").mkdir()
            Path(folder, f"catalog/{WARD}.toml").write_text(declaration())
            Path(folder, "moto").mkdir()
            service = stack.enter_context(s3.running(Path(folder, "moto")))
            os.environ |= {**service.environment, **s3.KEYS, "AWS_DEFAULT_REGION": "us-east-1"}
            bucket = service.bucket({}, public=False)
        releases = {name: release(name, Path(folder, name)) for name in dict.fromkeys(names)}
        for number in range(given.first, given.first + given.sequences):
            rng = random.Random(f"{given.seed}:{number}")
            name = rng.choice(names)
            with tempfile.TemporaryDirectory(prefix="sequence-") as home:
                store = None
                if service is not None and rng.random() < 0.6:
                    store = Bucket(service, bucket, str(number), Path(home, "bucket"))
                shared = given.wide and rng.random() < 0.6
                try:
                    play(world(releases[name], Path(home), name, rng, shared=shared, store=store), given.steps)
                except AssertionError as error:
                    failed += 1
                    text = str(error).replace(home, "~")
                    print(f"sequence {given.seed}:{number} of {name}: {text}\n", file=sys.stderr, flush=True)
            if number % 50 == 49:
                print(f"{number + 1} sequences, {failed} lost something", flush=True)
    print(f"{given.sequences} sequences, {failed} lost something")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
