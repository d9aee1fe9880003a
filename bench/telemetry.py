"""What telemetry costs agents and both siblings while the collector is well, down, silent, slow, or refuses.

Two stacks, with and without telemetry, take turns under the same open loop of new connections and DNS queries, so
that other load affects both. The collector is a real one, in the network of a private engine.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.figures import Bound, Result, Series
from bench.quiet import quiet
from bench.stage import NAMES, Stage
from bench.strain import Siblings
from clawker_fw.certificates.store import TelemetryStore
from clawker_fw.certificates.x509 import mint_authority
from devkit.collectors import Collector
from devkit.engines import EngineError, PrivateEngine
from devkit.firewall import RULES, SIBLINGS, Firewall, remove_project
from devkit.peers import Peer
from devkit.waiting import until

SECONDS = 60.0
TURNS = 12
"""Of each stack, into which the seconds are divided. Neighbours are compared: other load comes and goes."""

RATE, QUERIES = 500, 2000
HOST, PORT, NAME = "203.0.113.77", 4317, "collector.test"

MOST_MORE_MS, MOST_MORE_SHARE = 1.0, 0.05
"""What p50 and p99 may be above those without telemetry: the larger of the two."""

MOST_MEGABYTES, MOST_SECONDS = 5.0, 5.0

_SLOW_SECONDS, _AWAKE_SECONDS = 5.0, 0.2
_COUNTED_SECONDS, _CALM_SECONDS = 30.0, 6.0


@dataclass(frozen=True)
class Turn:
    """What one stack did under load: what its agent met, answered queries, and what its siblings took."""

    met: Mapping[str, Any]
    answered: int
    megabytes: Mapping[str, float]
    processor_seconds: Mapping[str, float]


@dataclass(frozen=True)
class Scene:
    """Both stacks with their agents, and the collector."""

    stage: Stage
    engine: PrivateEngine
    bare: Firewall
    told: Firewall
    agents: Mapping[str, Peer]
    resolvers: Mapping[str, str]
    collector: Collector
    folder: Path

    def load(self, firewall: Firewall, seconds: float) -> Turn:
        """Put a stack under load: connections at a rate, and queries beside them."""
        agent = self.agents[firewall.project]
        pause, resolver = f"{1_000_000 / QUERIES / self.stage.load:.0f}us", self.resolvers[firewall.project]
        asked: list[Mapping[str, Any]] = []
        # Asked directly: otherwise the engine passes queries on, and takes a share of the processors itself.
        arguments = (
            *("inundate", "refused.test", "--server", resolver),
            *("--seconds", str(seconds), "--pause", pause),
        )
        siblings = Siblings(self.stage.docker, firewall, self.engine)
        before = _spent(siblings)
        asking = threading.Thread(target=lambda: asked.append(agent.ask(*arguments).last))
        asking.start()
        urls = ("https://a.test/", "http://h.test/")
        how = ("--rate", str(round(RATE * self.stage.load)), "--seconds", str(seconds), "--dns-server", resolver)
        met = agent.ask("load", *how, *urls).last
        asking.join()
        spent = {sibling: seconds - before[sibling] for sibling, seconds in _spent(siblings).items()}
        self._calm(firewall)
        # What Envoy has allocated says more than its resident memory, which depends on bursts long ago.
        megabytes = {"envoy": siblings.heap()["allocated"], "coredns": siblings.megabytes()["coredns"]}
        return Turn(met, met["succeeded"] + asked[0]["answers"], megabytes, spent)

    def _calm(self, firewall: Firewall) -> None:
        """Wait until no connection is open: each takes memory, and a late one is no cost of telemetry."""
        with suppress(TimeoutError):
            until(lambda: self._probe(firewall, "envoy")["connections"] == 0, _CALM_SECONDS, every=0.2)

    def counted(self, sibling: str) -> dict[str, int]:
        """Return what the sibling with telemetry says of its records."""
        telemetry = self._probe(self.told, sibling)["telemetry"]
        return {how: telemetry[how] for how in ("sent", "lost")}

    def _probe(self, firewall: Firewall, sibling: str) -> dict[str, Any]:
        container = firewall.container(sibling)
        identity = self.stage.docker.exec_create(container, ["/fw/bin/fwctl", "probe"])["Id"]
        report: dict[str, Any] = json.loads(self.stage.docker.exec_start(identity))
        return report

    def flows_after(self) -> float:
        """Return after how many seconds the collector takes records again, from both siblings."""
        began, before = time.monotonic(), {each: self.counted(each)["sent"] for each in SIBLINGS}
        agent = self.agents[self.told.project]

        def flows() -> bool:
            agent.get("https://a.test/")
            return all(self.counted(each)["sent"] > sent for each, sent in before.items())

        until(flows, 60, every=0.1)
        return time.monotonic() - began

    @contextmanager
    def down(self) -> Iterator[None]:
        """Have nobody listen."""
        self.collector.stop()
        try:
            yield
        finally:
            self.collector.start()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Have every packet to the collector dropped."""
        rule = ["INPUT", "--protocol", "tcp", "--dport", str(PORT), "--jump", "DROP"]
        self.engine.run_in_network(["iptables", "--insert", *rule])
        try:
            yield
        finally:
            self.engine.run_in_network(["iptables", "--delete", *rule])

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Have the collector sleep most of the time, so that an answer takes up to 5 s."""
        ended = threading.Event()

        def sleep() -> None:
            while not ended.wait(_AWAKE_SECONDS):
                self.collector.process.send_signal(signal.SIGSTOP)
                ended.wait(_SLOW_SECONDS)
                self.collector.process.send_signal(signal.SIGCONT)

        sleeping = threading.Thread(target=sleep)
        sleeping.start()
        try:
            yield
        finally:
            ended.set()
            sleeping.join()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Have a collector there that trusts another authority."""
        store = _store(self.folder, self.told.project)
        foreign = mint_authority("foreign", time.time()).certificate
        before = _apart(self.engine)
        with (
            self.down(),
            Collector(self.folder / "foreign", _endpoint(), store.collector(NAME)[1], foreign, before),
        ):
            yield


def measure(stage: Stage) -> Result:
    """Load both stacks in turn with each kind of collector, and count what became of the records."""
    result = Result()
    seconds = stage.seconds or SECONDS
    with _scene(stage) as scene:
        kinds: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "well": nullcontext,
            "down": scene.down,
            "silent": scene.silent,
            "slow": scene.slow,
            "refusing": scene.refusing,
        }
        for kind, spoiled in kinds.items():
            if not stage.only or kind in stage.only:
                _measure_kind(scene, kind, spoiled, seconds, result)
    return result


def _measure_kind(
    scene: Scene, kind: str, spoiled: Callable[[], AbstractContextManager[None]], seconds: float, result: Result
) -> None:
    before = {each: scene.counted(each) for each in SIBLINGS}
    turns: dict[str, list[Turn]] = {"without": [], "with": []}
    count = scene.stage.runs or TURNS
    with spoiled():
        for number in range(count):
            for how in list(turns)[:: -1 if number % 2 else 1]:
                quiet()
                firewall = scene.told if how == "with" else scene.bare
                turns[how].append(scene.load(firewall, seconds / count))
    back = scene.flows_after()
    for name in ("p50_ms", "p99_ms", "p50_dns_ms", "p99_dns_ms"):
        short = f"{kind}: {name.removesuffix('_ms')}"
        without, with_it = (
            Series(f"{short} {how}", tuple(float(turn.met[name]) for turn in taken), "ms")
            for how, taken in turns.items()
        )
        result.series += [without, with_it]
        most = max(MOST_MORE_MS, MOST_MORE_SHARE * without.median)
        more = median(one - other for one, other in zip(with_it.values, without.values, strict=True))
        result.bounds.append(Bound(f"{short}: more", most, more, "ms"))
    failed, as_well = (sum(turn.met["failed"] for turn in turns[how]) for how in ("with", "without"))
    result.bounds.append(Bound(f"{kind}: more failed requests", 0, failed - as_well))
    for each in SIBLINGS:
        bare, told = (taken[-1].megabytes[each] for taken in turns.values())
        result.bounds.append(Bound(f"{kind}: more memory of {each}", MOST_MEGABYTES, told - bare, "MB"))
    result.bounds.append(Bound(f"{kind}: until records flow again", MOST_SECONDS, back, "s"))
    uncounted = _uncounted(scene, before, sum(turn.answered for turn in turns["with"]))
    result.bounds.append(Bound(f"{kind}: answers without a counted record", 0, uncounted))
    after = {each: scene.counted(each) for each in SIBLINGS}
    met = {how: [turn.met for turn in taken] for how, taken in turns.items()}
    result.raw[kind] = {**met, "before": before, "after": after, "back": back}
    change = {each: {how: after[each][how] - before[each][how] for how in ("sent", "lost")} for each in SIBLINGS}
    shares = (f"{each} {change[each]['sent']:,} sent, {change[each]['lost']:,} lost" for each in SIBLINGS)
    result.notes.append(f"{kind}: {'; '.join(shares)}")
    for each in SIBLINGS:
        bare, told = (
            sum(turn.processor_seconds[each] for turn in taken) / sum(turn.answered for turn in taken) * 1e6
            for taken in turns.values()
        )
        result.notes.append(
            f"{kind}: {each} {bare:.0f} µs of processor time for each answer without, {told:.0f} with"
        )


def _spent(siblings: Siblings) -> dict[str, float]:
    """Return the processor time of each sibling so far."""
    spent = siblings.processor_seconds()
    return {each: sum(seconds for name, seconds in spent.items() if name.startswith(each)) for each in SIBLINGS}


def _uncounted(scene: Scene, before: Mapping[str, Mapping[str, int]], answered: int) -> int:
    """Return of how many answered queries CoreDNS does not know what became of their records."""
    known = sum(before["coredns"].values())

    def left() -> int:
        return max(0, answered - (sum(scene.counted("coredns").values()) - known))

    end = time.monotonic() + _COUNTED_SECONDS
    while left() and time.monotonic() < end:
        time.sleep(1)  # each look runs a program in the container that is measured
    return left()


@contextmanager
def _scene(stage: Stage) -> Iterator[Scene]:
    engine = PrivateEngine(Path(stage.firewall.host.removeprefix("unix://")).parent)
    if engine.init is None:
        raise EngineError("the collector runs in the network of a private engine: choose one with --kind")
    engine.run_in_network(["ip", "address", "add", f"{HOST}/32", "dev", "lo"])
    folder = stage.firewall.folder
    told = replace(stage.firewall, variables={"XDG_STATE_HOME": str(folder)})
    bare = replace(stage.firewall, project=f"{told.project}0", folder=folder / "bare")
    bare.folder.mkdir()
    store = _store(folder, told.project)
    store.provide()
    trusted, pair = store.collector(NAME)
    limits = {"connections_per_second": 100_000, "queries_per_second": 100_000}
    try:
        with Collector(folder / "collector", _endpoint(), pair, trusted, _apart(engine)) as collector:
            told.write(*RULES, limits=limits, otel={"endpoint": _endpoint(), "server_name": NAME})
            bare.write(*RULES, limits=limits)
            agents = {each.project: _up(stage, each) for each in (bare, told)}
            resolvers = {each.project: str(each.status()["agent"]["dns"]) for each in (bare, told)}
            yield Scene(stage, engine, bare, told, agents, resolvers, collector, folder)
    finally:
        remove_project(stage.docker, bare.project)


def _up(stage: Stage, firewall: Firewall) -> Peer:
    """Bring a stack up with an origin, and return an agent of it."""
    firewall.run()
    firewall.origin(stage.peers, NAMES)
    return firewall.agent(stage.peers)


def _apart(engine: PrivateEngine) -> list[str]:
    """Return the command that a collector is started with: it only gets what the siblings leave of the processors.

    Elsewhere it is on another machine. After each sleep it has much to do at once.
    """
    return ["nice", "--adjustment=19", *engine.network_argv()]


def _store(folder: Path, project: str) -> TelemetryStore:
    return TelemetryStore(folder / "clawker-fw" / "certs" / project, project, keeps=True)


def _endpoint() -> str:
    return f"{HOST}:{PORT}"
