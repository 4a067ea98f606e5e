"""Every verb on a folder in a bucket whose store fails in every way: never less with exit 0, never a traceback."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import cxrprep as package
from cxrprep.storage import object_store
from cxrprep.storage.object_store import ObjectStore
from tests.commands import Done, cxrprep
from tests.generators.small import nih_chestxray14
from tests.sample import ALL, some
from tests.servers import s3, store_faults
from tests.servers.store_faults import Answer, Asked, Faults, error
from tests.storage.test_store_faults import emulated

# What carries times, or the order in which things were asked for.
TIMED: Final = re.compile(r"^cxrprep\.|report\.html$|^page\.html$|(^|/)\.cxrprep/|\.cxrprep-export\.json$")
PUTS: Final = ("PUT", "POST")

TABLES: Final = ("BBox_List_2017.csv", "Data_Entry_2017_v2020.csv", "test_list.txt", "train_val_list.txt")
VERBS: Final = {
    "download": "download nih-chestxray14 {bucket} --source {release}",
    "verify": "verify {bucket}",
    "extract-labels": "extract-labels {bucket}",
    "manifest": "manifest {bucket}",
    "convert": "convert {bucket} --recipe square-224 --out {bucket}/derived/square-224",
    "convert elsewhere": "convert {bucket} --recipe square-224 --out {out}",
    "convert shards": "convert {bucket} --recipe square-224 --to webdataset --out {out}",
    "export csv": "export {bucket} --format csv --out {out}/one.csv",
    "export hf": "export {bucket} --format hf --out {out}",
    "export webdataset": "export {bucket} --format webdataset --out {out}",
    "report": "report {bucket} --out {out}/page.html",
    "duplicates": "duplicates {bucket} --out {out}/same.csv",
    "status": "status {bucket}",
    "digest": "digest {bucket}",
    "state": "verify {release} --dataset nih-chestxray14 --state {out}",
}

# What is there before: of a verb that makes tables no table, and nothing of a download.
BEFORE: Final = {"download": (), "extract-labels": ("images", "cxrprep.lock", "cxrprep.files.parquet", *TABLES)}


def put(asked: Asked) -> bool:
    return asked.method in PUTS and "bucket" not in asked.name.rpartition("/")[2]


class Forever:
    """Each request that ``which`` picks is answered so, the first ``after`` of them excepted."""

    def __init__(self, answer: Answer, which: Callable[[Asked], bool] = lambda _: True, after: int = 0) -> None:
        self.answer, self.which, self.after, self.met = answer, which, after, 0

    def __call__(self, asked: Asked) -> Answer | None:
        self.met += self.which(asked)
        return self.answer if self.which(asked) and self.met > self.after else None


def listing(asked: Asked) -> bool:
    return asked.method == "GET" and "list-type" in asked.query


def getting(asked: Asked) -> bool:
    return asked.method == "GET" and "list-type" not in asked.query and not asked.name.endswith(".lock")


def storm(faults: Faults) -> None:
    faults.before = lambda asked: error(503, "SlowDown") if asked.number % 4 == 1 else None


def _spoil_up(faults: Faults, times: int) -> None:
    left = [times]

    def spoil(asked: Asked) -> None:
        if put(asked) and asked.body and left[0]:
            left[0] -= 1
            asked.headers = {n: v for n, v in asked.headers.items() if not re.match("(?i)content-md5|x-amz-.*check", n)}
            asked.body = asked.body[:-1] + bytes([asked.body[-1] ^ 1])

    faults.before = spoil  # type: ignore[assignment]


def _spoil_down(faults: Faults, change: Callable[[bytes], bytes], which: Callable[[Asked], bool], times: int) -> None:
    left = [times]

    def spoil(asked: Asked, answer: Answer) -> None:
        if which(asked) and answer.status in (200, 206) and answer.body and left[0]:
            left[0] -= 1
            answer.headers = {n: v for n, v in answer.headers.items() if "checksum" not in n.lower()}
            answer.body = change(answer.body)

    faults.after = spoil


def before(rule: Callable[[Asked], Answer | None]) -> Callable[[Faults], None]:
    def set_rule(faults: Faults) -> None:
        faults.before = rule

    return set_rule


PAGE: Final = Answer(200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><html><body>Sign in</body></html>")

# Each fault with the exit codes that it may end with, where it is met.
FAULTS: Final[dict[str, tuple[Callable[[], Callable[[Faults], None]], set[int]]]] = {
    "storm": (lambda: storm, {0}),
    "503 for ever": (lambda: before(Forever(error(503, "SlowDown"))), {6}),
    "503 to listings": (lambda: before(Forever(error(503, "SlowDown"), listing)), {0, 6}),
    "503 to reads": (lambda: before(Forever(error(503, "SlowDown"), getting)), {0, 6}),
    "503 to writes": (lambda: before(Forever(error(503, "SlowDown"), put)), {0, 6}),
    "429 to writes": (lambda: before(Forever(error(429, "TooManyRequests"), put)), {0, 6}),
    "500 to writes, midway": (lambda: before(Forever(error(500, "InternalError"), put, 1)), {0, 6}),
    "expired": (lambda: before(Forever(error(400, "ExpiredToken"))), {5}),
    "expired midway": (lambda: before(Forever(error(400, "ExpiredToken"), after=12)), {0, 5}),
    "expired at the end": (lambda: before(Forever(error(400, "ExpiredToken"), put)), {0, 5}),
    "may not write": (lambda: before(Forever(error(403, "AccessDenied"), put)), {0, 5}),
    "may not read": (lambda: before(Forever(error(403, "AccessDenied"), getting)), {0, 5}),
    "clock is wrong": (lambda: before(Forever(error(403, "RequestTimeTooSkewed"))), {5}),
    "damaged going up, once": (lambda: lambda faults: _spoil_up(faults, 1), {0}),
    "damaged going up": (lambda: lambda faults: _spoil_up(faults, 9999), {0, 4}),
    "damaged coming down, once": (
        lambda: lambda faults: _spoil_down(faults, lambda body: body[:-1] + bytes([body[-1] ^ 1]), getting, 1),
        {0, 4},
    ),
    "damaged coming down": (
        lambda: lambda faults: _spoil_down(faults, lambda body: body[:-1] + bytes([body[-1] ^ 1]), getting, 9999),
        {0, 4},
    ),
    "half of it comes": (
        lambda: lambda faults: _spoil_down(faults, lambda body: body[: len(body) // 2], getting, 9999),
        {0, 4, 6},
    ),
    "half a listing": (
        lambda: lambda faults: _spoil_down(faults, lambda body: body[: len(body) // 2], listing, 9999),
        {0, 4, 6},
    ),
    "an empty listing's body": (
        lambda: lambda faults: _spoil_down(faults, lambda body: b"", listing, 9999),
        {0, 4, 6},
    ),
    "a page for a listing": (lambda: before(Forever(PAGE, listing)), {0, 4, 5, 6}),
    "a page for all": (lambda: before(Forever(PAGE)), {4, 5, 6}),
    "gone": (lambda: before(Forever(error(404, "NoSuchKey"), getting)), {0, 2, 3, 4, 6}),
    "no such bucket": (lambda: before(Forever(error(404, "NoSuchBucket"))), {2}),
}


@pytest.fixture(scope="module")
def prepared(amazon: s3.S3, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A release, and the files of its folder after all steps."""
    folder = tmp_path_factory.mktemp("prepared")
    nih_chestxray14.write(folder / "release")
    package.download("nih-chestxray14", folder / "root", source=str(folder / "release"))
    package.extract_labels(folder / "root")
    found = {
        p.relative_to(folder / "root").as_posix(): p.read_bytes() for p in (folder / "root").rglob("*") if p.is_file()
    }
    return folder / "release", {name: data for name, data in found.items() if not name.startswith(".cxrprep/")}


@dataclass
class World:
    """A store with faults, and what is put there."""

    amazon: s3.S3
    faults: Faults
    release: Path
    files: dict[str, bytes]
    copies: Path
    place: Path

    def case(self, verb: str) -> Case:
        """A new bucket with the folder as it is before a verb; this machine knows nothing of it."""
        before = BEFORE.get(verb)
        files = {f"nih/{n}": d for n, d in self.files.items() if before is None or n.partition("/")[0] in before}
        bucket = self.amazon.bucket(files, public=False)
        release = self.place / bucket
        shutil.copytree(self.release, release)
        shutil.rmtree(self.copies, ignore_errors=True)
        names = {"bucket": f"s3://{bucket}/nih", "out": f"s3://{bucket}/out", "release": str(release)}
        return Case(self.amazon, bucket, [word.format_map(names) for word in VERBS[verb].split()])

    def expected(self, verb: str) -> dict[str, bytes]:
        """What an undisturbed run leaves."""
        if verb not in _EXPECTED:
            case = self.case(verb)
            done = case.run()
            assert done.returncode == 0, done
            _EXPECTED[verb] = case.objects()
        return _EXPECTED[verb]


@dataclass
class Case:
    """A command on a bucket."""

    amazon: s3.S3
    bucket: str
    words: list[str]

    def run(self) -> Done:
        object_store._system.cache_clear()
        return cxrprep(*self.words)

    def objects(self) -> dict[str, bytes]:
        client = self.amazon.client()
        names = [one["Key"] for one in client.list_objects_v2(Bucket=self.bucket).get("Contents", [])]
        return {
            name: client.get_object(Bucket=self.bucket, Key=name)["Body"].read()
            for name in names
            if not TIMED.search(name.partition("/")[2])
        }


_EXPECTED: Final[dict[str, dict[str, bytes]]] = {}


@pytest.fixture
def world(
    amazon: s3.S3,
    prepared: tuple[Path, dict[str, bytes]],
    at_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    faults = Faults()
    with store_faults.before(amazon.url, faults) as url:
        env = {"AWS_ENDPOINT_URL": url, "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in {**s3.NOBODY, **s3.KEYS, **env}.items():
            monkeypatch.setenv(name, value)
        yield World(amazon, faults, *prepared, at_home, tmp_path)


# All of them take an hour.
CHOSEN: Final = some([(verb, fault) for verb in VERBS for fault in FAULTS], one_in=60)


@pytest.mark.parametrize(("verb", "fault"), CHOSEN)
def test_a_verb_meets_a_fault(verb: str, fault: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, case = world.expected(verb), world.case(verb)
    make, codes = FAULTS[fault]
    make()(world.faults)
    if fault == "storm":
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "6")
    done = case.run()
    assert done.returncode in codes, done
    assert "Traceback" not in done.stderr
    assert done.returncode != 0 or case.objects() == expected, "exit 0 with less"
    world.faults.before, world.faults.after = (lambda _: None), (lambda _asked, _answer: None)
    again = case.run()
    assert again.returncode == 0, again
    assert case.objects() == expected


def of_other_stores(asked: Asked) -> str:
    """What a request to Google or Azure is for."""
    if b"bucket.lock" in asked.body[:400] or "bucket.lock" in asked.path:
        return "lock"
    if asked.method != "GET":
        return "write" if asked.method in ("PUT", "POST") else asked.method
    return "list" if "comp" in asked.query or asked.path.partition("?")[0].endswith("/o") else "read"


def refused(answer: Answer, *kinds: str, after: int = 0) -> Callable[[], Forever]:
    return lambda: Forever(answer, lambda asked: not kinds or of_other_stores(asked) in kinds, after)


OTHER_FAULTS: Final[dict[str, tuple[Callable[[], Forever], set[int], str]]] = {
    "a page for all": (refused(PAGE), {6}, "a page to sign in may stand before the store"),
    "a page for listings": (refused(PAGE, "list"), {6}, "a page to sign in may stand before the store"),
    "a page for reads": (refused(PAGE, "read"), {0, 4, 6}, ""),
    "a page for writes": (refused(PAGE, "write"), {0, 6}, "a page to sign in may stand before the store"),
    "expired": (refused(error(401, "AuthenticationFailed")), {5}, "sign in"),
    "expired midway": (refused(error(401, "AuthenticationFailed"), after=12), {0, 5}, "sign in"),
    "may not write": (refused(error(403, "AuthorizationFailure"), "write"), {0, 5}, "sign in"),
    "may not read": (refused(error(403, "AuthorizationFailure"), "read"), {0, 5}, "sign in"),
    "gone": (refused(error(404, "BlobNotFound"), "read"), {0, 2, 3, 4, 6}, ""),
}
OTHER_VERBS: Final = ("download", "verify", "extract-labels", "convert elsewhere", "export csv", "status", "state")


OtherStore = tuple[str, Faults]


@pytest.fixture(scope="module", params=["gs", "az"])
def other_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Faults, dict[str, str]]]:
    faults = Faults()
    with emulated(request.param, tmp_path_factory.mktemp(request.param), faults) as env:
        yield request.param, faults, env


@pytest.fixture
def here(other_store: tuple[str, Faults, dict[str, str]], at_home: Path, monkeypatch: pytest.MonkeyPatch) -> OtherStore:
    """Google's or Azure's emulator, where this process goes; what it is, and its faults."""
    kind, faults, env = other_store
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    object_store._system.cache_clear()
    return kind, faults


# All of them take a quarter of an hour.
OTHER_CHOSEN: Final = (
    [(verb, fault) for verb in OTHER_VERBS for fault in OTHER_FAULTS]
    if ALL
    else [("download", "a page for writes"), ("status", "a page for all")]
)


@pytest.mark.parametrize(("verb", "fault"), OTHER_CHOSEN)
def test_a_verb_meets_a_fault_of_another_store(
    verb: str, fault: str, here: OtherStore, prepared: tuple[Path, dict[str, bytes]]
) -> None:
    kind, faults = here
    release, files = prepared
    first = BEFORE.get(verb)
    found = []
    for place in ("undisturbed", "disturbed"):
        address = f"{kind}://bucket/{len(faults.seen)}-{place}"
        store = ObjectStore(address)
        for name, data in files.items():
            if first is None or name.partition("/")[0] in first:
                store.write(f"nih/{name}", data)
        names = {"bucket": f"{address}/nih", "out": f"{address}/out", "release": str(release)}
        words = [word.format_map(names) for word in VERBS[verb].split()]
        if place == "disturbed":
            make, codes, hint = OTHER_FAULTS[fault]
            faults.before = make()
            try:
                done = cxrprep(*words)
            finally:
                faults.before = lambda _: None
            assert done.returncode in codes, done
            assert "Traceback" not in done.stderr
            assert done.returncode == 0 or hint in done.stderr
        object_store._system.cache_clear()
        done = cxrprep(*words)
        assert done.returncode == 0, done
        store.system().invalidate_cache()
        kept = [entry.name for entry in store.list() if not TIMED.search(entry.name.partition("/")[2])]
        found.append({name: store.read(name) for name in kept})
    assert found[0] == found[1]


def test_a_bucket_of_another_store_that_is_not_there_is_said(
    here: OtherStore, prepared: tuple[Path, dict[str, bytes]]
) -> None:
    there, release = f"{here[0]}://nowhere/nih", str(prepared[0])
    for words in (
        ("status", there),
        ("download", "nih-chestxray14", there, "--source", release),
        ("convert", release, "--recipe", "square-224", "--out", there),
    ):
        done = cxrprep(*words)
        assert done.returncode == 2, done
        assert re.search(r"there is no such (bucket|container)\n.*make it, or check its name", done.stderr), done


def test_an_upload_that_a_page_answers_is_no_missing_bucket(world: World) -> None:
    case = world.case("extract-labels")
    world.faults.before = Forever(PAGE, put)
    done = case.run()
    assert done.returncode == 6, done
    assert "was sent, and is not there" in done.stderr
    assert "a page to sign in may stand before the store" in done.stderr
