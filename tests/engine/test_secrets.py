"""Secrets in the volumes of a real stack: the program reads them, and nobody else."""

from docker import APIClient

from devkit.firewall import Firewall
from devkit.secret_files import call, require_private


def test_secrets_are_the_programs_alone(firewall: Firewall, docker: APIClient) -> None:
    """A boot and a hot secret are created, replaced live and kept after a restart. Only the program reads them."""
    call(firewall, 1, "run").expect()
    call(firewall, 1, "drift").expect()
    require_private(docker, firewall, 1)
    coredns = firewall.container("coredns")
    before = docker.inspect_container(coredns)["Id"]
    outcome = call(firewall, 2, "drift", "--diff").expect(1)
    assert "another content" in outcome.out
    assert "hot-secret" not in outcome.out + outcome.err
    call(firewall, 2, "reload").expect()
    assert docker.inspect_container(coredns)["Id"] == before
    docker.restart(coredns, timeout=1)
    call(firewall, 2, "run").expect()
    call(firewall, 2, "drift").expect()
    require_private(docker, firewall, 2)
