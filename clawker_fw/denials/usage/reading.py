"""Reading what agents have used from Envoy's recorder, and while Envoy is being replaced from both."""

from collections.abc import Sequence
from dataclasses import replace

from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import RefusedError
from clawker_fw.fwctl import HelperReader
from clawker_fw.model import Sibling, Usage
from clawker_fw.stack.labels import sibling_of


def read(reader: EngineReader, project: str) -> Usage:
    """Return what agents of a project have used.

    Raises:
        RefusedError: when there is no Envoy.
        EngineError: when an Envoy can't be asked. What can't be read is never nothing.
    """
    there = [each.id for each in reader.listing() if sibling_of(each, project) is Sibling.ENVOY]
    if not there:
        raise RefusedError(
            "not-up",
            f"{project} is not up, so nobody knows what its agents have used.",
            hint="Start it with `clawker-fw run`. What was used before `clawker-fw down` is gone.",
        )
    return together([HelperReader(reader, each).usage() for each in there])


def together(known: Sequence[Usage]) -> Usage:
    """Return what several recorders know, without those whose knowledge another one has inherited."""
    apart = [each for each in known if not any(each.identity in other.inherited for other in known)]
    latest = max(apart, key=lambda each: each.now)
    if len(apart) == 1:
        return latest
    ports = {port for each in apart for port in each.open}
    return replace(
        latest,
        since=min(each.since for each in apart),
        uses=tuple(use for each in apart for use in each.uses),
        lost=sum(each.lost for each in apart),
        open={port: sum(each.open.get(port, 0) for each in apart) for port in sorted(ports)},
    )
