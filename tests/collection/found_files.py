"""Files that were found, changed: each verb ends with a code of the list, names the file, and loses nothing else.

``python -m tests.collection.found_files SEED COUNT`` draws ``COUNT`` changes and says which were answered wrongly.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from tests.collection.worlds import release
from tests.commands import Done, cxrprep, in_this_process

CODES: Final = (0, 2, 3, 4, 5, 6, 7, 8, 75)
SECONDS: Final = 30.0
_MANY: Final = 100_000
_WHOLE: Final = {
    "nothing": b"",
    "zeros": b"\0" * 300,
    "a mark": b"\xef\xbb\xbf",
    "lists": b"[" * _MANY,
    "objects": b'{"a":' * _MANY,
    "a nested value": b"a = " + b"[" * _MANY,
    "a dotted key": b".".join([b"a"] * _MANY) + b" = 1",
    "digits": b"9" * 10_000,
    "NaN": b"NaN",
    "null": b"null",
    "a list": b"[1, 2]",
    "a text": b'"text"',
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "half a character": b'{"a": "\\ud800"}',
    "an object": b"{}",
    "magic alone": b"PAR1PAR1",
    "long line": b"x," * 500_000,
}
_VALUES: Final = (
    None,
    True,
    -1,
    10**400,
    1e308,
    float("nan"),
    "",
    "\0",
    "x" * 300,
    [],
    {},
    [[]],
    {"a": {}},
    [None],
    [1],
    "s3://x/y",
    "../../x",
    "/etc/passwd",
    0.5,
    {"": ""},
    2**63,
)
_LINES: Final = (
    b"1979-05-27",
    b"9" * 5000,
    b"nan",
    b"[]",
    b"{}",
    b"true",
    b"-1",
    b'"\\u0000"',
    b'"../x"',
    b"{a={a={}}}",
    b'""',
    b"[1]",
    b'["x"]',
    b"0x" + b"f" * 300,
    b'"s3://x/y"',
)
_TABLES: Final = ("images", "labels", "studies", "report_labels", "mentions", "pairs")


@dataclass(frozen=True)
class Change:
    """A file of the world that says something else: its path, how it was changed, and the command that meets it."""

    path: str
    how: str
    words: tuple[str, ...]


def world(home: Path) -> Path:
    """Folders of all kinds, with every file that a verb may find in one."""
    release("nih-chestxray14", home)
    root, mirror = home / "root", home / "mirror"
    page = Path(__file__).parents[2] / "docs/howto/own-dataset.md"
    (home / "mine.toml").write_text(page.read_text().split("```toml")[1].split("```")[0])
    (home / "recipe.toml").write_text(
        (Path(__file__).parents[2] / "cxrprep/images/recipes/square-224.toml").read_text()
    )
    (home / "job.toml").write_text(
        f'dataset = "nih-chestxray14"\nroot = "{root}"\n\n[convert]\nrecipe = "square-224"\n'
    )
    (home / "ids.txt").write_text("00000001_000\n00000003\n")
    for words in (
        ("download", "nih-chestxray14", root, "--source", mirror),
        ("verify", root),
        ("extract-labels", root),
        ("extract-labels", root, "--reports", home / "reports1.csv", "--evidence"),
        ("pairs", root, "--reports", home / "reports1.csv"),
        ("convert", root, "--recipe", "square-224"),
        ("convert", root, "--recipe", "square-224", "--out", home / "moved"),
        ("convert", root, "--recipe", "square-224", "--out", home / "shards", "--to", "webdataset", "--per-shard", "3"),
        ("export", root, "--format", "csv"),
        ("export", root, "--format", "hf"),
        ("export", root, "--format", "coco"),
        ("duplicates", root),
        ("manifest", home / "own"),
        ("digest", root),
        ("convert", home / "own", "--recipe", "square-224", "--out", home / "small"),
        ("verify", home / "own"),
        ("verify", home / "moved"),
        ("download", "nih-chestxray14", root, "--source", mirror, "--save-plan", home / "plan.json"),
    ):
        done = cxrprep(*words, "-q")
        assert done.returncode == 0, (words, done.stderr)
    for name in ("manifests", "raw"):
        shutil.rmtree(home / name, ignore_errors=True)
    journal = root / ".cxrprep/journal/1-elsewhere-1-00000000.jsonl"
    journal.parent.mkdir(parents=True, exist_ok=True)
    entry = {"path": "images/00000001_000.png", "size": 1, "digest": None, "origin": "transport", "state": "here"}
    journal.write_text(json.dumps(entry) + "\n")
    (root / ".cxrprep/parts").mkdir(exist_ok=True)
    (root / ".cxrprep/parts/x.part.json").write_text('{"dest": "images/00000001_000.png", "size": 4}')
    (root / ".cxrprep/parts/x.part").write_bytes(b"x")
    sums = ((hashlib.sha256(path.read_bytes()).hexdigest(), path.name) for path in sorted(root.glob("*.txt")))
    lines = (f"{digest}  {name}\n" for digest, name in sums)
    (root / "SHA256SUMS.txt").write_text("".join(lines))
    return home


def commands(home: Path, path: Path, rng: random.Random) -> tuple[str, ...]:
    """A command that may meet the file."""
    mirror, out = str(home / "mirror"), str(home / f"out{rng.randint(1, 3)}")
    top = path.relative_to(home).parts[0]
    alone = {
        "plan.json": [("download", "nih-chestxray14", "root", "--from-plan", "plan.json")],
        "job.toml": [
            ("config", "check", "job.toml"),
            ("status", "root", "--config", "job.toml"),
            ("run", "job.toml", "--dry-run"),
        ],
        "mine.toml": [
            ("datasets", "show", "mine.toml"),
            ("verify", "root", "--dataset", "mine.toml"),
            ("datasets", "check", "mine.toml", "root"),
        ],
        "recipe.toml": [("convert", "root", "--recipe", "recipe.toml", "--out", out)],
        "ids.txt": [
            ("convert", "root", "--recipe", "square-224", "--out", out, "--images", "ids.txt"),
            ("export", "root", "--format", "csv", "--patients", "ids.txt"),
        ],
        "reports1.csv": [
            ("extract-labels", "root", "--reports", "reports1.csv"),
            ("pairs", "root", "--reports", "reports1.csv"),
        ],
        "theirs1.csv": [
            ("extract-labels", "root", "--import", "a=theirs1.csv"),
            ("extract-labels", "root", "--compare", "theirs1.csv", "theirs2.csv"),
        ],
    }
    if top in alone:
        return tuple(re.sub(r"^(a=)?([a-z0-9]+\.[a-z]+|root)$", rf"\g<1>{home}/\2", w) for w in rng.choice(alone[top]))
    folder = str(home / top)
    for part in ("derived/square-224", "export/csv", "export/hf", "export/coco"):
        if f"/{part}/" in str(path) and rng.random() < 0.7:
            folder += f"/{part}"
    forms = ("csv", "coco", "webdataset", "hf", "original")
    verbs: list[tuple[str, ...]] = [
        ("status", folder),
        ("status", folder, "--json"),
        ("verify", folder),
        ("verify", folder, "--quick"),
        ("verify", folder, "--images"),
        ("report", folder),
        ("digest", folder),
        ("duplicates", folder),
        ("extract-labels", folder),
        ("manifest", folder),
        ("manifest", folder, "--split-by", "patient"),
        ("convert", folder, "--recipe", "square-224"),
        ("convert", folder, "--recipe", "square-224", "--out", out),
        ("export", folder, "--format", rng.choice(forms)),
        ("export", folder, "--format", rng.choice(forms), "--out", out),
        ("pairs", folder, "--reports", str(home / "reports2.csv")),
        ("extract-labels", folder, "--import", f"others={home}/theirs2.csv"),
        ("prove", "0" * 64, folder),
        ("download", "nih-chestxray14", folder, "--source", mirror),
        ("verify", folder, "--repair", "--source", mirror),
        ("convert", folder, "--recipe", "square-224", "--out", str(home / "moved")),
        (
            "convert",
            folder,
            "--recipe",
            "square-224",
            "--out",
            str(home / "shards"),
            "--to",
            "webdataset",
            "--per-shard",
            "3",
        ),
        ("extract-labels", folder, "--reports", str(home / "reports2.csv")),
        ("export", folder, "--format", "csv", "--text", "findings"),
        ("convert", folder, "--check-phi"),
        ("download", "nih-chestxray14", folder),
        ("report", folder, "--beside", str(home / "root")),
        ("extract-labels", folder, "--tables", str(home / "root")),
        ("verify", folder, "--state", str(home / "state")),
    ]
    return rng.choice(verbs)


def files(home: Path) -> list[Path]:
    """What may be found and says something to the program."""
    return sorted(
        p
        for p in home.rglob("*")
        if p.is_file() and "logs" not in p.parts and "mirror" not in p.relative_to(home).parts[:1]
    )


def change(path: Path, rng: random.Random) -> str:
    """Make the file say something else, or be something else; says how."""
    data = path.read_bytes()
    ways = ["whole", "cut", "flip", "kind", "line"]
    if path.suffix == ".parquet":
        ways += ["table", "table", "table", "footer", "footer", "footer"]
    if data[:1] in (b"{", b"["):
        ways += ["value"] * 8
    if path.suffix in (".toml", ".lock", ".csv", ".txt") or not path.suffix:
        ways += ["line"] * 5
    way = rng.choice(ways)
    if way == "kind":
        return _another_kind(path, rng)
    if way == "table":
        with contextlib.suppress(pa.ArrowException, OSError, ValueError):
            return _another_table(path, rng)
    if way == "footer":
        with contextlib.suppress(pa.ArrowException, OSError):
            return _another_footer(path, rng)
    if way == "value":
        with contextlib.suppress(ValueError):
            held = json.loads(data)
            places = list(_places(held))
            if places:
                parent, key = rng.choice(places)
                parent[key] = rng.choice(_VALUES)
                path.write_text(json.dumps(held))
                return f"{key} = {str(parent[key])[:20]}"
    if way == "line" and data:
        lines = data.split(b"\n")
        number = rng.randrange(len(lines))
        value = rng.choice(_LINES)
        mark = b"=" if b"=" in lines[number] else b","
        parts = lines[number].split(mark)
        parts[rng.randrange(len(parts))] = value
        lines[number] = mark.join(parts)
        path.write_bytes(b"\n".join(lines))
        return f"line {number} has {value[:20]!r}"
    if way == "cut" and data:
        path.write_bytes(data[: rng.randrange(len(data))])
        return "cut"
    if way == "flip" and data:
        at = rng.choice([rng.randrange(len(data)), len(data) - 1 - rng.randrange(min(len(data), 400))])
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :])
        return f"byte {at} of {len(data)}"
    how = rng.choice(sorted(_WHOLE))
    path.write_bytes(_WHOLE[how])
    return how


def _another_kind(path: Path, rng: random.Random) -> str:
    kind = rng.choice(["folder", "full folder", "loop", "dangling", "gone"])
    path.unlink()
    if kind.endswith("folder"):
        path.mkdir()
        if kind == "full folder":
            (path / "x").write_text("x")
    elif kind != "gone":
        path.symlink_to(path.name if kind == "loop" else "nowhere")
    return kind


def _another_table(path: Path, rng: random.Random) -> str:
    table = pq.read_table(path)
    name = rng.choice(table.column_names)
    at, kind = (
        table.column_names.index(name),
        rng.choice(["dropped", "text", "null", "renamed", "numbers", "no rows", "twice", "strange", "nested"]),
    )
    rows = table.num_rows
    columns = {
        "text": pa.array([str(v) for v in table[name].to_pylist()], pa.string()),
        "null": pa.nulls(rows),
        "numbers": pa.array(range(rows), pa.int64()),
        "strange": pa.array(["\0../x\n"] * rows, pa.string()),
        "nested": pa.array([[1]] * rows, pa.list_(pa.int8())),
    }
    if kind == "dropped":
        table = table.drop_columns([name])
    elif kind == "renamed":
        table = table.rename_columns([f"x{n}" if n == name else n for n in table.column_names])
    elif kind == "no rows":
        table = table.slice(0, 0)
    elif kind == "twice":
        table = pa.concat_tables([table, table])
    else:
        table = table.set_column(at, name, columns[kind])
    pq.write_table(table, path)
    return f"{kind}: {name}"


def _another_footer(path: Path, rng: random.Random) -> str:
    table = pq.read_table(path)
    held = {key.decode(): value.decode(errors="replace") for key, value in (table.schema.metadata or {}).items()}
    if not held:
        return _another_table(path, rng)
    key = rng.choice(sorted(held))
    text = held[key]
    with contextlib.suppress(ValueError):
        inner = json.loads(text)
        places = list(_places(inner))
        if places and rng.random() < 0.7:
            parent, part = rng.choice(places)
            parent[part] = rng.choice(_VALUES)
            text = json.dumps(inner)
            pq.write_table(table.replace_schema_metadata(held | {key: text}), path)
            return f"footer {key}.{part} = {str(parent[part])[:20]}"
    value = rng.choice(
        ["", "null", "[]", "{}", "x" * 5000, "[" * _MANY, '"\\ud800"', "-1", "9" * 400, "NaN", "1e999", "\0"]
    )
    if rng.random() < 0.2:
        del held[key]
        value = "gone"
    else:
        held[key] = value
    pq.write_table(table.replace_schema_metadata(held), path)
    return f"footer {key} = {value[:20]!r}"


def _places(held: Any) -> Iterator[tuple[Any, Any]]:
    for key in held if isinstance(held, dict) else range(len(held)) if isinstance(held, list) else ():
        yield held, key
        yield from _places(held[key])


def cells(home: Path) -> dict[Path, tuple[int, int]]:
    """Rows and cells that are not null of each table that can be read."""
    found = {}
    for path in home.rglob("manifests/*.parquet"):
        if path.stem in _TABLES and path.is_file():
            with contextlib.suppress(pa.ArrowException, OSError, ValueError):
                table = pq.read_table(path)
                found[path] = table.num_rows, sum(len(column) - column.null_count for column in table.columns)
    return found


def wrong(home: Path, changed: Path, words: tuple[str, ...], usual: int) -> str:
    """What is wrong with the answer to a command, which ends with ``usual`` where nothing was changed."""
    before, here = cells(home), {path for path in files(home) if ".cxrprep" not in path.parts}
    begun = time.process_time()
    try:
        done = cxrprep(*words)
    except BaseException:  # noqa: BLE001  # what escapes the program is what is looked for
        return f"escaped: {traceback.format_exc()[-700:]}"
    seconds = time.process_time() - begun
    found = [*_answer(changed, done, usual, seconds), *_losses(home, changed, words, before, here)]
    return "; ".join(f"exit {done.returncode}: {what}" for what in found)


def _answer(changed: Path, done: Done, usual: int, seconds: float) -> Iterator[str]:
    text = done.stderr + done.stdout
    if done.returncode not in CODES or "Traceback" in text:
        yield done.stderr[-600:]
    if seconds > SECONDS:
        yield f"{seconds:.0f} s"
    named = changed.name in text or changed.parent.name in text
    if done.returncode in (2, 4, 7) and done.returncode != usual and not named:
        yield f"the file is not named: {done.stderr[-400:]}"


def _losses(
    home: Path, changed: Path, words: tuple[str, ...], before: dict[Path, tuple[int, int]], here: set[Path]
) -> Iterator[str]:
    own = {"pairs": ("pairs",)}.get(words[0], ("report_labels", "mentions") if "--reports" in words else ())
    gone = sorted(str(path.relative_to(home)) for path in here if not path.is_file() and path != changed)
    # Words behind labels are written when they are asked for.
    gone = [path for path in gone if Path(path).stem not in own]
    if gone:
        yield f"gone: {gone[:5]}"
    of_own = changed.is_relative_to(home / "own") and "manifests" not in changed.parts
    if of_own or changed.suffix.lower() in (".png", ".jpg", ".dcm", ".csv", ".txt"):
        # The digest of a changed image, and the labels of a changed table, are rightly others.
        return
    after = cells(home)
    for path, counts in before.items():
        fewer = path not in after or after[path] < counts or after[path][1] < counts[1]
        if path != changed and path.stem not in own and fewer:
            yield f"fewer cells: {path.relative_to(home)}: {counts} -> {after.get(path)}"


@contextlib.contextmanager
def prepared(folder: Path) -> Iterator[Path]:
    """The world, made in ``folder``, with a user's folders of its own."""
    kept = dict(os.environ)
    os.environ.update({f"XDG_{name}_HOME": str(folder / "user") for name in ("STATE", "CACHE", "CONFIG", "DATA")})
    try:
        with in_this_process():
            yield world(folder / "world")
    finally:
        os.environ.clear()
        os.environ.update(kept)


def draw(good: Path, home: Path, rng: random.Random) -> tuple[Change, str]:
    """One change in a fresh copy of the world, and what is wrong with the answer."""
    _fresh(good, home)
    every = files(home)
    # Few files say much, and many are images.
    telling = [path for path in every if path.suffix not in (".png", ".dcm", ".jpg")]
    path = rng.choice(telling if rng.random() < 0.95 else every)
    words = commands(home, path, rng)
    if words not in _USUAL:
        _USUAL[words] = cxrprep(*words).returncode
        _fresh(good, home)
    how = change(path, rng)
    return Change(path.relative_to(home).as_posix(), how, words), wrong(home, path, words, _USUAL[words])


# How commands end where nothing was changed.
_USUAL: Final[dict[tuple[str, ...], int]] = {}


def _fresh(good: Path, home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(good, home, symlinks=True)
    for text in (home / "job.toml", home / "plan.json", home / "root/cxrprep.lock"):
        text.write_text(text.read_text().replace(str(good), str(home)))


def main(seed: int, count: int) -> int:
    """Draw ``count`` changes; 1 where one was answered wrongly."""
    bad = 0
    with tempfile.TemporaryDirectory() as folder, prepared(Path(folder)) as good:
        home = Path(folder, "home")
        for number in range(count):
            rng = random.Random(f"{seed}/{number}")
            with contextlib.redirect_stdout(io.StringIO()):
                one, why = draw(good, home, rng)
            if why:
                bad += 1
                shown = " ".join(one.words).replace(str(home), "~")
                print(
                    f"{seed}/{number}: {one.path} ({one.how}): {shown}\n    {why.replace(str(home), '~')}", flush=True
                )
            if number % 100 == 99:
                print(f"-- {number + 1} changes, {bad} wrong", flush=True)
    print(f"{count} changes, {bad} answered wrongly")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
