"""The command line: options in, one pipeline, an answer and an exit code out.

Each command imports its heavy dependencies itself, so that `--help` and completion are quick.
"""

from clawker_fw.cli import (  # noqa: F401 - they register their commands
    agent,
    certs,
    config,
    conformance,
    denials,
    doctor,
    explain,
    logs,
    overview,
    rules,
    service,
    stack,
    status,
    watching,
)
from clawker_fw.cli.app import app

__all__ = ["app"]
