"""Text from files, names, labels and processes never reaches a terminal unescaped."""

import functools
import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawker_fw.errors import FirewallError
from clawker_fw.model.differences import Action, Cause, Diff, Finding, Layer, Verdict
from clawker_fw.model.observed import Attempt
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.apply import Progress
from clawker_fw.reconcile.compare.rules import RuleChanges
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.steps import Plan, RemoveVolume
from clawker_fw.reconcile.summary import Build, Effect, Interruption, Summary
from clawker_fw.report import documents, log, status, step_display, terminal, text
from clawker_fw.report.documents.parts import SiblingFindings
from clawker_fw.report.status import StatusDocument
from clawker_fw.report.step_records import StepRecords
from devkit.memory.engine import MemoryEngine

HOSTILE = "\x1b]0;title\x07\x1b[2K\x1b[1A\rcurrent\x08\x9b31m\u202egnp\u2028\n\x00\udc9b"
foreign = st.one_of(st.text(), st.text(st.sampled_from([*HOSTILE, *'ab ="[/]']))).map(str)


def harmless(printed: str) -> bool:
    return all(line.isprintable() for line in printed.split("\n"))


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def printed(show: Callable[[], object], kind: type[io.StringIO] = io.StringIO) -> str:
    """Return standard output and standard error, as terminals or not."""
    out = kind()
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = out
    try:
        show()
    finally:
        sys.stdout, sys.stderr = before
    return out.getvalue()


def finding(said: str) -> Finding:
    """Return a finding with this text in every foreign part."""
    return Finding(
        sibling=Sibling.ENVOY,
        layer=Layer.HOT,
        field=said,
        running=said,
        desired=(said, said),
        cause=Cause.TAMPER,
        action=Action.COMMIT,
        contents=(f"a\n{said}\nb\n".encode(errors="replace"), b"a\nb\n"),
    )


def summary(said: str) -> Summary:
    """Return the finding's summary, with this text in place of every name."""
    build = Build(said, said)
    return Summary(
        project=said,
        absent=False,
        count=1,
        effects={Effect.UPDATED: (Sibling.ENVOY,)},
        interruption=Interruption(cut=True),
        changes=RuleChanges((said,), (said,)),
        builds={Sibling.ENVOY: (build, build)},
        reasons={cause: (replace(finding(said), cause=cause),) for cause in Cause},
    )


def diff(said: str) -> Diff:
    """Return a difference with one such finding."""
    return Diff((finding(said),), dict.fromkeys(Sibling, Verdict.DRIFTED))


@settings(deadline=None)
@given(foreign)
def test_nothing_foreign_is_printed_as_it_is(said: str) -> None:
    """Reports, errors, steps, tracebacks and records escape the text, and none of them fails."""
    step = RemoveVolume(said)
    error = FirewallError("code", said, context=[said], hint=said)
    try:
        raise error
    except FirewallError:
        pass

    def display() -> None:
        for output in (step_display.StepDisplay(text.console(stderr=True), files=True), StepRecords()):
            output.difference(diff(said), summary(said))
            output(Progress(step, 0.0, said))
            output(Progress(step, 1.0, said))

    def record() -> None:
        fields = {"value": said, "several": [said], said: 1}
        log.LOG.warning("event %s", said, extra={"fields": fields})
        log.LOG.warning("event", extra={"words": said})
        log.error(error, debug=True)

    for style in log.LogFormat:
        log.configure(style, debug=False)
        for show in (
            lambda: text.console().print(text.drift_report(diff(said), summary(said))),
            lambda: text.console().print(step_display.plan_report(Plan(((step,),), (), 0))),
            lambda: text.console().print(text.attempt_report(Attempt(said, "code", said, (said,)))),
            lambda: text.print_error(error, text.console(stderr=True), debug=True),
            lambda: terminal.answer(said),
            lambda: text.console().print(text.head(Verdict.CURRENT, said)),
            lambda: terminal.answer(documents.text(SiblingFindings.both(diff(said))[0])),
            display,
            record,
        ):
            assert harmless(printed(show))


@given(foreign)
def test_a_line_is_never_forged(said: str) -> None:
    """A name with a line break stays on its line in a table, a record and an error."""
    log.configure(log.LogFormat.TEXT, debug=False)
    rows, most = (
        printed(functools.partial(text.console().print, text.drift_report(diff(words), summary(words))))
        for words in (said, "three harmless words")
    )
    assert len(rows.splitlines()) <= len(most.splitlines())
    for kind in (io.StringIO, Terminal):
        record = printed(lambda: log.LOG.warning("event", extra={"fields": {"value": said, said: 1}}), kind)
        assert len(record.splitlines()) == 1
        assert harmless(record)


def test_a_terminal_gets_styles_of_ours_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, hostile text appears escaped between our own colours."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    text.console().print(text.drift_report(diff(HOSTILE), summary(HOSTILE)))
    assert "\\x1b]0;title\\x07" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()
    assert harmless(re.sub(r"\x1b\[[0-9;]+m", "", stream.getvalue()))
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            plain = printed(lambda: text.console().print(text.head(Verdict.CURRENT, "clawker")), Terminal)
            assert "32m" not in plain


def test_what_an_engine_says_is_made_visible(memory: MemoryEngine, up: Blueprint) -> None:
    """`status` escapes states, addresses, images and names of leftovers."""
    seen = pipeline.compare(memory, up)
    hostile = {
        each: replace(one, container=replace(one.container, status=HOSTILE, health=HOSTILE, image=HOSTILE))
        for each, one in seen.observed.siblings.items()
    }
    observed = replace(seen.observed, siblings=hostile, orphans=(HOSTILE,))
    found = StatusDocument.of(observed, "clawker", 0, replace(seen, observed=observed))
    out = printed(lambda: text.console().print(status.status_report(found, 0)))
    assert "\\x1b]0;title\\x07" in out
    assert harmless(out)


def test_a_question_without_an_answer_does_not_keep_the_program() -> None:
    """Background work on a hanging engine ends with the program."""
    program = "import time; from clawker_fw.background import in_background; in_background(time.sleep, 600)"
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 0
