"""The connection to the engine that the options choose. Importing this module imports the Docker SDK."""

import os

from clawker_fw.cli.parameters import Options
from clawker_fw.engine import client_config
from clawker_fw.engine.docker import connect
from clawker_fw.engine.port import EngineWriter


def connect_engine(chosen: Options) -> EngineWriter:
    """Connect to the engine that the options choose."""
    return connect(chosen.host, chosen.context, os.environ)


def proxy_variables() -> tuple[str, ...]:
    """Return the variables by which the docker CLI gives a proxy to each container.

    Raises:
        EngineError: when its configuration is unreadable.
    """
    return client_config.proxy_variables(os.environ)
