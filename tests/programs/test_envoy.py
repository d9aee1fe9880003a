"""The rendered listeners in the real Envoy, on loopback: its choice of chain and route, against the matcher.

Only what would happen after the decision is replaced: a chain answers with its name, a route with its cluster's.
"""

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from clawker_fw.engine.memory import MemoryEngine
from clawker_fw.model import Sibling
from clawker_fw.rules.matcher import Matcher
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import Protocol
from clawker_fw.stack import images, listeners
from clawker_fw.stack.release import Release
from devkit.programs import free_port, machine
from devkit.stacks import rule_set
from devkit.strategies import PORTS, names_near, rule_sets
from devkit.waiting import until

HERE = IPv4Address("127.0.0.1")

_DIRECT_RESPONSE = "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config"


class Proxy:
    """A running Envoy whose hot files can be replaced as `fwctl commit` does it."""

    def __init__(self, folder: Path, program: Path) -> None:
        """Start it without listeners."""
        self.folder = folder
        self.ports = {port: free_port() for port in PORTS}
        for name in ("hot/lds", "hot/rds"):
            (folder / name).mkdir(parents=True)
        self.serve(RuleSet())
        bootstrap: dict[str, Any] = {
            "admin": {"address": {"pipe": {"path": str(folder / "admin")}}},
            "node": {"id": "test", "cluster": "test"},
            "dynamic_resources": {
                "lds_config": {
                    "resource_api_version": "V3",
                    "path_config_source": {
                        "path": str(folder / listeners.LISTENERS),
                        "watched_directory": {"path": str(folder / "hot/lds")},
                    },
                }
            },
            "static_resources": {"clusters": [{"name": name, "type": "STATIC"} for name in ("guarded", "exempt")]},
        }
        (folder / "bootstrap.json").write_text(json.dumps(bootstrap))
        self.log = folder / "log"
        options = ["--reject-unknown-dynamic-fields", "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, "--config-path", folder / "bootstrap.json", *options], stdout=log, stderr=log
            )

    def serve(self, rules: RuleSet) -> str:
        """Put other hot files into place and return their version."""
        files, version = listeners.render(rules, HERE)
        for path, content in files.items():
            document = json.loads(content.replace(b"/fw/", f"{self.folder}/".encode()))
            for resource in document["resources"]:
                self._decide_only(resource)
            fresh = self.folder / "fresh"
            fresh.write_text(json.dumps(document))
            fresh.replace(self.folder / path)
        return version

    def _decide_only(self, resource: dict[str, Any]) -> None:
        if "filter_chains" in resource:
            address = resource["address"]["socket_address"]
            address["port_value"] = self.ports[address["port_value"]]
            for chain in resource["filter_chains"]:
                if chain["name"] != "http":
                    answer = {"@type": _DIRECT_RESPONSE, "response": {"inline_string": chain["name"]}}
                    chain["filters"] = [{"name": "answer", "typed_config": answer}]
        for host in resource.get("virtual_hosts", []):
            for route in host["routes"]:
                if (target := route.pop("route", None)) is not None:
                    route["direct_response"] = {"status": 200, "body": {"inline_string": target["cluster"]}}

    def serves(self, version: str, rules: RuleSet) -> bool:
        """Whether every resource of the rules is live at a version; those of listeners that are gone linger."""
        connection = http.client.HTTPConnection("admin")
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(self.folder / "admin"))
            connection.request("GET", "/stats?filter=version_text$")
            lines = connection.getresponse().read().decode().splitlines()
        except OSError:
            return False
        finally:
            connection.close()
        live = dict(line.replace('"', "").split(": ") for line in lines)
        routes = (f"http.http-{port}.rds.http-{port}" for port in rules.ports)
        wanted = (f"{scope}.version_text" for scope in ("listener_manager.lds", *routes))
        return all(live.get(name) == version for name in wanted)

    def chain(self, name: str, port: int) -> str:
        """Return the chain that a TLS connection with a server name ends up in, "" when it is refused."""
        hello = ssl.MemoryBIO()
        context = ssl.create_default_context()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=name).do_handshake()
        with socket.create_connection(("127.0.0.1", self.ports[port]), timeout=5) as connection:
            connection.sendall(hello.read())
            try:
                return connection.recv(4096).decode()
            except ConnectionResetError:
                return ""

    def route(self, host: str, port: int) -> str:
        """Return the cluster that a request with a Host header would go to, "refused" for none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=5)
        connection.request("GET", "/", headers={"Host": host})
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return body if response.status == 200 else "refused"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Proxy]:
    """The proxy, for all tests here."""
    bundled = images.bundled(Sibling.ENVOY, release, MemoryEngine(machine()).facts())
    program = next(entry.source for entry in bundled.entries if entry.path == "usr/local/bin/envoy")
    assert program is not None
    started = Proxy(tmp_path_factory.mktemp("envoy"), program)
    yield started
    started.process.terminate()
    started.process.wait()


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(rule_sets(8))
def test_envoy_decides_as_the_matcher_does(proxy: Proxy, rules: RuleSet) -> None:
    """For every name near the rules, on every port, over both protocols."""
    version = proxy.serve(rules)
    until(lambda: proxy.serves(version, rules))
    matcher = Matcher(rules)
    for name in names_near(rules)[:40]:
        for port in rules.ports:
            rule = matcher.decide(name, Protocol.HTTPS, port)
            private = "exempt" if rule and rule.allow_private else "guarded"
            assert proxy.chain(name, port) == (f"tls {rule.destination} {private}" if rule else ""), (name, port)
            rule = matcher.decide(name, Protocol.HTTP, port)
            private = "exempt" if rule and rule.allow_private else "guarded"
            assert proxy.route(f"{name}:2222", port) == (private if rule else "refused"), (name, port)


def test_many_names_share_chains(proxy: Proxy) -> None:
    """Beyond 256 rules on a port, chains are shared, and names are told apart as before."""
    _, rules = rule_set(*(f"n{number}.many.test" for number in range(300)), ".sub.many.test")
    version = proxy.serve(rules)
    until(lambda: proxy.serves(version, rules))
    assert proxy.chain("n1.many.test", 443).startswith("tls ")
    assert proxy.chain("x.sub.many.test", 443).startswith("tls ")
    assert proxy.chain("n300.many.test", 443) == ""
    chains = {proxy.chain(f"n{number}.many.test", 443) for number in range(300)}
    assert 100 < len(chains) <= 256


def test_a_removed_name_renames_its_chain_and_no_other() -> None:
    """Whose connections are drained when a rule goes is decided by the names of chains."""
    names = [f"n{number}.many.test" for number in range(300)]
    before, after = (_chains(rule_set(*some)[1]) for some in (names, names[1:]))
    assert len(before - after) == 1
    few = [f"n{number}.few.test" for number in range(3)]
    assert _chains(rule_set(*few)[1]) - _chains(rule_set(*few[1:])[1]) == {"tls n0.few.test guarded"}


def _chains(rules: RuleSet) -> set[str]:
    document = json.loads(listeners.render(rules, HERE)[0][listeners.LISTENERS])
    return {chain["name"] for listener in document["resources"] for chain in listener["filter_chains"]} - {"http"}


def test_the_version_is_the_same_for_the_same_rules_only(proxy: Proxy) -> None:
    """A version stands for a content."""
    del proxy
    assert listeners.render(rule_set("a.test")[1], HERE)[1] == listeners.render(rule_set("A.test")[1], HERE)[1]
    assert listeners.render(rule_set("a.test")[1], HERE)[1] != listeners.render(rule_set(".a.test")[1], HERE)[1]
