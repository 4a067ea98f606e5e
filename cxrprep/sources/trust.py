"""Trusted TLS certificates (CA bundle): one setting for libcurl and the requests sessions of services' clients.

``SSL_CERT_FILE``, ``SSL_CERT_DIR``, ``REQUESTS_CA_BUNDLE`` and ``CURL_CA_BUNDLE`` name files or folders. What any of
them names is trusted, all of it together, so that none is passed over because another happens to be set. Where none is
set, it is the system's store and certifi's list: a company's own authority is in the first, a machine without a
store has the second.
"""

from __future__ import annotations

import atexit
import base64
import codecs
import functools
import hashlib
import os
import re
import ssl
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.errors import StorageError, UsageError
from cxrprep.storage.atomic import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Where the distributions keep their store in one file: Debian, Fedora, openSUSE, FreeBSD, Alpine and macOS.
_SYSTEM_FILES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
    "/etc/ssl/cert.pem",
)
_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.DOTALL
)
# How one begins in DER: a sequence, and in it the sequence of what is signed. Keys and PKCS files have a number there.
_DER: Final = re.compile(rb"\x30[\x81\x82]((?<=\x81).|(?<=\x82)..)\x30[\x81\x82]", re.DOTALL)


def ca_bundle() -> str:
    """The file that holds every certificate authority that is trusted, as a path.

    libcurl reads a path once for all connections, and bytes for each anew, so several files become one in the cache
    folder. Raises ``UsageError`` for a variable that names nothing readable, or nothing that is a certificate.
    """
    return _bundle(tuple(os.environ.get(name, "") for name in VARIABLES))


@functools.cache
def _bundle(named: tuple[str, ...]) -> str:
    files = [path for name, value in zip(VARIABLES, named, strict=True) for path in _named_files(name, value)]
    if len(files) == 1 and not _certificates(files[0]):
        raise _unusable(files[0], "it holds no certificate in PEM or DER form")
    if any(named) and not files:
        raise _unusable(Path(next(filter(None, named))), "it is a folder without certificates, or none")
    files = files or list(_default_files())
    return str(files[0]) if len(files) == 1 and _is_plain(files[0]) else _merged(files)


def _is_plain(path: Path) -> bool:
    """Whether OpenSSL reads the file as it is: it finds nothing behind a byte order mark or a margin, nor DER."""
    data = path.read_bytes()
    return not data.startswith(codecs.BOM_UTF8) and all(block in data for block in _certificates(path))


def _named_files(variable: str, value: str) -> Iterator[Path]:
    """The files that a variable names, those of a folder one by one, with or without the names that OpenSSL gives."""
    # SSL_CERT_DIR alone may be a list; of its folders some may be absent, as OpenSSL allows.
    for text in filter(None, value.split(os.pathsep) if variable == "SSL_CERT_DIR" else [value]):
        path = Path(text)
        if path.is_dir():
            yield from (file for file in sorted(path.iterdir()) if file.is_file() and _certificates(file))
        elif path.exists() or variable != "SSL_CERT_DIR":
            yield path


def _default_files() -> Iterator[Path]:
    import certifi

    # ssl, which knows a place of its own, takes longer to load than all that these hold takes to read.
    found = next((path for path in _SYSTEM_FILES if os.path.exists(path)), None)  # noqa: PTH110  # texts
    found = found or ssl.get_default_verify_paths().cafile or None
    if found is not None:
        yield Path(found)
    elif sys.platform == "win32":
        yield _windows_store()
    yield Path(certifi.where())


def _windows_store() -> Path:
    ders = ssl.create_default_context().get_ca_certs(binary_form=True)
    return _saved_bundle("".join(ssl.DER_cert_to_PEM_cert(der) for der in ders).encode("ascii"))


def _certificates(path: Path) -> Sequence[bytes]:
    """The certificates of a file as blocks of PEM, without a margin. Raises ``UsageError`` for one that is damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode()
    found = list(_CERTIFICATE.finditer(data))
    if not found and _is_der(data):
        return [ssl.DER_cert_to_PEM_cert(data).strip().encode("ascii")]
    for block in found:
        try:
            whole = _is_der(base64.b64decode(b"".join(block[1].split()), validate=True))
        except ValueError:
            whole = False
        if not whole:
            line = len(data[: block.start()].splitlines()) + 1
            raise _unusable(path, f"the certificate in line {line} is damaged")
    return [b"\n".join(line.strip() for line in block[0].splitlines()) for block in found]


def _is_der(data: bytes) -> bool:
    found = _DER.match(data)
    # A trusted certificate has more behind it.
    return found is not None and found.end(1) + int.from_bytes(found[1], "big") <= len(data)


def _merged(files: Sequence[Path]) -> str:
    blocks = dict.fromkeys(block for file in files for block in _certificates(file))
    if not blocks:
        raise _unusable(files[0], "no certificate is in it")
    return str(_saved_bundle(b"\n".join(blocks) + b"\n"))


def _saved_bundle(bundle: bytes) -> Path:
    """A file of the user's own that holds ``bundle``."""
    import platformdirs

    name = f"certificates-{hashlib.sha256(bundle).hexdigest()[:20]}.pem"
    path = Path(platformdirs.user_cache_path("cxrprep", appauthor=False)) / name
    try:
        if path.read_bytes() == bundle:
            return path
    except OSError:
        pass
    try:
        replace_file(path, lambda part: part.write_bytes(bundle))
    except StorageError:
        # A home that is read-only: a file for this process alone.
        descriptor, name = tempfile.mkstemp(prefix="cxrprep-", suffix=".pem")
        os.write(descriptor, bundle)
        os.close(descriptor)
        path = Path(name)
        atexit.register(path.unlink, missing_ok=True)
    return path


def _unusable(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"the certificates in {path} cannot be read: {reason}",
        hint=f"{', '.join(VARIABLES[:-1])} or {VARIABLES[-1]} names it: correct that variable, or unset it",
    )
