"""The connection to the engine that the options choose. Importing this module imports the Docker SDK."""

import os

from clawker_fw.cli.parameters import Options
from clawker_fw.engine.docker import connect
from clawker_fw.engine.port import EngineWriter


def connect_engine(chosen: Options) -> EngineWriter:
    """Connect to the engine that the options choose."""
    return connect(chosen.host, chosen.context, os.environ)
