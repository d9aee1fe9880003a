"""The program: `clawker-fw`, or `python -m clawker_fw`."""

import gc
import sys

ALLOCATIONS = 1_000_000
"""Allocations between two runs of the garbage collector. The default of Python 3.11 is 700."""


def main() -> None:
    """Run the program and exit.

    Imports allocate many objects and hardly any garbage. Collecting garbage at the usual rate would take a fifth
    of the start-up time, and another 60 ms at exit. So it runs rarely, and never at exit.
    """
    gc.set_threshold(ALLOCATIONS)
    from clawker_fw.cli import program  # noqa: PLC0415 - imported after the threshold is raised
    from clawker_fw.report import log, terminal  # noqa: PLC0415 - the same

    terminal.guard()
    log.capture()
    try:
        program(sys.argv[1:])(prog_name="clawker-fw")
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
