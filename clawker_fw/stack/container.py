"""What both siblings' containers have in common: the layout of the volume, the helper, and the confinement."""

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
from clawker_fw.stack.files import public, read_record

VOLUME = "/fw"
"""The mount point of the volume with all our files. The rest of the file system is read-only."""

HELPER = "bin/fwctl"
BOOT = "boot/"
HOT = "hot/"
GOOD = "good/"
PROBER = HOT + "eye/envoy.json"
STAGE = "stage/"
"""The folder of what a commit is sent: `commit.json`, and `hot/`."""

ATTEMPTS = BOOT + "attempts.json"
"""What `fwctl attempts` is to try in an agent's container."""

RECORDS = "state/"
"""The folder of the records that `fwctl` and a run keep in a volume."""

COMMITTED = "state/committed.json"
ATTEMPT = "state/attempt.json"

ORIGIN = "state/origin.json"
"""The record of the settings that the stack was made from."""

USED = ("state/usage-0.json.gz", "state/usage-1.json.gz")
"""What Envoy's recorder knows of what agents use, written in turn: the later one counts (`go/internal/usage`)."""

HANDED_OVER = "state/refusals.jsonl.gz"
"""The last lines of the logs of those that a sibling has replaced."""

SECRETS_AT_REST = "state/secrets.json"
"""The secrets for requests that outlive Envoy's container. The signer alone has it open."""

KEPT = frozenset(
    {COMMITTED, ORIGIN, "state/claimed", ATTEMPT, HANDED_OVER, SECRETS_AT_REST, *USED}
    | {"state/restarts.json", "state/restarts.json.new"}  # of earlier releases
)
"""Files that `fwctl` and a run keep in a volume, in addition to those that a sibling is created with."""

_COMMIT_SECONDS = 4.0
_COMMIT_BYTES_A_SECOND = 1_000_000
"""The time limit for a program to load new files: a constant, plus an allowance for their size. A program that is
silent for 60 % of it counts as hung, so that the last proven set serves again within 5 s."""

HELPER_PATH = f"{VOLUME}/{HELPER}"

_PROCESSES = 128
"""The most processes and threads beside those that a program uses its processors with."""

_CPU_SHARES = 8192
"""The weight of a sibling while the processors are busy: eight times that of a container by default. It serves all
agents, so no single one should be in its way. What it does for one is bounded (`limits`)."""

_SHARED_MEMORY = 64 << 20
"""Bytes of /dev/shm: what engines have by default, unless daemon.json has another `default-shm-size`."""

_HELPER_CAPABILITIES = ("CHOWN", "NET_ADMIN", "NET_RAW", "SETGID", "SETPCAP", "SETUID")
"""For `fwctl serve`, which configures the network. The program has none of them."""

RECEIVED = {Sibling.ENVOY: 256 << 10, Sibling.COREDNS: 64 << 10}
SENT = {Sibling.ENVOY: 128 << 10, Sibling.COREDNS: 64 << 10}
"""Bytes that the kernel keeps of a socket at most, of what is received and of what is sent.

Envoy's carry 10 MB/s and 5 MB/s over 20 ms. CoreDNS's clients are near.
"""

_SYSCTLS = {
    # The programs listen on ports 53 and 80 as an unprivileged user.
    "net.ipv4.ip_unprivileged_port_start": "0",
    # Without bit 3, the kernel answers every datagram to a closed port, not about one a second (icmp(7)). These
    # answers are the record of refused datagrams.
    "net.ipv4.icmp_ratemask": "6160",
}
"""Sent to the engine, and compared in the running container."""

_AT_FIRST = {"net.ipv4.ip_forward": "0"}
"""Sent, so that nothing is forwarded before `fwctl serve` has set the interfaces. What decides from then on is
`forwarding` of each interface, so this is not compared. Where a container has inherited a 1, it sets
`conf.all.accept_redirects` to 1 behind our back (`inet_forward_change`): the packet filter drops redirects."""

_SETTINGS = {
    # Settings of net.ipv4.conf that decide about packets and addresses. Containers inherit them from the host, and
    # hosts differ, so each of them is set, for every interface.
    "accept_local": 0,
    "accept_source_route": 0,
    "arp_accept": 0,
    "arp_announce": 0,
    "arp_filter": 0,
    "arp_ignore": 0,
    "drop_gratuitous_arp": 0,  # replacements announce with it who has an address
    "forwarding": 0,
    "proxy_arp": 0,
    "proxy_arp_pvlan": 0,
    "route_localnet": 0,  # no other host may reach what listens on loopback
    "rp_filter": 1,  # drop packets whose source would be reached through another interface
}

_OF_INTERFACES = frozenset({"accept_source_route", "forwarding"})
"""Settings that an interface's own value switches off alone. Of all others, the greater one of the interface's
value and that of `all` holds, so `all` is set as well (Linux, include/linux/inetdevice.h)."""

PAGE_PORT = 5380
"""Where CoreDNS's recorder tells Envoy's, for the page about refusals, what was refused to an agent. For others it
is closed."""

RESOLVER = "127.0.0.11"
"""The address of the engine's own resolver in every container. The engine's packet filter redirects it."""

REFUSED_NAME = "refused.clawker-fw.invalid"
"""A name that no rule can allow. `fwctl` requests it to see that agents are refused."""

_DNS_OPTION = "ndots:0"

UNLIMITED = "-1"

_OF_A_USER = "4096"
"""The kernel counts these of a user id on the whole machine, in whichever container, so what is enough for one
stack is not enough for many. Not unlimited: an engine without CAP_SYS_RESOURCE can't exceed its own limit, which
is finite."""

_ALWAYS = {
    "as": UNLIMITED,  # Envoy and Go reserve far more addresses than they use
    "core": "0",  # a dump would have secrets in it
    "cpu": UNLIMITED,  # seconds, after which the kernel ends a process
    "data": UNLIMITED,
    "fsize": UNLIMITED,
    "nproc": _OF_A_USER,  # what a sibling may start is bounded by its control group (`pids`)
    "sigpending": _OF_A_USER,  # Go's runtime changes the user of all threads by real-time signals
    "stack": str(8 << 20),  # what kernels give; glibc gives as much to each thread
}

LIMITED = frozenset({*_ALWAYS, "nofile"})
"""The names of the limits that are set and compared."""


def container_names(project: str, sibling: Sibling) -> tuple[str, str]:
    """Return the name of a sibling's container, and that of a replacement until it takes over."""
    return f"{project}-{sibling}", f"{project}-{sibling}-next"


def lock_name(project: str) -> str:
    """Return the name of the container that is the lock."""
    return f"{project}-lock"


def trial_name(project: str) -> str:
    """Return the name of a container that does one thing: `conformance`'s attempts, or to ask the kernel."""
    return f"{project}-conformance"


def trust_name(project: str) -> str:
    """Return how the names begin of a volume with what agents trust, and of the container that fills it."""
    return f"{project}-trust-"


LOG: Mapping[str, str] = {"driver": "json-file", "max-file": "3", "max-size": "6m"}
"""Where the output of our containers goes, on whatever engine: its own default may not let anybody read it."""


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

    Whatever daemon.json can have a default for, and decides something, is set. What the Docker host can't do
    is left out, as the engine would leave it out.
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
    """Return the shape of a container of ours that runs for good: unprivileged but for what is added."""
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
        memory_swap=memory if machine.swap_limit else -1,  # no swap: secrets and traffic would lie on the disk
        shared_memory=_SHARED_MEMORY,
        ulimits={**_ALWAYS, "nofile": str(open_files)},
        restart="always",
        **_UNPRIVILEGED,
        **fields,
    )


def examination(limits: Mapping[str, str]) -> Shape:
    """Return the shape of the container in which `fwctl` asks the kernel for what the siblings need.

    It has the limits of the sibling with the highest: whether the engine may set them shows when it starts.
    """
    how = {**_UNPRIVILEGED, "capabilities_added": ("NET_ADMIN", "SETUID")}
    return Shape((HELPER_PATH,), ("requirements",), {}, ulimits=limits, **how)


def from_machine(capacity: Capacity, machine: Machine) -> dict[str, int | str]:
    """Return what is chosen for a sibling by what the Docker host has, to be recorded."""
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
    """Return the part of `boot/sibling.json` about the network that both siblings have in common.

    `interfaces` are those that the engine creates: address, subnet, and the gateway if there is a way out.
    `limits` are those of each agent. `fwctl serve` configures the network like this, and `fwctl probe` reports
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
        # At least, at first, at most. Hosts allow 32 MB, which an agent fills that reads fast and then stops.
        "net.ipv4.tcp_rmem": f"4096 {received // 2} {received}",
        "net.ipv4.tcp_wmem": f"4096 16384 {sent}",
        **{f"net.ipv4.conf.all.{name}": str(value) for name, value in of_all.items()},
    }


def program_of(shape: Shape) -> tuple[str, ...]:
    """Return the command line of the program that the helper executes."""
    command = (*shape.entrypoint, *shape.command)
    return command[command.index("--") + 1 :] if "--" in command else command


def commit_record(live: Mapping[str, str], hot: Files, rules: Rules) -> File:
    """Return the record that a commit is sent, and keeps once its files are live.

    `live` maps each resource to its live digest after the commit. `hot` are the files in the order in which they
    are placed; all others are removed. The version is that of a new container; each commit chooses another one.
    `rules` are for `status`, and `fwctl` only keeps them.
    """
    files = [
        {"path": path.removeprefix(HOT), "sha256": hashlib.sha256(file.content).hexdigest()}
        for path, file in hot.items()
    ]
    size = sum(len(file.content) for file in hot.values())
    document = {
        "version": "0",
        "live": live,
        "files": files,
        "seconds": round(_COMMIT_SECONDS + size / _COMMIT_BYTES_A_SECOND, 1),
        "rules": {"count": rules.count, "sha256": rules.digest},
    }
    return public(json.dumps(document, separators=(",", ":")).encode())


_ATTEMPT_RECORD = TypeAdapter(Attempt)
_ORIGIN_RECORD = TypeAdapter(Origin)
NO_ATTEMPT = public(b"{}")
"""The record while the last attempt has not failed."""


def state_record(kept: Attempt | Origin) -> File:
    """Return the record of a failed attempt, or of where the settings come from."""
    return public(json.dumps(dataclasses.asdict(kept), sort_keys=True, separators=(",", ":")).encode())


def read_attempt(note: bytes) -> Attempt | None:
    """Return the failed attempt in a record, or None if the last attempt has not failed.

    Raises:
        ValueError: when the record is unreadable.
    """
    if note in {b"", NO_ATTEMPT.content}:  # an engine whose disk was full has left the file empty
        return None
    return _ATTEMPT_RECORD.validate_json(note, strict=True)


def recorded_origin(files: Files) -> Origin | None:
    """Return where the settings come from according to a record, or None if there is none, or it is unreadable."""
    try:
        return _ORIGIN_RECORD.validate_json(files[ORIGIN].content)
    except (KeyError, ValueError):
        return None


def recorded_rules(files: Files, live: Mapping[str, str]) -> Rules | None:
    """Return the rules in the record of the last commit, or None if it has none or is not what is live."""
    try:
        record = read_record(files[COMMITTED].content)
        rules = Rules(int(record["rules"]["count"]), str(record["rules"]["sha256"]))
        return rules if record["live"] == dict(live) else None
    except (KeyError, TypeError, ValueError):
        return None
