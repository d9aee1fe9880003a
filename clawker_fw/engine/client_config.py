"""Reads the docker CLI's own configuration. Nothing is connected here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clawker_fw.errors import EngineError

DEFAULT_CONTEXT = "default"
"""The context without a file: `DOCKER_HOST`, or the default socket."""

_VARIABLES = {
    "httpProxy": "HTTP_PROXY",
    "httpsProxy": "HTTPS_PROXY",
    "noProxy": "NO_PROXY",
    "ftpProxy": "FTP_PROXY",
    "allProxy": "ALL_PROXY",
}
"""Each is also set in lower case (https://docs.docker.com/engine/cli/proxy/)."""


def folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of the docker CLI's configuration."""
    return Path(environment.get("DOCKER_CONFIG") or Path("~/.docker").expanduser())


def main_file(environment: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the content of `config.json`, empty if it does not exist. Raise EngineError if it is unreadable."""
    return read(folder(environment) / "config.json") or {}


def read(path: Path) -> dict[str, Any] | None:
    """Read one of the CLI's files; None if it does not exist. Raise EngineError if it is unreadable."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(content, dict):
        raise _unreadable(path, "it is not a JSON object")
    return content


def proxy_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the proxy variables, in both cases, that the CLI sets in new containers.

    The CLI chooses proxies by the engine's address as it was given, so this returns those of all engines.

    Raises:
        EngineError: when the configuration is unreadable.
    """
    engines = main_file(environment).get("proxies")
    proxies = (
        [engine for engine in engines.values() if isinstance(engine, dict)] if isinstance(engines, dict) else []
    )
    names = (name for key, name in _VARIABLES.items() if any(proxy.get(key) for proxy in proxies))
    return tuple(spelling for name in names for spelling in (name, name.lower()))


def contexts(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the CLI's contexts: `default`, and those in its store (docker/cli, `cli/context/store`).

    Raises:
        EngineError: when one of them is unreadable.
    """
    store = folder(environment) / "contexts" / "meta"
    try:
        paths = list(store.glob("*/meta.json"))
    except OSError as error:
        raise _unreadable(store, str(error)) from error
    kept = (read(path) or {} for path in paths)
    return (DEFAULT_CONTEXT, *sorted(str(context["Name"]) for context in kept if "Name" in context))


def exists(path: Path) -> bool:
    """Whether the CLI has a file or folder. Raise EngineError if that can't be checked."""
    try:
        return path.exists()
    except OSError as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, reason: str) -> EngineError:
    return EngineError(
        "docker-config-unreadable",
        f"{path}, a part of the docker CLI's configuration, can't be read.",
        context=[reason],
        hint="Repair it, or name another folder with DOCKER_CONFIG. To name the engine, --host will do.",
    )
