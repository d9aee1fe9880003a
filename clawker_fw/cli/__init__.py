"""The command line: options in, one pipeline, an answer and an exit code out.

Everything heavy is imported by the command that needs it, so that `--help` and completion are quick.
"""

from clawker_fw.cli import stack, watching  # noqa: F401 - they add their commands
from clawker_fw.cli.app import app

__all__ = ["app"]
