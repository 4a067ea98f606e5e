"""Every kind of folder is opened one way, and says what it is and what is known of its files."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from cxrprep.api.convert import convert
from cxrprep.api.export import export
from cxrprep.api.manifest import build_manifest as build_manifest_at
from cxrprep.api.verify import verify
from cxrprep.collection import FolderKind, open_folder
from cxrprep.errors import UsageError
from cxrprep.model import FolderRef
from tests.api.convert import hospital
from tests.commands import cxrprep, ok
from tests.generators.small import declared, nih_chestxray14
from tests.manifest.made import made
from tests.tables_made import build_manifest, extract_labels

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("nih-chestxray14", tmp_path_factory.mktemp("nih"))


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_release_is_known_by_its_files_or_its_tables(nih: Path, tmp_path: Path) -> None:
    folder = open_folder(nih)
    assert (folder.kind, folder.spec.name, folder.form, folder.lineage) == (
        FolderKind.RELEASE, "nih-chestxray14", "files", None,
    )  # fmt: skip
    (tmp_path / "manifests").mkdir()
    shutil.copyfile(nih / "manifests/labels.parquet", tmp_path / "manifests/labels.parquet")
    assert open_folder(tmp_path).spec.name == "nih-chestxray14"


def test_converted_files_are_known_with_their_digests_wherever_they_are_moved(nih: Path, tmp_path: Path) -> None:
    convert(nih, recipe="square-224", out=tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    folder = open_folder(tmp_path / "moved")
    assert (folder.kind, folder.spec.name, folder.in_shards) == (FolderKind.CONVERTED, "nih-chestxray14", False)
    assert folder.lineage is not None
    assert folder.lineage.recipe == "square-224"
    rows = folder.files().to_pylist()
    assert rows
    for row in rows:
        path = folder.root / row["path"]
        assert (path.stat().st_size, digest_of(path)) == (row["size"], row["digest"])


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_shards_say_that_they_are_shards(nih: Path, tmp_path: Path, form: str) -> None:
    convert(nih, recipe="square-224", out=tmp_path, to=form)
    folder = open_folder(tmp_path)
    assert (folder.kind, folder.form, folder.in_shards) == (FolderKind.CONVERTED, form, True)


def test_a_job_array_that_was_not_joined_is_one_folder(nih: Path, tmp_path: Path) -> None:
    from cxrprep.model import Shard

    for index in (1, 2):
        convert(nih, recipe="square-224", out=tmp_path, shard=Shard(index, 2))
    folder = open_folder(tmp_path)
    assert folder.kind is FolderKind.CONVERTED
    assert folder.files().num_rows == open_folder(nih).image_tables[0].exists() * len(list(tmp_path.rglob("*.png")))


def test_a_folder_of_ones_own_before_and_after(tmp_path: Path) -> None:
    root = hospital.write(tmp_path / "in")
    assert open_folder(root).kind is FolderKind.OWN
    convert(root, recipe="square-224", out=tmp_path / "out")
    folder = open_folder(tmp_path / "out")
    assert (folder.kind, folder.spec.name) == (FolderKind.CONVERTED, "folder")


def test_an_export_is_known_by_its_list(nih: Path, tmp_path: Path) -> None:
    export(nih, form="csv", out=tmp_path / "out")
    folder = open_folder(tmp_path / "out")
    assert (folder.kind, folder.form) == (FolderKind.EXPORTED, "csv")
    assert "images.csv" in folder.files().column("path").to_pylist()


@pytest.mark.parametrize("form", ["csv", "hf", "webdataset", "original"])
@pytest.mark.parametrize(
    "verb",
    [
        "manifest ROOT", "convert ROOT --recipe square-224", "extract-labels ROOT", "report ROOT", "digest ROOT",
        "export ROOT --format csv", "duplicates ROOT", "download nih-chestxray14 ROOT --source NIH",
    ],
)  # fmt: skip
def test_what_an_export_is_not_for_says_so(nih: Path, tmp_path: Path, verb: str, form: str) -> None:
    """Some said that there is no manifest, and to make it, which is refused."""
    from tests.commands import cxrprep

    export(nih, form=form, out=tmp_path / "out")
    done = cxrprep(*({"ROOT": tmp_path / "out", "NIH": nih}.get(word, word) for word in verb.split()))
    assert done.returncode == 2, done
    assert "export" in done.stderr.partition("Hint:")[0]
    assert "cxrprep manifest" not in done.stderr


@pytest.mark.parametrize("inside", ["0small", "images/0small", "derived/../small"])
def test_images_are_converted_into_no_folder_among_the_originals(nih: Path, tmp_path: Path, inside: str) -> None:
    """The manifest took them for the originals, with exit code 0: their names come first."""
    root = tmp_path / "nih"
    shutil.copytree(nih, root)
    with pytest.raises(UsageError, match="in the folder of the originals"):
        convert(root, recipe="square-224", out=root / inside)
    assert {path.name for path in root.iterdir()} == {path.name for path in nih.iterdir()}
    convert(root, recipe="square-224", out=root / "derived/mine")
    convert(root / "derived/mine", recipe="square-224", out=root / "derived/mine/small")


def test_a_download_goes_on_where_somebody_exported_beside_the_originals(nih: Path, tmp_path: Path) -> None:
    from tests.commands import cxrprep, ok

    root = tmp_path / "nih"
    shutil.copytree(nih, root)
    for inside in (root, root / "mine"):
        ok("export", root, "--format", "csv", "--out", inside)
    ok("download", "nih-chestxray14", root, "--source", nih)
    ok("verify", root, "--strict")
    for verb in ("verify ROOT", "convert ROOT --recipe square-224", "extract-labels ROOT"):
        done = cxrprep(*(root if word == "ROOT" else word for word in verb.split()), "--tables", tmp_path / "gone")
        assert (done.returncode, "is not a folder" in done.stderr) == (2, True), done


def test_a_release_is_not_taken_for_images_of_ones_own(nih: Path, tmp_path: Path) -> None:
    """``--dataset folder`` was ignored without a word where a record or a manifest says what the folder is."""
    from tests.commands import cxrprep, ok

    root, out = tmp_path / "nih", tmp_path / "out"
    shutil.copytree(nih, root)
    ok("convert", root, "--recipe", "square-224", "--out", out)
    for folder in (root, out):
        for verb in ("verify", "manifest", "status", "report", "digest", "extract-labels", "convert", "export"):
            more = {"convert": ["--check-phi"], "export": ["--format", "csv", "--out", tmp_path / "new"]}.get(verb, [])
            done = cxrprep(verb, folder, "--dataset", "folder", *more)
            assert (done.returncode, "not images of your own" in done.stderr) == (2, True), (verb, done)
    # Nothing says what it is.
    shutil.rmtree(root / "manifests")
    ok("convert", root, "--dataset", "folder", "--recipe", "square-224", "--out", tmp_path / "mine")


def test_a_state_folder_keeps_what_a_read_only_root_does_not(nih: Path, tmp_path: Path) -> None:
    folder = open_folder(FolderRef(nih, state=tmp_path / "state"))
    assert (folder.home, folder.read_from) == (tmp_path / "state", nih / "manifests")
    assert folder.words.endswith(f"--state {tmp_path / 'state'}")


def test_a_state_folder_begins_with_the_labels_of_root(nih: Path, tmp_path: Path) -> None:
    """It had none, with exit code 0: a lab's labels and boxes were not in what others converted of its copy."""
    from tests.commands import ok

    known = pq.read_table(nih / "manifests/images.parquet").select(["label_edema", "split", "boxes"])
    ok("manifest", nih, "--state", tmp_path / "a")
    ok("convert", nih, "--recipe", "square-224", "--state", tmp_path / "b")
    for made_there in (tmp_path / "a", tmp_path / "b", tmp_path / "b/derived/square-224"):
        table = pq.read_table(made_there / "manifests/images.parquet")
        assert [table[name].null_count for name in known.column_names] == [
            known[n].null_count for n in known.column_names
        ]
    ok("verify", tmp_path / "b/derived/square-224")
    # What verify says comes next names the folder of state once, and does it.
    hint = next(one.hint for one in verify(nih, state=tmp_path / "a").value.findings if str(one.kind) == "unproven")
    ok(*shlex.split(hint.partition("cxrprep ")[2]))
    assert (hint.count("--state"), verify(nih, state=tmp_path / "a").value.files.unproven) == (1, 0)


def test_a_state_folder_is_not_shared_by_originals_and_what_was_made_of_them(nih: Path, tmp_path: Path) -> None:
    convert(nih, recipe="square-224", out=tmp_path / "out")
    for root, other, words in ((nih, tmp_path / "out", "originals"), (tmp_path / "out", nih, "converted images")):
        build_manifest_at(root, state=tmp_path / words)
        # Where the note is gone of whose state it is, the tables tell.
        (tmp_path / words / ".cxrprep/root").unlink()
        with pytest.raises(UsageError, match=f"holds tables of {words}"):
            open_folder(FolderRef(other, state=tmp_path / words))
        assert open_folder(FolderRef(root, state=tmp_path / words)).home == tmp_path / words


def test_a_state_folder_is_of_one_folder(tmp_path: Path) -> None:
    """The tables of the one gave way to those of the other, which has fewer images, with exit code 0."""
    from tests.commands import cxrprep, ok

    nih = made("nih-chestxray14", tmp_path / "nih")
    fewer, state = tmp_path / "fewer", tmp_path / "state"
    shutil.copytree(nih, fewer, ignore=shutil.ignore_patterns("manifests", ".cxrprep"))
    next(path for path in fewer.rglob("*.png")).unlink()
    ok("verify", nih, "--state", state)
    reading = ("digest", "duplicates", "export --format csv", f"prove {'0' * 64}", "pairs", "extract-labels --compare")
    for verb in ("manifest", "verify", "extract-labels", "convert --recipe square-224", "report", "status", *reading):
        for root in (fewer, state):
            words = [*shlex.split(verb), root] if root == state else [*shlex.split(verb), root, "--state", state]
            if verb.endswith("compare"):
                words = [words[0], *words[2:], words[1], "nih-textmined", "nih-textmined"]
            done = cxrprep(*words)
            assert (done.returncode, f"is the --state folder of {nih}" in done.stderr) == (2, True), (verb, done.stderr)
    done = cxrprep("download", "nih-chestxray14", state, "--source", nih)
    assert (done.returncode, "is the --state folder of" in done.stderr) == (2, True)
    # One that was moved takes its state along, and so does one that takes the place of another, as the hint says.
    nih.rename(tmp_path / "moved")
    ok("manifest", tmp_path / "moved", "--state", state)
    done = cxrprep("manifest", fewer, "--state", state)
    assert done.returncode == 2
    note = tmp_path / done.stderr.partition("of the other: rm ")[2].splitlines()[0]
    note.unlink()
    ok("manifest", fewer, "--state", state)


def test_a_state_folder_that_has_tables_alone_is_known_as_one(nih: Path, tmp_path: Path) -> None:
    build_manifest_at(nih, state=tmp_path / "state")
    shutil.rmtree(tmp_path / "state/.cxrprep", ignore_errors=True)
    build_manifest_at(nih, state=tmp_path / "state")
    with pytest.raises(UsageError, match="is the --state folder of"):
        open_folder(tmp_path / "state")


def test_a_folder_with_images_of_its_own_is_nobody_s_state(nih: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    hospital.write(own)
    build_manifest_at(own)
    for root, state in ((own, nih), (nih, own)):
        before = (state / "manifests/images.parquet").read_bytes()
        with pytest.raises(UsageError, match="holds images itself"):
            build_manifest_at(root, state=state)
        assert (state / "manifests/images.parquet").read_bytes() == before


@pytest.mark.parametrize("wrong", ["chexpert", "mimic-cxr"])
def test_another_dataset_than_the_folder_says_is_refused(nih: Path, tmp_path: Path, wrong: str) -> None:
    with pytest.raises(UsageError, match="holds nih-chestxray14"):
        open_folder(FolderRef(nih, dataset=wrong))
    bare = tmp_path / "bare"
    shutil.copytree(nih, bare, ignore=shutil.ignore_patterns("manifests"))
    with pytest.raises(UsageError, match="looks like nih-chestxray14"):
        open_folder(FolderRef(bare, dataset=wrong))


@pytest.mark.parametrize("wrong", ["chexpert", "mimic-cxr", "openi"])
def test_images_of_which_none_is_one_of_the_dataset_are_refused(tmp_path: Path, wrong: str) -> None:
    """``verify`` found no fault, ``manifest`` wrote a table of nothing, both with exit code 0."""
    hospital.write(tmp_path / "own")
    with pytest.raises(UsageError, match=f"none of them is one of {wrong}"):
        open_folder(FolderRef(tmp_path / "own", dataset=wrong))
    # A folder that has its tables, and a picture beside them, waits for its images.
    made_here, waits = tmp_path / "made", tmp_path / "waits"
    declared.write(made_here, "shenzhen-tb")
    shutil.copytree(made_here, waits, ignore=shutil.ignore_patterns("*.png"))
    (waits / "overview.png").write_bytes(b"")
    assert open_folder(FolderRef(waits, dataset="shenzhen-tb")).spec.name == "shenzhen-tb"


def test_a_download_goes_into_no_folder_of_another_dataset(nih: Path, tmp_path: Path) -> None:
    from tests.commands import cxrprep

    hospital.write(tmp_path / "own")
    build_manifest_at(tmp_path / "own")
    chexpert = made("chexpert", tmp_path / "chexpert")
    bare = tmp_path / "bare"
    shutil.copytree(chexpert, bare, ignore=shutil.ignore_patterns("manifests"))
    own = (tmp_path / "own", "holds images of your own")
    for root, what in ((chexpert, "holds chexpert"), (bare, "looks like chexpert"), own):
        before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        done = cxrprep("download", "nih-chestxray14", root, "--source", nih)
        assert (done.returncode, what in done.stderr) == (2, True), done.stderr
        assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        open_folder(tmp_path / "gone")
    with pytest.raises(UsageError, match="there is no folder") as caught:
        open_folder(type(tmp_path)("mirror.example.org/chexpert"))
    assert "s3://" in caught.value.hint
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="not a dataset that cxrprep knows"):
        open_folder(tmp_path)


def test_a_damaged_list_of_an_export_is_no_export(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / ".cxrprep-export.json").write_text("[" * 100_000)
    assert open_folder(tmp_path).kind is FolderKind.OWN
    (tmp_path / ".cxrprep-export.json").write_text(json.dumps({"csv": "x", "about": {"csv": {"files": {"a": 3}}}}))
    assert open_folder(tmp_path).kind is FolderKind.EXPORTED


def test_status_says_done_only_of_what_is(nih: Path, tmp_path: Path) -> None:
    from cxrprep.api.status import status
    from tests.commands import cxrprep

    root = tmp_path / "root"
    mirror = tmp_path / "mirror"
    shutil.copytree(nih, mirror, ignore=shutil.ignore_patterns("manifests"))
    assert cxrprep("download", "nih-chestxray14", root, "--source", mirror).returncode == 0

    def states() -> dict[str, str]:
        return {stage.name: stage.state for stage in status(root).value.stages}

    assert states()["download"] == "done"
    image = next(path for path in root.rglob("*.png"))
    data = bytearray(image.read_bytes())
    data[-1] ^= 1
    image.write_bytes(data)
    assert cxrprep("verify", root).returncode == 4
    found = next(stage for stage in status(root).value.stages if stage.name == "verify")
    assert (found.state, found.failed) == ("failed", 1)
    assert any("verify" in command for command in status(root).value.following)
    tables = tmp_path / "tables"
    assert cxrprep("download", "nih-chestxray14", tables, "--source", mirror, "--include", "*.csv").returncode == 0
    assert next(s for s in status(tables).value.stages if s.name == "download").state == "incomplete"


def test_a_link_in_a_circle_hides_nothing_beside_it(tmp_path):
    released = nih_chestxray14.write(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "images" / "loop").symlink_to("loop")
    spec = open_folder(tmp_path).spec
    assert spec.name == "nih-chestxray14"
    extract_labels(spec, tmp_path)
    assert build_manifest(spec, tmp_path).images == len(released.images)


def test_converted_images_are_no_mirror_of_originals(tmp_path: Path) -> None:
    root = made("nih-chestxray14", tmp_path / "raw")
    ok("convert", root, "--recipe", "square-224", "--out", tmp_path / "made")
    before = {path: path.read_bytes() for path in (root / "images").iterdir()}
    done = cxrprep("download", "nih-chestxray14", root, "--source", tmp_path / "made")
    assert (done.returncode, "holds converted images" in " ".join(done.stderr.split())) == (2, True), done
    assert {path: path.read_bytes() for path in (root / "images").iterdir()} == before


def test_an_option_of_another_datasets_tables_is_refused(tmp_path: Path) -> None:
    root = made("nih-chestxray14", tmp_path / "raw")
    before = (root / "manifests/labels.parquet").read_bytes()
    for words in (("--demographics",), ("--mimic-iv", root / "Data_Entry_2017_v2020.csv")):
        done = cxrprep("extract-labels", root, *words)
        assert (done.returncode, f"{words[0]} joins a table of" in " ".join(done.stderr.split())) == (2, True), done
    assert (root / "manifests/labels.parquet").read_bytes() == before
