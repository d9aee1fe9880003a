"""Which hosts there are: docker contexts, and addresses. Nothing is connected here."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from clawker_fw.engine import client_config
from clawker_fw.engine.locate import EngineLocation, locate
from clawker_fw.errors import EngineError
from clawker_fw.fleet.row import NodeState, Trouble, natural


@dataclass(frozen=True, slots=True)
class Host:
    """A host: where its engine is, or why nobody can know. `node` is what a swarm's manager says of it."""

    name: str
    place: EngineLocation | None
    trouble: Trouble | None = None
    node: NodeState | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A docker context that is left out, because another one is of the same engine."""

    name: str
    same_as: str


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts, sorted by name, and the contexts that are left out."""

    hosts: tuple[Host, ...]
    left_out: tuple[LeftOut, ...] = ()


def named(contexts: Sequence[str], addresses: Sequence[str], environment: Mapping[str, str]) -> Hosts:
    """Return the hosts that are named: each once, even if it is named twice.

    Raises:
        EngineError: when there is no such context, or an address makes no sense.
    """
    found = [Host(name, locate(None, name, environment)) for name in dict.fromkeys(contexts)]
    found += [
        Host(text, replace(locate(text, None, environment), source="--host")) for text in dict.fromkeys(addresses)
    ]
    return Hosts(ordered(found))


def all_contexts(environment: Mapping[str, str]) -> Hosts:
    """Return a host for each context of the docker CLI, except those of the same engine as another one.

    A context that names no engine is a host without a place. Of several, one that a person has named is kept.

    Raises:
        EngineError: when the CLI's configuration can't be read.
    """
    found: list[Host] = []
    left_out: list[LeftOut] = []
    known: dict[tuple[str, str], str] = {}
    for name in sorted(
        client_config.contexts(environment), key=lambda each: each == client_config.DEFAULT_CONTEXT
    ):
        try:
            place = locate(None, name, environment)
        except EngineError as error:
            found.append(Host(name, None, Trouble.of(error)))
            continue
        same = known.setdefault(_engine(place), name)
        if same == name:
            found.append(Host(name, place))
        else:
            left_out.append(LeftOut(name, same))
    return Hosts(ordered(found), tuple(left_out))


def _engine(place: EngineLocation) -> tuple[str, str]:
    """Return what tells engines apart: the address, and the certificates by which it is trusted."""
    kind, _, path = place.address.partition("://")
    address = f"{kind}://{os.path.realpath(path)}" if kind == "unix" else place.address
    return address, str(place.tls.folder) if place.tls else ""


def ordered(hosts: Iterable[Host]) -> tuple[Host, ...]:
    """Return hosts by their names, as people sort them."""
    return tuple(sorted(hosts, key=lambda each: natural(each.name)))
