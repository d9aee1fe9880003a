"""TLS that is looked into, by the real Envoy: its choices compared with the policy's, and what reaches a host."""

import random
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import Protocol, RuleEntry
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import program
from devkit.inspecting import PORT, Host, Inspecting, certificate, own_address
from devkit.requests import random_request, random_words
from devkit.waiting import until

NAMES = ("a.test", "x.w.test", "y.w.test", "other.test", "unverified.test")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The host behind all names. It can't prove that it is `other.test` or `unverified.test`."""
    started = Host(tmp_path_factory.mktemp("host") / "tls", own_address(), "a.test", "*.w.test")
    yield started
    started.close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release, host: Host) -> Iterator[Inspecting]:
    """The proxy, for all tests here."""
    folder = tmp_path_factory.mktemp("inspecting")
    own = certificate(folder / "own", "*.test", "*.w.test")
    with NameServer(NAMES, own_address()) as names:
        started = Inspecting(folder, program(release), names.port, own, host.certificate)
        yield started
        started.process.terminate()
        started.process.wait()


@pytest.fixture(autouse=True)
def language(inspection: None) -> None:
    """Let rules have the words about paths."""


def rules(*entries: dict[str, Any]) -> RuleSet:
    """Return rules for the host's port."""
    return RuleSet.of(RuleEntry.model_validate({"port": PORT, **each}).rule() for each in entries)


def served(proxy: Inspecting, *entries: dict[str, Any]) -> Policy:
    """Have the proxy obey rules, and return what they say."""
    policy = Policy(rules(*entries))
    proxy.serve(policy.rules)
    until(proxy.serves)
    return policy


def test_envoy_decides_as_the_policy_does(proxy: Inspecting, host: Host, pytestconfig: pytest.Config) -> None:
    """For random rules and requests: what is allowed reaches the host, in the form in which it was judged."""
    seed = secrets.randbits(32)
    chosen = random.Random(seed)  # noqa: S311 - for variety
    answers: set[int] = set()
    for _ in range(15 * pytestconfig.getoption("--thorough")):
        words = {name: _valid(chosen, name) for name in ("a.test", ".w.test")}
        policy = served(proxy, *words.values())
        for _ in range(40):
            name = chosen.choice(("a.test", "x.w.test"))
            method, target = random_request(chosen, words["a.test" if name == "a.test" else ".w.test"])
            decided = policy.decide(name, Protocol.HTTPS, PORT, method, target)
            expected = {None: 200, Reason.PATH: 403, Reason.BAD_REQUEST: 400}[decided.reason]
            host.reached.clear()
            status, _ = proxy.ask(method, target, name)
            told = f"{method} {target} with {words}: {decided}, seed {seed}"
            assert status == expected, told
            assert [each.method for each in host.reached] == ([method] if status == 200 else []), told
            answers.add(status)
    assert answers == {200, 400, 403}


def _valid(chosen: random.Random, name: str) -> dict[str, Any]:
    while True:
        words = {"dst": name, "inspect": True, **random_words(chosen)}
        try:
            RuleEntry.model_validate({"port": PORT, **words}).rule()
        except ValueError:
            continue
        return words
