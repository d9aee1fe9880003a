"""Arguments and variables that are not UTF-8 are never treated as a bug."""

import pytest

from tests.cli.conftest import Command

FOREIGN = "\udcff"
"""The byte 0xFF in an argument, as Python reads it (PEP 383)."""

LINES: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (("rules", "allow", f"x{FOREIGN}.test", "--no-reload"), 2, "usage"),
    (("rules", "deny", f"x{FOREIGN}.test", "--no-reload"), 2, "usage"),
    (("rules", "allow", "https://x.test", "--path", f"/a{FOREIGN}", "--no-reload"), 2, "usage"),
    (("rules", "allow", "https://x.test", "--path", f"~/a{FOREIGN}", "--no-reload"), 2, "usage"),
    (("rules", "allow", "https://x.test", "--note", FOREIGN, "--no-reload"), 2, "usage"),
    (("--config", f"{FOREIGN}.yaml", "rules", "check"), 3, "settings-not-found"),
    (("--project", FOREIGN, "rules", "check"), 2, "usage"),
    ((FOREIGN,), 2, "usage"),
)


@pytest.mark.parametrize(("line", "code", "error"), LINES, ids=[ascii(" ".join(line)) for line, _, _ in LINES])
def test_words_of_a_line(line: tuple[str, ...], code: int, error: str, command: Command) -> None:
    """Each is refused or accepted unchanged."""
    outcome = command(*line)
    assert outcome.code == code
    assert f"error[{error}]" in outcome.err


def test_a_url_with_a_foreign_octet(command: Command) -> None:
    """Clients send it escaped, so it is explained in that form."""
    assert "allowed  https a.test:443" in command("explain", f"https://a.test/{FOREIGN}").out
    assert command("explain", f"https://x{FOREIGN}.test/").code == 1


@pytest.mark.parametrize("name", ["CLAWKER_FW_RULES", "CLAWKER_FW_OTEL__ENDPOINT"])
def test_variables_that_are_settings(name: str, command: Command) -> None:
    """The error names the variable."""
    outcome = command("rules", "check", **{name: f"a{FOREIGN}"})
    assert outcome.code == 3
    assert f"{name}, line 1 is not YAML" in outcome.said
