"""A network as `dst`, with `as`: each of its addresses has a name of its own, because agents use names alone.

With `as: lab.test`, the address 10.1.2.5 is `10-1-2-5.lab.test`. A network is small, because each name has a
virtual address, and a listener.
"""

import functools
import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Network, IPv6Network, NetmaskValueError

from clawker_fw.rules.destination import LONGEST_NAME

SHORTEST_PREFIX = 24

_FORM = re.compile(r"([0-9.]+)/[0-9]{1,2}")
_LONGEST_LABEL = len("255-255-255-255.")


def parse_block(text: str) -> IPv4Network | None:
    """Read a network of addresses (RFC 4632), or return None for what has another form.

    Raises:
        ValueError: when it is one that no rule can have, with what to write instead.
    """
    written = text.strip()
    if _is_ipv6(written):
        raise ValueError(f"{text!r} is an IPv6 network; agents have IPv4 alone: write an IPv4 network")
    if not _FORM.fullmatch(written):
        return None
    try:
        block = IPv4Network(written, strict=False)
    except (AddressValueError, NetmaskValueError) as error:
        raise ValueError(f"{text!r} is not an IPv4 network: write one as 192.0.2.0/28") from error
    if block.prefixlen < SHORTEST_PREFIX:
        raise ValueError(
            f"{text!r} has {block.num_addresses:,} addresses; /{SHORTEST_PREFIX} is the largest network of a rule"
        )
    if str(block.network_address) != written.partition("/")[0]:
        raise ValueError(f"{text!r} is an address within a network; write `{block}` for all of it")
    return block


def require_room(name: str) -> None:
    """Require that the names of addresses below a name are no longer than names can be.

    Raises:
        ValueError: when they are.
    """
    if len(name) + _LONGEST_LABEL > LONGEST_NAME:
        raise ValueError(
            f"`as` has {len(name)} characters; {LONGEST_NAME - _LONGEST_LABEL} is the most below which addresses "
            "have names"
        )


@functools.lru_cache(maxsize=1024)
def hosts(block: str, below: str) -> Mapping[str, str]:
    """Return the names of a network's addresses, each with its address."""
    return {f"{str(address).replace('.', '-')}.{below}": str(address) for address in IPv4Network(block)}


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Network(text, strict=False)
    except ValueError:
        return False
    return "/" in text
