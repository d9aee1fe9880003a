"""Hosts as people have them, each a private engine with changed settings of the kernel, engine or packet filter.

The main job must work on each (`tests/hosts`); without a way out, the program has to say so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Host:
    """One host: the kind of its engine, additions to daemon.json, and sysctls of its network.

    Commands in `before` run in its network before the engine's start. `programs` are what the engine calls by
    other names. A `routed` host's networks need no masquerading. Without a way out, `keeps_in` is in the advice of
    `doctor`, in case of `closing` only after this command. `agent run` refuses without `agents_need`, and names
    it. A `thorough` host is tried only with `--thorough`.
    """

    name: str
    kind: str = "20.10.24"
    settings: Mapping[str, object] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    before: Sequence[str] = ()
    programs: Mapping[str, str] = field(default_factory=dict)
    closing: str = ""
    keeps_in: str = ""
    routed: bool = False
    agents_need: str = ""
    thorough: bool = False


def _both(**values: int) -> dict[str, str]:
    return {
        f"net.ipv4.conf.{place}.{name}": str(value)
        for place in ("all", "default")
        for name, value in values.items()
    }


_CIS = _both(
    accept_redirects=0, accept_source_route=0, log_martians=1, rp_filter=1, secure_redirects=0, send_redirects=0
)
"""What the CIS benchmarks for Linux distributions ask for (chapter "Network Kernel Parameters")."""

_OPPOSITE = _both(
    **dict.fromkeys(("accept_local", "accept_redirects", "accept_source_route", "proxy_arp", "route_localnet"), 1),
    **dict.fromkeys(("secure_redirects", "send_redirects"), 1),
    # since release 28 a container with the address of a former one has another hardware address
    drop_gratuitous_arp=1,
    rp_filter=0,
)

_LEAST = {"fsize": 1, "memlock": 0, "msgqueue": 0, "nproc": 1, "sigpending": 0, "stack": 64 << 10}
"""Limits. `nproc` counts the user's processes on the whole machine, and the kernel exempts root."""

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
        **{name: {"Name": name, "Soft": least, "Hard": least} for name, least in _LEAST.items()},
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

_OF_BRIDGES = {
    "enable_icc": "false",
    "enable_ip_masquerade": "false",
    "gateway_mode_ipv4": "routed",
    "gateway_mode_ipv6": "isolated",
    "host_binding_ipv4": "127.0.0.1",
    "inhibit_ipv4": "true",
    "name": "everybody",
    "trusted_host_interfaces": "uplink",
}

HOSTILE_NETWORKS = {
    **HOSTILE,
    "default-network-opts": {
        "bridge": {
            **{f"com.docker.network.bridge.{name}": text for name, text in _OF_BRIDGES.items()},
            "com.docker.network.container_iface_prefix": "net",
            "com.docker.network.driver.mtu": "1400",
            "com.docker.network.enable_ipv4": "false",
            "com.docker.network.enable_ipv6": "true",
        }
    },
}
"""With every option that engines from 24 on add to the networks that others create."""

HOSTS = (
    Host(
        "hostile",
        settings={**HOSTILE, "ip-forward": False},
        sysctls=_CIS,
        programs={"iptables": "iptables-legacy", "ip6tables": "ip6tables-legacy"},
        closing="sysctl -w net.ipv4.ip_forward=0",
        keeps_in="net.ipv4.ip_forward=1",
    ),
    Host(
        "hostile-on-29",
        "29-nftables",
        settings={
            **HOSTILE_NETWORKS,
            "log-driver": "syslog",
            "log-opts": {"syslog-address": "udp://192.0.2.1:514", "cache-disabled": "true"},
        },
        sysctls=_OPPOSITE,
        agents_need="--log-driver local",
    ),
    Host("no-masquerading", settings={"ip-masq": False}, routed=True, thorough=True),
    Host(
        "ipv6",
        "28.5.2",
        settings={"ipv6": True, "fixed-cidr-v6": "fd00:1::/64", "ip6tables": True, "experimental": True},
        thorough=True,
    ),
    Host(
        "closed-input",
        before=(
            "iptables -P INPUT DROP",
            "iptables -A INPUT -i uplink -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "iptables -A INPUT -i lo -j ACCEPT",
        ),
        thorough=True,
    ),
    Host("live-restore", settings={"live-restore": True}, thorough=True),
    # without a way out
    Host("no-iptables", settings={"iptables": False}, keeps_in="iptables: false", thorough=True),
    Host(
        "closed-docker-user",
        closing="iptables -I DOCKER-USER -o uplink -j DROP",
        keeps_in="iptables -S DOCKER-USER",
        thorough=True,
    ),
)

_MACHINE, _FULL = "tests/engine/test_machine.py::test_", "tests/engine/test_bad_days.py::test_"

DOCUMENTED: Mapping[str, Sequence[str]] = {
    "options for all containers, such as `init` and `default-ulimits`": ("hostile", "hostile-on-29"),
    "`default-network-opts`": ("hostile-on-29",),
    "sysctls of the CIS benchmarks": ("hostile",),
    "`iptables-legacy`": ("hostile",),
    "`ip-masq: false`": ("no-masquerading",),
    "`ipv6: true`, `ip6tables: true`": ("ipv6",),
    "a host that accepts nothing from its containers (`INPUT DROP`)": ("closed-input",),
    "`userns-remap`": ("tests/matrix/test_userns.py::test_remapped_users",),
    "`ip-forward: false`": ("hostile",),
    "`iptables: false`": ("no-iptables",),
    "a rule in `DOCKER-USER` that drops": ("closed-docker-user",),
    "`br_netfilter`, and a FORWARD chain that drops": (
        f"{_MACHINE}filtered_frames_are_not_mended_by_a_replacement",
    ),
    "`live-restore: true`": ("live-restore",),
    "a log driver that sends lines elsewhere, such as `syslog`": ("hostile-on-29",),
    "a full disk": (
        f"{_FULL}what_needs_room_on_a_full_disk_is_an_error",
        f"{_FULL}a_rule_is_taken_away_while_the_disk_is_full",
    ),
    "few inotify instances or watches, few open files": (
        f"{_MACHINE}what_the_kernel_lacks_is_said_before_anything_is_made",
        f"{_MACHINE}too_few_watches",
        f"{_MACHINE}too_few_open_files",
    ),
}
"""What tests each configuration in the table of `docs/engines.md`: hosts, or tests by file and name."""
