"""The page: right numbers, nothing active in it, readable by a screen reader, on a phone and without a network."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import re
import subprocess
import xml.etree.ElementTree as ET
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.collection import DatasetFolder
from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import StorageError, TableError, UsageError
from cxrprep.events import Event, StageFinished
from cxrprep.html_report import page as page_module
from cxrprep.html_report.page import ReportResult, shade, write_report
from cxrprep.html_report.svg_charts import Bar, BarPart, bars, heat_map, histogram
from cxrprep.html_report.thumbnails import sample_rows, thumbnail
from cxrprep.labels.agreement import source_agreements
from cxrprep.manifest import label_statistics
from cxrprep.record.record import Record
from cxrprep.storage.patient_table import OneRange
from cxrprep.vocabulary import OBSERVATIONS
from tests.html_report.folder import EVIL, write_folder
from tests.manifest.made import made
from tests.parts import need
from tests.sample import some


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("report") / "nih <lab>")


def write(root: Path, out: Path, **options: Any) -> ReportResult:
    folder = DatasetFolder(root, root, find_dataset("nih-chestxray14"), "v2020", Record.open(root))
    return write_report(folder, out, **options)


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    out = root / "report.html"
    write(root, out, thumbnails=40)
    return out.read_text(encoding="utf-8")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    return parser.tags


@pytest.mark.parametrize("shut", [False, True])
def test_the_template_is_compiled_once_where_something_can_be_kept(
    shut: bool, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "cache"
    home.write_text("a file") if shut else home.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    pages = []
    for number in range(2):
        page_module._template.cache_clear()
        write(root, tmp_path / f"{number}.html", thumbnails=0)
        pages.append((tmp_path / f"{number}.html").read_text(encoding="utf-8"))
    page_module._template.cache_clear()
    assert [page.partition("<footer>")[0] for page in pages] == [pages[0].partition("<footer>")[0]] * 2
    assert shut or len([*(home / "cxrprep" / "pages").iterdir()]) == 1


def test_the_result_counts_what_the_page_shows(root: Path, tmp_path: Path) -> None:
    seen: list[Event] = []
    result = write(root, tmp_path / "r.html", on_event=seen.append)
    assert (result.images, result.patients, result.studies) == (40, 14, 40)
    assert result.leaking_patients == 4
    assert result.size == (tmp_path / "r.html").stat().st_size
    assert isinstance(seen[-1], StageFinished)


def test_nothing_in_the_page_is_active_or_comes_from_elsewhere(page: str) -> None:
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    for tag, attributes in tags(page):
        assert tag not in {"script", "iframe", "object", "embed", "link", "form", "base"}
        assert not [name for name in attributes if name.startswith("on")]
        address = attributes.get("src") or ""
        assert address == "" or address.startswith("data:image/jpeg;base64,")
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_every_image_has_words_and_every_table_has_headings(page: str) -> None:
    found = tags(page)
    assert all(attributes.get("alt") for tag, attributes in found if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in found if tag == "svg")
    assert sum(tag == "h1" for tag, _ in found) == 1
    assert page.count("<table") <= page.count('<th scope="col"')


def test_a_page_may_go_without_images(root: Path, tmp_path: Path) -> None:
    write(root, tmp_path / "r.html", thumbnails=0)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<img" not in text
    assert "No images were asked for" in text


def test_label_values_stand_apart(root: Path) -> None:
    table, _ = label_statistics.read_images(root / "manifests" / "images.parquet")
    heart, edema = label_statistics.prevalence(table)[1:]
    assert (heart.positive, heart.negative, heart.uncertain, heart.blank) == (10, 10, 10, 10)
    assert heart.share == 25.0
    assert heart.stated == 50.0
    assert (edema.positive, edema.negative, edema.blank) == (8, 32, 0)
    assert heart.patients == len({n // 3 for n in range(0, 40, 4)})


def test_an_observation_that_the_source_does_not_know_is_left_out(root: Path) -> None:
    table, _ = label_statistics.read_images(root / "manifests" / "images.parquet")
    assert {row.stem for row in label_statistics.prevalence(table)} == {"cardiomegaly", "edema", "no_finding"}


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_co_occurrence_is_of_the_row(root: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_statistics, "_BLOCK", block)
    table, _ = label_statistics.read_images(root / "manifests" / "images.parquet")
    together = label_statistics.together(table, label_statistics.prevalence(table))
    assert together.names == ("Cardiomegaly", "Edema")
    both = len([n for n in range(40) if n % 4 == 0 and n % 5 == 0])
    assert together.counts == ((10, both), (both, 8))
    assert together.percent(0, 1) == 100 * both / 10
    assert together.percent(1, 0) == 100 * both / 8


def test_ages_fall_into_classes_of_five_and_the_oldest_stay_in(root: Path) -> None:
    table, _ = label_statistics.read_images(root / "manifests" / "images.parquet")
    ages = label_statistics.ages(table)
    assert sum(sum(sexes.values()) for _, sexes in ages) == 39
    assert ages[0] == ("0", {"F": 1, "M": 1, "unknown": 0})
    assert ages[-1][0] == "95"
    assert sum(ages[-1][1].values()) == len([n for n in range(40) if n * 3 >= 95])


def test_a_leak_is_named_with_its_patients(root: Path, page: str) -> None:
    table, _ = label_statistics.read_images(root / "manifests" / "images.parquet")
    leak = label_statistics.leak(table)
    expected = {n // 3 for n in range(0, 40, 10)} & {n // 3 for n in range(40) if n % 10}
    assert leak.count == len(expected)
    assert leak.patients[0] == (f"{min(expected):08d}", ("test", "train_val"))
    assert "patients have images in more than one split" in page


def test_splits_are_counted_in_their_order(root: Path) -> None:
    table, _ = label_statistics.read_images(root / "manifests" / "images.parquet")
    assert [row[:2] for row in label_statistics.by_split(table)] == [("train_val", 36), ("test", 4)]


def test_sizes_are_ranked_and_the_rest_is_one_line(root: Path) -> None:
    table, _ = label_statistics.read_images(root / "manifests" / "images.parquet")
    assert label_statistics.sizes(table, "width", "height") == [("64 x 48", 40)]
    originals = label_statistics.sizes(table, "orig_width", "orig_height", limit=3)
    assert originals[-1] == ("37 other sizes", 37)
    assert label_statistics.sides(table, "width") == []
    assert sum(count for _, count in label_statistics.sides(table, "orig_width")) == 40


def test_a_broken_and_a_missing_image_are_said_on_the_sheet(root: Path) -> None:
    assert "images/00000001_000.png" in thumbnail(root, "images/00000001_000.png").problem
    assert "gone" in thumbnail(root, "images/00000002_000.png").problem
    good = thumbnail(root, "images/00000004_000.png")
    assert (good.width, good.height) == (192, 144)
    assert good.address.startswith("data:image/jpeg;base64,/9j/")


def test_the_images_of_a_sheet_are_evenly_spread() -> None:
    assert sample_rows(100, 4) == [0, 25, 50, 75]
    assert sample_rows(3, 24) == [0, 1, 2]


def test_charts_escape_names_and_keep_their_proportions() -> None:
    first = Bar("<one>", (BarPart("positive", 30), BarPart("blank", 10)))
    chart = bars("A & B", [first, Bar("two", (BarPart("positive", 20),))])
    assert "<one>" not in chart
    widths = [float(w) for w in re.findall(r'<rect class="positive"[^>]* width="([\d.]+)"', chart)]
    assert widths[0] / widths[1] == pytest.approx(1.5, rel=0.01)
    tall = histogram("ages", [("0", (BarPart("plain", 10),)), ("5", (BarPart("plain", 20),))], axis="years")
    heights = [float(h) for h in re.findall(r'<rect class="plain"[^>]* height="([\d.]+)"', tall)]
    assert heights[1] / heights[0] == pytest.approx(2, rel=0.01)
    assert ">20<" in tall


@pytest.mark.parametrize("letters", [40, 200])
def test_a_long_name_is_drawn_within_the_chart(letters: int) -> None:
    name = "ward: " + "x" * letters
    rows = [Bar(name, (BarPart("positive", 3), BarPart("negative", 1)))]
    for chart in (bars("long", rows, share=True), heat_map("long", [name, "two"], [[None, 50.0], [25.0, None]])):
        drawn = re.findall(r'<text class="name" x="([\d.]+)"[^>]*>([^<]*)<', chart)
        assert drawn
        for end, shown in drawn:
            # measured: 6.3 pixels a letter, in Chromium.
            assert 6.3 * len(shown) <= float(end)
            assert name.startswith(shown.rstrip("…")) or shown == "two"
        assert all(
            float(x) + float(w) <= 720 for x, w in re.findall(r'<rect[^>]* x="([\d.]+)"[^>]* width="([\d.]+)"', chart)
        )


def test_empty_charts_are_still_charts() -> None:
    assert bars("none", []).endswith("</svg>")
    assert histogram("none", [], axis="x").endswith("</svg>")


@pytest.mark.parametrize("percent", range(0, 101, 5))
def test_text_in_shaded_cells_has_a_contrast_of_at_least_4_5(percent: int) -> None:
    found = re.fullmatch(r"background:rgb\((\d+),(\d+),(\d+)\);color:#(fff|000)", shade(percent))
    assert found

    def luminance(values: tuple[int, ...]) -> float:
        linear = [v / 3294.6 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ground = luminance(tuple(int(found[n]) for n in (1, 2, 3)))
    text = luminance((255,) * 3 if found[4] == "fff" else (0,) * 3)
    assert (max(ground, text) + 0.05) / (min(ground, text) + 0.05) >= 4.5


def test_report_text_never_reaches_the_page(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mimic")
    path = folder / "manifests" / "images.parquet"
    table = pq.read_table(path)
    secret = pa.array(["FINDINGS: no secret finding"] * table.num_rows)
    pq.write_table(table.append_column("report_text", secret), path)
    write(folder, tmp_path / "r.html")
    assert "secret finding" not in (tmp_path / "r.html").read_text()


def test_of_images_of_ones_own_no_release_and_no_published_fact_is_missed(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((40, 30), np.uint8))
    cxrprep.build_manifest(tmp_path)
    page = cxrprep.report(tmp_path).value.path.read_text(encoding="utf-8")
    for words in ("Release .", ", release <", "labels.parquet", "as the release states it", "those of the release"):
        assert words not in page
    assert "30 x 40" in page
    assert '<th scope="row">not stated</th><td class="n">1</td>' in page


def test_without_a_manifest_the_next_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no manifest") as caught:
        write(tmp_path, tmp_path / "r.html")
    assert "cxrprep manifest" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"PAR1 not really PAR1"])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "images.parquet").write_bytes(content)
    with pytest.raises(TableError, match=r"images\.parquet"):
        write(tmp_path, tmp_path / "r.html")


def test_another_table_under_the_manifests_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "manifests" / "images.parquet")
    with pytest.raises(TableError, match="not a table that cxrprep wrote"):
        write(tmp_path, tmp_path / "r.html")


def test_a_page_that_cannot_be_written_names_its_path_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    (tmp_path / "r.html").mkdir()
    with pytest.raises(StorageError, match=r"r\.html"):
        write(root, tmp_path / "r.html")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


_RUNNER = """
<script>%s</script>
<script>
axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]}).then(function (answer) {
  var seen = answer.violations.map(function (v) { return v.id + ": " + v.nodes.map(function (n) { return n.html; }); });
  var boxes = [document.documentElement].concat(Array.from(document.querySelectorAll(".scroll")));
  var wide = boxes.filter(function (box) { return box.scrollWidth > box.clientWidth; });
  var told = JSON.stringify({
    violations: seen, passes: answer.passes.length, width: innerWidth,
    wide: wide.map(function (box) { return box.getAttribute("aria-label") || "the page"; }),
  });
  var outside = parent.document;
  outside.body.innerHTML = "<pre id=axe></pre>";
  outside.getElementById("axe").textContent = "AXE" + told + "END";
});
</script>
"""
# The browser's own window is never narrower than 500 pixels; a frame is as narrow as a phone, or as wide as the text on
# a sheet of paper. What the style sheet keeps for the dark and for paper is switched on by its words.
_SHOWN: Final = {
    "screen": {},
    "dark": {"@media screen and (prefers-color-scheme: dark)": "@media all"},
    "print": {"@media screen and (prefers-color-scheme: dark)": "@media not all", "@media print": "@media all"},
}


def _checked(page: str, folder: Path, width: int, shown: str) -> dict[str, Any]:
    """What axe-core says of the page in a real browser, and which boxes are wider than their place."""
    chromium, axe = need("chromium"), need("axe")
    # The checker is a script, and the page forbids scripts: the copy that is checked does not.
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    for words, instead in _SHOWN[shown].items():
        assert words in page
        page = page.replace(words, instead)
    page = page.replace("</body>", _RUNNER % Path(axe).read_text(encoding="utf-8") + "</body>")
    frame = folder / "frame.html"
    frame.write_text(
        f'<body><iframe width={width} height=900 style="border:0" srcdoc="{escape(page)}"></iframe></body>',
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000",
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000", "--dump-dom", frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )  # fmt: skip
    found = re.search(r"AXE(\{.*\})END", done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(unescape(found[1]))
    assert answer["width"] == width
    return answer


@pytest.mark.slow
@pytest.mark.part("chromium")
@pytest.mark.parametrize(
    ("width", "shown"),
    some([(390, "screen"), (390, "dark"), (820, "screen"), (1440, "screen"), (1440, "dark"), (720, "print")], one_in=2),
)
def test_axe_finds_nothing_in_a_real_browser(tmp_path: Path, width: int, shown: str) -> None:
    # As many findings as the shared ones, which make the widest tables.
    root = write_folder(tmp_path / "many", findings=OBSERVATIONS)
    write(root, tmp_path / "many.html")
    answer = _checked((tmp_path / "many.html").read_text(encoding="utf-8"), tmp_path, width, shown)
    assert answer["violations"] == []
    assert answer["passes"] > 10
    # A phone scrolls a wide table inside its box; on paper nobody does, and what does not fit is lost.
    assert "the page" not in answer["wide"]
    if shown == "print":
        assert answer["wide"] == []


def test_in_the_dark_the_four_values_are_four_colours_apart_from_each_other(page: str) -> None:
    dark = page.partition("prefers-color-scheme: dark")[2].partition("* { box-sizing")[0]
    fills = {
        kind: re.findall(rf"svg \.{kind}\b[^{{]*\{{ fill: (#\w+)", dark) for kind in ("positive", "negative", "blank")
    }
    colours = [tuple(bytes.fromhex(found[0][1:])) for found in fills.values()]
    apart = [sum(abs(a - b) for a, b in zip(one, two, strict=True)) for one, two in itertools.combinations(colours, 2)]
    assert min(apart) > 100


def test_facts_are_told_in_words_and_a_missing_finding_is_none() -> None:
    from cxrprep.html_report.wording import counted, fact_row, outcome, outcome_of_one
    from cxrprep.verification.published_facts import FactCheck, FactStatus

    assert counted("shared_patients") == "patients in more than one split"
    assert counted("splits.images") == "images of each split"
    assert counted("finding@train_val") == "images by finding, train and val"
    assert counted("raw.AP/PA") == "column AP/PA"
    assert counted("view.blank") == "images by view: blank"
    assert (outcome_of_one("contradicted"), outcome_of_one("holds")) == ("does not hold", "holds")
    assert outcome("n of N", 2) == "2 cannot be judged, as a part of the release is here"
    assert outcome("not checked", 1) == "1 was not checked, as its table is not here"
    expected = dict.fromkeys("abcdefghijklmno", 10)
    part = fact_row(FactCheck("NI-1", "finding", expected, {"a": 1}, FactStatus.PART, "the paper"))
    assert part.found.text.startswith("a: 1; b: 0;")
    assert part.found.summary == "15 numbers"
    whole = fact_row(FactCheck("NI-1", "finding", expected, {**expected, "a": 9}, FactStatus.CONTRADICTED, "the paper"))
    assert (whole.published.text, whole.found.text) == ("a: 10; others: 14 equal", "a: 9; others: 14 equal")


def test_every_measure_of_the_catalog_has_words() -> None:
    from cxrprep.datasets.catalog import catalog
    from cxrprep.html_report.wording import counted

    for spec in catalog().values():
        for fact in spec.fact:
            assert "_" not in counted(fact.measure).removesuffix("IMAGE_FILENAMES"), fact.measure


def test_splits_stand_side_by_side_with_what_is_missing(root: Path, page: str) -> None:
    table, _ = label_statistics.read_images(root / "manifests" / "images.parquet")
    profiles = label_statistics.split_profiles(table)
    assert [p.split for p in profiles] == [row[0] for row in label_statistics.by_split(table)]
    assert sum(p.images for p in profiles) == table.num_rows
    for stem_rows in zip(*(p.labels for p in profiles), strict=True):
        whole = next(r for r in label_statistics.prevalence(table) if r.stem == stem_rows[0].stem)
        assert sum(r.positive for r in stem_rows) == whole.positive
        assert sum(r.blank for r in stem_rows) == whole.blank
    assert label_statistics.prevalence_by_split(table)[-1] == label_statistics.prevalence(table)
    assert sum(p.missing["age"] for p in profiles) == table["age_years"].null_count
    assert 'id="by-split"' in page


def test_every_figure_can_be_saved_with_its_numbers(page: str) -> None:
    files = re.findall(r'download="([\w-]+)\.(svg|csv)" href="data:[\w/+]+;base64,([^"]+)"', page)
    assert {kind for _, kind, _ in files} == {"svg", "csv"}
    # The table of co-occurrence is drawn only where it is saved.
    assert len(files) == 2 * page.count('role="img"') + 2
    assert "together" in {name for name, _, _ in files}
    for name, kind, data in files:
        text = base64.b64decode(data).decode()
        if kind == "svg":
            ET.fromstring(text)
            assert "<style>" in text
        else:
            head, *rows = csv.reader(io.StringIO(text))
            assert head[0] == "name", name
            assert rows
            assert all(cell.isdecimal() for row in rows for cell in row[1:])


def test_two_folders_stand_side_by_side(root: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", rows=12)
    out = tmp_path / "page.html"
    write(root, out, thumbnails=0, beside=other / "manifests")
    text = out.read_text()
    assert 'id="beside"' in text
    assert '<td class="n">12</td>' in text
    both = text.partition('id="beside"')[2].partition("</section>")[0]
    for what in ("median age in years", "female", "view PA", "age missing", "Cardiomegaly"):
        assert f'<th scope="row">{what}</th>' in both, what


def test_label_sources_are_compared_and_the_worst_converted_images_shown(tmp_path: Path) -> None:
    root = made("mimic-cxr-jpg", tmp_path / "mimic")
    cxrprep.convert(root, recipe="square-224")
    stated = pq.read_table(root / "manifests/labels.parquet").to_pylist()
    cells = {(row["label_source"], row["image_id"]): row for row in stated}
    sources = {name for name, _ in cells}
    assert len(sources) > 1
    agreements = source_agreements(OneRange(pq.read_table(root / "manifests/labels.parquet")))
    assert {one.second for one in agreements} | {agreements[0].first} == sources
    for one in agreements:
        both = [image for name, image in cells if name == one.second and (one.first, image) in cells]
        assert one.images == len(both)
        assert one.observations
        for found in one.observations:
            column = f"label_{found.observation.lower().replace(' ', '_')}"
            equal = sum(cells[one.first, image][column] == cells[one.second, image][column] for image in both)
            assert found.agreement == pytest.approx(equal / len(both))
    page = cxrprep.report(root / "derived/square-224").value.path.read_text(encoding="utf-8")
    assert f"Label agreement: {agreements[0].second} and {agreements[0].first}" in page
    table = pq.read_table(root / "derived/square-224/manifests/images.parquet", columns=["image_id", "contrast"])
    worst = min(table.to_pylist(), key=lambda row: row["contrast"])["image_id"]
    assert f'alt="Radiograph {worst}, least contrast"' in page.partition("Least contrast")[2].partition("</li>")[0]
    assert "The worst images" not in cxrprep.report(root).value.path.read_text(encoding="utf-8")
