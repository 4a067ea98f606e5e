"""The command lines and code blocks that the documentation shows, found where a reader would copy them from."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The reference is made from the code when the documentation is built, and read here as a reader would find it.
# In a process of its own: click remembers the help options of commands that are asked without their program.
subprocess.run([sys.executable, str(ROOT / "tools" / "reference.py")], check=True)
# What was built of them is none of them; the design page shows shapes of commands.
PAGES = sorted(
    path
    for path in [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    if "_build" not in path.parts and path.name != "architecture.md"
)
CONFIGS = sorted(ROOT.glob("configs/*.toml"))
# A fence, with its indentation; a line `<!-- runs -->` before it says that the tests run it, `<!-- runs with PART -->`
# that they do where that optional package is installed.
_FENCE = re.compile(
    r"^(?P<mark>[ \t]*<!-- runs(?: with (?P<part>\w+))? -->\n)?"
    r"(?P<indent>[ \t]*)```(?P<kind>[\w-]*)[^\n]*\n(?P<body>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"(?<!`)`(cxrprep [^`\n]+)`(?!`)")
_OPERATORS = frozenset("|&;<>()")
# What may stand before the program in a crontab, an array job or a container.
_BEFORE = re.compile(r"^(?:\$ |(?:[A-Z_]+=\S+|exec|srun|time|nice|30|2|\*|docker run .*?)\s+)*(?=cxrprep\b)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its kind, its text, and where it stands."""

    page: Path
    line: int
    kind: str
    text: str
    runs: bool
    part: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        indent = found["indent"]
        body = "\n".join(line.removeprefix(indent) for line in found["body"].splitlines())
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found["kind"], body, runs=bool(found["mark"]), part=found["part"] or "")


@dataclass(frozen=True)
class Line:
    """One call of the program, as words after its name."""

    where: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where} {' '.join(self.words)}"


def calls(text: str, where: str) -> Iterator[Line]:
    """Every call of cxrprep in a piece of shell."""
    joined = re.sub(r'eval "\$\((.*?)\)"', r"\1", re.sub(r"\\\n\s*", " ", text))
    for raw in joined.splitlines():
        lexer = shlex.shlex(raw.strip(), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            continue
        segment: list[str] = []
        skip = False
        for word in [*words, ";"]:
            if set(word) <= _OPERATORS:
                yield from _call(segment, where)
                # What follows a redirection is a file, and the call goes on after it.
                skip = set(word) <= set("<>")
                segment = segment if skip else []
            elif skip:
                skip = False
            else:
                segment.append(word)


def _call(segment: list[str], where: str) -> Iterator[Line]:
    if "cxrprep" not in segment:
        return
    start = segment.index("cxrprep")
    if _BEFORE.match(" ".join(segment)) or start == 0:
        # In a container the image has the program's name: what follows it are its arguments all the same.
        yield Line(where, tuple(segment[start + 1 :]))


def calls_of(block: Block) -> Iterator[Line]:
    """Every call of cxrprep in a block: a script's, or those that a file of a workflow has in a line."""
    if block.kind in ("sh", "bash", "console"):
        yield from calls(block.text, str(block))
    elif block.kind in ("", "yaml"):
        yield from calls("\n".join(map(_command_in, block.text.splitlines())), str(block))


def _command_in(line: str) -> str:
    """What a shell is given by a line of a workflow: in quotes, behind ``run:`` or ``cmd:``, or the line itself."""
    line = re.sub(r"\{threads\}|\$\{shard\}|\$\(\([^)]*\)\)", "3", line)
    quoted = re.search(r'"([^"]*\bcxrprep [^"]*)"', line)
    keyed = re.search(r"\b(?:run|cmd): (.*)", line)
    return quoted[1] if quoted else keyed[1] if keyed else line


def every_call() -> Iterator[Line]:
    for page in PAGES:
        for block in blocks(page):
            yield from calls_of(block)
        for found in _INLINE.finditer(page.read_text(encoding="utf-8")):
            yield from calls(found[1], f"{page.relative_to(ROOT)} (inline)")
    for config in CONFIGS:
        for number, line in enumerate(config.read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith("#") and "cxrprep " in line:
                shown = line.lstrip("# ").removeprefix("- run: ")
                yield from calls(re.sub(r"   +.*", "", shown), f"{config.relative_to(ROOT)}:{number}")
                for found in _INLINE.finditer(line):
                    yield from calls(found[1], f"{config.relative_to(ROOT)}:{number}")
