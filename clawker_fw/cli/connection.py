"""The connection to the engine that the options choose. Importing this module imports the Docker SDK."""

import os

from clawker_fw.cli.parameters import Options
from clawker_fw.engine import client_config
from clawker_fw.engine.docker import connect, connect_to
from clawker_fw.engine.locate import EngineLocation
from clawker_fw.engine.patience import Patience
from clawker_fw.engine.port import EngineReader, EngineWriter


def connect_engine(chosen: Options) -> EngineWriter:
    """Connect to the engine that the options choose, to change something."""
    return connect(chosen.host, chosen.context, os.environ)


def connect_reader(chosen: Options) -> EngineReader:
    """Connect to the engine that the options choose, to look only."""
    return connect_engine(chosen)


def connect_place(place: EngineLocation, patience: Patience) -> EngineReader:
    """Connect to the engine at a place, to look only: one of many hosts."""
    return connect_to(place, patience)


def proxy_variables() -> tuple[str, ...]:
    """Return the variables by which the docker CLI gives a proxy to each container.

    Raises:
        EngineError: when its configuration is unreadable.
    """
    return client_config.proxy_variables(os.environ)
