"""What one image costs to convert, beside the scripts and tools that people use for it.

usage: python benchmarks/convert.py [--small] [--repeats N] [--only WHAT] [--work DIR] [--img2dataset PYTHON]
                                    [--json FILE]

CPU time an image, in a process of its own for each contestant (start-up and imports not counted, save for DCMTK's
tools, which are a process an image), each reading the same files from the page cache and writing its outputs. Ours is
the whole of what a worker does with an image whose digest the record knows: reading, decoding, the recipe, encoding,
the mark, the output's digest, writing under a temporary name, renaming. Hashing at first sight is a row of its own.

The radiographs: RG1 of pydicom-data, enlarged to 2544 x 3056 with 12 bits and noise (DICOM), the same equalised at
2320 x 2828 (JPEG 95), and real images of NIH ChestX-ray14 from CXR_SHARED_DATA (PNG), or RG1 again where they are not.
img2dataset lives in an environment of its own, since it pins what we do not; ``--img2dataset`` or the variable
CXRPREP_IMG2DATASET names its Python. Without it, the steps of its Resizer (1.47) stand in, and the table says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from benchmarks.measuring import Row, arguments, finish, in_turn, program_version  # noqa: E402  # the root comes first

SIZE = (3056, 2544)
MEMORY_LIMIT = 200.0
# One file to the path of its output without suffix; files to a folder.
Contestant = Callable[[str, str], None]
Round = Callable[[list[str], str], None]


# ---- contestants: each runs in a process of its own ----


def usual_script(source: str, out: str) -> None:
    """DICOM to a 512 PNG as the much copied notebook has it: apply_voi_lut, fix_monochrome, stretch, cv2."""
    import cv2
    import numpy as np
    import pydicom
    from pydicom.pixels.processing import apply_voi_lut

    dicom = pydicom.dcmread(source)
    data = apply_voi_lut(dicom.pixel_array, dicom)
    if dicom.PhotometricInterpretation == "MONOCHROME1":
        data = np.amax(data) - data
    data = data - np.min(data)
    data = data / np.max(data)
    data = (data * 255).astype(np.uint8)
    cv2.imwrite(f"{out}.png", _shortest(data, 512))


def usual_mimic(source: str, out: str) -> None:
    """The published MIMIC-CXR-JPG procedure as its author printed it."""
    import cv2
    import numpy as np
    import pydicom

    dicom = pydicom.dcmread(source)
    image = dicom.pixel_array
    image = image - image.min()
    image = image / image.max()
    image = (image * 255).astype(np.uint8)
    if dicom.PhotometricInterpretation == "MONOCHROME1":
        image = 255 - image
    cv2.imwrite(f"{out}.jpg", cv2.equalizeHist(image))


def dcmtk(source: str, out: str) -> None:
    words = ["dcmj2pnm", "-O", "+Wi", "1", "+Sxv", "512", "+on", source, f"{out}.png"]
    subprocess.run(words, check=True, capture_output=True)


def cv2_png(side: int) -> Contestant:
    def convert(source: str, out: str) -> None:
        import cv2

        image = cv2.imread(source, cv2.IMREAD_GRAYSCALE)
        assert image is not None
        cv2.imwrite(f"{out}.png", cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))

    return convert


def cv2_jpeg(source: str, out: str) -> None:
    import cv2

    cv2.imwrite(f"{out}.jpg", _shortest(cv2.imread(source, cv2.IMREAD_GRAYSCALE), 320))


def _shortest(image: Any, side: int) -> Any:
    import cv2

    rows, columns = image.shape[:2]
    scale = side / min(rows, columns)
    return cv2.resize(image, (round(columns * scale), round(rows * scale)), interpolation=cv2.INTER_AREA)


def img2dataset(side: int, form: str, quality: int) -> Contestant:
    """The Resizer of img2dataset on the bytes of a file; 6 is libpng's own level of compression."""
    try:
        from img2dataset.resizer import Resizer
    except ImportError:
        return img2dataset_steps(side, form, quality)
    resizer = Resizer(side, "keep_ratio", True, encode_format=form, encode_quality=quality)

    def convert(source: str, out: str) -> None:
        with Path(source).open("rb") as file:
            data, *_, error = resizer(file)
        if error:
            raise RuntimeError(error)
        Path(f"{out}.{form}").write_bytes(data)

    return convert


def img2dataset_steps(side: int, form: str, quality: int) -> Contestant:
    """What that Resizer does, without albumentations around it."""
    import cv2
    import numpy as np

    option = cv2.IMWRITE_PNG_COMPRESSION if form == "png" else cv2.IMWRITE_JPEG_QUALITY

    def convert(source: str, out: str) -> None:
        image = cv2.imdecode(np.frombuffer(Path(source).read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        Path(f"{out}.{form}").write_bytes(
            cv2.imencode(f".{form}", _shortest(image, side), [option, quality])[1].tobytes()
        )

    return convert


def ours(recipe: str, *, known: bool = True, scores: bool = False) -> Round:
    """What a worker process of ``cxrprep convert`` does with a batch; ``scores`` asks for orientation and polarity."""
    from cxrprep.images.conversion import ConversionTask, ConvertItem
    from cxrprep.images.convert import convert_batch
    from cxrprep.images.local_files import open_store
    from cxrprep.images.recipe import load_recipe
    from cxrprep.model import Digest

    loaded = load_recipe(recipe)
    digest = Digest("sha256", "0" * 64) if known else None

    def convert(files: list[str], folder: str) -> None:
        task = ConversionTask(loaded, loaded.fingerprint(), open_store(folder), scores=scores)
        items = [ConvertItem(file, Path(file).name, digest=digest) for file in files]
        for outcome in convert_batch(items, task=task):
            if outcome.status != "ok":
                raise RuntimeError(outcome.error)

    return convert


def each(convert: Contestant) -> Round:
    """A plain loop over the files."""

    def convert_all(files: list[str], folder: str) -> None:
        for file in files:
            convert(file, f"{folder}/{Path(file).stem}")

    return convert_all


CONTESTANTS: dict[str, Callable[[], Round]] = {
    "usual-script": lambda: each(usual_script),
    "usual-mimic": lambda: each(usual_mimic),
    "dcmtk": lambda: each(dcmtk),
    "cv2-512": lambda: each(cv2_png(512)),
    "cv2-224": lambda: each(cv2_png(224)),
    "cv2-jpeg": lambda: each(cv2_jpeg),
    "img2dataset-512": lambda: each(img2dataset(512, "png", 6)),
    "img2dataset-224": lambda: each(img2dataset(224, "png", 6)),
    "img2dataset-jpeg": lambda: each(img2dataset(320, "jpg", 95)),
    "ours-512": lambda: ours("shortest-512"),
    "ours-512-fast": lambda: ours("shortest-512-fast"),
    "ours-512-first": lambda: ours("shortest-512", known=False),
    "ours-mimic": lambda: ours("mimic-cxr-jpg"),
    "ours-224": lambda: ours("square-224"),
    "ours-jpeg": lambda: ours("shortest-320-jpg"),
    "ours-jpeg-fast": lambda: ours("shortest-320-jpg-fast"),
}


def contest(name: str, folder: str, rounds: int, files: list[str]) -> None:
    """Be one contestant: a round to warm up, then the median round's milliseconds an image and the peak memory."""
    try:
        import cv2

        # One thread for everybody: what is measured is work, not how many cores it is spread over.
        cv2.setNumThreads(1)
    except ImportError:
        pass
    convert = CONTESTANTS[name]()
    spent = []
    for number in range(rounds + 1):
        target = Path(folder) / f"{number}"
        target.mkdir(parents=True)
        begun = _cpu()
        convert(files, str(target))
        spent.append((_cpu() - begun) / len(files) * 1000)
        shutil.rmtree(target)
    # Not ru_maxrss: a process inherits that of the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    # Libraries print; the answer is the last line.
    print(json.dumps({"ms": statistics.median(spent[1:]), "peak": peak}))


def _cpu() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


# ---- the radiographs ----


def sources(work: Path, count: int) -> dict[str, list[str]]:
    """Files of each kind, made once."""
    dicoms = [work / f"{number}.dcm" for number in range(count)]
    jpegs = [work / f"{number}.jpg" for number in range(count)]
    if not all(path.exists() for path in (*dicoms, *jpegs)):
        make(dicoms, jpegs)
    default = PROJECT.parent / "shared" / "data"
    images = Path(os.environ.get("CXR_SHARED_DATA", default)) / "nih-chestxray14" / "images"
    # Every nth, so that patients differ.
    pngs = sorted(images.glob("*.png"))[:: max(1, len(list(images.glob("*.png"))) // (3 * count))][: 3 * count]
    if not pngs:
        pngs = [work / f"{number}.png" for number in range(count)]
        make_pngs(jpegs, pngs)
    kinds = {"dicom": dicoms, "jpeg": jpegs, "png": pngs}
    return {kind: [str(path) for path in paths] for kind, paths in kinds.items()}


def make(dicoms: list[Path], jpegs: list[Path]) -> None:
    import cv2
    import data_store
    import numpy as np
    import pydicom

    chest = pydicom.dcmread(Path(data_store.__file__).parent / "data" / "RG1_UNCR.dcm")
    plain = chest.pixel_array.astype(np.float32) / 32767 * 4095
    rng = np.random.default_rng(1)
    for number, (dicom, jpeg) in enumerate(zip(dicoms, jpegs, strict=True)):
        # Both polarities in turn, each image mirrored or not, with noise of its own.
        turned = plain[:, ::-1] if number // 2 % 2 else plain
        turned = 4095 - turned if number % 2 else turned
        noisy = cv2.resize(turned, SIZE[::-1], interpolation=cv2.INTER_CUBIC) + rng.normal(0, 6, SIZE)
        pixels = np.clip(np.rint(noisy), 0, 4095).astype(np.uint16)
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID("1.2.840.10008.5.1.4.1.1.1.1")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(f"1.2.3.{number}")
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 16, 12, 11
        dataset.PhotometricInterpretation = "MONOCHROME2" if number % 2 else "MONOCHROME1"
        dataset.PixelRepresentation = 0
        dataset.WindowCenter, dataset.WindowWidth = 2048, 3600
        dataset.PixelSpacing = [0.139, 0.139]
        dataset.PixelData = pixels.tobytes()
        # Every digital radiograph for presentation carries these (PS3.3 C.8.11.3).
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "US"
        dataset.save_as(dicom, enforce_file_format=True)
        grey = (pixels >> 4).astype(np.uint8)
        even = cv2.equalizeHist(grey if number % 2 else 255 - grey)
        small = cv2.resize(even, (2320, 2828), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(jpeg), small, [cv2.IMWRITE_JPEG_QUALITY, 95])


def make_pngs(jpegs: list[Path], pngs: list[Path]) -> None:
    import cv2

    for jpeg, png in zip(jpegs, pngs, strict=True):
        image = cv2.imread(str(jpeg), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        # Adaptive filters, as in the release.
        options = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_ALL_FILTERS]
        cv2.imwrite(str(png), cv2.resize(image, (1024, 1024), interpolation=cv2.INTER_AREA), options)


def error(files: list[str], exact: str, fast: str) -> str:
    """How far a fast variant is from the exact recipe, in levels of 255."""
    import numpy as np

    from cxrprep.images.decode import decode
    from cxrprep.images.recipe import load_recipe

    apart = []
    for file in files:
        pair = []
        for name in (exact, fast):
            recipe = load_recipe(name)
            pair.append(recipe(decode(Path(file).read_bytes(), file, reduce=recipe.reduction)).pixels.astype(int))
        apart.append(np.abs(pair[0] - pair[1]).ravel())
    levels = np.concatenate(apart)
    return f"error: mean {levels.mean():.2f}, p99.9 {np.percentile(levels, 99.9):.0f}, max {levels.max()} levels"


# ---- the table ----


class Field:
    """Runs contestants, each in a process of its own, and keeps their peak memory."""

    def __init__(self, work: Path, python: str, repeats: int, rounds: int) -> None:
        self.work, self.repeats, self.rounds = work, repeats, rounds
        self.python = python
        self.peaks: dict[str, float] = {}

    def cost(self, name: str, files: list[str]) -> float:
        folder = tempfile.mkdtemp(dir=self.work)
        python = self.python if name.startswith("img2dataset") else sys.executable
        words = [python, __file__, "--contestant", name, folder, str(self.rounds), *files]
        environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        shutil.rmtree(folder, ignore_errors=True)
        if done.returncode:
            sys.exit(f"{name}: exit {done.returncode}\n{done.stderr[-2000:]}")
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        self.peaks[name] = max(answer["peak"], self.peaks.get(name, 0.0))
        return float(answer["ms"])

    def costs(self, names: list[str], files: list[str]) -> dict[str, float]:
        return in_turn({name: lambda name=name: self.cost(name, files) for name in names}, self.repeats)  # type: ignore[misc]  # bound now


def rows_of(field: Field, files: dict[str, list[str]], wanted: set[str], peer: str) -> list[Row]:
    rows: list[Row] = []
    unit = "ms"

    def row(what: str, mine: str, theirs: str, name: str, floor: float, *, note: str = "") -> None:
        if theirs in cost:
            rows.append(Row(what, cost[mine], unit, name, cost[theirs], floor, lower=True, note=note))

    if "dicom" in wanted:
        tools = ["dcmtk"] if shutil.which("dcmj2pnm") else []
        cost = field.costs(["ours-512", "ours-512-fast", "ours-512-first", "usual-script", *tools], files["dicom"])
        what, script = "DICOM 2544 x 3056 to a 512 PNG", "pydicom, apply_voi_lut and cv2"
        row(f"{what}, exact", "ours-512", "usual-script", script, 10)
        row(f"{what}, exact", "ours-512", "dcmtk", "dcmj2pnm", 4)
        apart = error(files["dicom"], "shortest-512", "shortest-512-fast")
        row(f"{what}, fast variant", "ours-512-fast", "usual-script", script, 15, note=apart)
        first = cost["ours-512-first"] - cost["ours-512"]
        rows.append(Row(f"{what}, hashing at first sight", first, unit, note="SHA-256 of 15.5 MB, on top"))
        cost = field.costs(["ours-mimic", "usual-mimic"], files["dicom"])
        row("DICOM to JPEG as MIMIC-CXR-JPG", "ours-mimic", "usual-mimic", "the published script", 2.2)
    if "png" in wanted:
        for side, recipe, floor in ((512, "ours-512", 3.0), (224, "ours-224", 1.0)):
            cost = field.costs([recipe, f"cv2-{side}", f"img2dataset-{side}"], files["png"])
            what = f"NIH PNG 1024 to {side}"
            row(what, recipe, f"img2dataset-{side}", peer, floor)
            row(what, recipe, f"cv2-{side}", "cv2 script", 1)
    if "jpeg" in wanted:
        cost = field.costs(["ours-jpeg", "ours-jpeg-fast", "cv2-jpeg", "img2dataset-jpeg"], files["jpeg"])
        what = "CheXpert JPEG 2320 x 2828 to 320"
        row(f"{what}, exact", "ours-jpeg", "img2dataset-jpeg", peer, 1.2)
        row(f"{what}, exact", "ours-jpeg", "cv2-jpeg", "cv2 script", 1)
        apart = error(files["jpeg"], "shortest-320-jpg", "shortest-320-jpg-fast")
        row(f"{what}, DCT-scaled variant", "ours-jpeg-fast", "img2dataset-jpeg", peer, 1.6, note=apart)
    if wanted & {"dicom", "png", "jpeg"}:
        mine = {name: peak for name, peak in field.peaks.items() if name.startswith("ours")}
        most = max(mine, key=lambda name: mine[name])
        note = f"{most}; " + ", ".join(f"{n} {p:.0f}" for n, p in field.peaks.items() if not n.startswith("ours"))
        rows.append(Row("peak memory of a worker", mine[most], "MiB", "limit", MEMORY_LIMIT, 1, lower=True, note=note))
    if "quality" in wanted:
        rows += on_top(files)
    if "scaling" in wanted:
        rows.append(scaling(field, files["dicom"]))
    return rows


def on_top(files: dict[str, list[str]]) -> list[Row]:
    """What quality columns add to an image (3 % at most), and scores (3 ms at most).

    Both are timed inside of the run that they are part of: beside 15 ms that vary by one, half a millisecond would not
    show as a difference of two runs.
    """
    from cxrprep.images import convert as room
    from cxrprep.images import transforms as grey_room

    rows = []
    for what, kind, recipe in (
        ("NIH PNG 1024 to 224", "png", "square-224"),
        ("DICOM to a 512 PNG", "dicom", "shortest-512"),
    ):
        seconds = dict.fromkeys(("measure", "clipped_share", "orientation_of"), 0.0)
        with contextlib.ExitStack() as stack:
            for module, name in ((room, "measure"), (grey_room, "clipped_share"), (room, "orientation_of")):
                stack.enter_context(timed(module, name, seconds))
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            convert = ours(recipe, scores=True)
            convert(files[kind][:2], folder)
            seconds.update(dict.fromkeys(seconds, 0.0))
            begun = time.process_time()
            for number in range(5):
                place = Path(folder, str(number))
                place.mkdir()
                convert(files[kind], str(place))
            total = time.process_time() - begun
        count = 5 * len(files[kind])
        columns = seconds["measure"] + seconds["clipped_share"]
        bare = total - columns - seconds["orientation_of"]
        share, each_score = 100 * columns / bare, 1000 * seconds["orientation_of"] / count
        note = f"{1000 * columns / count:.2f} of {1000 * bare / count:.1f} ms"
        rows.append(Row(f"{what}, quality columns", share, "%", "limit", 3.0, 1, lower=True, note=note))
        rows.append(Row(f"{what}, scores on top", each_score, "ms", "limit", 3.0, 1, lower=True))
    return rows


@contextlib.contextmanager
def timed(room: Any, name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Add the CPU time of each call of ``room.name`` to ``seconds[name]``."""
    plain = getattr(room, name)

    def timing(*words: Any, **more: Any) -> Any:
        begun = time.process_time()
        try:
            return plain(*words, **more)
        finally:
            seconds[name] += time.process_time() - begun

    setattr(room, name, timing)
    try:
        yield
    finally:
        setattr(room, name, plain)


def scaling(field: Field, files: list[str]) -> Row:
    """Images a second by two processes over those by one: wall time, so judged only where four cores are free."""
    from cxrprep.executors import Engine
    from cxrprep.images.conversion import ConversionTask, ConvertItem
    from cxrprep.images.convert import convert
    from cxrprep.images.local_files import open_store
    from cxrprep.images.recipe import load_recipe
    from cxrprep.model import Digest

    recipe, digest = load_recipe("shortest-512"), Digest("sha256", "0" * 64)
    total = max(96, 48 * len(files) // 6)

    def speed(jobs: int) -> float:
        folder = tempfile.mkdtemp(dir=field.work)
        items = (ConvertItem(files[n % len(files)], f"{n}.dcm", digest=digest) for n in range(total))
        moments: list[float] = []

        def take(outcome: Any) -> None:
            if outcome.status != "ok":
                sys.exit(outcome.error)
            moments.append(time.monotonic())

        task = ConversionTask(recipe, recipe.fingerprint(), open_store(folder))
        convert(items, task, take, engine=Engine(jobs=jobs))
        shutil.rmtree(folder)
        # From the first batch's end to the last's: starting the processes is not part of it.
        first = moments.index(moments[24]) if len(moments) > 24 else 0
        return (len(moments) - first - 1) / max(1e-9, moments[-1] - moments[first])

    speeds = in_turn({"one": lambda: speed(1), "two": lambda: speed(2)}, field.repeats)
    cores = len(os.sched_getaffinity(0))
    free = cores - os.getloadavg()[0]
    judged = free >= 4
    note = "" if judged else f"not judged: {max(0.0, free):.1f} of {cores} cores are free, four are needed"
    return Row(
        "two processes beside one", speeds["two"], "images/s", "one", speeds["one"], 1.8 if judged else None, note=note
    )


def main() -> int:
    if sys.argv[1:2] == ["--contestant"]:
        name, folder, rounds, *files = sys.argv[2:]
        contest(name, folder, int(rounds), files)
        return 0
    parser = arguments(__doc__)
    parser.add_argument("--work", type=Path, help="keep the radiographs here; default: a temporary folder")
    parser.add_argument(
        "--only", choices=("dicom", "png", "jpeg", "quality", "scaling"), action="append", help="only these"
    )
    parser.add_argument(
        "--img2dataset", metavar="PYTHON", default=os.environ.get("CXRPREP_IMG2DATASET", sys.executable),
        help="the Python that has img2dataset",
    )  # fmt: skip
    options = parser.parse_args()
    asked = subprocess.run(
        [options.img2dataset, "-c", "import importlib.metadata as m; print(m.version('img2dataset'))"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    version = asked.stdout.strip()
    peer = "img2dataset" if version else "img2dataset's steps"
    python = options.img2dataset if version else sys.executable
    wanted = set(options.only or ("dicom", "png", "jpeg", "quality", "scaling"))
    random.seed(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        made = sources(work, 3 if options.small else 6)
        field = Field(work, python, 1 if options.small else options.repeats, 1 if options.small else 3)
        rows = rows_of(field, made, wanted, peer)
    return finish("convert", rows, json_file=options.json, versions=versions(version))


def versions(resizer: str) -> dict[str, str]:
    from importlib import metadata

    ask = [sys.executable, "-c", "import cxrprep; print(cxrprep.__version__)"]
    return {
        "cxrprep": program_version(ask),
        **{name: metadata.version(name) for name in ("pydicom", "opencv-python-headless", "numpy", "imagecodecs")},
        "img2dataset": resizer or "not installed: its documented steps stood in",
        "dcmtk": program_version(["dcmj2pnm", "--version"]),
    }


if __name__ == "__main__":
    sys.exit(main())
