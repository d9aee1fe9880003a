"""The program: `clawker-fw`, or `python -m clawker_fw`."""

import os
import pwd
import sys

from clawker_fw import interrupts

interrupts.hold()


def main() -> None:
    """Run the program and exit."""
    from clawker_fw.cli.main import app  # noqa: PLC0415 - interrupts are held before anything is imported that takes time
    from clawker_fw.errors import ExitCode  # noqa: PLC0415 - the same
    from clawker_fw.report import log, terminal  # noqa: PLC0415 - the same

    _provide_home()
    terminal.guard()
    log.capture()
    try:
        app()
    except KeyboardInterrupt:  # after the command has finished
        sys.exit(ExitCode.INTERRUPTED)
    finally:
        interrupts.end()


def _provide_home() -> None:
    """Set a home folder that does not exist if this user has none: `~` would be in the current folder."""
    if "HOME" not in os.environ:
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            os.environ["HOME"] = "/nonexistent"  # as in Debian's passwd


if __name__ == "__main__":
    main()
