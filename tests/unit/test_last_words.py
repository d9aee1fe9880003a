"""Log lines in errors: those that explain why a program ended."""

from typing import cast

from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import EngineError
from clawker_fw.reconcile.containers import last_words

# ruff: noqa: E501 - lines as Envoy writes them

_AT = "[2026-11-27 23:53:41.000][1]"
_ABORT = f"""\
{_AT}[warning][config] [source/x/config.cc:22] 'CEL' formatter is always enabled.
{_AT}[critical][assert] [source/common/filesystem/inotify/watcher_impl.cc:24] assert failure: inotify_fd_ >= 0
{_AT}[critical][backtrace] [./source/server/backtrace.h:129] Caught Aborted, suspect faulting address 0xfffc00000001
{_AT}[critical][backtrace] [./source/server/backtrace.h:113] Backtrace (use tools/stack_decode.py):
{_AT}[critical][backtrace] [./source/server/backtrace.h:114] Envoy version: 1.40.0/Clean/RELEASE
{_AT}[critical][backtrace] [./source/server/backtrace.h:121] #0: [0x7f2d1c2d0050]
{_AT}[critical][backtrace] [./source/server/backtrace.h:119] #1: Envoy::Server::main() [0x5581]
"""
_REJECTED = (
    f"{_AT}[warning][config] [source/x/subscription.cc:110] Filesystem config update rejected: Only unique names."
)
_ALLOCATOR = "external/tcmalloc/system-alloc.cc:525] MmapAligned() failed (size, alignment) 33554432 33554432"


class _Log:
    def __init__(self, *lines: str) -> None:
        self._lines = lines

    def last_words(self, container: str, lines: int) -> tuple[str, ...]:
        if not self._lines:
            raise EngineError("engine-error", f"The engine could not read the log of {container}.")
        return self._lines[-lines:]


def told(*lines: str) -> list[str]:
    return [line.removeprefix("log: ") for line in last_words(cast("EngineReader", _Log(*lines)), "a")]


def test_a_backtrace_hides_nothing() -> None:
    """For an Envoy that restarts repeatedly, failures are shown without backtraces."""
    assert [line.rpartition("] ")[2][:14] for line in told(*_ABORT.splitlines() * 9)] == [
        "assert failure",
        "Caught Aborted",
    ] * 4


def test_a_rejected_file_is_told_and_no_refusal_to_an_agent() -> None:
    """A rejected file is shown instead of newer records of refusals, although it is only a warning."""
    records = [f'{{"time":"2026-11-27T23:53:42.{each:03}Z","reason":"path"}}' for each in range(20)]
    assert told(_REJECTED, _ABORT.splitlines()[0], *records) == [_REJECTED]


def test_other_programs_are_told_from_the_end_of_their_logs() -> None:
    """For other programs, the last lines are shown, also without a time, but without addresses."""
    assert told(_ALLOCATOR, "    @     0x417480  (unknown)", "0x416eb8 0x405528", "") == [_ALLOCATOR]
    assert told(*(f"fwctl: {number}" for number in range(20))) == [f"fwctl: {each}" for each in range(12, 20)]


def test_a_log_that_can_not_be_read_hides_no_failure() -> None:
    """An unreadable log only adds a line to the error."""
    assert told() == ["the log of a could not be read: The engine could not read the log of a."]
