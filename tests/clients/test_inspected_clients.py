"""Real clients through inspected TLS, with only the options of `agent flags`, and without credentials."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from devkit.clients.image import INSPECTED, KEYED, REGISTRIES, TOKEN
from devkit.clients.registries import Registries
from devkit.clients.site import Site, Surroundings, site
from devkit.programs import machine
from devkit.waiting import until
from tests.clients.test_clients import AGENT_RUN, APT

SHARERS = 100  # as in `test_clients.py`

STRANGER = "docker run --network $NETWORK --dns $DNS"
"""Starts a container on the agent network without the root certificates for agents."""


@dataclass(frozen=True)
class Client:
    """A client with its own host, whose allowed requests all get the secret.

    `script` does with `$HOST` what `paths` allow, and its output ends with `done`. `refused` requests the path
    `target`, which no rule allows, and its output contains `told`.
    """

    name: str
    script: str
    paths: tuple[Mapping[str, Any], ...]
    refused: str
    target: str
    told: str
    done: str = "hello"
    further: Mapping[str, Any] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"{self.name.lower().replace(' ', '-').replace('.', 'dot')}.{KEYED}"

    @property
    def rule(self) -> Mapping[str, Any]:
        return {"dst": self.host, "path_rules": list(self.paths), "inject": "token", **self.further}


FETCH = "const answer = await fetch(Deno.args[0]); console.log((await answer.text()).trim())"
DENO = f"deno eval --quiet '{FETCH}; Deno.exit(answer.ok ? 0 : 1)' https://$HOST"
DOTNET = "/srv/dotnet/dotnet /srv/fetch.dll https://$HOST"
SKOPEO = "skopeo --insecure-policy"
PULL = f"""{SKOPEO} copy -q docker://$HOST/acme/greeting:1 dir:/tmp/pulled
for file in /tmp/pulled/*; do tar -xzOf $file greeting 2>/dev/null || true; done"""
INDEX = "--retries 0 --index-url https://$HOST/pypi/simple/"
REGISTRY = "--fetch-retries 0 --registry https://$HOST/npm/"
SOCKET = "node --experimental-websocket /srv/echo.mjs wss://$HOST"

HELLO = ({"path": "/hello", "methods": ["GET"]},)
TOLD = "a rule allows this host, but not this path with this method"

CLIENTS = (
    Client(
        "gh",
        "GH_HOST=$HOST gh api repos/acme/widgets --jq .description",
        ({"path": "/api/v3/repos/acme/widgets", "methods": ["GET"]},),
        "GH_HOST=$HOST gh api repos/acme/other",
        "/api/v3/repos/acme/other",
        "HTTP 403",
    ),
    Client(
        "skopeo",
        PULL,
        ({"path": "~/v2/"}, {"path": "/v2/acme/greeting", "methods": ["GET", "HEAD"]}),
        f"{SKOPEO} inspect docker://$HOST/acme/other:1",
        "/v2/acme/other/manifests/1",
        "403",
    ),
    Client("Deno", f"{DENO}/hello", HELLO, f"{DENO}/private", "/private", TOLD),
    Client(".NET", f"{DOTNET}/hello", HELLO, f"{DOTNET}/private", "/private", TOLD, done="200 hello"),
    Client(
        "pip",
        f"pip install -q --target /tmp/p {INDEX} greeting; python3 /tmp/p/greeting.py",
        ({"path": "/pypi/simple/greeting", "methods": ["GET"]},),
        f"pip download -q {INDEX} other",
        "/pypi/simple/other/",
        "No matching distribution found",
    ),
    Client(
        "npm",
        f"cd /tmp; npm install {REGISTRY} greeting; node -e 'require(\"greeting\")'",
        ({"path": "/npm/greeting"}, {"path": "/npm/greeting-1.0.0.tgz"}),
        f"npm view other {REGISTRY}",
        "/npm/other",
        "E403",
    ),
    Client(
        "curl",
        "curl -sSN https://$HOST/events | grep .",
        ({"path": "/events", "methods": ["GET"]},),
        "curl -sS --fail-with-body https://$HOST/private",
        "/private",
        TOLD,
        done="data: 3",
    ),
    Client(
        "WebSocket of Node",
        f"{SOCKET}/echo",
        ({"path": "/echo"},),
        f"{SOCKET}/private",
        "/private",
        "non-101 status code",
        further={"websocket": True},
    ),
    Client(
        "gRPC",
        "python3 /srv/calls.py $HOST Greet",
        ({"path": "/greeting.Greeter/Greet", "methods": ["POST"]},),
        "python3 /srv/calls.py $HOST Other",
        "/greeting.Greeter/Other",
        "PERMISSION_DENIED",
        done="end",
    ),
)

BLOBS, CODE, LARGE = f"blobs.{INSPECTED}", f"git.{INSPECTED}", f"large.{INSPECTED}"
KEYED_CODE = f"git.{KEYED}"
PINNED, WHOLE, TRUSTED = (f"{name}.{INSPECTED}" for name in ("pinned", "whole", "trusted"))

REPOSITORIES = {"git": {"acme/site": "write", "acme/widgets": "read"}}
RULES: tuple[Mapping[str, Any], ...] = (
    *(client.rule for client in CLIENTS),
    {"dst": BLOBS, "path_rules": [{"path": "/docker/registry/v2/blobs", "methods": ["GET", "HEAD"]}]},
    {"dst": KEYED_CODE, **REPOSITORIES, "lfs": True, "inject": "token"},
    {"dst": CODE, **REPOSITORIES, "lfs": True},
    {"dst": LARGE, "path_rules": [{"path": "/acme/site.git/info/lfs/objects"}]},
    {"dst": PINNED, "path_rules": list(HELLO)},
    {"dst": WHOLE, "inspect": False},
    *({"dst": each, "inspect": True} for each in (TRUSTED, *REGISTRIES)),
)

READ = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode().strip())"
NODE = "fetch(process.argv[1]).then(answer => answer.text()).then(text => console.log(text.trim()))"
OPENSSL = "openssl s_client -verify_return_error -brief -connect $HOST:443 </dev/null 2>&1"
TRUSTING = {
    "wget": "wget -nv -O - https://$HOST/hello",
    "git": "git clone -q https://$HOST/git/www.git /tmp/work; echo hello",
    "Python": f"python3 -c '{READ}' https://$HOST/hello",
    "Node": f"node -e '{NODE}' https://$HOST/hello",
    "Java": "java -cp /srv Fetch https://$HOST/hello",
    "Go": "/srv/fetch-go https://$HOST/hello",
    "apt": APT.format("https"),
    "OpenSSL": f"{OPENSSL} | grep 'Verification: OK'; echo hello",
}
"""More clients that find the root through the agents' options. The last output of each ends with `hello`."""


@pytest.fixture(scope="module")
def place(around: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A stack with these rules, and the servers around it."""
    keyed = [*(each.host for each in CLIENTS), KEYED_CODE]
    with site(around, tmp_path_factory.mktemp("site"), RULES, keyed=keyed) as made:
        yield made


@pytest.fixture(scope="module")
def stranger(place: Site) -> str:
    """The start of a container that does not trust the root."""
    how = place.firewall.status()["agent"]
    return STRANGER.replace("$NETWORK", how["network"]).replace("$DNS", how["dns"])


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_client(place: Site, stranger: str, client: Client) -> None:
    """It works without its own credential, only for allowed paths, and only if it trusts the root."""
    if client.name == ".NET" and machine() != "amd64":
        pytest.skip("NOT TESTED: no package has .NET for this architecture")
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(place.agent, client.refused, client.host)
        untrusting = pool.submit(place.agent, client.script, client.host, stranger)
    assert other.result().code != 0
    assert client.told in other.result().out + other.result().err
    assert untrusting.result().code != 0, untrusting.result().out
    assert place.agent(client.script, client.host).expect().out.splitlines()[-1] == client.done
    reached = until(lambda: place.requests(client.host))
    assert {each["authorization"] for each in reached} == {f"Bearer {TOKEN}"}
    assert client.target not in {each["path"] for each in reached}


def test_without_the_firewall_it_would_arrive(place: Site) -> None:
    """The refused request would reach the same server."""
    host = f"free.{INSPECTED}"
    script = "\n".join(f"curl -sS -o /dev/null https://$HOST{client.target}" for client in CLIENTS)
    place.agent(script, host, "docker run").expect()
    arrived = until(lambda: [each["path"] for each in place.requests(host)][len(CLIENTS) - 1 :])
    assert arrived
    assert {each["path"] for each in place.requests(host)} == {client.target for client in CLIENTS}


def test_the_credential_of_a_registry_goes_nowhere_else(place: Site) -> None:
    """The registry refers to another host for image contents, which has its own rule and gets no credential."""
    place.agent(PULL, f"skopeo.{KEYED}").expect()
    reached = until(lambda: place.requests(BLOBS))
    assert {(each["status"], each["authorization"]) for each in reached} == {(200, "")}


@pytest.mark.parametrize("client", TRUSTING)
def test_a_client_trusts_what_agents_are_given(place: Site, stranger: str, client: str) -> None:
    """It trusts the root, with `agent run` also the image's CAs; without the agents' options, it fails."""
    script = TRUSTING[client]
    with ThreadPoolExecutor(3) as pool:
        inspected = pool.submit(place.agent, script, TRUSTED)
        not_inspected = pool.submit(place.agent, script, WHOLE, AGENT_RUN)
        untrusting = pool.submit(place.agent, script, TRUSTED, stranger)
    for each in (inspected, not_inspected):
        assert each.result().expect().out.splitlines()[-1].endswith("hello")
    assert untrusting.result().code != 0, untrusting.result().out


def test_package_managers_trust_what_agents_are_given(place: Site, registries: Registries) -> None:
    """Each gets its packages from an inspected registry. Debian's and Ubuntu's use no TLS."""
    jobs = {name: job for name, job in registries.jobs.items() if not name.startswith("apt")}
    with ThreadPoolExecutor(3) as pool:
        runs = dict(zip(jobs, pool.map(place.do, jobs.values()), strict=True))
    assert {name: run.out + run.err for name, run in runs.items() if run.out.splitlines()[-1:] != ["hello"]} == {}


PUSH = """git config --global user.name agent; git config --global user.email agent@example.com
git clone -q {0} /tmp/work; cd /tmp/work
git lfs track '*.bin' >/dev/null
head -c 3000000 /dev/urandom >large.bin
git add .; git commit -qm large; git push -q origin main
"""
CLONE = """git clone -q {0} /tmp/again; cd /tmp/again; git lfs fetch --all >/dev/null 2>&1; git lfs fsck >/dev/null
sha256sum </tmp/again/large.bin
"""
SAME = "cmp /tmp/work/large.bin /tmp/again/large.bin"
SITE, WIDGETS = (f"https://$HOST/acme/{name}.git" for name in ("site", "widgets"))


@pytest.fixture(scope="module")
def kept(place: Site) -> str:
    """Push a large file to the repository that agents may only read, and return its digest."""
    script = PUSH.format(WIDGETS) + CLONE.format(WIDGETS) + SAME
    pushed = place.agent(script, f"free.{INSPECTED}", "docker run").expect()
    return pushed.out.splitlines()[-1]


def large(place: Site, host: str, method: str = "") -> list[Mapping[str, Any]]:
    """Return the requests for large files that reached a host."""
    return [
        each
        for each in place.requests(host)
        if "/info/lfs/" in each["path"] and (not method or each["method"] == method)
    ]


def test_large_files_of_git_with_a_secret(place: Site, kept: str) -> None:
    """Git LFS pushes and fetches with write access, and only fetches with read access."""
    place.agent(PUSH.format(SITE) + CLONE.format(SITE) + SAME, KEYED_CODE).expect()
    assert place.agent(CLONE.format(WIDGETS), KEYED_CODE).expect().out.splitlines()[-1] == kept
    assert until(lambda: large(place, KEYED_CODE, "PUT"))
    got = until(lambda: [each for each in large(place, KEYED_CODE, "GET") if "/widgets.git/" in each["path"]])
    assert {each["status"] for each in got} == {200}
    (credential,) = {each["authorization"] for each in place.requests(KEYED_CODE)}
    assert credential.startswith("Basic ")
    pushed = place.agent(PUSH.format(WIDGETS), KEYED_CODE)
    assert pushed.code != 0
    assert "remote: clawker-fw: acme/widgets may be fetched, not pushed to" in pushed.err


def test_large_files_of_git_at_another_host(place: Site) -> None:
    """A host may refer to another one for large files; the credential it issues for that passes."""
    place.agent(PUSH.format(SITE) + CLONE.format(SITE) + SAME, CODE).expect()
    until(lambda: large(place, LARGE, "GET"))
    reached = large(place, LARGE)
    assert {each["status"] for each in reached} == {200}
    assert {each["authorization"][:9] for each in reached if each["method"] != "GET"} == {"Bearer ey"}
    assert {each["method"] for each in large(place, CODE)} == {"POST"}
    assert TOKEN not in json.dumps(place.requests(CODE) + reached)


PIN = """key=$(openssl pkey -in /srv/tls/key.pem -pubout -outform DER | openssl dgst -sha256 -binary | base64)
curl -sS --cacert /usr/local/share/ca-certificates/test.crt --pinnedpubkey "sha256//$key" https://$HOST/hello"""
"""A client with its own CA that pins the host's key."""


def test_a_client_that_pins_a_key(place: Site) -> None:
    """It refuses Envoy's certificate, which is on record, and works with a rule without inspection."""
    refused = place.agent(PIN, PINNED)
    assert refused.code != 0
    assert "curl: (60) SSL certificate problem" in refused.err
    assert place.agent(PIN, WHOLE).expect().out == "hello\n"
    assert place.agent("curl -sS https://$HOST/hello", PINNED).expect().out == "hello\n"
    assert len(until(lambda: place.requests(PINNED))) == 1
    (denied,) = until(lambda: not_trusted(place, PINNED))
    assert "`inspect: false`" in denied["remedy"]["text"]


def not_trusted(place: Site, host: str) -> list[Mapping[str, Any]]:
    """Return the records of clients that refused the certificate for a host."""
    said = place.firewall.call("denials", "--reason", "not-trusted", "--format", "json").expect().json
    return [each for each in said["denials"] if each["name"] == host]
