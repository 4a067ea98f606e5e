"""Input made by someone who means harm, through the commands a user types: archives, listings, tables, files of ours.

For each case: the exit code, that nothing outside the folder was touched, that no traceback is shown, that memory and
time stay bounded, and what the message says. The parsers alone are fuzzed (``tools/fuzz.py``).
"""

from __future__ import annotations

import gzip
import http.server
import io
import json
import resource
import shutil
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.generators.full import pixels
from tests.generators.full.nih_chestxray14 import Nih
from tests.soak.commands import Done, Home, leftovers, run

MIB = 1 << 20
GOOD = "images/00000001_000.png"
_PATIENCE = 300.0


@dataclass
class Field:
    """Where a case plays: a mirror to fill, a root to work on, and a canary that must not change."""

    work: Path
    home: Home
    mirror: Path = field(init=False)
    root: Path = field(init=False)
    canary: Path = field(init=False)

    def __post_init__(self) -> None:
        self.mirror, self.root, self.canary = self.work / "mirror", self.work / "root", self.work / "canary"
        self.mirror.mkdir(parents=True)
        self.canary.write_text("untouched")
        (self.work / "home").mkdir()

    def download(self, source: str | None = None) -> Done:
        words = ["download", "nih-chestxray14", str(self.root), "--source", source or str(self.mirror)]
        return run([*words, "--timeout", "3"], self.home, timeout=_PATIENCE)

    def verb(self, *words: str) -> Done:
        return run([words[0], str(self.root), *words[1:]], self.home, timeout=_PATIENCE)


@dataclass(frozen=True)
class Case:
    """``play`` runs the commands and returns what they said; ``codes`` are the exit codes that are right."""

    name: str
    play: Callable[[Field], Done]
    codes: tuple[int, ...]
    says: str = ""
    allowed: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What came of a case; ``wrong`` is empty when it is what it must be."""

    case: Case
    done: Done
    wrong: list[str]


# ---- archives ----


def tar_with(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar.gz of these members and one good image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for entry, data in (*members, member(GOOD, pixels.png("good", 32))):
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    """A file of a tar."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    return entry, data


def odd(name: str, kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """A member of a tar that is no file."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry, b""


def archive(*members: tuple[tarfile.TarInfo, bytes], name: str = "images_001.tar.gz") -> Callable[[Field], Done]:
    """A download of an archive with these members."""

    def play(place: Field) -> Done:
        (place.mirror / name).write_bytes(tar_with(*members))
        return place.download()

    return play


def link_then_write(place: Field) -> Done:
    """A link out of the folder, then a file through it."""
    members = (odd("images", tarfile.SYMTYPE, str(place.work)), member("images/canary", b"changed"))
    (place.mirror / "images_001.tar.gz").write_bytes(tar_with(*members))
    return place.download()


def bomb_by_ratio(place: Field) -> Done:
    """Gigabytes of zeros in some megabytes, under the name of an image."""
    zeros = bytes(MIB)
    with gzip.open(place.mirror / "images_001.tar.gz", "wb", 9) as out:
        entry = tarfile.TarInfo(GOOD)
        entry.size = 8 << 30
        out.write(entry.tobuf())
        for _ in range(600):
            out.write(zeros)
    return place.download()


def bomb_by_count(place: Field) -> Done:
    """More than a million members."""
    with gzip.open(place.mirror / "images_001.tar.gz", "wb", 1) as out:
        header = tarfile.TarInfo("images/a.png").tobuf()
        for _ in range(1200):
            out.write(header * 1000)
    return place.download()


def zip_bomb_of_reports(place: Field) -> Done:
    """A report of a gigabyte of spaces."""
    path = place.mirror / "mimic-cxr-reports.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("files/p10/p10000032/s50000001.txt", "w", force_zip64=True) as text,
    ):
        for _ in range(1024):
            text.write(b" " * MIB)
    place.root.mkdir()
    return place.verb("extract-labels", "--reports", str(path))


def duplicates(place: Field) -> Done:
    """One name twice, with other content."""
    members = (member(GOOD, pixels.png("first", 32)), member(GOOD, pixels.png("second", 32)))
    (place.mirror / "images_001.tar.gz").write_bytes(tar_with(*members))
    return place.download()


# ---- listings ----

NAMES = {
    "upwards": "../canary",
    "far upwards": "../../../../canary",
    "absolute": "/etc/passwd",
    "encoded upwards": "%2e%2e%2f%2e%2e%2fcanary",
    "NUL": "0000000%00_000.png",
    "newline": "00000001%0a_000.png",
    "300 characters": "0" * 300 + "_000.png",
    "look-alike digits": "%D9%A0%D9%A0000001_000.png",
    "right-to-left": "%E2%80%AEgnp.000_10000000.png",
    "backslash": "..\\..\\canary",
    "drive": "C:canary",
    "another host": "http://elsewhere.invalid/images/00000002_000.png",
    "a script": "javascript:alert(1)",
    "terminal colours": "%1b[31mred%1b[0m.png",
}


@contextmanager
def listing(names: list[str], body: bytes) -> Iterator[str]:
    """A server whose page lists ``names``, and which answers every other request with ``body``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown = {"/mirror/": ["images/"], "/mirror/images/": names}.get(self.path)
            page = shown is not None
            links = "".join(f'<a href="{name}">{name}</a>\n' for name in shown or ())
            data = f"<html><pre>{links}</pre></html>".encode() if page else body
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if page else "application/octet-stream")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Nothing: the outcome says it all."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/mirror/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def listed(name: str) -> Callable[[Field], Done]:
    """A download from a page that lists ``name`` beside a good image."""

    def play(place: Field) -> Done:
        with listing([name, GOOD.removeprefix("images/")], pixels.png("listed", 32)) as address:
            return place.download(address)

    return play


def sums(name: str) -> Callable[[Field], Done]:
    """A verification with a list of sums that names ``name``."""

    def play(place: Field) -> Done:
        _downloaded(place)
        (place.root / "MD5SUMS").write_bytes(b"0" * 32 + b"  " + name.encode() + b"\n")
        return place.verb("verify")

    return play


# ---- tables, images, and files of ours from someone else ----


def _downloaded(place: Field) -> None:
    Nih.generate(100, seed=3).write(place.mirror)
    done = place.download()
    assert done.code == 0, done.said


def replaced(name: str, data: bytes, verb: str, *more: str) -> Callable[[Field], Done]:
    """A good folder in which ``name`` holds ``data``."""

    def play(place: Field) -> Done:
        _downloaded(place)
        path = place.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return place.verb(verb, *more)

    return play


def png_bomb() -> bytes:
    """A PNG whose header promises 100,000 x 100,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(MIB))) + chunk(b"IEND", b"")
    )


def plan_of_someone(place: Field) -> Done:
    """A plan whose items lead out of the folder."""
    _downloaded(place)
    file = place.work / "plan.json"
    words = ["download", "nih-chestxray14", str(place.root), "--source", str(place.mirror), "--save-plan", str(file)]
    run(words, place.home)
    plan = json.loads(file.read_text())
    text = json.dumps(plan).replace("BBox_List_2017.csv", "../canary")
    file.write_text(text)
    shutil.rmtree(place.root)
    return run(["download", "nih-chestxray14", str(place.root), "--from-plan", str(file)], place.home)


def record_of_someone(place: Field) -> Done:
    """A record whose table names a file outside."""
    import pyarrow.parquet as pq

    _downloaded(place)
    path = place.root / "cxrprep.files.parquet"
    table = pq.read_table(path)
    cells = table["path"].to_pylist()
    cells[0] = "../canary"
    table = table.set_column(0, table.schema.field(0), [cells])
    pq.write_table(table, path)
    return place.verb("verify", "--repair")


def report_of_someone(place: Field) -> Done:
    """Reports that are long, nested, without end of sentence, or not text."""
    path = place.work / "reports.csv"
    texts = [
        "no " * 200_000,
        "(" * 50_000,
        "a" * 500_000,
        "\x00\x01\x02",
        "IMPRESSION:" * 20_000,
        "effusion, " * 40_000,
    ]
    lines = ["study_id,report", *(f'{50_000_000 + n},"{text}"' for n, text in enumerate(texts))]
    path.write_text("\n".join(lines) + "\n")
    place.root.mkdir()
    return place.verb("extract-labels", "--reports", str(path), "--jobs", "1")


_TABLE = "Data_Entry_2017_v2020.csv"
_NEWER = b'format = 99\ndataset = "x"\n'
ARCHIVES = (
    Case("tar: upwards", archive(member("../canary", b"changed")), (0, 3, 4), "canary"),
    Case("tar: absolute", archive(member("/tmp/cxrprep-escaped", b"changed")), (0, 3, 4)),
    Case("tar: a link upwards", archive(odd("images/a.png", tarfile.SYMTYPE, "../../canary")), (0, 3, 4)),
    Case("tar: a hard link", archive(odd("images/b.png", tarfile.LNKTYPE, "../canary")), (0, 3, 4)),
    Case("tar: a device", archive(odd("images/c.png", tarfile.CHRTYPE)), (0, 3, 4)),
    Case("tar: a pipe", archive(odd("images/d.png", tarfile.FIFOTYPE)), (0, 3, 4)),
    Case("tar: a link, then a file through it", link_then_write, (0, 3, 4)),
    Case("tar: one name twice", duplicates, (0, 3, 4)),
    Case("tar: bomb by ratio", bomb_by_ratio, (3, 4, 7)),
    Case("tar: bomb by count", bomb_by_count, (3, 4)),
    Case("zip: a report of a gigabyte", zip_bomb_of_reports, (3, 4)),
)  # fmt: skip
LISTINGS = tuple(Case(f"listing: {what}", listed(name), (0,), allowed=(GOOD,)) for what, name in NAMES.items())
OTHERS = (
    Case("sums: upwards", sums("../canary"), (4,), "canary"),
    Case("sums: absolute", sums("/etc/passwd"), (4,), "passwd"),
    Case("table: not a table", replaced(_TABLE, b"\x00" * 100_000, "extract-labels"), (2, 3, 4)),
    Case("table: one endless line", replaced(_TABLE, b"a," * 4_000_000, "extract-labels"), (2, 3, 4)),
    Case("image: PNG of ten billion pixels", replaced(GOOD, png_bomb(), "verify", "--images"), (4,)),
    Case("image: converted from it", replaced(GOOD, png_bomb(), "convert", "--recipe", "square-224"), (3, 4), GOOD),
    Case("image: a DICOM's header and nothing", replaced(GOOD, b"\x00" * 128 + b"DICM", "verify", "--images"), (4,)),
    Case("lock: not TOML", replaced("cxrprep.lock", b"\xff\xfe[[[", "verify"), (4,), "cxrprep.lock"),
    Case("lock: of a newer program", replaced("cxrprep.lock", _NEWER, "verify"), (2,), "newer"),
    Case("lock: the table is no Parquet", replaced("cxrprep.files.parquet", b"PAR1junkPAR1", "verify"), (4,)),
    Case("record: a path upwards", record_of_someone, (4,)),
    Case("plan: a path upwards", plan_of_someone, (2, 4), "canary"),
    Case("settings: not TOML", replaced("cxrprep.toml", b"[[[", "verify", "--config", "cxrprep.toml"), (2,)),
    Case("reports: long, nested, not text", report_of_someone, (0, 3)),
)  # fmt: skip
CASES = (*ARCHIVES, *LISTINGS, *OTHERS)


def play(case: Case, work: Path) -> Outcome:
    """Run the case in a folder of its own, and look at what became of it."""
    shutil.rmtree(work, ignore_errors=True)
    place = Field(work, Home(work / "home"))
    done = case.play(place)
    return Outcome(case, done, list(_judge(case, done, place)))


def _judge(case: Case, done: Done, place: Field) -> Iterator[str]:
    if done.code not in case.codes:
        yield f"exit {done.code}, not {case.codes}: {done.said[-500:]}"
    if "Traceback" in done.said or "a bug in cxrprep" in done.said:
        yield f"a crash: {done.said[-600:]}"
    if case.says not in done.said:
        yield f"does not say {case.says!r}: {done.said[-400:]}"
    if "\x1b[31m" in done.said:
        yield "a name reached the terminal as a command"
    if place.canary.read_text() != "untouched":
        yield "the canary outside of the folder was changed"
    if Path("/tmp/cxrprep-escaped").exists():
        yield "a file escaped to /tmp"
    outside = {path.name for path in place.work.iterdir()} - _OURS
    if outside:
        yield f"files beside the folder: {sorted(outside)}"
    for path in place.root.rglob("*"):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            yield f"{path} is no plain file"
    for path in place.root.rglob("*.png"):
        if case.allowed and path.relative_to(place.root).as_posix() not in case.allowed:
            yield f"unexpected: {path}"
    if done.code == 0 and leftovers(place.root):
        yield f"left behind: {leftovers(place.root)}"


_OURS = {"mirror", "root", "home", "canary", "plan.json", "reports.csv"}


def line(outcome: Outcome) -> str:
    """A row of the table."""
    words = [text for text in outcome.done.stderr.splitlines() if text.startswith("Error")]
    state = "as it must" if not outcome.wrong else "WRONG: " + "; ".join(outcome.wrong)
    said = (words or [""])[0][:120].replace("|", "\\|")
    return f"| {outcome.case.name} | {outcome.done.code} | {outcome.done.seconds:.1f} | {state} | {said} |"


HEADER = "| input | exit | seconds | outcome | what it said |\n|---|--:|--:|---|---|"


def main(work: Path, only: str = "") -> int:
    """Play every case and print the table; 1 when one came out wrong."""
    wrong = 0
    print(HEADER)
    for case in CASES:
        if only in case.name:
            outcome = play(case, work / "case")
            wrong += bool(outcome.wrong)
            print(line(outcome), flush=True)
    print(f"\nlargest process: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024} MiB")
    return int(wrong > 0)
