"""Inspected TLS in the real Envoy: its decisions compared with the policy's, and what reaches a host."""

import random
import secrets
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.rules.reasons import Reason
from clawker_fw.settings.values import LimitSettings
from clawker_fw.stack.envoy import bounds
from clawker_fw.stack.envoy.sibling import DRAIN_SECONDS
from clawker_fw.stack.envoy.tls_interception import HEADERS_REMOVED, PREFIXES_REMOVED, SECOND_PATHS
from clawker_fw.stack.release import Release
from devkit import requests
from devkit.dns import NameServer
from devkit.envoy import HERE, WRITTEN_WITHIN, program
from devkit.inspecting import PORT, SECOND_PORT, Host, Inspecting, certificate
from devkit.programs import OWN_LOOPBACK
from devkit.requests import random_asked, random_entries
from devkit.waiting import until
from tests.programs import judging

PORTS = (PORT, SECOND_PORT)
NAMES = (*requests.NAMES, "other.test", "unverified.test")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The host behind all names. It has no certificate for `other.test` or `unverified.test`."""
    with Host(tmp_path_factory.mktemp("host") / "tls", *requests.NAMES, ports=PORTS) as started:
        yield started


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release, host: Host) -> Iterator[Inspecting]:
    """The proxy, for all tests of this module."""
    folder = tmp_path_factory.mktemp("inspecting")
    own = certificate(folder / "own", "*.test", "*.w.test")
    with (
        NameServer(NAMES, OWN_LOOPBACK) as names,
        Inspecting(folder, program(release), names.port, own, host.certificate) as started,
    ):
        yield started


def served(proxy: Inspecting, *entries: dict[str, Any]) -> None:
    proxy.apply(*({"port": PORT, **each} for each in entries))


SEEDS, REQUESTS = 4, 400
"""Seeds, and requests for each; `--thorough 50` makes 20,000 of them."""

_WITH_THE_SAME_RULES = 40
"""Few, so that some random rules of a seed inspect TLS, and allow something."""


@pytest.mark.parametrize("number", range(SEEDS))
def test_envoy_judges_requests_as_the_policy_does(
    proxy: Inspecting, host: Host, number: int, pytestconfig: pytest.Config
) -> None:
    """For random rules and requests: allowed ones reach the host, in the form that was checked."""
    seed = secrets.randbits(32)
    chosen = random.Random(seed)  # noqa: S311 - for variety
    answers: Counter[str] = Counter()
    for _ in range(REQUESTS * pytestconfig.getoption("--thorough") // _WITH_THE_SAME_RULES):
        entries = random_entries(chosen, PORTS)
        tried = [random_asked(chosen, entries, PORTS) for _ in range(_WITH_THE_SAME_RULES)]
        policy = judging.served(proxy, entries)
        if wrong := judging.differing(proxy, host, policy, tried):
            found = f"{wrong[0]}: {judging.outcome(proxy, host, wrong[0])!r}"
            right = f"instead of {sorted(judging.expected(policy, wrong[0]))}"
            pytest.fail(f"{found} {right}, with the rules {entries}; run {number}, seed {seed}")
        answers.update(word for each in tried for word in judging.expected(policy, each))
    not_passed = (judging.REFUSED, judging.UNREAD, judging.ENDED, "400", "403")
    passed = sum(answers.values()) - sum(answers[each] for each in not_passed)
    assert min(passed, answers["400"], answers["403"]) > 0, answers


V1 = {
    "dst": "a.test",
    "path_rules": [
        {"path": "/v1", "methods": ["GET", "POST"]},
        {"path": "/v1/private", "action": "deny"},
        {"path": "~/v[23]/[^/]+", "methods": ["GET"]},
    ],
}
LENIENT = {"dst": ".w.test", "path_rules": [{"path": "/v1"}, {"path": "/api/v4"}]}

REFUSED = (
    *("/v1x", "/v1-evil", "/V1/x", "/v1/private", "/v1/private/x", "/v1/x/../private", "/v1/./private"),
    *("/v1//private", "//v1/private", "/v1/%70rivate", "/v1/x/%2e%2e/private", "/v1/x/.%2e/private"),
    *("/v1/x%2f..%2fprivate", "/v1%2fprivate", "/v1/x/..%2fprivate", "/v1/x/%252e%252e/private"),
    *("/v1/%2570rivate", "/v1/x\\..\\private", "/v1/x%5c..%5cprivate", "/v1/private;x=1", "/v1;x/private"),
    *("/v1/%2fprivate", "/v1/;x/private/y", "/v1/;%2Fprivate%2Fy", "/v1/x/..%3f", "/v1./private"),
    *("/v1/private%3bx", "/v1/private%00", "/v1/private\x00", "/v1/private\xe9", "/v1/private%20", "/v1/private."),
    *("/v1/private..", "/v1/private/.", "/v1/private/", "/v1/private#f", "/v1/private%23", "/v1/private?x"),
    *("/v1/private%3f", "/../v1/private", "/..", "/v4", "/", "*", "v1/x", "http://a.test/v1/private"),
    *("https://x.w.test/v1/x", "/v1/x%c0%ae%c0%ae/private", "/v1/..;/private", "/v1/.%3b/x", "/v1/%2e/private"),
    *("/v1/%2%61", "/v1/%%32%66..%2fprivate", "/v1/x%2f%2e%2e%2fprivate", "/v1/x/..%5cprivate"),
    *("/v1/x%0d%0aHost:%20y", "/v1/\xef\xbc\x8fprivate", "/v1/x\ty", "/v2/x/y", "/v2/x/../../v1/private"),
    *("/v1/%zz", "/v1/%u0070rivate", "/v1/x%", "/v1/x%7", "/v1/x/%20../private", "/v1/x/.%20./private"),
    *("/v1/%e0%80%afprivate", "/v1/private::$DATA", "/v1/private%09", "/v2/x%2Fy", "\\v1\\private"),
)
"""Spellings of refused paths, for a host with a denied path."""

PASSED = {
    "/v1": "/v1",
    "/v1/": "/v1/",
    "/v1/x?q=%2e%2e/;c": "/v1/x?q=%2e%2e/;c",
    "/v1/privatex": "/v1/privatex",
    "/v1/%50rivate": "/v1/Private",
    "/v1/caf%C3%A9": "/v1/caf%C3%A9",
    "/v1/a%20b": "/v1/a%20b",
    "/v1/a+b": "/v1/a+b",
    "/v1/a@1.0/b": "/v1/a@1.0/b",
    "/v1/@scope%2fpkg": "/v1/@scope%2fpkg",
    "/v1/privatex;y": "/v1/privatex;y",
    "/v1/x%2Fprivate": "/v1/x%2Fprivate",
    "/v1/x.": "/v1/x.",
    "/v1/a%3Fb%23": "/v1/a%3Fb%23",
    "/v1/.hidden": "/v1/.hidden",
    "/v1/x//y": "/v1/x/y",
    "/v1/x/..;%00": "/v1/",
    "http://a.test/v1/x": "/v1/x",
    "/v2/x": "/v2/x",
    f"/v1/{'a' * 20_000}": f"/v1/{'a' * 20_000}",
}
"""Allowed paths on that host, and their form at the host."""


def test_no_spelling_reaches_what_is_refused(proxy: Inspecting, host: Host) -> None:
    """No refused request reaches the host, however its path is written."""
    served(proxy, V1, LENIENT)
    host.reached.clear()
    for target in REFUSED:
        status, _ = proxy.ask("GET", target, "a.test")
        assert status in {0, 400, 403, 404, 421}, target
        assert host.reached == [], target
    for method in ("DELETE", "HEAD", "get", "Get", "TRACE", "trace", "Track", "connect", "PROPFIND", "GET."):
        assert proxy.ask(method, "/v1/x", "a.test")[0] in {400, 403}, method
    for target in ("/v1%2f..%2fadmin", "/v1/x/..%2f..%2fadmin", "/v1/%252e%252e/x", "/v1/x%5c.."):
        assert proxy.ask("GET", target, "x.w.test")[0] == 400, target
    assert host.reached == []


def test_what_is_usual_passes(proxy: Inspecting, host: Host) -> None:
    """Paths of package registries and repositories reach the host as they were matched."""
    served(proxy, V1)
    for target, reached in PASSED.items():
        host.reached.clear()
        assert proxy.ask("GET", target, "a.test")[0] == 200, target
        assert [each.target for each in host.reached] == [reached]


HOSTS = {
    "Host: A.Test": 200,
    "Host: a.test.": 200,
    f"Host: a.test:{PORT}": 200,
    "Host: a.test:22": 200,
    "Host: x.w.test": 421,
    "Host: user@a.test": 421,
    "Host: a.test\r\nHost: x.w.test": 421,
    "X: no host": 400,
    "Host: other.test": 421,
    "Host: a.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 4": 400,
}


def test_a_request_names_the_host_of_its_connection(proxy: Inspecting, host: Host) -> None:
    """With another Host header, an agent would use an allowed connection for a forbidden host."""
    served(proxy, V1, LENIENT)
    for head, status in HOSTS.items():
        host.reached.clear()
        found, text = proxy.raw(f"GET /v1/x HTTP/1.1\r\n{head}\r\n\r\n".encode(), "a.test")
        assert found == status, head
        reached = [each.headers["host"].lower() for each in host.reached]
        assert reached == [f"a.test:{PORT}"] * (status == 200), head
        assert (b"names another host" in text) == (status == 421), head
    assert _curl(proxy, "/v1/x", "Host: x.w.test") == "2 421"


DENYING = {
    "dst": "a.test",
    "path_default": "allow",
    "path_rules": [
        {"path": "~/d/a:b", "action": "deny"},
        {"path": "~/e/a.b(?:/.*)?", "action": "deny"},
        {"path": "~/f/(?i)[@!]+x?", "action": "deny"},
        {"path": "~/g/caf%C3%A9", "action": "deny"},
        {"path": "~/h/a%3Ab", "action": "deny"},
        {"path": r"~/i/[a-z:\x20]+z", "action": "deny"},
        {"path": "~/j/[^/]{3}", "action": "deny"},
        {"path": r"~/k/\Qa+b\E", "action": "deny"},
        {"path": "~/l/[^x]*:", "action": "deny"},
        {"path": "/m/a+b", "action": "deny"},
    ],
}
_WORDS = ("~/users/[^/]+", "~/one/[^/]", "~/npm/@s%2f[^/]+", r"~/file/[\w.%-]+", "~/all/.*", "~/at/[^@/]{1,9}")
_LONGEST = [
    {"path": "/v1/admin", "methods": ["GET"]},
    {"path": "/v1/@me", "methods": ["GET"]},
    {"path": "/v2/x", "action": "deny", "methods": ["DELETE"]},
]
_OF_LONGEST = (
    """DELETE /v1/admin/x /v1/admin /v1/admin%2fx /v1/admin;x/y /v1%2fadmin /v1/%40me /v1/%40me/x /v1/admin.
    DELETE /v1/x/../admin /v2/x
    delete /v2/x
    Delete /v2/x/y
    DeLETE /v2/%78
    get /v1/admin
    POST /v1//admin/x
    HEAD /v1/@me""",
    """GET /v1/admin /v1/admin/x /v1/@me /v1/%40me /v2/x
    DELETE /v1/adminx /v2/y /v1/x
    delete /v1/x""",
)

SPELLINGS: Mapping[str, tuple[Mapping[str, Any], str, str]] = {
    "a deny by expression": (
        DENYING,
        """GET /d/a:b /d/a%3Ab /d/a%3ab /d/%61%3Ab /d//a:b /d/a:b?x /d/./a%3Ab
        GET /e/a:b /e/a%3Ab /e/a%20b /e/a%C3%A9b /e/a%40b/x /e/a%25b /e/axb
        GET /f/@ /f/%40 /f/!%40 /f/%21@X /g/caf%C3%A9 /g/caf%c3%a9 /g/caf%C3%a9
        GET /h/a%3Ab /h/a%3ab /h/a:b /i/a%20z /i/a%3Az /i/a:%20z /j/a:b /j/a%3Ab /j/%C3%A9%20b
        GET /k/a+b /k/a%2Bb /k/a%2bb /l/a: /l/a%3A /l/%3a /m/a%2bb;x /m%2Fa+b""",
        "GET /d/a:bc /e/ab /f/x /g/cafe /h/ab /i/A /j/abcd /k/aab /l/x: /d/%40 /z/a%2Fb /d;x/b:a",
    ),
    # `[^/]` matches no escaped slash; escapes of what it matches, and escapes that are written out, pass
    "an expression that allows": (
        {"path_rules": [{"path": each} for each in _WORDS]},
        """GET /users/x%2Fy /users/x%2fy /users/%2F /users/x%2 /one/%2F /one/%3A /npm/@s/x /npm/%40s%2fx
        GET /npm/@s%2fx%2fy /file/a%2Fb /file/a%3Ab /at/a%40b /at/aaaaaaaaaa /at/%20%20%20%20""",
        """GET /users/x /users/a%40b /users/a%20b /users/caf%C3%A9 /users/a:b /users/a%3Fb /users/x?y=/
        GET /one/x /npm/@s%2fx /npm/@s%2Fx /file/a%20b /file/a-b.c /all/a%2Fb /all/ /at/a%3Ab /at/a%20b""",
    ),
    "the longest path": ({"path_rules": [{"path": "/v1"}, {"path": "/v2"}, *_LONGEST]}, *_OF_LONGEST),
    "the longest path, and an expression": (
        {"path_rules": [{"path": "~/v[12](?:/.*)?"}, *_LONGEST]},
        *_OF_LONGEST,
    ),
    "the longest path, and a default": ({"path_rules": _LONGEST, "path_default": "allow"}, *_OF_LONGEST),
    "a method of one's own": (
        {"path_rules": [{"path": "/v1", "methods": ["X-OWN", "M-SEARCH"]}]},
        "x-own /v1/x\nX-OTHER /v1/x\nGET /v1/x",
        "X-OWN /v1/x\nM-SEARCH /v1/x",
    ),
    # if a path above a repository is allowed, no spelling of git's own paths in it gets through
    "a push": (
        {"git": {"o/r": "read"}, "path_rules": [{"path": "/o"}]},
        """POST /o/r.git%2fgit-receive-pack /o/r%2Fgit-receive-pack /o/r.git/git-receive-pack;x
        POST /o/r.git;x/git-receive-pack""",
        "GET /o/r/issues /o/r.git;x/a /o/r%2Fissues",
    ),
}
"""Rules, requests that they refuse (a method and paths in each line), and others that pass."""


def _requests(lines: str) -> Iterator[tuple[str, str]]:
    for method, *targets in map(str.split, lines.splitlines()):
        yield from ((method, target) for target in targets)


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_rule_holds_for_every_spelling(proxy: Inspecting, host: Host, name: str) -> None:
    """Different paths pass."""
    entry, refused, passed = SPELLINGS[name]
    served(proxy, {"dst": "a.test", **entry})
    host.reached.clear()
    for method, target in _requests(refused):
        assert proxy.ask(method, target, "a.test", PORT, "Content-Length: 0")[0] in {400, 403}, (method, target)
        assert host.reached == [], (method, target)
    for method, target in _requests(passed):
        assert proxy.ask(method, target, "a.test")[0] == 200, (method, target)


def test_headers_that_change_a_request_do_not_pass(proxy: Inspecting, host: Host) -> None:
    """Frameworks obey such headers, in several spellings, so an allowed request could become a forbidden one."""
    served(proxy, V1, {"dst": "x.w.test", "inspect": True})
    named = ("X-HTTP-Method-Override", "X-Original-URL", "Forwarded", "X-Forwarded-Host", "HTTP-Method-Override")
    odd = [each.replace("-", other) for each in named if "-" in each for other in "_.!~+#$%&'*^`|"]
    added = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Rewrite-URL", "X-Override-URL")
    mixed = ["X-Original_URL", "X_Original-URL", "_X-Host", "X-Host_"]
    begun = [f"{each}-Anything" for each in PREFIXES_REMOVED]
    headers = [
        f"{each}: DELETE" for each in (*HEADERS_REMOVED, *named, *added, *odd, *mixed, *begun, *SECOND_PATHS)
    ]
    for name, passed in (("a.test", set()), ("x.w.test", {*SECOND_PATHS})):
        host.reached.clear()
        for some in (headers[:60], headers[60:120], headers[120:]):  # Envoy takes 100 at most
            assert proxy.ask("GET", "/v1/x", name, PORT, "Authorization: own", *some)[0] == 200
        assert {word for each in host.reached for word in each.headers} == {"host", "authorization", *passed}
    host.reached.clear()
    assert _curl(proxy, "/v1/x", *headers[:40]) == _curl(proxy, "/v1/x", *headers[40:80]) == "2 200"
    assert {*host.reached[0].headers, *host.reached[1].headers} == {"host", "user-agent", "accept"}


def test_requests_beyond_an_agent_s_rate_wait(
    proxy: Inspecting, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for a second, those of no other agent do, and they reach the host as they were sent."""
    monkeypatch.setattr(proxy, "limits", LimitSettings(requests_per_second=1))
    served(proxy, V1)
    host.reached.clear()
    took = []
    for agent in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
        with proxy.connected("a.test", source=agent) as connection:
            began = time.monotonic()
            connection.sendall(b"GET /v1/x HTTP/1.1\r\nHost: a.test\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
            took.append(time.monotonic() - began)
    assert took[1] > 0.9 * bounds.WAIT_SECONDS > max(took[0], took[2])  # Envoy rounds its timers
    assert [{*asked.headers} for asked in host.reached] == [{"host"}] * 3


GIT = {"dst": "a.test", "git": {"o/r": "read", "o/w": "write"}, "path_rules": [{"path": "/o"}]}


def test_git_is_told_why_it_may_not_push(proxy: Inspecting, host: Host) -> None:
    """Only git's exact requests reach a repository, and git prints the text of a refusal."""
    served(proxy, GIT)
    host.reached.clear()
    refs = "/o/r.git/info/refs?service=git-"
    for target in (
        *(f"{refs}receive-pack", f"{refs}upload-pack&service=git-receive-pack", f"{refs}receive%2Dpack"),
        *(f"{refs}receive-pack&service=git-upload-pack", f"{refs}upload-pack&%73ervice=git-receive-pack"),
        *("/o/r.git/info/refs", f"/o/r/../r.git//{refs[8:]}receive-pack", "/o/r/git-receive-pack/"),
        *(refs.replace("o/r", "O/R") + "receive-pack", "/o/R/Git-Receive-Pack", "/O/r.GIT/info/LFS/x"),
    ):
        status, text = proxy.ask("GET", target, "a.test")
        assert (status, text) == (403, b"clawker-fw: o/r may be fetched, not pushed to\n"), target
    for target in ("/o/r.git/git-receive-pack", "/O/R.git/git-receive-pack", "/o/r/GIT-RECEIVE-PACK"):
        assert proxy.ask("POST", target, "a.test")[0] == 403, target
    for head, status in (
        ("GET /o/r.git/info/lfs/%0c HTTP/1.1\r\nHost: a.test", 400),
        ("TRACE /o/r.git/info/refs HTTP/1.1\r\nHost: a.test", 403),
        ("GET /o/r.git/info/refs HTTP/1.1\r\nHost: a.test\r\nHost: x.w.test", 421),
    ):  # their error is unrelated to git
        found, text = proxy.raw(f"{head}\r\n\r\n".encode(), "a.test")
        assert (found, text[:12], b"may be fetched" in text) == (status, b"clawker-fw: ", False), head
    assert proxy.ask("POST", "/o/r/info/lfs/objects/batch", "a.test")[0] == 403
    assert host.reached == []


def test_a_host_proves_its_name(proxy: Inspecting, host: Host) -> None:
    """Nothing is sent to a host without a certificate for its name, unless the rule waives that."""
    unverified = {"dst": "unverified.test", "inspect": True, "insecure_skip_tls_verify": True}
    served(proxy, {"dst": "other.test", "inspect": True}, unverified, LENIENT)
    host.reached.clear()
    status, text = proxy.ask("GET", "/", "other.test")
    assert (status, text.decode()) == (503, f"clawker-fw: {Reason.HOST_NOT_TRUSTED.sentence}\n")
    assert host.reached == []

    def recorded() -> bool:
        """Return whether it is on record. Records of earlier tests may still come."""
        told = {(f"{each['name']}".partition(":")[0], each["reason"]) for each in proxy.records()}
        return ("other.test", Reason.HOST_NOT_TRUSTED) in told

    until(recorded, WRITTEN_WITHIN)
    assert proxy.ask("GET", "/", "unverified.test")[0] == 200
    for name in ("x.w.test", "y.w.test", "x.w.test"):
        assert proxy.ask("GET", "/v1", name)[0] == 200
    assert [each.headers["host"][0] for each in host.reached[1:]] == ["x", "y", "x"]


def test_a_host_that_wants_to_know_its_client_has_an_ordinary_rule(
    proxy: Inspecting, host: Host, tmp_path: Path
) -> None:
    """The agent's client certificate reaches the host without inspection; with it, the host refuses Envoy."""
    served(proxy, {"dst": "y.w.test", "path_rules": [{"path": "/own"}]})
    assert proxy.ask("GET", "/own", "y.w.test")[0] == 200
    own, key = certificate(tmp_path / "client", "client.test")
    agent = ssl.create_default_context(cafile=str(host.certificate))
    agent.load_cert_chain(own, key)
    host.context.load_verify_locations(own)
    host.context.verify_mode = ssl.CERT_REQUIRED
    try:
        served(proxy, {"dst": "x.w.test", "inspect": False}, {"dst": "y.w.test", "path_rules": [{"path": "/own"}]})
        host.hang_up()  # each of Envoy's workers may keep a connection without a client certificate
        until(lambda: proxy.ask("GET", "/own", "y.w.test")[0] == 503)
        host.reached.clear()
        assert proxy.ask("GET", "/own", "y.w.test")[0] == 503
        assert host.reached == []
        with (
            socket.create_connection((str(HERE), proxy.ports[PORT]), timeout=10) as plain,
            agent.wrap_socket(plain, server_hostname="x.w.test") as tls,
        ):
            tls.sendall(b"GET /own HTTP/1.1\r\nHost: x.w.test\r\n\r\n")
            assert tls.recv(12) == b"HTTP/1.1 200"
        assert len(host.reached) == 1
    finally:
        host.context.verify_mode = ssl.CERT_NONE


def test_tls_with_a_host_is_the_newest_that_it_speaks(proxy: Inspecting, host: Host) -> None:
    """As without Envoy, the newest common TLS version is used: some hosts speak only TLS 1.3."""
    served(proxy, {"dst": "a.test", "path_rules": [{"path": f"/tls-1.{number}"} for number in (2, 3)]})
    host.reached.clear()
    before = host.context.minimum_version, host.context.maximum_version
    try:
        for path, oldest, newest, spoken in (  # connections are not reused for another path of a rule
            ("/tls-1.3", ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
            ("/tls-1.2", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        ):
            host.context.minimum_version, host.context.maximum_version = oldest, newest
            assert proxy.ask("GET", path, "a.test")[0] == 200
            assert host.reached.pop().tls == spoken
    finally:
        host.context.minimum_version, host.context.maximum_version = before


def test_a_client_that_refuses_the_certificate_is_on_record(proxy: Inspecting) -> None:
    """A client's TLS alert is on record. Clients that only close, or use another name, leave no such record."""
    served(proxy, V1)
    proxy.records()
    with proxy.connected("a.test"), pytest.raises(ssl.SSLError), proxy.connected("b.test"):
        pass
    verifying, place = ssl.create_default_context(), (str(HERE), proxy.ports[PORT])
    with socket.create_connection(place) as plain, pytest.raises(ssl.SSLCertVerificationError):
        verifying.wrap_socket(plain, server_hostname="a.test")
    records: list[dict[str, Any]] = []

    def written() -> bool:
        records.extend(proxy.records())
        return any(each["reason"] == Reason.NOT_TRUSTED for each in records)

    until(written)
    # Records of other tests may come late, and after many refusals some are only counted.
    assert {each["name"] for each in records if each["reason"] == Reason.NOT_TRUSTED} == {"a.test"}
    assert {each["reason"] for each in records if each["name"] == "b.test"} <= {"no-rule"}


UPGRADE = ("Connection: Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
LOWER = tuple(each.replace("WebS", "webs") for each in UPGRADE)
"""The host only knows this spelling, Envoy both."""


def test_a_websocket_is_a_request_with_a_path(proxy: Inspecting, host: Host) -> None:
    """It is allowed wherever a GET is, if its rule has `websocket`."""
    served(proxy, V1)
    host.reached.clear()
    for words in (UPGRADE, LOWER):
        status, body = proxy.ask("GET", "/v1/x", "a.test", PORT, *words)
        assert (status, body.splitlines()[0]) == (403, f"clawker-fw: {Reason.NO_WEBSOCKET.sentence}".encode())
    assert host.reached == []
    served(proxy, {**V1, "proto": "wss"})
    assert proxy.ask("GET", "/v1/private", "a.test", PORT, *UPGRADE)[0] == 403
    assert proxy.ask("GET", "/v1/x", "a.test", PORT, *LOWER)[0] == 101
    assert proxy.ask("GET", "/v1/x", "a.test")[0] == 200
    host.reached.clear()
    assert proxy.ask("GET", "/v1/x", "a.test", PORT, *LOWER[1:])[0] == 200  # without the upgrade
    assert "upgrade" not in host.reached[0].headers


UPGRADES = (
    ("Upgrade: websocket", "Upgrade: websocket"),
    ("Upgrade: websocket", "Upgrade: h2c"),
    ("Upgrade: h2c", "Upgrade: websocket"),
    ("Upgrade: websocket, websocket",),
    ("Upgrade: websocket,h2c",),
    ("Upgrade: h2c, websocket",),
    ("Upgrade: \twebsocket \t",),
    ("Upgrade: websocket;x=1",),
    ("Upgrade:",),
    ("Upgrade:", "Upgrade: websocket"),
    ("Upgrade: connect-udp",),
)


def test_no_spelling_becomes_a_websocket(proxy: Inspecting, host: Host) -> None:
    """Without `websocket` in the rule, no host gets an upgrade request, however the agent writes it."""
    served(proxy, LENIENT)
    for connection in ("Upgrade", "keep-alive, upgrade", "upgrade, upgrade", "close, upgrade"):
        for upgrade in UPGRADES:
            host.reached.clear()
            status, _ = proxy.ask("GET", "/v1/x", "x.w.test", PORT, *upgrade, f"Connection: {connection}")
            assert status in {200, 400, 403, 404}, (connection, upgrade)
            assert (status == 200) == bool(host.reached), (connection, upgrade)
            assert not any(each.headers.keys() & {"upgrade", "connection"} for each in host.reached), upgrade


@pytest.mark.parametrize(
    ("words", "headers"),
    [({}, ()), ({}, LOWER), ({"proto": "wss"}, LOWER)],
    ids=["requests", "without WebSockets", "with WebSockets"],
)
def test_what_is_refused_says_why_and_is_on_record(
    proxy: Inspecting, host: Host, words: dict[str, str], headers: tuple[str, ...]
) -> None:
    """The record has the reason, the path without its query, and the deciding rule's text, also for WebSockets."""
    served(proxy, {**V1, **words}, {**LENIENT, **words}, GIT | {"dst": "b.test"} | words)
    host.reached.clear()
    proxy.ask("GET", "/before", "a.test")
    _recorded(proxy, "/before")
    asked = [
        ("GET", "/v1/private?secret", "a.test", "a.test", 403, Reason.PATH, "deny /v1/private"),
        ("DELETE", "/v1/x", "a.test", "a.test", 403, Reason.PATH, "others"),
        ("TRACE", "/v1/x", "a.test", "a.test", 403, Reason.PATH, None),
        ("GET", "/v1/%5c", "a.test", "a.test", 400, Reason.BAD_REQUEST, None),
        ("GET", "/v1/y", "a.test", "x.w.test", 421, Reason.BAD_REQUEST, None),
        ("POST", "/o/r/git-receive-pack", "b.test", "b.test", 403, Reason.PATH, "git read o/r"),
    ]
    if headers and not words:
        asked.append(("GET", "/v1/z", "a.test", "a.test", 403, Reason.NO_WEBSOCKET, None))
    other = [each.replace("websocket", "spdy") for each in LOWER]
    for method, path, name, named, status, reason, _ in asked:
        head = "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {named}", *headers, "", ""))
        answered, text = proxy.raw(head.encode(), name)
        assert answered == status, (method, path)
        assert name == "b.test" or f"clawker-fw: {reason.sentence}".encode() in text, (method, path)
    status, body = proxy.ask("GET", "/v1/last", "a.test", PORT, *other)
    assert status == 403
    assert body.startswith(f"clawker-fw: {Reason.BAD_REQUEST.sentence}".encode())
    assert host.reached == []
    *found, last = _recorded(proxy, "/v1/last")
    assert last["reason"] == Reason.BAD_REQUEST
    for record, (method, path, _, named, _, reason, rule) in zip(found, asked, strict=True):
        told = (record["method"], record["path"], record["name"], record["reason"], record["protocol"])
        assert told == (method, path.partition("?")[0], named, reason, "https")
        assert rule is None or record["rule"] == rule
    assert "secret" not in f"{found}"


def _curl(proxy: Inspecting, target: str, *headers: str) -> str:
    port = proxy.ports[PORT]
    words = ("--resolve", f"a.test:{port}:127.0.0.1", "--path-as-is", "--http2", "--noproxy", "*")
    said = (word for each in headers for word in ("-H", each))
    form = ("-sko", "/dev/null", "-w", "%{http_version} %{http_code}")
    url = f"https://a.test:{port}{target}"
    return subprocess.run(["curl", *form, *words, *said, url], check=True, capture_output=True, text=True).stdout


def _recorded(proxy: Inspecting, path: str) -> list[dict[str, Any]]:
    """Return the new records, up to a refusal of this path."""
    found: list[dict[str, Any]] = []

    def complete() -> bool:
        found.extend(proxy.records())
        return any(each["path"] == path for each in found)

    until(complete)
    return found


PATHS: list[dict[str, Any]] = [{"path": "/v1"}, {"path": "/v2"}, {"path": "/v3", "methods": ["GET", "PUT"]}]
CHANGED: Mapping[str, tuple[list[dict[str, Any]], set[str]]] = {
    "a.test": ([*PATHS, {"path": "/v4"}, {"path": "/v5", "action": "deny"}, {"path": "/v1/x"}], set()),
    "w.test": (PATHS[1:], {"/v1"}),
    "c.test": ([*PATHS, {"path": "/v2/x", "action": "deny"}], {"/v2"}),
    "b.x.w.test": ([*PATHS[:2], {"path": "/v3", "methods": ["PUT", "DELETE"]}], {"/v3"}),
    "y.w.test": ([*PATHS[:2], {"path": "/v3", "methods": ["GET"]}], set()),
}
"""Later allowed paths of each name, and paths whose requests end thereby."""


def test_only_what_is_not_allowed_any_more_ends(proxy: Inspecting) -> None:
    """Requests and WebSockets that are no longer allowed end within the drain time; all others go on."""
    wss = {"dst": "unverified.test", "insecure_skip_tls_verify": True, "path_rules": [{"path": "/v1"}]}
    rest = {"dst": ".w.test", "proto": "wss", "path_rules": [{"path": "/kept"}]}
    served(proxy, rest, {**wss, "websocket": True}, *({"dst": name, "path_rules": PATHS} for name in CHANGED))
    with ExitStack() as open_:
        asked = [(name, path) for name in CHANGED for path in ("/v1", "/v2", "/v3")] + [("x.w.test", "/kept")]
        running = {each: open_.enter_context(proxy.running(each[0], f"{each[1]}/slow")) for each in asked}
        kept = open_.enter_context(proxy.tunnel("x.w.test", "/kept/tunnel"))
        running["unverified.test", ""] = open_.enter_context(proxy.tunnel("unverified.test", "/v1/tunnel"))
        served(proxy, rest, wss, *({"dst": name, "path_rules": after} for name, (after, _) in CHANGED.items()))
        ended = {(name, path) for name, (_, paths) in CHANGED.items() for path in paths}
        assert _ended(running) == {*ended, ("unverified.test", "")}
        kept.sendall(b"x")
        assert kept.recv(1) == b"x"


def test_requests_end_with_their_rule(proxy: Inspecting) -> None:
    """Requests end if their rule is removed, replaced, or partly denied by name, even the last rule of a port."""
    one: dict[str, Any] = {"inspect": True}
    names = ("a.test", "c.test", "w.test", "y.w.test", "x.w.test")
    below, kept = {"dst": ".w.test", "path_rules": [{"path": "/v1"}]}, {"dst": "b.x.w.test", **one}
    served(proxy, below, kept, *({"dst": name, **one} for name in names[:4]))
    with ExitStack() as open_:
        running = {
            (name, ""): open_.enter_context(proxy.running(name, "/v1/slow")) for name in (*names, kept["dst"])
        }
        served(
            proxy,
            *({"dst": "c.test"}, {"dst": "w.test", **one, "allow_private": True}, kept),
            {"dst": "y.w.test", **one, "insecure_skip_tls_verify": True},
            *(below, {"dst": "z.w.test", "action": "deny"}),
        )
        assert _ended(running) == {(name, "") for name in names}
        last = running[kept["dst"], ""]
        served(proxy)
        assert _ends(last)


def _ends(agent: ssl.SSLSocket, seconds: float = DRAIN_SECONDS + 2) -> bool:
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if not agent.recv(4096):
                return True
    except (ConnectionResetError, ssl.SSLEOFError):
        return True
    return False


def _ended(running: Mapping[tuple[str, str], ssl.SSLSocket]) -> set[tuple[str, str]]:
    """Return whose answers end within the drain time. All are read in parallel."""
    with ThreadPoolExecutor(len(running)) as readers:
        ends = readers.map(_ends, running.values())
        return {asked for asked, ended in zip(running, ends, strict=True) if ended}


def test_envoy_gives_back_exactly_what_it_was_given(proxy: Inspecting) -> None:
    """Our files are in canonical form: they equal what Envoy reports about them."""
    unverified = {"dst": "unverified.test", "inspect": True, "insecure_skip_tls_verify": True}
    expressions = {"dst": "b.x.w.test", "path_rules": DENYING["path_rules"]}
    limited = {"dst": "c.test", "path_rules": [{"path": "/"}, {"path": "/@me", "methods": ["GET", "PUT"]}]}
    denied, git = {"dst": "x.w.test", "action": "deny"}, GIT | {"dst": "y.w.test"}
    served(proxy, V1, LENIENT, unverified, denied, git, expressions, limited)
    assert proxy.given_and_loaded("rds-inspected/routes.json", "dynamic_route_configs", "route_config")
    assert proxy.given_and_loaded("lds/listeners.json", "dynamic_listeners", "active_state", "listener")
