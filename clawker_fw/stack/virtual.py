"""Virtual addresses: each name with opaque connections has an address, because the traffic carries no host name.

A name keeps its number through changes of the rules, restarts and replacements. A removed name's number is not
reused soon: an agent may still know it. Both siblings' volumes have the record. `fwctl` reads Envoy's to map
addresses to names.
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
    """Each name's number, from 0, and the next new name's. Names are sorted."""

    names: tuple[tuple[str, int], ...] = ()
    next: int = 0


def assigned(wanted: Iterable[str], before: Numbers, room: int) -> Numbers:
    """Return numbers for all names. Names keep their numbers, even unwanted ones.

    Of `room` numbers, those of unwanted names are reused only if no other is left.

    Raises:
        SettingsError: if there are more names than numbers.
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
    for name in (name for name in names if name not in kept):
        kept[name] = next(free)
        coming = (kept[name] + 1) % room
    return Numbers(tuple(sorted(kept.items())), coming)


def content(numbers: Numbers) -> bytes:
    """Return the record."""
    return json.dumps({"names": dict(numbers.names), "next": numbers.next}, indent=0).encode()


def recorded(*volumes: Files) -> Numbers:
    """Return the numbers in the first volume with a usable record, or none."""
    return next((numbers for files in volumes if (numbers := _read(files)) is not None), Numbers())


def _read(files: Files) -> Numbers | None:
    try:
        read = read_record(files[NUMBERS].content)
        names: Mapping[str, int] = {str(name): int(number) for name, number in read["names"].items()}
        numbers = Numbers(tuple(sorted(names.items())), int(read["next"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    usable = len(set(names.values())) == len(names) and min([numbers.next, *names.values()]) >= 0
    return numbers if usable else None
