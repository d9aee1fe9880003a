"""Changes to the body with which a container or network was created, shared by several kinds of tampering."""

from collections.abc import Callable
from typing import Any

from devkit.hand import Body


def host_fields(**fields: Any) -> Callable[[Body], None]:  # noqa: ANN401 - any of the engine's
    """Return a change that sets fields of the host configuration."""
    return lambda body: body["HostConfig"].update(fields)


def fields(**fields: Any) -> Callable[[Body], None]:  # noqa: ANN401 - any of the engine's
    """Return a change that sets fields of the body."""
    return lambda body: body.update(fields)


def other_address(body: Body) -> None:
    """Move the container to another address on each network."""
    for endpoint in body["NetworkingConfig"]["EndpointsConfig"].values():
        first, _, last = endpoint["IPAMConfig"]["IPv4Address"].rpartition(".")
        endpoint["IPAMConfig"]["IPv4Address"] = f"{first}.{int(last) + 100}"
