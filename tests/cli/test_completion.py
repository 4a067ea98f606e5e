"""Completion: what is offered, asked in this process, and each shell with our script sourced, asked of a few lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from cxrprep.cli.main import cli
from tests.parts import need

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

# what is typed -> some of what must be offered
TYPED = {
    "cxrprep dow": {"download"},
    "cxrprep download n": {"nih-chestxray14"},
    "cxrprep download nih-chestxray14 --source b": {"box"},
    "cxrprep download nih-chestxray14 --source ": {"box", "kaggle"},
    "cxrprep download chexpert --release v": {"v1.0", "v1.0-small"},
    "cxrprep download chexpert x --view PA": {"PA", "PA_LLD", "PA_RLD"},
    "cxrprep manifest x --label-source neg": {"negbio"},
    "cxrprep convert x --recipe sq": {"square-224", "square-320", "square-512"},
    "cxrprep export x --uncertain ": {"keep", "ones", "zeros", "ignore"},
    "cxrprep download chexpert x --label pleural_e": {"pleural_effusion"},
    "cxrprep export x --observations chex": {"chexpert-competition", "chexpert"},
    "cxrprep export x --observations edema,card": {"edema,cardiomegaly"},
    "cxrprep run job.toml --steps dow": {"download"},
    "cxrprep run job.toml --steps download,ver": {"download,verify"},
    "cxrprep convert x --fix ": {"inverted", "rotated", "mirrored"},
    "cxrprep manifest x --stratify ": {"all", "fracture"},
    "cxrprep export x --text find": {"findings"},
    "cxrprep extract-labels x --labeler ": {"rules", "openai", "chexbert"},
    "cxrprep extract-labels x --policy open": {"open-i"},
    "cxrprep extract-labels x --sections impression,find": {"impression,findings"},
    "cxrprep export x --where age": {"age_years"},
    "cxrprep config ": {"check", "show", "init"},
    "cxrprep verify x --comp": {"--complete"},
    "cxrprep datasets show mimic": {"mimic-cxr", "mimic-cxr-jpg"},
    "cxrprep datasets ": {"show", "new", "check", "chexpert"},
}

# What a script can get wrong: a command, a value, a value that is not typed yet, a list with a comma, an option.
IN_SHELLS = {
    typed: TYPED[typed]
    for typed in (
        "cxrprep dow",
        "cxrprep download nih-chestxray14 --source ",
        "cxrprep download nih-chestxray14 --source b",
        "cxrprep export x --observations edema,card",
        "cxrprep verify x --comp",
    )
}


@pytest.mark.parametrize("typed", TYPED)
def test_what_is_typed_is_completed(typed: str) -> None:
    *words, last = typed.split(" ")[1:]
    offered = ShellComplete(cli, {}, "cxrprep", "_CXRPREP_COMPLETE").get_completions(words, last)
    assert TYPED[typed] <= {item.value for item in offered}
    # NIH's collection is not there.
    assert "nih" not in typed or "physionet" not in {item.value for item in offered}


@pytest.mark.parametrize(("action", "kind"), [("check", "file"), ("new", "file"), ("show", "plain")])
def test_files_follow_new_and_check_and_datasets_show(action: str, kind: str) -> None:
    offered = ShellComplete(cli, {}, "cxrprep", "_CXRPREP_COMPLETE").get_completions(["datasets", action], "")
    assert {item.type for item in offered} == {kind}


def shell(program: str, *words: str) -> str:
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, check=False, env={**os.environ, "PATH": PATH}, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_bash() -> None:
    need("bash")
    lines = ['eval "$(cxrprep completion bash)"']
    for typed in IN_SHELLS:
        words = typed.split(" ")
        quoted = " ".join(f"'{word}'" for word in words)
        lines += [f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMPREPLY=()"]
        lines += ["_cxrprep_completion cxrprep", 'echo "${COMPREPLY[@]}"']
    for offered, (typed, wanted) in zip(
        shell("bash", "--norc", "-c", "\n".join(lines)).splitlines(), IN_SHELLS.items(), strict=True
    ):
        assert wanted <= set(offered.split()), typed


@pytest.mark.slow
def test_fish() -> None:
    program = need("fish")
    lines = ["cxrprep completion fish | source"]
    for typed in IN_SHELLS:
        lines += [f"complete -C '{typed}'", "echo ---"]
    answers = shell(program, "--no-config", "-c", "\n".join(lines)).split("---\n")
    for offered, (typed, wanted) in zip(answers, IN_SHELLS.items(), strict=False):
        assert wanted <= {line.partition("\t")[0] for line in offered.splitlines()}, typed
    assert "fetch a dataset" in answers[0]


@pytest.mark.slow
def test_zsh_registers_the_function_and_it_asks_the_program(tmp_path: Path) -> None:
    program = need("zsh")
    script = f'autoload -U compinit; compinit -u -d {tmp_path}/dump; eval "$(cxrprep completion zsh)"; '
    assert shell(program, "-f", "-c", f"{script} print $_comps[cxrprep]").strip() == "_cxrprep_completion"
    for typed, wanted in IN_SHELLS.items():
        words = typed.split(" ")
        asked = f"COMP_WORDS='{typed}' COMP_CWORD={len(words) - 1} _CXRPREP_COMPLETE=zsh_complete cxrprep"
        # Three lines an item: its kind, its text, its help.
        assert wanted <= set(shell(program, "-f", "-c", asked).splitlines()[1::3]), typed


@pytest.mark.parametrize(("typed", "kind"), [("cxrprep verify ", "dir"), ("cxrprep verify --state ", "dir")])
def test_folders_are_left_to_the_shell(typed: str, kind: str) -> None:
    words = typed.split(" ")
    asked = f"COMP_WORDS='{typed}' COMP_CWORD={len(words) - 1} _CXRPREP_COMPLETE=bash_complete cxrprep"
    assert shell("bash", "-c", asked).startswith(f"{kind},")


@pytest.mark.parametrize("name", ["tcsh", ""])
def test_another_shell_is_refused_with_those_that_are_known(name: str) -> None:
    done = subprocess.run(
        ["cxrprep", "completion"], capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": PATH, "SHELL": f"/bin/{name}"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "known: bash, zsh, fish" in done.stderr
