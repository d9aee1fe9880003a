"""Ask a person at the terminal about refusals as they happen, and apply the answers at once."""

import getpass
import os
import select
import signal
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial

from clawker_fw import interrupts
from clawker_fw.background import in_background
from clawker_fw.cli import session, stack
from clawker_fw.cli.parameters import Options
from clawker_fw.denials.question import Question, question
from clawker_fw.denials.refusal import Counted, Gap
from clawker_fw.denials.ruling import Allow, Deny, Leave, Reply, require_kept, ruling, typed
from clawker_fw.denials.waiting import Candidate, Waiting
from clawker_fw.errors import FirewallError, OutputError, RefusedError, SettingsError, StoppedError
from clawker_fw.report import questions, terminal
from clawker_fw.settings.edit import rules_file
from clawker_fw.settings.edit.rules_file import Edited
from clawker_fw.settings.edit.splice import Edit

_LOOK_EVERY = 0.2
"""Seconds between two checks for new refusals."""
_LOCK_WAIT = 30.0
_MOST_TYPED = 4_096
_REST, _LONGEST_REST = 4, 1.0
"""A check that asks nothing is followed by a pause of this many times its duration."""

Arrival = tuple[Counted | Gap, str]
"""A refusal and the agent's name, if known, or a gap in the log."""


class Arriving:
    """The waiting refusals, filled in the background."""

    def __init__(self, arrivals: Iterator[Arrival]) -> None:
        self._changed = threading.Condition()
        self._waiting = Waiting()
        self._taken_in = in_background(self._take_in, arrivals)

    def _take_in(self, arrivals: Iterator[Arrival]) -> None:
        try:
            for counted, agent in arrivals:
                if not isinstance(counted, Gap):
                    with self._changed:
                        self._waiting.add(counted, agent or counted.refusal.agent)
                        self._changed.notify()
        finally:
            with self._changed:
                self._changed.notify()

    @property
    def ended(self) -> bool:
        """Whether the stack is gone, so that nothing more will arrive."""
        return self._taken_in.done()

    def require_readable(self) -> None:
        """Raise the error that ended the reading of the logs, if any.

        Raises:
            EngineError: if a log can't be read any more.
        """
        if self.ended:
            self._taken_in.result()

    def next(self) -> Candidate | None:
        """Wait for a host to ask about, or return None if there will be none.

        Raises:
            EngineError: if a log can't be read any more.
        """
        with self._changed:
            while True:
                if candidate := self._waiting.take():
                    return candidate
                if self.ended:
                    self.require_readable()
                    return None
                self._changed.wait(_LOOK_EVERY)

    @contextmanager
    def held(self) -> Iterator[Waiting]:
        """Lock the waiting refusals, so that nothing is added."""
        with self._changed:
            yield self._waiting


def _reply(asked: Question, arriving: Arriving) -> Reply | None:
    """Ask a person. Only a line typed after the whole question counts. None means no more answers."""
    termios.tcflush(sys.stdin, termios.TCIFLUSH)  # what was typed before is no answer to this
    with arriving.held() as waiting:
        more = waiting.more
    questions.show(asked, more)
    while not arriving.ended:
        if not select.select([sys.stdin], (), (), _LOOK_EVERY)[0]:
            continue
        line = os.read(sys.stdin.fileno(), _MOST_TYPED)
        if not line:  # end of input
            break
        if reply := typed(line.decode(errors="replace")):
            return reply
        questions.show_misunderstood()
    terminal.answer("")
    return None


def require_editable(chosen: Options) -> None:
    """Require that the settings file's rules can be edited, before asking anything.

    Raises:
        SettingsError: if the file does not exist, or the rules come from elsewhere.
    """
    session.load(chosen)
    rules_file.edit(chosen.config, os.environ, lambda _: (Edit(), ()), write=False, group=chosen.group)


def ask_about(chosen: Options, arrivals: Iterator[Arrival]) -> None:
    """Ask about new refusals, and apply the answers, until stopped or until the stack is gone.

    Raises:
        EngineError: if a log can't be read any more.
        StoppedError: if it was stopped while an answer was applied.
    """
    with _ended_by_signals():
        arriving = Arriving(arrivals)
        terminal.answer("Waiting for refusals. Agents are not blocked. Ctrl-C ends it.")
        answers = _Answers(chosen)
        while candidate := arriving.next():
            asked = answers.question(candidate)
            if asked is None:
                with arriving.held() as waiting:
                    waiting.close()
                continue
            reply = _reply(asked, arriving)
            if reply is None:
                arriving.require_readable()
                return
            if not isinstance(reply, Leave):
                answers.apply(asked, reply)
            with arriving.held() as waiting:
                waiting.close(settled=isinstance(reply, Leave | Deny))


class _Answers:
    def __init__(self, chosen: Options) -> None:
        self._chosen = chosen
        self._complained = ""

    def question(self, candidate: Candidate) -> Question | None:
        """Return the question about a host by the current settings, or None if no answer could be applied."""
        began = time.monotonic()
        try:
            loaded, now = session.load(self._chosen), time.time()
        except SettingsError as error:  # somebody is editing the file
            self._complain(error)
        else:
            rules = loaded.rules.at(now)
            explainer = session.explainer(self._chosen, loaded, now)
            asked = question(explainer, rules, candidate.refusal, tuple(candidate.agents))
            with suppress(SettingsError, RefusedError):  # the settings don't allow any answer
                if asked:
                    self._edit(asked, Allow(), write=False)
                    return asked
        # An agent can cause this refusal as often as it likes.
        time.sleep(min(_LONGEST_REST, (time.monotonic() - began) * _REST))
        return None

    def _complain(self, error: SettingsError) -> None:
        if error.message != self._complained:
            self._complained = error.message
            terminal.answer(f"No questions until the settings can be read: {error.in_one_line}")

    def _edit(self, asked: Question, reply: Allow | Deny, *, write: bool) -> Edited:
        """Edit the settings file by an answer, or only check the edit. Raises the settings' errors."""
        now = datetime.now(UTC)
        decide = ruling(asked, reply, _user(), now)
        edit = partial(rules_file.edit, self._chosen.config, os.environ, decide, group=self._chosen.group)
        done = edit(write=False)
        require_kept(asked, reply, done.before.rules, done.after.rules, now.timestamp())
        if not write:
            return done
        return edit(write=True)

    def apply(self, asked: Question, reply: Allow | Deny) -> None:
        began, saved = time.monotonic(), ""
        try:
            done = self._edit(asked, reply, write=True)
            saved = f" The rule is saved in {done.path}, and not applied."
            stack.apply_settings(self._chosen, stack.Order(_LOCK_WAIT, silent=True))
        except (OutputError, StoppedError):
            raise
        except FirewallError as error:
            terminal.answer(f"error[{error.code}]: {error.in_one_line}{saved} {error.hint}".rstrip())
            return
        words = "denied" if isinstance(reply, Deny) else f"allowed for {reply.time}" if reply.time else "allowed"
        rules = "; ".join(result.rule for result in done.results)
        terminal.answer(f"{words}, and live after {time.monotonic() - began:.1f} s: {rules}")


def _user() -> str:
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.getuid())


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Turn requests to terminate into interruptions, so that no command is left running."""
    with (
        interrupts.handled(signal.default_int_handler, signal.SIGTERM, signal.SIGHUP),
        suppress(KeyboardInterrupt),  # the usual end
    ):
        yield
