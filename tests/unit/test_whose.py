"""A resource is ours only with every label and our form; nothing else is ever changed."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from clawker_fw.errors import RefusedError
from clawker_fw.model.networks import NetworkView
from clawker_fw.reconcile.steps import ConvergeOptions
from clawker_fw.stack import images, labels
from devkit import stacks
from devkit.memory.engine import MemoryEngine

OWNERSHIP = labels.ownership_labels("clawker")


def parts(found: dict[str, str]) -> Iterator[dict[str, str]]:
    for size in range(len(found)):
        yield from map(dict, itertools.combinations(found.items(), size))


@pytest.mark.parametrize(
    ("volume", "ours"),
    [
        (OWNERSHIP, True),
        ({"com.docker.volume.anonymous": "", **OWNERSHIP}, True),  # added by Docker 29
        (labels.ownership_labels("other"), False),
        *((some, False) for some in parts(OWNERSHIP)),
        (None, False),
    ],
)
def test_a_container_is_ours_by_the_labels_of_its_volume(volume: dict[str, str] | None, *, ours: bool) -> None:
    """A container is ours if its volume has all three ownership labels; the engine may add others."""
    assert labels.project_of_container(OWNERSHIP, volume) == ("clawker" if ours else "")


@pytest.mark.parametrize("part", [*parts(OWNERSHIP), OWNERSHIP], ids=str)
@pytest.mark.parametrize("name", ["clawker-envoy", "clawker-coredns-next", "clawker-lock", "clawker-net"])
def test_a_name_of_ours_without_our_labels_is_refused(
    name: str, part: dict[str, str], memory: MemoryEngine
) -> None:
    """A resource with our name but without all of our labels is refused and left alone."""
    wanted = stacks.blueprint(memory.facts(), "a.test")
    image = images.lock_image(memory.facts())
    memory.load_image(image.archive(), image.archive_size, lambda _: None)
    before: object
    if name == "clawker-net":
        stacks.converged(memory, wanted)
        memory.alter_network(name, labels=part)
        before = network(memory, name)
    else:
        spec = stacks.bare_container(name, wanted)
        memory.create_container(replace(spec, image=image.reference, labels=part))
        before = memory.container(name)
    with pytest.raises(RefusedError) as refused:
        stacks.converged(memory, wanted, ConvergeOptions(replace_all=True))
    assert refused.value.code.startswith("foreign-")
    assert before == (network(memory, name) if name == "clawker-net" else memory.container(name))


def network(memory: MemoryEngine, name: str) -> NetworkView:
    return next(each for each in memory.networks() if each.name == name)
