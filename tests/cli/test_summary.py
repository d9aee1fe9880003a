"""The first lines about a difference in each command."""

import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from clawker_fw.stack import coredns
from clawker_fw.stack.envoy import bounds, sibling
from clawker_fw.stack.files import public
from clawker_fw.stack.labels import STACK_BUILD_SHA
from devkit import stacks
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command

REPLACED = "Envoy and CoreDNS will be replaced, open connections are closed in a pause, or after 30 s:"
UPDATED = "The rules will change, no request is cut:"
UPGRADE = r"  change from 0\.2\.0 \([0-9a-f]{7}\) to 0\.2\.0 \([0-9a-f]{7}\)"

VERDICT = re.compile(r"(current|drifted|unknown|open)  clawker\b.*\n")


def below_the_verdict(out: str) -> str:
    """Return the text after the first line, which has the verdict and the advice."""
    verdict = VERDICT.match(out)
    assert verdict, out
    return out[verdict.end() :]


@pytest.fixture
def old(
    memory: MemoryEngine,
    command: Command,  # noqa: ARG001 - it makes time stand still
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stack created by another build from the same settings."""
    release = stacks.copied_release(tmp_path / "old")
    stacks.change_corefile(release)
    rules = ("a.test", {"dst": "h.test", "proto": "http"})
    with monkeypatch.context() as earlier:
        earlier.setattr(coredns, "_SOCKETS", "/as-it-was")
        earlier.setattr("clawker_fw.stack.envoy.sibling.ADMIN_SOCKET", "/as-it-was.sock")
        stacks.converged(memory, stacks.blueprint(memory.facts(), *rules, release=release))


@pytest.fixture
def newer(
    memory: MemoryEngine,
    command: Command,  # noqa: ARG001 - it makes time stand still
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stack created by a later release from the same settings, with other files of every kind."""
    release = stacks.copied_release(tmp_path / "newer")
    stacks.change_corefile(release)
    hot, boot = coredns.hot, coredns.boot
    with monkeypatch.context() as later:
        later.setattr(metadata, "version", lambda _: "9.9.9")
        later.setattr(coredns, "hot", lambda *given: {**hot(*given), "hot/later.json": public(b"{}")})
        later.setattr(coredns, "boot", lambda *given: {**boot(*given), "boot/later.json": public(b"{}")})
        later.setattr(coredns, "_SOCKETS", "/as-it-will-be")
        later.setattr(bounds, "BACKLOG", 8192)
        later.setattr(sibling, "ADMIN_SOCKET", "/as-it-will-be.sock")
        stacks.converged(
            memory, stacks.blueprint(memory.facts(), "a.test", {"dst": "h.test", "proto": "http"}, release=release)
        )
    for container in ("clawker-envoy", "clawker-coredns"):
        memory.inside(container).files["state/later.json"] = public(b"{}")


@pytest.mark.usefixtures("old")
def test_an_upgrade(command: Command) -> None:
    """Two lines: what happens and what agents notice, then both builds; `--diff` shows all."""
    drift = command("drift")
    first, second, *rest = below_the_verdict(drift.out).splitlines()
    assert first == REPLACED
    assert re.fullmatch(UPGRADE, second)
    assert re.fullmatch(r"\d+ fields differ; --diff shows all by layer\.", rest[0])
    assert rest[1:] == []
    assert below_the_verdict(command("run", "--dry-run").out).startswith(f"{first}\n{second}\n")
    assert f"{first}\n{second}\n" in command("status").out
    whole = below_the_verdict(command("drift", "--diff").out)
    document = command("drift", "--format", "json")
    assert len(document.findings) == 4
    for finding in document.findings:
        assert finding["field"].removeprefix("dev.clawker.firewall.") in whole
    assert "+++ desired boot/Corefile" in whole
    assert document.json["summary"] == command.json("run", "--dry-run")["summary"] == [first, second]
    assert command("run").err.startswith(f"{first}\n{second}\ndone ")
    assert command("drift").code == 0


@pytest.mark.usefixtures("newer")
def test_a_downgrade(command: Command) -> None:
    """A later release's files do not count as changed by hand, because its records describe them."""
    drift = command("drift")
    first, second, *_ = below_the_verdict(drift.out).splitlines()
    assert first == REPLACED
    assert re.fullmatch(r"  downgrade from 9\.9\.9 \([0-9a-f]{7}\) to 0\.2\.0 \([0-9a-f]{7}\)", second)
    assert "by hand" not in drift.out
    document = command.json("drift")
    causes = {each["field"]: each["cause"] for side in document["siblings"] for each in side["findings"]}
    assert set(causes.values()) == {"upgrade"}
    assert causes.keys() >= {
        "boot/bootstrap.json",
        "boot/later.json",
        "boot/Corefile",
        "hot/later.json",
        "hot/lds/listeners.json",
        "state/later.json",
        STACK_BUILD_SHA,
    }
    assert command("run").code == 0
    assert command("drift").code == 0


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (("allow", "new.test"), (UPDATED, "  + https new.test:443")),
        (
            ("remove", "a.test"),
            ("The rules will change, connections of affected rules are cut within 5 s:", "  - https a.test:443"),
        ),
        (("deny", "x.a.test"), (UPDATED, "  + deny any x.a.test")),
    ],
    ids=lambda value: value[0],
)
def test_an_edit_of_rules(arguments: tuple[str, ...], lines: tuple[str, ...], command: Command) -> None:
    """It shows added and removed rules and cut connections, as its dry run does, without a table of files."""
    command("run")
    planned = command("rules", *arguments, "--dry-run")
    assert planned.out.splitlines()[-len(lines) :] == [*lines]
    answer = command.json("rules", *arguments, "--dry-run")
    assert (answer["summary"], answer["changed"], planned.code) == ([*lines], False, 1)
    edited = command("rules", *arguments)
    said = edited.err.splitlines()
    assert tuple(said[: len(lines)]) == lines
    assert all(each.startswith("done ") for each in said[len(lines) :])
    assert len(edited.out.splitlines()) + len(said) <= 8


def test_a_dry_run_of_an_edit_that_can_not_be_applied(
    command: Command, memory: MemoryEngine, unreachable: Callable[[], None]
) -> None:
    """Without a stack or engine, only the file's change is shown; a change that would be refused says why."""
    shown = ("rules", "allow", "new.test", "--dry-run")
    without = command(*shown)
    assert (without.code, without.err) == (1, "")
    command("run")
    memory.remove("clawker-envoy")
    assert command(*shown).out == (
        f"{without.out}Refused for now: The stack clawker is not up: envoy missing.\n"
        "  Start it with `clawker-fw run`.\n"
    )
    unreachable()
    assert command(*shown) == without


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (
            lambda memory: memory.stop("clawker-coredns"),
            "CoreDNS will be started, no name resolves until then:\n  CoreDNS is stopped\n",
        ),
        (
            lambda memory: memory.remove("clawker-envoy"),
            "Envoy will be created, agents reach nothing until then:\n  Envoy is missing\n",
        ),
        (
            lambda memory: setattr(memory.inside("clawker-envoy"), "silent", "connection refused"),
            "Envoy will be replaced, open connections are cut:\n  Envoy does not answer\n",
        ),
        (
            lambda memory: setattr(memory.inside("clawker-coredns"), "silent", "connection refused"),
            "CoreDNS will be replaced, a lookup may be delayed:\n  CoreDNS does not answer\n",
        ),
    ],
    ids=["no resolver", "missing", "silent proxy", "silent resolver"],
)
def test_what_agents_have_until_then(
    harm: Callable[[MemoryEngine], None], words: str, command: Command, memory: MemoryEngine
) -> None:
    """The first line says so if nothing serves, or if connections will be cut."""
    command("run")
    harm(memory)
    assert below_the_verdict(command("drift").out).startswith(words)
    assert command("run").err.startswith(words)


def test_a_replacement_that_was_asked_for(command: Command) -> None:
    """The reason given is `--force-recreate`, and `drain_timeout: 0s` cuts connections."""
    command("run")
    dry = below_the_verdict(command("run", "--force-recreate", "--dry-run").out)
    assert dry.startswith(f"{REPLACED}\n  requested with --force-recreate\n")
    run = command("run", "--force-recreate", CLAWKER_FW_DRAIN_TIMEOUT="0s").err
    assert run.startswith("Envoy and CoreDNS will be replaced, open connections are cut:\n")


def test_what_follows_from_a_setting_is_behind_diff(command: Command, settings_file: Path) -> None:
    """A changed memory limit is one line; the values derived from it are shown with `--diff`."""
    command("run")
    settings_file.write_text(settings_file.read_text() + "resources: {envoy: {memory: 1GiB}}\n")
    plain, whole = (command("drift", *options).out for options in ((), ("--diff",)))
    assert "memory 2GiB → 1GiB" in plain
    assert re.findall(r"^ +shape +(\S+)", plain, re.MULTILINE) == ["memory"]
    assert {"memory", "memory_swap", "ulimits"} <= {*re.findall(r"^ +shape +(\S+)", whole, re.MULTILINE)}
