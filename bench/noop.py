"""A look at a current stack, `drift` and `run` with nothing to do, beside the same calls one after the other.

Everything counts from the start of the process to its end, imports included. That both make the same calls is
checked first.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.figures import Result, interleaved, ratio
from bench.stage import RULES, Stage
from clawker_fw.engine.docker import connect
from devkit import stacks
from devkit.stacks import environment

RUNS = 15
AT_MOST_TIMES = 1.5
_FOLDER = Path(__file__).parent
_SHOWN = 12


def measure(stage: Stage) -> Result:
    """Compare both commands with the bare script, and with what no Python program is quicker than."""
    firewall = stage.firewall
    firewall.write(*RULES)
    firewall.run()
    facts = connect(firewall.host, None, {}).facts()
    references = [image.reference for image in stacks.blueprint(facts).images.values()]
    bare = [sys.executable, str(_FOLDER / "bare_look.py"), firewall.host, firewall.project, *references]
    drift, run = firewall.command("drift"), firewall.command("run")
    calls = _recorded(stage, bare)
    for command in (drift, run):
        if (made := _recorded(stage, command)) != calls:
            raise AssertionError(f"not the same calls:\n{made - calls}\nagainst\n{calls - made}")

    def seconds(command: Sequence[str]) -> float:
        return firewall.call_raw(command).expect().seconds

    python = [sys.executable, "-c"]
    ways = {
        "clawker-fw drift": drift,
        "clawker-fw run": run,
        "the same calls, bare": bare,
        "python -c 'import docker'": [*python, "import docker"],
        "python -c pass": [*python, "pass"],
    }
    series = interleaved(stage.runs or RUNS, {name: partial(seconds, command) for name, command in ways.items()})
    floor = series["the same calls, bare"]
    imports = _imports(drift)
    return Result(
        series=list(series.values()),
        bounds=[
            ratio(f"{name} / the same calls, bare", AT_MOST_TIMES, series[name], floor)
            for name in ("clawker-fw drift", "clawker-fw run")
        ],
        notes=[
            f"{calls.total()} calls each.",
            "What `drift` imports, ms by package without what each imports in turn (python -X importtime):",
            ", ".join(f"{name} {milliseconds:.0f}" for name, milliseconds in imports.most_common(_SHOWN)),
        ],
        raw={"calls": calls, "imports_ms": imports},
    )


def _recorded(stage: Stage, command: Sequence[str]) -> Counter[str]:
    """Return the calls that a Python command line makes to the engine."""
    python, *program = command
    out = stage.firewall.folder / "calls.json"
    stage.firewall.call_raw([python, str(_FOLDER / "recorded.py"), str(out), *program]).expect()
    return Counter(json.loads(out.read_text()))


def _imports(command: Sequence[str]) -> Counter[str]:
    """Return the milliseconds that importing each package takes."""
    python, *program = command
    told = subprocess.run(
        [python, "-X", "importtime", *program], env=environment(), capture_output=True, text=True, check=True
    )
    spent: Counter[str] = Counter()
    for line in told.stderr.splitlines():
        times, _, module = line.removeprefix("import time:").rpartition("|")
        own = times.partition("|")[0].strip()
        if own.isdigit():
            spent[module.strip().partition(".")[0]] += int(own) / 1000  # type: ignore[assignment]  # any number does
    return spent
