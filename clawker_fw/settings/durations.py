"""Durations in settings and options."""

import re

LONGEST_DURATION = 86400
"""In seconds."""


def parse_duration(value: object) -> float:
    """Read a number of seconds, or a number with `ms`, `s`, `m`, `h`, `d` or `w`. Raise ValueError otherwise."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "": 1.0}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w|)\s*", str(value))
    if match is None or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a duration; write a number with ms, s, m, h, d or w, such as `30s`")
    return float(match[1]) * units[match[2]]


def readable(seconds: float) -> str:
    """Return a duration in a readable unit: `30m`."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
