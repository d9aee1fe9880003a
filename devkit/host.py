"""The engine for tests: the reachable one, or else a private one that ends with this process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from docker import APIClient

from clawker_fw.engine.docker import connect
from clawker_fw.errors import EngineError
from clawker_fw.stack.image_tar import BuiltImage
from devkit.engines import INSTALLED, private_engine


def reachable() -> str | None:
    """Return the address of the engine that the docker CLI would use, if it answers and is new enough."""
    try:
        engine = connect(None, None, os.environ)
    except EngineError:
        return None
    return engine.facts().endpoint


@contextmanager
def some_engine(kind: str = INSTALLED.name) -> Iterator[str]:
    """Yield the address of an engine: the reachable one, or a private one of a kind."""
    found = reachable()
    if found:
        print(f"Using the Docker engine at {found}.", file=sys.stderr)
        yield found
        return
    with private_engine(kind) as engine:
        print(f"Using a private Docker engine ({kind}) in {engine.folder}.", file=sys.stderr)
        yield engine.host


def main() -> None:
    sys.exit(reachable() is None)


def client(host: str) -> APIClient:
    """Return a client of the SDK, for actions of a user with `docker`."""
    made = APIClient(base_url=host, version="auto", timeout=120)
    made.trust_env = False  # no proxy leads to a socket, and looking for one takes a tenth of a request's time
    return made


def load(client: APIClient, image: BuiltImage) -> None:
    """Load an image into an engine, unless it is there: its tag has the digest of its content."""
    if client.images(image.reference):
        return
    for line in client.load_image(image.archive()):  # type: ignore[no-untyped-call]
        if "error" in line:
            raise RuntimeError(line["error"])


if __name__ == "__main__":
    main()
