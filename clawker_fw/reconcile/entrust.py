"""The volume with what agents trust: filled once, by a container that is never started.

The container has the volume's name, so one of several runs fills it at a time. Its own volume, in which the other
one is mounted, shows that it is ours.
"""

from collections.abc import Iterator, Sequence

import certifi

from clawker_fw.agents.trust import PLACES, Known, Trust, files_named_by
from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.model import ContainerSpec, Mount, Observed, Shape, Sibling
from clawker_fw.reconcile.errand import in_turn
from clawker_fw.stack import labels
from clawker_fw.stack.container import VOLUME

_FOLDER = "trust/"
"""Where the volume is in the container that fills it."""

_LONGEST = 20.0
"""Seconds that filling may take, before whoever does it counts as gone."""


def public_authorities() -> Known:
    """Return the authorities that Mozilla's programs trust, for agents of which nothing better is known."""
    return Known(certifi.contents().encode())


def known_to(engine: EngineReader, container: str) -> Known:
    """Return what a container trusts by itself: by its system's list, or the public one, and by its variables.

    Raises:
        EngineError: when the engine can't be asked.
    """
    view = engine.container(container)
    given = dict(each.partition("=")[::2] for each in view.shape.environment) if view else {}
    named, added, java = files_named_by(given)

    def read(paths: Sequence[str]) -> Iterator[bytes]:
        absolute = (each for each in paths if each.startswith("/"))
        return filter(None, (engine.system_file(container, each) for each in absolute))

    system = next(read(PLACES), None) or public_authorities().authorities
    extra = tuple(read(added))
    return Known(b"\n".join((system, *read(named), *extra)), b"\n".join(extra), java)


def create_trust_volume(engine: EngineWriter, project: str, observed: Observed, trust: Trust) -> None:
    """Have an engine keep the volume that agents get. Its content is looked at each time.

    Raises:
        EngineError: when that fails.
        RefusedError: when somebody else has a container of its name.
    """
    wanted = {f"{_FOLDER}{name}": file for name, file in trust.files.items()}
    spec = ContainerSpec(
        name=trust.volume,
        image=observed.siblings[Sibling.ENVOY].container.image,
        labels={**labels.ownership_labels(project), labels.TRUST: trust.roots},
        shape=Shape(
            ("never-started",),
            (),
            {},
            mounts=(Mount("volume", VOLUME), Mount("volume", f"{VOLUME}/{_FOLDER[:-1]}", trust.volume)),
        ),
    )
    with in_turn(engine, project, spec, _LONGEST) as container:
        there = engine.files(container)
        if any(there.get(path) != file for path, file in wanted.items()):
            engine.put_files(container, wanted)
