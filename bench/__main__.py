"""`python -m bench` lists the benchmarks, `python -m bench NAME…` runs some of them, `python -m bench all` all.

The exit code is 1 if a promise is broken.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace as with_options

from bench import crowd, dataplane, fair, groups, machine, noop, replace, replace_time, scale, upstream
from bench.figures import Result
from bench.stage import Stage, engine, stage
from devkit.engines import KINDS, EngineError

BENCHMARKS: Mapping[str, Callable[[Stage], Result]] = {
    "replace": replace.measure,
    "noop": noop.measure,
    "replace_time": replace_time.measure,
    "scale": scale.measure,
    "dataplane": dataplane.measure,
    "fair": fair.measure,
    "crowd": crowd.measure,
    "groups": groups.measure,
    "upstream": upstream.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure what the project promises.")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], "all", *BENCHMARKS])
    parser.add_argument("--kind", choices=("installed", *KINDS), help="on a private engine of this kind")
    parser.add_argument("--runs", type=int, help="how often each thing is measured, instead of the usual")
    parser.add_argument(
        machine.OPTION, action="store_true", help="in a virtual machine with version 2 of control groups"
    )
    attacks = parser.add_argument_group("fair, and some others")
    attacks.add_argument("--seconds", type=float, help="the duration of each attack (30), or of `crowd` (600)")
    attacks.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORD",
        help="only attacks, or sizes of `scale`, with this word",
    )
    chosen = parser.parse_args()
    if not chosen.names:
        for name in BENCHMARKS:
            print(f"{name:16} {_summary(name)}")
        return 0
    if chosen.cgroup2:
        return machine.run([argument for argument in sys.argv[1:] if argument != machine.OPTION], chosen.kind)
    # Installed programs have compiled bytecode, so the measured ones must have it too.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    kept = True
    with engine(chosen.kind) as host:
        for name in BENCHMARKS if "all" in chosen.names else chosen.names:
            print(f"{name}: {_summary(name)}\n", flush=True)
            with stage(host, chosen.kind, chosen.runs) as made:
                place = with_options(made, seconds=chosen.seconds, only=tuple(chosen.only))
                circumstances = place.circumstances()
                try:
                    result = BENCHMARKS[name](place)
                except EngineError as error:
                    print(f"  not measured: {error}\n", flush=True)
                    kept = False
                    continue
            result.print()
            result.write(name, circumstances)
            kept &= all(bound.holds for bound in result.bounds)
    return 0 if kept else 1


def _summary(name: str) -> str:
    return str(sys.modules[BENCHMARKS[name].__module__].__doc__).partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
