"""1,000 watchers that poll one registry, and one change of the rules: requests a second, time until all have it.

The watchers' own polling code and schedule, each with its own folder and its own connections, against a real
docker-registry. Time is virtual between the polls, so that half an hour of it takes a minute:
who asks when, and how often, is what it would be. How long a poll takes is measured.
"""

import heapq
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Bound, Result, Series
from bench.stage import Stage
from clawker_fw.settings.bundles.http import Http, Response
from clawker_fw.settings.bundles.reference import Reference
from clawker_fw.settings.bundles.registry import Repository
from clawker_fw.settings.bundles.store import Store
from clawker_fw.settings.bundles.taking import Asked, Bundles
from clawker_fw.watch.polling import FIRST_SECONDS, BundlePoll
from devkit.bundles import keys, pushed
from devkit.registry import own_registry

WATCHERS = 1_000
INTERVAL = 300.0
CHANGED, END = 900.0, 1800.0
"""When the rules change, and when it is over, in virtual seconds after the watchers have started."""

MOST_TIMES_MEAN = 4.0
"""The peak of requests a second while nothing changes, compared with their mean."""

MOST_REQUESTS = 5
"""Requests for a bundle that has changed: its digest, its manifest, the signatures, the payload, the text."""

_RULES = 200


@dataclass
class Counted:
    """The requests of all watchers, by virtual second."""

    now: float = 0.0
    seconds: Counter[int] = field(default_factory=Counter)

    def opened(self, reference: Reference) -> Repository:
        """Return a repository whose requests are counted."""
        return Repository(reference, lambda _: None, _CountedHttp(reference.host, self))


class _CountedHttp(Http):
    def __init__(self, host: str, counted: Counted) -> None:
        super().__init__(host, {})
        self._counted = counted

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"", *, most: int = 0
    ) -> Response:
        """Count a request."""
        self._counted.seconds[int(self._counted.now)] += 1
        return super().exchange(method, target, headers, body, most=most)


def measure(stage: Stage) -> Result:
    """Let them poll for half an hour of virtual time, with a change after a quarter of an hour."""
    del stage
    counted, taken, polls = Counted(), [], []
    with tempfile.TemporaryDirectory() as made, own_registry(Path(made)) as address:
        folder = Path(made)
        signer = keys(folder, "rules")
        reference = f"oci://{address}/team/rules:production"
        pushed(reference, signer.private, _text("before"))
        due: list[tuple[float, int, BundlePoll]] = []
        chance = random.Random(1)  # noqa: S311 - the same polls each time

        def watcher(number: int) -> BundlePoll:
            bundles = Bundles(Store(folder / str(number)), counted.opened, lambda *_: None)

            def ask() -> Sequence[Asked]:
                began = time.perf_counter()
                found = bundles.ask(reference, [signer.public])
                polls.append(time.perf_counter() - began)
                return [Asked(reference, taken=found)]

            ask()  # what it has kept from before
            return BundlePoll(INTERVAL, ask, lambda _: None, chance.random, now=0.0)

        for number in range(WATCHERS):
            poll = watcher(number)
            heapq.heappush(due, (poll.due, number, poll))
        memory = _memory()
        counted.seconds.clear()
        polls.clear()
        began, changed = time.perf_counter(), False
        while due[0][0] < END:
            counted.now, number, poll = heapq.heappop(due)
            if not changed and counted.now >= CHANGED:
                pushed(reference, signer.private, _text("after"))
                changed = True
            if poll.poll(counted.now):
                taken.append(counted.now - CHANGED)
            heapq.heappush(due, (poll.due, number, poll))
        spent = time.perf_counter() - began
        alone = _alone(reference, signer.public, folder / "alone")
    first, calm = _rates(counted, 0, FIRST_SECONDS), _rates(counted, 2 * INTERVAL, CHANGED)
    after = _rates(counted, CHANGED, CHANGED + 1.2 * INTERVAL)
    return Result(
        series=[
            Series("time until a watcher has the change (virtual)", tuple(taken)),
            Series("one poll", tuple(polls)),
        ],
        bounds=[
            Bound("watchers without the change / watchers", 0.0, 1 - len(taken) / WATCHERS),
            Bound("time until all have it / interval", 1.21, max(taken) / INTERVAL),
            Bound(
                "requests a second while nothing changes / (watchers / interval)",
                1.1,
                calm[0] * INTERVAL / WATCHERS,
            ),
            Bound("their peak / (watchers / interval)", MOST_TIMES_MEAN, calm[1] * INTERVAL / WATCHERS),
            Bound(
                "requests for the change / watchers",
                MOST_REQUESTS + 0.5,  # some poll twice meanwhile
                sum(_of(counted, CHANGED, CHANGED + 1.2 * INTERVAL)) / WATCHERS,
            ),
        ],
        notes=[
            f"{WATCHERS:,} watchers, every {INTERVAL:.0f} s ± 20 %, {_RULES} rules.",
            f"Requests a second (mean, peak), in the first {FIRST_SECONDS:.0f} s: {first[0]:.1f}, {first[1]}.",
            f"While nothing changes: {calm[0]:.1f}, {calm[1]}. After the change: {after[0]:.1f}, {after[1]}.",
            f"{sum(counted.seconds.values()):,} requests in {spent:.0f} s of real time, one after the other.",
            f"Memory of a process with a watcher's code: {alone[0]:.0f} MiB; after 100 polls {alone[1]:.0f} MiB.",
            f"All {WATCHERS:,} watchers' polling in one process: {memory:.0f} MiB.",
        ],
        raw={"requests": dict(counted.seconds), "taken": taken},
    )


def _text(word: str) -> bytes:
    return "".join(["rules:\n", *(f"- {{dst: {word}-{each}.example.com}}\n" for each in range(_RULES))]).encode()


def _of(counted: Counted, begin: float, end: float) -> list[int]:
    return [counted.seconds[each] for each in range(int(begin), int(end))]


def _rates(counted: Counted, begin: float, end: float) -> tuple[float, int]:
    """Return the mean and the peak of requests a second."""
    found = _of(counted, begin, end)
    return statistics.fmean(found), max(found)


def _memory() -> float:
    """Return the peak of this process's memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


_ALONE = """
import os, resource, sys
from pathlib import Path
from clawker_fw.watch import watcher
def memory():
    return int(next(each for each in open("/proc/self/status") if each.startswith("VmRSS")).split()[1]) / 1024
before = memory()
from clawker_fw.cli import registries
from clawker_fw.settings.bundles.store import Store
from clawker_fw.settings.bundles.taking import Bundles
bundles = Bundles(Store(Path(sys.argv[3])), registries.opened, lambda *_: None)
bundles.ask(sys.argv[1], [Path(sys.argv[2])])
for _ in range(100):
    bundles.ask(sys.argv[1], [Path(sys.argv[2])])
print(before, memory())
"""


def _alone(reference: str, key: Path, folder: Path) -> tuple[float, float]:
    """Return the memory in MiB of a process with a watcher's code, before it asks, and after it has asked."""
    argv = [sys.executable, "-c", _ALONE, reference, str(key), str(folder)]
    before, after = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    return float(before), float(after)
