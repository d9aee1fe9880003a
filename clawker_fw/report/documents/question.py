"""The question that `denials --ask --exec` writes to its command: one object on one line."""

from dataclasses import dataclass

from pydantic import PositiveInt

from clawker_fw.denials.question import Question
from clawker_fw.inspect.explanation import Difference
from clawker_fw.report.documents import Document
from clawker_fw.report.questions import meaning
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol

_MOST_AGENTS = 10


@dataclass(frozen=True, slots=True)
class QuestionedRequest:
    """The request that is asked about, where a rule looks into TLS."""

    method: str
    path: str
    """Without its query. `meaning` says whether everything below it would be allowed, too."""


@dataclass(frozen=True, slots=True)
class NearbyRule:
    """The rule that nearly allows it."""

    text: str
    """The rule in one line."""
    place: str
    """The file and line where it is written."""
    difference: Difference
    """Why it does not allow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionDocument(Document):
    """Whether agents may reach a host, or send it a request. The command may answer with one line.

    `allow 30m` (a number with `s`, `m`, `h` or `d`), `always` or `deny`; without a line, nothing changes.
    """

    agents: list[str]
    """Who was refused it: names, or addresses where no name is known; the first ten."""
    times: PositiveInt
    """How often."""
    host: str
    """The host, in ASCII: what the rule would be for."""
    letters: str | None
    """What an international name looks like; null for other names. Letters of other scripts may look alike."""
    scripts: list[str]
    """The scripts of the letters in it that are not ASCII, such as `Cyrillic`."""
    protocol: Protocol
    port: PositiveInt
    assumed: bool
    """Whether protocol and port are only what is usual, because the agent has only asked the resolver."""
    request: QuestionedRequest | None
    """Null where the whole host is asked about."""
    reason: Reason
    message: str
    """The reason in words."""
    near: NearbyRule | None
    meaning: str
    """What allowing it means."""
    answers: list[str]
    """The answers that mean something here."""

    @classmethod
    def of(cls, question: Question) -> "QuestionDocument":
        """Return a question."""
        found, near, request = question.international, question.near, question.request
        return cls(
            agents=list(question.agents[:_MOST_AGENTS]),
            times=question.times,
            host=question.target.name,
            letters=found.letters if found else None,
            scripts=list(found.scripts) if found else [],
            protocol=question.target.protocol,
            port=question.target.port,
            assumed=question.guessed,
            request=QuestionedRequest(request.method, request.path) if request else None,
            reason=question.reason,
            message=question.message,
            near=NearbyRule(str(near.rule), near.rule.place, near.difference) if near else None,
            meaning=meaning(question),
            answers=["always", "deny"] if question.lasting_only else ["allow 30m", "always", "deny"],
        )
