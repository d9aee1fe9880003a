"""Confinement of agents: every known bypass, and settings that are harmless."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.agents.exposure import Exposure, engine_ways
from clawker_fw.agents.judge import Agent, Confinement, judge, resolving, verdict
from clawker_fw.model.containers import ContainerSpec, Mount, Shape
from clawker_fw.model.differences import Verdict
from clawker_fw.model.networks import NetworkSpec
from clawker_fw.model.observed import Observed
from clawker_fw.model.volumes import VolumeView
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.observe import observe
from clawker_fw.stack import labels
from devkit import stacks
from devkit.memory.engine import MemoryEngine

RESOLVER = "10.213.1.53"
CONFINED: Mapping[str, Any] = {"dns": (RESOLVER,), "dns_search": (".",), "capabilities_dropped": ("NET_RAW",)}


@pytest.fixture
def engine(memory: MemoryEngine) -> MemoryEngine:
    """An engine with a stack, an external network, an internal one, and an internal one without the host."""
    stacks.converged(memory, stacks.blueprint(memory.facts(), "a.test"))
    for name, octet, internal, options in (
        ("world", 1, False, {}),
        ("inner", 2, True, {}),
        ("quiet", 3, True, {"com.docker.network.bridge.inhibit_ipv4": "true"}),
    ):
        subnet = IPv4Network(f"172.30.{octet}.0/24")
        spec = NetworkSpec(name, subnet, subnet[1], subnet, internal, options, {})
        memory.create_network(spec)
    return memory


@pytest.fixture(autouse=True)
def trust(engine: MemoryEngine) -> None:
    """A volume with the roots that agents trust."""
    made = {**labels.ownership_labels("clawker"), labels.TRUST: "0"}
    engine.drivers["clawker-trust-0"] = VolumeView("clawker-trust-0", "local", {}, made)


def judged(engine: MemoryEngine, *exposures: Exposure) -> tuple[Agent, ...]:
    return judged_by(observe(engine, "clawker"), "unix:///x/my.sock", exposures)


def judged_by(observed: Observed, endpoint: str, exposures: Iterable[Exposure] = ()) -> tuple[Agent, ...]:
    """Return the agents of an observed stack on the engine at this address."""
    ways = engine_ways(replace(observed.engine, endpoint=endpoint))
    return judge(observed, "clawker", ways, exposures, resolving(observed, 0))


def started(engine: MemoryEngine, name: str = "agent", *networks: str, **shape: Any) -> ContainerSpec:  # noqa: ANN401 - fields of a shape
    """Start an agent as documented, except for these networks and fields."""
    image = engine.inside("clawker-coredns").spec.image
    on = dict.fromkeys(("clawker-net", *networks), "")
    agent = ContainerSpec(name, image, {}, Shape((), (), on, **{**CONFINED, **shape}))
    engine.start(engine.create_container(agent))
    return agent


OPEN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "privileged": ("privileged", {"privileged": True}),
    "NET_ADMIN": ("capability", {"capabilities_added": ("NET_ADMIN",)}),
    "all capabilities": ("capability", {"capabilities_added": ("ALL",)}),
    "no DNS server": ("dns", {"dns": ()}),
    "another DNS server": ("dns", {"dns": ("1.1.1.1",)}),
    "a second DNS server": ("dns", {"dns": (RESOLVER, "1.1.1.1")}),
    "IPv6": ("ipv6", {"sysctls": {"net.ipv6.conf.all.disable_ipv6": "0"}}),
    "the engine's socket": ("engine", {"mounts": (Mount("bind", "/s", "/var/run/docker.sock", read_only=True),)}),
    "its own socket": ("engine", {"mounts": (Mount("bind", "/s", "/x/my.sock"),)}),
    "a folder above it": ("engine", {"mounts": (Mount("bind", "/host", "/"),)}),
    "the engine's data": ("engine", {"mounts": (Mount("bind", "/d", "/var/lib/docker/volumes"),)}),
    "a device": ("device", {"devices": ("/dev/kvm",)}),
    "a rule for devices": ("device", {"device_rules": ("c 1:3 rwm",)}),
    "the host's processes": ("host-pid", {"pid_mode": "host"}),
    "the kernel's settings": ("system-paths", {"system_paths": "unconfined"}),
    "the host's clock": ("capability", {"capabilities_added": ("SYS_TIME",)}),
    "the files of a sibling": ("sibling-files", {"volumes_from": ("clawker-envoy",)}),
    "what agents trust, to write": ("trust", {"mounts": (Mount("volume", "/x", "clawker-trust-0"),)}),
    "the processes of a sibling": ("sibling-processes", {"pid_mode": "container:clawker-envoy"}),
    "the memory of a sibling": ("sibling-memory", {"ipc_mode": "container:clawker-coredns"}),
    "the processes of nobody known": ("processes", {"pid_mode": "container:gone"}),
    "a name that a rule allows": ("name", {"hostname": "a.test"}),
    "an alias that a rule allows": ("name", {"aliases": ("clawker-net:agent", "clawker-net:A.test")}),
    "a device that a file of the host describes": ("device", {"device_requests": ('{"Driver": "cdi"}',)}),
    **{
        f"{source} of the host": ("host-mount", {"mounts": (Mount("bind", "/s", source, read_only=read_only),)})
        for source, read_only in (
            *(("/proc", True), ("/proc/1/root", True), ("/sys", True), ("/sys/fs/cgroup", False), ("/dev", True)),
            *(("/dev/mapper/vg-root", True), ("/run/dbus/system_bus_socket", True)),
            *(("/run/podman/podman.sock", True), ("/var/run/crio/crio.sock", False), ("//run//systemd", True)),
            *(("/run/user/1000/docker.sock", True), ("/run/user/1000/bus", True)),
            *(("/var/lib/containerd", True), ("/var/lib/kubelet/pods", True), ("/var/lib/containers", True)),
            *(("/etc", False), ("/etc/cron.d", False), ("/usr/local/bin", False), ("/var/spool/cron", False)),
            *(("/host_mnt/etc", False), ("/lib/systemd/system", False)),
        )
    },
    "the engine's socket, spelled otherwise": ("engine", {"mounts": (Mount("bind", "/s", "//srv/../run"),)}),
}


def test_an_agent_as_documented_is_fenced(engine: MemoryEngine) -> None:
    """A documented agent is confined, with all its fields reported, and does not change the stack's verdict."""
    spec = started(engine)
    (agent,) = judged(engine)
    assert (agent.confinement, agent.openings, agent.weaknesses) == (Confinement.FENCED, (), ())
    assert (agent.name, agent.image) == ("agent", spec.image)
    assert agent.address.startswith("10.213.")
    assert agent.since
    assert verdict(Verdict.DRIFTED, [agent]) is Verdict.DRIFTED


WEAK: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "an unusual capability": ("capability", {"capabilities_added": ("SYS_RESOURCE", "CHOWN")}),
    "settings of its network": ("sysctl", {"sysctls": {"net.ipv4.conf.all.proxy_arp": "1"}}),
    "the host's name": ("host-namespace", {"uts_mode": "host"}),
    "the host's users": ("host-namespace", {"userns_mode": "host"}),
    "no AppArmor profile": ("apparmor", {"security_options": ("apparmor=unconfined",)}),
    "the host's memory": ("shared-memory", {"ipc_mode": "host"}),
    "no seccomp profile": ("seccomp", {"security_options": ("seccomp=unconfined", "no-new-privileges")}),
    "raw packets, which nobody dropped": ("raw-packets", {"capabilities_dropped": ()}),
    "raw packets, which were added": ("raw-packets", {"capabilities_added": ("NET_RAW",)}),
}


@pytest.mark.parametrize(
    ("address", "opens"), [("10.213.0.77", 0), ("10.213.1.53", 1), ("fd00::1", 0), ("envoy", 1)]
)
def test_an_address_that_was_asked_for(address: str, opens: int, engine: MemoryEngine) -> None:
    """A requested address is a warning, and a bypass if it belongs to the firewall (IP or MAC address)."""
    started(engine)
    observed = observe(engine, "clawker")
    (envoy,) = (each for each in observed.listing if each.name == "clawker-envoy")
    asked = envoy.networks["clawker-net"].hardware.upper() if address == "envoy" else address
    (view,) = observed.agents
    found = replace(observed, agents=(replace(view, requested={"clawker-net": (asked,), "other": ("10.1.1.1",)}),))
    (agent,) = judged_by(found, "unix:///x/my.sock")
    assert [each.code for each in agent.openings] == ["address"] * opens
    assert [each.code for each in agent.weaknesses] == ["address"]


def test_labels_of_ours_are_a_weakness(engine: MemoryEngine) -> None:
    """Our labels on an agent make nothing ours, but they are a warning because they mislead readers."""
    spec = started(engine)
    engine.inside("agent").spec = replace(spec, labels={"dev.clawker.managed": "true", "role": "agent"})
    (agent,) = judged(engine)
    assert [each.code for each in agent.weaknesses] == ["labels"]


def test_a_link_to_the_engine_is_followed_on_its_machine(engine: MemoryEngine, tmp_path: Path) -> None:
    """A link to the engine's socket is a bypass, but not a certain one; for remote engines it means nothing."""
    link = tmp_path / "link"
    link.symlink_to("/var/run")
    started(engine, mounts=(Mount("bind", "/r", str(link)),))
    (agent,) = judged(engine)
    assert [(each.code, each.certain) for each in agent.openings] == [("engine", False)]
    (agent,) = judged_by(observe(engine, "clawker"), "ssh://gate")
    assert agent.confinement is Confinement.FENCED


HARMLESS: Mapping[str, Mapping[str, Any]] = {
    "a capability": {"capabilities_added": ("SYS_PTRACE",)},
    "all dropped": {"capabilities_dropped": ("ALL",)},
    "a volume": {"mounts": (Mount("volume", "/d", "data"),)},
    "what agents trust": {"mounts": (Mount("volume", "/d", "clawker-trust-0", read_only=True),)},
    "a folder": {"mounts": (Mount("bind", "/w", "/home/me/work"),)},
    "a folder with such a name": {"mounts": (Mount("bind", "/w", "/home/dev/proc/run"),)},
    "a folder beside it": {"mounts": (Mount("bind", "/w", "/runner"), Mount("bind", "/d", "/srv/dev"))},
    "the time zone": {"mounts": (Mount("bind", "/etc/localtime", "/etc/localtime", read_only=True),)},
    "certificates of the host": {"mounts": (Mount("bind", "/c", "/etc/ssl/certs", read_only=True),)},
    "a file that is hidden": {"mounts": (Mount("bind", "/w/.env", "/dev/null"),)},
    "IPv6 switched off": {"sysctls": {"net.ipv6.conf.all.disable_ipv6": "1"}},
    "a graphics processor": {"device_requests": ("{}",)},
    "memory of its own": {"ipc_mode": "shareable"},
    "another seccomp profile": {"security_options": ('seccomp={"defaultAction":"SCMP_ACT_ERRNO"}',)},
    "a name that no rule allows": {"hostname": "b.test", "aliases": ("clawker-net:db", "other:a.test")},
}


CASES = [
    *((Confinement.OPEN, [code], shape) for code, shape in OPEN.values()),
    *((Confinement.WEAK, [code], shape) for code, shape in WEAK.values()),
    *((Confinement.FENCED, [], shape) for shape in HARMLESS.values()),
]


@pytest.mark.parametrize(("confinement", "codes", "shape"), CASES, ids=[*OPEN, *WEAK, *HARMLESS])
def test_how_an_agent_is_confined(
    confinement: Confinement, codes: list[str], shape: Mapping[str, Any], engine: MemoryEngine
) -> None:
    """Each shape has exactly this reason. A bypass makes the stack `open`; a weakness is only a warning."""
    started(engine, **shape)
    (agent,) = judged(engine)
    is_open = confinement is Confinement.OPEN
    reasons, others = (agent.openings, agent.weaknesses) if is_open else (agent.weaknesses, agent.openings)
    assert (agent.confinement, [each.code for each in reasons]) == (confinement, codes)
    assert is_open or not others
    assert any(each.certain for each in agent.openings) is is_open
    assert verdict(Verdict.CURRENT, [agent]) is (Verdict.OPEN if is_open else Verdict.CURRENT)


@pytest.mark.parametrize(
    ("network", "expected", "code"),
    [
        ("world", Confinement.OPEN, "network"),
        ("inner", Confinement.WEAK, "host-address"),
        ("quiet", Confinement.FENCED, ""),
        ("clawker-egress", Confinement.OPEN, "network"),
    ],
)
def test_a_second_network_is_judged_by_where_it_leads(
    network: str, expected: Confinement, code: str, engine: MemoryEngine
) -> None:
    """An external network is a bypass; one on which the host has an address is a weakness; others are fine."""
    started(engine, "agent", network)
    (agent,) = judged(engine)
    assert agent.confinement is expected
    assert [each.code for each in (*agent.openings, *agent.weaknesses)] == ([code] if code else [])
    leave = f"`docker network disconnect {network} agent`"
    assert [leave in each.phrase for each in agent.openings] == [True] * (code == "network")


@pytest.mark.parametrize("by", ["id", "name"])
@pytest.mark.parametrize("between", ["running", "stopped", "removed"])
def test_a_chain_of_containers_is_followed_to_its_end(between: str, by: str, engine: MemoryEngine) -> None:
    """A container whose chain of joins starts at an agent is an agent, even if a link is stopped or removed."""
    started(engine)
    for name, joins in (("second", "agent"), ("third", "second"), ("fourth", "third")):
        started(engine, name, dns=(), privileged=name == "fourth")
        engine.join(name, engine.inside(joins).id if by == "id" else joins)
    for name in ("second", "third"):
        if between == "stopped":
            engine.stop(name)
        elif between == "removed":
            engine.remove(name)
    agents = {each.name: each for each in judged(engine)}
    there = {"second", "third"} if between == "running" else set()
    assert set(agents) == {"agent", "fourth"} | there
    assert [each.code for each in agents["fourth"].openings] == ["privileged"]
    assert all(agents[name].confinement is Confinement.FENCED for name in {"agent"} | there)


def test_a_network_that_is_joined_is_judged_by_whose_it_is(engine: MemoryEngine) -> None:
    """A bypass in an agent's network is a bypass for every container that shares this network."""
    started(engine, "agent", "world", dns=(RESOLVER, "1.1.1.1"))
    started(engine, "joined")
    engine.join("joined", "agent")
    agents = {each.name: each for each in judged(engine)}
    assert [each.code for each in agents["joined"].openings] == ["network", "dns"]
    assert agents["joined"].openings == agents["agent"].openings


@pytest.mark.parametrize("sibling", ["clawker-envoy", "clawker-coredns"])
def test_whoever_uses_the_network_of_a_sibling_is_open(sibling: str, engine: MemoryEngine) -> None:
    """A container that shares a firewall container's network is open: its traffic counts as the firewall's."""
    started(engine, "joined")
    engine.join("joined", sibling)
    (agent,) = judged(engine)
    assert [each.code for each in agent.openings] == ["sibling-network"]
    assert sibling in agent.openings[0].phrase


def test_whoever_joined_a_container_elsewhere_is_no_agent(engine: MemoryEngine) -> None:
    """A chain of joins that ends at another network, or at a removed container, makes no agent."""
    started(engine)
    for name, joins in (("elsewhere", ""), ("joined", "elsewhere"), ("late", "joined"), ("lost", "gone")):
        started(engine, name, privileged=True)
        engine.disconnect("clawker-net", name)
        if joins == "gone":
            started(engine, "gone")
        if joins:
            engine.join(name, joins)
    engine.remove("gone")
    assert [each.name for each in judged(engine)] == ["agent"]


@pytest.mark.parametrize("member", ["agent", "stranger"])
def test_whose_processes_an_agent_sees_is_followed(member: str, engine: MemoryEngine) -> None:
    """Shared process namespaces are followed: a chain that ends at the host's is a bypass."""
    started(engine, "last", pid_mode="host")
    if member == "stranger":
        engine.disconnect("clawker-net", "last")
    started(engine, "middle", pid_mode=f"container:{engine.inside('last').id}")
    started(engine, "first", pid_mode="container:middle")
    agents = {each.name: each for each in judged(engine)}
    expected = ["host-pid"] if member == "agent" else ["host-pid", "processes"]
    assert sorted(each.code for each in agents["middle"].openings) == expected
    assert sorted(each.code for each in agents["first"].openings) == expected


def test_whoever_sees_the_processes_of_an_open_agent_is_open(engine: MemoryEngine) -> None:
    """Sharing an open agent's processes is a bypass; two confined agents may share theirs."""
    started(engine, "loose", capabilities_added=("NET_ADMIN",))
    started(engine, "beside", pid_mode="container:loose")
    started(engine, "quiet")
    started(engine, "friend", pid_mode="container:quiet")
    agents = {each.name: each for each in judged(engine)}
    assert agents["beside"].openings == agents["loose"].openings
    assert [agents[each].confinement for each in ("quiet", "friend")] == [Confinement.FENCED] * 2


def test_whoever_has_a_sibling_s_files_is_listed(engine: MemoryEngine) -> None:
    """A container outside our networks is listed as open if it mounts a firewall container's volume."""
    started(engine, "files", volumes_from=("clawker-coredns",))
    started(engine, "second", volumes_from=("files",))
    engine.disconnect("clawker-net", "second")
    engine.connect("world", "second", "")
    agents = {each.name: each for each in judged(engine)}
    assert agents["second"].address == ""
    for name in ("files", "second"):
        assert [(each.code, "clawker-coredns" in each.phrase) for each in agents[name].openings] == [
            ("sibling-files", True)
        ]


VOLUMES: Mapping[str, tuple[VolumeView, list[str], list[str]]] = {
    "local": (VolumeView("data", "local", {}), [], []),
    "the engine": (
        VolumeView("data", "local", {"type": "none", "o": "rw,bind", "device": "/run"}),
        ["engine"],
        [],
    ),
    "a folder": (VolumeView("data", "local", {"o": "bind", "device": "/home/me/work"}), [], []),
    "a disk": (VolumeView("data", "local", {"type": "ext4", "device": "/dev/sda1"}), ["host-mount"], []),
    "layers": (VolumeView("data", "local", {"type": "overlay", "device": "x"}), ["host-mount"], []),
    "services": (VolumeView("data", "local", {"o": "bind", "device": "/run/podman"}), ["host-mount"], []),
    "memory": (VolumeView("data", "local", {"type": "tmpfs", "device": "tmpfs"}), [], []),
    "a network": (VolumeView("data", "local", {"type": "nfs4", "o": "addr=192.0.2.1"}), [], ["volume"]),
    "a driver": (VolumeView("data", "sshfs", {}), [], ["volume"]),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_a_volume_is_followed_to_what_it_is(name: str, engine: MemoryEngine) -> None:
    """A volume above the engine's socket is a bypass; a volume on another machine is a weakness."""
    volume, openings, weaknesses = VOLUMES[name]
    engine.drivers["data"] = volume
    started(engine, mounts=(Mount("volume", "/data", "data"),))
    (agent,) = judged(engine)
    assert [each.code for each in agent.openings] == openings
    assert [each.code for each in agent.weaknesses] == weaknesses


def test_what_is_told_elsewhere_is_a_weakness(engine: MemoryEngine) -> None:
    """A log driver that sends logs away, and shared memory, are warnings."""
    started(engine)
    engine.inside("agent").logs_to = "gelf"
    started(engine, "host", ipc_mode="host")
    started(engine, "other", ipc_mode="shareable")
    engine.disconnect("clawker-net", "other")
    started(engine, "joined", ipc_mode="container:other")
    agents = {each.name: each for each in judged(engine)}
    assert {name: [each.code for each in agents[name].weaknesses] for name in agents} == {
        "agent": ["log"],
        "host": ["shared-memory"],
        "joined": ["shared-memory"],
    }
    assert {each.confinement for each in agents.values()} == {Confinement.WEAK}


def test_settings_with_another_subnet_open_no_agent(engine: MemoryEngine) -> None:
    """Until new settings are applied, agents correctly use the running resolver."""
    started(engine)
    other = stacks.blueprint(engine.facts(), "a.test", network={"subnet": "10.99.0.0/20"})
    seen = pipeline.compare(engine, other)
    assert [each.confinement for each in seen.agents] == [Confinement.FENCED]
    assert seen.verdict is Verdict.DRIFTED


def test_others_are_no_agents(engine: MemoryEngine) -> None:
    """Firewall containers, containers on other networks and stopped containers are not agents."""
    started(engine, "stopped", privileged=True)
    engine.stop("stopped")
    started(engine, "elsewhere", "world", privileged=True)
    engine.disconnect("clawker-net", "elsewhere")
    assert judged(engine) == ()


def test_settings_that_may_be_another_agent_s_work_are_not_certain(engine: MemoryEngine, tmp_path: Path) -> None:
    """Exposed settings are a bypass, but not a certain one if the exposure depends on links."""
    started(engine)
    found = Exposure("agent", str(tmp_path), "/work", str(tmp_path / "clawker-fw.yaml"), certain=False)
    (agent,) = judged(engine, found)
    assert [(each.code, each.certain) for each in agent.openings] == [("settings", False)]
    (agent,) = judged(engine, replace(found, certain=True))
    assert [each.certain for each in agent.openings] == [True]
