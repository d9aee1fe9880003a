"""The answer of `clawker-fw secrets`, and its text form. It never contains a value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from clawker_fw.report.documents import Document
from clawker_fw.settings.durations import readable


class State(StrEnum):
    """What is known of a secret in a stack, or of its source."""

    GIVEN = "given"
    ABSENT = "absent"
    ANOTHER = "another"
    UNUSED = "unused"
    OBTAINED = "obtained"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"


_WORDS = {
    State.GIVEN: "in Envoy",
    State.ABSENT: "not in Envoy yet",
    State.ANOTHER: "Envoy has a different value",
    State.UNUSED: "no rule needs it",
    State.OBTAINED: "can be obtained",
    State.UNAVAILABLE: "can't be obtained",
    State.UNKNOWN: "not known",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRow:
    """A secret that the user has declared."""

    name: str
    """Its name, by which rules put it into requests."""
    source: str
    """Where it comes from: `env`, `file` or `command`."""
    header: str
    """The header that it is put into, in lower case."""
    hosts: Sequence[str]
    """The hosts that may have it, each with its port."""
    refresh: float | None
    """After how many seconds a watcher obtains it again; null for never."""
    at_rest: bool
    """Whether it is kept on the disk of the Docker host as well, and outlives a restart."""
    rules: Sequence[str]
    """The rules that put it into requests, and `upstream.auth`."""
    state: State
    """`given`: Envoy has it. `absent`: it has not. `another`: it has one with another value. `unused`: no rule
    needs it. `obtained`, `unavailable`: whether its source gives it, after `secrets check`. `unknown`: the stack
    does not run, or could not be asked."""
    problem: str | None
    """Why its source does not give it; null if that is not so, or was not tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsAnswer(Document):
    """The secrets of the user's file. No value is ever in it."""

    file: str
    """The path of the file."""
    secrets: Sequence[SecretRow]
    """Each secret, in the order of the file."""

    @property
    def states(self) -> Mapping[State, int]:
        states = [secret.state for secret in self.secrets]
        return {state: states.count(state) for state in State if state in states}


def secret_table(answer: SecretsAnswer) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return the headings and the rows."""
    headings = ("NAME", "FROM", "HEADER", "HOSTS", "REFRESH", "KEPT", "STATE")
    return headings, [
        (
            secret.name,
            secret.source,
            secret.header,
            " ".join(host.removesuffix(":443") for host in secret.hosts),
            readable(secret.refresh) if secret.refresh else "never",
            "at rest" if secret.at_rest else "in memory",
            _WORDS[secret.state],
        )
        for secret in answer.secrets
    ]


def secrets_verdict(answer: SecretsAnswer) -> str:
    """Return one line with the number of secrets in each state."""
    if not answer.secrets:
        return f"{answer.file} declares no secrets"
    counted = ", ".join(f"{count} {_WORDS[state]}" for state, count in answer.states.items())
    return f"{answer.file}: {counted}"
