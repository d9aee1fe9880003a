"""`clawker-fw secrets`, and what other commands report about secrets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.errors import EngineError
from clawker_fw.model.containers import Mount
from clawker_fw.settings.secrets import vault
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command, Outcome, join

SETTINGS = """
rules:
  - {dst: api.test, path_rules: [{path: /v1}], inject: api}
  - {dst: plain.test}
"""
DECLARED = """
secrets:
  api:
    from: {file: token}
    hosts: [api.test]
    refresh: 30m
  other:
    from: {env: OTHER_TOKEN}
    header: x-key
    hosts: ["other.test:8443"]
"""
HIDDEN = "hidden-token"


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Start each test without obtained secrets, like a new process."""
    vault.known.cache_clear()
    yield
    vault.known.cache_clear()


@dataclass
class User:
    """A user with a file of secrets, who runs commands."""

    command: Command
    memory: MemoryEngine
    folder: Path
    said: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "clawker-fw.yaml").write_text(SETTINGS)
        self.declare(DECLARED)
        (self.folder / "token").write_text(HIDDEN)

    def declare(self, text: str) -> None:
        path = self.folder / "secrets.yaml"
        path.write_text(text)
        path.chmod(0o600)

    def __call__(self, *arguments: str, **environment: str) -> Outcome:
        """Run a command as a new process would, and check that no value is shown."""
        vault.known.cache_clear()
        said = self.command("--secrets", "secrets.yaml", *arguments, **environment)
        assert "hidden" not in said.out + said.err
        return said

    def json(self, *arguments: str, code: int | None = None) -> Any:  # noqa: ANN401 - JSON
        """Run a command, and return its JSON answer. Check its exit code if given."""
        outcome = self(*arguments, "--format", "json")
        assert code in {None, outcome.code}, outcome.err
        return outcome.answer

    @property
    def held(self) -> dict[str, str]:
        return {name: value for name, (value, _) in self.memory.inside("clawker-envoy").secrets.items()}


@pytest.fixture
def user(command: Command, memory: MemoryEngine, settings_file: Path) -> User:
    return User(command, memory, settings_file.parent)


def test_a_run_gives_and_a_list_tells(user: User) -> None:
    """The first run sends secrets; a lost one is reported and sent again without other changes."""
    assert user("run").code == 0
    assert user.held == {"api#bearer": f"Bearer {HIDDEN}"}
    listed = user("secrets", "list")
    assert listed.code == 0
    assert "in Envoy" in listed.out
    assert "no rule needs it" in listed.out
    first, second = user.json("secrets", "list")["secrets"]
    assert (first["state"], first["source"], first["hosts"], first["refresh"]) == (
        "given",
        "file",
        ["api.test:443"],
        1800,
    )
    assert first["rules"] == ["https api.test:443 inspected (/v1, deny others, inject api)"]
    assert (second["state"], second["header"], second["rules"]) == ("unused", "x-key", [])
    user.memory.inside("clawker-envoy").secrets.clear()
    drift = user("drift", "--format", "json")
    assert drift.code == 1
    (found,) = drift.findings
    assert (found["field"], found["running"], found["desired"], found["action"]) == (
        "secrets.api#bearer",
        None,
        "given",
        "give",
    )
    assert user.json("secrets", "list")["secrets"][0]["state"] == "absent"
    assert [each["kind"] for each in user.json("run", code=0)["steps"]] == ["give"]
    assert user.held == {"api#bearer": f"Bearer {HIDDEN}"}


def test_check_asks_each_source(user: User) -> None:
    """`check` needs no stack, and fails if one source fails."""
    failed = user("secrets", "check")
    assert failed.code == 3
    assert "The secret other can't be obtained from its environment variable: OTHER_TOKEN is not set here." in (
        failed.out
    )
    found = user.json("secrets", "check")["secrets"]
    assert [each["state"] for each in found] == ["obtained", "unavailable"]
    assert user("secrets", "check", OTHER_TOKEN=HIDDEN).code == 0
    user.declare(DECLARED.replace("api.test", "elsewhere.test"))
    assert user("secrets", "check", OTHER_TOKEN=HIDDEN).failure == (6, ["secret-not-for-host"])


def test_forgetting(user: User) -> None:
    """`forget` removes a secret from the running Envoy only."""
    assert user("secrets", "forget").code == 6, "there is no stack"
    user("run")
    assert user("secrets", "forget", "none").code == 6
    assert user("secrets", "forget", "other").out == "clawker: removed from Envoy: nothing\n"
    assert user("secrets", "forget", "api").out == "clawker: removed from Envoy: api#bearer\n"
    assert user.held == {}
    user("run")
    assert user("secrets", "forget").out == "clawker: removed from Envoy: api#bearer\n"
    (user.folder / "clawker-fw.yaml").write_text("rules: [{dst: plain.test}]\n")
    user("run")
    assert user("secrets", "forget").out == "clawker: removed from Envoy: nothing\n"


@pytest.mark.parametrize("name", ["api", ""])
@pytest.mark.parametrize(
    "lost", ["undeclared", "no-rule", "rejected-rules", "no-settings", "unreadable-file", "other-settings"]
)
def test_forgetting_needs_only_the_container(name: str, lost: str, user: User) -> None:
    """Secrets can be removed from Envoy whatever the state of the rules and the file of secrets."""
    user("run")
    settings = user.folder / "clawker-fw.yaml"
    match lost:
        case "undeclared":
            user.declare("secrets: {}")
        case "no-rule":
            settings.write_text("rules: [{dst: plain.test}]\n")
        case "rejected-rules":
            settings.write_text("rules: [{dst: https://half}]")
        case "no-settings":
            settings.unlink()
        case "unreadable-file":
            (user.folder / "secrets.yaml").chmod(0o644)
        case "other-settings":
            settings.rename(user.folder / "moved.yaml")
            settings.write_text("rules: [{dst: other.test}]\n")
    done = user("secrets", "forget", *filter(None, [name]))
    assert (done.code, done.out) == (0, "clawker: removed from Envoy: api#bearer\n")
    assert user.held == {}
    if name and lost == "undeclared":
        assert user("secrets", "forget", name).failure == (6, ["secret-unknown"])


def linked(user: User) -> None:
    """Have an agent replace another agent's mount by a link to the folder with the file of secrets."""
    (user.folder / "config").mkdir()
    for name in ("secrets.yaml", "token"):
        (user.folder / name).rename(user.folder / "config" / name)
    shared = user.folder / "shared"
    shared.mkdir()
    join(user.memory, "agent", mounts=(Mount("bind", "/data", str(shared / "data")),))
    (shared / "data").symlink_to(user.folder / "config")


@pytest.mark.parametrize("arguments", [("run",), ("drift",), ("status",), ("secrets", "list"), ("reload",)])
def test_a_link_that_an_agent_may_have_made_refuses_nothing(arguments: tuple[str, ...], user: User) -> None:
    """It is only a warning; otherwise an agent with a mount in that folder could block every command."""
    user("run")
    linked(user)
    vault.known.cache_clear()
    done = user.command("--secrets", "config/secrets.yaml", *arguments)
    assert done.code != 6, done.err
    assert "error[" not in done.err
    if arguments[0] == "drift":
        told = user.command.json("--secrets", "config/secrets.yaml", "drift")
        (warning,) = [each for each in told["warnings"] if each["code"] == "secrets-exposed"]
        assert "agent can write" in warning["message"]


def test_a_mount_of_the_file_of_secrets_refuses(user: User) -> None:
    """A mount by the file's own path is certain: no secrets are sent while an agent can write the file."""
    user("run")
    join(user.memory, "agent", mounts=(Mount("bind", "/data", str(user.folder)),))
    for verb in ("run", "drift"):
        assert user(verb).failure == (6, ["secrets-exposed"])


@pytest.mark.parametrize("code", ["engine-silent", "engine-unreachable", "helper-failed", "probe-unreadable"])
def test_secrets_that_cannot_be_compared_are_unknown(
    code: str, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy may have a revoked token, so no command says that the stack is current."""
    user("run")
    ask = MemoryEngine.ask_helper

    def fails(
        self: MemoryEngine, container: str, arguments: Sequence[str], silence: float, *, sent: bytes = b""
    ) -> object:
        if arguments[0] == "secrets":
            raise EngineError(code, "There was no answer.", context=["late"])
        return ask(self, container, arguments, silence, sent=sent)

    monkeypatch.setattr(MemoryEngine, "ask_helper", fails)
    told = user.json("drift", code=1)
    assert told["verdict"] == "unknown"
    envoy = told["siblings"][0]
    assert [(each["field"], each["running"]) for each in envoy["findings"]] == [
        ("answer", "secrets: There was no answer. late")
    ]
    assert user("run").code == 5


def test_what_envoy_does_not_load_is_an_error(user: User) -> None:
    """If Envoy still uses a secret, no command claims that it is gone."""
    user("run")
    user.memory.inside("clawker-envoy").secrets_unloaded.add("api#bearer")
    assert "  secrets in Envoy: api (what Envoy had before)\n" in user("drift").out
    for _ in range(2):
        assert user("secrets", "forget").failure == (4, ["secret-not-loaded"])
    assert user("run").code == 0
    assert user("drift").code == 0


def test_a_source_that_fails_changes_nothing(user: User) -> None:
    """A run fails before any change, and names the source and the reason."""
    (user.folder / "token").unlink()
    refused = user("run")
    assert refused.failure == (3, ["secret-unavailable"])
    assert "No such file" in refused.err
    assert user.memory.listing() == ()
    ran = user("run", "--without-secrets")
    assert ran.code == 0
    assert "warning[secret-unavailable]: The secret api can't be obtained" in ran.out
    assert user.held == {}
    assert user("reload").code == 3
    assert user("reload", "--without-secrets").code == 0
    assert "warning[secret-unavailable]" in user("drift").out
    (user.folder / "token").write_text(HIDDEN)
    assert user("reload").code == 0
    assert user.held == {"api#bearer": f"Bearer {HIDDEN}"}
    (user.folder / "token").unlink()
    assert user("run", "--without-secrets").code == 0
    assert user.held == {"api#bearer": f"Bearer {HIDDEN}"}, "Envoy goes on with what it has"


def test_the_last_rule_with_a_secret_goes(user: User) -> None:
    """The secret is removed from Envoy, even when its declaration is gone."""
    user("run")
    (user.folder / "clawker-fw.yaml").write_text("rules: [{dst: plain.test}]\n")
    (user.folder / "secrets.yaml").unlink()
    assert "  secrets in Envoy: api (not needed)\n" in user("drift").out
    assert user("reload").code == 0
    assert user.held == {}
    assert user("drift").code == 0


def test_a_file_that_others_can_use(user: User) -> None:
    """Every comparing command refuses it."""
    user("run")
    (user.folder / "secrets.yaml").chmod(0o644)
    for command in (("run",), ("drift",), ("secrets", "list"), ("secrets", "check")):
        assert user(*command).failure == (6, ["secrets-not-private"]), command


def test_a_rule_that_sends_a_secret_elsewhere(user: User) -> None:
    """The settings of a repository can't send a secret to a host of their choice."""
    settings = user.folder / "clawker-fw.yaml"
    settings.write_text(SETTINGS.replace("dst: api.test", "dst: evil.test"))
    refused = user("run")
    assert refused.failure == (6, ["secret-not-for-host"])
    assert "evil.test" in refused.err
    assert user.memory.listing() == ()


def test_rules_are_checked_without_an_engine(user: User) -> None:
    """Rules are checked against the user's file; without one, as in CI, there is a warning."""
    assert user("rules", "check").out.startswith("valid")
    user.declare(DECLARED.replace("api.test", "elsewhere.test"))
    assert user("rules", "check").code == 6
    elsewhere = user.command("rules", "check", XDG_CONFIG_HOME=str(user.folder / "none"))
    assert elsewhere.code == 0
    assert "warning[secret-unchecked]: " in elsewhere.out
    answer = user.command("rules", "check", "--format", "json", XDG_CONFIG_HOME=str(user.folder / "none"))
    assert [each["code"] for each in answer.answer["warnings"]] == ["secret-unchecked"]


def test_explain_tells_of_the_secret(user: User) -> None:
    """For an allowed request, `explain` gives the secret's name only."""
    user("run")
    user.memory.inside("clawker-envoy").zone["api.test"] = ("203.0.113.1",)
    url = "https://api.test/v1/x"
    assert "  secret     api, in place of what the agent sends\n" in user("explain", url).out
    found = user.json("explain", url)
    assert found["secret"].startswith("api")
    assert user.json("explain", "https://api.test/v2")["secret"] is None


def test_over_a_plain_engine(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are refused because others on the network could read them."""
    facts = replace(user.memory.facts(), endpoint="tcp://engine.test:2375", plain=True, named_by="--host")
    monkeypatch.setattr(user.memory, "facts", lambda: facts)
    assert user("run").failure == (6, ["secret-over-plain-engine"])


@pytest.mark.parametrize("trouble", ["undeclared", "elsewhere", "open to others"])
def test_secrets_that_can_not_be_used_cost_their_own_line(user: User, trouble: str) -> None:
    """`status --all` still lists other stacks, and `status` shows what it can without secrets."""
    (user.folder / "other.yaml").write_text("project: other\nrules: [{dst: b.test}]\n")
    for arguments in ((), ("--config", "other.yaml")):
        assert user(*arguments, "run").code == 0
    path = user.folder / "secrets.yaml"
    match trouble:
        case "undeclared":
            user.declare("secrets: {}\n")
        case "elsewhere":
            user.declare(DECLARED.replace("[api.test]", "[other.test]"))
        case _:
            path.chmod(0o666)
    first, other = user.json("status", "--all", code=0)["stacks"]
    assert (other["project"], other["verdict"]) == ("other", "current")
    assert (first["project"], first["verdict"], first["live_rules"]) == ("clawker", "unknown", 2)
    assert first["reason"]
    document = user.json("status", code=6)
    assert (document["verdict"], document["live_rules"]) == ("unknown", 2)
    assert document["unread"]["message"].partition(" (")[0] == first["reason"].partition(" (")[0]
    assert "2 rules live" in user("status").out
