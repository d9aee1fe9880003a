"""The client of `fwctl`, the helper in our containers: a method for each verb, a value for each answer.

What both sides say to each other is described once, in `go/cmd/fwctl/protocol.json`. The tests of both sides
compare themselves with it.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.errors import ConflictError, EngineError, NotFoundError
from clawker_fw.fwctl.answers import (
    Committed,
    HeldSecrets,
    Suppressed,
    read_agents_see,
    read_committed,
    read_connections,
    read_inherited,
    read_lookup,
    read_probe,
    read_relayed,
    read_secrets,
    read_suppressed,
    read_trial,
    read_usage,
)
from clawker_fw.model import Files, Lookup, Probe, Trial, Usage

_READING_SECONDS = {
    "probe": 20.0,
    "lookup": 20.0,
    "suppressed": 5.0,
    "usage": 10.0,
    "see": 20.0,
    "secrets": 20.0,
    "try": 45.0,
    "relayed": 20.0,
}
_CHANGING_SECONDS = 120.0
"""For how long a verb may be silent, beside the seconds that it is given."""


class HelperReader:
    """The verbs that change nothing, in a running container.

    Each raises `EngineError` when the helper gives no answer, or none that can be read.
    """

    def __init__(self, engine: EngineReader, container: str) -> None:
        """Store where the helper is."""
        self._reader = engine
        self._container = container

    def probe(self, *, envoy: bool = True, starting: bool = False) -> Probe:
        """Return what the helper reports of its sibling.

        `envoy=False` is for an Envoy that does not run: the report leaves out what agents see of it, because it
        takes a second to wait in vain for its answer. Of a program that is `starting`, it is made when that
        serves, or after three seconds.
        """
        words = {"starting": starting, "without-envoy": not envoy}
        return read_probe(self._ask("probe", *(word for word, wanted in words.items() if wanted)))

    def lookup(self, name: str) -> Lookup:
        """Resolve a name in Envoy's container, as Envoy does. It takes up to 5 s."""
        return read_lookup(self._ask("lookup", name))

    def trial(self, name: str, protocol: str, port: int, *request: str) -> Trial:
        """Use a name as an agent would, from CoreDNS's container. It takes up to 25 s.

        With a `request`, a method and a path, it makes this one, in TLS that is looked into.
        """
        return read_trial(self._ask("try", name, protocol, str(port), *request))

    def suppressed(self) -> Suppressed:
        """Return what a sibling has refused without a line about it."""
        return read_suppressed(self._ask("suppressed"))

    def usage(self) -> Usage:
        """Return what agents have used of what the rules allow, as Envoy's recorder knows it."""
        return read_usage(self._ask("usage"))

    def agents_see(self, place: str) -> tuple[str, ...]:
        """Return the problems that agents would have at a place: an address and ports, as JSON."""
        return read_agents_see(self._ask("see", place))

    def relayed(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return what differs in a relay's network, and its ports on which nobody listens, as sentences.

        `words` are those with which it was started.
        """
        return read_relayed(self._ask("relayed", *words))

    def secrets(self, key: bytes) -> HeldSecrets:
        """Return which secrets Envoy can put into requests.

        `key` has 32 octets, and is for this one question: whoever has it can tell whether a secret is the same.
        """
        sent = _giving(key, None)
        return read_secrets(self._ask("secrets", str(len(sent)), sent=sent))

    def _ask(self, verb: str, *arguments: str, sent: bytes = b"") -> Mapping[str, Any]:
        answer = self._reader.ask_helper(self._container, [verb, *arguments], _READING_SECONDS[verb], sent=sent)
        if not isinstance(answer, Mapping):
            raise EngineError(
                "probe-unreadable", f"fwctl {verb} in container {self._container} sent no readable answer."
            )
        return answer


class Helper(HelperReader):
    """All verbs, in a running container. The errors are those of `HelperReader`."""

    def __init__(self, engine: EngineWriter, container: str) -> None:
        """Store where the helper is."""
        super().__init__(engine, container)
        self._writer = engine

    def commit(self, taken: Callable[[], None]) -> Committed | None:
        """Make the staged files live, and return what came of it, or None if the helper did not say.

        `taken` is called when the program serves with them, before that is proven.
        """
        answers: list[Committed] = []
        self._run(_commit_reader(taken, answers), "commit")
        return answers[-1] if answers else None

    def commit_in_place(self, files: Files, taken: Callable[[], None]) -> Committed | None:
        """Make files live without any room on the engine's disk. See `commit`, and `EngineWriter`."""
        answers: list[Committed] = []
        self._writer.commit_in_place(self._container, files, _commit_reader(taken, answers), _CHANGING_SECONDS)
        return answers[-1] if answers else None

    def give_secrets(
        self, key: bytes, values: Mapping[str, str], keep: Collection[str] = (), at_rest: Collection[str] = ()
    ) -> HeldSecrets:
        """Replace all secrets by id but those to `keep`, and return which there are. `key` is as in `secrets`.

        Of both, those `at_rest` are also on the disk from then on, and no others.
        """
        sent = _giving(key, values, keep, at_rest)
        found: list[HeldSecrets] = []
        self._run(lambda answer: found.append(read_secrets(answer)), "secrets", len(sent), sent=sent)
        return found[-1] if found else HeldSecrets({})

    def inherit_usage(self, told: bytes) -> bool:
        """Add what a replaced sibling knew (`Usage.told`), and return whether anything was added.

        What is known already is not counted twice.
        """
        found: list[bool] = []
        self._run(lambda answer: found.append(read_inherited(answer)), "inherit-usage", len(told), sent=told)
        return any(found)

    def claim(self, seconds: float) -> None:
        """Take the service address, and announce it for so long."""
        self._run(_ignore, "claim", seconds, seconds=seconds)

    def release(self) -> None:
        """Give the service address up."""
        self._run(_ignore, "release")

    def drain(self, seconds: float, on_connections: Callable[[int], None]) -> None:
        """Wait until no connection is open, for so long at most. Their number is told as it changes."""
        self._run(lambda answer: on_connections(read_connections(answer)), "drain", seconds, seconds=seconds)

    def _run(
        self, on_line: Callable[[Any], None], verb: str, *words: float, seconds: float = 0, sent: bytes = b""
    ) -> None:
        command = [verb, *map(str, words)]
        self._writer.run_helper(self._container, command, on_line, _CHANGING_SECONDS + seconds, sent=sent)


def _commit_reader(taken: Callable[[], None], answers: list[Committed]) -> Callable[[Mapping[str, Any]], None]:
    """Return what reads the lines of a commit: that the program has taken the files, and what came of it."""

    def on_line(answer: Mapping[str, Any]) -> None:
        if answer.get("taken"):
            taken()
        else:
            answers.append(read_committed(answer))

    return on_line


def _giving(
    key: bytes, give: Mapping[str, str] | None, keep: Collection[str] = (), at_rest: Collection[str] = ()
) -> bytes:
    said = {"key": b64encode(key).decode(), "give": give, "keep": sorted(keep), "rest": sorted(at_rest)}
    return json.dumps(said).encode()


NOT_TOLD = (NotFoundError, ConflictError)
"""Why a helper has nothing to say: its container is gone or does not run."""


def _ignore(_: object) -> None:
    """Do nothing with a line."""
