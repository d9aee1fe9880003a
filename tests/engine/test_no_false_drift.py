"""Without changes, `drift` is clean, from any machine, user or installation, and after restarts."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from devkit import stacks
from devkit.firewall import Firewall, upgraded

ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    "another language": {"LANG": "tr_TR.UTF-8", "LC_ALL": "C", "LANGUAGE": "tr"},
    "no language": {"LANG": "C", "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "another time zone": {"TZ": "Pacific/Kiritimati"},
    "other hashes": {"PYTHONHASHSEED": "4711"},
    "no cache": {"XDG_CACHE_HOME": "/nonexistent"},
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_another_client(where: str, shared: Firewall) -> None:
    """The desired state does not depend on the client machine."""
    other = replace(shared, variables=ELSEWHERE[where])
    assert other.drift().expect().findings == set()
    assert other.run().json["changed"] is False


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_another_umask(umask: int, shared: Firewall) -> None:
    """It does not depend on the user's umask."""
    before = os.umask(umask)
    try:
        assert shared.drift().expect().findings == set()
        shared.run("--force-recreate", "--drain-timeout", "0")
    finally:
        os.umask(before)
    assert shared.drift().expect().findings == set()


def test_another_folder(shared: Firewall, tmp_path: Path) -> None:
    """It does not depend on the path of the installation."""
    stacks.copied_release(tmp_path)
    assert upgraded(shared, tmp_path).drift().expect().findings == set()
