"""Both ways to ask a real engine give the same answers: over its socket, and through the Docker SDK."""

from collections.abc import Callable, Iterable
from contextlib import closing

import pytest

from clawker_fw.engine.archive import unpack
from clawker_fw.engine.asking import Asks
from clawker_fw.engine.failures import translated
from clawker_fw.engine.local import Answer, LocalClient
from clawker_fw.engine.locate import locate
from clawker_fw.engine.outputs import exit_code, outputs
from clawker_fw.engine.port import EngineWriter
from clawker_fw.engine.transport import open_client
from clawker_fw.errors import EngineError, NotFoundError
from clawker_fw.model import Sibling
from clawker_fw.stack import labels
from clawker_fw.stack.container import VOLUME

MANAGED = {"label": [f"{labels.MANAGED}=true"]}


def by_id(found: Iterable[Answer]) -> list[Answer]:
    """Return a list in an order of its own: an engine gives any."""
    return sorted(found, key=lambda each: str(each.get("Id") or each.get("Name")))


def ran(client: Asks, container: str) -> tuple[bytes, bytes, int | None]:
    """Run a program that prints and fails."""
    identity = client.exec_create(container, ["/fw/bin/fwctl", "no-such-verb"])["Id"]
    written = list(outputs(client, identity, 20))
    out, err = (b"".join(each[stream] for each in written) for stream in (0, 1))
    return out, err, exit_code(client, identity)


def refusals(client: Asks) -> list[tuple[type[EngineError], tuple[str, ...]]]:
    """Return the errors for what is not there, and for what makes no sense."""
    found = []
    asking: tuple[Callable[[], object], ...] = (
        lambda: client.inspect_container("nothing"),
        lambda: client.inspect_image("nothing/at-all:1"),
        lambda: client.get_archive("nothing", VOLUME),
        lambda: client.exec_create("nothing", ["true"]),
        lambda: client.volumes({"nonsense": ["1"]}),
    )
    for ask in asking:
        with pytest.raises(EngineError) as caught, translated("answer"):
            ask()
        found.append((type(caught.value), caught.value.context))
    return found


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_both_ways_give_the_same_answers(engine: EngineWriter, running: dict[Sibling, str], host: str) -> None:
    """Whatever reading asks, of what is there and of what is not."""
    version, container = engine.facts().api_version, running[Sibling.COREDNS]
    image = engine.container(container)
    assert image is not None
    place = locate(host, None, {})
    with closing(LocalClient(host, version)) as local, closing(open_client(place, version)) as sdk:
        both: tuple[Asks, Asks] = (local, sdk)
        questions: tuple[Callable[[Asks], object], ...] = (
            lambda client: client.version(api_version=False),
            lambda client: client.info()["ID"],
            lambda client: by_id(each for each in client.networks() if each["Name"] == "bridge"),
            lambda client: next(each["Names"] for each in client.containers(all=True) if each["Id"] == container),
            lambda client: client.inspect_container(container),
            lambda client: next(each for each in client.images(filters=MANAGED) if each["Id"] == image.image),
            lambda client: client.inspect_image(image.image),
            lambda client: client.volumes({"dangling": False, "name": ["nothing"]}),
            lambda client: client.get_archive(container, f"{VOLUME}/bin")[1],
            lambda client: unpack(client.get_archive(container, VOLUME)[0]),
            lambda client: ran(client, container),
            refusals,
        )
        for ask in questions:
            ours, theirs = (ask(client) for client in both)
            assert ours == theirs
        _, complaint, code = ran(local, container)
        assert b"no-such-verb" in complaint
        assert code == 1
        assert [kind for kind, _ in refusals(local)] == [*[NotFoundError] * 4, EngineError]
