"""Virtual addresses: each name whose connections are forwarded as they are has an address of its own.

Nothing on the wire names the host then, so the address has to. A name keeps its number through changes of the
rules, restarts and replacements, and the number of a removed name is not used again soon: an agent may still know
it. The record of the numbers is in the volumes of both siblings, so that it outlives either. In Envoy's, `fwctl`
reads which name an address stands for.
"""

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clawker_fw.errors import SettingsError
from clawker_fw.model.files import Files
from clawker_fw.stack import container
from clawker_fw.stack.files import read_record
from clawker_fw.stack.resources import Resource

RESOURCE = Resource("numbers", "numbers/numbers.json")

NUMBERS = container.HOT + RESOURCE.path


@dataclass(frozen=True, slots=True)
class Numbers:
    """The number of each name, from 0, and the one that the next new name gets. Names are sorted."""

    names: tuple[tuple[str, int], ...] = ()
    next: int = 0


def assigned(wanted: Iterable[str], before: Numbers, room: int) -> Numbers:
    """Return numbers for all names. Those that have one keep it, and names that are not wanted any more as well.

    When there is no room otherwise, the numbers of names that are not wanted are used again. `room` is how many
    numbers there are.

    Raises:
        SettingsError: when there are more names than numbers.
    """
    names = sorted(set(wanted))
    if len(names) > room:
        raise SettingsError(
            "subnet-small",
            f"The agents' network has room for {room:,} names with tcp, ssh or udp rules, not for {len(names):,}.",
            hint="Choose a larger subnet with `network.subnet`: a /22 has room for 191, a /20 for 959.",
        )
    kept = {name: number for name, number in before.names if number < room}
    if len(kept.keys() | set(names)) > room:
        kept = {name: number for name, number in kept.items() if name in set(names)}
    coming = before.next % room if room else 0
    used = set(kept.values())
    free = (number for number in itertools.chain(range(coming, room), range(coming)) if number not in used)
    for name in (each for each in names if each not in kept):
        kept[name] = next(free)
        coming = (kept[name] + 1) % room
    return Numbers(tuple(sorted(kept.items())), coming)


def content(numbers: Numbers) -> bytes:
    """Return the record."""
    return json.dumps({"names": dict(numbers.names), "next": numbers.next}, indent=0).encode()


def recorded(*volumes: Files) -> Numbers:
    """Return the numbers in the first of these volumes that has a record that can be used, or none."""
    return next((found for files in volumes if (found := _read(files)) is not None), Numbers())


def _read(files: Files) -> Numbers | None:
    try:
        read = read_record(files[NUMBERS].content)
        names: Mapping[str, int] = {str(name): int(number) for name, number in read["names"].items()}
        found = Numbers(tuple(sorted(names.items())), int(read["next"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    usable = len(set(names.values())) == len(names) and min([found.next, *names.values()]) >= 0
    return found if usable else None
