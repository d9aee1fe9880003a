"""A run that ends at any writing call on a real engine: agents are served, and the next run completes the work.

Reading calls change nothing, so an end at one of them equals an end before the next writing call. The sweep over
every call, every fault and every kind of plan runs in memory (`tests/unit/test_sweep.py`). Here the two faults
take turns: each call meets one of them. Some stacks share the calls, so that no test takes long.
"""

import sys
from ipaddress import IPv4Address
from itertools import count

import pytest
from docker import APIClient

from devkit.faults import HIT, Fault
from devkit.firewall import RULES, Firewall
from devkit.peers import Peers
from devkit.waiting import until

DRAIN = ("--drain-timeout", "2")
"""A drain ends as soon as no connection is left. This is for a request that is under way on a busy machine."""

SHARES = 3
"""How many stacks there are. A stack's first call with a fault is its number, and each next one so many later."""


@pytest.mark.parametrize("share", range(1, SHARES + 1))
def test_an_upgrade_that_ends_at_any_call_is_finished_by_the_next_run(
    share: int, up: Firewall, peers: Peers, docker: APIClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each time, another label value makes both siblings stale. An agent sends one request after another.

    A neighbour tries a name without a rule at each address that Envoy can have: nobody hears of it.
    """
    origin = up.origin(peers, ["a.test", "h.test", "evil.test"], "--http", "80", "--https", "443", "--tell")
    status = up.status()
    network, dns = status["agent"]["network"], status["agent"]["dns"]
    load = ("load", "--rate", "50", "--seconds", "0", "https://a.test/", "http://h.test/")
    agent, hostile = peers.agent(network, dns, *load), peers.agent(network, dns)
    until(lambda: any(line["done"] for line in agent.said() if line["event"] == "progress"))
    first = IPv4Address(status["siblings"][0]["address"])
    envoys = {str(first), str(IPv4Address(int(first) ^ 1))}
    hits: list[str] = []
    for point in count(share, step=SHARES):
        fault = Fault.KILL if point % 2 else Fault.LOSE
        up.write(*RULES, otel={"infra_port": 4319 + point})
        command = [sys.executable, "-m", "devkit.faults", fault, str(point), *up.command("run", *DRAIN)[3:]]
        outcome = up.call_raw(command)
        hit = [line for line in outcome.err.splitlines() if line.startswith(HIT)]
        assert "Traceback" not in outcome.err, outcome.err
        if not hit:
            outcome.expect()
            break
        hits += hit
        for each in envoys:
            hostile.get("https://evil.test/", "--connect", each, "--timeout", "300ms")  # judged by who hears of it
        up.run(*DRAIN)
        assert up.current(), hit
        listed = docker.containers(all=True, filters={"name": up.project})
        names = sorted(name for each in listed for name in each["Names"])
        assert names == [f"/{up.project}-coredns", f"/{up.project}-envoy"], hit
    summary = agent.stop().last
    assert summary["failed"] == 0, f"{summary}\n{hits}"
    assert {each["host"] for each in origin.said() if each["event"] == "request"} == {"a.test", "h.test"}
    assert len(hits) > 1
    with capsys.disabled():
        print(f" [{len(hits)} points]", end="")  # noqa: T201 - how much was covered
