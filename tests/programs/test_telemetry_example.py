"""The files in examples/telemetry that are not started: alerts, and the names that dashboards use.

`tests/clients/test_telemetry_example.py` starts the others.
"""

import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from devkit.debian_programs import unpacked
from devkit.stacks import CHECKOUT
from devkit.telemetry import ATTRIBUTES

EXAMPLE = CHECKOUT / "examples" / "telemetry"


def read(name: str) -> Any:  # noqa: ANN401 - YAML
    return yaml.safe_load((EXAMPLE / name).read_text())


def counted() -> dict[str, Any]:
    """Return the metrics that the collector counts, by the name of each."""
    found: dict[str, Any] = read("collector.yaml")["connectors"]["count"]["logs"]
    return found


@pytest.mark.parametrize("line", ["test rules rules.test.yaml", "check config prometheus.yaml"])
def test_prometheus_takes_it(line: str) -> None:
    """The rules raise alerts where the tests beside them say so, and the configuration has no mistake."""
    command = [str(unpacked("promtool", suite="sid") / "promtool"), *line.split()]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_attributes_that_exist_are_used() -> None:
    """Panels of records select and show what Envoy and CoreDNS send, under the names of Loki."""
    sent = {each.name for each in ATTRIBUTES}
    known = {name.replace(".", "_") for name in sent} | {"name"}
    panels = json.loads((EXAMPLE / "grafana/dashboard.json").read_text())["panels"]
    targets = [each for panel in panels if panel["datasource"]["type"] == "loki" for each in panel["targets"]]
    used = {name for target in targets for name in re.findall(r"\.(\w+) }}|[{|] ?(\w+) ?[=!]", target["expr"])}
    assert {one or other for one, other in used} <= known
    assert len(used) > 5


def test_names_are_no_labels() -> None:
    """What an agent can choose freely is no label of a metric, or it could fill the memory of Prometheus."""
    for metric in counted().values():
        assert {each["key"] for each in metric.get("attributes", ())} <= {"client.address", "clawker_fw.reason"}
