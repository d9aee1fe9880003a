"""Tampering with the files in a container's volume."""

import json
from collections.abc import Callable
from typing import Any

from clawker_fw.stack.container import ATTEMPT, COMMITTED, VOLUME
from clawker_fw.stack.envoy.sibling import LISTENERS
from clawker_fw.stack.policy import POLICY
from devkit.hand import Hand
from devkit.tampering.way import COREDNS, ENVOY, LOADED, SIGNED, TAGS, UPGRADE, Sign, Tampering

_BOOT, _HOT = "boot files", "hot files"
_NAMES = "the list of names"
"""Beside these, the record of what was committed last is right: it tells who has changed the list."""


def _write(sibling: str, path: str, content: bytes, action: str, what: str = "changed") -> Tampering:
    layer = "hot" if action == "commit" else "boot"
    return Tampering(
        f"`{path}` of {sibling} is {what}",
        lambda hand: hand.write(sibling, path, content),
        (Sign(sibling, layer, path, action),),
        beside=_HOT if action == "commit" else _BOOT,
    )


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


_WRONG_NAMES = (Sign(COREDNS, "hot", POLICY, "commit"), Sign(COREDNS, "live", "policy", "commit"))

FILES = (
    _write(ENVOY, "boot/bootstrap.json", b"admin: {}\n", "replace"),
    _write(COREDNS, "boot/Corefile", b". {\n}\n", "replace"),
    _write(COREDNS, "boot/extra", b"x", "replace", "added"),
    _write(COREDNS, "extra", b"x", "replace", "added"),
    _write(COREDNS, "state/extra", b"x", "replace", "added"),
    Tampering(
        "`bin/fwctl` of coredns is replaced by another program",
        lambda hand: hand.write(COREDNS, "bin/fwctl", b"#!/bin/sh\n"),
        (Sign(COREDNS, "boot", "bin/fwctl", "replace"), Sign(COREDNS, "live", "answer", "replace")),
        beside=_BOOT,
    ),
    Tampering(
        "`boot/Corefile` is deleted",
        lambda hand: hand.remove(COREDNS, "boot/Corefile"),
        (Sign(COREDNS, "boot", "boot/Corefile", "replace"),),
        beside="one removed",
    ),
    Tampering(
        "`boot/Corefile` is replaced by a link",
        lambda hand: hand.link(COREDNS, "boot/Corefile", "/etc/hosts"),
        (Sign(COREDNS, "boot", "boot/Corefile", "replace"),),
        beside="without a way out",
    ),
    Tampering(
        "`boot/Corefile` is given another mode",
        lambda hand: hand.alter(COREDNS, "boot/Corefile", mode=0o666),
        (Sign(COREDNS, "boot", "boot/Corefile", "replace"),),
        beside="without agents",
    ),
    Tampering(
        f"`{LISTENERS}` is given another owner",
        lambda hand: hand.alter(ENVOY, LISTENERS, owner=(65532, 0)),
        (Sign(ENVOY, "hot", LISTENERS, "commit"),),
        beside=_HOT,
    ),
    Tampering(
        f"`{COMMITTED}` of coredns is given another mode",
        lambda hand: hand.alter(COREDNS, COMMITTED, mode=0o666),
        (Sign(COREDNS, "hot", COMMITTED, "commit"),),
        beside=_HOT,
    ),
    Tampering(
        "the folder `hot/policy` of coredns is given another mode",
        lambda hand: hand.open_folder(COREDNS, "hot/policy", mode=0o777),
        (Sign(COREDNS, "boot", f"{VOLUME}/hot/policy", "replace"),),
        beside=_BOOT,
    ),
    Tampering(
        "the folder `hot` of envoy is given another owner",
        lambda hand: hand.open_folder(ENVOY, "hot", owner=65532),
        (Sign(ENVOY, "boot", f"{VOLUME}/hot", "replace"),),
        beside=_BOOT,
    ),
    _write(COREDNS, ATTEMPT, b"[]", "replace", "replaced by an unreadable record"),
    Tampering(
        f"`{COMMITTED}` of coredns is replaced by an unreadable record",
        lambda hand: hand.write(COREDNS, COMMITTED, b'{"version": 1}'),
        (Sign(COREDNS, "hot", COMMITTED, "commit"),),
        beside=_HOT,
    ),
    _write(ENVOY, LISTENERS, b'{"resources": []}', "commit"),
    _write(ENVOY, "hot/rds/extra.json", b"{}", "commit", "added"),
    Tampering(
        "an unfinished commit is left behind in coredns",
        lambda hand: hand.write(COREDNS, "stage/commit.json", b"{}"),
        (Sign(COREDNS, "hot", "stage", "commit", UPGRADE),),
        beside=_NAMES,
    ),
    Tampering(
        f"`{LISTENERS}` is deleted",
        lambda hand: hand.remove(ENVOY, LISTENERS),
        (Sign(ENVOY, "hot", LISTENERS, "commit"),),
        beside=_HOT,
    ),
    Tampering(
        f"`{POLICY}` is replaced by a link",
        lambda hand: hand.link(COREDNS, POLICY, "/etc/hosts"),
        (Sign(COREDNS, "hot", POLICY, "commit"),),
        beside=_NAMES,
    ),
    Tampering(
        "a name that no rule allows is added to the list of names",
        _policy(lambda document, _: document["names"].update({"evil.test": {"at": "envoy"}})),
        _WRONG_NAMES,
        LOADED,
    ),
    Tampering(
        "the list of names points to an address without an Envoy", _policy(_other_slot), _WRONG_NAMES, SIGNED
    ),
    Tampering(
        "the list of names is replaced by an unreadable one",
        lambda hand: hand.write(COREDNS, POLICY, b"not a list\n"),
        (Sign(COREDNS, "hot", POLICY, "commit"),),
        beside=TAGS,
    ),
    _write(COREDNS, f"good/{POLICY}", b"{}", "commit"),
    _write(COREDNS, "state/committed.json", b"{}", "commit"),
)
