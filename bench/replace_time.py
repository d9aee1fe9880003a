"""The time of `run` for replacing both siblings without open connections, compared with its fixed waits."""

import re
from collections import defaultdict
from contextlib import closing

from bench.figures import Bound, Result, Series
from bench.quiet import quiet
from bench.stage import REPLACE, Stage
from clawker_fw.engine.docker import connect
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.steps import AwaitTtl, ClaimAddress, ConvergeOptions, InTurn, Plan, Step
from devkit import stacks
from devkit.firewall import RULES

RUNS = 10
AT_MOST_SECONDS = 4


def measure(stage: Stage) -> Result:
    firewall = stage.firewall
    firewall.write(*RULES)
    firewall.run()
    took: list[float] = []
    steps: dict[str, list[float]] = defaultdict(list)
    for _ in range(stage.runs or RUNS):
        quiet()
        outcome = firewall.call(*REPLACE).expect()
        took.append(outcome.seconds)
        for seconds, step in re.findall(r"^done +([\d.]+) s +(.*)$", outcome.err, re.MULTILINE):
            steps[_kind(step, firewall.project)].append(float(seconds))
    whole = Series("run --force-recreate", tuple(took))
    fixed = Series("of it fixed waits", (_fixed_waits(stage),))
    return Result(
        series=[whole, fixed, *(Series(f"  {step}", tuple(values)) for step, values in steps.items())],
        bounds=[
            Bound("run --force-recreate, median", AT_MOST_SECONDS, whole.median, "s"),
            Bound("run --force-recreate, longest", AT_MOST_SECONDS, max(took), "s"),
        ],
        notes=["Indented: the steps, some of them side by side."],
    )


def _kind(step: str, project: str) -> str:
    """Return a description of a step that is the same in every run."""
    return re.sub(r" serves version.*|  .*| for up to.*", "", step).replace(f"{project}-", "").replace("-next", "")


def _fixed_waits(stage: Stage) -> float:
    """Return the fixed waits of a plan. Of parallel steps, the longest counts."""
    with closing(connect(stage.firewall.host, None, {})) as engine:
        wanted = stacks.blueprint(engine.facts(), *RULES, project=stage.firewall.project)
        steps = pipeline.compare(engine, wanted).plan(ConvergeOptions(replace_all=True))
    return waits(steps)


def waits(steps: Plan) -> float:
    return sum(max((_fixed(each) for each in stage), default=0.0) for stage in steps.stages)


def _fixed(each: Step | InTurn) -> float:
    steps = each.steps if isinstance(each, InTurn) else (each,)
    return sum(step.seconds for step in steps if isinstance(step, AwaitTtl | ClaimAddress))
