"""Prints the seconds of each stage in which a settings file is read and rendered, as JSON.

The time of starting the interpreter and of imports is not included.
"""

import itertools
import json
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path

from clawker_fw.model.engines import EngineFacts, Machine
from clawker_fw.model.stacks import Slots
from clawker_fw.reconcile.desired_state import Blueprint, desired_state, prepare
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.settings.document import document_of
from clawker_fw.settings.model import Settings
from clawker_fw.stack.release import Release
from clawker_fw.stack.topology import Addressing
from devkit.programs import machine

ADDRESSES = Addressing(IPv4Network("10.213.0.0/20"), IPv4Network("10.214.0.0/24"))


def stages(path: Path) -> dict[str, float]:
    """Compute the desired state with all its files, as every command does before it compares."""
    engine = EngineFacts(version="", api_version="", architecture=machine())
    release, usual = Release.installed(), Settings(rules=())
    prepare(Blueprint("clawker", usual, RuleSet(), release, engine))
    text = path.read_text(encoding="utf-8")
    times = [time.perf_counter()]
    document = document_of(text, path)
    times.append(time.perf_counter())
    settings = Settings.model_validate(document.values)
    rules = RuleSet.of(
        entry.rule(document.place(("rules", position))) for position, entry in enumerate(settings.rules)
    )
    times.append(time.perf_counter())
    _ = Policy(rules).points
    times.append(time.perf_counter())
    desired_state(Blueprint("clawker", usual, rules, release, engine), ADDRESSES, Machine(), Slots())
    times.append(time.perf_counter())
    names = ("parse", "validate", "compile", "render")
    took = (after - before for before, after in itertools.pairwise(times))
    # Rendering compiles the rules once more.
    found = dict(zip(names, took, strict=True))
    return {**found, "render": found["render"] - found["compile"]}


if __name__ == "__main__":
    print(json.dumps(stages(Path(sys.argv[1]))))
