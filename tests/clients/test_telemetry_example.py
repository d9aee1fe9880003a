"""The example in examples/telemetry, started with compose: what siblings and watchers send is in Prometheus.

There is no registry in tests. So the images of the collector and of Prometheus have their real programs, and
nothing else. Loki and Grafana can't be had and are left out.
"""

import json
import os
import secrets
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker import APIClient

from devkit.clients.image import compose_program
from devkit.collectors import collector_program
from devkit.debian_programs import prometheus
from devkit.engines import PrivateEngine, private_engine
from devkit.firewall import Firewall, Outcome
from devkit.host import client
from devkit.peers import Peers, peers
from devkit.stacks import CHECKOUT
from devkit.tools import libraries
from devkit.waiting import until
from devkit.watching import watching

HOST, NAME = "203.0.113.77", "collector.test"
"""The address of the engine's machine, where the collector's port is published, and the collector's name."""

RULES = ({"dst": "a.test", "allow_private": True},)

OWNER = 1000
"""The user that the collector's container has by default, who must own the certificates."""

STARTED = ("collector", "prometheus")

EXAMPLE = CHECKOUT / "examples" / "telemetry"

_QUERY = """
import sys, urllib.parse, urllib.request
query = urllib.parse.urlencode({"query": sys.argv[1]})
print(urllib.request.urlopen(f"http://127.0.0.1:9090/api/v1/query?{query}").read().decode())
"""


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
    def started(self) -> Iterator[None]:
        """Run the collector and Prometheus."""
        self.compose("up", "--detach", *STARTED).expect()
        try:
            yield
        finally:
            self.compose("down", "--volumes", "--timeout", "1").expect()

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Ask Prometheus, where its port is published."""
        done = self.engine.run_in_network([sys.executable, "-c", _QUERY, expression], check=False)
        found: list[dict[str, Any]] = json.loads(done.stdout)["data"]["result"] if done.returncode == 0 else []
        return found


@pytest.fixture(scope="module")
def place(needs_engine: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A stack whose first run has made the certificates, and the example with what it exports."""
    needs_engine()
    folder = tmp_path_factory.mktemp("telemetry")
    shutil.copytree(EXAMPLE, folder / "example")
    with private_engine() as engine, closing(client(engine.host)) as docker, peers(docker) as around:
        engine.run_in_network(["ip", "address", "add", f"{HOST}/32", "dev", "lo"])
        services = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]
        programs = {"collector": collector_program(), "prometheus": prometheus() / "prometheus"}
        for service, program in programs.items():
            _import(docker, services[service]["image"], program, folder)
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
    """Give an engine an image with one program and its libraries, and the folder that its data is in."""
    archive = folder / "image.tar"
    with tarfile.open(archive, "w", dereference=True) as tar:
        tar.add(program, "program")
        for library in libraries([program]):
            tar.add(library)
        data = tarfile.TarInfo("prometheus")
        data.type, data.mode, data.uid = tarfile.DIRTYPE, 0o755, 65534
        tar.addfile(data)
    repository, _, tag = reference.partition(":")
    changes = ['ENTRYPOINT ["/program"]', "USER 65534", "WORKDIR /prometheus"]
    docker.import_image_from_file(str(archive), repository=repository, tag=tag, changes=changes)


def _expressions(project: str) -> Iterator[tuple[str, str]]:
    """Yield the title of each panel about metrics, and each of its expressions."""
    for panel in json.loads((EXAMPLE / "grafana/dashboard.json").read_text())["panels"]:
        if panel["datasource"]["type"] == "prometheus":
            for target in panel["targets"]:
                text = str(target["expr"])
                for variable, value in (("$__rate_interval", "1m"), ("$__range", "6h"), ("$project", project)):
                    text = text.replace(variable, value)
                yield panel["title"], text


def test_compose_reads_the_example(place: Place) -> None:
    """It has the four services, and only the collector listens for other machines."""
    config = json.loads(place.compose("config", "--format", "json").expect().out)
    assert config["services"].keys() == {"collector", "prometheus", "loki", "grafana"}
    published = {
        name: {port.get("host_ip", "") for port in service.get("ports", ())}
        for name, service in config["services"].items()
    }
    assert published == {"collector": {""}, "prometheus": {"127.0.0.1"}, "loki": set(), "grafana": {"127.0.0.1"}}


def test_what_is_sent_is_in_prometheus(place: Place) -> None:
    """Refusals by agent and reason, what a watcher knows of agents, and every metric of the dashboard arrive."""
    firewall = place.firewall
    with place.started():
        firewall.origin(place.peers, ["a.test"])
        how = firewall.status()["agent"]
        agent = place.peers.agent(how["network"], how["dns"], name="coder")
        address = agent.address(how["network"])
        until(lambda: place.ask("vector(1)"))

        def answer(expression: str) -> list[dict[str, Any]]:
            """What is answered while the agent goes on: a rate needs two samples, and only traffic makes them."""
            agent.get("https://a.test/")
            agent.get("https://b.test/")
            return place.ask(expression)

        def counted(name: str) -> list[dict[str, Any]]:
            return until(lambda: answer(f'clawker_fw_{name}_total{{client_address="{address}"}} > 0'))

        counted("allowed")
        counted("refused")
        with watching(firewall, "--otel", before=place.engine.network_argv()):
            pass  # at its end it sends its metrics
        (known,) = until(lambda: place.ask(f'clawker_fw_agent_info{{client_address="{address}"}}'))
        assert known["metric"]["agent"] == "coder"
        assert known["metric"]["clawker_fw_project"] == firewall.project
        for title, expression in _expressions(firewall.project):
            if title in {"Refusals by agent", "Refusals by reason", "Verdict", "Allowed"}:
                assert until(partial(answer, expression)), title
        (reason,) = counted("refused")
        assert reason["metric"]["clawker_fw_reason"] == "no-rule"
