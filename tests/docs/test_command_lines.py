"""Every command line that a reader can copy is understood by the program itself: commands, options and values."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import click
import pytest

import cxrprep
from cxrprep.cli.context import Invocation
from cxrprep.cli.help_format import Grouped
from cxrprep.cli.main import COMMANDS, cli
from cxrprep.config.settings import load_settings
from cxrprep.errors import UsageError
from tests.docs.lines import PAGES, Block, Line, blocks, calls, calls_of, every_call

# Words that stand for something of the reader's.
_PLACEHOLDER = {"COMMAND", "FILE", "..."}
LINES = [line for line in dict.fromkeys(every_call()) if not (set(line.words[:1]) & _PLACEHOLDER)]


def understood(words: tuple[str, ...], folder: Path) -> None:
    """Parse the words as the program would, and check the values; raises what a user would see."""
    filled = [word.replace("$SLURM_ARRAY_TASK_ID", "3") for word in words]
    invocation = Invocation(filled)
    context: click.Context = click.Context(cli, info_name="cxrprep", obj=invocation)
    command: click.Command = cli
    rest = filled
    while isinstance(command, click.Group) and rest and rest[0] not in ("--help", "-h", "--version"):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
        context = click.Context(command, info_name=name, parent=context)
    if not isinstance(command, click.Group):
        # A context of its own: --help would print and leave.
        command.make_context(context.info_name, [w for w in rest if w not in ("--help", "-h")], parent=context.parent)
        load_settings(flags=invocation.flags, environment={"XDG_CONFIG_HOME": str(folder)}, folder=folder)


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_documented_command_line_is_understood(line: Line, tmp_path: Path) -> None:
    try:
        understood(line.words, tmp_path)
    except click.MissingParameter:
        # `cxrprep convert` in running text names the command and does not call it.
        assert "inline" in line.where


def test_the_search_finds_what_a_reader_sees() -> None:
    text = "X=1 cxrprep run a.toml -q || [ $? -eq 75 ] || mail -s cxrprep a@b < /dev/null\necho x | cxrprep explain -\n"
    assert [line.words for line in calls(text, "")] == [("run", "a.toml", "-q"), ("explain", "-")]
    assert len(LINES) > 100


def test_no_command_line_of_a_block_is_passed_over() -> None:
    verbs = "|".join(name for names in COMMANDS.values() for name in names)
    counted = 0
    for page in PAGES:
        for block in blocks(page):
            if block.kind in ("text", "python"):
                continue
            code = "\n".join(re.sub(r"(?:^|\s)#.*", "", line) for line in block.text.splitlines())
            there = re.findall(rf"(?<![\w./:-])cxrprep (?:{verbs})\b", code)
            assert len(there) <= len(list(calls_of(block))), block
            counted += len(there)
    assert counted > 100


@pytest.mark.parametrize(
    "words", [("verifi",), ("verify", "--imges"), ("download", "x", "--shard", "0/0"), ("verify", "--sample", "x")]
)
def test_a_wrong_command_line_would_be_found(words: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises((click.UsageError, UsageError)):
        understood(words, tmp_path)


def _examples() -> list[tuple[str, str]]:
    found = []
    for names in COMMANDS.values():
        for name in names:
            command = cli.get_command(click.Context(cli), name)
            members = command.commands.values() if isinstance(command, click.Group) else [command]
            for member in members:
                assert isinstance(member, Grouped)
                assert member.examples, f"{member.name} has no example"
                found += [(f"{name} --help", line) for line, _ in member.examples]
    return found


@pytest.mark.parametrize(("where", "line"), _examples())
def test_an_example_of_help_is_understood(where: str, line: str, tmp_path: Path) -> None:
    found = list(calls(line.removeprefix('eval "$(').removesuffix(')"').partition("   (")[0], where))
    assert found, line
    for call in found:
        understood(call.words, tmp_path)


PYTHON = [block for page in PAGES for block in blocks(page) if block.kind == "python" and "reference" not in page.parts]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_of_the_documentation_parses_and_calls_what_there_is(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if not isinstance(node, ast.Call):
            continue
        words = ast.unparse(node.func)
        if re.fullmatch(r"cxrprep\.\w+", words):
            verb = getattr(cxrprep, words.partition(".")[2])
            inspect.signature(verb).bind(*node.args, **{k.arg: k.value for k in node.keywords if k.arg})


def test_every_command_and_every_howto_is_mentioned_where_a_reader_looks() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES if "reference" not in page.parts)
    for names in COMMANDS.values():
        for name in names:
            assert f"cxrprep {name}" in text, f"no page outside of the reference mentions cxrprep {name}"
