"""What people paste: the address of a page leads to the source behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrprep.api.folder import find_mirror
from cxrprep.credentials.secret import mask_urls
from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import UsageError
from cxrprep.sources import check_scheme
from cxrprep.sources.urls import behind


@pytest.mark.parametrize(
    ("page", "source"),
    [
        ("https://physionet.org/content/mimic-cxr/2.1.0/", "physionet://mimic-cxr/2.1.0"),
        ("https://physionet.org/content/mimic-cxr-jpg/2.1.0/#files", "physionet://mimic-cxr-jpg/2.1.0"),
        ("https://physionet.org/files/mimic-cxr/2.1.0/index.html", "physionet://mimic-cxr/2.1.0"),
        ("https://physionet.org/files/mimic-cxr/2.1.0/files/p10/index.html", "physionet://mimic-cxr/2.1.0/files/p10/"),
        ("https://example.org/nih/index.html", "https://example.org/nih/index.html"),
        ("https://physionet.org/files/mimic-cxr/2.1.0", "physionet://mimic-cxr/2.1.0"),
        ("https://www.kaggle.com/datasets/ashery/chexpert", "kaggle://ashery/chexpert"),
        ("https://www.kaggle.com/datasets/nih-chest-xrays/data?select=a.csv", "kaggle://nih-chest-xrays/data"),
        ("https://www.kaggle.com/datasets/a/b/versions/3", "kaggle://a/b/versions/3"),
        ("https://nihcc.app.box.com/v/ChestXray-NIHCC", "box://nihcc/ChestXray-NIHCC"),
        ("\ufeffhttps://nihcc.app.box.com/v/Chest\u00adXray-NIHCC\u200b", "box://nihcc/ChestXray-NIHCC"),
        ("https://nihcc.app.box.com/v/ChestXray-NIHCC/folder/36938765345", "box://nihcc/ChestXray-NIHCC"),
        ("https://console.cloud.google.com/storage/browser/bucket/png;tab=objects", "gs://bucket/png"),
        ("https://storage.googleapis.com/bucket/png/", "gs://bucket/png"),
        ("https://physionet.org/files/mimic-cxr/2.1.0/files/p10/", "physionet://mimic-cxr/2.1.0/files/p10/"),
        ("https://example.org/nih/", "https://example.org/nih/"),
        ("gs://bucket", "gs://bucket"),
        ("gs://bucket/png/", "gs://bucket/png"),
        ("physionet://mimic-cxr/2.1.0/", "physionet://mimic-cxr/2.1.0"),
        ("file:///data/", "file:///data/"),
        ("/", "/"),
        ("box", "box"),
        ("https://www.kaggle.com/nih-chest-xrays/data", "kaggle://nih-chest-xrays/data"),
        ("https://www.kaggle.com/competitions/ranzcr", "https://www.kaggle.com/competitions/ranzcr"),
        ("https://hf.co/datasets/StanfordAIMI/CheXpert-v1.0-512", "hf://datasets/StanfordAIMI/CheXpert-v1.0-512"),
        ("https://console.cloud.google.com/storage/browser/_details/b/x.zip;tab=live_object", "gs://b/x.zip"),
        ("https://physionet.org/content/mimic-cxr/2.1.0/files/p10/#files-panel", "physionet://mimic-cxr/2.1.0/files/p10/"),
        ("https://physionet.org/content/mimic-cxr/get-zip/2.1.0/", "physionet://mimic-cxr/2.1.0"),
        ("https://physionet.org/sign-dua/mimic-cxr/2.1.0/", "physionet://mimic-cxr/2.1.0"),
        ("https://physionet.org:443/files/mimic-cxr/2.1.0/SHA256SUMS.txt", "physionet://mimic-cxr/2.1.0"),
        ("https://physionet.org/content/mimic-cxr-jpg/", "physionet://mimic-cxr-jpg"),
        ("https://www.kaggle.com/api/v1/datasets/download/a/b/images_001.zip", "kaggle://a/b"),
        ("https://www.kaggle.com/datasets/a/b/download?datasetVersionNumber=3", "kaggle://a/b/versions/3"),
        ("https://nihcc.app.box.com/v/ChestXray-NIHCC/file/220660789610", "box://nihcc/ChestXray-NIHCC"),
        ("https://huggingface.co/datasets/a/b/resolve/main/x/train.csv?download=true", "hf://datasets/a/b"),
        ("https://huggingface.co/datasets/a/b/blob/refs%2Fpr%2F1/x.csv", "hf://datasets/a/b@refs%2Fpr%2F1"),
        ("https://huggingface.co/datasets/a/b/tree/main/my%20images", "hf://datasets/a/b@main/my images"),
        ("https://huggingface.co/datasets/a/b.git", "hf://datasets/a/b"),
        ("https://storage.googleapis.com/storage/v1/b/bucket/o?prefix=png", "gs://bucket"),
        ("https://bucket.storage.googleapis.com/png/", "gs://bucket/png"),
        ("https://bucket.s3.eu-west-1.amazonaws.com/chest%20x-rays/", "s3://bucket/chest x-rays"),
        ("https://bucket.s3.dualstack.eu-west-1.amazonaws.com/x/", "s3://bucket/x"),
        ("https://s3.dualstack.eu-west-1.amazonaws.com/bucket/x/", "s3://bucket/x"),
        ("https://s3-copy.s3.amazonaws.com/x/", "s3://s3-copy/x"),
        ("https://us-east-1.console.aws.amazon.com/s3/buckets/bucket?prefix=a%2Fb%2F", "s3://bucket/a/b/"),
        ("http://bucket.s3.amazonaws.com/x/", "s3://bucket/x"),
        ("https://bucket.s3.us-east-1.amazonaws.com", "s3://bucket/"),
        ("https://bucket.s3.amazonaws.com/?list-type=2&prefix=nih%2Fpng%2F", "s3://bucket/nih/png"),
        ("https://s3.us-west-2.amazonaws.com/bucket/?prefix=nih/&delimiter=/", "s3://bucket/nih"),
        ("https://bucket.s3.amazonaws.com/?prefix=x/&X-Amz-Signature=a", "https://bucket.s3.amazonaws.com/?prefix=x/&X-Amz-Signature=a"),
        ("http://storage.googleapis.com/bucket/png/", "gs://bucket/png"),
        ("https://storage.googleapis.com/bucket?delimiter=/&prefix=png/", "gs://bucket/png"),
        ("https://bucket.storage.googleapis.com/?prefix=png", "gs://bucket/png"),
        ("HTTPS://EXAMPLE.ORG/Data/", "https://EXAMPLE.ORG/Data/"),
        ("S3://bucket/Data/", "s3://bucket/Data"),
        ("HF://datasets/a/b", "hf://datasets/a/b"),
        ("https://www.kaggle.com/datasets/a/b?datasetVersionNumber=3", "kaggle://a/b/versions/3"),
        ("https://www.kaggle.com/api/v1/datasets/download/a/b?datasetVersionNumber=3", "kaggle://a/b/versions/3"),
        ("https://www.kaggle.com/api/v1/datasets/list/a/b", "kaggle://a/b"),
        ("https://www.kaggle.com/nih-chest-xrays/data/home", "kaggle://nih-chest-xrays/data"),
        ("https://www.kaggle.com/nih-chest-xrays/data/version/3", "kaggle://nih-chest-xrays/data/versions/3"),
        ("a folder of mine", "a folder of mine"),
        ("https://example.org/da ta/", "https://example.org/da ta/"),
    ],
)  # fmt: skip
def test_the_source_behind_a_page(page: str, source: str) -> None:
    assert behind(page) == source


@pytest.mark.parametrize(
    ("line", "source"),
    [
        (
            "wget -r -N -c -np --user me --ask-password https://physionet.org/files/mimic-cxr-jpg/2.1.0/",
            "physionet://mimic-cxr-jpg/2.1.0",
        ),
        ("aws s3 sync --no-sign-request s3://bucket/nih/ .", "s3://bucket/nih"),
        ("gsutil -m -u project cp -r gs://bucket .", "gs://bucket"),
        ("gsutil -m cp -r 'gs://bucket/png/*' here", "gs://bucket/png"),
        ("gcloud storage cp gs://bucket/** .", "gs://bucket"),
        ("aws s3 cp --recursive s3://bucket/nih/* .", "s3://bucket/nih"),
        ("gcloud storage cp -r 'gs://bucket/png' here", "gs://bucket/png"),
        ("git clone https://huggingface.co/datasets/a/b", "hf://datasets/a/b"),
        ("curl -L -O https://example.org/nih/x.zip", "https://example.org/nih/x.zip"),
        ("kaggle datasets download -d nih-chest-xrays/data", "kaggle://nih-chest-xrays/data"),
        ("kaggle datasets download nih-chest-xrays/data --unzip", "kaggle://nih-chest-xrays/data"),
        ("kagglehub.dataset_download('ashery/chexpert')", "kaggle://ashery/chexpert"),
        ("hf download --repo-type dataset a/b", "hf://datasets/a/b"),
        ("!hf download --repo-type=dataset a/b", "hf://datasets/a/b"),
        ("git clone git@hf.co:datasets/a/b", "hf://datasets/a/b"),
        ("git clone --depth 1 -b v1.0 https://huggingface.co/datasets/a/b", "hf://datasets/a/b@v1.0"),
        ("hf download --repo-type dataset --revision v1.0 a/b", "hf://datasets/a/b@v1.0"),
        ("huggingface-cli download a/b --revision=v1.0 --repo-type=dataset", "hf://datasets/a/b@v1.0"),
        ("snapshot_download(local_dir='c/d', repo_id='a/b', repo_type='dataset')", "hf://datasets/a/b"),
        ("snapshot_download('a/b', revision='v1.0', repo_type='dataset')", "hf://datasets/a/b@v1.0"),
        ('load_dataset("a/b", split="train", revision="v1.0")', "hf://datasets/a/b@v1.0"),
        ("snapshot_download(repo_id='a/b', repo_type='dataset')", "hf://datasets/a/b"),
        ('from datasets import load_dataset\nds = load_dataset("a/b")', "hf://datasets/a/b"),
        ("!kaggle datasets download -p out/here -d a/b", "kaggle://a/b"),
        ('import kagglehub\n\npath = kagglehub.dataset_download("a/b/versions/3")', "kaggle://a/b/versions/3"),
        ("#!/bin/bash\ncurl -L -o data.zip\\\n  https://www.kaggle.com/api/v1/datasets/download/a/b", "kaggle://a/b"),
        ("It is at https://example.org/nih/.", "https://example.org/nih/"),
        ("[NIH](https://example.org/nih/)", "https://example.org/nih/"),
        ("huggingface-cli download a/b --repo-type dataset --local-dir .", "hf://datasets/a/b"),
        ("<https://example.org/nih/>", "https://example.org/nih/"),
        ("\u201chttps://example.org/nih/\u201d", "https://example.org/nih/"),
    ],
)
def test_the_source_in_a_line_that_was_pasted_whole(line: str, source: str) -> None:
    assert behind(line) == source


def test_a_revision_that_cannot_be_read_is_not_passed_over() -> None:
    line = "hf download a/b --repo-type dataset --revision refs/pr/1"
    assert behind(line) == line


def test_a_line_with_several_addresses_is_refused_without_its_password() -> None:
    with pytest.raises(UsageError) as caught:
        check_scheme(behind("wget --password=s3cret https://a.example/ https://b.example/"))
    assert (caught.value.message, caught.value.hint) == (
        "several words are no source",
        "give one address, or an existing folder",
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("physionet.org/files/mimic-cxr/2.1.0/", "https://physionet.org/files/mimic-cxr/2.1.0"),
        ("mirror.example.org:8443", "https://mirror.example.org:8443"),
        ("10.0.0.7/nih", "https://10.0.0.7/nih"),
        ("localhost:8000/nih", "https://localhost:8000/nih"),
        ("data/nih", ""),
        ("./data.d/nih", ""),
        ("../x.org/nih", ""),
        ("/data/x.org", ""),
        ("images.zip", ""),
    ],
)
def test_an_address_without_its_scheme_is_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="neither a mirror") as caught:
        find_mirror(find_dataset("nih-chestxray14"), name)
    hint = mask_urls(caught.value.hint)  # as it is printed
    assert f"did you mean {meant}, with its scheme? mirrors:" in hint if meant else "did you mean http" not in hint
    if meant:
        (tmp_path / name.rstrip("/")).mkdir(parents=True)
        assert find_mirror(find_dataset("nih-chestxray14"), name).url.startswith("file://"), (
            "a folder that is here is it"
        )


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "{}/tree/main",
        "wget {}/resolve/main/train.csv",
        "HF_ENDPOINT=https://hf-mirror.com huggingface-cli download --repo-type dataset StanfordAIMI/CheXpert-v1.0-512",
        "export HF_ENDPOINT='https://hf-mirror.com'; hf download StanfordAIMI/CheXpert-v1.0-512 --repo-type dataset",
    ],
)
def test_a_page_of_the_hubs_mirror_is_one_of_the_hub_where_the_environment_names_it(
    monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    pasted = line.format("https://hf-mirror.com/datasets/StanfordAIMI/CheXpert-v1.0-512")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    with pytest.raises(UsageError, match=r"https://hf-mirror\.com is a mirror of Hugging Face") as caught:
        find_mirror(find_dataset("chexpert"), pasted)
    assert caught.value.hint.startswith("set HF_ENDPOINT=https://hf-mirror.com, and give the same address")
    monkeypatch.setenv("HF_ENDPOINT", "https://hf-mirror.com/")
    found = find_mirror(find_dataset("chexpert"), pasted)
    assert found.url == "hf://datasets/StanfordAIMI/CheXpert-v1.0-512"
    assert found.mirror is not None


@pytest.mark.parametrize(
    ("line", "variable"),
    [
        (
            "curl -LO -H 'Authorization: Bearer s3cret' https://mirror.example.org/a-b/x.zip",
            "CXRPREP_TOKEN_MIRROR_EXAMPLE_ORG",
        ),
        (
            'wget --header="authorization: Bearer s3cret" https://cxr-data.example.org/',
            "CXRPREP_TOKEN_CXR__DATA_EXAMPLE_ORG",
        ),
        ("curl -H 'Authorization: Bearer s3cret' https://huggingface.co/datasets/a/b/resolve/main/x.csv", "HF_TOKEN"),
    ],
)
def test_a_token_in_a_line_that_was_pasted_is_not_passed_over(line: str, variable: str) -> None:
    with pytest.raises(UsageError, match="a token on the command line") as caught:
        find_mirror(find_dataset("chexpert"), line)
    assert caught.value.hint == f"give the address alone, and set {variable} to the token"


@pytest.mark.parametrize("name", ["chexpert", "mimic-cxr", "mimic-cxr-jpg", "nih-chestxray14"])
def test_the_page_of_a_mirror_is_that_mirror(name: str) -> None:
    spec = find_dataset(name)
    for mirror in spec.mirror:
        scheme, _, rest = mirror.url.partition("://")
        if scheme == "physionet":
            unversioned = find_mirror(spec, f"https://physionet.org/content/{rest.partition('/')[0]}/", mirror.release)
            assert (unversioned.mirror, unversioned.release) == (mirror, mirror.release)
        page = {
            "physionet": f"https://physionet.org/content/{rest}/",
            "kaggle": f"https://www.kaggle.com/datasets/{rest}",
            "gs": f"https://storage.googleapis.com/{rest}/",
            "box": f"https://{rest.partition('/')[0]}.app.box.com/v/{rest.partition('/')[2]}",
        }.get(scheme)
        if page is not None and not rest.endswith(".zip"):
            place = find_mirror(spec, page)
            assert (place.mirror, place.release) == (mirror, mirror.release)
