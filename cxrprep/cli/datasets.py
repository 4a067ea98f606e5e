"""``cxrprep datasets``: what there is, where it lives, and how to get access."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cxrprep.cli import options
from cxrprep.cli.help_format import verb
from cxrprep.humanize import format_bytes, format_number

if TYPE_CHECKING:
    from cxrprep.cli.context import Invocation
    from cxrprep.cli.output import Output
    from cxrprep.datasets.catalog import DatasetSpec
    from cxrprep.events import Event

_ACCESS = {
    "open": "open to all",
    "account": "needs an account",
    "agreement": "needs a signed agreement",
    "payer": "needs a Google Cloud project of yours, which pays for the transfer",
}


@verb(
    "datasets",
    asks=True,
    examples=(
        ("cxrprep datasets", "all of them"),
        ("cxrprep datasets show mimic-cxr", "one, with each place and how to get access to it"),
        ("cxrprep datasets show chexpert --bibtex", "the citation"),
        ("cxrprep datasets check ward.toml /data/ward", "a dataset's file of your own, run against a folder"),
    ),
)
@click.argument("what", required=False, metavar="[show|check]", shell_complete=options.complete_show)
@click.argument("name", required=False, metavar="[NAME]", shell_complete=options.complete_dataset)
@click.argument("folder", required=False, metavar="[ROOT]", type=click.Path(path_type=Path))
@click.option("--bibtex", is_flag=True, help="print the citation as BibTeX, and nothing else")
def command(invocation: Invocation, what: str | None, name: str | None, folder: Path | None, bibtex: bool) -> None:
    """The datasets: size, images, where they live, access, licence and citation.

    `check FILE` says what is wrong in a dataset's file of your own; with ROOT it reads that folder's tables by it.
    """
    from cxrprep.datasets.catalog import catalog, find_dataset
    from cxrprep.errors import UsageError

    out = invocation.out
    if what == "check":
        _check(invocation, name, folder)
        return
    if what not in (None, "show"):
        # `cxrprep datasets nih` can only mean one thing.
        name = name or what
    if name is None:
        if what or bibtex:
            raise UsageError("which dataset?", hint=f"cxrprep datasets show NAME; known: {', '.join(catalog())}")
        if out.form == "quiet":
            out.table([{"name": known} for known in catalog()], {"name": "Name"})
        else:
            pages = "\n\n".join(_brief(invocation, spec) for spec in catalog().values())
            out.text(pages, [_facts(spec) for spec in catalog().values()])
            out.note("\nHow to get access to each place, and the citation: cxrprep datasets show NAME")
        return
    spec = find_dataset(name)
    if bibtex:
        out.text(spec.bibtex.strip(), {"name": spec.name, "bibtex": spec.bibtex.strip()})
        return
    out.text(_page(invocation, spec), _facts(spec))


def _check(invocation: Invocation, file: str | None, folder: Path | None) -> None:
    from cxrprep.api.dataset_check import check_dataset
    from cxrprep.errors import UsageError
    from cxrprep.events import Note

    if file is None:
        raise UsageError("which file?", hint="cxrprep datasets check FILE.toml [ROOT]")

    def report_event(event: Event) -> None:
        if isinstance(event, Note):
            invocation.out.note(event.message)

    result = check_dataset(Path(file), folder, on_event=report_event)
    invocation.out.result(f"Checked {file}", result, command="datasets")


def _brief(invocation: Invocation, spec: DatasetSpec) -> str:
    """One dataset in a few lines: what it is, where it lives, what each place needs, under which terms."""
    out = invocation.out
    size = max([spec.counts.get("bytes", 0), *(mirror.size or 0 for mirror in spec.mirror)])
    counts = [f"{format_number(spec.counts[unit])} {unit}" for unit in ("images", "patients") if unit in spec.counts]
    counts += [format_bytes(size)] if size else []
    lines = [out.styled(spec.name, out.stdout, bold=True) + f": {spec.title}"]
    counted = f"{', '.join(counts)}; " if counts else ""
    lines.append(_prose(out, f"{counted}as {', '.join(spec.images.formats)}"))
    by_access: dict[str, list[str]] = {}
    for mirror in spec.mirror:
        default = ", the default" if mirror.name == spec.default_mirror else ""
        by_access.setdefault(mirror.access, []).append(f"{mirror.name} ({mirror.release}{default})")
    for access, names in by_access.items():
        lines.append(_prose(out, f"from {', '.join(names)}: {_ACCESS.get(access, access)}"))
    if not spec.mirror:
        lines.append(_prose(out, f"from a folder of yours (--source DIR): how to get it, {spec.homepage}"))
    lines.append(_prose(out, f"licence: {_licence(spec)}"))
    return "\n".join(lines)


def _licence(spec: DatasetSpec) -> str:
    # The prefix is SPDX's way of saying that the name is in no list; people need the rest.
    parts = (spec.licence.name.removeprefix("LicenseRef-"), spec.licence.agreement)
    return ": ".join(part for part in parts if part)


def _prose(out: Output, text: str) -> str:
    import textwrap

    room = max(min(out.width, 100) - 2, 40)
    return textwrap.fill(
        text, room, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _facts(spec: DatasetSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "title": spec.title,
        "summary": spec.summary,
        "aliases": list(spec.aliases),
        "releases": list(spec.releases),
        "default_release": spec.default_release,
        "counts": dict(spec.counts),
        "licence": {"name": spec.licence.name, "url": spec.licence.url, "agreement": spec.licence.agreement},
        "homepage": spec.homepage,
        "citation": spec.citation,
        "bibtex": spec.bibtex.strip(),
        "places": [
            {
                "name": m.name,
                "release": m.release,
                "access": m.access,
                "how": m.how,
                "costs": m.costs,
                "agreement": m.agreement,
                "bytes": m.size,
                "url": m.url,
                "default": m.name == spec.default_mirror,
            }
            for m in spec.mirror
        ],
    }


def _page(invocation: Invocation, spec: DatasetSpec) -> str:
    out = invocation.out

    def heading(text: str) -> str:
        return out.styled(text, out.stdout, bold=True)

    def prose(text: str) -> str:
        return _prose(out, text)

    counts = ", ".join(
        format_bytes(count) if unit == "bytes" else f"{format_number(count)} {unit}"
        for unit, count in spec.counts.items()
    )
    lines = [
        heading(f"{spec.title} ({spec.name})"),
        prose(spec.summary),
        prose(counts),
        prose(f"releases: {', '.join(spec.releases)}"),
    ]
    for mirror in spec.mirror:
        default = ", the default" if mirror.name == spec.default_mirror else ""
        lines += [
            "",
            heading(f"--source {mirror.name}{default}"),
            prose(f"release {mirror.release}; {_ACCESS.get(mirror.access, mirror.access)}"),
        ]
        tables = f"images alone: labels, splits and boxes come from {mirror.tables}" if mirror.tables else ""
        lines += [prose(text) for text in (mirror.how, mirror.costs, tables) if text]
        if mirror.agreement:
            lines.append(prose(f"agreement: {mirror.agreement}"))
    lines += ["", heading("Licence"), prose(_licence(spec)), *([prose(spec.licence.url)] if spec.licence.url else [])]
    lines += ["", heading("Citation"), prose(spec.citation), prose(spec.homepage)]
    return "\n".join(lines)
