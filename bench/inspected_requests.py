"""TLS that is looked into: what a secret in requests takes, and what it takes that no session is resumed.

The real Envoy and the real signer on loopback, with one processor; the agent and the origin have the other.
"""

import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.figures import Bound, Result, Series
from bench.peer import drive, origin
from bench.processor import agents_seconds, processor_seconds, processors
from bench.quiet import quiet
from bench.stage import Stage
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry
from devkit.dns import NameServer
from devkit.envoy import HERE, program
from devkit.injecting import Injecting
from devkit.inspecting import PORT, Inspecting, Signing, own_address
from devkit.peers import peer_program
from devkit.programs import machine
from devkit.signer import Signer
from devkit.stacks import installed_release
from devkit.waiting import until

RUNS, SECONDS, CLIENTS = 12, 2.0, 4
SECRET_MORE, ON_DEMAND_MORE, NOT_RESUMED = 1.1, 1.1, 0.1
"""How many times as much of its processor Envoy may use with a secret, and with a certificate on demand; and the
share of connections that resume no session where they could."""
_PLAIN, _SECRET = "plain.w.test", "secret.w.test"
_TOKEN = b"not-a-secret"
_WARM_SECONDS = 0.5
_PATHS = [{"path": "/v1"}, {"path": "/v1/private", "action": "deny"}, {"path": "/v2", "methods": ["GET"]}]
_RULES = RuleSet.of(
    RuleEntry.model_validate({"dst": name, "port": PORT, "path_rules": _PATHS, **words}).rule()
    for name, words in ((_PLAIN, {}), (_SECRET, {"inject": "api"}))
)


class _Way(NamedTuple):
    """An Envoy, a name of its rules, and what the agent does."""

    proxy: Inspecting
    name: str
    agent: tuple[str, ...]


_WITHOUT, _WITH = "requests, kept alive", "the same, with a secret"
_ON_DEMAND, _WHOLE, _RESUMED = (
    f"new connections, {each}"
    for each in ("certificate on demand", "certificate of its own", "certificate of its own, resumed")
)


def measure(stage: Stage) -> Result:
    """Measure each way once in each round."""
    mine, theirs = processors()
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        folder = Path(name)
        os.sched_setaffinity(0, mine)
        held.callback(os.sched_setaffinity, 0, mine | theirs)
        peer, trusted = peer_program(machine()), folder / "trusted.pem"
        here = ("--address", own_address(), "--https", str(PORT), "--name", f"{_PLAIN},{_SECRET}")
        held.enter_context(origin(peer, trusted, *here))
        os.sched_setaffinity(0, theirs)
        ways = held.enter_context(_started(folder, trusted))
        os.sched_setaffinity(0, mine)
        found = _measured(peer, ways, stage.runs or RUNS, stage.seconds or SECONDS)
    figures = {way: {what: _series(way, what, each) for what in _UNITS} for way, each in found.items()}
    not_resumed = max(1 - each["resumed"] / each["requests"] for each in found[_RESUMED])
    return Result(
        series=[series for each in figures.values() for series in each.values()],
        bounds=[
            Bound("processor of Envoy: a secret / without", SECRET_MORE, _more(figures, _WITH, _WITHOUT)),
            Bound("the same: on demand / of its own", ON_DEMAND_MORE, _more(figures, _ON_DEMAND, _WHOLE)),
            Bound("connections not resumed, where they could be", NOT_RESUMED, not_resumed),
            Bound("failed requests", 0, sum(each["failed"] for rounds in found.values() for each in rounds)),
        ],
        notes=[*_compared(figures)],
        raw={way: list(rounds) for way, rounds in found.items()},
    )


def _ratios(figures: Mapping[str, Mapping[str, Series]], what: str, more: str, less: str) -> list[float]:
    """Return the ratio of two ways in each round, the lowest first."""
    pairs = zip(figures[more][what].values, figures[less][what].values, strict=True)
    return sorted(one / other for one, other in pairs)


def _more(figures: Mapping[str, Mapping[str, Series]], more: str, less: str) -> float:
    """Return how many times as much of its processor Envoy uses, in the median round."""
    return statistics.median(_ratios(figures, "processor", more, less))


def _compared(figures: Mapping[str, Mapping[str, Series]]) -> Iterator[str]:
    """Yield what each round says of two ways beside each other: the median, and the middle half of all."""
    for more, less in ((_WITH, _WITHOUT), (_ON_DEMAND, _RESUMED), (_ON_DEMAND, _WHOLE)):
        for what in _UNITS:
            ratios = _ratios(figures, what, more, less)
            low, high = (ratios[len(ratios) * quarter // 4] for quarter in (1, 3))
            middle = statistics.median(ratios)
            yield f"{more} / {less}, {_WORDS[what]}: {middle:.2f} ({low:.2f} to {high:.2f})"


@contextmanager
def _started(folder: Path, trusted: Path) -> Iterator[Mapping[str, _Way]]:
    """Run two Envoys: one has a certificate of its own and a secret, the other one has certificates on demand.

    Both certificates are from the same intermediate, so that an agent has the same to verify.
    """
    names = (_PLAIN, _SECRET)
    with NameServer(names, own_address()) as server, ExitStack() as held:
        signer = Signer(folder, kept=False)
        signer.give((), ["w.test"], ["w.test"])
        signer.start()
        held.callback(signer.end)
        for each in ("own", "on-demand"):
            (folder / each).mkdir()
        release = installed_release()
        own = Injecting(folder / "own", release, server.port, signer.signed(folder, _PLAIN), trusted, first=_RULES)
        held.callback(own.signer.end)
        held.callback(_end, own)
        own.give({"api#bearer": f"Bearer {_TOKEN.decode()}"})
        on_demand = Signing(folder / "on-demand", program(release), server.port, signer, trusted)
        held.callback(_end, on_demand)
        for proxy in (own, on_demand):
            proxy.serve(_RULES)
            until(proxy.serves)
        if (found := [_TOKEN in own.ask("GET", "/v1/x", each)[1] for each in names]) != [False, True]:
            raise AssertionError(found)
        verifying = ("--trust", signer.trust.decode())
        yield {
            _WITHOUT: _Way(own, _PLAIN, ("--kept",)),
            _WITH: _Way(own, _SECRET, ("--kept",)),
            _ON_DEMAND: _Way(on_demand, _PLAIN, ("--resume", *verifying)),
            _WHOLE: _Way(own, _PLAIN, verifying),
            _RESUMED: _Way(own, _PLAIN, ("--resume", *verifying)),
        }


def _end(proxy: Inspecting) -> None:
    proxy.process.terminate()
    proxy.process.wait()


_UNITS = {"p50": "ms", "processor": "µs", "agent": "µs"}
_WORDS = {"p50": "p50", "processor": "processor of Envoy", "agent": "processor of the agent"}


def _measured(
    peer: Path, ways: Mapping[str, _Way], rounds: int, seconds: float
) -> dict[str, list[dict[str, float]]]:
    """Return what each round of each way took. The first one, which makes certificates, is not counted."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(-1, rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            way = ways[name]
            quiet(2)
            where = ("--connect", f"{HERE}:{way.proxy.ports[PORT]}", "--clients", str(CLIENTS))
            before = processor_seconds(way.proxy.process.pid), agents_seconds()
            lasting = ("--seconds", str(seconds if number >= 0 else _WARM_SECONDS))
            passed = drive(peer, f"https://{way.name}:{PORT}/v1/x", *where, *lasting, *way.agent)
            used = processor_seconds(way.proxy.process.pid) - before[0], agents_seconds() - before[1]
            if number >= 0:
                each = {key: passed[key] for key in ("requests", "failed", "resumed")}
                times = {
                    what: one / passed["requests"] * 1e6
                    for what, one in zip(("processor", "agent"), used, strict=True)
                }
                found[name].append({**each, "p50": passed["p50_ms"], **times})
    return found


def _series(way: str, what: str, rounds: list[dict[str, float]]) -> Series:
    return Series(f"{way}: {_WORDS[what]}", tuple(each[what] for each in rounds), _UNITS[what])
