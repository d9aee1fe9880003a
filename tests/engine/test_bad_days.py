"""Failing engines and releases: one clear error, no partial change, and the next run succeeds."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient, errors

from clawker_fw.rules.until import rfc3339
from devkit.engines import PrivateEngine, private_engine
from devkit.firewall import RULES, SIBLINGS, Firewall, read_until_done
from devkit.host import client
from devkit.peers import Peer, Peers
from devkit.peers import peers as peers_of
from devkit.waiting import until


def names(docker: APIClient, firewall: Firewall) -> list[str]:
    found = docker.containers(all=True, filters={"name": firewall.project})
    return sorted(name for each in found for name in each["Names"])


def test_an_engine_that_restarts_in_the_middle(private: PrivateEngine, tmp_path: Path) -> None:
    """The run succeeds or ends with an engine error, and the next one makes everything current."""
    firewall = Firewall(private.host, "restarted", tmp_path)
    firewall.write("a.test")
    firewall.run()
    process = firewall.draining("1").start("run", "--force-recreate")
    read_until_done(process, "take the service address")
    private.restart()
    _, err = process.communicate(timeout=120)
    assert process.returncode in {0, 4, 5}
    assert "Traceback" not in err
    firewall.draining("1").run()
    assert firewall.drift().expect().findings == set()
    with closing(client(private.host)) as docker:
        assert names(docker, firewall) == ["/restarted-coredns", "/restarted-envoy"]


@pytest.fixture(scope="module")
def narrow(needs_engine: Callable[..., None]) -> Iterator[PrivateEngine]:
    """An engine with a small disk, which a test can fill."""
    needs_engine()
    with private_engine(disk="1g") as engine:
        yield engine


@pytest.fixture
def filled(narrow: PrivateEngine, tmp_path: Path) -> Iterator[tuple[Firewall, Peers, Peer, Path]]:
    """A stack with two rules on an engine with a full disk, its peers, an agent, and what fills the disk."""
    filler = filler_of(narrow)
    firewall = Firewall(narrow.host, "full", tmp_path)
    firewall.write(*RULES)
    with closing(client(narrow.host)) as docker, peers_of(docker) as around:
        firewall.run()
        firewall.origin(around, ["a.test", "h.test"])
        agent = firewall.agent(around)
        assert agent.get("http://h.test/").ok
        try:
            fill(filler)
            yield firewall, around, agent, filler
        finally:
            filler.unlink(missing_ok=True)
            firewall.call("down", "--force")


def filler_of(engine: PrivateEngine) -> Path:
    """Return the path of a file on an engine's disk."""
    return engine.root / f"{engine.folder}/data/filler".lstrip("/")


def fill(filler: Path) -> None:
    """Write a file until its disk is full to the last byte."""
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(b"x" * size):
                    pass
    with pytest.raises(OSError, match="No space left"):
        filler.with_name("more").write_bytes(b"x")


def test_a_rule_is_taken_away_while_the_disk_is_full(filled: tuple[Firewall, Peers, Peer, Path]) -> None:
    """The removed rule's traffic is refused, other rules' traffic passes, and nothing differs afterwards."""
    firewall, _, agent, _ = filled
    firewall.call("rules", "remove", "--no-reload", "h.test").expect()
    outcome = firewall.call("reload").expect()
    assert "Traceback" not in outcome.err
    assert not agent.get("http://h.test/").ok
    assert agent.get("https://a.test/").ok
    assert firewall.current()
    firewall.write()
    firewall.call("run").expect()
    assert not agent.get("https://a.test/").ok
    firewall.call("down", "--force").expect()
    with closing(client(firewall.host)) as docker:
        assert names(docker, firewall) == []


def test_a_rule_ends_while_the_disk_is_full(filled: tuple[Firewall, Peers, Peer, Path]) -> None:
    """Envoy refuses an expired rule's traffic within 5 s, also from agents that know its address."""
    firewall, around, agent, filler = filled
    filler.unlink()
    firewall.origin(around, ["e.test"])
    end = int(time.time()) + 15
    firewall.write(*RULES, {"dst": "e.test", "proto": "http", "allow_private": True, "until": rfc3339(end)})
    firewall.call("reload").expect()
    with closing(client(firewall.host)) as docker:
        at = docker.inspect_container(firewall.container("envoy"))["NetworkSettings"]["Networks"]
        envoy = at[f"{firewall.project}-net"]["IPAddress"]
        fill(filler)
        straight = partial(agent.get, "http://e.test/", "--connect", envoy)
        assert straight().ok
        assert time.time() < end, "the rule has ended before it was seen to be in force"
        until(lambda: time.time() > end, 40)
        until(lambda: not straight().ok, 5)
        assert agent.get("http://h.test/").ok


def test_refusals_after_a_full_disk_are_on_record(filled: tuple[Firewall, Peers, Peer, Path]) -> None:
    """Later refusals are shown. Earlier ones are shown and followed too, or fall into a reported gap."""
    firewall, _, agent, filler = filled
    filler.unlink()
    following = firewall.start("denials", "--follow", "--format", "json")
    said: list[Any] = []

    def read() -> None:
        for line in following.stdout or ():
            said.append(json.loads(line))  # noqa: PERF401 - each as it comes

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def followed(name: str, moment: str = "") -> bool:
        agent.get("http://next.test/")  # the engine may hold a line back until the next one
        names, gaps = {each.get("name") for each in said}, [each["gap"] for each in said if "gap" in each]
        return name in names or _in_a_gap(moment, gaps)

    try:
        until(partial(followed, "next.test"))  # from here on, it misses nothing
        refused: dict[str, str] = {}
        for turn in ("first", "second"):
            refused |= _refuse(agent, firewall, f"{turn}-before.test")
            fill(filler)
            for number in range(20):
                agent.get(f"http://{turn}-during{number}.test/")
            filler.unlink()
            agent.get("http://lost.test/")  # on one line with a truncated one
            refused |= _refuse(agent, firewall, f"{turn}-after.test")
        answer = firewall.call("denials", "--format", "json").expect().json
        missing = refused.keys() - {each["name"] for each in answer["denials"]}
        assert "second-after.test" not in missing
        assert all(_in_a_gap(refused[name], answer["gaps"]) for name in missing)
        assert [gap for gap in answer["gaps"] if gap["sibling"] == "coredns" and gap["until"]]
        assert "refusals of coredns may be missing" in firewall.call("denials").expect().out
        for name, moment in refused.items():
            until(partial(followed, name, moment))
        assert len([each for each in said if each.get("gap", {}).get("sibling") == "coredns"]) >= 2
    finally:
        following.send_signal(signal.SIGINT)
        reader.join(30)
        following.communicate(timeout=30)


def _in_a_gap(moment: str, gaps: list[Any]) -> bool:
    return any(gap["since"] < moment < (gap["until"] or "9") for gap in gaps if gap["sibling"] == "coredns")


def _refuse(agent: Peer, firewall: Firewall, name: str) -> dict[str, str]:
    """Have the resolver refuse a name, wait for the record, and return its time."""

    def shown() -> dict[str, str]:
        agent.get("http://next.test/")  # newer engines show a line after a truncated one only with the next one
        denials = firewall.call("denials", "--format", "json").expect().json["denials"]
        return {each["name"]: each["last"] for each in denials if each["name"] == name}

    assert agent.get(f"http://{name}/").kind == "dns-nxdomain"
    return until(shown)


def test_groups_keep_their_own_rules_while_the_disk_is_full(narrow: PrivateEngine, tmp_path: Path) -> None:
    """A rule taken from one group is refused there at once, and nothing of the other group changes."""
    filler, firewall = filler_of(narrow), Firewall(narrow.host, "crew", tmp_path)
    groups = {"web": "a.test", "work": "h.test"}
    firewall.write(groups={group: {"rules": [_plain(name)]} for group, name in groups.items()})
    with closing(client(narrow.host)) as docker, peers_of(docker) as around:
        firewall.run()
        stacks = firewall.call("status", "--format", "json").expect().json["stacks"]
        agents = {}
        for group, name in groups.items():
            around.origin(f"crew-{group}-egress", [*groups.values()], "--http", "80")
            (how,) = (stack["agent"] for stack in stacks if stack["group"] == group)
            agents[group] = around.agent(how["network"], how["dns"])
            assert agents[group].get(f"http://{name}/").ok
        try:
            fill(filler)
            for group, agent in agents.items():
                assert [name for name in groups.values() if agent.get(f"http://{name}/").ok] == [groups[group]]
            other = [docker.inspect_container(f"crew-work-{sibling}")["State"] for sibling in SIBLINGS]
            firewall.write(groups={"web": {}, "work": {"rules": [_plain("h.test")]}})
            firewall.call("reload").expect()
            assert not agents["web"].get("http://a.test/").ok
            assert agents["work"].get("http://h.test/").ok
            after = [docker.inspect_container(f"crew-work-{sibling}")["State"] for sibling in SIBLINGS]
            assert [state["StartedAt"] for state in after] == [state["StartedAt"] for state in other]
            assert firewall.current()
        finally:
            filler.unlink(missing_ok=True)
            around.remove_all()
            firewall.call("down", "--force")


def _plain(name: str) -> dict[str, object]:
    return {"dst": name, "proto": "http", "allow_private": True}


def test_what_needs_room_on_a_full_disk_is_an_error(filled: tuple[Firewall, Peers, Peer, Path]) -> None:
    """The error is clear and nothing changes; once the disk has room, the next run succeeds."""
    firewall, _, agent, filler = filled
    firewall.write(*RULES, limits={"connections": 100})
    outcome = firewall.call("run").expect(4)
    assert "error[engine-disk-full]" in outcome.err
    firewall.write(*RULES, *(f"{number:060}.test" for number in range(200)))
    outcome = firewall.call("reload").expect(4)
    assert "error[engine-disk-full]" in outcome.err
    assert "Traceback" not in outcome.err
    firewall.write(*RULES)
    assert firewall.current()
    assert agent.get("https://a.test/").ok
    firewall.write(*RULES, limits={"connections": 100})
    filler.unlink()
    firewall.draining("0").run()
    assert firewall.current()


def test_networks_that_went_while_who_was_on_them_was_stopped(kept: Firewall, docker: APIClient) -> None:
    """`docker network prune` can remove a stopped container's networks, which it remembers by id."""
    before = names(docker, kept)
    for sibling in ("envoy", "coredns"):
        docker.stop(kept.container(sibling), timeout=5)
    for end in ("egress", "net"):
        docker.remove_network(f"{kept.project}-{end}")
    assert kept.call("run").code == 0
    assert kept.current()
    assert names(docker, kept) == before


def test_a_network_that_is_full(firewall: Firewall, peers: Peers, docker: APIClient) -> None:
    """Agents can use up all agent addresses, but get none of a firewall container or a replacement."""
    firewall.write("a.test", network={"subnet": "10.213.255.128/25"})
    firewall.run()
    network = firewall.status()["agent"]["network"]
    refused: list[str] = []

    def start(_: int) -> None:
        if not refused:
            try:
                peers.start("wait", network=network)
            except errors.APIError as error:
                refused.append(str(error))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(128)))
    assert refused
    assert all("no available IPv4 addresses" in each for each in refused)
    firewall.draining("0").run("--force-recreate")
    assert firewall.current()
    assert len(docker.inspect_network(network)["Containers"]) > 50


def test_a_subnet_that_another_network_has(firewall: Firewall, peers: Peers, docker: APIClient) -> None:
    """An overlapping subnet is refused before any change, because some engines accept it."""
    taken = peers.start("wait", network="bridge")
    subnet = docker.inspect_network("bridge")["IPAM"]["Config"][0]["Subnet"]
    firewall.write("a.test", network={"subnet": subnet.replace("/16", "/20")})
    assert "error[subnet-taken]" in firewall.call("run").expect(3).err
    assert names(docker, firewall) == []
    taken.remove()
    firewall.write("a.test")
    firewall.run()
    assert firewall.current()
