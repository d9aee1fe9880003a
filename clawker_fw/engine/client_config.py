"""The docker CLI's own configuration: its folder, and what we need to know of it. Nothing is connected here."""

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
"""https://docs.docker.com/engine/cli/proxy/: each is also set in lower case."""


def folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of the docker CLI's configuration."""
    return Path(environment.get("DOCKER_CONFIG") or Path("~/.docker").expanduser())


def main_file(environment: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the content of `config.json`, which is empty if there is none.

    Raises:
        EngineError: when it is unreadable.
    """
    return read(folder(environment) / "config.json") or {}


def read(path: Path) -> dict[str, Any] | None:
    """Read one of the CLI's files; None if it does not exist.

    Raises:
        EngineError: when it is unreadable. That is never taken for absent.
    """
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
    """Return the variables by which the CLI gives a proxy to each container that it creates, in both cases.

    The CLI has a choice of proxies for each engine, and chooses by the address that it was given itself. So those
    of all engines are returned.

    Raises:
        EngineError: when the configuration is unreadable.
    """
    engines = main_file(environment).get("proxies")
    proxies = [each for each in engines.values() if isinstance(each, dict)] if isinstance(engines, dict) else []
    found = (name for key, name in _VARIABLES.items() if any(each.get(key) for each in proxies))
    return tuple(spelling for name in found for spelling in (name, name.lower()))


def contexts(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the CLI's contexts: `default`, and those in its store (docker/cli, `cli/context/store`).

    Raises:
        EngineError: when one of them is unreadable.
    """
    store = folder(environment) / "contexts" / "meta"
    try:
        paths = list(store.glob("*/meta.json"))
    except OSError as error:
        raise _unreadable(store, str(error)) from error
    kept = (read(path) or {} for path in paths)
    return (DEFAULT_CONTEXT, *sorted(str(each["Name"]) for each in kept if "Name" in each))


def is_there(path: Path) -> bool:
    """Whether the CLI has a file or folder.

    Raises:
        EngineError: when that can't be checked.
    """
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
