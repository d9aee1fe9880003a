"""Every documented setting can be applied by the real program on a real engine."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient
from pydantic import BaseModel

from clawker_fw.certificates.store import TelemetryStore
from clawker_fw.settings.model import Settings
from clawker_fw.settings.secrets.declared import SecretsFile
from devkit.firewall import Firewall
from devkit.inspecting import certificate
from devkit.processes import processes

GIB = 1 << 30
LATER = "2099-01-31T18:00:00Z"

RULES: list[dict[str, Any]] = [
    {
        "dst": "a.test",
        "proto": "https",
        "port": 443,
        "action": "allow",
        "allow_private": True,
        "note": "for tests",
    },
    {"dst": "localhost", "proto": "http", "force": True, "until": LATER},
    {"dst": "93.184.215.14", "as": "address.test", "proto": "tcp", "port": "5432-5433"},
    {"dst": "denied.test", "action": "deny"},
    {
        "dst": "paths.test",
        "inspect": True,
        "path_rules": [
            {"path": "/v1", "methods": ["GET", "POST"], "action": "allow"},
            {"path": "/v1/admin", "methods": ["GET"]},
            {"path": "/v1/private", "action": "deny"},
            {"path": "/v1/@me", "methods": ["GET"]},
            {"path": "~/v2/[^/]{1,9}"},
            {"path": "~/v2/x:y", "action": "deny", "methods": ["DELETE"]},
        ],
        "path_default": "allow",
        "websocket": True,
        "insecure_skip_tls_verify": True,
    },
    {
        "dst": "git.test",
        "git": {"a/b": "read", "c/d": "write"},
        "lfs": True,
        "inject": {"secret": "one", "as": "basic"},
    },
    {"dst": "own.test", "path_rules": [{"path": "/v1"}], "inject": {"secret": "two"}},
    {"dst": "any.test", "path_rules": [{"path": "/"}], "inject": {"secret": "three", "as": "raw"}},
]
PROMISE = {"proto": "https", "port": 443, "note": "for tests"}

LOCAL: dict[str, Any] = {
    "include": ["team.yaml"],
    "presets": ["pip"],
    "never": [{"dst": ".evil.test", **PROMISE}],
    "always": [{"dst": "a.test", **PROMISE}],
    "network": {"subnet": "10.213.0.0/20"},
    "images": {"envoy": "bundled", "coredns": "bundled"},
    "otel": {
        "endpoint": "127.0.0.1:4317",
        "server_name": "collector.test",
        "certs_dir": "certs",
        "sample": 0.5,
        "infra_port": 4444,
    },
    "inspection": {"ca_file": "company.pem"},
    "upstream": {
        "proxy": "https://proxy.test:3130",
        "auth": "four",
        "ca_file": "company.pem",
        "no_proxy": ["a.test"],
        "connect_ports": [443, 5432],
    },
    "limits": {
        "connections": 100,
        "connections_per_second": 50,
        "requests_per_second": 200,
        "datagrams_per_second": 500,
        "queries_per_second": 50,
        "resolver_connections": 10,
        "idle": "10m",
    },
    "resources": {
        "envoy": {"processors": 3, "memory": "1GiB", "connections": 700},
        "coredns": {"processors": 1, "memory": "256MiB", "connections": 500},
    },
    "drain_timeout": "1s",
    "acknowledged": ["host-hears-agents"],
}
"""A value for each key of a settings file. Its `project` is the test's."""

SECRETS: dict[str, Any] = {
    "one": {"from": {"file": "token"}, "hosts": ["git.test"], "refresh": "1h", "at_rest": True},
    "two": {"from": {"env": "TOKEN"}, "hosts": ["own.test:443"], "header": "x-api-key"},
    "three": {
        "from": {"command": ["echo", "hidden"]},
        "hosts": ["any.test"],
    },
    "four": {"from": {"env": "TOKEN"}, "hosts": ["proxy.test:3130"]},
}


def documented(model: type[BaseModel]) -> set[str]:
    schema = model.model_json_schema()
    return {name for each in (schema, *schema["$defs"].values()) for name in each.get("properties", ())}


def written(value: object) -> Iterator[str]:
    for each in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        yield from written(each)
    if isinstance(value, dict):
        yield from value


def test_the_table_has_every_key() -> None:
    """A new key of the settings, of rules or of the file of secrets must be added to the table."""
    elsewhere = {"groups", "inherit", "observe"}  # `test_groups` and `tests/attack/test_observing.py` use them
    assert documented(Settings) - elsewhere <= {*written({**LOCAL, "rules": RULES, "project": "x"})}
    assert documented(SecretsFile) <= {*written({"secrets": SECRETS})}
    assert {"insecure_skip_tls_verify", "idle"} < documented(Settings)


@pytest.fixture
def stack(host: str, clean_project: str, tmp_path: Path) -> Firewall:
    """A stack that is not up yet, whose user has secrets."""
    variables = {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "CLAWKER_FW_SECRETS": str(tmp_path / "secrets.yaml"),
        "TOKEN": "hidden",
    }
    (tmp_path / "secrets.yaml").write_text(json.dumps({"secrets": SECRETS}))
    (tmp_path / "secrets.yaml").chmod(0o600)
    (tmp_path / "token").write_text("hidden")
    return Firewall(host, clean_project, tmp_path, variables=variables)


def workers(docker: APIClient, container: str) -> int:
    """Return the number of Envoy's worker threads, as counted on the Docker host."""
    threads = (thread for each in processes(docker, container) for thread in (each / "task").iterdir())
    return sum((each / "comm").read_text().startswith("wrk:worker") for each in threads)


def test_every_setting_can_be_applied(stack: Firewall, docker: APIClient, tmp_path: Path) -> None:
    """With all keys at once, `run` brings up a stack in which nothing differs, with these resources."""
    (tmp_path / "team.yaml").write_text("rules: [{dst: team.test}]\n")
    certificate(tmp_path / "company", "company.test")[0].rename(tmp_path / "company.pem")
    own = TelemetryStore(tmp_path / "certs", stack.project, keeps=True, clock=time.time)
    own.provide()
    stack.write(*RULES, **LOCAL, project=stack.project)
    stack.run()
    assert stack.current(), stack.drift().out
    proxy, resolver = (each["resources"] for each in stack.status()["siblings"])
    assert proxy == {"processors": 3, "memory": GIB, "connections": 700}
    assert resolver == {"processors": 1, "memory": GIB // 4, "connections": 500}
    envoy = stack.container("envoy")
    assert workers(docker, envoy) == 3
    limits = docker.inspect_container(envoy)["HostConfig"]
    assert (limits["Memory"], limits["MemorySwap"]) == (GIB, GIB)  # no swap: a secret could get onto the disk
