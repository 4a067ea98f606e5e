"""Credentials are found in the documented order, masked everywhere, and sent to no host but their own."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest

from cxrprep.credentials.files import Login, Token
from cxrprep.credentials.lookup import Credentials
from cxrprep.credentials.secret import Secret, mask_urls
from cxrprep.credentials.services import ADVICE
from cxrprep.errors import AccessError

MARK = "hunter2-do-not-show"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def look(home: Path, **environment: str) -> Credentials:
    return Credentials(environment={"CXRPREP_KEYRING": "0", **environment}, home=home)


def test_a_secret_shows_asterisks_wherever_it_could_be_seen() -> None:
    secret = Secret(MARK)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>40}",
        "a {} b".replace("{}", str(secret)),
        f"{secret!r}",
        repr([secret]),
    ]
    assert not any(MARK in text for text in shown)
    assert secret.reveal() == MARK


def test_a_secret_stays_out_of_logs_json_and_tracebacks_with_locals(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(MARK)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("x").error("login %s %r", secret, secret)
    assert MARK not in caplog.text
    with pytest.raises(TypeError):
        json.dumps({"password": secret})
    try:
        raise ValueError(f"with {secret}")
    except ValueError as error:
        trace = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert MARK not in "".join(trace.format())


def test_a_secret_is_not_pickled_but_survives_copies() -> None:
    secret = Secret(MARK)
    with pytest.raises(TypeError, match="does not leave its process"):
        pickle.dumps(secret)
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"a": [secret]})["a"][0] is secret
    login = Login("me", secret, "netrc")
    assert MARK not in repr(dataclasses.asdict(login))


def test_secrets_compare_by_content() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert not Secret("")


def test_credentials_travel_to_another_process_without_what_they_found(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There they look at the environment that is there.
    monkeypatch.setenv("CXRPREP_KEYRING", "0")
    (home / ".netrc").write_text(f"machine physionet.org login me password {MARK}\n")
    credentials = look(home)
    assert credentials.physionet() is not None
    data = pickle.dumps(credentials)
    assert MARK.encode() not in data
    again = pickle.loads(data).physionet()
    assert again is not None
    assert again.password.reveal() == MARK


def test_physionet_environment_comes_before_netrc(home: Path) -> None:
    (home / ".netrc").write_text("machine physionet.org login file password of-file\n")
    login = look(home, PHYSIONET_USERNAME="env", PHYSIONET_PASSWORD="of-env").physionet()
    assert login is not None
    assert (login.user, login.password.reveal()) == ("env", "of-env")
    login = look(home).physionet()
    assert login is not None
    assert (login.user, login.password.reveal(), login.origin) == ("file", "of-file", str(home / ".netrc"))


def test_physionet_password_may_stand_in_a_file(home: Path) -> None:
    (home / "password").write_text("from-a-file\n")
    login = look(home, PHYSIONET_USERNAME="me", PHYSIONET_PASSWORD_FILE=str(home / "password")).physionet()
    assert login is not None
    assert login.password.reveal() == "from-a-file"


def test_a_missing_password_file_is_named(home: Path) -> None:
    with pytest.raises(AccessError, match="no-such-file"):
        look(home, PHYSIONET_USERNAME="me", PHYSIONET_PASSWORD_FILE=str(home / "no-such-file")).physionet()


def test_the_prompt_is_asked_last_and_once(home: Path) -> None:
    asked: list[tuple[str, bool]] = []

    def prompt(question: str, hidden: bool) -> str:
        asked.append((question, hidden))
        return MARK if hidden else "me"

    credentials = Credentials(environment={"CXRPREP_KEYRING": "0"}, home=home, prompt=prompt)
    login = credentials.physionet()
    assert login is not None
    assert login.user == "me"
    assert credentials.physionet() is login
    assert [hidden for _, hidden in asked] == [False, True]


def test_without_a_prompt_nobody_is_asked(home: Path) -> None:
    assert look(home).physionet() is None
    assert look(home).signed_url() is None
    assert look(home).kaggle() is None
    assert look(home).box() is None


def test_a_login_is_for_its_own_hosts_only(home: Path) -> None:
    (home / ".netrc").write_text("machine physionet.org login me password x\ndefault login any password y\n")
    login = look(home).physionet()
    assert login is not None
    assert login.permits("physionet.org")
    assert login.permits("PhysioNet.org")
    assert not login.permits("evil-physionet.org")
    assert not login.permits("physionet.org.evil.example")
    assert look(home).host("mirror.example") is None, "the default entry must not go to strangers"


def test_a_mirror_that_the_user_named_has_its_own_netrc_entry(home: Path) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login me password x\nmachine physionet.org login you password y\n")
    login = look(home).physionet("127.0.0.1")
    assert login is not None
    assert login.user == "me"
    assert login.permits("127.0.0.1")
    assert not login.permits("physionet.org")


def test_of_several_entries_of_a_host_the_first_counts(home: Path) -> None:
    # As curl and wget read the file; Python's own reader keeps the last.
    (home / ".netrc").write_text(
        "machine Mirror.Example.ORG login bearer password token\n"
        "machine mirror.example.org login first password one\nmachine mirror.example.org login second password two\n"
        "machine physionet.org login me password x\nmachine physionet.org login you password y\n"
    )
    found = look(home).host("mirror.example.org")
    assert found is not None
    assert (found.user, found.password.reveal()) == ("first", "one")
    token = look(home).bearer("MIRROR.example.org")
    assert token is not None, "which another entry holds"
    assert token.secret.reveal() == "token"
    users = [look(home, **named).physionet() for named in ({}, {"PHYSIONET_USERNAME": "you"})]
    assert [login and login.user for login in users] == ["me", "you"]


def test_a_refused_login_is_passed_over(home: Path) -> None:
    (home / ".netrc").write_text("machine physionet.org login file password right\n")
    credentials = look(home, PHYSIONET_USERNAME="env", PHYSIONET_PASSWORD="wrong")
    users = []
    while (login := credentials.physionet()) is not None:
        users.append(login.user)
        credentials.refuse("physionet")
    assert users == ["env", "file"]


def test_a_broken_netrc_is_named_without_its_content(home: Path) -> None:
    (home / ".netrc").write_text(f"machine physionet.org login me\n{MARK} nonsense\n")
    with pytest.raises(AccessError) as caught:
        look(home).physionet()
    assert ".netrc, line " in str(caught.value)
    assert MARK not in str(caught.value) + caught.value.hint
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("environment", "files", "origin", "kind"),
    [
        ({"KAGGLE_API_TOKEN": "T"}, {".kaggle/access_token": "F"}, "KAGGLE_API_TOKEN", Token),
        ({}, {".kaggle/access_token": "F", ".kaggle/kaggle.json": "J"}, "access_token", Token),
        ({}, {".kaggle/access_token.txt": "F"}, "access_token.txt", Token),
        (
            {"KAGGLE_USERNAME": "u", "KAGGLE_KEY": "k"},
            {".kaggle/kaggle.json": '{"username": "j", "key": "x"}'},
            "KAGGLE_USERNAME, KAGGLE_KEY",
            Login,
        ),
        ({}, {".kaggle/kaggle.json": '{"username": "j", "key": "x"}'}, "kaggle.json", Login),
        ({}, {".config/kaggle/kaggle.json": '{"username": "j", "key": "x"}'}, "kaggle.json", Login),
    ],
)
def test_kaggle_forms_in_the_order_of_kaggles_own_tool(
    home: Path, environment: dict[str, str], files: dict[str, str], origin: str, kind: type
) -> None:
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    found = look(home, **environment).kaggle()
    assert found is not None
    assert isinstance(found, kind)
    assert found.origin.endswith(origin)


def test_kaggle_token_variable_may_name_a_file(home: Path) -> None:
    (home / "token").write_text("KGAT_1\n")
    found = look(home, KAGGLE_API_TOKEN=str(home / "token")).kaggle()
    assert isinstance(found, Token)
    assert found.secret.reveal() == "KGAT_1"


def test_kaggle_config_dir_comes_first(home: Path) -> None:
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / "kaggle.json").write_text('{"username": "e", "key": "x"}')
    found = look(home, KAGGLE_CONFIG_DIR=str(home / "elsewhere")).kaggle()
    assert isinstance(found, Login)
    assert found.user == "e"


def test_a_broken_kaggle_file_is_named_without_its_content(home: Path) -> None:
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "kaggle.json").write_text('{"username": "u", "key": "' + MARK)
    with pytest.raises(AccessError) as caught:
        look(home).kaggle()
    assert "kaggle.json" in str(caught.value)
    assert MARK not in "".join(traceback.format_exception(caught.value))


def test_the_signed_url_of_a_file_comes_before_the_environment(home: Path) -> None:
    (home / "url").write_text(' "https://a.blob.core.windows.net/c?sig=one"\n')
    credentials = Credentials(
        environment={"CXRPREP_KEYRING": "0", "CHEXPERT_URL": "https://b.example/c?sig=two"},
        home=home,
        link=home / "url",
    )
    found = credentials.signed_url()
    assert found is not None
    assert found.secret.reveal() == "https://a.blob.core.windows.net/c?sig=one"
    assert found.hosts == ("a.blob.core.windows.net",)


def test_a_renewed_url_is_read_again_after_a_refusal(home: Path) -> None:
    file = home / "url"
    file.write_text("https://a.example/c?sig=old")
    credentials = look(home, CHEXPERT_URL_FILE=str(file))
    assert credentials.signed_url() is not None
    credentials.refuse("chexpert")
    assert credentials.signed_url() is None
    credentials.refuse("chexpert")
    file.write_text("https://a.example/c?sig=new")
    found = credentials.signed_url()
    assert found is not None
    assert found.secret.reveal().endswith("sig=new")


@pytest.mark.parametrize("text", ["not a url", "ftp://a/b", "https://a.example/ b", "http://[bad/", "C:\\file"])
def test_text_that_is_no_url_is_refused_and_not_shown(home: Path, text: str) -> None:
    with pytest.raises(AccessError, match="CHEXPERT_URL does not hold a URL") as caught:
        look(home, CHEXPERT_URL=text).signed_url()
    assert text not in str(caught.value)


def test_an_empty_secret_file_is_said_to_be_empty(home: Path) -> None:
    (home / "url").write_text("\n")
    with pytest.raises(AccessError, match="is empty"):
        look(home, CHEXPERT_URL_FILE=str(home / "url")).signed_url()


def test_findings_hold_no_secret(home: Path) -> None:
    (home / ".netrc").write_text(f"machine physionet.org login me password {MARK}\n")
    found = look(home).found("physionet")
    assert found is not None
    assert found.account == "me"
    assert MARK not in repr(found)
    assert look(home).found("google") is None


def test_google_credentials_are_located_not_read(home: Path) -> None:
    assert look(home, GOOGLE_APPLICATION_CREDENTIALS="/k.json").found("google") is not None
    folder = home / ".config" / "gcloud"
    folder.mkdir(parents=True)
    (folder / "application_default_credentials.json").write_text("not even json")
    found = look(home).found("google")
    assert found is not None
    assert found.origin.endswith("application_default_credentials.json")
    assert look(home, GOOGLE_CLOUD_PROJECT="p").google_project() == "p"


def test_the_keyring_is_asked_between_environment_and_netrc(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip(
        "keyring", reason="keyring is not here; to run this test: pip install 'cxrprep[keyring]'"
    )
    from keyring.backend import KeyringBackend
    from keyring.credentials import SimpleCredential

    class Memory(KeyringBackend):
        priority = 1

        def get_credential(self, service: str, username: str | None) -> SimpleCredential | None:
            return SimpleCredential("ring", "of-ring") if service == "cxrprep:physionet" else None

        def get_password(self, service: str, username: str) -> str | None:
            return None

        def set_password(self, service: str, username: str, password: str) -> None:
            raise AssertionError("a look-up never writes")

    (home / ".netrc").write_text("machine physionet.org login file password of-file\n")
    before = keyring.get_keyring()
    keyring.set_keyring(Memory())  # type: ignore[no-untyped-call]  # keyring's base class has no annotations
    try:
        login = Credentials(environment={}, home=home).physionet()
        assert login is not None
        assert (login.user, login.origin) == ("ring", "keyring (cxrprep:physionet)")
        login = Credentials(environment={}, home=home, keyring=False).physionet()
        assert login is not None
        assert login.user == "file"
    finally:
        keyring.set_keyring(before)


@pytest.mark.parametrize("name", [".kaggle/kaggle.json", ".kaggle/credentials.json"])
def test_a_file_that_is_nested_without_end_is_no_bug(home: Path, name: str) -> None:
    (home / ".kaggle").mkdir()
    (home / name).write_text("[" * 60_000)
    if name.endswith("kaggle.json"):
        with pytest.raises(AccessError, match="not a Kaggle API file"):
            Credentials(environment={}, home=home, keyring=False).kaggle()
    else:
        assert Credentials(environment={}, home=home, keyring=False).kaggle() is None


def test_every_service_has_advice() -> None:
    assert set(ADVICE) == {"physionet", "kaggle", "google", "aws", "box", "huggingface", "chexpert"}
    assert all(len(text) < 250 and text == text.strip() for text in ADVICE.values())


def test_addresses_lose_their_signatures_and_logins() -> None:
    masked = mask_urls(
        f'GET "https://me:{MARK}@a.example/x/y.zip?sv=1&sig={MARK}" and HTTP://b.example?k={MARK}, then c?d'
    )
    assert MARK not in masked
    assert "a.example/x/y.zip?" in masked
    assert masked.endswith("then c?d")
    assert mask_urls("https://physionet.org/files/") == "https://physionet.org/files/"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_that_windows_wrote_are_read_like_any_other(home: Path, encoding: str) -> None:
    def write(name: str, text: str) -> Path:
        path = home / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
        return path

    write(".netrc", "machine physionet.org login me password right\n")
    password = write("password.txt", "of-file\n")
    link = write("link.txt", "https://example.org/c?sig=x\n")
    write(".kaggle/access_token", "KGAT_x\n")
    have = look(home, CHEXPERT_URL_FILE=str(link))
    login, token, signed = have.physionet(), have.kaggle(), have.signed_url()
    assert login is not None
    assert isinstance(token, Token)
    assert signed is not None
    assert (login.user, login.password.reveal()) == ("me", "right")
    assert (token.secret.reveal(), signed.secret.reveal()) == ("KGAT_x", "https://example.org/c?sig=x")
    named = look(home, PHYSIONET_USERNAME="you", PHYSIONET_PASSWORD_FILE=str(password)).physionet()
    assert named is not None
    assert named.password.reveal() == "of-file"
    (home / ".kaggle" / "access_token").unlink()
    write(".kaggle/kaggle.json", json.dumps({"username": "u", "key": "k"}))
    key = look(home).kaggle()
    assert isinstance(key, Login)
    assert (key.user, key.password.reveal()) == ("u", "k")


def test_netrc_may_name_ports_macros_and_comments(home: Path) -> None:
    (home / ".netrc").write_text(
        "# mine\nmachine other.org port 8443 login o password p\nmacdef init\ncd /pub\n\n"
        'machine physionet.org login "me" password "right word" port 443\n'
    )
    login = look(home).physionet()
    assert login is not None
    assert (login.user, login.password.reveal()) == ("me", "right word")
    other = look(home).host("other.org")
    assert other is not None
    assert other.password.reveal() == "p"


_SIGNED = "https://acc.blob.core.windows.net/c?sv=1&se=2&sr=c&sp=rl&sig=x%3D"


@pytest.mark.parametrize(
    "pasted",
    [
        f'azcopy copy "{_SIGNED}" "/data/chexpert" --recursive',
        f"./azcopy cp '{_SIGNED}' . --recursive=true",
        f"azcopy.exe copy {_SIGNED} C:\\data --recursive",
        f'$ sudo azcopy copy "{_SIGNED}" /data',
        f'& C:\\tools\\azcopy.exe copy "{_SIGNED.replace("&", "^&")}" C:\\data',
        f"azcopy copy \\\n  \u201c{_SIGNED}\u201d \\\n  data",
        f"Link: {_SIGNED}",
        f'export CHEXPERT_URL="{_SIGNED}"',
        f"\u201c{_SIGNED}\u201d",
        f"\ufeff{_SIGNED}",
        "\u2060" + _SIGNED.replace("&", "\u200b&") + "\u200b",
        _SIGNED.replace("&", "&amp;"),
        f"# the link of July\n{_SIGNED}\n",
        f"azcopy copy &quot;{_SIGNED.replace('&', '&#38;')}&quot; .",
        f"[the link]({_SIGNED})",
        f"The link is <{_SIGNED}>.",
        f"{_SIGNED}.",
        f'azcopy copy "{_SIGNED.replace("%", "%%")}" "%CD%"',
        _SIGNED.replace("&", "\\&").replace("?", "\\?"),
        f"<{_SIGNED}>",
        f"https://eur02.safelinks.protection.outlook.com/?url={quote(_SIGNED, safe='')}&data=05%7C01&reserved=0",
        f"Link <https://eur02.safelinks.protection.outlook.com/ap/x/?url={quote(_SIGNED, safe='')}&amp;data=05>",
    ],
)
def test_the_link_is_found_in_what_people_paste(home: Path, pasted: str) -> None:
    token = look(home, CHEXPERT_URL=pasted).signed_url()
    assert token is not None
    assert token.secret.reveal() == _SIGNED


@pytest.mark.parametrize(
    "pasted", ["azcopy login", f"azcopy copy {_SIGNED} {_SIGNED}2", _SIGNED[:60] + "\n" + _SIGNED[60:], "# a note"]
)
def test_what_holds_no_single_link_is_refused_unshown(home: Path, pasted: str) -> None:
    with pytest.raises(AccessError, match="does not hold a URL") as caught:
        look(home, CHEXPERT_URL=pasted).signed_url()
    assert "sig=" not in f"{caught.value} {caught.value.hint}"
