"""One engine with all clients' servers, whose image has more than a gigabyte."""

from collections.abc import Callable, Iterator

import pytest

from devkit.clients.registries import Registries, write
from devkit.clients.site import Surroundings, surroundings


@pytest.fixture(scope="package")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Registries:
    return write(tmp_path_factory.mktemp("registries"))


@pytest.fixture(scope="package")
def around(
    needs_engine: Callable[..., None], registries: Registries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Surroundings]:
    """The engine and the servers, for stacks of several modules, one after the other."""
    needs_engine()
    with surroundings(tmp_path_factory.mktemp("around"), registries.folder) as made:
        yield made
