"""Tampering with a running container: its processes, and what Envoy has loaded."""

import json
from collections.abc import Callable

from clawker_fw.stack.container import VOLUME
from clawker_fw.stack.envoy.sibling import CLUSTERS, LISTENERS, PATHS, ROUTES
from clawker_fw.stack.envoy.signing import INTERMEDIATES, NAMES
from devkit.hand import RECORDER, SIGNER, Hand
from devkit.peers import peer_program
from devkit.stacks import installed_release
from devkit.tampering.way import COREDNS, ENVOY, LOADED, SIGNED, Sign, Tampering
from devkit.waiting import until


def start_a_process(hand: Hand) -> None:
    """Have the engine execute a program in CoreDNS's container that stays."""
    program = peer_program(hand.docker.version()["Arch"]).read_bytes()
    hand.write(COREDNS, "bin/fwctl", program)  # the only path that can be executed
    identity = hand.docker.exec_create(hand.name(COREDNS), [f"{VOLUME}/bin/fwctl", "wait"])["Id"]
    hand.docker.exec_start(identity, detach=True)
    release = installed_release()
    hand.write(COREDNS, "bin/fwctl", release.binary("fwctl", hand.docker.version()["Arch"]).read_bytes())


def _lead_around_the_guard(hand: Hand) -> None:
    before = hand.read(ENVOY)["boot/sibling.json"]
    sibling = json.loads(before)
    sibling["tables"].append({**sibling["tables"][1], "from": sibling["tables"][0]["from"], "table": 103})
    sibling["signer"] = {"trusted": "/nonexistent", "further": "any"}  # it fails once the network is configured
    hand.write(ENVOY, "boot/sibling.json", json.dumps(sibling).encode())
    hand.fwctl(ENVOY, "serve", "--", "/any")
    hand.write(ENVOY, "boot/sibling.json", before)


def _end_the_recorder(hand: Hand) -> None:
    for _ in range(_ENDS_TOO_OFTEN):
        until(lambda: hand.kill(ENVOY, RECORDER))


def _have_the_signer_load(path: str, content: bytes) -> Callable[[Hand], None]:
    """Return a function that changes a file in place. The signer reads it at once."""
    return lambda hand: hand.write(ENVOY, path, content, like=hand.files(ENVOY)[path])


def _have_loaded(path: str, resource: str, before: bytes, after: bytes) -> Callable[[Hand], None]:
    """Return a function that makes Envoy load a changed file, and then restores the file without a reload."""

    def make(hand: Hand) -> None:
        right = hand.files(ENVOY)[path]
        changed = right.content.replace(before, after)
        if changed == right.content:
            raise ValueError(f"{path} has nothing to change")
        hand.write(ENVOY, "stage/changed", changed)
        hand.move(ENVOY, "stage/changed", path)
        hand.reload(path)
        until(lambda: (ENVOY, "live", resource) in {found[:3] for found in hand.firewall.drift().findings})
        hand.write(ENVOY, path, right.content, like=right)

    return make


_ENDS_TOO_OFTEN = 5
"""Ends of a helper within ten minutes that are no mishap any more."""

_CLUSTER = b'{"@type":"type.googleapis.com/envoy.config.cluster.v3.Cluster","name":"evil"}'

_VIRTUAL_HOST = (
    b'{"domains":["evil.test"],"name":"evil","routes":[{"direct_response":{"status":200},"match":{"prefix":"/"}}]}'
)


def _live(
    what: str, done: Callable[[Hand], object], sibling: str, field: str, beside: str = "processes"
) -> Tampering:
    return Tampering(what, done, (Sign(sibling, "live", field, "replace"),), beside)


_RECORDER, _SIGNER = (ENVOY, "processes", "recorder"), (ENVOY, "signer", "signer")
RUNNING = (
    _live("a route around the guard is added in envoy", _lead_around_the_guard, ENVOY, "network"),
    _live("another process is started in coredns", start_a_process, COREDNS, "processes"),
    _live("the recorder of refusals in envoy is killed again and again", _end_the_recorder, *_RECORDER),
    _live(
        "the signer of certificates in envoy is stopped", lambda hand: hand.kill(ENVOY, SIGNER, "STOP"), *_SIGNER
    ),
    *(
        Tampering(
            f"the signer in envoy is given {what}",
            _have_the_signer_load(path, content),
            (Sign(ENVOY, "hot", path, "commit"), Sign(ENVOY, "live", resource, "commit")),
            beside=SIGNED,
        )
        for what, path, resource, content in (
            ("a further name", NAMES, "names", b'{"names":["evil.test"],"subtrees":[]}'),
            ("other intermediates", INTERMEDIATES, "intermediates", b'{"intermediates":[ ]}'),
        )
    ),
    *(
        Tampering(
            f"Envoy loads a further {what}, and the file is restored afterwards",
            _have_loaded(path, resource, before, after),
            (Sign(ENVOY, "live", resource, "commit"),),
            beside=LOADED,
        )
        for what, path, resource, before, after in (
            ("path", PATHS, "paths", b'"virtual_hosts":[', b'"virtual_hosts":[' + _VIRTUAL_HOST + b","),
            ("server name", LISTENERS, "listeners", b'"domains":["a.test"]', b'"domains":["a.test","evil.test"]'),
            ("HTTP host", ROUTES, "routes", b'"domains":["h.test"]', b'"domains":["evil.test","h.test"]'),
            ("cluster", CLUSTERS, "clusters", b'"resources":[]', b'"resources":[' + _CLUSTER + b"]"),
        )
    ),
)

SEEN_BY_AGENTS = (_live("envoy is told to close its listeners", Hand.deafen, ENVOY, "agents_see", ""),)
