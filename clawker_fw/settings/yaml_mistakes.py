"""Explains common YAML errors in settings, each with its line and its fix. Pure."""

import re

import yaml

from clawker_fw.errors import SettingsError

KEPT = "A running firewall keeps its rules."

_NO_SPACE = re.compile(r"^[\s\[{-]*['\"]?[a-z_]+['\"]?:(?=[^\s/])")
_TWO_COLONS = re.compile(r":\s.*:(\s|$)")
_DASH_WITHOUT_SPACE = re.compile(r"^\s*-[a-z]")
_UNDEFINED_ALIAS = "found undefined alias"
_WORDS_OF_CONTEXT = {
    "while parsing a flow sequence": ("`[` is not closed, or a comma is missing", "Close the list with `]`."),
    "while parsing a flow mapping": ("`{` is not closed, or a comma is missing", "Close the mapping with `}`."),
    "while parsing a flow node": ("a bracket is not closed", "Close each `[` with `]`, and each `{` with `}`."),
    "while scanning a quoted scalar": ("a quote is not closed", "Close the text with the same quote."),
}


def lacks_space(line: str) -> bool:
    """Whether a key's colon on this line is not followed by a space."""
    return bool(_NO_SPACE.match(line))


def not_yaml(text: str, source: str, error: yaml.MarkedYAMLError) -> SettingsError:
    """Return an error that explains a parser's error."""
    number, sentence, fix = _explained(text.splitlines(), error)
    return SettingsError(
        "settings-invalid", f"{source}, line {number} is not YAML: {sentence}.", hint=f"{fix} {KEPT}"
    )


def _explained(lines: list[str], error: yaml.MarkedYAMLError) -> tuple[int, str, str]:
    """Return the line's number, the problem and its fix."""
    at, column = (error.problem_mark.line, error.problem_mark.column) if error.problem_mark else (0, 0)
    start = error.context_mark.line if error.context_mark else at
    context, problem = error.context or "", error.problem or ""
    line = lines[at] if at < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return at + 1, "a tab indents it", "Indent with spaces."
    if context == "while scanning an alias" or problem.startswith(_UNDEFINED_ALIAS):
        fix = "Write `.example.com` for a name and everything below it. Put other text in quotes."
        return at + 1, "`*` begins a YAML alias", fix
    if words := _WORDS_OF_CONTEXT.get(context):
        return start + 1, *words
    for index in (at, at - 1, start):
        if 0 <= index < len(lines) and (words := _of_line(lines[index])):
            return index + 1, *words
    if "could not find expected ':'" in problem:
        return start + 1, "a key has no colon", "Write `key: value`."
    return at + 1, *_of_problem(problem, line, column)


def _of_line(line: str) -> tuple[str, str] | None:
    if lacks_space(line):
        return "a colon has no space after it", "Write `key: value`, with a space after the colon."
    if _DASH_WITHOUT_SPACE.match(line):
        return "a dash has no space after it", "Begin each entry of a list with a dash and a space."
    return None


def _of_problem(problem: str, line: str, column: int) -> tuple[str, str]:
    if "cannot start any token" in problem:
        return f"no text begins with `{line[column : column + 1]}`", "Put the text in quotes."
    if "mapping values" in problem and _TWO_COLONS.search(line):
        return "it has two colons", "Put the text after the first colon in quotes."
    if problem == "but found another document":
        return "a second document begins", "Remove the line `---`."
    if line[:column].strip() and re.search("['\"]", line):
        return "a quote is not closed, here or further up", "Close each text with its quote."
    fix = "Start the keys of a mapping, and the dashes of a list, at the same column as those above."
    return "its indentation does not fit the lines above", fix
