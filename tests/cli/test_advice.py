"""Every printed command, applied in a shell, does exactly what it says."""

import json
import random
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from clawker_fw.cli import session as chosen_settings
from clawker_fw.cli.main import app
from clawker_fw.cli.parameters import Options
from clawker_fw.diagnose.explanation import Explanation
from clawker_fw.diagnose.remedies import remedy_of
from clawker_fw.diagnose.simulation import Opened
from clawker_fw.errors import FirewallError
from clawker_fw.model.trials import FoundAddress, Lookup
from clawker_fw.report import commands
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.target import Request, Target
from clawker_fw.settings.validation import load_settings

PAST, FUTURE = "2020-01-01T00:00:00Z", "2126-01-01T00:00:00Z"
NAMES = ("a.test", "b.a.test", "c.b.a.test", "d.test", "-e.test")
PORTS = (22, 80, 443, 8443)
METHODS = ("GET", "POST", "DELETE")
PATHS = ("/", "/v1", "/v1/x", "/v1/x.y", "/v1/x/deep", "/v10", "/v2/a%20b", "/v2/*", "/w")
Rule = Mapping[str, object]
OFFICE = Lookup((FoundAddress("10.0.0.7", ("guarded",)),))


@dataclass(frozen=True)
class Place:
    """A folder with a settings file, its rules, and the options that select it."""

    folder: Path

    @property
    def options(self) -> Options:
        return Options(config=self.folder / "fire wall.yaml", named_project="demo")

    def write(
        self, own: Sequence[Rule], included: Sequence[Rule] = (), *, odd: bool = False, **more: object
    ) -> None:
        """Write the rules of the file and of its included file, perhaps in a form that no command can edit."""
        (self.folder / "team.yaml").write_text(json.dumps({"rules": included}))
        whole = {"include": ["team.yaml"], **more}
        lines = [f"{key}: {json.dumps(value)}" for key, value in whole.items()]
        lines += ["rules:", *(f"  - {json.dumps(entry)}" for entry in own)] if own else ["rules: []"]
        text = json.dumps({**whole, "rules": own}) if odd else "\n".join(lines) + "\n"
        (self.folder / "fire wall.yaml").write_text(text)

    def explain(self, target: Target, request: Request | None = None, lookup: Lookup | None = None) -> Explanation:
        loaded = load_settings(self.options.config, {})
        found = chosen_settings.explainer(self.options, loaded, time.time()).explain(target, request)
        return found.with_addresses(lookup) if lookup else found

    def policy(self) -> Policy:
        return Policy(load_settings(self.options.config, {}).rules.at(time.time()))

    def paste(self, command: str) -> tuple[int, str]:
        """Have a shell parse a command, and run it without applying the rules."""
        commands.use(self.options.naming)
        words = subprocess.run(  # noqa: S602 - a command of ours, as a person pastes it
            f"printf '%s\\0' {commands.named(command)}", shell=True, check=True, capture_output=True
        ).stdout.decode().split("\0")[:-1]  # fmt: skip
        assert words[0] == "clawker-fw"
        at = words.index("rules") + 2
        arguments = [*words[1:at], "--no-reload", *words[at:]]
        result = CliRunner().invoke(app, arguments, prog_name="clawker-fw")
        return result.exit_code, result.output


Probe = tuple[str, Protocol, int, Request | None]


def probes(names: Sequence[str], target: Target, request: Request | None) -> Iterator[Probe]:
    """Yield everything the rules may distinguish: every name, protocol and port, and a table of requests."""
    paths = {*PATHS, *(f"{path.rstrip('/')}/below" for path in PATHS), *(f"{path}x" for path in PATHS)}
    if request:
        paths |= {request.path, f"{request.path.rstrip('/')}/below", f"{request.path}x"}
    every = {*NAMES, target.name, *(f"q.{name}" for name in NAMES), "test", "other.test", *names}
    methods = {*METHODS, *([request.method] if request else [])}
    for name in sorted(every):
        for port in {*PORTS, target.port}:
            for protocol in Protocol:
                yield name, protocol, port, None
            for path in paths:
                for method in methods:
                    yield name, Protocol.HTTPS, port, Request(method, path)
                    yield name, Protocol.HTTPS, port, Request(method, path, websocket=True)


def decided(policy: Policy, probe: Probe) -> tuple[bool, bool, str] | None:
    """Return whether something is allowed, also at private addresses, and its destination."""
    name, protocol, port, request = probe
    asked = (request.method, request.target) if request else (None, None)
    found = policy.decide(name, protocol, port, *asked, websocket=bool(request and request.websocket))
    return (True, found.rule.allow_private, found.rule.host) if found.allowed and found.rule else None


def is_asked(probe: Probe, explained: Explanation) -> bool:
    """Whether a probe equals the refused request."""
    (name, protocol, port, sent), target, request = probe, explained.target, explained.request
    opaque = protocol.opaque and target.protocol.opaque and protocol.transport is target.protocol.transport
    if (name, port) != (target.name, target.port) or not (protocol is target.protocol or opaque):
        return False
    if sent is None:
        return True
    if request:
        return (sent.method, sent.path) == (request.method, request.path) and sent.websocket <= request.websocket
    rule = explained.rule
    paths = rule.paths if rule and not rule.denies else None
    return paths is None or paths.decide(sent.method, sent.target, websocket=sent.websocket).reason is None


def is_said(probe: Probe, explained: Explanation, text: str) -> bool:
    """Whether a sentence announces what a command additionally allows."""
    (name, protocol, port, sent), target, request = probe, explained.target, explained.request
    if name != target.name:
        return "for every other name in ." in text
    if sent is None or protocol is not target.protocol or port != target.port:
        return Opened.TRANSPORT in text and port == target.port and protocol is not Protocol.UDP
    below = (
        request is not None
        and sent.method == request.method
        and sent.path.startswith(f"{request.path.rstrip('/')}/")
    )
    return Opened.REQUESTS in text or (below and Opened.BELOW in text)


def check(place: Place, explained: Explanation, lookup: Lookup | None = None) -> str:
    """Apply the suggested command, if any, check what has changed, and return the advice."""
    remedy = remedy_of(explained)
    assert remedy is not None
    if not remedy.command:
        return remedy.text
    assert f"`{remedy.command}`" in remedy.text
    table = list(
        probes(
            [rule.destination.name for rule in place.policy().rules.rules],
            explained.target,
            explained.request,
        )
    )
    before = place.policy()
    code, output = place.paste(remedy.command)
    assert code == 0, (remedy, output)
    after = place.policy()
    target, request = explained.target, explained.request
    asked = (request.method, request.target) if request else (None, None)
    found = after.decide(target.name, target.protocol, target.port, *asked)
    assert found.allowed, remedy
    assert lookup is None or (found.rule and found.rule.allow_private), remedy
    for probe in table:
        was, now = decided(before, probe), decided(after, probe)
        if was == now:
            continue
        assert now is not None, ("lost", probe, remedy)
        assert was is None or now > was, ("narrowed", probe, remedy)
        assert is_asked(probe, explained) or is_said(probe, explained, remedy.text), ("opened", probe, remedy)
    return remedy.text


def _entry(chosen: random.Random) -> dict[str, Any]:
    """Return a rule, unless it is invalid or contradicts others."""
    entry: dict[str, Any] = {"dst": chosen.choice(("", ".")) + chosen.choice(NAMES)}
    if chosen.random() < 0.2:
        return entry | {"action": "deny", "proto": chosen.choice(("https", "tcp", "http"))}
    if chosen.random() < 0.25:
        entry |= {"proto": chosen.choice(("http", "tcp", "ssh", "udp")), "port": chosen.choice(PORTS)}
    elif chosen.random() < 0.7:
        paths = chosen.sample(PATHS[:-2], chosen.randint(1, 3)) + chosen.choice(([], ["~/w/[0-9]+"]))
        entry["path_rules"] = [
            {
                "path": path,
                **chosen.choice(({}, {"methods": ["GET"]}, {"action": "deny"}, {"methods": ["POST"]})),
            }
            for path in paths
        ]
        entry |= chosen.choice(({}, {}, {"websocket": True}, {"path_default": "allow"}))
    return {
        **entry,
        **chosen.choice(({}, {}, {"until": PAST}, {"until": FUTURE})),
        **chosen.choice(({}, {}, {"allow_private": True})),
    }


def _is_valid(place: Place, own: Sequence[Rule], included: Sequence[Rule]) -> bool:
    place.write(own, included)
    with suppress(FirewallError):
        load_settings(place.options.config, {})
        return True
    return False


def _fill(place: Place, chosen: random.Random) -> None:
    """Write random rules, each compatible with the earlier ones."""
    own: list[dict[str, Any]] = []
    included: list[dict[str, Any]] = []
    for _ in range(chosen.randint(0, 7)):
        there = included if chosen.random() < 0.2 else own
        there.append(_entry(chosen))
        if not _is_valid(place, own, included):
            there.pop()
    place.write(own, included, odd=chosen.random() < 0.1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder whose name a shell would split."""
    return Place(tmp_path_factory.mktemp("with space"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_what_is_advised_does_what_it_says(place: Place, chosen: random.Random) -> None:
    """For random rules, the command allows what was refused, loses nothing, and announces what else it allows."""
    _fill(place, chosen)
    for _ in range(3):
        name = chosen.choice((*NAMES, "q.a.test", "x.b.a.test"))
        protocol = chosen.choice((Protocol.HTTPS, Protocol.HTTPS, Protocol.HTTPS, *Protocol))
        target = Target(name, protocol, chosen.choice((443, 443, 443, *PORTS)))
        asked = Request(chosen.choice(METHODS), chosen.choice(PATHS), chosen.random() < 0.1)
        lookup = OFFICE if chosen.random() < 0.2 else None
        explained = place.explain(target, chosen.choice((None, asked)), lookup)
        if explained.reason and explained.reason is not Reason.NO_WEBSOCKET:
            check(place, explained, lookup if explained.reason is Reason.PRIVATE_ADDRESS else None)


V1 = {"path": "/v1", "methods": ["GET"]}
A = Target("a.test", Protocol.HTTPS, 443)


@pytest.mark.parametrize("said", [{}, {"path_default": "allow"}])
def test_an_exception_takes_nothing_away(place: Place, said: Rule) -> None:
    """A rule that only denies paths allows all others, and still does after its first allowed path."""
    place.write([{"dst": "a.test", "path_rules": [{"path": "/v1", "action": "deny"}], **said}])
    advised = "rules allow a.test --path /v1/x --methods GET"
    assert advised in check(place, place.explain(A, Request("GET", "/v1/x")))
    assert (place.folder / "fire wall.yaml").read_text().count("path_default") == 1


@pytest.mark.parametrize(
    ("own", "included", "request_", "more", "advice"),
    [
        ([], [{"dst": "a.test", "until": PAST}], None, {}, "Allow it with an edit by hand in the rule (team.yaml"),
        (
            [],
            [{"dst": "a.test", "path_rules": [V1]}],
            Request("GET", "/w"),
            {},
            "Allow it with an edit by hand in the rule (team.yaml",
        ),
        (
            [{"dst": "b.test"}],
            [],
            None,
            {"odd": True},
            "Allow it with an edit by hand in fire wall.yaml, to the same effect as `clawker-fw ",
        ),
        ([], [], None, {"never": ["a.test"]}, "No rule may allow it: `never any a.test` is promised"),
        ([], [], None, {"never": [{"proto": "https"}]}, "No rule may allow it: `never https *` is promised"),
    ],
)
def test_what_no_command_can_do_is_written_by_hand(  # noqa: PLR0917 - a table
    place: Place,
    own: Sequence[Rule],
    included: Sequence[Rule],
    request_: Request | None,
    more: Mapping[str, Any],
    advice: str,
) -> None:
    """Included files, uneditable files and guardrails need edits by hand: no command is printed."""
    place.write(own, included, **more)
    remedy = remedy_of(place.explain(A, request_))
    assert remedy is not None
    assert remedy.command == ""
    assert remedy.text.replace(f"{place.folder}/", "").startswith(advice)


def test_commands_name_the_stack() -> None:
    """Options are quoted for a shell in sentences, on separate lines and in JSON."""
    chosen = Options(Path("/a b/c.yaml"), "demo", "ssh://me@host", None, secrets=Path("/s.yaml"))
    commands.use(chosen.naming)
    given = "--config '/a b/c.yaml' --project demo --host ssh://me@host --secrets /s.yaml"
    assert commands.named("  clawker-fw rules deny a.test") == f"  clawker-fw {given} rules deny a.test"
    there = commands.named_in({"hint": ["Run `clawker-fw --debug drift`."], "busy": "clawker-fw run"})
    assert there == {"hint": [f"Run `clawker-fw {given} --debug drift`."], "busy": "clawker-fw run"}
    elsewhere = "clawker-fw --config '/a b/c.yaml' --project demo --secrets /s.yaml --context b reload"
    assert commands.named("clawker-fw reload", ("--context", "b")) == elsewhere
    assert commands.named(elsewhere) == elsewhere
    assert "--host" not in commands.named("`clawker-fw fleet status`")
    commands.use(Options(context="it's").naming)
    assert commands.named("Run `clawker-fw run` with $(clawker-fw agent flags).") == (
        "Run `clawker-fw --context 'it'\"'\"'s' run` with $(clawker-fw --context 'it'\"'\"'s' agent flags)."
    )
    assert commands.named("what clawker-fw made") == "what clawker-fw made"
    commands.use({})
    assert commands.named("`clawker-fw run`") == "`clawker-fw run`"
