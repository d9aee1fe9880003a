"""What earlier commands have left in the user's folders decides nothing: whatever can be computed is computed."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devkit.stacks import CHECKOUT, environment

PROGRAM = Path(__file__).with_name("program.py")
FOLDERS = {"XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config", "XDG_STATE_HOME": "state", "HOME": "home"}
SETTINGS = "rules:\n  - dst: a.test\n"

EARLIER = (
    "cache/clawker-fw/digests.json",
    "cache/clawker-fw/image.json",
    "state/clawker-fw/certs/clawker/settings.json",
    "state/clawker-fw/certs/clawker/outlines.json",
)
"""Files that earlier releases trusted."""

Drift = Callable[[], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def drift(tmp_path: Path) -> Drift:
    """Compares a running stack with its settings, in a process of its own and with folders of its own."""
    (tmp_path / "clawker-fw.yaml").write_text(SETTINGS)
    variables = {name: str(tmp_path / folder) for name, folder in FOLDERS.items()}

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, str(PROGRAM), "a.test", "--", "drift", "--format", "json"],
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(CHECKOUT), **variables),
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def left(folder: Path) -> list[Path]:
    """Return the files that commands have left in the user's folders."""
    return sorted(each for name in FOLDERS.values() for each in (folder / name).rglob("*") if each.is_file())


def attacked(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return what an attacker would write in place of a value, with the sum that goes with it."""
    if isinstance(value, dict):
        return {key: attacked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [attacked(each) for each in value]
    if not isinstance(value, str):
        return value
    first, _, rest = value.partition("\n")
    changed = rest.replace("connect_timeout: 10s", "connect_timeout: 9s").replace("a.test", "evil.test")
    return f"{hashlib.sha256(changed.encode()).hexdigest()}\n{changed}" if rest and len(first) == 64 else value


def as_attacker(content: str) -> str:
    """Return an attacker's version of a file: JSON, or JSON after a line with a sum of what it follows from."""
    first, _, rest = content.partition("\n")
    try:
        return json.dumps(attacked(json.loads(content)))
    except ValueError:
        return f"{first}\n{rest.replace('a.test', 'evil.test')}"


@pytest.mark.parametrize("change", [as_attacker, lambda _: "\0garbage", lambda _: "{}"])
def test_what_is_left_behind_decides_nothing(change: Callable[[str], str], drift: Drift, tmp_path: Path) -> None:
    """Neither an attacker's entries nor garbage change what is desired, nor the verdict."""
    clean = drift()
    assert (clean.returncode, json.loads(clean.stdout)["verdict"]) == (0, "current"), clean.stderr
    for path in left(tmp_path):
        path.write_text(change(path.read_text()))
    for name in EARLIER:
        path = tmp_path / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(change("{}"))
    again = drift()
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout) == json.loads(clean.stdout)


def test_a_comparison_leaves_nothing_behind(drift: Drift, tmp_path: Path) -> None:
    """Without telemetry and inspected hosts, there is nothing that a later command would have to know."""
    assert drift().returncode == 0
    assert left(tmp_path) == []
