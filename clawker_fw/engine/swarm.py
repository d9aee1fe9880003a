"""What a manager answers about its swarm (https://docs.docker.com/reference/api/engine/, Node and Task). Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from clawker_fw.errors import RefusedError
from clawker_fw.model import EngineFacts, Swarm, SwarmNode, SwarmTask

_NOWHERE = {"", "0.0.0.0", "::", "127.0.0.1", "::1"}  # noqa: S104 - what a manager may say of itself; nothing is bound
"""What is no address for anybody else: a manager may have no better one of its own."""


def require_manager(engine: EngineFacts, said: Mapping[str, Any]) -> None:
    """Require that an engine is a manager of a swarm. `said` is `Swarm` in its answer to `/info`.

    Raises:
        RefusedError: when it is none.
    """
    if said.get("ControlAvailable") is True:
        return
    state = str(said.get("LocalNodeState") or "inactive")
    raise RefusedError(
        "not-a-manager",
        f"The engine at {engine.endpoint} is no manager of a swarm, and only managers know the nodes.",
        context=["it is a worker of one" if state == "active" else f"its state in a swarm is {state}"],
        hint="Name a manager with --host or --context before the command; `docker node ls` works there.",
    )


def view(
    said: Mapping[str, Any],
    nodes: Sequence[Mapping[str, Any]],
    services: Sequence[Mapping[str, Any]],
    tasks: Sequence[Mapping[str, Any]],
    label: str,
) -> Swarm:
    """Return a swarm. `said` is as above; the tasks are those of the services."""
    by_id = {str(each["ID"]): each.get("Spec") or {} for each in services}
    found: dict[tuple[str, str], SwarmTask] = {}
    for task in sorted((_task(each, by_id, label) for each in tasks), key=lambda each: each.since):
        found[task.node, task.service] = task
    own = str(said.get("NodeID") or "")
    return Swarm(tuple(_node(each, own) for each in nodes), tuple(found.values()))


def _node(raw: Mapping[str, Any], own: str) -> SwarmNode:
    spec, status = raw.get("Spec") or {}, raw.get("Status") or {}
    named = str((raw.get("Description") or {}).get("Hostname") or raw["ID"])
    managing, _, _ = str((raw.get("ManagerStatus") or {}).get("Addr") or "").rpartition(":")
    addresses = (str(status.get("Addr") or ""), managing.strip("[]"))
    return SwarmNode(
        id=str(raw["ID"]),
        name=named,
        address=next((each for each in addresses if each not in _NOWHERE), ""),
        state=str(status.get("State") or "unknown"),
        availability=str(spec.get("Availability") or "active"),
        role=str(spec.get("Role") or "worker"),
        itself=str(raw["ID"]) == own,
    )


def _task(raw: Mapping[str, Any], services: Mapping[str, Mapping[str, Any]], label: str) -> SwarmTask:
    status, spec = raw.get("Status") or {}, services.get(str(raw.get("ServiceID"))) or {}
    return SwarmTask(
        node=str(raw.get("NodeID") or ""),
        service=str(spec.get("Name") or raw.get("ServiceID") or ""),
        project=str((spec.get("Labels") or {}).get(label, "")),
        state=str(status.get("State") or "unknown"),
        since=str(status.get("Timestamp") or ""),
        words=str(status.get("Err") or status.get("Message") or ""),
    )
