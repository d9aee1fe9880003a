"""The engine that the options name. Importing this imports the Docker SDK."""

import os

from clawker_fw.cli.parameters import Options
from clawker_fw.engine.docker import connect
from clawker_fw.engine.port import EngineWriter


def connect_engine(chosen: Options) -> EngineWriter:
    """Return the engine the options name."""
    return connect(chosen.host, chosen.context, os.environ)
