"""No address that is not ours: those of the project stand in pyproject.toml alone, each other has a known owner."""

from __future__ import annotations

import re
import tomllib

from tests.docs.lines import CONFIGS, PAGES, ROOT

_METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = frozenset(re.findall(r"https?://([\w.-]+)", " ".join(_METADATA.get("urls", {}).values())))
# The publishers of the collections and the hosts that give them out.
DATA = frozenset(
    {
        "physionet.org",
        "www.kaggle.com",
        "api.kaggle.com",
        "huggingface.co",
        "hf-mirror.com",
        "stanfordaimi.azurewebsites.net",
        "stanfordmlgroup.github.io",
        "aimistanforddatasets01.blob.core.windows.net",
        "nihcc.app.box.com",
        "app.box.com",
        "api.box.com",
        "storage.googleapis.com",
        "www.googleapis.com",
        "data.lhncbc.nlm.nih.gov",
        "openi.nlm.nih.gov",
        "bimcv.cipf.es",
        "www.rsna.org",
    }
)
# Standards, licences, namespaces and libraries that a sentence or a file format refers to.
REFERENCES = frozenset(
    {
        "github.com",
        "creativecommons.org",
        "schema.org",
        "semver.org",
        "mlcommons.org",
        "www.w3.org",
        "purl.org",
        "ns.adobe.com",
        "curl.se",
        "docs.aws.amazon.com",
        "encoding.spec.whatwg.org",
        "mimesniff.spec.whatwg.org",
        "url.spec.whatwg.org",
        "lancedb.github.io",
    }
)
# What an address of an example is (RFC 2606, RFC 6761), and forms in which the host is left to the reader.
EXAMPLE = re.compile(r"(.*\.)?example\.(org|com|net)|127\.0\.0\.1|localhost|[A-Z_]+|\.+")
WRITTEN = [
    *PAGES,
    *CONFIGS,
    *ROOT.glob("*.md"),
    *ROOT.glob("*.cff"),
    ROOT / "pyproject.toml",
    ROOT / "Dockerfile",
    *(path for path in ROOT.glob("cxrprep/**/*") if path.suffix in {".py", ".toml", ".css", ".js", ".html", ".jinja"}),
]


def test_every_address_belongs_to_somebody_who_is_known() -> None:
    strangers = {}
    for path in WRITTEN:
        for host in re.findall(r"https?://([\w-]*(?:\.[\w-]+)+|localhost)", path.read_text(encoding="utf-8")):
            if host not in OWN | DATA | REFERENCES and not EXAMPLE.fullmatch(host):
                strangers[host] = str(path.relative_to(ROOT))
    assert strangers == {}


def test_no_account_or_domain_bears_the_name_of_the_project_unless_declared() -> None:
    claimed = re.compile(
        r"cxrprep\.(?:readthedocs|github|gitlab|org|com|io|dev|net|ai)\b|(?:github|gitlab|pypi)\.\w+/[\w/-]*cxrprep"
    )
    for path in WRITTEN:
        for found in claimed.findall(path.read_text(encoding="utf-8")):
            assert any(found in own for own in OWN), f"{path}: {found}"


def test_who_meets_a_fault_learns_where_to_report_it() -> None:
    for name in ("CONTRIBUTING.md", "SECURITY.md", "docs/howto/install.md"):
        assert "who gave you your" in " ".join((ROOT / name).read_text(encoding="utf-8").split()), name
