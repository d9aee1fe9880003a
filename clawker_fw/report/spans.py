"""Numbers and time spans in words."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 rule`, `2,000 rules`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def remaining(seconds: float) -> str:
    """Return a time span in its two largest units, e.g. `1 h 5 min`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [
        f"{value} {unit}" for value, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")) if value
    ]
    return " ".join(parts[:2]) or "0 s"
