"""Every key of the settings reference, by the real program on a real engine: what is documented can be applied."""

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from docker import APIClient
from pydantic import BaseModel

from clawker_fw.certificates.store import TelemetryStore
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.settings.model import Settings
from clawker_fw.settings.secrets.declared import SecretsFile
from devkit.firewall import Firewall, remove_project
from devkit.inspecting import certificate

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
    {"dst": "own.test", "path_rules": [{"path": "/v1"}], "inject": {"secret": "two", "keep_own": True}},
    {"dst": "any.test", "inject": {"secret": "three", "as": "raw", "paths": "any"}},
]
PROMISE = {"proto": "https", "port": 443, "note": "for tests"}

LOCAL: dict[str, Any] = {
    "include": ["team.yaml"],
    "presets": [{"preset": "pip", "without": ["pypi.org"]}],
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
    "limits": {
        "connections": 100,
        "connections_per_second": 50,
        "datagrams_per_second": 500,
        "queries_per_second": 50,
        "resolver_connections": 10,
        "idle": "10m",
    },
    "resources": {
        "envoy": {"processors": 1, "memory": "1GiB", "connections": 1000},
        "coredns": {"processors": 1, "memory": "256MiB", "connections": 1000},
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
        "placeholders": {"API_TOKEN": "none"},
    },
}


def documented(model: Any, before: str = "") -> Iterator[str]:  # noqa: ANN401 - a model, or a dataclass of settings
    """Yield the keys of a model, as they are written: `rules.path_rules.methods`."""
    if issubclass(model, BaseModel):
        fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    else:
        types = get_type_hints(model)
        fields = {field.name: types[field.name] for field in dataclasses.fields(model)}
    for name, annotation in fields.items():
        yield f"{before}{name}"
        for other in models(annotation):
            yield from documented(other, f"{before}{name}.")


def models(annotation: Any) -> Iterator[type]:  # noqa: ANN401 - any annotation
    """Yield the models in an annotation."""
    if isinstance(annotation, type) and not get_args(annotation):
        if issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation):
            yield annotation
        return
    for each in get_args(annotation):
        yield from models(each)


def written(value: object, before: str = "") -> Iterator[str]:
    """Yield the keys of a document. Keys that a user chooses, as of `git`, are not among them."""
    if isinstance(value, Mapping):
        for name, other in value.items():
            place = f"{before}{name}"
            yield place
            yield from written(other, f"{place}.")
    elif isinstance(value, list):
        for other in value:
            yield from written(other, before)


def test_the_table_has_every_key() -> None:
    """A key that is added to the settings, to rules or to the file of secrets is applied below, or this fails."""
    table = {*written({**LOCAL, "rules": RULES, "project": "x"})}
    assert {*documented(Settings)} - table == set()
    assert {f"rules.{each}" for each in documented(RuleEntry)} <= {*documented(Settings)}
    secrets = {key.partition(".")[2] for key in written(SECRETS)}
    assert {key.partition(".")[2] for key in documented(SecretsFile)} - secrets == set()
    assert {"rules.inject.keep_own", "limits.idle"} < {*documented(Settings)}


@pytest.fixture
def stack(host: str, clean_project: str, docker: APIClient, tmp_path: Path) -> Iterator[Firewall]:
    """A stack that is not up yet, whose user has secrets."""
    variables = {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "CLAWKER_FW_SECRETS": str(tmp_path / "secrets.yaml"),
        "TOKEN": "hidden",
    }
    (tmp_path / "secrets.yaml").write_text(json.dumps({"secrets": SECRETS}))
    (tmp_path / "secrets.yaml").chmod(0o600)
    (tmp_path / "token").write_text("hidden")
    yield Firewall(host, clean_project, tmp_path, variables=variables)
    remove_project(docker, clean_project)


def test_every_setting_can_be_applied(stack: Firewall, tmp_path: Path) -> None:
    """With all keys at the same time, `run` brings a stack up in which nothing differs."""
    (tmp_path / "team.yaml").write_text("rules: [{dst: team.test}]\n")
    certificate(tmp_path / "company", "company.test")[0].rename(tmp_path / "company.pem")
    own = TelemetryStore(tmp_path / "certs", stack.project, keeps=True, clock=time.time)
    own.provide()
    stack.write(*RULES, **LOCAL, project=stack.project)
    stack.run()
    assert stack.current(), stack.drift().out
