"""Parses the options of `docker run` for `docker create` and `docker start`.

Words after the image are the agent's own command, so each option must be known, and whether it takes a value.
`judge.py` checks the created container; only what no engine records is refused here.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from getopt import GetoptError, getopt
from ipaddress import AddressValueError, IPv4Address

from clawker_fw.errors import RefusedError, UsageError
from clawker_fw.rules.rule import HIGHEST_PORT
from clawker_fw.stack.relay import LOOPBACK, PublishedPort

_SHORT = {
    "c": "cpu-shares",
    "d": "detach",
    "e": "env",
    "h": "hostname",
    "i": "interactive",
    "l": "label",
    "m": "memory",
    "p": "publish",
    "P": "publish-all",
    "q": "quiet",
    "t": "tty",
    "u": "user",
    "v": "volume",
    "w": "workdir",
}

_HINT = "Write [ADDRESS:][PORT:]CONTAINER_PORT. Without an address, this machine alone reaches it (127.0.0.1)."


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SWITCHES = _words(
    """
    detach disable-content-trust help init interactive no-healthcheck oom-kill-disable privileged
    publish-all quiet read-only rm tty use-api-socket
    """
)

_WITH_VALUE = _words(
    """
    add-host annotation blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile
    cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems
    device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops dns
    dns-opt dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd
    health-interval health-retries health-start-interval health-start-period health-timeout hostname
    io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label label-file link link-local-ip log-driver
    log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount name net net-alias network
    network-alias oom-score-adj pid pids-limit platform publish pull restart runtime security-opt shm-size
    stop-signal stop-timeout storage-opt sysctl tmpfs ulimit user userns uts volume volume-driver volumes-from
    workdir
    """
)

_DETACH, _PUBLISH = "detach", "publish"
"""Options that `docker create` does not get: it does not know `--detach`, and a relay publishes the ports."""


@dataclass(frozen=True, slots=True)
class RunWords:
    """The parsed words after `docker run`.

    `create` are words for `docker create`. `cid_file` gets the container's id. With `removed`, the engine removes
    the container at its end. A relay publishes `ports`.
    """

    create: tuple[str, ...]
    detached: bool
    interactive: bool
    removed: bool
    cid_file: str
    ports: tuple[PublishedPort, ...] = ()


def parse_run(words: Sequence[str]) -> RunWords:
    """Parse the words after `docker run`.

    Raises:
        RefusedError: when an option weakens confinement in a way that the engine does not record.
        UsageError: when an option is unknown or unsupported.
    """
    given, left = _options(words)
    last = dict(given)
    for name, value in given:
        if reason := _unrecorded(name, value):
            raise RefusedError(
                "agent-unconfined",
                f"An agent can't be started with --{name}: {reason}.",
                hint="Leave it out. A container that needs it can't run as an agent; use plain `docker run`.",
            )
    ports = parse_ports(value for name, value in given if name == _PUBLISH)
    if ports and "ip" in last:
        raise UsageError(
            "agent-option", "An agent with --publish gets its address from clawker-fw: leave out --ip."
        )
    passed = [
        f"--{name}" if name in _SWITCHES else f"--{name}={value}"
        for name, value in given
        if name not in {_DETACH, _PUBLISH}
    ]
    return RunWords(
        create=(*passed, "--", *left),
        detached="detach" in last,
        interactive="interactive" in last,
        removed="rm" in last,
        cid_file=last.get("cidfile", ""),
        ports=ports,
    )


def _options(words: Sequence[str]) -> tuple[list[tuple[str, str]], Sequence[str]]:
    """Return the options before the image by long name, and the other words. Raise UsageError for unknown ones."""
    short = "".join(letter if name in _SWITCHES else f"{letter}:" for letter, name in _SHORT.items())
    try:
        chosen, left = getopt(words, short, [*_SWITCHES, *(f"{name}=" for name in _WITH_VALUE)])
    except GetoptError as error:
        raise UsageError(
            "agent-option",
            f"`agent run` can't read the options of `docker run`: {error.msg}.",
            hint="Options of clawker-fw go before `agent`. If docker knows the option, and it opens no way around "
            "the firewall, use it in `flags=$(clawker-fw agent flags) && docker run $flags IMAGE`.",
        ) from error
    given = [
        (name[2:], value) if name.startswith("--") else (_SHORT[name[1:]], value.removeprefix("="))
        for name, value in chosen
    ]
    return given, left


def _unrecorded(name: str, value: str) -> str:
    """Return why an option is refused whose effect `judge.py` can't see, or ""."""
    if name == "dns-search":
        return "the firewall chooses it"
    if name == "cgroupns" and value == "host":  # some engines' default, so it would look the same
        return "it is a namespace of the host"
    return ""


def parse_ports(words: Iterable[str]) -> tuple[PublishedPort, ...]:
    """Return the sorted ports of `--publish` options.

    Raises:
        UsageError: when one is not a port.
        RefusedError: when a relay can't publish one.
    """
    ports = {_port(word) for word in words}
    places = [(port.host, port.at) for port in ports if port.at]
    if twice := sorted({place for place in places if places.count(place) > 1}):
        raise UsageError("agent-option", f"{twice[0][0]}:{twice[0][1]} can't be published for two ports.")
    return tuple(sorted(ports))


def _port(word: str) -> PublishedPort:
    bare, _, protocol = word.partition("/")
    if protocol.lower() not in {"", "tcp"} or "-" in bare:
        raise RefusedError(
            "agent-unreachable",
            f"The port {word!r} can't be published: only TCP is passed on to an agent, and no range of ports.",
            hint="Repeat --publish for each port, and have the agent serve over TCP.",
        )
    before, _, port = bare.rpartition(":")
    host, _, at = before.rpartition(":")
    numbers = [port, *([at] if at else [])]
    valid = all(number.isascii() and number.isdigit() and 0 < int(number) <= HIGHEST_PORT for number in numbers)
    with suppress(AddressValueError):
        if valid:
            return PublishedPort(IPv4Address(host) if host else LOOPBACK, int(at or 0), int(port))
    raise UsageError("agent-option", f"--publish {word!r} names no IPv4 address and port.", hint=_HINT)


def free_number(taken: Collection[int], most: int) -> int:
    """Return the lowest free number for an agent with published ports. Raise RefusedError if all are taken."""
    for number in range(most):
        if number not in taken:
            return number
    raise RefusedError(
        "agent-unreachable",
        f"The agents' network has room for {most} agents that publish ports, and no more.",
        hint="Remove some that have ended, or set a `network.subnet` of /24 or larger.",
    )
