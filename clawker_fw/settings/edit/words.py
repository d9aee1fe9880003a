"""Builds rules from the words of a command, for the command line and for simulated commands. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from clawker_fw.rules.naming import parse_name, port_of
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.schema import ALIASES, RuleEntry, mistake
from clawker_fw.rules.until import parse_until_from
from clawker_fw.settings.edit.edits import Addition

_HERE = "the command line"

_OPTIONS = {
    "add `force: true` to the rule": "use `--force`",
    "add `allow_private: true`": "use `--private`",
    "add `as`": "add `--as`",
}
"""Hints of validation, and their form on the command line."""


class WordsError(ValueError):
    """The words don't make a valid rule. `option` names the wrong option, if any."""

    def __init__(self, sentence: str, option: str = "") -> None:
        """Store the option beside the sentence."""
        super().__init__(sentence)
        self.option = option


@dataclass(frozen=True, slots=True)
class AllowCommand:
    """A `rules allow` command with its options."""

    name: str
    as_: str = ""
    private: bool = False
    force: bool = False
    until: str = ""
    path: str = ""
    method: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The words after the program's name and its global options."""
        options = (
            *(("--as", self.as_) if self.as_ else ()),
            *(("--path", self.path) if self.path else ()),
            *(("--methods", self.method) if self.method else ()),
            *(("--private",) if self.private else ()),
            *(("--force",) if self.force else ()),
            *(("--until", self.until) if self.until else ()),
        )
        name = ("--", self.name) if self.name.startswith("-") else (self.name,)
        return ("rules", "allow", *options, *name) if len(name) > 1 else ("rules", "allow", *name, *options)

    def addition(self, now: float, note: str | None = None) -> Addition:
        """Return the rule that the command adds at a time. Raise WordsError if the command would refuse it."""
        fields = {
            "action": "allow",
            "as": self.as_ or None,
            "allow_private": self.private or None,
            "force": self.force,
            "until": self.until or None,
            "note": note,
            "path_rules": path_rules([self.path], self.method) if self.path else None,
        }
        (addition,) = additions([self.name], None, None, fields, datetime.fromtimestamp(now, UTC))
        return addition


def additions(
    names: Sequence[str], protocol: str | None, port: str | None, fields: Mapping[str, Any], now: datetime
) -> list[Addition]:
    """Return the additions that the command line asks for. Fields without an option are None."""
    given_fields = {name: value for name, value in fields.items() if value is not None}
    chosen = frozenset(given_fields)
    if "until" in given_fields:
        try:
            given_fields["until"] = parse_until_from(given_fields["until"], now)
        except ValueError as error:
            raise WordsError(str(error), "--until") from error
    rules = [rule(named(name, protocol, port) | given_fields | _socket(name, protocol, fields)) for name in names]
    return [Addition(rule, fields["note"], chosen=chosen) for rule in rules]


def _socket(name: str, protocol: str | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field for WebSockets: `wss` allows them with TLS inspection, which paths imply."""
    schemes = {(parse_name(name).proto or "").lower(), (protocol or "").lower()}
    return {"websocket": True} if "wss" in schemes and fields.get("path_rules") else {}


def path_rules(paths: Sequence[str] | None, methods: str | None) -> list[dict[str, Any]] | None:
    """Return `path_rules` with the command's paths, each for the same methods."""
    if not paths:
        if methods:
            raise WordsError("methods are for a path: add `--path`", "--methods")
        return None
    chosen = [method.strip() for method in (methods or "").split(",") if method.strip()]
    return [{"path": path, **({"methods": chosen} if chosen else {})} for path in paths]


def rule(fields: dict[str, Any]) -> Rule:
    """Return one rule, validated as in the settings. Raise WordsError if it is invalid."""
    try:
        return RuleEntry.model_validate(fields).rule(_HERE)
    except ValidationError as error:
        sentence = "; ".join(map(mistake, error.errors(include_url=False)))
        for field, option in _OPTIONS.items():
            sentence = sentence.replace(field, option)
        raise WordsError(sentence) from error


def named(name: str, protocol: str | None, port: str | None) -> dict[str, Any]:
    """Return the fields from a destination and the options."""
    parts = parse_name(name)
    fields: dict[str, Any] = {"dst": parts.dst}
    of_both = [word and ALIASES.get(word.lower(), word.lower()) for word in (parts.proto, protocol)]
    pairs: dict[str, tuple[object, object]] = {
        "proto": (of_both[0], of_both[1]),
        "port": (parts.port, port_of(port)),
    }
    for option, (of_name, of_option) in pairs.items():
        if of_name is not None and of_option is not None and of_name != of_option:
            raise WordsError(f"{name!r} and `--{option} {of_option}` contradict each other")
        if (value := of_option if of_name is None else of_name) is not None:
            fields[option] = value
    return fields
