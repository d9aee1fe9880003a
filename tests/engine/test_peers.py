"""Commands in containers of tests: answered as if each had been started by the engine."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from docker import APIClient, errors

from devkit.peers import Peer, peers


@pytest.fixture
def peer(docker: APIClient) -> Iterator[Peer]:
    """A running peer."""
    with peers(docker) as started:
        yield started.start("wait", network="bridge")


def test_commands_at_the_same_time(peer: Peer) -> None:
    """Each caller gets the answer to its own command, with its exit code."""
    own = peer.address("bridge")

    def ask(number: int) -> tuple[int, str]:
        if number % 2:
            answer = peer.ask("netinfo")
            return answer.code, str(answer.last["addresses"])
        answer = peer.ask("probe-tcp", f"{own}:9")
        return answer.code, str(answer.last["error"])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(32)))
    assert set(answers[::2]) == {(1, "connect-refused")}
    assert {(code, own in shown) for code, shown in answers[1::2]} == {(0, True)}


def test_a_container_that_has_ended_since(peer: Peer, docker: APIClient) -> None:
    """After a restart the next command is answered; while the container is stopped, there is an error."""
    assert peer.ask("netinfo").ok
    docker.restart(peer.container, timeout=0)
    assert peer.ask("netinfo").ok
    docker.stop(peer.container, timeout=0)
    with pytest.raises(errors.APIError):
        peer.ask("netinfo")
