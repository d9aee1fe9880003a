"""The parts that both siblings' containers share: the layout of the volume, the helper, and the confinement."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from clawker_fw.model.containers import Healthcheck, Mount, Shape
from clawker_fw.model.desired import Rules
from clawker_fw.model.engines import Machine
from clawker_fw.model.files import File, Files
from clawker_fw.model.observed import Attempt
from clawker_fw.model.origin import Origin
from clawker_fw.model.stacks import Sibling
from clawker_fw.stack.capacity import Capacity
from clawker_fw.stack.files import canonical, public, read_record

VOLUME = "/fw"
"""The mount point of the volume with all our files. The rest of the file system is read-only."""

HELPER = "bin/fwctl"
BOOT = "boot/"
HOT = "hot/"
GOOD = "good/"
PROBER = HOT + "eye/envoy.json"
STAGE = "stage/"
"""The folder with the input of a commit: `commit.json`, and `hot/`."""

ATTEMPTS = BOOT + "attempts.json"
"""The attempts that `fwctl attempts` makes in an agent's container."""

RECORDS = "state/"
"""The folder of the records that `fwctl` and a run keep in a volume."""

COMMITTED = "state/committed.json"
ATTEMPT = "state/attempt.json"

ORIGIN = "state/origin.json"
"""The record of the settings from which the stack was made."""

USED = ("state/usage-0.json.gz", "state/usage-1.json.gz")
"""The recorder's counts of rule usage, written alternately: the newer file counts (`go/internal/usage`)."""

HANDED_OVER = "state/refusals.jsonl.gz"
"""The last log lines of replaced predecessors."""

SECRETS_AT_REST = "state/secrets.json"
"""The secrets for requests that outlive Envoy's container. Only the signer has it open."""

KEPT = frozenset(
    {COMMITTED, ORIGIN, "state/claimed", ATTEMPT, HANDED_OVER, SECRETS_AT_REST, *USED}
    | {"state/restarts.json", "state/restarts.json.new"}  # of earlier releases
)
"""Files that `fwctl` and a run keep in a volume, in addition to those that a sibling is created with."""

HELPER_PATH = f"{VOLUME}/{HELPER}"

_PROCESSES = 128
"""The limit of processes and threads, without a program's threads for its processors."""

_CPU_SHARES = 8192
"""The CPU weight of a sibling: eight times that of other containers. It serves all agents, so no single agent
should slow it down. Its work for an agent is limited (`limits`)."""

_SHARED_MEMORY = 64 << 20
"""The size of /dev/shm in bytes: Docker's own default, whatever `default-shm-size` is in daemon.json."""

_HELPER_CAPABILITIES = ("CHOWN", "NET_ADMIN", "NET_RAW", "SETGID", "SETPCAP", "SETUID")
"""For `fwctl serve`, which configures the network. The program has none of them."""

RECEIVED = {Sibling.ENVOY: 256 << 10, Sibling.COREDNS: 64 << 10}
SENT = {Sibling.ENVOY: 128 << 10, Sibling.COREDNS: 64 << 10}
"""The kernel's receive and send buffer of a socket, in bytes.

Envoy's allow 10 MB/s and 5 MB/s over 20 ms. CoreDNS's clients are on the same host.
"""

_SYSCTLS = {
    # The programs listen on ports 53 and 80 as an unprivileged user.
    "net.ipv4.ip_unprivileged_port_start": "0",
    # Without bit 3, the kernel answers every datagram to a closed port, instead of about one per second (icmp(7)).
    # These answers are the record of refused datagrams.
    "net.ipv4.icmp_ratemask": "6160",
}
"""Sent to the engine, and compared in the running container."""

_AT_FIRST = {"net.ipv4.ip_forward": "0"}
"""Sent, so that nothing is forwarded before `fwctl serve` has set the interfaces. From then on, `forwarding` of
each interface decides, so this is not compared. If a container has inherited a 1, the kernel also sets
`conf.all.accept_redirects` to 1 (`inet_forward_change`), so the packet filter drops redirects."""

_SETTINGS = {
    # Settings of net.ipv4.conf that decide about packets and addresses. Containers inherit them from the host, and
    # hosts differ, so each of them is set, for every interface.
    "accept_local": 0,
    "accept_source_route": 0,
    "arp_accept": 0,
    "arp_announce": 0,
    "arp_filter": 0,
    "arp_ignore": 0,
    "drop_gratuitous_arp": 0,  # replacements announce the service address with it
    "forwarding": 0,
    "proxy_arp": 0,
    "proxy_arp_pvlan": 0,
    "route_localnet": 0,  # no other host may reach listeners on loopback
    "rp_filter": 1,  # drop packets whose source would be reached through another interface
}

_OF_INTERFACES = frozenset({"accept_source_route", "forwarding"})
"""Settings for which only the interface's value counts. For all others, the greater of the interface's and the
value of `all` counts, so `all` is set as well (Linux, include/linux/inetdevice.h)."""

PAGE_PORT = 5380
"""The port at which CoreDNS's recorder sends an agent's refusals to Envoy's, for the page about refusals. It is
closed for others."""

RESOLVER = "127.0.0.11"
"""The address of the engine's own resolver in every container. The engine's packet filter redirects it."""

REFUSED_NAME = "refused.clawker-fw.invalid"
"""A name that no rule can allow. `fwctl` requests it to test that agents are refused."""

_DNS_OPTION = "ndots:0"

UNLIMITED = "-1"

_OF_A_USER = "4096"
"""The kernel counts these per user id on the whole host, in all containers, so a limit for one stack is too low
for many stacks. It is not unlimited, because an engine without CAP_SYS_RESOURCE can't exceed its own finite
limit."""

_ALWAYS = {
    "as": UNLIMITED,  # Envoy and Go reserve far more addresses than they use
    "core": "0",  # a dump would have secrets in it
    "cpu": UNLIMITED,  # seconds
    "data": UNLIMITED,
    "fsize": UNLIMITED,
    "nproc": _OF_A_USER,  # the control group limits processes (`pids`)
    "sigpending": _OF_A_USER,  # Go's runtime changes the user of all threads by real-time signals
    "stack": str(8 << 20),  # the kernel's default; glibc uses it for every thread
}

LIMITED = frozenset({*_ALWAYS, "nofile"})
"""The names of the limits (ulimits) that are set and compared."""


def container_names(project: str, sibling: Sibling) -> tuple[str, str]:
    """Return the names of a sibling's container, and of its replacement until the takeover."""
    return f"{project}-{sibling}", f"{project}-{sibling}-next"


def lock_name(project: str) -> str:
    """Return the name of the container that is the lock."""
    return f"{project}-lock"


def trial_name(project: str) -> str:
    """Return the name of a one-shot container: for `conformance`, or for the kernel check."""
    return f"{project}-conformance"


def trust_name(project: str) -> str:
    """Return the prefix of the names of trust volumes, and of the container that fills one."""
    return f"{project}-trust-"


LOG: Mapping[str, str] = {"driver": "json-file", "max-file": "3", "max-size": "6m"}
"""The logging of our containers. An engine's default driver may not allow reading logs."""


def shape(
    sibling: Sibling,
    program: Sequence[str],
    networks: Mapping[str, str],
    *,
    capacity: Capacity,
    machine: Machine,
    open_files: int,
    settings: Mapping[str, int],
    environment: tuple[str, ...] = (),
) -> Shape:
    """Return the shape of a sibling. `settings` are its own settings of network interfaces.

    Every relevant option is set for which daemon.json can have a default. Options that the Docker host does not
    support are left out, as the engine would do.
    """
    return confined(
        ("serve", "--", *program),
        networks,
        machine,
        capacity.memory,
        open_files,
        environment=environment,
        tmpfs={"/tmp": "rw,noexec,nosuid,nodev,size=16m,mode=1777"},  # noqa: S108 - inside the container
        # None; otherwise a container inherits those of its host, and names are also tried below them.
        dns_search=(".",),
        dns_options=(_DNS_OPTION,),
        capabilities_added=_HELPER_CAPABILITIES,
        sysctls={**_AT_FIRST, **_sysctls(sibling, settings)},
        cpu_shares=_CPU_SHARES if machine.weights else 0,
        pids=_PROCESSES + capacity.processors,
        healthcheck=Healthcheck((HELPER_PATH, "health"), interval=5.0, timeout=4.0, retries=1, start_period=10.0),
        log=LOG,
    )


_UNPRIVILEGED: dict[str, Any] = {
    "user": "0:0",
    "mounts": (Mount("volume", VOLUME),),
    "read_only": True,
    "capabilities_dropped": ("ALL",),
    "security_options": ("no-new-privileges",),
}


def confined(
    command: Sequence[str],
    networks: Mapping[str, str],
    machine: Machine,
    memory: int,
    open_files: int,
    **fields: Any,  # noqa: ANN401 - further fields of a shape
) -> Shape:
    """Return the shape of a long-running container of ours, without privileges except those added."""
    return Shape(
        entrypoint=(HELPER_PATH,),
        command=tuple(command),
        networks=networks,
        working_directory="/",
        init=False,  # the helper supervises the program, as process 1
        stop_signal="SIGTERM",
        runtime=machine.runtime,
        ipc_mode="private",
        cgroup_mode="private",
        memory=memory,
        memory_swap=memory if machine.swap_limit else -1,  # no swap: it would put secrets on the disk
        shared_memory=_SHARED_MEMORY,
        ulimits={**_ALWAYS, "nofile": str(open_files)},
        restart="always",
        **_UNPRIVILEGED,
        **fields,
    )


def examination(limits: Mapping[str, str]) -> Shape:
    """Return the shape of the container in which `fwctl` checks the kernel.

    It has the limits of the sibling with the highest ones, so that the engine fails at its start if it may not set
    them.
    """
    how = {**_UNPRIVILEGED, "capabilities_added": ("NET_ADMIN", "SETUID")}
    return Shape((HELPER_PATH,), ("requirements",), {}, ulimits=limits, **how)


def from_machine(capacity: Capacity, machine: Machine) -> dict[str, int | str]:
    """Return a sibling's values that depend on the Docker host, for the record."""
    return {
        **{name: getattr(capacity, name) for name in capacity.by_machine},
        "weights": machine.weights,
        "swap_limit": machine.swap_limit,
        "runtime": machine.runtime,
    }


def network(
    sibling: Sibling,
    interfaces: Sequence[Mapping[str, str]],
    settings: Mapping[str, int],
    limits: Mapping[str, object],
) -> dict[str, object]:
    """Return the part of `boot/sibling.json` about the network that both siblings share.

    `interfaces` are those that the engine creates: address, subnet, and the gateway on the egress network.
    `limits` apply to each agent. `fwctl serve` configures the network like this, and `fwctl probe` reports
    every difference from it.
    """
    return {
        "sibling": sibling.value,
        "interfaces": list(interfaces),
        "settings": {**_SETTINGS, **settings},
        "limits": limits,
        "sysctls": _sysctls(sibling, settings),
        "resolver": RESOLVER,
        "resolv_conf": [f"nameserver {RESOLVER}", f"options {_DNS_OPTION}"],
    }


def _sysctls(sibling: Sibling, settings: Mapping[str, int]) -> dict[str, str]:
    received, sent = RECEIVED[sibling], SENT[sibling]
    of_all = {name: value for name, value in {**_SETTINGS, **settings}.items() if name not in _OF_INTERFACES}
    return {
        **_SYSCTLS,
        # Minimum, default, maximum. Hosts allow 32 MB, which an agent fills by reading fast and then stopping.
        "net.ipv4.tcp_rmem": f"4096 {received // 2} {received}",
        "net.ipv4.tcp_wmem": f"4096 16384 {sent}",
        **{f"net.ipv4.conf.all.{name}": str(value) for name, value in of_all.items()},
    }


def program_of(shape: Shape) -> tuple[str, ...]:
    """Return the command line of the program that the helper executes."""
    command = (*shape.entrypoint, *shape.command)
    return command[command.index("--") + 1 :] if "--" in command else command


def commit_record(live: Mapping[str, str], hot: Files, rules: Rules) -> File:
    """Return the input of a commit, which becomes its record once the files are live.

    `live` maps each resource to its live digest after the commit. `hot` are the files in the order in which they
    are placed; all others are removed. The version is that of a new container; each commit chooses another one.
    `rules` are for `status`, and `fwctl` only keeps them.
    """
    files = [
        {"path": path.removeprefix(HOT), "sha256": hashlib.sha256(file.content).hexdigest()}
        for path, file in hot.items()
    ]
    # A program that is silent for 60 % of this limit counts as hung, so that the last proven files serve again
    # within 5 s.
    seconds = 4.0 + sum(len(file.content) for file in hot.values()) / 1_000_000
    document = {
        "version": "0",
        "live": live,
        "files": files,
        "seconds": round(seconds, 1),
        "rules": {"count": rules.count, "sha256": rules.digest},
    }
    return public(json.dumps(document, separators=(",", ":")).encode())


_ATTEMPT_RECORD = TypeAdapter(Attempt)
_ORIGIN_RECORD = TypeAdapter(Origin)
NO_ATTEMPT = public(b"{}")
"""The record while the last attempt has not failed."""


def state_record(kept: Attempt | Origin) -> File:
    """Return the record of a failed attempt, or of the origin of the settings."""
    return public(canonical(dataclasses.asdict(kept)))


def read_attempt(note: bytes) -> Attempt | None:
    """Return the failed attempt in a record, or None if the last attempt has not failed.

    Raises:
        ValueError: when the record is unreadable.
    """
    if note in {b"", NO_ATTEMPT.content}:  # a full disk leaves the file empty
        return None
    return _ATTEMPT_RECORD.validate_json(note, strict=True)


def recorded_origin(files: Files) -> Origin | None:
    """Return the origin of the settings in a record, or None without a readable one."""
    try:
        return _ORIGIN_RECORD.validate_json(files[ORIGIN].content)
    except (KeyError, ValueError):
        return None


def recorded_rules(files: Files, live: Mapping[str, str]) -> Rules | None:
    """Return the rules in the record of the last commit, or None if it has none or is not live."""
    try:
        record = read_record(files[COMMITTED].content)
        rules = Rules(int(record["rules"]["count"]), str(record["rules"]["sha256"]))
        return rules if record["live"] == dict(live) else None
    except (KeyError, TypeError, ValueError):
        return None
