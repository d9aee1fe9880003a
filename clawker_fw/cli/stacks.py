"""Commands about every stack of a settings file: the top-level stack, and a stack for each group.

A command answers about one stack. If the file has groups and none is chosen, it answers about all of them in
parallel: one line for each, then the details of those that differ.
"""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from clawker_fw import interrupts
from clawker_fw.background import in_background
from clawker_fw.cli import session
from clawker_fw.cli.parameters import Format, Options
from clawker_fw.errors import ExitCode, FirewallError, SettingsError
from clawker_fw.report import commands, log, terminal
from clawker_fw.settings.find import groups_of

if TYPE_CHECKING:
    from clawker_fw.report.text import Renderable

_AT_A_TIME = 8
"""How many stacks are compared at the same time."""


@dataclass(frozen=True)
class Answer:
    """A command's answer about one stack.

    `document` returns the answer in JSON, `text` what people read, and `line` the one line about this stack among
    several. `error` is what prevented a part of the answer.
    """

    document: Callable[[], Any]
    text: "Callable[[], Iterable[Renderable]]"
    line: "Callable[[], Renderable]"
    code: int = ExitCode.CURRENT
    differs: bool = False
    error: FirewallError | None = None


Work = Callable[[Options], Answer]


def stacks_of(chosen: Options) -> tuple[Options, ...]:
    """Return the options for each stack that a command concerns: the chosen group's, or all of the file.

    If the file can't be read, it is the chosen one, and the command reports why.
    """
    groups: Sequence[str] = ()
    if not chosen.group:
        with suppress(SettingsError):
            groups = groups_of(chosen.config)
    return (chosen, *(replace(chosen, group=group) for group in groups))


def answer(chosen: Options, work: Work, format_: Format) -> None:
    """Answer about the chosen stack, or about each stack of the file, and exit with the highest code."""
    stacks = stacks_of(chosen)
    if len(stacks) > 1:
        _answer_about_each(stacks, work, format_)
        return
    answered = work(chosen)
    if format_ is Format.JSON:
        session.print_json(answered.document())
    else:
        for part in answered.text():
            session.print_report(part)
    if answered.error:
        raise answered.error
    if answered.code:
        raise typer.Exit(answered.code)


def side_by_side(chosen: Options, work: Callable[[Options], None]) -> None:
    """Do work without an end for the chosen stack, or for each stack of the file. Raises the first error."""
    stacks = stacks_of(chosen)
    if len(stacks) == 1:
        work(chosen)
        return

    def about(one: Options) -> None:
        with speaking_of(one):
            work(one)

    pending = {in_background(about, one) for one in stacks}
    with suppress(KeyboardInterrupt):  # the usual end
        while pending:
            ended, pending = wait(pending, interrupts.LONGEST_WAIT, FIRST_COMPLETED)
            for one in ended:
                one.result()


@contextmanager
def stopped_together(chosen: Options, words: str) -> "Iterator[Callable[[], bool] | None]":
    """Let Ctrl-C stop the work on several stacks after their current steps, and say so in these words.

    Yields a function that tells whether it has come, or None if the command is about one stack.
    """
    if len(stacks_of(chosen)) == 1:
        yield None
        return
    with session.stoppable(lambda: log.notice("stopping", words), signal.SIGINT) as stopping:
        yield stopping


def _answer_about_each(stacks: Sequence[Options], work: Work, format_: Format) -> None:
    turns = threading.Semaphore(_AT_A_TIME)

    def about(chosen: Options) -> Answer | FirewallError:
        turn = nullcontext() if chosen is stacks[0] else turns  # all others may wait for the first
        with turn, speaking_of(chosen):
            try:
                return work(chosen)
            except FirewallError as error:
                return error

    with session.one_connection(stacks[0]):
        pending = [in_background(about, chosen) for chosen in stacks]
    answers = [(chosen, future.result()) for chosen, future in zip(stacks, pending, strict=True)]
    if format_ is Format.JSON:
        _print_documents(answers)
    else:
        _print_texts(answers)
    if code := max(_code(answer) for _, answer in answers):
        raise typer.Exit(code)


def _print_documents(answers: Sequence[tuple[Options, Answer | FirewallError]]) -> None:
    from clawker_fw.report.documents import ErrorDocument, StacksDocument, values

    entries: list[dict[str, object]] = []
    for chosen, answer in answers:
        with speaking_of(chosen):
            document = ErrorDocument.of(answer) if isinstance(answer, FirewallError) else answer.document()
            entries.append({"group": chosen.group, **values(document)})
    session.print_json(StacksDocument(stacks=entries))


def _print_texts(answers: Sequence[tuple[Options, Answer | FirewallError]]) -> None:
    """Print a line for each stack, then the whole answer about those that differ, then errors."""
    for chosen, answer in answers:
        with speaking_of(chosen):
            if isinstance(answer, FirewallError):
                terminal.answer(f"failed  {chosen.project}: {answer.message}")
            else:
                session.print_report(answer.line())
    for chosen, answer in answers:
        with speaking_of(chosen):
            if isinstance(answer, FirewallError):
                session.print_error(answer)
            elif answer.differs or answer.code:
                terminal.answer("")
                for part in answer.text():
                    session.print_report(part)


def _code(answer: Answer | FirewallError) -> int:
    if isinstance(answer, FirewallError):
        return answer.exit_code
    return max(answer.code, answer.error.exit_code if answer.error else 0)


@contextmanager
def speaking_of(chosen: Options) -> Iterator[None]:
    """Give messages the name of this stack, and the commands in them its options."""
    with commands.using(chosen.naming), log.about(chosen.project):
        yield
