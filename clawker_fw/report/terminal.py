"""The standard streams, and the one place where what is printed is made harmless.

Names, labels, files and what processes say come from others: an escape sequence in them could hide a line, or
type into the terminal. `visible` shows such characters instead. Without `rich`, whose import takes long.
"""

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from clawker_fw.errors import OutputError


def visible(text: str, *, keep: str = "") -> str:
    r"""Return a text in which everything that does not print is written as Python would: `\x1b`, `\u202e`.

    That takes in line breaks, which could forge a line; those in `keep` stay. Doing it twice changes nothing.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def understands_escapes(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal, and more than a dumb one."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def show_cursor() -> None:
    """Have the terminal show its cursor again, before the program ends in the middle of something."""
    if understands_escapes(sys.stderr):
        sys.stderr.write("\x1b[?25h")
        sys.stderr.flush()


def answer(text: str) -> None:
    """Print an answer of one line or several."""
    answer_styled(visible(text, keep="\n"))


def answer_styled(text: str) -> None:
    """Print what is harmless already, and has styles of ours in it."""
    if sys.stdout:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


class Stream(io.TextIOWrapper):
    """A standard stream on which nobody may be listening.

    A reader that has gone wants no more: the program goes on, and ends with the exit code that it would have had.
    A disk that is full is an error, once, if what is lost is the answer.
    """

    matters = False

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return super().write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            super().flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Write everything else to nowhere, or the interpreter complains once more when it ends."""
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
        if self.matters and not isinstance(error, BrokenPipeError):
            raise OutputError(
                "output-failed",
                f"The answer can't be written: {error.strerror}.",
                hint="Whatever the command was to do is done; only its answer is lost.",
            ) from error


class Answer(Stream):
    """Standard output: an answer that is lost is an error."""

    matters = True


def guard() -> None:
    """Put such streams in the place of standard output and standard error. One that is closed is nobody."""
    sys.stdout = _guarded(sys.stdout, Answer)
    sys.stderr = _guarded(sys.stderr, Stream)


def _guarded(stream: object, kind: type[Stream]) -> Stream:
    if not isinstance(stream, io.TextIOWrapper):  # the interpreter has None for a closed descriptor
        return kind(Path(os.devnull).open("wb"), encoding="utf-8")
    interactive, encoding = stream.line_buffering, stream.encoding
    return kind(stream.detach(), encoding=encoding, errors="backslashreplace", line_buffering=interactive)
