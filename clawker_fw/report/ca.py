"""The answers of `clawker-fw ca`, for people. No key is ever in them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from clawker_fw.certificates import authority
from clawker_fw.certificates.authority import Intermediate, Root
from clawker_fw.certificates.credentials import Pair
from clawker_fw.rules.until import rfc3339

_SHOWN = 16
_MOST_AGENTS = 5


class State(StrEnum):
    """What a root is for at the moment."""

    ANNOUNCED = "announced"
    SIGNS = "signs"
    FORMER = "former"


@dataclass(frozen=True, slots=True)
class RootRow:
    """A root. `live` is whether the stack's bundle has it. An announced one signs from `signs_at` on."""

    root: Root
    state: State
    live: bool
    signs_at: float | None = None


@dataclass(frozen=True, slots=True)
class IntermediateRow:
    """An intermediate of the stack, and the fingerprint of the root that has signed it."""

    intermediate: Intermediate
    root: str


@dataclass(frozen=True, slots=True)
class AuthorityAnswer:
    """What is known of a project's authority. Roots are in order, the newest first.

    `inspects` is whether the stack inspects connections now, and `without` are the agents of the stack that have
    not been given the newest root.
    """

    project: str
    inspects: bool
    roots: Sequence[RootRow]
    intermediates: Sequence[IntermediateRow]
    without: Sequence[str]

    @property
    def delivered(self) -> bool:
        """Whether the stack's bundle, which new agents are given, has the newest root."""
        return not self.roots or self.roots[0].live


def roots(kept: Sequence[Root], live: Sequence[Root], issuer: str, now: float) -> list[RootRow]:
    """Return the roots that are kept here, and those that only the stack has.

    `issuer` is the fingerprint of the root under which the stack's newest intermediate is, or an empty string. It
    is what signs if no key is here.
    """
    here = {each.identifier: each for each in kept}
    there = {each.identifier: each for each in live}
    every = sorted({**there, **here}.values(), key=lambda each: each.made, reverse=True)
    chosen = authority.signing(kept, now)
    signs = chosen.identifier if chosen else issuer
    made = next((each.made for each in every if each.identifier == signs), 0)
    return [_row(each, signs, made, live=each.identifier in there) for each in every]


def _row(root: Root, signs: str, since: float, *, live: bool) -> RootRow:
    if root.identifier == signs:
        return RootRow(root, State.SIGNS, live)
    if root.made > since:
        signs_at = root.made + authority.ANNOUNCED.total_seconds()
        return RootRow(root, State.ANNOUNCED, live, signs_at)
    return RootRow(root, State.FORMER, live)


def intermediates(pairs: Sequence[Pair], known: Sequence[Root]) -> list[IntermediateRow]:
    """Return the intermediates that are under known roots, the newest first."""
    found = []
    for pair in pairs:
        for root in known:
            with suppress(ValueError):
                found.append(IntermediateRow(authority.judge(pair, [root]), root.identifier))
    return sorted(found, key=lambda each: each.intermediate.begins, reverse=True)


def root_table(answer: AuthorityAnswer) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows about roots."""
    headings = ["root", "from", "until", "key", "in the stack", "state"]
    return headings, [
        [
            each.root.identifier[:_SHOWN],
            rfc3339(each.root.begins),
            rfc3339(each.root.ends),
            "here" if each.root.signs else "not here",
            "yes" if each.live else "no",
            f"{each.state}, signs from {rfc3339(each.signs_at)}"
            if each.signs_at is not None
            else each.state.value,
        ]
        for each in answer.roots
    ]


def intermediate_table(answer: AuthorityAnswer) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows about intermediates."""
    headings = ["intermediate for", "root", "until", "renewed"]
    return headings, [
        [
            _names(each.intermediate.names),
            each.root[:_SHOWN],
            rfc3339(each.intermediate.ends),
            rfc3339(each.intermediate.renewed_at),
        ]
        for each in answer.intermediates
    ]


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def verdict(answer: AuthorityAnswer) -> str:
    """Return the sentence about agents, and what to do."""
    if not answer.roots:
        return (
            "There is no authority yet: `clawker-fw run` makes it with the first rule that inspects connections."
        )
    if not answer.delivered:
        return "The stack does not have the newest root yet: run `clawker-fw run`, then start agents again."
    if not answer.inspects:
        return "The stack inspects no connection, so its agents need no root."
    if not answer.without:
        return "Every agent has been given the newest root."
    shown = ", ".join(answer.without[:_MOST_AGENTS])
    more = f" and {len(answer.without) - _MOST_AGENTS} more" if len(answer.without) > _MOST_AGENTS else ""
    when = next((each.signs_at for each in answer.roots if each.signs_at is not None), None)
    by = f" before {rfc3339(when)}" if when is not None else ""
    return (
        f"Without the newest root: {shown}{more}. Create them again{by}, by `clawker-fw agent run`, `agent flags` "
        "or `agent compose`: what is inspected fails in them otherwise."
    )
