"""`denials` over a log as large as is kept by default, and over a million lines, equal ones and different ones.

The log of a sibling is written in its place, so the engine has to be on this machine, and its files writable.
"""

import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Bound, Result, Series
from bench.stage import Stage
from clawker_fw.model import Sibling

RUNS = 3
KEPT, MANY = 64_000, 1_000_000
KEPT_SECONDS, MANY_SECONDS, MANY_MEGABYTES = 1.0, 10.0, 200.0


def measure(place: Stage) -> Result:
    """Run the command several times over each log."""
    firewall = place.up()
    (container,) = (
        each for each in place.docker.containers() if f"/{firewall.container(Sibling.COREDNS)}" in each["Names"]
    )
    log = _root(firewall.host) / place.docker.inspect_container(container["Id"])["LogPath"].lstrip("/")
    logs: dict[str, tuple[int, Callable[[int], str]]] = {
        "kept by default": (KEPT, lambda number: f"n{number % 50}.test"),
        "a million": (MANY, lambda number: f"n{number % 50}.test"),
        "a million different ones": (MANY, lambda number: f"n{number}.test"),
    }
    seconds: dict[str, tuple[float, ...]] = {}
    megabytes: dict[str, tuple[float, ...]] = {}
    for name, (lines, asked) in logs.items():
        _write(log, lines, asked)
        runs = [_run(firewall.command("denials", "--top", "20")) for _ in range(place.runs or RUNS)]
        seconds[name], megabytes[name] = (tuple(column) for column in zip(*runs, strict=True))
    return Result(
        series=[
            *(Series(f"{name}: seconds", values) for name, values in seconds.items()),
            *(Series(f"{name}: memory", values, "MB") for name, values in megabytes.items()),
        ],
        bounds=[
            Bound("what is kept by default", KEPT_SECONDS, min(seconds["kept by default"]), "s"),
            Bound("a million lines", MANY_SECONDS, min(seconds["a million"]), "s"),
            Bound("a million different lines", MANY_SECONDS, min(seconds["a million different ones"]), "s"),
            Bound("memory", MANY_MEGABYTES, max(map(max, megabytes.values())), "MB"),
        ],
    )


def _root(address: str) -> Path:
    """Return the root of the engine that listens at an address: its data may be in a file system of its own."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address.removeprefix("unix://"))
        whose = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Path("/proc", str(struct.unpack("3i", whose)[0]), "root")  # unix(7): process, user and group


def _write(log: Path, lines: int, asked: Callable[[int], str]) -> None:
    """Write a log as the engine does, with refusals of 20 agents."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    with log.open("w") as file:
        for number in range(lines):
            record = {
                "time": now,
                "source": f"10.213.0.{number % 20 + 2}:{number % 50_000 + 1024}",
                "protocol": "dns",
                "port": 53,
                "name": asked(number),
                "type": "A",
                "reason": "no-rule",
            }
            line = json.dumps(record, separators=(",", ":")) + "\n"
            file.write(json.dumps({"log": line, "stream": "stdout", "time": now}, separators=(",", ":")) + "\n")


def _run(command: list[str]) -> tuple[float, float]:
    """Run a command to its end, and return its seconds and its most megabytes."""
    began = datetime.now(UTC)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return (datetime.now(UTC) - began).total_seconds(), usage.ru_maxrss / 1024
