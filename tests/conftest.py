"""What all tests share: options, the order of tests, and the release under test."""

import gc
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import count

import hypothesis
import pytest
from docker import APIClient
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

from clawker_fw.stack.release import Release
from devkit import prepared
from devkit.engines import USUAL, available
from devkit.firewall import remove_project
from devkit.floor import Floor
from devkit.host import client, reachable, some_engine
from devkit.stacks import installed_release

# How long an example takes depends on what else the machine does: `bench/` measures, tests don't.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-engine", action="store_true", help="fail where a test needs an engine and has none"
    )
    parser.addoption(
        "--thorough",
        type=int,
        default=1,
        metavar="N",
        help="ask real programs N times as much in property tests; with more than 1, run what takes long as well",
    )
    parser.addoption("--update-goldens", action="store_true", help="write the goldens anew; read the diff")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse --update-goldens with several workers, because they would write the same file."""
    if config.getoption("--update-goldens") and config.getoption("numprocesses", None):
        raise pytest.UsageError("goldens are written by one process: leave out -n")


SHARERS = 48
"""The most tests that share a module's fixture: those beyond have their own, perhaps on another worker.

A module whose tests are quick, and whose fixture is not, has a larger number of its own under this name.
"""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Assign tests that share a fixture to one worker, in order. The others run on any worker.

    Tests marked `thorough` are left out unless they are asked for.

    On an engine that existed before the tests, there can only be one worker: some tests look at all that it has,
    and two runs that begin at the same time would choose the same free subnets.
    """
    if config.getoption("--thorough") == 1:
        longest = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=longest)
        items[:] = [item for item in items if item not in longest]
    items.sort(key=lambda item: not item.nodeid.startswith("tests/hosts/"))  # nothing else takes that long alone
    wanted = hasattr(config, "workerinput") and any(_needs_engine(item) for item in items)
    one_engine = wanted and reachable() is not None
    sharers = Counter(filter(None, map(_shared, items)))
    numbers: defaultdict[str, Iterator[int]] = defaultdict(count)
    for item in items:
        if one_engine and _needs_engine(item):
            item.add_marker(pytest.mark.xdist_group("engine"))
        elif shared := _shared(item):
            most = getattr(getattr(item, "module", None), "SHARERS", SHARERS)
            groups = -(-sharers[shared] // most)
            group = next(numbers[shared]) * groups // sharers[shared]  # all of about the same size
            item.add_marker(pytest.mark.xdist_group(f"{shared} {group}"))
        elif _alone(item):
            item.add_marker(pytest.mark.xdist_group("alone"))  # consecutive, so that others wait less often


class BothEnds(LoadGroupScheduling):  # type: ignore[misc]  # it has no types
    """Hands out large groups first, as xdist does, and to one worker what comes last.

    Large groups share an engine, and often wait for it. What comes last are thousands of tests in memory, which
    only compute: begun at once, they use the time in which the others wait. Some are left for the very end, so
    that no worker is left alone there with a test that takes long.
    """

    def _assign_work_unit(self, node: WorkerController) -> None:
        if node.gateway.id == "gw0" and len(self.workqueue) > len(self.collection) // 3:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)  # known with xdist alone
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> BothEnds | None:
    return BothEnds(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_collection_finish() -> None:
    """Have the garbage collector leave out what collection has made: thousands of tests, which stay to the end."""
    gc.collect()
    gc.freeze()


def _needs_engine(item: pytest.Item) -> bool:
    contract = item.nodeid.startswith("tests/contract/")  # requests the engine at run time
    return isinstance(item, pytest.Function) and (contract or "host" in item.fixturenames)


def _shared(item: pytest.Item) -> str:
    """Return the name of what a test shares with others of its module or folder, or an empty string."""
    if not isinstance(item, pytest.Function):
        return ""
    fixtures = item._fixtureinfo.name2fixturedefs  # noqa: SLF001 - scopes are not available otherwise
    scopes = {name: defined[-1].scope for name, defined in fixtures.items()}
    shared = sorted(name for name, scope in scopes.items() if scope in {"module", "package"})
    callspec = getattr(item, "callspec", None)
    kinds = [str(callspec.params[name]) for name in shared if callspec and name in callspec.params]
    place = item.nodeid.partition("::")[0]
    if "package" in scopes.values():
        place = place.rpartition("/")[0]
    return " ".join((place, *kinds)) if shared else ""


_floor = Floor()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Run a test marked `alone` while no other one runs. Consecutive ones wait only once."""
    alone = _alone(item)
    _floor.enter(alone=alone)
    try:
        return (yield)
    finally:
        if not (alone and nextitem and _alone(nextitem)):
            _floor.leave()


def _alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in a test's output, because workers can't transmit them."""
    report = yield
    report.sections = [
        (heading, text.encode(errors="backslashreplace").decode()) for heading, text in report.sections
    ]
    return report


@pytest.fixture(scope="session", autouse=True)
def prepared_interpreter() -> Iterator[None]:
    """Commands are run in forks of an interpreter that has imported the program."""
    with prepared.in_use():
        yield


@pytest.fixture(scope="session")
def require_engine(request: pytest.FixtureRequest) -> bool:
    """Whether a missing engine is a failure."""
    return bool(request.config.getoption("--require-engine"))


@pytest.fixture(scope="session")
def needs_engine(require_engine: bool) -> Callable[..., None]:  # noqa: FBT001 - a fixture
    """Return a function that skips a test if no private engine of a kind can be started here.

    With `--require-engine` it does nothing, and the test fails as it starts the engine.
    """

    def check(kind: str = USUAL) -> None:
        if (reason := available(kind)) and not require_engine:
            pytest.skip(f"NOT TESTED, WITHOUT AN ENGINE OF KIND {kind}: {reason}")

    return check


@pytest.fixture(scope="session")
def host(require_engine: bool) -> Iterator[str]:  # noqa: FBT001 - a fixture
    """The address of an engine: the reachable one, else a private one."""
    if (reason := reachable() is None and available()) and not require_engine:
        pytest.skip(f"NO ENGINE IS TESTED: none is reachable, and {reason}")
    with some_engine(USUAL) as address:
        yield address


@pytest.fixture(scope="session")
def docker(host: str) -> Iterator[APIClient]:
    """A client of the engine, for actions of a user with `docker`."""
    with closing(client(host)) as sdk:
        yield sdk


@pytest.fixture
def clean_project(docker: APIClient) -> Iterator[str]:
    """A unique name for a stack, which is removed afterwards."""
    name = f"test{secrets.token_hex(3)}"
    yield name
    remove_project(docker, name)


@pytest.fixture(scope="session")
def release() -> Release:
    return installed_release()
