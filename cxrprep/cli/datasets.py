"""``cxrprep datasets``: what there is, where it lives, and how to get access."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cxrprep.cli import completers
from cxrprep.cli.help_format import verb
from cxrprep.humanize import format_bytes, format_number

if TYPE_CHECKING:
    from cxrprep.cli.context import Invocation
    from cxrprep.cli.output import Output
    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.events import Event, Sink

ACCESS = {
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
        ("cxrprep datasets new ward.toml /data/ward", "a file for a dataset of your own, drafted from its tables"),
        ("cxrprep datasets check ward.toml /data/ward --contract", "check such a file against its folder"),
    ),
)
@click.argument("what", required=False, metavar="[show|new|check]", shell_complete=completers.dataset_action)
@click.argument("name", required=False, metavar="[NAME]", shell_complete=completers.dataset_or_file)
@click.argument("folder", required=False, metavar="[ROOT]", type=click.Path(path_type=Path))
@click.option("--bibtex", is_flag=True, help="print the citation as BibTeX, and nothing else")
@click.option("--contract", is_flag=True, help="check: also run on ROOT the checks that every built-in dataset passes")
@click.option("--title", default="", metavar="TEXT", help="new: what people call the dataset")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="ROLE=NAME",
    help="new: the column of image, patient, study, view, sex, age or split; an empty NAME for none",
)
@click.option("--force", is_flag=True, help="new: write over a file that is there")
def command(
    invocation: Invocation,
    what: str | None,
    name: str | None,
    folder: Path | None,
    *,
    bibtex: bool,
    contract: bool,
    title: str,
    columns: tuple[str, ...],
    force: bool,
) -> int | None:
    """The datasets: size, images, where they are, access, licence and citation.

    `new FILE ROOT` drafts a file for a dataset of your own from ROOT's tables and names; at a terminal it asks. `check
    FILE` says what is wrong in such a file; with ROOT it reads that folder's tables by it.
    """
    from cxrprep.datasets.catalog import catalog, find_dataset
    from cxrprep.errors import UsageError

    out = invocation.out
    if what == "check":
        return _check(invocation, name, folder, contract=contract)
    if what == "new":
        return _new(invocation, name, folder, title=title, columns=columns, force=force)
    if what == "list":
        what = None  # as other tools say it; no dataset is called so
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
            out.text(pages, [_facts(spec) for spec in catalog().values()] if out.form == "json" else None)
            out.note("\nHow to get access to each place, and the citation: cxrprep datasets show NAME")
        return None
    spec = find_dataset(name)
    if bibtex:
        out.text(spec.bibtex.strip(), {"name": spec.name, "bibtex": spec.bibtex.strip()})
        return None
    out.text(_page(invocation, spec), _facts(spec))
    return None


def _check(invocation: Invocation, file: str | None, folder: Path | None, *, contract: bool) -> int:
    from cxrprep.api.dataset_check import check_dataset
    from cxrprep.errors import UsageError

    if file is None:
        raise UsageError("which file?", hint="cxrprep datasets check FILE.toml [ROOT]")
    result = check_dataset(Path(file), folder, contract=contract, on_event=_notes_to(invocation))
    quoted = shlex.quote(file)
    where = "ROOT" if folder is None else shlex.quote(str(folder))
    verb = f"datasets check {quoted} {where}" if folder is None else f"extract-labels {where} --dataset {quoted}"
    return invocation.out.result(f"Checked {file}", result, command="datasets", following=(f"cxrprep {verb}",))


def _new(
    invocation: Invocation, file: str | None, folder: Path | None, *, title: str, columns: tuple[str, ...], force: bool
) -> int:
    from cxrprep.api.dataset_draft import draft_dataset
    from cxrprep.errors import UsageError

    if file is None or folder is None:
        raise UsageError("which file, and from which folder?", hint="cxrprep datasets new FILE.toml ROOT")
    wrong = [word for word in columns if "=" not in word]
    if wrong:
        raise UsageError(f"--column {wrong[0]} names no column", hint="write it as --column patient=PatientID")

    def ask(question: str, guess: str) -> str:
        answer: str = click.prompt(question, default=guess, err=True)
        return answer

    result = draft_dataset(
        Path(file),
        folder,
        title=title,
        columns={role.strip(): name.strip() for role, _, name in (word.partition("=") for word in columns)},
        force=force,
        ask=ask if invocation.has_person else None,
        on_event=_notes_to(invocation),
    )
    following = (f"cxrprep datasets check {shlex.quote(file)} {shlex.quote(str(folder))}",)
    return invocation.out.result(f"Drafted {file}", result, command="datasets", following=following)


def _notes_to(invocation: Invocation) -> Sink:
    from cxrprep.events import Note

    def report_event(event: Event) -> None:
        if isinstance(event, Note):
            invocation.out.note(event.message)

    return report_event


def _brief(invocation: Invocation, spec: DatasetSpec) -> str:
    """One dataset in a few lines: what it is, where it lives, what each place needs, under which terms."""
    out = invocation.out
    size = max([spec.counts.get("bytes", 0), *(mirror.size or 0 for mirror in spec.mirror)])
    counts = [f"{format_number(spec.counts[unit])} {unit}" for unit in ("images", "patients") if unit in spec.counts]
    counts += [format_bytes(size)] if size else []
    title = _prose(out, f"{spec.name}: {spec.title}", indent="")
    lines = [out.styled(spec.name, out.stdout, bold=True) + title.removeprefix(spec.name)]
    counted = f"{', '.join(counts)}; " if counts else ""
    lines.append(_prose(out, f"{counted}as {', '.join(spec.images.formats or spec.images.suffixes)}"))
    by_access: dict[str, list[str]] = {}
    for mirror in spec.mirror:
        default = ", the default" if mirror.name == spec.default_mirror else ""
        by_access.setdefault(mirror.access, []).append(f"{mirror.name} ({mirror.release}{default})")
    for access, names in by_access.items():
        lines.append(_prose(out, f"from {', '.join(names)}: {ACCESS.get(access, access)}"))
    if not spec.mirror:
        lines.append(_prose(out, f"from a folder of yours (--source DIR){_where(spec.homepage)}"))
    lines.append(_prose(out, f"licence: {_licence(spec)}"))
    return "\n".join(lines)


def _licence(spec: DatasetSpec) -> str:
    # The prefix is SPDX's way of saying that the name is in no list; people need the rest.
    parts = (spec.licence.name.removeprefix("LicenseRef-"), spec.licence.agreement)
    return ": ".join(part for part in parts if part)


def _prose(out: Output, text: str, indent: str = "  ") -> str:
    import textwrap

    room = max(min(out.width, 100) - 2, 40)
    return textwrap.fill(
        text, room, initial_indent=indent, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _facts(spec: DatasetSpec) -> dict[str, Any]:
    from cxrprep.manifest.pair_filters import published_counts

    named = ("name", "release", "access", "how", "costs", "agreement", "url")
    return {
        **{key: getattr(spec, key) for key in ("name", "title", "summary")},
        "aliases": list(spec.aliases),
        "releases": list(spec.releases),
        "default_release": spec.default_release,
        "counts": dict(spec.counts),
        "licence": {"name": spec.licence.name, "url": spec.licence.url, "agreement": spec.licence.agreement},
        "pairs": published_counts(spec.name),
        "homepage": spec.homepage,
        "citation": spec.citation,
        "bibtex": spec.bibtex.strip(),
        "places": [
            {**{key: getattr(m, key) for key in named}, "bytes": m.size, "default": m.name == spec.default_mirror}
            for m in spec.mirror
        ],
    }


def _page(invocation: Invocation, spec: DatasetSpec) -> str:
    from cxrprep.manifest.pair_filters import FILTERS, published_counts

    out = invocation.out

    def heading(text: str) -> str:
        return out.styled(_prose(out, text, indent=""), out.stdout, bold=True)

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
            prose(f"release {mirror.release}; {ACCESS.get(mirror.access, mirror.access)}"),
        ]
        tables = f"images alone: labels, splits and boxes come from {mirror.tables}" if mirror.tables else ""
        lines += [prose(text) for text in (mirror.how, mirror.costs, tables) if text]
        if mirror.agreement:
            lines.append(prose(f"agreement: {mirror.agreement}"))
    if not spec.mirror:
        lines += ["", heading("--source DIR"), prose(f"from a folder of yours{_where(spec.homepage)}")]
    published = published_counts(spec.name)
    if published:
        lines += ["", heading("Published pairs of images and reports, by filter of cxrprep pairs")]
    for name, by_split in published.items():
        numbers = ", ".join(f"{split} {format_number(n)}".strip() for split, n in by_split.items())
        lines.append(prose(f"{name}: {numbers} {FILTERS[name].unit}s".replace("studys", "studies")))
    lines += ["", heading("Licence"), prose(_licence(spec)), *([prose(spec.licence.url)] if spec.licence.url else [])]
    cited = [prose(text) for text in (spec.citation, spec.homepage) if text]
    lines += ["", heading("Citation"), *cited] if cited else []
    return "\n".join(lines)


def _where(homepage: str) -> str:
    return f": how to get it, {homepage}" if homepage else ""
