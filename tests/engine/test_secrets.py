"""Secrets in the volumes of a real stack: the program reads them, and nobody else."""

import sys

from docker import APIClient

from devkit.firewall import Firewall, Outcome
from devkit.tools import read_as

BOOT, HOT, OPEN = "/fw/boot/token", "/fw/hot/key/token", "/fw/boot/Corefile"

WITH_SECRETS = """
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
"""A release whose resolver has secrets; its first argument is the number of the hot one."""


def call(firewall: Firewall, number: int, *arguments: str) -> Outcome:
    """Run a command of that release."""
    return firewall.call_raw([sys.executable, "-c", WITH_SECRETS, str(number), *firewall.command(*arguments)[3:]])


def test_secrets_are_the_programs_alone(firewall: Firewall, docker: APIClient) -> None:
    """A boot and a hot secret come up, are current, and are exchanged live; no other user can read them."""
    call(firewall, 1, "run").expect()
    call(firewall, 1, "drift").expect()
    coredns = firewall.container("coredns")
    before = docker.inspect_container(coredns)["Id"]
    outcome = call(firewall, 2, "drift").expect(1)
    assert "another content" in outcome.out
    assert "hot-secret" not in outcome.out + outcome.err
    call(firewall, 2, "reload").expect()
    call(firewall, 2, "drift").expect()
    assert docker.inspect_container(coredns)["Id"] == before
    for path, line in (
        (BOOT, "boot-secret"),
        (HOT, "hot-secret-2"),
        (HOT.replace("hot", "good/hot"), "hot-secret-2"),
    ):
        assert read_as(docker, "65532:65532", coredns, path) == line
        for other in ("65531:65531", "65531:65532", "0:0"):
            assert read_as(docker, other, coredns, path) is None
            assert read_as(docker, other, coredns, OPEN)  # what is no secret, it can
    docker.restart(coredns, timeout=1)
    call(firewall, 2, "run").expect()
    call(firewall, 2, "drift").expect()
