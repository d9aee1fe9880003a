"""The standard streams, and the one place where printed text is made harmless.

Names, labels, files and processes' output are untrusted: escape sequences could hide a line or type into the
terminal, so `visible` escapes them. This module does not import `rich`, which is slow.
"""

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from clawker_fw.errors import OutputError
from clawker_fw.report.commands import named


def visible(text: str, *, keep: str = "") -> str:
    r"""Return a text with unprintable characters except `keep` escaped as in Python: `\x1b`, `\u202e`. Idempotent.

    Line breaks are escaped as well, because they could forge a line.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def understands_escapes(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that interprets escape sequences."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def show_cursor() -> None:
    """Show the terminal's cursor again if the program exits while a spinner is running."""
    if understands_escapes(sys.stderr):
        sys.stderr.write("\x1b[?25h")
        sys.stderr.flush()


class _Answer:
    """Whether this process has begun its answer, so that no second one follows."""

    begun = False


def expect_answer() -> None:
    """Note the start of a command, which has not answered yet."""
    _Answer.begun = False


def answered() -> bool:
    """Whether any answer has been printed, even if it could not be written."""
    return _Answer.begun


def answer(text: str, *, verbatim: bool = False) -> None:
    """Print an answer. Its commands get our options, unless it is `verbatim`."""
    _Answer.begun = True
    if sys.stdout:
        sys.stdout.write(visible(f"{text if verbatim else named(text)}\n", keep="\n"))
        sys.stdout.flush()


class Stream(io.TextIOWrapper):
    """A standard stream that survives a closed pipe and a full disk.

    If the reader has gone, the program continues and exits with its usual code. Another failure, such as a full
    disk, is reported once, and only if the answer is lost.
    """

    matters = False

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Redirect later output to /dev/null, so that the interpreter does not fail again at exit."""
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
        if self.matters and not isinstance(error, BrokenPipeError):
            raise OutputError(
                "output-failed",
                f"The answer can't be written: {error.strerror}.",
                hint="The command has done its work; only the answer is lost.",
            ) from error


class AnswerStream(Stream):
    """Standard output: losing an answer is an error."""

    matters = True


def guard() -> None:
    """Guard standard output and standard error. /dev/null replaces a closed one."""
    sys.stdout = _guarded(sys.stdout, AnswerStream)
    sys.stderr = _guarded(sys.stderr, Stream)


def _guarded(stream: object, kind: type[Stream]) -> Stream:
    if not isinstance(stream, io.TextIOWrapper):  # None stands for a closed descriptor
        return kind(Path(os.devnull).open("wb"), encoding="utf-8")
    interactive, encoding = stream.line_buffering, stream.encoding
    return kind(stream.detach(), encoding=encoding, errors="backslashreplace", line_buffering=interactive)
