"""The published ports of `agent run` and `agent compose`, as `docker run --publish` writes them. Pure.

What docker can and a relay can't is refused: other protocols than TCP, IPv6, names and ranges of ports.
"""

from collections.abc import Collection, Iterable
from ipaddress import AddressValueError, IPv4Address

from clawker_fw.errors import RefusedError, UsageError
from clawker_fw.stack.relay import LOOPBACK, PublishedPort

_LARGEST = 65535

_HINT = "Write [ADDRESS:][PORT:]CONTAINER_PORT. Without an address, this machine alone reaches it (127.0.0.1)."


def parse_ports(words: Iterable[str]) -> tuple[PublishedPort, ...]:
    """Return the ports that the values of `--publish` name, sorted.

    Raises:
        UsageError: when one is no port.
        RefusedError: when one is a port that a relay can't publish.
    """
    ports = {_port(word) for word in words}
    places = [(each.host, each.at) for each in ports if each.at]
    if twice := sorted({each for each in places if places.count(each) > 1}):
        raise UsageError("agent-option", f"{twice[0][0]}:{twice[0][1]} can't be published for two ports.")
    return tuple(sorted(ports))


def _port(word: str) -> PublishedPort:
    bare, _, protocol = word.partition("/")
    if protocol.lower() not in {"", "tcp"}:
        raise RefusedError(
            "agent-unreachable",
            f"The port {word!r} can't be published: what leads to an agent passes on connections over TCP alone.",
            hint="Leave it out, or have the agent serve over TCP.",
        )
    if "-" in bare:
        raise RefusedError(
            "agent-unreachable",
            f"A range of ports can't be published, as {word!r} is.",
            hint="Repeat --publish for each port.",
        )
    before, _, port = bare.rpartition(":")
    host, _, at = before.rpartition(":")
    try:
        found = IPv4Address(host) if host else LOOPBACK
    except AddressValueError as error:
        raise UsageError(
            "agent-option", f"The address in --publish {word!r} is no IPv4 address.", hint=_HINT
        ) from error
    numbers = [each for each in (at, port) if each]
    valid = bool(port) and all(each.isascii() and each.isdigit() and 0 < int(each) <= _LARGEST for each in numbers)
    if not valid:
        raise UsageError("agent-option", f"--publish {word!r} names no port.", hint=_HINT)
    return PublishedPort(found, int(at or 0), int(port))


def free_number(taken: Collection[int], most: int) -> int:
    """Return the number of an agent that is to publish ports: the first that no other one has.

    Raises:
        RefusedError: when as many agents publish ports as can.
    """
    if not most:
        raise RefusedError(
            "agent-unreachable",
            "The agents' network is too small for agents that publish ports.",
            hint="It needs a `network.subnet` of /24 or larger.",
        )
    for number in range(most):
        if number not in taken:
            return number
    raise RefusedError(
        "agent-unreachable",
        f"{most} agents publish ports already, and there is room for no more.",
        hint="Remove some that have ended.",
    )
