"""The client of `fwctl`, the helper in our containers: a method per verb, a type per answer.

`go/cmd/fwctl/protocol.json` describes the protocol, and the tests of both sides check it. An answer in an unknown
form is an error, never empty. Helpers of earlier releases print fewer fields, those of later ones may print more.
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
from clawker_fw.model.trials import Lookup, ProxyAnswer, Trial
from clawker_fw.model.usage import Usage

KEY_BYTES = 32
"""The length of the key with which secrets are compared."""

PROTOCOL = 1
"""The version of the protocol. It changes when another version would be misunderstood."""

NO_ANSWER = (NotFoundError, ConflictError)
"""The errors when a helper's container is gone or does not run."""

_MOST_CHARACTERS = 200
_SECRETS = "Secrets were told of"
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Committed:
    """The result of a commit.

    `refused` are the resources that the program rejected, or did not load in time. `hung` is whether the program
    no longer answers and must be restarted.
    """

    committed: bool
    refused: tuple[str, ...] = ()
    reason: str = ""
    hung: bool = False


@dataclass(frozen=True, slots=True)
class Suppressed:
    """How many refusals were counted but not logged: `dropped` by limits, by the agent's address.

    `refusals` were only counted by an Envoy of an earlier release. `lines` is the number of the last logged line,
    which helpers of earlier releases do not report. `counted` are records that wait for room in the log.
    """

    refusals: int
    lines: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    counted: tuple[Mapping[str, Any], ...] = ()

    def include(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is among the waiting ones: it was logged after this count."""
        number = record.get("line")
        is_later = isinstance(number, int) and self.lines is not None and number > self.lines
        return is_later and not record.keys().isdisjoint({"times", "suppressed"})


def digest_of_secret(key: bytes, identity: str, value: str) -> str:
    """Return a signer's digest of a secret with this value, under this key."""
    return hmac.new(key, f"{identity}\0{value}".encode(), "sha256").hexdigest()


_PROBE = TypeAdapter(Probe)


def _read(kind: TypeAdapter[_Answer], answer: Mapping[str, Any], what: str, *needed: str, of: str = "") -> _Answer:
    """Read an answer, or one field `of` it. Missing and null fields have their defaults, unless `needed`."""
    try:
        given = {name: value for name, value in answer.items() if value is not None}
        _ = [given[name] for name in needed]
        return kind.validate_json(json.dumps(given[of] if of else given), strict=True)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = _reason(error)[:_MOST_CHARACTERS]
        raise EngineError("probe-unreadable", f"{what} in an unknown form: {reason}.") from None


def _reason(error: Exception) -> str:
    """Describe an error in an answer without its values, which may be secret."""
    if not isinstance(error, ValidationError):
        return f"{error} is missing" if isinstance(error, KeyError) else str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


_READING_SECONDS = 20.0
_TRYING_SECONDS = 45.0
_CHANGING_SECONDS = 120.0
"""How long a verb may be silent, besides its own duration."""


class HelperReader:
    """The verbs that change nothing, in a running container. Without a readable answer, they raise EngineError."""

    def __init__(self, engine: EngineReader, container: str) -> None:
        self._reader = engine
        self._container = container

    def probe(self, *, envoy: bool = True, starting: bool = False) -> Probe:
        """Return the helper's report on its program. Raise EngineError if it speaks a later protocol.

        With `envoy=False`, it leaves out how agents see an Envoy that does not run, to save a second of waiting.
        With `starting`, it waits until the program serves, at most three seconds.
        """
        words = {"starting": starting, "without-envoy": not envoy}
        answer = self._ask("probe", *(word for word, applies in words.items() if applies))
        protocol = answer.get("protocol", PROTOCOL)
        if protocol != PROTOCOL:
            raise EngineError(
                "helper-newer",
                f"A helper speaks protocol {protocol}, and this release knows {PROTOCOL}.",
                hint="A later release made this stack. Install that, or replace the stack with `clawker-fw run`.",
            )
        fields = {"unhealthy": "it can't tell", **answer}
        return _read(_PROBE, fields, "A probe answered", "build", "addresses", "claimed", "network", "error")

    def lookup(self, name: str) -> Lookup:
        """Resolve a name in Envoy's container, as Envoy does. It takes up to 5 s."""
        return _read(TypeAdapter(Lookup), self._ask("lookup", name), "A lookup was answered", "error")

    def trial(self, name: str, protocol: str, port: int, *request: str) -> Trial:
        """Use a name as an agent would, from CoreDNS's container. It takes up to 25 s.

        With a `request` (method and path), it sends this one in inspected TLS.
        """
        answer = self._ask("try", name, protocol, str(port), *request, seconds=_TRYING_SECONDS)
        return _read(TypeAdapter(Trial), answer, "An attempt was answered")

    def try_proxy(self, question: Mapping[str, Any]) -> tuple[ProxyAnswer, ...]:
        """Send requests to the upstream proxy from Envoy's container. It takes up to 25 s.

        `question` has the fields of `ProxyQuestion` (go/internal/attempts/proxy.go).
        """
        sent = json.dumps(question).encode()
        answer = self._ask("proxy", str(len(sent)), seconds=_TRYING_SECONDS, sent=sent)
        return _read(TypeAdapter(tuple[ProxyAnswer, ...]), answer, "A proxy was tried", of="answers")

    def suppressed(self) -> Suppressed:
        """Return the counts of refusals that were not logged."""
        return _read(TypeAdapter(Suppressed), self._ask("suppressed"), "A count was answered")

    def usage(self) -> Usage:
        """Return what agents have used of the rules, from Envoy's recorder."""
        return _read(TypeAdapter(Usage), self._ask("usage"), "What agents have used was told", "uses", "lost")

    def agents_see(self, place: str) -> tuple[str, ...]:
        """Return the problems that agents would have at a place (an address and ports, as JSON)."""
        return _read(TypeAdapter(tuple[str, ...]), self._ask("see", place), "A look was answered", of="agents_see")

    def relayed(self, words: Sequence[str]) -> tuple[str, ...]:
        """Describe a relay's network differences and closed ports. `words` are those with which it was started."""
        answer = self._ask("relayed", *words)
        network = _read(TypeAdapter(tuple[str, ...]), answer, "A relay answered", of="network")
        closed = _read(TypeAdapter(tuple[int, ...]), answer, "A relay answered", of="closed")
        return (*network, *(f"no program listens on port {port}" for port in closed))

    def secrets(self, key: bytes) -> HeldSecrets:
        """Return the secrets that Envoy can inject.

        `key` has 32 bytes and is for this query only: with it, anybody could compare secrets.
        """
        sent = _request(key, None)
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
        """Apply files live, and return the result, or None if the helper reports none.

        They are written in place, so that files that have not grown need no room on the engine's disk. `taken` is
        called when the program serves them, before that is verified.

        Raises:
            DiskFullError: when there is no room for their growth. Nothing has changed then.
        """
        answers: list[Committed] = []

        def on_line(answer: Mapping[str, Any]) -> None:
            if answer.get("taken"):
                taken()
            else:  # missing fields count as a refusal
                refused = answer.get("rejected") or answer.get("missing") or ()
                reason = str(answer.get("reason") or "")
                committed, hung = answer.get("committed") is True, answer.get("hung") is True
                answers.append(Committed(committed, tuple(map(str, refused)), reason, hung))

        sent = archive.pack(files)
        self._run("commit-in-place", len(sent), sent=sent, on_line=on_line)
        return answers[-1] if answers else None

    def give_secrets(
        self, key: bytes, values: Mapping[str, str], keep: Collection[str] = (), at_rest: Collection[str] = ()
    ) -> HeldSecrets:
        """Replace all secrets except those to `keep`, and return the result. `key` is as in `secrets`.

        Of both, exactly those `at_rest` are stored on disk.
        """
        sent = _request(key, values, keep, at_rest)
        answers = self._run("secrets", len(sent), sent=sent)
        return _read(TypeAdapter(HeldSecrets), answers[-1], _SECRETS) if answers else HeldSecrets({})

    def claim(self, seconds: float) -> None:
        """Take over the service address, and announce it for this time."""
        self._run("claim", seconds, seconds=seconds)

    def release(self) -> None:
        """Give up the service address."""
        self._run("release")

    def drain(self, seconds: float, on_connections: Callable[[int], None]) -> None:
        """Wait until no connection is open, or for this time. Report each change of their number."""

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


def _request(
    key: bytes, give: Mapping[str, str] | None, keep: Collection[str] = (), at_rest: Collection[str] = ()
) -> bytes:
    request = {"key": b64encode(key).decode(), "give": give, "keep": sorted(keep), "rest": sorted(at_rest)}
    return json.dumps(request).encode()
