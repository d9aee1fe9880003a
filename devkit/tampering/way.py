"""One kind of tampering: what is done, and the findings that it must cause."""

from collections.abc import Callable
from dataclasses import dataclass

from clawker_fw.stack import labels
from devkit.hand import Hand

ENVOY, COREDNS = "envoy", "coredns"
TAMPER, UPGRADE, SETTINGS = "tamper", "upgrade", "settings"


@dataclass(frozen=True)
class Sign:
    """A finding that must be reported.

    `field` may contain `{project}`, `{service}` and `{envoy}`: the stack's name, its service address, and the
    address that Envoy had before the tampering.
    """

    sibling: str
    layer: str
    field: str
    action: str
    cause: str = TAMPER

    def named(self) -> str:
        """Return the field with placeholders for what differs between stacks."""
        field = self.field.format(project="PROJECT", service="SERVICE_ADDRESS", envoy="ENVOY_ADDRESS")
        return field.removeprefix(labels.PREFIX + "firewall.")


@dataclass(frozen=True)
class Tampering:
    """One kind of tampering: its description, the function that does it, and all findings that `drift` reports."""

    what: str
    make: Callable[[Hand], None]
    signs: tuple[Sign, ...]
