"""Addresses instead of names, in every way to write them: as a question, as a server name, as a host."""

import re

from clawker_fw.rules.reasons import Reason
from devkit.attacks.attack import FETCHES, FETCHES_HTTP, Attack, raw
from devkit.attacks.names import RESOLVES
from devkit.attacks.requests import request, sent
from devkit.hellos import client_hello

ELSEWHERE = "203.0.113.66"
"""The address of names without a rule. The same origin listens there, and its log says so."""

_ASCII = 128

WRITTEN = {
    "as everybody writes it": ELSEWHERE,
    "with a dot at its end": f"{ELSEWHERE}.",
    "as one number": "3405803842",
    "as one hexadecimal number": "0xcb007142",
    "in hexadecimal": "0xcb.0x0.0x71.0x42",
    "in octal": "0313.0.0161.0102",
    "in three parts": "203.0.28994",
    "in two parts": "203.28994",
    "with zeros before it": "203.000.113.066",
    "as IPv6": "::ffff:203.0.113.66",
    "as IPv6 in brackets": "[::ffff:203.0.113.66]",
    "as hexadecimal IPv6 in brackets": "[::ffff:cb00:7142]",
    "with a zone": "[::ffff:203.0.113.66%25eth0]",
    "in letters of full width": "２０３.０.１１３.６６",  # noqa: RUF001 - that is the attack
    "with dots of another script": "203。0。113。66",
    "of loopback": "127.0.0.1",
    "of all interfaces": "0.0.0.0",  # noqa: S104 - nobody listens there
    "of the cloud's services": "169.254.169.254",
}


def _reason(text: str) -> Reason:
    is_name = re.fullmatch(r"[\w-]+(\.[\w-]+)*", text, re.ASCII)
    return Reason.NO_RULE if is_name else Reason.BAD_NAME


def _question(what: str, text: str) -> Attack:
    name = text.removesuffix(".")
    written = "".join(chr(octet) if octet < _ASCII else f"\\{octet}" for octet in name.encode())
    return Attack(
        f"A question for an address {what}", ("resolve", text), "NXDOMAIN", _reason(name), written, RESOLVES
    )


def _server_name(what: str, text: str) -> Attack:
    hello = raw("{envoy}:443", client_hello(text.encode()))
    written = re.sub(r"[^\w.-]", "_", text.encode().decode("latin-1"), flags=re.ASCII)
    name = text if written == text else f"invalid:{written}"
    return Attack(f"A server name that is an address {what}", hello, "closed", _reason(text), name, FETCHES)


def _host(what: str, text: str) -> Attack:
    asked = sent(request("GET / HTTP/1.1", f"Host: {text}"))
    name = text.removesuffix(".")
    code, written = ("403", name) if text.isascii() else ("400", None)
    return Attack(f"A host that is an address {what}", asked, code, _reason(name), written, FETCHES_HTTP)


LITERALS = tuple(
    row
    for what, text in WRITTEN.items()
    for row in (_question(what, text), _server_name(what, text), _host(what, text))
)
