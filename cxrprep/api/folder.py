"""The mirror that a name means, the folder of a verb, and the command that makes what cxrprep made again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cxrprep.collection.dataset_folder import DatasetFolder, checked_release, open_folder
from cxrprep.collection.lineage import FolderKind, Lineage, read_export
from cxrprep.collection.recognition import release_here, sample_names
from cxrprep.credentials.lookup import token_variable
from cxrprep.datasets.catalog import naming_options, naming_words
from cxrprep.errors import UsageError, did_you_mean
from cxrprep.record.record import Record
from cxrprep.sources import check_scheme
from cxrprep.sources.endpoints import from_hub
from cxrprep.sources.urls import behind
from cxrprep.storage.paths import home_path, is_served, perhaps_address, refuse_unserved

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec, Mirror
    from cxrprep.model import FolderRef


@dataclass(frozen=True, slots=True)
class MirrorChoice:
    """A mirror to fetch from: its address, the catalog's entry when it is a known one, and the release it serves.

    ``is_named`` says that the user typed it in this command or in settings of their own; else a folder's record, a
    saved plan or a ``cxrprep.toml`` that was found names it, and no login goes to a host that it chooses.
    """

    url: str
    release: str
    mirror: Mirror | None = None
    is_named: bool = True


def find_mirror(spec: DatasetSpec, source: str | None, release: str | None = None) -> MirrorChoice:
    """The mirror that ``--source`` means: a name of the catalog, an address, or a folder; the default for ``None``.

    Raises ``UsageError`` that suggests the nearest name, and for a signed URL, which does not belong on a command line.
    """
    wanted = checked_release(spec, release)
    if not source and not spec.default_mirror:
        raise UsageError(
            f"no mirror of {spec.name} can be listed",
            hint=f"get its files as {spec.homepage or 'its publisher'} says, then name their folder with --source DIR",
        )
    name = behind(from_hub(source or spec.default_mirror))
    if "://" in name:
        lowered = name.lower()
        if "sig=" in lowered or "x-goog-signature=" in lowered or "x-amz-signature=" in lowered:
            raise UsageError(
                "a signed URL on the command line can be read by every user of this machine",
                hint="save it in a file and name it: --source portal --url-file FILE; or set CHEXPERT_URL",
            )
        if "authorization:" in (source or "").lower() and name.startswith(("http", "hf:")):
            variable = "HF_TOKEN" if name.startswith("hf:") else token_variable(urlsplit(name).hostname or "HOST")
            raise UsageError(
                "a token on the command line can be read by every user of this machine",
                hint=f"give the address alone, and set {variable} to the token",
            )
        check_scheme(name)
        if is_served(name):
            refuse_unserved(name, "--source")
        if name.startswith("physionet://"):
            # The page of a project without a version is that of its newest one.
            name = next((m.url for m in spec.mirror if f"{name}/" in m.url and wanted in (None, m.release)), name)
        known = next((m for m in spec.mirror if m.url == name and wanted in (None, m.release)), None)
        return MirrorChoice(name, wanted or (known.release if known else spec.default_release), known)
    candidates = [m for m in spec.mirror if m.name == name]
    if candidates:
        mirror = next((m for m in candidates if m.release == wanted), candidates[0])
        if wanted is not None and mirror.release != wanted:
            raise UsageError(
                f"the mirror {name} serves {spec.name} {mirror.release}, not {wanted}",
                hint=f"leave --release out, or name another of: {', '.join(m.name for m in spec.mirror)}",
            )
        return MirrorChoice(mirror.url, mirror.release, mirror)
    path = home_path(name)
    if path.is_dir():
        folder = path.resolve()
        return MirrorChoice(folder.as_uri(), wanted or release_here(spec, sample_names(folder)))
    mirrors = [mirror.name for mirror in spec.mirror]
    # A question mark right behind it would be that of a query, and what follows masked as one.
    meant = f"did you mean https://{name}, with its scheme? " if perhaps_address(name) else did_you_mean(name, mirrors)
    raise UsageError(
        f"{name!r} is neither a mirror of {spec.name} nor a folder",
        hint=f"{meant}mirrors: {', '.join(mirrors)}; or give an address or an existing folder",
    )


def open_header(where: FolderRef) -> DatasetFolder:
    """A folder with the header of its record alone, where that says what it holds: ``with_files`` reads the rest.

    Raises what ``open_folder`` raises.
    """
    folder = open_folder(where, files=False)
    return folder if folder.record.header.dataset else folder.with_files()


def original_of(folder: DatasetFolder) -> Record | None:
    """The record of the folder that converted images were made from, where they still lie below it."""
    if folder.kind is not FolderKind.CONVERTED or folder.root.absolute().parent.name != "derived":
        return None
    record = Record.open(folder.root.absolute().parent.parent)
    return record if record.exists else None


def made_again(folder: DatasetFolder) -> str:
    """The command that makes what cxrprep made again, in place."""
    lineage = folder.lineage
    if lineage is None:
        return f"cxrprep manifest {folder.words}"
    if lineage.kind is FolderKind.EXPORTED:
        return "; ".join(exported_again(folder.root, export) for export in read_export(folder.root))
    words = ["cxrprep", "convert"]
    original, place = original_of(folder), _place_of_originals(folder)
    shows, rows = folder.layout.shows_image, [] if original is None else original.rows(["path", "state"])
    if any(state != "here" and shows(path) for path, state in rows):
        # They were converted as they came, and dropped. Only another download has what it was made of.
        words = [*naming_words(folder.spec.name), place, "--then", lineage.recipe, "--discard-raw"]
        return f"cxrprep download {shlex.join(words)}"
    named = naming_options(folder.spec.name)
    words += [place, *named, "--recipe", lineage.recipe, *([] if original is not None else ["--out", str(folder.root)])]
    return shlex.join([*words, *(["--to", folder.form] if folder.in_shards else [])])


def where_originals_are(folder: DatasetFolder, *words: str) -> str:
    """What to do where a verb is for originals: give it, as ``words`` say, there; what it was made of them follows."""
    return f"{shlex.join(['cxrprep', words[0], _place_of_originals(folder), *words[1:]])}; then: {made_again(folder)}"


def _place_of_originals(folder: DatasetFolder) -> str:
    """The folder of the originals as commands name it, ``ORIGINAL`` where nothing says which it is."""
    return "ORIGINAL" if original_of(folder) is None else str(folder.root.absolute().parent.parent)


def exported_again(root: Path, export: Lineage) -> str:
    """The command that makes an export again, in place."""
    form, _, file = export.form.partition(":")
    return shlex.join(["cxrprep", "export", "ORIGINAL", "--format", form, "--out", str(root / file if file else root)])
