"""Every way in which servers fail, one case each: what the command said, its exit code, and what lies on the disk.

The peers' outcomes beside ours are in ``docs/explanation/proof.md``.
"""

from __future__ import annotations

import base64
import datetime as dt
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tests.generators.full.mimic_cxr import Mimic
from tests.generators.full.server import PASSWORD, USER, Site, folder_reader
from tests.generators.full.server import serving as site_serving
from tests.soak import faults
from tests.soak.commands import Done, Home, leftovers, run
from tests.soak.faults import OBJECT, Behaviour, Mirror, serving

SIZE = 3_000_000
# What brings no byte is tried ten times, for some two minutes in all.
_PATIENCE = 300.0
_RNG = random.Random(10)
BODY = _RNG.randbytes(SIZE)
OTHER = _RNG.randbytes(SIZE + 12_345)
_BASIC = "Basic " + base64.b64encode(b"reader:opensesame").decode()


@dataclass(frozen=True)
class Case:
    """A fault. ``code`` is what the command must end with; ``says`` must stand in what it prints, in any case.

    ``good`` is the content that must lie under the final name afterwards, ``None`` for nothing at all. ``first`` is a
    script for a run before (it may fail); ``timeout`` is what ``--timeout`` gets.
    """

    name: str
    script: tuple[Behaviour, ...]
    code: int = 0
    says: tuple[str, ...] = ()
    good: bytes | None = BODY
    sums: bool = True
    first: tuple[Behaviour, ...] = ()
    body: bytes = BODY
    timeout: float = 2.0
    at_least: float = 0.0
    netrc: bool = False


@dataclass
class Outcome:
    """What came of a case; ``wrong`` is empty when it is what it must be."""

    case: Case
    done: Done
    wrong: list[str] = field(default_factory=list)


def cases(elsewhere: Callable[[], str]) -> list[Case]:
    """The table. ``elsewhere`` is the address of the object on another host."""
    small = BODY[:20_000]
    half = SIZE // 2
    return [
        Case("a good server", (faults.honest,)),
        Case("cut once", (faults.cut(half), faults.honest)),
        Case("cut three times", (faults.cut(500_000), faults.cut(500_000), faults.cut(500_000), faults.honest)),
        Case("cut at once, again and again", (faults.cut(0),), 6, good=None),
        Case("connection reset midway", (faults.reset(half), faults.honest)),
        Case("stall midway, then well", (faults.stall(half), faults.honest), at_least=1.5),
        Case("stall for ever", (faults.stall(1000),), 6, ("127.0.0.1",), None, timeout=1.0),
        Case("no answer at all", (faults.mute,), 6, ("127.0.0.1",), None, timeout=1.0),
        Case("slow drip", (faults.drip(2_000, 0.35),), good=small, body=small, at_least=3.0),
        Case("429 with Retry-After", (faults.status("429 Too Many Requests", "Retry-After: 2"), faults.honest),
             at_least=2.0),
        Case("503 twice", (faults.status("503 Service Unavailable"),) * 2 + (faults.honest,)),
        Case("503 for ever", (faults.status("503 Service Unavailable", "Retry-After: 0"),), 6, ("503",), None),
        Case("500, then well", (faults.status("500 Internal Server Error"), faults.honest)),
        Case("changed between two runs", (faults.honest,), good=OTHER, body=OTHER, sums=False,
             first=(faults.cut(half),)),
        Case("changed between two runs, sums kept up", (faults.honest,), good=OTHER, body=OTHER,
             first=(faults.cut(half),)),
        Case("changed midway", (faults.cut(half), faults.changed(OTHER, '"v2"')), good=OTHER, sums=False),
        Case("changed midway, If-Range ignored", (faults.cut(half), faults.changed_unannounced(OTHER, '"v2"')),
             good=OTHER, sums=False),
        Case("Range ignored", (faults.cut(half), faults.ignore_range)),
        Case("206 from another place", (faults.cut(half), faults.wrong_place, faults.honest)),
        Case("Content-Length too large", (faults.stated_length(1000), faults.honest)),
        Case("Content-Length too small", (faults.stated_length(-1000),), 4, (OBJECT,), None),
        Case("short body without length, then well", (faults.unstated_and_short, faults.honest)),
        Case("truncated copy under 200", (faults.short_and_consistent,), 4, (OBJECT,), None),
        Case("one wrong byte", (faults.altered,), 4, (OBJECT, "md5"), None),
        Case("one wrong byte, once", (faults.altered, faults.honest)),
        Case("login page under 200", (faults.page("text/html; charset=utf-8"),), 5, ("login",), None),
        Case("login page called octet-stream", (faults.page("application/octet-stream"),), 5, ("login",), None),
        Case("403", (faults.status("403 Forbidden"),), 5, ("403",), None),
        Case("401 without a login at hand", (faults.needs(_BASIC),), 5, ("401",), None),
        Case("401, login in netrc", (faults.needs(_BASIC),), netrc=True),
        Case("404", (faults.status("404 Not Found"),), 3, (OBJECT,), None),
        Case("410", (faults.status("410 Gone"),), 3, (OBJECT,), None),
        Case("gzip that nobody asked for", (faults.compressed,)),
        Case("redirect to another host", (faults.needs(_BASIC, faults.redirect(elsewhere)),), netrc=True),
        Case("redirect in a circle", (faults.redirect(lambda: f"/mirror/{OBJECT}"),), 6, ("redirect",), None),
        Case("redirect to a file address", (faults.redirect(lambda: "file:///etc/passwd"),), 6, (), None),
        Case("bytes that are no HTTP", (faults.nonsense,), 6, (), None),
        Case("headers without end", (faults.endless_headers,), 6, (), None),
    ]  # fmt: skip


def play(case: Case, work: Path, seen_elsewhere: Mirror) -> Outcome:
    """Run the case in a folder of its own."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    home = Home(work)
    mirror = Mirror(
        BODY if case.first else case.body, [*(case.first or case.script)], sums=case.sums and not case.first
    )
    with serving(mirror) as port:
        words = ["download", "nih-chestxray14", str(work / "root"), "--source", f"http://127.0.0.1:{port}/mirror/"]
        words += ["--timeout", str(case.timeout)]
        if case.netrc:
            netrc = work / ".netrc"
            netrc.write_text("machine 127.0.0.1 login reader password opensesame\n")
            netrc.chmod(0o600)
        if case.first:
            run([*words, "--limit-rate", "100M"], home, timeout=1.2)
            mirror.body, mirror.etag, mirror.sums = case.body, '"v2"', case.sums
            mirror.script[:] = list(case.script)
        done = run(words, home, timeout=_PATIENCE)
    return Outcome(case, done, list(_judge(case, done, work / "root", seen_elsewhere)))


def _judge(case: Case, done: Done, root: Path, elsewhere: Mirror) -> Iterator[str]:
    if done.code != case.code:
        yield f"exit {done.code}, not {case.code}: {done.said[-600:]}"
    for word in case.says:
        if word.lower() not in done.said.lower():
            yield f"does not say {word!r}: {done.said[-400:]}"
    # An error says what to do in its hint, a run that ended with failures in the last line of its table.
    if done.code and "hint:" not in done.stderr.lower() and f"exit code {done.code}:" not in done.stdout:
        yield f"no next step: {done.said[-400:]}"
    if "Traceback" in done.said:
        yield f"a traceback: {done.said[-600:]}"
    path = root / OBJECT
    if case.good is None and path.exists():
        yield f"the final name holds {path.stat().st_size} bytes after a failure"
    if case.good is not None and (not path.exists() or path.read_bytes() != case.good):
        yield "the final name does not hold the right bytes"
    if done.code == 0 and leftovers(root):
        yield f"left behind: {leftovers(root)}"
    if done.seconds < case.at_least:
        yield f"took {done.seconds:.1f} s, not at least {case.at_least}"
    for _, _, headers in elsewhere.seen:
        if "authorization" in headers or "cookie" in headers:
            yield "a credential reached another host"


def play_all(work: Path, only: Callable[[Case], bool] = lambda _: True) -> Iterator[Outcome]:
    """Every case in turn, and the faults that need no mirror: no name, no server, a certificate of someone else."""
    with ExitStack() as stack:
        other = Mirror(BODY, [faults.honest])
        port = stack.enter_context(serving(other))
        # localhost is another host than 127.0.0.1, as far as a client may know.
        for case in cases(lambda: f"http://localhost:{port}/mirror/{OBJECT}"):
            if only(case):
                other.seen.clear()
                yield play(case, work / "case", other)
    yield from _unreachable(work, port, only)
    yield from _physionet(work, only)


def _physionet(work: Path, only: Callable[[Case], bool]) -> Iterator[Outcome]:
    """A site with sessions: one that ends every half second, and an account whose agreement is not signed."""
    ending = Case("a session that ends every half second", (), 0, (), None)
    unsigned = Case("an agreement that is not signed", (), 5, ("agreement",), None)
    for case, rules in ((ending, {"session_seconds": 0.5}), (unsigned, {"signed": False})):
        if not only(case):
            continue
        shutil.rmtree(work / "case", ignore_errors=True)
        release = work / "case" / "release"
        Mimic.generate(60, seed=3).write_tables("mimic-cxr-jpg", release / "mimic-cxr-jpg" / "2.1.0")
        site = Site(folder_reader(release, 3), latency=0.1, **rules)
        home = Home(work / "case", {"PHYSIONET_USERNAME": USER, "PHYSIONET_PASSWORD": PASSWORD})
        with site_serving(site) as address:
            source = f"physionet://{address.removeprefix('http://')}/mimic-cxr-jpg/2.1.0"
            words = ["download", "mimic-cxr-jpg", str(work / "case" / "root"), "--source", source, "--connections", "4"]
            done = run(words, home, timeout=_PATIENCE)
        wrong = list(_judge(case, done, work / "case" / "root", Mirror(b"", [])))
        if case is ending and site.counts["logins"] < 2:
            wrong.append(f"{site.counts['logins']} logins: no session ended, so nothing was shown")
        yield Outcome(case, done, wrong)


def _unreachable(work: Path, port: int, only: Callable[[Case], bool]) -> Iterator[Outcome]:
    for case, address in (
        (Case("a name that does not exist", (), 6, ("nowhere.invalid",), None), "http://nowhere.invalid/mirror/"),
        (Case("nobody listens", (), 6, ("127.0.0.1",), None), f"http://127.0.0.1:{port}/mirror/"),
    ):
        if only(case):
            yield _elsewhere(case, address, work / "case")
    foreign = Case("a certificate that nobody vouches for", (), 5, ("certificate",), None)
    mismatch = Case("a certificate of another name", (), 5, ("certificate", "mismatch"), None)
    certificate = certificate_for("another.example", work)
    for case, trusted in ((foreign, {}), (mismatch, {"SSL_CERT_FILE": str(certificate)})):
        if only(case):
            with serving(Mirror(BODY, [faults.honest]), certificate=certificate) as secure:
                yield _elsewhere(case, f"https://127.0.0.1:{secure}/mirror/", work / "case", trusted)


def _elsewhere(case: Case, address: str, work: Path, variables: Mapping[str, str] = MappingProxyType({})) -> Outcome:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    words = ["download", "nih-chestxray14", str(work / "root"), "--source", address, "--timeout", "2"]
    done = run(words, Home(work, variables), timeout=_PATIENCE)
    return Outcome(case, done, list(_judge(case, done, work / "root", Mirror(b"", []))))


def certificate_for(name: str, folder: Path) -> Path:
    """A self-signed certificate with its key, in one PEM file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


def line(outcome: Outcome) -> str:
    """A row of the table."""
    words = outcome.done.stderr.strip().splitlines() or [""]
    said = next((text for text in words if text.startswith("Error")), "")
    state = "as it must" if not outcome.wrong else "WRONG: " + "; ".join(outcome.wrong)
    return f"| {outcome.case.name} | {outcome.done.code} | {outcome.done.seconds:.1f} | {state} | {said[:150]} |"


HEADER = "| server | exit | seconds | outcome | what it said |\n|---|--:|--:|---|---|"


def main(work: Path, only: str = "") -> int:
    """Play every case and print the table; 1 when one came out wrong."""
    wrong = 0
    print(HEADER)
    for outcome in play_all(work, lambda case: only in case.name):
        wrong += bool(outcome.wrong)
        print(line(outcome), flush=True)
    return int(wrong > 0)
