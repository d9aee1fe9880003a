"""Real clients behind a company's proxy, Debian's Squid, whose log says what was asked of it."""

import json
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devkit.clients.image import KEYED, TOKEN, WORKS
from devkit.clients.site import GIT, MOVED, MOVING, WEB, Site, Surroundings, site
from devkit.peers import KEEPALIVE, KEPT_LOADS, peers
from devkit.squid import BASIC, DENIED, NAME, OPEN, PASSWORD, RUBBISH, SILENT, TLS, Squid, squid
from devkit.waiting import until
from tests.clients.test_clients import AGENT_RUN, CLIENTS, Client

SHARERS = 100  # as in `test_clients.py`

PASSING = ("curl", "curl over http", "git over https", "git over ssh", "pip", "WebSocket of Node", "psql")
THROUGH = [client for client in CLIENTS if client.name in PASSING]
SECRET, OTHER, GONE, EXEMPT = f"secret.{KEYED}", f"other.{WORKS}", "gone.test", f"exempt.{WORKS}"
LOADED = f"loaded.{WORKS}"
SECURE, PLAIN = 8443, 8081

RULES: tuple[Mapping[str, Any], ...] = (
    *({"dst": client.named(WORKS), **client.rule} for client in THROUGH),
    {"dst": SECRET, "path_rules": [{"path": "/hello", "methods": ["GET"]}], "inject": "token"},
    *({"dst": name, **kind} for name in (OTHER, DENIED, GONE, EXEMPT) for kind in ({}, {"proto": "http"})),
    {"dst": LOADED, "port": SECURE},
    {"dst": LOADED, "port": PLAIN, "proto": "http"},
)
SECURED: dict[str, Any] = {
    "proxy": f"https://{NAME}:{TLS}",
    "auth": "corp",
    "connect_ports": [443, 22, 5432, SECURE],
}


@dataclass(frozen=True)
class Behind:
    """A stack whose way out is the proxy."""

    site: Site
    squid: Squid
    folder: Path
    authority: Path

    def write(
        self, password: str = PASSWORD, limits: Mapping[str, object] | None = None, **upstream: object
    ) -> None:
        """Write settings and secrets with a proxy."""
        (self.folder / "corp").write_text(password)
        self.site.firewall.write(
            *RULES,
            inspection={"ca_file": str(self.authority)},
            upstream={"no_proxy": [EXEMPT], **upstream},
            limits=limits or {},
        )

    def use(self, **settings: Any) -> None:  # noqa: ANN401 - as in `write`
        """Make a stack with a proxy current."""
        self.write(**settings)
        self.site.firewall.draining("0").run()

    def secure(self) -> None:
        self.use(**SECURED, ca_file=str(self.authority))

    def reason(self, host: str, protocol: str) -> Mapping[str, Any]:
        """Return what `denials` says of the last request for a host over `tls` or `http`."""
        listed = self.site.firewall.call("denials", "--format", "json").expect().json["denials"]
        return next(
            denial for denial in reversed(listed) if (denial["name"], denial["protocol"]) == (host, protocol)
        )

    def in_envoys_network(self, *command: str) -> int:
        """Run a program of this machine in the network of Envoy's container, and return its exit code."""
        process = self.site.docker.inspect_container(self.site.firewall.container("envoy"))["State"]["Pid"]
        network = f"--net={self.site.engine.root}/proc/{process}/ns/net"
        return subprocess.run(["nsenter", network, *command], check=False, capture_output=True).returncode

    def reached(self, since: int) -> list[tuple[str, str, str]]:
        """Return what has reached Squid: user, method and target."""
        asked = self.squid.requests()[since:]
        return [(request["user"], request["method"], request["target"]) for request in asked]


@pytest.fixture(scope="module")
def stack(around: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """A stack behind Squid, over TLS and with a password."""
    folder = tmp_path_factory.mktemp("site")
    with (
        squid(around.docker, around.engine, around.image) as proxy,
        site(around, folder, (), keyed=[SECRET]) as made,
    ):
        declared = folder / "secrets.yaml"
        document = json.loads(declared.read_text())
        hosts = [f"{NAME}:{TLS}", f"{WEB}:{BASIC}"]
        document["secrets"]["corp"] = {"from": {"file": "corp"}, "hosts": hosts}
        declared.write_text(json.dumps(document))
        yield Behind(made, proxy, folder, around.authority)


@pytest.fixture
def behind(stack: Behind) -> Behind:
    """The stack made current again."""
    stack.secure()
    return stack


def target_of(client: Client) -> tuple[str, str]:
    """Return how Squid sees a client's first request."""
    host, proto = client.named(WORKS), client.rule.get("proto", "https")
    if proto == "http":
        return "GET", f"http://{host}/hello"
    return "CONNECT", f"{host}:{client.rule.get('port') or {'https': 443, 'ssh': 22}[proto]}"


def test_clients_do_their_job_through_the_proxy(behind: Behind) -> None:
    """Each client works, with only the requests of its rule, each with the password; `doctor` says the same."""
    since = len(behind.squid.requests())
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda one: behind.site.agent(one.script, one.named(WORKS), one.start), THROUGH)
        outcomes = list(zip(THROUGH, runs, strict=True))
    for client, outcome in outcomes:
        assert outcome.expect().out.splitlines()[-1] == client.done, client.name
    expected = {("corp", *target_of(client)) for client in THROUGH}
    until(lambda: expected <= set(behind.reached(since)))
    assert set(behind.reached(since)) == expected

    doctor = behind.site.firewall.call("doctor", "--format", "json").expect().json["checks"]
    assert [check["health"] for check in doctor if check["name"].startswith("upstream-proxy")] == ["warning"]
    assert not any(check["name"] == "upstream-proxy-guards" for check in doctor)
    behind.use(proxy=f"http://{NAME}:{OPEN}")
    doctor = behind.site.firewall.call("doctor", "--format", "json").expect().json["checks"]
    assert any(check["name"] == "upstream-proxy-guards" for check in doctor)
    forging = "curl -sS -H 'Proxy-Authorization: Basic ZXZpbDpldmls' http://$HOST/open"
    behind.site.agent(forging, OTHER).expect()
    until(lambda: behind.squid.requests()[-1]["target"] == f"http://{OTHER}/open")
    assert behind.squid.requests()[-1]["sent"] == "-"


def test_secrets_reach_the_host_and_not_the_proxy(behind: Behind) -> None:
    """In inspected TLS, the host gets the secret; the proxy sees neither the secret nor the path."""
    since = len(behind.squid.requests())
    assert behind.site.agent("curl -sS https://$HOST/hello", SECRET, AGENT_RUN).expect().out == "hello\n"
    refused = behind.site.agent("curl -sS https://$HOST/other", SECRET, AGENT_RUN)
    assert "not this path" in refused.out
    assert set(behind.reached(since)) == {("corp", "CONNECT", f"{SECRET}:443")}
    (request,) = behind.site.requests(SECRET)
    assert (request["path"], request["authorization"]) == ("/hello", f"Bearer {TOKEN}")
    log = behind.site.docker.logs(behind.squid.container).decode()
    assert TOKEN not in log


FORGED = f"""
import socket
def send(request, host="{OTHER}"):
    with socket.create_connection(("{OTHER}", 80), 5) as agent:
        agent.settimeout(3)
        agent.sendall(f"{{request}} HTTP/1.1\\r\\nHost: {{host}}\\r\\nConnection: close\\r\\n\\r\\n".encode())
        try:
            agent.recv(4096)
        except OSError:
            pass
send("GET /control")
for request in (
    "CONNECT {WEB}:443", "CONNECT {OTHER}:22", "GET http://{DENIED}:3128/", "GET http://evil.test/",
    "GET @evil.test/", "GET .evil.test/", "GET :22/", "GET http://{OTHER}@evil.test/", "OPTIONS *",
):
    send(request)
for host in ("{OTHER}@evil.test", "{OTHER}:22", "{OTHER}:443:22", "evil.test", "{WEB}"):
    send("GET /host", host)
"""

HOSTILE = f"""set +e
python3 - <<'END'
{FORGED}
END
ask() {{ curl -sS -m 4 -o /dev/null "$@"; }}
ask -H 'Proxy-Authorization: Basic ZXZpbDpldmls' -H 'Proxy-Connection: close' http://{OTHER}/forged
ask --proxy http://{OTHER}:80 https://{WEB}/
ask --proxy http://{NAME}:{TLS} https://{OTHER}/
ask --connect-to {WEB}:443:{OTHER}:443 https://{WEB}/
ask -k --resolve {OTHER}:{TLS}:{WEB} https://{OTHER}:{TLS}/
ask https://{OTHER}:22/
ask -H 'Proxy-Authorization: Basic ZXZpbDpldmls' https://{OTHER}/hello
true
"""


def test_an_agent_cannot_ask_the_proxy_for_anything_else(behind: Behind) -> None:
    """Whatever an agent sends, the proxy gets only requests for hosts and ports of rules, with our password."""
    since = len(behind.squid.requests())
    behind.site.agent(HOSTILE, OTHER).expect()
    allowed = {
        ("corp", "CONNECT", f"{OTHER}:443"),
        ("corp", "GET", f"http://{OTHER}/control"),
        ("corp", "GET", f"http://{OTHER}/forged"),
    }
    until(lambda: allowed <= set(behind.reached(since)))
    # The port in a Host header or a URL is ignored: these are requests for port 80 of two hosts with a rule.
    for user, method, target in set(behind.reached(since)) - allowed:
        assert (user, method) in {("corp", "GET"), ("-", "GET")}
        assert target in {f"http://{OTHER}/host", f"http://{DENIED}/"}


def asked(behind: Behind, host: str) -> None:
    """Ask for a host over TLS and plain HTTP, in vain; the agent gets no page of the proxy."""
    script = "curl -sS -m 15 https://$HOST/; curl -sS -m 15 http://$HOST/; true"
    outcome = behind.site.agent(f"set +e; {script}", host).expect()
    assert "clawker-fw: " in outcome.out
    assert "squid" not in outcome.out.lower()


def reasons(behind: Behind, host: str) -> set[str]:
    """Return the reasons on record for a host, after asking for it. None of them advises a rule."""
    asked(behind, host)
    denials = until(lambda: [behind.reason(host, protocol) for protocol in ("tls", "http")])
    assert all(denial["failed"] and not denial["remedy"]["command"] for denial in denials)
    return {denial["reason"] for denial in denials}


def test_each_failure_of_the_proxy_has_its_reason(behind: Behind) -> None:
    """`denials` says what the proxy refuses, does not reach or demands; a stopped one fails closed."""
    assert reasons(behind, DENIED) == {"proxy-refused"}
    assert "ERR_ACCESS_DENIED" in behind.reason(DENIED, "tls")["proxy"]
    assert reasons(behind, GONE) == {"proxy-failed"}
    behind.write("corp:wrong", **SECURED, ca_file=str(behind.authority))
    assert "no request is cut" in behind.site.firewall.call("reload").expect().err
    assert reasons(behind, OTHER) == {"proxy-auth"}
    assert "Basic" in behind.reason(OTHER, "tls")["proxy"]
    behind.site.firewall.call("secrets", "forget", "corp").expect()
    assert reasons(behind, OTHER) == {"proxy-auth", "no-secret"}
    behind.secure()
    behind.squid.stop()
    try:
        before = len(behind.site.requests(OTHER))
        assert reasons(behind, OTHER) == {"proxy-unreachable"}
        assert len(behind.site.requests(OTHER)) == before
        direct = behind.site.agent("curl -sS https://$HOST/hello", EXEMPT)
        assert direct.expect().out == "hello\n"
    finally:
        behind.squid.start()


@pytest.mark.parametrize(
    ("upstream", "reason"),
    [
        ({"proxy": f"http://{NAME}:{RUBBISH}"}, "proxy-unreachable"),
        ({"proxy": f"http://{NAME}:{SILENT}", "limits": {"idle": "10s"}}, "proxy-unreachable"),
        ({"proxy": f"http://nowhere.test:{OPEN}"}, "proxy-no-address"),
        ({"proxy": f"https://{NAME}:{TLS}"}, "proxy-unreachable"),
    ],
    ids=["rubbish", "silent", "no address", "untrusted"],
)
def test_broken_proxies_fail_closed(stack: Behind, upstream: Mapping[str, Any], reason: str) -> None:
    """A proxy that can't be used leads nowhere. The silent one ends with `limits.idle`."""
    stack.use(**upstream)
    before = len(stack.site.requests(OTHER))
    script = "set +e; curl -sS -m 25 https://$HOST/ & curl -sS -m 25 http://$HOST/; wait"
    stack.site.agent(script, OTHER).expect()
    until(lambda: {stack.reason(OTHER, protocol)["reason"] for protocol in ("tls", "http")} == {reason})
    assert len(stack.site.requests(OTHER)) == before


def test_an_address_is_all_that_the_source_reaches(stack: Behind) -> None:
    """The kernel lets Envoy's source reach only a proxy with an address; `drift` compares that."""
    stack.secure()
    stack.write(proxy=f"http://{WEB}:{BASIC}", auth="corp")
    firewall = stack.site.firewall
    planned = firewall.call("run", "--dry-run").expect(1)
    assert "Envoy will be replaced" in planned.err + planned.out
    firewall.draining("0").run()
    assert firewall.current()
    assert "proxy-password-in-clear" in firewall.call("status", "--format", "json").expect().out
    since = len(stack.squid.requests())
    assert stack.site.agent("curl -sS https://$HOST/hello", OTHER).expect().out == "hello\n"
    until(lambda: stack.reached(since) == [("corp", "CONNECT", f"{OTHER}:443")])

    source = stack.squid.requests()[-1]["source"]
    reached = [
        address
        for address in (WEB, *GIT.values(), "10.1.2.3", "192.0.2.1")
        if not stack.in_envoys_network("ip", "route", "get", address, "from", source)
    ]
    assert reached == [WEB]
    assert stack.in_envoys_network("ip", "route", "flush", "table", "104") == 0
    assert "table 104" in firewall.drift().expect(1).out


def test_another_address_of_the_proxy_cuts_nothing(stack: Behind) -> None:
    """While the proxy's name changes its address every second, an open tunnel stays, and new ones reach both."""
    stack.use(proxy=f"http://{MOVING}:{OPEN}", connect_ports=[443, SECURE])
    url, firewall = f"https://{LOADED}:{SECURE}/", stack.site.firewall
    with peers(stack.site.docker) as started:
        started.start("origin", "--https", str(SECURE), network="host")
        kept = firewall.agent(started, *KEEPALIVE, "--seconds", "0", url)
        until(kept.said)
        since = len(stack.squid.requests())
        new = firewall.agent(started, "load", "--rate", "10", "--seconds", "0", url)
        until(lambda: {request["at"] for request in stack.squid.requests()[since:]} == {WEB, MOVED})
        assert new.stop().last["failed"] == 0
        summary = kept.stop().last
        assert (summary["failed"], summary["connections"]) == (0, 1)


@pytest.mark.alone  # while others keep the machine busy, requests may fail
def test_a_replacement_under_load_fails_no_request(behind: Behind) -> None:
    """Requests through the proxy, on new and on kept connections, all succeed while Envoy is replaced."""
    urls = (f"https://{LOADED}:{SECURE}/?wait=0.01", f"http://{LOADED}:{PLAIN}/?wait=0.01")
    with peers(behind.site.docker) as started:
        ports = ("--https", str(SECURE), "--http", str(PLAIN))
        started.start("origin", *ports, network="host")
        loads = [
            behind.site.firewall.agent(started, "load", *load, "--seconds", "0", *urls) for load in KEPT_LOADS
        ]
        loads.append(behind.site.firewall.agent(started, "load", "--rate", "20", "--seconds", "0", *urls))
        until(lambda: all(any(line.get("done") for line in agent.said()) for agent in loads))
        since = len(behind.squid.requests())
        behind.site.firewall.draining("8s").run("--force-recreate")
        summaries = [agent.stop().last for agent in loads]
        assert [summary["failed"] for summary in summaries] == [0] * len(loads), shlex.join(map(str, summaries))
        assert {user for user, *_ in behind.reached(since)} == {"corp"}
