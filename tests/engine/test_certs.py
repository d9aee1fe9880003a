"""The labels and certificates of telemetry on a real engine: what replaces siblings, and what does not."""

from pathlib import Path

import pytest
from docker import APIClient

from devkit.firewall import Firewall

NOWHERE = "127.0.0.1:4317"
"""An endpoint that Envoy's kernel has no way to: nothing arrives anywhere."""


class Stack:
    """A stack whose certificates are in a folder of the test's."""

    def __init__(self, firewall: Firewall, docker: APIClient, folder: Path) -> None:
        """Nothing runs yet."""
        self.docker, self.state = docker, folder
        names = firewall.host, firewall.project, firewall.folder
        self.firewall = Firewall(*names, variables={"XDG_STATE_HOME": str(folder)})

    def tell(self, **otel: object) -> None:
        """Write the settings of telemetry."""
        self.firewall.write("a.test", otel=otel)

    def run(self) -> None:
        """Bring it up, and check that nothing differs then."""
        self.firewall.run()
        assert self.firewall.current()

    def inspected(self, sibling: str) -> dict[str, object]:
        """Return what the engine says of a sibling."""
        return dict(self.docker.inspect_container(self.firewall.container(sibling)))

    @property
    def made(self) -> set[str]:
        """The ids of the siblings' containers."""
        return {str(self.inspected(each)["Id"]) for each in ("envoy", "coredns")}


@pytest.fixture
def stack(firewall: Firewall, docker: APIClient, tmp_path: Path) -> Stack:
    """The stack."""
    return Stack(firewall, docker, tmp_path / "state")


def test_other_certificates_are_put_into_use_without_a_replacement(stack: Stack, docker: APIClient) -> None:
    """Renewed ones and those of another authority are live at once, as both siblings say, and no key is shown.

    So is another share of what is allowed.
    """
    stack.tell(endpoint=NOWHERE)
    stack.run()
    before = stack.made
    for arguments in ((), ("--authority",)):
        stack.firewall.call("certs", "rotate", *arguments).expect()
        assert {each[1:] for each in stack.firewall.drift().findings} == {
            ("hot", "hot/cds/clusters.json", "settings", "commit"),
            ("hot", "hot/telemetry/telemetry.json", "settings", "commit"),
            ("live", "clusters", "settings", "commit"),
            ("live", "telemetry", "settings", "commit"),
        }
        stack.run()
        assert stack.made == before
        shown = stack.firewall.call("certs", "show", "--format", "json").expect().json
        live = {each["name"]: each["live"] for each in shown["certificates"] if each["path"]}
        assert live == {"ca": ["envoy", "coredns"], "envoy": ["envoy"], "coredns": ["coredns"]}
    stack.tell(endpoint=NOWHERE, sample=0.25)
    assert {each[1:] for each in stack.firewall.drift().findings} == {
        ("hot", "hot/rtds/sampling.json", "settings", "commit"),
        ("hot", "hot/telemetry/telemetry.json", "settings", "commit"),
        ("live", "sampling", "settings", "commit"),
        ("live", "telemetry", "settings", "commit"),
    }
    stack.run()
    assert stack.made == before
    keys = [
        line
        for path in stack.state.rglob("*.key")
        for line in path.read_text().splitlines()
        if "-----" not in line
    ]
    assert keys
    said = [str(stack.inspected(each)) for each in ("envoy", "coredns")]
    said += [docker.logs(stack.firewall.container(each)).decode() for each in ("envoy", "coredns")]
    said += [stack.firewall.call(*line.split()).out for line in ("drift --diff", "status --format json")]
    assert not [key for key in keys if any(key in text for text in said)]
