"""A hostile agent's attempts in inspected TLS, and the expected outcomes. Pure.

If a stack fails, a host gets only harmless requests: safe methods (RFC 9110, section 9.2.1), no content, and no
rule allows them. The controls are the certificate, which Envoy makes for inspected names only, and one allowed
request that changes nothing, if one is known.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from clawker_fw.diagnose.conformance.table import DENIED, Case
from clawker_fw.rules.paths import TRACE, Access, Paths
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol
from clawker_fw.stack.container import REFUSED_NAME

_NOWHERE = "/clawker-fw-conformance"
_SAFE = ("GET", "OPTIONS", "PROPFIND")
_OURS = frozenset({"a certificate of the stack"})
_OF_THE_HOST = frozenset(f"HTTP {status} of a host" for status in range(200, 600))
_OTHER_HOST = frozenset({"HTTP 421 of Envoy"})
_STATUS = {Reason.PATH: 403, Reason.BAD_REQUEST: 400}

_TRICKS = (
    ("dots", "the path of a parent", "/.."),
    ("escaped-dots", "the same, escaped", "/%2e%2e"),
    ("escaped-slash", "the same behind an escaped slash", "%2f.."),
    ("twice-escaped", "the same, escaped twice", "/%252e%252e"),
    ("backslash", "the same with backslashes", "\\.."),
    ("parameter", "the same with a parameter", "/..;x"),
)
"""Ways to lead an allowed path to another one: for each of its segments, one of these is appended."""


@dataclass(frozen=True, slots=True)
class InspectedHost:
    """A name and port with TLS inspection, and what is allowed there.

    `stranger` is a name below it without a rule, or empty. A `subtree` rule's name itself need not exist.
    """

    name: str
    port: int
    paths: Paths
    stranger: str
    subtree: bool

    def refuses(self, method: str, target: str) -> bool:
        """Whether the rules refuse a request."""
        return self.paths.decide(method, target).reason is not None


def inspected_host(policy: Policy) -> InspectedHost | None:
    """Return the first inspected host, preferably one with an exact name, which surely exists."""
    host: InspectedHost | None = None
    for rule in policy.rules.rules:
        name = rule.destination.name
        if rule.denies or rule.paths is None or rule.port is None:
            continue
        if policy.decide(name, Protocol.HTTPS, rule.port).rule is not rule:
            continue
        below = f"{_NOWHERE[1:]}.{name}"
        allowed = policy.decide(below, Protocol.HTTPS, rule.port).allowed
        subtree = rule.destination.subtree
        if not subtree or host is None:
            host = InspectedHost(name, rule.port, rule.paths, "" if allowed else below, subtree)
        if not subtree:
            break
    return host


def attempts_in_tls(envoy: str, host: InspectedHost, roots: str) -> Iterator[Case]:
    """Yield the attempts. `envoy` is its address, and `roots` are the stack's root certificates (PEM)."""
    for case in (*_controls(host), *_attacks(host)):
        yield replace(case, address=f"{envoy}:{host.port}", roots=roots)


def _attacks(host: InspectedHost) -> Iterator[Case]:
    if path := _elsewhere(host):
        yield _request(host, "path", "A path that no rule allows", "GET", path)
    yield from _methods(host)
    yield from _tricks(host)
    yield from _git(host)
    yield from _other_hosts(host)
    if host.stranger:
        words = f"A certificate for {host.stranger}, which no rule allows"
        yield Case("inspected-stranger", words, DENIED, "certificate", name=host.stranger)


def _controls(host: InspectedHost) -> Iterator[Case]:
    """Yield the controls. No HEAD: Envoy marks its own answers in the body."""
    words = f"TLS to {host.name} gets a certificate of the stack"
    yield Case("inspected", words, _OURS, "certificate", name=host.name, control=True)
    request = None if host.subtree else host.paths.allowed_request("GET", "OPTIONS")
    if request:
        text = _text(host, *request)
        words = f"An allowed request to {host.name} gets through"
        yield Case("inspected-allowed", words, _OF_THE_HOST, "request", name=host.name, text=text, control=True)


def _text(host: InspectedHost, method: str, target: str) -> str:
    return f"{method} {target} HTTP/1.1\r\nHost: {host.name}\r\nConnection: close\r\n\r\n"


def _request(host: InspectedHost, id_: str, words: str, method: str, target: str) -> Case:
    reason = host.paths.decide(method, target).reason
    holds = frozenset({f"HTTP {_STATUS[reason]} of Envoy"}) if reason else frozenset()
    text = _text(host, method, target)
    return Case(f"inspected-{id_}", f"{words} of {host.name}", holds, "request", name=host.name, text=text)


def _elsewhere(host: InspectedHost) -> str:
    literal = (rule.path for rule in host.paths.rules if not rule.expression)
    return next((path for path in (_NOWHERE, *literal) if host.refuses("GET", path)), "")


def _inside(host: InspectedHost) -> str:
    literal = (rule.path for rule in host.paths.rules if not rule.expression)
    return next((path for path in (*literal, _NOWHERE) if path != "/" and not host.refuses("GET", path)), "")


def _methods(host: InspectedHost) -> Iterator[Case]:
    yield _request(host, "trace", "TRACE", TRACE, _inside(host) or "/")
    for path in (rule.path for rule in host.paths.rules if rule.methods and not rule.expression):
        if method := next((candidate for candidate in _SAFE if host.refuses(candidate, path)), ""):
            yield _request(host, "method", f"{method}, which no rule allows there,", method, path)
            return


def _tricks(host: InspectedHost) -> Iterator[Case]:
    inside, elsewhere = _inside(host), _elsewhere(host)
    if not (inside and elsewhere):
        return
    for id_, words, up in _TRICKS:
        target = inside + inside.count("/") * up + elsewhere
        if host.refuses("GET", target):
            yield _request(host, id_, f"A path by {words},", "GET", target)


def _git(host: InspectedHost) -> Iterator[Case]:
    for repository in host.paths.repositories:
        if repository.access is Access.READ:
            target = f"/{repository.name}.git/info/refs?service=git-receive-pack"
            yield _request(host, "push", f"A push to {repository.name}", "GET", target)
            return


def _other_hosts(host: InspectedHost) -> Iterator[Case]:
    path = _inside(host) or "/"
    end = "\r\nConnection: close\r\n\r\n"
    for id_, words, head in (
        ("host", "Another host in a request", f"GET {path} HTTP/1.1\r\nHost: {REFUSED_NAME}"),
        ("absolute", "Another host in a URL", f"GET https://{REFUSED_NAME}{path} HTTP/1.1\r\nHost: {host.name}"),
        (
            "two-hosts",
            "Two hosts in a request",
            f"GET {path} HTTP/1.1\r\nHost: {host.name}\r\nHost: {REFUSED_NAME}",
        ),
    ):
        title = f"{words} to {host.name}"
        yield Case(f"inspected-{id_}", title, _OTHER_HOST, "request", name=host.name, text=head + end)
