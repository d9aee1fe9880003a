"""`drift` over ssh, compared with `drift` of the same engine here and a login of its own.

The floor is what nobody can do without: the same `drift` over the engine's socket, and one login with `ssh`.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from bench.figures import Bound, Result, interleaved
from bench.stage import Stage
from devkit.firewall import RULES
from devkit.sshd import sshd

RUNS = 10
AT_MOST_TIMES = 2.0


def measure(stage: Stage) -> Result:
    """Compare a stack over both ways, and log in."""
    firewall = stage.firewall
    firewall.write(*RULES)
    firewall.run()
    with tempfile.TemporaryDirectory() as folder, sshd(firewall.host, Path(folder)) as door:
        far = replace(firewall, host=door.address, variables=door.variables)
        ways = {
            "drift over ssh": lambda: far.drift().expect().seconds,
            "drift here": lambda: firewall.drift().expect().seconds,
            "a login": lambda: far.call_raw(["ssh", door.address, "true"]).expect().seconds,
        }

        series = interleaved(stage.runs or RUNS, ways)
    far_, here, login = (series[name].median for name in ways)
    return Result(
        series=list(series.values()),
        bounds=[Bound("drift over ssh / (drift here + a login)", AT_MOST_TIMES, far_ / (here + login))],
    )
