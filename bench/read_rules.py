"""Prints the seconds for reading, checking and rendering a settings file, or only for parsing its YAML.

The time of starting the interpreter and of imports is not included.
"""

import sys
import time
from ipaddress import IPv4Network
from pathlib import Path

import yaml

from clawker_fw import settings
from clawker_fw.model import EngineFacts, Machine, Slots
from clawker_fw.reconcile.desired import Blueprint, Capacities, desired
from clawker_fw.stack import coredns
from clawker_fw.stack.digests import Digests
from clawker_fw.stack.envoy import sibling as envoy
from clawker_fw.stack.release import Release
from clawker_fw.stack.topology import Addressing
from devkit.programs import machine

ADDRESSES = Addressing(IPv4Network("10.213.0.0/20"), IPv4Network("10.214.0.0/24"))


def render(path: Path) -> None:
    """Compute the desired state with all its files, as every command does before it compares."""
    loaded = settings.load(path, {})
    release = Release.installed(Digests())
    engine = EngineFacts(version="", api_version="", architecture=machine())
    resources = loaded.settings.resources
    capacities = Capacities(envoy.capacity(resources, Machine()), coredns.capacity(resources, Machine()))
    desired(Blueprint("clawker", loaded.settings, loaded.rules, release, engine), ADDRESSES, capacities, Slots())


def compose(path: Path) -> None:
    """Parse it with libyaml."""
    yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)


if __name__ == "__main__":
    began = time.perf_counter()
    {"render": render, "compose": compose}[sys.argv[1]](Path(sys.argv[2]))
    print(time.perf_counter() - began)
