"""Without changes, `drift` is clean from any machine, user or installation, and after restarts."""

import os
from dataclasses import replace

from devkit.firewall import Firewall

ELSEWHERE = {
    "LANG": "tr_TR.UTF-8",
    "LC_ALL": "POSIX",
    "LANGUAGE": "tr",
    "TZ": "Pacific/Kiritimati",
    "PYTHONHASHSEED": "4711",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "XDG_CACHE_HOME": "/nonexistent",
}


def test_another_client(shared: Firewall) -> None:
    """The desired state does not depend on the client machine."""
    other = replace(shared, variables=ELSEWHERE)
    assert other.drift().expect().findings == set()


def test_another_umask(shared: Firewall) -> None:
    """The desired state does not depend on the user's umask."""
    before = os.umask(0o077)
    try:
        assert shared.drift().expect().findings == set()
        shared.draining("0").run("--force-recreate")
        os.umask(0o000)
        assert shared.drift().expect().findings == set()
    finally:
        os.umask(before)
