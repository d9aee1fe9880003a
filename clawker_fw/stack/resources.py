"""Hot resources as data: which file each one is, and how it is proven that a program has loaded it.

A sibling names its resources once, in `boot/sibling.json`, where `fwctl` reads them. What is live is a digest of
what the process has loaded, never a name or number that stands inside a file: for CoreDNS the SHA-256 of the bytes
that it has read, for Envoy that of its `/config_dump` in canonical form. The renderer writes files in that form
(no field at its default value, durations and numbers as Envoy prints them, sorted keys): one comparison is enough.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clawker_fw.model import Files

SIBLING = "boot/sibling.json"

_VERSION = re.compile(rb',"version_info":"[0-9a-f]+"\}\Z')
_VERSION_LENGTH = 64
_UNVERSIONED = b',"version_info":"0"}'


@dataclass(frozen=True, slots=True)
class EnvoyProof:
    """Where Envoy shows a resource: `/config_dump?resource=dump`, at a path in each entry; its statistics."""

    dump: str
    at: tuple[str, ...]
    statistics: str


@dataclass(frozen=True, slots=True)
class Resource:
    """A hot file. `path` is below `hot/`.

    When `hashed`, the program answers the SHA-256 of what it has read; with neither proof only `fwctl` reads it.
    """

    name: str
    path: str
    hashed: bool = False
    envoy: EnvoyProof | None = None

    @property
    def proven(self) -> bool:
        """Whether a program has to show that it has loaded this."""
        return self.hashed or self.envoy is not None

    def digest(self, content: bytes) -> str:
        """Return the digest that is live once a program has loaded this content, in hexadecimal."""
        if self.envoy is None:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha256(plain(content).removeprefix(b'{"resources":').removesuffix(_UNVERSIONED)).hexdigest()


def discovery_response(resources: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a DiscoveryResponse in canonical form, as Envoy reads it from a file; its version stands for none."""
    ordered = sorted(resources, key=lambda resource: str(resource["name"]))
    text = json.dumps(ordered, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return b'{"resources":' + text.encode() + _UNVERSIONED


def plain(content: bytes) -> bytes:
    """Return what a hot file says, without the version that each commit writes into it anew."""
    tail = content[-_VERSION_LENGTH:]
    return content[: -len(tail)] + _VERSION.sub(_UNVERSIONED, tail) if tail else content


def live_digests(resources: Sequence[Resource], hot: Files) -> dict[str, str]:
    """Return what must be live of each proven resource, given the hot files by their path in the volume.

    Raises:
        ValueError: when one is a secret: what must be live is shown to everybody, and a digest can be guessed.
    """
    proven = {each: hot[f"hot/{each.path}"] for each in resources if each.proven}
    if secrets := [each.name for each, file in proven.items() if file.secret]:
        raise ValueError(secrets)
    return {each.name: each.digest(file.content) for each, file in proven.items()}


def declaration(resources: Sequence[Resource]) -> list[dict[str, Any]]:
    """Return what `boot/sibling.json` says of the resources."""
    return [
        {key: value for key, value in dataclasses.asdict(each).items() if value not in (False, None)}
        for each in resources
    ]


def declared(files: Files) -> list[Resource]:
    """Return the resources that a container was made to read; none when its file can't be read as one of ours."""
    try:
        found = json.loads(files[SIBLING].content)["resources"]
        return [
            Resource(
                each["name"],
                each["path"],
                each.get("hashed", False),
                EnvoyProof(proof["dump"], tuple(proof["at"]), proof["statistics"])
                if (proof := each.get("envoy"))
                else None,
            )
            for each in found
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []
