"""`fleet status` of 200 hosts, 5 of which accept connections and say nothing: its time, processor time and memory.

The hosts are sockets at which a process gives again what a real engine has answered (`devkit.replay`), with files
of twenty megabytes. It shares the processors with what is measured. The floor is one `drift` after the other.
"""

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.figures import Bound, Result, Series
from bench.quiet import quiet
from bench.stage import Stage
from devkit import replay
from devkit.firewall import RULES
from devkit.stacks import environment

RUNS = 5
HOSTS, SILENT = 200, 5
AT_MOST_SECONDS = 12.0
AT_MOST_OF_DRIFTS = 0.25
AT_MOST_MEGABYTES = 300.0
_SAMPLE_SECONDS = 0.05


def measure(place: Stage) -> Result:
    """Ask all hosts several times, and one of them alone."""
    firewall = place.firewall
    firewall.write(*RULES)
    firewall.run()
    folder = firewall.folder
    engine = Path(firewall.host.removeprefix("unix://"))
    program = [each for each in firewall.command() if each not in {"--host", firewall.host}]

    def status(*sockets: Path) -> list[str]:
        return [*program, "fleet", "status", *(word for each in sockets for word in ("--host", f"unix://{each}"))]

    with replay.recording(engine, folder / "recorder") as recorder:
        firewall.call_raw(status(folder / "recorder")).expect()
    sockets = [folder / f"{number}" for number in range(HOSTS - SILENT)]
    silent = [folder / f"silent{number}" for number in range(SILENT)]
    listening = [replay.listening(each) for each in silent]
    seconds, alone, processor, memory = [], [], [], []
    with replay.served(recorder.answers, sockets, folder):
        drift = [*program, "--host", f"unix://{sockets[0]}", "drift"]
        for _ in range(place.runs or RUNS):
            quiet()
            alone.append(firewall.call_raw(drift).expect().seconds)
            quiet()
            took, spent, most = _measured(status(*sockets, *silent), folder)
            seconds.append(took)
            processor.append(spent)
            memory.append(most)
    for each in listening:
        each.close()
    whole = Series("fleet status", tuple(seconds))
    one = Series("drift of one of them", tuple(alone))
    return Result(
        series=[
            whole,
            one,
            Series("processor time of fleet status", tuple(processor)),
            Series("memory", tuple(memory), "MB"),
        ],
        bounds=[
            Bound(f"{HOSTS} hosts, {SILENT} of them silent", AT_MOST_SECONDS, whole.median, "s"),
            Bound(
                f"the same / {HOSTS} times `drift` of one",
                AT_MOST_OF_DRIFTS,
                whole.median / (HOSTS * one.median),
            ),
            Bound("memory, the most", AT_MOST_MEGABYTES, max(memory), "MB"),
        ],
        notes=[f"{sum(map(len, recorder.answers.values())) / 1e6:.0f} MB are read from each host."],
    )


def _measured(command: Sequence[str], folder: Path) -> tuple[float, float, float]:
    """Run the command, which must find all hosts but the silent ones current.

    Returns its seconds, its processor seconds, and the most megabytes that it had.
    """
    began, before = time.monotonic(), os.times()
    with (folder / "out").open("w+") as out:
        process = subprocess.Popen(command, env=environment(), cwd=folder, stdout=out)
        megabytes = 0.0
        while process.poll() is None:
            megabytes = max(megabytes, _megabytes(process.pid))
            time.sleep(_SAMPLE_SECONDS)
        took, after = time.monotonic() - began, os.times()
        out.seek(0)
        said = out.read().rstrip().rpartition("\n")[2]
    expected = f"{HOSTS - SILENT} of {HOSTS} hosts are current; {SILENT} unreachable."
    if said != expected:
        raise AssertionError(f"{said!r} instead of {expected!r}")
    spent = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return took, spent, megabytes


def _megabytes(process: int) -> float:
    """Return the most memory that a process has had (proc_pid_status(5)); 0 when it has ended."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) * 1024 / 1e6 if found else 0.0
