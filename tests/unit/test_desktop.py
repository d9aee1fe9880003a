"""Clients that are not on Linux, and engines in a virtual machine: what can be tested without either."""

import plistlib
import re
import shlex
from pathlib import Path

import pytest

from clawker_fw.errors import RefusedError
from clawker_fw.watch import service
from clawker_fw.watch.service import ServiceScope, Unit
from devkit import reference
from devkit.stacks import CHECKOUT

PAGE = (CHECKOUT / "docs" / "desktop.md").read_text("utf-8")


def test_there_is_no_service_without_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system nothing is written, and the error says what starts the watcher there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(RefusedError) as caught:
        service.install(Unit(ServiceScope.USER, "clawker", ("watch",), 30))
    assert caught.value.code == "service-unsupported"
    assert "launchd" in caught.value.hint
    assert list(tmp_path.rglob("*")) == []


def test_the_file_for_launchd_is_one() -> None:
    """It is a property list, it starts a watcher again whenever that ends, and each of its words is understood."""
    (text,) = re.findall(r"```xml\n(.*?)```", PAGE, re.DOTALL)
    job = plistlib.loads(text.encode())
    assert job["KeepAlive"] is job["RunAtLoad"] is True
    shell, option, script = job["ProgramArguments"]
    assert (shell, option) == ("/bin/sh", "-c")
    word, program, *arguments = shlex.split(script)
    assert (word, Path(program).name) == ("exec", "clawker-fw")
    known = {each for option in reference.options_of(reference.program()) for each in option.opts}
    assert {each for each in arguments if each.startswith("--")} <= known
    assert arguments[-1] in reference.commands()
