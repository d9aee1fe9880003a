"""The rendered zone in the real CoreDNS, on loopback: its answers against the matcher."""

import json
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from clawker_fw.rules.matcher import Matcher
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack import coredns
from clawker_fw.stack.container import ZONE
from clawker_fw.stack.release import Release
from devkit.peers import peer_program
from devkit.programs import free_port, machine
from devkit.stacks import rule_set
from devkit.strategies import names_near, rule_sets
from devkit.waiting import until

ENVOY = IPv4Address("10.213.8.10")

Ask = Callable[[str, str], dict[str, object]]


class Resolver:
    """A running CoreDNS whose zone can be replaced as `fwctl commit` does it."""

    def __init__(self, folder: Path, release: Release) -> None:
        """Start it with an empty zone."""
        self._release = release
        self._peer = str(peer_program(machine()))
        self._zone = folder / "root.zone"
        self._port = free_port()
        self.serve(RuleSet())
        corefile = folder / "Corefile"
        corefile.write_text(f".:{self._port} {{\n errors\n file {self._zone} {{\n reload 10ms\n }}\n}}\n")
        self.process = subprocess.Popen(
            [release.binary("coredns", machine()), "-conf", corefile], stdout=subprocess.DEVNULL
        )

    def serve(self, rules: RuleSet) -> str:
        """Put another zone into place and return its version."""
        files, version = coredns.hot(self._release, rules, ENVOY)
        fresh = self._zone.with_name("fresh")
        fresh.write_bytes(files[ZONE])
        fresh.replace(self._zone)
        return version

    def ask(self, name: str, kind: str = "A") -> dict[str, object]:
        """Ask it a question over DNS."""
        command = [self._peer, "resolve", name, "--type", kind, "--server", f"127.0.0.1:{self._port}"]
        return dict(json.loads(subprocess.run(command, capture_output=True, check=False).stdout))

    def serves(self, version: str) -> bool:
        """Whether the zone of a version is live."""
        return self.ask("version.clawker-fw.invalid", "TXT")["answers"] in ([version], [f'"{version}"'])


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Resolver]:
    """The resolver, for all tests here."""
    started = Resolver(tmp_path_factory.mktemp("coredns"), release)
    yield started
    started.process.kill()
    started.process.wait()


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(rule_sets(8))
def test_coredns_answers_what_the_matcher_resolves(resolver: Resolver, rules: RuleSet) -> None:
    """Whatever rules stand beside each other: an address exactly for the names that a rule is for."""
    version = resolver.serve(rules)
    until(lambda: resolver.serves(version))
    matcher = Matcher(rules)
    for name in names_near(rules)[:60]:
        answer = resolver.ask(name)
        assert bool(answer["answers"]) == matcher.resolves(name), (name, answer)
        if answer["answers"]:
            assert answer["answers"] == [str(ENVOY)]


def test_refusals_are_not_kept(resolver: Resolver) -> None:
    """A name that is allowed a moment later resolves at once: the negative TTL is the zone's."""
    version = resolver.serve(RuleSet())
    until(lambda: resolver.serves(version))
    assert resolver.ask("late.test")["rcode"] == "NXDOMAIN"
    version = resolver.serve(rule_set("late.test")[1])
    until(lambda: resolver.serves(version))
    answer = resolver.ask("late.test")
    assert (answer["answers"], answer["ttl"]) == ([str(ENVOY)], 1)
