"""The name of the page on which agents read what was refused to them. It is ours, whatever the rules say."""

PAGE, PAGE_PORT = "clawker.internal", 80
"""Its name, and the only port at which it is: `http://clawker.internal/`."""


def is_ours(name: str) -> bool:
    """Whether a name is that of the page, or below it: no rule can be for it."""
    return name == PAGE or name.endswith(f".{PAGE}")
