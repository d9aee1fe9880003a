"""For every file that a command reads, its writers are checked, or it only changes the output."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from clawker_fw.certificates.x509 import mint_authority
from devkit.stacks import CHECKOUT, environment

PROGRAM = Path(__file__).with_name("traced.py")
FOLDERS = {"HOME": "home", **{f"XDG_{name.upper()}_HOME": name for name in ("cache", "config", "state")}}
SETTINGS = """
include: [team.yaml]
presets: [pip]
otel: {endpoint: "collector.test:4317"}
inspection: {ca_file: own.pem}
rules:
- dst: a.test
- {dst: h.test, path_rules: [{path: /v1}], inject: one}
- {dst: i.test, path_rules: [{path: /v1}], inject: two}
"""
SECRETS = """
secrets:
  one: {from: {file: ../../one.txt}, hosts: [h.test]}
  two: {from: {command: [sh, ../../two.sh]}, hosts: [i.test]}
"""
COMMANDS = (
    *("run", "reload", "drift", "status", "status --all", "certs show"),
    *("config", "rules check", "agent flags", "denials"),
)

NOT_JUDGED: Mapping[str, str] = {
    "/proc": "the kernel's",
    "/sys": "the kernel's",
    "/dev": "the kernel's",
    "/lib": "the C library, which every program on this machine uses",
    "/usr/lib": "the C library, which every program on this machine uses",
    str(CHECKOUT): "the test itself, and the program in place of an installed one",
    "state/clawker-fw/agents.json": "names of former agents, which are only shown",
}
"""Beginnings of other paths, and why their writers are not checked."""


@pytest.fixture
def variables(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a user with settings that name every kind of file."""
    (tmp_path / "clawker-fw.yaml").write_text(SETTINGS)
    (tmp_path / "team.yaml").write_text("rules: [{dst: team.test}]\n")
    (tmp_path / "own.pem").write_bytes(mint_authority("own", time.time()).certificate)
    (tmp_path / "one.txt").write_text("hidden\n")
    (tmp_path / "two.sh").write_text("echo hidden\n")
    secrets = tmp_path / "config" / "clawker-fw" / "secrets.yaml"
    secrets.parent.mkdir(parents=True)
    secrets.write_text(SECRETS)
    secrets.chmod(0o600)
    docker = tmp_path / "docker"
    context = docker / "contexts" / "meta" / hashlib.sha256(b"here").hexdigest()
    context.mkdir(parents=True)
    meta = {"Name": "here", "Endpoints": {"docker": {"Host": "unix:///run/docker.sock"}}}
    (context / "meta.json").write_text(json.dumps(meta))
    (docker / "config.json").write_text('{"currentContext": "here"}')
    folders = {name: str(tmp_path / folder) for name, folder in FOLDERS.items()}
    return environment(PYTHONPATH=str(CHECKOUT), DOCKER_CONFIG=str(docker), **folders)


def test_every_file_that_is_read_is_judged(variables: Mapping[str, str], tmp_path: Path) -> None:
    """All files and folders that commands read are checked, or listed above with a reason."""
    opened, said = tmp_path / "opened", tmp_path / "deciding"
    command = [sys.executable, "-P", str(PROGRAM), str(opened), str(said), *COMMANDS]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    deciding = [Path(each).resolve() for each in said.read_text().splitlines()]
    read = {Path(each) for each in opened.read_text().splitlines()}
    of_test = {each.relative_to(tmp_path).as_posix() for each in read if each.is_relative_to(tmp_path)}
    assert {"clawker-fw.yaml", "team.yaml", "own.pem", "one.txt", "docker/config.json"} <= of_test
    assert "config/clawker-fw/secrets.yaml" in of_test
    assert any(each.startswith("docker/contexts/meta/") for each in of_test)
    assert not [each for each in of_test if each.startswith("cache/") and each not in NOT_JUDGED]
    known = [*deciding, *(tmp_path / each for each in NOT_JUDGED)]
    assert tmp_path / "two.sh" in deciding  # another program reads it
    assert {CHECKOUT / "clawker_fw", CHECKOUT / "templates"} <= {*deciding}
    above = {folder for path in deciding for folder in path.parents}  # writers of these are checked as well
    resolved = [each.resolve() for each in known]
    left = [each for each in read - above if not any(each.resolve().is_relative_to(folder) for folder in resolved)]
    assert left == []
