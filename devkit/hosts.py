"""Hosts as people have them: settings of the kernel, of the engine, packet filters. `./dev hosts` tries them all.

Each is a private engine with something changed that an administrator, a distribution or a hardening guide changes.
`devkit.main_job` must work on every one of them; on a host without a way out, the program has to say so.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from devkit.engines import FORWARDING, EngineError, PrivateEngine, private_engine
from devkit.main_job import MainJob, main_job
from devkit.uml import Machine, run_in
from devkit.world import NAMESERVER


@dataclass(frozen=True, slots=True)
class Host:
    """One host: what is special, the kind of its engine, additions to daemon.json, and sysctls of its network.

    `before` are commands in the host's network before the engine starts, `after` are those after it. `routed` is a
    host whose networks the world can answer without masquerading. Where nothing gets out, `keeps_in` is in the
    warning of `run` and in the advice of `doctor`. `warns` is a warning of `run` that changes nothing else.

    A host with a `machine` has a kernel of its own. Where it `lacks` something, `run` refuses to make anything, in
    words that contain these. `cut_off_by` is a command after which nothing passes between containers any more.
    `agents_need` is an option without which `agent run` refuses, in words that name it. `tested` hosts are part of
    `./dev test`.
    """

    name: str
    words: str
    kind: str = "installed"
    settings: Mapping[str, object] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    keeps_in: str = ""
    warns: str = ""
    machine: Machine | None = None
    lacks: Sequence[str] = ()
    cut_off_by: str = ""
    routed: bool = False
    agents_need: str = ""
    tested: bool = False


def _both(names: Mapping[str, int]) -> dict[str, str]:
    """Return settings of interfaces, for those that exist and for those to come."""
    return {
        f"net.ipv4.conf.{place}.{name}": str(value)
        for place in ("all", "default")
        for name, value in names.items()
    }


_CIS = _both(
    {
        "accept_redirects": 0,
        "accept_source_route": 0,
        "log_martians": 1,
        "rp_filter": 1,
        "secure_redirects": 0,
        "send_redirects": 0,
    }
)
"""What the CIS benchmarks for Linux distributions ask for (chapter "Network Kernel Parameters")."""

_OPPOSITE = _both(
    {
        "accept_local": 1,
        "accept_redirects": 1,
        "accept_source_route": 1,
        "arp_accept": 1,
        "proxy_arp": 1,
        "route_localnet": 1,
        "rp_filter": 0,
        "secure_redirects": 1,
        "send_redirects": 1,
    }
)

HOSTILE = {
    "init": True,
    "default-runtime": "nvidia",
    "runtimes": {"nvidia": {"path": "runc"}},
    "log-driver": "json-file",
    "log-opts": {
        "compress": "true",
        "env": "os,customer",
        "labels": "production_status",
        "max-buffer-size": "1m",
        "max-file": "7",
        "max-size": "50m",
        "mode": "non-blocking",
        "tag": "{{.Name}}/{{.ID}}",
    },
    "default-ulimits": {
        "nofile": {"Name": "nofile", "Soft": 1024, "Hard": 2048},
        **{
            name: {"Name": name, "Soft": least, "Hard": least}
            for name, least in {
                "fsize": 1,
                "memlock": 0,
                "msgqueue": 0,
                "nproc": 1,  # of the user on the whole machine; the kernel exempts root
                "sigpending": 0,
                "stack": 64 << 10,
            }.items()
        },
    },
    "default-cgroupns-mode": "host",
    "default-ipc-mode": "shareable",
    "default-shm-size": "16M",
    "no-new-privileges": True,
    "dns-opts": ["timeout:1", "attempts:1", "ndots:3"],
    "dns-search": ["corp.example.com"],
    "mtu": 1400,
    "icc": False,
    "userland-proxy": False,
}
"""Every option of daemon.json with which an engine adds something to the containers that others create."""

HOSTILE_NETWORKS = {**HOSTILE, "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1400"}}}
"""The same, with what engines from 24 on add to networks."""

HOSTS = (
    Host("plain", "Nothing is changed."),
    Host("26", "Docker 26.", "26.1.5"),
    Host("28", "Docker 28.", "28.5.2"),
    Host("28-containerd", "Docker 28 with containerd's image store.", "28.5.2-containerd"),
    Host("29", "Docker 29.", "29"),
    Host("29-nftables", "Docker 29 with its nftables backend.", "29-nftables"),
    # the kernel's settings
    Host("cis", "Sysctls that the CIS benchmarks ask for.", sysctls=_CIS, tested=True),
    Host("cis-opposite", "Their opposite: whatever can be accepted is.", sysctls=_OPPOSITE, tested=True),
    Host("cis-on-28", "Sysctls that the CIS benchmarks ask for, on Docker 28.", "28.5.2", sysctls=_CIS),
    Host(
        "arp-strict",
        "`arp_ignore=2`, `arp_announce=2`, `arp_filter=1`.",
        sysctls=_both({"arp_ignore": 2, "arp_announce": 2, "arp_filter": 1}),
    ),
    # since release 28 a container with the address of a former one has another hardware address
    Host(
        "arp-quiet", "`drop_gratuitous_arp=1`.", "28.5.2", sysctls=_both({"drop_gratuitous_arp": 1}), tested=True
    ),
    Host("loose-sources", "`rp_filter=2`, as VPNs set it.", sysctls=_both({"rp_filter": 2, "src_valid_mark": 1})),
    # the engine's settings
    Host(
        "hostile",
        "A `daemon.json` with every option that adds something to containers.",
        settings=HOSTILE,
        tested=True,
    ),
    Host(
        "hostile-on-28",
        "The same on Docker 28, with `default-network-opts`.",
        "28.5.2",
        settings=HOSTILE_NETWORKS,
    ),
    Host("hostile-on-29", "The same on Docker 29.", "29-nftables", settings=HOSTILE),
    Host(
        "gpu",
        "The default runtime is called `nvidia`.",
        settings={"default-runtime": "nvidia", "runtimes": {"nvidia": {"path": "runc"}}},
    ),
    Host("init", "`init: true`.", settings={"init": True}),
    *(
        Host(f"log-{driver}", f"The log driver `{driver}`.", settings={"log-driver": driver})
        for driver in ("local", "none")
    ),
    Host(
        "log-syslog",
        "The log driver `syslog`, without a cache from which the engine could read.",
        settings={
            "log-driver": "syslog",
            "log-opts": {"syslog-address": "udp://127.0.0.1:514", "cache-disabled": "true"},
        },
        agents_need="--log-driver local",
        tested=True,
    ),
    Host("no-masquerading", "`ip-masq: false`, and routes back.", settings={"ip-masq": False}, routed=True),
    Host(
        "pools",
        "Address pools of its own.",
        settings={"default-address-pools": [{"base": "10.99.0.0/16", "size": 24}]},
    ),
    Host("user-namespaces", "`userns-remap`.", "28.5.2", settings={"userns-remap": "default"}),
    Host("user-namespaces-on-29", "`userns-remap` on Docker 29.", "29", settings={"userns-remap": "default"}),
    Host("vfs", "The storage driver `vfs`.", settings={"storage-driver": "vfs"}),
    Host("live-restore", "`live-restore: true`.", settings={"live-restore": True}),
    Host(
        "ipv6",
        "IPv6 on the default network, with `ip6tables`.",
        "28.5.2",
        settings={"ipv6": True, "fixed-cidr-v6": "fd00:1::/64", "ip6tables": True, "experimental": True},
    ),
    # packet filters
    Host(
        "closed-input",
        "The host accepts nothing from its containers.",
        before=(
            "iptables -P INPUT DROP",
            "iptables -A INPUT -i uplink -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "iptables -A INPUT -i lo -j ACCEPT",
        ),
    ),
    Host("closed-forward", "The policy of FORWARD is DROP.", before=("iptables -P FORWARD DROP",)),
    # no way out
    Host(
        "forwarding-off",
        "The host does not forward (`ip-forward: false`).",
        settings={"ip-forward": False},
        sysctls={"net.ipv4.ip_forward": "0"},
        keeps_in="net.ipv4.ip_forward=1",
        tested=True,
    ),
    Host("no-iptables", "`iptables: false`.", settings={"iptables": False}, keeps_in="iptables: false"),
    Host(
        "closed-docker-user",
        "DOCKER-USER lets nothing out.",
        after=("iptables -I DOCKER-USER -o uplink -j DROP",),
        keeps_in="iptables -S DOCKER-USER",
    ),
    Host(
        "routed-gateway",
        "The engine masquerades nothing (`gateway_mode_ipv4=routed`), and nobody has a route back.",
        "28.5.2",
        settings={"default-network-opts": {"bridge": {"com.docker.network.bridge.gateway_mode_ipv4": "routed"}}},
        keeps_in="gateway_mode_ipv4",
    ),
    # machines with a kernel of their own
    Host("own-kernel", "A machine with a kernel of its own.", machine=Machine()),
    Host(
        "own-kernel-arp-quiet",
        "The same with `drop_gratuitous_arp=1`.",
        sysctls=_both({"drop_gratuitous_arp": 1}),
        machine=Machine(),
    ),
    Host(
        "older-iptables",
        "A machine whose packet filter is the older iptables.",
        machine=Machine(older_iptables=True),
    ),
    Host("control-groups-1", "Version 1 of control groups.", machine=Machine(control_groups=1)),
    Host(
        "no-cpu-controller",
        "A kernel without the `cpu` controller of control groups.",
        warns="processors-unweighted",
        machine=Machine(parameters=["cgroup_disable=cpu"]),
    ),
    Host(
        "no-cpu-controller-1",
        "The same with version 1 of control groups.",
        warns="processors-unweighted",
        machine=Machine(parameters=["cgroup_disable=cpu"], control_groups=1),
    ),
    Host(
        "filtered-frames",
        "br_netfilter hands what passes between containers to the packet filter, which lets it pass.",
        machine=Machine(modules=["br_netfilter"]),
    ),
    Host(
        "dropped-frames",
        "br_netfilter hands what passes between containers to the packet filter, which drops it.",
        machine=Machine(modules=["br_netfilter"]),
        cut_off_by="iptables -I FORWARD -i br-+ -o br-+ -j DROP",
    ),
    Host(
        "no-nftables",
        "A kernel without nf_tables for IPv4, with addresses of 39 bits for programs (Debian's User-Mode Linux).",
        machine=Machine(debian=True),
        lacks=["nf_tables", "addresses of 48 bits"],
    ),
    Host(
        "no-more-modules",
        "No module can be loaded, and nf_tables is one.",
        sysctls={"kernel.modules_disabled": "1"},
        machine=Machine(older_iptables=True),
        lacks=["nf_tables"],
    ),
    Host(
        "no-connlimit",
        "A kernel whose nf_tables can't limit the connections of each address.",
        machine=Machine(without=["nft_connlimit"]),
        lacks=["connlimit"],
    ),
    Host(
        "few-watches",
        "A user may have 8 inotify instances.",
        sysctls={"fs.inotify.max_user_instances": "8"},
        machine=Machine(),
        lacks=["fs.inotify.max_user_instances"],
    ),
)


def named(name: str) -> Host:
    """Return the host of a name.

    Raises:
        EngineError: when there is none, with those that there are.
    """
    for each in HOSTS:
        if each.name == name:
            return each
    raise EngineError(f"no host is called {name}: there are {', '.join(each.name for each in HOSTS)}")


@contextmanager
def job_on(host: Host) -> Iterator[MainJob]:
    """Yield the main job on a host, with everything that it needs. All of it is removed afterwards."""
    with ExitStack() as stack:
        engine = stack.enter_context(
            private_engine(
                host.kind,
                dns=[NAMESERVER],
                settings=host.settings,
                sysctls={**FORWARDING, **host.sysctls},
                commands=[shlex.split(each) for each in host.before],
            )
        )
        yield prepare(host, engine, stack)


def prepare(host: Host, engine: PrivateEngine, stack: ExitStack) -> MainJob:
    """Return the main job on the engine of a host. What is started ends with the stack."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    job = main_job(engine, folder, stack, routed=host.routed)
    job.agents_need = host.agents_need
    for command in host.after:
        engine.run_in_network(shlex.split(command))
    return job


def perform(host: Host, job: MainJob) -> None:
    """Do on a host what can be done there.

    Raises:
        AssertionError: when something is not as it should be.
    """
    if host.lacks:
        job.require_refusal(host.lacks)
    elif host.cut_off_by:
        job.perform_cut_off(shlex.split(host.cut_off_by))
    elif host.keeps_in:
        job.perform_without_way_out(host.keeps_in)
    else:
        job.perform(host.warns)


def try_host(host: Host) -> Mapping[str, float]:
    """Do the main job on a host, and return the seconds that each step took.

    Raises:
        AssertionError: when something is not as it should be.
    """
    if host.machine is not None:
        return _try_machine(host, host.machine)
    with job_on(host) as job:
        perform(host, job)
        return job.seconds


def _try_machine(host: Host, machine: Machine) -> Mapping[str, float]:
    said = run_in(machine, [sys.executable, "-m", "devkit.own_machine", host.name])
    if said.code != 0:
        raise AssertionError(said.text)
    found: dict[str, float] = json.loads(said.text.splitlines()[-1])
    return found


def main() -> int:
    """Try the hosts that are named, or all, and print a line for each."""
    parser = argparse.ArgumentParser(prog="./dev hosts", description="The main job on hosts as people have them.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"all, or some of {', '.join(h.name for h in HOSTS)}"
    )
    parser.add_argument("--tested", action="store_true", help="only those that are part of ./dev test")
    arguments = parser.parse_args()
    try:
        chosen = [named(name) for name in arguments.names] or [
            h for h in HOSTS if h.tested or not arguments.tested
        ]
    except EngineError as error:
        print(error, file=sys.stderr)
        return 2
    failed = 0
    for host in chosen:
        began = time.monotonic()
        try:
            try_host(host)
            outcome = "works"
        except Exception as error:  # noqa: BLE001 - the next host is tried all the same
            outcome = f"FAILED: {error}"
            failed += 1
        print(f"{host.name:<20} {time.monotonic() - began:5.0f} s  {outcome}", flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
