"""The compose file with which a swarm runs a watcher on every host, as `docker stack deploy` reads it. Pure.

A release, a rule or a secret that has changed gives another service. The swarm then replaces one host's watcher
after the other, and goes on when the new one is healthy: when it has proven the stack of its host current.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from clawker_fw.fleet.host_files import HostFile, HostFiles
from clawker_fw.fleet.program.image import STATE
from clawker_fw.fleet.swarm import LABEL
from clawker_fw.stack import labels

SERVICE = "watch"
PURPOSE = "watcher"
"""Marks the service, its configs and its secrets (`labels.PURPOSE`). What is on engines has another."""

RELEASE, SETTINGS = f"{labels.PREFIX}watcher.release", f"{labels.PREFIX}watcher.settings"
"""Labels of the service: the release that it runs, and the digest of the settings."""

PAGE = "unix:/run/clawker-fw/watch.sock"

_FORMAT = "3.9"
"""Of the file: engine and CLI 20.10, the oldest that are supported, read it."""

_STOP_SECONDS = 120
_ASKED_EVERY, _ASKED_FOR, _FAILURES = 5, 5, 3
"""The health check: seconds between two, seconds for an answer, failures in a row that make it unhealthy."""
_RESTART_SECONDS = 15
_MEMORY, _PROCESSES = "1G", 256
_WRITABLE = {"/run/clawker-fw": 1 << 20, "/tmp": 64 << 20, "/var/cache": 256 << 20}  # noqa: S108 - in there
"""Folders in memory, and their octets. Nothing else of the container can be written but its state."""
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a change goes from host to host: how many at a time, and how long, in seconds.

    `start` is how long a host may take to become current, `monitor` how long it must then stay so before the next.
    """

    parallelism: int
    start: float
    monitor: float


@dataclass(frozen=True, slots=True)
class WatcherService:
    """What runs on every host.

    `image` is one that every host has, or can pull by its digest; `architecture`, in Go's terms, is that of an
    image for one alone. `options` are those of `watch`, and `variables` settings. `where` are
    labels of nodes, `socket` is the path of their engine's.
    """

    project: str
    release: str
    settings: str
    image: str
    architecture: str
    options: Sequence[str]
    variables: Mapping[str, str]
    where: Mapping[str, str]
    socket: str
    agents: str
    files: HostFiles
    rollout: Rollout


def compose(service: WatcherService, paths: Mapping[str, str]) -> dict[str, Any]:
    """Return the compose file as a document. `paths` are those of the files here, by their names in the swarm."""
    named = {each: each.name(service.project) for each in service.files.files}
    configs = [_mounted(each, name) for each, name in named.items() if not each.secret]
    secrets = [_mounted(each, name) for each, name in named.items() if each.secret]
    marked = {labels.MANAGED: "true", labels.PURPOSE: PURPOSE, labels.PROJECT: service.project}
    watcher = {
        "image": service.image,
        "command": ["watch", "--heal", "all", "--listen", PAGE, *service.options],
        "hostname": "{{.Node.Hostname}}",
        "environment": dict(sorted(_environment(service).items())),
        "networks": ["host"],
        "read_only": True,
        "cap_drop": ["ALL"],
        "volumes": [
            {"type": "bind", "source": service.socket, "target": service.socket},
            {"type": "volume", "source": "state", "target": STATE},
            *({"type": "tmpfs", "target": path, "tmpfs": {"size": size}} for path, size in _WRITABLE.items()),
        ],
        "configs": configs,
        "secrets": secrets,
        "healthcheck": {
            "test": ["CMD", "clawker-fw", "healthy", PAGE, "--agents", service.agents],
            "interval": f"{_ASKED_EVERY}s",
            "timeout": f"{_ASKED_FOR}s",
            "retries": _FAILURES,
            "start_period": _seconds(service.rollout.start),
        },
        "stop_grace_period": f"{_STOP_SECONDS}s",
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
        "deploy": _deploy(
            service, {**marked, LABEL: service.project, RELEASE: service.release, SETTINGS: service.settings}
        ),
    }
    document: dict[str, Any] = {
        "version": _FORMAT,
        "services": {SERVICE: {key: value for key, value in watcher.items() if value}},
        "networks": {"host": {"external": True, "name": "host"}},
        "volumes": {"state": {}},
    }
    for key, mounted in (("configs", configs), ("secrets", secrets)):
        if mounted:
            names = sorted({each["source"] for each in mounted})
            document[key] = {name: {"name": name, "file": paths[name], "labels": marked} for name in names}
    return document


def _environment(service: WatcherService) -> dict[str, str]:
    """Return the variables of a watcher. Its options are among them, for whoever runs a command beside it."""
    chosen = {
        "CLAWKER_FW_PROJECT": service.project,
        "CLAWKER_FW_HOST": f"unix://{service.socket}",
        "CLAWKER_FW_CONFIG": service.files.settings,
        "CLAWKER_FW_SECRETS": service.files.secrets,
    }
    return {**service.variables, **{name: str(value) for name, value in chosen.items() if value}}


def _mounted(file: HostFile, name: str) -> dict[str, Any]:
    return {"source": name, "target": str(file.target), "mode": 0o400 if file.secret else 0o444}


def _deploy(service: WatcherService, marked: Mapping[str, str]) -> dict[str, Any]:
    where = ["node.platform.os == linux"]
    if machine := _ARCHITECTURES.get(service.architecture):
        where.append(f"node.platform.arch == {machine}")
    where += [f"node.labels.{name} == {value}" for name, value in sorted(service.where.items())]
    rollout = service.rollout
    step = {
        "parallelism": rollout.parallelism,
        "monitor": _seconds(rollout.monitor),
        "max_failure_ratio": 0,
        "order": "stop-first",  # one watcher for each host
    }
    return {
        "mode": "global",
        "labels": dict(marked),
        "placement": {"constraints": where},
        "update_config": {**step, "delay": _seconds(rollout.monitor), "failure_action": "rollback"},
        "rollback_config": {**step, "failure_action": "pause"},
        "restart_policy": {"condition": "any", "delay": f"{_RESTART_SECONDS}s"},
        "resources": {"limits": {"memory": _MEMORY, "pids": _PROCESSES}},
    }


def _seconds(number: float) -> str:
    return f"{round(number * 1000)}ms" if number % 1 else f"{round(number)}s"


def text(document: Mapping[str, Any]) -> str:
    """Return a compose file as text. The docker CLI would take a single `$` for a variable of its own."""
    return yaml.safe_dump(_escaped(document), sort_keys=False, width=1000, allow_unicode=True)


def _escaped(value: object) -> object:
    match value:
        case str():
            return value.replace("$", "$$")
        case Mapping():
            return {key: _escaped(each) for key, each in value.items()}
        case list() | tuple():
            return [_escaped(each) for each in value]
        case _:
            return value
