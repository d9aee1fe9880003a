"""The files in examples/telemetry, as tests read them."""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from devkit.stacks import CHECKOUT

EXAMPLE = CHECKOUT / "examples" / "telemetry"

_VARIABLES = {"$__rate_interval": "1m", "$__range": "6h"}


def read(name: str) -> Any:  # noqa: ANN401 - YAML
    """Return what is in a file."""
    return yaml.safe_load((EXAMPLE / name).read_text())


def counted() -> dict[str, Any]:
    """Return the metrics that the collector counts, by the name of each."""
    found: dict[str, Any] = read("collector.yaml")["connectors"]["count"]["logs"]
    return found


def expressions(source: str, project: str = "clawker") -> Iterator[tuple[str, str]]:
    """Yield the title of each panel for a kind of source, and each of its expressions for a project."""
    for panel in json.loads((EXAMPLE / "grafana/dashboard.json").read_text())["panels"]:
        if panel["datasource"]["type"] == source:
            for target in panel["targets"]:
                text = str(target["expr"])
                for variable, value in {**_VARIABLES, "$project": project}.items():
                    text = text.replace(variable, value)
                yield panel["title"], text
