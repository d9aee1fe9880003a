"""The program with all its commands: each module registers its own with `app` when it is imported."""

# Within a panel, the help lists commands in this order.
# isort: off
from clawker_fw.cli import (
    agent,
    certs,
    config,
    conformance,
    denials,
    doctor,
    explain,
    fleet,
    rules,
    editing,
    schema,
    secrets,
    service,
    stack,
    status,
    watching,
)

# isort: on
from clawker_fw.cli.app import app

__all__ = [
    "agent",
    "app",
    "certs",
    "config",
    "conformance",
    "denials",
    "doctor",
    "editing",
    "explain",
    "fleet",
    "rules",
    "schema",
    "secrets",
    "service",
    "stack",
    "status",
    "watching",
]
