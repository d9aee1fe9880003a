"""The example in examples/telemetry, started with compose: what Prometheus gets from its collector and a watcher.

There is no registry in tests. So the image of the collector has its real program, and nothing else. In place of
Prometheus, another collector takes what Prometheus would get. Loki and Grafana are left out.
"""

import json
import os
import re
import secrets
import shlex
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from docker import APIClient
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from devkit.clients.image import compose_program
from devkit.collectors import Attributes, Collector
from devkit.engines import PrivateEngine, private_engine
from devkit.firewall import Firewall, Outcome
from devkit.go_programs import go_program
from devkit.host import client
from devkit.peers import Peers, peers
from devkit.stacks import CHECKOUT
from devkit.waiting import until
from devkit.watching import watching

HOST, NAME = "203.0.113.77", "collector.test"
"""The address of the Docker host, where the collector listens, and the collector's name."""

RULES = ({"dst": "a.test", "allow_private": True},)

OWNER = 1000
"""The user that the collector's container has by default, who must own the certificates."""

EXAMPLE = CHECKOUT / "examples" / "telemetry"

PROMETHEUS = {"http": {"endpoint": "127.0.0.1:9090", "metrics_url_path": "/api/v1/otlp/v1/metrics"}}


@dataclass(frozen=True)
class Place:
    """A copy of the example beside an engine, and a stack that sends to it."""

    engine: PrivateEngine
    folder: Path
    firewall: Firewall
    peers: Peers

    def compose(self, *arguments: str) -> Outcome:
        """Run compose in the example's folder."""
        program = [str(compose_program()), "--project-directory", str(self.folder), *arguments]
        return self.firewall.call_raw(["env", "-u", "UID", f"DOCKER_HOST={self.engine.host}", *program])

    @contextmanager
    def started(self) -> Iterator[Collector]:
        """Run the example's collector, and yield what is in place of Prometheus."""
        with Collector(self.folder.parent / "prometheus", PROMETHEUS, self.engine.network_argv()) as found:
            self.compose("up", "--detach", "collector").expect()
            try:
                yield found
            finally:
                self.compose("down", "--volumes", "--timeout", "1").expect()

    def scraped(self) -> list[Sample]:
        """Return what the target of the example's only scrape job has."""
        (job,) = yaml.safe_load((self.folder / "prometheus.yaml").read_text())["scrape_configs"]
        (target,) = job["static_configs"][0]["targets"]
        page = self.engine.run_in_network(["curl", "--silent", "--fail", f"http://{target}/metrics"]).stdout
        return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


@pytest.fixture(scope="module")
def place(needs_engine: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A stack whose first run has made the certificates, and the example with what it exports."""
    needs_engine()
    folder = tmp_path_factory.mktemp("telemetry")
    shutil.copytree(EXAMPLE, folder / "example")
    with private_engine() as engine, closing(client(engine.host)) as docker, peers(docker) as around:
        engine.run_in_network(["ip", "address", "add", f"{HOST}/32", "dev", "lo"])
        services = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]
        _import(docker, services["collector"]["image"], go_program("collector"), folder)
        firewall = Firewall(
            engine.host, f"test{secrets.token_hex(3)}", folder, variables={"XDG_STATE_HOME": str(folder / "state")}
        )
        firewall.write(*RULES, otel={"endpoint": f"{HOST}:4317", "server_name": NAME})
        firewall.run()
        certificates = folder / "example" / "certs"
        firewall.call("certs", "export", "collector", str(certificates)).expect()
        for path in (certificates, *certificates.iterdir()):
            os.chown(path, OWNER, OWNER)
        yield Place(engine, folder / "example", firewall, around)


def _import(docker: APIClient, reference: str, program: Path, folder: Path) -> None:
    """Give an engine an image with one program."""
    archive = folder / "image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(program, "program")
    repository, _, tag = reference.partition(":")
    changes = ['ENTRYPOINT ["/program"]']
    docker.import_image_from_file(str(archive), repository=repository, tag=tag, changes=changes)


def shown_metrics() -> set[str]:
    """Return the metrics that alerts and panels use."""
    groups = yaml.safe_load((EXAMPLE / "rules.yaml").read_text())["groups"]
    panels = json.loads((EXAMPLE / "grafana" / "dashboard.json").read_text())["panels"]
    texts = [rule["expr"] for group in groups for rule in group["rules"]]
    for panel in panels:
        if panel["datasource"]["type"] == "prometheus":
            texts += [target["expr"] for target in panel["targets"]]
    return set(re.findall(r"clawker_fw_\w+", " ".join(texts))) - {"clawker_fw_project", "clawker_fw_reason"}


def test_compose_reads_the_example(place: Place) -> None:
    """It has the four services, and all but the collector listen on loopback."""
    services = json.loads(place.compose("config", "--format", "json").expect().out)["services"]
    in_the_hosts_network = {name for name, service in services.items() if service.get("network_mode") == "host"}
    assert in_the_hosts_network == {"collector", "prometheus", "grafana"}
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    assert services["grafana"]["environment"] == {"GF_SERVER_HTTP_ADDR": "127.0.0.1"}
    assert services.keys() - in_the_hosts_network == {"loki"}
    assert [port["host_ip"] for port in services["loki"]["ports"]] == ["127.0.0.1"]


def test_what_prometheus_gets(place: Place) -> None:
    """The collector sends decisions counted by agent and reason; all else that is shown is on a watcher's page."""
    firewall = place.firewall
    with place.started() as prometheus:
        firewall.origin(place.peers, ["a.test"])
        how = firewall.status()["agent"]
        agent = place.peers.agent(how["network"], how["dns"], name="coder")
        address = agent.address(how["network"])

        def counted(name: str) -> list[Attributes]:
            agent.get("https://a.test/")
            agent.get("https://b.test/")
            return [each for each in prometheus.points(name) if each["client.address"] == address]

        assert until(lambda: counted("clawker_fw.allowed"))[0]["clawker_fw.project"] == firewall.project
        refused = until(lambda: counted("clawker_fw.refused"))[0]
        assert (refused["clawker_fw.project"], refused["clawker_fw.reason"]) == (firewall.project, "no-rule")
        listening = place.engine.run_in_network(["ss", "--no-header", "--listening", "--tcp", "--numeric"]).stdout
        addresses = {line.split()[3] for line in listening.splitlines()}
        assert {each for each in addresses if not each.startswith("127.0.0.1:")} == {"*:4317"}
        counts = {f"{name.replace('.', '_')}_total" for name in prometheus.metrics()}

    page = (CHECKOUT / "docs" / "telemetry.md").read_text("utf-8")
    options = shlex.split(page.partition("$ clawker-fw watch ")[2].partition("\n")[0])
    with watching(firewall, *options, before=place.engine.network_argv()) as watcher:
        place.peers.client.stop(firewall.container("envoy"))
        watcher.healed()
        until(lambda: counts | {sample.name for sample in place.scraped()} >= shown_metrics())
        (known,) = [sample.labels for sample in place.scraped() if sample.name == "clawker_fw_agent_info"]
        assert known == {"agent": "coder", "client_address": address, "group": ""}
    assert len(shown_metrics() - counts) > 5
