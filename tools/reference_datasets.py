"""The reference pages of the datasets, from the catalog: releases, places, files, tables, facts, quirks, citation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxrprep.datasets.facts import DatasetSpec


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    # A cell is one line: what a docstring says in several paragraphs would end the table.
    cells = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells) + "\n"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def dataset_pages() -> dict[str, str]:
    """``datasets/NAME.md`` for each, and the index."""
    from cxrprep.datasets.catalog import catalog
    from cxrprep.humanize import format_bytes

    rows = []
    for spec in catalog().values():
        size = max([spec.counts.get("bytes", 0), *(mirror.size or 0 for mirror in spec.mirror)])
        counts = [_number(spec.counts.get(unit, "")) for unit in ("images", "patients")]
        rows.append([f"[{spec.title}]({spec.name}.md)", f"`{spec.name}`", *counts, format_bytes(size) if size else ""])
    names = "\n".join(catalog())
    index = (
        "# Datasets\n\n"
        + _table(["dataset", "name", "images", "patients", "size"], rows)
        + f"\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    )
    return {"datasets/index.md": index, **{f"datasets/{s.name}.md": _page(s) for s in catalog().values()}}


def _page(spec: DatasetSpec) -> str:
    from cxrprep.cli.datasets import ACCESS
    from cxrprep.humanize import format_bytes

    aliases = ", ".join(f"`{name}`" for name in spec.aliases)
    counts = ", ".join(
        format_bytes(count) if unit == "bytes" else f"{count:,} {unit}" for unit, count in spec.counts.items()
    )
    releases = ", ".join(f"`{name}`" for name in spec.releases)
    lines = [
        f"# {spec.title}\n",
        f"{spec.summary}\n",
        (
            f"On the command line it is `{spec.name}`{f' (also {aliases})' if aliases else ''}. It has {counts}. "
            f"Releases: {releases}; the default is `{spec.default_release}`.\n"
        ),
        "## Where it comes from\n",
    ]
    if not spec.mirror:
        lines.append(
            f"No server lists its files. Get them as <{spec.homepage}> says, then name the folder: `--source DIR`.\n"
        )
    for mirror in spec.mirror:
        default = ", the default" if mirror.name == spec.default_mirror else ""
        size = f"; {format_bytes(mirror.size)}" if mirror.size else ""
        lines.append(
            f"**`--source {mirror.name}`**{default}: release `{mirror.release}`{size}; "
            f"{ACCESS.get(mirror.access, mirror.access)}: {mirror.how}."
        )
        if mirror.costs:
            lines.append(f"Costs: {mirror.costs}.")
        if mirror.agreement:
            lines.append(f"Agreement: <{mirror.agreement}>.")
        lines.append("")
    licence = spec.licence.name.removeprefix("LicenseRef-")
    lines += [
        "## Licence\n",
        (
            f"{licence}{f': {spec.licence.agreement}' if spec.licence.agreement else ''}."
            f"{f' See <{spec.licence.url}>.' if spec.licence.url else ''}\n"
        ),
    ]
    if spec.part:
        parts = [[p.name, p.title, _number(p.files or ""), ", ".join(f"`{g}`" for g in p.globs)] for p in spec.part]
        lines += ["## Parts\n", _table(["part", "what", "files", "paths"], parts)]
    if spec.table:
        rows = [
            [f"`{t.name}`", t.role, t.label_source and f"`{t.label_source}`", t.title, t.release and f"`{t.release}`"]
            for t in spec.table
        ]
        about = "Known tables. `--label-source` takes a name of the third column"
        lines += [
            "## Tables\n",
            f"{about}; without it, `{spec.default_label_source}`.\n",
            _table(["table", "role", "label source", "what it holds", "release"], rows),
        ]
    if spec.fact:
        facts = [[f.id, _value(f.value), f.source, f.note] for f in spec.fact]
        lines += [
            "## Published facts\n",
            (
                "`cxrprep verify` counts these in the tables and files that are here. Of a total of the whole release "
                "it says how much is here.\n"
            ),
            _table(["fact", "value", "where it is stated", "note"], facts),
        ]
    if spec.quirk:
        quirks = [[q.id, q.note, q.source] for q in spec.quirk]
        lines += [
            "## Known quirks\n",
            "Odd, and not damage: `verify` names them and does not fail, unless `--strict` is given.\n",
            _table(["quirk", "what is known", "source"], quirks),
        ]
    lines += [
        "## Citation\n",
        f"{spec.citation}\n",
        f"```bibtex\n{spec.bibtex.strip()}\n```\n",
        f"Homepage: <{spec.homepage}>\n",
    ]
    return "\n".join(lines)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_value(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value)
    return _number(value)
