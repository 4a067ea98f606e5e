"""A run of everything with marked credentials, report text and identities, and a search for the marks afterwards.

Searched are: the arguments of every process and the environment of every child while it runs, what the commands print,
every file they leave (Parquet, gzip and zip opened), and what other hosts were asked. The marks are looked for as they
are, in Base64 beside a user name as HTTP sends them, and quoted as in addresses.
"""

from __future__ import annotations

import base64
import gzip
import io
import os
import subprocess
import sys
import textwrap
import threading
import time
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom

from tests.generators.full.chexpert import Chexpert
from tests.generators.full.mimic_cxr import Mimic
from tests.generators.full.nih_chestxray14 import Nih
from tests.generators.full.server import Site, folder_reader, serving
from tests.servers import kaggle
from tests.soak import faults
from tests.soak.commands import PROGRAM, Done, Home

USER = "reader"
PASSWORD, WRONG, COOKIE, SIGNATURE = "mark-password-7Qx", "mark-wrong-8Wz", "markcookie9Kv", "mark-signature-5Tb"
REPORT_WORD, NAME = "Markovianly", "MARKNAME^SECRET"
_SECRETS = {
    "password": PASSWORD,
    "wrong password": WRONG,
    "cookie": COOKIE,
    "signature": SIGNATURE,
    "token": kaggle.TOKEN,
}
_CRASH = """
    import os
    _replace = os.replace
    import pathlib
    def replace(self, target, _own=pathlib.Path.replace):
        if str(target).endswith("cxrprep.files.parquet"):
            raise RuntimeError("provoked")
        return _own(self, target)
    pathlib.Path.replace = replace
    """


@dataclass
class Outcome:
    """What came of one step; ``wrong`` says where a mark was found."""

    name: str
    codes: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    children: int = 0


class Watch:
    """Reads the arguments and environments of a process and its children for as long as it runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.arguments: set[bytes] = set()
        self.environments: dict[int, bytes] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.01):
            for pid in self._family():
                try:
                    words = Path(f"/proc/{pid}/cmdline").read_bytes()
                    self.arguments.add(words)
                    # Between fork and exec a child is its parent still.
                    if pid != self._pid and words not in (Path(f"/proc/{self._pid}/cmdline").read_bytes(), b""):
                        self.environments[pid] = Path(f"/proc/{pid}/environ").read_bytes()
                except OSError:
                    continue

    def _family(self) -> list[int]:
        found = [self._pid]
        for parent in found:
            try:
                for task in Path(f"/proc/{parent}/task").glob("*/children"):
                    found += [int(word) for word in task.read_text().split()]
            except OSError:
                # It has ended meanwhile.
                continue
        return found


def spellings(secret: str) -> set[bytes]:
    """How a secret may look: as it is, quoted, and in HTTP's Base64."""
    found = {secret.encode(), urllib.parse.quote(secret, safe="").encode()}
    found.add(base64.b64encode(f"{USER}:{secret}".encode()).rstrip(b"="))
    return found


def marks_in(data: bytes, marks: Mapping[str, set[bytes]]) -> Iterator[str]:
    """The names of the marks that ``data`` holds."""
    for name, forms in marks.items():
        if any(form in data for form in forms):
            yield name


def contents(path: Path) -> Iterator[bytes]:
    """What a file says: its bytes, and what is packed in it."""
    data = path.read_bytes()
    yield data
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield str(table.schema).encode()
        for column in table.columns:
            if (
                pa.types.is_nested(column.type)
                or pa.types.is_string(column.type)
                or pa.types.is_dictionary(column.type)
            ):
                yield "\n".join(map(str, column.to_pylist())).encode()
    elif data[:2] in (b"\x1f\x8b", b"PK"):
        yield from _unpacked(data)


def _unpacked(data: bytes) -> Iterator[bytes]:
    try:
        if data[:2] == b"\x1f\x8b":
            yield gzip.decompress(data)
            return
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield archive.read(name)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile):
        # Half an archive; its bytes were looked at as they are.
        return


@dataclass
class Campaign:
    """Where it plays, and the environment that commands get."""

    work: Path
    home: Home
    given: set[Path] = field(default_factory=set)
    outcomes: list[Outcome] = field(default_factory=list)
    foreign: list[dict[str, str]] = field(default_factory=list)

    def step(
        self,
        name: str,
        commands: Iterable[tuple[str, ...]],
        *,
        variables: Mapping[str, str] | None = None,
        also: Mapping[str, set[bytes]] | None = None,
        allowed: tuple[str, ...] = (),
    ) -> Outcome:
        """Run ``commands`` and look for marks; ``allowed`` are ends of paths that may hold those of ``also``."""
        marks = {key: spellings(secret) for key, secret in _SECRETS.items()} | dict(also or {})
        outcome, begun = Outcome(name), time.monotonic()
        for words in commands:
            done, watch = self._run(words, variables or {})
            outcome.codes.append(done.code)
            outcome.children += len(watch.environments)
            outcome.wrong += [f"{mark} in the arguments" for line in watch.arguments for mark in marks_in(line, marks)]
            outcome.wrong += [
                f"{mark} in a child's environment"
                for data in watch.environments.values()
                for mark in marks_in(data, marks)
            ]
            outcome.wrong += [
                f"{mark} printed by {words[0]}: {_around(done.said, marks[mark])}"
                for mark in marks_in(done.said.encode(), marks)
            ]
            if "a bug in cxrprep" in done.said and "crash" not in name:
                outcome.wrong.append(f"a crash: {done.said[-400:]}")
        outcome.wrong += list(self._left(marks, allowed))
        outcome.wrong += [f"another host was sent {header}" for header in self.foreign_credentials()]
        outcome.seconds = time.monotonic() - begun
        self.outcomes.append(outcome)
        return outcome

    def foreign_credentials(self) -> list[str]:
        return [name for headers in self.foreign for name in ("authorization", "cookie") if name in headers]

    def _run(self, words: tuple[str, ...], variables: Mapping[str, str]) -> tuple[Done, Watch]:
        begun = time.monotonic()
        process = subprocess.Popen(
            [PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.home.env() | dict(variables)
        )
        watch = Watch(process.pid)
        out, err = process.communicate(timeout=120)
        watch.stop()
        text = (out.decode(errors="replace"), err.decode(errors="replace"))
        return Done(process.returncode, *text, time.monotonic() - begun), watch

    def _left(self, marks: Mapping[str, set[bytes]], allowed: tuple[str, ...]) -> Iterator[str]:
        secrets = {name for name in marks if name in _SECRETS}
        for path in sorted(self.work.rglob("*")):
            if not path.is_file() or any(path == given or given in path.parents for given in self.given):
                continue
            for data in contents(path):
                for mark in marks_in(data, marks):
                    if mark in secrets or not path.as_posix().endswith(allowed or ("\0",)):
                        yield f"{mark} in {path.relative_to(self.work)}"


def _around(text: str, forms: set[bytes]) -> str:
    data = text.encode()
    at = next(data.find(form) for form in forms if form in data)
    return data[max(0, at - 60) : at].decode(errors="replace") + "<MARK>"


def identified(root: Path) -> None:
    """Give the DICOM files below ``root`` a name, a birth date and an accession number that must not travel."""
    for path in root.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        header.PatientName, header.AccessionNumber = NAME, NAME[:16]
        header.InstitutionName, header.OtherPatientIDs = NAME, NAME
        header.save_as(path)


def play_all(work: Path, images: int = 40, *, brief: bool = False) -> Iterator[Outcome]:
    """Every step in turn; when ``brief``, the downloads by login and the redirect only."""
    (work / "home").mkdir(parents=True)
    given = work / "given"
    campaign = Campaign(work, Home(work / "home"), {given})
    release = Mimic.generate(images, seed=3)
    for project in ("mimic-cxr", "mimic-cxr-jpg"):
        release.write_tables(project, given / project / "2.1.0")
    with ExitStack() as stack:
        site = Site(folder_reader(given, 3), user=USER, password=PASSWORD)
        address = stack.enter_context(serving(site)).removeprefix("http://")
        if brief:
            yield next(_physionet(campaign, address))
            yield from _reports(campaign, given)
            yield from _elsewhere(campaign, stack)
            return
        yield from _physionet(campaign, address)
        yield from _reports(campaign, given)
        yield from _dicom(campaign, address)
        yield from _signed(campaign, given, stack)
        yield from _kaggle(campaign, stack)
        yield from _elsewhere(campaign, stack)


def _physionet(campaign: Campaign, address: str) -> Iterator[Outcome]:
    root, plan = str(campaign.work / "jpg"), str(campaign.work / "plan.json")
    source = f"physionet://{address}/mimic-cxr-jpg/2.1.0"
    login = {"PHYSIONET_USERNAME": USER, "PHYSIONET_PASSWORD": PASSWORD}
    fetch = ("download", "mimic-cxr-jpg", root, "--source", source)
    yield campaign.step("a login in the environment: plan, download", [
        (*fetch, "--dry-run"), (*fetch, "--save-plan", plan), (*fetch, "--events", "jsonl"), (*fetch, "--json"),
    ], variables=login)  # fmt: skip
    yield campaign.step("the same: every other verb", [
        ("verify", root, "--images"), ("extract-labels", root), ("convert", root, "--recipe", "square-224"),
        ("manifest", root), ("export", root, "--format", "csv", "--out", f"{root}/export"), ("report", root),
        ("status", root), ("config", "show"), ("doctor", "--offline"), ("verify", root, "--repair"),
    ], variables=login)  # fmt: skip
    other = (*fetch[:2], f"{root}-wrong", *fetch[3:])
    yield campaign.step("a wrong password", [other], variables={**login, "PHYSIONET_PASSWORD": WRONG})
    _netrc(campaign)
    yield campaign.step("a login in netrc", [(*fetch[:2], f"{root}-netrc", *fetch[3:])])
    crashing = campaign.work / "given" / "crash"
    crashing.mkdir()
    (crashing / "sitecustomize.py").write_text(textwrap.dedent(_CRASH))
    path = os.pathsep.join(filter(None, (str(crashing), os.environ.get("PYTHONPATH"))))
    yield campaign.step("a crash, shown with its traceback", [(*fetch[:2], f"{root}-crash", *fetch[3:])],
                        variables={**login, "CXRPREP_DEBUG": "1", "PYTHONPATH": path})  # fmt: skip


def _netrc(campaign: Campaign) -> None:
    netrc = campaign.home.folder / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    netrc.chmod(0o600)
    campaign.given.add(netrc)


def _reports(campaign: Campaign, given: Path) -> Iterator[Outcome]:
    folder = given / "texts" / "files" / "p10" / "p10000032"
    folder.mkdir(parents=True)
    text = f"FINAL REPORT\n FINDINGS: {REPORT_WORD} there is a small pleural effusion.\n IMPRESSION: {REPORT_WORD}.\n"
    for study in range(50_000_000, 50_000_020):
        (folder / f"s{study}.txt").write_text(text)
    (folder / "s50000099.txt").write_bytes(b"\xff\xfe" + text.encode() + b"\x00")
    root = str(campaign.work / "jpg")
    yield campaign.step("report text", [
        ("extract-labels", root, "--reports", str(given / "texts"), "--evidence", "--events", "jsonl"),
        ("extract-labels", root, "--reports", str(given / "texts"), "--json"), ("report", root), ("status", root),
    ], also={"report text": {REPORT_WORD.encode(), REPORT_WORD.lower().encode()}})  # fmt: skip


def _dicom(campaign: Campaign, address: str) -> Iterator[Outcome]:
    root = campaign.work / "dicom"
    source = f"physionet://{address}/mimic-cxr/2.1.0"
    login = {"PHYSIONET_USERNAME": USER, "PHYSIONET_PASSWORD": PASSWORD}
    fetch = ("download", "mimic-cxr", str(root), "--source", source, "--include", "*.dcm")
    yield campaign.step("DICOM: download", [fetch], variables=login)
    identified(root)
    name = {"a name from a DICOM header": {NAME.encode()}}
    yield campaign.step("DICOM: names in headers", [
        ("verify", str(root), "--images", "--tables", str(campaign.work / "jpg")),
        ("convert", str(root), "--recipe", "square-224"), ("convert", str(root), "--recipe", "mimic-cxr-jpg"),
        ("manifest", str(root)), ("report", str(root)),
    ], also=name, allowed=(".dcm",))  # fmt: skip


def _signed(campaign: Campaign, given: Path, stack: ExitStack) -> Iterator[Outcome]:
    Chexpert.generate(40, seed=3).write_zip(given / "CheXpert-v1.0-small.zip")
    body = (given / "CheXpert-v1.0-small.zip").read_bytes()
    port = stack.enter_context(_one_file("/chexpert/CheXpert-v1.0-small.zip", body, SIGNATURE))
    link = f"http://127.0.0.1:{port}/chexpert/CheXpert-v1.0-small.zip?sv=2023&sr=b&sig={SIGNATURE}"
    file = given / "link.txt"
    file.write_text(link + "\n")
    root = str(campaign.work / "chexpert")
    yield campaign.step("a signed address in a file", [
        ("download", "chexpert", root, "--source", "portal", "--url-file", str(file)), ("verify", root),
        ("status", root),
    ])  # fmt: skip
    bad = link.replace(SIGNATURE, SIGNATURE + "x")
    expired = [("download", "chexpert", f"{root}-expired", "--source", "portal")]
    yield campaign.step("a signed address that has expired", expired, variables={"CHEXPERT_URL": bad})


def _kaggle(campaign: Campaign, stack: ExitStack) -> Iterator[Outcome]:
    folder = campaign.work / "given" / "nih"
    Nih.generate(100, seed=3).write(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".gz"}
    service = stack.enter_context(kaggle.serving(files, "nih-chest-xrays/data"))
    assert service.api is not None
    root = str(campaign.work / "kaggle")
    variables = {"CXRPREP_KAGGLE_URL": service.api.url, "KAGGLE_API_TOKEN": kaggle.TOKEN}
    fetch = ("download", "nih-chestxray14", root, "--source", "kaggle://nih-chest-xrays/data")
    yield campaign.step("Kaggle's token", [(*fetch, "--dry-run"), fetch, ("verify", root)], variables=variables)


def _elsewhere(campaign: Campaign, stack: ExitStack) -> Iterator[Outcome]:
    _netrc(campaign)
    other = faults.Mirror(b"elsewhere" * 1000, [faults.honest])
    port = stack.enter_context(faults.serving(other))
    basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    target = f"http://localhost:{port}/mirror/{faults.OBJECT}"
    mirror = faults.Mirror(other.body, [faults.needs(basic, faults.redirect(lambda: target))])
    cookies = campaign.work / "given" / "cookies.txt"
    here = stack.enter_context(faults.serving(mirror))
    cookies.write_text(f"# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t2000000000\tsessionid\t{COOKIE}\n")
    fetch = ("download", "nih-chestxray14", str(campaign.work / "elsewhere"), "--source")
    words = (*fetch, f"http://127.0.0.1:{here}/mirror/", "--cookie-file", str(cookies), "--timeout", "2")
    outcome = campaign.step("a redirect to another host, with login and cookie", [words])
    campaign.foreign += [headers for _, _, headers in other.seen]
    outcome.wrong += [f"another host was sent {header}" for header in campaign.foreign_credentials()]
    if not other.seen:
        outcome.wrong.append("the other host was never asked, so nothing was shown")
    yield outcome


class _one_file:  # noqa: N801  # a context manager, used as one
    """A server of one file behind a signature; everything else is refused as a storage service does."""

    def __init__(self, path: str, body: bytes, signature: str) -> None:
        self._mirror = faults.Mirror(body, [faults.honest])
        self._path, self._signature = path, signature
        self._stack = ExitStack()

    def __enter__(self) -> int:
        def answer(request: faults.Request) -> None:
            self._mirror.seen.append((request.method, request.path, dict(request.headers)))
            address = urllib.parse.urlsplit(request.path)
            if address.path != self._path:
                request.head("404 Not Found", "Content-Length: 0")
            elif urllib.parse.parse_qs(address.query).get("sig") != [self._signature]:
                text = b'<?xml version="1.0"?><Error><Code>AuthenticationFailed</Code></Error>'
                request.head("403 Forbidden", f"Content-Length: {len(text)}", "Content-Type: application/xml")
                request.line.sendall(b"" if request.method == "HEAD" else text)
            else:
                faults.honest(request)

        self._mirror.answer = answer  # type: ignore[method-assign]  # this server has one file and a gate
        return self._stack.enter_context(faults.serving(self._mirror))

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def line(outcome: Outcome) -> str:
    """A row of the table."""
    state = "no mark anywhere" if not outcome.wrong else "WRONG: " + "; ".join(dict.fromkeys(outcome.wrong))
    return f"| {outcome.name} | {', '.join(map(str, outcome.codes))} | {outcome.children} | {state} |"


HEADER = "| run | exit codes | children seen | outcome |\n|---|---|--:|---|"


def main(work: Path, only: str = "") -> int:
    """Play every step and print the table; 1 when a mark was found."""
    wrong = 0
    print(HEADER)
    for outcome in play_all(work):
        if only in outcome.name:
            wrong += bool(outcome.wrong)
            print(line(outcome), flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
