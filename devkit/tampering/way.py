"""One kind of tampering: what is done, the findings that it must cause, and beside which others it can be done."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from clawker_fw.stack import labels
from devkit.hand import Body, Hand

ENVOY, COREDNS = "envoy", "coredns"
TAMPER, UPGRADE, SETTINGS = "tamper", "upgrade", "settings"

LOADED, SIGNED, TAGS = "loaded", "signed", "tags"
"""Groups of several of these modules."""


@dataclass(frozen=True)
class Sign:
    """A finding that must be reported. `says` is a part of the running value, where findings are otherwise equal.

    `field` may contain `{project}`, `{service}` and `{envoy}`, the address that Envoy had before the tampering.
    """

    sibling: str
    layer: str
    field: str
    action: str
    cause: str = TAMPER
    says: str = ""

    def hides(self, other: "Sign") -> bool:
        """Whether two signs are one to who reads the findings."""
        if (self.sibling, self.layer, self.field) != (other.sibling, other.layer, other.field):
            return False
        return self.says in other.says or other.says in self.says

    def named(self) -> str:
        """Return the field with placeholders for what differs between stacks."""
        field = self.field.format(project="PROJECT", service="SERVICE_ADDRESS", envoy="ENVOY_ADDRESS")
        return field.removeprefix(labels.PREFIX + "firewall.")


def signs(sibling: str, action: str, *fields: str) -> tuple[Sign, ...]:
    """Return signs with the same action, each for the layer and field `LAYER/FIELD`."""
    parts = (field.partition("/") for field in fields)
    return tuple(Sign(sibling, layer, field, action) for layer, _, field in parts)


@dataclass(frozen=True)
class Recreation:
    """A change with which a sibling's container is made anew, or a network without its containers."""

    of: str
    """The sibling, or the end of the network's name."""

    change: Callable[[Body], None]


@dataclass(frozen=True)
class Inside:
    """A shell script that is run in a sibling's network namespace. Several take one container."""

    sibling: str
    script: str


@dataclass(frozen=True)
class Tampering:
    """One kind of tampering: its description, what does it, and all findings that `drift` reports.

    Those with the same group in `beside` can be done to a stack at the same time, without affecting each other.
    """

    what: str
    done: Callable[[Hand], object] | Recreation | Inside
    signs: tuple[Sign, ...]
    beside: str = ""


def batches(ways: Iterable[Tampering]) -> Sequence[Sequence[Tampering]]:
    """Divide kinds into those that can be done at the same time and have no sign in common, in their order."""
    found: list[list[Tampering]] = []
    for way in ways:
        fitting = (batch for batch in found if way.beside and all(_fit(way, each) for each in batch))
        if batch := next(fitting, None):
            batch.append(way)
        else:
            found.append([way])
    return found


def _fit(one: Tampering, other: Tampering) -> bool:
    return one.beside == other.beside and not any(a.hides(b) for a in _told(one, other) for b in _told(other, one))


def _told(one: Tampering, other: Tampering) -> Iterable[Sign]:
    """Return the signs by which it is told from another. A recreation of a network always takes containers off."""
    match one.done, other.done:
        case Recreation(of), Recreation(same) if of == same:
            return [sign for sign in one.signs if sign.action != "reattach"]
    return one.signs


def make(hand: Hand, batch: Iterable[Tampering]) -> None:
    """Tamper in all these ways. A container or network is made anew once, with all changes."""
    changes: dict[str, list[Callable[[Body], None]]] = defaultdict(list)
    scripts: dict[str, list[str]] = defaultdict(list)
    others: list[Callable[[Hand], object]] = []
    for way in batch:
        match way.done:
            case Recreation(of, change):
                changes[of].append(change)
            case Inside(sibling, script):
                scripts[sibling].append(script)
            case tamper:
                others.append(tamper)
    for of, several_changes in changes.items():
        recreate = hand.recreate if of in {ENVOY, COREDNS} else hand.recreate_network
        recreate(of, *several_changes)
    for sibling, several in scripts.items():
        hand.inside(sibling, "\n".join(f"(\n{script}\n)" for script in several))
    for tamper in others:
        tamper(hand)


def host_fields(**fields: Any) -> Callable[[Body], None]:  # noqa: ANN401 - any of the engine's
    return lambda body: body["HostConfig"].update(fields)


def fields(**fields: Any) -> Callable[[Body], None]:  # noqa: ANN401 - any of the engine's
    return lambda body: body.update(fields)


def other_address(body: Body) -> None:
    """Move the container to another address on each network."""
    for endpoint in body["NetworkingConfig"]["EndpointsConfig"].values():
        first, _, last = endpoint["IPAMConfig"]["IPv4Address"].rpartition(".")
        endpoint["IPAMConfig"]["IPv4Address"] = f"{first}.{int(last) + 100}"
