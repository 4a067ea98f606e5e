"""Writes the manual pages from the commands: cxrprep(1) with the exit codes, and one for each command.

usage: manpages.py [--check]        --check writes nothing and fails when a page is not what the code says

They lie in ``docs/man`` and are installed to ``share/man/man1``.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

PROJECT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import click  # noqa: E402  # the project comes onto the path first
from reference import all_commands, sections_of  # noqa: E402  # likewise

if TYPE_CHECKING:
    from collections.abc import Iterable

OUT: Final = PROJECT / "docs" / "man"


def roff(text: str) -> str:
    """``text`` so that troff prints it as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def _paragraphs(text: str) -> Iterable[str]:
    for part in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        yield " ".join(part.split())


def _head(title: str, about: str) -> list[str]:
    from cxrprep import __version__

    return [
        f'.TH "{title.upper()}" 1 "" "cxrprep {__version__}" "User Commands"',
        ".SH NAME",
        f"{roff(title)} \\- {roff(about)}",
        ".SH SYNOPSIS",
    ]


def _options(heading: str, records: Iterable[tuple[str, str]]) -> list[str]:
    lines = [f".SH {roff(heading).upper()}"]
    for option, text in records:
        lines += [".TP", f"\\fB{roff(option)}\\fR", roff(text)]
    return lines


def command_page(name: str, command: click.Command) -> str:
    """The page of one command; ``name`` is what is typed, such as ``cxrprep config check``."""
    from cxrprep.cli.help_format import Grouped
    from cxrprep.cli.main import COMMANDS

    context = click.Context(command, info_name=name)
    paragraphs = list(_paragraphs(command.help or ""))
    briefs = {word: text for members in COMMANDS.values() for word, (_, text) in members.items()}
    lines = _head(name.replace(" ", "-"), briefs.get(name.removeprefix("cxrprep "), paragraphs[0].rstrip(".")))
    lines += [f"\\fB{roff(name)}\\fR {roff(' '.join(command.collect_usage_pieces(context)))}", ".SH DESCRIPTION"]
    lines.append(roff("\n.PP\n".join(paragraphs)).replace("\n\\&.PP", "\n.PP"))
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for member in command.commands.values():
            first = next(iter(_paragraphs(member.help or "")))
            lines += [".TP", f"\\fB{roff(name)} {roff(member.name or '')}\\fR", roff(first)]
    for heading, records in sections_of(command, context).items():
        lines += _options(heading, records)
    if isinstance(command, Grouped) and command.examples:
        lines.append(".SH EXAMPLES")
        for line, text in command.examples:
            lines += [".TP", roff(text[:1].upper() + text[1:]), ".nf", roff(line), ".fi"]
    lines += [".SH SEE ALSO", "\\fBcxrprep\\fR(1)"]
    return "\n".join(lines) + "\n"


def main_page() -> str:
    """The page of the program itself."""
    from cxrprep.cli.main import COMMANDS
    from cxrprep.cli.output import MEANINGS
    from cxrprep.config.settings import OTHER_VARIABLES

    lines = _head("cxrprep", "fetch, prove, label and convert the public chest X-ray collections")
    lines += ["\\fBcxrprep\\fR \\fICOMMAND\\fR [OPTIONS] [ARGS]", ".SH DESCRIPTION"]
    about = (
        "cxrprep brings CheXpert, MIMIC-CXR and NIH ChestX-ray14 onto a disk, proves that what is there is what was "
        "published, and makes labels, training images and one manifest of them. Every command may be run again after "
        "anything: what is done is kept."
    )
    lines.append(roff(about))
    for heading, commands in COMMANDS.items():
        lines.append(f".SH {roff(heading).upper()}")
        for name, (_, text) in commands.items():
            lines += [".TP", f"\\fBcxrprep\\-{roff(name)}\\fR(1)", roff(text)]
    lines.append(".SH EXIT STATUS")
    for code, meaning in MEANINGS.items():
        lines += [".TP", f"\\fB{int(code)}\\fR", roff(meaning)]
    lines.append(".SH ENVIRONMENT")
    words = "every setting, by its section and key, such as CXRPREP_DOWNLOAD_LIMIT_RATE=20M"
    for name, text in {"CXRPREP_SECTION_KEY": words, "NO_COLOR": "no colours", **OTHER_VARIABLES}.items():
        lines += [".TP", f"\\fB{roff(name)}\\fR", roff(text.replace("`", ""))]
    lines += [".SH FILES", ".TP", "\\fB~/.config/cxrprep/config.toml\\fR", "your own settings"]
    lines += [".TP", "\\fBcxrprep.toml\\fR", "settings of the folder in which a command is started"]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """File name to text."""
    made = {"cxrprep.1": main_page()}
    for name, command in all_commands():
        made[f"{name.replace(' ', '-')}.1"] = command_page(name, command)
    return made


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is out of date")
    check = parser.parse_args().check
    made = pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in OUT.glob("*.1")}
    stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    if check:
        if stale:
            print(f"not what the code says: {', '.join(stale)}; run: python tools/manpages.py", file=sys.stderr)
        return 1 if stale else 0
    OUT.mkdir(exist_ok=True)
    for name in stale:
        if name in made:
            (OUT / name).write_text(made[name], encoding="utf-8")
        else:
            (OUT / name).unlink()
        print(f"docs/man/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
