"""What rules are worth: `rules unused`, `narrow`, `check --against` and `list --used`."""

import json
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.model import Usage, Use
from devkit.memory.container import MemoryContainer
from devkit.memory.engine import MemoryEngine
from devkit.memory.helper import service_address
from tests.cli.conftest import Command

DAY = 86400
NOW = float(int(time.time()))
RULES = """\
rules:
  - dst: a.test
  - dst: .cdn.test
    note: "for 'them'"
  - {dst: .cdn.test, proto: http}
  - dst: no.cdn.test
    action: deny
  - {dst: old.test, port: 8443}
  - {dst: db.test, proto: tcp, port: 5432}
  - {dst: 10.1.2.3, as: at.test, proto: ssh, allow_private: true}
  - {dst: over.test, until: 2020-01-01T00:00:00Z}
include: [team.yaml]
presets: [pip]
"""
TEAM = "rules:\n  - dst: team.test\n"


def use(name: str, days: float = 0, protocol: str = "https", port: int = 443, **fields: int) -> Use:
    """Return a use so many days ago."""
    return Use(protocol, name, port, NOW - 20 * DAY, NOW - days * DAY, **{**AMOUNTS, **fields})


AMOUNTS = {"connections": 2, "received": 300, "sent": 4000}
USES = (
    use("a.test", 1),
    use("x.cdn.test", 2),
    use("y.cdn.test", 3, sent=5_000_000),
    use("z.cdn.test", 12),
    use("old.test", 15, port=8443),
    use("db.test", 0.5, "tcp", 5432),
    use("gone.test", 1),
)


@pytest.fixture
def envoy(command: Command, memory: MemoryEngine, settings_file: Path) -> MemoryContainer:
    """The Envoy of a stack that has known for 20 days what is used."""
    settings_file.write_text(RULES)
    (settings_file.parent / "team.yaml").write_text(TEAM)
    assert command("run").code == 0
    inside = memory.inside("clawker-envoy")
    inside.usage = Usage("one", NOW - 20 * DAY, NOW, USES)
    return inside


def test_unused_rules_and_how_to_remove_them(command: Command, envoy: MemoryContainer) -> None:
    """Each with its place. A rule counts as unused as far back as is known, and the answer says so."""
    envoy.usage = replace(envoy.usage, open={"443": 3, "8443": 1, "tcp": 5}, lost=2)  # type: ignore[type-var]
    outcome = command("rules", "unused", "--since", "10d")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    told = {each.split(": ")[0]: (each, lines[at + 1].strip()) for at, each in enumerate(lines) if " (" in each}
    assert told["unused  https old.test:8443 (clawker-fw.yaml, line 8)"] == (
        "unused  https old.test:8443 (clawker-fw.yaml, line 8): last used 15 d ago, 1 connection open on its port",
        "clawker-fw rules remove --proto https --port 8443 --action allow old.test",
    )
    assert told["unused  https team.test:443 (team.yaml, line 2)"][1] == "remove it in team.yaml, line 2"
    assert told["unused  ssh at.test:22 at 10.1.2.3 private (clawker-fw.yaml, line 10)"] == (
        "unused  ssh at.test:22 at 10.1.2.3 private (clawker-fw.yaml, line 10): no use is known",
        "clawker-fw rules remove --proto ssh --port 22 --as at.test --action allow 10.1.2.3",
    )
    (of_preset,) = {advice for each, (_, advice) in told.items() if "pypi.org" in each}
    assert of_preset == "write `{preset: pip, without: [pypi.org]}` in `presets`"
    assert not any(
        word in outcome.out for word in ("a.test:443", "https .cdn.test", "db.test", "over.test", "deny")
    )
    assert "http .cdn.test:80" in outcome.out
    assert " unused in the last 10 d." in outcome.out
    assert "Known only" not in outcome.out
    assert "2 lines of Envoy's could not be read" in outcome.out
    assert "A connection over https or http counts when it ends." in outcome.out


@pytest.mark.usefixtures("envoy")
def test_no_more_is_claimed_than_is_known(command: Command) -> None:
    """Of a longer time than is known, the answer says since when it is."""
    outcome = command("rules", "unused", "--since", "4w")
    assert "unused in the last 20 d." in outcome.out
    assert "20 d ago, and not for all of the 28 d asked for." in outcome.out
    answer = command("rules", "unused", "--since", "4w", "--format", "json").valid("rules-unused")
    assert answer["period"]["whole"] is False
    assert answer["period"]["known"] > answer["period"]["asked"]
    found = {each["rule"]: each for each in answer["unused"]}
    assert "https old.test:8443" not in found
    assert found["https team.test:443"]["used"] == {
        "last": None,
        "connections": 0,
        "received": 0,
        "sent": 0,
        "names": 0,
    }
    assert found["https pypi.org:443"]["preset"] == "pip"


@pytest.mark.usefixtures("envoy")
def test_the_advice_works(command: Command) -> None:
    """Each command that is told removes its rule, and then nothing else is unused by these."""
    lines = command("rules", "unused").out.splitlines()
    commands = [shlex.split(each)[1:] for each in lines if each.startswith("  clawker-fw ")]
    assert commands
    for each in commands:
        outcome = command(*each, "--no-reload")
        assert outcome.code == 0, outcome.err
        assert "removed" in outcome.out
    left = command("rules", "unused").out
    assert "clawker-fw rules remove" not in left


@pytest.mark.usefixtures("envoy")
def test_the_names_that_were_used_below_a_rule(command: Command) -> None:
    """With how much, and the commands that would allow only these; nothing is edited."""
    before = Path("clawker-fw.yaml").read_text()
    lines = command("rules", "narrow", ".cdn.test", "--since", "10d").out.splitlines()
    assert lines[0] == "http .cdn.test:80 (clawker-fw.yaml, line 5): 0 names used in the last 10 d"
    assert lines[1] == "Remove it: clawker-fw rules remove --proto http --port 80 --action allow .cdn.test"
    assert lines[2] == "https .cdn.test:443 (clawker-fw.yaml, line 3): 2 names used in the last 10 d"
    assert lines[3].split("  ")[1:] == [
        "https x.cdn.test:443",
        "2 connections, 300 B from agents, 4.0 kB to agents, last 2 d ago",
    ]
    assert "5.0 MB to agents" in lines[4]
    assert lines[6].strip().startswith("clawker-fw rules allow --proto https --port 443 --note ")
    assert Path("clawker-fw.yaml").read_text() == before
    for each in lines[6:8]:
        assert command(*shlex.split(each)[1:], "--no-reload").code == 0
    rules = command("rules", "list", "--format", "json").valid("rules-list")["rules"]
    narrow = [each for each in rules if each["dst"].endswith("cdn.test") and each["action"] == "allow"]
    assert [(each["dst"], each["proto"], each["note"]) for each in narrow] == [
        (".cdn.test", "http", ""),
        ("x.cdn.test", "https", "for 'them'"),
        ("y.cdn.test", "https", "for 'them'"),
    ]
    compared = command("rules", "check", "--against", "10d").out
    assert "cdn.test" not in compared


def test_names_that_are_not_told_apart(command: Command, envoy: MemoryContainer) -> None:
    """An agent that makes up names has filled the room: the answers say that there were more."""
    envoy.usage = replace(envoy.usage, rest=(use("r.cdn.test", 1, names=7000),))  # type: ignore[type-var]
    outcome = command("rules", "narrow", ".cdn.test")
    assert "At most 7000 more names not told apart any more: they would be refused." in outcome.out
    answer = command("rules", "narrow", ".cdn.test", "--format", "json").valid("rules-narrow")
    assert [(each["rule"], each["others"], len(each["used"])) for each in answer["narrowed"]] == [
        ("http .cdn.test:80", 0, 0),
        ("https .cdn.test:443", 7000, 3),
    ]
    assert answer["narrowed"][1]["rules"] == [f"https {each}.cdn.test:443" for each in "xyz"]
    listed = command("rules", "list", "--used", "--format", "json").valid("rules-list")
    (rule,) = [each for each in listed["rules"] if (each["dst"], each["proto"]) == (".cdn.test", "https")]
    assert rule["used"]["names"] == 7003
    checked = command("rules", "check", "--against", "7d")
    assert "At most 7000 more names not told apart any more: not all were checked." in checked.out


@pytest.mark.usefixtures("envoy")
@pytest.mark.parametrize(("name", "code"), [("cdn.test", 2), (".other.test", 6), ("a b", 2)])
def test_what_can_not_be_narrowed(command: Command, name: str, code: int) -> None:
    """A name without anything below it, one of no rule, and what is no name."""
    outcome = command("rules", "narrow", name)
    assert outcome.code == code
    assert outcome.out == ""


def test_what_edited_rules_would_change(
    command: Command, envoy: MemoryContainer, memory: MemoryEngine, settings_file: Path
) -> None:
    """What was used and would be refused, with why; and what was refused and would be allowed."""
    proxy, resolver = envoy, memory.inside("clawker-coredns")
    recent = time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime(NOW - DAY))
    proxy.logged_at = resolver.logged_at = recent
    refused = {"time": "x", "source": "10.213.0.9:1", "reason": "no-rule"}
    records = [
        {**refused, "protocol": "tls", "name": "new.test", "port": 443},
        {**refused, "protocol": "tls", "name": "new.test", "port": 8443},
        {**refused, "protocol": "tls", "name": "new.test", "port": 443, "reason": "no-address"},
        {**refused, "protocol": "tls", "name": "other.test", "port": 443},
        {
            **refused,
            "protocol": "tls",
            "name": "new.test",
            "port": 443,
            "source": f"{service_address(resolver)}:9",
        },
    ]
    proxy.log += [json.dumps(each, separators=(",", ":")) for each in records]
    asked = {**refused, "protocol": "dns", "name": "new.test", "port": 53, "type": "A"}
    resolver.log += [json.dumps(asked, separators=(",", ":"))] * 3
    edited = settings_file.with_name("edited.yaml")
    edited.write_text("rules: [{dst: a.test}, {dst: new.test}, {dst: x.cdn.test}]\n")
    before = command("rules", "check", "--against", "7d", "--format", "json")
    assert before.code == 1
    against = before.valid("rules-check")["against"]
    assert [each["used"]["name"] for each in against["refused"]] == ["gone.test"]
    assert against["allowed"] == []
    after = command("--config", str(edited), "rules", "check", "--against", "7d", "--format", "json")
    assert after.code == 1
    against = after.valid("rules-check")["against"]
    assert [(each["used"]["name"], each["reason"]) for each in against["refused"]] == [
        ("db.test", "no-rule"),
        ("gone.test", "no-rule"),
        ("y.cdn.test", "no-rule"),
    ]
    told = [(each["protocol"], each["name"], each["port"], each["times"]) for each in against["allowed"]]
    assert sorted(told) == [("dns", "new.test", 53, 3), ("tls", "new.test", 443, 1)]
    text = command("--config", str(edited), "rules", "check", "--against", "7d").out
    assert "refused  tcp db.test:5432  2 connections, last 12 h ago" in text
    assert "allowed  tls new.test:443  refused 1 time, last " in text
    assert "5 uses in the last 7 d: 3 would be refused. Of what was refused, 2 would be allowed." in text


def test_rules_that_change_nothing(command: Command, envoy: MemoryContainer) -> None:
    """Exit 0, and the answer says what was compared."""
    envoy.usage = replace(envoy.usage, uses=USES[:-1])  # type: ignore[type-var]
    outcome = command("rules", "check", "--against", "7d")
    assert outcome.code == 0
    assert "4 uses in the last 7 d: 0 would be refused. Of what was refused, 0 would be allowed." in outcome.out
    assert command("rules", "check", "--format", "json").valid("rules-check")["against"] is None


@pytest.mark.usefixtures("envoy")
def test_a_table_with_what_was_used(command: Command) -> None:
    """When last, how much, how many names; rules that deny or have ended are left out."""
    out = command("rules", "list", "--used").out
    (line,) = [each for each in out.splitlines() if "https .cdn.test" in each]
    assert " ".join(line.split()) == "https .cdn.test:443 2 d ago 6 900 B 5.0 MB 3 clawker-fw.yaml, line 3"
    assert "Known since" in out
    assert "over.test" not in out


def test_an_envoy_of_an_earlier_release(command: Command, envoy: MemoryContainer) -> None:
    """One error says so, and what to do: nothing is called unused."""
    sibling = json.loads(envoy.files["boot/sibling.json"].content)
    del sibling["usage"]
    file = envoy.files["boot/sibling.json"]
    envoy.files["boot/sibling.json"] = replace(file, content=json.dumps(sibling).encode())
    for words in (["unused"], ["narrow", ".cdn.test"], ["check", "--against", "7d"], ["list", "--used"]):
        outcome = command("rules", *words)
        assert (outcome.code, outcome.out) == (4, ""), words


@pytest.mark.parametrize("words", [["unused"], ["check", "--against", "7d"]])
def test_without_a_stack(command: Command, words: list[str]) -> None:
    """Nobody knows what is used: exit 6 with what to do."""
    outcome = command("rules", *words)
    assert (outcome.code, outcome.out) == (6, "")
    assert "clawker-fw run" in outcome.err


@pytest.mark.parametrize("since", ["0d", "400d", "1x", "-1d", ""])
def test_a_time_that_can_not_be(command: Command, since: str) -> None:
    """It is a mistake of the command line."""
    assert command("rules", "unused", "--since", since).code == 2


@pytest.mark.usefixtures("envoy")
def test_what_is_used_survives_a_replacement(command: Command, memory: MemoryEngine) -> None:
    """The new Envoy knows what the old one knew."""
    before = memory.inside("clawker-envoy").id
    assert command("run", "--force-recreate").code == 0
    inside = memory.inside("clawker-envoy")
    assert inside.id != before
    answer: Any = command("rules", "unused", "--since", "20d", "--format", "json").valid("rules-unused")
    assert "https a.test:443" not in {each["rule"] for each in answer["unused"]}
    assert answer["period"]["whole"] is True
