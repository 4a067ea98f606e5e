"""Quality and speed of the report labeler on the development reports of Open-i, beside the reference labeler's output.

usage: python benchmarks/report_labels.py [--reports FILE] [--part all|tune|held] [--studies N]

FILE is written by shared/data/openi/build.py: uid, findings, impression, and the experts' MeSH terms (major); without
it that script is run, which downloads the reports once. A report is positive for an observation when the labeler says
1; uncertain counts as not positive. Reports that the experts left unindexed are not scored. A quarter of the reports,
by hash, was held out while the rules were written. Last a zip in MIMIC-CXR's layout is labelled, each of its studies
with one sentence that no other has.
"""

from __future__ import annotations

import csv
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from benchmarks.measuring import PROGRAM, Row, arguments, finish, in_turn, measure  # noqa: E402  # as elsewhere here
from cxrprep.labels.agreement import agreement_of  # noqa: E402
from cxrprep.labels.nlp.labeler import Labeler  # noqa: E402
from cxrprep.labels.nlp.ruleset import OBSERVATIONS  # noqa: E402
from cxrprep.system import available_cores  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

DATA = Path(os.environ.get("CXR_SHARED_DATA", PROJECT.parent / "shared" / "data")) / "openi"
MICRO, MACRO, PER_SECOND, WHOLE = 0.83, 0.80, 5_000, 60.0
STUDIES = 227_835

# The experts' terms for each observation; a term is matched from its start, in any case.
TERMS = {
    "No Finding": r"normal$",
    "Enlarged Cardiomediastinum": r"mediastinum/(?!.*(?:lymph nodes|blood vessels)).*(?:prominent|enlarged)",
    "Cardiomegaly": r"cardiomegaly|cardiac shadow/(?!.*(?:obscured|irregular))|heart/.*enlarged",
    "Lung Opacity": (
        r"opacity(?!/(?:bone|ribs|thoracic vert|abdomen|humerus|shoulder|spine|breast|clavicle))"
        r"|airspace disease|infiltrate|density/(?:lung|retrocardiac)|markings/lung.*interstitial"
    ),
    "Lung Lesion": (
        r"nodule(?!.*(?:breast|thyroid))|mass(?!.*(?:mediastinum|paratracheal|breast|abdomen))|cavitation/lung"
    ),
    "Edema": r"pulmonary edema|pulmonary congestion|heart failure",
    "Consolidation": r"consolidation",
    "Pneumonia": r"pneumonia(?:/|$)",
    "Atelectasis": r"pulmonary atelectasis",
    "Pneumothorax": r"pneumothorax|hydropneumothorax|hemopneumothorax",
    "Pleural Effusion": r"pleural effusion|hydropneumothorax|hemopneumothorax|hemothorax",
    "Pleural Other": r"thickening/pleura|pleura/.*(?:thick|scar)",
    "Fracture": r"fractures, bone",
    "Support Devices": r"catheters, indwelling|implanted medical device|medical device|tube, inserted",
}
_PATTERNS = {name: re.compile(terms, re.IGNORECASE) for name, terms in TERMS.items()}
# The label of each observation, by report.
Labelled = Mapping[str, Mapping[str, int | None]]
_CELLS = {"": None, "1": 1, "0": 0, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1}


def held_out(uid: str) -> bool:
    return zlib.crc32(f"hold{uid}".encode()) % 4 == 0


def gold(major: str) -> dict[str, bool] | None:
    terms = [term.strip() for term in major.split("|") if term.strip()]
    if not terms or any(term.lower() == "no indexing" for term in terms):
        return None
    return {name: any(pattern.match(term) for term in terms) for name, pattern in _PATTERNS.items()}


def f1(pairs: Iterable[tuple[bool, bool]]) -> tuple[float, Counter[tuple[bool, bool]]]:
    counts = Counter(pairs)
    size = 2 * counts[True, True] + counts[True, False] + counts[False, True]
    return (2 * counts[True, True] / size if size else 0.0), counts


def scores(labels: Labelled, experts: dict[str, dict[str, bool]]) -> dict[str, float]:
    """F1 of the positive class by observation, and over the 13 without No Finding: ``micro`` and ``macro``."""
    found: dict[str, float] = {}
    total = Counter[tuple[bool, bool]]()
    for name in OBSERVATIONS:
        uids = [uid for uid in experts if uid in labels]
        found[name], counts = f1((experts[uid][name], labels[uid][name] == 1) for uid in uids)
        if name != "No Finding":
            total += counts
    found["micro"] = 2 * total[True, True] / (2 * total[True, True] + total[True, False] + total[False, True])
    found["macro"] = sum(found[name] for name in OBSERVATIONS if name != "No Finding") / (len(OBSERVATIONS) - 1)
    return found


def table(ours: Labelled, theirs: Labelled, experts: dict[str, dict[str, bool]]) -> None:
    mine, other = scores(ours, experts), scores(theirs, experts)
    print(f"positive F1 against the experts' terms, {len(experts)} reports; uncertain is not positive\n")
    print(f"{'observation':<27} {'gold':>5} {'ours':>7} {'reference':>10}")
    for name in OBSERVATIONS:
        print(f"{name:<27} {sum(e[name] for e in experts.values()):>5} {mine[name]:>7.3f} {other[name]:>10.3f}")
    for name in ("micro", "macro"):
        print(f"{name + ' F1, 13 observations':<33} {mine[name]:>7.3f} {other[name]:>10.3f}")


def agreement(ours: Labelled, theirs: Labelled) -> None:
    uids = [uid for uid in ours if uid in theirs]
    print(f"\nagreement with the reference labeler over four classes, {len(uids)} reports; counts ours / reference\n")
    print(f"{'observation':<27} {'same':>6} {'kappa':>6}" + "".join(f" {w:>19}" for w in ("pos", "neg", "unc")))
    for name in OBSERVATIONS:
        found = agreement_of(name, Counter((theirs[uid][name], ours[uid][name]) for uid in uids))
        kappa = "-" if found.kappa is None else f"{found.kappa:.3f}"
        cells = ""
        for value in (1, 0, -1):
            score = "-" if found.f1[value] is None else f"{found.f1[value]:.3f}"
            mine = sum(ours[uid][name] == value for uid in uids)
            other = sum(theirs[uid][name] == value for uid in uids)
            cells += f" {score:>6} {f'{mine}/{other}':>12}"
        print(f"{name:<27} {found.agreement:6.3f} {kappa:>6}{cells}")


def read_rows(path: Path | None, folder: Path) -> list[dict[str, str]]:
    if path is None:
        if not (DATA / "build.py").exists():
            sys.exit(f"no {DATA / 'build.py'}: set CXR_SHARED_DATA, or give --reports FILE")
        subprocess.run([sys.executable, DATA / "build.py", folder], check=True, stdout=subprocess.DEVNULL)
        path = folder / "openi_reports_dev.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_reference() -> dict[str, dict[str, int | None]]:
    with (DATA / "reference_labels_dev.csv").open(newline="", encoding="utf-8") as file:
        return {row["uid"]: {name: _CELLS[row[name]] for name in OBSERVATIONS} for row in csv.DictReader(file)}


def made_up_zip(path: Path, texts: list[tuple[str, str]], studies: int) -> None:
    """A zip in the layout of mimic-cxr-reports.zip: findings of one report, impression of another, one new sentence."""
    chance = random.Random(1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(studies):
            findings, impression = texts[number % len(texts)][0], texts[chance.randrange(len(texts))][1]
            patient = 10_000_000 + number // 3
            new = f"The nodule in the left lung now measures {number % 97}.{number} mm, possibly with effusion."
            body = (
                f"                                 FINAL REPORT\n EXAMINATION:  CHEST\n \n FINDINGS:\n \n {findings}\n"
            )
            body += f" \n IMPRESSION:\n \n {impression} {new}\n"
            archive.writestr(f"files/p{str(patient)[:2]}/p{patient}/s{50_000_000 + number}.txt", body)


def cold(rows: list[dict[str, str]]) -> tuple[float, Labelled]:
    labeler = Labeler()
    began = time.process_time()
    labels = {
        row["uid"]: labeler.label(f"{row['findings']} {row['impression']}", mimic=False, evidence=False).labels
        for row in rows
    }
    return time.process_time() - began, labels


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--part", choices=("all", "tune", "held"), default="all")
    parser.add_argument("--studies", type=int, default=STUDIES, help="of the made-up zip; 0 leaves it out")
    options = parser.parse_args()
    studies = min(options.studies, 20_000) if options.small else options.studies
    with tempfile.TemporaryDirectory() as scratch:
        rows = read_rows(options.reports, Path(scratch))
        wanted = {r["uid"] for r in rows if options.part == "all" or held_out(r["uid"]) == (options.part == "held")}
        experts = {r["uid"]: found for r in rows if r["uid"] in wanted and (found := gold(r["major"]))}
        reference = {uid: labels for uid, labels in read_reference().items() if uid in wanted}
        labels = cold(rows)[1]
        table(labels, reference, experts)
        agreement({uid: labels[uid] for uid in wanted}, reference)
        mine, other = scores(labels, experts), scores(reference, experts)
        seconds = in_turn({"cold": lambda: cold(rows)[0]}, options.repeats)["cold"]
        rows_found = [
            Row("micro F1, positive", mine["micro"], "", "target", MICRO, floor=1.0),
            Row("micro F1, positive", mine["micro"], "", "chexpert-labeler", other["micro"]),
            Row("macro F1, positive", mine["macro"], "", "target", MACRO, floor=1.0),
            Row("macro F1, positive", mine["macro"], "", "chexpert-labeler", other["macro"]),
            Row(
                "reports a CPU second, memory cold", len(rows) / seconds, "/s", "target", PER_SECOND, floor=1.0,
            ),
        ]  # fmt: skip
        if studies:
            rows_found += whole_collection(Path(scratch), rows, studies, options.repeats)
    return finish("The report labeler", rows_found, json_file=options.json, versions={"python": sys.version.split()[0]})


def whole_collection(scratch: Path, rows: list[dict[str, str]], studies: int, repeats: int) -> list[Row]:
    """The command on a zip of ``studies``: wall time with one process and with all, and memory."""
    path = scratch / "mimic-cxr-reports.zip"
    made_up_zip(path, [(row["findings"], row["impression"]) for row in rows], studies)
    peaks: dict[int, float] = {}
    spent: dict[int, float] = {}

    def run(jobs: int) -> float:
        words = [PROGRAM, "extract-labels", str(scratch / f"out{jobs}"), "--reports", str(path), "-j", str(jobs), "-q"]
        cost = measure(words, tree=True)
        if cost.code:
            sys.exit(cost.stderr)
        peaks[jobs] = max(peaks.get(jobs, 0.0), cost.tree)
        spent[jobs] = min(spent.get(jobs, cost.cpu), cost.cpu)
        return cost.wall

    cores = min(2, available_cores())
    walls = in_turn({str(jobs): partial(run, jobs) for jobs in {1, cores}}, repeats)
    share = WHOLE * studies / STUDIES
    return [
        Row(f"{studies:,} studies, {cores} processes", walls[str(cores)], "s", "target", share, floor=1.0, lower=True),
        Row(f"wall time, {cores} processes beside one", walls[str(cores)], "s", "one", walls["1"], lower=True),
        # Near linear: the work of two is hardly more than that of one.
        Row(f"CPU time, {cores} processes beside one", spent[cores], "s", "one", spent[1], floor=0.8, lower=True),
        Row(f"memory of all, {cores} processes", peaks[cores], "MiB"),
        Row("memory, one process", peaks[1], "MiB"),
    ]


if __name__ == "__main__":
    sys.exit(main())
