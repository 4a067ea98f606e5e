"""Quality and speed of the report labeler on the development reports of Open-i.

usage: python benchmarks/report_labels.py REPORTS.csv [--gold-labels REFERENCE.csv] [--part all|tune|held] [--studies N]

REPORTS.csv is written by shared/data/openi/build.py: uid, findings, impression, and the experts' MeSH terms (major).
REFERENCE.csv holds another labeler's output for the same uids; its figures then stand beside ours. ``--studies N`` also
labels a made-up MIMIC-CXR zip of N studies on all cores.

A report is positive for an observation when the labeler says 1; uncertain counts as not positive. Reports that the
experts left unindexed are not scored. A quarter of the reports, by hash, was held out while the rules were written.
"""

from __future__ import annotations

import argparse
import csv
import re
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from cxrprep.engine import Engine
from cxrprep.labels.compare import agreement_of
from cxrprep.labels.report.collection import label_collection
from cxrprep.labels.report.labeler import Labeler
from cxrprep.labels.report.rules import OBSERVATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def table(ours: dict, theirs: dict | None, experts: dict[str, dict[str, bool]]) -> None:
    print(f"positive F1 against the experts' terms, {len(experts)} reports; uncertain is not positive")
    print(f"{'observation':<27} {'gold':>5} {'ours':>7} {'reference':>10}")
    sums: dict[str, Counter] = {"ours": Counter(), "reference": Counter()}
    means: dict[str, list[float]] = {"ours": [], "reference": []}
    for name in OBSERVATIONS:
        cells = []
        for who, labels in (("ours", ours), ("reference", theirs)):
            if labels is None:
                cells.append("-")
                continue
            uids = [uid for uid in experts if uid in labels]
            score, counts = f1((experts[uid][name], labels[uid][name] == 1) for uid in uids)
            cells.append(f"{score:.3f}")
            if name != "No Finding":
                sums[who] += counts
                means[who].append(score)
        print(f"{name:<27} {sum(each[name] for each in experts.values()):>5} {cells[0]:>7} {cells[1]:>10}")
    for label, pick in (("micro F1, 13 observations", 0), ("macro F1, 13 observations", 1)):
        cells = []
        for who in ("ours", "reference"):
            if not means[who]:
                cells.append("-")
                continue
            counts = sums[who]
            micro = 2 * counts[True, True] / (2 * counts[True, True] + counts[True, False] + counts[False, True])
            cells.append(f"{(micro, sum(means[who]) / len(means[who]))[pick]:.3f}")
        print(f"{label:<33} {cells[0]:>7} {cells[1]:>10}")


def agreement(ours: dict, theirs: dict) -> None:
    uids = [uid for uid in ours if uid in theirs]
    print(f"\nagreement with the reference labeler over four classes, {len(uids)} reports")
    print(f"{'observation':<27} {'same':>6} {'kappa':>6} {'F1 pos':>7} {'F1 neg':>7} {'F1 unc':>7}")
    for name in OBSERVATIONS:
        found = agreement_of(name, ((theirs[uid][name], ours[uid][name]) for uid in uids))
        shown = ["     -" if value is None else f"{value:6.3f}" for value in (found.kappa, *found.f1.values())]
        print(f"{name:<27} {found.agreement:6.3f} {shown[0]} {shown[1]:>7} {shown[2]:>7} {shown[3]:>7}")


def made_up_zip(path: Path, texts: list[tuple[str, str]], studies: int) -> None:
    """A zip in the layout of mimic-cxr-reports.zip whose texts are the given ones, over and over."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(studies):
            findings, impression = texts[number % len(texts)]
            patient = 10_000_000 + number // 3
            body = (
                f"                                 FINAL REPORT\n EXAMINATION:  CHEST\n \n FINDINGS:\n \n {findings}\n"
            )
            body += f" \n IMPRESSION:\n \n {impression}\n" if impression else ""
            archive.writestr(f"files/p{str(patient)[:2]}/p{patient}/s{50_000_000 + number}.txt", body)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("reports", type=Path)
    parser.add_argument("--gold-labels", type=Path)
    parser.add_argument("--part", choices=("all", "tune", "held"), default="all")
    parser.add_argument("--studies", type=int, default=0)
    options = parser.parse_args()
    with options.reports.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labeler = Labeler()
    began = time.process_time()
    labels = {
        row["uid"]: labeler.label(f"{row['findings']} {row['impression']}", mimic=False, evidence=False).labels
        for row in rows
    }
    spent = time.process_time() - began
    wanted = {row["uid"] for row in rows if options.part == "all" or held_out(row["uid"]) == (options.part == "held")}
    experts = {row["uid"]: found for row in rows if row["uid"] in wanted and (found := gold(row["major"]))}
    reference = None
    if options.gold_labels:
        with options.gold_labels.open(newline="", encoding="utf-8") as file:
            reference = {
                row["uid"]: {name: _CELLS[row[name]] for name in OBSERVATIONS}
                for row in csv.DictReader(file)
                if row["uid"] in wanted
            }
    table(labels, reference, experts)
    if reference is not None:
        agreement({uid: labels[uid] for uid in labels if uid in wanted}, reference)
    print(f"\n{len(rows)} reports in {spent:.2f} s of one core, memory cold: {len(rows) / spent:,.0f} reports/s")
    if options.studies:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mimic-cxr-reports.zip"
            made_up_zip(path, [(row["findings"], row["impression"]) for row in rows], options.studies)
            for jobs in (1, 2):
                wall = time.perf_counter()
                outcome = label_collection(path, Path(folder) / f"out{jobs}", engine=Engine(jobs=jobs))
                wall = time.perf_counter() - wall
                print(f"{outcome.reports:,} studies from a zip, {jobs} process(es): {wall:.1f} s wall")


if __name__ == "__main__":
    main()
