"""The peer program without containers: an origin that proves its name, and an agent that makes requests."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def origin(program: Path, trusted: Path, *arguments: str) -> Iterator[None]:
    """Run an origin until the context ends, and write its certificate into a file."""
    with subprocess.Popen([program, "origin", *arguments], stdout=subprocess.PIPE) as running:
        assert running.stdout
        trusted.write_text(json.loads(running.stdout.readline())["certificate"])
        try:
            yield
        finally:
            running.terminate()


def drive(program: Path, *arguments: str, before: Sequence[str] = ()) -> dict[str, float]:
    """Make requests, and return what became of them. `before` are arguments that come before the program.

    Raises:
        AssertionError: when no request was answered.
    """
    done = subprocess.run([*before, program, "drive", *arguments], capture_output=True, text=True, check=False)
    passed: dict[str, float] = json.loads(done.stdout)
    if passed["requests"] == passed["failed"]:
        raise AssertionError(f"nothing passed: {done.stdout}")
    return passed
