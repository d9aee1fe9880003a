"""What an error shows of the log of a program that has ended is what says why."""

from clawker_fw.reconcile.apply import telling

# ruff: noqa: E501 - lines as Envoy writes them

_ABORT = """\
[2026-11-27 23:53:41.{0}][1][warning][config] [source/x/config.cc:22] 'CEL' formatter is always enabled.
[2026-11-27 23:53:41.{0}][1][critical][assert] [source/common/filesystem/inotify/watcher_impl.cc:24] assert failure: \
inotify_fd_ >= 0. Details: Consider increasing value of user.max_inotify_watches via sysctl
[2026-11-27 23:53:41.{0}][1][critical][backtrace] [./source/server/backtrace.h:129] Caught Aborted, suspect faulting \
address 0xfffc00000001
[2026-11-27 23:53:41.{0}][1][critical][backtrace] [./source/server/backtrace.h:113] Backtrace (use tools/stack_decode.py):
[2026-11-27 23:53:41.{0}][1][critical][backtrace] [./source/server/backtrace.h:114] Envoy version: 1.40.0/Clean/RELEASE
[2026-11-27 23:53:41.{0}][1][critical][backtrace] [./source/server/backtrace.h:121] #0: [0x7f2d1c2d0050]
[2026-11-27 23:53:41.{0}][1][critical][backtrace] [./source/server/backtrace.h:119] #1: Envoy::Server::main() [0x5581]
"""


def test_a_backtrace_hides_nothing() -> None:
    """Of an Envoy that was started again and again, each failure is told once, and no line of a backtrace."""
    lines = "".join(_ABORT.format(f"{time:03}") for time in range(9)).splitlines()
    told = telling(lines)
    assert [line.rpartition("] ")[2][:24] for line in told] == [
        "assert failure: inotify_",
        "Caught Aborted, suspect ",
    ]
    assert "41.008" in told[0]


def test_warnings_are_told_if_there_is_nothing_worse() -> None:
    """Warnings of an Envoy that lives fill no line that a failure needs, but are better than nothing."""
    warnings = tuple(
        f"[2026-11-27 23:53:41.00{each}][1][warning][config] [source/x/config.cc:22] unusual {each}."
        for each in range(9)
    )
    assert telling(warnings) == warnings[1:]
    usual = (
        "[2026-11-27 23:53:41.000][1][warning][config] [source/x/config.cc:22] 'CEL' formatter is always enabled."
    )
    assert telling([usual]) == ()
    failure = "[2026-11-27 23:53:41.000][1][error][config] [source/x/config.cc:9] no room"
    assert telling([failure, *warnings]) == (failure,)
    assert telling(["fwctl: no such table", *warnings]) == ("fwctl: no such table",)


def test_an_allocator_s_message_is_kept() -> None:
    """What is written without a time is told as well, without the addresses that follow."""
    message = "external/tcmalloc/system-alloc.cc:525] MmapAligned() failed (size, alignment) 33554432 33554432"
    assert telling([message, "    @     0x417480  (unknown)", "0x416eb8 0x405528", ""]) == (message,)


def test_only_the_last_lines_are_told() -> None:
    """A log of other lines is told from its end."""
    assert telling([f"fwctl: {number}" for number in range(20)]) == tuple(
        f"fwctl: {each}" for each in range(12, 20)
    )


def test_a_rejected_file_is_told_and_no_refusal_to_an_agent() -> None:
    """Agents are refused all the time, so the newest lines of a log are records; a rejection is only a warning."""
    rejected = (
        "[2026-11-27 23:53:41.001][1][warning][config] [source/x/filesystem_subscription_impl.cc:110] Filesystem "
        "config update rejected: Only unique names for virtual hosts are permitted."
    )
    harmless = (
        "[2026-11-27 23:53:41.002][1][warning][config] [source/x/config.cc:22] 'CEL' formatter is always enabled."
    )
    records = [
        f'{{"time":"2026-11-27T23:53:42.{each:03}Z","reason":"path","path":"/v{each}"}}' for each in range(20)
    ]
    assert telling([rejected, harmless, *records]) == (rejected,)
    assert telling(records) == ()
