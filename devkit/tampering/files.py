"""Tampering with the files in a container's volume."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from clawker_fw.stack.container import ATTEMPT, COMMITTED, VOLUME
from clawker_fw.stack.envoy.sibling import LISTENERS
from clawker_fw.stack.name_list import POLICY
from devkit.hand import Hand
from devkit.tampering.way import COREDNS, ENVOY, LOADED, SIGNED, TAGS, Sign, Tampering

_BOOT, _HOT = "boot files", "hot files"
_NAMES = "the list of names"
"""Beside these, the record of what was committed last is right: it tells who has changed the list."""


def _file(
    sibling: str, path: str, what: str, done: Callable[[Hand, str, str], object], action: str, *, beside: str = ""
) -> Tampering:
    layer, usual = ("hot", _HOT) if action == "commit" else ("boot", _BOOT)
    sign = Sign(sibling, layer, path, action)
    return Tampering(what, lambda hand: done(hand, sibling, path), (sign,), beside or usual)


def _write(sibling: str, path: str, content: bytes, action: str, what: str = "changed") -> Tampering:
    return _file(sibling, path, f"`{path}` of {sibling} is {what}", partial(Hand.write, content=content), action)


def _folder(sibling: str, path: str, what: str, **changed: int) -> Tampering:
    sign = Sign(sibling, "boot", f"{VOLUME}/{path}", "replace")
    described = f"the folder `{path}` of {sibling} is given another {what}"
    return Tampering(described, lambda hand: hand.open_folder(sibling, path, **changed), (sign,), _BOOT)


def _policy(change: Callable[[Any, Hand], None]) -> Callable[[Hand], None]:
    """Return a function that edits the list of names in place. CoreDNS loads every list that it can read."""

    def make(hand: Hand) -> None:
        document = json.loads(hand.read(COREDNS)[POLICY])
        change(document, hand)
        hand.write(COREDNS, POLICY, json.dumps(document).encode())

    return make


def _other_slot(document: Any, hand: Hand) -> None:  # noqa: ANN401 - JSON
    first, _, last = hand.address(ENVOY).rpartition(".")
    document["addresses"]["envoy"] = f"{first}.{21 - int(last)}"


_COREFILE = "boot/Corefile"
_LINK, _MODE = partial(Hand.link, target="/etc/hosts"), partial(Hand.alter, mode=0o666)
_UNREADABLE = partial(Hand.write, content=b"not a list\n")
_WRONG_NAMES = (Sign(COREDNS, "hot", POLICY, "commit"), Sign(COREDNS, "live", "policy", "commit"))

FILES = (
    _write(ENVOY, "boot/bootstrap.json", b"admin: {}\n", "replace"),
    _write(COREDNS, _COREFILE, b". {\n}\n", "replace"),
    _write(COREDNS, "boot/extra", b"x", "replace", "added"),
    _write(COREDNS, "extra", b"x", "replace", "added"),
    _write(COREDNS, "state/extra", b"x", "replace", "added"),
    Tampering(
        "`bin/fwctl` of coredns is replaced by another program",
        lambda hand: hand.write(COREDNS, "bin/fwctl", b"#!/bin/sh\n"),
        (Sign(COREDNS, "boot", "bin/fwctl", "replace"), Sign(COREDNS, "live", "answer", "replace")),
        beside=_BOOT,
    ),
    _file(COREDNS, _COREFILE, f"`{_COREFILE}` is deleted", Hand.remove, "replace", beside="one removed"),
    _file(
        COREDNS, _COREFILE, f"`{_COREFILE}` is replaced by a link", _LINK, "replace", beside="without a way out"
    ),
    _file(COREDNS, _COREFILE, f"`{_COREFILE}` is given another mode", _MODE, "replace", beside="without agents"),
    _file(
        ENVOY, LISTENERS, f"`{LISTENERS}` is given another owner", partial(Hand.alter, owner=(65532, 0)), "commit"
    ),
    _file(COREDNS, COMMITTED, f"`{COMMITTED}` of coredns is given another mode", _MODE, "commit"),
    _folder(COREDNS, "hot/policy", "mode", mode=0o777),
    _folder(ENVOY, "hot", "owner", owner=65532),
    _write(COREDNS, ATTEMPT, b"[]", "replace", "replaced by an unreadable record"),
    _write(COREDNS, COMMITTED, b'{"version": 1}', "commit", "replaced by an unreadable record"),
    _write(ENVOY, LISTENERS, b'{"resources": []}', "commit"),
    _write(ENVOY, "hot/rds/extra.json", b"{}", "commit", "added"),
    _write(COREDNS, "stage/commit.json", b"{}", "replace", "added"),
    _file(ENVOY, LISTENERS, f"`{LISTENERS}` is deleted", Hand.remove, "commit"),
    _file(COREDNS, POLICY, f"`{POLICY}` is replaced by a link", _LINK, "commit", beside=_NAMES),
    Tampering(
        "a name that no rule allows is added to the list of names",
        _policy(lambda document, _: document["names"].update({"evil.test": {"at": "envoy"}})),
        _WRONG_NAMES,
        LOADED,
    ),
    Tampering(
        "the list of names points to an address without an Envoy", _policy(_other_slot), _WRONG_NAMES, SIGNED
    ),
    _file(
        COREDNS, POLICY, "the list of names is replaced by an unreadable one", _UNREADABLE, "commit", beside=TAGS
    ),
    _write(COREDNS, f"good/{POLICY}", b"{}", "commit"),
    _write(COREDNS, "state/committed.json", b"{}", "commit"),
)
