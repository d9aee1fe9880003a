"""What is read of the docker CLI's configuration beside the engine that it names."""

import json
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.engine.client_config import proxy_variables
from clawker_fw.errors import EngineError

PROXIES: tuple[tuple[Any, tuple[str, ...]], ...] = (
    ({}, ()),
    ({"proxies": {}}, ()),
    ({"proxies": {"default": {"httpProxy": "", "extra": "x"}}}, ()),
    ({"proxies": {"default": {"httpProxy": "http://p:1"}}}, ("HTTP_PROXY", "http_proxy")),
    (
        {"proxies": {"default": {"noProxy": "a"}, "tcp://192.0.2.1:2376": {"allProxy": "socks5://p"}}},
        ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"),
    ),
    ({"proxies": {"default": "http://p:1"}}, ()),
    ({"proxies": ["http://p:1"]}, ()),
)


@pytest.mark.parametrize(("config", "expected"), PROXIES)
def test_the_variables_of_proxies(config: Any, expected: tuple[str, ...], tmp_path: Path) -> None:  # noqa: ANN401
    """They are those that the CLI sets for any engine, in both cases, and none where it has no proxy."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert proxy_variables({"DOCKER_CONFIG": str(tmp_path)}) == expected


def test_a_machine_without_a_configuration_has_no_proxies(tmp_path: Path) -> None:
    """Most have none."""
    assert proxy_variables({"DOCKER_CONFIG": str(tmp_path)}) == ()


def test_an_unreadable_configuration_is_not_taken_for_none(tmp_path: Path) -> None:
    """An agent would otherwise get a proxy that it can't reach."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EngineError) as failed:
        proxy_variables({"DOCKER_CONFIG": str(tmp_path)})
    assert failed.value.code == "docker-config-unreadable"
