"""The user's file of secrets: its content and its permissions."""

import os
from pathlib import Path

import pytest

from clawker_fw.errors import ExitCode, FirewallError
from clawker_fw.settings.secrets.declared import SecretsFile, default_path, parse_declared, read_owned

WHOLE = """
secrets:
  github:
    from: {command: [gh, auth, token]}
    refresh: 30m
    at_rest: true
    hosts: [github.com, API.GitHub.com, "git.example.com:8443"]
  anthropic:
    from: {env: ANTHROPIC_API_KEY}
    header: X-API-Key
    hosts: [api.anthropic.com]
  registry:
    from: {file: ./token}
    hosts: [registry.example.com]
"""


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "secrets.yaml"
    path.write_text(text)
    path.chmod(mode)
    return path


def read_declared(path: Path) -> SecretsFile:
    """Read a file of secrets as a command does."""
    return parse_declared(read_owned(path), path)


def refused(path: Path) -> FirewallError:
    with pytest.raises(FirewallError) as caught:
        read_declared(path)
    return caught.value


def test_all_that_can_be_said(tmp_path: Path) -> None:
    """Hosts are lower case with a port, headers lower case, times in seconds."""
    found = read_declared(written(tmp_path, WHOLE)).secrets
    assert list(found) == ["github", "anthropic", "registry"]
    github = found["github"]
    assert (github.source.kind, github.source.command, github.refresh) == (
        "command",
        ("gh", "auth", "token"),
        1800,
    )
    assert github.hosts == ("github.com:443", "api.github.com:443", "git.example.com:8443")
    assert (github.header, found["anthropic"].header) == ("authorization", "x-api-key")
    assert (github.at_rest, found["registry"].at_rest) == (True, False)
    assert [each.source.kind for each in found.values()] == ["command", "env", "file"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{hosts: [a.test]}", "`secrets.x.from` is missing"),
        ("{from: {env: A}, hosts: []}", "could go nowhere"),
        ("{from: {env: A, file: b}, hosts: [a.test]}", "comes from one of"),
        ("{from: {command: gh auth token}, hosts: [a.test]}", "`secrets.x.from.command` must be a list"),
        ("{from: {env: A}, hosts: [.a.test]}", "names that an agent chooses"),
        ("{from: {env: A}, hosts: ['https://a.test']}", "is not a host"),
        ("{from: {env: A}, hosts: [a.test], header: ':path'}", "is not the name of a header"),
        ("{from: {env: A}, hosts: [a.test], header: x-envoy-original-path}", "can't carry a secret"),
        ("{from: {env: A}, hosts: [a.test], refresh: 1s}", "refresh"),
        ("{from: {env: A}, hosts: [a.test], hots: []}", "`secrets.x.hots` is not a setting"),
    ],
)
def test_mistakes(tmp_path: Path, entry: str, said: str) -> None:
    """Each error is one sentence with its line, and nothing of the file is used."""
    error = refused(written(tmp_path, f"secrets:\n  x: {entry}\n"))
    assert error.exit_code is ExitCode.SETTINGS
    assert "secrets.yaml, line 2" in error.message
    assert said in error.message


@pytest.mark.parametrize("name", ["A", "a.b", "a#b", "-a", "a" * 64, "''"])
def test_names(tmp_path: Path, name: str) -> None:
    """A secret's name has no dot, so that no agent can request it as a server name."""
    error = refused(written(tmp_path, f"secrets:\n  {name}: {{from: {{env: A}}, hosts: [a.test]}}\n"))
    assert "is not a name for a secret" in error.message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602])
def test_a_file_that_others_can_use(tmp_path: Path, mode: int) -> None:
    """Others must not be able to write the file, because it says where secrets go."""
    error = refused(written(tmp_path, WHOLE, mode))
    assert (error.code, error.exit_code) == ("secrets-not-private", ExitCode.REFUSED)
    assert f"mode {mode:04o}" in error.message
    assert "chmod 600" in error.hint


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    """The file must belong to the user or to root."""
    path = written(tmp_path, WHOLE)
    os.chown(path, 4242, 4242)
    assert "belongs to user 4242" in refused(path).message


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe would block its reader, and a missing file is not an empty one."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is not a regular file" in refused(tmp_path / "pipe").message
    assert refused(tmp_path / "none").exit_code is ExitCode.SETTINGS
    assert refused(tmp_path).message
    assert read_declared(written(tmp_path, "")) == SecretsFile()
    assert refused(written(tmp_path, "- a\n")).exit_code is ExitCode.SETTINGS


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file is in the user's folder, independent of the current one."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_path() == tmp_path / "clawker-fw" / "secrets.yaml"
