"""Real clients do their job where a rule allows it, and are refused at once otherwise."""

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.rules.rule import HOST, HOST_NAME
from clawker_fw.settings.preset import Proof, names, preset
from devkit.clients.image import HALF, REFUSED, WORKS
from devkit.clients.registries import HELLO, Registries
from devkit.clients.site import DOCKER_RUN, FORBIDDEN, Site, Surroundings, site
from devkit.waiting import until

SOON = 100.0
"""Seconds until a refused client has ended, with its container's start; otherwise, `curl` waits for minutes."""

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"

Rule = Mapping[str, Any]
HTTPS: Rule = {}
HTTP: Rule = {"proto": "http"}
SSH: Rule = {"proto": "ssh"}
DATABASE: Rule = {"proto": "tcp", "port": 5432}
TIME: Rule = {"proto": "udp", "port": 123}

SHARERS = 100
"""One worker starts the servers of all modules here, whose image has more than a gigabyte."""

FORBIDS = "no rule allows this host over http on port 80"


@dataclass(frozen=True)
class Client:
    """A client and its messages.

    `rule` allows what `script` does with `$HOST`, ending with the output `done`; `other` is a rule that does not.
    The output contains `unknown` for a host without rules, `half` for a host with only the `other` rule.
    """

    name: str
    script: str
    rule: Rule
    other: Rule
    unknown: str
    half: str
    done: str = "hello"
    host: str = ""
    start: str = DOCKER_RUN

    def named(self, zone: str) -> str:
        """Return its host in a zone."""
        return f"{self.host or re.sub('[^a-z]+', '-', self.name.lower())}.{zone}"


AGENT_RUN = "fw agent run"
UNRESOLVED = "Could not resolve host"
DENIED = "alert access denied"
DENIED_TO_GNUTLS = "Access was denied"
APT = """rm -rf /etc/apt/sources.list.d
echo "deb [trusted=yes] {}://$HOST/debian ./" >/etc/apt/sources.list
apt-get update
apt-get install -y greeting
greeting"""
NODE = "fetch(process.argv[1]).then(answer => answer.text()).then(text => console.log(text.trim()))"

CLIENTS = (
    Client("curl", "curl -sS https://$HOST/hello", HTTPS, HTTP, UNRESOLVED, DENIED, start=AGENT_RUN),
    Client("curl over http", "curl -sS --fail-with-body http://$HOST/hello", HTTP, HTTPS, UNRESOLVED, FORBIDS),
    Client(
        "wget",
        "wget -nv -O - https://$HOST/hello",
        HTTPS,
        HTTP,
        "unable to resolve host address",
        DENIED_TO_GNUTLS,
    ),
    Client(
        "git over https",
        "git clone -q https://$HOST/git/www.git /tmp/work; cat /tmp/work/greeting",
        HTTPS,
        HTTP,
        UNRESOLVED,
        DENIED_TO_GNUTLS,
        done="hello from www",
        start=AGENT_RUN,
    ),
    Client(
        "git over ssh",
        "git clone -q git@$HOST:greeting.git /tmp/work; cat /tmp/work/greeting",
        SSH,
        HTTPS,
        "Could not resolve hostname",
        "Connection refused",
        done="hello from one",
        host="one",
    ),
    Client(
        "pip",
        "pip install -q --target /tmp/p --index-url https://$HOST/pypi/simple/ greeting;"
        "python3 /tmp/p/greeting.py",
        HTTPS,
        HTTP,
        "Name or service not known",
        DENIED,
    ),
    Client(
        "npm",
        "cd /tmp; NPM_CONFIG_FETCH_RETRIES=0 npm install --registry https://$HOST/npm/ greeting;"
        "node -e 'require(\"greeting\")'",
        HTTPS,
        HTTP,
        "ENOTFOUND",
        DENIED,
    ),
    Client("apt", APT.format("https"), HTTPS, HTTP, "Could not resolve", DENIED),
    Client("apt over http", APT.format("http"), HTTP, HTTPS, "Could not resolve", "403  Forbidden"),
    Client(
        "Java",
        "java -cp /srv Fetch https://$HOST/hello",
        HTTPS,
        HTTP,
        "UnresolvedAddressException",
        "access_denied",
        done="HTTP_2 200 hello",
    ),
    Client(
        "Go",
        "/srv/fetch-go https://$HOST/hello",
        HTTPS,
        HTTP,
        "no such host",
        "tls: access denied",
        done="HTTP/2.0 200 hello",
    ),
    Client("Node", f"node -e '{NODE}' https://$HOST/hello", HTTPS, HTTP, "ENOTFOUND", DENIED),
    Client(
        "WebSocket of Node",
        "node --experimental-websocket /srv/echo.mjs wss://$HOST/echo",
        HTTPS,
        HTTP,
        "Received network error or non-101 status code",
        "Received network error or non-101 status code",
    ),
    Client(
        "psql",
        "psql -Atc 'select 6*7' \"host=$HOST user=postgres sslmode=verify-full sslrootcert=system\"",
        DATABASE,
        {"port": 5432},
        "could not translate host name",
        "received invalid response to SSL negotiation: H",
        done="42",
    ),
    Client(
        "ntpdig",
        "ntpdig --json $HOST >/tmp/said; grep -Eo 'stratum[^,]*' /tmp/said",
        TIME,
        {"port": 123},
        "no eligible servers",
        "no eligible servers",
        done='stratum":3',
    ),
)

RULES: tuple[Rule, ...] = (
    *({"dst": each.named(WORKS), **each.rule} for each in CLIENTS),
    *({"dst": each.named(HALF), **each.other} for each in CLIENTS),
    {"dst": f"tls.{WORKS}"},
    {"dst": f"h2.{WORKS}"},
    {"dst": f"h2.{WORKS}", "proto": "http"},
    {"dst": f"two.{WORKS}", "proto": "ssh"},
    {"dst": f"direct.{WORKS}", "port": 5432},
    {"dst": HOST, **DATABASE},
)


@pytest.fixture(scope="module")
def place(around: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A stack with these rules, and the servers around it."""
    with site(around, tmp_path_factory.mktemp("site"), RULES) as made:
        yield made


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_client(place: Site, client: Client) -> None:
    """With a rule, it does its job; without, it soon ends with the documented message, and no packet arrives."""
    arrived = {zone: place.packets(zone) for zone in FORBIDDEN}
    zones = (WORKS, REFUSED, HALF)
    with ThreadPoolExecutor(len(zones)) as pool:
        runs = pool.map(lambda zone: place.agent(client.script, client.named(zone), client.start), zones)
        outcomes = dict(zip(zones, runs, strict=True))
    assert outcomes[WORKS].expect().out.splitlines()[-1] == client.done
    for zone, said in ((REFUSED, client.unknown), (HALF, client.half)):
        refused = outcomes[zone]
        assert refused.code != 0
        assert said in refused.out + refused.err
        assert refused.seconds < SOON
    assert {zone: place.packets(zone) for zone in FORBIDDEN} == arrived
    (row,) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"| {client.name} |"))
    assert client.unknown in row
    assert client.half in row


def test_without_the_firewall_it_would_arrive(place: Site) -> None:
    """The same request succeeds from a container without the firewall's options."""
    for zone in FORBIDDEN:
        before = place.packets(zone)
        free = place.agent("curl -sS https://$HOST/hello", f"free.{zone}", "docker run")
        assert free.expect().out == "hello\n"
        assert place.packets(zone) > before


def test_git_over_ssh_to_two_hosts(place: Site) -> None:
    """Both clones reach their own host at the same time; host keys and contents are not mixed up."""
    clone = "git clone -q git@{0}.$HOST:greeting.git /tmp/{0} &"
    script = f"{clone.format('one')} {clone.format('two')} wait; cat /tmp/one/greeting /tmp/two/greeting"
    assert place.agent(script, WORKS).expect().out == "hello from one\nhello from two\n"


def test_every_version_of_tls(place: Site) -> None:
    """The firewall accepts any TLS version that client and server agree on, from 1.0 on."""
    versions = ("1.0", "1.1", "1.2", "1.3")
    script = "".join(
        f"curl -sS --tlsv{each} --tls-max {each} --ciphers ALL:@SECLEVEL=0 https://$HOST/hello;"
        for each in versions
    )
    assert place.agent(script, f"tls.{WORKS}").expect().out == "hello\n" * len(versions)
    agreed = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
    until(lambda: tuple(each["tls"] for each in place.requests(f"tls.{WORKS}")) == agreed)


def test_http_2(place: Site) -> None:
    """With TLS, curl and the server negotiate it; without TLS, curl has to know it before."""
    script = "curl -sS --http2 https://$HOST/hello; curl -sS --http2-prior-knowledge http://$HOST/hello"
    assert place.agent(script, f"h2.{WORKS}").expect().out == "hello\nhello\n"
    first = until(lambda: place.requests(f"h2.{WORKS}"))[0]
    assert (first["protocol"], first["tls"]) == ("HTTP/2.0", "TLSv1.3")


def test_postgresql_over_tls_alone(place: Site) -> None:
    """With TLS from the first byte, possible since PostgreSQL 17, an https rule is enough."""
    script = (
        "psql -Atc 'select 6*7' \"host=$HOST user=postgres sslnegotiation=direct sslmode=verify-full"
        ' sslrootcert=system"'
    )
    assert place.agent(script, f"direct.{WORKS}").expect().out == "42\n"


def test_a_service_of_the_engines_machine(place: Site) -> None:
    """It is reachable by name on the rule's port; other ports are not, although something listens there."""
    database = "psql -Atc 'select 6*7' \"host=$HOST user=postgres sslmode=require\""
    assert place.agent(database, HOST_NAME).expect().out == "42\n"
    web = f"http://{HOST_NAME}/hello"
    assert place.agent(f"! curl -sS {web}", "unused").expect().err.endswith("Could not connect to server\n")
    assert place.requests(HOST_NAME) == []
    gateway = place.docker.inspect_network(f"{place.firewall.project}-egress")["IPAM"]["Config"][0]["Gateway"]
    resolved = ["curl", "-sS", "--resolve", f"{HOST_NAME}:80:{gateway}", web]
    assert place.engine.run_in_network(resolved).stdout == "hello\n"
    assert len(until(lambda: place.requests(HOST_NAME))) == 1


def test_presets_are_sufficient_and_each_of_their_names_is_used(place: Site, registries: Registries) -> None:
    """With a preset, the real client gets a package, with requests to each of the preset's names."""
    presets = [preset(each) for each in names() if preset(each).proof is Proof.TESTED]
    place.firewall.write(*RULES, presets=[each.name for each in presets])
    place.firewall.call("reload").expect()
    with ThreadPoolExecutor(3) as pool:
        runs = dict(zip(registries.jobs, pool.map(place.do, registries.jobs.values()), strict=True))
    assert sorted(runs) == [each.name for each in presets]
    assert {name: run.out + run.err for name, run in runs.items() if run.out.splitlines()[-1:] != [HELLO]} == {}
    asked = {rule.destination.name for each in presets for rule in each.rules}
    until(lambda: all(map(place.requests, asked)))


def test_what_clients_wanted_is_suggested_and_enough(
    around: Surroundings, registries: Registries, tmp_path: Path
) -> None:
    """pip, npm and git work while all is observed, and afterwards with what was suggested."""

    def work(there: Site) -> list[str]:
        clone = "git clone -q https://$HOST/git/www.git /tmp/work; cat /tmp/work/greeting"
        done = [there.do(registries.jobs[name]) for name in ("pip", "npm")]
        return [run.out.splitlines()[-1] for run in (*done, there.agent(clone, f"clone.{WORKS}")) if run.out]

    with site(around, tmp_path, ()) as observed:
        assert work(observed) == []
        observed.firewall.call("rules", "observe", "30m").expect()
        assert work(observed) == [HELLO, HELLO, "hello from www"]
        observed.firewall.call("rules", "observe", "--stop").expect()
        assert work(observed) == []
        suggested = observed.firewall.call("rules", "suggest", "--format", "json").expect().json
        assert sorted(each["name"] for each in suggested["presets"]) == ["npm", "pip"]
        assert [each["fields"]["dst"] for each in suggested["rules"]] == [f"clone.{WORKS}"]
        observed.firewall.call("rules", "suggest", "--write").expect()
        assert work(observed) == [HELLO, HELLO, "hello from www"]
        before = observed.packets(REFUSED)
        assert observed.agent("curl -sS https://$HOST/hello", f"curl.{REFUSED}").code != 0
        assert observed.packets(REFUSED) == before
