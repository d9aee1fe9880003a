"""`docker restart` of one sibling or both after a replacement: the stack recovers by itself."""

import time
from concurrent.futures import ThreadPoolExecutor

from bench.figures import Bound, Result, Series
from bench.stage import REPLACE, Stage
from devkit.peers import Peer
from devkit.waiting import until

RUNS = 3
WHICH = (("envoy",), ("coredns",), ("envoy", "coredns"))
AT_MOST_SECONDS = 30
PATIENCE = "300ms"


def measure(stage: Stage) -> Result:
    """Replace both siblings, restart some, and wait until an agent is served and nothing has drifted."""
    firewall = stage.up()
    agent = firewall.agent(stage.peers)
    served: dict[str, list[float]] = {" and ".join(siblings): [] for siblings in WHICH}
    down, drifted = 0, 0

    def restart(sibling: str) -> None:
        stage.docker.restart(firewall.container(sibling), timeout=5)

    for _ in range(stage.runs or RUNS):
        for siblings in WHICH:
            firewall.call(*REPLACE, "--drain-timeout", "1s").expect()
            began = time.monotonic()
            with ThreadPoolExecutor() as pool:
                list(pool.map(restart, siblings))
            try:
                until(lambda: _is_served(agent), AT_MOST_SECONDS)
            except TimeoutError:
                down += 1
                continue
            served[" and ".join(siblings)].append(time.monotonic() - began)
            drifted += firewall.drift().code != 0
    restarts = (stage.runs or RUNS) * len(WHICH)
    return Result(
        series=[Series(f"restart of {name}, until served", tuple(each)) for name, each in served.items() if each],
        bounds=[
            Bound(f"restarts after which agents were not served, of {restarts}", 0, down),
            Bound("restarts after which something had drifted", 0, drifted),
        ],
        notes=[
            f"Asked anew after {PATIENCE}. A lookup that meets a restarting resolver is lost: an agent that",
            "is more patient waits for its resolver's own timeout, 5 s as a rule.",
        ],
    )


def _is_served(agent: Peer) -> bool:
    return all(agent.get(url, "--timeout", PATIENCE).ok for url in ("https://a.test/", "http://h.test/"))
