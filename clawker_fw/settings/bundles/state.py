"""What is known of the bundles in force: which they are, when they were confirmed, and what is wrong."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from clawker_fw.settings.bundles.store import Bundle, Problem, Store

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class BundleState:
    """A bundle in force. `confirmed` is when its registry last had it under the tag, in seconds since 1970."""

    bundle: Bundle
    confirmed: float
    problem: Problem | None

    def line(self, now: float) -> str:
        """Return what is known of it as a line for people."""
        bundle, digest = self.bundle, self.bundle.digest[:19]
        pinned = bundle.digest in bundle.reference
        told = f"{bundle.reference}  {digest}, made {aged(now - bundle.created)} ago"
        told += ", pinned" if pinned else f", confirmed {aged(now - self.confirmed)} ago"
        return f"{told}; since {aged(now - self.problem.since)}: {self.problem.message}" if self.problem else told


def states_of(bundles: Iterable[Bundle], store: Store) -> tuple[BundleState, ...]:
    """Return what is known of bundles."""
    return tuple(_states(bundles, store))


def _states(bundles: Iterable[Bundle], store: Store) -> Iterator[BundleState]:
    for bundle in bundles:
        kept = store.read(bundle.reference)
        yield BundleState(bundle, kept.confirmed if kept else 0.0, kept.problem if kept else None)


def aged(seconds: float) -> str:
    """Return an age as people say it: `26 h`."""
    whole = max(0, round(seconds))
    unit, size = next(((unit, size) for unit, size in _UNITS if whole >= 2 * size), _UNITS[-1])
    return f"{whole // size} {unit}"
