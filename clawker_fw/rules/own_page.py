"""The reserved name of the page on which agents read their refusals. No rule can change it."""

PAGE, PAGE_PORT = "clawker.internal", 80
"""The page's name and its only port: `http://clawker.internal/`."""


def is_ours(name: str) -> bool:
    """Whether a name is the page's name or below it. Rules can't use such names."""
    return name == PAGE or name.endswith(f".{PAGE}")
