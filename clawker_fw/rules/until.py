"""A rule's expiry: an absolute time in the settings, and also a relative one on the command line."""

import re
from datetime import UTC, date, datetime, timedelta

_EXAMPLE = "write a time with its zone, like `2027-01-31T18:00:00Z`"
_EXAMPLES = f"{_EXAMPLE}, one from now, like `30m`, `8h` or `7d`, or `never`"
_NEVER = "never"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FROM_NOW = re.compile(r"(\d{1,6})([smhd])")
_FIRST = datetime.fromtimestamp(0, UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
"""The range of seconds since 1970 and of years with four digits."""


def parse_until(value: object) -> datetime:
    """Read an RFC 3339 time, which YAML yields as a datetime or text.

    Raises:
        ValueError: when it is not a time, is out of range, or has no zone and so depends on the machine.
    """
    if isinstance(value, str) and _FROM_NOW.fullmatch(value.strip()):
        raise ValueError(
            f"{value!r} is a time from now, and a settings file is read again and again; {_EXAMPLE}, "
            "or use `clawker-fw rules allow --until`"
        )
    return _read(value, _EXAMPLE)


def _read(value: object, example: str) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"{value!r} is not a time; {example}") from None
    if isinstance(value, datetime) and value.tzinfo is not None:
        if not _FIRST <= value <= _LAST:  # the comparison works where the conversion fails
            raise ValueError(f"{value!s} must be in the years {_FIRST.year} to {_LAST.year} (UTC)")
        return value.astimezone(UTC).replace(microsecond=0)
    day = "is a day without a time" if isinstance(value, date) else "is not a time"
    raise ValueError(f"{value!s} {'has no time zone' if isinstance(value, datetime) else day}; {example}")


def rfc3339(seconds: float) -> str:
    """Return seconds since 1970 as UTC text that `parse_until` reads."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_until_from(text: str, now: datetime) -> datetime | None:
    """Read a time, or a duration from now such as `30m`; None is `never`. Raise ValueError if invalid or past."""
    if text.strip() == _NEVER:
        return None
    match = _FROM_NOW.fullmatch(text.strip())
    until = now + timedelta(seconds=int(match[1]) * _UNITS[match[2]]) if match else _read(text, _EXAMPLES)
    if until <= now:
        raise ValueError(f"{text!r} has passed")
    return until.astimezone(UTC).replace(microsecond=0)
