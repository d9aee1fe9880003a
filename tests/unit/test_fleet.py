"""Many hosts: how they are selected, and how all are queried at once."""

import socket
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from clawker_fw.engine import locate
from clawker_fw.errors import EngineError
from clawker_fw.fleet import hosts
from clawker_fw.fleet.hosts import ask_all
from tests.unit.test_locate import write_context


def context(folder: Path, name: str, host: str) -> None:
    """Write a docker context, as `docker context create` does."""
    write_context(folder, name, {"docker": {"Host": host, "SkipTLSVerify": False}} if host else {})


@pytest.fixture
def contexts(tmp_path: Path) -> Mapping[str, str]:
    """Variables for four contexts: two of one engine, and one without an engine."""
    real, link = tmp_path / "real.sock", tmp_path / "link.sock"
    link.symlink_to(real)
    context(tmp_path, "build-10", "ssh://build-10")
    context(tmp_path, "build-9", f"unix://{real}")
    context(tmp_path, "again", f"unix://{link}")
    context(tmp_path, "kubernetes", "")
    return {"DOCKER_CONFIG": str(tmp_path), "DOCKER_HOST": "ssh://build-10"}


def test_all_contexts_are_hosts_each_engine_once(contexts: Mapping[str, str]) -> None:
    """A second context of the same engine is reported and left out; one without an engine has a row."""
    found = hosts.all_contexts(contexts)
    assert [each.name for each in found.hosts] == ["again", "build-10", "kubernetes"]
    assert [(each.name, each.same_as) for each in found.left_out] == [
        ("build-9", "again"),
        ("default", "build-10"),
    ]
    (broken,) = (each.place for each in found.hosts if isinstance(each.place, EngineError))
    assert broken.code == "context-unusable"


@pytest.mark.parametrize("state", ["missing", "refusing", "listening"])
def test_the_default_context_without_an_engine_is_left_out(
    state: str, contexts: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default context is left out without an engine, unless it was named or is the only one."""
    path = tmp_path / "d.sock"
    for module in (hosts, locate):
        monkeypatch.setattr(module, "DEFAULT_ADDRESS", f"unix://{path}")
    alone = {"DOCKER_CONFIG": str(tmp_path / "nowhere")}
    with socket.socket(socket.AF_UNIX) as engine:
        if state != "missing":
            engine.bind(str(path))
        if state == "listening":
            engine.listen()
        found = hosts.all_contexts({"DOCKER_CONFIG": contexts["DOCKER_CONFIG"]})
        assert ("default" in [each.name for each in found.hosts]) is (state == "listening")
        assert (hosts.LeftOut("default", "") in found.left_out) is (state != "listening")
        assert [each.name for each in hosts.all_contexts(alone).hosts] == ["default"]
        named = hosts.all_contexts({**contexts, "DOCKER_HOST": f"unix://{path}"})
        assert "default" in [each.name for each in named.hosts]


def test_named_hosts(contexts: Mapping[str, str]) -> None:
    """Each named engine counts once, even under two names; an unknown name is an error."""
    found = hosts.named(["build-9", "again", "build-9"], ["ssh://root@c:22", "ssh://root@c:22"], contexts)
    assert [each.name for each in found.hosts] == ["again", "build-9", "ssh://root@c:22"]
    assert [each.place.source for each in found.hosts if not isinstance(each.place, EngineError)][-1] == "--host"
    assert found.left_out == ()
    with pytest.raises(EngineError, match="no docker context called 'nobody'"):
        hosts.named(["nobody"], [], contexts)
    with pytest.raises(EngineError, match="not the address"):
        hosts.named([], ["https://nobody"], contexts)


def test_each_host_has_its_own_answer_in_order() -> None:
    """A hanging host delays only its own answer."""
    hanging, many = {1, 20}, 40

    def ask(host: int) -> str:
        if host in hanging:
            threading.Event().wait()
        return f"answer {host}"

    found = ask_all(range(many), ask, lambda host: f"late {host}", 2)
    assert found == [f"late {host}" if host in hanging else f"answer {host}" for host in range(many)]
