"""Every parser that reads what others wrote, as a function of bytes; what it may raise, and what must hold.

A target takes bytes and a scratch folder. An error of ``cxrprep.errors`` is an answer; any other exception is a crash.
``check`` also holds the error to its promises: it is no "bug", it has a next step or names the input.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cxrprep.errors import CxrprepError, ExitCode
from cxrprep.record import record
from tests.generators.full import pixels
from tests.generators.full.chexpert import Chexpert
from tests.generators.full.mimic_cxr import Mimic
from tests.generators.full.nih_chestxray14 import Nih
from tests.generators.full.prose import report
from tests.record.entries import entries_of

# A record that is damaged is read again for half a second, in case another process is just saving it: not here.
record._TORN_WAIT = 0.0

# Processor time that one input may take: a parser that is linear needs milliseconds for the few kilobytes here.
STALL = 10.0


class BrokenPromiseError(AssertionError):
    """A parser answered, but not as it promises to."""


@dataclass(frozen=True)
class Target:
    """A parser under test. ``seeds`` gives valid inputs to start from; ``words`` are pieces that parsers look for."""

    name: str
    parse: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()


def check(target: Target, data: bytes, scratch: Path) -> str:
    """What came of it: ``ok`` or the class of the error; raises whatever the parser should not have raised."""
    begun = time.process_time()
    try:
        target.parse(data, scratch)
        outcome = "ok"
    except CxrprepError as error:
        if error.exit_code is ExitCode.BUG:
            raise BrokenPromiseError(f"{type(error).__name__} stands for a bug: {error}") from error
        if not error.message:
            raise BrokenPromiseError(f"{type(error).__name__} without a message") from error
        outcome = type(error).__name__
    took = time.process_time() - begun
    if took > STALL:
        raise BrokenPromiseError(f"{len(data)} bytes took {took:.1f} s")
    return outcome


def _file(scratch: Path, name: str, data: bytes) -> Path:
    path = scratch / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _text(lines: Iterator[str] | list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


# ---- listings and answers of servers ----


def _sums(data: bytes, _: Path) -> None:
    from cxrprep import checksum_files

    for file in checksum_files.parse(data.decode("utf-8", "replace").splitlines(keepends=True)):
        if file.digest is None:
            raise BrokenPromiseError("a list of sums gave a file without one")


def _published_sums(data: bytes, scratch: Path) -> None:
    from cxrprep.datasets.catalog import find_dataset
    from cxrprep.verification.published_checksums import read_sums

    layout = find_dataset("mimic-cxr-jpg").layout()
    for table in read_sums(_file(scratch, "SHA256SUMS.txt", data), layout, "2.1.0"):
        _inside(table["path"].to_pylist())


def _inside(paths: list[str]) -> None:
    for path in paths:
        parts = path.split("/")
        if path.startswith("/") or ".." in parts or "\x00" in path or "\n" in path:
            raise BrokenPromiseError(f"a path leaves the root or cannot be one: {path!r}")


def _folder_page(data: bytes, _: Path) -> None:
    from cxrprep.sources.index_pages import read_page

    kinds = ("text/html", "application/json", "text/plain", "application/xml")
    for kind in kinds:
        for entry in read_page(data, kind, "http://127.0.0.1/mirror/") or []:
            if ".." in str(entry).split("/"):
                raise BrokenPromiseError(f"a page led upwards: {entry!r}")


def _answer(data: bytes, _: Path) -> None:
    from cxrprep.sources.http_response import HttpResponse, is_html_page, refusal

    lines = data.decode("latin-1").split("\n")
    pairs = (line.partition(":") for line in lines[1:])
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    status = int(lines[0]) if lines[0].isascii() and lines[0].isdecimal() and len(lines[0]) == 3 else 200
    answer = HttpResponse(status, headers, "http://127.0.0.1/x")
    wait = answer.retry_after
    if wait is not None and not 0 <= wait <= 3600:
        raise BrokenPromiseError(f"Retry-After of {wait}")
    _ = (answer.content_range, answer.content_length, answer.is_page, answer.validator(5), answer.digest())
    is_html_page(data)
    if status >= 400:
        refusal(answer, "a/b.png")


# ---- tables ----


def _tables(dataset: str, name: str, others: Callable[[], dict[str, bytes]] = dict) -> Callable[[bytes, Path], None]:
    def parse(data: bytes, scratch: Path) -> None:
        from cxrprep.datasets.catalog import find_dataset
        from cxrprep.labels.extract import read_labels

        for other, content in others().items():
            _file(scratch, other, content)
        _file(scratch, name, data)
        labels = read_labels(find_dataset(dataset), scratch)
        for column in labels.table.column_names:
            if column.startswith("label_") and column != "label_source":
                found = set(labels.table[column].unique().to_pylist())
                if not found <= {1, 0, -1, None}:
                    raise BrokenPromiseError(f"{column} holds {found}")

    return parse


def _zipped(parse: Callable[[bytes, Path], None]) -> Callable[[bytes, Path], None]:
    # Mutated text, compressed afterwards: the mutations reach the table and not only the inflater.
    return lambda data, scratch: parse(gzip.compress(data, 1, mtime=0), scratch)


def _head(data: bytes, lines: int = 30) -> bytes:
    return b"".join(data.splitlines(keepends=True)[:lines])


@cache
def _nih(what: str) -> bytes:
    release = Nih.generate(100, seed=3)
    train, test = release.lists()
    return {
        "table": _text(release.table()), "boxes": _text(release.boxes()), "train": train.encode(), "test": test.encode()
    }[what]  # fmt: skip


def _nih_others() -> dict[str, bytes]:
    return {
        "Data_Entry_2017_v2020.csv": _nih("table"),
        "train_val_list.txt": _nih("train"),
        "test_list.txt": _nih("test"),
    }


@cache
def _mimic(what: str) -> bytes:
    release = Mimic.generate(40, seed=3)
    return _text(
        {
            "metadata": release.metadata, "split": release.splits, "chexpert": lambda: release.labels("chexpert"),
            "radiologist": release.radiologist,
        }[what]()
    )  # fmt: skip


@cache
def _mimic_others() -> dict[str, bytes]:
    names = ("metadata", "split", "chexpert")
    return {f"mimic-cxr-2.0.0-{name}.csv.gz": gzip.compress(_mimic(name), 1, mtime=0) for name in names}


@cache
def _chexpert(what: str) -> bytes:
    release = Chexpert.generate(40, seed=3)
    return _text(list(release.train_csv())[:40] if what == "train" else release.valid_csv())


def _compared(data: bytes, scratch: Path) -> None:
    from cxrprep.labels.agreement import compare_tables

    first = _file(scratch, "a.csv", b"study_id,Edema,Pneumonia\n1,1,\n2,0,-1\n")
    compare_tables(first, _file(scratch, "b.csv", data))


def _compared_parquet(data: bytes, scratch: Path) -> None:
    from cxrprep.labels.label_table import read_label_table

    read_label_table(_file(scratch, "b.parquet", data))


def _parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    table = pa.table({"study_id": ["1", "2"], "Edema": pa.array([1, None], pa.int8()), "report": [report(1), ""]})
    pq.write_table(table, sink)
    return sink.getvalue()


# ---- reports ----


def _report(data: bytes, _: Path) -> None:
    from cxrprep.labels.nlp.label_report import label_report

    text = data.decode("utf-8", "surrogateescape")
    labels = label_report(text).labels
    if len(labels) != 14 or not set(labels.values()) <= {1, 0, -1, None}:
        raise BrokenPromiseError(f"labels of a report: {labels}")


def _collection(suffix: str) -> Callable[[bytes, Path], None]:
    def parse(data: bytes, scratch: Path) -> None:
        from cxrprep.labels.nlp.label_report import label_report
        from cxrprep.labels.nlp.readers import open_collection

        found = open_collection(_file(scratch, f"reports{suffix}", data))
        for each in found.rows() if found.names is None else found.read(found.names):
            label_report(each.text)

    return parse


def _report_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for study in (50000001, 50000002):
            archive.writestr(f"files/p10/p10000032/s{study}.txt", report(study))
    return buffer.getvalue()


def _report_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("files/p10/p10000032/s50000001.txt")
        entry.size = len(report(1).encode())
        archive.addfile(entry, io.BytesIO(report(1).encode()))
    return buffer.getvalue()


_OPENI = b"""<?xml version="1.0"?><eCitation><uId id="CXR1"/><MedlineCitation><Article><Abstract>
<AbstractText Label="FINDINGS">No effusion.</AbstractText><AbstractText Label="IMPRESSION">Normal.</AbstractText>
</Abstract></Article></MedlineCitation></eCitation>"""
_CSV = b'study_id,findings,impression\n1,"No effusion, no ""edema"".",Normal\n2,,Stable cardiomegaly\n'


# ---- settings, recipes, vocabularies ----


def _job(data: bytes, scratch: Path) -> None:
    from cxrprep.config.settings import read_job

    _, read = read_job(_file(scratch, "job.toml", data))
    read.raise_mistakes()


def _job_file(data: bytes, scratch: Path) -> None:
    from cxrprep.config.settings import load_settings

    load_settings(config=_file(scratch, "job.toml", data), environment={}, folder=scratch)


def _spec(data: bytes, _: Path) -> None:
    from cxrprep.datasets.catalog import parse_spec

    parse_spec(data.decode("utf-8", "replace"), "some.toml")


def _vocabulary(data: bytes, scratch: Path) -> None:
    from cxrprep.labels.nlp.custom_rules import read_vocabulary

    read_vocabulary(_file(scratch, "words.toml", data))


def _toml_seeds(*folders: str) -> Callable[[], list[bytes]]:
    root = Path(__file__).parents[2]
    return lambda: [path.read_bytes() for folder in folders for path in sorted((root / folder).glob("*.toml"))]


_VOCABULARY = b"""[[observation]]
name = "Hiatal Hernia"
findings = ["hiatal|hiatus hernia*"]
examples = ["There is a large hiatal hernia. => 1"]
"""
_JOB = b"""dataset = "nih-chestxray14"
root = "/data"
steps = ["download", "verify"]
[selection]
split = ["test"]
label = ["Edema=-1"]
"""


# ---- the record, plans, credentials ----


def _lock(data: bytes, scratch: Path) -> None:
    from cxrprep.record.record import Record

    _file(scratch, "cxrprep.files.parquet", _locks()[1])
    _file(scratch, "cxrprep.lock", data)
    with Record.open(scratch) as record:
        _ = (record.header, list(record.selections), len(entries_of(record)))


def _lock_table(data: bytes, scratch: Path) -> None:
    # The header's digest would refuse every change; whoever alters the table may alter the digest too.
    from cxrprep.record.record import Record

    path = _file(scratch, "cxrprep.files.parquet", data)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    _file(scratch, "cxrprep.lock", re.sub(rb"sha256:[0-9a-f]{64}", b"sha256:" + digest.encode(), _locks()[0]))
    with Record.open(scratch) as record:
        _inside([entry.path for entry in entries_of(record).values()])


def _journal(data: bytes, scratch: Path) -> None:
    from cxrprep.record.record import Record

    for name, content in zip(("cxrprep.lock", "cxrprep.files.parquet"), _locks(), strict=True):
        _file(scratch, name, content)
    _file(scratch, ".cxrprep/journal/1-host-1.jsonl", data)
    with Record.open(scratch) as record:
        _inside([entry.path for entry in entries_of(record).values()])


def _checks(name: str) -> Callable[[bytes, Path], None]:
    """What an earlier check of a shared folder remembers; it may be believed for its own paths only."""

    def parse(data: bytes, scratch: Path) -> None:
        import pyarrow as pa

        from cxrprep.storage.sorted_tables import HeldRows
        from cxrprep.verification.check_cache import Checks

        cache = scratch / ".cxrprep"
        _file(cache, name, data)
        disk = pa.table(
            {
                "path": ["images/a.png", "images/b.png"],
                "size": pa.array([5, 6], pa.int64()),
                "mtime_ns": pa.array([7, 8], pa.int64()),
                "inode": pa.array([9, 10], pa.uint64()),
            }
        )
        checks = Checks(cache)
        if len(checks.known(quick=True)(disk)) != 2:
            raise BrokenPromiseError("not an answer a path")
        checks.finish(HeldRows(disk))

    return parse


@cache
def _checks_table() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cxrprep.verification.check_cache import SCHEMA

    sink = io.BytesIO()
    rows = {"path": ["images/a.png"], "size": [5], "mtime_ns": [7], "inode": [9], "digests": ["sha256:" + "0" * 64]}
    pq.write_table(pa.table(rows, schema=SCHEMA), sink)
    return sink.getvalue()


_CHECKED = b'{"files":[["images/a.png",5,7,9,"sha256:00"],["images/b.png",6,8,10,"md5:00 sha256:11"]]}\n'


def _journal_line() -> bytes:
    from cxrprep.model import Digest
    from cxrprep.record.entry import FileEntry, Origin

    return json.dumps(FileEntry("images/a.png", 5, Digest("md5", "0" * 32), Origin.PUBLISHED).as_row()).encode() + b"\n"


@cache
def _locks() -> tuple[bytes, bytes]:
    from cxrprep.model import Digest, Selection, Split
    from cxrprep.record.entry import FileEntry, Origin
    from cxrprep.record.record import Record

    with tempfile.TemporaryDirectory() as folder:
        with Record.open(Path(folder)) as record:
            record.describe(dataset="nih-chestxray14", release="v2020", mirror="http://127.0.0.1/", tool="cxrprep 0")
            record.select(Selection(splits=frozenset({Split.TEST}), limit=3))
            record.add(FileEntry("images/00000001_000.png", 5, Digest("md5", "0" * 32), Origin.PUBLISHED))
            record.save()
        return (Path(folder) / "cxrprep.lock").read_bytes(), (Path(folder) / "cxrprep.files.parquet").read_bytes()


def _credentials(name: str) -> Callable[[bytes, Path], None]:
    def parse(data: bytes, scratch: Path) -> None:
        from cxrprep.credentials.lookup import Credentials

        path = _file(scratch, name, data)
        path.chmod(0o600)
        variables = {"NETRC": str(scratch / ".netrc"), "KAGGLE_CONFIG_DIR": str(path.parent)}
        found = Credentials(environment=variables, home=scratch, keyring=False)
        _ = (found.physionet(), found.kaggle(), found.host("example.org"))

    return parse


def _cookies(data: bytes, scratch: Path) -> None:
    import pycurl

    from cxrprep.sources.http_auth import load_cookies

    load_cookies(pycurl.CurlShare(), str(_file(scratch, "cookies.txt", data)))


# ---- images ----


def _pictures(suffix: str) -> Callable[[bytes, Path], None]:
    def parse(data: bytes, _: Path) -> None:
        from cxrprep.images.decode import decode
        from cxrprep.images.radiograph import ImageLimits

        picture = decode(data, f"image{suffix}", ImageLimits(pixels=4_000_000))
        if picture.width * picture.height > 4_000_000:
            raise BrokenPromiseError(f"{picture.width} x {picture.height} pixels passed the limit")

    return parse


def _picture_header(data: bytes, scratch: Path) -> None:
    from cxrprep.images.decode import header

    for suffix in (".png", ".dcm"):
        header(_file(scratch, f"image{suffix}", data))


# ---- archives, plans, recipes ----


def _archive(suffix: str) -> Callable[[bytes, Path], None]:
    def parse(data: bytes, scratch: Path) -> None:
        from cxrprep.storage.archives import ArchiveLimits, read_members, reading

        path = _file(scratch, f"images_001{suffix}", data)
        left = 1 << 20
        for member in read_members(path, ArchiveLimits(members=1000, member_size=1 << 20, free=1 << 20)):
            _inside([member.name])
            with reading(path), member.open() as content:
                left -= len(content.read(left + 1))
            if left < 0:
                raise BrokenPromiseError("more came out than the limits allow")

    return parse


def _tgz() -> bytes:
    return gzip.compress(_report_tar(), mtime=0)


def _plan(data: bytes, scratch: Path) -> None:
    from cxrprep.planning.plan_file import load_plan

    _inside([item.dest for item in load_plan(_file(scratch, "plan.json", data))])


def _plan_seed() -> bytes:
    from cxrprep.model import Digest, RemoteFile, Selection
    from cxrprep.planning.plan import Action, Item, Plan
    from cxrprep.planning.plan_file import save_plan

    with tempfile.TemporaryDirectory() as folder:
        items = [
            Item(RemoteFile("images_001.tar.gz", 7, Digest("md5", "0" * 32), '"e"'), "images_001.tar.gz", Action.RESUME,
                 "partial", have=3, archive=True),
            Item(RemoteFile("a/test_list.txt"), "test_list.txt", Action.FETCH, "not here"),
        ]  # fmt: skip
        plan = Plan("nih-chestxray14", "v2020", "http://127.0.0.1/", items, Selection(limit=3), frozenset({"a"}))
        save_plan(plan, Path(folder) / "plan.json")
        return (Path(folder) / "plan.json").read_bytes()


def _recipe(data: bytes, _: Path) -> None:
    from cxrprep.images.recipe import parse_recipe

    parse_recipe(data.decode("utf-8", "replace"), "recipe.toml", "mine")


_MEMBERS = (
    b"../",
    b"/etc/passwd",
    b"ustar",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"\xff\xff\xff\xff",
    b"\x00" * 512,
    b"2",
    b"L",
)
TARGETS = (
    Target("zip", _archive(".zip"), lambda: [_report_zip()], _MEMBERS),
    Target("tar", _archive(".tar"), lambda: [_report_tar()], _MEMBERS),
    Target("tgz", _archive(".tar.gz"), lambda: [_tgz()]),
    Target("plan", _plan, lambda: [_plan_seed()], (b'"../x"', b"null", b"true", b"1e999", b"-1", b'{"key": "a"}')),
    Target("recipe", _recipe, _toml_seeds("cxrprep/images/recipes"), (b"[[step]]", b"-1", b"nan", b"1e9", b'"png"')),
    Target("sums", _sums, lambda: [b"ab" * 32 + b" files/p10/x.dcm\n", b"MD5 (a b.png) = " + b"0" * 32 + b"\n"]),
    Target("published-sums", _published_sums, lambda: [b"ab" * 32 + b" files/p10/p10000032/s50000001.txt\n"],
           (b"../", b"/etc/passwd", b"\\", b"\x00", b"C:", b"\xff", b"  *")),
    Target("folder-page", _folder_page, lambda: [
        b'<html><pre><a href="../">../</a>\n<a href="a%20b.png">a b.png</a>  23-Jul-2024 12:00  1.4K\n</pre></html>',
        json.dumps([{"name": "a.png", "type": "file", "size": 7}]).encode()],
        (b"%2e%2e%2f", b"%00", b"//host/", b"javascript:", b"&amp;", b"href=", b"<a ")),
    Target("answer", _answer, lambda: [
        b'206\nContent-Range: bytes 0-4/5\nETag: "a"\nX-Goog-Hash: crc32c=AAAAAA==,md5=1B2M2Y8AsgTpgAmY7PhCfg==',
        b"503\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT", b"429\nRetry-After: 120\nContent-Type: text/html"],
        (b"-1", b"1e309", b"99999999999999999999", b"*/", b"\xb2")),
    Target("nih-table", _tables("nih-chestxray14", "Data_Entry_2017_v2020.csv"), lambda: [_head(_nih("table"))],
           (b'"', b",", b"\r\n", b"\x00", b"\xef\xbb\xbf", b"|", b"No Finding", b"058Y")),
    Target("nih-boxes", _tables("nih-chestxray14", "BBox_List_2017.csv", _nih_others), lambda: [_head(_nih("boxes"))],
           (b"nan", b"inf", b"-1", b"1e400", b'"', b",,")),
    Target("nih-list", _tables("nih-chestxray14", "test_list.txt", _nih_others), lambda: [_head(_nih("test"))]),
    Target("chexpert-table", _tables("chexpert", "train.csv"), lambda: [_chexpert("train")],
           (b"-1.0", b"2.0", b"nan", b'"', b"\n\n", b"../", b"CheXpert-v1.0/", b"Lateral")),
    Target("mimic-metadata", _zipped(_tables("mimic-cxr-jpg", "mimic-cxr-2.0.0-metadata.csv.gz", _mimic_others)),
           lambda: [_mimic("metadata")], (b"80556.875", b'"', b"-", b"XTABLE LATERAL", b"99999999")),
    Target("mimic-split", _zipped(_tables("mimic-cxr-jpg", "mimic-cxr-2.0.0-split.csv.gz", _mimic_others)),
           lambda: [_mimic("split")]),
    Target("mimic-labels", _zipped(_tables("mimic-cxr-jpg", "mimic-cxr-2.0.0-chexpert.csv.gz", _mimic_others)),
           lambda: [_mimic("chexpert")], (b"-1.0", b"nan", b"1e0", b'"')),
    Target("mimic-gzip", _tables("mimic-cxr-jpg", "mimic-cxr-2.0.0-split.csv.gz", _mimic_others),
           lambda: [_mimic_others()["mimic-cxr-2.0.0-split.csv.gz"]]),
    Target("compare-csv", _compared, lambda: [b"study_id,Edema,Pneumonia\n1,1,\n2,0,-1\n", _CSV]),
    Target("compare-parquet", _compared_parquet, lambda: [_parquet()]),
    Target("report-text", _report, lambda: [report(n).encode() for n in range(6)],
           (b"no ", b"without ", b" or ", b" versus ", b"___", b"IMPRESSION:", b"\n \n", b"cannot exclude ", b", ")),
    Target("report-zip", _collection(".zip"), lambda: [_report_zip()], (b"../", b"PK\x01\x02", b"PK\x03\x04")),
    Target("report-tar", _collection(".tar"), lambda: [_report_tar()]),
    Target("report-csv", _collection(".csv"), lambda: [_CSV], (b'"', b'""', b"\x00", b"\r")),
    Target("report-parquet", _collection(".parquet"), lambda: [_parquet()]),
    Target("report-xml", _collection(".xml"), lambda: [_OPENI], (b"<!ENTITY a '", b"&a;&a;", b"<!DOCTYPE x [")),
    Target("job", _job, lambda: [_JOB, *_toml_seeds("configs")()], (b"[", b"]", b"=", b'"""', b"nan", b"-inf", b"\\u")),
    Target("spec", _spec, _toml_seeds("cxrprep/datasets"), (b"[[", b"]]", b"{", b"}")),
    Target("vocabulary", _vocabulary, lambda: [_VOCABULARY],
           (b"{0,9}", b"@class", b"|", b"?", b"*", b"(s)", b"[[observation]]", b"[[cue]]")),
    Target("lock", _lock, lambda: [_locks()[0]], (b"[", b"=", b"\x00", b"9" * 30)),
    Target("lock-table", _lock_table, lambda: [_locks()[1]]),
    Target("journal", _journal, lambda: [_journal_line()], (b"null", b'{"forget": "a"}\n', b'"../x"', b"\x00\x00")),
    Target("checks-journal", _checks("checks/1-host-1-a.jsonl"), lambda: [_CHECKED],
           (b"null", b"-1", b"99999999999999999999", b'"files"', b"\x00\x00", b'"images/a.png"')),
    Target("checks-table", _checks("checks.parquet"), lambda: [_checks_table()]),
    Target("netrc", _credentials(".netrc"), lambda: [b"machine physionet.org login a password b\n"],
           (b"default ", b"macdef x\n", b"#", b'"')),
    Target("kaggle-json", _credentials("kaggle.json"), lambda: [b'{"username": "a", "key": "b"}'], (b"null", b"[[")),
    Target("cookies", _cookies, lambda: [
        b"# Netscape HTTP Cookie File\nphysionet.org\tFALSE\t/\tTRUE\t2000000000\tsessionid\tabc\n"], (b"\t", b"\n")),
    Target("png", _pictures(".png"), lambda: [pixels.png("a", 32), pixels.png("b", 32, rgba=True)],
           (b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"acTL", b"\xff\xff\xff\xff")),
    Target("jpeg", _pictures(".jpg"), lambda: [pixels.jpeg("a")],
           (b"\xff\xd8", b"\xff\xc0", b"\xff\xda", b"\xff\xe1Exif\x00\x00", b"\xff\xff")),
    Target("picture-header", _picture_header, lambda: [
        pixels.png("a", 32), pixels.jpeg("a"), pixels.dicom("0" * 44, "10000032")], (b"\xff\xc0", b"IHDR", b"DICM")),
    Target("dicom", _pictures(".dcm"), lambda: [pixels.dicom("0" * 44, "10000032")],
           (b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"OW", b"SQ", b"\x28\x00\x10\x00", b"\x28\x00\x00\x01")),
)  # fmt: skip


def named(name: str) -> Target:
    """The target called ``name``."""
    return next(target for target in TARGETS if target.name == name)


def emptied(folder: Path) -> Path:
    """``folder``, holding nothing: one input must not leave files for the next."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


__all__ = ["STALL", "TARGETS", "BrokenPromiseError", "Target", "check", "emptied", "named"]
