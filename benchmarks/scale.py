"""Every stage at the size of the real collections: time, CPU and memory, and how they grow.

usage: python benchmarks/scale.py [DATASET] [--images N,N,...] [--only STAGE ...] [--work DIR] [--json FILE]

DATASET is mimic-cxr-jpg (default), mimic-cxr, chexpert, nih-chestxray14, or linked: MIMIC-CXR-JPG's names, tables and
sums up to 5 million images, which are links to a few files, adopted where they lie. Generates a release of each size in
the real layout (``tests/generators/full``), serves MIMIC's under PhysioNet's rules on loopback, runs the commands of a
user and prints a table. ``--only`` runs some stages, on what an earlier run has left in ``--work``. A stage that fails
ends the run: nothing is measured that does not work.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from benchmarks.measuring import PROGRAM, Cost, measure  # noqa: E402  # the project's root must be on the path first
from tests.generators.full.__main__ import write  # noqa: E402  # likewise
from tests.generators.full.linked import write as write_linked  # noqa: E402  # likewise
from tests.generators.full.server import PASSWORD, USER  # noqa: E402  # likewise

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = {
    "mimic-cxr-jpg": (10_000, 100_000, 377_110),
    "mimic-cxr": (10_000, 100_000, 377_110),
    "chexpert": (10_000, 100_000, 223_648),
    "nih-chestxray14": (10_000, 50_000, 112_120),
    "linked": (100_000, 377_110, 1_000_000, 5_000_000),
}
CONVERTED = 1_000
MEMORY_LIMIT = 1024.0
# Of the verbs that read tables, at 377,110 images and fewer.
TABLES, TABLES_LIMIT = ("extract-labels", "extract-labels again", "manifest"), 600.0
# At 377,110 images and fewer, and at more.
NOTHING_TO_DO = (15.0, 60.0)


class Stage(NamedTuple):
    """A command with a name; places such as ``{root}`` and ``{source}`` are filled in.

    ``also`` is an exit code that is as good as 0.
    """

    name: str
    words: tuple[str, ...]
    idle: bool = False
    also: int = 0


def stages(dataset: str) -> list[Stage]:
    """What is run, in order."""
    if dataset == "linked":
        return linked_stages()
    fetch = ("download", dataset, "{root}", "--source", "{source}")
    found = [Stage("list and plan", (*fetch, "--dry-run"))]
    if dataset == "mimic-cxr-jpg":
        found.append(
            Stage("plan 500 patients, frontal", (*fetch, "--dry-run", "--patients", "{patients}", "--view", "frontal"))
        )
    found += [
        Stage("download", fetch),
        Stage("download again", fetch, idle=True),
        Stage("verify", ("verify", "{root}")),
        Stage("verify --quick", ("verify", "{root}", "--quick"), idle=True),
        Stage("extract-labels", ("extract-labels", "{root}")),
        Stage("extract-labels again", ("extract-labels", "{root}"), idle=True),
    ]
    if dataset.startswith("mimic"):
        found.append(Stage("extract-labels --reports", ("extract-labels", "{root}", "--reports", "{reports}")))
    convert = ("convert", "{root}", "--recipe", "square-224", "--sample", str(CONVERTED))
    return [
        *found,
        Stage(f"convert {CONVERTED:,}", convert),
        Stage(f"convert {CONVERTED:,} again", convert, idle=True),
        Stage("manifest", ("manifest", "{root}")),
    ]


def linked_stages() -> list[Stage]:
    """Those of a folder that is there already: listed and planned, adopted, verified, labelled, and handed over."""
    place = ("{source}", "--state", "{root}")
    adopt = ("download", "mimic-cxr-jpg", "{source}", "--source", "{source}", "--state", "{root}")
    convert = ("convert", *place, "--recipe", "square-224", "--sample", str(CONVERTED))
    return [
        Stage("list and plan", (*adopt, "--dry-run")),
        Stage("adopt", adopt),
        Stage("adopt again", adopt, idle=True),
        # More images than the release has contradict what is published of it.
        Stage("verify", ("verify", *place), also=4),
        Stage("verify --quick", ("verify", *place, "--quick"), idle=True, also=4),
        Stage("extract-labels", ("extract-labels", *place)),
        Stage("extract-labels again", ("extract-labels", *place), idle=True),
        Stage("manifest", ("manifest", *place)),
        Stage(f"convert {CONVERTED:,}", convert),
        Stage(f"convert {CONVERTED:,} again", convert, idle=True),
        Stage("status", ("status", *place), idle=True),
        Stage("report", ("report", *place)),
        Stage("export csv", ("export", *place, "--format", "csv", "--out", "{exported}/csv")),
        Stage(
            f"export {CONVERTED:,} csv",
            ("export", *place, "--format", "csv", "--out", "{exported}/some", "--sample", str(CONVERTED)),
        ),
        Stage(
            f"export {CONVERTED:,} webdataset",
            ("export", *place, "--format", "webdataset", "--out", "{exported}/shards", "--sample", str(CONVERTED)),
        ),
    ]


@contextmanager
def served(dataset: str, release: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of the mirror and what the environment must hold; MIMIC's speaks as PhysioNet does."""
    if not dataset.startswith("mimic"):
        yield str(release), {}
        return
    words = [sys.executable, "-m", "tests.generators.full.server", str(release)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        try:
            yield (
                f"physionet://{address.removeprefix('http://')}/{dataset}/2.1.0",
                {"PHYSIONET_USERNAME": USER, "PHYSIONET_PASSWORD": PASSWORD},
            )
        finally:
            server.terminate()


def generate(dataset: str, images: int, work: Path) -> Path:
    """The release of ``images`` images below ``work``; made once and kept."""
    folder = work / f"{dataset}-{images}"
    done = folder / "complete"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if dataset == "linked":
            write_linked(folder / "release", images)
        elif dataset.startswith("mimic"):
            for project in ("mimic-cxr", "mimic-cxr-jpg"):
                write(project, folder / "release" / project / "2.1.0", images=images)
        else:
            write(dataset, folder / "release", images=images)
        done.write_text(dataset)
    return folder


def run(dataset: str, images: int, work: Path, only: frozenset[str] = frozenset()) -> dict[str, Cost]:
    """The stages, all or ``only`` some, on a release of ``images`` images; what each cost, by the stage's name."""
    folder = generate(dataset, images, work)
    root = folder / "root"
    if not only:
        shutil.rmtree(root, ignore_errors=True)
    costs: dict[str, Cost] = {}
    with served(dataset, folder / "release") as (source, env):
        places = {
            "root": str(root), "source": source, "reports": "", "patients": "", "exported": str(folder / "exported")
        }  # fmt: skip
        if dataset.startswith("mimic"):
            places["reports"] = str(folder / "release" / "mimic-cxr" / "2.1.0" / "mimic-cxr-reports.zip")
            places["patients"] = str(_patients(folder))
        for stage in stages(dataset):
            if only and stage.name not in only:
                continue
            words = [PROGRAM, *(word.format(**places) for word in stage.words), "--json"]
            costs[stage.name] = cost = measure(words, env={**env, "HOME": str(folder)}, tree=True)
            print(
                f"  {stage.name:28} exit {cost.code}  {cost.wall:8.1f} s  CPU {cost.cpu:8.1f} s  "
                f"{cost.peak:6.0f} MiB  all processes {cost.tree:6.0f} MiB",
                flush=True,
            )
            if cost.code not in (0, stage.also):
                sys.exit(f"{' '.join(words)}\n{cost.stdout[-2000:]}\n{cost.stderr[-3000:]}")
    return costs


def _patients(folder: Path) -> Path:
    listed = (folder / "release" / "mimic-cxr-jpg" / "2.1.0" / "IMAGE_FILENAMES").read_text().splitlines()
    everyone = sorted({line.split("/")[2][1:] for line in listed})
    file = folder / "patients.txt"
    chosen = random.Random(5).sample(everyone, min(500, len(everyone)))
    file.write_text("\n".join(sorted(chosen)) + "\n")
    return file


def table(costs: dict[int, dict[str, Cost]]) -> str:
    """Markdown: a row per stage and size; growth compares time an image with that of the smallest size."""
    sizes = sorted(costs)
    lines = [
        "| stage | images | seconds | CPU seconds | peak MiB | all MiB | CPU us an image | growth | bytes an image |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for stage in costs[sizes[0]]:
        first = costs[sizes[0]][stage].cpu / sizes[0]
        for before, size in zip([None, *sizes], sizes, strict=False):
            cost = costs[size][stage]
            each = cost.cpu / size
            more = "" if before is None else _bytes_an_image(costs[before][stage], cost, size - before)
            lines.append(
                f"| {stage} | {size:,} | {cost.wall:.1f} | {cost.cpu:.1f} | {cost.peak:.0f} | {cost.tree:.0f} "
                f"| {each * 1e6:.0f} | {each / first:.2f} | {more} |"
            )
    return "\n".join(lines)


def _bytes_an_image(smaller: Cost, larger: Cost, images: int) -> str:
    """How much the largest process grew by each image more."""
    return f"{(larger.peak - smaller.peak) * (1 << 20) / images:.0f}"


def verdicts(dataset: str, costs: dict[int, dict[str, Cost]]) -> list[str]:
    """What does not hold, in words; empty when all does."""
    found = []
    idle = {stage.name for stage in stages(dataset) if stage.idle}
    for size, by_stage in costs.items():
        for name, cost in by_stage.items():
            limit = TABLES_LIMIT if name in TABLES and size <= 377_110 else MEMORY_LIMIT
            if cost.peak > limit:
                found.append(f"{name} at {size:,} images: {cost.peak:.0f} MiB in one process, over {limit:.0f}")
            if name in idle and cost.wall > NOTHING_TO_DO[size > 377_110]:
                found.append(f"{name} at {size:,} images: {cost.wall:.1f} s with nothing to do")
    sizes = sorted(costs)
    for name in costs[sizes[0]] if len(sizes) > 1 else ():
        low, high = sizes[-2], sizes[-1]
        slope = costs[high][name].cpu / high / (costs[low][name].cpu / low)
        if slope > 1.3 and costs[high][name].cpu > 5:
            found.append(f"{name}: {slope:.2f} times the CPU time an image at {high:,} than at {low:,}: not linear")
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="mimic-cxr-jpg", choices=tuple(SIZES))
    parser.add_argument("--images", help="sizes, separated by commas")
    parser.add_argument("--only", action="append", default=[], help="a stage by its name; may be given several times")
    parser.add_argument("--work", type=Path, help="keep generated releases here; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args()
    only = frozenset(options.only)
    if unknown := only - {stage.name for stage in stages(options.dataset)}:
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    if only and options.work is None:
        parser.error("--only goes on with what is in --work")
    sizes = [int(word) for word in options.images.split(",")] if options.images else list(SIZES[options.dataset])
    costs: dict[int, dict[str, Cost]] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        for size in sizes:
            print(f"{options.dataset}, {size:,} images", flush=True)
            costs[size] = run(options.dataset, size, options.work or Path(temporary), only)
    print(f"\n{table(costs)}\n")
    for sentence in verdicts(options.dataset, costs) or ["memory bounded, growth linear, nothing to do is quick"]:
        print(f"- {sentence}")
    if options.json:
        numbers: dict[str, Any] = {
            str(size): {
                name: {"wall": c.wall, "cpu": c.cpu, "peak": c.peak, "tree": c.tree} for name, c in by_stage.items()
            }
            for size, by_stage in costs.items()
        }
        options.json.write_text(json.dumps({options.dataset: numbers}, indent=1))


if __name__ == "__main__":
    main()
