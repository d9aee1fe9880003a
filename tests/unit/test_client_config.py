"""The docker CLI's configuration, apart from the choice of the engine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.engine.client_config import contexts, proxy_variables
from clawker_fw.engine.locate import locate
from clawker_fw.errors import EngineError

PROXIES: tuple[tuple[Any, tuple[str, ...]], ...] = (
    ({"proxies": {"default": {"httpProxy": "", "extra": "x"}}}, ()),
    ({"proxies": {"default": {"httpProxy": "http://p:1"}}}, ("HTTP_PROXY", "http_proxy")),
    (
        {"proxies": {"default": {"noProxy": "a"}, "tcp://192.0.2.1:2376": {"allProxy": "socks5://p"}}},
        ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"),
    ),
    ({"proxies": {"default": "http://p:1"}}, ()),
)


@pytest.mark.parametrize(("config", "expected"), PROXIES)
def test_the_variables_of_proxies(config: Any, expected: tuple[str, ...], tmp_path: Path) -> None:  # noqa: ANN401
    """Proxy variables are the ones that the CLI sets for any engine, in upper and lower case."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert proxy_variables({"DOCKER_CONFIG": str(tmp_path)}) == expected


def test_a_user_without_a_home(tmp_path: Path) -> None:
    """Without a home folder, no file below the current folder is read instead."""
    for folder, name in ((".docker", "config.json"), (".config/clawker-fw", "clawker-fw.yaml")):
        path = tmp_path / "~" / folder / name
        path.parent.mkdir(parents=True)
        path.write_text("rules: [")
    script = """
import pwd
def unknown(_): raise KeyError
pwd.getpwuid = unknown
from clawker_fw.__main__ import main
main()
"""
    environment = {name: value for name, value in os.environ.items() if name != "HOME" and "XDG" not in name}
    ended = subprocess.run(
        [sys.executable, "-c", script, "config"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 3
    assert "error[settings-not-found]" in ended.stderr


def test_a_folder_that_can_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable folder may hold contexts and certificates, so it is an error."""
    environment = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_HOST": "tcp://192.0.2.1:2376", "DOCKER_TLS": "1"}

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    monkeypatch.setattr(Path, "glob", refuse)
    place = locate(None, None, environment)
    assert place.tls
    for ask in (lambda: contexts(environment), lambda: place.tls and place.tls.authority):
        with pytest.raises(EngineError, match="can't be read"):
            ask()
