"""UDP: datagrams lead to the one host that an address stands for, or nowhere."""

from clawker_fw.rules.reasons import Reason
from devkit.attacks.addresses import HOST_PORT, RELAY_PORT
from devkit.attacks.attack import Attack, Command, closed_port, probe, raw
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


_PORT = f"{{{TALK}}}:{HOST_PORT}"


def _sends(place: str, name: str = HEARD) -> Command:
    return ("resolve", name, "--timeout", "1s", "--server", place)


# The kernel answers at most six refused datagrams of an agent in a short time, so there are no more of them here.
_ANSWERED = _sends(_PORT, CONTROL)


_NOWHERE = {name: f"leads to {where}" for name, where in LEADS.items()} | {"nobody": "does not exist"}
_NO_ADDRESS = {"oneself2", "nobody"}
"""Names without an address that is an answer for Envoy: the agents' network has none."""

_REASONS = (Reason.PRIVATE_ADDRESS, Reason.NO_ADDRESS)
DATAGRAMS = (
    Attack("A datagram to the port of a rule", _sends(_PORT), "an address", control=_ANSWERED, heard=(HEARD,)),
    *(
        Attack(what, _sends(f"{{{name}}}:{HOST_PORT}"), "no answer", reason, f"{name}.test", _ANSWERED)
        for name, what, reason in (
            (name, f"A datagram to a name that {where}", _REASONS[name in _NO_ADDRESS])
            for name, where in _NOWHERE.items()
        )
    ),
    *(
        closed_port(f"A datagram to {what}", _sends(place), _ANSWERED, name)
        for what, place, name in (
            ("a port without a rule", f"{{{TALK}}}:53", f"{TALK}.test"),
            ("the port of a TCP rule of another name", "{own}:8443", OWN),
            ("Envoy itself", "{envoy}:53", None),
            ("an address that stands for no name", f"{{unused}}:{HOST_PORT}", None),
        )
    ),
    *(
        closed_port(
            f"A datagram whose header has no room left for its route, to {where}",
            raw(place, query(HEARD), "--udp", "--options", _RECORD_ROUTE.hex()),
            _ANSWERED,
        )
        for where, place in {
            "where Envoy passes on telemetry": f"{{relay}}:{RELAY_PORT}",
            "the resolver": "{resolver}:5353",
        }.items()
    ),
    closed_port("A connection to the port of a rule for datagrams", probe(_PORT), FETCHES, f"{TALK}.test"),
)
