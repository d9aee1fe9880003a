"""The program: `clawker-fw`, or `python -m clawker_fw`."""

import atexit
import gc
import os
import sys

from clawker_fw import interrupts

interrupts.hold()

ALLOCATIONS = 1_000_000
"""Allocations between two runs of the garbage collector. The default of Python 3.11 is 700."""


def main() -> None:
    """Run the program and exit.

    Imports allocate many objects and hardly any garbage. Collecting garbage at the usual rate would take a fifth
    of the start-up time, and another 60 ms at exit. So it runs rarely, and never at exit.
    """
    gc.set_threshold(ALLOCATIONS)
    codes: list[int] = []
    atexit.register(_end, codes)  # the first that is registered is the last that runs
    from clawker_fw.cli import program  # noqa: PLC0415 - imported after the threshold is raised
    from clawker_fw.errors import ExitCode  # noqa: PLC0415 - the same
    from clawker_fw.report import log, terminal  # noqa: PLC0415 - the same

    _provide_home()
    terminal.guard()
    log.capture()
    try:
        program(sys.argv[1:])(prog_name="clawker-fw")
    except KeyboardInterrupt:  # after everything is done
        codes.append(ExitCode.INTERRUPTED)
        sys.exit(ExitCode.INTERRUPTED)
    except SystemExit as end:
        interrupts.end()
        if isinstance(end.code, int):
            codes.append(end.code)
        raise
    finally:
        gc.freeze()


def _provide_home() -> None:
    """Name a home folder that does not exist if this user has none: `~` would be in the current folder."""
    if "HOME" not in os.environ:
        from pathlib import Path  # noqa: PLC0415 - interrupts are held before anything is imported that takes time

        try:
            Path.home()
        except RuntimeError:
            os.environ["HOME"] = "/nonexistent"  # as Debian's passwd has it


def _end(codes: list[int]) -> None:
    """End with the exit code, if there is one and everything has been written.

    Otherwise the interpreter takes each module apart first, which takes 10 ms, and the kernel frees everything
    anyway.
    """
    if not codes:
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # the interpreter says what could not be written, and ends with 120
    os._exit(codes[0])


if __name__ == "__main__":
    main()
