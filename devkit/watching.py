"""A watcher as a process beside a test or a benchmark, and the records it writes as they come."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from devkit.firewall import Firewall
from devkit.waiting import until

STOP_SECONDS = 30


@dataclass
class Watching:
    """A watcher at work. `records` are all that it has written, each with the moment it was read, as `read`."""

    process: "subprocess.Popen[str]"
    records: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> None:
        """Take in records until the watcher ends."""
        assert self.process.stderr is not None  # noqa: S101 - it was started with a pipe
        for line in self.process.stderr:
            if line.startswith("{"):
                self.records.append({**json.loads(line), "read": time.monotonic()})

    @property
    def decisions(self) -> list[dict[str, Any]]:
        """The decisions so far."""
        return [each for each in self.records if each["event"] == "watch_decision"]

    def wait(self, wanted: Callable[[dict[str, Any]], bool], *, since: int = 0, seconds: float = 30) -> Any:  # noqa: ANN401 - JSON
        """Return the first decision that is wanted, of those after the first `since`."""
        return until(lambda: next((each for each in self.decisions[since:] if wanted(each)), None), seconds)

    def healed(self, *, since: int = 0) -> Any:  # noqa: ANN401 - JSON
        """Return the first heal that was done, of the decisions after the first `since`."""
        return self.wait(lambda each: each.get("outcome") == "done", since=since)

    def stop(self) -> int:
        """Ask it to end as a service manager does, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def watching(firewall: Firewall, *options: str) -> Iterator[Watching]:
    """Have a stack watched for a while; it has been looked at, by settled settings, when this begins."""
    process = firewall.start("--log-format", "json", "watch", *options)
    found = Watching(process)
    reader = threading.Thread(target=found.read, daemon=True)
    reader.start()
    try:
        found.wait(lambda each: each.get("code") != "settings-changing")
        yield found
    finally:
        try:
            found.stop()
        finally:
            process.kill()
            reader.join(STOP_SECONDS)
            process.communicate()
