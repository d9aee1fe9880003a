"""Structured log records on standard error: `event=… key=value`, or one JSON object a line."""

import json
import logging
from datetime import UTC, datetime
from typing import Any


class _Formatter(logging.Formatter):
    """Puts an event and its fields into one line."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        if self._as_json:
            return json.dumps(fields)
        return " ".join(f"{key}={_plain(value)}" for key, value in fields.items())


def _plain(value: object) -> str:
    """Return a value for a text line; one that could be read in two ways is quoted as JSON does it."""
    text = str(value)
    clean = text and not any(character.isspace() or character in '"=' for character in text)
    return text if isinstance(value, str) and clean else json.dumps(value)


def configure(*, as_json: bool, debug: bool) -> None:
    """Send our records to standard error, and with `debug` those of the libraries too."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(as_json=as_json))
    logger = logging.getLogger() if debug else logging.getLogger("clawker_fw")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
