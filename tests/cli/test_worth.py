"""Rule usage: `rules unused` and `list --used`."""

import json
import re
import shlex
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clawker_fw.model.usage import Usage, Use
from devkit.memory.container import MemoryContainer
from devkit.memory.engine import MemoryEngine
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
    """The Envoy of a stack with 20 days of usage."""
    settings_file.write_text(RULES)
    (settings_file.parent / "team.yaml").write_text(TEAM)
    assert command("run").code == 0
    inside = memory.inside("clawker-envoy")
    inside.usage = Usage("one", NOW - 20 * DAY, NOW, USES)
    return inside


def test_unused_rules_and_how_to_remove_them(command: Command, envoy: MemoryContainer) -> None:
    """Each has its place. The answer says how far back usage is known."""
    envoy.usage = replace(envoy.usage, open={"443": 3, "8443": 1, "tcp": 5}, lost=2)  # type: ignore[type-var]
    outcome = command("rules", "unused", "--since", "10d")
    assert outcome.code == 0
    verdict, *lines = outcome.out.splitlines()
    assert verdict == "6 of 9 rules that allow something are unused in the last 10 d."
    assert lines[0] == "2 lines of Envoy's could not be read, so uses may be missing."
    told = {each.split(": ")[0]: (each, lines[at + 1].strip()) for at, each in enumerate(lines) if " (" in each}
    assert told["unused  https old.test:8443 (clawker-fw.yaml, line 8)"] == (
        "unused  https old.test:8443 (clawker-fw.yaml, line 8): last used 15 d ago, 1 connection open on its port",
        "clawker-fw rules remove --proto https --port 8443 --action allow old.test",
    )
    assert told["unused  https team.test:443 (team.yaml, line 2)"][1] == "remove it in team.yaml, line 2"
    assert told["unused  ssh at.test:22 at 10.1.2.3 private (clawker-fw.yaml, line 10)"] == (
        "unused  ssh at.test:22 at 10.1.2.3 private (clawker-fw.yaml, line 10): no use is known",
        "clawker-fw rules remove --proto ssh --port 22 --action allow at.test",
    )
    (of_preset,) = {advice for each, (_, advice) in told.items() if "pypi.org" in each}
    assert of_preset == "clawker-fw rules deny --proto https --port 443 pypi.org"
    assert not any(
        word in outcome.out for word in ("a.test:443", "https .cdn.test", "db.test", "over.test", "unused  deny")
    )
    assert "http .cdn.test:80" in outcome.out
    assert "Known only" not in outcome.out
    assert "2 lines of Envoy's could not be read" in outcome.out
    assert "A connection over https or http counts when it ends." in outcome.out


@pytest.mark.usefixtures("envoy")
def test_no_more_is_claimed_than_is_known(command: Command) -> None:
    """If a longer time is asked for than is known, the answer says since when it is."""
    outcome = command("rules", "unused", "--since", "4w")
    assert "unused in the last 20 d." in outcome.out
    assert "20 d ago, and not for the whole 28 d." in outcome.out
    answer = command.json("rules", "unused", "--since", "4w")
    assert answer["period"]["whole"] is False
    assert answer["period"]["known"] > answer["period"]["asked"]
    found = {each["rule"]: each for each in answer["unused"]}
    assert "https old.test:8443" not in found
    assert found["https team.test:443"]["used"] == {
        "last": None,
        "connections": 0,
        "received": 0,
        "sent": 0,
    }
    assert found["https pypi.org:443"]["preset"] == "pip"


@pytest.mark.usefixtures("envoy")
def test_the_advice_works(command: Command) -> None:
    """Each printed command removes its rule; then no other one is unused."""
    lines = command("rules", "unused").out.splitlines()
    commands = [shlex.split(each)[1:] for each in lines if each.startswith("  clawker-fw ")]
    assert commands
    for each in commands:
        outcome = command(*each, "--no-reload")
        assert outcome.code == 0, outcome.err
        assert outcome.out.startswith(("removed", "added      deny https"))
    left = command("rules", "unused").out
    assert "clawker-fw rules" not in left


@pytest.mark.usefixtures("envoy")
def test_a_table_with_what_was_used(command: Command) -> None:
    """Last use and traffic of each rule; deny rules and expired rules are left out."""
    out = command("rules", "list", "--used").out
    (line,) = [each for each in out.splitlines() if "https .cdn.test" in each]
    assert " ".join(line.split()) == "https .cdn.test:443 2 d ago 6 900 bytes 5.0 MB clawker-fw.yaml, line 3"
    assert re.fullmatch(
        r"4 of 9 rules that allow something have been used since .+, 20 d ago\.", out.splitlines()[0]
    )
    assert "over.test" not in out


def test_an_envoy_of_an_earlier_release(command: Command, envoy: MemoryContainer) -> None:
    """One error explains it with a remedy, and no rule is called unused."""
    sibling = json.loads(envoy.files["boot/sibling.json"].content)
    del sibling["usage"]
    file = envoy.files["boot/sibling.json"]
    envoy.files["boot/sibling.json"] = replace(file, content=json.dumps(sibling).encode())
    for words in (["unused"], ["list", "--used"]):
        outcome = command("rules", *words)
        assert (outcome.code, outcome.out) == (4, ""), words


@pytest.mark.parametrize("words", [["unused"], ["list", "--used"]])
def test_without_a_stack(command: Command, words: list[str]) -> None:
    """Usage is unknown: exit code 6 with a remedy."""
    outcome = command("rules", *words)
    assert (outcome.code, outcome.out) == (6, "")
    assert "clawker-fw run" in outcome.err
