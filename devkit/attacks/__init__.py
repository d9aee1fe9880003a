"""Everything that a hostile agent is tested to try: what it sends, what it gets, and what must be on record.

The tests perform each of them on a real engine. `docs/reference/attacks.md` is generated from the same tables.
"""

from collections.abc import Mapping, Sequence

from devkit.attacks.addresses import ADDRESSES, BEHIND_NAMES
from devkit.attacks.attack import Attack
from devkit.attacks.datagrams import DATAGRAMS
from devkit.attacks.names import QUESTIONS, SERVER_NAMES
from devkit.attacks.opaque import OPAQUE
from devkit.attacks.requests import BEHIND, REQUESTS

__all__ = ["ATTACKS", "Attack"]

ATTACKS: Mapping[str, Sequence[Attack]] = {
    "Questions to the resolver": QUESTIONS,
    "TLS": SERVER_NAMES,
    "HTTP": REQUESTS,
    "One HTTP request behind another": BEHIND,
    "Allowed names that lead elsewhere": BEHIND_NAMES,
    "Names with an address of their own": OPAQUE,
    "Datagrams": DATAGRAMS,
    "Addresses": ADDRESSES,
}
