"""Secrets in requests with the real Envoy and signer: which requests to the host get them."""

import json
import re
import secrets
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.envoy import injected
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import shipped_clusters
from devkit.inspecting import PORT, TABLE, Host, Injecting, certificate
from devkit.programs import OWN_LOOPBACK
from devkit.stacks import rule_set
from devkit.waiting import until
from devkit.whereabouts import header_forms

TOKEN = f"hidden-{secrets.token_hex(8)}"
REPOSITORIES = {"o/r": "read", "refused/r": "read"}
RULES: tuple[dict[str, Any], ...] = (
    {"dst": "a.test", "path_rules": [{"path": "/v1", "methods": ["GET", "POST"]}], "inject": "api"},
    {"dst": "b.test", "proto": "wss", "path_rules": [{"path": "/v1"}], "inject": "key"},
    {"dst": "git.test", "git": REPOSITORIES, "path_rules": [{"path": "/api"}], "inject": "github"},
    {"dst": "plain.test", "path_rules": [{"path": "/v1"}]},
    {"dst": "other.test", "path_rules": [{"path": "/v1"}], "inject": "api"},
)
HEADERS = {"key": "x-api-key"}
GIVEN = {
    "api#bearer": f"Bearer {TOKEN}",
    "key#raw": TOKEN,
    "github#basic": f"Basic {TOKEN}",
}
CHANGING = {"/quitquitquit", "/drain_listeners", "/healthcheck/fail", "/healthcheck/ok", "/reset_counters", "/tap"}
"""Pages of the admin interface that change something; `/tap` never ends."""

REFS = "/o/r.git/info/refs?service=git-upload-pack"


def rules(*entries: dict[str, Any]) -> RuleSet:
    return rule_set(*({"port": PORT, **each} for each in entries))[1]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The host behind all names. It has no certificate for `other.test`."""
    names = [each["dst"] for each in RULES if each["dst"] != "other.test"]
    with Host(tmp_path_factory.mktemp("host") / "tls", *names) as started:
        yield started


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release, host: Host) -> Iterator[Injecting]:
    """The proxy, for all tests of this module."""
    folder = tmp_path_factory.mktemp("injecting")
    own = certificate(folder / "own", *(each["dst"] for each in RULES))
    with (
        NameServer([each["dst"] for each in RULES], OWN_LOOPBACK) as names,
        Injecting(folder, release, names.port, own, host.certificate, first=rules(*RULES), **HEADERS) as started,
    ):
        yield started


@pytest.fixture
def serving(proxy: Injecting, host: Host) -> Injecting:
    """The proxy with all rules and all secrets."""
    proxy.give(GIVEN)
    proxy.obey(rules(*RULES))
    until(lambda: answers(proxy, "a.test") == 200)
    host.reached.clear()
    return proxy


def answers(proxy: Injecting, name: str) -> int:
    """Return the status of an allowed request, or 0 while nothing listens."""
    with suppress(ConnectionError):
        return proxy.ask("GET", "/v1/ready", name)[0]
    return 0


def test_each_secret_is_in_its_header(serving: Injecting, host: Host) -> None:
    """The secret replaces the agent's own header, once, and appears only where a rule says so."""
    for name, target, header, value in (
        ("a.test", "/v1/x", "authorization", GIVEN["api#bearer"]),
        ("b.test", "/v1/x", "x-api-key", TOKEN),
        ("git.test", REFS, "authorization", GIVEN["github#basic"]),
        ("git.test", "/api", "authorization", GIVEN["github#basic"]),
    ):
        assert serving.ask("GET", target, name)[0] == 200
        assert host.reached.pop().headers[header] == value
    upgrade = ("Connection: Upgrade", "Upgrade: websocket")
    assert serving.ask("GET", "/v1/x", "b.test", PORT, *upgrade)[0] == 101
    assert host.reached.pop().headers["x-api-key"] == TOKEN
    own = ("Authorization: mine", "authorization: mine too", "X-API-Key: mine")
    assert serving.ask("GET", "/v1/x", "a.test", PORT, *own, "Connection: authorization")[0] == 200
    assert host.reached.pop().headers["authorization"] == GIVEN["api#bearer"]
    assert serving.ask("GET", "/v1/x", "plain.test")[0] == 200
    assert TOKEN not in str(host.reached.pop().headers)


def test_it_goes_nowhere_else(serving: Injecting, host: Host) -> None:
    """No other path, method or host gets it, and no host without a certificate for its name."""
    for method, target, name, status in (
        ("GET", "/v2", "a.test", 403),
        ("DELETE", "/v1/x", "a.test", 403),
        ("TRACE", "/v1/x", "a.test", 403),
        ("GET", "/o/r.git/info/refs?service=git-receive-pack", "git.test", 403),
        ("GET", "/o/x.git/info/refs?service=git-upload-pack", "git.test", 403),
        ("GET", "/v1/x", "other.test", 503),
    ):
        assert serving.ask(method, target, name)[0] == status, (method, target, name)
    assert host.reached == []
    request = b"GET /v1/x HTTP/1.1\r\nHost: b.test\r\n\r\n"
    assert serving.raw(request, "a.test")[0] == 421
    assert host.reached == []
    assert answers(serving, "a.test") == 200


def test_without_its_secret_a_request_goes_nowhere(serving: Injecting, host: Host) -> None:
    """Without its secret, a rule answers 503 at once with an explanation; all others go on."""
    for given in ({}, {name: value for name, value in GIVEN.items() if name != "api#bearer"}):
        serving.give(given)
        until(lambda: answers(serving, "a.test") == 503)
        host.reached.clear()
        words = b"clawker-fw: a rule allows this request, but the secret for it is not there\n"
        assert serving.ask("POST", "/v1/x", "a.test") == (503, words)
        assert host.reached == []
    until(lambda: answers(serving, "b.test") == 200)
    assert answers(serving, "plain.test") == 200
    serving.give(GIVEN)
    until(lambda: answers(serving, "a.test") == 200)
    assert host.reached.pop().headers["authorization"] == GIVEN["api#bearer"]


def test_a_secret_changes_under_load(serving: Injecting, host: Host) -> None:
    """Every request has the old or the new secret, none fails, and the new one is used soon."""
    for number in range(8):
        value = f"Bearer {TOKEN}-{number}"
        serving.give({**GIVEN, "api#bearer": value})

        def arrived(value: str = value) -> bool:
            assert answers(serving, "a.test") == 200
            return host.reached[-1].headers["authorization"] == value

        until(arrived, 10)  # left to Envoy, it would wait for the secret for 15 s
    found = [each.headers["authorization"] for each in host.reached]
    assert set(found) <= {GIVEN["api#bearer"], *(f"Bearer {TOKEN}-{number}" for number in range(8))}


def test_a_silent_signer_delays_no_rule(serving: Injecting, host: Host) -> None:
    """A removed rule is gone at once, although another rule's secret is pending."""
    serving.signer.stop()
    try:
        fresh = {"dst": "fresh.test", "path_rules": [{"path": "/v1"}], "inject": "never"}
        kept = [each for each in (*RULES, fresh) if each["dst"] != "plain.test"]
        serving.obey(rules(*kept), 10)  # left to Envoy, it would wait for the secret for 15 s
        host.reached.clear()
        with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
            serving.ask("GET", "/v1/x", "plain.test")
        assert host.reached == []
        assert answers(serving, "a.test") == 200
    finally:
        serving.signer.go_on()


def test_a_secret_that_is_not_accepted(serving: Injecting) -> None:
    """An API's answer passes; git gets an explanation, because it would ask for a password. All is on record."""
    serving.give({name: value for name, value in GIVEN.items() if name != "key#raw"})
    until(lambda: answers(serving, "b.test") == 503)
    serving.records()
    assert answers(serving, "b.test") == 503
    assert serving.ask("GET", "/v1/refused", "a.test")[0] == 401
    assert serving.ask("GET", "/api/refused", "git.test")[0] == 401
    assert serving.ask("GET", "/v1/refused", "plain.test")[0] == 401
    status, body = serving.ask("GET", "/refused/r.git/info/refs?service=git-upload-pack", "git.test")
    assert (status, body) == (502, b"clawker-fw: the host does not accept the secret github\n")
    assert serving.ask("GET", "/v2", "a.test")[0] == 403
    records: list[dict[str, Any]] = []

    def all_written() -> bool:
        records.extend(serving.records())
        return any(each.get("path") == "/v2" for each in records)

    until(all_written)
    requests = [each for each in records if "path" in each]  # a connection refused in an earlier test has none
    assert {(each["reason"], each["name"].partition(":")[0], each["path"]) for each in requests} == {
        ("no-secret", "b.test", "/v1/ready"),
        ("secret-refused", "a.test", "/v1/refused"),
        ("secret-refused", "git.test", "/api/refused"),
        ("secret-refused", "git.test", "/refused/r.git/info/refs"),
        ("path", "a.test", "/v2"),
    }


def test_every_cluster_of_a_route_injects(serving: Injecting) -> None:
    """Envoy silently omits a secret if the cluster has no filter for it."""
    able = {
        each["name"]
        for each in shipped_clusters("https-rules")
        for options in each["typed_extension_protocol_options"].values()
        if [filter_["name"] for filter_ in options.get("http_filters", ())][:1] == [injected.FILTER]
    }
    table = json.loads((serving.folder / "hot" / TABLE).read_text())["resources"][0]
    forwarding = [
        route["route"]
        for virtual in table["virtual_hosts"]
        for route in virtual["routes"]
        if injected.FILTER in route.get("typed_per_filter_config", {})
    ]
    assert len(forwarding) > 8
    choosing = {each["extension"]["name"]: json.dumps(each) for each in table["cluster_specifier_plugins"]}
    said = [choosing.get(str(each.get("cluster_specifier_plugin")), json.dumps(each)) for each in forwarding]
    chosen = {name for each in said for name in re.findall('"cluster": "([^"]*)"', each)}
    assert chosen - able == {"no WebSockets"}  # which is nowhere
    assert len(chosen) == 3


def test_envoy_gives_back_exactly_the_routes_that_it_was_given(serving: Injecting) -> None:
    """Routes are in canonical form, even if an agent's own header stays; else the stack would never be current."""
    assert serving.given_and_loaded(TABLE, "dynamic_route_configs", "route_config")


def test_nothing_that_envoy_shows_has_it(serving: Injecting) -> None:
    """Envoy's pages, its log at the finest level, and its files have no secret."""
    serving.admin("/logging?level=trace", "POST")
    try:
        assert answers(serving, "a.test") == 200
    finally:
        serving.admin("/logging?level=error", "POST")
    listed = [line.split()[0] for line in serving.admin("/help").decode().splitlines() if line.startswith("  /")]
    pages = [
        *(each.rstrip(":") for each in listed),
        "/config_dump?include_eds",
        "/stats?format=json",
        *(f"/config_dump?resource=dynamic_{each}" for each in ("listeners", "route_configs", "warming_secrets")),
    ]
    pages = [each for each in pages if each not in CHANGING]
    assert {"/config_dump", "/certs", "/stats/prometheus", "/init_dump", "/memory"} <= {*pages}
    dumped = serving.admin("/config_dump?resource=dynamic_active_secrets")
    assert b"secret:api#bearer" in dumped
    assert b"/v1/ready" in serving.log.read_bytes()
    for content in (
        dumped,
        *map(serving.admin, pages),
        *(each.read_bytes() for each in serving.folder.rglob("*") if each.is_file()),
    ):
        assert not any(form.encode() in content for form in header_forms(TOKEN))
