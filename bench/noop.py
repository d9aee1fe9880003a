"""`drift` and `run` on a current stack, compared with the same engine calls made one by one.

Times are those of whole processes, including imports. It is checked first that both make the same calls. The
script makes them with the Docker SDK, as such scripts are written; the program asks an engine of this machine
without it. The lower bound for a command is the import of the libraries, plus its slowest call.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.figures import Bound, Result, Series, interleaved, ratio
from bench.quiet import quiet
from bench.stage import Stage
from clawker_fw.engine.docker import connect
from devkit import stacks
from devkit.firewall import RULES, Firewall
from devkit.stacks import environment

RUNS = 15
AT_MOST_TIMES = 1.0
AT_MOST_TIMES_SLOWEST = 1.6
HELP_AT_MOST_TIMES = 3.0
_FOLDER = Path(__file__).parent
_LIBRARIES = "import typer, http.client, pydantic, yaml"
_SHOWN = 12


def measure(stage: Stage) -> Result:
    """Compare both commands with the bare script, and with the lower bound for a Python program."""
    firewall, runs = stage.firewall, stage.runs or RUNS
    firewall.write(*RULES)
    firewall.run()
    facts = connect(firewall.host, None, {}).facts()
    references = [image.reference for image in stacks.blueprint(facts).images.values()]
    bare = [sys.executable, str(_FOLDER / "bare_look.py"), firewall.host, firewall.project, *references]
    drift, run = firewall.command("drift"), firewall.command("run")
    calls, _ = _recorded(firewall, bare)
    for command in (drift, run):
        if (made := _recorded(firewall, command)[0]) != calls:
            raise AssertionError(f"not the same calls:\n{made - calls}\nagainst\n{calls - made}")

    def seconds(command: Sequence[str]) -> float:
        return firewall.call_raw(command).expect().seconds

    python = [sys.executable, "-c"]
    ways = {
        "clawker-fw drift": drift,
        "clawker-fw run": run,
        "the same calls, bare": bare,
        "the libraries, imported": [*python, _LIBRARIES],
        "clawker-fw --help": firewall.command("--help"),
        "python -c 'import typer'": [*python, "import typer"],
        "python -c pass": [*python, "pass"],
    }
    series = interleaved(runs, {name: partial(seconds, command) for name, command in ways.items()})
    slowest = Series("the slowest call of a drift", tuple(_slowest(firewall, drift) for _ in range(runs)))
    floor = series["the same calls, bare"]
    least = AT_MOST_TIMES_SLOWEST * slowest.median + series["the libraries, imported"].median
    imports = _imports(drift)
    return Result(
        series=[*series.values(), slowest],
        bounds=[
            *(
                ratio(f"{name} / the same calls, bare", AT_MOST_TIMES, series[name], floor)
                for name in ("clawker-fw drift", "clawker-fw run")
            ),
            *(
                Bound(
                    f"{name} / ({AT_MOST_TIMES_SLOWEST} x slowest + libraries)", 1.0, series[name].median / least
                )
                for name in ("clawker-fw drift", "clawker-fw run")
            ),
            ratio(
                "clawker-fw --help / python -c 'import typer'",
                HELP_AT_MOST_TIMES,
                series["clawker-fw --help"],
                series["python -c 'import typer'"],
            ),
        ],
        notes=[
            f"{calls.total()} calls each.",
            "What `drift` imports, ms by package without what each imports in turn (python -X importtime):",
            ", ".join(f"{name} {milliseconds:.0f}" for name, milliseconds in imports.most_common(_SHOWN)),
        ],
        raw={"calls": calls, "imports_ms": imports},
    )


def _recorded(firewall: Firewall, command: Sequence[str]) -> tuple[Counter[str], list[float]]:
    """Return the calls that a Python command makes to the engine, with the seconds of each."""
    python, *program = command
    out = firewall.folder / "calls.json"
    firewall.call_raw([python, str(_FOLDER / "recorded.py"), str(out), *program]).expect()
    found = json.loads(out.read_text())
    # `run` asks for a probe without the rules in full, which is shorter: the same calls otherwise.
    return Counter(each.replace(', "quick"]', "]") for each in found["calls"]), found["seconds"]


def _slowest(firewall: Firewall, command: Sequence[str]) -> float:
    quiet()
    return max(_recorded(firewall, command)[1])


def _imports(command: Sequence[str]) -> Counter[str]:
    """Return the import time of each package in milliseconds."""
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
