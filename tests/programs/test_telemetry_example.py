"""The files in examples/telemetry, read by the programs that they are for as far as these can be had."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clawker_fw.model import Action
from clawker_fw.watch.metrics import Metrics
from devkit.collectors import collector_program
from devkit.promtool import promtool
from devkit.stacks import CHECKOUT

EXAMPLE = CHECKOUT / "examples" / "telemetry"
COUNT = "count"
"""The connector that the collector for tests lacks."""

VARIABLES = {"$__rate_interval": "1m", "$__range": "6h", "$project": "clawker"}


def _read(name: str) -> Any:  # noqa: ANN401 - YAML
    return yaml.safe_load((EXAMPLE / name).read_text())


def _counted() -> dict[str, Any]:
    counted: dict[str, Any] = _read("collector.yaml")["connectors"][COUNT]["logs"]
    return counted


def _expressions(source: str) -> Iterator[str]:
    for panel in json.loads((EXAMPLE / "grafana/dashboard.json").read_text())["panels"]:
        if panel["datasource"]["type"] == source:
            for target in panel["targets"]:
                text = str(target["expr"])
                for variable, value in VARIABLES.items():
                    text = text.replace(variable, value)
                yield text


def _promtool(*arguments: str | Path) -> None:
    done = subprocess.run([promtool(), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_collector_reads_its_configuration(tmp_path: Path) -> None:
    """A real collector accepts it, but for the connector that it lacks."""
    config = _read("collector.yaml")
    del config["connectors"]
    for pipeline in config["service"]["pipelines"].values():
        for part in ("receivers", "exporters"):
            pipeline[part] = [each for each in pipeline[part] if each != COUNT]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    done = subprocess.run(
        [collector_program(), "validate", "--config", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_alerts_fire_as_they_should() -> None:
    """The rules are valid, and raise alerts where the tests beside them say so."""
    _promtool("check", "rules", EXAMPLE / "rules.yaml")
    _promtool("test", "rules", EXAMPLE / "rules.test.yaml")


def test_prometheus_reads_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    """Each expression of a panel is valid."""
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(_expressions("prometheus"))]
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    _promtool("check", "rules", path)


def test_only_metrics_that_exist_are_used() -> None:
    """Alerts and panels use metrics of a watcher, or what the collector counts."""
    known = {each.name for each in Metrics("1.2.3", "abc").kinds()}
    known |= {name.replace(".", "_") + "_total" for name in _counted()}
    labels = {"clawker_fw_project", "clawker_fw_reason"}
    alerts = [rule["expr"] for group in _read("rules.yaml")["groups"] for rule in group["rules"]]
    used = set(re.findall(r"clawker_fw_\w+", "\n".join([*alerts, *_expressions("prometheus")]))) - labels
    assert used <= known
    assert len(used) > 5
    assert f'action="{Action.REPLACE.value}"' in "\n".join(_expressions("prometheus"))


def test_names_are_no_labels() -> None:
    """What an agent can choose freely is no label of a metric, or it could fill the memory of Prometheus."""
    for metric in _counted().values():
        assert {each["key"] for each in metric.get("attributes", ())} <= {"client.address", "clawker_fw.reason"}


@pytest.mark.parametrize("service", ["collector", "prometheus", "grafana"])
def test_mounted_files_are_there(service: str) -> None:
    """Each file of the folder that compose mounts is in it, except for the certificates, which are made."""
    for volume in _read("compose.yaml")["services"][service]["volumes"]:
        place = volume.partition(":")[0]
        assert not place.startswith("./") or place == "./certs" or (EXAMPLE / place).is_file(), place


def test_other_files_are_read() -> None:
    """The other files are YAML with what Prometheus and Grafana look for."""
    assert _read("prometheus.yaml")["rule_files"] == ["rules.yaml"]
    assert {each["uid"] for each in _read("grafana/datasources.yaml")["datasources"]} == {"prometheus", "loki"}
    assert _read("grafana/dashboards.yaml")["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"
