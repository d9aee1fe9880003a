"""A user's login at a registry, where the docker CLI keeps it: in its config.json, or with a credential helper.

The format is that of docker/cli (`cli/config/configfile`) and docker-credential-helpers.
"""

import json
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clawker_fw.engine import client_config
from clawker_fw.errors import EngineError
from clawker_fw.programs import Bounds, run_to_end
from clawker_fw.settings.bundles.registry import Login

_HELPER = "docker-credential-"
_BOUNDS = Bounds(seconds=10.0, octets=64 << 10)
_DOCKER_HUB = "https://index.docker.io/v1/"
_OF_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_TOKEN = "<token>"  # noqa: S105 - what helpers say in place of a user's name
_NONE = b"credentials not found"


def login_of(registry: str, environment: Mapping[str, str]) -> Login | None:
    """Return the login at a registry, `HOST` or `HOST:PORT`; None if the user has none.

    Raises:
        EngineError: when the configuration can't be read, or a helper fails.
    """
    config = client_config.main_file(environment)
    name = _DOCKER_HUB if registry in _OF_DOCKER_HUB else registry
    helpers = config.get("credHelpers")
    helper = (helpers.get(name) if isinstance(helpers, dict) else None) or config.get("credsStore")
    if isinstance(helper, str) and helper:
        return _by_helper(helper, name, environment)
    return login_in(config, registry)


def login_in(config: Mapping[str, Any], registry: str) -> Login | None:
    """Return the login at a registry that a config.json itself has; None if it has none.

    Raises:
        EngineError: when it is there and can't be used.
    """
    name = _DOCKER_HUB if registry in _OF_DOCKER_HUB else registry
    auths = config.get("auths")
    entries: dict[str, Any] = auths if isinstance(auths, dict) else {}
    entry = next(
        (entries[each] for each in (name, f"https://{name}", f"https://{name}/") if each in entries), None
    )
    return _by_entry(entry, name) if isinstance(entry, dict) else None


def _by_entry(entry: Mapping[str, Any], registry: str) -> Login | None:
    try:
        if auth := entry.get("auth"):
            user, _, password = b64decode(auth).decode().rstrip("\0").partition(":")
        else:
            user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    except (ValueError, TypeError) as error:
        raise _failed(registry, "what config.json has for it can't be read") from error
    _require_no_token(entry.get("identitytoken"), registry)
    return Login(user, password) if user else None


def _by_helper(helper: str, registry: str, environment: Mapping[str, str]) -> Login | None:
    if Path(helper).name != helper:
        raise _failed(registry, f"{helper!r} is not the name of a credential helper")
    try:
        ended = run_to_end([_HELPER + helper, "get"], _BOUNDS, given=registry.encode(), environment=environment)
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or "it takes too long"
        raise _failed(registry, f"{_HELPER}{helper} can't be used: {reason}") from error
    if ended.status != 0:
        if _NONE in ended.output.lower():
            return None
        raise _failed(registry, f"{_HELPER}{helper} has failed with status {ended.status}")
    try:
        found = json.loads(ended.output)
        user, password = str(found["Username"]), str(found["Secret"])
    except (ValueError, LookupError, TypeError) as error:
        raise _failed(registry, f"{_HELPER}{helper} gives no credentials") from error
    _require_no_token(user == _TOKEN, registry)
    return Login(user, password)


def _require_no_token(token: object, registry: str) -> None:
    if token:
        raise _failed(registry, "it is an identity token, which only the docker CLI can exchange")


def _failed(registry: str, reason: str) -> EngineError:
    return EngineError(
        "registry-login-failed",
        f"The login at {registry} can't be used: {reason}.",
        hint=f"`docker login {registry}` with a user name and a password or an access token writes one that can.",
    )
