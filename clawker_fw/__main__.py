"""The program: `clawker-fw`, or `python -m clawker_fw`."""

import gc

_ALLOCATIONS = 100_000
"""How many new objects are looked through for garbage at once; that of Python 3.11 is 700."""


def main() -> None:
    """Run the program and exit.

    What it imports makes many objects, and none of them is garbage: looking for some would take a fifth of the
    time of starting, and once more at the end, 60 ms. So it is looked for rarely, and not at all at the end.
    """
    gc.set_threshold(_ALLOCATIONS)
    from clawker_fw.cli import app  # noqa: PLC0415 - the import is what is made quicker
    from clawker_fw.report import log, terminal  # noqa: PLC0415 - the same

    terminal.guard()
    log.capture()
    try:
        app(prog_name="clawker-fw")
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
