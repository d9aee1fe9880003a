"""A watcher that runs as a process during a test or a benchmark, and its records as they arrive."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from devkit.firewall import Firewall
from devkit.waiting import until

STOP_SECONDS = 30


@dataclass
class Watching:
    """A running watcher. `records` are all its records, each with the time of reading in the field `read`."""

    process: "subprocess.Popen[str]"
    records: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> None:
        assert self.process.stderr is not None  # noqa: S101 - it was started with a pipe
        for line in self.process.stderr:
            if line.startswith("{"):
                self.records.append({**json.loads(line), "read": time.monotonic()})

    @property
    def decisions(self) -> list[dict[str, Any]]:
        return [each for each in self.records if each["event"] == "watch_decision"]

    def wait(self, wanted: Callable[[dict[str, Any]], bool], *, since: int = 0) -> Any:  # noqa: ANN401 - JSON
        """Return the first wanted decision after the first `since` decisions."""
        return until(lambda: next((each for each in self.decisions[since:] if wanted(each)), None))

    def healed(self, *, since: int = 0) -> Any:  # noqa: ANN401 - JSON
        return self.wait(lambda each: each.get("outcome") == "done", since=since)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def watching(firewall: Firewall, *options: str, before: Sequence[str] = ()) -> Iterator[Watching]:
    """Yield a watcher that has compared the stack. `before` are arguments for a program around it."""
    process = firewall.start_raw([*before, *firewall.command("--log-format", "json", "watch", *options)])
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
