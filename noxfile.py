"""The project's checks. `./dev` makes the environment they run in, and calls them.

`check` is the loop for every day, and the others together are `./dev test`.

Sessions share that environment instead of making their own: the lock file names every version once.
"""

import nox

from devkit.programs import machine
from hatch_build import go_environment

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests", "engine", "engine_matrix", "docs", "build"]

SIDE_BY_SIDE = ("--numprocesses", "4", "--dist", "loadgroup")
"""Four workers for two processors: tests with engines mostly wait. With five, everything takes longer."""

GO_MODULES = ("go", "devkit/peer", "devkit/clients/content/fetch")


IN_MEMORY = ("tests/unit", "tests/golden", "tests/cli")
ONE_RUN = "tests/engine/test_rules.py::test_a_rule_is_added_and_removed_live"
"""A real `run` with an agent, on a real engine."""


@nox.session
def check(session: nox.Session) -> None:
    """Check style, run everything that is in memory, and one real `run` on a real engine."""
    _lint(session)
    session.run("pytest", *SIDE_BY_SIDE, "--require-engine", *IN_MEMORY, ONE_RUN, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, and the direction in which data may flow."""
    _lint(session)


def _lint(session: nox.Session) -> None:
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache")
    for module in GO_MODULES:
        with session.chdir(module):
            session.run("go", "vet", "./...", env=go_environment(machine()))


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly, tests included."""
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run everything that needs no Docker engine."""
    session.run("pytest", *SIDE_BY_SIDE, *IN_MEMORY, "tests/programs", *session.posargs)


@nox.session
def engine(session: nox.Session) -> None:
    """Run the contract suite and everything that needs a real engine."""
    session.run(
        "pytest",
        *SIDE_BY_SIDE,
        "--require-engine",
        "tests/contract",
        "tests/engine",
        "tests/attack",
        "tests/clients",
        *session.posargs,
    )


@nox.session
def engine_matrix(session: nox.Session) -> None:
    """Run a smoke set, and registries, on every supported kind of engine; the main job on other hosts."""
    session.run("pytest", *SIDE_BY_SIDE, "--require-engine", "tests/matrix", "tests/hosts", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation with warnings as errors, and check what is generated."""
    session.run("python", "-m", "devkit.reference", "--check")
    session.run("python", "-m", "devkit.notice", "--check")
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build/html")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel twice, compare, install it into an empty environment and run it."""
    session.run("pytest", "tests/build", *session.posargs)
