"""The verb doctor: checks of this machine, its logins and its network, each with the next step."""

from __future__ import annotations

import os
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.doctor_checks import (
    Check,
    State,
    disk_checks,
    login_check,
    machine_checks,
    mirror_check,
    netrc_checks,
    network_checks,
    scheduler_check,
)
from cxrprep.api.result import Result
from cxrprep.config.settings import check_values
from cxrprep.credentials.lookup import Credentials
from cxrprep.datasets.catalog import catalog, find_dataset
from cxrprep.errors import ExitCode, UsageError, did_you_mean
from cxrprep.humanize import short_repr
from cxrprep.sources import check_scheme
from cxrprep.sources.base import AccessState
from cxrprep.sources.endpoints import ENDPOINTS, variable
from cxrprep.storage.paths import home_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cxrprep.datasets.facts import DatasetSpec, Mirror


@dataclass(frozen=True, slots=True)
class Examination:
    """All checks. Problems of access alone give exit code 5, of the disk 7, of the network 6, others 2."""

    __repr__ = short_repr

    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """0 when nothing is a problem; warnings do not count."""
        groups = {check.group for check in self.checks if check.state is State.PROBLEM}
        for group, code in _CODES.items():
            if group in groups:
                return int(code)
        return int(ExitCode.DONE)


_CODES: Final[Mapping[str, ExitCode]] = {
    "machine": ExitCode.USAGE,
    "engine": ExitCode.USAGE,
    "access": ExitCode.ACCESS,
    "disk": ExitCode.STORAGE,
    "network": ExitCode.UNREACHABLE,
}

# host -> what it serves; asked with HEAD, which moves no data.
_HOSTS: Final = {
    "https://physionet.org/": "MIMIC-CXR",
    "https://nihcc.app.box.com/v/ChestXray-NIHCC": "NIH ChestX-ray14",
    "https://www.kaggle.com/": "CheXpert small, NIH ChestX-ray14",
    "https://storage.googleapis.com/": "Google's mirrors",
    "https://huggingface.co/": "CheXpert at 512 pixels",
    "https://aimistanforddatasets01.blob.core.windows.net/": "CheXpert",
}
# scheme of a mirror -> the host above that stands for it.
_SERVED_BY: Final = {
    "physionet": "physionet.org",
    "box": "nihcc.app.box.com",
    "kaggle": "www.kaggle.com",
    "gs": "storage.googleapis.com",
    "hf": "huggingface.co",
    "url": "aimistanforddatasets01.blob.core.windows.net",
}


@takes_buckets()
def doctor(
    root: Path | str = ".",
    *,
    dataset: str | None = None,
    source: str | None = None,
    whole: bool = True,
    billing_project: str | None = None,
    scheduler: str | None = None,
    offline: bool = False,
    timeout: float = 10.0,
    credentials: Credentials | None = None,
    on_check: Callable[[Check], object] = lambda _: None,
) -> Result[Examination]:
    """Check this machine, its logins, agreements, network and cluster; nothing is written.

    Args:
        root: Where the data shall go; its disk is looked at.
        dataset: Ask about this one alone, and judge whether a download of it can start.
        source: The mirror that is judged; the dataset's own when it is not named. Without ``dataset``: ask about those
            that have it.
        whole: All of the dataset is wanted, so it has to fit on the disk.
        billing_project: Who pays for buckets that ask for it.
        scheduler: Address of a Dask scheduler that has to answer.
        offline: Ask no server.
        timeout: Seconds to wait for each server.
        credentials: Logins; by default those of the environment and of the services' own files.
        on_check: Called with each check as soon as it is known; the network may take its time.

    Returns:
        The checks, each with the next step. The exit code is 0 when nothing is a problem, 5 for a login or an
        agreement, 6 for the network, 7 for the disk, 2 for what this machine lacks.

    Raises:
        UsageError: ``dataset`` is unknown, or it, or any dataset, has no mirror ``source``; ``root`` is a dataset.

    Examples:
        >>> import cxrprep
        >>> examined = cxrprep.doctor("nih", offline=True)
        >>> examined.verb
        'doctor'
    """
    check_values({"timeout": timeout})
    if dataset is None and str(root) in catalog() and not Path(root).exists():
        raise UsageError(f"there is no folder {root}", hint=f"about the dataset: cxrprep doctor --dataset {root}")
    checks = []
    for check in _checks(
        Path(root),
        credentials or Credentials(),
        dataset=dataset,
        source=source,
        whole=whole,
        billing_project=billing_project,
        scheduler=scheduler,
        offline=offline,
        timeout=timeout,
    ):
        checks.append(check)
        on_check(check)
    found = Examination(tuple(checks))
    rows = tuple((check.name, f"{check.state}: {check.found}") for check in found.checks)
    return Result("doctor", found, ExitCode(found.exit_code), rows=rows)


def _checks(
    root: Path,
    credentials: Credentials,
    *,
    dataset: str | None = None,
    source: str | None = None,
    whole: bool = True,
    billing_project: str | None = None,
    scheduler: str | None = None,
    offline: bool = False,
    timeout: float = 10.0,
    hosts: Mapping[str, str] | None = None,
) -> Iterator[Check]:
    """The checks of ``doctor`` one by one, those that ask the network last; ``hosts`` are the addresses to reach."""
    specs = [find_dataset(dataset)] if dataset else list(catalog().values())
    judged = _judged(specs[0], source) if dataset else None
    if source and not dataset:
        _check_mirror(source, specs)
        specs = [spec for spec in specs if spec.mirror_named(source)] or specs
    folder = home_path(source) if dataset and source and judged is None and "://" not in source else None
    yield from machine_checks()
    yield from disk_checks(root, specs[0] if dataset else None, judged, whole=whole, folder=folder)
    if dataset and judged is None and "://" not in (source or ""):
        yield _folder_check(specs[0], folder)
    if dataset:
        # Its other mirrors are not needed, and a folder needs no login and no host.
        others = [mirror.name for mirror in specs[0].mirror if judged is not None and mirror != judged]
        specs = [replace(specs[0], mirror=(judged,) if judged else ())]
        if judged is not None and others:
            yield Check("machine", "mirror", State.OK, f"{judged.name}; others, by --source: {', '.join(others)}")
    yield from netrc_checks()
    for service in dict.fromkeys(_service(mirror) for spec in specs for mirror in spec.mirror):
        if service:
            # Google's open buckets are read without a login, and everyone may ask for a payer's bucket with a project.
            wanted = judged is not None and _service(judged) == service and judged.access != "open"
            yield _strict(login_check(credentials, service), wanted)
    if scheduler:
        yield scheduler_check(scheduler, timeout)
    if not offline:
        silent = set()
        asked_at = _hosts_of(specs) if hosts is None else hosts
        own = urllib.parse.urlsplit(source or "")
        if dataset and judged is None and own.scheme in ("http", "https"):
            asked_at = {**asked_at, f"{own.scheme}://{own.netloc}/": f"--source of {specs[0].title}"}
        for check in network_checks(asked_at, timeout):
            if check.group == "network" and check.state is not State.OK:
                silent.add(check.name)
            wanted = _behind(judged, {check.name}) if judged is not None else check.name == own.netloc
            yield _strict(check, wanted)
        # A service whose host does not answer was named just now; asking it again and again would only take time.
        asked = [(s, m) for s in specs for m in s.mirror if not _behind(m, silent)]
        with ThreadPoolExecutor(max_workers=max(len(asked), 1)) as pool:
            answers = pool.map(lambda pair: mirror_check(pair, credentials, billing_project, timeout), asked)
            for (_, mirror), found in zip(asked, answers, strict=True):
                if found is not None:
                    yield _strict(found, mirror is judged and found.group in ("access", "network"))


def _judged(spec: DatasetSpec, source: str | None) -> Mirror | None:
    """The mirror that a download would take; ``None`` for a folder or an address, which is not asked here."""
    mirror = spec.mirror_named(source or spec.default_mirror)
    if mirror is None and source:
        _check_mirror(source, [spec])
    return mirror


def _check_mirror(source: str, specs: Sequence[DatasetSpec]) -> None:
    """Raise ``UsageError`` where ``source`` is no folder, no address that is understood, and no mirror of ``specs``."""
    names = sorted({mirror.name for spec in specs for mirror in spec.mirror})
    if source not in names and not any(mark in source for mark in "/:.") and not Path(source).is_dir():
        hint = f"{did_you_mean(source, names)}mirrors: {', '.join(names)}"
        what = specs[0].name if len(specs) == 1 else "any dataset"
        raise UsageError(f"{source!r} is not a mirror of {what}", hint=hint)
    check_scheme(source)


def _folder_check(spec: DatasetSpec, folder: Path | None) -> Check:
    """Whether the folder that a download takes is here; a dataset that no server lists needs one."""
    if folder is None:
        hint = f"get its files as {spec.homepage or 'its publisher'} says, then name their folder with --source DIR"
        return Check("machine", "mirror", State.PROBLEM, f"no mirror of {spec.name} can be listed", hint)
    if folder.is_dir():
        return Check("machine", f"folder {folder}", State.OK, "here")
    return Check("machine", f"folder {folder}", State.PROBLEM, "not here", "check the path, and whether it is mounted")


def _strict(check: Check, judged: bool) -> Check:
    """The check as it counts for the mirror that is judged: what is not right keeps the data away."""
    if judged and check.state is State.WARNING and not check.found.startswith(str(AccessState.UNKNOWN)):
        return replace(check, state=State.PROBLEM)
    return check


def _hosts_of(specs: Sequence[DatasetSpec]) -> dict[str, str]:
    """The hosts that serve these datasets, but for services that the environment sends elsewhere."""
    mirrors = [mirror for spec in specs for mirror in spec.mirror]
    wanted = {host for host in _SERVED_BY.values() if any(_behind(mirror, {host}) for mirror in mirrors)}
    return {url: what for url, what in _HOSTS.items() if url.split("/")[2] in wanted}


def _service(mirror: Mirror) -> str:
    scheme, _, rest = mirror.url.partition("://")
    own = {"physionet": "physionet", "kaggle": "kaggle", "gs": "google", "hf": "huggingface"}
    return own.get(scheme, rest.partition("/")[0] if scheme == "url" else "")


def _behind(mirror: Mirror, silent: set[str]) -> bool:
    """Whether the mirror's host is among those that do not answer, unless the environment names another one."""
    scheme = mirror.url.partition("://")[0]
    service = "huggingface" if scheme == "hf" else scheme
    if service in ENDPOINTS and os.environ.get(variable(service)):
        return False
    return _SERVED_BY.get(scheme, "") in silent
