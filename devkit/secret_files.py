"""A release whose resolver has secret files, and a check of who can read them on a real engine."""

import sys

from docker import APIClient

from devkit.firewall import Firewall, Outcome
from devkit.tools import read_as

_WITH_SECRETS = """
import sys
from clawker_fw.stack import coredns
from clawker_fw.stack.files import secret
boot, hot, number = coredns.boot, coredns.hot, sys.argv.pop(1)
def more_boot(*arguments):
    return {**boot(*arguments), "boot/token": secret(b"boot-secret\\n")}
def more_hot(*arguments):
    return {"hot/key/token": secret(f"hot-secret-{number}\\n".encode()), **hot(*arguments)}
coredns.boot, coredns.hot = more_boot, more_hot
from clawker_fw.__main__ import main
main()
"""

_PROGRAM = "40000:65532"  # any user of its group
_OTHERS = ("65531:65531", "40000:65531", "0:0")


def call(firewall: Firewall, number: int, *arguments: str) -> Outcome:
    """Run a command of that release, whose hot secret has a number."""
    return firewall.call_raw([sys.executable, "-c", _WITH_SECRETS, str(number), *firewall.command(*arguments)[3:]])


def require_private(client: APIClient, firewall: Firewall, number: int) -> None:
    """Check that only the program's group can read the secrets, while others can read the other files.

    Raises:
        AssertionError: otherwise.
    """
    coredns, hot = firewall.container("coredns"), f"hot-secret-{number}"
    for path, line in {"boot/token": "boot-secret", "hot/key/token": hot, "good/hot/key/token": hot}.items():
        read = {user: read_as(client, user, coredns, f"/fw/{path}") for user in (_PROGRAM, *_OTHERS)}
        if read != {_PROGRAM: line, **dict.fromkeys(_OTHERS)}:
            raise AssertionError(path, read)
    if not all(read_as(client, user, coredns, "/fw/boot/Corefile") for user in _OTHERS):
        raise AssertionError("what is no secret can't be read")
