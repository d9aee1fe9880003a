"""`drift`, `status` and `run` on a current stack, compared with the same engine calls made one by one.

Times are those of whole processes, including imports. It is checked first that `drift`, `run` and the script make
the same calls. The script makes them with the Docker SDK, as such scripts are written.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.figures import Bound, Result, interleaved, ratio
from bench.stage import Stage
from clawker_fw.engine.docker import connect
from devkit import stacks
from devkit.firewall import RULES, Firewall

RUNS = 15
AT_MOST_TIMES, AT_MOST_SECONDS = 2.0, 1.0
HELP_AT_MOST_TIMES = 3.0
_FOLDER = Path(__file__).parent


def measure(stage: Stage) -> Result:
    firewall, runs = stage.firewall, stage.runs or RUNS
    firewall.write(*RULES)
    firewall.run()
    facts = connect(firewall.host, None, {}).facts()
    references = [image.reference for image in stacks.blueprint(facts).images.values()]
    bare = [sys.executable, str(_FOLDER / "bare_look.py"), firewall.host, firewall.project, *references]
    commands = {f"clawker-fw {name}": firewall.command(name) for name in ("drift", "status", "run")}
    drift, _, run = commands.values()
    calls = _recorded(firewall, bare)
    for command in (drift, run):
        if (made := _recorded(firewall, command)) != calls:
            raise AssertionError(f"not the same calls:\n{made - calls}\nagainst\n{calls - made}")

    def seconds(command: Sequence[str]) -> float:
        return firewall.call_raw(command).expect().seconds

    python = [sys.executable, "-c"]
    ways = {
        **commands,
        "the same calls, bare": bare,
        "clawker-fw --help": firewall.command("--help"),
        "python -c 'import typer'": [*python, "import typer"],
        "python -c pass": [*python, "pass"],
    }
    series = interleaved(runs, {name: partial(seconds, command) for name, command in ways.items()})
    floor = series["the same calls, bare"]
    return Result(
        series=list(series.values()),
        bounds=[
            *(ratio(f"{name} / the same calls, bare", AT_MOST_TIMES, series[name], floor) for name in commands),
            *(Bound(name, AT_MOST_SECONDS, series[name].median, "s") for name in commands),
            ratio(
                "clawker-fw --help / python -c 'import typer'",
                HELP_AT_MOST_TIMES,
                series["clawker-fw --help"],
                series["python -c 'import typer'"],
            ),
        ],
        notes=[f"{calls.total()} calls each."],
        raw={"calls": calls},
    )


def _recorded(firewall: Firewall, command: Sequence[str]) -> Counter[str]:
    python, *program = command
    out = firewall.folder / "calls.json"
    firewall.call_raw([python, str(_FOLDER / "recorded.py"), str(out), *program]).expect()
    return Counter(json.loads(out.read_text()))
