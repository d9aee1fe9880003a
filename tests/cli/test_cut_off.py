"""Commands on a Docker host that drops agents' packets to Envoy."""

import pytest

from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command

WORDS = "10.213.8.10:443 over https: no answer (the packet filter of the Docker host drops it)"


@pytest.fixture
def cut_off(memory: MemoryEngine, command: Command) -> MemoryEngine:
    """A stack on a machine that has started to drop frames between containers."""
    command("run")
    resolver = memory.inside("clawker-coredns")
    resolver.agents_see, resolver.dropped = {"envoy": (WORDS,)}, ("envoy",)
    return memory


def test_run_replaces_nothing_and_says_what_to_do(cut_off: MemoryEngine, command: Command) -> None:
    """The run ends with exit code 5, the finding and a hint, and every container stays."""
    before = cut_off.listing()
    outcome = command("run")
    assert outcome.code == 5
    assert "error[agents-cut-off]: The Docker host drops what agents send to envoy." in outcome.err
    assert WORDS in outcome.err
    assert "bridge-nf-call-iptables=0" in outcome.err
    assert cut_off.listing() == before
    assert command("reload").code == 5
    dry = command("run", "--dry-run")
    assert dry.code == 1
    assert "drifted" in dry.out
