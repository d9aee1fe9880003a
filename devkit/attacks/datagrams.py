"""UDP: datagrams lead to the one host that an address stands for, or nowhere."""

from clawker_fw.rules.reasons import Reason
from devkit.attacks.addresses import HOST_PORT, RELAY_PORT
from devkit.attacks.attack import Attack, Command
from devkit.attacks.opaque import FETCHES, OWN
from devkit.dns import query

HEARD, CONTROL = "heard.test", "control.test"
"""What is asked of whoever listens for datagrams: by an attack, and by what must succeed directly afterwards."""

TALK = "talk"
LEADS = {
    "whisper": "a private address",
    "cloud": "a link-local address",
    "inward": "loopback",
    "inward2": "loopback, with `allow_private`",
    "oneself2": "Envoy, with `allow_private`",
}
"""Names with a rule for UDP, and where those lead that lead where no agent may go."""

_RECORD_ROUTE = bytes((7, 39, 40)) + bytes(36) + b"\1"
"""The longest option that records a route, with no room left in it (RFC 791, section 3.1), and no operation."""


def _sends(place: str, name: str = HEARD) -> Command:
    return ("resolve", name, "--timeout", "1s", "--server", place)


# The kernel answers at most six refused datagrams of an agent in a short time, so there are no more of them here.
_ANSWERED = _sends(f"{{{TALK}}}:{HOST_PORT}", CONTROL)


def _knocks(what: str, place: str, name: str | None = None) -> Attack:
    """Return an attempt at a port that nobody listens on; `name` is what its address stands for."""
    reason = Reason.WRONG_PORT if name else Reason.NO_RULE
    return Attack(what, _sends(place), "connection refused", reason, name, _ANSWERED)


DATAGRAMS = (
    Attack(
        "A datagram to the port of a rule", _sends(f"{{{TALK}}}:{HOST_PORT}"), "an address", control=_ANSWERED,
        heard=(HEARD,),
    ),
    *(
        Attack(
            f"A datagram to a name that leads to {where}",
            _sends(f"{{{name}}}:{HOST_PORT}"),
            "no answer",
            Reason.NO_ADDRESS if name == "oneself2" else Reason.PRIVATE_ADDRESS,  # on the agents' network
            f"{name}.test",
            _ANSWERED,
        )
        for name, where in LEADS.items()
    ),
    Attack(
        "A datagram to a name that does not exist", _sends(f"{{nobody}}:{HOST_PORT}"), "no answer",
        Reason.NO_ADDRESS, "nobody.test", _ANSWERED,
    ),
    _knocks("A datagram to a port without a rule", f"{{{TALK}}}:53", f"{TALK}.test"),
    _knocks("A datagram to the port of a TCP rule of another name", "{own}:8443", OWN),
    _knocks("A datagram to Envoy itself", "{envoy}:53"),
    _knocks("A datagram to an address that stands for no name", f"{{unused}}:{HOST_PORT}"),
    *(
        Attack(
            f"A datagram whose header has no room left for its route, to {where}",
            ("raw", place, "--udp", "--options", _RECORD_ROUTE.hex(), "--hex", query(HEARD).hex()),
            "connection refused",
            Reason.NO_RULE,
            control=_ANSWERED,
        )
        for where, place in {
            "where Envoy passes on telemetry": f"{{relay}}:{RELAY_PORT}",
            "the resolver": "{resolver}:5353",
        }.items()
    ),
    Attack(
        "A connection to the port of a rule for datagrams",
        ("probe-tcp", f"{{{TALK}}}:{HOST_PORT}", "--timeout", "1s"),
        "connection refused",
        Reason.WRONG_PORT,
        f"{TALK}.test",
        FETCHES,
    ),
)  # fmt: skip
