"""A hostile agent while its stack is observed, and afterwards, judged by the logs of origins and name server."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from clawker_fw.rules.until import rfc3339
from clawker_fw.stack.envoy.sibling import DRAIN_SECONDS
from devkit.attacks.addresses import PRIVATE
from devkit.engines import private_engine
from devkit.firewall import Firewall
from devkit.hellos import client_hello
from devkit.host import client
from devkit.peers import KEEPALIVE, Answer, Peer, Peers
from devkit.programs import machine
from devkit.waiting import until
from devkit.witness import Witnesses
from devkit.world import NAMESERVER, WORLD, Program, World, world_around
from tests.engine.test_bad_days import fill, filler_of

RULES = (
    "pub.test",
    {"dst": "pub.test", "port": 8443},
    {"dst": ".denied.test", "action": "deny"},
    {"dst": "paths.test", "path_rules": [{"path": "/v1"}]},
    {"dst": "raw.test", "proto": "tcp", "port": 2222},
)
IN_THE_WORLD = ("pub", "free", "late", "denied", "x.denied", "x.never", "paths", "raw", "lan.local", "*.flood")
ZONE = {
    **{f"{name}.test": [WORLD] for name in IN_THE_WORLD},
    **{name: [WORLD] for name in ("single", "x.internal", "1.2.3.4")},
    **{f"{name}.test": [PRIVATE[name]] for name in ("local", "private", "shared")},
}
LONG = 3600
AHEAD = 20
"""Seconds until observing ends in a test of that: enough to apply it and to see it in effect."""

NEW_AT_ONCE, NEW_IN_A_SECOND, FLOODED = 200, 25, 6
"""New names of one agent (`go/internal/lookups`), and the seconds of the flood."""


@dataclass(frozen=True)
class Observed:
    """A firewall in a simulated internet, with an agent."""

    world: World
    firewall: Firewall
    peers: Peers
    agent: Peer
    names: Program
    envoy: str

    def until(self, seconds: float) -> int:
        """Observe for so many seconds, and return the end in seconds since 1970."""
        end = int(time.time() + seconds)
        self.firewall.write(*RULES, never=[".never.test"], observe={"until": rfc3339(end)})
        self.firewall.call("reload").expect()
        return end

    def get(self, url: str, *options: str) -> Answer:
        """Ask Envoy for a URL without the resolver."""
        return self.agent.get(url, "--connect", self.envoy, *options)

    def refused(self, attempt: Callable[[], Answer]) -> Answer:
        witnesses = Witnesses([self.world.origin])
        return witnesses.refused(attempt, self.agent, "https://pub.test")


@pytest.fixture(scope="module")
def observed(needs_engine: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """The site, for all tests of this module."""
    needs_engine()
    with (
        private_engine(dns=[NAMESERVER], disk="1g") as engine,
        world_around(engine, tmp_path_factory.mktemp("said"), machine()) as world,
        closing(client(engine.host)) as docker,
    ):
        world.add(*(PRIVATE[name] for name in ("local", "private", "shared")))
        folder = tmp_path_factory.mktemp("site")
        firewall = Firewall(engine.host, "clawker", folder, variables={"XDG_STATE_HOME": str(folder)})
        firewall.write(*RULES, never=[".never.test"])
        firewall.run()
        names, peers = world.resolve(ZONE, "--verbose"), Peers(docker)
        agent, envoy = firewall.agent(peers), firewall.status()["siblings"][0]["address"]
        yield Observed(world, firewall, peers, agent, names, envoy)
        filler_of(engine).unlink(missing_ok=True)


@pytest.fixture
def begun(observed: Observed) -> Observed:
    """The site, which is observed for long."""
    observed.until(LONG)
    return observed


def test_what_no_rule_names_passes_and_is_on_record(begun: Observed) -> None:
    """Over https on 443 and on the ports of rules, and over http on 80; every verdict is `observing`."""
    arrived = {"https://free.test/", "https://free.test:8443/", "http://free.test/"}
    for url in arrived:
        assert begun.agent.get(url).ok, url
    seen = {each["host"] for each in begun.world.origin.said() if each["event"] == "request"}
    assert {"free.test", "free.test:8443"} <= seen

    def recorded() -> bool:
        denials = begun.firewall.call("denials", "--reason", "observed", "--json").expect().json["denials"]
        found = {(each["protocol"], each["name"], each["port"]) for each in denials}
        return found == {("tls", "free.test", 443), ("tls", "free.test", 8443), ("http", "free.test", 80), _DNS}

    until(recorded)
    assert begun.firewall.status()["verdict"] == "observing"
    drift = begun.firewall.call("drift", "--json").expect(1).json
    assert (drift["verdict"], drift["siblings"][0]["findings"]) == ("observing", [])
    assert "observing" in {each["code"] for each in drift["warnings"]}
    assert "Until 20" in begun.agent.get("http://clawker.internal/").last["body"]
    assert (
        begun.firewall.call("explain", "https://free.test/", "--live", "--json").expect().json["reason"]
        == "observed"
    )


_DNS = ("dns", "free.test", 53)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("https://local.test/", ()),
        ("http://private.test/", ()),
        ("https://shared.test/", ()),
        ("https://x.denied.test/", ()),
        ("http://denied.test/", ()),
        ("https://x.never.test/", ()),
        ("http://x.never.test/", ()),
        ("https://paths.test/v2", ()),
        ("http://paths.test/v1", ()),
        ("https://raw.test/", ()),
        ("http://pub.test/", ()),
        ("https://free.test:8443/", ("--sni", "")),
        ("https://single/", ()),
        ("https://x.internal/", ()),
        ("http://1.2.3.4/", ()),
        (f"http://{WORLD}/", ()),
        ("https://nowhere.test/", ()),
        ("http://free.test:8080/", ()),
        ("http://free.test:8443/", ()),
        ("https://free.test:80/", ()),
    ],
)
def test_what_stays_refused(begun: Observed, url: str, options: tuple[str, ...]) -> None:
    """Neither by the resolver's answer nor at Envoy's address does anybody receive anything."""
    begun.refused(lambda: begun.agent.get(url, *options))
    answer = begun.refused(lambda: begun.get(url, *options))
    assert not answer.ok


def test_other_protocols_stay_refused(begun: Observed) -> None:
    """Nothing carries a name in them, so nobody is reached over TCP and UDP."""
    (address,) = begun.agent.ask("resolve", "free.test").last["answers"]
    assert address == begun.envoy
    for attempt in (("probe-tcp", f"{address}:2222"), ("resolve", "free.test", "--server", f"{address}:443")):
        assert not begun.refused(lambda: begun.agent.ask(*attempt, "--timeout", "1s")).ok  # noqa: B023 - at once


def test_invented_names_are_bounded(begun: Observed) -> None:
    """A flood of them makes no more lookups than the agent's share, and another agent is served meanwhile."""
    hello = client_hello(b"any-label-00.flood.test").hex()
    other = begun.firewall.agent(begun.peers)
    flood = ("siege", f"{begun.envoy}:443", "--count", "64", "--seconds", str(FLOODED), "--hex", hello, "--brief")
    before = time.monotonic()
    with begun.agent.asking(*flood) as end:
        for number in range(3):
            answer = other.get(f"https://late.test/{number}")
            assert answer.ok
        assert time.monotonic() - before < FLOODED
        end()
    took = time.monotonic() - before
    asked = {each["name"] for each in begun.names.said() if each["event"] == "query" and ".flood." in each["name"]}
    assert NEW_AT_ONCE // 4 < len(asked) <= NEW_AT_ONCE + NEW_IN_A_SECOND * (took + 1)
    other.remove()


def test_it_ends_by_itself(observed: Observed) -> None:
    """With a full disk, too: nobody is reached a second after its end, and then open connections are cut."""
    end = observed.until(AHEAD)
    kept = observed.firewall.agent(observed.peers, *KEEPALIVE, "https://free.test/", "--seconds", "0")
    plain = observed.firewall.agent(observed.peers, *KEEPALIVE, "http://free.test/", "--seconds", "0")
    fill(filler_of(observed.world.engine))
    for url in ("https://late.test/", "http://late.test/"):
        assert observed.get(url).ok
    assert time.time() < end, "it has ended before all was seen that goes before"
    until(lambda: time.time() >= end + 1, AHEAD + 2)
    for url in ("https://late.test/", "http://late.test/"):
        assert not observed.get(url).ok
    late = [each for each in observed.world.origin.said() if each.get("host") == "late.test"]
    assert late
    assert all(each["at_ms"] / 1000 < end + 1 for each in late)
    until(lambda: time.time() > end + DRAIN_SECONDS + 3, DRAIN_SECONDS + 5)
    last = max(each["at_ms"] for each in observed.world.origin.said() if each.get("host") == "free.test") / 1000
    assert end - 1 < last < end + DRAIN_SECONDS + 2
    assert kept.stop().last["failed"]
    assert plain.stop().last["failed"]
    assert observed.agent.get("https://late.test/").kind == "dns-nxdomain"
    assert observed.firewall.status()["verdict"] == "current"
    observed.firewall.call("drift").expect()
