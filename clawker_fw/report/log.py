"""Log records on standard error: text for people, or JSON for programs with `--log-format`.

For programs, everything on standard error is a record: steps, findings, errors and notices.
"""

import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from traceback import format_exception
from typing import Any, TextIO

from clawker_fw.errors import FirewallError
from clawker_fw.report.commands import named, named_in
from clawker_fw.report.terminal import visible

LOG = logging.getLogger("clawker_fw")
_WARNINGS = logging.getLogger("py.warnings")
_STACK: ContextVar[str] = ContextVar("stack", default="")
"""The stack that records are about, if a command concerns several."""


class LogFormat(StrEnum):
    """The format of records. As text, they are lines for people, among what else people read."""

    TEXT = "text"
    JSON = "json"


class _Formatter(logging.Formatter):
    """Formats an event and its fields as one line. As text, a notice for people is only its sentence."""

    def __init__(self, style: LogFormat) -> None:
        super().__init__()
        self._as = style

    def format(self, record: logging.LogRecord) -> str:
        words, stack = named(getattr(record, "words", "")), _STACK.get()
        if self._as is LogFormat.TEXT:
            about = f"{stack}: " if stack else ""
            return visible(about + words) if words else self._for_people(record, about)
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **({"stack": stack} if stack else {}),
            **({"message": words} if words else {}),
            **self._fields(record),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        return {key: named_in(value) for key, value in getattr(record, "fields", {}).items()}

    def _for_people(self, record: logging.LogRecord, about: str) -> str:
        time_ = f"{datetime.fromtimestamp(record.created).astimezone():%H:%M:%S}"
        line = getattr(record, "line", "")
        if not line:
            event, fields = record.getMessage(), self._fields(record)
            event = event.replace("_", " ") if record.name == LOG.name else event
            level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
            if "message" in fields:
                line = f"{level}{fields['message']} {fields.get('hint', '')}".rstrip()
            else:
                words = ", ".join(f"{key} {value}" for key, value in fields.items())
                line = f"{level}{event}{f': {words}' if words else ''}"
        line = f"{time_}  {visible(about + line)}"
        return f"{line}\n{traceback(record.exc_info[1])}" if record.exc_info and record.exc_info[1] else line


class _LineHandler(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`, which `rich` replaces while a spinner runs to keep the two apart."""

    def __init__(self, style: LogFormat) -> None:
        logging.Handler.__init__(self)
        self.for_programs = style is not LogFormat.TEXT
        self.setFormatter(_Formatter(style))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # like logging's own handler of last resort
        return sys.stderr


@contextmanager
def about(stack: str) -> Iterator[None]:
    """Name this stack in all records until the context ends."""
    before = _STACK.set(stack)
    try:
        yield
    finally:
        _STACK.reset(before)


def stack() -> str:
    """Return the stack that records are about, or "" if the command is about one alone."""
    return _STACK.get()


def traceback(error: BaseException) -> str:
    """Return an error's traceback, made safe to print."""
    return visible("".join(format_exception(error)).rstrip(), keep="\n")


def configure(style: LogFormat, *, debug: bool) -> None:
    """Send our records to standard error; with `debug`, also those of libraries."""
    everything = logging.getLogger()
    for logger in (everything, LOG, _WARNINGS):
        for handler in [handler for handler in logger.handlers if isinstance(handler, _LineHandler)]:
            logger.removeHandler(handler)
    for logger in (everything,) if debug else (LOG, _WARNINGS):
        logger.addHandler(_LineHandler(style))
    LOG.setLevel(logging.DEBUG if debug else logging.INFO)
    everything.setLevel(logging.DEBUG if debug else logging.WARNING)


def for_programs() -> bool:
    """Whether everything on standard error is a record."""
    handlers = (*logging.getLogger().handlers, *LOG.handlers)
    return any(isinstance(handler, _LineHandler) and handler.for_programs for handler in handlers)


def debugging() -> bool:
    """Whether debug records and tracebacks are written."""
    return LOG.isEnabledFor(logging.DEBUG)


def capture() -> None:
    """Log warnings of libraries and exceptions in threads as records."""
    logging.captureWarnings(capture=True)
    threading.excepthook = _thread_failed


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    extra = {"line": "a part of this program has failed in the background"}
    LOG.error("thread_failed", extra=extra, exc_info=failed.exc_value)


def error(failure: FirewallError, *, debug: bool) -> None:
    """Write an error as a record."""
    extra = {"fields": {**failure.fields, "hint": failure.hint}, "line": f"error: {failure.in_one_line}"}
    LOG.error("error", extra=extra, exc_info=failure if debug else None)


def notice(event: str, words: str) -> None:
    """Log an event with a sentence for people."""
    LOG.info(event, extra={"words": words})
