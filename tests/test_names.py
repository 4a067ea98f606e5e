"""A stranger's errands: the word that one would type leads to the module, by its name or its first line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cxrprep"
ERRANDS = """
retry; lock; cache; HTTP client; authentication; proxy; certificates; checksum; digest; partial file; archive; journal;
selection; split; vocabulary; label policy; negation; sections; VOI LUT; grayscale; transforms; encoding; quality;
shard; recipe; manifest; export; dataset card; pairs; near-duplicates; report page; thumbnails; progress bar; settings;
credentials; executor; download plan; record; listing; catalog; protected health information; rate limits;
merge join; resample; remote zip; previous conversion; lineage; label statistics; agreement; reports; orientation;
extract archive; folds; environment variables; keyring; JSON output; bounding boxes; exit codes; temporary file; resize;
hard links; histogram equalization; photometric; leakage; PyTorch dataset; parallel processes; timeout; TLS; signals;
requester pays; de-identification; random sample; dry run; corrupt image; missing files; rotated; free disk space;
resume; rate limit; progress; pseudonym; prevalence; stratified; lossless; compression; window; webdataset; croissant;
doctor; job file; duplicate; bandwidth; cross-validation; COCO; region masks; job array; signed URL; completion
"""
WORDS = [word.strip() for word in ERRANDS.replace("\n", " ").split(";") if word.strip()]


def first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


MODULES = {path.relative_to(PACKAGE).as_posix(): first_line(path) for path in PACKAGE.rglob("*.py")}


@pytest.mark.parametrize("errand", WORDS)
def test_a_word_leads_to_its_module(errand: str) -> None:
    found = [
        name
        for name, line in MODULES.items()
        if all(word in f"{name.replace('_', ' ')} {line}".lower() for word in errand.lower().split())
    ]
    assert found, errand


def test_there_are_enough_errands() -> None:
    assert len(WORDS) >= 87


def test_every_module_says_what_it_is_in_a_sentence() -> None:
    assert [name for name, line in MODULES.items() if len(line.split()) < 3 and not name.endswith("/__init__.py")] == []


# Words that only this project's authors would know; the field and the trade have words for each of these things.
METAPHORS = frozenset(
    {"answers", "arriving", "crew", "desk", "gathered", "holdings", "kept", "lease", "looks", "meter", "patience"}
    | {"persistence", "pulse", "said", "say", "told", "tell", "telling", "walk"}
)


def words_of(name: str) -> set[str]:
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))


def names_in(path: Path) -> Iterator[str]:
    """The names that a module gives to itself, its classes, its functions and their parameters; private ones apart."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield from (each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg))


def test_no_name_is_a_metaphor() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in PACKAGE.rglob("*.py")
        for name in names_in(path)
        if not name.startswith("_") and words_of(name) & METAPHORS
    }
    assert found == set()


def test_a_class_name_is_that_of_one_class() -> None:
    owners: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                owners.setdefault(node.name, []).append(path.relative_to(PACKAGE).as_posix())
    assert len(owners) > 200
    assert {name: paths for name, paths in owners.items() if len(paths) > 1} == {}


def test_the_search_for_metaphors_sees_classes_functions_and_parameters(tmp_path: Path) -> None:
    path = tmp_path / "desk.py"
    path.write_text("class MainCrew:\n    def ask(self, kept_list): ...\n", encoding="utf-8")
    assert [name for name in names_in(path) if words_of(name) & METAPHORS] == ["desk", "MainCrew", "kept_list"]
