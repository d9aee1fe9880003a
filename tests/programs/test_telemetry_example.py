"""The files in examples/telemetry, read by the programs that they are for as far as these can be had.

`tests/clients/test_telemetry_example.py` starts them.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from clawker_fw.model import Action
from clawker_fw.stack.telemetry import ATTRIBUTES, RESOURCE_ATTRIBUTES
from clawker_fw.watch import presence
from clawker_fw.watch.metrics import Metrics
from devkit.collectors import collector_program
from devkit.promtool import promtool
from devkit.stacks import CHECKOUT
from devkit.telemetry_example import EXAMPLE, counted, expressions, read


def _queries() -> list[str]:
    return [text for _, text in expressions("prometheus")]


def _promtool(*arguments: str | Path) -> None:
    done = subprocess.run([promtool(), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_collector_reads_its_configuration() -> None:
    """A real collector accepts it."""
    done = subprocess.run(
        [collector_program(), "validate", "--config", EXAMPLE / "collector.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_alerts_fire_as_they_should() -> None:
    """The rules are valid, and raise alerts where the tests beside them say so."""
    _promtool("check", "rules", EXAMPLE / "rules.yaml")
    _promtool("test", "rules", EXAMPLE / "rules.test.yaml")


def test_prometheus_reads_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    """Each expression of a panel is valid."""
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(_queries())]
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    _promtool("check", "rules", path)


def test_only_metrics_that_exist_are_used() -> None:
    """Alerts and panels use metrics of a watcher, or what the collector counts."""
    known = {each.name for each in Metrics("1.2.3", "abc").kinds()}
    known |= {name.replace(".", "_") + "_total" for name in counted()}
    labels = {"clawker_fw_project", "clawker_fw_reason"}
    alerts = [rule["expr"] for group in read("rules.yaml")["groups"] for rule in group["rules"]]
    used = set(re.findall(r"clawker_fw_\w+", "\n".join([*alerts, *_queries()]))) - labels
    assert used <= known
    assert len(used) > 5
    assert f'action="{Action.REPLACE.value}"' in "\n".join(_queries())


def test_only_attributes_that_exist_are_used() -> None:
    """Panels of records select and show what the siblings or a watcher send, under the names of Loki."""
    sent = {
        *(each.name for each in (*ATTRIBUTES, *RESOURCE_ATTRIBUTES)),
        *(each.name for each in presence.ATTRIBUTES),
    }
    known = {name.replace(".", "_") for name in sent} | {"name"}
    texts = [text for _, text in expressions("loki")]
    used = {name for text in texts for name in re.findall(r"\.(\w+) }}|[{|] ?(\w+) ?[=!]", text)}
    assert {one or other for one, other in used} <= known
    assert len(used) > 8


def test_the_example_has_the_versions_that_are_tested() -> None:
    """The images are those of the programs that the tests build from their modules."""
    images = {name: service["image"] for name, service in read("compose.yaml")["services"].items()}
    wanted = {
        "collector": ("collector", r"collector/otelcol v0\.(\d+)", r":0\.(\d+)"),
        "prometheus": ("prometheus", r"prometheus/prometheus v0\.3(\d+)", r":v3\.(\d+)"),
    }
    for service, (folder, module, image) in wanted.items():
        (built,) = re.findall(module, (CHECKOUT / "devkit" / folder / "go.mod").read_text())
        assert re.findall(image, images[service]) == [built], service


def test_names_are_no_labels() -> None:
    """What an agent can choose freely is no label of a metric, or it could fill the memory of Prometheus."""
    for metric in counted().values():
        assert {each["key"] for each in metric.get("attributes", ())} <= {"client.address", "clawker_fw.reason"}


@pytest.mark.parametrize("service", ["collector", "prometheus", "grafana"])
def test_mounted_files_are_there(service: str) -> None:
    """Each file of the folder that compose mounts is in it, except for the certificates, which are made."""
    for volume in read("compose.yaml")["services"][service]["volumes"]:
        place = volume.partition(":")[0]
        assert not place.startswith("./") or place == "./certs" or (EXAMPLE / place).is_file(), place


def test_other_files_are_read() -> None:
    """The other files are YAML with what Prometheus and Grafana look for."""
    assert read("prometheus.yaml")["rule_files"] == ["rules.yaml"]
    assert {each["uid"] for each in read("grafana/datasources.yaml")["datasources"]} == {"prometheus", "loki"}
    assert read("grafana/dashboards.yaml")["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"
