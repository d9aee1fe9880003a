"""The owner's design card: these names must stay."""

import re
import tomllib

from typer.main import get_command

from clawker_fw.cli.main import app
from clawker_fw.stack import labels
from devkit.stacks import CHECKOUT

PACKAGES = {"typer", "docker", "rich", "jinja2", "pydantic", "pytest"}
TOP_LEVEL = {"pyproject.toml", "clawker_fw", "tests", "templates", "docs", "noxfile.py"}
COMMANDS = {"run", "status", "drift", "reload"}
LABELS = {"infra_certs_ready", "otel_infra_port", "stack_build_sha"}


def test_the_project_has_what_its_owner_asked_for() -> None:
    """Packages, top-level folders, commands and labels match the card, whether or not the program needs them."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    required = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    assert {match.group() for entry in required if (match := re.match(r"[\w-]+", entry))} >= PACKAGES
    assert {path.name for path in CHECKOUT.iterdir()} >= TOP_LEVEL
    assert list((CHECKOUT / "templates").glob("*.j2"))
    assert {*getattr(get_command(app), "commands")} >= COMMANDS  # noqa: B009 - a group has it
    assert {label.rpartition(".")[2] for label in labels.DRIFT_LABELS} == LABELS
