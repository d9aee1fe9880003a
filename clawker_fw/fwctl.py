"""The client of `fwctl`, the helper in our containers: a method for each verb, a value for each answer.

What both sides say to each other is described once, in `go/cmd/fwctl/protocol.json`. The tests of both sides
compare themselves with it. Answers are read strictly, so that one in an unknown form is an error and never empty.
The helper of an earlier release prints fewer fields, one of a later release may print more.
"""

import hmac
import json
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from clawker_fw.engine import archive
from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.errors import ConflictError, EngineError, NotFoundError
from clawker_fw.model.files import Files
from clawker_fw.model.probes import Probe
from clawker_fw.model.secrets import HeldSecrets
from clawker_fw.model.trials import Lookup, Trial
from clawker_fw.model.usage import Usage

KEY_BYTES = 32
"""The length of the key with which secrets are compared."""

PROTOCOL = 1
"""The version of what both sides say to each other. It changes where another one would be misunderstood."""

NOT_TOLD = (NotFoundError, ConflictError)
"""Why a helper has nothing to say: its container is gone or does not run."""

_MOST_CHARACTERS = 200
_SECRETS = "Secrets were told of"
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Committed:
    """What came of a commit.

    `refused` are the resources that the program rejected, or that it did not load in time. `hung` is
    whether the program no longer answers and must be restarted.
    """

    committed: bool
    refused: tuple[str, ...] = ()
    reason: str = ""
    hung: bool = False


@dataclass(frozen=True, slots=True)
class Suppressed:
    """How many refusals no line tells of: those that limits have dropped, by the agent's address (`dropped`).

    `refusals` are those that an Envoy of an earlier release has only counted. `lines` is how many lines a sibling
    has written since its recorder started, which a helper of an earlier release does not say.
    """

    refusals: int
    lines: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)


def digest_of_secret(key: bytes, identity: str, value: str) -> str:
    """Return what a signer says of a secret with this value, under this key."""
    return hmac.new(key, f"{identity}\0{value}".encode(), "sha256").hexdigest()


_PROBE = TypeAdapter(Probe)


def _read(kind: TypeAdapter[_Answer], answer: Mapping[str, Any], what: str, *needed: str, of: str = "") -> _Answer:
    """Read an answer, or one field `of` it. Missing ones and null have their defaults, but not those `needed`."""
    try:
        given = {name: value for name, value in answer.items() if value is not None}
        _ = [given[name] for name in needed]
        return kind.validate_json(json.dumps(given[of] if of else given), strict=True)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = _reason(error)[:_MOST_CHARACTERS]
        raise EngineError("probe-unreadable", f"{what} in an unknown form: {reason}.") from None


def _reason(error: Exception) -> str:
    """Return what is wrong with an answer, without the values in it: they may be secret."""
    if not isinstance(error, ValidationError):
        return f"{error} is missing" if isinstance(error, KeyError) else str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def read_probe(answer: Mapping[str, Any]) -> Probe:
    """Read the output of `fwctl probe`.

    Raises:
        EngineError: when it is of a helper which speaks a later protocol, or has another form.
    """
    protocol = answer.get("protocol", PROTOCOL)
    if protocol != PROTOCOL:
        raise EngineError(
            "helper-newer",
            f"A helper speaks protocol {protocol}, and this release knows {PROTOCOL}.",
            hint="A later release made this stack. Install that, or replace the stack with `clawker-fw run`.",
        )
    told = {"unhealthy": "it can't tell", **answer}
    return _read(_PROBE, told, "A probe answered", "build", "addresses", "claimed", "network", "error")


def read_usage(answer: Mapping[str, Any]) -> Usage:
    """Read the output of `fwctl usage`."""
    return _read(TypeAdapter(Usage), answer, "What agents have used was told", "uses", "lost")


def read_committed(answer: Mapping[str, Any]) -> Committed:
    """Read the last line of a commit. What is missing in it counts as a refusal."""
    refused = answer.get("rejected") or answer.get("missing") or ()
    return Committed(
        answer.get("committed") is True,
        tuple(map(str, refused)),
        str(answer.get("reason") or ""),
        answer.get("hung") is True,
    )


_READING_SECONDS = 20.0
_TRYING_SECONDS = 45.0
_CHANGING_SECONDS = 120.0
"""For how long a verb may be silent, beside the seconds that it is given."""


class HelperReader:
    """The verbs that change nothing, in a running container.

    Each raises `EngineError` when the helper gives no answer, or none that can be read.
    """

    def __init__(self, engine: EngineReader, container: str) -> None:
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
        return _read(TypeAdapter(Lookup), self._ask("lookup", name), "A lookup was answered", "error")

    def trial(self, name: str, protocol: str, port: int, *request: str) -> Trial:
        """Use a name as an agent would, from CoreDNS's container. It takes up to 25 s.

        With a `request`, a method and a path, it makes this one, in TLS that is looked into.
        """
        answer = self._ask("try", name, protocol, str(port), *request, seconds=_TRYING_SECONDS)
        return _read(TypeAdapter(Trial), answer, "An attempt was answered")

    def suppressed(self) -> Suppressed:
        """Return what a sibling has refused without a line about it."""
        return _read(TypeAdapter(Suppressed), self._ask("suppressed"), "A count was answered")

    def usage(self) -> Usage:
        """Return what agents have used of what the rules allow, as Envoy's recorder knows it."""
        return read_usage(self._ask("usage"))

    def agents_see(self, place: str) -> tuple[str, ...]:
        """Return the problems that agents would have at a place: an address and ports, as JSON."""
        return _read(TypeAdapter(tuple[str, ...]), self._ask("see", place), "A look was answered", of="agents_see")

    def relayed(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return what differs in a relay's network, and its ports on which nobody listens, as sentences.

        `words` are those with which it was started.
        """
        answer = self._ask("relayed", *words)
        network = _read(TypeAdapter(tuple[str, ...]), answer, "A relay answered", of="network")
        closed = _read(TypeAdapter(tuple[int, ...]), answer, "A relay answered", of="closed")
        return (*network, *(f"nobody listens on port {port}" for port in closed))

    def secrets(self, key: bytes) -> HeldSecrets:
        """Return which secrets Envoy can put into requests.

        `key` has 32 octets, and is for this one question: whoever has it can tell whether a secret is the same.
        """
        sent = _giving(key, None)
        held = _read(TypeAdapter(HeldSecrets), self._ask("secrets", str(len(sent)), sent=sent), _SECRETS)
        return replace(held, key=key)

    def _ask(
        self, verb: str, *arguments: str, sent: bytes = b"", seconds: float = _READING_SECONDS
    ) -> Mapping[str, Any]:
        answer = self._reader.ask_helper(self._container, [verb, *arguments], seconds, sent=sent)
        if not isinstance(answer, Mapping):
            raise EngineError(
                "probe-unreadable", f"fwctl {verb} in container {self._container} sent no readable answer."
            )
        return answer


class Helper(HelperReader):
    """All verbs, in a running container. The errors are those of `HelperReader`."""

    def __init__(self, engine: EngineWriter, container: str) -> None:
        super().__init__(engine, container)
        self._writer = engine

    def commit(self, files: Files, taken: Callable[[], None]) -> Committed | None:
        """Make files live, and return what came of it, or None if the helper did not say.

        They are written over those before them, so that files which have not grown need no room on the engine's
        disk. `taken` is called when the program serves with them, before that is proven.

        Raises:
            DiskFullError: when there is no room for what they have grown by. Nothing has changed then.
        """
        answers: list[Committed] = []

        def on_line(answer: Mapping[str, Any]) -> None:
            if answer.get("taken"):
                taken()
            else:
                answers.append(read_committed(answer))

        sent = archive.pack(files)
        self._run("commit-in-place", len(sent), sent=sent, on_line=on_line)
        return answers[-1] if answers else None

    def give_secrets(
        self, key: bytes, values: Mapping[str, str], keep: Collection[str] = (), at_rest: Collection[str] = ()
    ) -> HeldSecrets:
        """Replace all secrets by id but those to `keep`, and return which there are. `key` is as in `secrets`.

        Of both, those `at_rest` are also on the disk from then on, and no others.
        """
        sent = _giving(key, values, keep, at_rest)
        answers = self._run("secrets", len(sent), sent=sent)
        return _read(TypeAdapter(HeldSecrets), answers[-1], _SECRETS) if answers else HeldSecrets({})

    def claim(self, seconds: float) -> None:
        """Take the service address, and announce it for so long."""
        self._run("claim", seconds, seconds=seconds)

    def release(self) -> None:
        """Give the service address up."""
        self._run("release")

    def drain(self, seconds: float, on_connections: Callable[[int], None]) -> None:
        """Wait until no connection is open, for so long at most. Their number is told as it changes."""

        def on_line(answer: Mapping[str, Any]) -> None:
            on_connections(_read(TypeAdapter(int), answer, "A drain was answered", of="connections"))

        self._run("drain", seconds, seconds=seconds, on_line=on_line)

    def _run(
        self,
        verb: str,
        *words: float,
        seconds: float = 0,
        sent: bytes = b"",
        on_line: Callable[[Any], None] | None = None,
    ) -> list[Any]:
        """Run a verb. Return its answers, unless `on_line` takes them."""
        answers: list[Any] = []
        command, silence = [verb, *map(str, words)], _CHANGING_SECONDS + seconds
        self._writer.run_helper(self._container, command, on_line or answers.append, silence, sent=sent)
        return answers


def _giving(
    key: bytes, give: Mapping[str, str] | None, keep: Collection[str] = (), at_rest: Collection[str] = ()
) -> bytes:
    said = {"key": b64encode(key).decode(), "give": give, "keep": sorted(keep), "rest": sorted(at_rest)}
    return json.dumps(said).encode()
