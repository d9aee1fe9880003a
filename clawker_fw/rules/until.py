"""When a rule ends: a time with its zone in the settings, and a time from now on the command line."""

import re
from datetime import UTC, date, datetime, timedelta

_EXAMPLE = "write a time with its zone, like `2027-01-31T18:00:00Z`"
_EXAMPLES = f"{_EXAMPLE}, one from now, like `30m`, `8h` or `7d`, or `never`"
_NEVER = "never"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FROM_NOW = re.compile(r"(\d{1,6})([smhd])")
_FIRST = datetime.fromtimestamp(0, UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
"""What can be kept as seconds since 1970, and written with a year of four digits."""


def parse_until(value: object) -> datetime:
    """Read a time (RFC 3339). YAML gives a time or text.

    Raises:
        ValueError: when it is none, one without a zone, which would mean another time on another machine, or one
            that can't be kept.
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
        if not _FIRST <= value <= _LAST:  # comparing is possible where converting is not
            raise ValueError(f"{value!s} must be in the years {_FIRST.year} to {_LAST.year} (UTC)")
        return value.astimezone(UTC).replace(microsecond=0)
    day = "is a day without a time" if isinstance(value, date) else "is not a time"
    raise ValueError(f"{value!s} {'has no time zone' if isinstance(value, datetime) else day}; {example}")


def rfc3339(seconds: float) -> str:
    """Return a time in seconds since 1970 as text in UTC that `parse_until` reads."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_until_from(text: str, now: datetime) -> datetime | None:
    """Read a time, or one from now: a number with `s`, `m`, `h` or `d` (`30m`). None is `never`.

    Raises:
        ValueError: when it is none of these, or has passed.
    """
    if text.strip() == _NEVER:
        return None
    match = _FROM_NOW.fullmatch(text.strip())
    until = now + timedelta(seconds=int(match[1]) * _UNITS[match[2]]) if match else _read(text, _EXAMPLES)
    if until <= now:
        raise ValueError(f"{text!r} has passed")
    return until.astimezone(UTC).replace(microsecond=0)
