"""Writes the manual pages from the commands: cxrprep(1) with the exit codes, and one for each command.

usage: manpages.py [--out FOLDER]        docs/man when none is named; the wheel's build calls it (tools/build_hook.py)

Git does not hold them; the wheel installs them to ``share/man/man1``. click-man knows neither the sections of our
options nor examples, exit codes and variables, which are what a manual page is read for; so they are made here.
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


def write(out: Path) -> None:
    """Write the pages into ``out``, which holds nothing else."""
    made = pages()
    out.mkdir(parents=True, exist_ok=True)
    for path in out.glob("*.1"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (out / name).write_text(text, encoding="utf-8")


def main() -> int:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER")
    write(parser.parse_args().out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
