"""Dynamic resources as data: each one's file, and how to verify that a program has loaded it.

A sibling declares its resources in `boot/sibling.json` for `fwctl`. A resource's live version is a digest of what
the process has loaded: for CoreDNS the SHA-256 of the bytes, for Envoy that of `/config_dump` in canonical form.
Files are rendered in the same form (no default values, durations and numbers as Envoy prints them, sorted keys).
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from clawker_fw.model.files import Files
from clawker_fw.stack.files import read_record

SIBLING = "boot/sibling.json"

_VERSION = re.compile(rb',"version_info":"[0-9a-f]+"\}\Z')
PRIVATE_KEY = b'"private_key":'
"""The text before each private key in Envoy's files, and nowhere else."""

_KEY = re.compile(PRIVATE_KEY + rb'\{"inline_string":"[^"]*"\}')
_REDACTED = PRIVATE_KEY + b'{"inline_string":"[redacted]"}'
"""Envoy's text in place of a private key. It accepts no key that does not fit the certificate."""

_VERSION_LENGTH = 64
_UNVERSIONED = b',"version_info":"0"}'


@dataclass(frozen=True, slots=True)
class EnvoyProof:
    """Where Envoy shows a resource (`/config_dump?resource=DUMP`, path `at` in each entry), and its statistics.

    If `named` is set, only that entry counts. Dumps omit Envoy's runtime: there, the text of the key `runtime`
    counts.
    """

    dump: str
    at: tuple[str, ...]
    statistics: str
    runtime: str = ""
    named: str = ""


@dataclass(frozen=True, slots=True)
class Resource:
    """A dynamic file. `path` is relative to `hot/`.

    If it is `hashed`, the program reports the SHA-256 of what it has read; with `signer`, the signer does. Without
    a proof, only `fwctl` reads it. If it is `keyed`, its only secrets are private keys, whose digest confirms no
    guess.
    """

    name: str
    path: str
    hashed: bool = False
    keyed: bool = False
    envoy: EnvoyProof | None = None
    signer: bool = False

    @property
    def proven(self) -> bool:
        """Whether a program must report that it has loaded this resource."""
        return self.hashed or self.signer or self.envoy is not None

    def digest(self, content: bytes) -> str:
        """Return the live digest after a program has loaded this content, in hexadecimal."""
        if self.envoy is None:
            return hashlib.sha256(content).hexdigest()
        if self.envoy.runtime:
            match = re.search(rb'"%b":"([^"\\]*)"' % re.escape(self.envoy.runtime.encode()), content)
            return hashlib.sha256(match[1] if match else b"").hexdigest()
        content = _KEY.sub(_REDACTED, content)
        return hashlib.sha256(plain(content).removeprefix(b'{"resources":').removesuffix(_UNVERSIONED)).hexdigest()


_DECLARATION = TypeAdapter(list[Resource])

WATCHED = "/tmp/reload"  # noqa: S108 - inside the container, where it takes no room on the disk


def watched_folder(path: str) -> str:
    """Return the folder that Envoy watches for a dynamic file. `fwctl` renames an empty file in it after a change.

    Each file has one, because a rename makes Envoy read every resource of that folder again. It is outside `hot/`,
    because a watch stays with a folder that is moved.
    """
    return f"{WATCHED}/{path.rpartition('/')[0]}"


def discovery_response(resources: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a DiscoveryResponse for Envoy in canonical form. Its version is a placeholder."""
    ordered = sorted(resources, key=lambda resource: str(resource["name"]))
    text = json.dumps(ordered, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return b'{"resources":' + text.encode() + _UNVERSIONED


def plain(content: bytes) -> bytes:
    """Return a dynamic file's content without its commit's version."""
    tail = content[-_VERSION_LENGTH:]
    return content[: -len(tail)] + _VERSION.sub(_UNVERSIONED, tail) if tail else content


def live_digests(resources: Sequence[Resource], hot: Files) -> dict[str, str]:
    """Return the digest of each proven resource that must be live with these dynamic files.

    Raises:
        ValueError: if one is secret and not `keyed`. Live digests are public, and confirm guesses.
    """
    proven = {resource: hot[f"hot/{resource.path}"] for resource in resources if resource.proven}
    if secrets := [resource.name for resource, file in proven.items() if file.secret and not resource.keyed]:
        raise ValueError(secrets)
    return {resource.name: resource.digest(file.content) for resource, file in proven.items()}


def declaration(resources: Sequence[Resource]) -> list[dict[str, Any]]:
    """Return the part of `boot/sibling.json` about resources."""
    return [
        {
            **{key: value for key, value in dataclasses.asdict(resource).items() if value not in (False, None)},
            **({"watched": watched_folder(resource.path)} if resource.envoy else {}),
        }
        for resource in resources
    ]


def declared(files: Files) -> list[Resource]:
    """Return the resources in a container's `boot/sibling.json`, or none if it is unreadable."""
    try:
        return _DECLARATION.validate_python(read_record(files[SIBLING].content)["resources"])
    except (KeyError, TypeError, ValueError):
        return []
