"""Settings in environment variables: `CLAWKER_FW_OTEL__INFRA_PORT` is `otel.infra_port`."""

from collections.abc import Mapping

ENVIRONMENT_PREFIX = "CLAWKER_FW_"
RULES_VARIABLE = f"{ENVIRONMENT_PREFIX}RULES"

OPTION_VARIABLES = frozenset(
    {"CONFIG", "PROJECT", "HOST", "CONTEXT", "SECRETS", "LOG_FORMAT", "DEBUG", "FORMAT", "GROUP"}
)
"""Variables with our prefix that belong to command line options."""

IGNORED_VARIABLES = OPTION_VARIABLES | {"VERSION"}
"""Variables with our prefix that are valid but not settings. Install scripts pin a release with `VERSION`."""

Variables = tuple[tuple[str, str], ...]
"""Sorted variables with our prefix, and their values."""


def variables(environment: Mapping[str, str]) -> Variables:
    """Return the variables with our prefix."""
    ours = ((name, text) for name, text in environment.items() if name.startswith(ENVIRONMENT_PREFIX))
    return tuple(sorted(ours))
