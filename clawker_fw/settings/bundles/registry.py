"""A repository in a registry, by the part of the OCI distribution specification that bundles need.

Everything that a registry sends is foreign: sizes are bounded, and content is taken only if it has the digest by
which it was asked for.
"""

import hashlib
import json
import re
import urllib.parse
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

from clawker_fw.errors import RegistryError, SettingsError
from clawker_fw.settings.bundles.http import Http, Response, TooLargeError, shown
from clawker_fw.settings.bundles.reference import DIGEST, Reference

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"

MOST_MANIFEST = 64 << 10
"""Octets of a manifest. Ours have less than one thousand; one with fifty signatures of cosign has 40,000."""

_MOST_TOKEN = 64 << 10
_MOST_ERROR = 4 << 10
_PULL, _PUSH = "pull", "pull,push"


class Login(NamedTuple):
    """A user's name and password at a registry."""

    user: str
    password: str


LoginOf = Callable[[str], Login | None]
"""Returns the user's login at a registry, or None if there is none."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest, as it is, with its digest."""

    content: bytes
    digest: str
    media_type: str


def digest_of(content: bytes) -> str:
    """Return the digest of content, as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Repository:
    """One repository. Asks the user for credentials only if the registry does. Not for several threads."""

    def __init__(self, reference: Reference, login_of: LoginOf, http: Http, *, writes: bool = False) -> None:
        """Prepare. Nothing is asked yet. With `writes`, a token is asked for that may push."""
        self._registry = reference.registry
        self._name = reference.name
        self._login_of = login_of
        self._http = http
        self._actions = _PUSH if writes else _PULL
        self._authorization = ""

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    # --- reading ------------------------------------------------------------------------------------------------

    def resolve(self, manifest: str) -> str | None:
        """Return the digest of the manifest under a tag, or None if there is none.

        Raises:
            RegistryError: when the registry does not answer, or refuses.
        """
        response = self._ask("HEAD", f"manifests/{manifest}", {"Accept": OCI_MANIFEST})
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        self._require(response, HTTPStatus.OK)
        digest = response.headers.get("Docker-Content-Digest") or ""
        if re.fullmatch(DIGEST, digest):
            return digest
        found = self.manifest(manifest)  # a registry may leave the header out
        return found.digest if found else None

    def manifest(self, reference: str) -> Manifest | None:
        """Return the manifest under a tag or a digest, or None if there is none.

        Raises:
            RegistryError: when the registry does not answer, refuses, or sends another one.
            SettingsError: when it is too large.
        """
        response = self._ask("GET", f"manifests/{reference}", {"Accept": OCI_MANIFEST}, most=MOST_MANIFEST)
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        self._require(response, HTTPStatus.OK)
        digest = digest_of(response.body)
        if reference.startswith("sha256:") and digest != reference:
            raise self._lie(f"manifest {reference}", digest)
        media_type = (response.headers.get("Content-Type") or "").partition(";")[0].strip()
        return Manifest(response.body, digest, media_type)

    def blob(self, digest: str, size: int, most: int) -> bytes:
        """Return a blob.

        Raises:
            RegistryError: when the registry does not answer, refuses, or sends another one.
            SettingsError: when it is larger than `most`.
        """
        if size > most:
            raise self._too_large(f"blob {digest}", most)
        response = self._ask("GET", f"blobs/{digest}", {}, most=min(size + 1, most))
        self._require(response, HTTPStatus.OK)
        found = digest_of(response.body)
        if found != digest or len(response.body) != size:
            raise self._lie(f"blob {digest}", found)
        return response.body

    # --- writing ------------------------------------------------------------------------------------------------

    def put_blob(self, content: bytes) -> None:
        """Upload a blob, unless the registry has it.

        Raises:
            RegistryError: when it does not take it.
        """
        digest = digest_of(content)
        if self._ask("HEAD", f"blobs/{digest}", {}).status == HTTPStatus.OK:
            return
        begun = self._ask("POST", "blobs/uploads/", {})
        self._require(begun, HTTPStatus.ACCEPTED)
        place = urllib.parse.urljoin(begun.url, begun.headers.get("Location") or "")
        target = f"{place}{'&' if '?' in place else '?'}{urllib.parse.urlencode({'digest': digest})}"
        sent = {"Content-Type": "application/octet-stream"}
        self._require(self._ask("PUT", target, sent, content), HTTPStatus.CREATED)

    def put_manifest(self, reference: str, content: bytes) -> None:
        """Upload a manifest under a tag or its digest.

        Raises:
            RegistryError: when the registry does not take it.
        """
        sent = {"Content-Type": OCI_MANIFEST}
        self._require(self._ask("PUT", f"manifests/{reference}", sent, content), HTTPStatus.CREATED)

    # --- asking -------------------------------------------------------------------------------------------------

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, most: int = 0
    ) -> Response:
        """Ask, with the user's login if the registry wants one."""
        target = path if "://" in path else f"/v2/{self._name}/{path}"
        response = self._send(method, target, headers, body, most)
        if response.status != HTTPStatus.UNAUTHORIZED:
            return response
        self._authorization = self._authorized(response.headers.get("WWW-Authenticate") or "")
        return self._send(method, target, headers, body, most) if self._authorization else response

    def _send(self, method: str, target: str, headers: Mapping[str, str], body: bytes, most: int) -> Response:
        own = self._http.base
        mine = self._authorization and self._http.origin(urllib.parse.urljoin(own, target)) == self._http.origin(
            own
        )
        sent = {**headers, "Authorization": self._authorization} if mine else headers
        try:
            return self._http.exchange(method, target, sent, body, most=max(most, _MOST_ERROR))
        except TooLargeError as error:
            raise self._too_large(target.rpartition("/v2/")[2], most) from error

    def _authorized(self, challenge: str) -> str:
        """Return what to send for a registry's challenge, or nothing if there is no answer to it."""
        scheme, _, rest = challenge.partition(" ")
        login = self._login_of(self._registry)
        if scheme.lower() == "basic":
            return _basic(login) if login else ""
        if scheme.lower() != "bearer":
            return ""
        said = dict(re.findall(r'([a-z]+)="([^"]*)"', rest))
        asked = {"service": said.get("service", ""), "scope": f"repository:{self._name}:{self._actions}"}
        url = f"{said.get('realm', '')}?{urllib.parse.urlencode(asked)}"
        headers = {"Authorization": _basic(login)} if login else {}
        try:
            response = self._http.exchange("GET", url, headers, most=_MOST_TOKEN)
        except TooLargeError as error:
            raise self._failed("its token is too large") from error
        self._require(response, HTTPStatus.OK)
        found = _object(response.body)
        token = found.get("token") or found.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise self._failed("it gives no token")
        return f"Bearer {token}"

    # --- errors -------------------------------------------------------------------------------------------------

    def _require(self, response: Response, status: HTTPStatus) -> None:
        """Require a status.

        Raises:
            RegistryError: otherwise.
        """
        if response.status == status:
            return
        words = _words(response.body)
        if response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise RegistryError(
                "registry-denied",
                f"The registry {self._registry} refuses access to {self._name}.",
                context=[f"status {response.status}", *words],
                hint=f"Log in with `docker login {self._registry}`: the docker CLI's login is used.",
            )
        error = self._failed(f"it answers with status {response.status}", *words)
        error.retry_after = response.retry_after
        raise error

    def _failed(self, reason: str, *context: str) -> RegistryError:
        return RegistryError(
            "registry-failed", f"The registry {self._registry} has failed: {reason}.", context=context
        )

    def _lie(self, what: str, found: str) -> RegistryError:
        return RegistryError(
            "registry-lies",
            f"The registry {self._registry} sends something else for the {what}.",
            context=[f"what came has {found}"],
            hint="Nothing of it is used. Something between here and the registry may have changed or cut it.",
        )

    def _too_large(self, what: str, most: int) -> SettingsError:
        return SettingsError(
            "bundle-too-large", f"{self._registry}/{self._name}: {what} has more than {most:,} octets."
        )


def _basic(login: Login) -> str:
    return f"Basic {b64encode(f'{login.user}:{login.password}'.encode()).decode()}"


def _object(content: bytes) -> Mapping[str, Any]:
    """Return an object in JSON; an empty one for anything else."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _words(content: bytes) -> list[str]:
    """Return what a registry says of an error, as far as it can be shown."""
    errors = _object(content).get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    text = " ".join(str(first[key]) for key in ("code", "message") if first.get(key))
    return [shown(text)] if text else []
