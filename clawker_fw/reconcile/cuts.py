"""Which open connections Envoy cuts when it reads other files, without being replaced. Pure.

Envoy ends the connections of a filter chain that is removed or changed, those of a listener that is removed or
changed in any other respect, and the UDP sessions of a removed cluster; no others (measured;
docs/how-it-works.md). So the two versions of its files decide, whatever has changed in the rules or the settings.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clawker_fw.model import Files
from clawker_fw.stack.envoy import chains, http, inspected
from clawker_fw.stack.envoy.messages import THROUGH_PATHS, THROUGH_RULES
from clawker_fw.stack.envoy.sibling import CLUSTERS, LISTENERS

_Resources = Mapping[str, Mapping[str, Any]]

_Texts = list[tuple[bytes, list[bytes]]]

_SELECTING = frozenset({"filter_chains", "filter_chain_matcher"})
"""The fields of a listener that Envoy changes in place: new connections are matched to other chains."""

_UDP = "udp "

_LISTENER = b'{"@type":"type.googleapis.com/envoy.config.listener.v3.Listener"'
_CHAIN = b',{"filters":['
"""How a listener begins, and each of its chains but the first, in the canonical form of our files."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What is cut: whose connections, each as the rule's protocol, name and port, in order.

    Of TLS that is looked into, requests are cut: there, it is also what allowed them. `everything` is whether no
    connection is left (there may be sessions of UDP), and `unknown` whether the running files can't be read.
    """

    whose: tuple[str, ...] = ()
    everything: bool = False
    unknown: bool = False

    def __bool__(self) -> bool:
        """Whether anything is cut, or may be."""
        return bool(self.whose) or self.unknown


def cut(running: Files, desired: Files) -> Cut:
    """Return what Envoy cuts when it reads the desired files in place of those that it has."""
    if all(name in running and running[name].content == desired[name].content for name in (LISTENERS, CLUSTERS)):
        return Cut()
    try:
        before, after = _texts(running[LISTENERS].content), _texts(desired[LISTENERS].content)
        common = _common_chains(before, after)
        listeners = _resources(_without(before, common))
        ended = set(_ended(listeners, _resources(_without(after, common))))
        everything = bool(ended) and not common and ended.issuperset(_connections(listeners))
        clusters = [_resources(files[CLUSTERS].content) for files in (running, desired)]
        ended.update(_ended_sessions(*clusters))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return Cut(unknown=True)
    return Cut(tuple(sorted(ended)), everything)


def _resources(content: bytes) -> _Resources:
    """Return Envoy's resources in a file, by name."""
    return {each["name"]: each for each in json.loads(content)["resources"]}


def _texts(content: bytes) -> _Texts:
    """Return the texts between the beginnings of listeners, each with its listener's name and split into chains.

    The last part has the rest of the listener as well. A listener's name is the last one in its text.
    """
    return [
        (part.rpartition(b'"name":"')[2].partition(b'"')[0], part.split(_CHAIN))
        for part in content.split(_LISTENER)
    ]


def _common_chains(texts: _Texts, others: _Texts) -> Mapping[bytes, set[bytes]]:
    """Return the chains that a listener has in both files, by its name."""
    known = {name: set(parts[1:-1]) for name, parts in others}
    return {name: same for name, parts in texts if (same := known.get(name, set()).intersection(parts[1:-1]))}


def _without(texts: _Texts, common: Mapping[bytes, set[bytes]]) -> bytes:
    """Return listeners without some chains: to read thousands takes longer than what the answer is for."""
    nothing: set[bytes] = set()
    return _LISTENER.join(
        _CHAIN.join([first, *(each for each in others if each not in common.get(name, nothing))])
        for name, (first, *others) in texts
    )


def _connections(listeners: _Resources) -> Iterator[str]:
    """Yield everything that can have connections; UDP has sessions."""
    return (each for each in _ended(listeners, {}) if not each.startswith(_UDP))


def _ended(before: _Resources, after: _Resources) -> Iterator[str]:
    """Yield whose connections a change of listeners ends."""
    for name, listener in before.items():
        if name == inspected.NAME:  # nothing leads to it
            continue
        other = after.get(name)
        chains_, others = _chains(listener), _chains(other or {})
        replaced = other is None or _rest(listener) != _rest(other)
        if not chains_ and replaced:
            yield _words(name, "")
        for chain, content in chains_.items():
            if replaced or others.get(chain) != content:
                yield _words(name, chain)


def _chains(listener: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a listener's chains that keep connections, by name."""
    found = {each["name"]: each for each in listener.get("filter_chains", ())}
    return {name: chain for name, chain in found.items() if name not in {chains.DENIED, chains.REFUSED}}


def _rest(listener: Mapping[str, Any]) -> Mapping[str, Any]:
    return {field: value for field, value in listener.items() if field not in _SELECTING}


def _ended_sessions(before: _Resources, after: _Resources) -> Iterator[str]:
    """Yield whose UDP sessions a change of clusters ends."""
    for name, cluster in before.items():
        if name.startswith(_UDP) and ":" in name and after.get(name) != cluster:
            yield " ".join(name.split(" ")[:2])


def _words(listener: str, chain: str) -> str:
    """Return whose connections a listener's chain has: `https a.test:443`, `plain HTTP on port 80`."""
    place, _, port = listener.rpartition("port-")
    if listener == THROUGH_RULES:
        protocol, port, member, *_ = chain.split(" ")
        return _member(protocol, member, port)
    if listener == THROUGH_PATHS:
        rule, _, words = chain.partition(": ")
        protocol, port, member, *_ = rule.split(" ")
        return f"{_member(protocol, member, port)} {words}".rstrip()
    if not port.isdigit() or not (place == "" or place.endswith(" ")):
        return listener  # one for TCP or UDP, which is named after its rule
    at = f" of {place.strip()}" if place else ""
    if chain == http.CHAIN:
        return f"plain HTTP on port {port}{at}"
    if chain == chains.INSPECTED:
        return f"inspected https on port {port}{at}"
    return _member("https", chain.split(" ")[1], port)


def _member(protocol: str, member: str, port: str) -> str:
    """Return whose connections a chain has: those of one rule, or of several that share it by hash."""
    if member.isdigit():
        return f"{protocol} on port {port} of one name in {chains.SHARED:,}"
    return f"{protocol} {member}:{port}"
