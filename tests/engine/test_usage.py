"""Rule usage in a real stack: agents' uses are counted, and kept over replacements and restarts."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from docker import APIClient

from devkit.firewall import RULES, Firewall
from devkit.peers import Peers
from devkit.waiting import until

SIZE = 100_000
WRITTEN_EVERY = 5  # seconds: `writeEvery` in go/internal/usage
OPAQUE = 9000
OWN = (
    {"dst": ".cdn.test", "allow_private": True},
    {"dst": "never.test", "allow_private": True},
    {"dst": "one.test", "proto": "tcp", "port": OPAQUE, "allow_private": True},
)
NAMES = ("a.test", "h.test", "x.cdn.test", "y.cdn.test", "never.test")


def used(firewall: Firewall) -> dict[str, Any]:
    answer = firewall.call("rules", "list", "--used", "--format", "json").expect().json
    return {each["dst"]: each["used"] for each in answer["rules"]}


def connections(firewall: Firewall) -> dict[str, int]:
    """Return how many connections each rule has allowed."""
    return {dst: each["connections"] for dst, each in used(firewall).items()}


def test_what_agents_use(firewall: Firewall, docker: APIClient, peers: Peers, tmp_path: Path) -> None:
    """Our own attempts do not count; a restart keeps the record, and a new Envoy starts another."""
    up = replace(firewall, variables={"XDG_STATE_HOME": str(tmp_path / "state")})
    up.write(*RULES, *OWN, limits={"idle": "10s"})
    up.run()
    up.origin(peers, NAMES)
    up.origin(peers, ["one.test"], "--https", str(OPAQUE), "--name", "one.test")
    agent = up.agent(peers)

    for _ in range(3):
        assert agent.get(f"https://a.test/bytes?size={SIZE}").ok
    for name in ("x", "x", "y"):
        assert agent.get(f"https://{name}.cdn.test/").ok
    assert agent.get("http://h.test/secret").ok
    assert agent.get(f"https://one.test:{OPAQUE}/").ok
    assert not agent.get("https://new.test/").ok
    assert up.call("explain", "https://never.test", "--live").expect().out

    counted = {"a.test": 3, ".cdn.test": 3, "h.test": 1, "one.test": 1, "never.test": 0}
    until(lambda: counted.items() <= connections(up).items(), 40)
    found = used(up)
    assert 3 * SIZE < found["a.test"]["sent"] < 3.1 * SIZE
    assert 0 < found["a.test"]["received"] < SIZE
    answer = up.call("rules", "unused", "--format", "json").expect().json
    assert [each["rule"] for each in answer["unused"]] == ["https never.test:443 private"]
    assert answer["period"]["whole"] is False
    assert answer["period"]["lost"] == 0
    logs = [docker.logs(up.container(each)) for each in ("envoy", "coredns")]
    assert not any(b"used https" in each or b"secret" in each for each in logs)

    time.sleep(2 * WRITTEN_EVERY)  # a restart ends the recorder before it can write
    docker.restart(up.container("envoy"), timeout=1)
    until(lambda: up.call("rules", "unused").code == 0)
    assert connections(up) == {dst: each["connections"] for dst, each in found.items()}
    until(lambda: agent.get("https://a.test/").ok, 20)  # a wrong neighbour entry would take half a minute
    until(lambda: connections(up)["a.test"] == 4)
    up.draining("1s").run("--force-recreate")
    assert set(connections(up).values()) == {0}
    until(up.current)
