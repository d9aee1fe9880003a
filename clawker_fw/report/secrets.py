"""The answers of `clawker-fw secrets`, for people. No value is ever in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

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
    State.GIVEN: "given",
    State.ABSENT: "not given yet",
    State.ANOTHER: "another one is in use",
    State.UNUSED: "no rule needs it",
    State.OBTAINED: "can be obtained",
    State.UNAVAILABLE: "can't be obtained",
    State.UNKNOWN: "not known",
}


@dataclass(frozen=True, slots=True)
class SecretRow:
    """A secret of the user's file. `refresh` is in seconds. `rules` are those that put it into requests.

    `at_rest` says whether it is kept on the disk of the engine's machine as well.
    """

    name: str
    source: str
    header: str
    hosts: Sequence[str]
    refresh: float | None
    at_rest: bool
    rules: Sequence[str]
    state: State
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SecretsAnswer:
    """The secrets of one file."""

    file: str
    rows: Sequence[SecretRow]

    @property
    def states(self) -> Mapping[State, int]:
        """How many are in each state."""
        found = [each.state for each in self.rows]
        return {state: found.count(state) for state in State if state in found}


def secret_table(answer: SecretsAnswer) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return the headings and rows of the table of secrets."""
    headings = ("NAME", "FROM", "HEADER", "HOSTS", "REFRESH", "KEPT", "STATE")
    return headings, [
        (
            each.name,
            each.source,
            each.header,
            " ".join(host.removesuffix(":443") for host in each.hosts),
            readable(each.refresh) if each.refresh else "never",
            "at rest" if each.at_rest else "in memory",
            _WORDS[each.state],
        )
        for each in answer.rows
    ]


def secrets_verdict(answer: SecretsAnswer) -> str:
    """Return one line: how many there are, and in which state."""
    if not answer.rows:
        return f"{answer.file} declares no secrets"
    counted = ", ".join(f"{count} {_WORDS[state]}" for state, count in answer.states.items())
    return f"{answer.file}: {counted}"
