"""``cxrprep doctor``: what stands between this machine and the data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxrprep.cli import completers, options
from cxrprep.cli.help_format import verb
from cxrprep.cli.options import setting

if TYPE_CHECKING:
    from cxrprep.api.doctor_checks import Check
    from cxrprep.cli.context import Invocation


@verb(
    "doctor",
    asks=True,
    examples=(
        ("cxrprep doctor", "everything"),
        ("cxrprep doctor --dataset mimic-cxr", "can MIMIC-CXR be fetched from here? If not, the exit code is not 0"),
        ("cxrprep doctor --offline", "ask no server"),
    ),
)
@options.root
@setting("dataset", "--dataset", metavar="NAME", shell_complete=completers.dataset, text="check only what it needs")
@setting("download.source", "--source", metavar="MIRROR", shell_complete=completers.mirror)
@setting("engine.scheduler", "--scheduler", metavar="ADDRESS")
@options.network
@click.option("--offline", is_flag=True, help="ask no server")
def command(invocation: Invocation, offline: bool) -> int:
    """Check Python, codecs, disk, clock, logins, agreements, network and cluster; each with the next step.

    With --dataset, only what that dataset needs is asked, and the exit code says whether a download of it can start: 5
    login or agreement, 6 network, 7 disk, 2 a missing decoder. ROOT is where the data will go (default: the current
    folder). Logins are used, and never printed.
    """
    from cxrprep.api.doctor import doctor
    from cxrprep.api.doctor_checks import State
    from cxrprep.api.result import plain
    from cxrprep.config.job import SelectionSettings

    out, job = invocation.out, invocation.job

    def show(check: Check) -> None:
        if out.form == "human":
            out.check(str(check.state), check.name, check.found, check.hint)

    examination = doctor(
        invocation.path(job.root) or Path(),
        credentials=invocation.credentials(asks=False),
        dataset=job.dataset or None,
        source=job.download.source or None,
        whole=job.selection == SelectionSettings() and not job.download.discard_raw,
        billing_project=job.download.billing_project or None,
        scheduler=job.engine.scheduler or None,
        offline=offline,
        timeout=min(job.download.timeout, 10.0),
        on_check=show,
    ).value
    if out.form == "human" and job.dataset and not examination.exit_code:
        words = [job.dataset, *([job.root] if job.root else [])]
        words += [*(["--source", job.download.source] if job.download.source else []), "--dry-run"]
        out.text(f"{out.symbol('next', out.stdout)} cxrprep download {shlex.join(words)}", None)
    if out.form == "json":
        out.document({"command": "doctor", "exit_code": examination.exit_code, **plain(examination)})
    elif out.form == "quiet":
        for check in examination.checks:
            if check.state is State.PROBLEM:
                out.note(f"{check.found}. {check.hint}", level="problem", subject=check.name)
    return examination.exit_code
