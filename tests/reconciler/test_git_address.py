"""Which repositories, refs and paths a person may name."""

from __future__ import annotations

import base64

import pytest

from reconciler.adapters.git.address import address, checked_path, checked_ref, redacted
from reconciler.adapters.git.process import Git
from reconciler.errors import SourceUnusable


@pytest.mark.parametrize(
    ("text", "protocols"),
    [
        ("https://github.com/lab/apps", "https"),
        ("https://github.com:8443/lab/apps.git", "https"),
        ("ssh://git@github.com/lab/apps", "ssh"),
        ("git@github.com:lab/apps.git", "ssh"),
        ("http://127.0.0.1:8080/lab", "http"),
        ("http://localhost/lab", "http"),
    ],
)
def test_a_repository_is_named_by_url(text: str, protocols: str) -> None:
    found = address(text)
    assert (found.url, found.local, found.protocols) == (text, False, protocols)


@pytest.mark.parametrize("text", ["/srv/apps", "apps", "../apps", "./a b", "~/apps"])
def test_a_path_is_a_local_repository_and_needs_no_transport(text: str) -> None:
    found = address(text)
    assert found.local
    assert found.protocols == "none"
    assert found.url.startswith("/")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ext::sh -c 'touch pwned'",
        "ext::sh",
        "fd::17",
        "file:///etc",
        "http://example.org/apps",
        "ftp://example.org/apps",
        "git://example.org/apps",
        "--upload-pack=touch pwned",
        "-x",
        "https://-oProxyCommand=touch/x",
        "ssh://-oProxyCommand=touch/x",
        "ssh://git@-oProxyCommand=x/y",
        "-oProxyCommand=x@host:path",
        "git@-oProxyCommand=x:path",
        "git@host:-path",
        "ssh://git@host/-path",
        "ssh://git:secret@host/path",
        "https://exa mple.org/x",
        "https://example.org/\n-x",
        "https://example.org/\0",
        "https://[::1/x",
        "https://host:99999/x",
        "https://host\u202e/x",
    ],
)
def test_what_could_run_something_or_is_no_repository_is_refused(text: str) -> None:
    """SG-01, SG-02, SG-03."""
    with pytest.raises(SourceUnusable) as caught:
        address(text)
    assert "secret" not in str(caught.value)


def test_credentials_leave_the_url_and_are_never_shown() -> None:
    """SG-05."""
    found = address("https://anna:s3cr3t%21pw@github.com/lab/apps")
    assert found.url == "https://github.com/lab/apps"
    token = base64.b64encode(b"anna:s3cr3t!pw").decode()
    assert found.header == f"Authorization: Basic {token}"
    assert "s3cr3t" not in repr(found)
    assert token not in repr(found)
    told = redacted(f"fatal: https://anna:s3cr3t%21pw@github.com: s3cr3t!pw {token}", found.secrets)
    assert "s3cr3t" not in told
    assert token not in told


def test_a_token_alone_is_a_credential_too() -> None:
    found = address("https://ghp_abcdef@github.com/lab/apps")
    assert found.url == "https://github.com/lab/apps"
    assert "ghp_abcdef" not in repr(found)
    assert redacted("no access for ghp_abcdef", found.secrets) == "no access for ***"


def test_credentials_reach_git_by_environment_bound_to_their_host_never_by_argument() -> None:
    """SG-05."""
    git = Git(address=address("https://anna:s3cr3t@github.com/lab/apps"))
    command, environment = git._command(["fetch"]), git._environment()  # pyright: ignore[reportPrivateUsage]
    assert not any("s3cr3t" in word or "Authorization" in word for word in command)
    assert environment["GIT_CONFIG_KEY_0"] == "http.https://github.com/.extraHeader"
    assert environment["GIT_CONFIG_VALUE_0"].startswith("Authorization: Basic ")


def test_of_the_operators_git_settings_only_http_headers_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "http.https://a/.extraHeader": "X: 1",
        "core.sshCommand": "touch pwned",
        "core.fsmonitor": "touch pwned",
    }
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(settings)))
    for number, (key, value) in enumerate(settings.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/elsewhere")
    environment = Git(address=address("https://a/b"))._environment()  # pyright: ignore[reportPrivateUsage]
    assert environment["GIT_CONFIG_COUNT"] == "1"
    assert "touch pwned" not in environment.values()
    assert not {"GIT_DIR", "GIT_INDEX_FILE"} & set(environment)


@pytest.mark.parametrize(
    "ref", ["main", "feature/x", "v1.0.0", "refs/heads/main", "a" * 40, "1a2b3c4", "zweig-ä", "a@b"]
)
def test_a_ref_is_a_branch_a_tag_or_a_commit(ref: str) -> None:
    assert checked_ref(ref) == ref


@pytest.mark.parametrize("ref", [None, "HEAD"])
def test_no_ref_follows_the_default_branch(ref: str | None) -> None:
    assert checked_ref(ref) is None


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "-x",
        "--output=x",
        "refs/../..",
        "a..b",
        "a b",
        "a\nb",
        "a\0b",
        "a~1",
        "a^{}",
        "a:b",
        "a?",
        "a*",
        "[a",
        "a\\b",
        "@",
        "a@{1}",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.lock",
        "a.lock/b",
        "a.",
        "a" * 251,
        "a\u202eb",
    ],
)
def test_what_git_would_not_take_as_a_name_is_refused(ref: str) -> None:
    """SG-04."""
    with pytest.raises(SourceUnusable, match="is not a branch, tag or commit"):
        checked_ref(ref)


@pytest.mark.parametrize(
    ("path", "expected"), [("", ""), (".", ""), ("./", ""), ("a", "a"), ("a/b/", "a/b"), ("./a/b", "a/b")]
)
def test_a_path_is_a_folder_inside_the_repository(path: str, expected: str) -> None:
    assert checked_path(path) == expected


@pytest.mark.parametrize(
    "path", ["/etc", "..", "a/../..", "a//b", "a/./b", "-x", "a\\b", ".git", "a/.GIT/b", "a:b", "a\nb", ":(glob)*"]
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(SourceUnusable, match="is not a folder inside the repository"):
        checked_path(path)
