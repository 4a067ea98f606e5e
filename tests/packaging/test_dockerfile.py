"""The Dockerfile: what hadolint says of it, and what it must be whatever a linter knows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.parts import need

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [
    line
    for line in re.sub(r"\\\n", " ", TEXT).splitlines()
    if line.strip() and not line.startswith("#")
]  # fmt: skip


def arguments(name: str) -> list[str]:
    return [line.partition(" ")[2].strip() for line in INSTRUCTIONS if line.startswith(f"{name} ")]


@pytest.mark.part("hadolint")
def test_hadolint_has_nothing_to_say() -> None:
    program = need("hadolint")
    done = subprocess.run(
        [program, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_bases_are_pinned_and_the_same() -> None:
    bases = [text.partition(" AS ")[0] for text in arguments("FROM")]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])


def test_it_runs_as_a_user_without_privileges_at_the_end() -> None:
    assert arguments("USER")[-1] == "1000:1000"
    last = max(index for index, line in enumerate(INSTRUCTIONS) if line.startswith("USER"))
    assert not [line for line in INSTRUCTIONS[last:] if line.startswith("RUN")]


def test_the_image_has_no_compiler_cache_or_secret_in_it() -> None:
    assert "--no-cache-dir" in TEXT
    assert not arguments("ADD")
    assert not re.search(r"(?i)password|token|secret|netrc", "\n".join(INSTRUCTIONS))


def test_every_file_that_it_copies_is_let_in_by_dockerignore() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = {word for text in arguments("COPY") if "--from" not in text for word in text.split()[:-1]}
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_the_program_is_the_entry_point_and_gets_signals() -> None:
    # The form of a list: without a shell in between, SIGTERM reaches the program.
    assert arguments("ENTRYPOINT") == ['["cxrprep"]']
