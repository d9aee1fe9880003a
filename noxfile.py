"""The project's checks. `./dev` prepares the environment they run in; `nox -s NAME` runs one of them.

Sessions share that environment instead of making their own: the lock file names every version once.
"""

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests", "engine", "docs", "build"]


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and the direction in which data may flow."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly, tests included."""
    session.run("mypy")
