"""`explain` on a real stack in a simulated internet, checked with the origin's log."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from devkit.engines import private_engine
from devkit.firewall import Firewall
from devkit.host import client
from devkit.peers import peers
from devkit.programs import machine
from devkit.waiting import until
from devkit.world import NAMESERVER, WORLD, World, world_around

PRIVATE = "10.9.9.9"
SILENT = "silent.test"
"""The collector of telemetry, whose name the name server does not answer."""

ZONE = {
    **{name: [WORLD] for name in ("a.test", "x.wild.test", "no.wild.test", "other.test", "voice.test")},
    **{name: [PRIVATE] for name in ("office.test", "home.test", "hidden.test")},
    "mixed.test": [PRIVATE, WORLD],
    "loop.test": ["127.0.0.1"],
    SILENT: ["203.0.113.99"],
}
CONTROL_PORT = 8080
CONTROL = f"http://a.test:{CONTROL_PORT}"
RULES: list[str | dict[str, Any]] = [
    "a.test",
    {"dst": "a.test", "proto": "http"},
    {"dst": "a.test", "port": 8443},
    ".wild.test",
    {"dst": "no.wild.test", "action": "deny"},
    "office.test",
    {"dst": "home.test", "allow_private": True},
    "mixed.test",
    {"dst": "loop.test", "allow_private": True},
    "gone.test",
    {"dst": "a.test", "proto": "http", "port": 8081},
    {"dst": "a.test", "proto": "http", "port": CONTROL_PORT},
    {"dst": "voice.test", "proto": "udp", "port": 5060},
    {"dst": "hidden.test", "proto": "udp", "port": 5060},
]


@dataclass(frozen=True)
class Place:
    """A firewall, and the internet around it."""

    firewall: Firewall
    world: World

    def explain(self, *arguments: str) -> tuple[int, Any]:
        outcome = self.firewall.call("explain", "--format", "json", *arguments)
        assert outcome.out, outcome.err
        return outcome.code, outcome.json

    def explain_all(self, asked: Iterable[str], *arguments: str) -> Mapping[str, tuple[int, Any]]:
        """Return exit code and answer for each, explained several at once because most of the time is waiting."""
        several = list(asked)
        with ThreadPoolExecutor(4) as pool:
            return dict(zip(several, pool.map(lambda each: self.explain(each, *arguments), several), strict=True))

    def effects(self, before: int) -> list[tuple[str, int]]:
        """Return the connections and requests that reached the origin before those of a control."""
        assert self.explain(CONTROL, "--live")[0] == 0
        until(lambda: any(each == ("request", CONTROL_PORT) for each in self.arrived()[before:]))
        return [each for each in self.arrived()[before:] if each[1] != CONTROL_PORT]

    def arrived(self) -> list[tuple[str, int]]:
        """Return all connections and requests that reached the origin, with their ports."""
        said = self.world.origin.said()
        return [(each["event"], each["port"]) for each in said if each["event"] in {"connection", "request"}]


@pytest.fixture(scope="module")
def place(needs_engine: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A firewall in a simulated internet, for all tests of this module."""
    needs_engine()
    with (
        private_engine(dns=[NAMESERVER]) as engine,
        world_around(engine, tmp_path_factory.mktemp("said"), machine()) as world,
    ):
        world.add(PRIVATE)
        world.resolve(ZONE, "--slow", f"{SILENT}=1h")
        folder = tmp_path_factory.mktemp("place")
        firewall = Firewall(engine.host, "clawker", folder, variables={"XDG_STATE_HOME": str(folder)})
        firewall.write(*RULES, otel={"endpoint": f"{SILENT}:4317"})
        assert firewall.run().seconds < 60
        yield Place(firewall, world)


def test_no_collector_is_waited_for(place: Place) -> None:
    """If the collector's name does not resolve, neither the start nor an agent is delayed."""
    with closing(client(place.firewall.host)) as docker, peers(docker) as around:
        agent = place.firewall.agent(around)
        for _ in range(20):
            assert agent.get("https://a.test/").ok
    assert place.firewall.current()


EXPLAINED: Mapping[str, tuple[str | None, Mapping[str, bool]]] = {
    "https://a.test/path?secret": (None, {WORLD: True}),
    "other.test": ("no-rule", {WORLD: True}),
    "office.test": ("private-address", {PRIVATE: False}),
    "home.test": (None, {PRIVATE: True}),
    "mixed.test": (None, {PRIVATE: False, WORLD: True}),
    "loop.test": ("private-address", {"127.0.0.1": False}),
    "gone.test": ("no-address", {}),
}
"""The target, the reason of its refusal, and whether the rule may reach each address."""


def test_what_is_explained(place: Place) -> None:
    """The reason and the addresses are explained, with their reachability, and nothing is contacted."""
    before = len(place.arrived())
    answers = place.explain_all(EXPLAINED)
    assert {
        asked: answer["unasked"] for asked, (_, answer) in answers.items() if answer["addresses"] is None
    } == {}
    found = {
        asked: (answer["reason"], {each["address"]: each["reachable"] for each in answer["addresses"]})
        for asked, (_, answer) in answers.items()
    }
    assert found == EXPLAINED
    for asked, (code, answer) in answers.items():
        refused = EXPLAINED[asked][0] is not None
        assert (code, answer["allowed"]) == (1 if refused else 0, not refused), asked
        assert (answer["other_rules"], answer["unasked"], answer["live"]) == (False, None, None), asked
    assert place.effects(before) == []


GETS_THROUGH: Mapping[str, tuple[str, list[tuple[str, int]]]] = {
    "a.test": ("handshake", [("connection", 443)]),
    "x.wild.test": ("handshake", [("connection", 443)]),
    "a.test:8443": ("handshake", [("connection", 8443)]),
    "home.test": ("handshake", [("connection", 443)]),
    "http://a.test": ("request", [("connection", 80), ("request", 80)]),
    "udp://voice.test:5060": ("datagram", []),
}
"""The target, the last step, and what the origin sees of the attempt."""


def test_what_gets_through(place: Place) -> None:
    """An allowed attempt reaches the origin, with a handshake and at most one request."""
    before = len(place.arrived())
    said = {"request": "HTTP 200", "handshake": "a host answered", "datagram": "no answer"}
    for asked, (code, answer) in place.explain_all(GETS_THROUGH, "--live").items():
        last, _ = GETS_THROUGH[asked]
        assert (code, answer["live"]["passed"], answer["live"]["contradicts"]) == (0, True, False), asked
        assert [each["step"] for each in answer["live"]["steps"]] == ["resolve", "connect", last], asked
        assert answer["live"]["steps"][-1]["outcome"] == said[last], asked
    expected = [effect for _, effects in GETS_THROUGH.values() for effect in effects]
    assert sorted(place.effects(before)) == sorted(expected)


REFUSED: Mapping[str, tuple[str | None, str | None, list[str]]] = {
    "other.test": ("no-rule", "no-rule", ["resolve"]),
    "no.wild.test": ("denied", "denied", ["resolve"]),
    "http://x.wild.test": ("wrong-port", "no-rule", ["resolve", "connect", "request"]),
    "https://a.test:80": ("wrong-port", "no-rule", ["resolve", "connect", "handshake"]),
    "a.test:2222": ("wrong-port", None, ["resolve", "connect"]),
    "office.test": ("private-address", "private-address", ["resolve", "connect", "handshake"]),
    "gone.test": ("no-address", "no-address", ["resolve", "connect", "handshake"]),
    "http://a.test:8081": (None, "unreachable", ["resolve", "connect", "request"]),
    "udp://hidden.test:5060": ("private-address", "private-address", ["resolve", "connect", "datagram"]),
    "udp://voice.test:5061": ("wrong-port", None, ["resolve", "connect", "datagram"]),
}
"""The target, the reason by the rules, the reason on record, and the steps."""


def test_what_is_refused_when_it_is_tried(place: Place) -> None:
    """The firewall's record has the reason, the rules agree, and the origin sees nothing."""
    before = len(place.arrived())
    answers = place.explain_all(REFUSED, "--live")
    found = {
        asked: (answer["reason"], answer["live"]["reason"], [each["step"] for each in answer["live"]["steps"]])
        for asked, (_, answer) in answers.items()
    }
    assert found == REFUSED
    for asked, (code, answer) in answers.items():
        assert (code, answer["live"]["passed"], answer["live"]["contradicts"]) == (1, False, False), asked
    assert place.effects(before) == []
