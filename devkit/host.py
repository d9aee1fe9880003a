"""An engine to work on: the one that is reachable, else a private one that ends with its user."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from docker import APIClient

from clawker_fw.engine.docker import connect
from clawker_fw.errors import EngineError
from devkit.engines import private_engine


def reachable() -> str | None:
    """Return the address of the engine that the docker CLI would use, when it answers and is new enough."""
    try:
        engine = connect(None, None, os.environ)
    except EngineError:
        return None
    return str(engine.address)


@contextmanager
def some_engine() -> Iterator[str]:
    """Give the address of an engine; a private one is installed if need be, and leaves nothing behind.

    Raises:
        devkit.engines.EngineError: when there is none and none can be started; it says what to install.
    """
    found = reachable()
    if found:
        print(f"Using the Docker engine at {found}.", file=sys.stderr)
        yield found
        return
    with private_engine() as engine:
        print(f"Using a private Docker engine ({engine.version()}) in {engine.folder}.", file=sys.stderr)
        yield engine.host


def main() -> None:
    """Exit with 0 when an engine is reachable, with 1 when none is."""
    sys.exit(reachable() is None)


def client(host: str) -> APIClient:
    """Return an SDK client, for what a user does with `docker`."""
    return APIClient(base_url=host, version="auto", timeout=120)


if __name__ == "__main__":
    main()
