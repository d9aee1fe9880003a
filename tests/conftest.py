"""What all tests share: the command line options and the release under test."""

import secrets
from collections.abc import Iterator
from contextlib import closing

import pytest
from docker import APIClient

from clawker_fw.stack.release import Release
from devkit.engines import available
from devkit.firewall import remove_project
from devkit.host import client, reachable, some_engine
from devkit.stacks import installed_release


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the project's own options."""
    parser.addoption(
        "--require-engine", action="store_true", help="fail where a test needs an engine and has none"
    )
    parser.addoption("--update-goldens", action="store_true", help="write the goldens anew; read the diff")


@pytest.fixture(scope="session")
def require_engine(request: pytest.FixtureRequest) -> bool:
    """Whether a missing engine is a failure."""
    return bool(request.config.getoption("--require-engine"))


@pytest.fixture(scope="session")
def host(require_engine: bool) -> Iterator[str]:  # noqa: FBT001 - a fixture
    """The address of an engine: the reachable one, else a private one."""
    if (reason := reachable() is None and available()) and not require_engine:
        pytest.skip(f"NO ENGINE IS TESTED: none is reachable, and {reason}")
    with some_engine() as address:
        yield address


@pytest.fixture(scope="session")
def docker(host: str) -> Iterator[APIClient]:
    """What a user does with `docker`, on the engine."""
    with closing(client(host)) as sdk:
        yield sdk


@pytest.fixture
def clean_project(docker: APIClient) -> Iterator[str]:
    """A name for a stack that nobody else uses; what is left of it is taken away."""
    name = f"test{secrets.token_hex(3)}"
    yield name
    remove_project(docker, name)


@pytest.fixture(scope="session")
def release() -> Release:
    """The release under test: this checkout."""
    return installed_release()
