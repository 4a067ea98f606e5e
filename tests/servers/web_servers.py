"""Web servers that show folders, as they come from their makers: Apache, lighttpd and Caddy on loopback.

nginx has a module of its own. Each has options that change its pages: Apache's cut names, for one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts import need
from tests.servers.processes import free_port, process

_APACHE = """\
ServerRoot {work}
PidFile {work}/pid
ErrorLog {work}/errors
ServerName localhost
Listen 127.0.0.1:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule autoindex_module {modules}/mod_autoindex.so
LoadModule dir_module {modules}/mod_dir.so
{user}
DocumentRoot {root}
<Directory {root}>
Options Indexes FollowSymLinks
Require all granted
</Directory>
IndexOptions {options}
"""
_LIGHTTPD = """\
server.document-root = "{root}"
server.port = {port}
server.bind = "127.0.0.1"
server.modules = ("mod_dirlisting")
dir-listing.activate = "enable"
dir-listing.hide-dotfiles = "disable"
"""


def _apache(options: str) -> Callable[[Path, Path, int], list[str]]:
    def words(root: Path, work: Path, port: int) -> list[str]:
        user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
        modules = "/usr/lib/apache2/modules"
        text = _APACHE.format(work=work, port=port, modules=modules, root=root, options=options, user=user)
        (work / "apache.conf").write_text(text)
        return [need("apache2"), "-f", str(work / "apache.conf"), "-DFOREGROUND"]

    return words


def _lighttpd(root: Path, work: Path, port: int) -> list[str]:
    (work / "lighttpd.conf").write_text(_LIGHTTPD.format(root=root, port=port))
    return [need("lighttpd"), "-D", "-f", str(work / "lighttpd.conf")]


def _caddy(root: Path, work: Path, port: int) -> list[str]:
    del work
    return [need("caddy"), "file-server", "--root", str(root), "--browse", "--listen", f"127.0.0.1:{port}"]


SERVERS: dict[str, Callable[[Path, Path, int], list[str]]] = {
    "apache": _apache("FancyIndexing NameWidth=12 IconsAreLinks"),
    "apache-table": _apache("FancyIndexing HTMLTable XHTML NameWidth=*"),
    "apache-plain": _apache("-FancyIndexing"),
    "lighttpd": _lighttpd,
    "caddy": _caddy,
}


@contextmanager
def serving(name: str, root: Path, work: Path) -> Iterator[str]:
    """The address of a server that shows ``root``, which everybody may read; ``work`` is for its own files."""
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cxrprep-web-") as open_to_all:
        if os.geteuid() == 0:
            # Apache gives its rights up, and has to reach the folder all the same. pytest's own is shut to others
            # again whenever a run of it starts, also one beside this one.
            Path(open_to_all).chmod(0o755)
            root = shutil.copytree(root, Path(open_to_all, "root"), symlinks=True)
            root.chmod(0o755)
        port = free_port()
        with process(SERVERS[name](root, work, port), port, work / "log"):
            yield f"http://127.0.0.1:{port}/"
