"""References to bundles: `oci://REGISTRY/NAME:TAG`, `oci://REGISTRY/NAME@sha256:HEX`, or both."""

import re
from dataclasses import dataclass, replace
from ipaddress import ip_address

PREFIX = "oci://"

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = rf"{_PART}(?:/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
DIGEST = r"sha256:[0-9a-f]{64}"
_REFERENCE = re.compile(rf"(?P<registry>{_HOST})/(?P<name>{_NAME})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{DIGEST}))?")
_LONGEST = 512

_DOCKER_HUB = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


@dataclass(frozen=True, slots=True)
class Reference:
    """A bundle in a registry. `tag` or `digest` may be empty, not both. A digest pins the content."""

    registry: str
    """As it is written: `HOST` or `HOST:PORT`."""
    name: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        """Return the reference as settings have it."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{PREFIX}{self.registry}/{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def manifest(self) -> str:
        """What the registry is asked for: the digest, if there is one, else the tag."""
        return self.digest or self.tag

    @property
    def host(self) -> str:
        """Where the registry answers: `HOST` or `HOST:PORT`."""
        return _DOCKER_HUB.get(self.registry, self.registry)

    def at(self, digest: str) -> "Reference":
        """Return the reference pinned to a digest."""
        return replace(self, digest=digest)


def parse_reference(text: str) -> Reference:
    """Read a reference, with or without `oci://`.

    Raises:
        ValueError: when it is none, with a sentence.
    """
    match = _REFERENCE.fullmatch(text.removeprefix(PREFIX)) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(f"{text[:_LONGEST]!r} is not a bundle; write {PREFIX}REGISTRY/NAME:TAG")
    if not (match["tag"] or match["digest"]):
        raise ValueError(f"{text!r} names neither a tag nor a digest; write {PREFIX}REGISTRY/NAME:TAG")
    if not is_registry(match["registry"]):
        raise ValueError(f"{text!r} names no registry; write {PREFIX}REGISTRY/NAME:TAG, as docker.io/team/rules:1")
    return Reference(match["registry"], match["name"], match["tag"] or "", match["digest"] or "")


def is_registry(host: str) -> bool:
    """Whether docker would take the first part of a reference for a registry, and not for a name."""
    return "." in host or ":" in host or host == "localhost"


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is this machine: docker speaks plain HTTP to registries there."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
