"""What both siblings' containers have in common: the volume's layout, the helper, and the confinement."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

from clawker_fw.model import Attempt, File, Files, Healthcheck, Mount, Origin, Rules, Shape, Sibling
from clawker_fw.stack.files import public

VOLUME = "/fw"
"""Where the volume with everything of ours is mounted, read-only root around it."""

HELPER = "bin/fwctl"
BOOT = "boot/"
HOT = "hot/"
GOOD = "good/"
EYE = HOT + "eye/envoy.json"
STAGE = "stage/"
COMMITTED = "state/committed.json"
ATTEMPT = "state/attempt.json"

ORIGIN = "state/origin.json"
"""Which settings the stack is made from."""

KEPT = frozenset({COMMITTED, ORIGIN, "state/claimed", ATTEMPT})
"""What `fwctl` and a run keep in a volume, beside what a sibling is made with."""

UNFINISHED = ("good.new", "restore", "restore.new", "stage")
"""Folders that a commit needs, and takes away when it ends."""

_COMMIT_SECONDS = 4.0
_COMMIT_BYTES_A_SECOND = 2_000_000
"""How long a program may take to prove new files, and how much longer for larger ones. After six tenths of it, one
that does not answer is hung (`fwctl commit`): what was proven last is back and serving within 5 s."""

_SERVE = ("serve", "--")

HELPER_PATH = f"{VOLUME}/{HELPER}"

_MEBIBYTE = 1 << 20

_HELPER_CAPABILITIES = ("CHOWN", "NET_ADMIN", "NET_RAW", "SETGID", "SETPCAP", "SETUID")
"""For `fwctl serve`, which shapes the network and drops every one of them before the program starts."""


_SYSCTLS = {
    # A container inherits this from the host, where an engine turns it on: Envoy's would route for an agent.
    "net.ipv4.ip_forward": "0",
    # The programs listen on ports 53 and 80 as nobody.
    "net.ipv4.ip_unprivileged_port_start": "0",
}

_SETTINGS = {
    # Of net.ipv4.conf: what decides about packets and addresses on an interface. Hosts differ in it, and a
    # container inherits it, so each is set, for all interfaces and for every single one.
    "accept_local": 0,
    "accept_redirects": 0,  # a neighbour may not tell us another way
    "accept_source_route": 0,
    "arp_accept": 0,
    "arp_announce": 0,
    "arp_filter": 0,
    "arp_ignore": 0,
    "forwarding": 0,
    "proxy_arp": 0,
    "proxy_arp_pvlan": 0,
    "route_localnet": 0,  # nobody reaches what listens on loopback
    "rp_filter": 1,  # a source address that would be answered elsewhere is false
}

RESOLVER = "127.0.0.11"
"""Where the engine's own resolver is, inside every container: its packet filter leads there."""

REFUSED_NAME = "refused.clawker-fw.invalid"
"""No rule can allow it: `fwctl` asks for it, to see that agents are refused."""

_DNS_OPTION = "ndots:0"


def container_names(project: str, sibling: Sibling) -> tuple[str, str]:
    """Return what a sibling's container is called, and what its replacement is called until it takes over."""
    return f"{project}-{sibling}", f"{project}-{sibling}-next"


def lock_name(project: str) -> str:
    """Return what the container is called that says who is at work on a stack."""
    return f"{project}-lock"


def shape(
    program: Sequence[str],
    networks: Mapping[str, str],
    *,
    memory_mebibytes: int,
    settings: Mapping[str, int],
) -> Shape:
    """Return the shape of a sibling: its program, its addresses, and its own settings of interfaces."""
    return Shape(
        entrypoint=(HELPER_PATH,),
        command=(*_SERVE, *program),
        networks=networks,
        user="0:0",
        mounts=(Mount("volume", VOLUME),),
        tmpfs={"/tmp": "rw,noexec,nosuid,nodev,size=16m,mode=1777"},  # noqa: S108 - inside the container
        read_only=True,
        dns_search=(".",),  # none: a container inherits those of its host, and a name would be tried below them
        dns_options=(_DNS_OPTION,),
        capabilities_added=_HELPER_CAPABILITIES,
        capabilities_dropped=("ALL",),
        security_options=("no-new-privileges",),
        sysctls=_sysctls(settings),
        ipc_mode="private",
        memory=memory_mebibytes * _MEBIBYTE,
        pids=128,
        restart="always",
        healthcheck=Healthcheck((HELPER_PATH, "health"), interval=3.0, timeout=3.0, retries=2, start_period=10.0),
        log={"driver": "json-file", "max-file": "3", "max-size": "10m"},
    )


def network(
    sibling: Sibling, interfaces: Sequence[Mapping[str, str]], settings: Mapping[str, int]
) -> dict[str, object]:
    """Return what `boot/sibling.json` says of both siblings' networks.

    `interfaces` are those that the engine gives: address, subnet, and the gateway of the way out. `fwctl serve`
    makes the network so, and `fwctl probe` expects it to be so and nothing else.
    """
    return {
        "sibling": sibling.value,
        "interfaces": list(interfaces),
        "settings": {**_SETTINGS, **settings},
        "sysctls": _sysctls(settings),
        "resolver": RESOLVER,
        "resolv_conf": [f"nameserver {RESOLVER}", f"options {_DNS_OPTION}"],
    }


def _sysctls(settings: Mapping[str, int]) -> dict[str, str]:
    """Return the settings of a namespace. `forwarding` of all interfaces is `ip_forward` by another name."""
    of_all = {name: value for name, value in {**_SETTINGS, **settings}.items() if name != "forwarding"}
    return {**_SYSCTLS, **{f"net.ipv4.conf.all.{name}": str(value) for name, value in of_all.items()}}


def program_of(shape: Shape) -> tuple[str, ...]:
    """Return the command line of the real program in a container: what the helper becomes."""
    command = (*shape.entrypoint, *shape.command)
    return command[command.index("--") + 1 :] if "--" in command else command


def commit_record(live: Mapping[str, str], hot: Files, rules: Rules, remove: Sequence[str] = ()) -> File:
    """Return what `fwctl commit` reads, and keeps as the record of what is live.

    `live` maps resources to the digest of each once it is live. `hot` are the files, in the order in which they go
    into place, `remove` paths below `hot/` that then go. The version is that of a container that has just been
    made: each commit takes another one. `rules` are for `status`; `fwctl` only keeps them.
    """
    files = [
        {"path": path.removeprefix(HOT), "sha256": hashlib.sha256(file.content).hexdigest()}
        for path, file in hot.items()
    ]
    size = sum(len(file.content) for file in hot.values())
    seconds = round(_COMMIT_SECONDS + size / _COMMIT_BYTES_A_SECOND, 1)
    record = {
        "version": "0",
        "live": live,
        "files": files,
        "remove": list(remove),
        "seconds": seconds,
        "rules": {"count": rules.count, "sha256": rules.digest},
    }
    return public(json.dumps(record, separators=(",", ":")).encode())


NO_ATTEMPT = public(b"{}")
"""What is kept when the last attempt has not failed."""


def attempt_record(attempt: Attempt) -> File:
    """Return what is kept of an attempt that failed."""
    return public(json.dumps(dataclasses.asdict(attempt), sort_keys=True).encode())


def read_attempt(note: bytes) -> Attempt | None:
    """Return the failed attempt that a note tells of; None when it tells of none.

    Raises:
        ValueError: when it is no such note.
    """
    try:
        read = json.loads(note)
        if read == {}:
            return None
        attempt = Attempt(read["at"], read["code"], read["message"], tuple(read["context"]))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(note) from error
    texts = (attempt.at, attempt.code, attempt.message, *attempt.context)
    if not isinstance(read["context"], list) or not all(isinstance(each, str) for each in texts):
        raise ValueError(note)
    return attempt


def origin_record(origin: Origin) -> File:
    """Return what is kept of where the settings come from."""
    return public(json.dumps(dataclasses.asdict(origin), sort_keys=True, separators=(",", ":")).encode())


def recorded_rules(files: Files, live: Mapping[str, str]) -> Rules | None:
    """Return which rules the last commit's record names; None when it does not say, or other things are live."""
    try:
        record = json.loads(files[COMMITTED].content)
        rules = Rules(int(record["rules"]["count"]), str(record["rules"]["sha256"]))
        return rules if record["live"] == dict(live) else None
    except (KeyError, TypeError, ValueError):
        return None
