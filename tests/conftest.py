"""What all tests share: the command line options and the release under test."""

import pytest

from clawker_fw.stack.release import Release
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
def release() -> Release:
    """The release under test: this checkout."""
    return installed_release()
