"""Errors of an engine as our own."""

import sys
from types import ModuleType

import pytest

from clawker_fw.engine.failures import translated
from clawker_fw.errors import EngineError


def test_an_error_while_another_thread_imports_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is being imported has nothing in it yet, and nothing that is raised can be of it."""
    monkeypatch.setitem(sys.modules, "docker.errors", ModuleType("docker.errors"))
    with pytest.raises(EngineError) as raised, translated("tell its time"):
        raise ConnectionRefusedError("refused")
    assert raised.value.code == "engine-unreachable"
