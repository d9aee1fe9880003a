"""Clients that are not on Linux, and engines in a virtual machine: what can be tested without either."""

import plistlib
import re
import shlex
from pathlib import Path

from devkit import reference
from devkit.stacks import CHECKOUT

PAGE = (CHECKOUT / "docs" / "desktop.md").read_text("utf-8")


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
