"""Hot resources as data: the file of each, and the proof that a program has loaded it.

A sibling declares its resources in `boot/sibling.json`, where `fwctl` reads them. The live version of a resource
is a digest of what the process has loaded. For CoreDNS it is the SHA-256 of the bytes that it has read, for Envoy
that of its `/config_dump` in canonical form. The renderer writes files in the same form (no field at its default
value, durations and numbers as Envoy prints them, sorted keys), so that the two can be compared.
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
"""What is before each private key in Envoy's files, and in no other place."""

_KEY = re.compile(PRIVATE_KEY + rb'\{"inline_string":"[^"]*"\}')
_REDACTED = PRIVATE_KEY + b'{"inline_string":"[redacted]"}'
"""What Envoy shows instead of a private key. It takes none that does not fit the certificate."""

_VERSION_LENGTH = 64
_UNVERSIONED = b',"version_info":"0"}'


@dataclass(frozen=True, slots=True)
class EnvoyProof:
    """Where Envoy shows a resource (`/config_dump?resource=DUMP`, path `at` in each entry), and its statistics.

    Only what is called `named` counts, if that is set. A layer of its runtime is in no dump: there, the text of
    its only key, `runtime`, counts.
    """

    dump: str
    at: tuple[str, ...]
    statistics: str
    runtime: str = ""
    named: str = ""


@dataclass(frozen=True, slots=True)
class Resource:
    """A hot file. `path` is relative to `hot/`.

    If it is `hashed`, the program reports the SHA-256 of what it has read; the `signer` beside it does so of what
    that reads. Without any proof, only `fwctl` reads it. If it is `keyed`, its only secrets are private keys: a
    digest confirms no guess of those.
    """

    name: str
    path: str
    hashed: bool = False
    keyed: bool = False
    envoy: EnvoyProof | None = None
    signer: bool = False

    @property
    def proven(self) -> bool:
        """Whether a program must prove that it has loaded this resource."""
        return self.hashed or self.signer or self.envoy is not None

    def digest(self, content: bytes) -> str:
        """Return the live digest after a program has loaded this content, in hexadecimal."""
        if self.envoy is None:
            return hashlib.sha256(content).hexdigest()
        if self.envoy.runtime:
            found = re.search(rb'"%b":"([^"\\]*)"' % re.escape(self.envoy.runtime.encode()), content)
            return hashlib.sha256(found[1] if found else b"").hexdigest()
        content = _KEY.sub(_REDACTED, content)
        return hashlib.sha256(plain(content).removeprefix(b'{"resources":').removesuffix(_UNVERSIONED)).hexdigest()


_DECLARATION = TypeAdapter(list[Resource])

WATCHED = "/tmp/reload"  # noqa: S108 - inside the container, where it takes no room on the disk


def watched_folder(path: str) -> str:
    """Return the folder that Envoy watches for a hot file. `fwctl` renames an empty file in it, for a new one.

    Each file has its own, because Envoy reads every resource again that waits for a folder in which something is
    renamed. It is outside `hot/`, because a watch stays with a folder that is moved.
    """
    return f"{WATCHED}/{path.rpartition('/')[0]}"


def discovery_response(resources: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a DiscoveryResponse for Envoy in canonical form. Its version is a placeholder."""
    ordered = sorted(resources, key=lambda resource: str(resource["name"]))
    text = json.dumps(ordered, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return b'{"resources":' + text.encode() + _UNVERSIONED


def plain(content: bytes) -> bytes:
    """Return a hot file's content without the version that a commit has written into it."""
    tail = content[-_VERSION_LENGTH:]
    return content[: -len(tail)] + _VERSION.sub(_UNVERSIONED, tail) if tail else content


def live_digests(resources: Sequence[Resource], hot: Files) -> dict[str, str]:
    """Return the digest of each proven resource that must be live with these hot files.

    Raises:
        ValueError: when one of them is a secret, and not `keyed`. Live digests are public, and confirm guesses.
    """
    proven = {each: hot[f"hot/{each.path}"] for each in resources if each.proven}
    if secrets := [each.name for each, file in proven.items() if file.secret and not each.keyed]:
        raise ValueError(secrets)
    return {each.name: each.digest(file.content) for each, file in proven.items()}


def declaration(resources: Sequence[Resource]) -> list[dict[str, Any]]:
    """Return the part of `boot/sibling.json` about resources."""
    return [
        {
            **{key: value for key, value in dataclasses.asdict(each).items() if value not in (False, None)},
            **({"watched": watched_folder(each.path)} if each.envoy else {}),
        }
        for each in resources
    ]


def declared(files: Files) -> list[Resource]:
    """Return the resources that a container's `boot/sibling.json` declares, or none if it is unreadable."""
    try:
        return _DECLARATION.validate_python(read_record(files[SIBLING].content)["resources"])
    except (KeyError, TypeError, ValueError):
        return []
